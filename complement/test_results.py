"""Tests of results.py. Run by `ci`: python3 -m unittest discover complement"""

import json
import pathlib
import tempfile
import unittest
from unittest import mock

import results

CSAPI = "tests/csapi"


def event(action, test=None, package=CSAPI):
    row = {"Action": action, "Package": results.SUITE + package}
    return json.dumps(row if test is None else {**row, "Test": test})


def outcomes(**tests):
    return {(CSAPI, name): outcome for name, outcome in tests.items()}


class Collect(unittest.TestCase):
    def test_reads_groups_and_subtests(self):
        log = [event("run", "TestA"), event("run", "TestA/b c"), event("pass", "TestA/b c"),
               event("pass", "TestA"), event("skip", "TestS"), "no json", event("pass")]  # fmt: skip
        expected = {(CSAPI, "TestA"): "pass", (CSAPI, "TestA/b c"): "pass", (CSAPI, "TestS"): "skip"}
        self.assertEqual(expected, results.collect(log))

    def test_a_test_that_never_ended_failed(self):
        log = [event("run", "TestA"), event("pass", "TestA"), event("run", "TestB"), event("fail")]
        self.assertEqual(outcomes(TestA="pass", TestB="fail"), results.collect(log))

    def test_a_package_that_does_not_compile_is_a_failure(self):
        self.assertEqual({(CSAPI, ""): "fail"}, results.collect([event("fail")]))


class Compare(unittest.TestCase):
    def test_a_test_made_to_fail_is_found(self):
        stored = outcomes(TestA="pass", TestB="fail", TestC="pass")
        new = outcomes(TestA="pass", TestB="pass", TestC="fail")
        lost, won = results.compare(stored, new, complete=True)
        self.assertEqual(([(CSAPI, "TestC")], [(CSAPI, "TestB")]), (lost, won))

    def test_a_skip_is_no_pass(self):
        lost, _ = results.compare(outcomes(TestA="pass"), outcomes(TestA="skip"), complete=True)
        self.assertEqual([(CSAPI, "TestA")], lost)

    def test_a_missing_test_counts_only_in_a_complete_run_of_its_package(self):
        stored = {**outcomes(TestA="pass", TestB="pass"), ("tests", "TestF"): "pass"}
        new = outcomes(TestB="pass")
        self.assertEqual([], results.compare(stored, new, complete=False)[0])
        self.assertEqual([(CSAPI, "TestA")], results.compare(stored, new, complete=True)[0])

    def test_a_test_that_passes_the_second_time_is_no_regression(self):
        first = outcomes(TestFlaky="fail", TestBroken="fail")
        second = outcomes(TestFlaky="pass", TestBroken="fail")
        stored = outcomes(TestFlaky="pass", TestBroken="pass")
        lost, _ = results.compare(stored, results.merge(first, second), complete=True)
        self.assertEqual([(CSAPI, "TestBroken")], lost)

    def test_only_the_groups_of_lost_tests_run_again(self):
        lost = [(CSAPI, "TestA/b c"), (CSAPI, "TestA"), (CSAPI, "TestD")]
        self.assertEqual("^(TestA|TestD)$", results.groups_of(lost))


class Store(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.here = pathlib.Path(folder.name)
        patch = mock.patch.object(results, "HERE", self.here)
        patch.start()
        self.addCleanup(patch.stop)

    def test_lines_are_sorted_and_stable(self):
        results.store(outcomes(TestB="fail", TestA="pass"), complete=True)
        path = self.here / "results" / "tests_csapi.jsonl"
        first = path.read_text(encoding="utf-8")
        self.assertEqual(["TestA", "TestB"], [json.loads(line)["test"] for line in first.splitlines()])
        results.store(results.read_stored(), complete=True)
        self.assertEqual(first, path.read_text(encoding="utf-8"))

    def test_a_partial_run_keeps_the_rest(self):
        results.store(outcomes(TestA="pass", TestB="fail"), complete=True)
        results.store(outcomes(TestB="pass"), complete=False)
        self.assertEqual(outcomes(TestA="pass", TestB="pass"), results.read_stored())
        results.store(outcomes(TestB="pass"), complete=True)
        self.assertEqual(outcomes(TestB="pass"), results.read_stored())


class Report(unittest.TestCase):
    def test_without_a_result_it_says_so(self):
        self.assertIn("No result is stored", results.report({}, {}))

    def test_counts_and_the_most_precise_reason(self):
        tests = {(CSAPI, "TestA"): "fail", (CSAPI, "TestA/b"): "pass", (CSAPI, "TestA/c"): "fail",
                 (CSAPI, "TestB"): "pass", (CSAPI, "TestS"): "skip", (CSAPI, "TestX"): "fail"}  # fmt: skip
        reasons = {"tests/csapi TestA": "Media: not built yet.", "tests/csapi TestA/c": "A bug."}
        text = results.report(tests, reasons)
        self.assertIn("| `tests/csapi` | 1/3 = 33.3% | 1/2 = 50.0% |", text)
        self.assertIn("- `TestA`: Media: not built yet.\n- `TestA/c`: A bug.\n", text)
        self.assertIn("- `TestX`: **Not looked into yet.**", text)
        self.assertNotIn("TestS", text)


class Repository(unittest.TestCase):
    def test_the_document_is_the_one_that_the_results_make(self):
        self.assertEqual(0, results.run_report(check=True))


if __name__ == "__main__":
    unittest.main()
