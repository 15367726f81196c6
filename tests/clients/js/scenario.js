// Two people use a server through matrix-js-sdk: `node scenario.js BASE_URL [ROOM_VERSION]`.
//
// Needs open registration with the dummy stage, and no rate limits that 500 messages in a row
// meet. Users and rooms get fresh names, so it can run again on the same server. Closes with one
// line `js: N passed, M failed` and exits with 1 when a check failed.

import { randomBytes } from "node:crypto";
import * as features from "./features.js";
import {
    ClientEvent,
    EventTimeline,
    EventType,
    Failed,
    KnownMembership,
    Person,
    ReceiptType,
    RelationType,
    RoomMemberEvent,
    Tally,
    TimelineWindow,
} from "./people.js";

const MESSAGES = 500;
const PASSWORD = "correct horse battery staple";

/** Both people register; alice also logs in by password. */
async function register(tally, alice, bob) {
    await alice.register(PASSWORD);
    await bob.register(PASSWORD);
    for (const person of [alice, bob]) {
        tally.equal(person.userId, `@${person.name}:localhost`, "the user id is as asked for");
        const me = await tally.succeeds(person.client.whoami(), "whoami answers");
        tally.equal(me.user_id, person.userId, "whoami names the user");
        tally.equal(person.client.getRooms(), [], "a new user is in no room");
    }
    const available = (name) => alice.client.isUsernameAvailable(name);
    tally.equal(await available(`carol-${alice.name}`), true, "a free name is available");
    tally.equal(await available(alice.name), false, "a taken name is not");
    const login = (password) =>
        alice.client.loginRequest({
            type: "m.login.password",
            identifier: { type: "m.id.user", user: alice.name },
            password,
        });
    await tally.refused(login("not the password"), "M_FORBIDDEN", "a wrong password is refused");
    const second = await tally.succeeds(login(PASSWORD), "alice logs in by password");
    tally.check(second.device_id !== alice.login.device_id, "a second login is a second device");
    await tally.succeeds(alice.client.setDisplayName("Alice A."), "alice sets her display name");
}

/** Alice creates a channel; bob finds it by its alias, is invited, and joins. */
async function createChannel(tally, alice, bob, roomVersion) {
    const created = await tally.succeeds(
        alice.client.createRoom({
            room_alias_name: `lobby-${alice.name}`,
            name: "Lobby",
            topic: "All that is going on",
            preset: "private_chat",
            ...(roomVersion ? { room_version: roomVersion } : {}),
        }),
        "alice creates a channel",
    );
    const roomId = created.room_id;
    const alias = `#lobby-${alice.name}:localhost`;
    const room = await tally.until(() => alice.room(roomId), "the new room comes by sync");
    await tally.until(() => room.name === "Lobby", "the room's name comes by sync");
    const topic = room.currentState.getStateEvents(EventType.RoomTopic, "")?.getContent().topic;
    tally.equal(topic, "All that is going on", "the topic comes by sync");
    tally.equal(room.getCanonicalAlias(), alias, "the canonical alias is set");
    const resolved = await tally.succeeds(bob.client.getRoomIdForAlias(alias), "the alias resolves");
    tally.equal(resolved.room_id, roomId, "the alias points to the room");
    await tally.refused(bob.client.joinRoom(roomId), "M_FORBIDDEN", "bob may not join uninvited");

    await tally.succeeds(alice.client.invite(roomId, bob.userId), "alice invites bob");
    const membership = () => bob.room(roomId)?.getMyMembership();
    await tally.until(() => membership() === KnownMembership.Invite, "bob sees the invitation");
    tally.equal(bob.room(roomId).name, "Lobby", "the invitation names the room");
    const inviter = bob.room(roomId).getMember(bob.userId).events.member.getSender();
    tally.equal(inviter, alice.userId, "the invitation says who invites");
    await tally.succeeds(bob.client.joinRoom(roomId), "bob accepts");
    await tally.until(() => membership() === KnownMembership.Join, "bob sees that he is in the room");
    const bobThere = () => room.getMember(bob.userId)?.membership === KnownMembership.Join;
    await tally.until(bobThere, "alice sees that bob has joined");
    tally.equal(room.getJoinedMemberCount(), 2, "the summary counts two members");
    await tally.succeeds(bob.room(roomId).loadMembersIfNeeded(), "the lazily loaded members come");
    const members = bob.room(roomId).getJoinedMembers().map((m) => [m.userId, m.name]);
    tally.equal(Object.fromEntries(members)[alice.userId], "Alice A.", "alice is among them");
    tally.equal(members.length, 2, "both are members");
    return roomId;
}

/** Messages both ways, an edit, a reaction, a redaction. */
async function talk(tally, alice, bob, roomId) {
    const hello = await alice.say(roomId, "Hello, Bob");
    const seen = await bob.sees(roomId, hello, "bob sees alice's message");
    tally.equal(seen.getContent().body, "Hello, Bob", "the body is as sent");
    tally.equal(seen.getSender(), alice.userId, "the sender is alice");
    tally.equal(seen.sender?.name, "Alice A.", "the sender's lazily loaded member is known");
    const answer = await bob.say(roomId, "Hello, Alice – 🙂");
    const answered = await alice.sees(roomId, answer, "alice sees bob's message");
    tally.equal(answered.getContent().body, "Hello, Alice – 🙂", "letters outside of ASCII are as sent");
    const isAnswer = (e) => e.getId() === answer || e.getContent().body === "Hello, Alice – 🙂";
    const echoes = () => bob.room(roomId).getLiveTimeline().getEvents().filter(isAnswer);
    // The local echo becomes the event by its transaction id, also when sync comes first.
    await tally.until(() => echoes().length === 1 && !echoes()[0].status, "bob sees his message once");

    const edit = await tally.succeeds(
        alice.client.sendMessage(roomId, {
            "msgtype": "m.text",
            "body": "* Hello, Robert",
            "m.new_content": { msgtype: "m.text", body: "Hello, Robert" },
            "m.relates_to": { rel_type: RelationType.Replace, event_id: hello },
        }),
        "alice edits her message",
    );
    await tally.until(() => seen.replacingEventId() === edit.event_id, "bob's client applies the edit");
    tally.equal(seen.getContent().body, "Hello, Robert", "bob sees the new body");

    const thumb = await tally.succeeds(
        bob.client.sendEvent(roomId, EventType.Reaction, {
            "m.relates_to": { rel_type: RelationType.Annotation, event_id: hello, key: "👍" },
        }),
        "bob reacts",
    );
    const reactions = (person) =>
        person
            .room(roomId)
            .relations.getChildEventsForEvent(hello, RelationType.Annotation, EventType.Reaction)
            ?.getSortedAnnotationsByKey()
            ?.map(([key, events]) => [key, [...events].map((event) => event.getId())]);
    await tally.until(() => reactions(alice)?.length, "alice sees the reaction");
    tally.equal(reactions(alice), [["👍", [thumb.event_id]]], "with its key, once");

    const slip = await bob.say(roomId, "A slip");
    const slipSeen = await alice.sees(roomId, slip, "alice sees the slip");
    await tally.succeeds(bob.client.redactEvent(roomId, slip), "bob redacts his slip");
    await tally.until(() => slipSeen.isRedacted(), "alice's client applies the redaction");
    tally.equal(slipSeen.getContent(), {}, "the content is gone");
    const stripped = await tally.succeeds(
        alice.client.fetchRoomEvent(roomId, slip),
        "the redacted event can be read",
    );
    tally.equal(stripped.content, {}, "and has no content on the server");
    tally.check(stripped.unsigned?.redacted_because, "but says why");
    return seen;
}

/** Read receipts, public and private, and typing. */
async function notice(tally, alice, bob, roomId, hello) {
    const readBy = (person, reader) => person.room(roomId).getEventReadUpTo(reader.userId, true);
    const receipt = (event, kind) => bob.client.sendReadReceipt(event, kind);
    await tally.succeeds(receipt(hello, ReceiptType.Read), "bob reads alice's message");
    await tally.until(() => readBy(alice, bob) === hello.getId(), "alice sees bob's receipt");

    const latest = await alice.say(roomId, "For bob's eyes");
    const seen = await bob.sees(roomId, latest, "bob sees a further message");
    await tally.succeeds(receipt(seen, ReceiptType.ReadPrivate), "bob reads it privately");
    const later = await alice.say(roomId, "Something later");
    await alice.sees(roomId, later, "alice syncs past the private receipt");
    tally.equal(readBy(alice, bob), hello.getId(), "alice does not see the private receipt");
    await tally.succeeds(
        bob.client.setRoomReadMarkers(roomId, latest, seen),
        "bob sets read markers",
    );
    await tally.until(() => readBy(alice, bob) === latest, "alice sees bob's public receipt");
    const marker = () => bob.room(roomId).getAccountData("m.fully_read")?.getContent().event_id;
    await tally.until(() => marker() === latest, "bob's fully-read marker comes by sync");

    const typing = [];
    alice.client.on(RoomMemberEvent.Typing, (_, member) => typing.push([member.userId, member.typing]));
    const told = (state) => typing.some(([user, is]) => user === bob.userId && is === state);
    await tally.succeeds(bob.client.sendTyping(roomId, true, 30_000), "bob types");
    await tally.until(() => told(true), "alice sees bob typing");
    await tally.succeeds(bob.client.sendTyping(roomId, false, 0), "bob stops typing");
    await tally.until(() => told(false), "alice sees that bob has stopped");
}

/** The ids of a window's events, after extending it in one direction as far as it goes. */
async function extend(tally, window, direction) {
    // Far more pages than there can be, so that a token that goes round in circles ends too.
    for (let page = 0; page < 4 * MESSAGES && window.canPaginate(direction); page += 1) {
        await tally.succeeds(window.paginate(direction, 30), "a page comes");
    }
    tally.need(!window.canPaginate(direction), "pagination ends");
    return window.getEvents().map((event) => event.getId());
}

/** 500 messages come back whole and in order, backwards and forwards from the first one. */
async function paginate(tally, alice, bob, roomId) {
    const sent = [];
    for (let n = 0; n < MESSAGES; n += 1) sent.push(await alice.say(roomId, `message ${n}`));
    tally.equal(new Set(sent).size, MESSAGES, "every message has an event id of its own");
    await bob.sees(roomId, sent.at(-1), "bob's client reaches the last message");
    const live = bob.room(roomId).getLiveTimeline().getEvents();
    const lived = live.map((event) => event.getId()).filter((id) => sent.includes(id));
    tally.equal(lived, sent.slice(-lived.length), "what bob saw live is in order");

    const windowOf = async (initialSyncLimit, eventId) => {
        const client = await bob.open(initialSyncLimit);
        const set = client.getRoom(roomId).getUnfilteredTimelineSet();
        const window = new TimelineWindow(client, set, { windowLimit: 10 * MESSAGES });
        await tally.succeeds(window.load(eventId, 20), "the timeline window loads");
        return window;
    };
    const backwards = await windowOf(10);
    tally.equal(backwards.getEvents().at(-1)?.getId(), sent.at(-1), "the window ends at the end");
    tally.equal(backwards.getEvents().length, 10, "the first sync keeps to its limit");
    const whole = await extend(tally, backwards, EventTimeline.BACKWARDS);
    tally.equal(new Set(whole).size, whole.length, "backwards repeats nothing");
    tally.equal(whole.filter((id) => sent.includes(id)), sent, "backwards skips nothing");
    const first = backwards.getEvents()[0];
    tally.equal(first.getType(), EventType.RoomCreate, "history begins with the room");

    // Through /context of the first message, in a client that has only the end of the room.
    const forwards = await windowOf(1, sent[0]);
    await extend(tally, forwards, EventTimeline.FORWARDS);
    const both = await extend(tally, forwards, EventTimeline.BACKWARDS);
    tally.equal(both, whole, "forwards from the first message is the same history");
    const bodies = forwards.getEvents().map((event) => event.getContent().body);
    const expected = sent.map((_, n) => `message ${n}`);
    tally.equal(bodies.filter((body) => body?.startsWith("message ")), expected, "bodies are in order");
}

/** Bob leaves: the client is told, also from an old token; then he forgets the room. */
async function leave(tally, alice, bob, roomId) {
    const oldToken = bob.client.getSyncStateData()?.nextSyncToken;
    tally.need(oldToken, "the client knows its token");
    await tally.succeeds(bob.client.leave(roomId), "bob leaves");
    const gone = () => bob.room(roomId).getMyMembership() === KnownMembership.Leave;
    await tally.until(gone, "bob's client sees that he has left");
    const aliceSees = () =>
        alice.room(roomId).getMember(bob.userId)?.membership === KnownMembership.Leave;
    await tally.until(aliceSees, "alice sees that bob left");
    const after = await alice.say(roomId, "Bob is gone");

    const again = await tally.succeeds(
        bob.client.http.authedRequest("GET", "/sync", { since: oldToken, timeout: "0" }),
        "bob syncs from an old token",
    );
    const left = again.rooms?.leave?.[roomId];
    tally.need(left, "an old token shows the left room in leave");
    const ids = left.timeline.events.map((event) => event.event_id);
    tally.equal(left.timeline.events.at(-1)?.content.membership, "leave", "which ends with his leaving");
    tally.check(!ids.includes(after), "and tells nothing of what came after");
    await tally.refused(
        bob.client.sendTextMessage(roomId, "?"),
        "M_FORBIDDEN",
        "bob may not send any more",
    );
    await tally.succeeds(bob.client.forget(roomId), "bob forgets the room");
    tally.equal(bob.room(roomId), null, "bob's client has forgotten the room");
    const rooms = await tally.succeeds(bob.client.getJoinedRooms(), "bob asks for his rooms");
    tally.equal(rooms.joined_rooms, [], "bob is in no room");
}

/** The whole story, in the order in which its parts build on each other. */
async function scenario(tally, baseUrl, roomVersion) {
    const tag = randomBytes(4).toString("hex");
    const alice = new Person(tally, baseUrl, `alice-${tag}`);
    const bob = new Person(tally, baseUrl, `bob-${tag}`);
    try {
        await register(tally, alice, bob);
        for (const person of [alice, bob]) {
            person.client.on(ClientEvent.SyncUnexpectedError, (error) =>
                tally.check(false, `${person.name}'s client reads every sync`, error),
            );
        }
        const roomId = await createChannel(tally, alice, bob, roomVersion);
        const hello = await talk(tally, alice, bob, roomId);
        await notice(tally, alice, bob, roomId, hello);
        await paginate(tally, alice, bob, roomId);
        await leave(tally, alice, bob, roomId);
        await features.threads(tally, alice, bob);
        await features.spaces(tally, alice, bob);
        await features.search(tally, alice, bob);
        await features.media(tally, alice);
        await features.pushRules(tally, alice, bob);
        await features.directories(tally, alice, bob);
        await features.upgrade(tally, alice, bob);
        await features.devices(tally, alice, PASSWORD);
        await features.delayed(tally, alice, bob);
        for (const person of [alice, bob]) {
            await tally.succeeds(person.client.logout(true), `${person.name} logs out`);
        }
    } finally {
        alice.stop();
        bob.stop();
    }
}

const [baseUrl, roomVersion] = process.argv.slice(2);
if (!baseUrl) {
    console.error("usage: node scenario.js BASE_URL [ROOM_VERSION]");
    process.exit(2);
}
const tally = new Tally();
try {
    await scenario(tally, baseUrl, roomVersion);
} catch (error) {
    // A `Failed` was counted and printed where it happened.
    if (!(error instanceof Failed)) tally.check(false, "the scenario ran to its end", error.stack);
}
console.log(`js: ${tally.passed} passed, ${tally.failed} failed`);
// The SDK's timers would hold the process for a while longer.
process.exit(tally.failed ? 1 : 0);
