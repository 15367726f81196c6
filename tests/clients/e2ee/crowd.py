"""500 devices of 50 people in one encrypted room, with real keys, and one real library that writes.

The devices are no libraries but the keys and sessions of vodozemac, the same that the libraries
have inside: 500 whole clients would be slower than the server that is looked at.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import vodozemac
from server import quoted
from story import Device

PEOPLE = 50
DEVICES_EACH = 10
ONE_TIME_KEYS = 10
# How many requests the crowd has under way at once.
AT_ONCE = 16


def canonical(content):
    """Canonical JSON, as it is signed."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class Phone:
    """One device of the crowd."""

    def __init__(self, server, login):
        self.server = server
        self.user, self.id, self.token = login["user_id"], login["device_id"], login["access_token"]
        self.account = vodozemac.Account()
        self.since = None
        self.room_keys = {}
        self.messages = []

    def upload(self):
        """Device keys and one-time keys, signed."""
        account = self.account
        keys = {
            "user_id": self.user,
            "device_id": self.id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {
                f"curve25519:{self.id}": account.curve25519_key.to_base64(),
                f"ed25519:{self.id}": account.ed25519_key.to_base64(),
            },
        }
        account.generate_one_time_keys(ONE_TIME_KEYS)
        one_time_keys = {
            f"signed_curve25519:{key_id}": self._signed({"key": key.to_base64()})
            for key_id, key in account.one_time_keys.items()
        }
        body = {"device_keys": self._signed(keys), "one_time_keys": one_time_keys}
        answer = self.server.ask("POST", "/keys/upload", body, self.token)
        account.mark_keys_as_published()
        return answer["one_time_key_counts"].get("signed_curve25519")

    def _signed(self, content):
        signature = self.account.sign(canonical(content)).to_base64()
        return {**content, "signatures": {self.user: {f"ed25519:{self.id}": signature}}}

    def sync(self, room):
        """One sync: room keys by to-device messages, and the room's encrypted events."""
        since = f"&since={quoted(self.since)}" if self.since else ""
        answer = self.server.ask("GET", f"/sync?timeout=0{since}", token=self.token)
        self.since = answer["next_batch"]
        for event in answer.get("to_device", {}).get("events", []):
            if event["type"] == "m.room.encrypted":
                self._unlock(event["content"])
        timeline = answer.get("rooms", {}).get("join", {}).get(room, {}).get("timeline", {})
        for event in timeline.get("events", []):
            if event["type"] == "m.room.encrypted":
                self.messages.append(event["content"])

    def _unlock(self, content):
        ours = content["ciphertext"].get(self.account.curve25519_key.to_base64())
        if ours is None or ours["type"] != 0:
            return
        sender = vodozemac.Curve25519PublicKey.from_base64(content["sender_key"])
        message = vodozemac.PreKeyMessage.from_base64(ours["body"])
        # Spends the one-time key: were it handed out twice, the second message would fail.
        _session, plain = self.account.create_inbound_session(sender, message)
        event = json.loads(plain)
        if event["type"] == "m.room_key":
            key = vodozemac.SessionKey(event["content"]["session_key"])
            group = vodozemac.InboundGroupSession(key)
            self.room_keys[event["content"]["session_id"]] = group

    def read(self):
        """What the messages say, as far as their keys are there."""
        for content in self.messages:
            group = self.room_keys.get(content["session_id"])
            if group:
                message = vodozemac.MegolmMessage.from_base64(content["ciphertext"])
                yield json.loads(group.decrypt(message).plaintext)["content"]["body"]


def tell(tally, server, name, driver):
    """The room fills, one message is sent to all, and everybody reads it."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        begun = time.monotonic()
        users = [f"{number}-{name}" for number in range(PEOPLE)]
        logins = list(pool.map(server.register, users))
        logins += pool.map(server.log_in, users * (DEVICES_EACH - 1))
        phones = [Phone(server, login) for login in logins]
        logged_in = time.monotonic()
        counts = set(pool.map(Phone.upload, phones))
        tally.equal(counts, {ONE_TIME_KEYS}, "the keys of 500 devices are uploaded")
        uploaded = time.monotonic()

        server.register(name)
        writer = Device(driver, name, name)
        room = writer.do("create_room", invite=[])
        rules = f"/rooms/{quoted(room)}/state/m.room.join_rules/"
        server.ask("PUT", rules, {"join_rule": "public"}, writer.token)
        join = f"/join/{quoted(room)}"
        list(pool.map(lambda phone: server.ask("POST", join, {}, phone.token), phones[:PEOPLE]))
        list(pool.map(lambda phone: phone.sync(room), phones))
        writer.do("members", room=room, count=PEOPLE + 1)
        joined = time.monotonic()

        writer.do("send", room=room, body="to the crowd")
        sent = time.monotonic()
        list(pool.map(lambda phone: phone.sync(room), phones))
        read = [list(phone.read()) for phone in phones]
        synced = time.monotonic()
        tally.equal(read.count(["to the crowd"]), len(phones), "500 devices read the message")
        left = {server.key_count(phone.token) for phone in phones[:: PEOPLE // 5]}
        tally.equal(left, {ONE_TIME_KEYS - 1}, "each device has given one key")

        writer.do("send", room=room, body="again")
        again = time.monotonic()
        list(pool.map(lambda phone: phone.sync(room), phones))
        read = [list(phone.read()) for phone in phones]
        both = ["to the crowd", "again"]
        tally.equal(read.count(both), len(phones), "500 devices read the next message")
        writer.do("close")
    print(
        f"e2ee: crowd: {len(phones)} devices logged in after {logged_in - begun:.1f} s, "
        f"keys uploaded in {uploaded - logged_in:.1f} s, joined in {joined - uploaded:.1f} s, "
        f"first message with its keys by {driver.name} in {sent - joined:.2f} s, "
        f"fetched by all in {synced - sent:.1f} s, next message in {again - synced:.2f} s",
        flush=True,
    )
