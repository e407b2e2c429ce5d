# labels: sampler
"""posternd holds sleeping targets awake while access is open, and not a moment longer."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
import unittest

from harness import SAMPLER, Gateway, Pki, TempDir, UnixConnection, main, run, wait_for

BUSY = "import threading\ndef spin():\n  while True: sum(range(1000))\nthreading.Thread(target=spin, daemon=True).start()\nspin()"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Sleeper:
    """A program under the sampler, asleep; .target is what Gateway takes."""

    def __init__(self, folder, name="jobs", listen=None, prefix=(), script=BUSY, **env):
        self.folder, self.name = folder, name
        self.listen = listen or f"127.0.0.1:{free_port()}"
        self.command = [*prefix, "env", f"LD_PRELOAD={SAMPLER}", "/usr/bin/python3", "-c", script]
        self.env = {**os.environ, "POSTERN_LISTEN": self.listen, "POSTERN_ASLEEP": "1", "POSTERN_NAME": name,
                    "POSTERN_RUNTIME_DIR": str(folder), **env}
        where = {"socket": self.listen[5:]} if self.listen.startswith("unix:") else {"address": self.listen}
        self.target = {**where, "wake": True}
        self.process = None

    def start(self):
        self.process = subprocess.Popen(self.command, env=self.env, start_new_session=True)
        try:
            wait_for(self.who, what="the control socket")
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self):
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def who(self):
        path = f"{self.folder}/{self.name}.{self.process.pid}.control"
        with contextlib.suppress(OSError), contextlib.closing(UnixConnection(path)) as connection:
            connection.request("GET", "/control")
            return json.loads(connection.getresponse().read())
        return None

    def is_refused(self):
        host, port = self.listen.rsplit(":", 1)
        try:
            socket.create_connection((host, int(port)), 5).close()
            return False
        except ConnectionRefusedError:
            return True

    def timers(self):
        return pathlib.Path(f"/proc/{self.process.pid}/timers").read_text()

    def wait_asleep(self, seconds=5):
        wait_for(lambda: self.is_refused() and self.who()["asleep"], seconds, "it to sleep")
        assert self.timers() == ""


class GateWakes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pki = cls.enterClassContext(Pki())

    @contextlib.contextmanager
    def gate(self, sleeper, conf=None, start=True, **more):
        """With the sleeper's folder as its runtime_dir/targets."""
        root = pathlib.Path(sleeper.folder).parent
        with Gateway(self.pki, {sleeper.name: {**sleeper.target, **more}}, {"gateway": {"runtime_dir": str(root)}, **(conf or {})},
                     start=start) as gate:
            yield gate

    def setUp(self):
        self.folder = self.enterContext(TempDir())
        os.chmod(self.folder.dir, 0o755)
        self.targets = pathlib.Path(self.folder.path("targets"))
        self.targets.mkdir()
        self.targets.chmod(0o1733)

    def test_asleep_until_access_opens_and_when_it_closes(self):
        with Sleeper(self.targets) as sleeper, self.gate(sleeper) as gate:
            self.assertTrue(sleeper.is_refused())
            self.assertEqual(gate.status()["targets"], [{"name": "jobs", "up": False}])
            for _ in range(2):
                gate.open()
                answer = gate.get("/debug/pprof/profile?seconds=1", cert=self.pki.client())
                self.assertEqual((answer.status, answer.body[:2]), (200, b"\x1f\x8b"), answer)
                self.assertEqual(gate.status()["targets"], [{"name": "jobs", "up": True}])
                self.assertEqual(sleeper.who()["leases"], 1)
                gate.close()
                sleeper.wait_asleep()
            record = gate.audit(event="leased")[0]
            self.assertEqual((record["target"], record["reason"]), ("jobs", "access-open"))

    def test_a_unix_socket_and_a_token(self):
        token = self.folder.write("token", "s3cret-s3cret-s3cret\n")
        with Sleeper(self.targets, listen="unix:" + self.folder.path("s.sock"), POSTERN_REQUIRE_TOKEN_FILE=token) as sleeper, \
                self.gate(sleeper, token_file=token) as gate:
            gate.open()
            self.assertEqual(gate.get("/debug/pprof/cmdline", cert=self.pki.client()).status, 200)
            gate.close()
            wait_for(lambda: sleeper.who()["asleep"] and not os.path.exists(self.folder.path("s.sock")), 5, "it to sleep")

    def test_the_end_of_the_time_to_live(self):
        with Sleeper(self.targets) as sleeper, self.gate(sleeper) as gate:
            gate.open(ttl="1s")
            wait_for(lambda: not sleeper.who()["asleep"], what="it to wake")
            gate.wait_audit(event="expired")
            sleeper.wait_asleep()

    def test_a_running_capture_gets_its_time_to_drain(self):
        patient = {"gateway": {"runtime_dir": str(self.folder.dir), "drain": "20s"}}
        with Sleeper(self.targets, POSTERN_CPU_SOURCE="timer") as sleeper, self.gate(sleeper, patient) as gate:
            gate.open()
            with gate.tls(self.pki.client()) as capture:
                capture.sendall(b"GET /debug/pprof/profile?seconds=2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
                wait_for(sleeper.timers, what="the capture")
                gate.close()
                self.assertFalse(sleeper.who()["asleep"])
                capture.settimeout(20)
                answer = capture.recv(1000)
                self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
            sleeper.wait_asleep(10)

    def test_the_keeper_is_killed(self):
        with Sleeper(self.targets) as sleeper, self.gate(sleeper) as gate:
            gate.expect_exit = None
            gate.open()
            wait_for(lambda: not sleeper.who()["asleep"], what="it to wake")
            os.kill(gate.process.pid, signal.SIGKILL)
            sleeper.wait_asleep()

    def test_it_comes_and_goes_while_access_is_open(self):
        sleeper = Sleeper(self.targets)
        with contextlib.closing(contextlib.ExitStack()) as stack, self.gate(sleeper) as gate:
            gate.open()
            stack.callback(sleeper.stop)
            for _ in range(2):
                sleeper.start()
                # At once: the dial waits for it to wake.
                self.assertEqual(gate.get("/debug/pprof/cmdline", cert=self.pki.client()).status, 200)
                sleeper.stop()
                wait_for(lambda: gate.status()["targets"] == [{"name": "jobs", "up": False}], what="it to be down")
            self.assertIn("no control socket", gate.log_text())

    def test_reload(self):
        with Sleeper(self.targets) as sleeper, self.gate(sleeper) as gate:
            gate.open()
            wait_for(lambda: not sleeper.who()["asleep"], what="it to wake")
            self.assertEqual(gate.reload().status, 200)
            time.sleep(0.5)
            self.assertEqual(len(gate.audit(event="leased")), 1)
            self.assertFalse(sleeper.who()["asleep"])
            gate.conf["targets"][0]["wake"] = False
            gate.write_conf()
            self.assertEqual(gate.reload().status, 200)
            sleeper.wait_asleep()

    def test_of_forked_processes_the_first(self):
        with Sleeper(self.targets, script="import os, time\nfor _ in range(3):\n  if os.fork() == 0: break\nwhile True: time.sleep(0.1)") as sleeper, \
                self.gate(sleeper) as gate:
            wait_for(lambda: len(list(self.targets.glob("*.control"))) == 4, what="all four")
            gate.open()
            self.assertEqual(gate.get("/debug/pprof/cmdline", cert=self.pki.client()).status, 200)
            self.assertFalse(sleeper.who()["asleep"])

    def test_another_of_the_name_is_not_taken(self):
        with Sleeper(self.targets) as other, Sleeper(self.targets) as sleeper, self.gate(sleeper) as gate:
            gate.open()
            self.assertEqual(gate.get("/debug/pprof/cmdline", cert=self.pki.client()).status, 200)
            self.assertTrue(other.who()["asleep"])

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("setpriv"), "other users need root")
    def test_whose_it_is(self):
        """Of another user: only if targets[].uid says so; and a stranger's of the same name is not touched."""
        stranger = ["setpriv", "--reuid=65534", "--clear-groups"]
        with Sleeper(self.targets, prefix=stranger) as sleeper:
            for uid, awake in ((None, False), (65533, False), (65534, True)):
                with self.subTest(uid), self.gate(sleeper, **({"uid": uid} if uid else {})) as gate:
                    gate.open()
                    if awake:
                        self.assertEqual(gate.get("/debug/pprof/cmdline", cert=self.pki.client()).status, 200)
                    else:
                        wait_for(lambda g=gate: "no control socket" in g.log_text(), what="the log")
                        self.assertTrue(sleeper.who()["asleep"])

    def test_rates_until_access_closes(self):
        """Of a target that does not sleep: the lease is for the rates alone."""
        with Sleeper(self.targets, POSTERN_ASLEEP="0", POSTERN_MUTEX_FRACTION="5") as sleeper, self.gate(sleeper, wake=False) as gate:
            def rates():
                return json.loads(run("curl", "-s", f"http://{sleeper.listen}/debug/pprof/rates").stdout)
            before = {"heap": 524288, "mutex": 5, "block": 0}
            self.assertEqual(gate.admin("POST", "/v1/targets/jobs/rates", {"heap": 0}).status, 409)
            gate.open()
            self.assertEqual(sleeper.who()["leases"], 0)
            for body, now in (({"heap": "64KiB", "block": "1us"}, {"heap": 65536, "mutex": 5, "block": 1000}),
                              ({"mutex": 1}, {"heap": 65536, "mutex": 1, "block": 1000})):
                answer = gate.admin("POST", "/v1/targets/jobs/rates", body)
                self.assertEqual((answer.status, answer.json()["state"]), (200, "open"), answer)
                self.assertEqual(rates(), now)
            self.assertEqual(sleeper.who()["leases"], 1)
            gate.close()
            wait_for(lambda: rates() == before, 5, "the rates from before")
            record = gate.audit(event="leased", reason="rates")[0]
            self.assertEqual((record["target"], record["params"], record["peer"]["uid"]), ("jobs", '{"heap":65536,"block":1000}', os.getuid()))

    def test_rates_of_a_sleeper_come_with_its_waking(self):
        with Sleeper(self.targets) as sleeper, self.gate(sleeper) as gate:
            gate.open()
            answer = gate.admin("POST", "/v1/targets/jobs/rates", {"heap": "1MiB"})
            self.assertEqual(answer.status, 200, answer)
            self.assertEqual(json.loads(run("curl", "-s", f"http://{sleeper.listen}/debug/pprof/rates").stdout)["heap"], 1 << 20)
            gate.close()
            sleeper.wait_asleep()

    def test_targets_that_cannot(self):
        with Sleeper(self.targets) as sleeper, self.gate(sleeper, name="nobody") as gate:
            gate.open()
            answer = gate.admin("POST", "/v1/targets/nobody/rates", {"heap": 0})
            self.assertEqual((answer.status, answer.slug()), (501, "target-cannot"), answer)
            self.assertTrue(sleeper.who()["asleep"])

    def test_impostors_do_not_stop_the_keeper(self):
        path = str(self.targets / "jobs.1.control")
        answers = [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}\n", b"HTTP/1.1 200 OK\r\n\r\n{}", b"nonsense\r\n\r\n",
                   b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", b"HTTP/1.1 503 no\r\nContent-Length: 0\r\n\r\n", None]
        os.mkfifo(self.targets / "jobs.2.control")
        (self.targets / "jobs.3.control").symlink_to("/etc/passwd")
        sleeper = Sleeper(self.targets)
        for answer in answers:
            with self.subTest(answer), socket.socket(socket.AF_UNIX) as server, self.gate(sleeper) as gate:
                server.bind(path)
                server.listen()
                server.settimeout(10)
                gate.open()
                with server.accept()[0] as client:
                    self.assertTrue(client.recv(4096).startswith(b"POST /control/wake HTTP/1.1\r\n"))
                    if answer:
                        client.sendall(answer)
                    if answer is not None:
                        client.shutdown(socket.SHUT_WR)
                    began = time.monotonic()
                    self.assertEqual(gate.status()["state"], "open")
                    self.assertLess(time.monotonic() - began, 2)
                    if answer is not None:
                        wait_for(lambda g=gate: "target jobs" in g.log_text(), what="the log")
                self.assertEqual(gate.audit(event="leased"), [])
                os.unlink(path)


main()
