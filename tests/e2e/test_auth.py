# labels: gate
# timeout: 300
"""Who comes in, and who does not: every attack is answered as the contract says, audited, and the target saw
nothing of it."""
import base64
import json
import pathlib
import time

from harness import AUDIENCE, BEFORE_HTTP, HEAP, ISSUER, GateTest, base64url, main


class Tokens(GateTest):
    def test_good_ones(self):
        now = int(time.time())
        for name, claims in {"plain": {}, "audience in a list": {"aud": ["other", AUDIENCE]},
                             "just expired, within leeway": {"iat": now - 600, "exp": now - 5},
                             "no iat": {"iat": None}, "clock a little behind": {"iat": now + 10, "nbf": now + 10},
                             "scope in a list": {"scope": ["x", "pprof:read"]}}.items():
            with self.subTest(name):
                self.allow(token=self.pki.token(**claims))
        with self.subTest("kid"):
            self.allow(token=self.pki.token(header={"kid": "any"}))

    def test_no_credentials(self):
        answer = self.refuse(401, "authentication-required")
        self.assertRegex(answer.headers["WWW-Authenticate"], "^Bearer")

    def test_claims(self):
        now = int(time.time())
        table = {
            "expired": {"iat": now - 600, "exp": now - 120},
            "expired long ago": {"iat": 1, "exp": 600},
            "not yet": {"nbf": now + 300},
            "issued in the future": {"iat": now + 300, "exp": now + 600},
            "no exp": {"exp": None},
            "exp in words": {"exp": str(now + 600)},
            "exp with a fraction": {"exp": now + 600.5},
            "exp null in JSON": {"exp": False},
            "holds for too long": {"exp": now + 86400},
            "holds for too long, no iat": {"iat": None, "exp": now + 86400},
            "no issuer": {"iss": None},
            "another issuer": {"iss": "https://evil.test"},
            "issuer's beginning": {"iss": ISSUER[:-1]},
            "issuer and more": {"iss": ISSUER + "/"},
            "issuer in a list": {"iss": [ISSUER]},
            "no audience": {"aud": None},
            "another audience": {"aud": "other"},
            "audience's beginning": {"aud": AUDIENCE[:-1]},
            "audience in a list of others": {"aud": ["a", "b"]},
            "no subject": {"sub": None},
            "subject a number": {"sub": 7},
        }
        for name, claims in table.items():
            with self.subTest(name):
                self.refuse_token(self.pki.token(**claims))

    def test_algorithms(self):
        public = pathlib.Path(self.pki.verifying_key()).read_bytes()
        good = self.pki.token()
        table = {
            "none, no signature": self.pki.token("none"),
            "None": self.pki.token("none", header={"alg": "None"}),
            "none, the good signature": self.pki.token("none", header={"alg": "none"}) + good.split(".")[2],
            "HS256 made with the public key": self.pki.token("HS256", key=public),
            "HS512 made with the public key": self.pki.token("HS512", key=public),
            "HS256, no final newline": self.pki.token("HS256", key=public.rstrip(b"\n")),
            "HS256, empty key": self.pki.token("HS256", key=b""),
            "another family": self.pki.token("RS256"),
            "another curve": self.pki.token("ES384"),
            "a rogue key": self.pki.token(key=self.pki.signing_key(name="rogue")),
            "the head says ES512": self.pki.sign(".".join([base64url(b'{"alg":"ES512","typ":"JWT"}'),
                                                           good.split(".")[1]])),
            "signature of zeros": good.rsplit(".", 1)[0] + "." + base64url(bytes(64)),
            "signature too short": good.rsplit(".", 1)[0] + "." + base64url(bytes(63)),
            "signature in DER": good.rsplit(".", 1)[0] + "." + base64url(b"\x30\x06\x02\x01\x01\x02\x01\x01"),
            "no signature": good.rsplit(".", 1)[0] + ".",
        }
        for name, token in table.items():
            with self.subTest(name):
                self.refuse_token(token)

    def test_headers(self):
        for name, header in {"crit": {"crit": ["exp"]}, "its own key": {"jwk": {"kty": "oct", "k": "AA"}},
                             "a key's address": {"jku": "http://127.0.0.1:1/"}, "x5u": {"x5u": "http://127.0.0.1:1/"},
                             "b64": {"b64": False}, "no alg": {"alg": None}, "alg a list": {"alg": ["ES256"]},
                             "another type": {"typ": "dpop+jwt"}}.items():
            with self.subTest(name):
                self.refuse_token(self.pki.token(header=header))

    def test_spelling(self):
        good = self.pki.token()
        head, payload, signature = good.split(".")
        twice = base64url(b'{"alg":"none","alg":"ES256"}')
        claims = json.loads(self.decode(payload))
        doubled = json.dumps(claims)[:-1] + ', "sub": "root"}'
        deep = json.dumps({**claims, "x": None}).replace("null", "[" * 1000 + "]" * 1000)
        table = {
            "two parts": f"{head}.{payload}",
            "four parts": f"{good}.x",
            "empty parts": "..",
            "not base64": "a!b.c.d",
            "padded": good + "=",
            "other alphabet": good.replace("-", "+").replace("_", "/") if "-" in good or "_" in good else good + "/",
            "algorithm twice": self.pki.sign(f"{twice}.{payload}"),
            "subject twice": self.pki.sign(f"{head}.{base64url(doubled.encode())}"),
            "deep": self.pki.sign(f"{head}.{base64url(deep.encode())}"),
            "payload a list": self.pki.sign(f"{head}.{base64url(b'[]')}"),
            "payload and more": self.pki.sign(f"{head}.{base64url(json.dumps(claims).encode() + b' x')}"),
            "NUL in the subject": self.pki.token(sub="a\0b"),
            "too long": self.pki.token(x="x" * 9000),
            "changed payload": f"{head}.{payload[:-2]}{'AA' if payload[-2:] != 'AA' else 'BB'}.{signature}",
        }
        for name, token in table.items():
            with self.subTest(name):
                self.refuse_token(token)

    @staticmethod
    def decode(part):
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))

    def test_never_logged(self):
        secret = self.pki.token(sub="leak-test")
        self.allow(token=secret)
        self.refuse_token(secret[:-4] + "AAAA")
        everything = pathlib.Path(self.gate.audit_file).read_text() + self.gate.log_text()
        for part in secret.split("."):
            self.assertNotIn(part, everything)
        for request in self.backend.requests:
            self.assertNotIn(b"authorization", request.lower())

    def test_only_in_its_place(self):
        token = self.pki.token()
        self.refuse(400, "credential-placement", path=f"{HEAP}?access_token={token}")
        self.refuse(401, "invalid-credential", headers={"Authorization": "Basic " + base64url(b"a:b")})
        self.refuse(401, "authentication-required", headers={"Cookie": f"token={token}"})
        before = len(self.backend.requests)
        for name, fields in {"twice": [f"Authorization: Bearer {token}"] * 2,
                             "beside a bad one": [f"Authorization: Bearer {token}", "Authorization: Basic eDp5"]}.items():
            with self.subTest(name):
                head = "\r\n".join(["GET " + HEAP + " HTTP/1.1", "Host: localhost", *fields, "", ""])
                self.assertRegex(self.gate.raw(head.encode()), rb"^HTTP/1.1 400 ")
        self.assertEqual(len(self.backend.requests), before)

    def test_a_cookie_is_not_passed_on(self):
        self.allow(token=self.pki.token(), headers={"Cookie": "a=b"})
        self.assertNotIn(b"cookie", self.backend.requests[-1].lower())

    def test_identity_in_the_record(self):
        self.allow(token=self.pki.token(sub="carol", jti="j-1"))
        record = self.gate.wait_audit(event="completed", request_id=self.gate.audit(event="received")[-1]["request_id"])
        self.assertEqual({k: record["identity"][k] for k in ("method", "subject", "issuer", "jti")},
                         {"method": "jwt", "subject": "carol", "issuer": ISSUER, "jti": "j-1"})


class OtherFamilies(GateTest):
    """Issuers with RSA keys and with a secret."""

    @classmethod
    def conf(cls):
        return {"jwt": [
            {"issuer": "https://rsa.test", "audience": AUDIENCE, "algorithms": ["RS256", "RS512"],
             "key_file": cls.pki.verifying_key("RS256")},
            {"issuer": "https://hmac.test", "audience": AUDIENCE, "algorithms": ["HS256"],
             "key_file": cls.pki.verifying_key("HS256")}],
            "grants": [{"match": {"issuer": issuer, "scope": "pprof:read"}, "targets": ["*"], "profiles": ["*"]}
                       for issuer in ("https://rsa.test", "https://hmac.test")]}

    def test_good_ones(self):
        self.allow(token=self.pki.token("RS256", iss="https://rsa.test"))
        self.allow(token=self.pki.token("RS512", iss="https://rsa.test"))
        self.allow(token=self.pki.token("HS256", iss="https://hmac.test"))

    def test_pinned_to_the_issuer(self):
        public = pathlib.Path(self.pki.verifying_key("RS256")).read_bytes()
        for name, token in {
                "not listed": self.pki.token("RS384", iss="https://rsa.test"),
                "the other's key": self.pki.token("HS256", iss="https://rsa.test"),
                "and the other way round": self.pki.token("RS256", iss="https://hmac.test"),
                "HS256 made with the RSA public key": self.pki.token("HS256", key=public, iss="https://rsa.test"),
                "the same as the other issuer": self.pki.token("HS256", key=public, iss="https://hmac.test"),
                "empty secret": self.pki.token("HS256", key=b"", iss="https://hmac.test"),
                "PS256 of the RSA key": self.pki.token("PS256", iss="https://rsa.test")}.items():
            with self.subTest(name):
                self.refuse_token(token)


class Certificates(GateTest):
    def test_good_one(self):
        self.allow(cert=self.pki.client())
        request_id = self.gate.audit(event="received")[-1]["request_id"]
        identity = self.gate.wait_audit(event="completed", request_id=request_id)["identity"]
        self.assertEqual((identity["method"], identity["fingerprint"], identity["san"]),
                         ("mtls", self.pki.client().fingerprint, self.pki.ALICE))

    def test_bad_ones_end_in_the_handshake(self):
        for name in ("foreign_client", "expired_client", "future_client", "server_only_client"):
            with self.subTest(name):
                self.refuse_tls(cert=getattr(self.pki, name))

    def test_known_but_not_granted(self):
        for name, san in {"another name": "URI:spiffe://example.test/dev/eve", "a longer path":
                          "URI:spiffe://example.test/oncall/a/b", "a beginning": "URI:spiffe://example.test/oncall"}.items():
            with self.subTest(name):
                self.refuse(403, "no-grant", cert=self.pki.client(name.replace(" ", "-"), san=san))

    def test_a_common_name_is_no_san(self):
        self.refuse(403, "no-grant", cert=self.pki.client("cn-only", cn="spiffe://example.test/oncall/alice"))

    def test_a_bad_token_beside_a_good_certificate(self):
        self.refuse(401, "invalid-credential", cert=self.pki.client(), token=self.pki.token(aud="other"))

    def test_both(self):
        self.allow(cert=self.pki.client(), token=self.pki.token())
        request_id = self.gate.audit(event="received")[-1]["request_id"]
        self.assertEqual(self.gate.wait_audit(event="completed", request_id=request_id)["identity"]["method"], "both")


class Required(GateTest):
    CONF = {"tls": {"client_certificate": "required"}}

    def test_missing_is_an_alert(self):
        self.refuse_tls(token=self.pki.token())
        self.allow(cert=self.pki.client())


class Revoked(GateTest):
    @classmethod
    def conf(cls):
        cls.leaver = cls.pki.client("leaver", san="URI:spiffe://example.test/oncall/leaver")
        cls.pki.authority.revoke(cls.leaver)
        return {"tls": {"client_crl": cls.pki.authority.crl()}}

    def test_revoked_is_an_alert(self):
        self.allow(cert=self.pki.client())
        self.refuse_tls(cert=self.leaver)


class ExpiredList(GateTest):
    @classmethod
    def conf(cls):
        return {"tls": {"client_crl": cls.pki.authority.crl(expired=True)}}

    def test_every_certificate_is_refused(self):
        self.refuse_tls(cert=self.pki.client())
        self.allow(token=self.pki.token())


class Grants(GateTest):
    @classmethod
    def conf(cls):
        target = {"name": "secret", **cls.backend.target}
        return {"targets": [{"name": "t", **cls.backend.target, "default": True}, target],
                "limits": {"max_seconds": 100},
                "grants": [
                    {"match": {"scope": "few"}, "targets": ["t"], "profiles": ["heap", "profile"], "max_seconds": 20},
                    {"match": {"scope": "elsewhere"}, "targets": ["*"], "profiles": ["*"], "allow": ["127.0.0.2/32"]},
                    {"match": {"scope": "star"}, "targets": ["t"], "profiles": ["*"]}]}

    def few(self):
        return self.pki.token(scope="few")

    def test_what_is_granted(self):
        self.allow(token=self.few())
        self.allow("/targets/t/debug/pprof/profile?seconds=20", token=self.few())

    def test_what_is_not(self):
        self.refuse(403, "no-grant", "/debug/pprof/goroutine", token=self.few())
        self.refuse(403, "no-grant", "/debug/pprof/profile?seconds=21", token=self.few())
        self.refuse(403, "no-grant", "/debug/pprof/profile", token=self.few())  # 30, Go's default
        self.refuse(400, "bad-parameter", "/debug/pprof/profile?seconds=101", token=self.few())
        self.refuse(403, "no-grant", token=self.pki.token(scope="other"))
        self.refuse(403, "no-grant", token=self.pki.token(scope=None))
        self.refuse(403, "no-grant", token=self.pki.token(scope="fe"))

    def test_star_leaves_out_what_must_be_named(self):
        star = self.pki.token(scope="star")
        self.allow("/debug/pprof/goroutine?debug=1", token=star)
        for path in ("/debug/pprof/cmdline", "/debug/pprof/symbol?0x1", "/debug/pprof/goroutine?debug=2",
                     "/debug/pprof/heap?gc=1", "/metrics"):
            with self.subTest(path):
                self.refuse(403, "no-grant", path, token=star)

    def test_an_ungranted_target_looks_like_none(self):
        answers = [self.refuse(404, "not-found", f"/targets/{name}/debug/pprof/heap", token=self.few())
                   for name in ("secret", "absent")]
        bodies = [{k: v for k, v in answer.json().items() if k != "request_id"} for answer in answers]
        self.assertEqual(bodies[0], bodies[1])

    def test_a_grants_addresses(self):
        token = self.pki.token(scope="elsewhere")
        self.allow(token=token, source="127.0.0.2")
        self.refuse(403, "no-grant", token=token, source="127.0.0.3")


class Addresses(GateTest):
    CONF = {"acl": {"allow": ["127.0.0.0/8"], "deny": ["127.0.0.66/32", "127.0.1.0/24"]}}

    def test_closed_without_a_byte(self):
        self.allow(token=self.pki.token())
        self.allow(token=self.pki.token(), source="127.0.0.2")
        for source in ("127.0.0.66", "127.0.1.7"):
            with self.subTest(source):
                requests = len(self.backend.requests)
                with self.assertRaises(BEFORE_HTTP):
                    self.gate.get(HEAP, token=self.pki.token(), source=source)
                record = self.gate.wait_audit(event="refused", reason="address-not-allowed")
                self.assertIn(record["client"]["address"], ("127.0.0.66", "127.0.1.7"))
                self.assertEqual(len(self.backend.requests), requests)


main()
