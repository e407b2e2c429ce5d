# labels: sampler
"""`postern wake`: finds a sleeper by name or number, holds it awake, and believes nobody but the kernel."""
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import unittest

from harness import BIN, SAMPLER, TempDir, UnixConnection, main, postern, run, wait_for

SLEEP = "import time\nwhile True: time.sleep(0.1)"


class WakeTest(unittest.TestCase):
    def setUp(self):
        self.folder = self.enterContext(TempDir())
        self.env = {"POSTERN_RUNTIME_DIR": str(self.folder.dir)}

    @contextlib.contextmanager
    def sleeper(self, name="jobs", prefix=(), **env):
        process = subprocess.Popen([*prefix, sys.executable, "-c", SLEEP], env={
            **os.environ, "LD_PRELOAD": str(SAMPLER), "POSTERN_LISTEN": "127.0.0.1:0", "POSTERN_ASLEEP": "1",
            "POSTERN_NAME": name, **self.env, **env})
        try:
            wait_for(lambda: self.who(process.pid, name), what="the control socket")
            yield process
        finally:
            process.kill()
            process.communicate()

    def who(self, pid, name="jobs"):
        with contextlib.suppress(OSError), contextlib.closing(UnixConnection(self.folder.path(f"{name}.{pid}.control"))) as connection:
            connection.request("GET", "/control")
            return json.loads(connection.getresponse().read())
        return None

    def wake(self, *arguments, **options):
        return postern("wake", *arguments, env=self.env, timeout=30, **options)

    @contextlib.contextmanager
    def held(self, *arguments):
        """The command as it runs, and the line that it prints."""
        process = subprocess.Popen([BIN / "postern", "wake", *arguments], env={**os.environ, **self.env},
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            yield process, process.stdout.readline()
        finally:
            process.kill()
            process.communicate()


class Wake(WakeTest):
    def test_by_name_until_ctrl_c(self):
        with self.sleeper() as process, self.held("jobs") as (command, line):
            self.assertRegex(line, rf"^jobs \(process {process.pid}\) is awake: http://127\.0\.0\.1:\d+\n$")
            answer = run("curl", "-s", line.split()[-1] + "/debug/pprof/cmdline")
            self.assertIn("python", answer.stdout)
            command.send_signal(signal.SIGINT)
            self.assertEqual(command.wait(10), 0)
            wait_for(lambda: self.who(process.pid)["asleep"], 5, "it to sleep")

    def test_killed(self):
        with self.sleeper() as process:
            with self.held(str(process.pid)):
                self.assertFalse(self.who(process.pid)["asleep"])
            wait_for(lambda: self.who(process.pid)["asleep"], 5, "it to sleep")

    def test_command(self):
        with self.sleeper() as process:
            done = self.wake("--heap", "1MiB", "--block", "1us", "jobs", "--", "curl", "-s", "{url}/debug/pprof/rates")
            self.assertEqual((done.returncode, json.loads(done.stdout)), (0, {"heap": 1 << 20, "mutex": 0, "block": 1000}), done.stderr)
            done = self.wake("--listen-only", "jobs", "--", "curl", "-s", "{url}/debug/pprof/rates")
            self.assertEqual(json.loads(done.stdout)["heap"], 0)
            self.assertEqual(self.wake("jobs", "--", "sh", "-c", "exit 7").returncode, 7)
            self.assertEqual(self.wake("jobs", "--", "/no/such/thing").returncode, 127)
            wait_for(lambda: self.who(process.pid)["asleep"], 5, "it to sleep")

    def test_the_process_ends(self):
        with self.sleeper() as process, self.held("jobs") as (command, _line):
            process.kill()
            self.assertEqual(command.wait(10), 1)
            self.assertIn("has ended", command.stderr.read())

    def test_errors_say_what_to_do(self):
        for arguments, status, words in (
                ([], 2, "whom?"), (["jobs", "now"], 2, "after --"), (["jobs"], 1, "no 'jobs' announces itself in"),
                (["--dir", "/nonexistent", "jobs"], 1, "/nonexistent"), (["--token-file", "/nonexistent", "jobs"], 1, "no 'jobs'")):
            done = self.wake(*arguments)
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertIn(words, done.stderr)
        with self.sleeper():
            done = self.wake("--heap", "much", "jobs")
            self.assertEqual(done.returncode, 1)
            self.assertIn('"heap" is bytes', done.stderr)
            with self.sleeper() as second:
                done = self.wake("jobs")
                self.assertEqual(done.returncode, 1)
                self.assertIn("several processes are called 'jobs'", done.stderr)
                self.assertIn(f"{second.pid} (uid", done.stderr)
        self.assertIn("postern wake vtp", self.wake("--help").stdout)

    def test_a_token(self):
        token = self.folder.write("token", "s3cret-s3cret-s3cret\n")
        with self.sleeper(POSTERN_REQUIRE_TOKEN_FILE=token):
            self.assertIn("bearer token", self.wake("jobs", "--", "true").stderr)
            self.assertEqual(self.wake("--token-file", token, "jobs", "--", "true").returncode, 0)

    def test_of_a_program_and_its_forked_children_the_program(self):
        script = "import os, time\nos.fork()\nwhile True: time.sleep(0.1)"
        process = subprocess.Popen([sys.executable, "-c", script], start_new_session=True, env={
            **os.environ, "LD_PRELOAD": str(SAMPLER), "POSTERN_LISTEN": "127.0.0.1:0", "POSTERN_ASLEEP": "1",
            "POSTERN_NAME": "jobs", **self.env})
        try:
            wait_for(lambda: len([name for name in os.listdir(self.folder.dir) if name.endswith(".control")]) == 2)
            with self.held("jobs") as (_command, line):
                self.assertIn(f"(process {process.pid})", line)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Impostors(WakeTest):
    """What lies in a folder into which others may write."""

    @contextlib.contextmanager
    def listener(self, name, answer, uid=None):
        path = self.folder.path(name)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            if uid is not None:
                os.chown(path, uid, -1)
            server.listen()
            server.settimeout(10)
            asked = []

            def serve():
                with contextlib.suppress(OSError), server.accept()[0] as client:
                    client.settimeout(5)
                    asked.append(client.recv(65536))
                    client.sendall(answer)
                    client.recv(1)
            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            yield asked
        os.unlink(path)

    def test_files_that_are_no_sockets_are_ignored(self):
        self.folder.write("jobs.1.control", "x")
        os.mkfifo(self.folder.path("jobs.2.control"))
        os.symlink("/etc/passwd", self.folder.path("jobs.3.control"))
        os.mkdir(self.folder.path("jobs.4.control"))
        self.assertIn("no 'jobs'", self.wake("jobs").stderr)
        with self.sleeper() as process:
            os.symlink(self.folder.path(f"jobs.{process.pid}.control"), self.folder.path("alias.5.control"))
            self.assertIn("no 'alias'", self.wake("alias").stderr)
            self.assertEqual(self.wake("jobs", "--", "true").returncode, 0)

    def test_answers_that_are_none(self):
        for answer in (b"", b"\x1b]0;owned\x07\n", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
                       b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{}", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
                       b"HTTP/1.1 302 Found\r\nLocation: http://evil/\r\nContent-Length: 0\r\n\r\n",
                       b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\n\x1b]0;own\x07\n"):
            with self.subTest(answer), self.listener("jobs.6.control", answer) as asked:
                done = self.wake("jobs")
                self.assertEqual(done.returncode, 1, done.stdout)
                self.assertNotIn("\x1b", done.stderr)
                self.assertEqual(len(asked), 1)

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("setpriv"), "becoming another user needs root")
    def test_owner_and_listener_must_be_the_same(self):
        """As root gets it from a process that has got a file of another user's there, and the other way round."""
        with self.listener("jobs.7.control", b"", uid=65534) as asked:
            done = self.wake("jobs")
            self.assertIn("does not let you in", done.stderr)
            self.assertEqual(b"".join(asked), b"")

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("setpriv"), "becoming another user needs root")
    def test_another_users_are_not_asked(self):
        os.chmod(self.folder.dir, 0o1777)
        stranger = ["setpriv", "--reuid=65534", "--clear-groups"]
        with self.listener("jobs.8.control", b"", uid=65533) as asked:
            os.chmod(self.folder.path("jobs.8.control"), 0o666)
            done = run(*stranger, BIN / "postern", "wake", "jobs", env={**os.environ, **self.env})
            self.assertIn("is another user's", done.stderr)
            self.assertEqual(b"".join(asked), b"")

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("setpriv"), "becoming another user needs root")
    def test_a_folder_that_cannot_be_listed(self):
        os.chmod(self.folder.dir, 0o1733)
        stranger = ["setpriv", "--reuid=65534", "--clear-groups"]
        with self.sleeper_of(stranger) as process:
            done = run(*stranger, BIN / "postern", "wake", "jobs", "--", "true", env={**os.environ, **self.env})
            self.assertEqual(done.returncode, 0, done.stderr)
            done = run(*stranger, BIN / "postern", "wake", process.pid, "--", "true", env={**os.environ, **self.env})
            self.assertEqual(done.returncode, 0, done.stderr)

    @contextlib.contextmanager
    def sleeper_of(self, stranger):
        command = [*stranger, "env", f"LD_PRELOAD={SAMPLER}", "sleep", "60"]
        process = subprocess.Popen(command, env={**os.environ, "POSTERN_LISTEN": "127.0.0.1:0", "POSTERN_ASLEEP": "1",
                                                 "POSTERN_NAME": "jobs", **self.env})
        try:
            wait_for(lambda: self.who(process.pid), what="the control socket")
            yield process
        finally:
            process.kill()
            process.wait()


main()
