# labels: sampler slow
# timeout: 240
"""Source lines, inlined frames and readable names in profiles, as `go tool pprof` of Go 1.19 and the newest show
them; where the program that finds them is missing, hangs, dies or lies; and what the profiled program sees of it."""
import contextlib
import gzip
import http.client
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import unittest
import urllib.request

from harness import BIN, ROOT, SAMPLER, Demo, TempDir, main, run, wait_for

HERE = pathlib.Path(__file__).parent
NEWEST = shutil.which("go") or "/usr/local/go/bin/go"
TOOLS = [tool for tool in (NEWEST, "/usr/lib/go-1.19/bin/go") if os.path.exists(tool)]
ENVIRONMENT = {**os.environ, "GOTOOLCHAIN": "local"}
BACKGROUND = ROOT / "examples/vtp-demo/background.c"


def line_of(source, words):
    """The number of the one line that has these words."""
    found = [number for number, line in enumerate(pathlib.Path(source).read_text().splitlines(), 1) if words in line]
    assert len(found) == 1, (source, words, found)
    return found[0]


def pprof(file, *options, tool=NEWEST, check=True):
    # Not in a folder of the sources: pprof takes its name in a path for the root of them.
    said = run(tool, "tool", "pprof", *options, file, env=ENVIRONMENT, cwd="/")
    assert said.returncode == 0 or not check, said.stderr
    return said.stdout


def reaches(url):
    with contextlib.suppress(OSError):
        urllib.request.urlopen(f"{url}/ui/top", timeout=30).close()
        return True
    return False


def status_of(pid):
    with contextlib.suppress(OSError):
        return dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return {}


def children(pid):
    """{pid: (name, state)} of the processes whose parent it is, as the kernel has them, however they were made."""
    found = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        status = status_of(folder.name)
        if status.get("PPid") == str(pid):
            found[int(folder.name)] = (status["Name"], status["State"][0])
    return found


def helper_of(pid):
    """The pid of postern-lines beside a process, or None."""
    for stub in children(pid):
        for helper, (name, state) in children(stub).items():
            if name == "postern-lines" and state != "Z":
                return helper
    return None


class Host(TempDir):
    """A program under the sampler; ends by SIGTERM. .get(path) asks its pprof server."""

    def __init__(self, *command, **env):
        super().__init__()
        self.socket = self.path("s")
        self.process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env={**os.environ, "LD_PRELOAD": str(SAMPLER), "POSTERN_LISTEN": f"unix:{self.socket}",
                                             "POSTERN_RUNTIME_DIR": str(self.dir), **env})
        wait_for(self.is_up, what="the sampler's socket")

    def is_up(self):
        with contextlib.suppress(OSError):
            return self.get("/debug/pprof/cmdline")

    @property
    def pid(self):
        return self.process.pid

    def get(self, path):
        connection = http.client.HTTPConnection("localhost", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(60)
        try:
            connection.sock.connect(self.socket)
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, (answer.status, body)
            return body
        finally:
            connection.close()

    def profile(self, path="profile?seconds=1", name="p.pb.gz"):
        return self.write(name, self.get(f"/debug/pprof/{path}"))

    def end(self):
        self.process.terminate()
        output, errors = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, (self.process.returncode, output, errors)
        return output, errors

    def __exit__(self, *details):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        super().__exit__(*details)


class Built(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = cls.enterClassContext(TempDir())
        cls.host = cls.build("lines_host.c", "host")

    @classmethod
    def build(cls, source, name, *options, compiler="gcc"):
        program = cls.folder.path(name)
        said = run(compiler, "-O2", "-g", "-fno-optimize-sibling-calls", *options, HERE / source, "-o", program, "-pthread")
        assert said.returncode == 0, said.stderr
        return program


class Pprof(Built):
    """The shares of the demo's hot function are known: nearly all, in the two lines of its loop."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.source = HERE / "lines_host.c"
        cls.work, cls.call, cls.caller = (line_of(cls.source, f"HERE: {what} ") for what in ("work", "call", "caller"))
        with Host(cls.host) as host:
            cls.file = cls.folder.write("host.pb.gz", host.get("/debug/pprof/profile?seconds=2"))
        # Where it finds the program, the web page of sources is made from Go's own disassembler, which knows
        # nothing of inlining; readers of a profile are elsewhere.
        os.unlink(cls.host)

    def test_top_of_lines(self):
        for tool in TOOLS:
            top = pprof(self.file, "-top", "-lines", tool=tool)
            flat = re.findall(rf"\n +\S+ +(\S+)% .* inlined_work {self.source}:(\d+) \(inline\)", top)
            self.assertGreater(sum(float(share) for share, _ in flat), 80, top)
            self.assertLessEqual({int(line) for _, line in flat}, {self.work - 1, self.work}, top)
            self.assertIn(str(self.work), [line for _, line in flat])
            self.assertRegex(top, rf" +0 +0% .* known_function {self.source}:{self.call}\n", top)
            self.assertRegex(top, rf" +0 +0% .* calls_known_function {self.source}:{self.caller}\n", top)

    def test_list(self):
        for tool in TOOLS:
            for name, line, words in (("^known_function", self.call, "inlined_work(x)"), ("inlined_work", self.work, "1.0000001")):
                listed = pprof(self.file, f"-list={name}", tool=tool)
                self.assertRegex(listed, rf"\n +\S+ +\d\S*s +{line}:.*{re.escape(words)}")

    def test_peek_focus_ignore(self):
        for tool in TOOLS:
            peek = pprof(self.file, "-peek=^known_function$", tool=tool)
            self.assertRegex(peek, r"100% \| +calls_known_function\n.*\| +known_function\n.* 100% \| +inlined_work \(inline\)", peek)
            self.assertIn("calls_known_function", pprof(self.file, "-top", "-focus=inlined_work", tool=tool))
            ignored = pprof(self.file, "-top", "-ignore=inlined_work", tool=tool, check=False)
            self.assertNotIn("calls_known_function", ignored)

    def test_graphs(self):
        for tool in TOOLS:
            self.assertRegex(pprof(self.file, "-dot", tool=tool), r'label="inlined_work\\n')
            self.assertRegex(pprof(self.file, "-svg", tool=tool), r"<svg(.|\n)*inlined_work")

    def test_web_pages(self):
        for tool in TOOLS:
            with socket.create_server(("127.0.0.1", 0)) as free:
                url = f"http://127.0.0.1:{free.getsockname()[1]}"
            with subprocess.Popen([tool, "tool", "pprof", "-no_browser", f"-http={url[7:]}", self.file], env=ENVIRONMENT,
                                  stderr=subprocess.DEVNULL, start_new_session=True, cwd="/") as server:
                try:
                    wait_for(lambda: reaches(url), what="pprof's pages")
                    for page, words in (("top", r'TopTable\(|"Name":"inlined_work"'), ("graph" if tool == NEWEST else "", r'id="graph"(.|\n)*xlink:title="inlined_work \('),
                                        ("flamegraph", r'"inlined_work'), ("peek?f=known_function", rf"inlined_work \S+lines_host.c:{self.work} \(inline\)"),
                                        ("source?f=inlined_work", rf"<h2>inlined_work</h2>(.|\n)*> +{self.work}</span>.*\dm?s .*1\.0000001")):
                        with urllib.request.urlopen(f"{url}/ui/{page}", timeout=30) as answer:
                            text = answer.read().decode()
                            self.assertRegex(text, words, (tool, page))
                            self.assertIn("inlined_work", text)
                finally:
                    os.killpg(server.pid, signal.SIGKILL)  # `go tool` is another process than the tool

    def test_raw(self):
        raw = pprof(self.file, "-raw")
        self.assertRegex(raw, r"\d+: 0x[0-9a-f]+ M=1 inlined_work \S+lines_host.c:\d+(:0)? s=\d+\n +known_function \S+lines_host.c", raw)
        self.assertRegex(raw, r"\n1: 0x[0-9a-f/x]+ \S+host [0-9a-f]{40} \[FN\]" if "[FN]\n" in raw else r"\[FN\]\[FL\]\[LN\]\[IN\]", raw)

    def test_demo(self):
        with Demo(tcp=True) as demo:
            demo.switch("hot")
            connection = http.client.HTTPConnection(demo.pprof, timeout=30)
            for path in ("profile?seconds=1", "goroutine"):
                connection.request("GET", f"/debug/pprof/{path}")
                demo.write(path[:7], connection.getresponse().read())
            connection.request("GET", "/debug/pprof/goroutine?debug=2")
            each = connection.getresponse().read().decode()
            connection.close()
            self.assertRegex(each, r"\nqueue_take\(\.\.\.\)\n\t\S+/vtp-demo/server.c:\d+\nserve_requests\(\.\.\.\)\n"
                             r"\t\S+/vtp-demo/server.c:\d+ \+0x[0-9a-f]+\n")
            for tool in TOOLS:
                first = line_of(BACKGROUND, "for (size_t i = 0; i < len; i++) {")
                listed = pprof(demo.path("profile"), "-list=hot_transcode", tool=tool)
                hot = {int(line) for line in re.findall(r"\n +\d\S*s +\S+ +(\d+):", listed)}
                self.assertTrue(hot and hot <= {first, first + 1, first + 2}, listed)
                self.assertIn("sum = sum * 31 + frame[i];", listed)
                self.assertRegex(pprof(demo.path("gorouti"), "-top", "-lines", tool=tool),
                                 rf"queue_take \S+server.c:{line_of(ROOT / 'examples/vtp-demo/server.c', 'pthread_cond_wait(')} \(inline\)")


class Languages(Built):
    def test_cpp(self):
        program = self.build("lines_host.cc", "cpp", compiler="g++")
        with Host(program) as host:
            top = pprof(host.profile(), "-top", "-lines")
            raw = gzip.decompress(pathlib.Path(host.path("p.pb.gz")).read_bytes())
            host.end()
        source = HERE / "lines_host.cc"
        add, each = (line_of(source, f"HERE: {what}") for what in ("add", "lambda"))
        self.assertRegex(top, rf"shop::Cart<double>::add {source}:({add}|{add - 1})\n")
        self.assertRegex(top, rf"shop::.*hidden_total.*operator\(\) {source}:({each}|{each - 1})\n")
        self.assertNotIn("_ZN", top)
        self.assertIn(b"_ZN4shop4CartIdE3addEdi", raw)

    def test_names_without_lines(self):
        """No debug information: names are readable all the same."""
        program = self.build("lines_host.cc", "plain", compiler="g++")
        run("strip", "-g", program)
        with Host(program) as host:
            top = pprof(host.profile(), "-top")
            host.end()
        self.assertIn("shop::Cart<double>::add\n", top)

    def test_rust(self):
        if not shutil.which("rustc") or run("rustc", "--version").returncode:
            sys.stderr.write("SKIPPED, LOUDLY: rustc is not on PATH; Rust names are not tested\n")
            self.skipTest("no rustc")
        source = self.folder.write("shop.rs", """
mod cart {
    pub trait Total { fn total(&self, n: u64) -> f64; }
    pub struct Item<T>(pub T);
    impl Total for Item<f64> {
        #[inline(never)]
        fn total(&self, n: u64) -> f64 { let mut x = self.0; for i in 0..n { x = x * 1.0000001 + i as f64; } x }
    }
}
use cart::Total;
fn main() { let mut s = 0.0; loop { s += cart::Item(1.5f64).total(std::hint::black_box(100000)); std::hint::black_box(s); } }
""")
        for version in ("legacy", "v0"):
            with self.subTest(version):
                program = self.folder.path(f"rust-{version}")
                options = ["-C", f"symbol-mangling-version={version}"]
                said = run("rustc", "-O", "-g", *options, source, "-o", program)
                if said.returncode and version == "legacy":
                    said = run("rustc", "-O", "-g", source, "-o", program)
                self.assertEqual(said.returncode, 0, said.stderr)
                with Host(program) as host:
                    top = pprof(host.profile(), "-top", "-lines")
                    raw = gzip.decompress(pathlib.Path(host.path("p.pb.gz")).read_bytes())
                self.assertRegex(top, r"<\S*cart::Item<f64> as \S*cart::Total>::total .*shop.rs:7")
                self.assertRegex(top, r"\b\w+::main .*shop.rs:11|\bmain .*shop.rs:11")
                self.assertNotRegex(top, r" _R|_ZN")
                self.assertRegex(raw, rb"_R\w+total|_ZN[\w.$]+total")

    @unittest.skipUnless(os.uname().machine == "x86_64", "its code is made for x86-64")
    def test_code_made_at_run_time(self):
        # The list's name has the process's own number in it, so that it is known only once it runs.
        with Host("/bin/sh", "-c", f'exec {self.host} jit /tmp/perf-$$.map', POSTERN_CHILDREN="follow") as host:
            self.addCleanup(pathlib.Path(f"/tmp/perf-{host.pid}.map").unlink, missing_ok=True)
            wait_for(lambda: pathlib.Path(f"/tmp/perf-{host.pid}.map").exists(), what="the list")
            top = pprof(host.profile(), "-top")
        self.assertRegex(top, r" LazyCompile:\*spin /app.js:7\n")


class DebugFiles(Built):
    """The program is stripped of all; what was in it lies elsewhere."""

    def split(self, name):
        program, debug = self.folder.path(name), self.folder.path(f"{name}.debug")
        shutil.copy(self.host, program)
        run("objcopy", "--only-keep-debug", program, debug)
        run("strip", "--strip-all", program)
        return program, debug

    def found(self, program, **env):
        with Host(program, **env) as host:
            top = pprof(host.profile(), "-top", "-lines")
            host.end()
        return re.search(rf"inlined_work \S+:{line_of(HERE / 'lines_host.c', 'HERE: work')} \(inline\)", top) is not None, top

    def test_by_link(self):
        program, debug = self.split("linked")
        run("objcopy", f"--add-gnu-debuglink={debug}", program)
        os.makedirs(self.folder.path(".debug"), exist_ok=True)
        shutil.move(debug, self.folder.path(".debug/linked.debug"))
        self.assertTrue(*self.found(program))
        # Another build's file under that name is not believed.
        run("gcc", "-O0", "-g", HERE / "lines_host.c", "-o", self.folder.path("other"), "-pthread")
        run("objcopy", "--only-keep-debug", self.folder.path("other"), self.folder.path(".debug/linked.debug"))
        found, top = self.found(program)
        self.assertFalse(found or "inlined_work" in top, top)

    def test_by_build_id(self):
        program, debug = self.split("known")
        # Beside the program it would be found by its name.
        debug = shutil.move(debug, self.folder.path("elsewhere"))
        build_id = re.search(r"Build ID: ([0-9a-f]+)", run("readelf", "-n", program).stdout).group(1)
        root = self.folder.path("root")
        os.makedirs(f"{root}/.build-id/{build_id[:2]}")
        found, top = self.found(program, POSTERN_DEBUG_DIR=root)
        self.assertFalse(found)
        self.assertRegex(top, r"known\+0x[0-9a-f]+")  # the function's start, from .eh_frame
        shutil.move(debug, f"{root}/.build-id/{build_id[:2]}/{build_id[2:]}.debug")
        self.assertTrue(*self.found(program, POSTERN_DEBUG_DIR=root))

    def test_as_debuginfods_client_keeps_them(self):
        program, debug = self.split("fetched")
        build_id = re.search(r"Build ID: ([0-9a-f]+)", run("readelf", "-n", program).stdout).group(1)
        root = self.folder.path("debuginfod_client")
        os.makedirs(f"{root}/{build_id}")
        shutil.move(debug, f"{root}/{build_id}/debuginfo")
        self.assertTrue(*self.found(program, POSTERN_DEBUG_DIR=root))
        # Another build's file under that number is not believed.
        run("gcc", "-O0", "-g", HERE / "lines_host.c", "-o", self.folder.path("other"), "-pthread")
        run("objcopy", "--only-keep-debug", self.folder.path("other"), f"{root}/{build_id}/debuginfo")
        found, top = self.found(program, POSTERN_DEBUG_DIR=root)
        self.assertFalse(found or "inlined_work" in top, top)


class Trouble(Built):
    """Whatever becomes of postern-lines: profiles have their names, say what is missing, and are not late."""

    def with_program(self, text):
        return {"POSTERN_LINES": self.folder.write("fake", f"#!{sys.executable} -S\nimport os, socket, sys, time\n"
                                                   f"s = socket.socket(fileno=0)\n{text}\n", 0o755)}

    def names_only(self, why, mode="", seconds=3.0, **env):
        with Host(self.host, mode, **env) as host:
            wait_for(lambda: b"known_function" in host.get("/debug/pprof/goroutine?debug=1"), what="a stack of a busy thread")
            began = time.monotonic()
            file = host.profile("profile?seconds=1")
            took = time.monotonic() - began
            raw = pprof(file, "-raw")
            self.assertIn(f"source lines: none: {why}", raw)
            self.assertIn("known_function", raw)
            self.assertNotIn("lines_host.c", raw)
            self.assertLess(took, seconds)
            each = r"known_function\(\.\.\.\)\n\t\S+host:0 \+0x"
            wait_for(lambda: re.search(each, host.get("/debug/pprof/goroutine?debug=2").decode()), what="a text with names only")
            self.assertEqual(host.end(), ("strangers 0, signals right\n", ""))

    def test_off(self):
        self.names_only("POSTERN_LINES is off", POSTERN_LINES="off")

    def test_strict_setting(self):
        for value in ("/nowhere/postern-lines", "postern-lines", "no", str(HERE)):
            said = run("/bin/true", env={**os.environ, "LD_PRELOAD": str(SAMPLER), "POSTERN_LINES": value})
            self.assertEqual((said.returncode, said.stderr),
                             (0, f"postern: off: POSTERN_LINES is '{value}': it must be off, or the whole path of postern-lines\n"))

    def test_gone_since_the_start(self):
        copy = self.folder.path("copy")
        shutil.copy(BIN / "postern-lines", copy)
        with Host(self.host, POSTERN_LINES=copy) as host:
            os.unlink(copy)
            self.assertIn("source lines: none: postern-lines is not where it was", pprof(host.profile("goroutine"), "-raw"))

    def test_not_installed(self):
        """The library alone, in a folder of its own."""
        with TempDir() as alone:
            library = alone.path("libpostern.so")
            shutil.copy(SAMPLER, library)
            self.names_only("postern-lines is not installed", LD_PRELOAD=library)

    def test_ends_in_the_middle(self):
        self.names_only("postern-lines ended", **self.with_program("s.recv(65536)"))

    def test_cannot_be_run(self):
        self.names_only("it cannot be run", POSTERN_LINES=self.folder.write("bad", "#!/nowhere/at-all\n", 0o755))

    def test_lies(self):
        self.names_only("postern-lines gave an answer that makes no sense",
                        **self.with_program("s.recv(65536); s.send(b'PLA1' + b'x' * 100); time.sleep(60)"))

    def test_hangs(self):
        """Nothing else waits meanwhile: a CPU profile that runs beside it has all its samples."""
        with Host(self.host, **self.with_program("s.recv(65536); time.sleep(60)")) as host:
            with subprocess.Popen([sys.executable, "-c", f"""
import http.client, socket, sys
c = http.client.HTTPConnection("localhost"); c.sock = socket.socket(socket.AF_UNIX); c.sock.connect({host.socket!r})
c.request("GET", "/debug/pprof/profile?seconds=3"); sys.stdout.buffer.write(c.getresponse().read())"""], stdout=subprocess.PIPE) as beside:
                began = time.monotonic()
                raw = pprof(host.profile("goroutine"), "-raw")
                took = time.monotonic() - began
                self.assertIn("source lines: none: they took too long", raw)
                self.assertTrue(3.5 < took < 8, took)
                other = pprof(host.write("cpu", beside.stdout.read()), "-raw")
            self.assertRegex(other, r"dropped: 0;")
            self.assertIn("known_function", other)
            began = time.monotonic()
            self.assertIn("postern", host.get("/debug/pprof/cmdline").decode() + "postern")
            self.assertLess(time.monotonic() - began, 1)
            output, errors = host.end()
        self.assertEqual((output, errors), ("strangers 0, signals right\n", ""))

    def test_seccomp(self):
        self.names_only("the process is confined by seccomp", mode="seccomp")


class Beside(Built):
    """What the profiled program sees of it: nothing."""

    def test_no_signal_no_child_no_zombie(self):
        with Host(self.host) as host:
            for _ in range(3):
                self.assertIn("lines_host.c", pprof(host.profile("goroutine"), "-raw"))
                helper = wait_for(lambda: helper_of(host.pid), what="postern-lines")
                os.kill(helper, signal.SIGKILL)
                wait_for(lambda: not helper_of(host.pid), what="its end")
                wait_for(lambda: "Z" not in [state for name, state in children(host.pid).values() if name == "postern-lines"],
                         what="what is left of it to be taken away")
            output, errors = host.end()
        self.assertEqual((output, errors), ("strangers 0, signals right\n", ""))

    def test_killed_while_it_answers(self):
        """Stopped first, so that the question is under way; another one is started and answers."""
        with Host(self.host) as host:
            host.profile("goroutine")
            helper = helper_of(host.pid)
            os.kill(helper, signal.SIGSTOP)
            with subprocess.Popen(["/bin/sh", "-c", f"sleep 0.7; kill -9 {helper}"]):
                raw = pprof(host.profile("goroutine"), "-raw")
            self.assertIn("lines_host.c", raw)
            self.assertNotIn("source lines:", raw)
            self.assertNotEqual(helper_of(host.pid), helper)

    def test_it_ends_with_its_host(self):
        for number in (signal.SIGKILL, signal.SIGTERM):
            with Host(self.host) as host:
                host.profile("goroutine")
                helper = helper_of(host.pid)
                self.assertTrue(helper)
                host.process.send_signal(number)
                host.process.wait(10)
                wait_for(lambda: status_of(helper).get("State", "Z")[0] == "Z", 3, "its end")

    def test_it_is_locked_in(self):
        with Host(self.host) as host:
            host.profile("goroutine")
            helper = helper_of(host.pid)
            status = status_of(helper)
            self.assertEqual((status["Seccomp"], status["NoNewPrivs"], status["CapEff"], status["Threads"]), ("2", "1", "0" * 16, "1"))
            self.assertEqual(pathlib.Path(f"/proc/{helper}/environ").read_bytes(), b"")
            links = {fd: os.readlink(f"/proc/{helper}/fd/{fd}") for fd in os.listdir(f"/proc/{helper}/fd")}
            self.assertEqual((links["1"], links["2"]), ("/dev/null", "/dev/null"))
            self.assertTrue(links["0"].startswith("socket:"), links)
            self.assertFalse([link for link in links.values() if "sock" in link and link != links["0"]], links)
            self.assertEqual(pathlib.Path(f"/proc/{helper}/oom_score_adj").read_text(), "1000\n")
            self.assertNotIn("libpostern", pathlib.Path(f"/proc/{helper}/maps").read_text())
            self.assertNotIn("libdw", pathlib.Path(f"/proc/{host.pid}/maps").read_text())

    def test_a_forked_child_has_its_own(self):
        with Host(sys.executable, "-c", """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
time.sleep(1.5)
if os.fork() == 0: time.sleep(60)
time.sleep(60)""") as host:
            host.profile("goroutine")
            self.assertTrue(helper_of(host.pid))
            child = wait_for(lambda: [pid for pid, (name, _) in children(host.pid).items() if name.startswith("python")
                                      and helper_of(host.pid) not in children(pid)], what="the child")[0]
            try:
                self.assertIn(b"python", host.get("/debug/pprof/cmdline"))
                self.assertIn(".c:", pprof(host.profile("goroutine"), "-raw"))
            finally:
                os.kill(child, signal.SIGKILL)


class Installed(unittest.TestCase):
    def test_found_where_it_was_installed(self):
        with TempDir() as folder:
            root = folder.path("usr")
            said = run("cmake", "--install", BIN.parent, "--prefix", root)
            self.assertEqual(said.returncode, 0, said.stderr)
            path = folder.path("s")
            with subprocess.Popen([f"{root}/bin/postern", "exec", "--listen", f"unix:{path}", "--", "/bin/sleep", "30"]) as host:
                try:
                    wait_for(lambda: os.path.exists(path), what="the socket")
                    said = run("curl", "-sS", "--unix-socket", path, "http://localhost/debug/pprof/goroutine?debug=1")
                    self.assertIn("goroutine profile: total 1", said.stdout, said)
                    helper = wait_for(lambda: helper_of(host.pid), what="postern-lines")
                    self.assertEqual(os.readlink(f"/proc/{helper}/exe"), f"{root}/libexec/postern/postern-lines")
                finally:
                    host.terminate()


if __name__ == "__main__":
    main()
