# labels: sampler slow
# timeout: 300
"""Programs as Debian ships them, doing their own work under `postern exec` while they are profiled: what they
print, how they end, and which descriptors they have is as without."""
import contextlib
import http.client
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading
import time
import unittest

from harness import BIN, UnixConnection, main, wait_for

PYTHON = "/usr/bin/python3"
# Ours does not reach the programs; the test's own POSTERN_BUILD shall not either.
ENV = {name: value for name, value in os.environ.items() if not name.startswith("POSTERN_")}


class Profiler:
    """Takes one CPU profile after the other, and thread dumps, as long as the program is there."""

    def __init__(self, path):
        self.path, self.done, self.answers = path, threading.Event(), 0
        self.threads = [threading.Thread(target=self.ask, args=(what,)) for what in
                        ("/debug/pprof/profile?seconds=1", "/debug/pprof/goroutine?debug=1")]

    def ask(self, what):
        while not self.done.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = UnixConnection(self.path)
                try:
                    connection.request("GET", what)
                    answer = connection.getresponse()
                    answer.read()
                    self.answers += answer.status == 200
                finally:
                    connection.close()
            time.sleep(0.05)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        for thread in self.threads:
            thread.join()


def descriptors(pid):
    """What each descriptor is, once the last client's is gone."""
    seen = []
    for _ in range(20):
        seen.append(descriptors_now(pid))
        time.sleep(0.05)
    return min(seen, key=len)


def descriptors_now(pid):
    """Numbers of sockets and pipes left out; the kernel's lowest first."""
    found = []
    for entry in sorted(pathlib.Path(f"/proc/{pid}/fd").iterdir(), key=lambda e: int(e.name)):
        with contextlib.suppress(OSError):
            found.append((entry.name, re.sub(r"\d{3,}", "N", os.readlink(entry))))
    return found


class Programs(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.sampler = self.folder / "sampler.sock"

    def under(self, *command):
        return [str(BIN / "postern"), "exec", "--listen", f"unix:{self.sampler}", "--", *command]

    def compare(self, *command, data=None):
        """Once as it is, once profiled; both must say the same."""
        plain = subprocess.run(command, input=data, capture_output=True, cwd=self.folder, env=ENV, timeout=60, check=False)
        with Profiler(self.sampler) as profiler:
            profiled = subprocess.run(self.under(*command), input=data, capture_output=True, cwd=self.folder,
                                      env=ENV, timeout=120, check=False)
        self.assertEqual((profiled.stdout, profiled.stderr, profiled.returncode),
                         (plain.stdout, plain.stderr, plain.returncode))
        return plain, profiler

    def test_bash(self):
        script = r"""
            sum=0; for ((i = 0; i < 200000; i++)); do ((sum += i * i)); done; echo $sum
            printf '%s\n' {1..2000} | sort -rn | head -3
            echo "$(echo nested $(echo deeper))"; ls /proc/$$/fd | wc -l; env | grep -c 'POSTERN\|LD_PRELOAD'
            trap 'echo trapped' USR1; kill -USR1 $$; (exit 5); echo $?; sleep 0.2 & wait $!; echo $?
            exit 3"""
        plain, profiler = self.compare("/bin/bash", "-c", script)
        self.assertEqual(plain.returncode, 3)
        self.assertGreater(profiler.answers, 0)

    def test_python(self):
        script = """if True:
            import hashlib, os, subprocess, sys, threading, time
            def work(n):
                digest = b""
                for i in range(30000):
                    digest = hashlib.sha256(digest + bytes([n, i % 256])).digest()
                results[n] = digest.hex()
            results = {}
            threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
            [t.start() for t in threads]; [t.join() for t in threads]
            print(sorted(results.items()), sorted(os.listdir("/proc/self/fd")))
            began = time.monotonic()
            while time.monotonic() - began < 1.5:
                sum(i * i for i in range(10000))
            print(subprocess.run(["sh", "-c", "echo child $LD_PRELOAD; exit 4"], stdout=subprocess.PIPE))
            pid = os.fork()
            if pid == 0:
                os._exit(6)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            sys.exit(7)"""
        plain, profiler = self.compare(PYTHON, "-c", script)
        self.assertEqual(plain.returncode, 7, plain.stderr)
        self.assertGreater(profiler.answers, 1)

    def test_sqlite3(self):
        query = b"""CREATE TABLE t(a INTEGER, b TEXT);
            WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 300000)
            INSERT INTO t SELECT x, hex(x * 7919) FROM n;
            CREATE INDEX i ON t(b); SELECT count(*), sum(a), max(b) FROM t WHERE b LIKE '%7%';
            SELECT b, count(*) FROM t GROUP BY substr(b, 1, 2) ORDER BY 2 DESC, 1 LIMIT 5; SELECT nonsense;"""
        plain, profiler = self.compare("sqlite3", "-batch", ":memory:", data=query)
        self.assertEqual(plain.returncode, 1)
        self.assertIn(b"nonsense", plain.stderr)
        self.assertGreater(profiler.answers, 0)

    def test_gcc(self):
        (self.folder / "a.c").write_text("#include <stdio.h>\n" + "".join(
            f"int f{i}(int x) {{ for (int k = 0; k < x; k++) x ^= k * {i}; return x; }}\n" for i in range(1500)) +
            'int main(void) { printf("%d\\n", f7(100)); return 9; }\n')
        objects = []
        for name, command in (("plain", []), ("profiled", self.under())):
            target = self.folder / f"{name}.o"
            with Profiler(self.sampler):
                done = subprocess.run([*command, "gcc", "-O2", "-c", "-o", str(target), "a.c"], cwd=self.folder, capture_output=True,
                                      timeout=120, check=False)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))
            objects.append(target.read_bytes())
        self.assertEqual(objects[0], objects[1])
        self.compare("gcc", "-c", "-o", "/dev/null", "nothing.c")

    @contextlib.contextmanager
    def server(self, command, ready):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=self.folder)
        try:
            wait_for(ready, 20, command[0])
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=30)

    def test_nginx(self):
        nginx = shutil.which("nginx") or "/usr/sbin/nginx"
        (self.folder / "page").write_bytes(b"hello " * 2000)
        page = self.folder / "nginx.sock"
        temporary = "".join(f"{kind}_temp_path {self.folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;" if os.geteuid() == 0 else ""
        (self.folder / "nginx.conf").write_text(
            f"daemon off; master_process off; {user} pid {self.folder}/pid; error_log {self.folder}/error.log; events {{ }}"
            f"http {{ {temporary} access_log {self.folder}/access.log; gzip on; gzip_types *; gzip_min_length 1;"
            f"server {{ listen unix:{page}; root {self.folder}; }} }}")

        def get():
            connection = UnixConnection(page)
            connection.request("GET", "/page", headers={"Accept-Encoding": "gzip"})
            answer = connection.getresponse()
            result = (answer.status, answer.read())
            connection.close()
            return result

        def is_ready():
            with contextlib.suppress(OSError):
                return get()[0] == 200
            return False

        seen = []
        for command in ([], self.under()):
            page.unlink(missing_ok=True)
            with self.server([*command, nginx, "-c", str(self.folder / "nginx.conf")], is_ready) as process:
                with Profiler(self.sampler) as profiler:
                    answers = {get() for _ in range(2000)}
                self.assertEqual(len(answers), 1)
                seen.append((answers, descriptors(process.pid)))
            self.assertEqual(process.returncode, 0)
        self.assertGreater(profiler.answers, 0)
        self.assertEqual(seen[0], seen[1])

    def test_redis(self):
        redis = self.folder / "redis.sock"

        def client(*words):
            return subprocess.run(["redis-cli", "-s", str(redis), *words], capture_output=True, text=True, check=False).stdout.strip()

        seen = []
        for command in ([], self.under()):
            with self.server([*command, "redis-server", "--port", "0", "--unixsocket", str(redis), "--save", "",
                              "--dir", str(self.folder)], lambda: client("ping") == "PONG") as process:
                with Profiler(self.sampler) as profiler:
                    bench = subprocess.run(["redis-benchmark", "-s", str(redis), "-n", "40000", "-c", "20", "-q",
                                            "-t", "set,get,lpush,lrange_100"], capture_output=True, text=True, timeout=120, check=False)
                    # Saves by a forked child, while it is profiled.
                    saved = client("save"), client("bgsave")
                    wait_for(lambda: "rdb_bgsave_in_progress:0" in client("info", "persistence"), 30, "the background save")
                self.assertEqual(bench.returncode, 0, bench.stderr)
                ok = "rdb_last_bgsave_status:ok" in client("info", "persistence")
                wait_for(lambda: "connected_clients:1" in client("info", "clients"), 20, "the clients' end")
                seen.append((saved, ok, client("get", "key:__rand_int__"), client("llen", "mylist") != "", descriptors(process.pid)))
            self.assertEqual(process.returncode, 0)
        self.assertGreater(profiler.answers, 1)
        self.assertEqual(seen[0], seen[1])


main()
