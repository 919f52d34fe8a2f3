"""What a program saw, a line each: with libken the same as without."""
import errno


def show(what, value):
    print(f"{what}: {value}", flush=True)


def attempt(what, action):
    """What it returns, or the name of the error."""
    try:
        value = action()
    except OSError as error:
        value = errno.errorcode.get(error.errno, type(error).__name__)
    show(what, value)
