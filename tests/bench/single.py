#!/usr/bin/env python3
"""What the sampler's one thread, and its hooks, cost a program that has a single thread.

  single.py [--build build/release] [--rounds 11]

The same calls, in turn: alone; beside an idle thread of the program's own (what the C library's short cuts for
single-threaded programs are worth); under the sampler; and both. Pinned to one core; of each round's figures,
which are the least of many, the median, and the least.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
WAYS = (("one thread", False, False, {}), ("an idle thread of its own", True, False, {}), ("the sampler", False, True, {}),
        ("the sampler, asleep", False, True, {"POSTERN_ASLEEP": "1"}), ("the sampler, heap profile off", False, True, {"POSTERN_HEAP_RATE": "0"}),
        ("the sampler and an idle thread", True, True, {}))


def run_once(build, folder, thread, sampler, more):
    env = dict(more)
    if sampler:
        env |= {"LD_PRELOAD": f"{build}/lib/libpostern.so", "POSTERN_LISTEN": f"unix:{folder}/sock", "POSTERN_RUNTIME_DIR": folder}
    # What taskset executes would run without the preload.
    command = ["taskset", "-c", "0", "env", *[f"{name}={value}" for name, value in env.items()],
               f"{build}/bench/single", *(["thread"] if thread else [])]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: float(ns) for name, ns in (line.split() for line in said.splitlines())}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=str(ROOT / "build/release"))
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    build = os.path.abspath(options.build)
    seen = {way[0]: {} for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for name, *way in WAYS:
                for call, ns in run_once(build, folder, *way).items():
                    seen[name].setdefault(call, []).append(ns)
    calls = list(seen[WAYS[0][0]])
    print("| under | " + " | ".join(calls) + " |\n|---|" + "---|" * len(calls))
    for name, figures in seen.items():
        print(f"| {name} | " + " | ".join(f"{statistics.median(figures[call]):.1f} ({min(figures[call]):.1f})" for call in calls) + " |")


if __name__ == "__main__":
    main()
