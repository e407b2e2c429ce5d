# labels: sampler
# timeout: 120
"""Stacks of sleeping threads: whole, right, and read without waking anybody."""
import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import unittest

from harness import SAMPLER, TempDir, UnixConnection, main, wait_for

HERE = pathlib.Path(__file__).resolve().parent
WAYS = ("cond", "sleep", "read", "epoll", "poll", "mutex", "sem", "futex")
STATES = {"cond": "sync.Cond.Wait", "sleep": "sleep", "read": "IO wait", "epoll": "IO wait", "poll": "IO wait",
          "mutex": "sync.Mutex.Lock", "sem": "semacquire", "futex": "semacquire"}
SHAPES = ("plain", "with_array", "with_alloca", "with_saved", "with_pushed", "with_aligned", "with_large")
THREADS = 120


def stacks(text):
    """debug=2 as {tid: (state, functions)}."""
    found = {}
    for block in text.strip().split("\n\n"):
        head, *rest = block.split("\n")
        match = re.fullmatch(r"goroutine (\d+) \[([^,\]]+).*\]:", head)
        found[int(match[1])] = (match[2], [line.split("(...)")[0] for line in rest if not line.startswith("\t")])
    return found


class ThreadsTest(unittest.TestCase):
    def setUp(self):
        self.folder = self.enterContext(TempDir())
        self.socket = self.folder.path("s.sock")

    def build(self, *flags, compiler="gcc", source="sleepers.c"):
        program = self.folder.path("program")
        language = ["-x", "c++"] if compiler == "g++" else []
        subprocess.run([compiler, "-pthread", "-w", *flags, "-o", program, *language, HERE / source], check=True)
        return program

    @contextlib.contextmanager
    def program(self, *command, **env):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)
        environment = {**os.environ, "LD_PRELOAD": str(SAMPLER), "POSTERN_LISTEN": f"unix:{self.socket}",
                       "POSTERN_RUNTIME_DIR": str(self.folder.dir), **env}
        process = subprocess.Popen([str(part) for part in command], env=environment, stdout=subprocess.PIPE, text=True)
        try:
            wait_for(lambda: os.path.exists(self.socket), what="the sampler's socket")
            yield process
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def get(self, path):
        with contextlib.closing(UnixConnection(self.socket)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            self.assertEqual(answer.status, 200)
            return answer.read()

    def dump(self):
        return stacks(self.get("/debug/pprof/goroutine?debug=2").decode())


def expected(number):
    way, shape = WAYS[number // len(SHAPES) % len(WAYS)], SHAPES[number % len(SHAPES)]
    inner = ["wait_cond"] if way == "cond" else []
    inner += [f"in_{way}"] + (["many"] if shape == "with_pushed" else []) + [shape]
    return STATES[way], [*inner, "outer", "run"]


class Sleepers(ThreadsTest):
    """What is not whole, or not right, of 120 threads that sleep."""
    def failures(self, *flags, compiler="gcc"):
        with self.program(self.build(*flags, compiler=compiler), str(THREADS)) as process:
            self.assertEqual(process.stdout.readline(), "started\n")

            def sleeping():
                dump = self.dump()
                return dump if len(dump) == THREADS + 1 and all(state != "running" for state, _ in dump.values()) else None
            wait_for(sleeping, what="all threads to sleep")
            dump = self.dump()
            first = process.pid
            wrong = []
            for number, tid in enumerate(tid for tid in dump if tid != first):
                state, want = expected(number)
                got = [re.sub(r"^_ZL\d+([a-z_]+?)(v|i|ii|i*PFiiEi|Pv)$", r"\1", name) for name in dump[tid][1]]
                own = [name for name in got if re.match(r"(wait_cond|in_|many|plain|with_|outer|run|dirty)", name)]
                whole = any(name.startswith("libc.so") or name.startswith("__clone") or name.startswith("clone") for name in got[-2:])
                if (dump[tid][0], own) != (state, want) or not whole:
                    wrong.append((state, want, dump[tid]))
            state, names = dump[first]
            self.assertEqual(state, "IO wait")
            self.assertIn("main", names)
            for _ in range(20):
                self.dump()
            process.kill()
            self.assertEqual(process.stdout.read(), "", "somebody was woken")
            return wrong

    def test_without_frame_pointers(self):
        for level in ("-O0", "-O1", "-O2", "-O3", "-Os"):
            with self.subTest(level):
                self.assertEqual(self.failures(level, "-fomit-frame-pointer"), [])

    def test_with_frame_pointers(self):
        for flags in (("-O0",), ("-O1",), ("-O2",), ("-O3",), ("-Os",), ("-O2", "-fstack-clash-protection", "-fcf-protection=full"),
                      ("-O2", "-fPIC", "-fno-plt"), ("-O2", "-fstack-protector-strong")):
            with self.subTest(flags):
                self.assertEqual(self.failures(*flags, "-fno-omit-frame-pointer"), [])

    def test_cpp(self):
        for flags in (("-O0",), ("-O2", "-fno-omit-frame-pointer")):
            with self.subTest(flags):
                self.assertEqual(self.failures(*flags, compiler="g++"), [])

    @unittest.skipUnless(shutil.which("clang"), "no clang")
    def test_clang(self):
        for flags in (("-O0",), ("-O2", "-fno-omit-frame-pointer"), ("-O2", "-fomit-frame-pointer")):
            with self.subTest(flags):
                self.assertEqual(self.failures(*flags, compiler="clang"), [])


main()
