"""Profiles against the truth: programs whose shares of CPU are known, built in every way that changes
how a stack is walked, under the real libpostern.so.

Shares must be within the noise of the sample count (binomial, four standard deviations); at most one
stack in a thousand may end before its thread's start.
"""
import concurrent.futures
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import time
import unittest

from profile import Profile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from unix_connection import UnixConnection  # noqa: E402

BUILD = pathlib.Path(os.environ.get("POSTERN_BUILD") or HERE.parents[1] / "build" / "dev").resolve()
SAMPLER = BUILD / "lib" / "libpostern.so"
CC = os.environ.get("CC", "cc")
SECONDS = 4
SHARES = {"share_50": .50, "share_30": .30, "share_15": .15, "share_5": .05}


def profile_of(command, folder, source, query):
    """Run the command under the sampler and take its CPU profile."""
    path = folder / "sock"
    environment = {**os.environ, "LD_PRELOAD": str(SAMPLER), "POSTERN_LISTEN": f"unix:{path}", "POSTERN_CPU_SOURCE": source}
    with subprocess.Popen([str(c) for c in command], env=environment) as program:
        try:
            deadline = time.monotonic() + 30
            while True:
                connection = UnixConnection(path)
                try:
                    connection.request("GET", f"/debug/pprof/profile?{query}")
                    break
                except OSError:
                    connection.close()
                    if time.monotonic() > deadline or program.poll() is not None:
                        raise
                    time.sleep(0.01)
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            if answer.status != 200:
                raise AssertionError(f"{answer.status}: {body!r}")
            if program.poll() is not None:
                raise AssertionError(f"the program ended: {program.returncode}")
            return Profile(body)
        finally:
            program.kill()


def sees_the_kernel():
    """As in perf_event_open(2): by privilege (root's will do), or because everybody may."""
    try:
        return os.geteuid() == 0 or int(pathlib.Path("/proc/sys/kernel/perf_event_paranoid").read_text()) < 2
    except OSError:
        return False


def compile_program(folder, sources, flags):
    program = folder / "program"
    compiler = "c++" if sources[0].endswith(".cc") else CC
    subprocess.run([compiler, "-O2", "-I", HERE.parents[1], "-o", program, *[HERE / s for s in sources], *flags], check=True)
    return program


def names_of(program):
    """What functions will be called in profiles once the symbols are stripped: by where they start."""
    listing = subprocess.run(["nm", program], check=True, capture_output=True, text=True).stdout
    return {name: f"{program.name}+{int(address, 16):#x}"
            for address, name in re.findall(r"^([0-9a-f]+) [tT] (\w+)$", listing, re.M)}


def entry_of(program):
    head = program.read_bytes()[:64]
    return f"{program.name}+{struct.unpack_from('<Q', head, 24)[0]:#x}"


class Accuracy:
    source, seconds, query = None, None, None

    def check_shares(self, profile, names):
        total = profile.total()
        self.assertGreater(total, SECONDS * 25, profile.comments)
        for name, share in SHARES.items():
            count = profile.count(lambda stack: names.get(name, name) in stack)
            noise = 4 * (total * share * (1 - share)) ** 0.5
            self.assertLess(abs(count - total * share), noise + 1,
                            f"{name}: {count} of {total}; {profile.comments}")

    def check_complete(self, profile, outermost):
        total = profile.total()
        broken = [(stack, count) for stack, count in profile.stacks if stack[-1] not in outermost]
        self.assertLessEqual(sum(count for _, count in broken), total / 1000,
                             f"of {total}: {broken[:5]}; {profile.comments}")

    def run_built(self, sources, flags, mode=(), strip=False, check=None):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            program = compile_program(folder, sources, flags)
            names = {}
            if strip:
                names = names_of(program)
                subprocess.run(["strip", program], check=True)
            if mode and mode[0] == "library":
                subprocess.run([CC, "-O2", "-I", HERE.parents[1], "-fPIC", "-shared", "-o", folder / "library.so",
                                HERE / "library.c"], check=True)
                mode = (*mode, folder / "library.so")
            for longer in (1, 3):
                profile = profile_of([program, *mode], folder, self.source, self.query.format(self.seconds * longer))
                if profile.total() > SECONDS * 25:
                    break  # else the machine had other things to do
            check(profile, names, entry_of(program))

    def shares_in(self, sources=("shares.c",), flags=(), mode=(), strip=False, holds=()):
        def check(profile, names, entry):
            self.check_shares(profile, names)
            self.check_complete(profile, {"_start", entry})
            for name in holds:
                self.assertGreater(profile.count(lambda stack: name in stack),
                                   profile.total() * 0.95, (name, profile.stacks[:3]))

        self.run_built(sources, flags, mode, strip, check)

    def test_every_way_to_build(self):
        variants = [(frames, pie, strip)
                    for frames in ("-fomit-frame-pointer", "-fno-omit-frame-pointer")
                    for pie in (("-fPIE", "-pie"), ("-fno-PIE", "-no-pie"))
                    for strip in (False, True)]
        # Two at a time: there may be no more processors.
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            done = {pool.submit(self.shares_in, flags=(frames, *pie), strip=strip):
                    (frames, *pie, strip) for frames, pie, strip in variants}
            for future in concurrent.futures.as_completed(done):
                with self.subTest(done[future]):
                    future.result()

    def test_in_a_signal_handler(self):
        self.shares_in(mode=("handler",), holds=("on_signal", "main"))

    def test_in_a_signal_handler_on_an_alternate_stack(self):
        self.shares_in(mode=("alternate-stack",), holds=("on_signal", "main"))

    def test_in_a_loaded_library(self):
        self.shares_in(mode=("library",), holds=("work_in_library", "main"))

    def test_in_system_calls(self):
        self.shares_in(mode=("system-calls",), holds=("read", "main"))

    def test_throwing_exceptions(self):
        self.shares_in(sources=("throws.cc",), holds=("main",))

    def test_in_a_thread(self):
        def check(profile, names, _entry):
            self.check_shares(profile, names)
            # libc does not name its first function of a thread; it is the same one in every stack.
            first = {stack[-1] for stack, _ in profile.stacks if "run_thread" in stack}
            self.assertEqual(len(first), 1, first)
            self.check_complete(profile, first)

        self.run_built(["shares.c"], [], ("thread",), check=check)

    def test_in_libcrypto(self):
        def check(profile, _names, _entry):
            self.check_complete(profile, {"_start"})
            self.assertGreater(profile.total(), SECONDS * 25, profile.comments)
            self.assertGreater(profile.count(lambda stack: "main" in stack),
                               profile.total() * 0.999)

        self.run_built(["crypto.c"], ["-lcrypto"], check=check)


class ByTimers(Accuracy, unittest.TestCase):
    source, seconds, query = "timer", SECONDS, "seconds={}"


@unittest.skipUnless(sees_the_kernel(), "perf events may not see the kernel here")
class ByPerf(Accuracy, unittest.TestCase):
    source, seconds, query = "perf", 1, "seconds={}&hz=1000"


if __name__ == "__main__":
    unittest.main()
