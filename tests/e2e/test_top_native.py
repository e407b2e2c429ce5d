# labels: sampler
"""`postern top` says what `go tool pprof -top` says, also of the bundled sampler's profiles."""
import http.client
import os
import shutil
import unittest

from harness import Demo, main, postern, run

GO = shutil.which("go") or "/usr/local/go/bin/go"


class Top(unittest.TestCase):
    def test_says_what_pprof_says(self):
        with Demo(tcp=True) as demo:
            for name in ("profile?seconds=2", "goroutine", "profile?seconds=1"):
                demo.switch("hot", name != "profile?seconds=1")
                with self.subTest(name):
                    connection = http.client.HTTPConnection(demo.pprof, timeout=30)
                    connection.request("GET", f"/debug/pprof/{name}")
                    answer = connection.getresponse()
                    self.assertEqual(answer.status, 200)
                    file = demo.write("profile", answer.read())
                    connection.close()
                    theirs = run(GO, "tool", "pprof", "-top", file, env={**os.environ, "GOTOOLCHAIN": "local"})
                    self.assertEqual(postern("top", file).stdout, theirs.stdout)
                    self.assertIn({"profile?seconds=2": "hot_transcode", "goroutine": "serve_requests"}.get(name, ""), theirs.stdout)


main()
