"""The stage for end-to-end tests: keys, targets, and the real gateway. Python's standard library only.

A test file is tests/e2e/test_NAME.py; ctest runs it as e2e.NAME against the build in POSTERN_BUILD
(default build/dev). Its head may say, each on a line of its own:
    # labels: gate            (the default; or: sampler; `slow` as a second one for what --quick leaves out)
    # timeout: 300            (seconds; default 180)
    # serial                  (nothing else runs beside it: it measures time)
A `sampler` test is registered only where libpostern.so is built (not under sanitizers).

    import unittest
    from harness import Backend, Gateway, Pki, main

    class Gate(unittest.TestCase):
        def test_forwards(self):
            with Pki() as pki, Backend() as backend, Gateway(pki, targets={"t": backend}) as gate:
                gate.open()
                answer = gate.get("/targets/t/debug/pprof/heap", cert=pki.client())
                self.assertEqual((answer.status, answer.body), (200, b"hello"))
                self.assertEqual(len(backend.requests), 1)
                self.assertEqual(gate.wait_audit(event="completed")["status"], 200)

    main()

Pki      .server .client(...) .ca .other_ca; .token(...) signs; everything by `openssl`, cached.
Backend  a raw server, TCP or unix: records requests byte for byte, plays scripted answers.
GoServer build/*/bin/go-server; Demo: vtp-demo under the sampler (.url its API, .target for Gateway).
Gateway  writes a configuration (default_configuration() with `conf` merged over it), runs posternd; stops
         it at the end and fails unless it ended cleanly: exit 0, no sanitizer report, nobody left
         behind, the audit chain whole. A test that breaks one of these on purpose says so by
         gate.expect_exit = None, gate.expect_chain = False.
GateTest is a unittest.TestCase with one gate for a class: allow(), refuse(status, slug), refuse_tls().
All waiting is for readiness with a deadline (wait_for), never a sleep.
"""
import base64
import contextlib
import copy
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from unix_connection import UnixConnection  # noqa: E402, F401 (for the tests, too)
BUILD = pathlib.Path(os.environ.get("POSTERN_BUILD") or ROOT / "build" / "dev").resolve()
BIN = BUILD / "bin"
SAMPLER = BUILD / "lib" / "libpostern.so"
SANITIZED = "address" in (re.search(r"^SANITIZE:.*=(.*)$", (BUILD / "CMakeCache.txt").read_text(), re.M) or [""])[0]
ISSUER, AUDIENCE = "https://login.test", "postern"
SANITIZER_SAID = re.compile(rb"(ERROR: \w+Sanitizer|runtime error:|LeakSanitizer: detected).*")


def main():
    unittest.main(verbosity=2)


def wait_for(condition, seconds=15, what="condition"):
    """What `condition()` answers once that is true; AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)


def run(*command, **options):
    """Run to the end; the CompletedProcess with text output. Does not check the exit code."""
    options.setdefault("timeout", 120)
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)


def postern(*arguments, env=None, **options):
    """The command-line tool of this build."""
    return run(BIN / "postern", *arguments, env={**os.environ, **(env or {})}, **options)


class TempDir:
    """A folder of its own for whoever inherits; short, because socket paths end at 107 bytes."""

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="pt."))

    def path(self, name):
        return str(self.dir / name)

    def write(self, name, data, mode=0o600):
        path = self.dir / name
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data.encode() if isinstance(data, str) else data)
        return str(path)

    def remove(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()


# ---- keys, certificates, tokens


class Cert:
    """Paths of a certificate and its key, PEM."""

    def __init__(self, cert, key):
        self.cert, self.key = cert, key

    @property
    def fingerprint(self):
        """SHA-256 of the certificate's DER, lower-case hexadecimal."""
        der = ssl.PEM_cert_to_DER_cert(pathlib.Path(self.cert).read_text())
        return hashlib.sha256(der).hexdigest()


def openssl(*words, stdin=None):
    done = subprocess.run(["openssl", *words], input=stdin, capture_output=True, check=False, timeout=60)
    if done.returncode:
        raise AssertionError(f"openssl {' '.join(words)}: {done.stderr.decode()}")
    return done.stdout


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


CA_CONFIGURATION = """
[ca]
default_ca = it
[it]
dir = {dir}
database = {dir}/index
serial = {dir}/serial
crlnumber = {dir}/crlnumber
new_certs_dir = {dir}
certificate = {cert}
private_key = {key}
default_md = sha256
default_crl_days = {crl_days}
policy = any
unique_subject = no
copy_extensions = none
[any]
commonName = optional
"""


class Authority:
    """A certificate authority with an index, so that it can revoke."""

    def __init__(self, folder, name):
        self.folder, self.name = folder / name, name
        self.folder.mkdir()
        self.cert, self.key = str(self.folder / "ca.pem"), str(self.folder / "ca.key")
        new_key(self.key)
        openssl("req", "-x509", "-new", "-key", self.key, "-out", self.cert, "-days", "2", "-subj", f"/CN={name}",
                "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        (self.folder / "index").touch()
        (self.folder / "serial").write_text("1000\n")
        (self.folder / "crlnumber").write_text("1000\n")
        self.configure()

    def configure(self, crl_days=1):
        self.configuration = str(self.folder / "openssl.cnf")
        pathlib.Path(self.configuration).write_text(
            CA_CONFIGURATION.format(dir=self.folder, cert=self.cert, key=self.key, crl_days=crl_days))

    def issue(self, name, cn, extensions, start=None, end=None, algorithm="EC"):
        """start, end: as openssl takes them (YYYYMMDDHHMMSSZ)."""
        path = self.folder / name
        key, request, cert, extension_file = (f"{path}.{kind}" for kind in ("key", "csr", "pem", "ext"))
        new_key(key, algorithm)
        openssl("req", "-new", "-key", key, "-out", request, "-subj", "/CN=" + cn.replace("/", "\\/") if cn else "/")
        pathlib.Path(extension_file).write_text("\n".join(extensions) + "\n")
        openssl("ca", "-batch", "-notext", "-config", self.configuration, "-in", request, "-out", cert,
                "-extfile", extension_file, "-startdate", start or "20200101000000Z", "-enddate",
                end or "20400101000000Z", *([] if cn else ["-subj", "/CN=none"]))
        return Cert(cert, key)

    def revoke(self, cert):
        openssl("ca", "-config", self.configuration, "-revoke", cert.cert)

    def crl(self, expired=False):
        """The path of a fresh revocation list."""
        path = str(self.folder / f"crl{uuid.uuid4().hex}.pem")
        dates = ["-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200102000000Z"] if expired else []
        openssl("ca", "-config", self.configuration, "-gencrl", "-out", path, *dates)
        return path


def new_key(path, algorithm="EC"):
    words = {"EC": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"], "EC384": ["EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
             "EC521": ["EC", "-pkeyopt", "ec_paramgen_curve:P-521"], "RSA": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
             "RSA1024": ["RSA", "-pkeyopt", "rsa_keygen_bits:1024"]}[algorithm]
    openssl("genpkey", "-algorithm", *words, "-out", path)
    os.chmod(path, 0o600)


class Pki(TempDir):
    """Throw-away authorities, certificates and signing keys. Made on first use, then kept."""

    ALICE = "URI:spiffe://example.test/oncall/alice"
    FAMILIES = {"ES256": "EC", "ES384": "EC384", "ES512": "EC521"}

    def __init__(self):
        super().__init__()
        self.made = {}

    def keep(self, name, make):
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]

    @property
    def authority(self):
        return self.keep("ca", lambda: Authority(self.dir, "ca"))

    @property
    def other_authority(self):
        """One that the gateway does not know."""
        return self.keep("other", lambda: Authority(self.dir, "other"))

    @property
    def ca(self):
        return self.authority.cert

    @property
    def server(self):
        return self.keep("server", lambda: self.authority.issue("server", "gate.test", [
            "extendedKeyUsage=serverAuth", "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"]))

    def client(self, name="alice", san=None, cn=None, authority=None, eku="clientAuth", **dates):
        """A client certificate. san: e.g. "URI:spiffe://…" (default: ALICE for "alice", else none given)."""
        san = san or (self.ALICE if name == "alice" else None)
        lines = ([f"extendedKeyUsage={eku}"] if eku else []) + ([f"subjectAltName={san}"] if san else [])
        issuer = authority or self.authority
        return self.keep((issuer.name, name),
                         lambda: issuer.issue(name, cn or name, lines or ["basicConstraints=CA:FALSE"], **dates))

    @property
    def foreign_client(self):
        """Signed by another authority, and otherwise as alice's."""
        return self.client("alice", authority=self.other_authority)

    @property
    def expired_client(self):
        return self.client("expired", san=self.ALICE, start="20200101000000Z", end="20200102000000Z")

    @property
    def future_client(self):
        return self.client("future", san=self.ALICE, start="20390101000000Z")

    @property
    def server_only_client(self):
        """Alice's name, but without the client-authentication purpose."""
        return self.client("server-only", san=self.ALICE, eku="serverAuth")

    def signing_key(self, algorithm="ES256", name="jwt"):
        """Path of the private key (for HS*: of the secret) that signs tokens of that algorithm."""
        family = self.FAMILIES.get(algorithm, "RSA" if algorithm.startswith(("RS", "PS")) else "HS")

        def make():
            path = self.path(f"{name}-{family}.key")
            if family == "HS":
                self.write(f"{name}-{family}.key", base64.b16encode(os.urandom(32)))
            else:
                new_key(path, family)
            return path
        return self.keep((name, family), make)

    def verifying_key(self, algorithm="ES256", name="jwt"):
        """Path of what the gateway gets as key_file."""
        private = self.signing_key(algorithm, name)
        if algorithm.startswith("HS"):
            return private
        public = private.removesuffix(".key") + ".pub.pem"
        self.keep(public, lambda: openssl("pkey", "-in", private, "-pubout", "-out", public))
        return public

    def token(self, algorithm="ES256", key=None, header=None, **claims):
        """A signed token: good, unless told otherwise. A claim given as None is left out. key: a path, or
        bytes as HMAC secret. header: members over {"alg", "typ"}; None leaves one out."""
        now = int(time.time())
        payload = {"iss": ISSUER, "aud": AUDIENCE, "sub": "bob", "iat": now, "exp": now + 600,
                   "scope": "pprof:read", **claims}
        head = {"alg": algorithm, "typ": "JWT", **(header or {})}
        words = [{k: v for k, v in part.items() if v is not None} for part in (head, payload)]
        return self.sign(".".join(base64url(json.dumps(part).encode()) for part in words), algorithm, key)

    def sign(self, signed, algorithm="ES256", key=None):
        """`signed` (header.payload, any text) with its signature."""
        if algorithm == "none":
            return signed + "."
        digest = f"sha{algorithm[2:]}"
        key = key if key is not None else self.signing_key(algorithm)
        if algorithm.startswith("HS"):
            secret = key if isinstance(key, bytes) else pathlib.Path(key).read_bytes()
            return f"{signed}.{base64url(hmac.new(secret, signed.encode(), digest).digest())}"
        options = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:-1"] if algorithm[0] == "P" else []
        signature = openssl("dgst", f"-{digest}", "-sign", key, *options, stdin=signed.encode())
        if algorithm.startswith("ES"):
            signature = raw_ecdsa(signature, {"256": 32, "384": 48, "512": 66}[algorithm[2:]])
        return f"{signed}.{base64url(signature)}"


def raw_ecdsa(der, size):
    """JWS wants r and s side by side, openssl gives SEQUENCE { INTEGER r, INTEGER s }."""
    at = 3 if der[1] & 0x80 else 2
    numbers = []
    for _ in range(2):
        length = der[at + 1]
        numbers.append(int.from_bytes(der[at + 2:at + 2 + length], "big").to_bytes(size, "big"))
        at += 2 + length
    return b"".join(numbers)


# ---- targets


class Backend(TempDir):
    """A raw server. `requests` holds every request's bytes (head, and body by its length).

    answer: what is played for each request; or a function from the request's bytes to that:
        bytes           sent, then the connection is closed
        a list          played in order: bytes are sent, a number waits so many seconds (it ends early
                        when the other side goes away), "hang" waits until the other side goes away,
                        "reset" closes with a RST; any iterable does, so a huge answer need not be in memory
    """

    HELLO = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 5\r\n\r\nhello"

    def __init__(self, answer=HELLO, unix=False):
        super().__init__()
        self.answer, self.requests, self.connections = answer, [], 0
        self.peer_left = threading.Event()  # the other side went away while an answer was being played
        self.sent = 0                       # bytes of answers taken by the kernel
        if unix:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(self.path("s"))
            os.chmod(self.dir, 0o755)
            self.target = {"socket": self.path("s")}
        else:
            self.listener = socket.socket()
            self.listener.bind(("127.0.0.1", 0))
            self.target = {"address": "127.0.0.1:%d" % self.listener.getsockname()[1]}
        self.listener.listen(128)
        self.open_sockets = set()
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            self.connections += 1
            self.open_sockets.add(connection)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            request = read_request(connection)
            if request is None:
                return
            self.requests.append(request)
            answer = self.answer(request) if callable(self.answer) else self.answer
            for step in [answer] if isinstance(answer, bytes) else answer:
                if not self.play(connection, step):
                    return
            # The other side may have more to say; a close with unread bytes would be a reset.
            connection.shutdown(socket.SHUT_WR)
            wait_closed(connection, 5)
        except OSError:
            self.peer_left.set()
        finally:
            self.open_sockets.discard(connection)
            connection.close()

    def play(self, connection, step):
        if isinstance(step, bytes):
            view = memoryview(step)
            while view:
                done = connection.send(view)
                self.sent += done
                view = view[done:]
            return True
        if step == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            return False
        if wait_closed(connection, None if step == "hang" else step):
            self.peer_left.set()
            return False
        return True

    def wait_request(self, count=1, seconds=15):
        wait_for(lambda: len(self.requests) >= count, seconds, f"{count} requests at the backend")
        return self.requests[count - 1]

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in list(self.open_sockets):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.remove()


def read_request(connection):
    """Bytes of one request, or None when the other side closed without one."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return data or None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    match = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    while match and len(body) < int(match.group(1)):
        more = connection.recv(65536)
        if not more:
            break
        body += more
    return head + b"\r\n\r\n" + body


def wait_closed(connection, seconds):
    """True when the other side closed within `seconds` (None: however long)."""
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            pass
        return True
    except TimeoutError:
        connection.settimeout(None)
        return False
    except OSError:
        return True


class Service(TempDir):
    """A program of this build that says "listening on URL" and ends by SIGTERM."""

    def __init__(self, *command, env=None):
        super().__init__()
        self.log = open(self.path("log"), "wb")
        self.process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=self.log,
                                        env={**os.environ, **(env or {})}, start_new_session=True)
        line = self.process.stdout.readline().decode()
        match = re.match(r"listening on (http://(\S+))", line)
        if not match:
            self.__exit__()
            raise AssertionError(f"{command[0]} said {line!r}")
        self.url, self.address = match.groups()

    @property
    def pid(self):
        return self.process.pid

    def get(self, path, timeout=30):
        connection = http.client.HTTPConnection(self.address, timeout=timeout)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def log_text(self):
        return pathlib.Path(self.path("log")).read_text(errors="replace")

    def __exit__(self, kind=None, *_):
        self.process.terminate()
        try:
            code = self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.process.stdout.close()
        self.log.close()
        said = self.log_text()
        self.remove()
        if kind is None and code != 0:
            raise AssertionError(f"{self.process.args[0]} ended with {code}: {said}")


class GoServer(Service):
    """A Go program with net/http/pprof; its hot function is main.hotFingerprint."""

    def __init__(self):
        super().__init__(BIN / "go-server")
        self.target = {"address": self.address}


class Demo(Service):
    """vtp-demo under the preloaded sampler. .url: its API; .target: its pprof, as Gateway takes it; .pprof:
    the same as "host:port" when tcp. switch("hot") throws one of its switches."""

    def __init__(self, *arguments, tcp=False, env=None):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="pt."))
        self.runtime = folder
        listen = "127.0.0.1:0" if tcp else f"unix:{folder}/pprof.sock"
        super().__init__(BIN / "vtp-demo", *arguments, env={
            "LD_PRELOAD": str(SAMPLER), "POSTERN_LISTEN": listen, "POSTERN_NAME": "vtp",
            "POSTERN_RUNTIME_DIR": str(folder), **(env or {})})
        if tcp:
            own = int(self.address.rsplit(":", 1)[1])
            port = wait_for(lambda: listening_ports(self.pid) - {own}, what="the sampler's port").pop()
            self.pprof = f"127.0.0.1:{port}"
            self.target = {"address": self.pprof}
        else:
            wait_for(lambda: os.path.exists(folder / "pprof.sock"), what="the sampler's socket")
            self.target = {"socket": f"{folder}/pprof.sock"}

    def switch(self, name, on=True):
        answer = self.get(f"/switch/{name}/{'on' if on else 'off'}")
        assert answer.status == 200, answer

    def __exit__(self, *details):
        super().__exit__(*details)
        shutil.rmtree(self.runtime, ignore_errors=True)


def listening_ports(pid):
    """TCP ports on which the process listens; a thread may have descriptors of its own."""
    inodes = set()
    for link in pathlib.Path(f"/proc/{pid}/task").glob("*/fd/*"):
        try:
            match = re.match(r"socket:\[(\d+)\]", os.readlink(link))
        except OSError:
            continue
        if match:
            inodes.add(match.group(1))
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in pathlib.Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                ports.add(int(words[1].rsplit(":", 1)[1], 16))
    return ports


# ---- the gateway


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    def slug(self):
        """The last part of a problem's type."""
        return self.json()["type"].rsplit(":", 1)[1]

    def __repr__(self):
        return f"<{self.status} {dict(self.headers)} {self.body[:300]!r}>"


def merge(base, over):
    """`over` laid over `base`: groups member by member, everything else as a whole; None takes one away."""
    for key, value in over.items():
        if value is None:
            base.pop(key, None)
        elif isinstance(value, dict) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = copy.deepcopy(value)
    return base


def libconfig(value):
    """A value in libconfig's syntax: a list of groups is a list, any other an array."""
    if isinstance(value, dict):
        return "{ " + "; ".join(f"{k} = {libconfig(v)}" for k, v in value.items()) + "; }" if value else "{ }"
    if isinstance(value, (list, tuple)):
        brackets = "()" if any(isinstance(item, dict) for item in value) else "[]"
        return f"{brackets[0]} {', '.join(libconfig(item) for item in value)} {brackets[1]}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)


def default_configuration(pki, folder, targets):
    """Loopback, port 0, certificates optional, ES256 tokens; alice (certificate) may do everything but what
    must be named, tokens with scope pprof:read likewise."""
    return {
        "gateway": {"listen": ["127.0.0.1:0"], "runtime_dir": str(folder), "drain": "2s",
                    **({"user": "nobody"} if os.geteuid() == 0 else {})},
        "tls": {"certificate": pki.server.cert, "key": pki.server.key, "client_ca": pki.ca},
        "access": {"ttl": "5m"},
        "admin": {"socket": f"{folder}/admin.sock"},
        "jwt": [{"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["ES256"], "key_file": pki.verifying_key()}],
        "grants": [
            {"match": {"method": "mtls", "san": "URI:spiffe://example.test/oncall/*"}, "targets": ["*"],
             "profiles": ["*", "symbol", "cmdline", "goroutine_full", "heap_gc"], "max_seconds": 120},
            {"match": {"scope": "pprof:read"}, "targets": ["*"],
             "profiles": ["*", "symbol", "cmdline"], "max_seconds": 60}],
        "rate_limits": {"per_address": {"rate": 10000.0, "burst": 10000},
                        "per_identity": {"rate": 10000.0, "burst": 10000},
                        "auth_failures": {"max": 100000, "window": "1m", "ban": "10m"}},
        "audit": {"file": f"{folder}/audit.jsonl"},
        "targets": [{"name": name, **where, **({"default": True} if first else {})}
                    for name, where, first in targets],
    }


class Gateway(TempDir):
    """posternd, for real. targets: {name: Backend, GoServer, Demo or {"address"|"socket": …}}; the first is the
    default. conf: groups laid over default_configuration(); conf_text: a whole configuration instead."""

    def __init__(self, pki, targets=None, conf=None, conf_text=None, env=None, start=True):
        super().__init__()
        self.pki, self.env, self.process = pki, env or {}, None
        self.expect_exit, self.expect_chain = 0, True
        listed = [(name, getattr(target, "target", target), i == 0) for i, (name, target) in
                  enumerate((targets or {"none": {"address": "127.0.0.1:9"}}).items())]
        self.conf = merge(default_configuration(pki, self.dir, listed), conf or {})
        self.conf_file = self.path("postern.conf")
        self.write_conf(conf_text)
        if start:
            try:
                self.start()
            except BaseException:
                self.kill()
                self.remove()
                raise

    def write_conf(self, text=None):
        """Write self.conf (or `text`) where posternd reads it; reload() makes it take effect."""
        return self.write("postern.conf", text or "".join(f"{k} = {libconfig(v)};\n" for k, v in self.conf.items()))

    def start(self):
        with open(self.path("log"), "ab") as log:
            self.process = subprocess.Popen([BIN / "posternd", "-c", self.conf_file], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, env={**os.environ, **self.env},
                                            start_new_session=True)
        self.session = self.process.pid
        wait_for(self.is_ready, 20, "the admin socket")

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"posternd ended with {self.process.returncode}: {self.log_text()}")
        try:
            return self.admin("GET", "/v1/status").status == 200
        except OSError:
            return False

    def log_text(self):
        return pathlib.Path(self.path("log")).read_text(errors="replace")

    # -- the admin plane

    def admin(self, method, path, body=None, timeout=10):
        connection = UnixConnection(self.conf["admin"]["socket"], timeout)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            data = json.dumps(body) if isinstance(body, (dict, list)) else body
            with contextlib.suppress(BrokenPipeError):  # refused before all of it was sent
                connection.request(method, path, data, headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def status(self):
        return self.admin("GET", "/v1/status").json()

    def open(self, ttl=None, reason="test"):
        answer = self.admin("POST", "/v1/access", {"state": "open", "reason": reason, **({"ttl": ttl} if ttl else {})})
        assert answer.status == 200, f"{answer} {self.log_text()}"
        return self.port

    def close(self, wait=True):
        """Close access, and (if `wait`) wait until the port is free."""
        port = self.port
        answer = self.admin("POST", "/v1/access", {"state": "closed"})
        assert answer.status == 200, answer
        if wait and port:
            wait_for(lambda: not self.is_reachable(port), what="the port to close")

    def reload(self):
        return self.admin("POST", "/v1/reload", {})

    @property
    def port(self):
        """The port bound now, or None while closed."""
        listening = self.status()["listening"]
        return int(listening[0].rsplit(":", 1)[1]) if listening else None

    def is_reachable(self, port):
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            return True
        except ConnectionRefusedError:
            return False

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}"

    # -- the debug port

    def context(self, cert=None):
        context = ssl.create_default_context(cafile=self.pki.ca)
        context.set_alpn_protocols(["http/1.1"])
        if cert:
            context.load_cert_chain(cert.cert, cert.key)
        return context

    def request(self, method, path, cert=None, token=None, headers=None, body=None, timeout=30, source="127.0.0.1"):
        """One request on a connection of its own. SSLError, ConnectionError: refused before HTTP."""
        fields = {**({"Authorization": f"Bearer {token}"} if token is not None else {}), **(headers or {})}
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self.context(cert),
                                                 source_address=(source, 0))
        try:
            connection.request(method, path, body, fields)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def connect(self, port=None, source=None):
        """A TCP connection, nothing said yet."""
        return socket.create_connection(("127.0.0.1", port or self.port), 30, (source, 0) if source else None)

    def tls(self, cert=None, port=None, source=None):
        """A TLS connection; the handshake is done (under TLS 1.3 a refused certificate shows at the first
        read only)."""
        return self.context(cert).wrap_socket(self.connect(port, source), server_hostname="127.0.0.1")

    def raw(self, data, cert=None, seconds=10, port=None, source=None):
        """Send bytes over TLS; everything that comes back until the end of the connection, or `seconds`."""
        with self.tls(cert, port, source) as connection:
            connection.settimeout(seconds)
            received = b""
            try:
                connection.sendall(data)
                while True:
                    more = connection.recv(65536)
                    if not more:
                        return received
                    received += more
            except (TimeoutError, ConnectionError, ssl.SSLError):
                return received

    # -- the audit log

    @property
    def audit_file(self):
        return self.conf["audit"]["file"]

    def audit(self, **match):
        """The records (of all that match) so far: audit(event="refused", reason="no-grant")."""
        text = pathlib.Path(self.audit_file).read_text() if os.path.exists(self.audit_file) else ""
        records = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [record for record in records if all(record.get(k) == v for k, v in match.items())]

    def wait_audit(self, count=1, seconds=10, **match):
        """The `count`-th record that matches, once it is there."""
        wait_for(lambda: len(self.audit(**match)) >= count, seconds, f"{count} audit records with {match}, have "
                 f"{self.audit()[-5:]}")
        return self.audit(**match)[count - 1]

    def check_chain(self):
        """The audit log's chain, checked without our own code. AssertionError where it breaks."""
        previous, key = "0" * 64, self.conf["audit"].get("key_file")
        secret = pathlib.Path(key).read_bytes().rstrip(b"\n") if key else None
        for number, line in enumerate(pathlib.Path(self.audit_file).read_bytes().splitlines(), 1):
            record = json.loads(line)
            covered = line[:line.rindex(b'"hash":')]
            expected = (hmac.new(secret, covered, "sha256") if secret else hashlib.sha256(covered)).hexdigest()
            assert record["seq"] == number, f"audit line {number}: seq is {record['seq']}"
            assert record["prev"] == previous, f"audit line {number}: prev does not fit: {line!r}"
            assert record["hash"] == expected, f"audit line {number}: hash does not fit: {line!r}"
            previous = record["hash"]

    # -- the end

    def processes(self):
        """{pid: command line} of posternd's session that are alive: keeper, workers, scribe."""
        found = {}
        for folder in pathlib.Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                words = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                if int(words[3]) == self.session and words[0] != "Z":
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            except OSError:
                continue
        return found

    def workers(self):
        return [pid for pid, command in self.processes().items() if command.startswith("posternd: worker")]

    def scribe(self):
        return next((pid for pid, command in self.processes().items() if command.startswith("posternd: scribe")), None)

    def kill(self):
        """SIGKILL for all of it, without a word."""
        if self.process:
            for pid in self.processes():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.process.kill()
            self.process.wait()

    def stop(self):
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        return self.process.wait(30)

    def check_end(self):
        log = pathlib.Path(self.path("log")).read_bytes()
        said = SANITIZER_SAID.search(log)
        assert not said, log[max(0, said.start() - 200):].decode(errors="replace")
        wait_for(lambda: not self.processes(), 5, f"every process to end; left: {self.processes()}")
        if self.expect_chain and os.path.exists(self.audit_file):
            self.check_chain()

    def __exit__(self, kind=None, *_):
        try:
            if kind is not None:
                # The test failed already: what posternd said is what one wants to see.
                sys.stderr.write(f"---- posternd said:\n{self.log_text()}----\n")
                return
            code = self.stop()
            if self.expect_exit is not None:
                assert code == self.expect_exit, f"posternd ended with {code}: {self.log_text()}"
            self.check_end()
        finally:
            self.kill()
            self.remove()


# ---- tests of one gate

HEAP = "/debug/pprof/heap"
BEFORE_HTTP = (ssl.SSLError, ConnectionError, http.client.BadStatusLine)  # the connection ended before any answer


class GateTest(unittest.TestCase):
    """An open gate (conf() says how it differs from the default configuration) in front of a Backend that is
    the default target "t", for all tests of a class."""

    CONF = {}

    @classmethod
    def setUpClass(cls):
        cls.stack = contextlib.ExitStack()
        cls.addClassCleanup(cls.stack.close)
        cls.pki = cls.stack.enter_context(Pki())
        cls.backend = cls.stack.enter_context(Backend())
        cls.gate = cls.stack.enter_context(Gateway(cls.pki, {"t": cls.backend}, cls.conf()))
        cls.gate.open()

    @classmethod
    def conf(cls):
        return cls.CONF

    def allow(self, path=HEAP, **how):
        """Served, and the target saw exactly one request."""
        before = len(self.backend.requests)
        answer = self.gate.get(path, **how)
        self.assertEqual((answer.status, answer.body), (200, b"hello"), answer)
        self.assertEqual(len(self.backend.requests), before + 1)

    def refuse(self, status, slug, path=HEAP, method="GET", **how):
        """Answered with that status and problem, audited once with that reason; the target saw nothing. Each
        comes from an address of its own: many refusals of one address are summed in the log."""
        type(self).refusals = n = getattr(type(self), "refusals", 0) + 1
        how.setdefault("source", f"127.1.{n // 250}.{n % 250 + 1}")
        requests, records = len(self.backend.requests), len(self.gate.audit(event="refused", reason=slug))
        answer = self.gate.request(method, path, **how)
        self.assertEqual(answer.status, status, answer)
        self.assertEqual(answer.headers["Content-Type"], "application/problem+json")
        self.assertEqual(answer.slug(), slug, answer)
        record = self.gate.wait_audit(records + 1, event="refused", reason=slug)
        self.assertEqual(record["status"], status)
        self.assertEqual(record["request_id"], answer.headers["X-Request-Id"])
        self.assertEqual(len(self.backend.requests), requests)
        return answer

    def refuse_token(self, token):
        answer = self.refuse(401, "invalid-credential", token=token)
        self.assertRegex(answer.headers["WWW-Authenticate"], r'^Bearer .*error="invalid_token"')
        return answer

    def refuse_tls(self, **how):
        """Ended by a TLS alert, audited; the target saw nothing."""
        requests, records = len(self.backend.requests), len(self.gate.audit(event="refused", reason="tls-failed"))
        with self.assertRaises(BEFORE_HTTP):
            self.gate.get(HEAP, **how)
        self.gate.wait_audit(records + 1, event="refused", reason="tls-failed")
        self.assertEqual(len(self.backend.requests), requests)
