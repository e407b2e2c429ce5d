"""Keeper, worker and scribe: each killed, stopped, or with a disk that is slow or broken. The gate is then
closed or correct, never open and unaudited."""
# labels: gate
# timeout: 300
import http.client
import mmap
import os
import pathlib
import random
import re
import signal
import struct
import subprocess
import threading
import time
import unittest

from harness import ROOT, Backend, Gateway, Pki, TempDir, main, postern, wait_for

PKI = Pki()
HEAP = "/debug/pprof/heap"


def tearDownModule():
    PKI.remove()


class SlowDisk(TempDir):
    """An fdatasync() under our control, preloaded into posternd."""

    FIELDS = struct.Struct("=IIQQI")

    def __init__(self):
        super().__init__()
        library = self.path("slow_disk.so")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, str(ROOT / "tests/e2e/slow_disk.c")], check=True)
        with open(self.write("control", bytes(4096), mode=0o666), "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 4096)
        self.env = {"LD_PRELOAD": library, "SLOW_DISK": self.path("control"), "ASAN_OPTIONS": ":".join(
            filter(None, [os.environ.get("ASAN_OPTIONS"), "verify_asan_link_order=0"]))}

    def set(self, delay_ms=0, fails=False):
        self.memory[:8] = struct.pack("=II", delay_ms, fails)

    def last_call(self):
        """(when it began, when it ended), as time.monotonic()."""
        _, _, began, ended, _ = self.FIELDS.unpack_from(self.memory)
        return began / 1e9, ended / 1e9

    def calls(self):
        return self.FIELDS.unpack_from(self.memory)[4]


def get(gate, path=HEAP, **options):
    return gate.get(path, cert=PKI.client(), **options)


class Killed(unittest.TestCase):
    def test_worker(self):
        with Backend() as backend, Gateway(PKI, targets={"t": backend}) as gate:
            gate.open()
            self.assertEqual(get(gate).status, 200)
            pid = gate.workers()[0]
            os.kill(pid, signal.SIGKILL)
            died = gate.wait_audit(event="worker_died")
            self.assertIn(f"pid {pid}", died["detail"])
            self.assertIn("SIGKILL", died["detail"])
            wait_for(lambda: gate.workers() and gate.workers() != [pid], what="a new worker")
            self.assertEqual(get(gate).status, 200)
            self.assertEqual(gate.status()["state"], "open")

    def test_worker_again_and_again(self):
        with Gateway(PKI) as gate:
            gate.open()
            seen = set()
            for _ in range(5):
                pid = wait_for(lambda: next((p for p in gate.workers() if p not in seen), None), what="a new worker")
                seen.add(pid)
                os.kill(pid, signal.SIGKILL)
            gate.wait_audit(count=5, event="worker_died")
            gate.close()
            wait_for(lambda: not gate.workers(), what="no worker")

    def test_scribe(self):
        with Backend() as backend, Gateway(PKI, targets={"t": backend}) as gate:
            gate.open()
            self.assertEqual(get(gate).status, 200)
            pid = gate.scribe()
            os.kill(pid, signal.SIGKILL)
            gate.wait_audit(event="scribe_died")
            wait_for(lambda: gate.scribe() not in (None, pid), what="a new scribe")
            wait_for(lambda: get(gate).status == 200, what="an answer")
            self.assertEqual(gate.status()["state"], "open")
            # Whatever the target saw is in the log.
            wait_for(lambda: len(gate.audit(event="received")) == len(backend.requests), what="a record for each")

    def test_no_scribe_no_service(self):
        """The scribe cannot come back: 503 without a byte to the target, and after 5 s closed."""
        with Backend() as backend, Gateway(PKI, targets={"t": backend}) as gate:
            port = gate.open()
            self.assertEqual(get(gate).status, 200)
            whole = pathlib.Path(gate.audit_file).read_bytes()
            served = len(backend.requests)
            with open(gate.audit_file, "ab") as file:
                file.write(b"nonsense\n")
            os.kill(gate.scribe(), signal.SIGKILL)
            wait_for(lambda: gate.scribe() is None, what="no scribe")
            begun = time.monotonic()
            answer = get(gate)
            self.assertEqual(answer.status, 503, answer)
            self.assertEqual(len(backend.requests), served)
            wait_for(lambda: not gate.is_reachable(port), what="access to close")
            self.assertLess(time.monotonic() - begun, 8)
            self.assertEqual(gate.status()["state"], "closed")
            self.assertEqual(gate.admin("POST", "/v1/access", {"state": "open", "reason": "x"}).status, 503)
            self.assertFalse(gate.is_reachable(port))
            self.assertIn(b"\npostern_audit_up 0\n", gate.admin("GET", "/metrics").body)
            # Mended by hand: what the keeper had to say comes after all.
            pathlib.Path(gate.audit_file).write_bytes(whole)
            self.assertEqual(gate.wait_audit(event="closed")["reason"], "audit-lost")
            gate.open()

    def test_keeper(self):
        with Backend() as backend, Gateway(PKI, targets={"t": backend}) as gate:
            port = gate.open()
            self.assertEqual(get(gate).status, 200)
            gate.wait_audit(event="completed")
            gate.process.kill()
            gate.process.wait()
            wait_for(lambda: not gate.processes(), 5, "all to die with the keeper")
            self.assertFalse(gate.is_reachable(port))
            seq = gate.audit()[-1]["seq"]
            gate.start()
            self.assertEqual(gate.status()["state"], "closed")
            self.assertEqual(gate.wait_audit(count=2, event="started")["seq"], seq + 1)
            gate.open()
            self.assertEqual(get(gate).status, 200)

    def test_stuck_worker_does_not_hold_the_port(self):
        with Gateway(PKI, conf={"gateway": {"drain": "1s"}}) as gate:
            port = gate.open()
            pid = wait_for(gate.workers, what="a worker")[0]
            os.kill(pid, signal.SIGSTOP)
            gate.close()
            self.assertFalse(gate.is_reachable(port))
            wait_for(lambda: not gate.workers(), 15, "the stuck worker to be killed")
            self.assertIn("SIGKILL", gate.wait_audit(event="worker_died")["detail"])


class Chaos(unittest.TestCase):
    def test_what_a_target_sees_is_recorded(self):
        """Workers and scribes killed, reloads, under load: whatever a target sees has its record."""
        with Backend() as backend, Gateway(PKI, targets={"t": backend}, conf={"gateway": {"workers": 2}}) as gate:
            gate.open()
            self.assertEqual(get(gate).status, 200)
            over, served, port = threading.Event(), [], gate.port

            def load():
                context = gate.context(PKI.client())
                while not over.is_set():
                    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
                    try:
                        connection.request("GET", HEAP)
                        served.append(connection.getresponse().status)
                    except OSError:
                        pass  # killed under it
                    except http.client.HTTPException:
                        pass
                    finally:
                        connection.close()
            threads = [threading.Thread(target=load) for _ in range(4)]
            for thread in threads:
                thread.start()
            chance = random.Random(3)
            for _ in range(12):
                before, target = len(backend.requests), chance.choice(("worker", "scribe", "reload"))
                if target == "reload":
                    self.assertEqual(gate.reload().status, 200)
                else:
                    pids = wait_for(gate.workers if target == "worker" else lambda: [gate.scribe()], what=target)
                    if pids[0]:
                        os.kill(chance.choice(pids), signal.SIGKILL)
                wait_for(lambda: len(backend.requests) > before + 5 or gate.status()["state"] == "closed", 20, "service")
                self.assertEqual(gate.status()["state"], "open")
            over.set()
            for thread in threads:
                thread.join()
            wait_for(lambda: get(gate).status == 200, what="an answer at last")
            gate.close()
            wait_for(lambda: len(gate.processes()) == 1, what="all to be written")
            recorded = {record["request_id"] for record in gate.audit(event="received")}
            seen = {re.search(rb"(?i)\r\nx-request-id: *(\S+)", request).group(1).decode() for request in backend.requests}
            self.assertEqual(seen - recorded, set())
            self.assertEqual(len(seen), len(backend.requests))
            self.assertLessEqual(set(served), {200, 502, 503, 504})


class Signals(unittest.TestCase):
    def test_of_whole_groups(self):
        with Gateway(PKI) as gate:
            gate.open()
            wait_for(gate.workers, what="a worker")
            workers, scribe = gate.workers(), gate.scribe()
            for pid in [*workers, scribe]:
                self.assertNotEqual(os.getpgid(pid), gate.process.pid)
                for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
                               signal.SIGPIPE, signal.SIGQUIT):
                    os.kill(pid, number)
            gate.reload()
            wait_for(lambda: gate.workers() and not set(gate.workers()) & set(workers), what="new workers")
            self.assertEqual(gate.audit(event="worker_died"), [])
            self.assertEqual(gate.scribe(), scribe)

    def test_children_are_locked_in(self):
        with Gateway(PKI) as gate:
            gate.open()
            wait_for(gate.workers, what="a worker")
            for pid in [*gate.workers(), gate.scribe()]:
                def field(name):
                    text = pathlib.Path(f"/proc/{pid}/status").read_text()
                    return next(line.split()[1:] for line in text.splitlines() if line.startswith(name + ":"))
                wait_for(lambda: field("NoNewPrivs") == ["1"], what="no_new_privs")
                if os.geteuid() == 0:
                    self.assertNotIn("0", field("Uid"))
                    self.assertNotIn("0", field("Gid"))
                    self.assertEqual(field("CapEff"), ["0" * 16])
                if "asan" not in os.environ.get("POSTERN_BUILD", ""):
                    wait_for(lambda: field("Seccomp") == ["2"], what="seccomp")


class Disk(unittest.TestCase):
    def test_nothing_before_it_is_on_disk(self):
        """With fdatasync() delayed by 200 ms the target sees nothing before it returned."""
        with SlowDisk() as disk:
            seen = []

            def answer(_):
                seen.append((time.monotonic(), disk.last_call()[1]))
                return Backend.HELLO
            with Backend(answer) as backend, Gateway(PKI, targets={"t": backend}, env=disk.env) as gate:
                gate.open()
                disk.set(delay_ms=200)
                for _ in range(3):
                    calls, begun = disk.calls(), time.monotonic()
                    self.assertEqual(get(gate).status, 200)
                    self.assertGreater(disk.calls(), calls)
                    at, ended = seen[-1]
                    self.assertGreater(ended, begun)
                    self.assertGreater(at, ended)
                    self.assertGreaterEqual(at - begun, 0.2)
                disk.set()
                self.assertEqual(len(backend.requests), 3)

    def test_many_share_one_call(self):
        with SlowDisk() as disk, Backend() as backend, Gateway(PKI, targets={"t": backend}, env=disk.env) as gate:
            gate.open()
            self.assertEqual(get(gate).status, 200)
            disk.set(delay_ms=200)
            calls, answers = disk.calls(), []
            threads = [threading.Thread(target=lambda: answers.append(get(gate).status)) for _ in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            disk.set()
            self.assertEqual(answers, [200] * 20)
            self.assertLess(disk.calls() - calls, 20)
            self.assertEqual(len(gate.audit(event="received")), 21)

    def test_failed_call(self):
        with SlowDisk() as disk, Backend() as backend, Gateway(PKI, targets={"t": backend}, env=disk.env) as gate:
            gate.open()
            self.assertEqual(get(gate).status, 200)
            scribe = gate.scribe()
            disk.set(fails=True)
            self.assertEqual(get(gate).status, 503)
            self.assertEqual(len(backend.requests), 1)
            disk.set()
            wait_for(lambda: gate.scribe() not in (None, scribe), what="a new scribe")
            wait_for(lambda: get(gate).status == 200, what="an answer")
            # The file whose end may not be on disk was put aside; the chain goes on in a new one.
            self.assertIn("fdatasync failed", gate.wait_audit(event="recovered")["detail"])
            gate.wait_audit(event="scribe_died")
            gate.close()
            aside = [str(path) for path in gate.dir.glob("audit.jsonl.*")]
            self.assertEqual(len(aside), 1)
            verify = postern("audit", "verify", *aside, gate.audit_file)
            self.assertEqual(verify.returncode, 0, verify)
            gate.expect_chain = False  # begins in the middle

    def test_disk_that_hangs(self):
        with SlowDisk() as disk, Backend() as backend, Gateway(PKI, targets={"t": backend}, env=disk.env) as gate:
            port = gate.open()
            self.assertEqual(get(gate).status, 200)
            disk.set(delay_ms=12000)
            begun = time.monotonic()
            self.assertEqual(get(gate, timeout=40).status, 503)
            self.assertEqual(len(backend.requests), 1)
            wait_for(lambda: not gate.is_reachable(port), 15, "access to close")
            self.assertLess(time.monotonic() - begun, 10)
            disk.set()
            self.assertEqual(gate.wait_audit(event="closed", seconds=30)["reason"], "audit-lost")


main()
