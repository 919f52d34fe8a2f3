"""Programs that are killed, and compared with a twin that is not."""
from harness import *


def endless(make):
    while True:
        yield make()


def killed_with_twin(t, argv, commands, kills=None, **kw):
    """`argv(port, who)` is the command line; who: "twin" or "program"."""
    twin = Twin(t, lambda port: argv(port, "twin"), **kw)
    port = free_port()
    program = t.program(argv(port, "program"), **kw)
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    t.killed_while(program, Traffic(dialog, commands, twin.answer), kills)
    return dialog
