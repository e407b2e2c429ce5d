# labels: sampler slow
# timeout: 300
# serial
"""What one does with it: profiles through the gate while the service is under load, and long captures."""
import json
import os
import re
import subprocess
import unittest

from harness import BIN, Demo, Gateway, GoServer, Pki, main, postern, run, wait_for


class Load(unittest.TestCase):
    def setUp(self):
        self.pki = Pki()
        self.addCleanup(self.pki.remove)

    def env(self, gate):
        client = self.pki.client()
        return {"POSTERN_URL": gate.url, "POSTERN_CA": self.pki.ca, "POSTERN_CERT": client.cert,
                "POSTERN_KEY": client.key}

    def fetch(self, gate, what, *options):
        file = self.pki.path("profile.pb.gz")
        done = postern("fetch", "-o", file, *options, what, env=self.env(gate))
        self.assertEqual(done.returncode, 0, done.stderr)
        return file

    def test_profile_under_load(self):
        """ab on the API while a CPU profile runs through the gate: no failed request, SQLite's functions with
        complete stacks."""
        with Demo() as demo, Gateway(self.pki, {"vtp": demo}) as gate:
            gate.open()
            file = self.pki.path("load.pb.gz")
            fetch = subprocess.Popen([BIN / "postern", "fetch", "--seconds", "30", "-o", file, "vtp/profile"],
                                     stderr=subprocess.PIPE, env={**os.environ, **self.env(gate)})
            gate.wait_audit(event="received")
            load = run("ab", "-q", "-n", "10000", "-c", "100", f"{demo.url}/api/v1/courses", timeout=120)
            self.assertEqual(fetch.wait(60), 0, fetch.stderr.read())
            fetch.stderr.close()
            self.assertEqual(load.returncode, 0, load.stderr)
            self.assertRegex(load.stdout, r"Complete requests: +10000\n")
            self.assertRegex(load.stdout, r"Failed requests: +0\n")
            self.assertNotIn("Non-2xx", load.stdout)
            said = json.loads(postern("top", "--json", file).stdout)
            cum = {row.get("name"): row["cum"] for row in said["functions"]}
            for name in ("sqlite3_step", "database_courses", "serve_requests"):
                self.assertGreater(cum.get(name, 0), said["total"] * 0.2, f"{name}: {said}")
            self.assertGreater(said["total"], 1e9)
            # Complete: samples in sqlite3VdbeExec lead back to the thread's start.
            raw = run("go", "tool", "pprof", "-traces", "-unit=ms", file).stdout
            stacks = [(float(match[1]), part) for part in raw.split(f"{11 * '-'}+{55 * '-'}")
                      if "sqlite3VdbeExec" in part and (match := re.search(r"^ *([0-9.]+)ms  ", part, re.MULTILINE))]
            self.assertGreater(len(stacks), 5)
            cut = [(ms, part) for ms, part in stacks if "serve_requests" not in part]
            self.assertLess(sum(ms for ms, _ in cut), 0.01 * sum(ms for ms, _ in stacks), cut)

    def test_long_captures_arrive_whole(self):
        """Longer than every time limit of the gate but the capture's own."""
        with GoServer() as go, Demo() as demo:
            limits = {"limits": {"idle": "2s", "header": "2s", "response": "3s", "handshake": "2s"}}
            with Gateway(self.pki, {"go": go, "vtp": demo}, limits) as gate:
                gate.open()
                for what, hot in (("go/profile", "main.hotFingerprint"), ("vtp/profile", None)):
                    with self.subTest(what):
                        file = self.fetch(gate, what, "--seconds", "12")
                        text = postern("top", file).stdout
                        self.assertRegex(text, r"Duration: 1[12]")
                        if hot:
                            self.assertIn(hot, text)

    def test_thread_leak_is_counted(self):
        with Demo() as demo, Gateway(self.pki, {"vtp": demo}) as gate:
            gate.open()

            def count():
                text = gate.get("/debug/pprof/goroutine?debug=1", cert=self.pki.client()).body.decode()
                return int(re.match(r"goroutine profile: total (\d+)", text).group(1))
            before = count()
            demo.switch("leak-threads")
            wait_for(lambda: count() >= before + 5, 20, "the count to rise")
            text = gate.get("/debug/pprof/goroutine?debug=2", cert=self.pki.client()).body.decode()
            self.assertIn("leaked_session", text)

    def test_each_hunt_finds_something(self):
        """The slow query and the fought-over lock show in a CPU profile and in the threads' stacks."""
        with Demo("--load", "200") as demo, Gateway(self.pki, {"vtp": demo}) as gate:
            gate.open()
            demo.switch("slow-query")
            names = {row.get("name") for row in json.loads(
                postern("top", "--json", self.fetch(gate, "vtp/profile", "--seconds", "3")).stdout)["functions"]}
            self.assertIn("query_slowly", names)
            demo.switch("slow-query", False)
            demo.switch("hot")
            text = postern("top", self.fetch(gate, "vtp/profile", "--seconds", "3")).stdout
            self.assertRegex(text.split("cum%\n")[1].splitlines()[0], "hot_transcode")


main()
