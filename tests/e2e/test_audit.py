# labels: gate
# timeout: 240
"""The audit log: what is in it, that nothing is served without it, and what the daemon does with a damaged one."""
import json
import os
import pathlib
import re
import subprocess
import unittest

from harness import BIN, HEAP, Backend, GateTest, Gateway, Pki, main, postern, wait_for

ORDER = ("v seq ts event request_id client identity peer method target path params status reason detail bytes ms count "
         "ttl_ms prev hash").split()


class Records(GateTest):
    def test_a_served_request(self):
        self.allow("/debug/pprof/profile?seconds=2", token=self.pki.token(sub="dora", jti="j-1"))
        received = self.gate.audit(event="received")[-1]
        completed = self.gate.wait_audit(event="completed", request_id=received["request_id"])
        for record in (received, completed):
            self.assertEqual((record["method"], record["target"], record["path"], record["params"]),
                             ("GET", "t", "/debug/pprof/profile", "seconds=2"))
            self.assertEqual(record["client"]["address"], "127.0.0.1")
            self.assertEqual(record["identity"]["subject"], "dora")
            self.assertRegex(record["ts"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")
        self.assertNotIn("status", received)
        self.assertEqual((completed["status"], completed["bytes"]), (200, 5))
        self.assertGreaterEqual(completed["ms"], 0)

    def test_it_is_there_before_the_target_hears_of_it(self):
        seen = []

        def look(_request):
            seen.append(self.gate.audit(event="received")[-1]["request_id"])
            return Backend.HELLO
        self.backend.answer = look
        try:
            answer = self.gate.get(HEAP, token=self.pki.token())
        finally:
            self.backend.answer = Backend.HELLO
        self.assertEqual(seen, [answer.headers["X-Request-Id"]])

    def test_every_member_is_a_known_one_and_in_order(self):
        self.allow(cert=self.pki.client())
        self.gate.get("/debug/pprof/nope", cert=self.pki.client())
        self.gate.wait_audit(event="refused", reason="not-found")
        for line in pathlib.Path(self.gate.audit_file).read_text().splitlines():
            names = list(json.loads(line))
            self.assertEqual(names, [name for name in ORDER if name in names], line)

    def test_what_a_client_sends_stays_in_its_line(self):
        before = len(self.gate.audit())
        self.gate.raw(b"GET /\x1b[31m\"},{ HTTP/1.1\r\nHost: x\r\n\r\n", cert=self.pki.client())
        self.gate.get("/x%22%7d", cert=self.pki.client())
        wait_for(lambda: len(self.gate.audit()) >= before + 2, what="two records")
        text = pathlib.Path(self.gate.audit_file).read_bytes()
        self.assertIsNone(re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", text))

    def test_who_opened(self):
        opened = self.gate.wait_audit(event="opened")
        self.assertEqual((opened["reason"], opened["peer"]["uid"]), ("test", os.getuid()))
        self.assertEqual(opened["ttl_ms"], 300000)

    def test_many_refusals_are_summed(self):
        # One connection, one packet: they cannot be spread over many seconds.
        self.gate.raw(f"GET {HEAP} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 59 +
                      f"GET {HEAP} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode(), source="127.0.0.44")
        ours = [record for record in self.gate.audit(event="refused", reason="authentication-required")
                if record["client"]["address"] == "127.0.0.44"]
        self.assertLess(len(ours), 50)
        wait_for(lambda: sum(record.get("count", 1) for record in self.gate.audit(
            event="refused", reason="authentication-required") if record["client"]["address"] == "127.0.0.44") == 60, 5,
            "all 60 refusals to be counted")

    def test_head_in_status_is_the_logs(self):
        self.allow(cert=self.pki.client())

        def is_same():
            head = self.gate.status()["audit"]
            last = self.gate.audit()[-1]
            return (head["seq"], head["hash"]) == (last["seq"], last["hash"]) and head
        head = wait_for(is_same, 5, "status to name the last line")
        done = postern("audit", "verify", "--head", f"{head['seq']}:{head['hash']}", self.gate.audit_file)
        self.assertEqual(done.returncode, 0, done.stderr)


class Chain(unittest.TestCase):
    def setUp(self):
        self.pki = Pki()
        self.addCleanup(self.pki.remove)

    def test_a_key(self):
        key = self.pki.write("audit.key", "0123456789abcdef0123456789abcdef\n")
        with Backend() as backend, Gateway(self.pki, {"t": backend}, {"audit": {"key_file": key}}) as gate:
            gate.open()
            gate.get(HEAP, cert=self.pki.client())
            gate.wait_audit(event="completed")
            gate.close()
            gate.check_chain()
            self.assertEqual(postern("audit", "verify", "--key-file", key, gate.audit_file).returncode, 0)
            self.assertEqual(postern("audit", "verify", gate.audit_file).returncode, 1)

    def test_every_sync_policy(self):
        for sync in ("always", "interval", "none"):
            with self.subTest(sync), Backend() as backend:
                with Gateway(self.pki, {"t": backend}, {"audit": {"sync": sync}}) as gate:
                    gate.open()
                    self.assertEqual(gate.get(HEAP, cert=self.pki.client()).status, 200)
                    gate.wait_audit(event="completed")

    def test_a_running_capture_is_cut_and_audited(self):
        with Backend(["hang"]) as backend, Gateway(self.pki, {"t": backend}, {"gateway": {"drain": "500ms"}}) as gate:
            gate.open()
            with gate.tls(self.pki.client()) as connection:
                connection.sendall(b"GET /debug/pprof/profile?seconds=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
                backend.wait_request()
                gate.close(wait=False)
                record = gate.wait_audit(event="cut")
            received = gate.audit(event="received")[0]
            self.assertEqual(record["request_id"], received["request_id"])
            self.assertTrue(backend.peer_left.wait(5))

    def test_a_torn_last_line_is_cut_off_and_kept(self):
        gate = Gateway(self.pki, start=False)
        try:
            gate.start()
            gate.stop()
            with open(gate.audit_file, "ab") as file:
                file.write(b'{"v":1,"seq":99,"torn')
            gate.start()
            gate.wait_audit(event="recovered")
            gate.stop()
            gate.check_end()
            kept = [path for path in gate.dir.iterdir() if path.name.startswith("audit.jsonl.")]
            self.assertTrue(any(b"torn" in path.read_bytes() for path in kept), kept)
        finally:
            gate.kill()
            gate.remove()

    def test_files_that_it_does_not_start_with(self):
        def edit(gate):
            text = pathlib.Path(gate.audit_file).read_text().replace('"event":"started"', '"event":"stopped"', 1)
            pathlib.Path(gate.audit_file).write_text(text)

        def link(gate):
            os.rename(gate.audit_file, gate.path("real"))
            os.symlink(gate.path("real"), gate.audit_file)

        def folder(gate):
            os.unlink(gate.audit_file)
            os.mkdir(gate.audit_file)

        def fifo(gate):
            os.unlink(gate.audit_file)
            os.mkfifo(gate.audit_file)
        for damage in (edit, link, folder, fifo):
            with self.subTest(damage.__name__):
                gate = Gateway(self.pki, start=False)
                try:
                    gate.start()
                    gate.open()
                    gate.stop()
                    damage(gate)
                    done = subprocess.run([BIN / "posternd", "-c", gate.conf_file], capture_output=True, text=True,
                                          timeout=20, check=False)
                    self.assertEqual(done.returncode, 1, done.stderr)
                    self.assertIn("audit", done.stderr)
                finally:
                    gate.kill()
                    gate.remove()

    def test_one_log_one_daemon(self):
        with Gateway(self.pki) as gate:
            other = Gateway(self.pki, conf={"audit": {"file": gate.audit_file}}, start=False)
            try:
                done = subprocess.run([BIN / "posternd", "-c", other.conf_file], capture_output=True, text=True, timeout=20,
                                      check=False)
                self.assertEqual(done.returncode, 1, done.stderr)
            finally:
                other.remove()


main()
