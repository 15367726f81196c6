"""matrix-nio with encryption, driven over a pipe: `driver.py BASE_URL`; see ../e2ee/run.py, whose
requests and answers are JSON, one a line. One process holds any number of devices, each under the
name that the other side gives it.
"""

import asyncio
import base64
import hashlib
import json
import logging
import sys
import time

from nio import AsyncClient, AsyncClientConfig, ErrorResponse, MegolmEvent, RoomMessageText
from nio.crypto import Sas, sas
from nio.store import SqliteMemoryStore

# How long a condition may take to come true, and how long a sync may wait.
WAIT_S = 40
SYNC_MS = 1000


class Sha256:
    """nio writes the commitment of a verification in hex; all others expect unpadded base64."""

    def __init__(self, data):
        self.digest = hashlib.sha256(data).digest()

    def hexdigest(self):
        """What is compared, and sent."""
        return base64.b64encode(self.digest).decode().rstrip("=")


# What cannot be read yet is not worth a line of its log.
logging.disable()
sas.sha256 = Sha256
# It also computes the MAC of the method whose name ends in `.v2`, but calls it by the old name.
Sas._mac_normal = "hkdf-hmac-sha256.v2"
Sas._mac_v1 = [Sas._mac_normal]


async def until(condition, what):
    """Waits until `condition()` gives something, and returns it."""
    deadline = time.monotonic() + WAIT_S
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {WAIT_S} s: {what}")
        await asyncio.sleep(0.03)


async def done(request):
    """Awaits an answer that must be a success."""
    answer = await request
    if isinstance(answer, ErrorResponse):
        raise RuntimeError(repr(answer))
    return answer


class Device:
    """One device, with a client that syncs."""

    def __init__(self, url):
        self.url = url
        # room id -> event id -> event, decrypted where that is possible
        self.events = {}
        self.left = set()

    async def login(self, user, password):
        """A new device of a user that exists."""
        config = AsyncClientConfig(store=SqliteMemoryStore, request_timeout=60)
        self.client = AsyncClient(self.url, user, config=config)
        answer = await done(self.client.login(password))
        await self._step(0)
        self.syncing = asyncio.create_task(self._follow())
        return {
            "user_id": answer.user_id,
            "device_id": answer.device_id,
            "access_token": answer.access_token,
        }

    async def pause(self):
        """Ends following the server."""
        self.syncing.cancel()

    async def resume(self):
        """Follows the server again."""
        self.syncing = asyncio.create_task(self._follow())

    async def close(self):
        """Ends following the server, for good."""
        await self.pause()
        await self.client.close()

    async def create_room(self, invite):
        """A private room that is encrypted from its beginning."""
        encryption = {
            "type": "m.room.encryption",
            "state_key": "",
            "content": {"algorithm": "m.megolm.v1.aes-sha2"},
        }
        request = self.client.room_create(invite=invite, initial_state=[encryption])
        room = (await done(request)).room_id
        await self._encrypted(room)
        return room

    async def join(self, room):
        """Waits for the invitation, and accepts it."""
        await until(lambda: room in self.client.invited_rooms, "the invitation")
        await done(self.client.join(room))
        await self._encrypted(room)

    async def leave(self, room):
        """Leaves a room."""
        await done(self.client.room_leave(room))
        await until(lambda: room in self.left, "the leave")

    async def invite(self, room, user):
        """Invites somebody."""
        await done(self.client.room_invite(room, user))

    async def members(self, room, count):
        """Waits until so many are in a room."""
        await until(lambda: self.client.rooms[room].joined_count == count, f"{count} members")

    async def send(self, room, body):
        """Sends a message, encrypted to every device that is known."""
        content = {"msgtype": "m.text", "body": body}
        request = self.client.room_send(
            room, "m.room.message", content, ignore_unverified_devices=True
        )
        return (await done(request)).event_id

    async def message(self, room, body):
        """Waits for a message that was encrypted and is readable."""

        def found():
            for event_id, event in self._readable(room):
                if event == body:
                    return event_id

        return await until(found, f"the message {body}")

    async def history(self, room):
        """The encrypted events of the whole history, and what they say."""
        start = None
        while True:
            page = await done(self.client.room_messages(room, start or "", limit=100))
            self._keep(room, page.chunk)
            start = page.end
            if not start:
                return dict(self._readable(room))

    async def knows(self, user, other, known):
        """Waits until a device is known, or is not."""

        def right():
            devices = self.client.device_store.active_user_devices(user)
            return (other in {device.id for device in devices}) == known

        await until(right, f"{user} {other} {'is' if known else 'is not'} known")

    async def trusts(self, user, other):
        """Waits until a device is trusted."""
        device = self.client.device_store[user][other]
        await until(lambda: self.client.olm.is_device_verified(device), f"{other} is trusted")

    async def sas_begin(self, user, other):
        """Starts a verification, with no request before it: nio knows none."""
        device = self.client.device_store[user][other]
        await done(self.client.start_key_verification(device))
        return self.client.olm.get_active_sas(user, other).transaction_id

    async def sas_answer(self, flow):
        """Accepts a verification that the other side started."""
        await until(lambda: flow in self.client.key_verifications, "a start")
        await done(self.client.accept_key_verification(flow))

    async def sas_numbers(self, flow):
        """The numbers that both sides must see."""
        verification = self.client.key_verifications[flow]
        known = lambda: verification.established_sas or verification.canceled  # noqa: E731
        await until(known, "the numbers")
        if verification.canceled:
            raise RuntimeError(f"canceled: {verification.cancel_reason}")
        return list(verification.get_decimals())

    async def sas_confirm(self, flow):
        """Says that the numbers are right, and waits for the other side."""
        verification = self.client.key_verifications[flow]
        await done(self.client.confirm_short_auth_string(flow))
        await until(lambda: verification.verified, "the end of the verification")

    async def _encrypted(self, room):
        def encrypted():
            return room in self.client.rooms and self.client.rooms[room].encrypted

        await until(encrypted, "the room is encrypted")

    def _keep(self, room, events):
        kept = self.events.setdefault(room, {})
        for event in events:
            if isinstance(event, MegolmEvent) or getattr(event, "decrypted", False):
                kept.setdefault(event.event_id, event)

    def _readable(self, room):
        """Every encrypted event, and what it says now."""
        kept = self.events.get(room, {})
        for event_id, event in kept.items():
            if isinstance(event, MegolmEvent):
                try:
                    event = kept[event_id] = self.client.decrypt_event(event)
                except Exception:  # noqa: BLE001 - its key may come later, or never
                    pass
            yield event_id, event.body if isinstance(event, RoomMessageText) else None

    async def _follow(self):
        while True:
            try:
                await self._step(SYNC_MS)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - the next round may do better
                print(f"nio: a sync failed: {error!r}", file=sys.stderr, flush=True)
                await asyncio.sleep(0.5)

    async def _step(self, timeout_ms):
        """One sync, and what its answer asks for: keys first, for they may decide the rest."""
        client = self.client
        answer = await done(client.sync(timeout=timeout_ms))
        for room, joined in answer.rooms.join.items():
            self._keep(room, joined.timeline.events)
        self.left |= set(answer.rooms.leave)
        if client.should_upload_keys:
            await done(client.keys_upload())
        if client.should_query_keys:
            await done(client.keys_query())
        if client.should_claim_keys:
            await done(client.keys_claim(client.get_users_for_key_claiming()))
        await client.send_to_device_messages()


async def answer(devices, request):
    """Performs one request, and prints its answer."""
    number, verb, name = request.pop("id"), request.pop("do"), request.pop("device")
    # What only other libraries need to know.
    if verb in ("sas_answer", "sas_numbers", "sas_confirm"):
        request = {"flow": request["flow"]}
    try:
        if verb == "login":
            devices[name] = Device(sys.argv[1])
        value = await getattr(devices[name], verb)(**request)
        print(json.dumps({"id": number, "value": value}), flush=True)
    except Exception as error:  # noqa: BLE001 - the other side judges it
        print(json.dumps({"id": number, "error": repr(error)}), flush=True)


async def main():
    """Answers, many at a time, until nothing more is asked."""
    reader = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    devices, tasks = {}, set()
    while line := await reader.readline():
        task = asyncio.create_task(answer(devices, json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    for device in devices.values():
        await device.close()


if __name__ == "__main__":
    asyncio.run(main())
