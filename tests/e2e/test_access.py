"""The switch: opening and closing by signal and by endpoint, its end on time, the admin socket's manners,
reloads, and what posternd does not start with."""
# labels: gate
import json
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import time
import unittest

from harness import BIN, Backend, Gateway, Pki, UnixConnection, main, postern, run, wait_for

PKI = Pki()


def tearDownModule():
    PKI.remove()


def wait_closed(gate, port):
    wait_for(lambda: not gate.is_reachable(port), what="the port to close")


class Switch(unittest.TestCase):
    def test_closed_is_nothing(self):
        with Gateway(PKI) as gate:
            status = gate.status()
            self.assertEqual((status["state"], status["listening"], status["workers"]), ("closed", [], []))
            wait_for(lambda: gate.scribe() is None, what="the scribe to be let go")
            self.assertEqual(len(gate.processes()), 1)
            port = gate.open()
            self.assertTrue(gate.is_reachable(port))
            wait_for(gate.workers, what="a worker")
            gate.close()
            self.assertFalse(gate.is_reachable(port))
            wait_for(lambda: len(gate.processes()) == 1, what="worker and scribe to end")
            self.assertEqual(gate.status()["state"], "closed")

    def test_status_of_open(self):
        with Backend() as backend, Gateway(PKI, targets={"up": backend, "down": {"address": "127.0.0.1:1"}}) as gate:
            gate.open(ttl="2m", reason="INC-1")
            status = gate.status()
            self.assertEqual(status["state"], "open")
            self.assertEqual(status["reason"], "INC-1")
            self.assertIn(status["remaining_seconds"], (119, 120))
            self.assertIn(f"uid {os.geteuid()}, pid {os.getpid()}", status["opened_by"])
            self.assertEqual([w["generation"] for w in status["workers"]], [1])
            self.assertEqual({t["name"]: t["up"] for t in status["targets"]}, {"up": True, "down": False})
            self.assertEqual(status["audit"]["seq"], gate.audit()[-1]["seq"])
            self.assertEqual(status["audit"]["hash"], gate.audit()[-1]["hash"])
            self.assertEqual(backend.connections, 0)
            opened = gate.wait_audit(event="opened")
            self.assertEqual(opened["reason"], "INC-1")
            self.assertEqual(opened["peer"]["pid"], os.getpid())

    def test_signals(self):
        with Gateway(PKI) as gate:
            gate.process.send_signal(signal.SIGUSR1)
            opened = gate.wait_audit(event="opened")
            self.assertEqual((opened["reason"], opened["peer"]["pid"], opened["peer"]["uid"]),
                             ("signal", os.getpid(), os.geteuid()))
            wait_for(lambda: gate.status()["state"] == "open", what="open")
            port, until = gate.port, gate.status()["until"]
            gate.process.send_signal(signal.SIGUSR1)  # already open: nothing changes
            self.assertEqual(gate.status()["until"][:19], until[:19])
            gate.process.send_signal(signal.SIGUSR2)
            closed = gate.wait_audit(event="closed")
            self.assertEqual((closed["reason"], closed["peer"]["pid"]), ("signal", os.getpid()))
            wait_closed(gate, port)
            self.assertEqual(len(gate.audit(event="opened")), 1)

    def test_signal_may_be_forbidden(self):
        with Gateway(PKI, conf={"access": {"signal": False}}) as gate:
            gate.process.send_signal(signal.SIGUSR1)
            wait_for(lambda: "access.signal" in gate.log_text(), what="a line in the log")
            self.assertEqual(gate.status()["state"], "closed")
            gate.open()
            gate.process.send_signal(signal.SIGUSR2)  # closing is never forbidden
            gate.wait_audit(event="closed")

    def test_command_line(self):
        with Gateway(PKI) as gate:
            admin = ("--admin", gate.conf["admin"]["socket"])
            done = postern("open", "--ttl", "5m", "--reason", "INC-7", *admin)
            self.assertEqual(done.returncode, 0, done)
            self.assertIn("open, 5m 0s left", done.stdout)
            status = postern("status", "--json", *admin)
            self.assertEqual(json.loads(status.stdout)["reason"], "INC-7")
            self.assertEqual(postern("reload", *admin).stdout, "reloaded: generation 2\n")
            self.assertEqual(postern("close", *admin).stdout, "access     closed\n")
            refused = postern("open", "--ttl", "100h", "--reason", "x", *admin)
            self.assertEqual(refused.returncode, 1)
            self.assertIn("over access.max_ttl", refused.stderr)
            self.assertEqual(postern("open", *admin, stdin=subprocess.DEVNULL).returncode, 2)
        gone = postern("status", *admin)
        self.assertEqual(gone.returncode, 1)
        self.assertIn("is posternd running?", gone.stderr)


class TimeToLive(unittest.TestCase):
    def test_expires_on_time(self):
        with Gateway(PKI) as gate:
            port = gate.open(ttl="1s")
            begun = time.monotonic()
            wait_closed(gate, port)
            self.assertLess(abs(time.monotonic() - begun - 1), 0.5)
            self.assertEqual(gate.wait_audit(event="expired")["reason"], "ttl")
            self.assertEqual(gate.audit(event="closed"), [])

    def test_keeper_stopped_across_it(self):
        with Gateway(PKI) as gate:
            port = gate.open(ttl="1s")
            wait_for(gate.workers, what="a worker")
            until = time.monotonic() + 1.2
            gate.process.send_signal(signal.SIGSTOP)
            wait_for(lambda: time.monotonic() > until, what="the end of access")
            # The kernel still takes connections; the worker closes them without a byte.
            with gate.connect(port) as connection:
                connection.settimeout(10)
                try:
                    connection.sendall(b"\x16\x03\x01")
                    self.assertEqual(connection.recv(1), b"")
                except ConnectionResetError:
                    pass
            gate.process.send_signal(signal.SIGCONT)
            wait_closed(gate, port)
            gate.wait_audit(event="expired")
            self.assertEqual(gate.status()["state"], "closed")

    def test_prolonged_never_past_max(self):
        with Gateway(PKI, conf={"access": {"max_ttl": "10m"}}) as gate:
            gate.open(ttl="2m")
            gate.open(ttl="1m")
            self.assertIn(gate.status()["remaining_seconds"], (119, 120))
            gate.open(ttl="10m")
            self.assertIn(gate.status()["remaining_seconds"], (599, 600))
            gate.open(ttl="10m")
            self.assertLessEqual(gate.status()["remaining_seconds"], 600)
            self.assertEqual(len(gate.audit(event="opened")), 4)

    def test_initially_open_without_limit(self):
        with Gateway(PKI, conf={"access": {"initially": "open", "ttl": "0s"}}) as gate:
            wait_for(lambda: gate.status()["state"] == "open", what="open")
            self.assertNotIn("until", gate.status())
            self.assertTrue(gate.is_reachable(gate.port))

    def test_restart_is_closed(self):
        with Gateway(PKI) as gate:
            port = gate.open(ttl="4h")
            self.assertEqual(gate.stop(), 0)
            self.assertFalse(gate.is_reachable(port))
            self.assertEqual([r["event"] for r in gate.audit()], ["started", "opened", "closed", "stopped"])
            gate.start()
            self.assertEqual(gate.status()["state"], "closed")
            self.assertEqual(gate.wait_audit(event="started", count=2)["seq"], 5)


class AdminPlane(unittest.TestCase):
    REFUSALS = [
        ("GET", "/v1/nothing", None, 404), ("GET", "/", None, 404), ("GET", "/v1/status/", None, 404),
        ("GET", "/v1/access", None, 405), ("GET", "/v1/reload", None, 405), ("POST", "/v1/status", {}, 405),
        ("POST", "/metrics", {}, 405), ("GET", "/v1/status?x=1", None, 400),
        ("POST", "/v1/access", "", 400), ("POST", "/v1/access", "{", 400), ("POST", "/v1/access", [], 400),
        ("POST", "/v1/access", {}, 400), ("POST", "/v1/access", {"state": "ajar"}, 400),
        ("POST", "/v1/access", {"state": "open", "reason": "x", "why": "y"}, 400),
        ("POST", "/v1/access", '{"state":"open","state":"open","reason":"x"}', 400),
        ("POST", "/v1/access", {"state": "open"}, 400), ("POST", "/v1/access", {"state": "open", "reason": " "}, 400),
        ("POST", "/v1/access", {"state": "open", "reason": "x", "ttl": "0s"}, 400),
        ("POST", "/v1/access", {"state": "open", "reason": "x", "ttl": "-1m"}, 400),
        ("POST", "/v1/access", {"state": "open", "reason": "x", "ttl": 900}, 400),
        ("POST", "/v1/access", {"state": "open", "reason": "x", "ttl": "5h"}, 400),
        ("POST", "/v1/access", {"state": "open", "reason": "x" * 70000}, 413),
        ("GET", "/v1/targets/none/rates", None, 405), ("POST", "/v1/targets//rates", {}, 404),
        ("POST", "/v1/targets/none/rates/", {}, 404), ("POST", "/v1/targets/a/b/rates", {}, 404),
        ("POST", "/v1/targets/other/rates", {"heap": 0}, 404), ("POST", "/v1/targets/none/rates", {}, 400),
        ("POST", "/v1/targets/none/rates", {"heap": "1KiB"}, 400), ("POST", "/v1/targets/none/rates", {"heap": 0}, 409),
        ("POST", "/v1/ban", {"address": "192.0.2.1"}, 501), ("POST", "/v1/lease", {}, 501),
    ]

    def test_refusals(self):
        with Gateway(PKI) as gate:
            for number, (method, path, body, expected) in enumerate(self.REFUSALS):
                with self.subTest(f"{method} {path} {str(body)[:60]}"):
                    answer = gate.admin(method, path, body)
                    self.assertEqual(answer.status, expected, answer)
                    self.assertEqual(answer.headers["Content-Type"], "application/problem+json")
                    self.assertEqual(answer.json()["status"], expected)
                    if expected == 405:
                        self.assertEqual(answer.headers["Allow"], "POST" if method == "GET" else "GET")
                if number % 10 == 9:
                    past = time.monotonic() + 1.1  # the second in which refusals are summed
                    wait_for(lambda: time.monotonic() > past, what="the next second")
            self.assertEqual(gate.status()["state"], "closed")
            gate.wait_audit(count=len(self.REFUSALS), event="refused")
            self.assertEqual(gate.audit(event="opened"), [])

    def test_content_type(self):
        with Gateway(PKI) as gate:
            for kind, expected in ((None, 415), ("text/plain", 415), ("application/x-www-form-urlencoded", 415),
                                   ("application/json; charset=utf-8", 200)):
                connection = UnixConnection(gate.conf["admin"]["socket"])
                connection.request("POST", "/v1/access", '{"state":"closed"}', {"Content-Type": kind} if kind else {})
                self.assertEqual(connection.getresponse().status, expected, kind)
                connection.close()

    def test_raw_nonsense(self):
        with Gateway(PKI) as gate:
            for data in (b"\0" * 100 + b"\r\n\r\n", b"GET /v1/status HTTP/1.1\r\n\r\n", b"GET /v1/status HTTP/1.0\r\nHost: x\r\n\r\n",
                         b"POST /v1/access HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                         b"GET " + b"a" * 20000):
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(gate.conf["admin"]["socket"])
                    connection.settimeout(10)
                    connection.sendall(data)
                    answer = connection.recv(65536)
                    self.assertRegex(answer[:12], rb"^HTTP/1.1 [45]", data[:40])
            self.assertEqual(gate.status()["state"], "closed")

    def test_metrics_and_health(self):
        with Gateway(PKI) as gate:
            self.assertIn(b"\npostern_access_open 0\n", gate.admin("GET", "/metrics").body)
            gate.open()
            metrics = gate.admin("GET", "/metrics")
            self.assertIn(b"\npostern_access_open 1\n", metrics.body)
            self.assertIn(b"\npostern_workers 1\n", metrics.body)
            self.assertIn("version=0.0.4", metrics.headers["Content-Type"])
            self.assertEqual(gate.admin("GET", "/healthz").body, b"ok\n")

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_uid_decides(self):
        group = "nogroup"
        with Gateway(PKI, conf={"admin": {"group": group}}) as gate:
            os.chmod(gate.dir, 0o711)
            path = gate.conf["admin"]["socket"]
            self.assertEqual(os.stat(path).st_mode & 0o777, 0o660)
            nobody = pwd.getpwnam("nobody")
            script = ("import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(10)\n"
                      "try: s.sendall(b'GET /v1/status HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); print(s.recv(100))\n"
                      "except OSError: print(b'')")

            def ask():
                return run("/usr/bin/python3", "-c", script, path, user=nobody.pw_uid, group=nobody.pw_gid).stdout
            self.assertEqual(ask(), "b''\n")
            refused = gate.wait_audit(event="refused")
            self.assertEqual((refused["reason"], refused["peer"]["uid"]), ("uid-not-allowed", nobody.pw_uid))
            gate.conf["admin"]["allow_uids"] = [nobody.pw_uid]
            gate.write_conf()
            self.assertEqual(gate.reload().status, 200)
            self.assertIn("200 OK", ask())

    def test_socket_mode(self):
        with Gateway(PKI) as gate:
            self.assertEqual(os.stat(gate.conf["admin"]["socket"]).st_mode & 0o777, 0o600)

    def test_client_that_leaves(self):
        with Gateway(PKI) as gate:
            for _ in range(50):
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(gate.conf["admin"]["socket"])
                    connection.sendall(b'POST /v1/access HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n'
                                       b'Content-Length: 29\r\n\r\n{"state":"open","reason":"x"}')
            wait_for(lambda: gate.status()["state"] == "open", what="open")
            self.assertEqual(gate.stop(), 0)


class Listening(unittest.TestCase):
    def test_taken_port_is_409(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with Gateway(PKI, conf={"gateway": {"listen": ["127.0.0.1:0", f"127.0.0.1:{port}"]}}) as gate:
                answer = gate.admin("POST", "/v1/access", {"state": "open", "reason": "x"})
                self.assertEqual(answer.status, 409)
                self.assertIn(f"127.0.0.1:{port}", answer.json()["detail"])
                self.assertEqual(gate.status()["state"], "closed")
                self.assertEqual(gate.status()["listening"], [])
                self.assertEqual(gate.audit(event="opened"), [])

    def test_both_families(self):
        with Gateway(PKI, conf={"gateway": {"listen": ["127.0.0.1:0", "[::1]:0"]}}) as gate:
            gate.open()
            listening = gate.status()["listening"]
            self.assertTrue(listening[0].startswith("127.0.0.1:"))
            if len(listening) == 1:
                self.assertIn("[::1]:0", gate.log_text())  # this host has no IPv6: a warning
            else:
                socket.create_connection(("::1", int(listening[1].rsplit(":", 1)[1])), 5).close()


class Reload(unittest.TestCase):
    def test_good(self):
        with Gateway(PKI) as gate:
            port = gate.open()
            old = wait_for(gate.workers, what="a worker")
            self.assertEqual(gate.reload().status, 200)
            self.assertEqual(gate.status()["generation"], 2)
            self.assertEqual(gate.port, port)  # the same socket goes on, port 0 or not
            wait_for(lambda: gate.workers() and gate.workers() != old and len(gate.workers()) == 1,
                     what="the old generation to end")
            gate.process.send_signal(signal.SIGHUP)
            gate.wait_audit(count=2, event="reloaded")
            self.assertEqual(gate.status()["generation"], 3)
            self.assertEqual(gate.audit(event="worker_died"), [])

    def test_bad_changes_nothing(self):
        with Gateway(PKI) as gate:
            port = gate.open()
            wait_for(gate.workers, what="a worker")
            workers = gate.workers()
            gate.write_conf('gateway = { worker = 2; drain = "soon" };\n')
            answer = gate.reload()
            self.assertEqual(answer.status, 422)
            self.assertGreaterEqual(len(answer.json()["errors"]), 2)
            self.assertTrue(any("worker" in line for line in answer.json()["errors"]), answer)
            gate.process.send_signal(signal.SIGHUP)
            gate.wait_audit(count=2, event="reload_failed")
            self.assertEqual((gate.port, gate.workers(), gate.status()["generation"]), (port, workers, 1))

    def test_other_address(self):
        with Gateway(PKI) as gate:
            port = gate.open()
            gate.conf["gateway"]["listen"] = ["127.0.0.2:0"]
            gate.write_conf()
            self.assertEqual(gate.reload().status, 200)
            self.assertTrue(gate.status()["listening"][0].startswith("127.0.0.2:"))
            wait_closed(gate, port)

    def test_max_ttl_holds_at_once(self):
        with Gateway(PKI) as gate:
            gate.open(ttl="1h")
            gate.conf["access"].update(max_ttl="2m", ttl="1m")
            gate.write_conf()
            self.assertEqual(gate.reload().status, 200)
            self.assertLessEqual(gate.status()["remaining_seconds"], 120)

    def test_rotated_log(self):
        with Gateway(PKI) as gate:
            gate.open()
            shutil.move(gate.audit_file, gate.path("audit.1"))
            gate.process.send_signal(signal.SIGHUP)
            wait_for(lambda: os.path.exists(gate.audit_file), what="a new audit file")
            first = gate.wait_audit(event="reloaded")
            last = json.loads(pathlib.Path(gate.path("audit.1")).read_text().splitlines()[-1])
            self.assertEqual((first["seq"], first["prev"]), (last["seq"] + 1, last["hash"]))
            gate.close()
            verify = postern("audit", "verify", gate.path("audit.1"), gate.audit_file)
            self.assertEqual(verify.returncode, 0, verify)
            gate.stop()
            gate.expect_chain = False  # begins in the middle
            gate.start()


class Start(unittest.TestCase):
    def posternd(self, *arguments, **options):
        return run(BIN / "posternd", *arguments, **options)

    def test_options(self):
        with Gateway(PKI, start=False) as gate:
            self.assertEqual(self.posternd("-t", "-c", gate.conf_file).returncode, 0)
            printed = self.posternd("-T", "-c", gate.conf_file)
            self.assertEqual(printed.returncode, 0, printed)
            again = gate.write("again.conf", printed.stdout)
            self.assertEqual(self.posternd("-T", "-c", again).stdout, printed.stdout)
            self.assertRegex(self.posternd("-V").stdout, r"(?s)^posternd \d.*OpenSSL \d.*libevent \d.*libjwt \d.*libconfig \d")
            for wrong in ((), ("-x",), ("-c",), ("-c", gate.conf_file, "more")):
                self.assertEqual(self.posternd(*wrong).returncode, 2, wrong)
            bad = gate.write("bad.conf", "gateway = { };\nnonsense = 1;\n")
            for mode in ("-t", "-T"):
                self.assertEqual(self.posternd(mode, "-c", bad).returncode, 78)
            self.assertEqual(self.posternd("-c", bad).returncode, 78)
            self.assertEqual(self.posternd("-c", gate.path("none")).returncode, 78)
            gate.start()

    def check_refused(self, gate, text):
        done = self.posternd("-c", gate.conf_file, timeout=20)
        self.assertEqual(done.returncode, 1, done)
        self.assertIn(text, done.stderr)
        self.assertFalse(os.path.exists(gate.conf["admin"]["socket"]))

    def test_audit_file_that_will_not_do(self):
        with Gateway(PKI) as gate:
            gate.open()
            gate.stop()
            whole = pathlib.Path(gate.audit_file).read_bytes()
            lines = whole.splitlines(keepends=True)
            for name, content in (("edited", whole.replace(b'"event":"opened"', b'"event":"closed"')),
                                  ("deleted", b"".join(lines[:1] + lines[2:])),
                                  ("swapped", b"".join([lines[1], lines[0]] + lines[2:]))):
                with self.subTest(name):
                    pathlib.Path(gate.audit_file).write_bytes(content)
                    self.check_refused(gate, "chain is broken")
            os.unlink(gate.audit_file)
            os.symlink("/dev/null", gate.audit_file)
            self.check_refused(gate, "symbolic link")
            os.unlink(gate.audit_file)
            os.mkfifo(gate.audit_file)
            self.check_refused(gate, "audit.file")
            os.unlink(gate.audit_file)
            pathlib.Path(gate.audit_file).write_bytes(whole)
            gate.start()

    def test_torn_last_line(self):
        with Gateway(PKI) as gate:
            gate.stop()
            with open(gate.audit_file, "ab") as file:
                file.write(b'{"v":1,"seq":3,"ts')
            gate.start()
            self.assertIn("torn", gate.wait_audit(event="recovered")["detail"])
            self.assertEqual(pathlib.Path(gate.audit_file + ".torn").read_bytes(), b'{"v":1,"seq":3,"ts\n')

    def test_cut_tail_shows(self):
        with Gateway(PKI) as gate:
            gate.open()
            gate.stop()
            lines = pathlib.Path(gate.audit_file).read_bytes().splitlines(keepends=True)
            pathlib.Path(gate.audit_file).write_bytes(b"".join(lines[:-1]))
            gate.start()
            self.assertIn("cut off", gate.wait_audit(event="recovered")["detail"])
            self.assertIn("cut off", gate.log_text())

    def test_second_daemon(self):
        with Gateway(PKI) as gate:
            done = self.posternd("-c", gate.conf_file, timeout=30)
            self.assertEqual(done.returncode, 1)
            self.assertIn("is posternd running already?", done.stderr)
            self.assertEqual(gate.status()["state"], "closed")  # the first one is as it was

    def test_admin_socket_path(self):
        with Gateway(PKI, start=False) as gate:
            path = gate.conf["admin"]["socket"]
            pathlib.Path(path).write_text("precious")
            done = self.posternd("-c", gate.conf_file, timeout=30)
            self.assertEqual(done.returncode, 1)
            self.assertIn("is not a socket", done.stderr)
            self.assertEqual(pathlib.Path(path).read_text(), "precious")
            os.unlink(path)
            with socket.socket(socket.AF_UNIX) as left_over:
                left_over.bind(path)
            gate.start()  # replaced

    def test_log_as_json(self):
        with Gateway(PKI, conf={"log": {"format": "json"}}) as gate:
            gate.open(reason='quote " and \n newline')
            for line in gate.log_text().splitlines():
                self.assertEqual(set(json.loads(line)), {"ts", "level", "process", "pid", "text"})


main()
