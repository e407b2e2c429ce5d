# labels: gate
"""`postern top` says what `go tool pprof -top` says, letter for letter."""
import gzip
import json
import os
import pathlib
import shutil
import unittest

from harness import GoServer, TempDir, main, postern, run

GO = shutil.which("go") or "/usr/local/go/bin/go"


def pprof(*arguments):
    done = run(GO, "tool", "pprof", "-top", *arguments, env={**os.environ, "GOTOOLCHAIN": "local"})
    assert done.returncode == 0, done.stderr
    return done.stdout


class Top(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = TempDir()
        cls.files = {}
        with GoServer() as server:
            server.get("/switch/leak/on")
            for name, query in {"profile": "?seconds=2", "heap": "", "allocs": "", "goroutine": "", "mutex": "",
                                "block": "", "threadcreate": "", "heap-delta": "heap?seconds=1"}.items():
                path = query if "?" in query and not query.startswith("?") else name + query
                answer = server.get(f"/debug/pprof/{path}")
                assert answer.status == 200, answer
                cls.files[name] = cls.folder.write(name, answer.body)

    @classmethod
    def tearDownClass(cls):
        cls.folder.remove()

    def test_says_what_pprof_says(self):
        for name, file in self.files.items():
            with self.subTest(name):
                ours = postern("top", file)
                self.assertEqual((ours.returncode, ours.stderr), (0, ""))
                self.assertEqual(ours.stdout, pprof(file))
        self.assertIn("main.hotFingerprint", postern("top", self.files["profile"]).stdout)

    def test_every_type_and_limit(self):
        for flags in (["-sample_index=alloc_objects"], ["-sample_index=inuse_objects"], ["-sample_index=0"],
                      ["-sample_index=alloc_space", "-nodecount=3"], ["-nodecount=1"]):
            with self.subTest(flags):
                self.assertEqual(postern("top", *flags, self.files["heap"]).stdout, pprof(*flags, self.files["heap"]))

    def test_plain_file_and_standard_input(self):
        plain = self.folder.write("plain", gzip.decompress(pathlib.Path(self.files["heap"]).read_bytes()))
        self.assertEqual(postern("top", plain).stdout, pprof(self.files["heap"]))
        with open(plain, "rb") as stdin:
            self.assertEqual(postern("top", "-", stdin=stdin).stdout, pprof(self.files["heap"]))

    def test_json_has_the_same_numbers(self):
        said = json.loads(postern("top", "--json", self.files["profile"]).stdout)
        self.assertEqual((said["type"], said["unit"]), ("cpu", "nanoseconds"))
        self.assertEqual(said["functions"][0]["name"], "main.hotFingerprint")
        self.assertLessEqual(sum(row["flat"] for row in said["functions"]), said["total"])

    def test_what_is_wrong_is_said(self):
        table = {
            "no such file": (["/nonexistent"], 1, "No such file"),
            "not a profile": ([self.folder.write("text", "<html>no</html>")], 1, "neither gzip nor pprof"),
            "cut short": ([self.folder.write("cut", pathlib.Path(self.files["heap"]).read_bytes()[:-20])], 1, "cut short"),
            "empty": ([self.folder.write("empty", "")], 1, "it is empty"),
            "no such type": (["-sample_index=nope", self.files["heap"]], 1, "alloc_objects, alloc_space"),
            "no file": ([], 2, "usage:"),
            "unknown option": (["--nope", self.files["heap"]], 2, "usage:"),
            "bad number": (["-nodecount=x", self.files["heap"]], 2, "-nodecount 'x'"),
        }
        for name, (arguments, code, words) in table.items():
            with self.subTest(name):
                done = postern("top", *arguments)
                self.assertEqual(done.returncode, code)
                self.assertIn(words, done.stderr)
                self.assertEqual(done.stdout, "")


main()
