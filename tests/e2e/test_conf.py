"""postern.conf as posternd takes it: what -t and -T say, where errors are, which files it trusts, and what a reload refuses."""
# labels: gate
import os
import pathlib
import shutil
import unittest

from harness import BIN, ROOT, Backend, Gateway, Pki, main, run

PKI = Pki()
GOLDEN = ROOT / "tests" / "golden" / "conf"


def tearDownModule():
    PKI.remove()


def posternd(*arguments):
    return run(BIN / "posternd", *arguments, timeout=30)


class Check(unittest.TestCase):
    def setUp(self):
        self.gate = Gateway(PKI, start=False)
        self.addCleanup(self.gate.remove)

    def refused(self, *lines, mode="-t"):
        """Exit 78, nothing on standard output, and exactly these lines, DIR being the gate's folder."""
        done = posternd(mode, "-c", self.gate.conf_file)
        self.assertEqual((done.returncode, done.stdout), (78, ""), done)
        self.assertEqual([line.replace(str(self.gate.dir), "DIR") for line in done.stderr.splitlines()], list(lines))

    def test_all_errors_with_every_way_to_ask(self):
        good = pathlib.Path(self.gate.conf_file).read_text()
        self.gate.write_conf(good + "\nworkers = 2;\nsnapshot = ( );\naudit2 = { };\n")
        first = good.count("\n") + 2
        lines = (f"DIR/postern.conf:{first}: workers: there is no such setting",
                 f"DIR/postern.conf:{first + 1}: snapshot: there is no such setting; did you mean 'snapshots'?",
                 f"DIR/postern.conf:{first + 2}: audit2: there is no such setting; did you mean 'audit'?")
        self.refused(*lines)
        self.refused(*lines, mode="-T")
        done = posternd("-c", self.gate.conf_file)
        self.assertEqual(done.returncode, 78)
        for line in lines:
            self.assertIn(line.replace("DIR", str(self.gate.dir)), done.stderr)

    def test_golden_files(self):
        """Each is refused by the daemon with the unit test's messages, those about files that are not there aside."""
        files = sorted(GOLDEN.glob("*.conf"))
        self.assertGreaterEqual(len(files), 40)
        for file in files:
            with self.subTest(file.name):
                copy = self.gate.write("golden.conf", file.read_text())
                done = posternd("-t", "-c", copy)
                self.assertEqual(done.returncode, 78, done)
                said = done.stderr.replace(str(copy), "x.conf").splitlines()
                for line in file.with_suffix(".err").read_text().splitlines():
                    if "works in files only" not in line:
                        self.assertIn(line, said)

    def test_printed_is_the_same_and_holds_no_secret(self):
        secret = "0123456789abcdef0123456789abcdef"
        self.gate.conf["audit"]["key_file"] = str(self.gate.write("audit.key", secret + "\n"))
        os.chmod(self.gate.path("audit.key"), 0o600)
        self.gate.write_conf()
        first = posternd("-T", "-c", self.gate.conf_file)
        self.assertEqual(first.returncode, 0, first)
        self.assertNotIn(secret, first.stdout)
        self.assertNotIn("PRIVATE KEY", first.stdout)
        self.gate.write("again.conf", first.stdout)
        self.assertEqual(posternd("-T", "-c", self.gate.path("again.conf")).stdout, first.stdout)

    def test_include(self):
        good = pathlib.Path(self.gate.conf_file).read_text()
        os.mkdir(self.gate.path("parts"), 0o755)
        self.gate.write("parts/all.conf", good)
        for path in ("parts/all.conf", self.gate.path("parts/all.conf")):
            self.gate.write_conf(f'# all of it:\n@include "{path}"\n')
            self.assertEqual(posternd("-t", "-c", self.gate.conf_file).returncode, 0, path)
        self.gate.write("parts/all.conf", "\n\nworkres = 1;\n" + good)
        self.refused("DIR/parts/all.conf:3: workres: there is no such setting")
        self.gate.write("parts/all.conf", good)
        os.chmod(self.gate.path("parts/all.conf"), 0o666)
        self.refused("DIR/postern.conf:2: @include: DIR/parts/all.conf: others than its owner may write it (mode 0666): chmod go-w")

    def test_files_that_others_may_touch(self):
        key = shutil.copy(PKI.server.key, self.gate.path("server.key"))
        self.gate.conf["tls"]["key"] = key
        self.gate.write_conf()
        line = next(i for i, text in enumerate(pathlib.Path(self.gate.conf_file).read_text().splitlines(), 1) if key in text)
        for mode, text in ((0o640, "it is a secret that others than its owner may read (mode 0640): chmod 600"),
                           (0o602, "others than its owner may write it (mode 0602): chmod go-w")):
            os.chmod(key, mode)
            self.refused(f"DIR/postern.conf:{line}: tls.key: DIR/server.key: {text}")
        os.chmod(key, 0o600)
        self.assertEqual(posternd("-t", "-c", self.gate.conf_file).returncode, 0)
        os.chmod(self.gate.conf_file, 0o664)
        self.refused("DIR/postern.conf: others than its owner may write it (mode 0664): chmod go-w")
        os.chmod(self.gate.conf_file, 0o644)
        os.chmod(self.gate.dir, 0o777)
        done = posternd("-t", "-c", self.gate.conf_file)
        os.chmod(self.gate.dir, 0o700)
        self.assertEqual(done.returncode, 78, done)
        self.assertIn("others may change the folder that it lies in", done.stderr)

    def test_names_of_users_are_numbers_of_this_host(self):
        self.gate.conf["admin"]["allow_uids"] = ["root", "daemon"]
        self.gate.write_conf()
        self.assertIn('allow_uids = [ "0", "1" ]', posternd("-T", "-c", self.gate.conf_file).stdout)
        self.gate.conf["admin"]["allow_uids"] = ["nobody-of-this-name"]
        self.gate.write_conf()
        done = posternd("-t", "-c", self.gate.conf_file)
        self.assertEqual(done.returncode, 78)
        self.assertIn('admin.allow_uids: "nobody-of-this-name" is neither a number nor a user of this host', done.stderr)


class Reload(unittest.TestCase):
    def test_a_bad_one_changes_nothing(self):
        with Backend() as backend, Gateway(PKI, targets={"t": backend}) as gate:
            gate.open()
            before = gate.status()["generation"]
            gate.write_conf(pathlib.Path(gate.conf_file).read_text() + '\nacl2 = { };\nrevoked_file = "/x";\n')
            answer = gate.reload()
            self.assertEqual(answer.status, 422, answer)
            self.assertIn(b"did you mean 'acl'?", answer.body)
            self.assertIn(b"revoked_file: this is not built yet; leave it out", answer.body)
            self.assertEqual(gate.status()["generation"], before)
            self.assertEqual(gate.get("/targets/t/debug/pprof/heap", cert=PKI.client()).status, 200)
            self.assertIn("acl2", str(gate.wait_audit(event="reload_failed")))

    def test_an_included_file_is_read_again(self):
        with Backend() as backend, Gateway(PKI, targets={"t": backend}, start=False) as gate:
            text = pathlib.Path(gate.conf_file).read_text()
            gate.write("part.conf", text)
            gate.write_conf('@include "part.conf"\n')
            gate.start()
            gate.open()
            gate.conf["grants"] = []
            gate.write("part.conf", pathlib.Path(gate.write_conf()).read_text())
            gate.write_conf('@include "part.conf"\n')
            self.assertEqual(gate.reload().status, 200)
            self.assertEqual(gate.get("/targets/t/debug/pprof/heap", cert=PKI.client()).status, 403)


main()
