"""The wall-clock and off-CPU profiles against the truth: threads that run, sleep, wait for input and for a lock in
known functions, and time themselves; none of them is woken.

What a thread's profile has in all is exact: as much as the thread was there. How it is divided is an estimate of
as many looks as the profile says: each share within five standard errors of the truth, and two points."""
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from profile import Profile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from unix_connection import UnixConnection  # noqa: E402

BUILD = pathlib.Path(os.environ.get("POSTERN_BUILD") or HERE.parents[1] / "build" / "dev").resolve()
SECONDS = 5
FUNCTIONS = ("sleep_short", "sleep_long", "read_in", "lock_in")
STATES = {"sleep_short": {"sleep"}, "sleep_long": {"sleep"}, "read_in": {"IO wait"}, "lock_in": {"sync.Mutex.Lock"}}


class Wall(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.program = cls.folder / "times"
        subprocess.run([os.environ.get("CC", "gcc"), "-D_GNU_SOURCE", "-O2", "-g", "-pthread", "-o", cls.program, HERE / "times.c"], check=True)
        cls.socket = cls.folder / "sock"

    def get(self, path, into=None):
        connection = UnixConnection(self.socket)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if into is not None:
            into[path] = body
        return answer.status, body

    def run_program(self, seconds, sleepers, *paths):
        """The answers of all paths, asked for at once while the program runs, and what it said."""
        env = {**os.environ, "LD_PRELOAD": str(BUILD / "lib/libpostern.so"), "POSTERN_LISTEN": f"unix:{self.socket}",
               "POSTERN_RUNTIME_DIR": str(self.folder)}
        self.socket.unlink(missing_ok=True)
        with subprocess.Popen([self.program, str(seconds), str(sleepers)], env=env, stdout=subprocess.PIPE, text=True) as process:
            while not self.socket.exists():
                time.sleep(0.01)
            time.sleep(0.3)  # all its threads are there
            answers = {}
            askers = [threading.Thread(target=self.get, args=(path, answers)) for path in paths]
            for asker in askers:
                asker.start()
            for asker in askers:
                asker.join()
            said = process.communicate()[0]
        self.assertEqual(process.returncode, 0)
        self.assertIn("early 0\n", said)
        truth = {}
        for name, what, spent in re.findall(r"^(\w+) (\w+) ([\d.]+)$", said, re.M):
            truth.setdefault(name, {})[what] = float(spent)
        return [answers[path] for path in paths], truth

    def by_thread(self, profile):
        """{thread: {function, or "cpu", "ready", "other": ns}}; states are right."""
        times = {}
        for (names, values), labels in zip(profile.samples, profile.labels):
            where = next((name for name in names if name in FUNCTIONS), "other")
            state = labels.get("state")
            if state in ("running", "runnable"):
                where = {"running": "cpu", "runnable": "ready"}[state]
            elif where != "other":
                self.assertIn(state, STATES[where], names)
            thread = times.setdefault(labels.get("thread"), {})
            thread[where] = thread.get(where, 0) + values[1]
        return times

    def looks(self, profile):
        return float(re.search(r"each ([\d.]+) times a second", profile.comments[0])[1])

    def check_shares(self, times, truth, looks, with_cpu):
        """Without the time that a thread waits for a CPU: that depends on who else wants one at the moment."""
        for name, spent in truth.items():
            if name == "busy" and not with_cpu:
                continue
            kinds = [*FUNCTIONS, *(["cpu"] if with_cpu else [])]
            whole, true_whole = sum(times[name].get(kind, 0) for kind in kinds), sum(spent[kind] for kind in kinds)
            for kind in kinds:
                true = spent[kind] / true_whole
                got = times[name].get(kind, 0) / whole
                allowed = 5 * math.sqrt(true * (1 - true) / looks) + 0.02
                print(f"  {name} {kind}: {100 * got:.1f} %, in truth {100 * true:.1f} %")
                self.assertLess(abs(got - true), allowed, (name, kind, got, true))

    def test_shares(self):
        (wall, off), truth = self.run_program(SECONDS + 2, 0, f"/debug/pprof/wall?seconds={SECONDS}", f"/debug/pprof/offcpu?seconds={SECONDS}")
        wall, off = Profile(wall), Profile(off)
        print(wall.comments, off.comments, sep="\n")
        self.assertGreater(self.looks(off), 60)
        self.check_shares(self.by_thread(off), truth, self.looks(off) * SECONDS, False)
        times = self.by_thread(wall)
        self.check_shares(times, truth, self.looks(wall) * SECONDS, True)
        self.assertGreater(times["busy"]["cpu"] + times["busy"].get("ready", 0), 0.97 * SECONDS * 1e9)
        for name in truth:
            self.assertAlmostEqual(sum(times[name].values()) / 1e9, SECONDS, delta=0.03 * SECONDS, msg=name)
        self.assertFalse({"cpu", "ready"} & {where for thread in self.by_thread(off).values() for where in thread})
        self.assertLess(sum(self.by_thread(off).get("busy", {}).values()), 0.03 * SECONDS * 1e9)

    def test_three_hundred_threads(self):
        (off,), _ = self.run_program(5, 300, "/debug/pprof/offcpu?seconds=3")
        off = Profile(off)
        print(off.comments)
        took, passed, in_all = (int(number) for number in re.search(
            r"took \(ms\): (\d+) in (\d+); time of threads in all \(ms\): (\d+)", off.comments[0]).groups())
        self.assertLess(took, 0.05 * passed + 60)  # the first look at all of them is one more
        self.assertAlmostEqual(in_all / passed, 308, delta=3)
        whole = sum(values[1] for _, values in off.samples) / 1e6
        sleeping = sum(values[1] for names, values in off.samples if "only_sleep" in names) / 1e6
        self.assertAlmostEqual(sleeping / passed, 300, delta=3)
        self.assertLess(whole, 308.5 * passed)

    def test_many_at_once_of_any_length(self):
        paths = [f"/debug/pprof/{name}?seconds={seconds}&hz={hz}" for name, seconds, hz in
                 (("wall", 1, 10), ("wall", 2, 100), ("offcpu", 1, 100), ("offcpu", 3, 1), ("offcpu", 2, 50))]
        bodies, _ = self.run_program(5, 3, *paths)
        for path, body in zip(paths, bodies):
            seconds = int(re.search(r"seconds=(\d)", path)[1])
            times = self.by_thread(Profile(body))
            with self.subTest(path):
                self.assertAlmostEqual(sum(times["times"].values()) / 1e9 / seconds, 4, delta=0.15)  # main and three

    def test_questions(self):
        answers = []

        def ask():
            for query in ("seconds=1&hz=0", "seconds=1&hz=101", "seconds=1&hz=x", "seconds=1&hz="):
                answers.append((query, self.get(f"/debug/pprof/wall?{query}")))

        asker = threading.Timer(0.4, ask)
        asker.start()
        self.run_program(4, 0, "/debug/pprof/offcpu?seconds=1")
        asker.join()
        self.assertEqual([status for _, (status, _) in answers], [400, 400, 400, 200])

    @unittest.skipUnless(shutil.which("go"), "no go")
    def test_go_tool_pprof(self):
        (wall, off), _ = self.run_program(4, 0, "/debug/pprof/wall?seconds=2", "/debug/pprof/offcpu?seconds=2")
        for name, body in (("wall", wall), ("offcpu", off)):
            file = self.folder / f"{name}.pb.gz"
            file.write_bytes(body)
            for go in filter(os.path.exists, ("/usr/lib/go-1.19/bin/go", shutil.which("go"))):
                with self.subTest(name, go=go):
                    top = subprocess.run([go, "tool", "pprof", "-top", f"-sample_index={name}", file], capture_output=True, text=True, check=True).stdout
                    self.assertIn(f"Type: {name}\n", top)
                    self.assertIn("Duration: 2", top)
                    tags = subprocess.run([go, "tool", "pprof", "-tags", file], capture_output=True, text=True, check=True).stdout
                    self.assertRegex(tags, r"state: Total(.|\n)*IO wait")
                    self.assertRegex(tags, r"thread: Total(.|\n)*reader")


if __name__ == "__main__":
    unittest.main()
