# labels: gate
"""`postern acl`: the verdict that the gate would give, and rules that the firewall takes."""
import json
import os
import shutil
import unittest

from harness import Pki, TempDir, default_configuration, libconfig, main, merge, postern, run


class Acl(unittest.TestCase):
    def setUp(self):
        self.pki, self.folder = Pki(), TempDir()
        self.addCleanup(self.pki.remove)
        self.addCleanup(self.folder.remove)

    def conf(self, allow, deny, listen="127.0.0.1:6061"):
        groups = merge(default_configuration(self.pki, self.folder.dir, [("t", {"address": "127.0.0.1:9"}, True)]),
                       {"acl": {"allow": allow, "deny": deny}, "gateway": {"listen": [listen]}})
        return self.folder.write("postern.conf", "".join(f"{k} = {libconfig(v)};\n" for k, v in groups.items()))

    def test_verdicts(self):
        path = self.conf(["10.0.0.0/8", "2001:db8::/32"], ["10.1.0.0/16"])
        for address, code, word in (("10.2.3.4", 0, "10.0.0.0/8"), ("10.1.2.3", 1, "10.1.0.0/16"),
                                    ("192.0.2.1", 1, "acl.allow"), ("2001:db8::7", 0, "2001:db8::/32"),
                                    ("localhost", 2, "not an IP address"), ("::ffff:10.0.0.1", 2, "a.b.c.d")):
            with self.subTest(address):
                done = postern("acl", "test", address, "-c", path)
                self.assertEqual(done.returncode, code, done.stderr)
                self.assertIn(word, done.stdout + done.stderr)
        done = postern("acl", "test", "10.1.2.3", "-c", path, "--json")
        self.assertEqual(json.loads(done.stdout), {"address": "10.1.2.3", "allowed": False, "entry": "10.1.0.0/16"})

    def test_a_bad_configuration_is_named(self):
        path = self.conf(["10.0.0.1/8"], [])
        done = postern("acl", "test", "10.1.2.3", "-c", path)
        self.assertEqual(done.returncode, 1)
        self.assertIn("10.0.0.0/8", done.stderr)
        self.assertIn("acl.allow", done.stderr)

    def test_firewall(self):
        done = postern("acl", "nftables", "-c", self.conf(["10.0.0.0/8", "10.3.0.0/16"], ["10.1.0.0/16", "::/0"]))
        self.assertEqual(done.returncode, 0, done.stderr)
        for word in ("10.0.0.0/8", "10.1.0.0/16", "::/0", "tcp dport 6061 jump gate"):
            self.assertIn(word, done.stdout)
        if shutil.which("nft") and os.geteuid() == 0:
            checked = run("nft", "-c", "-f", self.folder.write("rules", done.stdout))
            self.assertEqual(checked.returncode, 0, checked.stderr)
        done = postern("acl", "nftables", "-c", self.conf(["10.0.0.0/8"], [], listen="127.0.0.1:0"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("fixed port", done.stderr)


main()
