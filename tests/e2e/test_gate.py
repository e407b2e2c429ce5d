# labels: gate
# timeout: 300
"""A request's life: what the target gets, what the client gets, what is refused on the way."""
import json
import os
import signal
import time

from harness import BEFORE_HTTP, HEAP, Backend, GateTest, Gateway, GoServer, main, wait_for


def answer(*fields, status="200 OK", body=b"hello"):
    lines = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class Forwarding(GateTest):
    def tearDown(self):
        self.backend.answer = Backend.HELLO

    def sent(self, path, **how):
        """What the target got, as {field: value} with "" for the request line."""
        self.allow(path, cert=self.pki.client(), **how)
        lines = self.backend.requests[-1].decode().split("\r\n\r\n")[0].split("\r\n")
        return {"": lines[0], **{k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}}

    def test_a_request_made_anew(self):
        sent = self.sent(HEAP, headers={"X-Forwarded-For": "1.2.3.4", "Cookie": "a=b", "User-Agent": "x", "X-Evil": "y",
                                        "Accept-Encoding": "gzip", "Authorization-X": "z"})
        self.assertEqual(sent[""], "GET /debug/pprof/heap HTTP/1.1")
        self.assertLessEqual(set(sent) - {""}, {"host", "connection", "x-request-id", "user-agent", "accept",
                                                "accept-encoding"})
        for value in sent.values():
            self.assertNotIn("1.2.3.4", value)
        record = self.gate.wait_audit(event="completed", request_id=sent["x-request-id"])
        self.assertEqual((record["target"], record["path"], record["status"], record["bytes"]), ("t", HEAP, 200, 5))

    def test_paths_and_parameters(self):
        for path, line in {
                "/debug/pprof/": "/debug/pprof/",
                "/targets/t/debug/pprof/allocs": "/debug/pprof/allocs",
                "/debug/pprof/profile": "/debug/pprof/profile?seconds=30",
                "/debug/pprof/profile?seconds=2": "/debug/pprof/profile?seconds=2",
                "/debug/pprof/trace": "/debug/pprof/trace?seconds=1",
                "/debug/pprof/trace?seconds=0.5": "/debug/pprof/trace?seconds=0.500",
                "/debug/pprof/goroutine?debug=2": "/debug/pprof/goroutine?debug=2",
                "/debug/pprof/heap?gc=1": "/debug/pprof/heap?gc=1",
                "/debug/pprof/symbol?0x1f+0x2a": "/debug/pprof/symbol?0x1f+0x2a"}.items():
            with self.subTest(path):
                self.assertEqual(self.sent(path)[""], f"GET {line} HTTP/1.1")

    def test_symbol_by_post(self):
        before = len(self.backend.requests)
        got = self.gate.request("POST", "/debug/pprof/symbol", cert=self.pki.client(), body="0x1f+0x2a",
                                headers={"Content-Type": "application/octet-stream"})
        self.assertEqual(got.status, 200)
        self.assertTrue(self.backend.requests[before].startswith(b"POST /debug/pprof/symbol HTTP/1.1\r\n"))
        self.assertTrue(self.backend.requests[before].endswith(b"\r\n\r\n0x1f+0x2a"))

    def test_bad_parameters(self):
        for query in ("profile?seconds=0", "profile?seconds=-1", "profile?seconds=1e3", "profile?seconds=5x",
                      "profile?seconds=05", "profile?seconds=+5", "profile?seconds=", "profile?seconds=1.5",
                      "profile?seconds=301", "profile?seconds=99999999999999999999", "profile?seconds=1&seconds=2",
                      "profile?%73econds=5", "profile?seconds=%35", "profile?second=5", "heap?x=1", "heap?gc=1&gc=1",
                      "trace?seconds=0.0001", "trace?seconds=Inf", "heap?debug=x", "symbol?0x1g", "heap?seconds=5;gc=1"):
            with self.subTest(query):
                self.refuse(400, "bad-parameter", f"/debug/pprof/{query}", cert=self.pki.client())

    def test_paths_that_are_not_served(self):
        for path in ("/debug/pprof/nope", "/debug/pprof/heap/", "/debug/pprof//heap", "/debug/pprof/HEAP", "/debug/vars",
                     "/targets/none/debug/pprof/heap", "/targets//debug/pprof/heap", "/targets/t/debug/vars", "/etc/passwd"):
            with self.subTest(path):
                self.refuse(404, "not-found", path, cert=self.pki.client())
        # Nobody anonymous learns which paths exist.
        self.refuse(401, "authentication-required", "/debug/pprof/nope")

    def test_methods(self):
        for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
            with self.subTest(method):
                got = self.refuse(405, "method-not-allowed", method=method, cert=self.pki.client())
                self.assertEqual(got.headers["Allow"], "GET, HEAD")
        self.refuse(405, "method-not-allowed", method="POST", cert=self.pki.client(), body="")
        before = len(self.backend.requests)
        got = self.gate.request("HEAD", "/debug/pprof/profile", cert=self.pki.client())
        self.assertEqual((got.status, got.headers["Allow"]), (405, "GET"))
        self.assertEqual(len(self.backend.requests), before)

    def test_head(self):
        self.backend.answer = answer(body=b"")
        got = self.gate.request("HEAD", HEAP, cert=self.pki.client())
        self.assertEqual((got.status, got.body), (200, b""))

    def test_redirect(self):
        got = self.gate.get("/debug/pprof", cert=self.pki.client())
        self.assertEqual((got.status, got.headers["Location"]), (307, "/debug/pprof/"))

    def test_the_answers_head_is_chosen(self):
        self.backend.answer = answer("Content-Type: application/octet-stream", "Set-Cookie: a=b", "Location: http://evil/",
                                     'Content-Disposition: attachment; filename="heap"', "X-Go-Pprof: 1", "Server: x",
                                     "X-Content-Type-Options: nosniff", "Access-Control-Allow-Origin: *")
        got = self.gate.get(HEAP, cert=self.pki.client())
        self.assertEqual((got.status, got.body), (200, b"hello"))
        for name in ("Set-Cookie", "Location", "Server", "Access-Control-Allow-Origin"):
            self.assertNotIn(name, got.headers)
        for name, value in {"Content-Type": "application/octet-stream", "Content-Disposition":
                            'attachment; filename="heap"', "X-Go-Pprof": "1", "X-Content-Type-Options": "nosniff",
                            "Cache-Control": "no-store"}.items():
            self.assertEqual(got.headers[name], value)
        self.assertRegex(got.headers["X-Request-Id"], "^[0-9a-zA-Z-]{8,}$")

    def test_the_targets_own_errors_pass(self):
        self.backend.answer = answer("Content-Type: text/plain; charset=utf-8", "X-Go-Pprof: 1", status="404 Not Found",
                                     body=b"Unknown profile\n")
        got = self.gate.get(HEAP, cert=self.pki.client())
        self.assertEqual((got.status, got.body), (404, b"Unknown profile\n"))

    def test_bodies_of_every_framing(self):
        head = b"HTTP/1.1 200 OK\r\n"
        for name, script in {
                "length": answer(),
                "length, byte by byte": [bytes([byte]) for byte in answer()],
                "chunked": head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
                "chunked, with a trailer": head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
                "until the close": head + b"\r\nhello"}.items():
            with self.subTest(name):
                self.backend.answer = script
                got = self.gate.get(HEAP, cert=self.pki.client())
                self.assertEqual((got.status, got.body), (200, b"hello"))

    def test_several_requests_on_one_connection(self):
        request = f"GET {HEAP} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        last = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        before = len(self.backend.requests)
        got = self.gate.raw(request + request + last, cert=self.pki.client())
        self.assertEqual(got.count(b"HTTP/1.1 200 "), 3)
        self.assertEqual(len(self.backend.requests), before + 3)

    def test_other_sites_pages(self):
        for name, headers in {"fetch metadata": {"Sec-Fetch-Site": "cross-site"}, "same site": {"Sec-Fetch-Site": "same-site"},
                              "origin": {"Origin": "https://evil.test"}, "origin null": {"Origin": "null"}}.items():
            with self.subTest(name):
                self.refuse(403, "cross-site", cert=self.pki.client(), headers=headers)
        self.allow(cert=self.pki.client(), headers={"Sec-Fetch-Site": "same-origin", "Origin": self.gate.url})
        self.allow(cert=self.pki.client(), headers={"Sec-Fetch-Site": "none"})


class Problems(GateTest):
    def test_plain_text_for_go(self):
        for headers in ({"User-Agent": "Go-http-client/1.1"}, {"Accept": "text/plain"}):
            got = self.gate.get(HEAP, headers=headers)
            self.assertEqual((got.status, got.headers["X-Go-Pprof"]), (401, "1"))
            self.assertTrue(got.headers["Content-Type"].startswith("text/plain"))
            self.assertEqual(got.body.count(b"\n"), 1)

    def test_json_for_everybody_else(self):
        got = self.refuse(401, "authentication-required")
        self.assertEqual(set(got.json()), {"type", "title", "status", "detail", "request_id"})
        self.assertEqual(got.json()["type"], "urn:postern:problem:authentication-required")
        self.assertEqual(got.headers["Cache-Control"], "no-store")

    def test_nothing_of_the_clients_bytes(self):
        got = self.gate.get("/needle-1?needle-2=needle-3", cert=self.pki.client(), headers={"X-Needle": "needle-4"})
        self.assertNotIn(b"needle", got.body)
        self.assertNotIn("needle", str(got.headers))


class Own(GateTest):
    CONF = {"grants": [{"match": {"scope": "pprof:read"}, "targets": ["t"], "profiles": ["heap", "metrics"],
                        "max_seconds": 20}]}

    def test_page_without_sign_in(self):
        got = self.gate.get("/")
        self.assertEqual(got.status, 200)
        self.assertTrue(got.headers["Content-Type"].startswith("text/html"))
        self.assertNotIn("Set-Cookie", got.headers)
        self.assertIn("default-src", got.headers["Content-Security-Policy"])

    def test_whoami_and_targets(self):
        token = self.pki.token(sub="dora")
        self.assertEqual(self.gate.get("/whoami").status, 401)
        self.assertEqual(self.gate.get("/targets").status, 401)
        who = self.gate.get("/whoami", token=token).json()
        self.assertIn("dora", json.dumps(who))
        self.assertIn("heap", json.dumps(who))
        targets = self.gate.get("/targets", token=token).json()
        self.assertIn('"t"', json.dumps(targets))
        self.refuse(403, "no-grant", "/whoami", token=self.pki.token(scope="nothing"))

    def test_metrics(self):
        got = self.gate.get("/metrics", token=self.pki.token())
        self.assertEqual(got.status, 200)
        self.assertIn(b"# TYPE postern_", got.body)


class Hosts(GateTest):
    CONF = {"gateway": {"hosts": ["gate.test", "127.0.0.1"]}}

    def test_only_ours(self):
        self.allow(token=self.pki.token())
        self.allow(token=self.pki.token(), headers={"Host": "gate.test:6061"})
        self.allow(token=self.pki.token(), headers={"Host": "GATE.test"})
        for host in ("evil.test", "gate.test.evil.test", "localhost"):
            with self.subTest(host):
                self.refuse(421, "misdirected-request", token=self.pki.token(), headers={"Host": host})


class Targets(GateTest):
    """What a target may do wrong."""

    CONF = {"limits": {"response": "1s", "connect": "1s"}}

    @classmethod
    def conf(cls):
        return {**cls.CONF, "targets": [{"name": "t", **cls.backend.target, "default": True},
                                        {"name": "down", "address": "127.0.0.1:1"},
                                        {"name": "gone", "socket": "/nonexistent/pprof.sock"}]}

    def failed(self, status, slug, path=HEAP):
        got = self.gate.get(path, token=self.pki.token())
        self.assertEqual((got.status, got.slug()), (status, slug))
        self.gate.wait_audit(event="completed", request_id=got.headers["X-Request-Id"], status=status)

    def test_down(self):
        self.failed(502, "target-down", "/targets/down/debug/pprof/heap")
        self.failed(502, "target-down", "/targets/gone/debug/pprof/heap")

    def test_garbage(self):
        for name, script in {"not HTTP": b"SSH-2.0-x\r\n\r\n", "two lengths":
                             b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
                             "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n"
                             b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                             "an endless head": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20000,
                             "nothing": b""}.items():
            with self.subTest(name):
                self.backend.answer = script
                self.failed(502, "target-garbage")
        self.backend.answer = Backend.HELLO

    def test_silent(self):
        self.backend.answer = ["hang"]
        began = time.monotonic()
        self.failed(504, "target-timeout")
        self.assertLess(time.monotonic() - began, 5)
        self.assertTrue(self.backend.peer_left.wait(5))
        self.backend.answer = Backend.HELLO

    def test_a_cut_answer_stays_cut(self):
        for name, head, script in (
                ("length", b"Content-Length: 100\r\n\r\n", [b"half", "reset"]),
                ("length, orderly", b"Content-Length: 100\r\n\r\n", [b"half"]),
                ("chunked", b"Transfer-Encoding: chunked\r\n\r\n", [b"64\r\nhalf", "reset"]),
                ("bad chunk", b"Transfer-Encoding: chunked\r\n\r\n", [b"4\r\nhalf\r\nzz\r\n", "hang"])):
            with self.subTest(name):
                self.backend.answer = [b"HTTP/1.1 200 OK\r\n" + head, *script]
                with self.assertRaises((*BEFORE_HTTP, Exception)) as caught:
                    self.gate.get(HEAP, token=self.pki.token())
                self.assertIn(type(caught.exception).__name__, ("IncompleteRead", "ConnectionResetError", "SSLError",
                                                                "SSLEOFError", "RemoteDisconnected"))
        self.gate.wait_audit(4, event="cut")
        self.backend.answer = Backend.HELLO


class RealTargets(GateTest):
    def test_go_server_and_unix_socket(self):
        with GoServer() as go, Backend(unix=True) as unix, Gateway(self.pki, {"go": go, "unix": unix}) as gate:
            gate.open()
            cert = self.pki.client()
            self.assertEqual(gate.get("/targets/unix/debug/pprof/heap", cert=cert).body, b"hello")
            profile = gate.get("/debug/pprof/profile?seconds=1", cert=cert)
            self.assertEqual((profile.status, profile.body[:2]), (200, b"\x1f\x8b"))
            text = gate.get("/debug/pprof/goroutine?debug=1", cert=cert)
            self.assertIn(b"main.fingerprintFrames", text.body)

    def test_the_uid_that_must_listen(self):
        with Backend() as backend, Gateway(self.pki, conf={"targets": [
                {"name": "t", **backend.target, "uid": "nobody", "default": True}]}) as gate:
            gate.open()
            got = gate.get(HEAP, cert=self.pki.client())
            self.assertEqual((got.status, got.slug()), (502, "target-down"))
            self.assertEqual(backend.requests, [])

    def test_no_request_lost_by_a_dying_worker(self):
        with Backend() as backend, Gateway(self.pki, {"t": backend}) as gate:
            gate.open()
            gate.get(HEAP, cert=self.pki.client())
            before = gate.workers()
            self.assertEqual(len(before), 1)
            os.kill(before[0], signal.SIGKILL)
            gate.wait_audit(event="worker_died")
            wait_for(lambda: gate.workers() and gate.workers() != before, what="another worker")
            wait_for(lambda: gate.get(HEAP, cert=self.pki.client()).status == 200, what="an answer")


main()
