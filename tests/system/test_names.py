#!/usr/bin/python3
"""Names of files that a program has open, takes away and makes anew."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from twins import endless, killed_with_twin


def loses_names(t, *user):
    def argv(port, who):
        place = os.path.join(t.dir, f"files-{who}")
        os.makedirs(place, exist_ok=True)
        if user:
            os.chown(place, int(user[0]), -1)
        return [subject("nameless"), place, str(port), *user]

    def one():
        return t.random.choice(("tmp", "tmp", "gone", "moved", "moved", "over", "mapped", "inside", "inside", "steady", "anew"))

    killed_with_twin(t, argv, endless(one), kills=2 * KILLS)
    links = [name for name in os.listdir(os.path.join(t.dir, "1", "store", "kept")) if name[0] != "."] if not BARE else []
    check(len(links) <= 4, f"the store keeps {links}, and four files are open")


@case
def nameless(t):
    """Files that lose their names while they are open; and names that lost turns took away."""
    loses_names(t)


@case
def renamed_by_others(t):
    """As by logrotate: the file is gone on with, whatever has its name now."""
    port = free_port()
    dialog = UdpDialog(t.program([subject("nameless"), t.dir, str(port)]), port)
    t.at_end(dialog.close)
    path, numbers = os.path.join(t.dir, "steady"), []
    for n in range(1, 13):
        answer = dialog.ask("steady")
        numbers.append(dialog.seq)
        total = 0
        for number in numbers:
            total = (total * 31 + number) % (1 << 64)
        check(answer == f"steady {sum(len(str(x)) + 1 for x in numbers)} {n} {numbers[-1]} {total}", f"turn {n}: {answer}")
        if n % 4 == 1:
            os.rename(path, path + f".{n}")
            path += f".{n}"
            if n % 8 == 1:
                open(os.path.join(t.dir, "steady"), "w").close()
        if n % 2 and not dialog.program.bare:
            time.sleep(0.05)
            dialog.program.kill9()
            dialog.program.restart()


@case
def nameless_of_others(t):
    """The same of a program that was root and is somebody else."""
    if os.geteuid():
        raise Skip("not root")
    loses_names(t, "65534")


@case
def new_names(t):
    """A turn that is lost made names; they are new again when it is done once more."""
    port, place = free_port(), os.path.join(t.dir, "names")
    os.mkdir(place)
    program = t.program([PYTHON, subject("names.py"), str(port), place])
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    for n in range(1, 13):
        if n > 1 and not BARE:
            dialog.socket.send(f"{dialog.seq + 1} make".encode())
            time.sleep(t.random.uniform(0, 0.012))
            program.kill9()
            program.restart()
        answer = dialog.ask("make")
        check(answer == f"{n} made", f"turn {n}: {answer}")


main()
