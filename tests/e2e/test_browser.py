# labels: sampler slow
# timeout: 300
"""Profiles of vtp-demo in a real browser: opened by speedscope, and by the pages of `go tool pprof -http`.

speedscope is fetched by npm once, with a version that is fixed here. POSTERN_SCREENSHOTS=DIR keeps pictures."""
import contextlib
import functools
import http.server
import os
import pathlib
import re
import socket
import subprocess
import threading
import unittest
import urllib.request

import browser
from harness import Demo, TempDir, main, wait_for
from pprof_tools import CACHE, NEWEST, environment, loud, one_at_a_time

SPEEDSCOPE = "1.25.0"


def speedscope():
    """The folder of its page; None, and a loud word, when it cannot be fetched."""
    folder = CACHE / f"speedscope-{SPEEDSCOPE}"
    page = folder / "node_modules" / "speedscope" / "dist" / "release"
    with one_at_a_time("speedscope"):
        if not (page / "index.html").exists():
            folder.mkdir(parents=True, exist_ok=True)
            try:
                said = subprocess.run(["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts",
                                       f"speedscope@{SPEEDSCOPE}"], capture_output=True, text=True, check=False, timeout=120).stderr
            except (OSError, subprocess.TimeoutExpired) as error:
                said = str(error)
    if (page / "index.html").exists():
        return page
    loud(f"SPEEDSCOPE IS NOT TESTED: version {SPEEDSCOPE} could not be fetched from npm:\n{said.strip()}")
    return None


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@unittest.skipIf(browser.missing(), f"needs {browser.missing()}")
class InTheBrowser(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = contextlib.ExitStack()
        cls.addClassCleanup(cls.stack.close)
        cls.folder = cls.stack.enter_context(TempDir())
        demo = cls.stack.enter_context(Demo("--load", "50", "--hot", tcp=True))
        demo.switch("leak-memory")
        cls.files = {}
        for name, path in (("cpu", "profile?seconds=3"), ("heap", "heap")):
            def take():
                with urllib.request.urlopen(f"http://{demo.pprof}/debug/pprof/{path}", timeout=30) as answer:
                    return answer.read()
            file = pathlib.Path(cls.folder.path(f"{name}.pb.gz"))
            if name == "heap":
                def leak_is_seen():
                    with urllib.request.urlopen(f"http://{demo.pprof}/debug/pprof/heap?debug=1", timeout=30) as answer:
                        return b"leak_recording_buffer" in answer.read()
                wait_for(leak_is_seen, 30, "the leak in the heap profile")
            file.write_bytes(take())
            cls.files[name] = file
        cls.browser = cls.stack.enter_context(browser.Browser())

    def picture(self, name):
        if os.environ.get("POSTERN_SCREENSHOTS"):
            self.browser.screenshot(pathlib.Path(os.environ["POSTERN_SCREENSHOTS"], f"{name}.png"))

    def test_speedscope(self):
        page = speedscope()
        if page is None:
            self.skipTest("speedscope could not be fetched")
        # A folder of its own: page and profiles side by side, so that nothing is asked of another origin.
        served = pathlib.Path(self.folder.path("served"))
        served.mkdir()
        for file in page.iterdir():
            (served / file.name).symlink_to(file)
        for name, file in self.files.items():
            (served / f"{name}.pb.gz").write_bytes(file.read_bytes())
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=served)) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}"
            try:
                for name, function in (("cpu", "hot_transcode"), ("heap", "leak_recording_buffer")):
                    with self.subTest(name):
                        self.browser.open("about:blank")
                        self.browser.open(f"{url}/index.html#profileURL={url}/{name}.pb.gz")
                        wait_for(lambda: "Time Order" in self.browser.text(), 30, f"speedscope's page: {self.browser.text()!r}")
                        self.picture(f"speedscope-{name}")
                        self.browser.press("3")  # sandwich: a table of functions; the flame graph is a picture
                        text = wait_for(lambda: (lambda t: t if "Self" in t and "%" in t else None)(self.browser.text()), 30, "the table of functions")
                        self.picture(f"speedscope-{name}-table")
                        self.assertIn(function, text)
                        self.assertNotIn("(unknown)", text)
            finally:
                server.shutdown()

    def test_pages_of_go_tool_pprof(self):
        for name, function in (("cpu", "hot_transcode"), ("heap", "leak_recording_buffer")):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                address = f"127.0.0.1:{probe.getsockname()[1]}"
            with open(self.folder.path(f"{name}.log"), "wb") as log:
                process = subprocess.Popen([NEWEST, "tool", "pprof", "-symbolize=none", f"-http={address}", "-no_browser", str(self.files[name])],
                                           stdout=log, stderr=log, start_new_session=True, env=environment())
            try:
                def is_there():
                    with contextlib.suppress(OSError):
                        return urllib.request.urlopen(f"http://{address}/ui/top", timeout=10).status == 200
                    return False
                wait_for(is_there, 40, "go tool pprof -http")
                for page in ("top", "flamegraph", "peek?f=" + function):
                    with self.subTest(f"{name} {page}"):
                        self.browser.open(f"http://{address}/ui/{page}")
                        wait_for(lambda: function in self.browser.text(), 20, f"{function} on {page}: {self.browser.text()[:300]!r}")
                        self.picture(f"pprof-{name}-{re.match(r'[a-z]+', page)[0]}")
                        # The page before may have asked a server that has ended since.
                        errors = [error for error in self.browser.errors() if address in error and "favicon" not in error]
                        self.assertEqual(errors, [])
            finally:
                os.killpg(process.pid, 15)
                process.wait(20)


main()
