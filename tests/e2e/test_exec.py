# labels: sampler
"""`postern exec`: the program as without, and a sampler in it."""
import os
import signal
import subprocess
import unittest

from harness import BIN, TempDir, main, postern, wait_for


class Exec(unittest.TestCase):
    def test_output_arguments_and_exit_code_are_the_programs(self):
        done = postern("exec", "--listen", "off", "--", "sh", "-c", 'echo "$0 $1" | cat; echo err >&2; exit 7', "a", "b c")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (7, "a b c\n", "err\n"))
        done = postern("exec", "--listen", "off", "sh", "-c", "kill -TERM $$")
        self.assertEqual(done.returncode, -signal.SIGTERM)
        done = subprocess.run([BIN / "postern", "exec", "--listen", "off", "--", "cat"], input=b"in", capture_output=True,
                              check=False)
        self.assertEqual(done.stdout, b"in")

    def test_other_preloads_stay_and_come_after(self):
        done = postern("exec", "--listen", "off", "--", "sh", "-c", 'echo "[$LD_PRELOAD]"',
                       env={"LD_PRELOAD": "libm.so.6"})
        self.assertEqual(done.stdout, "[libm.so.6]\n")

    def test_program_serves_on_a_socket(self):
        with TempDir() as folder:
            socket = folder.path("pprof.sock")
            process = subprocess.Popen([BIN / "postern", "exec", "--name", "sleeper", "--listen", f"unix:{socket}", "--",
                                        "sleep", "60"], env={**os.environ, "POSTERN_RUNTIME_DIR": str(folder.dir)})
            try:
                wait_for(lambda: os.path.exists(socket), what="the sampler's socket")
                done = subprocess.run(["curl", "-sS", "--unix-socket", socket, "http://localhost/debug/pprof/cmdline"],
                                      capture_output=True, timeout=30, check=False)
                self.assertEqual(done.stdout, b"sleep\x0060")
            finally:
                process.terminate()
            self.assertEqual(process.wait(10), -signal.SIGTERM)

    def test_help_after_a_double_dash_is_the_programs(self):
        done = postern("exec", "--listen", "off", "--", "printf", "%s", "--help")
        self.assertEqual(done.stdout, "--help")

    def test_what_is_wrong_is_said(self):
        table = {
            "not loopback": (["--listen", "0.0.0.0:6060", "--", "true"], 2, "a loopback address"),
            "a name": (["--listen", "example.com:6060", "--", "true"], 2, "a loopback address"),
            "no port": (["--listen", "127.0.0.1", "--", "true"], 2, "a loopback address"),
            "relative socket": (["--listen", "unix:x", "--", "true"], 2, "unix:/PATH"),
            "no program": (["--"], 2, "name a program"),
            "no such program": (["--", "no-such-program"], 127, "not found"),
            "not executable": (["--", "/etc/passwd"], 126, "Permission denied"),
            "static": (["--", BIN / "go-server"], 1, "linked statically"),
        }
        for name, (words, code, said) in table.items():
            with self.subTest(name):
                done = postern("exec", *words)
                self.assertEqual(done.returncode, code)
                self.assertIn(said, done.stderr)


main()
