# labels: gate
"""The frame around the commands: help, exit codes, what was probably meant, and where settings come from."""
import os
import re
import subprocess
import unittest

from harness import BIN, Backend, TempDir, main, postern


def commands():
    return re.findall(r"^  (?!postern)([a-z]+) +[A-Z]", postern("help").stdout, re.M)


class Frame(unittest.TestCase):
    def test_every_command_has_help_with_an_example(self):
        self.assertGreaterEqual(len(commands()), 8)
        for name in commands():
            for words in ([name, "--help"], [name, "-h"], ["help", name], [name, "x", "--help"]):
                with self.subTest(words):
                    done = postern(*words)
                    self.assertEqual((done.returncode, done.stderr), (0, ""))
                    self.assertTrue(done.stdout.startswith(f"postern {name} "), done.stdout)
                    self.assertRegex(done.stdout, rf"\nExample:\n  postern {name}\b")
                    self.assertLessEqual(max(map(len, done.stdout.splitlines())), 100)

    def test_wrong_usage(self):
        for words, said in ((["hlep"], "did you mean 'help'"), (["stauts"], "did you mean 'status'"),
                            (["xyzzy"], "`postern --help`"), ([], "usage:"), (["top", "--nope", "x"], "--nope"),
                            (["help", "topp"], "did you mean 'top'")):
            with self.subTest(words):
                done = postern(*words)
                self.assertEqual((done.returncode, done.stdout), (2, ""))
                self.assertIn(said, done.stderr)

    def test_version(self):
        self.assertRegex(postern("--version").stdout, r"^postern \d+\.\d+\.\d+\n$")

    def test_a_report_that_cannot_be_written_is_a_failure(self):
        with open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run([BIN / "postern", "help"], stdout=full, stderr=subprocess.PIPE, check=False)
        self.assertEqual(done.returncode, 1)


class Settings(unittest.TestCase):
    """By way of `status`, which needs one setting only: the admin socket."""

    STATUS = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}'

    def setUp(self):
        folder = TempDir()
        self.addCleanup(folder.remove)
        self.folder = folder
        os.mkdir(folder.path("postern"))
        self.env = {"XDG_CONFIG_HOME": str(folder.dir)}

    def asked(self, words=(), env=None, config=None):
        """Which of the three backends got the request: flag, environment or context."""
        with Backend(self.STATUS, unix=True) as flag, Backend(self.STATUS, unix=True) as variable, \
                Backend(self.STATUS, unix=True) as context:
            places = {"FLAG": flag.target["socket"], "ENV": variable.target["socket"], "CONTEXT": context.target["socket"]}
            if config is not None:
                self.folder.write("postern/config", config.format(**places))
            self.done = postern("status", *(word.format(**places) for word in words),
                                env={**self.env, **{k: v.format(**places) for k, v in (env or {}).items()}})
            return [name for name, backend in (("flag", flag), ("environment", variable), ("context", context))
                    if backend.requests]

    CONFIG = "# contexts\n[other]\nadmin = /nonexistent\n[prod]\nadmin = {CONTEXT}\nurl = https://gate\n"

    def test_flag_then_environment_then_context(self):
        env = {"POSTERN_ADMIN": "{ENV}"}
        self.assertEqual(self.asked(["--admin", "{FLAG}", "-C", "prod"], env, self.CONFIG), ["flag"])
        self.assertEqual(self.asked(["-C", "prod"], env, self.CONFIG), ["environment"])
        self.assertEqual(self.asked(["-C", "prod"], None, self.CONFIG), ["context"])
        self.assertEqual(self.asked([], {"POSTERN_CONTEXT": "prod"}, self.CONFIG), ["context"])

    def test_what_is_wrong_is_said(self):
        table = {
            "no such context": (["-C", "nope"], self.CONFIG, "has no context [nope]"),
            "unknown setting": (["-C", "a"], "[a]\nadress = x\n", "line 2: 'adress' is not a setting"),
            "no value": (["-C", "a"], "[a]\nurl =\n", "line 2: 'url' has no value"),
        }
        for name, (words, config, said) in table.items():
            with self.subTest(name):
                self.assertEqual(self.asked(words, None, config), [])
                self.assertEqual(self.done.returncode, 1)
                self.assertIn(said, self.done.stderr)
        os.unlink(self.folder.path("postern/config"))
        self.asked(["-C", "a"])
        self.assertIn("No such file", self.done.stderr)

    def test_nobody_there(self):
        done = postern("status", "--admin", "/nonexistent/admin.sock")
        self.assertEqual(done.returncode, 1)
        self.assertIn("is posternd running?", done.stderr)


main()
