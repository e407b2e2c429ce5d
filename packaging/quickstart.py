"""What ./quickstart does once the packages are there. Python's standard library only.

Every step says what it does and how it went; what this build does not have yet is left out and said.
"""
import argparse
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

TOKEN_SECONDS = 3000
PROFILE_SECONDS = 3
TERMINAL = sys.stdout.isatty()


class Failed(Exception):
    pass


def say(text=""):
    print(text, flush=True)


def say_all(text):
    for line in text.rstrip().splitlines():
        say("   " + line)


def step(text):
    say(f"\n== {text}")


def command(*words, env=None, seconds=120, check=True):
    """Run to the end, show what was typed; the CompletedProcess."""
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, env=env, timeout=seconds, check=False)
    if check and done.returncode:
        raise Failed(f"{' '.join(map(str, words))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition, what, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(0.02)


def build(root):
    """The release preset, its progress on one line of a terminal."""
    log = root / "build" / "quickstart.log"
    log.parent.mkdir(exist_ok=True)
    env = dict(os.environ)
    if shutil.which("ccache"):
        env.setdefault("CMAKE_C_COMPILER_LAUNCHER", "ccache")
    with open(log, "w") as out:
        for words in (["cmake", "--preset", "release"],
                      ["cmake", "--build", "--preset", "release", "-j", str(os.cpu_count() or 1)]):
            process = subprocess.Popen(words, cwd=root, env=env, text=True, stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT)
            shown = -10
            for line in process.stdout:
                out.write(line)
                match = re.match(r"\[ *(\d+)%\]", line)
                if match and (TERMINAL or int(match.group(1)) >= shown + 20):
                    shown = int(match.group(1))
                    print(f"   {shown:3d} %", end="\r" if TERMINAL else "\n", flush=True)
            if process.wait():
                out.flush()
                tail = "".join(open(log).readlines()[-30:])
                raise Failed(f"{' '.join(words)} failed; the whole log is {log}:\n{tail}")


CONFIGURATION = """# Made by ./quickstart: the gate in front of two services on this machine.
gateway = {{ listen = [ "127.0.0.1:{port}" ]; runtime_dir = "{dir}"; drain = "5s"{user} }};
tls = {{ certificate = "{dir}/server.pem"; key = "{dir}/server.key"; client_ca = "{dir}/ca.pem" }};
access = {{ ttl = "15m" }};
admin = {{ socket = "{dir}/admin.sock" }};
jwt = (
  {{ issuer = "https://quickstart.local"; audience = "postern"; algorithms = [ "ES256" ];
    key_file = "{dir}/jwt.pub.pem" }}
);
grants = (
  {{ match = {{ scope = "pprof:read" }}; targets = [ "*" ]; profiles = [ "*", "symbol", "cmdline" ] }},
  {{ match = {{ method = "mtls"; san = "URI:spiffe://postern.local/client/*" }};
    targets = [ "*" ]; profiles = [ "*", "symbol", "cmdline" ]; max_seconds = 120 }}
);
audit = {{ file = "{dir}/audit.jsonl" }};
targets = ( {targets} );
"""


class Quickstart:
    def __init__(self, root, arguments):
        self.root, self.once = root, arguments.once
        self.bin = root / "build" / "release" / "bin"
        self.dir = pathlib.Path(arguments.dir).absolute() if arguments.dir else root / "run" / "quickstart"
        self.port = arguments.port or free_port()
        self.processes, self.left_out, self.failed, self.ports, self.targets = [], [], [], {}, []

    # -- what this build has

    def has(self, name):
        return (self.bin / name).exists()

    def leave_out(self, what):
        self.left_out.append(what)
        say(f"   left out, not built: {what}")

    # -- processes

    def start(self, name, *words, env=None, cwd=None):
        log = open(self.dir / f"{name}.log", "w")
        process = subprocess.Popen([str(w) for w in words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=cwd,
                                   env={**os.environ, **(env or {})}, start_new_session=True)
        self.processes.append((name, process))
        return process

    def log_of(self, name):
        return (self.dir / f"{name}.log").read_text(errors="replace")

    def wait_listening(self, name, process):
        wait_for(lambda: "listening on" in self.log_of(name) or process.poll() is not None, name)
        match = re.search(r"listening on http://127\.0\.0\.1:(\d+)", self.log_of(name))
        if not match:
            raise Failed(f"{name} ended: {self.log_of(name)}")
        return int(match.group(1))

    def stop(self):
        for name, process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                say(f"   {name} did not end by SIGTERM")
                self.failed.append(f"ending {name}")
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                process.wait()
        self.processes.clear()

    # -- the steps

    def issue_token(self):
        self.postern("token", "issue", "--key", self.dir / "jwt.key", "--issuer", "https://quickstart.local",
                     "--subject", "you", "--scope", "pprof:read", "--ttl", f"{TOKEN_SECONDS}s", "-o",
                     self.dir / "token")

    def start_services(self):
        pprof = free_port()
        words = [self.bin / "postern", "exec", "--name", "vtp", "--listen", f"127.0.0.1:{pprof}", "--",
                 self.bin / "vtp-demo", "--load", "20", "--hot"]
        demo = self.start("vtp-demo", *words, env={"POSTERN_RUNTIME_DIR": str(self.dir)})
        self.ports["vtp"] = self.wait_listening("vtp-demo", demo)
        say(f"   vtp-demo   http://127.0.0.1:{self.ports['vtp']}/api/v1/courses")
        wait_for(lambda: answers(pprof), "the sampler in vtp-demo")
        self.ports["vtp-pprof"] = pprof
        self.targets.append(f'{{ name = "vtp"; address = "127.0.0.1:{pprof}"; default = true }}')
        say(f"   its sampler http://127.0.0.1:{pprof}/debug/pprof/")
        if not self.has("go-server"):
            self.leave_out("the Go server (no `go` on this machine)")
            return
        server = self.start("go-server", self.bin / "go-server")
        self.ports["go"] = self.wait_listening("go-server", server)
        self.targets.append(f'{{ name = "go"; address = "127.0.0.1:{self.ports["go"]}" }}')
        say(f"   go-server  http://127.0.0.1:{self.ports['go']}/debug/pprof/")

    def start_gate(self):
        conf = self.dir / "postern.conf"
        user = '; user = "nobody"' if os.geteuid() == 0 else ""
        conf.write_text(CONFIGURATION.format(port=self.port, dir=self.dir, user=user, targets=", ".join(self.targets)))
        conf.chmod(0o600)
        self.gate = self.start("posternd", self.bin / "posternd", "-c", conf)
        wait_for(lambda: (self.dir / "admin.sock").exists() or self.gate.poll() is not None, "posternd")
        if self.gate.poll() is not None:
            raise Failed(f"posternd ended: {self.log_of('posternd')}")
        (self.dir / "posternd.pid").write_text(f"{self.gate.pid}\n")
        self.ports["gateway"] = self.port
        say(f"   posternd {self.gate.pid}, closed: nothing listens on 127.0.0.1:{self.port} yet")
        if answers(self.port):
            raise Failed(f"something answers on port {self.port} while access is closed")

    def env(self):
        return {"POSTERN_URL": f"https://127.0.0.1:{self.port}", "POSTERN_CA": f"{self.dir}/ca.pem",
                "POSTERN_ADMIN": f"{self.dir}/admin.sock"}

    def token_env(self):
        return {**self.env(), "POSTERN_TOKEN_FILE": f"{self.dir}/token"}

    def cert_env(self):
        return {**self.env(), "POSTERN_CERT": f"{self.dir}/client.pem", "POSTERN_KEY": f"{self.dir}/client.key"}

    def write_files(self):
        (self.dir / "ports.json").write_text(json.dumps(self.ports, indent=2) + "\n")
        lines = [f"export {k}={shlex.quote(v)}" for k, v in {**self.token_env(), **self.cert_env()}.items()]
        lines.append(f"export PATH={shlex.quote(str(self.bin))}:$PATH")
        (self.dir / "env").write_text("# to be read by a shell: . env\n" + "\n".join(lines) + "\n")

    def postern(self, *words, env=None):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("POSTERN_")}
        return command(self.bin / "postern", *words, env={**clean, **(env or self.env())})

    def fetch(self, target, profile, env, name, *words):
        file = self.dir / name
        file.unlink(missing_ok=True)
        self.postern("fetch", *words, "-o", file, f"{target}/{profile}", env=env)
        say(f"   {name}: {file.stat().st_size} bytes")
        return file

    def show_top(self, file, wanted=None):
        said = self.postern("top", "-nodecount=8", file).stdout
        say_all(said)
        if wanted and wanted not in said:
            raise Failed(f"{file.name} does not name {wanted}")

    HOT = {"vtp": "hot_transcode", "go": "main.hotFingerprint"}
    LEAK = {"vtp": ("leak_recording_buffer", "/switch/leak-memory/on"), "go": ("main.leakSession", "/switch/leak/on")}

    def switch_leaks_on(self, names):
        step("A leak, switched on in each service")
        for name in names:
            url = f"http://127.0.0.1:{self.ports[name]}{self.LEAK[name][1]}"
            command("curl", "-sS", "--fail", "--noproxy", "*", url)
            say(f"   $ curl {url}")

    def profile_through_gate(self):
        names = [name for name in ("vtp", "go") if f'name = "{name}"' in " ".join(self.targets)]
        self.switch_leaks_on(names)
        for how, env in (("a token", self.token_env()), ("a client certificate", self.cert_env())):
            step(f"CPU profiles over TLS, {PROFILE_SECONDS} s, with {how}")
            kind = "token" if how == "a token" else "cert"
            files = [(name, self.fetch(name, "profile", env, f"{name}-cpu-{kind}.pb.gz", "--seconds", PROFILE_SECONDS))
                     for name in names]
            for name, file in files:
                say()
                self.show_top(file, self.HOT[name])
            step(f"Heap profiles, with {how}: what is in use, and who allocated it")
            for name in names:
                self.show_top(self.fetch(name, "heap", env, f"{name}-heap-{kind}.pb.gz"), self.LEAK[name][0])

    def show_refusals(self):
        step("What a stranger gets: neither token nor certificate")
        url = f"https://127.0.0.1:{self.port}/debug/pprof/heap"
        done = command("curl", "-sS", "-i", "--noproxy", "*", "--cacert", self.dir / "ca.pem", url, check=False)
        say(f"   $ curl --cacert ca.pem {url}")
        say_all(done.stdout)
        if " 401 " not in done.stdout.split("\n", 1)[0]:
            raise Failed(f"a stranger must get 401, got: {done.stdout}{done.stderr}")

    def check_audit(self):
        step("The audit log")
        for line in (self.dir / "audit.jsonl").read_text().splitlines()[-4:]:
            record = json.loads(line)
            words = [str(record.get(k)) for k in ("seq", "event", "target", "path", "status", "reason") if k in record]
            say("   " + "  ".join(words))
        say("   " + self.postern("audit", "verify", self.dir / "audit.jsonl").stdout.strip())

    def open_access(self):
        step("Opening access for 15 minutes")
        say_all(self.postern("open", "--ttl", "15m", "--reason", "quickstart").stdout)
        wait_for(lambda: answers(self.port), "the gate's port")

    def attempt(self, method):
        """One step; a failed one is told and remembered, the others go on."""
        try:
            method()
            return True
        except (Failed, OSError, ValueError, subprocess.TimeoutExpired) as why:
            say(f"   FAILED: {why}")
            self.failed.append(str(why).splitlines()[0])
            return False

    def run(self):
        step("Building (release)")
        build(self.root)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.dir.chmod(0o755 if os.geteuid() == 0 else 0o700)
        for old in ("admin.sock", "audit.jsonl", "posternd.pid", "ca.pem", "ca.key", "server.pem", "server.key",
                    "client.pem", "client.key", "jwt.key", "jwt.pub.pem"):
            (self.dir / old).unlink(missing_ok=True)
        step("Throw-away certificates, a signing key, a token")
        say("   " + self.postern("cert", "init", "--dir", self.dir).stdout.strip())
        self.issue_token()
        step("Two services")
        self.start_services()
        step("The gate")
        if self.attempt(self.start_gate):
            self.write_files()
            if self.attempt(self.open_access):
                self.attempt(self.profile_through_gate)
                self.attempt(self.show_refusals)
            self.attempt(self.check_audit)
        self.write_files()
        step("What to type next")
        say(self.next_words())

    def next_words(self):
        return (f"   . {shlex.quote(str(self.dir / 'env'))}\n"
                "   postern status\n"
                "   postern fetch --seconds 10 vtp/profile -o cpu.pb.gz && postern top cpu.pb.gz\n"
                "   postern forward -- go tool pprof -top '{url}/targets/vtp/debug/pprof/heap'\n"
                f"   curl http://127.0.0.1:{self.ports['vtp']}/switch/slow-query/on\n"
                f"   postern close; curl --cacert \"$POSTERN_CA\" $POSTERN_URL/   # refused by the kernel")

    def stay(self):
        say("\nUp until Ctrl-C.")
        renewed = time.monotonic()
        while True:
            time.sleep(1)
            for name, process in self.processes:
                if process.poll() is not None:
                    raise Failed(f"{name} ended with {process.returncode}: {self.log_of(name)[-2000:]}")
            if time.monotonic() > renewed + TOKEN_SECONDS / 2:
                self.issue_token()
                renewed = time.monotonic()


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
        return True
    except OSError:
        return False


def interrupt(*_):
    raise KeyboardInterrupt


def main():
    root = pathlib.Path(sys.argv[1])
    parser = argparse.ArgumentParser(prog="quickstart")
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--dir")
    parser.add_argument("--port", type=int)
    quickstart = Quickstart(root, parser.parse_args(sys.argv[2:]))
    signal.signal(signal.SIGINT, interrupt)  # also where a shell started it in the background
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
    code = 0
    try:
        quickstart.run()
        if not quickstart.once:
            quickstart.stay()
    except KeyboardInterrupt:
        say("\nEnding.")
        code = 130 if quickstart.once else 0
    except (Failed, OSError, subprocess.TimeoutExpired) as why:
        say(f"   FAILED: {why}")
        code = 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        quickstart.stop()
    if quickstart.left_out:
        say(f"\nLeft out: {', '.join(quickstart.left_out)}")
    if quickstart.failed:
        say("\nFAILED: " + "\n        ".join(quickstart.failed))
        code = code or 1
    elif code == 0 and quickstart.once:
        say("\nEvery step worked.")
    return code


if __name__ == "__main__":
    sys.exit(main())
