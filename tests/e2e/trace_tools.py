"""A trace read by `go tool trace`, of the oldest version that is supported and of the newest: every page of it."""
import html
import json
import os
import pathlib
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request

from harness import wait_for

OLDEST = "/usr/lib/go-1.19/bin/go"
NEWEST = shutil.which("go") or "/usr/local/go/bin/go"
PROFILES = ("net", "sync", "syscall", "sched")
PAGES_OF_A_KIND = 12
BROKEN = "/sche"  # a link of 1.19's own page that leads nowhere
# The parent that the newest tool makes up for the end of every task of such a file; its pages are empty.
NO_TASK = ("focustask=0", "taskid=0")
NEEDS_DOT = {"/io", "/block", "/syscall", "/sched", "/regionio", "/regionblock", "/regionsyscall", "/regionsched"}


def tools():
    return [go for go in (OLDEST, NEWEST) if os.path.exists(go)]


def environment():
    return {**os.environ, "GOTOOLCHAIN": "local", "BROWSER": "/bin/true", "GOFLAGS": "", "HOME": os.environ.get("HOME", "/tmp")}


def profile(go, file, kind):
    """{stack of names, outermost first: ms} of `go tool trace -pprof`."""
    done = subprocess.run([go, "tool", "trace", f"-pprof={kind}", str(file)], capture_output=True, check=False, timeout=120,
                          env=environment())
    if done.returncode != 0 or b"panic" in done.stderr:
        raise AssertionError(f"{go} -pprof={kind}: {done.stderr.decode()}")
    if not done.stdout:
        return {}
    raw = pathlib.Path(f"{file}.{kind}.pb.gz")
    raw.write_bytes(done.stdout)
    text = subprocess.run([NEWEST, "tool", "pprof", "-traces", "-unit=ns", str(raw)], capture_output=True, check=True, timeout=60,
                          env=environment()).stdout.decode()
    stacks = {}
    for block in re.split(r"-{5,}\+-{5,}\n", text)[1:]:
        found = re.match(r"\s*([\d.]+)ns\s+(.*(?:\n.*)*)", block)
        if found:
            names = tuple(reversed([line.strip() for line in found[2].splitlines() if line.strip()]))
            stacks[names] = stacks.get(names, 0) + float(found[1]) / 1e6
    return stacks


class Pages:
    """`go tool trace -http` of one file, and what its pages say."""

    def __init__(self, go, file):
        self.go = go
        self.log = pathlib.Path(f"{file}.{'oldest' if go == OLDEST else 'newest'}.log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([go, "tool", "trace", "-http=127.0.0.1:0", str(file)], stdout=log, stderr=log,
                                            env=environment(), start_new_session=True)
        self.pages, self.slices = {}, {}

    def __enter__(self):
        def listening():
            if self.process.poll() is not None:
                raise AssertionError(f"{self.go}: {self.log.read_text()}")
            return re.search(r"http://127\.0\.0\.1:\d+", self.log.read_text())
        wait_for(listening, seconds=60, what="go tool trace")
        self.url = listening()[0]
        return self

    def __exit__(self, *_):
        os.killpg(self.process.pid, 15)
        self.process.wait()
        if "panic" in self.log.read_text():
            raise AssertionError(f"{self.go}: {self.log.read_text()}")

    def get(self, path):
        try:
            with urllib.request.urlopen(self.url + path, timeout=120) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{self.go} {path}: {error.code} {error.read()[:300]}") from error

    def fetch_all(self):
        """Every page that others lead to, a few of each kind; what is JSON must parse."""
        kinds, queue = {}, ["/", "/mmu", "/jsontrace", "/goroutines", "/usertasks", "/userregions"]
        queue += [f"{page}?raw=1" for page in ("/io", "/block", "/syscall", "/sched")]
        queue += ["/trace?view=proc", "/trace?view=thread"]
        while queue:
            link = html.unescape(queue.pop(0)).partition("#")[0]
            path, _, query = link.partition("?")
            if path in NEEDS_DOT and "raw=1" not in query:
                link, query = f"{path}?{query}{'&' if query else ''}raw=1", f"{query}&raw=1"
            if link in self.pages or path == BROKEN or query in NO_TASK or kinds.get(path, 0) >= PAGES_OF_A_KIND:
                continue
            kinds[path] = kinds.get(path, 0) + 1
            self.pages[link] = body = self.get(urllib.parse.quote(link, safe="/?&=%+:;,@"))
            if path.startswith("/json"):
                try:
                    self.pages[link] = json.loads(body)
                except ValueError as error:
                    raise AssertionError(f"{self.go} {link}: {body[:300]}") from error
            elif path == "/trace":
                queue.append(f"/jsontrace?{query}")
            elif b"href=" in body and b"<body" in body:
                queue += re.findall(r"""href=["']?(/[^"'>\s]*)""", body.decode())
        return self

    def page(self, path):
        return html.unescape(self.pages[path].decode())

    def threads(self):
        """{name: how many}"""
        return {name: int(count) for name, count in
                re.findall(r'<a href="/goroutine\?[^"]*">([^<]*)</a>(?: N=|</code></td>\s*<td>)(\d+)', self.page("/goroutines"))}

    def tasks(self):
        """{name: how many}; the newest tool has a line of its own for what is in no task."""
        return {name: int(count) for name, count in
                re.findall(r"<td>([^<]+)</td>\s*<td><a href=\"/usertask\?type=[^\"]*\">(\d+)", self.page("/usertasks"))}

    def regions(self):
        """{(name, thread): how many}"""
        found = re.findall(r'<td>(?:<pre>)?"?([^<"]+)"?<br>([^<]*?)(?: @ 0x[0-9a-f]+)?<br>[^<]*(?:</pre>)?</td>\s*'
                           r'<td><a href="/userregion\?[^"]*">(\d+)', self.page("/userregions"))
        counts = {}
        for name, thread, count in found:
            counts[name, thread] = counts.get((name, thread), 0) + int(count)
        return counts
