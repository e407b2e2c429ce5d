"""What runs while access closes, the configuration changes, or posternd stops."""
# labels: gate
import signal
import threading
import time
import unittest

from harness import Backend, Gateway, Pki, main, wait_for

PKI = Pki()
PROFILE = "/debug/pprof/profile?seconds=1"


def tearDownModule():
    PKI.remove()


class SlowBackend(Backend):
    """Sends half an answer, and the other half when told."""

    HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 10\r\n\r\nhello"

    def __init__(self):
        self.go_on = threading.Event()
        super().__init__(lambda _: self.steps())

    def steps(self):
        yield self.HEAD
        while not self.go_on.is_set():
            yield 0.02
        yield b"world"


class Running:
    """A capture through the gate, in a thread: `answer`, or `error` in its place."""

    def __init__(self, gate, backend, count=1):
        self.answer = self.error = None
        self.thread = threading.Thread(target=self.get, args=(gate,))
        self.thread.start()
        backend.wait_request(count)

    def get(self, gate):
        try:
            self.answer = gate.get(PROFILE, cert=PKI.client())
        except Exception as error:  # whatever a cut answer shows as
            self.error = error

    def end(self, seconds=15):
        self.thread.join(seconds)
        assert not self.thread.is_alive(), "the capture still runs"
        return self.answer


class Drain(unittest.TestCase):
    def setUp(self):
        self.backend = self.enterContext(SlowBackend())

    def test_the_worker_cuts_when_the_keeper_is_stopped(self):
        with self.gateway(drain="1s") as gate:
            gate.open(ttl="2s")
            running = Running(gate, self.backend)
            gate.process.send_signal(signal.SIGSTOP)
            try:
                self.assertIsNone(running.end())
                record = gate.wait_audit(event="cut")
            finally:
                gate.process.send_signal(signal.SIGCONT)
            self.assertEqual(record["reason"], "access-closed")
            gate.wait_audit(event="expired")

    def gateway(self, drain="20s"):
        return Gateway(PKI, targets={"t": self.backend}, conf={"gateway": {"drain": drain}})

    def test_close_lets_it_end(self):
        with self.gateway() as gate:
            port = gate.open()
            running = Running(gate, self.backend)
            gate.close()
            self.assertFalse(gate.is_reachable(port))
            self.backend.go_on.set()
            self.assertEqual(running.end().body, b"helloworld")
            gate.wait_audit(event="completed")
            wait_for(lambda: len(gate.processes()) == 1, what="worker and scribe to end")
            self.assertEqual(gate.audit(event="cut"), [])

    def test_close_cuts_after_drain(self):
        with self.gateway(drain="1s") as gate:
            gate.open()
            running, begun = Running(gate, self.backend), time.monotonic()
            gate.close()
            self.assertIsNone(running.end())
            self.assertGreater(time.monotonic() - begun, 0.9)
            self.assertEqual(gate.wait_audit(event="cut")["reason"], "access-closed")
            self.assertTrue(self.backend.peer_left.wait(5))
            wait_for(lambda: len(gate.processes()) == 1, what="worker and scribe to end")

    def test_second_signal_cuts_now(self):
        with self.gateway() as gate:
            gate.open()
            running = Running(gate, self.backend)
            gate.process.send_signal(signal.SIGUSR2)
            gate.wait_audit(event="closed")
            self.assertTrue(running.thread.is_alive())
            gate.process.send_signal(signal.SIGUSR2)
            self.assertIsNone(running.end(5))
            self.assertEqual(gate.wait_audit(event="cut")["reason"], "access-closed")

    def test_opened_again_while_it_drains(self):
        with self.gateway() as gate:
            gate.open()
            running = Running(gate, self.backend)
            gate.close()
            gate.open()
            second = Running(gate, self.backend, count=2)
            self.backend.go_on.set()
            self.assertEqual(running.end().body, b"helloworld")
            self.assertEqual(second.end().body, b"helloworld")

    def test_reload_lets_it_end(self):
        with self.gateway() as gate:
            gate.open()
            running, old = Running(gate, self.backend), gate.workers()
            self.assertEqual(gate.reload().status, 200)
            wait_for(lambda: len(gate.workers()) == 2, what="a new worker beside the old one")
            self.backend.go_on.set()
            answer = running.end()
            self.assertEqual(answer.body, b"helloworld")
            wait_for(lambda: not set(gate.workers()) & set(old), what="the old worker to end")
            self.assertEqual(gate.get(PROFILE, cert=PKI.client()).status, 200)
            self.assertEqual(gate.audit(event="cut"), [])

    def test_reload_cuts_what_is_not_allowed_any_more(self):
        with self.gateway() as gate:
            gate.open()
            running = Running(gate, self.backend)
            gate.conf["grants"] = [{"match": {"scope": "pprof:read"}, "targets": ["*"], "profiles": ["*"]}]
            gate.write_conf()
            begun = time.monotonic()
            self.assertEqual(gate.reload().status, 200)
            self.assertIsNone(running.end())
            gate.wait_audit(event="cut")
            self.assertLess(time.monotonic() - begun, 1.5)
            self.assertTrue(self.backend.peer_left.wait(5))
            self.assertEqual(gate.get(PROFILE, cert=PKI.client()).status, 403)

    def test_stop_cuts_after_drain(self):
        with self.gateway(drain="1s") as gate:
            gate.open()
            running = Running(gate, self.backend)
            self.assertEqual(gate.stop(), 0)
            self.assertIsNone(running.end())
            self.assertEqual([r["event"] for r in gate.audit()][-3:], ["closed", "cut", "stopped"])
            gate.start()

    def test_expiry_while_it_runs(self):
        with self.gateway(drain="1s") as gate:
            gate.open(ttl="4s")
            running = Running(gate, self.backend)
            gate.wait_audit(event="expired")
            self.assertIsNone(running.end())
            gate.wait_audit(event="cut")


main()
