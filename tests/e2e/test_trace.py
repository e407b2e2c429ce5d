# labels: sampler
# timeout: 300
"""Execution traces of a real program: their rules, what `go tool trace` of both ages shows of them, and that taking
them changes nothing. The program is traced.c."""
import collections
import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import re
import statistics
import subprocess
import time
import unittest

from harness import BUILD, SAMPLER, Demo, TempDir, UnixConnection, main, wait_for
from trace_tools import NEWEST, OLDEST, Pages, profile

HERE = pathlib.Path(__file__).resolve().parent
CHECK = pathlib.Path(BUILD, "tests", "trace_check_file")
TRACE = "/debug/pprof/trace"
NAMES = {"holder", "wanter", "consumer", "producer", "reader", "writer", "request"}


class TraceTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = cls.enterClassContext(TempDir())
        cls.program = cls.folder.path("traced")
        subprocess.run(["gcc", "-D_GNU_SOURCE", "-I", HERE.parent.parent, "-O2", "-g", "-pthread", "-o", cls.program, HERE / "traced.c"],
                       check=True)

    @contextlib.contextmanager
    def traced(self, mode="busy", **env):
        self.socket = self.folder.path(f"{mode}.sock")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)
        env = {**os.environ, "LD_PRELOAD": str(SAMPLER), "POSTERN_LISTEN": f"unix:{self.socket}",
               "POSTERN_RUNTIME_DIR": str(self.folder.dir), **env}
        process = subprocess.Popen([str(self.program), mode], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            wait_for(lambda: os.path.exists(self.socket), what="the sampler's socket")
            yield process
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def ask(self, path, method="GET"):
        with contextlib.closing(UnixConnection(self.socket)) as connection:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer, answer.read()

    def get(self, path):
        answer, body = self.ask(path)
        self.assertEqual(answer.status, 200, body)
        return body

    def take(self, path, name):
        """A trace in a file, which keeps all rules; and its events as text."""
        file = pathlib.Path(self.folder.path(name))
        file.write_bytes(self.get(path))
        return file, self.check(file)

    def check(self, file):
        done = subprocess.run([CHECK, file], capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout


class Slices:
    """What a trace in Chrome's format shows: begun slices end, innermost first, in every thread."""

    def __init__(self, body):
        self.names, self.slices, self.events = {}, [], json.loads(body)["traceEvents"]
        open_ones, last = collections.defaultdict(list), 0
        for event in self.events:
            if event["ph"] == "M":
                if event["name"] == "thread_name":
                    self.names[event["tid"]] = event["args"]["name"]
                continue
            assert event["ts"] >= last, "time goes back"
            last = event["ts"]
            if event["ph"] == "B":
                open_ones[event["tid"]].append(event)
            elif event["ph"] == "E":
                begin = open_ones[event["tid"]].pop()
                assert begin["cat"] == event["cat"], (begin, event)
                self.slices.append((self.names[event["tid"]], begin["name"], (event["ts"] - begin["ts"]) / 1000, event.get("args", {})))
        assert not any(open_ones.values()), "left open"

    def of(self, thread, name):
        return [(ms, args) for owner, what, ms, args in self.slices if (owner, what) == (thread, name)]


class Traces(TraceTest):
    def test_the_tools_show_what_there_was(self):
        with self.traced() as process:
            self.assertEqual(process.stdout.readline(), "started\n")
            file, text = self.take(f"{TRACE}?seconds=2", "busy.trace")
            self.assertIn(b"\npostern_sampler_trace_events_dropped_total 0\n", self.get("/metrics"))
        self.assertRegex(text, r'UserLog .*"42 "rows""')
        said = {}
        for go in (OLDEST, NEWEST):
            with self.subTest(go):
                with Pages(go, file) as pages:
                    pages.fetch_all()
                    said[go] = (pages.threads(), pages.tasks(), pages.regions())
                waits = {kind: collections.Counter() for kind in ("sync", "net", "syscall", "sched")}
                for kind, counted in waits.items():
                    for stack, ms in profile(go, file, kind).items():
                        counted[stack[0], stack[-1]] += ms
                self.assertGreater(waits["sync"]["consumer", "pthread_cond_wait"], 1500)
                self.assertTrue(300 < waits["sync"]["wanter", "pthread_mutex_lock"] < 1700, waits)
                self.assertGreater(waits["sync"]["traced", "pthread_join"], 100)
                self.assertGreater(waits["net"]["reader", "read"], 1500)  # a wait that goes on at the end is not counted
                self.assertEqual({thread for thread, _ in waits["net"]} - {"writer"}, {"reader"})
        threads, _, regions = said[OLDEST]
        self.assertEqual({name: count for name, count in threads.items() if name != "traced"}, dict.fromkeys(NAMES, 1))
        self.assertGreater(threads["traced"], 20)
        self.assertGreater(regions["query", "request"], 40)
        self.assertGreater(regions["request", "request"], 40)
        self.assertEqual(said[OLDEST], said[NEWEST])

    def test_who_has_a_cpu(self):
        """By the kernel's own word: two threads want one, and a third sleeps without a hook's knowledge."""
        with self.traced("cpus") as process:
            process.stdout.readline()
            file, text = self.take(f"{TRACE}?seconds=1.5", "cpus.trace")
        samples = subprocess.run([OLDEST, "tool", "trace", "-d", str(file)], capture_output=True, text=True, check=True, timeout=60)
        # Others may want that CPU, too: then there are fewer, and more of the wait.
        self.assertGreater(samples.stdout.count(" CPUSample "), 15)
        # 1.19 counts the way to a CPU only behind a wait.
        waits = collections.Counter()
        for stack, ms in profile(NEWEST, file, "sched").items():
            waits[stack[0]] += ms
        self.assertTrue(1000 < waits["spinner"] < 3000, waits)
        self.assertGreater(text.count(" GoPreempt"), 25)
        slept = [line for line in text.splitlines() if " GoBlock " in line]
        self.assertGreater(len(slept), 25)

    def test_the_other_format(self):
        with self.traced() as process:
            process.stdout.readline()
            answer, body = self.ask(f"{TRACE}?seconds=2&format=chrome")
            pid = process.pid
        self.assertEqual((answer.status, answer.getheader("Content-Type")), (200, "application/json"))
        slices = Slices(body)
        self.assertEqual(set(slices.names.values()), NAMES | {"traced"})
        self.assertEqual({event["pid"] for event in slices.events}, {pid})
        for thread, sleep, least in (("writer", "sleep", 250), ("producer", "sleep", 20), ("request", "query", 5), ("holder", "sleep", 10)):
            with self.subTest(thread):  # the first and the last are cut by the trace
                lasted = [ms for ms, _ in slices.of(thread, sleep)][1:-1]
                self.assertGreaterEqual(min(lasted), least)
                self.assertLess(statistics.median(lasted), least + 30)
        # Also of waits that were under way before, and when, it was taken, and that are longer than events are held back.
        for thread, what, function in (("reader", "IO wait", "read_one"), ("consumer", "sync.Cond.Wait", "await_signal"),
                                       ("wanter", "semacquire", "want_lock"), ("writer", "sleep", "writer")):
            for ms, args in slices.of(thread, what):
                self.assertIn(function, args["stack"], (thread, ms))
        # Who woke whom.
        ids = {name: tid for tid, name in slices.names.items()}
        for thread, what, waker in (("consumer", "sync.Cond.Wait", "producer"), ("wanter", "semacquire", "holder")):
            wakers = [args.get("woken by") for ms, args in slices.of(thread, what)][:-1]
            self.assertGreater(wakers.count(ids[waker]), len(wakers) * 0.8, (thread, wakers))
        arrows = collections.Counter(event["id"] for event in slices.events if event["ph"] in "sf")
        self.assertEqual(set(arrows.values()), {2})
        lines = [event for event in slices.events if event.get("cat") == "log"]
        self.assertEqual({(event["name"], event["args"]["text"]) for event in lines}, {("rows", '42 "rows"')})

    def test_any_number_at_once_and_cut(self):
        with self.traced() as process:
            process.stdout.readline()

            def switches():
                for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
                    if (task / "comm").read_text() == "postern\n":
                        return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", (task / "status").read_text(), re.MULTILINE)[1])
                return None
            with concurrent.futures.ThreadPoolExecutor(5) as pool:
                for number, body in enumerate(pool.map(self.get, [f"{TRACE}?seconds=0.{3 + i}" for i in range(5)])):
                    file = pathlib.Path(self.folder.path(f"{number}.trace"))
                    file.write_bytes(body)
                    self.check(file)
            connections = [UnixConnection(self.socket) for _ in range(3)]
            for connection in connections:
                connection.request("GET", f"{TRACE}?seconds=60")
                self.assertEqual(connection.getresponse().read(16), b"go 1.19 trace\0\0\0")  # while it is taken
            for connection in connections:
                connection.close()

            def quiet():
                before = switches()
                time.sleep(0.5)
                return switches() - before <= 2
            wait_for(quiet, what="the traces to end with their clients")

    def test_what_is_asked(self):
        with self.traced() as process:
            process.stdout.readline()
            answer, body = self.ask(f"{TRACE}?seconds=5", "HEAD")
            self.assertEqual((answer.status, answer.getheader("Content-Type"), answer.getheader("Content-Disposition"), body),
                             (200, "application/octet-stream", 'attachment; filename="trace"', b""))
            for query, words in (("format=x", b"chrome"), ("last=x", b"duration"), ("last=10s", b"POSTERN_FLIGHT_RECORDER"),
                                 ("last=5", b"POSTERN_FLIGHT_RECORDER")):
                answer, body = self.ask(f"{TRACE}?{query}")
                self.assertEqual((answer.status, answer.getheader("X-Go-Pprof")), (400, "1"))
                self.assertIn(words, body)
            for seconds, least, most in (("0.2", 0.2, 0.9), ("2e-1", 0.2, 0.9), ("bad", 1, 1.9), ("-1", 1, 1.9)):
                began = time.monotonic()
                self.get(f"{TRACE}?seconds={seconds}")
                self.assertTrue(least <= time.monotonic() - began < most + 2, seconds)

    def test_the_flight_recorder(self):
        with self.traced(POSTERN_FLIGHT_RECORDER="16MiB") as process:
            process.stdout.readline()
            time.sleep(2.5)
            file, text = self.take(f"{TRACE}?last=1s", "last.trace")
            lasted = int(text.splitlines()[-1].split()[0]) / 1e9
            self.assertTrue(0.8 < lasted < 1.3, lasted)
            slices = Slices(self.get(f"{TRACE}?last=2&format=chrome"))
            self.assertTrue(80 < len(slices.of("producer", "sleep")) < 120)
            _, text = self.take(f"{TRACE}?seconds=0.3", "meanwhile.trace")
        for go in (OLDEST, NEWEST):
            stacks = profile(go, file, "sync")
            self.assertGreater(sum(ms for stack, ms in stacks.items() if stack[0] == "consumer"), 800)
        # Bounded: what is there are the last moments.
        with self.traced(POSTERN_FLIGHT_RECORDER="64KiB") as process:
            process.stdout.readline()
            time.sleep(2)
            _, text = self.take(f"{TRACE}?last=1h", "small.trace")
            lasted = int(text.splitlines()[-1].split()[0]) / 1e9
            self.assertTrue(0.3 < lasted < 1.9, lasted)
        for wrong in ("soon", "1", "16 MiB", "1MiB,", "63KiB", "2GiB", "999ms", "2h", "-1s"):
            done = subprocess.run(["/bin/true"], env={"LD_PRELOAD": str(SAMPLER), "POSTERN_FLIGHT_RECORDER": wrong}, capture_output=True,
                                  text=True, check=True)
            self.assertIn(f"POSTERN_FLIGHT_RECORDER is '{wrong}'", done.stderr)

    def test_calls_are_as_they_were(self):
        for recorder in ("0", "1MiB"):
            with self.subTest(recorder), self.traced("calls", POSTERN_FLIGHT_RECORDER=recorder) as process:
                taken = 0
                while process.poll() is None:
                    with contextlib.suppress(OSError, http.client.HTTPException):
                        taken += self.ask(f"{TRACE}?seconds=0.2")[0].status == 200
                self.assertEqual((process.wait(), process.stdout.read()), (0, "as it should be\n"))
                self.assertGreater(taken, 3)

    def test_the_demo(self):
        with Demo(tcp=True) as demo:
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                def load():
                    while not done:
                        demo.get("/api/v1/courses?topic=3")
                done = []
                loading = pool.submit(load)
                connection = http.client.HTTPConnection(demo.pprof, timeout=30)
                connection.request("GET", f"{TRACE}?seconds=1")
                body = connection.getresponse().read()
                connection.close()
                done.append(True)
                loading.result()
        file = pathlib.Path(self.folder.path("demo.trace"))
        file.write_bytes(body)
        self.check(file)
        said = {}
        for go in (OLDEST, NEWEST):
            with Pages(go, file) as pages:
                pages.fetch_all()
                said[go] = (pages.threads(), pages.regions())
        self.assertEqual(said[OLDEST], said[NEWEST])
        self.assertLessEqual({"api", "database"}, {name for name, _ in said[NEWEST][1]})


main()
