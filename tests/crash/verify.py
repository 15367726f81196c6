"""After a restart: is everything there that was acknowledged, once, and unchanged?"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from author import quoted
from server import Connection


def marked(event):
    """What the test wrote into an event, if it wrote it and it is not redacted."""
    content = event.get("content", {})
    return content.get("body") or content.get("value") or content.get("reason")


def history(connection, room, anchor):
    """The room's events after `anchor` (all of them without one), newest first, by /messages."""
    events, token = [], ""
    while True:
        path = f"/rooms/{quoted(room)}/messages?dir=b&limit=500{token}"
        page = connection.ask("GET", path)
        for event in page["chunk"]:
            if event["event_id"] == anchor:
                return events
            events.append(event)
        if not page.get("end") or not page["chunk"]:
            return events
        token = f"&from={quoted(page['end'])}"


class Verifier:
    """Checks one data folder after each restart, from where the last check ended."""

    def __init__(self, server, ledger, report, authors, reader):
        self.server, self.ledger, self.report = server, ledger, report
        self.authors, self.reader = authors, reader
        self.by_user = {author.user_id: author for author in authors}
        # The newest event of each room at the last check.
        self.anchors = {}

    def after_restart(self):
        """Everything since the last check, each thing in every way that a client can ask."""
        events = self.ledger.unverified()
        shares = [[e for e in events if e.author == author.user_id] for author in self.authors]
        with ThreadPoolExecutor(len(self.authors)) as pool:
            # Each author's own connection, one thread each.
            list(pool.map(self._author, self.authors, shares))
        # After the repetitions, so that one that made a second event shows here.
        for room in self.reader.rooms:
            found = history(self.authors[0].connection, room, self.anchors.get(room))
            self._room(room, found, [e for e in events if e.room == room])
            if found:
                self.anchors[room] = found[0]["event_id"]
        self._reader(events)
        self.ledger.mark_verified()

    def whole(self):
        """All events of all rooms, at the end of a data folder's life."""
        for room in self.reader.rooms:
            found = history(self.authors[0].connection, room, None)
            self._room(room, found, [e for e in self.ledger.events if e.room == room])

    def _author(self, author, events):
        try:
            for event in events:
                self._event(author.connection, event)
            for path in list(author.values):
                author.check_value(path)
            self._made(author)
        except Exception as error:  # noqa: BLE001 - a thread's fault must not be lost
            self.report.fault("other", f"verifying {author.name}: {error!r}")

    def _event(self, connection, event):
        path = f"/rooms/{quoted(event.room)}/event/{quoted(event.event_id)}"
        status, found = connection.call("GET", path)
        self.report.check(status == 200, "lost", f"{event}: {status} {found}")
        if status == 200:
            expected = None if event.redacted else event.mark
            self.report.check(
                marked(found) == expected and found.get("sender") == event.author,
                "changed",
                f"{event} is now {found}",
            )
        if event.has_txn:
            status, answer = connection.call("PUT", event.path, event.body)
            self.report.check(
                status == 200 and answer.get("event_id") == event.event_id,
                "other id",
                f"{event}, sent again: {status} {answer}",
            )

    def _made(self, author):
        joined = set(author.connection.ask("GET", "/joined_rooms")["joined_rooms"])
        for room, name in author.made_rooms.items():
            path = f"/rooms/{quoted(room)}/state/m.room.name"
            status, answer = author.connection.call("GET", path)
            self.report.check(
                room in joined and answer.get("name") == name,
                "lost",
                f"room {room} ({name}): {status} {answer}, joined: {room in joined}",
            )
        author.made_rooms.clear()
        for name in author.made_users:
            author.check_login(name)
        author.made_users.clear()

    def _room(self, room, found, expected):
        ids = Counter(event["event_id"] for event in found)
        marks = Counter(
            (event["sender"], mark)
            for event in found
            if event["sender"] in self.by_user and (mark := marked(event))
        )
        for event in expected:
            times = ids[event.event_id]
            self.report.check(times > 0, "lost", f"{event} is not in the room's history")
        for event_id, times in ids.items():
            self.report.check(times == 1, "doubled", f"{room}: {event_id} comes {times} times")
        for (sender, mark), times in marks.items():
            self.report.check(times == 1, "doubled", f"{room}: {sender} {mark!r}: {times} events")

    def _reader(self, events):
        while self.reader.sync():
            pass
        for room in self.reader.rooms:
            ids = Counter(self.reader.seen[room])
            for event in events:
                if event.room == room:
                    times = ids[event.event_id]
                    self.report.check(times > 0, "lost", f"{event} never came by sync")
            for event_id, times in ids.items():
                self.report.check(times == 1, "doubled", f"{event_id}: {times} times by sync")
            # What a client was shown before the kill must not be gone after it.
            path = f"/rooms/{quoted(room)}/event/"
            shown = set(ids) - {event.event_id for event in events}
            connection: Connection = self.reader.connection
            for event_id in shown:
                status, _ = connection.call("GET", path + quoted(event_id))
                self.report.check(status == 200, "lost", f"{event_id} was shown by sync")
        self.reader.forget()
