"""A real browser: Debian's Chromium, without a window, led by its WebDriver (W3C) over loopback."""
import base64
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request

from harness import TempDir, wait_for


def missing():
    """Which package is to be installed, or None."""
    return None if shutil.which("chromium") and shutil.which("chromedriver") else "chromium and chromium-driver"


class Browser(TempDir):
    def __init__(self):
        super().__init__()
        self.log = open(self.path("log"), "wb")
        self.process = subprocess.Popen(["chromedriver", "--port=0"], stdout=self.log, stderr=self.log, start_new_session=True)
        self.session = None

    def __enter__(self):
        def port():
            found = re.search(r"successfully on port (\d+)", pathlib.Path(self.path("log")).read_text())
            return found and found[1]
        try:
            self.url = f"http://127.0.0.1:{wait_for(port, 30, 'chromedriver')}"
            arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--enable-unsafe-swiftshader", "--window-size=1280,800",
                         "--disable-background-networking", "--disable-component-update", f"--user-data-dir={self.path('profile')}"]
            answer = self.ask("POST", "/session", {"capabilities": {"alwaysMatch": {
                "browserName": "chrome", "goog:chromeOptions": {"args": arguments},
                "goog:loggingPrefs": {"browser": "ALL"}}}})
            self.session = answer["sessionId"]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.session:
            self.ask("DELETE", f"/session/{self.session}")
        os.killpg(self.process.pid, signal.SIGKILL)  # whatever of the browser is left
        self.process.wait(20)
        self.log.close()
        self.remove()

    def ask(self, method, path, body=None):
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.read().decode()[:500]}") from error

    def command(self, method, path, body=None):
        return self.ask(method, f"/session/{self.session}{path}", body)

    def open(self, url):
        self.command("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        return self.command("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def text(self):
        """What a reader sees as text."""
        return self.run("return document.body ? document.body.innerText : ''")

    def press(self, key):
        self.command("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": [
            {"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]}]})

    def errors(self):
        """What scripts complained about."""
        return [entry["message"] for entry in self.command("POST", "/se/log", {"type": "browser"}) if entry["level"] == "SEVERE"]

    def screenshot(self, path):
        pathlib.Path(path).write_bytes(base64.b64decode(self.command("GET", "/screenshot")))
