"""Encrypted talk between the libraries, in all pairs; see ../README.md.

    run.py URL [--js NODE_SCRIPT] [--nio PYTHON_SCRIPT] [--sdk BINARY] [--only js-nio]

Each library has a driver, which holds devices and does what it is told by JSON lines: requests
`{"id", "device", "do", …}`, answers `{"id", "value"}` or `{"id", "error"}`. A driver waits by itself
until what it is asked for has happened, for a bounded time. This program tells all pairs the same
story, several at once, and looks at the server behind the libraries' backs.
"""

import argparse
import itertools
import json
import secrets
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import crowd
import parts
from server import Server
from story import Story

# A driver waits for less than this until something has happened.
PATIENCE_S = 60
# How many pairs are told the story at once.
PAIRS_AT_ONCE = 3


class Failed(Exception):
    """A step failed that the rest of a story builds on."""


class Tally:
    """Counts the checks, printing those that fail as they happen."""

    def __init__(self):
        self.passed = self.failed = 0
        self.lock = threading.Lock()

    def check(self, holds, message, detail=""):
        """Counts one check; a false one is printed and the run goes on."""
        with self.lock:
            if holds:
                self.passed += 1
                return True
            self.failed += 1
            print(f"e2ee: FAILED: {message}" + (f": {detail}" if detail != "" else ""), flush=True)
            return False

    def equal(self, actual, expected, message):
        """Counts one check that two values are the same."""
        return self.check(actual == expected, message, f"{actual!r} is not {expected!r}")

    def until(self, condition, message):
        """Waits until `condition()` gives something, counts that it does, and returns it."""
        deadline = time.monotonic() + PATIENCE_S
        while not (value := condition()):
            if time.monotonic() > deadline:
                self.check(False, message, f"not within {PATIENCE_S} s")
                raise Failed(message)
            time.sleep(0.05)
        self.check(True, message)
        return value


class Driver:
    """The process of one library."""

    def __init__(self, name, command):
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.numbers = itertools.count(1)
        self.answers = {}
        self.ended = False
        self.changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def ask(self, device, do, **what):
        """One request and its answer."""
        with self.changed:
            number = next(self.numbers)
            request = {"id": number, "device": device, "do": do, **what}
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            self.changed.wait_for(lambda: number in self.answers or self.ended, PATIENCE_S)
            error = "the driver has ended" if self.ended else "no answer"
            answer = self.answers.pop(number, {"error": error})
        if "error" in answer:
            raise Failed(f"{self.name}: {device} {do} {what}: {answer['error']}")
        return answer["value"]

    def close(self):
        """Ends the process, which ends when nothing more is asked."""
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _read(self):
        for line in self.process.stdout:
            with self.changed:
                try:
                    answer = json.loads(line)
                    self.answers[answer["id"]] = answer
                except (ValueError, KeyError, TypeError):
                    print(f"{self.name}: {line}", end="", flush=True)
                self.changed.notify_all()
        with self.changed:
            self.ended = True
            self.changed.notify_all()


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--js", type=Path, help="driver.js, beside its packages")
    parser.add_argument("--nio", type=Path, help="driver.py")
    parser.add_argument("--sdk", type=Path, help="the binary")
    parser.add_argument("--only", help="one pair, as js-nio, or one part: crowd, refill, …")
    return parser.parse_args()


def told(tally, name, part, *args):
    """Tells one part to its end, or counts that it broke off; prints how long it took."""
    begun = time.monotonic()
    try:
        part(*args)
    except Exception as error:  # noqa: BLE001 - one part's fault must not end the others
        tally.check(False, f"{name} goes on to its end", error)
    print(f"e2ee: {name}: {time.monotonic() - begun:.1f} s", flush=True)


def apart(drivers):
    """What is told to single libraries: its name, and with which of them."""
    for library in drivers:
        yield f"refill-{library}", parts.refill, [library]
    if {"js", "nio"} <= set(drivers):
        yield "backlog-nio", parts.backlog, ["nio"]
        yield "dehydrated-js", parts.dehydrated, ["js"]
    if {"js", "sdk"} <= set(drivers):
        yield "fallback", parts.fallback, []
        yield "backlog-sdk", parts.backlog, ["sdk"]
        yield "dehydrated-sdk", parts.dehydrated, ["sdk"]


def start(options):
    """A driver for each library that the command line gives."""
    commands = {
        "js": ("node", options.js, options.url),
        "nio": (sys.executable, options.nio, options.url),
        "sdk": (options.sdk, options.url, "driver"),
    }
    given = {name: command for name, command in commands.items() if None not in command}
    return {name: Driver(name, [str(part) for part in given[name]]) for name in given}


def tell(options, tally, drivers):
    """All that is wanted, to all drivers."""
    server, tag = Server(options.url), secrets.token_hex(4)
    pairs = itertools.combinations_with_replacement(drivers, 2)
    with ThreadPoolExecutor(PAIRS_AT_ONCE) as pool:
        for first, second in pairs:
            name = f"{first}-{second}"
            if options.only in (None, name):
                story = Story(tally, server, f"{name}-{tag}", drivers[first], drivers[second])
                pool.submit(told, tally, name, story.tell)
        for name, part, libraries in apart(drivers):
            if options.only in (None, name, name.split("-")[0]):
                scene = parts.Part(tally, server, f"{name}-{tag}", drivers)
                pool.submit(told, tally, name, part, scene, *libraries)
    if options.only in (None, "crowd"):
        # Alone, because it measures; js comes first and is the fastest.
        driver = next(iter(drivers.values()))
        told(tally, "crowd", crowd.tell, tally, server, f"crowd-{tag}", driver)


def main():
    """Tells every story; returns the exit code."""
    options, tally = arguments(), Tally()
    drivers = start(options)
    try:
        tell(options, tally, drivers)
    finally:
        for driver in drivers.values():
            driver.close()
    print(f"e2ee: {tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
