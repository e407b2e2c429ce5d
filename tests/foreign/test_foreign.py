"""libpostern under a program of another machine, as far as that machine's emulator carries it: the stack of
a computing thread, a CPU profile, a heap profile. (A sleeping one's registers are the emulator's own.)"""
import os
import pathlib
import re
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "e2e"))
from harness import BUILD, SAMPLER, TempDir, UnixConnection, main, run, wait_for  # noqa: E402


class Foreign(unittest.TestCase):
    def setUp(self):
        self.folder = self.enterContext(TempDir())
        self.socket = str(self.folder.path("s.sock"))
        set_in_it = {"LD_PRELOAD": SAMPLER, "POSTERN_LISTEN": f"unix:{self.socket}", "POSTERN_RUNTIME_DIR": self.folder.dir,
                     "POSTERN_HEAP_RATE": 65536}
        command = os.environ["EMULATOR"].split()
        for name, value in set_in_it.items():
            command += ["-E", f"{name}={value}"]
        self.process = subprocess.Popen([*command, BUILD / "tests/foreign_work"])
        self.addCleanup(self.process.communicate)
        self.addCleanup(self.process.kill)
        wait_for(lambda: os.path.exists(self.socket), what="the sampler's socket")

    def get(self, path):
        connection = UnixConnection(self.socket)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        self.assertEqual(answer.status, 200, body)
        return body

    def test_threads(self):
        threads = self.get("/debug/pprof/goroutine?debug=2").decode().split("\n\n")
        stacks = [[line.split("(")[0] for line in thread.splitlines()[1:] if not line.startswith("\t")] for thread in threads]
        computing = [stack for stack in stacks if "work" in stack]
        self.assertEqual(len(computing), 1, threads)
        self.assertEqual(computing[0][0:2], ["spin", "work"])

    def test_cpu_profile(self):
        profile = self.folder.path("cpu")
        pathlib.Path(profile).write_bytes(self.get("/debug/pprof/profile?seconds=2"))
        text = run("go", "tool", "pprof", "-top", "-unit=ms", str(profile)).stdout
        spin = re.search(r"^ *([0-9.]+)ms .* spin$", text, re.M)
        self.assertIn("without their outermost frame: 0;", text)
        self.assertTrue(spin and float(spin[1]) > 200, text)

    def test_heap_profile(self):
        def stacks():
            text = self.get("/debug/pprof/heap?debug=1").decode()
            return [re.findall(r"\t([a-z_]+)\+", block) for block in text.split("\n\n") if "keep" in block]

        for stack in wait_for(stacks, what="a sample in keep()"):
            self.assertEqual(stack[stack.index("keep"):][:2], ["keep", "work"])


if __name__ == "__main__":
    main()
