#!/usr/bin/env python3
"""What samplers have died of, done by programs under ours and, to compare, under gperftools.

run.py BUILD MODE                 one of them under ours, for STRESS_SECONDS (3): exit status 0 if nothing was wrong
run.py BUILD --table FILE [MODE…] each under each, side by side in time, STRESS_AT_ONCE (1) modes at once; the
                                  page docs/sampler-safety.md
run.py --list                     the modes

While a program runs under ours, CPU profiles (by timers at 250 Hz, by perf events at 1000 Hz: `POSTERN_CPU_SOURCE`), thread dumps, heap profiles (a sample every 64 KiB), mutex and block
profiles (every wait) and whatever else the server has are asked for all the time. It must end by itself, in its
time, as it should, and with nothing to complain of; and the sampler must have answered."""
import collections
import concurrent.futures
import dataclasses
import http.client
import itertools
import os
import pathlib
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "accuracy"), str(HERE.parent)]
from profile import Profile  # noqa: E402
from unix_connection import UnixConnection  # noqa: E402

SECONDS = float(os.environ.get("STRESS_SECONDS", "3"))
AT_ONCE = int(os.environ.get("STRESS_AT_ONCE", "1"))
LIBRARIES = pathlib.Path("/usr/lib/x86_64-linux-gnu")
CPU_PROFILE = "/debug/pprof/profile?seconds={seconds}&hz={hz}"
PROFILES = (CPU_PROFILE, "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap", "/debug/pprof/mutex",
            "/debug/pprof/block")
FURTHER = ("/debug/pprof/wall?seconds=1", "/debug/pprof/offcpu?seconds=1", "/debug/pprof/trace?seconds=1")
DUMPS = ("/debug/pprof/goroutine?debug=2",)
KEPT_BYTES = 128 << 20  # as memory.c has it
USERS = itertools.count(50000 + os.getpid() % 1000 * 100)  # limits of a user's are one run's alone
SLICE = 0.4  # of those that are run again and again

ROWS = {
    1: "the loader's lock, taken in a handler", 2: "the first backtrace() loads libgcc", 3: "malloc entered again",
    4: "a hooked lock that allocates", 5: "waits that end early", 6: "forks that never get through", 7: "signals after the end, in other programs",
    8: "handlers of others", 9: "new threads are not sampled", 10: "pending signals, timers, descriptors used up",
    11: "small alternate stacks", 12: "frames that cannot be walked", 13: "code that is unloaded meanwhile", 14: "loading while loading",
    15: "two preloads, counted twice", 16: "thread-local memory of late libraries", 17: "forked state", 18: "errno",
    19: "what children inherit", 20: "seccomp", 21: "races at the end", 22: "heap figures and resident memory", 23: "rates that change",
}


@dataclasses.dataclass
class Contender:
    name: str
    preload: tuple
    env: dict = dataclasses.field(default_factory=dict)
    ours: bool = False
    hz: int = 250  # which is what timers can do where the kernel ticks as often


def ours(build, source, *others):
    name = " + ".join([f"ours, {source}", *[os.path.basename(other).split(".")[0] for other in others]])
    return Contender(name, (f"{build}/lib/libpostern.so", *others),
                     {"POSTERN_MUTEX_FRACTION": "1", "POSTERN_BLOCK_RATE": "1", "POSTERN_HEAP_RATE": "65536", "POSTERN_CPU_SOURCE": source},
                     True, 1000 if source == "perf" else 250)


CPU = Contender("gperftools CPU", (f"{LIBRARIES}/libprofiler.so.0",), {"CPUPROFILE_FREQUENCY": "250"})
HEAP = Contender("tcmalloc sampling", (f"{LIBRARIES}/libtcmalloc.so.4",), {"TCMALLOC_SAMPLE_PARAMETER": "524288"})
BOTH = Contender("tcmalloc + gperftools CPU", (*HEAP.preload, *CPU.preload), {**CPU.env, **HEAP.env})
OTHERS = tuple(f"{LIBRARIES}/{name}" for name in ("libtcmalloc.so.4", "libjemalloc.so.2", "libmimalloc.so.2.0"))


@dataclasses.dataclass
class Mode:
    peers: tuple = (CPU,)
    program: str = "stress_program"
    does: str = ""              # the program's mode; "": the same name
    asked: tuple = (*PROFILES, *FURTHER)
    answers: bool = True        # the sampler can answer meanwhile, everything
    some: bool = False          # or what it has descriptors for
    repeat: bool = False        # run in slices of time
    status: int = 0             # how it ends
    beside: tuple = ((),)       # other libraries, each in a run of its own
    check: str = ""             # what profiles say is held against the truth
    cuts: bool = False          # captures are begun and left
    apart: bool = False         # as a user who has no other processes
    both: bool = False          # by perf events, too, when there is little time


MODES = {
    "01-loader": Mode(both=True), "02-backtrace": Mode(repeat=True, answers=False), "03-malloc": Mode((CPU, HEAP)),
    "04-locks": Mode((CPU, HEAP)), "04-own-malloc": Mode(program="stress_own_malloc", does="04-locks"), "05-waits": Mode(both=True), "05-dumps": Mode((), asked=DUMPS),
    "05-masked": Mode(), "06-forks": Mode(both=True), "07-stops": Mode(cuts=True, both=True), "08-handlers": Mode(), "08-blocked": Mode(),
    "09-new-threads": Mode(check="cpu", both=True), "09-short-threads": Mode((CPU, HEAP), both=True), "10-pending": Mode(apart=True),
    "10-descriptors": Mode(both=True, some=True), "11-small-stacks": Mode(), "12-frames": Mode(both=True), "13-unload": Mode((CPU, HEAP), both=True), "14-nested": Mode((CPU, HEAP)),
    "15-malloc": Mode((BOTH,), beside=tuple((other,) for other in OTHERS)),
    "15-known": Mode((), beside=tuple((other,) for other in OTHERS[:2]), check="heap"),
    "16-thread-locals": Mode((CPU, HEAP)), "17-states": Mode((CPU, HEAP), both=True), "18-errno": Mode((CPU, HEAP)), "19-children": Mode(),
    "20-refused": Mode(repeat=True, answers=False), "20-killed": Mode(repeat=True, answers=False, both=True),
    "21-exit": Mode((CPU, HEAP), repeat=True, answers=False, status=3, both=True), "21-at-once": Mode((CPU, HEAP), repeat=True, answers=False, status=4),
    "21-quickly": Mode((CPU, HEAP), repeat=True, answers=False, status=5),
    "21-abort": Mode((CPU, HEAP), repeat=True, answers=False, status=-signal.SIGABRT),
    "21-execution": Mode((CPU, HEAP), repeat=True, answers=False),
    "21-signal": Mode((CPU, HEAP), repeat=True, answers=False, status=-signal.SIGTERM),
    "21-first-thread": Mode((CPU, HEAP), repeat=True, answers=False),
    "21-return": Mode((CPU, HEAP)),
    "22-known": Mode((), check="heap"), "23-rates": Mode((), check="heap"),
}


class Result(collections.Counter):
    """rounds, crashes, hangs, eintr, errno, wrong; what was said; answers by path."""

    def __init__(self):
        super().__init__(rounds=0, crashes=0, hangs=0, eintr=0, errno=0, wrong=0)
        self.said, self.answers = [], collections.Counter()

    def bad(self):
        return self["crashes"] + self["hangs"] + self["eintr"] + self["errno"] + self["wrong"]

    def tell(self, what, text):
        self[what] += 1
        self.said.append(text)


def get(path, what):
    connection = UnixConnection(path, 30)
    try:
        connection.request("GET", what)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError:
        time.sleep(0.02)  # it is starting, or has ended
    except http.client.HTTPException:
        pass
    finally:
        connection.close()
    return 0, b""


def ask(path, what, answers, done):
    while not done.is_set():
        status, body = get(path, what)
        answers[what] += status == 200
        if status not in (0, 200, 404):
            answers[f"{what}: {status} {body[:100].decode(errors='replace').strip()}"] += 1
        if status == 404:
            del answers[what]  # it has no such thing
            return


def begin_and_leave(path, what, done):
    while not done.wait(0.03):
        connection = UnixConnection(path, 30)
        try:
            connection.request("GET", what)
            done.wait(0.05)
        except OSError:
            pass
        finally:
            connection.close()


def cpu_seconds(pid):
    """Of the program alone; None when it has ended."""
    try:
        used = 0
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            if (task / "comm").read_text().strip() == "postern":
                used -= sum(int(word) for word in (task / "stat").read_text().rsplit(")", 1)[1].split()[11:13])
        used += sum(int(word) for word in pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13])
        return used / os.sysconf("SC_CLK_TCK")
    except OSError:
        return None


class Run:
    """A program, once, under one contender."""

    def __init__(self, build, mode, contender, seconds, result):
        self.build, self.mode, self.contender, self.seconds, self.result = build, MODES[mode], contender, seconds, result
        self.name, self.done = mode, threading.Event()

    def start(self, folder):
        self.folder, self.path = folder, folder / "s.sock"
        env = {**os.environ, **self.contender.env, "LD_PRELOAD": ":".join(self.contender.preload)}
        if self.contender.ours:
            env |= {"POSTERN_LISTEN": f"unix:{self.path}", "POSTERN_RUNTIME_DIR": str(folder)}
        else:
            env |= {"CPUPROFILE": str(folder / "cpu.prof")}
        apart = {}
        if self.mode.apart and os.geteuid() == 0:
            folder.chmod(0o777)
            apart = {"user": next(USERS)}
        self.out = open(folder / "out", "w+", encoding="utf-8", errors="replace")
        return subprocess.Popen([f"{self.build}/tests/stress_programs/{self.mode.program}", self.mode.does or self.name, str(self.seconds)], env=env, cwd=folder,
                                stdout=self.out, stderr=subprocess.STDOUT, start_new_session=True, **apart)

    def text(self):
        return (self.folder / "out").read_text(errors="replace")

    def check_heap(self):
        """What is in use, by the profile and in truth, when everything is there; within four standard errors."""
        while "kept\n" not in self.text():
            if self.done.wait(0.05):
                return
        status, body = get(self.path, "/debug/pprof/heap")
        if status != 200:
            return
        said = sum(values[3] for _, values in Profile(body).samples)
        if not 0.9 < said / KEPT_BYTES < 1.1:
            self.result.tell("wrong", f"in use by the profile: {said}, in truth: {KEPT_BYTES}")
        self.result.answers["checked"] += 1

    def check_cpu(self, process):
        """What profiles have of the process's CPU time, as long as it runs."""
        while get(self.path, DUMPS[0])[0] != 200:
            if self.done.wait(0.02):
                return
        until = time.monotonic() + 0.9 * self.seconds - 1.5
        seconds = int(max(1, min(20, until - time.monotonic())))
        while True:
            before = cpu_seconds(process.pid)
            status, body = get(self.path, CPU_PROFILE.format(seconds=seconds, hz=self.contender.hz))
            after = cpu_seconds(process.pid)
            if status == 200 and before is not None and after is not None:
                share = sum(values[1] for _, values in Profile(body).samples) / 1e9 / (after - before)
                if not 0.8 < share < 1.2:
                    self.result.tell("wrong", f"the profile has {100 * share:.0f} % of the CPU time")
                self.result.answers["checked"] += 1
            if self.done.is_set() or time.monotonic() + seconds > until:
                return

    def check_cpu_of_peer(self, used):
        try:
            data = (self.folder / "cpu.prof").read_bytes()
        except OSError:
            data = b""
        words = [word for (word,) in struct.iter_unpack("<Q", data[:len(data) // 8 * 8])]
        at, ticks = 5, 0
        while at + 2 < len(words) and words[at]:
            ticks += words[at]
            at += 2 + words[at + 1]
        share = ticks * words[3] / 1e6 / used if words and used else 0
        if not 0.8 < share < 1.2:
            self.result.tell("wrong", f"the profile has {100 * share:.0f} % of the CPU time")

    def helpers(self, process):
        if not self.contender.ours:
            return []
        targets = []
        if self.mode.check == "heap":
            targets.append((self.check_heap,))
        asked = [what.format(seconds=1, hz=self.contender.hz) for what in self.mode.asked]
        if self.mode.check == "cpu":
            targets.append((self.check_cpu, process))
        if self.mode.cuts:
            targets.append((begin_and_leave, self.path, CPU_PROFILE.format(seconds=5, hz=self.contender.hz), self.done))
        for what in asked:
            self.result.answers[what] += 0
            targets.append((ask, self.path, what, self.result.answers, self.done))
        return [threading.Thread(target=target[0], args=target[1:]) for target in targets]

    def take(self, status, used):
        said = self.text()
        for line in said.splitlines():
            if line.startswith("rounds="):
                self.result.update({key: int(value) for key, value in (word.split("=") for word in line.split())})
            elif line != "kept" and "interrupts/evictions" not in line:
                self.result.said.append(line)
        if status != self.mode.status:
            self.result.tell("crashes", f"it ended with {status}")
        elif status == 0 and "rounds=" not in said and self.name != "21-execution" and self.name != "21-first-thread":
            self.result.tell("crashes", "it did not come to its end")
        elif "rounds=" not in said:
            self.result["rounds"] += 1
        if self.mode.check == "cpu" and not self.contender.ours and status == 0:
            self.check_cpu_of_peer(used)

    def go(self):
        with tempfile.TemporaryDirectory() as folder:
            process = self.start(pathlib.Path(folder))
            helpers = self.helpers(process)
            for helper in helpers:
                helper.start()
            limit = time.monotonic() + self.seconds * 3 + 30
            while True:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid or time.monotonic() > limit:
                    break
                time.sleep(0.01)
            self.done.set()
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                self.take(process.returncode, usage.ru_utime + usage.ru_stime)
            else:
                self.result.tell("hangs", "it did not end in its time")
            try:
                os.killpg(process.pid, signal.SIGKILL)  # and what it has left behind
            except ProcessLookupError:
                pass
            process.wait()
            for helper in helpers:
                helper.join()
            self.out.close()


def run(build, name, contender, seconds):
    result, mode = Result(), MODES[name]
    until = time.monotonic() + seconds
    while True:
        Run(build, name, contender, SLICE if mode.repeat else seconds, result).go()
        if not mode.repeat or time.monotonic() > until or result["hangs"]:
            break
    # In a short time on a busy machine not everybody has a turn.
    if contender.ours and mode.answers and not sum(result.answers.values()):
        result.tell("wrong", "the sampler never answered")
    elif contender.ours and mode.answers and not mode.some and seconds >= 20:
        for what, count in result.answers.items():
            if count == 0:
                result.tell("wrong", f"the sampler never answered {what}")
    if contender.ours and mode.check and not result.answers["checked"]:
        result.tell("wrong", "what the profile says could not be checked")
    return result


def contenders(build, name):
    mode = MODES[name]
    return [ours(build, source, *beside) for beside in mode.beside for source in ("timer", "perf")], [peer for peer in mode.peers if all(os.path.exists(path) for path in peer.preload)]


def one(build, name):
    failed = 0
    mine = [contender for contender in contenders(build, name)[0] if contender.hz == 250 or MODES[name].both]
    for contender in mine:
        result = run(build, name, contender, max(SECONDS / len(mine), 3.5 if MODES[name].answers else 1))
        print(f"{name}, {contender.name}: {dict(result)}; {dict(result.answers)}", *result.said[:20], sep="\n  ")
        failed |= result.bad() > 0
    return failed


HEAD = """# What samplers have died of, and ours

Generated by `STRESS_SECONDS={seconds:g} STRESS_AT_ONCE={at_once} tests/stress/run.py BUILD --table docs/sampler-safety.md`: programs that do what other samplers have
crashed or hung on, or made go wrong, {seconds:g} s each, {at_once} programs (each under all that are compared) at once, under ours (release build) and, where it applies, under gperftools 2.10 as Debian 12 has it
(`libprofiler.so.0` at 250 Hz, `libtcmalloc.so.4` with `TCMALLOC_SAMPLE_PARAMETER=524288`), at the same time on the same machine:
{machine}.

While a program runs under ours, CPU profiles (by timers at 250 Hz, by perf events at 1000 Hz: `POSTERN_CPU_SOURCE`), thread dumps, heap profiles (a sample every 64 KiB), mutex and block profiles (every wait is
recorded) and everything else that the server has are asked for without a pause. Under gperftools the profile goes to a file; nothing else is asked.
The programs are in `tests/stress`; `./check` runs each for some seconds under ours, and any number but 0 fails it.

**crashes**: it ended as it should not. **hangs**: it did not end in three times its time. **EINTR**: waits that ended early. **errno**: changed where
it must not. **wrong**: results, signals, handlers, statuses that were not the program's own, and profiles that contradict the truth.

| # | failure | program | under | rounds | crashes | hangs | EINTR | errno | wrong |
|---|---|---|---|---|---|---|---|---|---|
"""


def machine():
    release = os.uname().release
    return f"{os.cpu_count()} cores, Linux {release}, glibc {os.confstr('CS_GNU_LIBC_VERSION').split()[1]}"


def measure(build, name):
    """Ours and its peers of one mode run at the same time, so that they meet the same machine: its lines, and what was said."""
    mine, peers = contenders(build, name)
    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as pool:
        futures = [(contender, pool.submit(run, build, name, contender, SECONDS)) for contender in (*mine, *peers)]
        results = [(contender, future.result()) for contender, future in futures]
    row = int(name.split("-")[0])
    lines, notes = [], []
    for contender, result in results:
        cells = [result[key] for key in ("rounds", "crashes", "hangs", "eintr", "errno", "wrong")]
        bold = "**" if not contender.ours and result.bad() else ""
        lines.append(f"| {row} | {ROWS[row]} | `{name}` | {contender.name} | {cells[0]} | " + " | ".join(
            f"{bold}{cell}{bold}" if cell else "0" for cell in cells[1:]) + " |")
        print(lines[-1], flush=True)
        if result.bad():
            said = collections.Counter(line.strip() for line in result.said if line.strip())
            notes.append(f"- `{name}`, {contender.name}: " + "; ".join(f"{text} ({count} times)" if count > 1 else text
                                                                     for text, count in said.most_common(4)))
    return lines, notes


def table(build, target, names):
    with concurrent.futures.ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        measured = list(pool.map(lambda name: measure(build, name), names))
    text = HEAD.format(seconds=SECONDS, at_once=AT_ONCE, machine=machine()) + "\n".join(line for lines, _ in measured for line in lines) + "\n"
    notes = [note for _, said in measured for note in said]
    if notes:
        text += "\nWhat was said:\n\n" + "\n".join(notes) + "\n"
    after = HERE / "safety_notes.md"
    pathlib.Path(target).write_text(text + ("\n" + after.read_text() if after.exists() else ""))


def main():
    if sys.argv[1:] == ["--list"]:
        print("\n".join(MODES))
        return 0
    if len(sys.argv) > 3 and sys.argv[2] == "--table":
        table(os.path.abspath(sys.argv[1]), sys.argv[3], sys.argv[4:] or list(MODES))
        return 0
    build, name = sys.argv[1:]
    return one(os.path.abspath(build), name)


if __name__ == "__main__":
    sys.exit(main())
