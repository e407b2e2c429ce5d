# labels: gate
"""A target's `uid`: whose server must be listening there, asked of the kernel before a byte is sent."""
import os
import unittest

from harness import Backend, Gateway, Pki, main


class TargetUid(unittest.TestCase):
    def test_somebody_elses_server_gets_nothing(self):
        stranger = 65534 if os.getuid() != 65534 else 65533
        for unix in (False, True):
            for uid, status in ((os.getuid(), 200), (stranger, 502)):
                with self.subTest(unix=unix, uid=uid), Pki() as pki, Backend(unix=unix) as backend, \
                        Gateway(pki, targets={"t": {**backend.target, "uid": uid}}) as gate:
                    gate.open()
                    answer = gate.get("/debug/pprof/heap", cert=pki.client())
                    self.assertEqual(answer.status, status, answer.body)
                    self.assertEqual(len(backend.requests), 1 if status == 200 else 0)
                    if status == 502:
                        self.assertEqual(gate.wait_audit(event="completed")["reason"], "target-down")


main()
