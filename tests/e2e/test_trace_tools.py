# labels: sampler
# timeout: 300
"""What the trace writer makes, read by `go tool trace` of Go 1.19 and of the newest: every page, and the same in both."""
import pathlib
import subprocess
import unittest

from harness import BUILD, TempDir, main
from trace_tools import NEWEST, OLDEST, PROFILES, Pages, profile


class TraceTools(unittest.TestCase):
    def setUp(self):
        folder = self.enterContext(TempDir())
        self.file = pathlib.Path(folder.path("busy.trace"))
        subprocess.run([pathlib.Path(BUILD, "tests", "unit_trace")], env={"POSTERN_TRACE_FILE": str(self.file)}, check=True,
                       stdout=subprocess.DEVNULL, timeout=120, cwd=pathlib.Path(__file__).parents[2])

    def test_every_page_of_both_and_the_same_in_them(self):
        said = {}
        for go in (OLDEST, NEWEST):
            with self.subTest(go), Pages(go, self.file) as pages:
                pages.fetch_all()
                kinds = {link.partition("?")[0] for link in pages.pages}
                self.assertLessEqual({"/", "/trace", "/jsontrace", "/goroutines", "/goroutine", "/usertasks", "/usertask",
                                      "/userregions", "/userregion", "/io", "/block", "/syscall", "/sched", "/mmu"}, kinds)
                self.assertGreater(len([link for link in pages.pages if link.startswith("/jsontrace")]), 3)
                for link, page in pages.pages.items():
                    if link.startswith("/jsontrace"):
                        self.assertGreater(len(page["traceEvents"]), 5, link)
                said[go] = (pages.threads(), pages.tasks(), pages.regions())
        self.assertEqual(said[OLDEST][0], {"main": 1, "worker": 30, "io": 29})
        self.assertEqual(said[OLDEST][1], {"request": 700})
        self.assertEqual(said[OLDEST][2], {("query", "main"): 12, ("query", "worker"): 350, ("query", "io"): 338})
        self.assertEqual(said[OLDEST], said[NEWEST])

    def test_profiles_of_waits_agree(self):
        for kind in PROFILES:
            with self.subTest(kind):
                old, new = (profile(go, self.file, kind) for go in (OLDEST, NEWEST))
                self.assertGreater(sum(new.values()), 0)
                for name in ("main", "worker", "io"):
                    told = [sum(ms for stack, ms in stacks.items() if stack[0] == name) for stacks in (old, new)]
                    if kind != "sched":  # later tools count other things there
                        self.assertGreater(told[0], 0)
                        self.assertAlmostEqual(told[0], told[1], delta=told[0] / 100)
                for stack in new:
                    self.assertIn(stack[0], ("main", "worker", "io"))
                    if kind != "sched":
                        self.assertEqual(stack[-2:], ("caller", "leaf"))


if __name__ == "__main__":
    main()
