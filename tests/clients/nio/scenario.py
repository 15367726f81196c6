"""Two people use a server through matrix-nio: `scenario.py BASE_URL [--room-version N]`.

Needs open registration with the dummy stage, and no rate limits that 500 messages in a row meet.
Users and rooms get fresh names, so it can run again on the same server. Closes with one line
`nio: N passed, M failed` and exits with 1 when a check failed.
"""

import argparse
import asyncio
import logging
import secrets
import sys

from nio import (
    MessageDirection,
    ReactionEvent,
    ReceiptEvent,
    RedactedEvent,
    RedactionEvent,
    RoomMessageText,
    RoomPreset,
    TypingNoticeEvent,
)
from nio.api import ReceiptType

import features
from people import Failed, Person, Tally

MESSAGES = 500
PASSWORD = "correct horse battery staple"


async def register(tally, base_url, tag):
    """Both people register, and alice logs in from a second device."""
    alice = Person(tally, base_url, f"alice-{tag}")
    bob = Person(tally, base_url, f"bob-{tag}")
    # nio sends the dummy stage at once, without a session: servers accept that.
    for person in (alice, bob):
        answer = await person.ask(
            person.client.register(person.name, PASSWORD, "nio test"), f"{person.name} registers"
        )
        tally.equal(answer.user_id, f"@{person.name}:localhost", "the user id is as asked for")
        me = await person.ask(person.client.whoami(), "whoami answers")
        tally.equal(me.user_id, person.user_id, "whoami names the user")
        tally.equal(me.device_id, answer.device_id, "whoami names the device")

    stranger = Person(tally, base_url, alice.name)
    await stranger.refused(
        stranger.client.register(alice.name, PASSWORD), "M_USER_IN_USE", "a taken name is refused"
    )
    await stranger.refused(
        stranger.client.login("not the password"), "M_FORBIDDEN", "a wrong password is refused"
    )
    second = await stranger.ask(stranger.client.login(PASSWORD), "alice logs in by password")
    listed = await stranger.ask(stranger.client.devices(), "alice lists her devices, one unnamed")
    tally.check(
        second.device_id in {device.id for device in listed.devices}, "the new one is among them"
    )
    tally.check(second.device_id != alice.client.device_id, "a second login is a second device")
    await stranger.ask(stranger.client.logout(), "the second device logs out")
    await stranger.client.close()
    await alice.ask(alice.client.set_displayname("Alice A."), "alice sets her display name")
    return alice, bob


async def create_channel(tally, alice, bob, tag, room_version):
    """Alice creates a channel; bob finds it by its alias, is invited, and joins."""
    for person in (alice, bob):
        first = await person.sync(full_state=True)
        tally.check(first.next_batch, "a first sync has a token")
        tally.equal(list(first.rooms.join), [], "a new user is in no room")

    created = await alice.ask(
        alice.client.room_create(
            alias=f"lobby-{tag}",
            name="Lobby",
            topic="All that is going on",
            preset=RoomPreset.private_chat,
            room_version=room_version,
        ),
        "alice creates a channel",
    )
    room_id = created.room_id
    await alice.until(lambda r: room_id in r.rooms.join, "the new room comes by sync")
    room = alice.client.rooms[room_id]
    tally.equal(room.name, "Lobby", "the room's name comes by sync")
    tally.equal(room.topic, "All that is going on", "the topic comes by sync")
    tally.equal(room.canonical_alias, f"#lobby-{tag}:localhost", "the canonical alias is set")
    resolved = await bob.ask(
        bob.client.room_resolve_alias(f"#lobby-{tag}:localhost"), "the alias resolves"
    )
    tally.equal(resolved.room_id, room_id, "the alias points to the room")
    await bob.refused(bob.client.join(room_id), "M_FORBIDDEN", "bob may not join uninvited")

    await alice.ask(alice.client.room_invite(room_id, bob.user_id), "alice invites bob")
    invited = await bob.until(lambda r: room_id in r.rooms.invite, "bob's invitation comes by sync")
    tally.check(invited.rooms.invite[room_id].invite_state, "the invitation carries state")
    tally.equal(bob.client.invited_rooms[room_id].name, "Lobby", "the invitation names the room")
    tally.equal(
        bob.client.invited_rooms[room_id].inviter, alice.user_id, "the invitation says who invites"
    )
    await bob.ask(bob.client.join(room_id), "bob accepts")
    joined = await bob.until(lambda r: room_id in r.rooms.join, "the joined room comes by sync")
    tally.check(room_id not in joined.rooms.invite, "a joined room is not an invitation any more")
    await alice.until(
        lambda _: bob.user_id in alice.client.rooms[room_id].users, "alice sees that bob has joined"
    )
    members = await bob.ask(bob.client.joined_members(room_id), "bob asks who is in the room")
    names = {member.user_id: member.display_name for member in members.members}
    tally.equal(set(names), {alice.user_id, bob.user_id}, "both are members")
    tally.equal(names.get(alice.user_id), "Alice A.", "a member has the profile's display name")
    rooms = await bob.ask(bob.client.joined_rooms(), "bob asks for his rooms")
    tally.equal(rooms.rooms, [room_id], "bob is in one room")
    return room_id


async def talk(tally, alice, bob, room_id):
    """Messages both ways, an edit, a reaction, a redaction."""
    hello = await alice.say(room_id, "Hello, Bob")
    seen = await bob.sees(room_id, lambda e: e.event_id == hello, "bob sees alice's message")
    tally.check(isinstance(seen, RoomMessageText), "a message is a text message", seen)
    tally.equal(seen.body, "Hello, Bob", "the body is as sent")
    tally.equal(seen.sender, alice.user_id, "the sender is alice")
    answer = await bob.say(room_id, "Hello, Alice – 🙂")
    seen = await alice.sees(room_id, lambda e: e.event_id == answer, "alice sees bob's message")
    tally.equal(seen.body, "Hello, Alice – 🙂", "letters outside of ASCII are as sent")
    own = await bob.sees(room_id, lambda e: e.event_id == answer, "bob sees his own message")
    tally.check(own.source["unsigned"].get("transaction_id"), "it has bob's transaction id")
    tally.check("transaction_id" not in seen.source.get("unsigned", {}), "which alice is not told")

    edit = await alice.say(
        room_id,
        "* Hello, Robert",
        **{
            "m.new_content": {"msgtype": "m.text", "body": "Hello, Robert"},
            "m.relates_to": {"rel_type": "m.replace", "event_id": hello},
        },
    )
    seen = await bob.sees(room_id, lambda e: e.event_id == edit, "bob sees the edit")
    relation = seen.source["content"].get("m.relates_to", {})
    tally.equal(relation.get("event_id"), hello, "the edit names what it replaces")
    tally.equal(seen.source["content"].get("m.new_content", {}).get("body"), "Hello, Robert",
                "the edit has the new body")

    thumb = await bob.send(
        room_id,
        "m.reaction",
        {"m.relates_to": {"rel_type": "m.annotation", "event_id": hello, "key": "👍"}},
    )
    seen = await alice.sees(room_id, lambda e: e.event_id == thumb, "alice sees the reaction")
    tally.check(isinstance(seen, ReactionEvent), "it is a reaction", seen)
    tally.equal((seen.reacts_to, seen.key), (hello, "👍"), "to her message, with its key")

    slip = await bob.say(room_id, "A slip")
    await alice.sees(room_id, lambda e: e.event_id == slip, "alice sees the slip")
    redaction = await bob.ask(
        bob.client.room_redact(room_id, slip, reason="typing too fast"), "bob redacts his slip"
    )
    seen = await alice.sees(
        room_id, lambda e: e.event_id == redaction.event_id, "alice sees the redaction"
    )
    tally.check(isinstance(seen, RedactionEvent), "it is a redaction", seen)
    tally.equal(getattr(seen, "redacts", None), slip, "of the slip")
    stripped = await alice.ask(alice.client.room_get_event(room_id, slip), "the slip can be read")
    tally.check(isinstance(stripped.event, RedactedEvent), "the slip is redacted", stripped.event)
    tally.equal(stripped.event.source["content"], {}, "its content is gone")
    tally.equal(stripped.event.source["unsigned"]["redacted_because"]["event_id"],
                redaction.event_id, "it says which event redacted it")
    return hello, answer


async def notice(tally, alice, bob, room_id, hello):
    """Read receipts, public and private, and typing."""

    def receipts(response):
        room = response.rooms.join.get(room_id)
        events = room.ephemeral if room else []
        return [r for e in events if isinstance(e, ReceiptEvent) for r in e.receipts]

    def private(response):
        kind = ReceiptType.read_private.value  # nio parses it to a plain string
        return [r for r in receipts(response) if r.receipt_type == kind]

    def typing(response):
        room = response.rooms.join.get(room_id)
        events = room.ephemeral if room else []
        return [e.users for e in events if isinstance(e, TypingNoticeEvent)]

    await bob.ask(bob.client.update_receipt_marker(room_id, hello), "bob reads alice's message")
    response = await alice.until(
        lambda r: any(x.user_id == bob.user_id for x in receipts(r)), "alice sees bob's receipt"
    )
    [receipt] = [r for r in receipts(response) if r.user_id == bob.user_id]
    tally.equal(receipt.event_id, hello, "the receipt is at the message")
    tally.equal(receipt.receipt_type, ReceiptType.read.value, "it is public")
    tally.equal(receipt.thread_id, "main", "it is for the main timeline")

    latest = await alice.say(room_id, "For bob's eyes")
    await bob.sees(room_id, lambda e: e.event_id == latest, "bob sees a further message")
    await bob.ask(
        bob.client.update_receipt_marker(room_id, latest, ReceiptType.read_private),
        "bob reads it privately",
    )
    response = await bob.until(private, "bob sees his private receipt")
    tally.equal([r.event_id for r in private(response)], [latest], "at the message he has read")
    await bob.ask(bob.client.room_read_markers(room_id, latest, latest), "bob sets read markers")
    response = await alice.until(
        lambda r: any(x.event_id == latest and x.user_id == bob.user_id for x in receipts(r)),
        "alice sees bob's public receipt",
    )
    tally.equal(private(response), [], "alice does not see the private receipt")

    await bob.ask(bob.client.room_typing(room_id, True, 30_000), "bob types")
    await alice.until(lambda r: [bob.user_id] in typing(r), "alice sees bob typing")
    await bob.ask(bob.client.room_typing(room_id, False), "bob stops typing")
    await alice.until(lambda r: [] in typing(r), "alice sees that bob has stopped")


async def pages(person, room_id, direction, start, limit):
    """All events from `start` on in one direction, page by page until the server has no more."""
    events = []
    # Far more pages than there can be, so that a token that goes round in circles ends too.
    for _ in range(4 * MESSAGES):
        page = await person.ask(
            person.client.room_messages(room_id, start=start, direction=direction, limit=limit),
            "a page of messages comes",
        )
        events.extend(page.chunk)
        person.tally.check(len(page.chunk) <= limit, "a page is no longer than asked for")
        if not page.end or not page.chunk:
            return events
        start = page.end
    raise Failed("pagination never ends")


async def paginate(tally, alice, bob, room_id):
    """500 messages come back whole and in order, backwards and forwards, at several page sizes."""
    sent = [await alice.say(room_id, f"message {n}") for n in range(MESSAGES)]
    tally.equal(len(set(sent)), MESSAGES, "every message has an event id of its own")
    filter_id = (
        await bob.ask(
            bob.client.upload_filter(room={"timeline": {"limit": 10}}), "bob stores a filter"
        )
    ).filter_id
    # Bob is away for all 500: the gap must be told.
    response = await bob.until(
        lambda r: room_id in r.rooms.join
        and any(e.event_id == sent[-1] for e in r.rooms.join[room_id].timeline.events),
        "bob's sync reaches the last message",
    )
    tally.check(response.rooms.join[room_id].timeline.limited, "a timeline with a gap is limited")
    fresh = Person(tally, bob.client.homeserver, bob.name)
    fresh.client.restore_login(bob.user_id, bob.client.device_id, bob.client.access_token)
    latest = await fresh.sync(sync_filter=filter_id)
    timeline = latest.rooms.join[room_id].timeline
    tally.equal([e.event_id for e in timeline.events], sent[-10:], "the filter's limit holds")
    tally.check(timeline.limited, "a first sync with more history is limited")
    await fresh.client.close()

    whole = None
    for limit in (7, 100):
        older = await pages(bob, room_id, MessageDirection.back, timeline.prev_batch, limit)
        events = [*reversed(older), *timeline.events]
        ids = [e.event_id for e in events]
        tally.equal(len(set(ids)), len(ids), f"pages of {limit} backwards repeat nothing")
        tally.equal(
            [i for i in ids if i in set(sent)], sent, f"pages of {limit} backwards skip nothing"
        )
        bodies = [e.body for e in events if getattr(e, "body", "").startswith("message ")]
        tally.equal(bodies, [f"message {n}" for n in range(MESSAGES)], "the bodies are in order")
        whole = whole or ids
        tally.equal(ids, whole, f"pages of {limit} backwards are the whole history")
        forwards = await pages(bob, room_id, MessageDirection.front, None, limit)
        tally.equal(
            [e.event_id for e in forwards], whole, f"pages of {limit} forwards are the same history"
        )
    tally.equal(events[0].source["type"], "m.room.create", "history begins with the room")
    return sent


async def leave(tally, alice, bob, room_id, sent):
    """Bob leaves: `leave` in sync, again from an old token, then he forgets the room."""
    await bob.sync()
    old_token = bob.client.next_batch
    await bob.ask(bob.client.room_leave(room_id), "bob leaves")
    response = await bob.until(lambda r: room_id in r.rooms.leave, "the left room comes in leave")
    tally.check(room_id not in response.rooms.join, "a left room is not joined")
    await alice.until(
        lambda _: bob.user_id not in alice.client.rooms[room_id].users, "alice sees that bob left"
    )
    after = await alice.say(room_id, "Bob is gone")

    again = await bob.sync(since=old_token)
    tally.need(room_id in again.rooms.leave, "an old token shows the left room in leave")
    events = again.rooms.leave[room_id].timeline.events
    tally.check(events, "with the end of its timeline")
    tally.equal(events[-1].source.get("state_key"), bob.user_id, "which ends with bob's leaving")
    tally.equal(events[-1].source["content"].get("membership"), "leave", "and says so")
    tally.check(
        after not in [e.event_id for e in events], "and tells nothing of what came after"
    )
    newer = await bob.sync()
    tally.check(room_id not in newer.rooms.leave, "a newer token does not show it again")
    await bob.refused(
        bob.client.room_send(room_id, "m.room.message", {"msgtype": "m.text", "body": "?"}),
        "M_FORBIDDEN",
        "bob may not send any more",
    )
    await bob.refused(
        bob.client.room_get_event(room_id, after), "M_NOT_FOUND", "bob may not read on"
    )
    mine = await bob.ask(bob.client.room_get_event(room_id, sent[0]), "bob reads what he had seen")
    tally.equal(mine.event.event_id, sent[0], "which is the event he asked for")

    await bob.ask(bob.client.room_forget(room_id), "bob forgets the room")
    answer = await bob.client.room_messages(room_id, direction=MessageDirection.back)
    tally.check(
        getattr(answer, "status_code", "") in ("M_FORBIDDEN", "M_NOT_FOUND"),
        "a forgotten room has no history",
        answer,
    )
    left = await bob.sync(since=old_token, sync_filter={"room": {"include_leave": True}})
    tally.check(room_id not in left.rooms.join, "a forgotten room is not joined")
    rooms = await bob.ask(bob.client.joined_rooms(), "bob asks for his rooms again")
    tally.equal(rooms.rooms, [], "bob is in no room")


async def scenario(tally, base_url, room_version):
    """The whole story, in the order in which its parts build on each other."""
    tag = secrets.token_hex(4)
    alice, bob = await register(tally, base_url, tag)
    try:
        room_id = await create_channel(tally, alice, bob, tag, room_version)
        hello, _ = await talk(tally, alice, bob, room_id)
        await notice(tally, alice, bob, room_id, hello)
        sent = await paginate(tally, alice, bob, room_id)
        await leave(tally, alice, bob, room_id, sent)
        await features.tell(tally, alice, bob, tag)
        for person in (alice, bob):
            await person.ask(person.client.logout(), f"{person.name} logs out")
    finally:
        await alice.client.close()
        await bob.client.close()


def main():
    """Reads the command line, runs the scenario, prints the closing line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base_url", help="for example http://127.0.0.1:8008")
    parser.add_argument("--room-version", help="instead of the server's default")
    arguments = parser.parse_args()
    # nio warns of every refusal, and this scenario asks for some.
    logging.getLogger("nio").setLevel(logging.CRITICAL)
    tally = Tally()
    try:
        asyncio.run(scenario(tally, arguments.base_url, arguments.room_version))
    except Failed:
        pass  # counted and printed where it happened
    except Exception as error:  # noqa: BLE001 - whatever it is, the closing line must come
        tally.check(False, "the scenario ran to its end", f"{type(error).__name__}: {error}")
    print(f"nio: {tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
