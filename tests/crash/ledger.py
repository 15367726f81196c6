"""What the server has acknowledged, and what the test has found out about it.

Every 200 is one line of the ledger's file, written before the next request of that writer, so that
after a failure the file can be read beside the data folder.
"""

import dataclasses
import json
import threading


@dataclasses.dataclass
class Event:
    """An event that the server has acknowledged."""

    room: str
    event_id: str
    author: str
    kind: str
    # What in the content belongs to this event alone.
    mark: str
    # The request that made it; sending it again must answer with the same event id.
    path: str
    body: dict
    has_txn: bool
    redacted: bool = False

    def __str__(self):
        return f"{self.event_id} ({self.kind} {self.mark!r} in {self.room})"


class Ledger:
    """The acknowledged writes of one data folder, in order of their answers."""

    def __init__(self, path):
        self.file = path.open("a")
        self.lock = threading.Lock()
        self.events = []
        self.verified = 0

    def acknowledge(self, kind, **what):
        """Writes one line; an event is kept in memory too."""
        with self.lock:
            self.file.write(json.dumps({"kind": kind, **what}) + "\n")
            self.file.flush()

    def add(self, event):
        """An acknowledged event."""
        with self.lock:
            self.file.write(json.dumps(dataclasses.asdict(event)) + "\n")
            self.file.flush()
            self.events.append(event)

    def unverified(self):
        """The events since `mark_verified`."""
        return self.events[self.verified :]

    def mark_verified(self):
        """All events up to here have been found."""
        self.verified = len(self.events)


class Report:
    """Counts what was done and what went wrong, over all data folders."""

    SHOWN_MAX = 30

    def __init__(self):
        self.lock = threading.Lock()
        self.done = dict.fromkeys(
            ("events", "state", "account data", "rooms", "users", "repeated", "checks"), 0
        )
        self.done |= dict.fromkeys(("one-time keys", "claims", "messages", "backups", "renames"), 0)
        self.wrong = dict.fromkeys(("lost", "doubled", "changed", "other id", "fsck", "other"), 0)
        self.ready_ms = []
        self.shown = 0

    def count(self, what, number=1):
        """Something was done."""
        with self.lock:
            self.done[what] += number

    def fault(self, what, message):
        """Something went wrong; the first few are printed."""
        with self.lock:
            self.wrong[what] += 1
            self.shown += 1
            if self.shown <= self.SHOWN_MAX:
                print(f"crash: {what.upper()}: {message}", flush=True)

    def check(self, holds, what, message):
        """Counts a check, and a fault if it does not hold."""
        self.count("checks")
        if not holds:
            self.fault(what, message)

    @property
    def faults(self):
        """How much went wrong."""
        return sum(self.wrong.values())
