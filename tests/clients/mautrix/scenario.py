"""A small bridge on mautrix-python: `scenario.py BASE_URL HOST PORT AS_TOKEN HS_TOKEN STATE_FILE`.

The server must know the bridge by the registration that `tests/clients/run` writes, and needs open
registration with the dummy stage. Closes with one line `mautrix: N passed, M failed` and exits with
1 when a check failed.
"""

import asyncio
import logging
import secrets
import sys

from mautrix.api import Method, Path
from mautrix.client import ClientAPI
from mautrix.types import EventType, LoginType, Membership, RoomCreatePreset

from encryption import encrypted
from people import Bridge, Failed, Person, Tally

PASSWORD = "correct horse battery staple"
# How many messages are sent while the bridge is away: more than one transaction holds.
MISSED = 120


async def names(tally, bridge, alice, tag):
    """The names of the bridge are its own, and its puppets are users like others."""
    intruder = Person(tally, bridge.base_url, f"bridge_intruder-{tag}")
    body = {"username": intruder.name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    register = intruder.client.api.request(Method.POST, Path.v3.register, body)
    await tally.refused(register, "M_EXCLUSIVE", "nobody else takes a name of the bridge")
    await intruder.close()
    puppet = bridge.puppet(f"carol-{tag}")
    await tally.succeeds(puppet.ensure_registered(), "a puppet is registered")
    await tally.succeeds(puppet.set_displayname("Carol"), "a puppet sets its name")
    profile = await tally.succeeds(alice.client.get_profile(puppet.mxid), "alice looks it up")
    tally.equal(profile.displayname, "Carol", "and sees the name")
    stranger = bridge.bot.user(f"@stranger-{tag}:localhost")
    await tally.refused(
        stranger.ensure_registered(), "M_EXCLUSIVE", "the bridge takes only names of its own"
    )
    whoami = stranger.api.request(Method.GET, Path.v3.account.whoami)
    await tally.refused(whoami, "M_FORBIDDEN", "and acts only as its own users")
    # As a bridge does for encryption: with the bridge's token, but as a client of its own.
    client = ClientAPI(puppet.mxid, base_url=bridge.base_url, token=bridge.az.as_token)
    login = await tally.succeeds(
        client.login(login_type=LoginType.APPSERVICE, device_id="PUPPET"), "a puppet logs in"
    )
    tally.equal(login.user_id, puppet.mxid, "as itself")
    tally.equal(login.device_id, "PUPPET", "with the device it names")
    me = await tally.succeeds(client.whoami(), "its own token works")
    tally.equal(me.user_id, puppet.mxid, "for the puppet")
    await client.api.session.close()
    return puppet


async def conversation(tally, bridge, alice, puppet):
    """A puppet joins alice's room; messages and what goes with them go both ways."""
    room_id = await tally.succeeds(
        alice.client.create_room(name="Bridged", preset=RoomCreatePreset.PRIVATE),
        "alice creates a room",
    )
    await tally.succeeds(alice.client.invite_user(room_id, puppet.mxid), "alice invites a puppet")
    invite = await tally.until(
        lambda: next((e for e in bridge.events if e.type == EventType.ROOM_MEMBER
                      and e.room_id == room_id and e.state_key == puppet.mxid), None),
        "the bridge is told",
    )
    tally.equal(invite.content.membership, Membership.INVITE, "that it is an invite")
    await tally.succeeds(puppet.join_room_by_id(room_id), "the puppet joins")
    member = await alice.sees(
        room_id, lambda e: e.get("state_key") == puppet.mxid
        and e["content"]["membership"] == "join", "alice sees it join"
    )
    tally.equal(member["content"].get("displayname"), "Carol", "with its name")

    hello = await alice.say(room_id, "Hello, other side – 🙂")
    [event] = await tally.until(lambda: bridge.got(hello), "alice's message reaches the bridge")
    tally.equal(event.content.body, "Hello, other side – 🙂", "as it was sent")
    tally.equal(event.sender, alice.user_id, "from alice")
    answer = await tally.succeeds(
        puppet.send_text(room_id, "Hello, Alice", timestamp=1_700_000_000_000), "the puppet answers"
    )
    seen = await alice.sees(room_id, lambda e: e["event_id"] == answer, "alice sees the answer")
    tally.equal(seen["sender"], puppet.mxid, "from the puppet")
    tally.equal(seen["origin_server_ts"], 1_700_000_000_000, "with the time it was said there")
    await tally.until(lambda: bridge.got(answer), "the bridge is told of it, too")

    thumb = await tally.succeeds(puppet.react(room_id, hello, "👍"), "the puppet reacts")
    await alice.sees(room_id, lambda e: e["event_id"] == thumb, "alice sees the reaction")
    await tally.succeeds(alice.client.redact(room_id, hello, "a slip"), "alice takes it back")
    redaction = await tally.until(
        lambda: next((e for e in bridge.events if e.type == EventType.ROOM_REDACTION), None),
        "the bridge is told",
    )
    tally.equal(redaction.redacts, hello, "which message was taken back")
    picture = await tally.succeeds(
        puppet.upload_media(b"GIF89a\x01\x00\x01\x00", mime_type="image/gif", filename="a.gif"),
        "the puppet uploads a picture",
    )
    data = await tally.succeeds(alice.client.download_media(picture), "alice downloads it")
    tally.equal(data, b"GIF89a\x01\x00\x01\x00", "as it was")
    members = await tally.succeeds(puppet.get_joined_members(room_id), "the members are listed")
    tally.equal(set(members), {alice.user_id, puppet.mxid}, "and are the two")
    return room_id


async def ephemeral(tally, bridge, alice, puppet, room_id):
    """Typing and receipts go both ways."""

    def typing():
        return [content.user_ids for content in bridge.ephemeral(EventType.TYPING, room_id)]

    await tally.succeeds(alice.client.set_typing(room_id, 30_000), "alice types")
    await tally.until(lambda: [alice.user_id] in typing(), "the bridge is told that she types")
    await tally.succeeds(alice.client.set_typing(room_id, 0), "alice stops typing")
    await tally.until(lambda: typing()[-1] == [], "the bridge is told that she does not")
    await tally.succeeds(puppet.set_typing(room_id, 30_000), "the puppet types")
    await alice.until(lambda: alice.typing.get(room_id) == [puppet.mxid], "alice sees it")

    said = await tally.succeeds(puppet.send_text(room_id, "Read me"), "the puppet says something")
    await tally.succeeds(alice.client.send_receipt(room_id, said), "alice reads it")

    def read():
        receipts = bridge.ephemeral(EventType.RECEIPT, room_id)
        return any(alice.user_id in readers for content in receipts
                   for readers in content.get(said, {}).values())

    await tally.until(read, "the bridge is told that she has")
    later = await alice.say(room_id, "And you me")
    await tally.until(lambda: bridge.got(later), "the bridge has alice's message")
    await tally.succeeds(puppet.mark_read(room_id, later), "the puppet reads it")


async def restart(tally, bridge, alice, room_id):
    """What happens while the bridge is away, it is told when it is back, in order and once."""
    before = len(bridge.events)
    bridge.transactions.clear()
    bridge.refuse = 2
    first = await alice.say(room_id, "An error at first")
    await tally.until(lambda: bridge.got(first), "a transaction that was refused comes again")
    again = len(bridge.transactions) - len(set(bridge.transactions))
    tally.equal(again, 2, "as the same one, until it is taken")

    await bridge.stop()
    sent = [await alice.say(room_id, f"missed {n}") for n in range(MISSED)]
    await bridge.start()
    await tally.until(lambda: bridge.got(sent[-1]), "the bridge is told what it missed")
    live = await alice.say(room_id, "Welcome back")
    await tally.until(lambda: bridge.got(live), "and what comes after")
    told = [e.event_id for e in bridge.events[before:] if e.type == EventType.ROOM_MESSAGE]
    tally.equal(told, [first, *sent, live], "everything once, in order")


async def unknown(tally, bridge, alice, room_id, tag):
    """Users and rooms that are not there yet are asked for at the bridge, which makes them."""
    new = f"@bridge_new-{tag}:localhost"
    profile = await tally.succeeds(alice.client.get_profile(new), "alice looks up an unknown user")
    tally.check(new in bridge.asked, "the bridge was asked")
    tally.equal(profile.displayname, "Made when asked for", "and made it")
    invited = f"@bridge_guest-{tag}:localhost"
    await tally.succeeds(alice.client.invite_user(room_id, invited), "alice invites another")
    tally.check(invited in bridge.asked, "the bridge was asked")
    await tally.succeeds(bridge.bot.user(invited).join_room_by_id(room_id), "and the user can join")
    nobody = f"@bridge_nobody-{tag}:localhost"
    await tally.refused(
        alice.client.get_profile(nobody), "M_NOT_FOUND", "whom the bridge knows not is not there"
    )
    hall = f"#bridge_hall-{tag}:localhost"
    joined = await tally.succeeds(
        alice.client.join_room(hall, max_retries=0), "alice joins an unknown room"
    )
    tally.check(hall in bridge.asked, "the bridge was asked")
    name = await tally.succeeds(
        alice.client.get_state_event(joined, EventType.ROOM_NAME), "which has a name"
    )
    tally.equal(name.name, "Made when asked for", "because the bridge made it")
    await tally.refused(
        alice.client.resolve_room_alias(f"#bridge_nowhere-{tag}:localhost"),
        "M_NOT_FOUND",
        "a room that the bridge does not know is not there",
    )


async def scenario(tally, base_url, registration, state_path):
    """The whole story, in the order in which its parts build on each other."""
    tag = secrets.token_hex(4)
    bridge = Bridge(tally, base_url, registration, state_path)
    alice = Person(tally, base_url, f"alice-{tag}")
    await bridge.start()
    try:
        await alice.register(PASSWORD)
        puppet = await names(tally, bridge, alice, tag)
        room_id = await conversation(tally, bridge, alice, puppet)
        await ephemeral(tally, bridge, alice, puppet, room_id)
        await restart(tally, bridge, alice, room_id)
        await unknown(tally, bridge, alice, room_id, tag)
        await encrypted(tally, bridge, alice.name, PASSWORD)
        await tally.succeeds(alice.client.logout(), "alice logs out")
    finally:
        await alice.close()
        await bridge.stop()


def main():
    """Reads the command line, runs the scenario, prints the closing line."""
    if len(sys.argv) != 7:
        print(f"usage: {__doc__.splitlines()[0]}", file=sys.stderr)
        return 2
    base_url, host, port, as_token, hs_token, state_path = sys.argv[1:]
    # mautrix tells of every refusal, and this scenario asks for some.
    logging.disable(logging.CRITICAL)
    tally = Tally()
    try:
        registration = (host, int(port), as_token, hs_token)
        asyncio.run(scenario(tally, base_url, registration, state_path))
    except Failed:
        pass  # counted and printed where it happened
    except Exception as error:  # noqa: BLE001 - whatever it is, the closing line must come
        tally.check(False, "the scenario ran to its end", f"{type(error).__name__}: {error}")
    print(f"mautrix: {tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
