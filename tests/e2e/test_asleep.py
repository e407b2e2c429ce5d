# labels: sampler
"""POSTERN_ASLEEP: nothing but a control socket until somebody holds a lease on it, and nothing again afterwards."""
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import unittest

from harness import SAMPLER, TempDir, UnixConnection, listening_ports, main, run, wait_for

SLEEP = "import time\nwhile True: time.sleep(0.1)"
BUSY = "import threading\ndef spin():\n  while True: [bytearray(100000) for _ in range(10)]\nthreading.Thread(target=spin, daemon=True).start()\nspin()"


def sockets(pid):
    """Of all threads: one may have descriptors of its own."""
    found = set()
    for link in pathlib.Path(f"/proc/{pid}/task").glob("*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(link).startswith("socket:"):
                found.add(os.readlink(link))
    return found


def timers(pid):
    return pathlib.Path(f"/proc/{pid}/timers").read_text()


def ask(connection, method, path, body=None, headers=None):
    """On a connection that stays: a lease."""
    json_type = {"Content-Type": "application/json"} if body is not None else {}
    connection.request(method, path, body, {**json_type, **(headers or {})})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


class AsleepTest(unittest.TestCase):
    def setUp(self):
        self.folder = self.enterContext(TempDir())

    @contextlib.contextmanager
    def program(self, *command, wait=True, **env):
        environment = {**os.environ, "LD_PRELOAD": str(SAMPLER), "POSTERN_LISTEN": "127.0.0.1:0", "POSTERN_ASLEEP": "1",
                       "POSTERN_NAME": "jobs", "POSTERN_RUNTIME_DIR": str(self.folder.dir), **env}
        with open(self.folder.path("stderr"), "wb") as errors:
            process = subprocess.Popen(command or [sys.executable, "-c", SLEEP], env=environment, stdout=subprocess.PIPE, stderr=errors)
        try:
            if wait:
                self.wait_control(process.pid)
            yield process
        finally:
            process.kill()
            process.communicate()

    def said(self):
        return pathlib.Path(self.folder.path("stderr")).read_text()

    def control(self, pid, name="jobs"):
        forked = self.folder.path(f"{name}.{pid}.fork.control")
        return forked if os.path.exists(forked) else self.folder.path(f"{name}.{pid}.control")

    def wait_control(self, pid):
        """Bound is not listened on yet."""
        def answers():
            with contextlib.suppress(OSError):
                return self.who(pid)
            return None
        return wait_for(answers, what="the control socket")

    @contextlib.contextmanager
    def lease(self, pid):
        """The connection and the address."""
        connection = UnixConnection(self.control(pid))
        with contextlib.closing(connection):
            status, body = ask(connection, "POST", "/control/wake", "{}")
            self.assertEqual(status, 200, body)
            yield connection, json.loads(body)["address"]

    def who(self, pid):
        with contextlib.closing(UnixConnection(self.control(pid))) as connection:
            return json.loads(ask(connection, "GET", "/control")[1])

    def get(self, address, path, method="GET", body=None, headers=None, timeout=20):
        host, port = address.rsplit(":", 1)
        with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=timeout)) as connection:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def is_refused(self, address):
        try:
            self.get(address, "/debug/pprof/cmdline")
        except ConnectionRefusedError:
            return True
        except ConnectionError:
            return False
        return False

    def assert_asleep(self, process, seconds=5):
        wait_for(lambda: len(sockets(process.pid)) == 1, seconds, "one socket alone")
        self.assertEqual(listening_ports(process.pid), set())
        self.assertEqual(timers(process.pid), "")
        self.assertTrue(self.who(process.pid)["asleep"])


class Asleep(AsleepTest):
    def test_one_thread_one_socket_and_nothing_sampled(self):
        with self.program() as process:
            self.assertEqual(len(os.listdir(f"/proc/{process.pid}/task")), 2)
            self.assert_asleep(process)
            mode = os.stat(self.control(process.pid)).st_mode
            self.assertEqual(mode & 0o777, 0o600)
            thread = [task for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir()
                      if (task / "comm").read_text() == "postern\n"][0]

            def switches():
                return [line for line in (thread / "status").read_text().splitlines() if "ctxt_switches" in line]

            def sleeps_on():
                before = switches()
                time.sleep(1.5)
                return switches() == before
            wait_for(sleeps_on, 5, "a thread that does not run at all")

    def test_awake_while_the_connection_lasts(self):
        with self.program(sys.executable, "-c", BUSY) as process:
            for _ in range(2):
                with self.lease(process.pid) as (_connection, address):
                    who = self.who(process.pid)
                    self.assertEqual((who["asleep"], who["leases"], who["address"], who["name"], who["pid"]),
                                     (False, 1, address, "jobs", process.pid))
                    self.assertEqual(self.get(address, "/debug/pprof/profile?seconds=1")[0], 200)
                    self.assertEqual(json.loads(self.get(address, "/debug/pprof/rates")[1])["heap"], 524288)
                    wait_for(lambda a=address: b" @ 0x" in self.get(a, "/debug/pprof/heap?debug=1")[1], what="heap samples")
                wait_for(lambda a=address: self.is_refused(a), 5, "the port to be free")
                self.assert_asleep(process)

    def test_several_wakers_count_and_the_last_one_ends_it(self):
        with self.program() as process, self.lease(process.pid) as (_first, address):
            with self.lease(process.pid) as (_second, same):
                self.assertEqual(address, same)
                self.assertEqual(self.who(process.pid)["leases"], 2)
            wait_for(lambda: self.who(process.pid)["leases"] == 1, 5, "one lease")
            self.assertEqual(self.get(address, "/debug/pprof/cmdline")[0], 200)

    def test_a_capture_is_cut_when_the_lease_ends(self):
        with self.program(sys.executable, "-c", BUSY, POSTERN_CPU_SOURCE="timer") as process:
            with self.lease(process.pid) as (_connection, address):
                host, port = address.rsplit(":", 1)
                capture = http.client.HTTPConnection(host, int(port), timeout=20)
                capture.request("GET", "/debug/pprof/profile?seconds=60")
                wait_for(lambda: timers(process.pid), what="timers")
            with self.assertRaises((ConnectionError, http.client.HTTPException)):
                capture.getresponse()
            self.assert_asleep(process)

    def test_a_waker_that_is_killed(self):
        with self.program() as process:
            script = ("import http.client, socket, sys, time\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n"
                      "s.sendall(b'POST /control/wake HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Type: application/json\\r\\n"
                      "Content-Length: 2\\r\\n\\r\\n{}')\ntime.sleep(60)")
            waker = subprocess.Popen([sys.executable, "-c", script, self.control(process.pid)])
            try:
                wait_for(lambda: not self.who(process.pid)["asleep"], what="it to wake")
            finally:
                waker.kill()
                waker.wait()
            self.assert_asleep(process)

    def test_a_unix_socket_is_gone_when_it_sleeps(self):
        path = self.folder.path("s.sock")
        with self.program(POSTERN_LISTEN=f"unix:{path}") as process:
            self.assertFalse(os.path.exists(path))
            with self.lease(process.pid) as (_connection, address):
                self.assertEqual(address, f"unix:{path}")
                self.assertTrue(os.path.exists(path))
            wait_for(lambda: not os.path.exists(path), 5, "the socket to be gone")

    def test_a_taken_address_is_told_to_the_waker(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with self.program(POSTERN_LISTEN="127.0.0.1:%d" % taken.getsockname()[1]) as process, \
                    self.lease(process.pid) as (_connection, address):
                self.assertEqual(address, "unix:" + self.folder.path(f"jobs.{process.pid}.sock"))

    def test_forked_children_sleep_and_are_woken_by_themselves(self):
        script = "import os, sys, time\npid = os.fork()\nif pid == 0:\n  time.sleep(60)\nprint(pid, flush=True)\ntime.sleep(60)"
        with self.program(sys.executable, "-c", "import time; time.sleep(0.5)\n" + script) as process, \
                self.lease(process.pid) as (_connection, address):
            child = int(process.stdout.readline())
            try:
                self.wait_control(child)
                who = self.who(child)
                self.assertEqual((who["asleep"], who["leases"], who["parent"]), (True, 0, process.pid))
                wait_for(lambda: len(sockets(child)) == 1, 5, "one socket alone")
                with self.lease(child) as (_other, its):
                    self.assertNotEqual(its, address)
                    self.assertEqual(self.get(its, "/debug/pprof/cmdline")[0], 200)
            finally:
                os.kill(child, signal.SIGKILL)

    def test_what_crashed_processes_left_is_swept_by_the_next_of_the_name(self):
        left = []
        for name in ("jobs", "other"):
            with self.program(POSTERN_NAME=name, wait=False) as process:
                left.append(wait_for(lambda p=process, n=name: os.path.exists(self.control(p.pid, n)) and self.control(p.pid, n)))
        self.folder.write("jobs.1073741823.control", "not a socket")
        time.sleep(3)  # a young socket may be one that is not listened on yet
        with self.program():
            wait_for(lambda: not os.path.exists(left[0]), what="the sweep")
            self.assertTrue(os.path.exists(left[1]))
            self.assertTrue(os.path.exists(self.folder.path("jobs.1073741823.control")))

    def test_what_is_wrong_is_said_and_the_program_runs(self):
        loose = self.folder.path("loose")
        os.mkdir(loose)
        os.chmod(loose, 0o777)
        os.symlink(self.folder.dir, self.folder.path("link"))
        for name, value, words in (("POSTERN_ASLEEP", "yes", "it must be 1 or 0"),
                                   ("POSTERN_RUNTIME_DIR", "/nonexistent/at/all", "nobody could wake it"),
                                   ("POSTERN_RUNTIME_DIR", self.folder.path("link"), "nobody could wake it"),
                                   ("POSTERN_RUNTIME_DIR", loose, "others can take files"),
                                   ("POSTERN_LISTEN", "0.0.0.0:1", "not a loopback address")):
            with self.subTest(value), self.program("/bin/echo", "done", wait=False, **{name: value}) as process:
                self.assertEqual(process.communicate(timeout=10)[0], b"done\n")
                self.assertIn(words, self.said())

    def test_what_others_put_at_its_path_is_left_alone(self):
        """The number of the next process cannot be known: so each file is put there by the process itself, before the
        library's constructor, through the shell that becomes it."""
        victim = self.folder.write("victim", "precious")
        for kind, make in (("symlink", f"ln -s {victim} $F"), ("fifo", "mkfifo $F"), ("file", "echo x > $F"), ("folder", "mkdir $F")):
            with self.subTest(kind):
                folder = self.folder.path(kind)
                os.mkdir(folder, 0o700)
                shell = (f"F={folder}/jobs.$$.control; {make}; export LD_PRELOAD={SAMPLER}; "
                         "exec /bin/sh -c 'echo done'")
                with self.program("/bin/sh", "-c", shell, wait=False, LD_PRELOAD="", POSTERN_RUNTIME_DIR=folder) as process:
                    self.assertEqual(process.communicate(timeout=10)[0], b"done\n")
                    self.assertIn("nobody could wake it", self.said())
                    self.assertEqual(len(os.listdir(folder)), 1)
        self.assertEqual(pathlib.Path(victim).read_text(), "precious")

    def test_awake_processes_can_be_found_and_leased_too(self):
        with self.program(POSTERN_ASLEEP="0") as process:
            self.assertFalse(self.who(process.pid)["asleep"])
            with self.lease(process.pid) as (_connection, address):
                self.assertEqual(self.get(address, "/debug/pprof/cmdline")[0], 200)
            self.assertEqual(self.get(address, "/debug/pprof/cmdline")[0], 200)


class Rates(AsleepTest):
    def test_by_a_lease_and_while_it_lasts(self):
        with self.program(POSTERN_ASLEEP="0", POSTERN_MUTEX_FRACTION="7") as process:
            def now():
                return json.loads(self.get(self.who(process.pid)["address"], "/debug/pprof/rates")[1])
            before = {"heap": 524288, "mutex": 7, "block": 0}
            self.assertEqual(now(), before)
            with self.lease(process.pid) as (first, _address):
                self.assertEqual(ask(first, "POST", "/debug/pprof/rates", '{"heap":"1MiB","block":"1us"}')[0], 200)
                self.assertEqual(now(), {"heap": 1 << 20, "mutex": 7, "block": 1000})
                with self.lease(process.pid) as (second, _address):
                    status, body = ask(second, "POST", "/debug/pprof/rates", '{"heap":0,"mutex":1}')
                    self.assertEqual((status, json.loads(body)), (200, {"heap": 0, "mutex": 1, "block": 1000}))
                wait_for(lambda: now() == {"heap": 1 << 20, "mutex": 7, "block": 1000}, 5, "the first one's rates")
            wait_for(lambda: now() == before, 5, "the rates from before")

    def test_nobody_else_changes_them(self):
        with self.program(POSTERN_ASLEEP="0") as process:
            address = self.who(process.pid)["address"]
            for headers, status in (({}, 415), ({"Content-Type": "text/plain"}, 415),
                                    ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
                                    ({"Content-Type": "application/json"}, 403),
                                    ({"Content-Type": "application/json", "Host": "evil.example"}, 403)):
                answer = self.get(address, "/debug/pprof/rates", "POST", '{"heap":1}', headers)
                self.assertEqual(answer[0], status, headers)
            self.assertIn(b"postern wake", self.get(address, "/debug/pprof/rates", "POST", '{"heap":1}',
                                                    {"Content-Type": "application/json"})[1])
            with contextlib.closing(UnixConnection(self.control(process.pid))) as connection:
                self.assertEqual(ask(connection, "POST", "/debug/pprof/rates", '{"heap":1}')[0], 403)
            with self.lease(process.pid) as (held, _address):
                self.assertEqual(ask(held, "POST", "/debug/pprof/rates", '{"heap":-1}')[0], 400)
                # A lease of somebody else's is none of the debug server's.
                self.assertEqual(self.get(address, "/debug/pprof/rates", "POST", '{"heap":1}', {"Content-Type": "application/json"})[0], 403)
            self.assertEqual(json.loads(self.get(address, "/debug/pprof/rates")[1])["heap"], 524288)


class WhoMayWake(AsleepTest):
    def test_a_web_page_gets_nothing_by_dns_rebinding(self):
        with self.program() as process, self.lease(process.pid) as (_connection, address):
            for path in ("/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile?seconds=1", "/debug/pprof/rates",
                         "/debug/pprof/symbol?1", "/debug/pprof/cmdline", "/metrics", "/nothing"):
                self.assertEqual(self.get(address, path, headers={"Host": "evil.example:6060"})[0], 403, path)
            for method, path in (("GET", "/control"), ("POST", "/control/wake"), ("POST", "/debug/pprof/rates"), ("GET", "/x")):
                with contextlib.closing(UnixConnection(self.control(process.pid))) as connection:
                    self.assertEqual(ask(connection, method, path, None if method == "GET" else "{}", {"Host": "evil.example"})[0], 403)

    def test_a_token_is_asked_for_there_too(self):
        token = self.folder.write("token", "s3cret-s3cret-s3cret\n")
        with self.program(POSTERN_REQUIRE_TOKEN_FILE=token) as process:
            self.assertTrue(self.who(process.pid)["asleep"])
            for header, status in (("Bearer wrong", 401), ("Bearer s3cret-s3cret-s3cret", 200)):
                with contextlib.closing(UnixConnection(self.control(process.pid))) as connection:
                    self.assertEqual(ask(connection, "POST", "/control/wake", "{}", {"Authorization": header})[0], status)

    def test_requests_that_are_none(self):
        with self.program() as process:
            for bytes_, status in ((b"WAKE\r\n\r\n", b"400"), (b"POST /control/wake HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", b"415"),
                                   (b"GET /control/wake HTTP/1.1\r\nHost: localhost\r\n\r\n", b"405"),
                                   (b"DELETE /control HTTP/1.1\r\nHost: localhost\r\n\r\n", b"405"),
                                   (b"GET /debug/pprof/heap HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404")):
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.settimeout(10)
                    connection.connect(self.control(process.pid))
                    connection.sendall(bytes_)
                    self.assertEqual(connection.recv(4096).split(b" ")[1], status, bytes_)
            self.assert_asleep(process)

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("setpriv"), "becoming another user needs root")
    def test_another_user_gets_nothing(self):
        stranger = ["setpriv", "--reuid=65534", "--clear-groups"]
        os.chmod(self.folder.dir, 0o755)
        for allowed in ({}, {"POSTERN_ALLOW_UIDS": "65534"}, {"POSTERN_ALLOW_UIDS": "65533"}):
            path = self.folder.path("s.sock")
            with self.program(POSTERN_LISTEN=f"unix:{path}", **allowed) as process:
                curl = [*stranger, "curl", "-s", "-m", "10", "-w", "%{http_code}", "-o", "/dev/null", "--unix-socket"]
                wake = ["-H", "Content-Type: application/json", "-d", "{}", "http://localhost/control/wake"]
                may = allowed.get("POSTERN_ALLOW_UIDS") == "65534"
                # Without leave it cannot connect; with leave for another it may lose the reason when it is cut.
                told = ["200"] if may else ["403", "000"] if allowed else ["000"]
                self.assertIn(run(*curl, self.control(process.pid), *wake).stdout, told)
                wait_for(lambda p=process: self.who(p.pid)["asleep"], 5, "it to sleep")
                with self.lease(process.pid):
                    self.assertIn(run(*curl, path, "http://localhost/debug/pprof/cmdline").stdout, told)


main()
