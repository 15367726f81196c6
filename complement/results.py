#!/usr/bin/env python3
"""The results of the suite: reads them, compares them, writes them down for people.

  results.py collect LOG OUT       `go test -json` output to JSON lines, sorted, without times
  results.py merge OLD NEW OUT     NEW over OLD; a test that passed in either passed
  results.py compare NEW [--complete] [--rerun FILE]
                                   exits 10 when a test passes in results/ and not in NEW
  results.py store NEW [--complete]    puts NEW into results/
  results.py report [--check]      writes ../docs/conformance.md from results/

Without --complete NEW holds some tests only, and what is not in it is no news. Standard library only.
"""

import argparse
import collections
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
SUITE = "github.com/matrix-org/complement/"
OUTCOMES = {"pass": "pass", "fail": "fail", "skip": "skip"}
# A package without a word of its own, in what `go test` says about the package as a whole.
PACKAGE = ""
# What `compare` exits with, unlike anything that a mishap exits with.
LOST = 10


def collect(lines):
    """Outcomes by (package, test). A test that began and never ended failed: it, or one beside it,
    brought the process down. A package that could not run at all is a failure named ""."""
    outcomes = {}
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if not isinstance(event, dict) or "Package" not in event:
            continue
        package = event["Package"].removeprefix(SUITE)
        test, action = event.get("Test", PACKAGE), event.get("Action")
        if action == "run":
            outcomes[package, test] = "fail"
        elif action in OUTCOMES:
            outcomes[package, test] = OUTCOMES[action]
    for package in {package for package, _ in outcomes}:
        whole = outcomes.pop((package, PACKAGE), "pass")
        if whole == "fail" and all(name != package for name, _ in outcomes):
            outcomes[package, PACKAGE] = "fail"
    return outcomes


def merge(old, new):
    merged = {**old, **new}
    merged.update({test: "pass" for test, outcome in old.items() if outcome == "pass"})
    return merged


def compare(stored, new, complete):
    """The tests that no longer pass, and those that newly pass. With `complete`, a test of a package
    that ran and that is gone counts as one that no longer passes."""
    packages = {package for package, _ in new}
    lost, won = [], []
    for test in sorted(stored.keys() | new.keys()):
        before, now = stored.get(test), new.get(test)
        if now is None and not (complete and test[0] in packages):
            continue
        if before == "pass" and now != "pass":
            lost.append(test)
        elif now == "pass" and before != "pass":
            won.append(test)
    return lost, won


def groups_of(tests):
    """The pattern for `go test -run` that runs the groups of these tests, whole."""
    return "^(" + "|".join(sorted({name.split("/")[0] for _, name in tests})) + ")$"


def read(path):
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return {(row["package"], row["test"]): row["outcome"] for row in rows}


def write(path, outcomes):
    rows = [
        json.dumps({"package": package, "test": test, "outcome": outcome}, ensure_ascii=False)
        for (package, test), outcome in sorted(outcomes.items())
    ]
    pathlib.Path(path).write_text("".join(row + "\n" for row in rows), encoding="utf-8")


def file_of(package):
    return HERE / "results" / (package.replace("/", "_") + ".jsonl")


def read_stored():
    stored = {}
    for path in sorted((HERE / "results").glob("*.jsonl")):
        stored.update(read(path))
    return stored


def store(new, complete):
    """Packages that ran completely are replaced, so that tests which the suite dropped go too."""
    stored = read_stored()
    # Git keeps no empty folder.
    (HERE / "results").mkdir(exist_ok=True)
    for package in sorted({package for package, _ in new}):
        kept = {} if complete else {k: v for k, v in stored.items() if k[0] == package}
        write(file_of(package), {**kept, **{k: v for k, v in new.items() if k[0] == package}})


def reason_for(reasons, package, test):
    """The reason with the longest prefix of `package test`; a prefix ends where a name may."""
    name = f"{package} {test}"
    best = max((prefix for prefix in reasons if name.startswith(prefix)), key=len, default=None)
    return None if best is None else reasons[best]


def count(outcomes, subtests):
    chosen = [o for (_, test), o in outcomes.items() if ("/" in test) == subtests and o != "skip"]
    passed = chosen.count("pass")
    return f"{passed}/{len(chosen)} = {passed / len(chosen):.1%}" if chosen else "none"


def report(outcomes, reasons):
    lines = [
        "# Conformance",
        "",
        "What Complement, the acceptance suite of the Matrix foundation, says about Causerie.",
        "Generated by `complement/results.py report` from `complement/results/`; complement/README.md",
        "says how to run the suite.",
        "",
    ]
    if not outcomes:
        lines += [
            "**No result is stored: the suite has not been run on this server yet.** Nothing is",
            "known about its conformance by this measure.",
            "",
        ]
        return "\n".join(lines)
    lines += [
        "A group is a test function of the suite, a subtest any test inside one. Skipped tests are not",
        "counted.",
        "",
        "| package | groups | subtests |",
        "|---|---|---|",
    ]
    by_package = collections.defaultdict(dict)
    for (package, test), outcome in outcomes.items():
        by_package[package][package, test] = outcome
    for package in sorted(by_package):
        of = by_package[package]
        lines.append(f"| `{package}` | {count(of, False)} | {count(of, True)} |")
    if len(by_package) > 1:
        lines.append(f"| **all** | {count(outcomes, False)} | {count(outcomes, True)} |")
    lines += ["", "## What does not pass", ""]
    failing = sorted(test for test, outcome in outcomes.items() if outcome == "fail")
    for package, test in failing:
        reason = reason_for(reasons, package, test) or "**Not looked into yet.**"
        lines.append(f"- `{test or package + ' as a whole'}`: {reason}")
    if not failing:
        lines.append("Nothing.")
    return "\n".join(lines) + "\n"


def read_reasons():
    return json.loads((HERE / "reasons.json").read_text(encoding="utf-8"))


def run_compare(arguments):
    new = read(arguments.new)
    lost, won = compare(read_stored(), new, arguments.complete)
    for package, test in won:
        print(f"complement: newly passes: {package} {test}")
    for package, test in lost:
        print(f"complement: NO LONGER PASSES: {package} {test}")
    print(f"complement: groups {count(new, False)}, subtests {count(new, True)}")
    if lost and arguments.rerun:
        pathlib.Path(arguments.rerun).write_text(groups_of(lost), encoding="utf-8")
    return LOST if lost else 0


def run_report(check):
    path = HERE.parent / "docs" / "conformance.md"
    text = report(read_stored(), read_reasons())
    if not check:
        path.write_text(text, encoding="utf-8")
    elif not path.exists() or path.read_text(encoding="utf-8") != text:
        print("complement: docs/conformance.md is not what `results.py report` writes")
        return 1
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, names in {
        "collect": ["log", "out"], "merge": ["old", "new", "out"],
        "compare": ["new"], "store": ["new"], "report": [],
    }.items():  # fmt: skip
        command = commands.add_parser(name)
        for argument in names:
            command.add_argument(argument)
        if name in ("compare", "store"):
            command.add_argument("--complete", action="store_true")
        if name == "compare":
            command.add_argument("--rerun")
        if name == "report":
            command.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    match arguments.command:
        case "collect":
            with open(arguments.log, encoding="utf-8", errors="replace") as log:
                outcomes = collect(log)
            write(arguments.out, outcomes)
            # Nothing ran: there is no result, and no comparison to be made.
            return 0 if outcomes else 1
        case "merge":
            write(arguments.out, merge(read(arguments.old), read(arguments.new)))
        case "compare":
            return run_compare(arguments)
        case "store":
            store(read(arguments.new), arguments.complete)
            return run_report(check=False)
        case "report":
            return run_report(arguments.check)
    return 0


if __name__ == "__main__":
    sys.exit(main())
