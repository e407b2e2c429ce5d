# labels: gate
"""The harness itself: a stage that lies makes every test on it worthless."""
import base64
import json
import socket
import time
import unittest

from harness import Backend, GoServer, Pki, libconfig, main, merge, openssl, wait_for


def unpad(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


class Keys(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pki = Pki()

    @classmethod
    def tearDownClass(cls):
        cls.pki.remove()

    def verify(self, cert, purpose, ca=None):
        try:
            openssl("verify", "-CAfile", ca or self.pki.ca, "-purpose", purpose, cert.cert)
            return "good"
        except AssertionError as why:
            return str(why)

    def test_certificates_are_what_they_say(self):
        self.assertEqual(self.verify(self.pki.client(), "sslclient"), "good")
        self.assertEqual(self.verify(self.pki.server, "sslserver"), "good")
        self.assertIn("purpose", self.verify(self.pki.server_only_client, "sslclient"))
        self.assertIn("expired", self.verify(self.pki.expired_client, "sslclient"))
        self.assertIn("not yet valid", self.verify(self.pki.future_client, "sslclient"))
        self.assertNotEqual(self.verify(self.pki.foreign_client, "sslclient"), "good")
        self.assertEqual(self.verify(self.pki.foreign_client, "sslclient", self.pki.other_authority.cert), "good")
        text = openssl("x509", "-in", self.pki.client().cert, "-noout", "-ext", "subjectAltName").decode()
        self.assertIn("spiffe://example.test/oncall/alice", text)

    def test_revocation_list_names_the_revoked(self):
        cert = self.pki.client("leaver", san="URI:spiffe://example.test/oncall/leaver")
        self.pki.authority.revoke(cert)
        text = openssl("crl", "-in", self.pki.authority.crl(), "-noout", "-text").decode()
        self.assertIn("Serial Number", text)
        self.assertIn("Jan  2", openssl("crl", "-in", self.pki.authority.crl(expired=True), "-noout",
                                       "-nextupdate").decode())

    def test_signatures_verify(self):
        for algorithm in ("ES256", "ES384", "ES512", "RS256", "RS512", "PS256", "HS256", "HS512"):
            with self.subTest(algorithm):
                token = self.pki.token(algorithm, sub="alice", nbf=None)
                head, payload, signature = token.split(".")
                self.assertEqual(json.loads(unpad(head))["alg"], algorithm)
                self.assertEqual(json.loads(unpad(payload))["sub"], "alice")
                self.assertNotIn("nbf", json.loads(unpad(payload)))
                raw = unpad(signature)
                if algorithm.startswith("ES"):
                    self.assertEqual(len(raw), {"ES256": 64, "ES384": 96, "ES512": 132}[algorithm])
                if algorithm.startswith("RS"):
                    path = self.pki.write("signature", raw)
                    openssl("dgst", f"-sha{algorithm[2:]}", "-verify", self.pki.verifying_key(algorithm),
                            "-signature", path, stdin=f"{head}.{payload}".encode())

    def test_ecdsa_signature_is_the_same_in_der(self):
        head, payload, signature = self.pki.token("ES256").split(".")
        raw = unpad(signature)

        def integer(number):
            data = number.lstrip(b"\0")
            data = b"\0" + data if data[0] & 0x80 else data
            return bytes([2, len(data)]) + data
        body = integer(raw[:32]) + integer(raw[32:])
        path = self.pki.write("signature", bytes([0x30, len(body)]) + body)
        openssl("dgst", "-sha256", "-verify", self.pki.verifying_key(), "-signature", path,
                stdin=f"{head}.{payload}".encode())


class Targets(unittest.TestCase):
    def ask(self, backend, data):
        host, port = backend.target["address"].split(":")
        with socket.create_connection((host, int(port)), 10) as connection:
            connection.sendall(data)
            received = b""
            try:
                while True:
                    more = connection.recv(65536)
                    if not more:
                        return received
                    received += more
            except ConnectionResetError:
                return "reset"

    def test_records_byte_for_byte(self):
        request = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
        with Backend() as backend:
            self.assertEqual(self.ask(backend, request), Backend.HELLO)
            self.assertEqual(backend.requests, [request])

    def test_plays_its_script(self):
        with Backend([b"one", 0.2, b"two"]) as backend:
            began = time.monotonic()
            self.assertEqual(self.ask(backend, b"GET / HTTP/1.1\r\n\r\n"), b"onetwo")
            self.assertGreaterEqual(time.monotonic() - began, 0.2)
        with Backend([b"one", "reset"]) as backend:
            self.assertIn(self.ask(backend, b"GET / HTTP/1.1\r\n\r\n"), ("reset", b"one"))

    def test_notices_that_the_other_side_left(self):
        with Backend([b"HTTP/1.1 200 OK\r\n\r\n", "hang"], unix=True) as backend:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(backend.target["socket"])
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            backend.wait_request()
            self.assertFalse(backend.peer_left.is_set())
            connection.close()
            self.assertTrue(backend.peer_left.wait(10))

    def test_go_server_names_its_hot_function(self):
        with GoServer() as server:
            text = wait_for(lambda: server.get("/debug/pprof/goroutine?debug=2").body.decode(), what="goroutines")
            self.assertIn("main.fingerprintFrames", text)


class Configuration(unittest.TestCase):
    def test_merge_and_syntax(self):
        conf = merge({"a": {"b": 1, "c": "x"}, "d": [1]}, {"a": {"b": True, "c": None}, "d": [{"e": "q\"t"}], "f": []})
        self.assertEqual(libconfig(conf), '{ a = { b = true; }; d = ( { e = "q\\"t"; } ); f = [  ]; }')


main()
