"""What people use beyond messages, through matrix-nio: media, threads, spaces, knocking, upgrades,
push rules, presence, directories. Each part makes what it needs and builds on no other."""

import io
import struct
import zlib

from nio import (
    PresenceEvent,
    PushNotify,
    PushRulesEvent,
    PushSetTweak,
    RoomPreset,
    RoomUpgradeEvent,
    RoomVisibility,
)
from nio.api import PushRuleKind, RelationshipType


def picture(width, height):
    """A PNG of one color."""

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    rows = (b"\0" + b"\x22\x88\xcc" * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


async def together(alice, bob, **options):
    """A room of alice with bob in it, both clients knowing."""
    made = await alice.ask(
        alice.client.room_create(preset=RoomPreset.public_chat, **options), "alice creates a room"
    )
    room_id = made.room_id
    await bob.ask(bob.client.join(room_id), "bob joins it")
    await alice.until(
        lambda _: bob.user_id in getattr(alice.client.rooms.get(room_id), "users", ()),
        "alice sees bob in it",
    )
    await bob.until(lambda _: room_id in bob.client.rooms, "bob's client knows it")
    return room_id


async def media(tally, alice, bob):
    """A file and a picture go up and come back, the picture also small."""

    async def upload(person, data, kind, name):
        answer, _ = await person.client.upload(
            io.BytesIO(data), content_type=kind, filename=name, filesize=len(data)
        )
        return await person.ask(done(answer), f"{person.name} uploads a file")

    async def done(answer):
        return answer

    limits = await alice.ask(alice.client.content_repository_config(), "the limits are told")
    tally.check(limits.upload_size > 1000, "and say how large a file may be")
    data = bytes(range(256)) * 4096
    file = await upload(alice, data, "application/octet-stream", "größe.bin")
    back = await bob.ask(bob.client.download(file.content_uri), "bob downloads a mebibyte")
    tally.check(back.body == data, "every byte is as it was")
    tally.equal(back.filename, "größe.bin", "the file has its name")
    drawn = await upload(alice, picture(200, 100), "image/png", "blue.png")
    server, media_id = drawn.content_uri.removeprefix("mxc://").split("/")
    small = await bob.ask(bob.client.thumbnail(server, media_id, 64, 64), "bob asks for less")
    tally.check(small.content_type.startswith("image/"), "a thumbnail is a picture")
    tally.check(small.body[:4] in (b"\x89PNG", b"\xff\xd8\xff\xe0", b"RIFF"), "of a known kind")
    tally.need(
        (await bob.client.download(f"mxc://{server}/nothing")).status_code == "M_NOT_FOUND",
        "what was not uploaded is not there",
    )
    await alice.ask(alice.client.set_avatar(drawn.content_uri), "alice takes it as her avatar")
    profile = await bob.ask(bob.client.get_profile(alice.user_id), "bob looks at her profile")
    tally.equal(profile.avatar_url, drawn.content_uri, "and sees it")


async def threads(tally, alice, bob):
    """Replies in a thread are listed, and the thread is."""
    room_id = await together(alice, bob)
    root = await alice.say(room_id, "Where shall we eat?")
    relation = {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    replies = [await bob.say(room_id, f"Option {n}", **relation) for n in range(5)]
    related = alice.client.room_get_event_relations(
        room_id, root, RelationshipType.thread, "m.room.message", limit=2
    )
    tally.equal([e.event_id async for e in related], replies[::-1], "page by page, newest first")
    found = [e.event_id async for e in alice.client.room_get_threads(room_id)]
    tally.equal(found, [root], "the thread is listed by its first message")


async def spaces(tally, alice, bob):
    """A space has its rooms; bob walks through it."""
    made = await alice.ask(
        alice.client.room_create(name="Team", space=True, preset=RoomPreset.public_chat),
        "alice makes a space",
    )
    rooms = []
    for order, name in (("b", "Plans"), ("a", "Gossip")):
        room = await alice.ask(
            alice.client.room_create(name=name, preset=RoomPreset.public_chat), "with a room"
        )
        content = {"via": ["localhost"], "order": order}
        put = alice.client.room_put_state(made.room_id, "m.space.child", content, room.room_id)
        await alice.ask(put, "that is its child")
        rooms.append(room.room_id)
    answer = await bob.ask(bob.client.space_get_hierarchy(made.room_id), "bob walks through it")
    ids = [room["room_id"] for room in answer.rooms]
    tally.equal(ids, [made.room_id, rooms[1], rooms[0]], "and finds the rooms in their order")
    page = await bob.ask(bob.client.space_get_hierarchy(made.room_id, limit=2), "a page of it")
    tally.equal([room["room_id"] for room in page.rooms], ids[:2], "has what was asked for")
    page = await bob.ask(
        bob.client.space_get_hierarchy(made.room_id, from_page=page.next_batch, limit=2),
        "and the next one",
    )
    tally.equal([room["room_id"] for room in page.rooms], ids[2:], "the rest")


async def knock(tally, alice, bob):
    """Bob knocks; alice sees it and lets him in."""
    made = await alice.ask(alice.client.room_create(), "alice creates a room")
    room_id = made.room_id
    await alice.ask(alice.client.room_enable_knocking(room_id), "on whose door one may knock")
    await bob.ask(bob.client.room_knock(room_id, reason="Hello?"), "bob knocks")
    seen = await alice.sees(
        room_id, lambda e: e.source.get("state_key") == bob.user_id, "alice hears it"
    )
    tally.equal(seen.source["content"].get("membership"), "knock", "as a knock")
    tally.equal(seen.source["content"].get("reason"), "Hello?", "with what bob said")
    await alice.ask(alice.client.room_invite(room_id, bob.user_id), "alice invites him")
    await bob.until(lambda r: room_id in r.rooms.invite, "bob is invited")
    await bob.ask(bob.client.join(room_id), "and comes in")


async def upgrade(tally, alice, bob):
    """A room moves on, as nio does it: a new room with the old one's state, then a tombstone."""
    room_id = await together(alice, bob, name="Old hall", topic="dust")
    moved = await alice.ask(alice.client.room_upgrade(room_id, "12"), "alice moves the room")
    tombstone = await bob.sees(
        room_id, lambda e: isinstance(e, RoomUpgradeEvent), "bob sees that it moved"
    )
    tally.equal(tombstone.replacement_room, moved.room_id, "and where")
    await bob.ask(bob.client.join(moved.room_id), "bob follows")
    await bob.until(lambda r: moved.room_id in r.rooms.join, "the new room comes")
    tally.equal(bob.client.rooms[moved.room_id].name, "Old hall", "with the old name")
    tally.equal(bob.client.rooms[moved.room_id].topic, "dust", "and the old topic")


async def push_rules(tally, alice, bob):
    """A keyword makes a highlight, until it is turned off."""
    room_id = await together(alice, bob)

    def rules(response):
        found = [e for e in response.account_data_events if isinstance(e, PushRulesEvent)]
        return found and {rule.id: rule for rule in found[-1].global_rules.content}

    keyword = ("global", PushRuleKind.content, "fruit")
    actions = [PushNotify(), PushSetTweak("highlight", True)]
    rule = alice.client.set_pushrule(*keyword, actions=actions, pattern="banana")
    await alice.ask(rule, "alice sets a keyword")
    answer = await alice.until(lambda r: "fruit" in (rules(r) or ()), "which comes by sync")
    tally.equal(rules(answer)["fruit"].pattern, "banana", "as it was set")

    def counts(response):
        room = response.rooms.join.get(room_id)
        unread = room and room.unread_notifications
        return unread and (unread.notification_count, unread.highlight_count)

    await bob.say(room_id, "An apple a day")
    await bob.say(room_id, "A Banana, too")
    await alice.until(lambda r: counts(r) == (2, 1), "two are unread, one is a highlight")
    await alice.ask(alice.client.enable_pushrule(*keyword, False), "alice turns it off")
    await bob.say(room_id, "No banana")
    await alice.until(lambda r: counts(r) == (3, 1), "a third is unread, and no highlight")
    await alice.ask(alice.client.delete_pushrule(*keyword), "alice removes it")
    await alice.refused(
        alice.client.delete_pushrule(*keyword), "M_NOT_FOUND", "which can be done once"
    )


async def directories(tally, alice, bob, tag):
    """Who is there, and which rooms can be found."""
    room_id = await together(
        alice, bob, name=f"Garden {tag}", visibility=RoomVisibility.public
    )
    found = await bob.ask(
        bob.client.list_public_rooms(limit=10, filter_generic_search_term=f"garden {tag}"),
        "bob searches the directory",
    )
    tally.equal([room.room_id for room in found.public_rooms], [room_id], "and finds the room")
    await bob.ask(bob.client.set_presence("online", "in the garden"), "bob says how he is")
    await alice.until(
        lambda r: any(
            isinstance(e, PresenceEvent) and e.user_id == bob.user_id
            and e.status_msg == "in the garden" for e in r.presence_events
        ),
        "alice sees it",
    )
    answer = await alice.ask(alice.client.get_presence(bob.user_id), "alice asks for it")
    tally.equal((answer.presence, answer.status_msg), ("online", "in the garden"), "and is told")
    token = await bob.ask(bob.client.get_openid_token(bob.user_id), "bob gets an OpenID token")
    tally.equal(token.matrix_server_name, "localhost", "which names the server")


async def tell(tally, alice, bob, tag):
    """All parts."""
    await media(tally, alice, bob)
    await threads(tally, alice, bob)
    await spaces(tally, alice, bob)
    await knock(tally, alice, bob)
    await upgrade(tally, alice, bob)
    await push_rules(tally, alice, bob)
    await directories(tally, alice, bob, tag)
