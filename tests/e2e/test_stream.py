# labels: gate
# timeout: 300
"""Large answers, slow readers, readers that go away: memory stays flat, the target is held back or let go."""
import pathlib
import re
import socket
import time

from harness import HEAP, SANITIZED, GateTest, main, wait_for

GIB = 1 << 30
PIECE = bytes(range(256)) * 256
HEAD = f"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {GIB}\r\n\r\n".encode()
REQUEST = f"GET {HEAP} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def gibibyte(_request):
    yield HEAD
    for _ in range(GIB // len(PIECE)):
        yield PIECE


def resident(pid):
    return int(re.search(r"VmRSS:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1)) * 1024


class Stream(GateTest):
    CONF = {"limits": {"capture_bytes": "2GiB"}}

    def setUp(self):
        self.backend.peer_left.clear()
        self.backend.sent = 0
        self.backend.answer = gibibyte

    def start(self):
        connection = self.gate.tls(self.pki.client())
        connection.sendall(REQUEST)
        return connection

    def settled(self):
        """Wait until the target cannot send more: the reader is what holds it up."""
        last = [-1, time.monotonic()]

        def is_still():
            if self.backend.sent != last[0]:
                last[:] = [self.backend.sent, time.monotonic()]
            return self.backend.sent > 0 and time.monotonic() - last[1] > 1
        wait_for(is_still, 30, "the target to be held back")
        return self.backend.sent

    def test_a_slow_reader_costs_no_memory(self):
        self.backend.answer = type(self.backend).HELLO
        self.allow(cert=self.pki.client())  # what a first request needs is there
        worker = self.gate.workers()[0]
        before = resident(worker)
        self.setUp()
        with self.start() as connection:
            most = 0
            for _ in range(30):  # 10 kB/s, for three seconds
                connection.recv(1000)
                most = max(most, resident(worker) - before)
                time.sleep(0.1)
            sent = self.settled()
            most = max(most, resident(worker) - before)
        # The address sanitizer keeps what was freed for a while.
        self.assertLess(most, (8 if SANITIZED else 1) << 20, f"the worker grew by {most} bytes")
        self.assertLess(sent, 64 << 20, "nobody held the target back")
        self.assertTrue(self.backend.peer_left.wait(10))

    def test_the_client_goes_away(self):
        for name, abrupt in (("orderly", False), ("abrupt", True)):
            with self.subTest(name):
                self.setUp()
                connection = self.start()
                connection.recv(65536)
                if abrupt:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                connection.close()
                self.assertTrue(self.backend.peer_left.wait(10), "the target was not told")
        record = self.gate.wait_audit(2, event="cut")
        self.assertEqual(record["path"], HEAP)

    def test_a_silent_capture_whose_client_goes_away(self):
        self.backend.answer = ["hang"]
        before = len(self.backend.requests)
        connection = self.gate.tls(self.pki.client())
        connection.sendall(b"GET /debug/pprof/profile?seconds=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.backend.wait_request(before + 1)
        connection.close()
        self.assertTrue(self.backend.peer_left.wait(5), "the target goes on profiling for nobody")

    def test_a_quarter_of_a_gibibyte_arrives_whole(self):
        left = 256 << 20
        self.backend.answer = lambda _request: (HEAD.replace(str(GIB).encode(), str(left).encode()),
                                                *([PIECE] * (left // len(PIECE))))
        with self.start() as connection:
            connection.settimeout(60)
            data = connection.recv(65536)
            head, _, rest = data.partition(b"\r\n\r\n")
            self.assertIn(b" 200 ", head)
            received = len(rest)
            buffer = bytearray(1 << 20)
            while received < left:
                got = connection.recv_into(buffer)
                self.assertGreater(got, 0)
                received += got
        self.assertEqual(received, left)


class Cap(GateTest):
    CONF = {"limits": {"capture_bytes": "1MiB"}}

    def test_too_large_a_capture_is_cut(self):
        self.backend.answer = gibibyte
        with self.gate.tls(self.pki.client()) as connection:
            connection.sendall(REQUEST)
            connection.settimeout(30)
            received = 0
            try:
                while True:
                    got = len(connection.recv(65536))
                    if not got:
                        break
                    received += got
            except OSError:
                pass
        self.assertLess(received, 2 << 20)
        self.assertTrue(self.backend.peer_left.wait(10))
        self.gate.wait_audit(event="cut")


main()
