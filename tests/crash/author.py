"""Who writes: authors that keep one request under way each, and a reader that follows by sync.

An author's request that the kill interrupts stays `pending`; after the restart it is settled as a
client would: repeated with its transaction id, or looked up where there is none.
"""

import dataclasses
import json
from urllib.parse import quote

from ledger import Event
from server import Connection, Dropped

PASSWORD = "correct horse battery staple"
STATE_TYPE = "org.causerie.crash"
FILTER = {"presence": {"types": []}, "room": {"timeline": {"limit": 1000}}}

# What an author does next, with its weight.
CHOICES = {"send": 68, "redact": 4, "state": 10, "global": 8, "room data": 6, "room": 3, "user": 1}


@dataclasses.dataclass
class Request:
    """One write: what kind, and how it is asked for."""

    kind: str
    method: str
    path: str
    body: dict
    # What it sets (state and account data), or the event that it redacts.
    target: object = None
    room: str = ""
    mark: str = ""


def quoted(text):
    """A part of a path."""
    return quote(text, safe="")


def registration(name):
    """The body that registers a user in one request."""
    return {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}


class Author:
    """One user who writes into every room of `rooms`."""

    def __init__(self, server, ledger, report, name):
        self.server, self.ledger, self.report, self.name = server, ledger, report, name
        answer = Connection(server.port).ask("POST", "/register", registration(name))
        self.user_id, self.token = answer["user_id"], answer["access_token"]
        self.connection = Connection(server.port, self.token)
        self.rooms = []
        self.number = 0
        self.pending = None
        self.own_messages = []
        # The value last acknowledged, by the path that reads it.
        self.values = {}
        self.made_rooms = {}
        self.made_users = []

    def write(self, rng):
        """Writes until the server is gone."""
        kinds, weights = list(CHOICES), list(CHOICES.values())
        try:
            while True:
                self.number += 1
                self.pending = self._next(rng, rng.choices(kinds, weights)[0])
                self._perform(self.pending)
                self.pending = None
        except Dropped:
            # It may have been another connection, and this one does not know yet.
            self.connection.close()
        except Exception as error:  # noqa: BLE001 - a thread's fault must not be lost
            self.report.fault("other", f"{self.name}: {error!r}")

    def settle(self):
        """After a restart: what was under way becomes known again."""
        request, self.pending = self.pending, None
        if request is None:
            return
        self.report.count("repeated")
        if request.kind in ("send", "redact"):
            self._perform(request)
        elif request.kind in ("state", "global", "room data"):
            self.check_value(request.target, also=request.body["value"])
        elif request.kind == "user":
            status, _ = Connection(self.server.port).call("POST", "/register", request.body)
            if status == 200:
                self.made_users.append(request.mark)
            else:
                self.check_login(request.mark)
        # A room has no transaction id: a client that got no answer asks for a second one.

    def check_value(self, path, also=None):
        """State or account data is what was acknowledged last, or else what was under way."""
        status, answer = self.connection.call("GET", path)
        expected = self.values.get(path)
        found = answer.get("value") if status == 200 else None
        self.report.check(
            found == expected or (also is not None and found == also),
            "lost",
            f"{self.name}: GET {path}: {status} {answer}, but {expected} was acknowledged",
        )
        if found is not None:
            self.values[path] = found

    def check_login(self, name):
        """A registered user can log in."""
        identifier = {"type": "m.id.user", "user": name}
        body = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
        status, answer = Connection(self.server.port).call("POST", "/login", body)
        self.report.check(status == 200, "lost", f"user {name} cannot log in: {status} {answer}")

    def _next(self, rng, kind):
        room = rng.choice(self.rooms)
        base = f"/rooms/{quoted(room)}"
        mark = f"{self.name} {self.number}"
        txn = f"txn-{self.number}"
        if kind == "redact" and self.own_messages:
            target = self.own_messages.pop(rng.randrange(len(self.own_messages)))
            path = f"/rooms/{quoted(target.room)}/redact/{quoted(target.event_id)}/{txn}"
            return Request(kind, "PUT", path, {"reason": mark}, target, target.room, mark)
        if kind == "state":
            path = f"{base}/state/{STATE_TYPE}/{self.name}"
            return Request(kind, "PUT", path, {"value": mark}, path, room, mark)
        if kind in ("global", "room data"):
            inside = base if kind == "room data" else ""
            which = f"{STATE_TYPE}.{rng.randrange(4)}"
            path = f"/user/{quoted(self.user_id)}{inside}/account_data/{which}"
            return Request(kind, "PUT", path, {"value": mark}, path)
        if kind == "room":
            return Request(kind, "POST", "/createRoom", {"name": mark}, mark=mark)
        if kind == "user":
            name = f"{self.name}-made-{self.number}"
            return Request(kind, "POST", "/register", registration(name), mark=name)
        body = {"msgtype": "m.text", "body": mark}
        path = f"{base}/send/m.room.message/{txn}"
        return Request("send", "PUT", path, body, None, room, mark)

    def _perform(self, request):
        """Sends a request and, on a 200, records it."""
        connection = self.connection
        if request.kind == "user":
            connection = Connection(self.server.port)
        answer = connection.ask(request.method, request.path, request.body)
        if request.kind in ("send", "redact", "state"):
            event = Event(
                room=request.room,
                event_id=answer["event_id"],
                author=self.user_id,
                kind=request.kind,
                mark=request.mark,
                path=request.path,
                body=request.body,
                has_txn=request.kind != "state",
            )
            self.ledger.add(event)
            self.report.count("events")
            if request.kind == "send":
                self.own_messages.append(event)
            elif request.kind == "redact":
                request.target.redacted = True
            else:
                self.values[request.target] = request.mark
                self.report.count("state")
            return
        self.ledger.acknowledge(request.kind, path=request.path, body=request.body, answer=answer)
        if request.kind == "room":
            self.made_rooms[answer["room_id"]] = request.mark
            self.report.count("rooms")
        elif request.kind == "user":
            connection.close()
            self.made_users.append(request.mark)
            self.report.count("users")
        else:
            self.values[request.target] = request.body["value"]
            self.report.count("account data")


class Reader:
    """One user who follows every room by sync, from before the kill to after it."""

    def __init__(self, server, report, rooms):
        self.report, self.rooms = report, rooms
        token = Connection(server.port).ask("POST", "/register", registration("reader"))
        self.connection = Connection(server.port, token["access_token"])
        for room in rooms:
            self.connection.ask("POST", f"/join/{quoted(room)}", {})
        self.since = None
        self.seen = {}
        self.sync()
        self.forget()

    def forget(self):
        """Begins to count anew."""
        self.seen = {room: [] for room in self.rooms}

    def sync(self, timeout_ms=0):
        """One sync; returns how many events it brought."""
        since = f"&since={quoted(self.since)}" if self.since else ""
        path = f"/sync?timeout={timeout_ms}&filter={quoted(json.dumps(FILTER))}{since}"
        answer = self.connection.ask("GET", path)
        brought = 0
        for room, joined in answer.get("rooms", {}).get("join", {}).items():
            timeline = joined.get("timeline", {})
            events = [event["event_id"] for event in timeline.get("events", [])]
            if timeline.get("limited") and self.since:
                events = self._gap(room, timeline["prev_batch"]) + events
            self.seen.setdefault(room, []).extend(events)
            brought += len(events)
        self.since = answer["next_batch"]
        return brought

    def follow(self):
        """Syncs until the server is gone."""
        try:
            while True:
                self.sync(timeout_ms=1000)
        except Dropped:
            return
        except Exception as error:  # noqa: BLE001 - a thread's fault must not be lost
            self.report.fault("other", f"reader: {error!r}")

    def _gap(self, room, token):
        """What lies between the last sync and the one that was limited, oldest first."""
        events = []
        while token:
            path = f"/rooms/{quoted(room)}/messages?dir=b&limit=500&to={quoted(self.since)}"
            page = self.connection.ask("GET", f"{path}&from={quoted(token)}")
            events += [event["event_id"] for event in page["chunk"]]
            token = page.get("end") if page["chunk"] else None
        return events[::-1]
