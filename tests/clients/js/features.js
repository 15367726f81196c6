// What people use beyond messages, through matrix-js-sdk: threads, spaces, search, media, push rules,
// presence, directories, room upgrades, devices. Each part makes what it needs and leaves no trace
// that another part would meet.

import {
    Direction,
    EventType,
    NotificationCountType,
    ThreadFilterType,
} from "./people.js";

// One pixel, red.
const PIXEL = Buffer.from(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg==",
    "base64",
);

/** A room of alice with bob in it, both clients knowing. */
async function together(tally, alice, bob, options = {}) {
    const { room_id: roomId } = await tally.succeeds(
        alice.client.createRoom({ preset: "public_chat", ...options }),
        "alice creates a room",
    );
    await tally.succeeds(bob.client.joinRoom(roomId), "bob joins it");
    await tally.until(() => alice.room(roomId)?.getJoinedMemberCount() === 2, "both are in it");
    await tally.until(() => bob.room(roomId)?.getMyMembership() === "join", "bob's client knows it");
    return roomId;
}

/** Replies in a thread, its summary, its list, its own unread counts. */
export async function threads(tally, alice, bob) {
    const roomId = await together(tally, alice, bob);
    const root = await alice.say(roomId, "Where shall we eat?");
    await bob.sees(roomId, root, "bob sees the question");
    const replies = [];
    for (const body of ["Thai", "Italian", "At home"]) {
        // Not by `sendEvent`: it fails when a thread's event comes by sync before the answer to its
        // sending, and the thread is not loaded yet.
        const path = `/rooms/${encodeURIComponent(roomId)}/send/m.room.message/${bob.client.makeTxnId()}`;
        const sent = bob.client.http.authedRequest("PUT", path, undefined, {
            "msgtype": "m.text",
            body,
            "m.relates_to": { rel_type: "m.thread", event_id: root },
        });
        replies.push((await tally.succeeds(sent, "bob replies in the thread")).event_id);
    }
    const thread = () => alice.room(roomId).getThread(root);
    await tally.until(() => thread()?.length === 3, "alice's client counts the replies");
    const unread = () =>
        alice.room(roomId).getThreadUnreadNotificationCount(root, NotificationCountType.Total);
    await tally.until(() => unread() === 3, "the thread has its own unread count");
    const found = await tally.succeeds(
        alice.client.fetchRelations(roomId, root, "m.thread", EventType.RoomMessage, {
            dir: Direction.Backward,
            limit: 2,
        }),
        "the replies can be asked for",
    );
    const ids = found.chunk.map((event) => event.event_id);
    tally.equal(ids, [replies[2], replies[1]], "the newest come first, as many as were asked for");
    tally.check(found.next_batch, "and there are more");
    const list = await tally.succeeds(
        alice.client.createThreadListMessagesRequest(
            roomId,
            null,
            10,
            Direction.Backward,
            ThreadFilterType.All,
        ),
        "the threads of the room are listed",
    );
    tally.equal(list.chunk.map((event) => event.event_id), [root], "there is the one");
    const summary = list.chunk[0]?.unsigned?.["m.relations"]?.["m.thread"];
    tally.equal(summary?.count, 3, "its summary counts the replies");
    tally.equal(summary?.latest_event?.event_id, replies[2], "and has the latest one");
    tally.equal(summary?.current_user_participated, true, "and alice has begun it");
    const last = await tally.until(
        () => thread().events.find((event) => event.getId() === replies[2]),
        "the last reply is in alice's timeline of the thread",
    );
    await tally.succeeds(alice.client.sendReadReceipt(last), "alice reads the thread");
    await tally.until(() => unread() === 0, "nothing is unread in it any more");
    await tally.succeeds(bob.client.redactEvent(roomId, replies[2]), "bob takes one back");
    const again = await tally.succeeds(
        alice.client.fetchRoomEvent(roomId, root),
        "the question can be read",
    );
    const left = again.unsigned?.["m.relations"]?.["m.thread"];
    tally.equal(left?.count, 2, "the summary counts one less");
}

/** A space with rooms and a space in it. */
export async function spaces(tally, alice, bob) {
    const make = async (name, options = {}) => {
        const made = alice.client.createRoom({ name, preset: "public_chat", ...options });
        return (await tally.succeeds(made, `alice makes ${name}`)).room_id;
    };
    const space = { creation_content: { type: "m.space" } };
    const team = await make("Team", space);
    const inner = await make("Inner circle", space);
    const rooms = [await make("Plans"), await make("Gossip")];
    const add = (parent, child, content = {}) =>
        tally.succeeds(
            alice.client.sendStateEvent(
                parent,
                EventType.SpaceChild,
                { via: ["localhost"], ...content },
                child,
            ),
            "alice adds a child",
        );
    await add(team, rooms[0], { order: "b", suggested: true });
    await add(team, inner, { order: "a" });
    await add(inner, rooms[1]);
    // A cycle ends by itself.
    await add(inner, team);
    const hierarchy = await tally.succeeds(
        bob.client.getRoomHierarchy(team, 50, 5, false),
        "bob walks through the space",
    );
    const ids = hierarchy.rooms.map((room) => room.room_id);
    tally.equal(ids, [team, inner, rooms[1], rooms[0]], "each room once, in the order of the space");
    tally.equal(hierarchy.rooms[0].room_type, "m.space", "the space says what it is");
    tally.equal(hierarchy.rooms[0].children_state.length, 2, "and has its children");
    const first = await tally.succeeds(
        bob.client.getRoomHierarchy(team, 2, 5, false),
        "the first page",
    );
    tally.equal(first.rooms.length, 2, "has as many rooms as were asked for");
    const second = await tally.succeeds(
        bob.client.getRoomHierarchy(team, 2, 5, false, first.next_batch),
        "the second page",
    );
    tally.equal(second.rooms.map((room) => room.room_id), ids.slice(2), "goes on where it ended");
    const suggested = await tally.succeeds(
        bob.client.getRoomHierarchy(team, 50, 1, true),
        "what is suggested",
    );
    tally.equal(suggested.rooms.map((room) => room.name), ["Team", "Plans"], "is the one room");
    const summary = await tally.succeeds(bob.client.getRoomSummary(rooms[0]), "a room's summary");
    tally.equal(summary.name, "Plans", "names the room");
    tally.equal(summary.num_joined_members, 1, "and counts its members");
}

/** Words are found where they were said, by those who may read them. */
export async function search(tally, alice, bob) {
    const roomId = await together(tally, alice, bob);
    const word = `zucchini${Date.now()}`;
    const said = [await alice.say(roomId, `One ${word}, please`), await bob.say(roomId, `Two ${word.toUpperCase()}!`)];
    const secret = await tally.succeeds(alice.client.createRoom({}), "alice makes a room for herself");
    const own = await alice.say(secret.room_id, `My ${word}`);
    const find = async (person) => {
        const answer = await person.client.search({
            body: {
                search_categories: {
                    room_events: { search_term: word, order_by: "recent", event_context: {} },
                },
            },
        });
        return answer.search_categories.room_events.results.map((result) => result.result.event_id);
    };
    const eventually = async (person, expected, message) => {
        let found = [];
        for (let attempt = 0; attempt < 100; attempt += 1) {
            found = await find(person);
            if (JSON.stringify(found) === JSON.stringify(expected)) break;
            await new Promise((resolve) => setTimeout(resolve, 50));
        }
        tally.equal(found, expected, message);
    };
    await eventually(alice, [own, said[1], said[0]], "alice finds all, the newest first");
    await eventually(bob, [said[1], said[0]], "bob finds what he may read");
    await tally.succeeds(alice.client.redactEvent(roomId, said[0]), "alice takes one back");
    await eventually(bob, [said[1]], "it is found no more");
}

/** Files go up and come back, thumbnails are made, and who is not logged in gets nothing. */
export async function media(tally, alice) {
    const token = { Authorization: `Bearer ${alice.client.getAccessToken()}` };
    const upload = (bytes, type, name) =>
        tally.succeeds(alice.client.uploadContent(new Blob([bytes], { type }), { type, name }), "an upload");
    const address = (uri, ...size) => alice.client.mxcUrlToHttp(uri, ...size, undefined, true, true);
    const text = await upload("Hello, file", "text/plain", "hellö.txt");
    const url = address(text.content_uri, undefined, undefined, undefined);
    tally.check(url.includes("/_matrix/client/v1/media/download/"), "the address wants a token", url);
    const answer = await fetch(url, { headers: token });
    tally.equal(answer.status, 200, "the file is there");
    tally.equal(await answer.text(), "Hello, file", "as it was sent");
    const disposition = answer.headers.get("content-disposition");
    tally.check(/^(inline|attachment);.*filename/.test(disposition), "with its name", disposition);
    tally.equal((await fetch(url)).status, 401, "nobody gets it without a token");
    const part = await fetch(url, { headers: { ...token, Range: "bytes=7-10" } });
    tally.equal([part.status, await part.text()], [206, "file"], "a part of it can be asked for");
    const picture = await upload(PIXEL, "image/png", "pixel.png");
    const small = await fetch(address(picture.content_uri, 32, 32, "crop"), { headers: token });
    tally.equal(small.status, 200, "a picture has a thumbnail");
    tally.check(small.headers.get("content-type").startsWith("image/"), "which is a picture");
    await small.arrayBuffer();
    const config = await tally.succeeds(alice.client.getMediaConfig(true), "the limits can be asked for");
    tally.check(config["m.upload.size"] > 1000, "and say how large a file may be");
}

/** A keyword makes a highlight; a muted room counts nothing. */
export async function pushRules(tally, alice, bob) {
    const roomId = await together(tally, alice, bob);
    const rule = { pattern: "banana", actions: ["notify", { set_tweak: "highlight" }] };
    await tally.succeeds(alice.client.addPushRule("global", "content", "fruit", rule), "a keyword");
    const ruleset = await tally.succeeds(alice.client.getPushRules(), "the rules can be read");
    tally.check(
        ruleset.global.content.some((one) => one.rule_id === "fruit"),
        "and the keyword is among them",
    );
    const count = (kind) => alice.room(roomId).getUnreadNotificationCount(kind);
    await bob.say(roomId, "An apple a day");
    const last = await bob.say(roomId, "A Banana, too");
    await tally.until(
        () => count(NotificationCountType.Total) === 2 && count(NotificationCountType.Highlight) === 1,
        "two are unread, one is a highlight",
    );
    const event = await alice.sees(roomId, last, "alice sees it");
    await tally.succeeds(alice.client.sendReadReceipt(event), "alice reads it");
    await tally.until(() => count(NotificationCountType.Total) === 0, "nothing is unread");
    const mute = { actions: [], conditions: [{ kind: "event_match", key: "room_id", pattern: roomId }] };
    await tally.succeeds(alice.client.addPushRule("global", "override", roomId, mute), "alice mutes the room");
    const muted = await bob.say(roomId, "A banana that nobody hears of");
    await alice.sees(roomId, muted, "the message still comes");
    tally.equal(count(NotificationCountType.Total), 0, "and counts nothing");
    for (const [kind, id] of [["override", roomId], ["content", "fruit"]]) {
        await tally.succeeds(alice.client.deletePushRule("global", kind, id), "a rule is removed");
    }
}

/** Who is there, who can be found, and which rooms. */
export async function directories(tally, alice, bob) {
    const tag = alice.name.split("-")[1];
    const roomId = await together(tally, alice, bob, { name: `Garden ${tag}`, visibility: "public" });
    const found = await tally.succeeds(
        bob.client.publicRooms({ limit: 10, filter: { generic_search_term: `garden ${tag}` } }),
        "the directory is searched",
    );
    tally.equal(found.chunk.map((room) => room.room_id), [roomId], "and has the room");
    const people = await tally.succeeds(
        alice.client.searchUserDirectory({ term: bob.name }),
        "the people are searched",
    );
    tally.check(people.results.some((user) => user.user_id === bob.userId), "and bob is found");
    await tally.succeeds(
        bob.client.setPresence({ presence: "online", status_msg: "in the garden" }),
        "bob says how he is",
    );
    const status = () => alice.client.getUser(bob.userId)?.presenceStatusMsg;
    await tally.until(() => status() === "in the garden", "alice sees it");
    const begun = await bob.say(roomId, "The first word");
    const at = await tally.succeeds(
        alice.client.timestampToEvent(roomId, Date.now() + 1000, Direction.Backward),
        "the event of a time is asked for",
    );
    tally.equal(at.event_id, begun, "and is the last one before it");
    await tally.succeeds(alice.client.reportRoom(roomId, "weeds"), "alice reports the room");
    const openid = await tally.succeeds(alice.client.getOpenIdToken(), "an OpenID token");
    tally.equal(openid.matrix_server_name, "localhost", "names the server");
}

/** A room moves on to another version, and its members find the new one. */
export async function upgrade(tally, alice, bob) {
    const roomId = await together(tally, alice, bob, { name: "Old hall", topic: "dust" });
    const { replacement_room: next } = await tally.succeeds(
        alice.client.upgradeRoom(roomId, "12"),
        "alice upgrades the room",
    );
    const tombstone = () =>
        bob.room(roomId).currentState.getStateEvents(EventType.RoomTombstone, "")?.getContent();
    await tally.until(() => tombstone()?.replacement_room === next, "bob sees where it went");
    await tally.succeeds(bob.client.joinRoom(next), "bob follows");
    await tally.until(() => bob.room(next)?.name === "Old hall", "the new room has the name");
    const predecessor = bob.room(next).findPredecessor();
    tally.equal(predecessor?.roomId, roomId, "and says where it came from");
}

/** Devices are removed only by who proves to be their user. */
export async function devices(tally, alice, password) {
    const login = () =>
        alice.client.loginRequest({
            type: "m.login.password",
            identifier: { type: "m.id.user", user: alice.name },
            password,
        });
    const other = await tally.succeeds(login(), "alice logs in elsewhere");
    const refused = await alice.client.deleteMultipleDevices([other.device_id]).then(
        () => undefined,
        (error) => error,
    );
    tally.equal(refused?.httpStatus, 401, "removing a device asks for a proof");
    const proof = {
        type: "m.login.password",
        identifier: { type: "m.id.user", user: alice.name },
        password,
        session: refused?.data?.session,
    };
    await tally.succeeds(
        alice.client.deleteMultipleDevices([other.device_id], proof),
        "with the password it is removed",
    );
    const { devices: left } = await tally.succeeds(alice.client.getDevices(), "the devices are listed");
    tally.check(!left.some((device) => device.device_id === other.device_id), "and it is gone");
}

/** A message that is sent later, unless it is held back. */
export async function delayed(tally, alice, bob) {
    const roomId = await together(tally, alice, bob);
    const content = { msgtype: "m.text", body: "as promised" };
    const { delay_id: soon } = await tally.succeeds(
        alice.client._unstable_sendDelayedEvent(roomId, { delay: 300 }, null, EventType.RoomMessage, content),
        "alice sends for later",
    );
    tally.check(soon, "which has an id");
    const said = () =>
        bob.room(roomId).getLiveTimeline().getEvents().find((e) => e.getContent().body === "as promised");
    await tally.until(said, "and comes in its time");
}
