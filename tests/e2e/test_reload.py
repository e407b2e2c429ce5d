# labels: gate
"""A reload while captures run: what the new configuration would refuse is cut, everything else ends in peace."""
import contextlib
import os
import signal
import ssl
import unittest

from harness import Backend, Gateway, Pki, main, wait_for

CAPTURE = "/debug/pprof/profile?seconds=60"
REQUEST = b"GET /debug/pprof/heap HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 5\r\n\r\n"


class Reload(unittest.TestCase):
    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.pki = self.stack.enter_context(Pki())
        self.backend = self.stack.enter_context(Backend(answer=[HEAD + b"ab", "hang"]))
        self.gate = self.stack.enter_context(Gateway(self.pki, targets={"t": self.backend}))

    def begin(self, cert=None, token=None, path=CAPTURE):
        """A capture that runs: the first bytes of its answer are here."""
        wait_for(self.gate.workers, what="a worker")
        connection = self.stack.enter_context(self.gate.tls(cert))
        field = f"Authorization: Bearer {token}\r\n" if token else ""
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n".encode())
        received = b""
        while not received.endswith(b"\r\n\r\nab"):
            more = connection.recv(4096)
            self.assertTrue(more, received)
            received += more
        return connection

    def change(self, **settings):
        self.gate.conf.update(settings)
        self.gate.write_conf()
        self.assertEqual(self.gate.reload().status, 200, self.gate.log_text())

    def assert_cut(self, connection):
        """Within a second or so, without the rest, and in the log."""
        connection.settimeout(3)
        with contextlib.suppress(ssl.SSLError, ConnectionError):  # an end without close_notify
            self.assertEqual(connection.recv(4096), b"")
        record = self.gate.wait_audit(event="cut")
        self.assertEqual(record["reason"], "no-longer-allowed")
        self.assertTrue(self.backend.peer_left.wait(3), "the target goes on for nobody")

    def assert_goes_on(self, connection):
        connection.settimeout(1)
        with self.assertRaises(TimeoutError):
            connection.recv(4096)
        self.assertEqual(self.gate.audit(event="cut"), [])
        connection.close()
        self.gate.wait_audit(event="cut", reason="client-gone")

    def test_certificate_revoked(self):
        self.gate.open()
        alice = self.pki.client()
        running = self.begin(cert=alice)
        self.pki.authority.revoke(alice)
        self.change(tls={**self.gate.conf["tls"], "client_crl": self.pki.authority.crl()})
        self.assert_cut(running)

    def test_another_certificate_revoked(self):
        self.gate.open()
        leaver = self.pki.client("leaver", san="URI:spiffe://example.test/oncall/leaver")
        running = self.begin(cert=self.pki.client())
        self.pki.authority.revoke(leaver)
        self.change(tls={**self.gate.conf["tls"], "client_crl": self.pki.authority.crl()})
        self.assert_goes_on(running)

    def test_authority_exchanged(self):
        self.gate.open()
        running = self.begin(cert=self.pki.client())
        self.change(tls={**self.gate.conf["tls"], "client_ca": self.pki.other_authority.cert})
        self.assert_cut(running)

    def test_signing_key_exchanged(self):
        self.gate.open()
        running = self.begin(token=self.pki.token())
        self.change(jwt=[{**self.gate.conf["jwt"][0], "key_file": self.pki.verifying_key(name="next")}])
        self.assert_cut(running)

    def test_issuers_added(self):
        self.gate.open()
        running = self.begin(token=self.pki.token())
        ours = self.gate.conf["jwt"][0]
        grants = [{**grant, "match": {"issuer": ours["issuer"], **grant["match"]}}
                  for grant in self.gate.conf["grants"] if "scope" in grant["match"]]
        self.change(jwt=[ours, {**ours, "issuer": "https://other.test"}], grants=grants)
        self.assert_goes_on(running)

    def test_target_gone(self):
        self.gate.open()
        running = self.begin(cert=self.pki.client())
        self.change(targets=[{"name": "other", **self.backend.target, "default": True}])
        self.assert_cut(running)

    def test_target_closed_to_the_address(self):
        self.gate.open()
        running = self.begin(cert=self.pki.client())
        self.change(targets=[{**self.gate.conf["targets"][0], "allow": ["192.0.2.0/24"]}])
        self.assert_cut(running)

    def test_grant_gone(self):
        self.gate.open()
        running = self.begin(cert=self.pki.client())
        self.change(grants=self.gate.conf["grants"][1:])
        self.assert_cut(running)

    def test_fewer_seconds(self):
        self.gate.open()
        running = self.begin(cert=self.pki.client())
        grants = [{**grant, "max_seconds": 30} for grant in self.gate.conf["grants"]]
        self.change(limits={"max_seconds": 30}, grants=grants)
        self.assert_cut(running)

    def keep_connection(self):
        """A connection on which a request was answered already."""
        self.gate.open()
        self.backend.answer = Backend.HELLO
        wait_for(self.gate.workers, what="a worker")
        connection = self.stack.enter_context(self.gate.tls(self.pki.client()))
        connection.settimeout(5)
        connection.sendall(REQUEST)
        received = b""
        while not received.endswith(b"hello"):
            received += connection.recv(4096)
        return connection

    def test_a_kept_connection_serves_no_request_more(self):
        connection = self.keep_connection()
        self.change(grants=self.gate.conf["grants"][1:])
        answer = b""
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            connection.sendall(REQUEST)
            answer = connection.recv(4096)
        self.assertNotIn(b" 200 ", answer)
        self.assertEqual(len(self.backend.requests), 1)

    def test_a_request_that_came_before_the_word_of_it(self):
        connection = self.keep_connection()
        worker = self.gate.workers()[0]
        os.kill(worker, signal.SIGSTOP)
        try:
            connection.sendall(REQUEST)
            self.change(grants=self.gate.conf["grants"][1:])
        finally:
            os.kill(worker, signal.SIGCONT)
        answer = b""
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            while more := connection.recv(4096):
                answer += more
        if answer:  # or the word was read first, and the connection just ended
            self.assertIn(b" 503 ", answer)
            self.assertIn(b"\r\nRetry-After: 1\r\n", answer)
            self.assertIn(b"urn:postern:problem:reloaded", answer)
        self.assertEqual(len(self.backend.requests), 1)


main()
