# labels: sampler slow
# timeout: 240
# serial
"""CPU profiles from each source, at each rate, several at once: of programs whose shares are known (cpu_sources.c,
tests/accuracy/shares.c). Statistics allow four standard deviations; CPU time is the process's own, so nothing depends
on how busy the machine is."""
import concurrent.futures
import contextlib
import os
import pathlib
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
import unittest

from harness import ROOT, SAMPLER, TempDir, UnixConnection, main, wait_for

sys.path.insert(0, str(ROOT / "tests" / "accuracy"))
from profile import Profile  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
SHARES = {"share_50": .50, "share_30": .30, "share_15": .15, "share_5": .05}
NOBODY = 65534
ROOTED = os.geteuid() == 0
try:
    PARANOID = int(pathlib.Path("/proc/sys/kernel/perf_event_paranoid").read_text())
except OSError:
    PARANOID = 4
PERF = ROOTED or PARANOID < 2
ITIMER = tuple(int(n) for n in re.match(r"(\d+)\.(\d+)", platform.release()).groups()) >= (6, 4)
SOURCES = [*(["perf"] if PERF else []), "timer", *(["itimer"] if ITIMER else [])]


class Program:
    """Under the sampler, until the end of the `with`."""

    def __init__(self, *command, source="auto", user=None, files=None, **env):
        self.folder, self.options = TempDir(), {}
        library = shutil.copy(SAMPLER, self.folder.dir)
        os.chmod(self.folder.dir, 0o755)
        if user:
            os.chown(self.folder.dir, user, user)
            self.options = {"user": user, "group": user, "extra_groups": []}
        if files:
            self.options["preexec_fn"] = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        self.socket = self.folder.path("s")
        env = {**os.environ, "LD_PRELOAD": library, "POSTERN_LISTEN": f"unix:{self.socket}", "POSTERN_CHILDREN": "off",
               "POSTERN_RUNTIME_DIR": str(self.folder.dir), "POSTERN_CPU_SOURCE": source, **env}
        with open(self.folder.path("stderr"), "wb") as errors:
            self.process = subprocess.Popen([str(word) for word in command], env=env, stderr=errors, **self.options)

    def get(self, path):
        connection = UnixConnection(self.socket)
        try:
            connection.request("GET", "/debug/pprof/" + path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def __enter__(self):
        def answers():
            with contextlib.suppress(OSError):
                return self.get("cmdline")[0] == 200

        wait_for(answers, what="the sampler to answer")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.folder.remove()

    def profile(self, query):
        status, body = self.get("profile?" + query)
        if status != 200:
            raise AssertionError(f"{query}: {status} {body!r}")
        return Cpu(body)


class Cpu(Profile):
    def __init__(self, body):
        super().__init__(body)
        said = " | ".join(self.comments)
        self.said = said
        self.source, self.hz = re.search(r"source: (\w+), (\d+) Hz", said).groups()
        self.hz = int(self.hz)
        self.used_ms, self.unseen_ms = (int(n) for n in re.search(r"CPU time \(ms\): (\d+), of which not seen: (\d+)", said).groups())
        self.rate = float(re.search(r"true rate: ([\d.]+) samples", said).group(1))
        self.dropped = int(re.search(r"dropped: (\d+)", said).group(1))
        self.ns = sum(values[1] for _, values in self.samples)


class Sources(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = cls.enterClassContext(TempDir())
        os.chmod(cls.folder.dir, 0o755)
        cls.program = cls.build("program", HERE / "cpu_sources.c", "-Wno-redundant-decls")
        cls.shares = cls.build("shares", ROOT / "tests" / "accuracy" / "shares.c")

    @classmethod
    def build(cls, name, source, *flags):
        program = cls.folder.path(name)
        subprocess.run(["gcc", "-D_GNU_SOURCE", "-O2", "-g", "-I", ROOT, "-o", program, source, "-pthread", *flags], check=True)
        return program

    def check_time(self, profile, part=0.03):
        """The profile's CPU time is the process's: but for a few periods, and what the clock and a busy machine do."""
        seen = profile.ns / 1e6
        slack = part * profile.used_ms + 4 * profile.period / 1e6 + 30
        self.assertLess(abs(seen - profile.used_ms), slack, profile.said)

    def check_shares(self, profile, shares=None, only=lambda stack: True):
        total = profile.count(only)
        for name, share in (shares or SHARES).items():
            count = profile.count(lambda stack, n=name: only(stack) and n in stack)
            noise = 4 * (total * share * (1 - share)) ** 0.5
            self.assertLess(abs(count - total * share), noise + 2, (name, count, total, profile.said))

    def each(self, check):
        """All sources side by side: each in a program of its own."""
        with concurrent.futures.ThreadPoolExecutor(len(SOURCES)) as pool:
            for source, future in [(source, pool.submit(check, source)) for source in SOURCES]:
                with self.subTest(source):
                    future.result()

    def test_every_rate(self):
        def check(source):
            with Program(self.shares, source=source) as program:
                for hz, seconds in ((1, 3), (100, 2), (250, 1), (1000, 1), (4000, 1)):
                    profile = program.profile(f"seconds={seconds}&hz={hz}")
                    self.assertEqual((profile.source, profile.hz), (source, hz))
                    self.check_time(profile)
                    self.check_shares(profile)
                    if hz > 1 and source == "perf":
                        self.assertEqual(profile.period, 1000000000 // hz)
                        self.assertGreater(profile.rate, hz * 0.95, profile.said)
                    if hz == 4000 and source != "perf":
                        self.assertRegex(profile.said, r"timers tick at \d+ a second here")
                        self.assertGreaterEqual(profile.period, 1000000)
                self.assertIn(f"CPU source: {source} (as asked for)".encode(), program.get("")[1])
                # No hz is Go's.
                self.assertEqual(program.profile("seconds=1").hz, 100)

        self.each(check)

    def test_overlapping_captures_are_right_each_by_itself(self):
        def check(source):
            def capture(program, wait, query):
                time.sleep(wait)
                return program.profile(query)

            with Program(self.shares, source=source) as program, concurrent.futures.ThreadPoolExecutor(4) as pool:
                wanted = [(0, "seconds=4&hz=100"), (0.5, "seconds=1&hz=1000"), (1.0, "seconds=2&hz=230"), (2.2, "seconds=1&hz=17")]
                done = [pool.submit(capture, program, *one) for one in wanted]
                for (_, query), future in zip(wanted, done):
                    profile = future.result()
                    self.assertIn(f"hz={profile.hz}", query)
                    self.check_time(profile, 0.05)
                    self.check_shares(profile)
                self.assertNotIn(b", now ", program.get("")[1])

        self.each(check)

    def test_as_many_captures_as_connections(self):
        with Program(self.shares) as program, concurrent.futures.ThreadPoolExecutor(15) as pool:
            for profile in pool.map(lambda hz: program.profile(f"seconds=1&hz={hz}"), range(50, 800, 50)):
                self.check_time(profile, 0.05)

    def test_threads_that_were_there_and_that_come(self):
        def check(source):
            with Program(self.program, "threads", source=source) as program:
                profile = program.profile("seconds=2&hz=250")
                self.check_time(profile, 0.15 if source == "timer" else 0.05)
                for function in ("before", "during"):
                    self.assertGreater(profile.count(lambda stack, f=function: f in stack), profile.total() * 0.2, profile.said)
                self.assertGreater(profile.labelled("thread", "early"), profile.total() * 0.2)

        self.each(check)

    def test_forked_children_are_not_in_it(self):
        def check(source):
            with Program(self.program, "forks", source=source) as program:
                profile = program.profile("seconds=2&hz=250")
                self.assertEqual(profile.count(lambda stack: "in_child" in stack), 0)
                self.assertGreater(profile.count(lambda stack: "in_parent" in stack), 5)

        self.each(check)

    def test_labels(self):
        def check(source):
            with Program(self.program, "regions", source=source) as program:
                profile = program.profile("seconds=2&hz=250")
                total = profile.total()
                three, one = profile.labelled("region", "three"), profile.labelled("region", "one")
                self.assertGreater(three + one, total * 0.98)
                self.assertLess(abs(three - total * 0.75), 4 * (total * 0.75 * 0.25) ** 0.5 + 0.02 * total, (three, total))
                self.assertGreater(profile.labelled("thread", "program"), total * 0.98)

        self.each(check)

    def test_time_in_the_kernel_is_not_hidden(self):
        with Program(self.program, "reads") as program:
            profile = program.profile("seconds=1")
            self.assertEqual(profile.source, "perf" if PERF else "timer")
            self.check_time(profile)
            self.assertGreater(profile.count(lambda stack: "read" in stack), profile.total() * 0.9)

    @unittest.skipUnless(ROOTED, "needs another user")
    def test_without_rights(self):
        with Program(self.program, "reads", user=NOBODY) as program:
            profile = program.profile("seconds=1")
            self.check_time(profile)
            if PARANOID >= 2:
                self.assertEqual(profile.source, "timer")
                self.assertIn("perf: ", profile.said)
                self.assertIn(b"CPU source: timer (chosen by itself)", program.get("")[1])

    @unittest.skipUnless(ROOTED and PARANOID == 2, "needs another user, and perf for user code alone")
    def test_perf_that_sees_no_kernel_says_what_it_has_not_seen(self):
        with Program(self.program, "reads", user=NOBODY, source="perf") as program:
            profile = program.profile("seconds=1")
            self.assertIn("without the time in the kernel", profile.said)
            self.assertGreater(profile.unseen_ms, profile.used_ms * 0.8 - 40, profile.said)
        with Program(self.shares, user=NOBODY, source="perf") as program:
            profile = program.profile("seconds=1&hz=1000")
            self.check_time(profile, 0.1)
            self.check_shares(profile)

    @unittest.skipUnless(PERF and ITIMER, "all sources are needed")
    def test_what_hides_time_is_left_for_the_next(self):
        with Program(self.program, "brief") as program:
            first = program.profile("seconds=3")
            self.assertIn("perf: it hid more than 5 % of the CPU time", first.said)
            # Now it is known.
            profile = program.profile("seconds=2")
            self.assertEqual(profile.source, "itimer", profile.said)
            self.check_time(profile, 0.05)
            self.assertGreater(profile.count(lambda stack: "brief" in stack), profile.total() * 0.5)

    @unittest.skipUnless(PERF, "perf events are refused here")
    def test_too_few_descriptors(self):
        with Program(self.shares, source="perf", files=5) as program:
            status, body = program.get("profile?seconds=1")
            self.assertEqual(status, 500)
            self.assertIn(b"Could not enable CPU profiling: POSTERN_CPU_SOURCE is perf: ", body)
            self.assertEqual(program.get("cmdline")[0], 200)
            self.assertIsNone(program.process.poll())
        with Program(self.shares, files=5) as program:
            profile = program.profile("seconds=1")
            self.assertEqual(profile.source, "timer", profile.said)
            self.assertIn("perf: ", profile.said)
            self.check_time(profile)

    def test_the_setting_is_strict(self):
        program = Program("sleep", "0.2", source="pref")
        try:
            self.assertEqual(program.process.wait(), 0)
            self.assertEqual(pathlib.Path(program.folder.path("stderr")).read_text(),
                             "postern: off: POSTERN_CPU_SOURCE is 'pref': it must be auto, perf, timer or itimer\n")
        finally:
            program.folder.remove()


if __name__ == "__main__":
    main()
