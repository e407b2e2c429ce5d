"""The heap profile against the truth, at the default rate: a program that allocates 10^7 objects from eight
sites, frees them in other threads and moves them by realloc(), and knows how much each site has.

An estimate's error over its own standard deviation must look like a normal one: none may be larger than 5
(where there are samples enough for a normal distribution), and their mean may not differ from 0 (four
standard errors).  HEAP_RUNS (default 1)
makes it more than one run; each prints its figures."""
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
OBJECTS, THREADS = 10_000_000, 4
RUNS = int(os.environ.get("HEAP_RUNS", "1"))
WHAT = ("alloc_objects", "alloc_space", "inuse_objects", "inuse_space")


def run_once(program, folder):
    """{site: ([truths], [variances], [estimates])}, each in the order of WHAT."""
    path = folder / "sock"
    environment = {**os.environ, "LD_PRELOAD": str(SAMPLER), "POSTERN_LISTEN": f"unix:{path}",
                   "POSTERN_RUNTIME_DIR": str(folder)}
    with subprocess.Popen([program, str(OBJECTS), str(THREADS)], env=environment, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        sites = {}
        for line in process.stdout:
            if line == "end\n":
                break
            name, *numbers = line.split()
            numbers = [float(n) for n in numbers]
            sites[name] = (numbers[:4], numbers[4:], [0] * 4)
        connection = UnixConnection(path)
        connection.request("GET", "/debug/pprof/heap")
        profile = Profile(connection.getresponse().read())
        connection.close()
    for names, values in profile.samples:
        for site in [name for name in names if name in sites]:
            sites[site][2][:] = [a + b for a, b in zip(sites[site][2], values)]
    print(profile.comments[0])
    return sites


class Heap(unittest.TestCase):
    def test_estimates_are_unbiased(self):
        errors, largest = [], 0
        with tempfile.TemporaryDirectory() as folder:
            program = pathlib.Path(folder) / "heap"
            subprocess.run([os.environ.get("CC", "cc"), "-O2", "-o", program, HERE / "heap.c", "-lpthread", "-lm"], check=True)
            for _ in range(RUNS):
                for site, (truths, variances, estimates) in sorted(run_once(program, pathlib.Path(folder)).items()):
                    for what, truth, variance, estimate in zip(WHAT, truths, variances, estimates):
                        error = (estimate - truth) / math.sqrt(variance)
                        errors.append(error)
                        if truth * truth > 25 * variance:
                            largest = max(largest, abs(error))
                        print(f"{site:13} {what:14} {truth:14.0f} {estimate:14.0f} {estimate / truth - 1:+8.2%} {error:+6.2f}")
        mean, size = sum(errors) / len(errors), math.sqrt(sum(e * e for e in errors) / len(errors))
        print(f"{len(errors)} estimates: mean error {mean:+.3f} and size {size:.3f} standard deviations; largest {largest:.2f}")
        self.assertLess(largest, 5)
        # Objects and bytes of a site, allocated and in use, are not independent: a quarter of them is.
        self.assertLess(abs(mean) * math.sqrt(len(errors) / 4), 4)


if __name__ == "__main__":
    unittest.main()
