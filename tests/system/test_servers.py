#!/usr/bin/python3
"""Servers as they come from the distribution, each under its own ordinary clients, killed at random.

For each: no acknowledged write is lost, no value goes back, it is up again and answers after each kill.
"""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
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
    """Four worker threads."""
    port = free_port()
    program = t.program([need_server("memcached"), "-u", "root", "-t", "4", "-p", str(port), "-l", "127.0.0.1"])
    torture(t, program, SERVER_KILLS, *(client(MemcacheClient, port, n) for n in range(6)))


def documents(t):
    """A directory with files of known contents; [(name, text)]."""
    place = os.path.join(t.dir, "www")
    os.makedirs(place)
    files = [(f"file{n}.txt", "".join(t.random.choices("abcdefgh \n", k=size)))
             for n, size in enumerate((1, 900, 20_000, 300_000))]
    for name, text in files:
        with open(os.path.join(place, name), "w") as f:
            f.write(text)
    return place, files


def written(t, name, text):
    path = os.path.join(t.dir, name)
    with open(path, "w") as f:
        f.write(text)
    return path


@case
def nginx(t):
    port = free_port()
    place, files = documents(t)
    settings = written(t, "nginx.conf", f"""
        daemon off; master_process off; pid {t.dir}/nginx.pid; error_log stderr; events {{}}
        http {{ access_log off; client_body_temp_path {t.dir}; proxy_temp_path {t.dir}; fastcgi_temp_path {t.dir};
            uwsgi_temp_path {t.dir}; scgi_temp_path {t.dir};
            server {{ listen 127.0.0.1:{port}; root {place}; location = /status {{ stub_status; }} }} }}""")
    program = t.program([need_server("nginx"), "-c", settings])
    counter = "/status", re.compile(r"requests\s+\d+ \d+ (\d+)")
    torture(t, program, SERVER_KILLS, *(client(FileClient, port, n, files, counter) for n in range(3)))


@case
def lighttpd(t):
    port = free_port()
    place, files = documents(t)
    settings = written(t, "lighttpd.conf", f"""
        server.modules = ("mod_status")
        server.document-root = "{place}"
        server.bind = "127.0.0.1"
        server.port = {port}
        status.status-url = "/status"
        mimetype.assign = (".txt" => "text/plain")\n""")
    program = t.program([need_server("lighttpd"), "-D", "-f", settings])
    counter = "/status?auto", re.compile(r"Total Accesses: (\d+)")
    torture(t, program, SERVER_KILLS, *(client(FileClient, port, n, files, counter) for n in range(3)))


@case
def node(t):
    """An http server whose counters are closures."""
    port = free_port()
    program = t.program([need_server("node"), subject("counters.js"), str(port)])
    torture(t, program, SERVER_KILLS, *(client(CounterClient, port, n, http=True) for n in range(3)))


main()
