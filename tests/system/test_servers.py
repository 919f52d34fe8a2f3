#!/usr/bin/python3
"""Servers as they come from the distribution, each under its own ordinary clients, killed at random.

For each: no acknowledged write is lost, no value goes back, it is up again and answers after each kill.
"""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from nats_clients import *
from redis_clients import *
from servers import *

SERVER_KILLS = int(os.environ.get("KEN_KILLS", "15"))


def client(kind, port, number=0, *rest, **kw):
    return lambda load, rng: kind(load, rng, port, number, *rest, **kw)


@case
def redis(t):
    """No persistence of its own; its background threads as they come."""
    port = free_port()
    program = t.program([need_server("redis-server"), "--port", str(port), "--save", "", "--appendonly", "no"])
    torture(t, program, SERVER_KILLS, *(client(RedisKeys, port, n) for n in range(3)), client(RedisExpiry, port),
            client(RedisSubscriber, port), client(RedisPublisher, port), client(RedisPusher, port),
            client(RedisPopper, port))


@case
def beanstalkd(t):
    port = free_port()
    program = t.program([need_server("beanstalkd"), "-l", "127.0.0.1", "-p", str(port)])
    torture(t, program, SERVER_KILLS, *(client(BeanClient, port, n) for n in range(4)))


@case
def memcached(t):
    """Four worker threads, all of which gave up root."""
    port = free_port()
    program = t.program([need_server("memcached"), "-u", "nobody", "-t", "4", "-p", str(port), "-l", "127.0.0.1"])
    torture(t, program, SERVER_KILLS, *(client(MemcacheClient, port, n) for n in range(6)))
    for thread in os.listdir(f"/proc/{program.pid()}/task") if os.geteuid() == 0 else ():
        status = open(f"/proc/{program.pid()}/task/{thread}/status").read()
        check("Uid:\t65534\t65534\t65534\t65534" in status, f"thread {thread} is another user: {status}")


@case
def nats(t):
    """Go: routines on stacks of their own, which grow; a collector of garbage with threads, and streams in memory."""
    port = free_port()
    program = t.program([need_server("nats-server"), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", os.path.join(t.dir, "js"),
                         "-l", os.path.join(t.dir, "log")])
    torture(t, program, SERVER_KILLS, *(client(NatsClient, port, n) for n in range(4)))


@case
def nginx(t):
    port = free_port()
    place, files = documents(t, (1, 900, 20_000, 300_000))
    settings = nginx_settings(t, port, place, "off", "stderr")
    program = t.program([need_server("nginx"), "-c", settings])
    counter = "/status", re.compile(r"requests\s+\d+ \d+ (\d+)")
    torture(t, program, SERVER_KILLS, *(client(FileClient, port, n, files, counter) for n in range(3)))


@case
def lighttpd(t):
    port = free_port()
    place, files = documents(t, (1, 900, 20_000, 300_000))
    settings = lighttpd_settings(t, port, place)
    program = t.program([need_server("lighttpd"), "-D", "-f", settings])
    counter = "/status?auto", re.compile(r"Total Accesses: (\d+)")
    torture(t, program, SERVER_KILLS, *(client(FileClient, port, n, files, counter) for n in range(3)))


def built(name):
    """A subject that needs a library or a compiler which may be missing."""
    path = subject(name)
    if not os.path.exists(path):
        raise Skip(f"{name} was not built: its library or compiler is not installed")
    return path


def run_counters(t, argv, **kw):
    port = free_port()
    program = t.program(argv + [str(port)])
    torture(t, program, SERVER_KILLS, *(client(CounterClient, port, n, **kw) for n in range(4)))


@case
def node(t):
    """An http server whose counters are closures."""
    run_counters(t, [need_server("node"), subject("counters.js")], http=True)


@case
def python_asyncio(t):
    run_counters(t, [PYTHON, subject("counters_asyncio.py")])


@case
def python_threading(t):
    run_counters(t, [PYTHON, subject("counters_threading.py")])


@case
def cpp_threads(t):
    """std::thread, condition variables, futures, thread_local, exceptions from one thread to another."""
    run_counters(t, [built("threads_server")])


def run_tickets(t, clients, *how):
    port = free_port()
    program = t.program([subject("ticket_office"), str(port), *how])
    torture(t, program, SERVER_KILLS, *(client(TicketClient, port, n) for n in range(clients)))


@case
def tickets(t):
    """Threads that share commits: no answer leaves before the state that it came from is durable."""
    run_tickets(t, 10, "nap")


@case
def tickets_busy(t):
    """One thread never comes to rest, and nobody else has anything to do: answers leave all the same."""
    run_tickets(t, 1, "busy")


@case
def libevent(t):
    run_counters(t, [built("event_server")])


@case
def libuv(t):
    """With its pool of threads."""
    run_counters(t, [built("uv_server")])


@case
def dnsmasq(t):
    """Answers from a hosts file; what it read at a SIGHUP stays, and its own statistics never go back."""
    port = free_port()
    hosts = written(t, "hosts", "".join(f"10.0.0.{n} host{n}.test\n" for n in range(1, 100)))
    program = t.program([need_server("dnsmasq"), "--no-daemon", "--no-resolv", "--no-hosts", "--user=root", "--conf-file=/dev/null",
                         f"--port={port}", "--listen-address=127.0.0.1", "--bind-interfaces", f"--addn-hosts={hosts}",
                         f"--pid-file={t.dir}/pid"])
    torture(t, program, SERVER_KILLS, client(DnsClient, port, 0), client(DnsClient, port, 1),
            client(DnsReloader, port, 2, hosts))


@case
def bash_fifo(t):
    """bash reads commands from a FIFO that a new process opens again."""
    fifo = os.path.join(t.dir, "commands")
    os.mkfifo(fifo)
    reader, stdout = os.pipe()
    program = t.program(["/bin/bash", subject("fifo.sh"), fifo], start=False, stdout=stdout)
    dialog = PipeDialog(program, lambda seq, command: f"{seq} {command}")
    dialog.to_program, dialog.from_program = os.open(fifo, os.O_RDWR), reader
    dialog.open = {dialog.to_program, reader, stdout}
    t.at_end(dialog.close)
    program.start()
    counts = {}

    def commands():
        while True:
            key = t.random.choice("abcd")
            yield f"count[{key}]=$(({t.random.randrange(1, 9)} + ${{count[{key}]:-0}})); reply=\"{key} ${{count[{key}]}}\""

    def model(command):
        key, by = command[6], int(command.split("((")[1].split()[0])
        counts[key] = counts.get(key, 0) + by
        return f"{key} {counts[key]}"

    t.killed_while(program, Traffic(dialog, commands(), model), SERVER_KILLS)


main()
