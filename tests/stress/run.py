#!/usr/bin/env python3
"""run.py LIBRARY PROGRAM MODE: the program under the sampler, with profiles and thread dumps all the time.

It must end by itself, with exit status 0, in its time (STRESS_SECONDS, default 4), and the sampler must
have answered meanwhile."""
import http.client
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time


# What is asked for while a mode runs.
ASKED = {None: ("/debug/pprof/profile?seconds=1", "/debug/pprof/goroutine?debug=2"), "dumps": ("/debug/pprof/goroutine?debug=2",)}


class Sampler(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def ask(path, what, counts, done):
    while not done.is_set():
        connection = Sampler(path)
        try:
            connection.request("GET", what)
            answer = connection.getresponse()
            answer.read()
            counts[what] = counts.get(what, 0) + (answer.status == 200)
        except OSError:
            time.sleep(0.02)  # it is starting, or has ended
        except http.client.HTTPException:
            pass
        finally:
            connection.close()


def main():
    library, program, mode = sys.argv[1:]
    seconds = float(os.environ.get("STRESS_SECONDS", "4"))
    counts, done = {}, threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "s.sock"
        env = {**os.environ, "LD_PRELOAD": library, "POSTERN_LISTEN": f"unix:{path}", "POSTERN_RUNTIME_DIR": folder}
        process = subprocess.Popen([program, mode, str(seconds)], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True)
        askers = [threading.Thread(target=ask, args=(path, what, counts, done)) for what in ASKED.get(mode, ASKED[None])]
        for asker in askers:
            asker.start()
        try:
            said = process.communicate(timeout=seconds * 3 + 30)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            said = process.communicate()[0] + "hung"
        done.set()
        for asker in askers:
            asker.join()
    print(f"{mode}: exit {process.returncode}; {said.strip()}; answers: {counts}")
    return 0 if process.returncode == 0 and all(counts.get(what) for what in counts) and counts else 1


if __name__ == "__main__":
    sys.exit(main())
