# labels: gate
# timeout: 300
"""Tools that know nothing of certificates and tokens, unchanged through `postern forward`; and `postern fetch`."""
import contextlib
import os
import pathlib
import re
import stat
import subprocess
import unittest

from harness import BIN, SAMPLER, Backend, Demo, Gateway, GoServer, Pki, main, postern, run, wait_for


@contextlib.contextmanager
def forwarding(env):
    """A `postern forward` that stays; its URL."""
    process = subprocess.Popen([BIN / "postern", "forward"], stdout=subprocess.PIPE, env={**os.environ, **env})
    try:
        yield process.stdout.readline().decode().split()[0]
    finally:
        process.terminate()
        code = process.wait(10)
        process.stdout.close()
    assert code == 0, f"postern forward ended with {code}"


class Base(unittest.TestCase):
    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.pki = self.stack.enter_context(Pki())

    def open_gate(self, **targets):
        self.gate = self.stack.enter_context(Gateway(self.pki, targets=targets))
        self.gate.open()
        common = {"POSTERN_URL": self.gate.url, "POSTERN_CA": self.pki.ca, "PPROF_TMPDIR": str(self.pki.dir)}
        client = self.pki.client()
        self.by_cert = {**common, "POSTERN_CERT": client.cert, "POSTERN_KEY": client.key}
        self.by_token = {**common, "POSTERN_TOKEN_FILE": self.pki.write("token", self.pki.token() + "\n")}

    def forward(self, env, *command):
        return postern("forward", "--", *command, env=env)


class Tools(Base):
    def pprof(self, env, option, path, *more):
        done = self.forward(env, "go", "tool", "pprof", option, *more, "{url}" + path)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_go_tools_on_a_go_server(self):
        self.open_gate(go=self.stack.enter_context(GoServer()))
        for env in (self.by_cert, self.by_token):
            self.assertIn("main.hotFingerprint", self.pprof(env, "-top", "/debug/pprof/profile?seconds=2"))
            self.assertIn("runtime.gopark", self.pprof(env, "-raw", "/debug/pprof/goroutine"))
            for profile in ("heap", "allocs", "block", "mutex"):
                self.assertIn("Samples:", self.pprof(env, "-raw", f"/targets/go/debug/pprof/{profile}"))
            base = self.pki.path("base.pb.gz")
            done = postern("fetch", "go/heap", "-o", base, env=env)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("flat", self.pprof(env, "-top", "/debug/pprof/heap", "-base", base))
            trace = self.pki.path("trace")
            done = self.forward(env, "curl", "-sSf", "-o", trace, "{url}/debug/pprof/trace?seconds=1")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertTrue(pathlib.Path(trace).read_bytes().startswith(b"go 1."))

    @unittest.skipUnless(SAMPLER.exists(), "libpostern.so is not built under sanitizers")
    def test_go_tools_on_a_native_program(self):
        demo = self.stack.enter_context(Demo("--hot"))
        self.open_gate(vtp=demo)

        def count():
            done = self.forward(self.by_cert, "curl", "-sSf", "{url}/debug/pprof/goroutine?debug=1")
            return int(re.search(r"goroutine profile: total (\d+)", done.stdout).group(1))

        for env in (self.by_cert, self.by_token):
            self.assertIn("Samples:", self.pprof(env, "-raw", "/debug/pprof/profile?seconds=2"))
            self.assertIn("Samples:", self.pprof(env, "-raw", "/debug/pprof/goroutine"))
        before = count()
        demo.switch("leak-threads")
        wait_for(lambda: count() > before + 2, what="more threads")

    def test_ab(self):
        self.open_gate(t=self.stack.enter_context(Backend()))
        for options in ([], ["-k"]):
            done = self.forward(self.by_cert, "ab", "-q", "-n", "200", "-c", "10", *options, "{url}/debug/pprof/heap")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertRegex(done.stdout, r"Complete requests: +200\n")
            self.assertRegex(done.stdout, r"Failed requests: +0\n")
            self.assertNotIn("Non-2xx", done.stdout)


class Forward(Base):
    """What the forwarder itself decides."""

    def setUp(self):
        super().setUp()
        self.backend = self.stack.enter_context(Backend())
        self.open_gate(t=self.backend)

    def curl(self, url, *options):
        return run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", *options, url + "/debug/pprof/heap").stdout

    def test_who_may_ask(self):
        with forwarding(self.by_cert) as url:
            self.assertEqual(self.curl(url), "200")
            self.assertEqual(self.curl(url, "-0"), "200")
            self.assertEqual(self.curl(url, "-H", "Sec-Fetch-Site: same-origin", "-H", f"Origin: {url}"), "200")
            count = len(self.backend.requests)
            self.assertEqual(self.curl(url, "-H", "Host: evil.example"), "421")
            self.assertEqual(self.curl(url, "-H", "Origin: http://evil.example"), "403")
            self.assertEqual(self.curl(url, "-H", "Origin: null"), "403")
            self.assertEqual(self.curl(url, "-H", "Sec-Fetch-Site: cross-site"), "403")
            self.assertEqual(self.curl(url, "-H", "Transfer-Encoding: chunked", "-d", "a"), "501")
            if os.geteuid() == 0:
                done = run("setpriv", "--reuid", "65534", "--clear-groups", "curl", "-sS", url + "/debug/pprof/heap")
                self.assertNotEqual(done.returncode, 0)
                self.assertEqual(done.stdout, "")
            self.assertEqual(len(self.backend.requests), count, "the target saw what was refused")

    def test_the_command_decides_the_exit(self):
        for script, code in (("exit 7 # {url}", 7), ("kill -9 $$ # {url}", 137), ("test -n {url}", 0)):
            self.assertEqual(self.forward(self.by_cert, "sh", "-c", script).returncode, code)
        self.assertEqual(self.forward(self.by_cert, "nosuch-program", "{url}").returncode, 127)
        self.assertEqual(self.forward(self.by_cert, "true").returncode, 2)
        done = postern("forward", "--listen", "0.0.0.0:0", env=self.by_cert)
        self.assertEqual(done.returncode, 1)
        self.assertIn("loopback", done.stderr)

    def test_a_cut_answer_stays_cut(self):
        answers = {
            "length": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhello",
            "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        }
        for name, answer in answers.items():
            for version in ("-0", "--http1.1"):
                with self.subTest(name, version=version):
                    self.backend.answer = answer
                    done = self.forward(self.by_cert, "curl", "-sS", version, "{url}/debug/pprof/heap")
                    self.assertIn(done.returncode, (18, 56), done.stdout)

    def test_the_target_hears_that_the_client_left(self):
        self.backend.answer = ["hang"]
        done = self.forward(self.by_cert, "curl", "-sS", "-m", "1", "{url}/debug/pprof/profile?seconds=20")
        self.assertEqual(done.returncode, 28)
        self.assertTrue(self.backend.peer_left.wait(10), "the target was not told")

    def test_the_reason_reaches_the_tool(self):
        self.gate.close()
        done = self.forward(self.by_cert, "curl", "-sS", "{url}/debug/pprof/heap")
        self.assertIn("postern open", done.stdout)
        self.assertIn("postern open", done.stderr)


class Fetch(Base):
    def setUp(self):
        super().setUp()
        self.backend = self.stack.enter_context(Backend())
        self.open_gate(t=self.backend)
        self.folder = self.pki.dir / "fetched"
        self.folder.mkdir()

    def fetch(self, *arguments, env=None):
        return postern("fetch", *arguments, env=env or self.by_cert, cwd=self.folder)

    def test_a_dated_file_of_ones_own(self):
        for env in (self.by_cert, self.by_token):
            done = self.fetch("t/heap", env=env)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertRegex(done.stdout, r"^t-heap-\d{8}T\d{6}Z\.pb\.gz\n$")
            path = self.folder / done.stdout.strip()
            self.assertEqual(path.read_bytes(), b"hello")
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
            path.unlink()
        self.assertIn(b"seconds=2", (self.fetch("profile", "--seconds", "2", "-o", "x"), self.backend.requests[-1])[1])

    def test_whole_or_not_at_all(self):
        self.backend.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhello"
        (self.folder / "old").write_bytes(b"before")
        done = self.fetch("heap", "-o", "old")
        self.assertEqual(done.returncode, 1)
        self.assertIn("cut short", done.stderr)
        self.assertEqual((self.folder / "old").read_bytes(), b"before")
        self.assertEqual(os.listdir(self.folder), ["old"])

    def test_an_interrupt_leaves_nothing(self):
        self.backend.answer = ["hang"]
        process = subprocess.Popen([BIN / "postern", "fetch", "profile"], cwd=self.folder,
                                   env={**os.environ, **self.by_cert}, stderr=subprocess.DEVNULL)
        self.backend.wait_request()
        process.terminate()
        self.assertEqual(process.wait(10), -15)
        self.assertEqual(os.listdir(self.folder), [])

    def test_a_context_with_a_token_command(self):
        folder = self.pki.dir / "config" / "postern"
        folder.mkdir(parents=True)
        (folder / "config").write_text(f"""[other]
url = https://127.0.0.1:1
[prod]
url = {self.gate.url}
ca = {self.pki.ca}
token_command = cat '{self.by_token["POSTERN_TOKEN_FILE"]}'
[broken]
url = {self.gate.url}
ca = {self.pki.ca}
token_command = echo x; exit 3
""")
        env = {"XDG_CONFIG_HOME": str(self.pki.dir / "config")}
        done = self.fetch("-C", "prod", "heap", "-o", "-", env=env)
        self.assertEqual((done.returncode, done.stdout), (0, "hello"), done.stderr)
        done = postern("forward", "-C", "prod", "--", "curl", "-sS", "{url}/debug/pprof/heap", env=env)
        self.assertEqual((done.returncode, done.stdout), (0, "hello"), done.stderr)
        done = self.fetch("-C", "broken", "heap", env=env)
        self.assertEqual(done.returncode, 1)
        self.assertIn("token_command", done.stderr)
        done = self.fetch("-C", "nosuch", "heap", env=env)
        self.assertIn("[nosuch]", done.stderr)

    def test_errors_say_what_to_type(self):
        nobody = {key: value for key, value in self.by_cert.items() if key not in ("POSTERN_CERT", "POSTERN_KEY")}
        done = self.fetch("heap", env=nobody)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^postern: 401: .*POSTERN_TOKEN_FILE.*\n$")
        done = self.fetch("nosuch/heap")
        self.assertRegex(done.stderr, r"^postern: 404: .*\(request \S+\)\n$")
        done = self.fetch("profle")
        self.assertEqual(done.returncode, 2)
        self.assertIn("'profile'", done.stderr)
        self.gate.close()
        done = self.fetch("heap")
        self.assertIn("postern open", done.stderr)
        self.assertEqual(os.listdir(self.folder), [])


main()
