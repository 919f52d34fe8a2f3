"""The line server at pipes or at a terminal, and what it answers."""
import os

from harness import PipeDialog, subject


def serve_lines(t, p, to_program, from_program, stdin, stdout):
    """The line server with these ends, which the dialog closes."""
    p.stdin, p.stdout, p.argv, p.final = stdin, stdout, [subject("line_server")], 0
    p.dialog = dialog = PipeDialog(p, lambda seq, command: f"{seq} {command}")
    dialog.to_program, dialog.from_program, dialog.open = to_program, from_program, {to_program, from_program, stdin, stdout}
    t.at_end(dialog.close)
    p.start()
    return dialog


def serve_pipes(t, p):
    stdin, writer = os.pipe()
    reader, stdout = os.pipe()
    return serve_lines(t, p, writer, reader, stdin, stdout)


def additions(texts):
    """What the line server is asked for each of them, and what it answers."""
    total = 1
    for n, text in enumerate(texts, 1):
        for byte in text.encode():
            total = (total * 31 + byte) & 0xFFFFFFFF
        yield f"add {text}", f"{n} {total:08x}"
