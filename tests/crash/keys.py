"""Encryption under SIGKILL: phones that upload and claim one-time keys, write to each other's
devices, follow each other's devices, and put keys into a backup.

What must hold over all kills is judged here, outside of the server: no one-time key is ever handed
out twice, keys go out in the order in which they were uploaded, each message to a device comes
exactly once and in its sender's order, and who asks for the devices that sync says have changed
knows them as they are. A claim whose answer was lost may burn its keys, no more.
"""

import base64
import dataclasses
import json

from author import Request, quoted, registration
from ed25519 import SigningKey
from server import Connection, Dropped

ALGORITHM = "signed_curve25519"
MESSAGE_TYPE = "org.causerie.crash"
BACKUP_ALGORITHM = "m.megolm_backup.v1.curve25519-aes-sha2"
# Syncs are about messages, counts and device lists alone.
FILTER = {"presence": {"types": []}, "room": {"rooms": []}}
# A phone with so many keys waiting uploads no more of them.
KEYS_MAX = 120
# What a phone does next, with its weight; and how often it forgets what a sync told it.
CHOICES = {"upload": 3, "claim": 5, "message": 6, "backup": 2, "rename": 1}
FORGETS = 0.1


@dataclasses.dataclass
class OneTimeKey:
    """A key that was uploaded: its value, and in which of the phone's uploads."""

    value: dict
    upload: int
    claimed_by: str = ""


class Phone:
    """One user with one device; `write` and `follow` run in a thread each."""

    def __init__(self, server, ledger, report, name):
        self.server, self.ledger, self.report, self.name = server, ledger, report, name
        login = Connection(server.port).ask("POST", "/register", registration(name))
        self.user_id, self.device_id = login["user_id"], login["device_id"]
        self.connection = Connection(server.port, login["access_token"])
        self.syncing = Connection(server.port, login["access_token"])
        self.others = []
        self.number = 0
        self.pending = None
        # key id -> key, in upload order; and how many keys lost answers may have burned.
        self.keys = {}
        self.burned = 0
        self.waiting = 0
        # phone name -> marks, in order: acknowledged to this phone, and received by it.
        self.sent = {}
        self.received = {}
        self.since = None
        self.forgotten = []
        # owner's name -> the upload from which this phone got its last key.
        self.last_upload = {}
        self.sessions = {}
        auth_data = {"public_key": encoded(name), "signatures": {}}
        body = {"algorithm": BACKUP_ALGORITHM, "auth_data": auth_data}
        self.version = self.connection.ask("POST", "/room_keys/version", body)["version"]
        # The device's name as it was acknowledged, what this phone knows of the others' names, and
        # whose it has to ask for.
        self.device_name = None
        self.names = {}
        self.changed = set()
        self.connection.ask("POST", "/keys/upload", {"device_keys": self._device_keys()})

    def _device_keys(self):
        key = SigningKey(self.name.encode().ljust(32))
        keys = {
            "user_id": self.user_id,
            "device_id": self.device_id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
            "keys": {
                f"ed25519:{self.device_id}": unpadded(key.public),
                f"curve25519:{self.device_id}": unpadded(key.public),
            },
        }
        canonical = json.dumps(keys, sort_keys=True, separators=(",", ":"))
        signature = unpadded(key.sign(canonical.encode()))
        return {**keys, "signatures": {self.user_id: {f"ed25519:{self.device_id}": signature}}}

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
            pass
        except Exception as error:  # noqa: BLE001 - a thread's fault must not be lost
            self.report.fault("other", f"{self.name}: {error!r}")
        # It may have been another connection that was dropped, and this one does not know yet.
        self.connection.close()

    def follow(self, rng):
        """Syncs until the server is gone, at times without keeping what the answer says."""
        try:
            while True:
                self.sync(timeout_ms=1000, forget=rng.random() < FORGETS)
        except Dropped:
            pass
        except Exception as error:  # noqa: BLE001 - a thread's fault must not be lost
            self.report.fault("other", f"{self.name} follows: {error!r}")
        self.syncing.close()

    def settle(self):
        """After a restart: what was under way is asked for again, as a client does."""
        request, self.pending = self.pending, None
        if request is None:
            return
        self.report.count("repeated")
        if request.kind == "claim":
            # What the lost answer held is lost with it.
            for owner in request.target:
                owner.burned += 1
        else:
            self._perform(request)

    def sync(self, timeout_ms=0, forget=False):
        """One sync; returns how many messages it brought and the count of one-time keys."""
        self._ask_for_changed()
        since = f"&since={quoted(self.since)}" if self.since else ""
        path = f"/sync?timeout={timeout_ms}&filter={quoted(json.dumps(FILTER))}{since}"
        answer = self.syncing.ask("GET", path)
        events = answer.get("to_device", {}).get("events", [])
        self.report.check(
            events[: len(self.forgotten)] == self.forgotten,
            "lost",
            f"{self.name}: {self.forgotten} came once, and with the same token {events}",
        )
        self.forgotten = events if forget else []
        if not forget:
            self.since = answer["next_batch"]
            self.changed |= set(answer.get("device_lists", {}).get("changed", []))
            for event in events:
                content = event["content"]
                known = event["type"] == MESSAGE_TYPE and content["from"] == event["sender"]
                self.report.check(known, "changed", f"{self.name}: {event}")
                self.received.setdefault(event["sender"], []).append(content["mark"])
        return len(events), answer.get("device_one_time_keys_count", {}).get(ALGORITHM, 0)

    def _ask_for_changed(self):
        """Asks for the devices of those whose devices have changed, as clients do."""
        asked = set(self.changed)
        if not asked:
            return
        body = {"device_keys": {user_id: [] for user_id in asked}}
        answer = self.syncing.ask("POST", "/keys/query", body)
        for user_id in asked:
            for device in answer["device_keys"].get(user_id, {}).values():
                name = device.get("unsigned", {}).get("device_display_name")
                self.names[user_id] = name
        self.changed -= asked

    def _next(self, rng, kind):
        if kind == "upload" and self.waiting < KEYS_MAX:
            keys = {}
            for nth in range(rng.randint(1, 8)):
                key_id = f"{ALGORITHM}:{self.number:06}{nth}"
                keys[key_id] = {"key": encoded(f"{self.name} {key_id}"), "signatures": {}}
                # Known before the answer, for others may get it before the answer comes.
                self.keys[key_id] = OneTimeKey(keys[key_id], self.number)
            return Request(kind, "POST", "/keys/upload", {"one_time_keys": keys})
        if kind == "claim":
            owners = rng.sample(self.others, rng.randint(1, len(self.others)))
            wanted = {owner.user_id: {owner.device_id: ALGORITHM} for owner in owners}
            return Request(kind, "POST", "/keys/claim", {"one_time_keys": wanted}, owners)
        if kind == "rename":
            body = {"display_name": f"{self.name} {self.number}"}
            return Request(kind, "PUT", f"/devices/{quoted(self.device_id)}", body)
        if kind == "backup":
            session = encoded(f"{self.number:06}")
            data = dict.fromkeys(("ephemeral", "ciphertext", "mac"), encoded(self.name))
            body = {
                "first_message_index": self.number,
                "forwarded_count": 0,
                "is_verified": True,
                "session_data": data,
            }
            room = quoted("!crash:localhost")
            path = f"/room_keys/keys/{room}/{quoted(session)}?version={self.version}"
            return Request(kind, "PUT", path, body, session)
        targets = rng.sample(self.others, rng.randint(1, len(self.others)))
        content = {"from": self.user_id, "mark": self.number}
        device = "*" if rng.random() < 0.2 else None
        messages = {phone.user_id: {device or phone.device_id: content} for phone in targets}
        path = f"/sendToDevice/{MESSAGE_TYPE}/txn-{self.number}"
        return Request("message", "PUT", path, {"messages": messages}, targets)

    def _perform(self, request):
        """Sends a request and, on a 200, records it."""
        answer = self.connection.ask(request.method, request.path, request.body)
        self.ledger.acknowledge(request.kind, user=self.user_id, body=request.body, answer=answer)
        if request.kind == "upload":
            self.waiting = answer["one_time_key_counts"].get(ALGORITHM, 0)
            self.report.count("one-time keys", len(request.body["one_time_keys"]))
        elif request.kind == "claim":
            for owner in request.target:
                devices = answer["one_time_keys"].get(owner.user_id, {})
                for key_id, key in devices.get(owner.device_id, {}).items():
                    self.got(owner, key_id, key)
            self.waiting -= 1
        elif request.kind == "rename":
            self.device_name = request.body["display_name"]
            self.report.count("renames")
        elif request.kind == "backup":
            self.sessions[request.target] = request.body["first_message_index"]
            self.report.count("backups")
        else:
            for phone in request.target:
                phone.sent.setdefault(self.user_id, []).append(self.number)
            self.report.count("messages")

    def got(self, owner, key_id, key):
        """A claim has brought a key."""
        self.report.count("claims")
        known = owner.keys.get(key_id)
        what = f"{self.name} got {key_id} of {owner.name}"
        self.report.check(known and known.value == key, "changed", f"{what}: {key}")
        if not known:
            return
        with self.ledger.lock:
            before, known.claimed_by = known.claimed_by, self.name
        self.report.check(not before, "doubled", f"{what}, and {before} had it")
        last = self.last_upload.get(owner.name, 0)
        late = f"{what} of upload {known.upload}, after one of {last}"
        self.report.check(known.upload >= last, "changed", late)
        self.last_upload[owner.name] = known.upload


def unpadded(data):
    """Unpadded base64, as keys are written."""
    return base64.b64encode(data).decode().rstrip("=")


def encoded(text):
    """A text that looks like a key."""
    return unpadded(text.encode())


class Phones:
    """All phones of one data folder."""

    def __init__(self, server, ledger, report, count, room):
        self.server, self.report = server, report
        self.phones = [Phone(server, ledger, report, f"phone-{n}") for n in range(count)]
        for phone in self.phones:
            phone.others = [other for other in self.phones if other is not phone]
            # Those who share a room are told of each other's devices.
            phone.connection.ask("POST", f"/join/{quoted(room)}", {})
        self.last = None
        if self.phones:
            self.last = Phone(server, ledger, report, "phone-last")

    def threads(self, rng):
        """What runs until the server is gone: functions and their random numbers."""
        for phone in self.phones:
            yield phone.write, rng(phone.name)
            yield phone.follow, rng(f"{phone.name} follows")

    def after_restart(self):
        """Everything that was acknowledged is there, once."""
        for phone in self.phones:
            try:
                self._messages(phone)
                self._devices(phone)
                self._keys(phone)
                self._backup(phone)
            except Exception as error:  # noqa: BLE001 - one phone's fault must not end the test
                self.report.fault("other", f"verifying {phone.name}: {error!r}")

    def whole(self):
        """At the end every key that is left is claimed, by one who comes in order."""
        for phone in self.phones:
            # It has been idle over all kills.
            self.last.connection.close()
            wanted = {phone.user_id: {phone.device_id: ALGORITHM}}
            while True:
                answer = self.last.connection.ask(
                    "POST", "/keys/claim", {"one_time_keys": wanted}
                )
                keys = answer["one_time_keys"].get(phone.user_id, {}).get(phone.device_id, {})
                if not keys:
                    break
                for key_id, key in keys.items():
                    self.last.got(phone, key_id, key)
            missing = [key_id for key_id, key in phone.keys.items() if not key.claimed_by]
            self.report.check(
                len(missing) <= phone.burned,
                "lost",
                f"{phone.name}: {missing} were never handed out, {phone.burned} may be burned",
            )

    def _messages(self, phone):
        """Each message came exactly once, and in its sender's order."""
        while phone.sync()[0]:
            pass
        for sender in phone.sent.keys() | phone.received.keys():
            sent, received = phone.sent.get(sender, []), phone.received.get(sender, [])
            if sent == received:
                self.report.check(True, "lost", "")
                continue
            what = f"to {phone.name} from {sender}"
            lost = [mark for mark in sent if mark not in received]
            self.report.check(not lost, "lost", f"{what}: {lost}")
            more = [mark for mark in received if received.count(mark) > sent.count(mark)]
            self.report.check(not more, "doubled", f"{what}: {more}")
            self.report.check(lost or more, "changed", f"{what}: sent {sent}, received {received}")
        # What was judged is not judged again.
        phone.sent, phone.received = {}, {}

    def _devices(self, phone):
        """Who follows what sync says of device lists knows the devices of the others."""
        phone.sync()
        for other in phone.others:
            if other.device_name:
                known = phone.names.get(other.user_id)
                what = f"{phone.name} knows {other.name} as {known}, not as {other.device_name}"
                self.report.check(known == other.device_name, "lost", what)

    def _keys(self, phone):
        """As many keys are left as were uploaded, less those that were handed out."""
        answer = phone.connection.ask("POST", "/keys/upload", {})
        count = answer["one_time_key_counts"].get(ALGORITHM, 0)
        left = sum(not key.claimed_by for key in phone.keys.values())
        what = f"{phone.name}: the count is {count}, {left} keys are left, {phone.burned} burned"
        self.report.check(count >= left - phone.burned, "lost", what)
        self.report.check(count <= left, "doubled", what)
        _, told = phone.sync()
        self.report.check(told == count, "changed", f"{what}, and sync says {told}")
        phone.waiting = count

    def _backup(self, phone):
        """The backup holds what was put into it."""
        version = phone.connection.ask("GET", f"/room_keys/version/{phone.version}")
        path = f"/room_keys/keys?version={phone.version}"
        rooms = phone.connection.ask("GET", path)["rooms"].values()
        found = {
            session: key["first_message_index"]
            for room in rooms
            for session, key in room["sessions"].items()
        }
        lost = {s: n for s, n in phone.sessions.items() if found.get(s) != n}
        self.report.check(not lost, "lost", f"{phone.name}: from the backup: {lost}")
        what = f"{phone.name}: the backup counts {version['count']}, {len(found)} are there"
        self.report.check(version["count"] == len(found) == len(phone.sessions), "changed", what)
