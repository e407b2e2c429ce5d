# labels: gate
"""`postern audit verify` and `show`, on logs that this file writes and damages itself."""
import hashlib
import hmac
import json
import pathlib
import unittest

from harness import TempDir, main, postern


def write_log(count=5, key=None, first=1, prev="0" * 64):
    """Lines by the words of audit/chain.h alone."""
    lines = []
    for seq in range(first, first + count):
        record = {"v": 1, "seq": seq, "ts": f"2026-01-01T00:00:0{seq % 10}.000000Z", "event": "refused",
                  "client": {"address": "192.0.2.1"}, "path": "/x\x1b[31m", "status": 401, "reason": "bad-token",
                  "prev": prev}
        text = json.dumps(record, separators=(",", ":"))[:-1] + ","
        prev = (hmac.new(key, text.encode(), "sha256") if key else hashlib.sha256(text.encode())).hexdigest()
        lines.append(f'{text}"hash":"{prev}"}}\n')
    return lines


def head_of(line):
    record = json.loads(line)
    return f"{record['seq']}:{record['hash']}"


class Verify(TempDir, unittest.TestCase):
    def __init__(self, *arguments):
        unittest.TestCase.__init__(self, *arguments)

    def setUp(self):
        TempDir.__init__(self)
        self.addCleanup(self.remove)

    def verify(self, lines, *options):
        return postern("audit", "verify", *options, self.write("log", "".join(lines)))

    def test_whole(self):
        done = self.verify(write_log())
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"^5 records, the chain is whole; .*; head 5:[0-9a-f]{64}\n$")
        self.assertEqual(json.loads(self.verify(write_log(), "--json").stdout)["records"], 5)
        self.assertEqual(self.verify([]).returncode, 0)

    def test_damage_is_named_with_its_line(self):
        log = write_log()
        table = {
            "edited": (log[:2] + [log[2].replace("401", "200")] + log[3:], 3, "the line was changed"),
            "deleted": (log[:2] + log[3:], 3, "seq is 4, 3 is due"),
            "reordered": ([log[0], log[2], log[1]] + log[3:], 2, "seq is 3, 2 is due"),
            "doubled": (log[:2] + log[1:], 3, "seq is 2, 3 is due"),
            "first deleted": (log[1:], 1, "seq is 2, 1 is due"),
            "torn": (log[:4] + [log[4][:-10]], 5, "not whole"),
            "last newline gone": (log[:4] + [log[4][:-1]], 5, "not whole"),
            "an empty line": (log[:2] + ["\n"] + log[2:], 3, "not a record"),
            "rewritten, all after it kept": (log[:1] + write_log(1, None, 2, "1" * 64) + log[2:], 2, "prev is not"),
            "something after the object": (log[:1] + [log[1][:-1] + " \n"] + log[2:], 2, "not a record"),
            "carriage returns": ([line.replace("\n", "\r\n") for line in log], 1, "not a record"),
            "one long line": (["x" * 100000 + "\n"], 1, "longer than"),
        }
        for name, (lines, place, words) in table.items():
            with self.subTest(name):
                done = self.verify(lines)
                self.assertEqual((done.returncode, done.stdout), (1, ""))
                self.assertIn(f"line {place}: ", done.stderr)
                self.assertIn(words, done.stderr)

    def test_head_kept_elsewhere_shows_a_cut_and_a_rewrite(self):
        log = write_log()
        head = head_of(log[4])
        self.assertEqual(self.verify(log, "--head", head).returncode, 0)
        self.assertEqual(self.verify(log, "--head", head_of(log[1])).returncode, 0)
        cut = self.verify(log[:3], "--head", head)
        self.assertEqual(cut.returncode, 1)
        self.assertIn("ends at seq 3, but there was a seq 5", cut.stderr)
        other = [line.replace("192.0.2.1", "192.0.2.9") for line in log]
        rewritten, prev = [], "0" * 64
        for line in other:
            text = line[:line.rindex('"prev":')] + f'"prev":"{prev}",'
            prev = hashlib.sha256(text.encode()).hexdigest()
            rewritten.append(f'{text}"hash":"{prev}"}}\n')
        self.assertEqual(self.verify(rewritten).returncode, 0)
        done = self.verify(rewritten, "--head", head)
        self.assertEqual(done.returncode, 1)
        self.assertIn("line 5: its hash is not the one that --head names", done.stderr)

    def test_key(self):
        key = self.write("key", "0123456789abcdef0123456789abcdef\n")
        log = write_log(key=b"0123456789abcdef0123456789abcdef")
        self.assertEqual(self.verify(log, "--key-file", key).returncode, 0)
        self.assertIn("hashed with a key", self.verify(log).stderr)
        self.assertIn("not its key", self.verify(write_log(), "--key-file", key).stderr)

    def test_rotated_files_are_one_chain(self):
        log = write_log(4)
        old, new = self.write("old", "".join(log[:2])), self.write("new", "".join(log[2:]))
        self.assertEqual(postern("audit", "verify", old, new).returncode, 0)
        self.assertIn("line 1: seq is 3", postern("audit", "verify", new, old).stderr)

    def test_show(self):
        done = postern("audit", "show", self.write("log", "".join(write_log(2))))
        self.assertEqual(done.returncode, 0)
        self.assertEqual(done.stdout.splitlines()[0],
                         "2026-01-01T00:00:01.000000Z refused 192.0.2.1 /x?[31m 401 bad-token")
        done = postern("audit", "show", "--json", self.path("log"))
        self.assertEqual(done.stdout, pathlib.Path(self.path("log")).read_text())

    def show(self, *options):
        done = postern("audit", "show", "--json", *options, self.path("log"))
        self.assertEqual(done.returncode, 0, done)
        return [json.loads(line)["seq"] for line in done.stdout.splitlines()]

    def test_show_some(self):
        lines = write_log(9)
        for seq in (2, 5):  # show does not check the chain: verify does
            lines[seq - 1] = lines[seq - 1].replace('"refused"', f'"received","request_id":"r{seq}"')
        self.write("log", "".join(lines))
        self.assertEqual(self.show(), list(range(1, 10)))
        self.assertEqual(self.show("-n", "3"), [7, 8, 9])
        self.assertEqual(self.show("-n", "9"), list(range(1, 10)))
        self.assertEqual(self.show("-n", "100"), list(range(1, 10)))
        self.assertEqual(self.show("--event", "received"), [2, 5])
        self.assertEqual(self.show("--event", "received", "-n", "1"), [5])
        self.assertEqual(self.show("--request", "r2"), [2])
        self.assertEqual(self.show("--request", "r3"), [])

    def test_show_a_torn_log(self):
        """What is whole is shown, and the rest is said."""
        self.write("log", "".join(write_log(4)) + '{"v":1,"seq":5')
        for options in ((), ("-n", "2")):
            done = postern("audit", "show", *options, self.path("log"))
            self.assertEqual((done.returncode, len(done.stdout.splitlines())), (1, 2 if options else 4), done)
            self.assertIn("log line 5: the line is not whole", done.stderr)

    def test_show_lets_no_terminal_command_through(self):
        line = write_log(1)[0].replace("bad-token", "\\u009b2J\\u0007\\u007f\u009b2J")
        done = postern("audit", "show", self.write("log", line))
        self.assertRegex(done.stdout, r"401 \?2J\?\?\?2J\n$")

    def test_wrong_usage(self):
        for words in (["audit", "show", "-n", "0", "x"], ["audit", "show", "--event", "refusd", "x"],
                      ["audit", "verify", "-n", "1", "x"], ["audit", "verify", "--event", "cut", "x"],
                      ["audit"], ["audit", "look"], ["audit", "verify"], ["audit", "verify", "--head", "5", "x"],
                      ["audit", "verify", "--nope", "x"], ["audit", "show", "--head", "1:" + "0" * 64, "x"]):
            with self.subTest(words):
                done = postern(*words)
                self.assertEqual(done.returncode, 2)
                self.assertIn("usage:", done.stderr)


main()
