# labels: sampler
"""libpostern's own server: what it answers beside a real Go server, whom it answers, and where it listens."""
import contextlib
import http.client
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time
import unittest

from harness import BUILD, SAMPLER, GoServer, TempDir, UnixConnection, main, wait_for

SLEEPER = "/usr/bin/python3"
SLEEP = "import time\nwhile True: time.sleep(0.1)"
BUSY = "import threading\ndef spin():\n  while True: sum(range(1000))\nthreading.Thread(target=spin, daemon=True).start()\nspin()"


def ask(connection, path, method="GET", body=None, headers=None):
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


class SamplerTest(unittest.TestCase):
    def setUp(self):
        self.folder = self.enterContext(TempDir())
        self.socket = self.folder.path("s.sock")

    @contextlib.contextmanager
    def program(self, *command, wait=True, **env):
        """Under the preloaded sampler; its standard error is kept."""
        environment = {**os.environ, "LD_PRELOAD": str(SAMPLER), "POSTERN_LISTEN": f"unix:{self.socket}",
                       "POSTERN_RUNTIME_DIR": str(self.folder.dir), **env}
        with open(self.folder.path("stderr"), "wb") as errors:
            process = subprocess.Popen(command or [SLEEPER, "-c", SLEEP], env=environment, stdout=subprocess.PIPE, stderr=errors)
        try:
            if wait:
                wait_for(lambda: os.path.exists(self.socket), what="the sampler's socket")
            yield process
        finally:
            process.kill()
            process.communicate()

    def get(self, path, **options):
        return ask(UnixConnection(self.socket), path, **options)

    def said(self):
        return pathlib.Path(self.folder.path("stderr")).read_text()


class BesideGo(SamplerTest):
    def test_status_headers_and_errors(self):
        with GoServer() as go, self.program():
            host, port = go.target["address"].split(":")
            for method, path in [("GET", "/debug/pprof/"), ("GET", "/debug/pprof/cmdline"), ("GET", "/debug/pprof/nonsense"),
                                 ("GET", "/debug/pprof/goroutine"), ("GET", "/debug/pprof/goroutine?debug=1"),
                                 ("GET", "/debug/pprof/goroutine?debug=2"), ("GET", "/debug/pprof/profile?seconds=1"),
                                 ("GET", "/debug/pprof/symbol"), ("HEAD", "/debug/pprof/cmdline")]:
                with self.subTest(f"{method} {path}"):
                    theirs = ask(http.client.HTTPConnection(host, int(port), timeout=20), path, method)
                    ours = self.get(path, method=method)
                    self.assertEqual(ours[0], theirs[0])
                    for name in ("Content-Type", "Content-Disposition", "X-Go-Pprof", "X-Content-Type-Options", "Allow", "Location"):
                        self.assertEqual(ours[1].get(name), theirs[1].get(name), name)
                    if theirs[0] == 404:
                        self.assertEqual(ours[2], theirs[2])

    def test_methods_and_the_missing_slash_as_in_the_newest_go(self):
        with self.program():
            status, headers, body = self.get("/debug/pprof/cmdline", method="DELETE")
            self.assertEqual((status, headers["Allow"], body), (405, "GET, HEAD", b"Method Not Allowed\n"))
            status, headers, _ = self.get("/debug/pprof")
            self.assertEqual((status, headers["Location"]), (307, "/debug/pprof/"))

    def test_requests_that_come_together_are_answered_in_turn(self):
        with self.program(), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self.socket))
            connection.sendall(b"GET /debug/pprof/cmdline HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2 +
                               b"GET /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            received = b""
            while more := connection.recv(65536):
                received += more
            self.assertEqual(received.count(b"HTTP/1.1 200 OK\r\n"), 3)

    def test_a_client_that_leaves_ends_its_profile(self):
        def sampling():
            return b", now 1234" in self.get("/debug/pprof/")[2]

        with self.program(SLEEPER, "-c", BUSY, POSTERN_CPU_SOURCE="perf" if os.geteuid() == 0 else "timer"):
            first = UnixConnection(self.socket)
            first.request("GET", "/debug/pprof/profile?seconds=60&hz=1234")
            wait_for(sampling if os.geteuid() == 0 else lambda: b", now " in self.get("/debug/pprof/")[2], what="it to run")
            self.assertEqual(self.get("/debug/pprof/profile?seconds=1")[0], 200)
            self.assertEqual(self.get("/debug/pprof/goroutine")[0], 200)
            first.close()
            wait_for(lambda: b", now " not in self.get("/debug/pprof/")[2], what="it to be ended")

    def test_rates_that_there_are_not(self):
        with self.program():
            for hz in ("0", "-1", "4001", "x", "99999999999999999999"):
                status, headers, body = self.get(f"/debug/pprof/profile?seconds=1&hz={hz}")
                self.assertEqual((status, headers["X-Go-Pprof"]), (400, "1"))
                self.assertEqual(body, b'invalid value for "hz" - must be a whole number from 1 to 4000\n')

    def test_seconds_as_go_reads_them(self):
        with self.program():
            began = time.monotonic()
            self.assertEqual(self.get("/debug/pprof/profile?seconds=1&seconds=99")[0], 200)
            self.assertLess(time.monotonic() - began, 10)

    def test_go_tool_pprof(self):
        go = shutil.which("go") or "/usr/local/go/bin/go"
        with self.program(SLEEPER, "-c", BUSY, POSTERN_NAME="busy"):
            for what, word in (("profile?seconds=2", b"samples/count cpu/nanoseconds"), ("goroutine", b"goroutine/count")):
                file = pathlib.Path(self.folder.path("p.pb.gz"))
                file.write_bytes(self.get(f"/debug/pprof/{what}")[2])
                for flag in ("-top", "-raw"):
                    done = subprocess.run([go, "tool", "pprof", flag, str(file)], capture_output=True, check=False, timeout=60)
                    self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn(word, done.stdout)
                self.assertNotIn(b"0x0 ", done.stdout)

    def test_symbol_knows_the_addresses_of_profiles(self):
        with self.program(SLEEPER, "-c", BUSY):
            text = self.get("/debug/pprof/goroutine?debug=1")[2].decode()
            frame = re.search(r"#\t(0x[0-9a-f]+)\t(\w+)\+0x", text)
            for answer in (self.get(f"/debug/pprof/symbol?{frame[1]}+0x1"),
                           self.get("/debug/pprof/symbol", method="POST", body=f"{frame[1]}+0x1")):
                self.assertEqual((answer[0], answer[2].decode()), (200, f"num_symbols: 1\n{frame[1]} {frame[2]}\n"))


class Threads(SamplerTest):
    def test_texts(self):
        script = "import threading, time\nfor _ in range(5): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\ntime.sleep(60)"
        with self.program(SLEEPER, "-c", script):
            def total():
                return self.get("/debug/pprof/goroutine?debug=1")[2].split(b"\n")[0]
            wait_for(lambda: total() == b"goroutine profile: total 6", what="six threads")
            text = self.get("/debug/pprof/goroutine?debug=1")[2].decode()
            self.assertRegex(text, r'\n\d+ @( 0x[0-9a-f]+)+\n# labels: \{"state":"[^"]+", "thread":"python3"\}\n(#\t0x[0-9a-f]+\t\S.*\+0x[0-9a-f]+\t\S+:\d+\n)+\n')
            each = self.get("/debug/pprof/goroutine?debug=2")[2].decode()
            self.assertEqual(len(re.findall(r"^goroutine \d+ \[[^\]]+\]:$", each, re.M)), 6)
            self.assertRegex(each, r"\S+\(\.\.\.\)\n\t\S+:0 \+0x[0-9a-f]+\n")
            self.assertNotIn("postern", each)


class WhoMayAsk(SamplerTest):
    def test_host_must_be_loopback(self):
        with self.program():
            for host, status in (("localhost:6060", 200), ("127.0.0.1", 200), ("[::1]:1", 200), ("evil.example", 403), ("127.0.0.1.evil.example", 403)):
                self.assertEqual(self.get("/debug/pprof/cmdline", headers={"Host": host})[0], status, host)

    def test_token(self):
        token = self.folder.write("token", "s3cret-s3cret-s3cret\n")
        with self.program(POSTERN_REQUIRE_TOKEN_FILE=str(token)):
            for header, status in ((None, 401), ("Bearer s3cret-s3cret-s3cret", 200), ("Bearer s3cret", 401), ("Basic eDp5", 401), ("Bearer ", 401)):
                headers = {"Authorization": header} if header else {}
                self.assertEqual(self.get("/debug/pprof/cmdline", headers=headers)[0], status, header)

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("setpriv"), "becoming another user needs root")
    def test_other_users_are_turned_away_on_tcp_too(self):
        for allowed, status in (({}, b"403"), ({"POSTERN_ALLOW_UIDS": "65534"}, b"200")):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            url = f"http://127.0.0.1:{port}/debug/pprof/cmdline"
            curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url]
            # The program runs as somebody too, so that its own user is not root's.
            with self.program("setpriv", "--reuid=1", "--clear-groups", "sleep", "60", wait=False, LD_PRELOAD="", **allowed) as process:
                process.kill()
            with self.program("/bin/sleep", "60", wait=False, POSTERN_LISTEN=f"127.0.0.1:{port}", **allowed):
                wait_for(lambda: subprocess.run(curl, capture_output=True, check=False).stdout == b"200", what="root to be answered")
                done = subprocess.run(["setpriv", "--reuid=65534", "--clear-groups", *curl], capture_output=True, check=False)
                self.assertEqual(done.stdout, status)


class Listening(SamplerTest):
    def test_a_taken_address_is_never_fatal(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            with self.program(wait=False, POSTERN_LISTEN=address, POSTERN_NAME="svc") as process:
                path = self.folder.path(f"svc.{process.pid}.sock")
                wait_for(lambda: os.path.exists(path), what="the socket in its place")
                self.assertEqual(ask(UnixConnection(path), "/debug/pprof/cmdline")[0], 200)
                self.assertEqual(self.said(), f"postern: the address is taken; listening on unix:{path}\n")

    def test_what_is_wrong_is_said_and_the_program_runs(self):
        for variable, value, words in (("POSTERN_LISTEN", "0.0.0.0:0", "not a loopback address"),
                                       ("POSTERN_LISTEN", "nonsense", "is not an address"),
                                       ("POSTERN_CHILDREN", "some", "fork, follow or off"),
                                       ("POSTERN_ALLOW_UIDS", "x", "numbers"),
                                       ("POSTERN_REQUIRE_TOKEN_FILE", "/nonexistent", "cannot be read")):
            with self.subTest(value), self.program("/bin/echo", "done", wait=False, **{variable: value}) as process:
                self.assertEqual(process.communicate(timeout=10)[0], b"done\n")
                self.assertIn("postern: off: ", self.said())
                self.assertIn(words, self.said())

    def test_children(self):
        script = "import os, sys, time\npid = os.fork()\nif pid == 0:\n  time.sleep(60)\nprint(pid, flush=True)\ntime.sleep(60)"
        for mode, has in (("fork", True), ("off", False)):
            with self.subTest(mode), self.program(SLEEPER, "-c", script, POSTERN_CHILDREN=mode, POSTERN_NAME="kid") as process:
                child = int(process.stdout.readline())
                try:
                    path = self.folder.path(f"kid.{child}.sock")
                    if has:
                        wait_for(lambda: os.path.exists(path), what="the child's socket")
                        self.assertEqual(ask(UnixConnection(path), "/debug/pprof/goroutine")[0], 200)
                    else:
                        time.sleep(0.5)
                        self.assertFalse(os.path.exists(path))
                finally:
                    os.kill(child, signal.SIGKILL)

    def test_a_daemon_takes_its_parents_address(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        script = "import os, time\nif os.fork(): time.sleep(0.3); os._exit(0)\nprint(os.getpid(), flush=True)\ntime.sleep(60)"
        with self.program(SLEEPER, "-c", script, wait=False, POSTERN_LISTEN=f"127.0.0.1:{port}") as process:
            child = int(process.stdout.readline())
            try:
                def is_there():
                    with contextlib.suppress(OSError):
                        return ask(http.client.HTTPConnection("127.0.0.1", port, timeout=5), "/debug/pprof/cmdline")[0] == 200
                    return False
                self.assertEqual(process.wait(10), 0)
                wait_for(is_there, what="the child at its parent's address")
            finally:
                os.kill(child, signal.SIGKILL)


class Hosts(SamplerTest):
    def test_thread_local_variables_of_any_size(self):
        """libc takes them out of every thread's stack, ours too."""
        for size in (1000, 250000, 2000000):
            with self.subTest(size):
                source = self.folder.write("tls.c", f"#include <string.h>\n#include <unistd.h>\nstatic __thread char big[{size}];\n"
                                           "int main(void) { memset(big, 1, sizeof big); for (;;) { big[7]++; usleep(1000); } }")
                program = self.folder.path("tls")
                subprocess.run(["gcc", "-o", program, source], check=True)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.socket)
                with self.program(program) as process:
                    self.assertEqual(self.get("/debug/pprof/goroutine")[0], 200)
                    self.assertEqual(self.get("/debug/pprof/profile?seconds=1")[0], 200)
                    self.assertIsNone(process.poll())


class Linked(SamplerTest):
    SOURCE = """#include <stdio.h>
        #include <unistd.h>
        #include "sampler/postern.h"
        int main(int argc, char **argv) {
            const char *wrong = postern_start(argv[1], "linked");
            if (wrong) { printf("%s\\n", wrong); return 3; }
            if (argc > 2) { if (access(argv[1] + 5, F_OK)) return 4; postern_stop(); return access(argv[1] + 5, F_OK) ? 0 : 5; }
            puts("started"); fflush(stdout); sleep(60); return 0; }"""

    def test_start_and_stop_from_c(self):
        source = self.folder.write("a.c", self.SOURCE)
        top = pathlib.Path(__file__).resolve().parents[2]
        for library in ("-l:libpostern.a", "-lpostern"):
            with self.subTest(library):
                program = self.folder.path("a.out")
                subprocess.run(["gcc", "-I", str(top), "-o", program, source, f"-L{BUILD}/lib", library, f"-Wl,-rpath,{BUILD}/lib",
                                "-pthread"], check=True)
                env = {**os.environ, "POSTERN_LISTEN": "off"}
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.socket)
                process = subprocess.Popen([program, f"unix:{self.socket}"], env=env, stdout=subprocess.PIPE)
                try:
                    self.assertEqual(process.stdout.readline(), b"started\n")
                    self.assertEqual(self.get("/debug/pprof/goroutine")[0], 200)
                finally:
                    process.kill()
                    process.communicate()
                self.assertEqual(subprocess.run([program, f"unix:{self.socket}", "stop"], env=env, check=False, timeout=20).returncode, 0)
                done = subprocess.run([program, "0.0.0.0:1"], env=env, capture_output=True, check=False, timeout=20)
                self.assertEqual(done.returncode, 3)
                self.assertIn(b"not a loopback address", done.stdout)


main()
