# labels: sampler slow
# timeout: 600
# serial
"""./quickstart --once does what contract.md says, and leaves nothing behind."""
import json
import os
import pathlib
import unittest

from harness import ROOT, TempDir, main, run


def checkout_state():
    return run("git", "-C", ROOT, "status", "--porcelain", "--untracked-files=no").stdout


def processes_under(folder):
    """Command lines that name the folder: whatever quickstart started has it in its arguments or environment."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            text = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
            if os.fsencode(folder) in text and int(path.name) != os.getpid():
                found.append((path / "cmdline").read_bytes())
        except OSError:
            continue
    return found


class Quickstart(unittest.TestCase):
    def test_once(self):
        before = checkout_state()
        with TempDir() as folder:
            state = folder.dir / "state"
            done = run(ROOT / "quickstart", "--once", "--dir", state, timeout=580,
                       env={**os.environ, "QUICKSTART_TEST": str(state)})
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertEqual(processes_under(state), [])
            self.assertIn("main.hotFingerprint", done.stdout)
            ports = json.loads((state / "ports.json").read_text())
            self.assertTrue(all(isinstance(port, int) for port in ports.values()), ports)
            for name in ("ca.pem", "client.pem", "client.key", "token", "env"):
                self.assertTrue((state / name).stat().st_size > 0, name)
            for name in ("client.key", "token"):
                self.assertEqual((state / name).stat().st_mode & 0o77, 0, name)
            self.assertIn("hot_transcode", done.stdout)
            for leak in ("leak_recording_buffer", "main.leakSession"):
                self.assertIn(leak, done.stdout)
            self.assertIn("HTTP/1.1 401 Unauthorized", done.stdout)
            self.assertIn("the chain is whole", done.stdout)
            for name in ("postern.conf", "audit.jsonl", "posternd.pid"):
                self.assertTrue((state / name).exists(), name)
        self.assertEqual(checkout_state(), before)

    def test_wrong_usage(self):
        self.assertEqual(run(ROOT / "quickstart", "--nope").returncode, 2)
        self.assertIn("--once", run(ROOT / "quickstart", "--help").stdout)


main()
