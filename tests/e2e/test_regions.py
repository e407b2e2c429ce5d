# labels: sampler
"""Labels and regions of the program in profiles, and /metrics, on vtp-demo."""
import http.client
import re
import shutil
import subprocess
import threading
import time
import unittest

from harness import Demo, main, run, wait_for

ROUTES = ("/api/v1/courses?topic=3", "/api/v1/recordings?course=5")


def samples(text, name, **labels):
    """The value of the line of that name with those labels."""
    for line in text.splitlines():
        match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if match and match[1] == name and dict(re.findall(r'(\w+)="([^"]*)"', match[2] or "")) == labels:
            return float(match[3])
    return None


class Regions(unittest.TestCase):
    def setUp(self):
        self.demo = self.enterContext(Demo(tcp=True))
        self.done = threading.Event()
        self.addCleanup(self.done.set)

    def request(self, path):
        self.assertEqual(self.demo.get(path).status, 200)

    def pprof(self, path):
        connection = http.client.HTTPConnection(self.demo.pprof, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        self.assertEqual(answer.status, 200)
        return body

    def load(self, path):
        """Requests one after the other until the test ends."""
        def ask():
            while not self.done.is_set():
                self.request(path)
        thread = threading.Thread(target=ask)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.done.set)

    def metrics(self):
        return self.pprof("/metrics").decode()

    def test_metrics_are_clean_and_true(self):
        for _ in range(20):
            self.request(ROUTES[0])
        # The answer is sent before the region around it ends.
        wait_for(lambda: samples(self.metrics(), "postern_region_duration_seconds_count", region="api") == 20,
                 what="the end of the last request")
        text = self.metrics()
        checked = subprocess.run([shutil.which("promtool"), "check", "metrics"], input=text, capture_output=True, text=True,
                                 timeout=60, check=False)
        self.assertEqual((checked.returncode, checked.stdout, checked.stderr), (0, "", ""))
        self.assertEqual(samples(text, "postern_region_duration_seconds_count", region="database"), 20)
        self.assertEqual(samples(text, "postern_region_duration_seconds_count", region="api"), 20)
        counts = [samples(text, "postern_region_duration_seconds_bucket", region="api", le=le)
                  for le in ("0.005", "0.01", "0.05", "0.1", "+Inf")]
        self.assertEqual(counts, sorted(counts))
        self.assertEqual(counts[-1], 20)
        with open(f"/proc/{self.demo.pid}/status") as status:
            rss = int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) * 1024
        self.assertAlmostEqual(samples(text, "process_resident_memory_bytes") / rss, 1, delta=0.1)
        self.assertAlmostEqual(samples(text, "process_start_time_seconds"), time.time(), delta=60)
        self.assertGreater(samples(text, "process_threads"), 9)
        self.assertGreater(samples(text, "process_open_fds"), 3)

    def test_profiles_carry_labels(self):
        for path in ROUTES:
            self.load(path)
        wait_for(lambda: samples(self.metrics(), "postern_region_duration_seconds_count", region="database"), what="a query")
        profile = self.demo.path("cpu.pb.gz")
        with open(profile, "wb") as out:
            out.write(self.pprof("/debug/pprof/profile?seconds=2"))
        tags = run("go", "tool", "pprof", "-tags", profile).stdout
        for name, values in (("region", ("api", "database")), ("route", ("courses", "recordings")), ("thread", ("vtp-demo",))):
            part = re.search(rf"^ *{name}: Total.*\n((?: +.*\n)+)", tags, re.MULTILINE)
            self.assertIsNotNone(part, f"{name} in {tags}")
            for value in values:
                self.assertIn(value, part[1])
        # What is not of the region is not shown.
        focused = run("go", "tool", "pprof", "-top", "-cum", "-tagfocus=region=database", profile).stdout
        self.assertIn("run_query", focused)
        self.assertNotIn("push_message", focused)


main()
