"""Block and mutex profiles against the truth: a program whose threads wait for each other in every way, and measure it.

exact    every event is recorded (fraction 1, rate 1): counts are exact, times within what the clock's readings around a
         call cost more than those inside, and the labels name the other side's function
sampled  one in FRACTION, and one for each RATE nanoseconds, much more than a wait takes: estimates must be within four
         standard deviations of the truth, and together show no bias

LOCKS_RUNS (default 1) makes it more than one run of the sampled kind."""
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from profile import Profile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from unix_connection import UnixConnection  # noqa: E402

BUILD = pathlib.Path(os.environ.get("POSTERN_BUILD") or HERE.parents[1] / "build" / "dev").resolve()
SAMPLER = BUILD / "lib" / "libpostern.so"
RUNS = int(os.environ.get("LOCKS_RUNS", "1"))
FRACTION, RATE = 10, 2_000_000
HELD = ("mutex", "reader", "writer", "standard", "c11", "many")  # a lock; others are let go by somebody


class Truth:
    def __init__(self, words):
        (self.events, self.lost, self.charged, self.events_variance, self.lost_variance,
         self.charged_squares) = (float(word) for word in words)


class Locks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.program = cls.folder / "locks"
        subprocess.run(["c++", "-O2", "-fno-optimize-sibling-calls", "-o", cls.program, HERE / "locks.cc", "-pthread"], check=True)

    def play(self, mode, fraction, rate):
        """({kind: Truth}, block profile, mutex profile)"""
        path = self.folder / "sock"
        environment = {**os.environ, "LD_PRELOAD": str(SAMPLER), "POSTERN_LISTEN": f"unix:{path}", "POSTERN_RUNTIME_DIR": str(self.folder),
                       "POSTERN_MUTEX_FRACTION": str(fraction), "POSTERN_BLOCK_RATE": str(rate)}
        with subprocess.Popen([self.program, mode, str(rate)], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            truths = {}
            for line in process.stdout:
                if line == "end\n":
                    break
                name, *words = line.split()
                truths[name] = Truth(words)
            profiles = []
            for what in ("block", "mutex"):
                connection = UnixConnection(path)
                connection.request("GET", f"/debug/pprof/{what}")
                profiles.append(Profile(connection.getresponse().read()))
                connection.close()
            process.communicate("")
        self.assertEqual(process.returncode, 0)
        return truths, *profiles

    def sum(self, profile, function):
        """(contentions, nanoseconds, labels seen) of the stacks with this function."""
        count = delay = 0
        seen = []
        for (names, values), labels in zip(profile.samples, profile.labels):
            if function in names:
                count += values[0]
                delay += values[1]
                seen.append(labels)
        return count, delay, seen

    def test_every_event(self):
        truths, block, mutex = self.play("exact", 1, 1)
        self.assertEqual(len(truths), 8)
        for kind, truth in truths.items():
            with self.subTest(kind):
                count, delay, labels = self.sum(block, f"wait_{kind}")
                print(f"block {kind:9} {count:4} of {truth.events:4.0f} waits, {delay / 1e6:8.2f} of {truth.lost / 1e6:8.2f} ms")
                self.assertEqual(count, truth.events)
                self.assertAlmostEqual(delay, truth.lost, delta=0.02 * truth.lost + 50e3 * truth.events)
                self.assertLessEqual(delay, truth.lost)
                if kind in HELD:
                    self.assertLessEqual({row.get("holder") for row in labels}, {f"hold_{kind}", f"wait_{kind}"})
                    self.assertIn(f"hold_{kind}", {row.get("holder") for row in labels})
                count, delay, labels = self.sum(mutex, f"hold_{kind}")
                if kind not in HELD:
                    self.assertEqual(count, 0)
                    continue
                print(f"mutex {kind:9} {count:4} of {truth.events:4.0f} waits, {delay / 1e6:8.2f} of {truth.charged / 1e6:8.2f} ms")
                self.assertAlmostEqual(delay, truth.charged, delta=0.02 * truth.charged + 50e3 * truth.events)
                self.assertEqual({row.get("waiter") for row in labels}, {f"wait_{kind}"})
                self.assertEqual({row.get("holder") for row in labels}, {f"hold_{kind}"})
                self.assertEqual(count, truth.events if kind != "many" else truth.events / 3)

    def test_what_waiters_lose_is_charged_to_somebody(self):
        """Three wait at once, and then for each other: all that they lost is charged to those who held."""
        truths, block, mutex = self.play("exact", 1, 1)
        lost = self.sum(block, "wait_many")[1]
        charged = self.sum(mutex, "hold_many")[1] + self.sum(mutex, "wait_many")[1]
        print(f"many: lost {lost / 1e6:.2f} ms, charged {charged / 1e6:.2f} ms")
        # Between release and wake-up nobody holds it; but in each round the first of the three has it for 0.3 ms while
        # two wait, and the second while one does.
        self.assertLessEqual(charged, lost * 1.001)
        rounds = truths["many"].events / 3
        self.assertGreater(charged, 0.98 * truths["many"].charged + 0.95 * 3 * 300e3 * rounds)

    def test_samples_are_unbiased(self):
        errors = []
        for _ in range(RUNS):
            truths, block, mutex = self.play("sampled", FRACTION, RATE)
            for kind, truth in truths.items():
                count, delay, _ = self.sum(block, f"wait_{kind}")
                rows = [("block count", count, truth.events, truth.events_variance),
                        ("block delay", delay, truth.lost, truth.lost_variance)]
                if kind in HELD:
                    count, delay, _ = self.sum(mutex, f"hold_{kind}")
                    rows += [("mutex count", count, truth.events, (FRACTION - 1) * truth.events),
                             ("mutex delay", delay, truth.charged, (FRACTION - 1) * truth.charged_squares)]
                for what, estimate, wanted, variance in rows:
                    error = (estimate - wanted) / math.sqrt(variance)
                    print(f"{kind:9} {what} {wanted:14.0f} {estimate:14.0f} {estimate / wanted - 1:+8.2%} {error:+6.2f}")
                    with self.subTest(f"{kind} {what}"):
                        self.assertLess(abs(error), 4)
                    errors.append(error)
        mean, size = sum(errors) / len(errors), math.sqrt(sum(e * e for e in errors) / len(errors))
        print(f"{len(errors)} estimates: mean error {mean:+.3f}, size {size:.3f} standard deviations")
        # Counts and delays of a kind go together: half of them are independent.
        self.assertLess(abs(mean) * math.sqrt(len(errors) / 2), 4)


if __name__ == "__main__":
    unittest.main()
