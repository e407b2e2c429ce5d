#!/usr/bin/env python3
"""The gate against its peers, in one run: CPU a request, CPU a new connection, memory a connection.

  gateway.py [--build build/release] [--rounds 3] [--seconds 3] [--only NAME...] [--tests k1 new idle]

Needs nginx, haproxy and openssl. Every contestant is pinned to core 0, the load generator and the
plain backend to core 1. The score is the CPU time of all of a contestant's processes a request, as
a ratio to a peer of the same round; the table is written to standard output as Markdown.
"""
import argparse
import base64
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OWN_PATH = "/whoami"  # answered by the gate itself: recorded, but nothing dialled
PATHS = {"k1": "/debug/pprof/cmdline", "k256": "/debug/pprof/heap", "m16": "/debug/pprof/allocs"}
SIZES = {"k1": 1 << 10, "k256": 256 << 10, "m16": 16 << 20}
CONNECTIONS = {"k1": 32, "k256": 8, "m16": 4, "new": 8, "own": 32}
SECRET = b"bench-hs256-secret-0123456789abcdef"


def b64u(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tree(pid):
    """A process and everything below it."""
    pids = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                pids += tree(int(child))
    return pids


def memory_kb(pids, field):
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(field + ":"):
                    total += int(line.split()[1])
    return total


class Place:
    """Keys, tokens, the backend's files and everybody's configuration, in one folder."""

    def __init__(self, folder):
        self.dir = pathlib.Path(folder)
        self.backend_port = free_port()
        self.openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "ca.key")
        self.openssl("req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=bench-ca", "-days", "2",
                     "-out", "ca.pem")
        self.leaf("srv", "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
        self.leaf("cli", "subjectAltName=URI:spiffe://bench/cli\nextendedKeyUsage=clientAuth\n")
        (self.dir / "srv.both").write_text(
            (self.dir / "srv.pem").read_text() + (self.dir / "srv.key").read_text())
        (self.dir / "secret").write_bytes(SECRET)
        self.openssl("genrsa", "-out", "rsa.key", "2048")
        self.openssl("rsa", "-in", "rsa.key", "-pubout", "-out", "rsa.pub")
        for file in self.dir.glob("*"):
            file.chmod(0o600)
        self.tokens = {"HS256": self.token("HS256"), "RS256": self.token("RS256")}
        self.write_backend()

    def openssl(self, *arguments, data=None):
        return subprocess.run(["openssl", *arguments], cwd=self.dir, input=data, check=True,
                              capture_output=True).stdout

    def leaf(self, name, extensions):
        (self.dir / "ext").write_text(extensions)
        self.openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", f"{name}.key")
        self.openssl("req", "-new", "-key", f"{name}.key", "-subj", f"/CN={name}", "-out", "csr")
        self.openssl("x509", "-req", "-in", "csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                     "-CAcreateserial", "-days", "2", "-extfile", "ext", "-out", f"{name}.pem")

    def token(self, algorithm):
        now = int(time.time())
        head = b64u(json.dumps({"alg": algorithm, "typ": "JWT"}).encode())
        body = b64u(json.dumps({"iss": "bench", "sub": "user1", "aud": "postern", "iat": now,
                                "exp": now + 3000, "scope": "pprof:read"}).encode())
        signed = f"{head}.{body}".encode()
        if algorithm == "HS256":
            signature = hmac.new(SECRET, signed, hashlib.sha256).digest()
        else:
            signature = self.openssl("dgst", "-sha256", "-sign", "rsa.key", data=signed)
        return f"{head}.{body}.{b64u(signature)}"

    def write_backend(self):
        for test, path in PATHS.items():
            file = self.dir / ("www" + path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(os.urandom(SIZES[test]))
        self.nginx("backend", "access_log off; sendfile on; tcp_nopush on; open_file_cache max=100;"
                   f"server {{ listen 127.0.0.1:{self.backend_port} backlog=4096;"
                   f" root {self.dir}/www; }}")

    def nginx(self, name, http):
        temporary = "".join(f"{kind}_temp_path {self.dir}/tmp-{kind}; " for kind in
                            ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (self.dir / f"{name}.conf").write_text(
            f"daemon off; worker_processes 1; worker_rlimit_nofile 20000;"
            f"events {{ worker_connections 12000; }} error_log {self.dir}/{name}.err;"
            f"pid {self.dir}/{name}.pid; http {{ {temporary} tcp_nodelay on;"
            f"keepalive_requests 100000000; keepalive_timeout 120s; client_header_timeout 120s;"
            f"default_type application/octet-stream; {http} }}")

    def nginx_front(self, name, port, extra=""):
        self.nginx(name, f"""access_log off; upstream be {{ server 127.0.0.1:{self.backend_port};
            keepalive 64; keepalive_requests 100000000; }}
            server {{ listen 127.0.0.1:{port} ssl backlog=4096; ssl_certificate {self.dir}/srv.pem;
            ssl_certificate_key {self.dir}/srv.key; ssl_protocols TLSv1.3;
            ssl_session_tickets off; ssl_session_cache off; {extra}
            location / {{ proxy_pass http://be; proxy_http_version 1.1;
            proxy_set_header Connection ""; proxy_max_temp_file_size 0; proxy_buffers 16 32k;
            proxy_buffer_size 16k; }} }}""")

    def haproxy_front(self, name, port, algorithm, key, dial):
        """Client certificate, address list, rates, token, log: what the gate does, as far as it goes."""
        reuse = "http-reuse never\n  option http-server-close" if dial else "http-reuse always"
        pool = 0 if dial else 200
        (self.dir / f"{name}.cfg").write_text(f"""global
  nbthread 1
  maxconn 8000
  tune.ssl.cachesize 0
  ssl-default-bind-options no-tls-tickets ssl-min-ver TLSv1.3
  log stdout len 4096 format raw local0 info
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout http-keep-alive 120s
  timeout http-request 120s
  timeout server 60s
  {reuse}
frontend f
  bind 127.0.0.1:{port} ssl crt {self.dir}/srv.both alpn http/1.1 ca-file {self.dir}/ca.pem verify required
  maxconn 8000
  log global
  option httplog
  acl okip src 127.0.0.0/8
  http-request deny deny_status 403 unless okip
  stick-table type ip size 100k expire 30s store http_req_rate(10s)
  http-request track-sc0 src
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 100000000 }}
  http-request set-var(txn.bearer) http_auth_bearer
  http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
  http-request set-var(txn.iss) var(txn.bearer),jwt_payload_query('$.iss')
  http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
  http-request set-var(txn.now) date()
  http-request deny deny_status 401 unless {{ var(txn.alg) -m str {algorithm} }}
  http-request deny deny_status 401 unless {{ var(txn.iss) -m str bench }}
  http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(txn.alg,"{key}") 1 }}
  default_backend b
backend b
  server s 127.0.0.1:{self.backend_port} pool-max-conn {pool}
""")

    def postern_front(self, name, port, algorithm, key, sync):
        folder = self.dir / name
        folder.mkdir(mode=0o700)
        user = 'user = "nobody";' if os.getuid() == 0 else ""
        (self.dir / f"{name}.conf").write_text(f"""
gateway = {{ listen = [ "127.0.0.1:{port}" ]; runtime_dir = "{folder}"; {user} }};
tls = {{ certificate = "{self.dir}/srv.pem"; key = "{self.dir}/srv.key";
  client_certificate = "required"; client_ca = "{self.dir}/ca.pem"; }};
access = {{ initially = "open"; ttl = "0s"; }};
admin = {{ socket = "{folder}/admin.sock"; }};
acl = {{ allow = [ "127.0.0.0/8" ]; }};
jwt = ( {{ issuer = "bench"; audience = "postern"; algorithms = [ "{algorithm}" ];
  key_file = "{self.dir}/{key}"; }} );
grants = ( {{ match = {{ scope = "pprof:read"; }}; targets = [ "*" ];
  profiles = [ "*", "cmdline" ]; }} );
rate_limits = {{ per_address = {{ rate = 100000.0; burst = 100000; }};
  per_identity = {{ rate = 100000.0; burst = 100000; }};
  connections = 8000; connections_per_address = 8000; }};
audit = {{ file = "{folder}/audit.jsonl"; sync = "{sync}"; }};
log = {{ level = "warning"; }};
targets = ( {{ name = "be"; address = "127.0.0.1:{self.backend_port}"; default = true; }} );
""")
        (self.dir / f"{name}.conf").chmod(0o600)


class Contestant:
    def __init__(self, name, command, arguments, port):
        self.name, self.command, self.arguments, self.port = name, command, arguments, port
        self.process = None

    def start(self, log):
        self.process = subprocess.Popen(["taskset", "-c", "0", *self.command], stdout=log, stderr=log,
                                        stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        self.stop()
        raise SystemExit(f"gateway.py: {self.name} did not start: see {log.name}")

    def stop(self):
        if self.process:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.process = None

    def pids(self):
        return tree(self.process.pid)


def contestants(place, build):
    certificate = ["--cert", str(place.dir / "cli.pem"), "--key", str(place.dir / "cli.key")]
    hs = ["--header", f"Authorization: Bearer {place.tokens['HS256']}"]
    rs = ["--header", f"Authorization: Bearer {place.tokens['RS256']}"]
    found = []

    def add(name, command, arguments, make, *more):
        port = free_port()
        make(name, port, *more)
        found.append(Contestant(name, [part.format(place.dir, name) for part in command], arguments, port))

    nginx, haproxy = ["nginx", "-c", "{}/{}.conf"], ["haproxy", "-db", "-f", "{}/{}.cfg"]
    ours = [str(build / "bin" / "posternd"), "-c", "{}/{}.conf"]
    verify = f"ssl_client_certificate {place.dir}/ca.pem; ssl_verify_client on;"
    add("nginx-tls", nginx, [], place.nginx_front)
    add("nginx-mtls", nginx, certificate, place.nginx_front, verify)
    add("haproxy-max", haproxy, certificate + hs, place.haproxy_front, "HS256", SECRET.decode(), False)
    add("haproxy-max-dial", haproxy, certificate + hs, place.haproxy_front, "HS256", SECRET.decode(), True)
    add("postern", ours, certificate + hs, place.postern_front, "HS256", "secret", "interval")
    add("postern-rs256", ours, certificate + rs, place.postern_front, "RS256", "rsa.pub", "interval")
    add("postern-always", ours, certificate + hs, place.postern_front, "HS256", "secret", "always")
    return found


def load(build, contestant, *arguments):
    command = ["taskset", "-c", "1", str(build / "bench" / "load"), "--port", str(contestant.port),
               *contestant.arguments, *arguments]
    out = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if not out.stdout:
        raise SystemExit(f"gateway.py: load against {contestant.name} failed: {out.stderr}")
    return json.loads(out.stdout.splitlines()[0])


def measure_idle(build, contestant, log):
    """Slope of memory between 500 and 2,000 held connections, each of which made one request."""
    points = []
    for held in (500, 2000):
        contestant.stop()
        contestant.start(log)
        client = subprocess.Popen(
            [str(build / "bench" / "load"), "--port", str(contestant.port), *contestant.arguments,
             "--idle", "--connections", str(held), "--seconds", "3", "--path", PATHS["k1"]],
            stdout=subprocess.PIPE, text=True)
        first = json.loads(client.stdout.readline())
        time.sleep(1)
        points.append((first["held"], memory_kb(contestant.pids(), "Pss")))
        client.wait()
    return {"kb_a_connection": (points[1][1] - points[0][1]) / max(1, points[1][0] - points[0][0]),
            "held": points[1][0]}


def mmm(values, form):
    return "/".join(form % value for value in (min(values), statistics.median(values), max(values)))


def table(results, names, test, key, title, baselines):
    rows = {name: [r[key] for r in results if r["name"] == name and r["test"] == test] for name in names}
    if not any(rows.values()):
        return
    print(f"\n### {title} (minimum/median/maximum of the rounds)\n")
    print("| contestant | value | " + " | ".join(f"ratio to {b}" for b in baselines) + " |")
    print("|---|---|" + "---|" * len(baselines))
    for name in names:
        if not rows[name]:
            continue
        ratios = []
        for baseline in baselines:
            pairs = [a / b for a, b in zip(rows[name], rows.get(baseline) or []) if b]
            ratios.append(f"{statistics.median(pairs):.2f}" if pairs else "-")
        print(f"| {name} | {mmm(rows[name], '%.1f')} | " + " | ".join(ratios) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default=ROOT / "build" / "release", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--tests", nargs="*", default=["k1", "own", "new", "k256", "m16", "idle"])
    options = parser.parse_args()
    for program in ("nginx", "haproxy", "openssl", "taskset"):
        if not shutil.which(program):
            raise SystemExit(f"gateway.py: {program} is missing: a table without a peer is not printed")
    results = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        # Peers and workers drop to another user, who must get at their files.
        os.chmod(folder, 0o755)
        place = Place(folder)
        log = stack.enter_context(open(place.dir / "log", "wb"))
        backend = Contestant("backend", ["nginx", "-c", f"{folder}/backend.conf"], [], place.backend_port)
        backend.command = ["taskset", "-c", "1", *backend.command]
        backend.start(log)
        stack.callback(backend.stop)
        field = [c for c in contestants(place, options.build) if not options.only or c.name in options.only]
        for contestant in field:
            stack.callback(contestant.stop)
            contestant.start(log)
        for number in range(options.rounds):
            for test in options.tests:
                if test == "idle":
                    continue
                for contestant in field:
                    if test == "own" and not contestant.name.startswith("postern"):
                        continue
                    extra = ["--new"] if test == "new" else []
                    said = load(options.build, contestant, "--seconds", str(options.seconds), "--path",
                                OWN_PATH if test == "own" else PATHS.get(test, PATHS["k1"]), "--connections", str(CONNECTIONS[test]),
                                "--pids", ",".join(map(str, contestant.pids())), *extra)
                    results.append({"name": contestant.name, "test": test, "round": number, **said})
                    print(f"round {number + 1} {test:5} {contestant.name:18} {json.dumps(said)}",
                          file=sys.stderr)
        if "idle" in options.tests:
            for contestant in field:
                said = measure_idle(options.build, contestant, log)
                results.append({"name": contestant.name, "test": "idle", "round": 0, **said})
                print(f"idle {contestant.name}: {said}", file=sys.stderr)
        if os.environ.get("KEEP"):
            shutil.copytree(folder, os.environ["KEEP"], dirs_exist_ok=True)
        for contestant in field:
            contestant.stop()
            contestant.start(log)
        time.sleep(0.5)
        for contestant in field:
            results.append({"name": contestant.name, "test": "pss", "round": 0,
                            "kb": memory_kb(contestant.pids(), "Pss")})
    names = [contestant.name for contestant in field]
    bad = [r for r in results if r.get("unexpected") or r.get("errors")]
    table(results, names, "k1", "cpu_us", "1 KiB, kept connections: CPU us a request", ["nginx-tls", "haproxy-max", "haproxy-max-dial"])
    table(results, names, "own", "cpu_us", "Answered by the gate itself, recorded, nothing dialled: CPU us a request", ["postern"])
    table(results, names, "k1", "rate", "1 KiB: requests a second", ["haproxy-max", "haproxy-max-dial"])
    table(results, names, "k1", "p99_us", "1 KiB: p99 us", ["haproxy-max", "haproxy-max-dial"])
    table(results, names, "new", "cpu_us", "New connection (handshake, request, close): CPU us", ["nginx-mtls", "haproxy-max"])
    table(results, names, "k256", "cpu_us", "256 KiB: CPU us a response", ["nginx-tls", "haproxy-max"])
    table(results, names, "m16", "cpu_us", "16 MiB: CPU us a response", ["nginx-tls", "haproxy-max"])
    table(results, names, "idle", "kb_a_connection", "Idle connection after one request: PSS in kB", ["nginx-mtls", "haproxy-max"])
    table(results, names, "pss", "kb", "All processes at start, no connection: PSS in kB", ["haproxy-max"])
    print(f"\nRows with errors or unexpected answers: {len(bad)}")
    for row in bad:
        print(f"  {row}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
