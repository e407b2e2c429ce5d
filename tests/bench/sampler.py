#!/usr/bin/env python3
"""The sampler against its peers, in one run: overhead, true rate, truth of the shares, whole stacks.

  sampler.py [--build build/release] [--pairs 8] [--seconds 1.5] [--only NAME...] [--tests overhead truth]

overhead  the same work with and without a profiler, in turn, pinned to one core: how much fewer units
          a CPU-second; `null` has no profiler in either half, and is the noise
truth     work with known shares of 50/30/15/5 %: the largest error in percentage points, how many
          standard errors that is for the number of samples, stacks that reach the thread's start,
          samples a CPU-second

Peers: gperftools (libprofiler.so) and perf record; one that is missing is said so, and left out.
"""
import argparse
import json
import math
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
GPERFTOOLS = "/usr/lib/x86_64-linux-gnu/libprofiler.so"
TRUTHS = {"truth_50": 50, "truth_30": 30, "truth_15": 15, "truth_05": 5}


class Gperftools:
    def __init__(self, rate):
        self.name, self.rate = f"gperftools-{rate}", rate

    def missing(self):
        return None if os.path.exists(GPERFTOOLS) else "libgoogle-perftools-dev"

    def command(self, command, out):
        return ["env", f"LD_PRELOAD={GPERFTOOLS}", f"CPUPROFILE={out}", f"CPUPROFILE_FREQUENCY={self.rate}",
                *command]

    def during(self, process, out, seconds):
        pass

    def stacks(self, out, program):
        text = subprocess.run(["go", "tool", "pprof", "-traces", "-sample_index=samples", str(program), str(out)], capture_output=True,
                              text=True, check=True).stdout
        return parse_traces(text)


class Perf:
    def __init__(self, rate, how):
        self.name, self.rate, self.how = f"perf-{rate}-{how.split(',')[0]}", rate, how

    def missing(self):
        return None if shutil.which("perf") else "linux-perf"

    def command(self, command, out):
        return ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(self.rate), "--call-graph", self.how,
                "-o", str(out), *command]

    def during(self, process, out, seconds):
        pass

    def stacks(self, out, program):
        text = subprocess.run(["perf", "script", "-i", str(out), "-F", "ip,sym"], capture_output=True,
                              text=True, check=True).stdout
        found = []
        for block in re.split(r"\n\s*\n", text):
            names = [re.sub(r"\+0x.*", "", (line.split(None, 1) + ["?"])[1].strip())
                     for line in block.splitlines() if line.strip()]
            if names:
                found.append((1, names))
        return found


class Postern:
    name, rate = "postern", 100

    def __init__(self, build):
        self.build = build

    def missing(self):
        return None if (self.build / "lib" / "libpostern.so").exists() else "build/release/lib/libpostern.so"

    def command(self, command, out):
        return [str(self.build / "bin" / "postern"), "exec", "--listen", f"unix:{out}.sock", "--", *command]

    def during(self, process, out, seconds):
        """Take a profile while the work runs, as anybody would."""
        deadline = time.monotonic() + 5
        while not os.path.exists(f"{out}.sock") and time.monotonic() < deadline:
            time.sleep(0.005)
        whole = max(1, math.floor(seconds - 0.3))
        done = subprocess.run(["curl", "-s", "-f", "--unix-socket", f"{out}.sock", "-o", str(out),
                               f"http://localhost/debug/pprof/profile?seconds={whole}"], check=False)
        if done.returncode:
            print(f"sampler.py: no profile from {process.args}", file=sys.stderr)

    def stacks(self, out, program):
        text = subprocess.run(["go", "tool", "pprof", "-traces", "-sample_index=0", str(out)],
                              capture_output=True, text=True, check=True).stdout
        return parse_traces(text)


class Nothing:
    name, rate = "null", 0

    def missing(self):
        return None

    def command(self, command, out):
        return command

    def during(self, process, out, seconds):
        pass


def parse_traces(text):
    """`go tool pprof -traces`: blocks of "   12   leaf", "        caller", …"""
    found = []
    for block in text.split("-----------+-------------------------------------------------------")[1:]:
        lines = [line for line in block.splitlines() if line.strip()]
        while lines and not re.match(r"\s*\d+\s+\S", lines[0]):
            lines.pop(0)  # labels stand above the count
        if not lines:
            continue
        first = lines[0].split(None, 1)
        if len(first) < 2 or not re.match(r"^\d", first[0]):
            continue
        found.append((int(re.match(r"\d+", first[0]).group()), [first[1].strip()] + [l.strip() for l in lines[1:]]))
    return found


def run(contestant, command, out, seconds):
    process = subprocess.Popen(["taskset", "-c", "0", *contestant.command(command, out)], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    contestant.during(process, out, seconds)
    said = process.communicate(timeout=60)[0]
    line = [l for l in said.splitlines() if l.startswith('{"units"')]
    if not line:
        raise SystemExit(f"sampler.py: {contestant.name}: the work said nothing")
    return json.loads(line[0])


def three(values, form="%+.2f"):
    return "/".join(form % v for v in (min(values), statistics.median(values), max(values)))


def overhead(field, programs, pairs, seconds, folder):
    print("\n### CPU overhead in %, median of pairs (minimum/median/maximum)\n")
    print("| contestant | overhead % | upper 95 % bound of the median | largest memory, ratio |\n|---|---|---|---|")
    plain = Nothing()
    shifts = {c.name: [] for c in field}
    memory = {c.name: [] for c in field}
    for number in range(pairs):
        for contestant in field:
            out = folder / f"o{number}-{contestant.name}"
            base = run(plain, [programs["nofp"], "cpu", "1", str(seconds)], out, seconds)
            profiled = run(contestant, [programs["nofp"], "cpu", "1", str(seconds)], out, seconds)
            shifts[contestant.name].append(
                100 * ((base["units"] / base["cpu"]) / (profiled["units"] / profiled["cpu"]) - 1))
            memory[contestant.name].append(profiled["maxrss_kb"] / base["maxrss_kb"])
        print(f"pair {number + 1} of {pairs}", file=sys.stderr)
    for contestant in field:
        values = sorted(shifts[contestant.name])
        # Distribution-free: the order statistic that lies above the median with 95 %.
        rank = min(len(values) - 1, math.ceil(len(values) / 2 + 1.645 * math.sqrt(len(values)) / 2))
        print(f"| {contestant.name} | {three(values)} | {values[rank]:+.2f} | "
              f"x{statistics.median(memory[contestant.name]):.2f} |")


def truth(field, programs, seconds, folder):
    print("\n### Truth: 50/30/15/5 %, 12 frames deep, two threads\n")
    print("| contestant | build | samples | samples a CPU-second | largest error pp | in standard errors | "
          "whole stacks % |\n|---|---|---|---|---|---|---|")
    for contestant in field:
        if contestant.name == "null":
            continue
        for build, program in programs.items():
            out = folder / f"t-{contestant.name}-{build}"
            said = run(contestant, [program, "truth", "2", str(seconds)], out, seconds)
            counts, whole, every = dict.fromkeys(TRUTHS, 0), 0, 0
            for count, names in contestant.stacks(out, program):
                every += count
                for name in names[:3]:
                    if name in counts:
                        counts[name] += count
                        whole += count if "thread_root" in names else 0
                        break
            total = sum(counts.values())
            if not total:
                print(f"| {contestant.name} | {build} | 0 | - | - | - | - |")
                continue
            errors = {n: 100 * counts[n] / total - share for n, share in TRUTHS.items()}
            sigmas = [abs(errors[n]) / (100 * math.sqrt(s / 100 * (1 - s / 100) / total)) for n, s in TRUTHS.items()]
            cpu = said["cpu"]
            if contestant.name == "postern":  # the capture is a whole number of seconds within the run
                cpu *= max(1, math.floor(seconds - 0.3)) / said["wall"]
            print(f"| {contestant.name} | {build} | {every} | {every / cpu:.0f} | "
                  f"{max(map(abs, errors.values())):.1f} | {max(sigmas):.1f} | {100 * whole / total:.1f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default=ROOT / "build" / "release", type=pathlib.Path)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--tests", nargs="*", default=["overhead", "truth"])
    options = parser.parse_args()
    programs = {v: str(options.build / "bench" / f"work-{v}") for v in ("fp", "nofp")}
    field = []
    for contestant in (Nothing(), Postern(options.build), Gperftools(100), Gperftools(1000), Perf(99, "dwarf,8192"),
                       Perf(99, "fp")):
        if options.only and contestant.name not in options.only:
            continue
        if contestant.missing():
            print(f"{contestant.name} is left out: {contestant.missing()} is missing")
        else:
            field.append(contestant)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        if "overhead" in options.tests:
            overhead(field, programs, options.pairs, options.seconds, folder)
        if "truth" in options.tests:
            truth(field, programs, max(3, options.seconds), folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
