# labels: gate
"""`postern cert init` and `postern token issue`: what they make, as others read it."""
import base64
import hmac
import json
import os
import pathlib
import time
import unittest

from harness import Pki, TempDir, main, openssl, postern


def unpad(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def der_of(raw):
    """r and s side by side, as openssl wants them."""
    def integer(number):
        data = number.lstrip(b"\0") or b"\0"
        data = b"\0" + data if data[0] & 0x80 else data
        return bytes([2, len(data)]) + data
    half = len(raw) // 2
    body = integer(raw[:half]) + integer(raw[half:])
    return bytes([0x30]) + (bytes([0x81, len(body)]) if len(body) > 127 else bytes([len(body)])) + body


class Cert(TempDir, unittest.TestCase):
    def __init__(self, *arguments):
        unittest.TestCase.__init__(self, *arguments)

    def setUp(self):
        TempDir.__init__(self)
        self.addCleanup(self.remove)

    def test_init(self):
        folder = self.path("pki")
        done = postern("cert", "init", "--dir", folder, "--host", "gate.example.com", "--host", "10.0.0.1",
                       "--host", "2001:db8::1", "--client", "alice", "--days", "7")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for name in ("ca.pem", "ca.key", "server.pem", "server.key", "client.pem", "client.key", "jwt.key",
                     "jwt.pub.pem"):
            self.assertEqual(os.stat(f"{folder}/{name}").st_mode & 0o777, 0o600, name)
        for name, purpose in (("server", "sslserver"), ("client", "sslclient")):
            openssl("verify", "-x509_strict", "-CAfile", f"{folder}/ca.pem", "-purpose", purpose, f"{folder}/{name}.pem")
            self.assertEqual(openssl("pkey", "-in", f"{folder}/{name}.key", "-pubout"),
                             openssl("x509", "-in", f"{folder}/{name}.pem", "-noout", "-pubkey"))
        for name, purpose in (("server", "sslclient"), ("client", "sslserver")):
            with self.assertRaises(AssertionError):
                openssl("verify", "-CAfile", f"{folder}/ca.pem", "-purpose", purpose, f"{folder}/{name}.pem")
        server = openssl("x509", "-in", f"{folder}/server.pem", "-noout", "-ext", "subjectAltName").decode()
        for san in ("DNS:localhost", "IP Address:127.0.0.1", "DNS:gate.example.com", "IP Address:10.0.0.1",
                    "IP Address:2001:DB8:0:0:0:0:0:1"):
            self.assertIn(san, server)
        client = openssl("x509", "-in", f"{folder}/client.pem", "-noout", "-ext", "subjectAltName").decode()
        self.assertIn("URI:spiffe://postern.local/client/alice", client)
        openssl("x509", "-in", f"{folder}/ca.pem", "-noout", "-checkend", str(6 * 86400))
        with self.assertRaises(AssertionError):
            openssl("x509", "-in", f"{folder}/ca.pem", "-noout", "-checkend", str(8 * 86400))
        self.assertEqual(openssl("pkey", "-in", f"{folder}/jwt.key", "-pubout").decode(),
                         pathlib.Path(f"{folder}/jwt.pub.pem").read_text("ascii"))

    def test_never_writes_over(self):
        self.write("jwt.key", "mine")
        done = postern("cert", "init", "--dir", self.dir)
        self.assertEqual(done.returncode, 1)
        self.assertIn("jwt.key is there already", done.stderr)
        self.assertEqual(os.listdir(self.dir), ["jwt.key"])

    def test_wrong_usage(self):
        for words in ([], ["make"], ["init", "x"], ["init", "--client", "a,URI:b"], ["init", "--host", "a b"],
                      ["init", "--days", "0"], ["init", "--nope"], ["init", "--client", "../x"]):
            with self.subTest(words):
                done = postern("cert", *words, cwd=self.dir)
                self.assertEqual(done.returncode, 2)
                self.assertEqual(os.listdir(self.dir), [])


class Token(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pki = Pki()

    @classmethod
    def tearDownClass(cls):
        cls.pki.remove()

    def issue(self, key, *options):
        return postern("token", "issue", "--key", key, "--issuer", "https://login.test", "--subject", "alice", *options)

    def check(self, token, algorithm):
        head, payload, signature = token.split(".")
        self.assertEqual(json.loads(unpad(head)), {"alg": algorithm, "typ": "JWT"})
        signed, raw, bits = f"{head}.{payload}".encode(), unpad(signature), algorithm[2:]
        key = self.pki.verifying_key(algorithm)
        if algorithm.startswith("HS"):
            with open(key, "rb") as file:
                self.assertEqual(raw, hmac.new(file.read(), signed, f"sha{bits}").digest())
            return json.loads(unpad(payload))
        if algorithm.startswith("ES"):
            self.assertEqual(len(raw), {"256": 64, "384": 96, "512": 132}[bits])
            raw = der_of(raw)
        openssl("dgst", f"-sha{bits}", "-verify", key, "-signature", self.pki.write("signature", raw), stdin=signed)
        return json.loads(unpad(payload))

    def test_every_algorithm(self):
        for algorithm in ("ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "HS256", "HS384", "HS512"):
            with self.subTest(algorithm):
                done = self.issue(self.pki.signing_key(algorithm), "--alg", algorithm)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.check(done.stdout.rstrip("\n"), algorithm)

    def test_algorithm_is_that_of_the_key(self):
        for algorithm in ("ES256", "ES384", "ES512", "RS256"):
            with self.subTest(algorithm):
                self.check(self.issue(self.pki.signing_key(algorithm)).stdout.rstrip("\n"), algorithm)

    def test_claims(self):
        before = int(time.time())
        done = self.issue(self.pki.signing_key(), "--audience", "gate", "--scope", 'pprof:read "x"', "--ttl", "15m")
        claims = self.check(done.stdout.rstrip("\n"), "ES256")
        self.assertLessEqual(abs(claims["iat"] - before), 5)
        self.assertEqual(claims["exp"] - claims["iat"], 900)
        self.assertEqual(len(claims["jti"]), 32)
        self.assertEqual({k: claims[k] for k in ("iss", "aud", "sub", "scope")},
                         {"iss": "https://login.test", "aud": "gate", "sub": "alice", "scope": 'pprof:read "x"'})
        other = self.check(self.issue(self.pki.signing_key()).stdout.rstrip("\n"), "ES256")
        self.assertNotEqual(other["jti"], claims["jti"])
        self.assertNotIn("scope", other)

    def test_file_is_secret_and_replaced(self):
        path = self.pki.path("token")
        for _ in range(2):
            self.assertEqual(self.issue(self.pki.signing_key(), "-o", path).stdout, "")
            self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
            with open(path, encoding="ascii") as file:
                self.check(file.read().rstrip("\n"), "ES256")

    def test_what_is_wrong_is_said(self):
        ec, rsa = self.pki.signing_key(), self.pki.signing_key("RS256")
        secret = self.pki.write("short", "x" * 31 + "\n")
        self.pki.keep("small", lambda: openssl("genrsa", "-out", self.pki.path("small.key"), "1024"))
        table = {
            "no such key": (["/nonexistent"], 1, "No such file"),
            "a public key": ([self.pki.verifying_key()], 1, "no private key"),
            "key of another kind": ([rsa, "--alg", "ES256"], 1, "does not sign ES256"),
            "curve of another size": ([ec, "--alg", "ES384"], 1, "does not sign ES384"),
            "RSA too small": ([self.pki.path("small.key")], 1, "1024 bits; at least 2048"),
            "secret too short": ([secret, "--alg", "HS256"], 1, "31 bytes; at least 32"),
            "PEM as secret": ([ec, "--alg", "HS256"], 1, "is a PEM key"),
            "algorithm none": ([ec, "--alg", "none"], 2, "--alg 'none'"),
            "ttl zero": ([ec, "--ttl", "0s"], 2, "--ttl '0s'"),
            "ttl nonsense": ([ec, "--ttl", "soon"], 2, "--ttl 'soon'"),
            "too long": ([ec, "--scope", "x" * 9000], 1, "longer than"),
        }
        for name, (words, code, said) in table.items():
            with self.subTest(name):
                done = self.issue(*words)
                self.assertEqual((done.returncode, done.stdout), (code, ""))
                self.assertIn(said, done.stderr)
        self.assertEqual(postern("token", "issue", "--key", ec).returncode, 2)
        self.assertEqual(postern("token").returncode, 2)


main()
