"""A bridge that reads encrypted rooms as an application service does: by its transactions.

The bot has a device that never syncs. Messages to it, changes of device lists and counts of keys come
in transactions (MSC3202, MSC4203), and libolm says whether that is enough to read and to be read.
"""

import asyncio

from mautrix.client import Client
from mautrix.client.state_store import MemoryStateStore
from mautrix.crypto import MemoryCryptoStore, OlmMachine, StateStore
from mautrix.types import (
    EncryptionAlgorithm,
    EventType,
    LoginType,
    MessageType,
    RoomCreatePreset,
    RoomEncryptionStateEventContent,
    TextMessageEventContent,
)

WAIT_S = 20
ENCRYPTION = RoomEncryptionStateEventContent(algorithm=EncryptionAlgorithm.MEGOLM_V1)


class Rooms(StateStore):
    """Which rooms are encrypted: the one."""

    def __init__(self):
        self.room_ids = set()

    async def is_encrypted(self, room_id):
        return room_id in self.room_ids

    async def get_encryption_info(self, room_id):
        return ENCRYPTION if room_id in self.room_ids else None

    async def find_shared_rooms(self, user_id):
        return list(self.room_ids)


class Device:
    """A client with keys."""

    def __init__(self, user_id, base_url, token=None):
        self.client = Client(user_id, base_url=base_url, token=token, state_store=MemoryStateStore())
        self.rooms = Rooms()
        self.store = MemoryCryptoStore(user_id, "pickle")
        self.olm = OlmMachine(self.client, self.store, self.rooms)
        self.encrypted = asyncio.Queue()

    async def log_in(self, **how):
        """Opens a session, makes keys and uploads them."""
        await self.client.login(store_access_token=True, update_hs_url=False, **how)
        await self.store.open()
        await self.olm.load()
        await self.olm.share_keys()

    async def say(self, room_id, user_ids, body):
        """Sends a message that these users can read."""
        if await self.store.get_outbound_group_session(room_id) is None:
            await self.olm.share_group_session(room_id, user_ids)
        content = TextMessageEventContent(msgtype=MessageType.TEXT, body=body)
        sealed = await self.olm.encrypt_megolm_event(room_id, EventType.ROOM_MESSAGE, content)
        return await self.client.send_message_event(room_id, EventType.ROOM_ENCRYPTED, sealed)

    async def read(self, event_id):
        """Waits for a message and reads it."""
        while True:
            event = await asyncio.wait_for(self.encrypted.get(), WAIT_S)
            if event.event_id == event_id:
                break
        return (await self.olm.decrypt_megolm_event(event)).content.body


async def encrypted(tally, bridge, name, password):
    """Alice and the bot of the bridge talk in an encrypted room."""
    url, user_id = bridge.base_url, f"@{name}:localhost"
    alice = Device(user_id, url)
    bot = Device(bridge.bot.mxid, url, bridge.az.as_token)
    lists, counts = [], []

    async def told_lists(told):
        lists.append(told)
        await bot.olm.handle_as_device_lists(told)

    async def told_counts(told):
        counts.append(told)
        await bot.olm.handle_as_otk_counts(told)

    async def event(event):
        if event.type == EventType.ROOM_ENCRYPTED:
            await bot.encrypted.put(event)

    bridge.az.device_list_handler = told_lists
    bridge.az.otk_handler = told_counts
    bridge.az.to_device_handler = bot.olm.handle_as_to_device_event
    bridge.az.matrix_event_handler(event)
    alice.client.add_event_handler(EventType.ROOM_ENCRYPTED, alice.encrypted.put)
    second = Device(user_id, url)
    try:
        await alice.log_in(identifier=user_id, password=password)
        await tally.succeeds(bot.log_in(login_type=LoginType.APPSERVICE), "the bot has a device")

        def count():
            return [n[bot.client.mxid][bot.client.device_id].signed_curve25519
                    for n in counts if bot.client.mxid in n]

        uploaded = await tally.until(lambda: count()[-1:], "the bridge is told how many keys it has")
        room_id = await alice.client.create_room(
            preset=RoomCreatePreset.PUBLIC,
            initial_state=[{"type": "m.room.encryption", "content": ENCRYPTION.serialize()}],
        )
        for device in (alice, bot):
            device.rooms.room_ids.add(room_id)
        alice.client.start(None)
        await tally.succeeds(bot.client.join_room_by_id(room_id), "the bot joins")
        everybody = [alice.client.mxid, bot.client.mxid]
        for body in ("secret", "secret, too"):
            sent = await alice.say(room_id, everybody, body)
            tally.equal(await bot.read(sent), body, "the bridge reads what alice says")
        await tally.until(lambda: uploaded[0] - 1 in count(), "and is told that a key was used")
        sent = await bot.say(room_id, everybody, "an answer")
        tally.equal(await alice.read(sent), "an answer", "alice reads the answer")
        before = len(lists)
        await second.log_in(identifier=user_id, password=password)
        await tally.until(
            lambda: any(user_id in told.changed for told in lists[before:]),
            "the bridge is told of alice's new device",
        )
    finally:
        alice.client.stop()
        for device in (alice, bot, second):
            await device.client.api.session.close()
