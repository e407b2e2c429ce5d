# labels: gate
# timeout: 300
"""What two readers of HTTP could understand in two ways: refused by the real gate, audited, and unseen by the
target. The H, P and Q vectors of the design's list, each from an address of its own, so that none is summed up."""
import re
import socket
import time
import unittest

from harness import Backend, Gateway, Pki, main

PATH = "/debug/pprof/heap"


def head(fields="", line=f"GET {PATH} HTTP/1.1", host="Host: {host}\r\n"):
    return f"{line}\r\n{host}{fields}\r\n"


def te(*values):
    return head("".join(f"Transfer-Encoding: {value}\r\n" for value in values))


def cl(*values, method="GET"):
    return head("".join(f"Content-Length:{value}\r\n" for value in values), line=f"{method} {PATH} HTTP/1.1")


# name, bytes, the statuses that are right
HEADS = [
    ("length and chunked", head("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n", {400}),
    ("gzip, chunked and length", head("Transfer-Encoding: gzip, chunked\r\nContent-Length: 5\r\n"), {400}),
    ("chunked", te("chunked") + "0\r\n\r\n", {501}),
    ("xchunked", te("xchunked"), {501}),
    ("two codings", te("identity", "chunked"), {400, 501}),
    ("coding in HTTP/1.0", head("Transfer-Encoding: chunked\r\n", f"GET {PATH} HTTP/1.0"), {400, 505}),
    ("coding with VT", te("\vchunked"), {400}),
    ("two equal lengths", cl(" 5", " 5", method="POST"), {400}),
    ("two lengths", cl(" 1", " 5", method="POST"), {400}),
    ("list of lengths", cl(" 5, 5", method="POST"), {400}),
    ("length +5", cl(" +5", method="POST"), {400}),
    ("length -1", cl(" -1", method="POST"), {400}),
    ("length 0x5", cl(" 0x5", method="POST"), {400}),
    ("length 5abc", cl(" 5abc", method="POST"), {400}),
    ("empty length", cl("", method="POST"), {400}),
    ("length 2^64+1", cl(" 18446744073709551617", method="POST"), {400}),
    ("space before the colon of a length", head("Content-Length : 5\r\n"), {400}),
    ("space before the colon of a coding", head("Transfer-Encoding : chunked\r\n"), {400}),
    ("folded", head("A: b\r\n c\r\n"), {400}),
    ("folded first", f"GET {PATH} HTTP/1.1\r\n Host: {{host}}\r\n\r\n", {400}),
    ("bare LF", f"GET {PATH} HTTP/1.1\nHost: {{host}}\n\n", {400}),
    ("one bare LF", head("A: b\nC: d\r\n"), {400}),
    ("bare CR in a value", head("A: b\rc\r\n"), {400}),
    ("NUL in a value", head("A: adm\0in\r\n"), {400}),
    ("NUL in a name", head("A\0: b\r\n"), {400}),
    ("NUL in the target", head(line=f"GET {PATH}\0 HTTP/1.1"), {400}),
    ("control in a value", head("A: \x01\r\n"), {400}),
    ("DEL in a value", head("A: \x7f\r\n"), {400}),
    ("0xff in a value", head("A: \xff\r\n"), {400}),
    ("empty name", head(": v\r\n"), {400}),
    ("no colon", head("novalue\r\n"), {400}),
    ("0xff in a name", head("A\xff: b\r\n"), {400}),
    ("parentheses in a name", head("A(b): c\r\n"), {400}),
    ("underscore in a name", head("A_b: c\r\n"), {400}),
    ("no Host", head(host=""), {400}),
    ("two Hosts", head("Host: evil.example\r\n"), {400}),
    ("foreign Host", head(host="Host: evil.example\r\n"), {421}),
    ("absolute form", head(line="GET http://evil.example/debug/pprof/heap HTTP/1.1"), {400}),
    ("authority form", head(line="CONNECT evil.example:443 HTTP/1.1"), {400, 405}),
    ("asterisk", head(line="OPTIONS * HTTP/1.1"), {400, 405}),
    ("GET asterisk", head(line="GET * HTTP/1.1"), {400}),
    ("no slash", head(line="GET foo HTTP/1.1"), {400}),
    ("two spaces", head(line=f"GET  {PATH} HTTP/1.1"), {400}),
    ("space in the target", head(line="GET /debug/ pprof/heap HTTP/1.1"), {400}),
    ("tabs", head(line=f"GET\t{PATH}\tHTTP/1.1"), {400}),
    ("HTTP/1.0", head(line=f"GET {PATH} HTTP/1.0"), {505}),
    ("HTTP/1.2", head(line=f"GET {PATH} HTTP/1.2"), {505}),
    ("HTTP/9.9", head(line=f"GET {PATH} HTTP/9.9"), {505}),
    ("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505}),
    ("HTTP/0.9", f"GET {PATH}\r\n\r\n", {400}),
    ("lower-case method", head(line=f"get {PATH} HTTP/1.1"), {501}),
    ("unknown method", head(line=f"FOO {PATH} HTTP/1.1"), {501}),
    ("smuggled request in a body", cl(" 40") + f"GET {PATH} HTTP/1.1\r\nHost: {{host}}\r\n\r\n", {400}),
    ("65 fields", head("A: b\r\n" * 64), {431}),
    ("head of 16 KiB and a byte", head("A: " + "b" * 16384 + "\r\n"), {431}),
    ("target of 4 KiB and a byte", head(line=f"GET /{'a' * 4096} HTTP/1.1"), {414}),
    ("length on HEAD", cl(" 5", method="HEAD"), {400}),
    ("100-continue with too much", head("Expect: 100-continue\r\nContent-Length: 9999999\r\n",
                                        "POST /debug/pprof/symbol HTTP/1.1"), {413}),
    ("Expect: foo", head("Expect: foo\r\n"), {417}),
    ("Upgrade: h2c", head("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"), {400}),
    ("websocket", head("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n"), {400}),
    ("leading CRLF", "\r\n" + head(), {400}),
    ("a hundred CRLFs", "\r\n" * 100 + head(), {400}),
    ("two Authorizations", head("Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"), {400}),
    ("token in the query", head(line=f"GET {PATH}?access_token=secret HTTP/1.1"), {400}),
    ("PROXY v1 in TLS", "PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + head(), {400}),
    ("another site's page", head("Sec-Fetch-Site: cross-site\r\n"), {403}),
    ("another origin", head("Origin: https://evil.example\r\n"), {403}),
]

NO_PATHS = [
    "/debug/pprof/%74race", "/debug/pprof/tr%61ce", "/debug/pprof//trace", "/debug/pprof/./trace",
    "/debug/pprof/x/../trace", "/debug/%2e%2e/pprof/trace", "/debug/pprof/..%2fpprof/trace", "/debug/pprof/trace;a=b",
    "/debug/pprof/trace%00", "/debug/pprof/trace/", "/debug/pprof/TRACE", "/debug\\pprof\\trace",
    "/debug/pprof%5ctrace", "/debug/pprof/../../etc/passwd", "/debug/pprof/trace#x", "/%c0%ae%c0%ae/etc/passwd",
    "/debug/pprofX", "/debug/vars", "/debug/requests", "/targets/t", "/targets/t/", "/targets//debug/pprof/heap",
    "/targets/nosuch/debug/pprof/heap", "/targets/%74/debug/pprof/heap", "/targets/t/debug/pprof/../heap"]

BAD_SECONDS = ["0", "-1", "1e9", "Inf", "NaN", "0x10", "+5", "%205", "01", "999999999999", "", "1.5", "301"]
BAD_QUERIES = ["%73econds=1", "seconds=1&seconds=1", "nosuch=1", "seconds=1;debug=1", "seconds=1&", "&seconds=1",
               "seconds", "debug=3", "debug=-1", "gc=2", "seconds=1&debug=%31"]


class Vectors(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pki = Pki()
        cls.addClassCleanup(cls.pki.remove)
        cls.backend = cls.enterClassContext(Backend())
        cls.gate = cls.enterClassContext(Gateway(cls.pki, targets={"t": cls.backend}, conf={"gateway": {"hosts": ["127.0.0.1"]}, "grants": [
            {"match": {"method": "mtls", "san": "URI:spiffe://example.test/oncall/*"}, "targets": ["*"],
             "profiles": ["*", "symbol"], "max_seconds": 300}]}))
        cls.port = cls.gate.open()
        cls.sources = iter(f"127.0.{i // 250 + 1}.{i % 250 + 1}" for i in range(5000))

    def exchange(self, text):
        """Send the bytes from a fresh address: that address, the answer's status and X-Request-Id, and whether
        the gate closed the connection by itself."""
        source = next(self.sources)
        data = text.replace("{host}", f"127.0.0.1:{self.port}").encode("latin-1")
        plain = socket.create_connection(("127.0.0.1", self.port), 20, source_address=(source, 0))
        with self.gate.context(self.pki.client()).wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            connection.settimeout(5)
            received, closed = b"", False
            try:
                connection.sendall(data)
                while True:
                    more = connection.recv(65536)
                    if not more:
                        closed = True
                        break
                    received += more
                    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", received)
                    whole = received.find(b"\r\n\r\n") + 4
                    if length and len(received) >= whole + int(length.group(1)) and b"\r\nConnection: close" not in received:
                        break
            except TimeoutError:
                pass
            except OSError:
                closed = True
        status = int(received[9:12]) if received.startswith(b"HTTP/1.1 ") else None
        identifier = re.search(rb"(?i)\r\nx-request-id: *(\S+)", received)
        return source, status, identifier.group(1).decode() if identifier else None, closed, received

    def refused(self, name, text, statuses, closes=True):
        with self.subTest(name):
            self.backend.requests.clear()
            source, status, identifier, closed, received = self.exchange(text)
            self.assertEqual(self.backend.requests, [], "the target saw it")
            self.assertIn(status, statuses, received[:300])
            self.assertIsNotNone(identifier, received[:300])
            if closes:
                self.assertTrue(closed, "the connection stays open")
            record = self.gate.wait_audit(event="refused", request_id=identifier)
            self.assertEqual(record["client"]["address"], source)
            self.assertEqual(record["status"], status)
            self.assertTrue(record["reason"])

    def test_heads(self):
        for name, text, statuses in HEADS:
            self.refused(name, text, statuses, closes=not statuses & {403, 421})
        log = open(self.gate.audit_file, "rb").read()
        self.assertNotIn(b"secret", log)

    def test_paths(self):
        for path in NO_PATHS:
            self.refused(path, head(line=f"GET {path} HTTP/1.1"), {400, 404}, closes=False)
        self.refused("/metrics", head(line="GET /metrics HTTP/1.1"), {403, 404}, closes=False)

    def test_methods(self):
        for method in ("PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "POST"):
            self.refused(method, head("Content-Length: 0\r\n" if method == "POST" else "",
                                      f"{method} {PATH} HTTP/1.1"), {405}, closes=False)
        self.refused("HEAD of a capture", head(line="HEAD /debug/pprof/profile?seconds=1 HTTP/1.1"), {405}, closes=False)

    def test_queries(self):
        for seconds in BAD_SECONDS:
            self.refused(f"seconds={seconds}", head(line=f"GET /debug/pprof/profile?seconds={seconds} HTTP/1.1"), {400},
                         closes=False)
        for query in BAD_QUERIES:
            self.refused(query, head(line=f"GET {PATH}?{query} HTTP/1.1"), {400}, closes=False)
        for name, query in (("gc without its grant", f"{PATH}?gc=1"),
                            ("debug=2 without its grant", "/debug/pprof/goroutine?debug=2"),
                            ("cmdline without its grant", "/debug/pprof/cmdline")):
            self.refused(name, head(line=f"GET {query} HTTP/1.1"), {403}, closes=False)
        self.refused("symbol POST of 64 KiB and a byte", head("Content-Length: 65537\r\n",
                     "POST /debug/pprof/symbol HTTP/1.1"), {413})
        self.refused("symbol query of 4 KiB", head(line=f"GET /debug/pprof/symbol?0x{'1' * 4096} HTTP/1.1"), {414})

    def test_z_good_ones_still_pass(self):
        """Last by name: what was refused above has not shut the gate to others."""
        self.backend.requests.clear()
        _, status, identifier, _, received = self.exchange(head("X-Forwarded-For: 127.0.0.9\r\nCookie: a=b\r\n"))
        self.assertEqual(status, 200, received)
        self.assertEqual(len(self.backend.requests), 1)
        seen = self.backend.requests.pop().lower()
        for word in (b"forwarded", b"cookie", b"authorization"):
            self.assertNotIn(word, seen)
        self.assertIn(identifier.encode(), seen)
        self.gate.wait_audit(event="received", request_id=identifier)
        self.gate.wait_audit(event="completed", request_id=identifier)
        _, status, *_ = self.exchange(head(line="GET /debug/pprof HTTP/1.1"))
        self.assertEqual(status, 307)
        _, status, *_ = self.exchange(head(line="GET /debug/pprof/profile?seconds=300 HTTP/1.1"))
        self.assertIn(status, (200, 403), "300 s is allowed, if access stays open that long")
        self.backend.requests.clear()


class Answers(unittest.TestCase):
    """What a target may not put into an answer of ours."""

    CASES = [
        ("gzip coding", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"),
        ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        ("length and chunked", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("bare LF", b"HTTP/1.1 200 OK\nContent-Length: 1\n\na"),
        ("another protocol", b"220 mail.example ESMTP\r\n"),
        ("status 999", b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n"),
        ("switching protocols", b"HTTP/1.1 101 X\r\n\r\n"),
    ]

    def test_garbage_is_502(self):
        with Pki() as pki, Backend() as backend, Gateway(pki, targets={"t": backend}) as gate:
            gate.open()
            for name, answer in self.CASES:
                with self.subTest(name):
                    backend.answer = answer
                    began = time.monotonic()
                    self.assertEqual(gate.get(PATH, cert=pki.client()).status, 502)
                    self.assertLess(time.monotonic() - began, 10)
            backend.answer = (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nSet-Cookie: a=b\r\nServer: x\r\n"
                              b"Location: https://evil.example/\r\nX-Powered-By: y\r\nContent-Length: 2\r\n\r\nok")
            answer = gate.get(PATH, cert=pki.client())
            self.assertEqual((answer.status, answer.body), (200, b"ok"))
            for name in ("Set-Cookie", "Server", "Location", "X-Powered-By"):
                self.assertNotIn(name, answer.headers)


main()
