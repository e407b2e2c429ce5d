#!/usr/bin/env python3
"""The sampler against its peers, in one run.

  sampler.py [--build build/release] [--rounds 40] [--seconds 1.2] [--tests rate overhead …] [--quick]
  sampler.py --write docs/performance.md      all of it, some ten minutes; rewrites the sampler's tables there

rate      samples a CPU-second at 100, 250, 1000 and 4000 Hz
overhead  the same work with and without a profiler, in turn, pinned to one core: how much fewer units a CPU-second
truth     work with known shares of 50/30/15/5 %: the largest error in percentage points, how many standard errors that
          is for the number of samples, stacks that reach the thread's start
unwind    ns a frame, warm and cold, and what the tables cost
heap      malloc and free of small and of large objects, each allocator without and with sampling
lock      a mutex that nobody else wants, hooks off and on
state     `heap` with 100,000 live stacks, `goroutine` with 1,000 sleeping threads: time, and who was woken
host      memory when idle, the library's size, start-up, a program that never had a second thread

A round is one run of each contestant, one after the other; what is compared with what is from the same round.
A peer that is missing is said so, and left out. --quick only proves that it runs.
"""
import argparse
import contextlib
import io
import json
import math
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from unix_connection import UnixConnection  # noqa: E402

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
    def __init__(self, build, rate=100):
        self.build, self.rate, self.name = build, rate, f"postern-{rate}"

    def missing(self):
        return None if (self.build / "lib" / "libpostern.so").exists() else "build/release/lib/libpostern.so"

    def command(self, command, out):
        return [str(self.build / "bin" / "postern"), "exec", "--listen", f"unix:{out}.sock", "--", *command]

    def during(self, process, out, seconds):
        """Take a profile while the work runs, as anybody would."""
        wait_for_file(f"{out}.sock")
        whole = max(1, math.floor(seconds - 0.3))
        body = get(f"{out}.sock", f"profile?seconds={whole}&hz={self.rate}")
        pathlib.Path(out).write_bytes(body)

    def stacks(self, out, program):
        text = subprocess.run(["go", "tool", "pprof", "-traces", "-sample_index=0", str(out)],
                              capture_output=True, text=True, check=True).stdout
        return parse_traces(text)


def wait_for_file(path):
    """Until somebody listens there."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            return
        time.sleep(0.002)


def get(path, what):
    connection = UnixConnection(path)
    try:
        connection.request("GET", f"/debug/pprof/{what}")
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"sampler.py: {what}: {answer.status} {body!r}")
        return body
    finally:
        connection.close()


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


def upper(values):
    """Distribution-free: the order statistic that lies above the median with 95 %."""
    values = sorted(values)
    return values[min(len(values) - 1, math.ceil(len(values) / 2 + 1.645 * math.sqrt(len(values)) / 2))]


def begin_capture(path, hz):
    """The connection; the capture ends with the program."""
    deadline = time.monotonic() + 10
    while True:
        capture = UnixConnection(path)
        try:
            capture.request("GET", f"/debug/pprof/profile?seconds=60&hz={hz}")
            return capture
        except OSError:
            capture.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)


def timed(command, env=None, socket_path=None, hz=0):
    """One run of `work` on one core: its line. With hz, a capture of ours lasts as long as it does."""
    # By env(1), so that taskset has nothing preloaded.
    words = [f"{key}={value}" for key, value in (env or {}).items()]
    process = subprocess.Popen(["taskset", "-c", "0", "env", *words, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    capture = begin_capture(socket_path, hz) if hz else None
    said = process.communicate(timeout=60)[0]
    if capture:
        capture.close()
    line = [l for l in said.splitlines() if l.startswith('{"units"')]
    if not line:
        raise SystemExit(f"sampler.py: {command}: the work said nothing")
    return json.loads(line[0])


def race(o, mode, threads, contestants, rounds, seconds):
    """{name: [ns of CPU a unit, one for each round]}; contestants: {name: (environment, Hz of our capture or 0)}"""
    found = {name: [] for name in contestants}
    for number in range(rounds):
        # The order turns, so that nobody is always first.
        names = list(contestants)
        names = names[number % len(names):] + names[:number % len(names)]
        for name in names:
            env, hz = contestants[name]
            path = str(o.folder / f"{mode}-{name}-{number}.sock")
            env = {key: value.replace("$SOCKET", path).replace("$OUT", path + ".out") for key, value in env.items()}
            line = timed([o.programs["nofp"], mode, str(threads), str(seconds)], env, path, hz)
            found[name].append(1e9 * line["cpu"] / line["units"])
    return found


def ours(o, **env):
    return {"LD_PRELOAD": str(o.build / "lib" / "libpostern.so"), "POSTERN_LISTEN": "unix:$SOCKET", "POSTERN_RUNTIME_DIR": str(o.folder), **env}


def percent(values, base):
    return [100 * (value / before - 1) for value, before in zip(values, base)]


def present(o, wanted):
    """Those whose library is there; the others are said."""
    for name, (env, _) in wanted.items():
        library = env.get("LD_PRELOAD", "")
        if library and not os.path.exists(library):
            print(f"{name} is left out: {library} is missing\n")
    return {name: (env, hz) for name, (env, hz) in wanted.items() if os.path.exists(env.get("LD_PRELOAD", "/"))}


def overhead(o):
    print("\n### CPU overhead in % (minimum/median/maximum of the rounds)\n")
    print("Work of one thread on one core; `again` is the same as the base, and is the noise.\n")
    print("| contestant | overhead % | upper 95 % bound of the median |\n|---|---|---|")
    field = present(o, {"base": ({}, 0), "again": ({}, 0), "postern-100": (ours(o), 100), "postern-250": (ours(o), 250), **{
        f"gperftools-{hz}": ({"LD_PRELOAD": GPERFTOOLS, "CPUPROFILE": "$OUT", "CPUPROFILE_FREQUENCY": str(hz)}, 0) for hz in (100, 250)}})
    found = race(o, "cpu", 1, field, o.rounds, o.seconds)
    for name in list(field)[1:]:
        shifts = percent(found[name], found["base"])
        print(f"| {name} | {three(shifts)} | {upper(shifts):+.2f} |")
    print(f"\n{o.rounds} rounds of {o.seconds} s.")


def rate(o):
    print("\n### Samples a CPU-second\n")
    rates = (100, 250, 1000, 4000)
    print("| contestant | " + " | ".join(f"asked {hz}" for hz in rates) + " |\n|---|" + "---|" * len(rates))
    for name in ("postern", "gperftools", "perf"):
        cells = []
        for hz in rates:
            contestant = {"postern": lambda: Postern(o.build, hz), "gperftools": lambda: Gperftools(hz), "perf": lambda: Perf(hz, "fp")}[name]()
            if contestant.missing():
                cells.append("-")
                continue
            seconds = 2.4
            out = o.folder / f"rate-{name}-{hz}"
            said = run(contestant, [o.programs["fp"], "truth", "1", str(seconds)], out, seconds)
            count = sum(n for n, _ in contestant.stacks(out, o.programs["fp"]))
            cpu = said["cpu"] * (2 / said["wall"] if name == "postern" else 1)  # two seconds of it were captured
            cells.append(f"{count / cpu:.0f}")
        print(f"| {name} | " + " | ".join(cells) + " |")


def heap(o):
    jemalloc, tcmalloc = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", "/usr/lib/x86_64-linux-gnu/libtcmalloc.so.4"
    field = present(o, {
        "glibc": ({}, 0), "again": ({}, 0), "postern-off": (ours(o, POSTERN_HEAP_RATE="0"), 0), "postern-512k": (ours(o), 0),
        "jemalloc": ({"LD_PRELOAD": jemalloc}, 0),
        "jemalloc-512k": ({"LD_PRELOAD": jemalloc, "MALLOC_CONF": "prof:true,prof_active:true,lg_prof_sample:19,prof_final:false"}, 0),
        "tcmalloc": ({"LD_PRELOAD": tcmalloc}, 0),
        "tcmalloc-512k": ({"LD_PRELOAD": tcmalloc, "TCMALLOC_SAMPLE_PARAMETER": "524288"}, 0)})
    for mode, what in (("small", "16 to 527 bytes"), ("large", "16 bytes to 64 KiB")):
        print(f"\n### malloc and free, {what}: ns of CPU a pair (minimum/median/maximum of the rounds)\n")
        print("| contestant | ns a pair | with sampling, less without, of the same allocator: ns | % |\n|---|---|---|---|")
        found = race(o, mode, 1, field, o.few, 0.6)
        for name, values in found.items():
            base = found.get({"again": "glibc", "postern-off": "glibc", "postern-512k": "glibc"}.get(name, name.partition("-")[0]), values)
            shift = [value - before for value, before in zip(values, base)]
            cells = f"{three(shift)} | {three(percent(values, base))}" if base is not values else "- | -"
            print(f"| {name} | {three(values, '%.1f')} | {cells} |")


def lock(o):
    print("\n### A mutex that nobody else wants: ns of CPU for lock and unlock (minimum/median/maximum of the rounds)\n")
    print("| contestant | ns a pair | more than without |\n|---|---|---|")
    field = {"none": ({}, 0), "again": ({}, 0), "postern, off": (ours(o), 0),
             "postern, mutex and block on": (ours(o, POSTERN_MUTEX_FRACTION="1", POSTERN_BLOCK_RATE="1"), 0)}
    found = race(o, "lock", 1, field, o.few, 0.5)
    for name, values in found.items():
        print(f"| {name} | {three(values, '%.2f')} | {three([v - b for v, b in zip(values, found['none'])])} |")


@contextlib.contextmanager
def state(o, what, count, env):
    path = o.folder / f"state-{what}.sock"
    path.unlink(missing_ok=True)
    env = {key: value.replace("$SOCKET", str(path)) for key, value in env.items()}
    with subprocess.Popen([str(o.build / "bench" / "state"), what, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          env={**os.environ, **env}) as process:
        if process.stdout.readline() != "ready\n":
            raise SystemExit(f"sampler.py: state {what} did not begin")
        if "POSTERN_LISTEN" in env:
            wait_for_file(path)
        yield process, path
        process.kill()


def asked_ms(path, what, times):
    found = []
    for _ in range(times):
        began = time.perf_counter()
        size = len(get(path, what))
        found.append(1e3 * (time.perf_counter() - began))
    return found, size


def switches(pid):
    return {task.name: re.search(r"^voluntary_ctxt_switches:\s*(\d+)", (task / "status").read_text(), re.M)[1]
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir()}


def states(o):
    print("\n### A process that is costly to look at: ms (minimum/median/maximum)\n\n| what | ms | |\n|---|---|---|")
    times = 1 if o.quick else 5
    with state(o, "stacks", 100_000, ours(o, POSTERN_HEAP_RATE="1")) as (_, path):
        values, size = asked_ms(path, "heap", times)
        print(f"| postern: `heap`, 100,000 live stacks | {three(values, '%.0f')} | {size >> 10} KB gzipped, with names |")
    jemalloc = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"
    if os.path.exists(jemalloc):
        with state(o, "stacks", 100_000, {"LD_PRELOAD": jemalloc, "MALLOC_CONF": "prof:true,lg_prof_sample:0,prof_final:false"}) as (process, _):
            values = []
            for _ in range(times):
                process.stdin.write("dump\n")
                process.stdin.flush()
                values.append(process.stdout.readline())
            if "none\n" not in values:
                print(f"| jemalloc: `prof.dump`, the same | {three([float(v) for v in values], '%.0f')} | a text of addresses, to /dev/null |")
    with state(o, "threads", 1000, ours(o)) as (process, path):
        time.sleep(0.5)
        before = switches(process.pid)
        values, size = asked_ms(path, "goroutine", times)
        after = switches(process.pid)
        woken = sum(before[t] != after.get(t) for t in before)  # the server's own thread is one
        print(f"| postern: `goroutine`, 1,000 sleeping threads | {three(values, '%.0f')} | woken: {max(0, woken - 1)} |")
        if shutil.which("gdb") and not o.quick:
            began = time.perf_counter()
            subprocess.run(["gdb", "-p", str(process.pid), "-batch", "-ex", "thread apply all bt"], capture_output=True, check=False, timeout=120)
            print(f"| gdb: `thread apply all bt`, the same | {1e3 * (time.perf_counter() - began):.0f} | all stopped meanwhile; its own start is in it |")


def unwind(o):
    print("\n### Unwinding code without frame pointers\n\n| | frames | ns, warm | ns a frame, warm | ns, cold | ns a frame, cold |\n|---|---|---|---|---|---|")
    said = subprocess.run(["taskset", "-c", "0", str(o.build / "bench" / "unwind-bench")], capture_output=True, text=True, check=True).stdout
    rows = re.findall(r"^(\S+) +(\d+) frames +(\d+) ns +([\d.]+) ns/frame( cold)?$", said, re.M)
    for warm, cold in zip(rows[::2], rows[1::2]):
        print(f"| {warm[0]} | {warm[1]} | {warm[2]} | {warm[3]} | {cold[2]} | {cold[3]} |")
    print("\n`unw_step` is what a signal handler must use of libunwind; `unw_cached` is its `unw_backtrace()`, `backtrace` glibc's. " +
          "Tables of that program: " + re.search(r"tables +(.*)", said)[1] + ".")


def memory_kb(pid):
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(re.search(rf"^{name}: +(\d+)", text, re.M)[1]) for name in ("Pss", "Rss")}


def host(o):
    print("\n### The program that it lives in\n\n| what | without | postern | gperftools |\n|---|---|---|---|")
    cells = {}
    for name, env in (("none", {}), ("postern", ours(o)), ("gperftools", {"LD_PRELOAD": GPERFTOOLS, "CPUPROFILE": str(o.folder / "idle.prof")})):
        path = o.folder / "idle.sock"
        path.unlink(missing_ok=True)
        process = subprocess.Popen(["/bin/sleep", "60"], env={**os.environ, **{k: v.replace("$SOCKET", str(path)) for k, v in env.items()}})
        try:
            if name == "postern":
                wait_for_file(path)
            time.sleep(1)
            cells[name] = memory_kb(process.pid)
        finally:
            process.kill()
            process.wait()
    print(f"| `sleep`, idle: PSS / RSS in kB | {' | '.join(str(m['Pss']) + ' / ' + str(m['Rss']) for m in cells.values())} |")
    sizes = {}
    for name, path in (("postern", str(o.build / "lib" / "libpostern.so")), ("gperftools", GPERFTOOLS)):
        copy = o.folder / "stripped.so"
        subprocess.run(["strip", "-o", str(copy), os.path.realpath(path)], check=True)
        sizes[name] = f"{copy.stat().st_size >> 10} KB"
    print(f"| the library, stripped | - | {sizes['postern']} | {sizes['gperftools']} |")
    starts = {"none": [], "postern": [], "gperftools": []}
    for _ in range(3 if o.quick else 60):
        for name, env in (("none", {}), ("postern", ours(o)), ("gperftools", {"LD_PRELOAD": GPERFTOOLS})):
            env = {k: v.replace("$SOCKET", str(o.folder / "start.sock")) for k, v in env.items()}
            began = time.perf_counter()
            subprocess.run(["/bin/true"], check=True, env={**os.environ, **env})
            starts[name].append(1e3 * (time.perf_counter() - began))
    print(f"| `/bin/true`, ms, min/median/max | {' | '.join(three(v, '%.2f') for v in starts.values())} |")
    for mode, unit in (("small", "malloc and free, ns"), ("lock", "mutex pair, ns")):
        found = race(o, mode, 0, {"none": ({}, 0), "postern": (ours(o), 0), "gperftools": ({"LD_PRELOAD": GPERFTOOLS}, 0)}, o.few, 0.4)
        print(f"| one thread, never another: {unit} | {' | '.join(three(v, '%.2f') for v in found.values())} |")


def truth(o):
    seconds, folder, programs = 2.5 if o.quick else 4, o.folder, o.programs
    field = []
    for contestant in (Postern(o.build), Postern(o.build, 1000), Gperftools(100), Gperftools(1000), Perf(99, "dwarf,8192"), Perf(99, "fp")):
        if contestant.missing():
            print(f"{contestant.name} is left out: {contestant.missing()} is missing\n")
        else:
            field.append(contestant)
    print("\n### Truth: 50/30/15/5 %, 12 frames deep, two threads\n")
    print("| contestant | build | samples | samples a CPU-second | largest error pp | in standard errors | "
          "whole stacks % |\n|---|---|---|---|---|---|---|")
    for contestant in field:
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
            if contestant.name.startswith("postern"):  # the capture is a whole number of seconds within the run
                cpu *= max(1, math.floor(seconds - 0.3)) / said["wall"]
            print(f"| {contestant.name} | {build} | {every} | {every / cpu:.0f} | "
                  f"{max(map(abs, errors.values())):.1f} | {max(sigmas):.1f} | {100 * whole / total:.1f} |")


BEGIN, END = "<!-- tests/bench/sampler.py writes from here -->", "<!-- to here -->"
TESTS = {"rate": rate, "overhead": overhead, "truth": truth, "unwind": unwind, "heap": heap, "lock": lock, "state": states, "host": host}


def write(path, text):
    before, _, rest = path.read_text().partition(BEGIN)
    if END not in rest:
        raise SystemExit(f"sampler.py: {path} has no part between '{BEGIN}' and '{END}'")
    path.write_text(f"{before}{BEGIN}\n{text.strip()}\n\n{END}{rest.partition(END)[2]}")


def machine():
    model = re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    return (f"Measured on {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores ({model[1] if model else '?'}), Linux {os.uname().release}, "
            f"load average at the beginning {os.getloadavg()[0]:.1f}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", default=ROOT / "build" / "release", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=40, help="of overhead; others take fewer")
    parser.add_argument("--seconds", type=float, default=1.2, help="a run of overhead")
    parser.add_argument("--tests", nargs="*", default=list(TESTS), choices=list(TESTS))
    parser.add_argument("--write", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    o = parser.parse_args()
    o.programs = {v: str(o.build / "bench" / f"work-{v}") for v in ("fp", "nofp")}
    o.rounds, o.few, o.seconds = (2, 2, 0.3) if o.quick else (o.rounds, 12, o.seconds)
    text = io.StringIO()
    with tempfile.TemporaryDirectory(prefix="pt.") as name:
        o.folder = pathlib.Path(name)
        parts = [machine() + "\n"]
        for test in o.tests:
            text = io.StringIO()
            began = time.monotonic()
            with contextlib.redirect_stdout(text):
                TESTS[test](o)
            parts.append(text.getvalue())
            print(text.getvalue(), flush=True)
            print(f"{test}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    if o.write:
        write(o.write, "".join(parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
