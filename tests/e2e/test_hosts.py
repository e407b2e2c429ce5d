# labels: sampler slow
# timeout: 300
"""Programs that do what samplers do not expect: what they print and how they end is the same under the sampler,
while profiles and thread dumps are taken all the time, as without. HOSTS_SECONDS makes each last longer."""
import contextlib
import http.client
import os
import pathlib
import re
import shutil
import subprocess
import threading
import unittest
import unittest.mock

from harness import BUILD, SAMPLER, TempDir, UnixConnection, main

SECONDS = float(os.environ.get("HOSTS_SECONDS", "2"))
HERE = pathlib.Path(__file__).resolve().parent
LIBRARIES = pathlib.Path("/usr/lib/x86_64-linux-gnu")
PATHS = ("/debug/pprof/profile?seconds=1", "/debug/pprof/wall?seconds=1", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap",
         "/debug/pprof/trace?seconds=0.3")


class HostTest(unittest.TestCase):
    def setUp(self):
        self.bodies = {}  # by path, the last answer

    @classmethod
    def setUpClass(cls):
        cls.folder = cls.enterClassContext(TempDir())
        cls.program = cls.build("hosts.c", "-pthread", "-Wno-array-bounds")

    @classmethod
    def build(cls, source, *options, name=None, compiler="gcc"):
        program = cls.folder.path(name or source.split(".")[0])
        subprocess.run([compiler, "-D_GNU_SOURCE", "-O2", "-g", "-fno-omit-frame-pointer", "-o", program, HERE / source, *options], check=True)
        return program

    def ask(self, path, answers, done):
        while not done.wait(0.01):
            connection = UnixConnection(self.folder.path("s.sock"))
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("GET", path)
                answer = connection.getresponse()
                self.bodies[path] = answer.read().decode(errors="replace")
                answers[path] = answers.get(path, 0) + (answer.status == 200)
            connection.close()

    def start(self, command, env):
        return subprocess.Popen([str(word) for word in command], env=env, cwd=self.folder.dir, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    def under_sampler(self, command, preload="", paths=PATHS, **env):
        """How it ended, what it printed, what stood on standard error but for our own lines, those, and how
        many answers the sampler gave meanwhile."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.folder.path("s.sock"))
        env = {**os.environ, "LD_PRELOAD": preload or str(SAMPLER), "POSTERN_LISTEN": f"unix:{self.folder.path('s.sock')}",
               "POSTERN_RUNTIME_DIR": str(self.folder.dir), "POSTERN_MUTEX_FRACTION": "1", "POSTERN_BLOCK_RATE": "1", **env}
        if not env["LD_PRELOAD"].strip():
            del env["LD_PRELOAD"]
        answers, done = {}, threading.Event()
        askers = [threading.Thread(target=self.ask, args=(path, answers, done)) for path in paths]
        process = self.start(command, env)
        for asker in askers:
            asker.start()
        try:
            out, errors = process.communicate(timeout=SECONDS * 4 + 40)
        finally:
            process.kill()
            done.set()
            for asker in askers:
                asker.join()
        ours = [line for line in errors.splitlines() if line.startswith("postern: ")]
        theirs = "".join(line for line in errors.splitlines(True) if not line.startswith("postern: "))
        return (process.returncode, out, theirs), ours, answers

    def alone(self, command, **env):
        process = self.start(command, {**os.environ, **env})
        out, errors = process.communicate(timeout=60)
        return process.returncode, out, errors

    def same(self, mode, answers=True, before=(), paths=PATHS):
        alone = self.alone([*before, self.program, mode, "0.2"])
        sampled, ours, given = self.under_sampler([*before, self.program, mode, str(SECONDS)], paths=paths)
        self.assertEqual((sampled, ours), (alone, []), mode)
        if answers:
            self.assertTrue(all(given.get(path) for path in PATHS), (mode, given))


class Hosts(HostTest):
    def test_memory(self):
        self.same("memory")

    def test_own_signals(self):
        self.same("signals")

    def test_own_perf_events(self):
        self.same("perf")

    def test_clone_without_the_c_library(self):
        self.same("clone")

    def test_confined_by_refusal(self):
        self.same("denied", answers=False)

    def test_confined_by_death(self):
        self.same("deadly", answers=False)

    def test_a_thread_in_strict_confinement(self):
        for source in ("auto", "timer"):
            with self.subTest(source), unittest.mock.patch.dict(os.environ, POSTERN_CPU_SOURCE=source):
                self.same("strict", answers=False)

    def test_no_descriptors(self):
        self.same("files", answers=False)

    def test_no_locked_memory_no_queued_signals(self):
        self.same("room")

    def test_no_address_space(self):
        self.same("space", answers=False)

    def test_small_stacks(self):
        self.same("stacks")

    def test_vfork_and_posix_spawn(self):
        self.same("spawns")

    def test_crash_handler(self):
        self.same("crash")

    def test_abort(self):
        self.same("abort")

    def test_exit_at_once(self):
        self.same("leave", answers=False)

    def test_another_program_in_its_place(self):
        self.same("become", answers=False)

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_another_root(self):
        self.same("roots", answers=False)

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_no_proc(self):
        self.same("memory", answers=False, before=("/usr/bin/unshare", "-m", "/bin/sh", "-c",
                                                   'umount -l /proc && exec "$@"', "sh"))

    def test_a_core_shows_the_programs_own_fault(self):
        if pathlib.Path("/proc/sys/kernel/core_pattern").read_text().strip() != "core" or not shutil.which("gdb"):
            self.skipTest("cores do not stay in the folder here, or there is no gdb")
        core = pathlib.Path(self.folder.path("core"))
        self.under_sampler(["/bin/sh", "-c", 'ulimit -c unlimited && exec "$@"', "sh", self.program, "crash", "1"], POSTERN_CHILDREN="follow")
        cores = [core, *core.parent.glob("core.*")]
        said = subprocess.run(["gdb", "-q", "-batch", "-ex", "bt", self.program, *[path for path in cores if path.exists()][:1]],
                              capture_output=True, text=True, check=False).stdout
        self.assertRegex(said, r"#0 .*crash_here.*\n#1 .*crashes", said)

    def test_exceptions_and_own_operator_new(self):
        program = self.build("hosts_throw.cc", "-pthread", compiler="g++")
        alone = self.alone([program, "0.2"])
        self.assertEqual(alone[1], "caught: 1, left over: 0\n")
        sampled, ours, given = self.under_sampler([program, str(SECONDS)])
        self.assertEqual((sampled, ours), (alone, []))
        self.assertTrue(all(given.get(path) for path in PATHS), given)


class Allocators(HostTest):
    """Other allocators, linked and preloaded, before the sampler and after it."""
    NAMES = {"jemalloc": "libjemalloc.so.2", "tcmalloc": "libtcmalloc.so.4", "tcmalloc_minimal": "libtcmalloc_minimal.so.4", "mimalloc": "libmimalloc.so.2.0"}

    def each(self):
        for name, file in self.NAMES.items():
            library = LIBRARIES / file
            with self.subTest(name):
                if not library.exists():
                    self.skipTest(f"{library} is not there")
                yield name, library

    def check(self, program, preload):
        sampled, ours, given = self.under_sampler([program, "memory", str(SECONDS)], preload=preload)
        self.assertEqual((sampled, ours), ((0, "as it should be\n", ""), []))
        self.assertTrue(all(given.get(path) for path in PATHS), given)

    def test_preloaded_before_us(self):
        for _, library in self.each():
            self.check(self.program, f"{library}:{SAMPLER}")

    def test_preloaded_after_us(self):
        for _, library in self.each():
            self.check(self.program, f"{SAMPLER}:{library}")

    def test_linked(self):
        for name, library in self.each():
            self.check(self.build("hosts.c", "-pthread", "-Wno-array-bounds", "-Wl,--no-as-needed", library, name=name), "")


class Checked(HostTest):
    """Under tools that watch memory or threads themselves, and with another's rights, the sampler stays off."""

    def off(self, why, *options, compiler="gcc", **env):
        program = self.build("hosts.c", "-pthread", "-Wno-array-bounds", *options, name="checked", compiler=compiler)
        sampled, ours, given = self.under_sampler([program, "memory", "1"], **env)
        self.assertEqual(sampled[:2], (0, "as it should be\n"), (sampled, ours))
        self.assertEqual(ours, [f"postern: off: this program {why}"] if why else [])
        self.assertFalse(any(given.values()), given)

    def test_address_sanitizer(self):
        self.off("is built with AddressSanitizer", "-fsanitize=address")

    def test_leak_sanitizer(self):
        self.off("is built with LeakSanitizer", "-fsanitize=leak")

    def test_thread_sanitizer(self):
        self.off("is built with ThreadSanitizer", "-fsanitize=thread")

    def test_clangs_sanitizers(self):
        self.off("is built with AddressSanitizer", "-fsanitize=address", compiler="clang")
        self.off("is built with MemorySanitizer", "-fsanitize=memory", compiler="clang")
        self.off("is built with ThreadSanitizer", "-fsanitize=thread", compiler="clang")

    @unittest.skipUnless(shutil.which("valgrind"), "no valgrind")
    def test_valgrind(self):
        # Follows, because valgrind is a program that executes a program.
        sampled, ours, _ = self.under_sampler(["valgrind", "-q", self.program, "memory", "1"], POSTERN_CHILDREN="follow")
        self.assertEqual(sampled, (0, "as it should be\n", ""))
        self.assertEqual(ours[-1], "postern: off: this program runs under valgrind")

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_another_users_rights(self):
        top = HERE.parent.parent
        source = self.folder.write("own.c", """#include <stdio.h>
            #include "sampler/postern.h"
            int main(void) { puts(postern_start(NULL, NULL) ? "refused" : "started"); return 0; }""")
        program = self.folder.path("own")
        subprocess.run(["gcc", "-I", top, "-o", program, source, BUILD / "lib/libpostern.a", "-pthread"], check=True)
        os.chmod(program, 0o4755)
        os.chmod(self.folder.dir, 0o755)
        done = subprocess.run(["/usr/bin/setpriv", "--reuid=65534", "--clear-groups", program], capture_output=True, text=True, check=False,
                              env={"POSTERN_LISTEN": f"unix:{self.folder.path('s.sock')}"})
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "refused\n", ""))


class Static(HostTest):
    """Programs without a loader."""

    def flags(self):
        """As pkg-config says them where it is installed."""
        lines = (BUILD / "sampler/postern-static.pc").read_text().splitlines()
        return ["-I", HERE.parent.parent, *re.search("^Libs: (.*)", "\n".join(lines), re.M)[1].replace("${libdir}", f"{BUILD}/lib").split()]

    def check(self, program, *arguments):
        sampled, ours, given = self.under_sampler([program, *arguments, str(SECONDS)], preload=" ")
        self.assertEqual((sampled[0], sampled[2], ours), (0, "", []))
        self.assertTrue(all(given.get(path) for path in PATHS), given)
        return sampled[1]

    def test_everything_works(self):
        for way in ("-static", "-static-pie"):
            program = self.build("hosts.c", "-Wno-array-bounds", way, *self.flags(), name="static")
            for mode in ("memory", "signals", "stacks"):
                with self.subTest(way, mode=mode):
                    self.assertEqual(self.check(program, mode), "as it should be\n")

    def test_cpp(self):
        program = self.build("hosts_throw.cc", "-static", *self.flags(), name="static_throw", compiler="g++")
        self.assertEqual(self.check(program), "caught: 1, left over: 0\n")

    def test_stacks_are_whole_and_allocations_are_seen(self):
        program = self.build("hosts.c", "-Wno-array-bounds", "-static", *self.flags(), name="static")
        paths = ("/debug/pprof/heap?debug=1", "/debug/pprof/goroutine?debug=1")
        sampled, _, given = self.under_sampler([program, "memory", str(SECONDS)], preload=" ", paths=paths,
                                                POSTERN_LINES=str(BUILD / "bin/postern-lines"))
        self.assertEqual(sampled[0], 0)
        self.assertTrue(all(given.values()), given)
        self.assertIn("allocate+", self.bodies[paths[0]])
        self.assertRegex(self.bodies[paths[1]], r"(?s)\tmemory\+.*\t_start\+")
        self.assertRegex(self.bodies[paths[1]], r"\tmemory\+.*/hosts\.c:[1-9]")

    def test_the_wrong_archive_says_which_is_right(self):
        program = self.build("hosts.c", "-Wno-array-bounds", "-static", BUILD / "lib/libpostern.a", "-pthread", name="static_wrong")
        done = subprocess.run([program, "memory", "0.1"], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 127)
        self.assertIn("libpostern_static.a", done.stderr)

    def test_exec_says_why_not(self):
        source = self.folder.write("plain.c", "int main(void) { return 0; }")
        for compiler, options, why in (("gcc", ["-static"], "postern-static"), ("musl-gcc", [], "musl"), ("musl-gcc", ["-static"], "postern-static")):
            with self.subTest(compiler, options=options):
                if not shutil.which(compiler):
                    self.skipTest(f"no {compiler}")
                program = self.folder.path("plain")
                subprocess.run([compiler, *options, "-o", program, source], check=True)
                done = subprocess.run([BUILD / "bin/postern", "exec", "--", program], capture_output=True, text=True, check=False)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(why, done.stderr)
                self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)


if __name__ == "__main__":
    main()
