# labels: gate
# timeout: 300
"""Limits: rates, captures, connections, sizes and times."""
import socket
import threading
import time

from harness import BEFORE_HTTP, HEAP, Backend, GateTest, main, wait_for

CAPTURE = "/debug/pprof/profile?seconds=5"


class Rates(GateTest):
    CONF = {"rate_limits": {"per_address": {"rate": 1.0, "burst": 5}}}

    def test_address(self):
        for _ in range(5):
            self.allow(token=self.pki.token(), source="127.0.0.3")
        got = self.refuse(429, "rate-limited", token=self.pki.token(), source="127.0.0.3")
        wait = int(got.headers["Retry-After"])
        self.assertTrue(1 <= wait <= 5, wait)
        self.allow(token=self.pki.token(), source="127.0.0.4")
        time.sleep(wait)
        self.allow(token=self.pki.token(), source="127.0.0.3")


class IdentityRates(GateTest):
    CONF = {"rate_limits": {"per_identity": {"rate": 0.01, "burst": 3}}}

    def test_identity(self):
        for _ in range(3):
            self.allow(token=self.pki.token(sub="quick"))
        self.refuse(429, "rate-limited", token=self.pki.token(sub="quick"))
        self.refuse(429, "rate-limited", token=self.pki.token(sub="quick"), source="127.0.0.9")
        self.allow(token=self.pki.token(sub="other"))
        # Each proof has its own bucket, and all are charged.
        self.refuse(429, "rate-limited", token=self.pki.token(sub="quick"), cert=self.pki.client())


class Failures(GateTest):
    CONF = {"rate_limits": {"auth_failures": {"max": 3, "window": "1m", "ban": "1m"}}}

    def test_loopback_is_slowed_not_banned(self):
        statuses = [self.gate.get(HEAP, token="a.b.c", source="127.0.0.5").status for _ in range(6)]
        self.assertEqual(statuses[:3], [401] * 3)
        self.assertEqual(statuses[-1], 429)
        self.allow(token=self.pki.token(), source="127.0.0.6")
        # Absent credentials are no wrong ones.
        for _ in range(6):
            self.assertEqual(self.gate.get(HEAP, source="127.0.0.7").status, 401)


class Captures(GateTest):
    CONF = {"rate_limits": {"captures_per_target": 1}}

    def test_a_taken_slot(self):
        self.backend.answer = lambda request: (["hang"] if b"/profile?" in request else Backend.HELLO)
        holder = self.gate.tls(self.pki.client())
        try:
            before = len(self.backend.requests)
            holder.sendall(f"GET {CAPTURE} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            self.backend.wait_request(before + 1)
            got = self.refuse(503, "slot-taken", CAPTURE, token=self.pki.token())
            self.assertTrue(1 <= int(got.headers["Retry-After"]) <= 5 + 1, got)
            self.allow(token=self.pki.token())  # no capture, no slot
        finally:
            holder.close()
        # The client is gone: the target's connection ends, and the slot is free.
        self.assertTrue(self.backend.peer_left.wait(5))
        self.backend.answer = Backend.HELLO
        wait_for(lambda: self.gate.get(CAPTURE, token=self.pki.token()).status == 200, 5, "the slot")


class Window(GateTest):
    def test_a_capture_that_cannot_end(self):
        self.gate.close()
        self.gate.open(ttl="8s")
        got = self.refuse(403, "window-too-short", "/debug/pprof/profile?seconds=60", token=self.pki.token())
        self.assertRegex(got.json()["detail"], "[0-9]")
        self.allow("/debug/pprof/profile?seconds=1", token=self.pki.token())


class Connections(GateTest):
    CONF = {"rate_limits": {"connections": 8, "connections_per_address": 3}}

    def closed_at_once(self, source):
        try:
            self.gate.get(HEAP, token=self.pki.token(), source=source, timeout=5)
            return False
        except BEFORE_HTTP:
            return True

    def test_caps(self):
        port = self.gate.port
        held = [socket.create_connection(("127.0.0.1", port), 5, source_address=("127.0.0.8", 0)) for _ in range(3)]
        try:
            wait_for(lambda: self.closed_at_once("127.0.0.8"), 5, "the address's cap")
            self.assertFalse(self.closed_at_once("127.0.0.9"))
            held += [socket.create_connection(("127.0.0.1", port), 5, source_address=(f"127.0.0.{10 + i}", 0))
                     for i in range(5)]
            wait_for(lambda: self.closed_at_once("127.0.0.9"), 5, "the cap of all")
        finally:
            for connection in held:
                connection.close()
        self.gate.wait_audit(event="refused", reason="too-many-connections")
        wait_for(lambda: not self.closed_at_once("127.0.0.8"), 5, "room again")


class Times(GateTest):
    CONF = {"limits": {"handshake": "1s", "header": "1s", "idle": "2s"}}

    def ends_after(self, connection, least, most):
        began = time.monotonic()
        connection.settimeout(10)
        data = b""
        try:
            while True:
                more = connection.recv(65536)
                if not more:
                    break
                data += more
        except BEFORE_HTTP:
            pass
        self.assertTrue(least <= time.monotonic() - began <= most, time.monotonic() - began)
        return data

    def test_no_handshake(self):
        with self.gate.connect() as connection:
            self.assertEqual(self.ends_after(connection, 0.5, 4), b"")

    def test_slow_head(self):
        with self.gate.tls(self.pki.client()) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n")
            stop = threading.Event()

            def trickle():
                while not stop.wait(0.2):
                    try:
                        connection.sendall(b"X-A: b\r\n")
                    except (OSError, ValueError):
                        return
            thread = threading.Thread(target=trickle)
            thread.start()
            try:
                self.assertIn(b"HTTP/1.1 408 ", self.ends_after(connection, 0.5, 4))
            finally:
                stop.set()
                thread.join()

    def test_idle(self):
        with self.gate.tls(self.pki.client()) as connection:
            self.assertEqual(self.ends_after(connection, 1, 6), b"")


class Sizes(GateTest):
    CONF = {"limits": {"uri_bytes": "1KiB", "header_bytes": "2KiB", "body_bytes": "1KiB"}}

    def test_too_large(self):
        for name, request, status in (
                ("URI", b"GET /" + b"a" * 1024 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"414"),
                ("head", b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 2048 + b"\r\n\r\n", b"431"),
                ("fields", b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 70 + b"\r\n", b"431"),
                ("body", b"POST /debug/pprof/symbol HTTP/1.1\r\nHost: x\r\nContent-Length: 1025\r\n\r\n", b"413")):
            with self.subTest(name):
                got = self.gate.raw(request, cert=self.pki.client())
                self.assertTrue(got.startswith(b"HTTP/1.1 " + status), got[:200])


main()
