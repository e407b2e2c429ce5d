# labels: sampler slow
# timeout: 300
"""seconds=60 and seconds=120 arrive whole, side by side, under the default limits."""
import threading
import unittest

from harness import Demo, Gateway, GoServer, Pki, main, postern


class Long(unittest.TestCase):
    def test_a_minute_and_two(self):
        with Pki() as pki, GoServer() as go, Demo("--load", "20") as demo, Gateway(pki, {"go": go, "vtp": demo}) as gate:
            gate.open()
            client = pki.client()
            env = {"POSTERN_URL": gate.url, "POSTERN_CA": pki.ca, "POSTERN_CERT": client.cert,
                   "POSTERN_KEY": client.key}
            done = {}

            def fetch(target, seconds):
                file = pki.path(f"{target}-{seconds}")
                done[target, seconds] = file, postern("fetch", "--seconds", seconds, "-o", file, f"{target}/profile",
                                                      env=env, timeout=200)
            threads = [threading.Thread(target=fetch, args=what) for what in (("go", 120), ("vtp", 60))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for (target, seconds), (file, fetched) in done.items():
                self.assertEqual(fetched.returncode, 0, fetched.stderr)
                # As pprof writes it: 120s, 60.01s, 59.99s.
                text = postern("top", file).stdout
                self.assertRegex(text, {60: r"Duration: (59\.9|60)", 120: r"Duration: (119\.9|120)"}[seconds], target)
                self.assertNotIn("Total samples = 0", text)
            self.assertEqual(len(gate.audit(event="completed", status=200)), 2)
            self.assertEqual(gate.audit(event="cut"), [])


main()
