"""A reboot as the monotonic clocks show it: a program begins in a time namespace of its own (time_namespaces(7))."""
import ctypes

CLONE_NEWTIME = 0x80


def uptime(seconds):
    """For Program.before_exec: the monotonic clocks are ahead of the machine's by so much."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter():
        if libc.unshare(CLONE_NEWTIME):
            raise OSError(ctypes.get_errno(), "no time namespace")
        with open("/proc/self/timens_offsets", "w") as f:
            f.write(f"monotonic {seconds} 0\nboottime {seconds} 0\n")

    return enter
