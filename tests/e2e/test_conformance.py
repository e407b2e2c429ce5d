# labels: sampler
# timeout: 300
"""libpostern beside real Go servers, asked the same: what net/http/pprof of Go 1.19 and of the newest answers is what
vtp-demo answers under libpostern, request by request; and every reader of profiles takes ours as it takes Go's.

What differs on purpose is in docs/sampler.md, "Differences from Go", and in DIFFERS below."""
import concurrent.futures
import contextlib
import http.client
import os
import pathlib
import re
import subprocess
import threading
import time
import unittest

from harness import SAMPLER, Demo, TempDir, listening_ports, main, wait_for
from pprof_tools import NEWEST, OLDEST, Reference, loud, raw, read, readers

HEADERS = ("Content-Type", "Content-Disposition", "X-Go-Pprof", "X-Content-Type-Options", "Allow", "Location")
PROFILES = ("heap", "allocs", "goroutine", "threadcreate", "block", "mutex")
DIFFERS = {(307, "X-Content-Type-Options")}  # ours has it in every answer
ONE_AT_A_TIME = threading.Lock()  # CPU profiles and traces of Go


def ask(address, method, path, body=None):
    """(status, {header: value}, body)"""
    host, port = address.split(":")
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=30)) as connection:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, {name: answer.headers.get(name) for name in HEADERS}, answer.read()


def get(address, path):
    status, _, body = ask(address, "GET", f"/debug/pprof/{path}")
    assert status == 200, (path, status, body)
    return body


def rows(profiles):
    """(method, path) that every version answers alike."""
    for path in ("", "cmdline", "cmdline?seconds=1", "symbol", "symbol?", "nonsense", "nonsense?seconds=abc", "nonsense?seconds=1&debug=1",
                 "heap/", "a/b", "nonsense?debug=1", "Heap", "profile?seconds=1", "profile?seconds=1&debug=1",
                 "profile?seconds=1&seconds=30"):
        yield "GET", f"/debug/pprof/{path}"
    for path in ("", "cmdline", "symbol", "nonsense", "nonsense?seconds=0", "profile?seconds=1", "heap?seconds=0"):
        yield "HEAD", f"/debug/pprof/{path}"
    yield "GET", "/debug/pprof/heap?gc=1"
    yield "GET", "/debug/pprof/heap?gc=abc&debug=1"
    yield "GET", "/nowhere"
    yield "GET", "/debug"
    for name in profiles:
        yield "HEAD", f"/debug/pprof/{name}"
        for query in (
                "", "?debug=0", "?debug=1", "?debug=2", "?debug=99", "?debug=abc", "?debug=1.5", "?debug=", "?debug", "?gc=1",
                "?seconds=", "?seconds", "?seconds=&debug=1", "?debug=&debug=1", "?debug=%31", "?debug=+1", "?debug=%2B1", "?debug=%zz",
                "?%64ebug=1", "?debug=1&debug=0", "?unknown=1",
                # In the order in which Go looks: seconds, then debug.
                "?seconds=abc", "?seconds=0", "?seconds=-1", "?seconds=1.5", "?seconds=1e1", "?seconds=0x1", "?seconds=%20", "?seconds=+1",
                "?seconds=99999999999999999999", "?seconds=abc&debug=1", "?seconds=0&debug=2", "?seconds=1&debug=1",
                "?seconds=1&debug=2", "?seconds=&seconds=abc", "?seconds=1&debug=abc", "?seconds=1&debug=0", "?seconds=1",
                "?seconds=%31"):
            yield "GET", f"/debug/pprof/{name}{query}"


# In the newest Go only; 1.19 takes any method, and answers 301.
NEWER_ROWS = [("GET", "/debug/pprof"), ("HEAD", "/debug/pprof"), *(
    (method, f"/debug/pprof/{name}") for name in ("", "cmdline", "heap", "goroutine?debug=1", "nonsense", "profile?seconds=1")
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"))]


class Conformance(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = contextlib.ExitStack()
        cls.addClassCleanup(cls.stack.close)
        cls.folder = cls.stack.enter_context(TempDir())
        cls.demo = cls.stack.enter_context(Demo("--load", "100", "--hot", tcp=True, env={
            "POSTERN_MUTEX_FRACTION": "1", "POSTERN_BLOCK_RATE": "1"}))
        cls.go = {"oldest": cls.stack.enter_context(Reference(OLDEST)), "newest": cls.stack.enter_context(Reference(NEWEST))}
        cls.ours = cls.demo.pprof
        cls.demo.switch("leak-memory")
        cls.readers = readers()
        cls.index = re.findall(r"href='(\w+)\?debug=1'", get(cls.ours, "").decode())
        cls.profiles = [name for name in PROFILES if name in cls.index]
        if len(cls.profiles) < len(PROFILES):
            loud(f"not there yet, and not compared: {sorted(set(PROFILES) - set(cls.profiles))}")
        # Something must be in each; locks are fought over only when many ask at once.
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for name in cls.profiles:
                def is_there(name=name):
                    list(pool.map(lambda n: cls.demo.get(f"/api/v1/courses?topic={n}"), range(32)))
                    text = get(cls.ours, f"{name}?debug=1")
                    return b" @ 0x" in text and (name not in ("heap", "allocs") or b"leak_recording_buffer" in text)
                wait_for(is_there, what=f"a record of {name}")

    def save(self, name, data):
        path = pathlib.Path(self.folder.path(name))
        path.write_bytes(data)
        return path

    # ---- answers

    def differences(self, go, method, path):
        """Where our answer is another than Go's."""
        with ONE_AT_A_TIME if re.search("/(profile|trace)", path) else contextlib.nullcontext(), \
                concurrent.futures.ThreadPoolExecutor(2) as pool:
            both = [pool.submit(ask, address, method, path) for address in (self.ours, go)]
            ours, theirs = (answer.result() for answer in both)
        found = [f"status {ours[0]}, Go's {theirs[0]}"] if ours[0] != theirs[0] else []
        found += [f"{name} {ours[1][name]!r}, Go's {theirs[1][name]!r}" for name in HEADERS if ours[1][name] != theirs[1][name] and (theirs[0], name) not in DIFFERS]
        if (theirs[0] != 200 or method == "HEAD") and ours[2] != theirs[2]:
            found.append(f"{ours[2]!r}, Go's {theirs[2]!r}")
        if theirs[0] == ours[0] == 200 and method == "GET" and (ours[2][:2] == b"\x1f\x8b") != (theirs[2][:2] == b"\x1f\x8b"):
            found.append("one is a text, the other is not")
        return found

    def compare(self, version, wanted):
        address = self.go[version].address
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for (method, path), found in zip(wanted, pool.map(lambda row: self.differences(address, *row), wanted)):
                with self.subTest(f"{version} {method} {path}"):
                    self.assertEqual(found, [])

    def trace_rows(self):
        return [(method, f"/debug/pprof/trace?seconds={seconds}") for method in ("GET", "HEAD") for seconds in ("0.2", "1", "abc")
                ] if "trace" in self.index else []

    def test_answers_as_the_newest_go(self):
        self.compare("newest", [*rows(self.profiles), *NEWER_ROWS, *self.trace_rows()])

    def test_answers_as_the_oldest_go(self):
        self.compare("oldest", [*rows(self.profiles), *self.trace_rows()])

    def test_cmdline_ends_without_a_nul(self):
        for address, process in ((self.ours, self.demo), *((go.address, go) for go in self.go.values())):
            words = [str(word) for word in process.process.args]
            self.assertEqual(get(address, "cmdline"), "\0".join(words).encode())

    def test_symbol(self):
        """The same requests about an address of each; POST is answered by us and by 1.19, whose clients send it."""
        for name, address, post in (("ours", self.ours, True), ("oldest", self.go["oldest"].address, True),
                                    ("newest", self.go["newest"].address, False)):
            text = get(address, "goroutine?debug=1").decode()
            where, function = re.search(r"^#\t(0x[0-9a-f]+)\t(\S+)\+0x", text, re.M).groups()
            line = f"{where} {function}\n"
            for query, lines in ((where, 1), (f"{where}+{where}", 2), (f"0x1+{where}+garbage+0", 1), (f"{int(where, 16)}", 1),
                                 (f"0{int(where, 16):o}", 1), (f"0X{where[2:].upper()}", 1), ("", 0), ("0x1", 0), ("+++", 0),
                                 ("0xffffffffffffffffffff", 0), ("-1", 0)):
                with self.subTest(f"{name} {query}"):
                    self.assertEqual(get(address, f"symbol?{query}").decode(), "num_symbols: 1\n" + line * lines)
                    if post:
                        status, headers, body = ask(address, "POST", "/debug/pprof/symbol", query)
                        self.assertEqual((status, headers["Content-Type"], body.decode()),
                                         (200, "text/plain; charset=utf-8", "num_symbols: 1\n" + line * lines))

    def test_methods_of_symbol(self):
        """Ours takes POST (a refusal ends pprof's whole command), and nothing else that Go does not."""
        status, headers, body = ask(self.ours, "DELETE", "/debug/pprof/symbol")
        self.assertEqual((status, headers["Allow"], body), (405, "GET, HEAD, POST", b"Method Not Allowed\n"))

    def test_index(self):
        for address in (self.ours, *(go.address for go in self.go.values())):
            page = get(address, "").decode()
            for part in ("<title>/debug/pprof/</title>", "full goroutine stack dump", "<td>Count</td><td>Profile</td>",
                         "Profile Descriptions:"):
                self.assertIn(part, page)
            if address != self.go["oldest"].address:
                self.assertIn("Set debug=1 as a query parameter to export in ", page)
            self.assertRegex(page, r"""<a href=["']?goroutine\?debug=2["']?>""")
            listed = re.findall(r"""<tr>\s*<td>(\d+)</td>\s*<td>\s*<a href=['"]?([a-z]+)\?debug=1['"]?>""", page)
            names = [name for _, name in listed]
            self.assertEqual(names, sorted(names))
            self.assertLessEqual({*self.profiles, "cmdline", "profile"}, set(names))
            counts = {name: int(count) for count, name in listed}
            self.assertGreater(counts["goroutine"], 0)
            self.assertGreater(counts["heap"], 0)
            self.assertEqual(counts["cmdline"], 0)

    # ---- profiles

    def head(self, reader, file):
        """What -raw says of the shape: types, period, times; labels' keys; comments apart."""
        text = raw(reader, "-symbolize=none", file, folder=self.folder.dir)
        before, _, after = text.partition("Samples:\n")
        lines = [re.sub(r"^(Time|Duration): .*", r"\1", line) for line in before.splitlines() if not line.startswith("Comment:")]
        return {"head": lines, "types": after.split("\n", 1)[0].replace("[dflt]", " default").split(),
                "numbers": sorted(set(re.findall(r"^ +(\w+):\[\d+", after, re.M)))}

    def test_shapes_of_profiles(self):
        """Types in their order, the default one, period, times, and heap's `bytes`: as Go's, as each reader sees it."""
        kinds = [(name, query) for name in self.profiles for query in ("", "?seconds=1")] + [("profile", "?seconds=1")]

        def fetch(kind):
            return [self.save(f"{who}-{kind[0]}{kind[1][1:2]}.pb.gz", get(address, "".join(kind)))
                    for who, address in (("ours", self.ours), *((version, go.address) for version, go in self.go.items()))]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            files = list(pool.map(fetch, kinds))
        newest = self.readers["newest"]
        for (name, query), (ours, *theirs) in zip(kinds, files):
            with self.subTest(f"{name}{query}"):
                wanted = [self.head(newest, file) for file in theirs]
                self.assertEqual(wanted[0], wanted[1])
                for reader_name, reader in self.readers.items():
                    self.assertEqual(self.head(reader, ours), wanted[0], reader_name)

    def test_every_frame_has_a_name_without_the_reader_s_help(self):
        for name in (*self.profiles, "profile?seconds=1"):
            with ONE_AT_A_TIME:
                file = self.save("named.pb.gz", get(self.ours, name))
            for reader_name, reader in self.readers.items():
                with self.subTest(f"{name}, {reader_name}"):
                    text = raw(reader, "-symbolize=none", file, folder=self.folder.dir)
                    locations = text.partition("Locations\n")[2].partition("Mappings\n")
                    lines = re.findall(r"^ +\d+: (0x[0-9a-f]+) M=\d+ (.*)$", locations[0], re.M)
                    for address, what in lines:
                        self.assertRegex(what, r"\S", f"{address} has no name")
                    for mapping in locations[2].splitlines():
                        self.assertIn("[FN]", mapping)

    def test_names_that_are_to_be_there(self):
        for name, function in (("heap", "leak_recording_buffer"), ("profile?seconds=1", "hot_transcode"), ("goroutine", "serve_requests"),
                               ("block", "serve_requests"), ("mutex", "serve_requests")):
            with self.subTest(name), ONE_AT_A_TIME:
                file = self.save("names.pb.gz", get(self.ours, name))
                for reader in self.readers.values():
                    self.assertIn(function, read(reader, "-symbolize=none", "-traces", file, folder=self.folder.dir))

    # ---- texts

    FRAMES = r"(?:#\t0x[0-9a-f]+(?:\t+\S.*\+0x[0-9a-f]+\t+.*:\d+)?\n)*"
    LABELS = r"(?:# labels: \{\".*\"\}\n)?"
    TEXTS = {
        "goroutine": r"goroutine profile: total (?P<total>\d+)\n(?:\d+ @(?: 0x[0-9a-f]+)+\n" + LABELS + FRAMES + r"\n)+",
        "threadcreate": r"threadcreate profile: total (?P<total>\d+)\n(?:\d+ @(?: 0x[0-9a-f]+)*\n" + LABELS + FRAMES + r"\n)+",
        "heap": r"heap profile: \d+: \d+ \[\d+: \d+\] @ heap/1048576\n(?:\d+: \d+ \[\d+: \d+\] @(?: 0x[0-9a-f]+)+\n" + FRAMES + r"\n)+"
                r"\n# runtime\.MemStats\n(?:# \w+ = .*\n)+",
        "block": r"--- contention:\ncycles/second=\d+\n(?:\d+ \d+ @(?: 0x[0-9a-f]+)+\n" + LABELS + FRAMES + r"\n)+",
        "mutex": r"--- mutex:\ncycles/second=\d+\nsampling period=1\n(?:\d+ \d+ @(?: 0x[0-9a-f]+)+\n" + LABELS + FRAMES + r"\n)+",
    }
    TEXTS["allocs"] = TEXTS["heap"]

    def everybody(self):
        return (("ours", self.ours), *((version, go.address) for version, go in self.go.items()))

    def test_texts(self):
        """One grammar for Go's and ours; counts add up, the largest comes first."""
        for who, address in self.everybody():
            for name in self.profiles:
                with self.subTest(f"{who} {name}"):
                    text = get(address, f"{name}?debug=1").decode()
                    found = re.fullmatch(self.TEXTS[name], text)
                    if not found:
                        short = next(n for n in range(len(text), 0, -1) if n == 1 or re.match(self.TEXTS[name], text[:n]))
                        self.fail(f"{who} {name}: not so: {text[:short][-300:]} >>> {text[short:short + 300]}")
                    counts = [int(n) for n in re.findall(r"^(\d+) (?:\d+ )?@", text, re.M)]
                    if name in ("goroutine", "threadcreate", "block", "mutex"):
                        self.assertEqual(counts, sorted(counts, reverse=True))
                    if "total" in found.groupdict():
                        self.assertEqual(sum(counts), int(found["total"]))

    def test_stacks_are_grouped(self):
        """No two records of the same stack and labels."""
        for who, address in self.everybody():
            for name in ("goroutine", "block", "mutex"):
                with self.subTest(f"{who} {name}"):
                    keys = re.findall(r"^\d+ (?:\d+ )?(@.*\n(?:# labels.*\n)?)", get(address, f"{name}?debug=1").decode(), re.M)
                    self.assertEqual(len(keys), len(set(keys)))

    def test_each_thread_by_itself(self):
        one = (r"goroutine \d+ \[[a-zA-Z][^\]\n]*\]:\n(?:\S.*\(.*\)\n\t\S.*:\d+(?: \+0x[0-9a-f]+)?\n)+"
               r"(?:created by \S.*\n\t\S.*:\d+(?: \+0x[0-9a-f]+)?\n)?")
        for who, address in self.everybody():
            with self.subTest(who):
                text = get(address, "goroutine?debug=2").decode()
                self.assertRegex(text, rf"\A{one}(?:\n{one})*\Z")
                total = int(re.match(rb"goroutine profile: total (\d+)", get(address, "goroutine?debug=1"))[1])
                self.assertLess(abs(len(re.findall(r"^goroutine ", text, re.M)) - total), 3)

    def test_texts_are_profiles_too(self):
        """As every reader takes Go's texts: the same counts as in the text."""
        for who, address in self.everybody():
            for name in self.profiles:
                text = get(address, f"{name}?debug=1")
                file = self.save("text", text)
                # Go's own text of threads without a stack is refused, too.
                if name == "threadcreate" and who != "ours":
                    continue
                for reader_name, reader in self.readers.items():
                    with self.subTest(f"{who} {name}, {reader_name}"):
                        said = raw(reader, "-symbolize=none", file, folder=self.folder.dir).partition("Samples:\n")[2]
                        first = [int(n) for n in re.findall(r"^ +(-?\d+)(?: +-?\d+)*: (?:\d+ ?)+$", said.partition("Locations")[0], re.M)]
                        if name in ("goroutine", "threadcreate"):
                            self.assertEqual(sum(first), int(re.search(rb"total (\d+)", text)[1]))
                        else:
                            self.assertGreater(sum(first), 0)

    def test_debug_2_is_not_a_profile(self):
        """Neither is Go's."""
        for _, address in self.everybody():
            file = self.save("two", get(address, "goroutine?debug=2"))
            done = raw(self.readers["newest"], file, folder=self.folder.dir, check=False)
            self.assertIn("unrecognized profile format", done.stderr)

    # ---- readers

    def test_live_address(self):
        """As it is typed: URL, host and port alone, -seconds, two at once, -base of a file and of an address."""
        base = self.save("base.pb.gz", get(self.ours, "allocs"))
        def tell(job):
            reader, arguments = job
            with ONE_AT_A_TIME if "profile" in str(arguments[-1]) or arguments[-1] == self.ours else contextlib.nullcontext():
                return raw(reader, *arguments, folder=self.folder.dir, check=False)

        jobs = {}
        for name, reader in self.readers.items():
            for what, arguments in {
                    "heap": (f"http://{self.ours}/debug/pprof/heap",),
                    "seconds": ("-seconds=1", f"http://{self.ours}/debug/pprof/profile"),
                    "delta": ("-seconds=1", f"http://{self.ours}/debug/pprof/mutex"),
                    "base": (f"-base={base}", f"http://{self.ours}/debug/pprof/allocs"),
                    "live base": (f"-base=http://{self.ours}/debug/pprof/allocs", base),
                    "diff_base": (f"-diff_base={base}", f"http://{self.ours}/debug/pprof/allocs"),
                    "symbols asked for": ("-symbolize=remote:force", f"http://{self.ours}/debug/pprof/goroutine"),
                    "bare": ("-seconds=1", self.ours)}.items():
                if what != "bare" or name != "standalone":  # there the path stays as it is typed
                    jobs[name, what] = reader, arguments
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for (name, what), done in zip(jobs, pool.map(tell, jobs.values())):
                with self.subTest(f"{name}: {what}"):
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.assertIn("Samples:\n", done.stdout)
                    self.assertNotIn("rror", done.stderr)
                    if what in ("seconds", "bare"):
                        self.assertIn("hot_transcode", done.stdout)

    def test_an_error_s_text_is_shown(self):
        for name, reader in self.readers.items():
            with self.subTest(name):
                done = raw(reader, f"http://{self.ours}/debug/pprof/heap?debug=1&seconds=1", folder=self.folder.dir, check=False)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn("400 Bad Request - seconds and debug params are incompatible", done.stderr)

    def test_what_was_given_back_is_negative_in_a_difference(self):
        """inuse_space of heap?seconds=, as in Go: 32 MB less."""
        script = "import sys\nheld = [bytearray(1 << 20) for _ in range(32)]\nprint('listening on http://x', flush=True)\n" \
                 "sys.stdin.readline(); held.clear(); sys.stdin.readline()"
        with Python(script) as python, concurrent.futures.ThreadPoolExecutor(2) as pool:
            go = self.go["newest"]
            files = [pool.submit(get, address, "heap?seconds=2") for address in (python.pprof, go.address)]
            time.sleep(0.7)
            python.write(b"\n")
            ask(go.address, "GET", "/drop")
            files = [self.save(f"{who}.pb.gz", file.result()) for who, file in zip(("ours", "newest"), files)]
        for file in files:
            for name, reader in self.readers.items():
                with self.subTest(f"{file.stem}, {name}"):
                    said = read(reader, "-symbolize=none", "-sample_index=inuse_space", "-unit=MB", "-top", file, folder=self.folder.dir)
                    total = float(re.search(r"of (-?[\d.]+)MB total", said)[1])
                    flat = sum(float(n) for n in re.findall(r"^ +(-?[\d.]+)MB ", said, re.M))
                    self.assertLess(flat, -24, said)
                    self.assertGreater(abs(total), 24, said)


class Python:
    """A Python script under libpostern, on TCP."""

    def __init__(self, script):
        self.process = subprocess.Popen(["/usr/bin/python3", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={
            **os.environ, "LD_PRELOAD": str(SAMPLER), "POSTERN_LISTEN": "127.0.0.1:0"})
        self.process.stdout.readline()
        self.pprof = f"127.0.0.1:{wait_for(lambda: listening_ports(self.process.pid), what='the port').pop()}"

    def write(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


main()
