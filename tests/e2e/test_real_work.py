# labels: sampler slow
# timeout: 300
"""Real work while everything is sampled as densely as it goes: CPU at 1000 Hz, the heap once in 64 KiB, every wait for
a lock, in every process of it. Results and exit codes are as without."""
import concurrent.futures
import contextlib
import glob
import hashlib
import http.client
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from harness import BIN, ROOT, UnixConnection, main, wait_for

sys.path.insert(0, str(ROOT / "tests" / "accuracy"))
from profile import Profile  # noqa: E402 (it lies there)

PYTHON = "/usr/bin/python3"
ENV = {name: value for name, value in os.environ.items() if not name.startswith("POSTERN_")}
DENSE = {"POSTERN_HEAP_RATE": "65536", "POSTERN_MUTEX_FRACTION": "1", "POSTERN_BLOCK_RATE": "1"}
ASKED = ("profile?seconds=1&hz=1000", "heap", "mutex", "block", "goroutine?debug=1", "allocs?seconds=1")
NOISE = re.compile(rb"^postern: the address is taken; listening on .*\n", re.M)


class Profiler:
    """Asks every process that listens in this folder for one profile after the other, as long as it is there."""

    def __init__(self, folder):
        self.folder, self.done = folder, threading.Event()
        self.answers, self.samples, self.processes = dict.fromkeys(ASKED, 0), 0, set()
        self.lock = threading.Lock()

    def ask(self, path, what):
        connection = UnixConnection(path, timeout=30)
        try:
            connection.request("GET", f"/debug/pprof/{what}")
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            return
        samples = Profile(body).total() if what.startswith("profile") else 0
        with self.lock:
            self.answers[what] += 1
            self.samples += samples

    def follow(self, path, what):
        """Until it is gone: then nobody listens any more."""
        while not self.done.is_set():
            try:
                self.ask(path, what)
                time.sleep(0.02)
            except (ConnectionRefusedError, FileNotFoundError):
                return
            except (OSError, http.client.HTTPException, EOFError):
                time.sleep(0.02)  # it has just ended

    def look(self):
        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            while not self.done.is_set():
                for path in glob.glob(f"{self.folder}/*.sock"):
                    if path not in self.processes and len(self.processes) < 400:
                        self.processes.add(path)
                        # Two ways at once: captures, which take time, and what is there at any moment.
                        for what in ASKED[:1] if len(self.processes) > 12 else ASKED:
                            pool.submit(self.follow, path, what)
                time.sleep(0.05)

    def __enter__(self):
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


class RealWork(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="pt.")))
        self.sockets = self.folder / "s"
        self.sockets.mkdir()
        os.chmod(self.folder, 0o755)
        os.chmod(self.sockets, 0o1777)  # PostgreSQL runs as somebody else

    def under(self, children="fork"):
        """(words before a command, environment)"""
        words = [str(BIN / "postern"), "exec", "--listen", f"unix:{self.sockets}/first.sock", "--"]
        return words, {**ENV, **DENSE, "POSTERN_CHILDREN": children, "POSTERN_RUNTIME_DIR": str(self.sockets)}

    def both(self, work, children="fork", samples=50):
        """What work(words before, environment) answers, without and with; they must be the same."""
        plain = work([], ENV)
        began = time.monotonic()
        with Profiler(self.sockets) as profiler:
            profiled = work(*self.under(children))
        took = time.monotonic() - began
        print(f"{self.id().rpartition('.')[2]}: {took:.1f} s, {len(profiler.processes)} processes, {profiler.samples} CPU samples, "
              f"answers {profiler.answers}", file=sys.stderr)
        self.assertEqual(profiled, plain)
        self.assertGreater(profiler.samples, samples)
        if children != "follow":
            self.assertGreater(profiler.answers["heap"], 0)
        # Those that it starts are gone before each has answered everything.
        self.assertGreater(sum(count for what, count in profiler.answers.items() if not what.startswith("profile")), 0)
        return plain

    @contextlib.contextmanager
    def server(self, command, env, ready, ends_by="terminate", **options):
        log = open(self.folder / "server.log", "ab")
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env, cwd=self.folder, **options)
        try:
            wait_for(lambda: process.poll() is not None or ready(), 30, command[-1])
            self.assertIsNone(process.poll(), (self.folder / "server.log").read_text())
            yield process
            process.send_signal({"terminate": 15, "interrupt": 2, "quit": 3}[ends_by])
            process.wait(30)
        finally:
            process.kill()
            process.wait()
            log.close()

    def test_gcc_builds_a_part_of_this_project(self):
        """Each file by itself, then all of them at once at link time, which takes seconds; and a file with an error."""
        sources = [source for module in ("base", "http", "acl", "sampler/*") for source in sorted(ROOT.glob(f"{module}/*.c"))
                   if source.stem != "real_static"]  # which needs what cmake generates
        self.assertGreater(len(sources), 50)

        def build(words, env):
            target = self.folder / "out"
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()

            def gcc(*arguments, text=None):
                done = subprocess.run([*words, "gcc", *(str(word) for word in arguments)], input=text, env=env, cwd=target,
                                      capture_output=True, check=False, timeout=120)
                return done.returncode, done.stdout, NOISE.sub(b"", done.stderr)

            def compile_one(source):
                return gcc("-std=gnu11", "-O2", "-g", "-flto", "-frandom-seed=1", "-I", ROOT, "-D_GNU_SOURCE", '-DPOSTERN_VERSION="0"', "-c", "-o",
                           f"{source.parent.name}-{source.stem}.o", source)
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                said = list(pool.map(compile_one, sources))
            objects = sorted(file.name for file in target.iterdir())
            said.append(gcc("-O3", "-g", "-r", "-flto", "-flto-partition=one", "-flinker-output=nolto-rel", "-frandom-seed=1", "-o", "all.o",
                            *objects))
            said.append(gcc("-c", "-o", "/dev/null", "-x", "c", "-", text=b"int f(void) { return x; }"))
            return said, {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(target.iterdir())}

        said, objects = self.both(build, children="follow", samples=20)
        self.assertEqual({code for code, _, _ in said[:-1]}, {0}, said)
        self.assertEqual(said[-1][0], 1)
        self.assertEqual(len(objects), len(sources) + 1)

    @unittest.skipUnless(os.path.exists("/usr/lib/python3.11/test/test_json"), "needs libpython3.11-testsuite")
    def test_python_tests_itself(self):
        modules = ["test_fork1", "test_eintr", "test_json", "test_dict", "test_gc"]

        def test(words, env):
            folder = self.folder / "python"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            done = subprocess.run([*words, PYTHON, "-m", "test", *modules], cwd=folder, env=env, capture_output=True, text=True,
                                  check=False, timeout=150)
            lines = re.findall(r"^(?:All \d+ tests OK\.|\d+ tests? (?:failed|OK|skipped).*|Tests result: .*|== Tests result.*|    test_.*)$", done.stdout, re.M)
            if done.returncode:
                print(done.stdout[-3000:], done.stderr[-3000:], file=sys.stderr)
            return done.returncode, lines

        code, lines = self.both(test, samples=20)
        self.assertEqual(code, 0, lines)
        self.assertTrue(any("OK" in line for line in lines), lines)

    def test_redis_benchmark(self):
        path = self.folder / "redis.sock"

        def client(*words):
            return subprocess.run(["redis-cli", "-s", str(path), *words], capture_output=True, text=True, check=False, env=ENV).stdout.strip()

        def bench(words, env):
            (self.folder / "dump.rdb").unlink(missing_ok=True)
            command = [*words, "redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(self.folder),
                       "--io-threads", "2", "--enable-debug-command", "yes"]
            with self.server(command, env, lambda: client("ping") == "PONG") as process:
                done = subprocess.run(["redis-benchmark", "-s", str(path), "-n", "10000", "-c", "20", "-q", "-t",
                                       "set,get,incr,lpush,rpush,sadd,hset,zadd,lrange_100,mset"], env=ENV, capture_output=True, text=True,
                                      check=False, timeout=120)
                saved = client("bgsave")
                wait_for(lambda: "rdb_bgsave_in_progress:0" in client("info", "persistence"), 30, "the background save")
                result = (done.returncode, done.stderr, client("debug", "digest"), client("llen", "mylist"), client("get", "counter:__rand_int__"),
                          saved, "rdb_last_bgsave_status:ok" in client("info", "persistence"))
            return result, process.returncode

        (result, code) = self.both(bench)
        self.assertEqual((result[0], code), (0, 0))
        self.assertEqual(result[3], "30000")

    @unittest.skipUnless(glob.glob("/usr/lib/postgresql/*/bin/initdb"), "needs postgresql")
    def test_pgbench_on_postgresql(self):
        programs = pathlib.Path(sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1])
        data, sockets = self.folder / "data", self.folder / "pg"
        # It does not run as root.
        someone = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
        for folder in (data, sockets):
            folder.mkdir(mode=0o700)
            if someone:
                os.chown(folder, 65534, 65534)
        env = {**ENV, "PGUSER": "tester", "PGHOST": str(sockets), "PGDATABASE": "postgres"}

        def postgres(program, *words, **options):
            return subprocess.run([*options.pop("before", []), str(programs / program), *words], capture_output=True, text=True, check=False, timeout=120,
                                  env={**env, **options.pop("env", {})}, **options)
        made = subprocess.run([*someone, str(programs / "initdb"), "-D", str(data), "-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8", "--no-locale"],
                              capture_output=True, text=True, check=False, timeout=120, env=env, cwd="/")
        self.assertEqual(made.returncode, 0, made.stderr)

        def bench(words, environment):
            environment = {**environment, **{name: env[name] for name in ("PGUSER", "PGHOST", "PGDATABASE")}}
            command = [*someone, *words, str(programs / "postgres"), "-D", str(data), "-k", str(sockets), "-c", "listen_addresses=", "-c", "fsync=off"]
            with self.server(command, environment, lambda: postgres("pg_isready").returncode == 0, "interrupt") as process:
                made = postgres("pgbench", "-i", "-q", "-s", "2")
                ran = subprocess.run([*words, str(programs / "pgbench"), "-c", "4", "-j", "2", "-t", "700", "--random-seed=7", "-n"], env=environment,
                                     capture_output=True, text=True, check=False, timeout=120)
                sums = postgres("psql", "-Atc", "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), "
                                "(SELECT sum(bbalance) FROM pgbench_branches), (SELECT count(*) FROM pgbench_history), (SELECT sum(delta) FROM pgbench_history)")
            said = re.search(r"number of transactions actually processed: (\S+)", ran.stdout)
            failed = re.search(r"number of failed transactions: (\d+)", ran.stdout)
            return made.returncode, ran.returncode, NOISE.sub(b"", ran.stderr.encode()), said and said[1], failed and failed[1], sums.stdout, process.returncode

        made, ran, _, processed, failed, sums, ended = self.both(bench)
        self.assertEqual((made, ran, processed, failed, ended), (0, 0, "2800/2800", "0", 0))
        self.assertEqual(sums.split("|")[3], "2800")

    @unittest.skipUnless(shutil.which("wrk"), "needs wrk")
    def test_nginx_under_wrk(self):
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        (self.folder / "page").write_bytes(b"hello " * 2000)
        (self.folder / "large").write_bytes(os.urandom(3 << 20))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        temporary = "".join(f"{kind}_temp_path {self.folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;" if os.geteuid() == 0 else ""
        (self.folder / "nginx.conf").write_text(
            f"daemon off; worker_processes 2; {user} pid {self.folder}/pid; error_log {self.folder}/error.log; events {{ }}"
            f"http {{ {temporary} access_log {self.folder}/access.log; gzip on; gzip_types *; gzip_min_length 1; sendfile on;"
            f"server {{ listen 127.0.0.1:{port}; root {self.folder}; }} }}")

        def get(path, **headers):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            try:
                connection.request("GET", path, headers=headers)
                answer = connection.getresponse()
                return answer.status, hashlib.sha256(answer.read()).hexdigest()
            finally:
                connection.close()

        def is_ready():
            with contextlib.suppress(OSError):
                return get("/page")[0] == 200
            return False

        def bench(words, env):
            with self.server([*words, nginx, "-c", str(self.folder / "nginx.conf")], env, is_ready, "quit") as process:
                before = get("/page", **{"Accept-Encoding": "gzip"}), get("/large")
                done = subprocess.run(["wrk", "-t1", "-c32", "-d3s", "-H", "Accept-Encoding: gzip", f"http://127.0.0.1:{port}/page"],
                                      capture_output=True, text=True, check=False, timeout=60, env=ENV)
                after = get("/page", **{"Accept-Encoding": "gzip"}), get("/large"), get("/nothing")[0]
            requests = int(re.search(r"(\d+) requests in", done.stdout)[1])
            self.assertGreater(requests, 200)
            wrong = re.findall(r"Non-2xx.*|Socket errors.*", done.stdout)
            return done.returncode, wrong, before, after, process.returncode, (self.folder / "error.log").read_text().count("[alert]")

        code, wrong, before, after, ended, alerts = self.both(bench)
        self.assertEqual((code, wrong, ended, alerts), (0, [], 0, 0))
        self.assertEqual(before, after[:2])
        self.assertEqual(after[2], 404)


main()
