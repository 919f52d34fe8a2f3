#!/usr/bin/python3
"""Clients and servers as they come from the distribution, both under libken and both killed: no client sees an error, nothing is lost,
repeated or out of order. (redis, http.server, socat, netcat and lua are in test_motion.py.)"""
import json
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from pairs import *
from servers import need_server, nginx_settings, written

SOME = KILLS if LONG else max(2, KILLS // 3)
LIMIT = 120


def more(usual, long):
    return long if LONG else usual


def python_has(module):
    if subprocess.run([PYTHON, "-c", f"import {module}"], capture_output=True).returncode:
        raise Skip(f"python3's {module} is not installed")


def server(t, argv, port, table="tcp"):
    p = t.program(argv)
    p.expected_messages.append("")  # its own words come there, too
    wait_until(lambda: is_open(port, table), f"{os.path.basename(argv[0])}'s port")
    return p


def both(t, o, servers, begun=None, kills=SOME, longest=0.15):
    """Kills begin when the two have met: `begun` is a file that is there then; else the client says something."""
    o.program.expected_messages.append("")
    wait_until(lambda: (os.path.exists(begun) if begun else o.lines()) or o.ended(), "the first word")
    kill_until(t, [o], servers, kills, longest, LIMIT)


def same_file(a, b):
    with open(a, "rb") as x, open(b, "rb") as y:
        return x.read() == y.read()


def files(t, sizes):
    place = os.path.join(t.dir, "www")
    os.makedirs(place)
    for n, size in enumerate(sizes):
        with open(os.path.join(place, f"file{n}"), "wb") as f:
            f.write(t.random.randbytes(size))
    return place


@case(limit=LIMIT)
def curl_and_nginx(t):
    """Many files over connections that are kept, and some over their own; all of them whole."""
    port, count = free_port(), more(60, 1000)
    place = files(t, [t.random.choice((10, 3000, 70000, 1000000)) for _ in range(count)])
    nginx = server(t, [need_server("nginx"), "-c", nginx_settings(t, port, place, "off", "stderr")], port)
    got = os.path.join(t.dir, "got")
    os.makedirs(got)
    script = ["-sS", "--fail-early", "--limit-rate", "12M", "-w", "%{http_code} %{size_download}\\n"]
    for n in range(count):
        script += ["-o", f"{got}/file{n}", f"http://127.0.0.1:{port}/file{n}"]
    o = Output(t, "curl", [need("curl"), "-q"] + script)
    both(t, o, [nginx], f"{got}/file1")
    check(o.lines() == [f"200 {os.path.getsize(f'{place}/file{n}')}" for n in range(count)], f"it says {o.lines()[-3:]}")
    check(all(same_file(f"{place}/file{n}", f"{got}/file{n}") for n in range(count)), "a file differs")


@case(limit=LIMIT)
def wget_and_lighttpd(t):
    """With -N, or it would create each file exclusively: a turn that is done again finds it there already."""
    port, count = free_port(), more(20, 300)
    place = files(t, [t.random.choice((10, 3000, 70000, 1000000)) for _ in range(count)])
    settings = written(t, "lighttpd.conf", f'server.document-root = "{place}"\nserver.bind = "127.0.0.1"\nserver.port = {port}\n')
    lighttpd = server(t, [need_server("lighttpd"), "-D", "-f", settings], port)
    got = os.path.join(t.dir, "got")
    o = Output(t, "wget", [need("wget"), "--no-config", "-nv", "-o", "/dev/stdout", "--tries=1", "-N", "--limit-rate=12M", "-P", got] +
               [f"http://127.0.0.1:{port}/file{n}" for n in range(count)])
    both(t, o, [lighttpd], f"{got}/file0")
    check(all(same_file(f"{place}/file{n}", f"{got}/file{n}") for n in range(count)), f"a file differs; it says {o.lines()[-3:]}")


@case(limit=LIMIT)
def memcached_and_pymemcache(t):
    """Counters go up by one, each time; nothing is asked twice."""
    python_has("pymemcache")
    port, count = free_port(), more(1500, 20000)
    memcached = server(t, [need_server("memcached"), "-u", "root", "-p", str(port), "-l", "127.0.0.1"], port)
    script = (f"from pymemcache.client.base import Client\nc = Client(('127.0.0.1', {port}))\nc.set('n', '0')\nprint('begun', flush=True)\n"
              f"for n in range(1, {count} + 1):\n assert c.incr('n', 1) == n, n\n c.set(f'k{{n % 50}}', str(n), noreply=n % 2 == 0)\n"
              " assert c.get(f'k{n % 50}') == str(n).encode(), n\nprint('done')\n")
    o = Output(t, "client", [PYTHON, "-c", script])
    both(t, o, [memcached])
    check(o.lines() == ["begun", "done"], f"it says {o.lines()}")


@case(limit=LIMIT)
def mosquitto(t):
    """A broker, and what one client says heard by another, with all three qualities of service."""
    port, count = free_port(), more(1500, 20000)
    settings = written(t, "mosquitto.conf", f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\nuser root\n")
    broker = server(t, [need_server("mosquitto"), "-c", settings], port)
    words = os.path.join(t.dir, "words")
    with open(words, "w") as f:
        f.writelines(f"{n}\n" for n in range(count))
    for qos in range(3):
        listener = Output(t, f"sub{qos}", [need("mosquitto_sub"), "-p", str(port), "-t", f"topic{qos}", "-q", str(qos), "-C", str(count + 1)])
        listener.program.expected_messages.append("")
        with open(words) as f:
            deadline = time.monotonic() + PATIENCE
            while not listener.lines():  # until it is there
                check(time.monotonic() < deadline, f"it hears nothing: {listener.program.tail()}")
                subprocess.run([need("mosquitto_pub"), "-p", str(port), "-t", f"topic{qos}", "-r", "-m", "begin"], capture_output=True)
            pub = Output(t, f"pub{qos}", [need("mosquitto_pub"), "-p", str(port), "-t", f"topic{qos}", "-q", str(qos), "-l"], stdin=f)
            pub.program.expected_messages.append("")
            wait_until(lambda: "0" in listener.lines() or pub.ended(), f"the first word {pub.program.tail()}")
            kill_until(t, [listener, pub], [broker], SOME, 0.1, LIMIT)
        heard = [w for w in listener.lines() if w != "begin"]
        check(heard == [str(n) for n in range(len(heard))] and len(heard) > count - 20, f"quality {qos}: {len(listener.lines())} words, the end is {listener.lines()[-3:]}")


@case(limit=LIMIT)
def dig_and_dnsmasq(t):
    """Questions over UDP and over TCP, each answered once, at the first try."""
    port, count = free_port(), more(150, 2000)
    hosts = written(t, "hosts", "".join(f"10.1.{n // 200}.{n % 200 + 1} host{n}.example\n" for n in range(200)))
    dnsmasq = server(t, [need_server("dnsmasq"), "-d", "-p", str(port), "--listen-address=127.0.0.1", "--bind-interfaces", "--no-resolv", "--no-hosts",
                         f"--addn-hosts={hosts}", "--pid-file=", "--user=root", "--local=/example/"], port, "udp")
    for name, flag in (("udp", "+notcp"), ("tcp", "+tcp")):
        questions = written(t, f"questions-{name}", "".join(f"host{n % 200}.example A\n" for n in range(count)))
        o = Output(t, f"dig-{name}", [need("dig"), "@127.0.0.1", "-p", str(port), "+short", "+tries=1", "+time=60", flag, "-f", questions])
        both(t, o, [dnsmasq])
        check(o.lines() == [f"10.1.{n % 200 // 200}.{n % 200 + 1}" for n in range(count)], f"{name}: it says {o.lines()[-3:]}, {len(o.lines())} lines")


@case(limit=LIMIT)
def curl_and_dnsmasq_by_tftp(t):
    """A file in small pieces over UDP, from a port that is made for it."""
    size = more(300_000, 5_000_000)
    if os.geteuid() != 0:
        raise Skip("needs root, for port 69")
    place = files(t, [size])
    dnsmasq = server(t, [need_server("dnsmasq"), "-d", "-p", "0", "--enable-tftp", f"--tftp-root={place}", "--pid-file=", "--user=root",
                         "--listen-address=127.0.0.1", "--bind-interfaces"], 69, "udp")
    o = Output(t, "curl", [need("curl"), "-q", "-sS", "-w", "%{size_download}\\n", "-o", f"{t.dir}/got", "tftp://127.0.0.1/file0"])
    kill_until(t, [o], [dnsmasq], SOME, 0.05, LIMIT)
    check(o.lines() == [str(size)] and same_file(f"{place}/file0", f"{t.dir}/got"), f"it says {o.lines()} {o.program.tail()}")


@case(limit=LIMIT)
def lftp_and_pyftpdlib(t):
    """Files both ways by FTP: a connection for each, that either side makes."""
    python_has("pyftpdlib")
    port, count = free_port(), more(8, 100)
    place, got, back = files(t, [t.random.choice((10, 70000, 2000000)) for _ in range(count)]), f"{t.dir}/got", f"{t.dir}/www/back"
    os.makedirs(got)
    os.makedirs(back)
    ftp = server(t, [PYTHON, "-m", "pyftpdlib", "-i", "127.0.0.1", "-p", str(port), "-w", "-d", place], port)
    script = "set cmd:fail-exit yes; set xfer:clobber yes; set net:max-retries 1; set net:timeout 60; set ftp:use-mdtm no; " \
             "set ftp:port-ipv4 127.0.0.1; open 127.0.0.1:%d; echo begun\n" % port
    for passive in ("yes", "no"):
        script += f"set ftp:passive-mode {passive}\n" + "".join(
            f"get file{n} -o {got}/file{n}-{passive}\nput {got}/file{n}-{passive} -o back/file{n}-{passive}\necho {n}\n" for n in range(count))
    o = Output(t, "lftp", [need("lftp"), "--norc", "-f", written(t, "script", script)])
    both(t, o, [ftp])
    check(o.lines() == ["begun"] + [str(n) for n in range(count)] * 2, f"it says {o.lines()[-3:]} {o.program.tail()}")
    for there in (got, back):
        for passive in ("yes", "no"):
            check(all(same_file(f"{place}/file{n}", f"{there}/file{n}-{passive}") for n in range(count)), f"a file in {there} differs")


@case(limit=LIMIT)
def iperf3(t):
    """It measures what it likes; but both sides come to the end, and what one says it sent the other has."""
    port = free_port()
    out = Output(t, "server", [need("iperf3"), "-s", "-1", "-B", "127.0.0.1", "-p", str(port)])
    out.program.expected_messages.append("")
    wait_until(lambda: is_open(port, "tcp"), "the server's port")
    o = Output(t, "client", [need("iperf3"), "-c", "127.0.0.1", "-p", str(port), "-n", more("100M", "1000M"), "-P", "3", "-J"])
    o.program.expected_messages.append("")
    time.sleep(0.2)
    kill_until(t, [o, out], [], SOME, 0.15, LIMIT)
    end = json.loads("\n".join(o.lines()))["end"]
    check(end["sum_sent"]["bytes"] >= end["sum_received"]["bytes"] > 0, f"it says {end['sum_sent']} {end['sum_received']}")


@case(limit=LIMIT)
def curl_through_nginx_to_python(t):
    """Three programs: a proxy asks a server of its own for each request; uploads and downloads."""
    front, back, count = free_port(), free_port(), more(30, 500)
    script = ("import http.server, hashlib\nclass H(http.server.BaseHTTPRequestHandler):\n protocol_version = 'HTTP/1.1'\n n = 0\n"
              " def do_POST(self):\n  H.n += 1\n  d = self.rfile.read(int(self.headers['Content-Length']))\n"
              "  text = b'%d %s\\n' % (H.n, hashlib.sha256(d).hexdigest().encode())\n  self.send_response(200)\n"
              "  self.send_header('Content-Length', str(len(text)))\n  self.end_headers()\n  self.wfile.write(text)\n"
              f"http.server.HTTPServer(('127.0.0.1', {back}), H).serve_forever()\n")
    upstream = server(t, [PYTHON, "-c", script], back)
    settings = written(t, "nginx.conf", f"""
        daemon off; master_process off; pid {t.dir}/nginx.pid; error_log stderr; events {{}}
        http {{ access_log off; client_body_temp_path {t.dir}; proxy_temp_path {t.dir}; fastcgi_temp_path {t.dir};
            uwsgi_temp_path {t.dir}; scgi_temp_path {t.dir}; client_max_body_size 10m;
            server {{ listen 127.0.0.1:{front}; location / {{ proxy_pass http://127.0.0.1:{back}; proxy_next_upstream off; }} }} }}""")
    proxy = server(t, [need_server("nginx"), "-c", settings], front)
    place = files(t, [t.random.choice((10, 5000, 300000)) for _ in range(5)])
    argv = [need("curl"), "-q", "-sS", "--fail-early"]
    for n in range(count):
        argv += (["--next", "-sS"] if n else []) + ["-H", "Expect:", "--data-binary", f"@{place}/file{n % 5}", f"http://127.0.0.1:{front}/"]
    o = Output(t, "curl", argv)
    both(t, o, [proxy, upstream])
    wanted = [subprocess.run(["sha256sum", f"{place}/file{n}"], capture_output=True, text=True).stdout.split()[0] for n in range(5)]
    check(o.lines() == [f"{n + 1} {wanted[n % 5]}" for n in range(count)], f"it says {o.lines()[-3:]}, {len(o.lines())} lines")


@case(limit=LIMIT)
def netcat_by_datagrams(t):
    """nc -u to socat: each line a datagram, none lost, none twice."""
    port, count = free_port(), more(30000, 300000)
    words, got = os.path.join(t.dir, "words"), os.path.join(t.dir, "got")
    listener = t.program([need("socat"), "-u", f"UDP4-RECV:{port}", f"CREATE:{got}"])
    listener.expected_messages.append("")
    wait_until(lambda: is_open(port), "the listener's port")
    with open(words, "w") as f:
        f.writelines(f"{n:6} {'x' * (n % 50)}\n" for n in range(count))
    with open(words) as f:
        o = Output(t, "socat", [need("socat"), "-u", "-b", "2048", "STDIN", f"UDP4-SENDTO:127.0.0.1:{port}"], stdin=f)
        o.program.expected_messages.append("")
        wait_until(lambda: os.path.exists(got) and os.path.getsize(got), "the first words")
        kill_until(t, [o], [listener], SOME, 0.03, LIMIT)
    wait_until(lambda: os.path.getsize(got) >= os.path.getsize(words), f"the last words: {os.path.getsize(got)} bytes")
    check(same_file(words, got), "what came differs")


@case(limit=LIMIT)
def node_and_node(t):
    """A request's body streams one way while the answer's streams the other."""
    port, size = free_port(), more(3_000_000, 50_000_000)
    place = files(t, [size])
    echo = server(t, [need("node"), "-e", f"require('http').createServer((q, r) => q.pipe(r)).listen({port}, '127.0.0.1')"], port)
    script = (f"const h = require('http'), f = require('fs');\nlet n = 0;\nfunction go() {{\n if (n == 4) return console.log('done');\n"
              f" const q = h.request({{port: {port}, host: '127.0.0.1', method: 'POST'}}, r => {{\n"
              f"  r.pipe(f.createWriteStream('{t.dir}/got' + n)).on('finish', () => {{ console.log(n++); go(); }}) }});\n"
              f" f.createReadStream('{place}/file0').pipe(q);\n}}\nconsole.log('begun'); go();\n")
    o = Output(t, "client", [need("node"), "-e", script])
    both(t, o, [echo])
    check(o.lines() == ["begun", "0", "1", "2", "3", "done"], f"it says {o.lines()} {o.program.tail()}")
    check(all(same_file(f"{place}/file0", f"{t.dir}/got{n}") for n in range(4)), "a file differs")


main()
