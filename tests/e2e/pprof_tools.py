"""Those who read profiles, as their users have them: `go tool pprof` of the oldest Go that is supported and of the
newest, and the standalone pprof, which is fetched and built once, with a version that is fixed here; and the Go
server that ours is compared with, built by either.

What is fetched or built is kept below build/tools, where every test of every preset finds it."""
import contextlib
import fcntl
import os
import pathlib
import shutil
import subprocess
import sys

from harness import ROOT, Service

OLDEST = "/usr/lib/go-1.19/bin/go"
NEWEST = shutil.which("go") or "/usr/local/go/bin/go"
STANDALONE = "github.com/google/pprof", "v0.0.0-20261105003125-4bf881d7fb0b"
CACHE = ROOT / "build" / "tools"


def environment(**more):
    return {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "BROWSER": "/bin/true",
            "HOME": os.environ.get("HOME", "/tmp"), **more}


@contextlib.contextmanager
def one_at_a_time(name):
    """Tests run side by side: one of them fetches, the others wait for it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def loud(text):
    """For what a reader of a log must not overlook."""
    print(f"\n{'!' * 78}\n{text}\n{'!' * 78}", file=sys.stderr, flush=True)


def standalone():
    """The path of the standalone pprof; None, and a loud word, when it cannot be fetched."""
    module, version = STANDALONE
    folder = CACHE / f"pprof-{version}"
    with one_at_a_time("pprof"):
        if not (folder / "pprof").exists():
            try:
                done = subprocess.run([NEWEST, "install", f"{module}@{version}"], capture_output=True, text=True, check=False,
                                      timeout=240, env=environment(GOBIN=str(folder), GOFLAGS="-mod=mod"))
                said = done.stderr
            except (OSError, subprocess.TimeoutExpired) as error:
                said = str(error)
    if (folder / "pprof").exists():
        return str(folder / "pprof")
    loud(f"STANDALONE PPROF IS NOT TESTED: {module}@{version} could not be fetched and built:\n{said.strip()}")
    return None


def readers():
    """{name: the words of its command}"""
    found = {name: [go, "tool", "pprof"] for name, go in (("oldest", OLDEST), ("newest", NEWEST)) if os.path.exists(go)}
    path = standalone()
    if path:
        found["standalone"] = [path]
    return found


def read(reader, *words, folder, check=True):
    """Run one of readers() with these words; its standard output, or the CompletedProcess when `check` is False.
    Fetched profiles are kept in `folder`."""
    done = subprocess.run([*reader, *(str(word) for word in words)], capture_output=True, text=True, check=False, timeout=90,
                          env=environment(PPROF_TMPDIR=str(folder)))
    if not check:
        return done
    if done.returncode:
        raise AssertionError(f"{' '.join(reader)} {words}: {done.returncode}: {done.stderr}")
    return done.stdout


def raw(reader, *words, folder, **options):
    return read(reader, "-raw", *words, folder=folder, **options)


class Reference(Service):
    """go_reference.go, built by `go`; methods as the newest Go restricts them, whatever the default of its module."""

    def __init__(self, go):
        source = pathlib.Path(__file__).with_name("go_reference.go")
        version = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True, env=environment()).stdout.strip()
        program = CACHE / f"go_reference-{version}"
        with one_at_a_time(program.name):
            if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
                subprocess.run([go, "build", "-o", str(program), str(source)], check=True, timeout=240,
                               env=environment(CGO_ENABLED="0"))
        super().__init__(program, env={"GODEBUG": "httpmuxgo121=0"})
