// Alice uses a server through Hydrogen in Chromium: `node scenario.js BASE_URL CHROMIUM [FOLDER]`,
// with the path of the browser, and a folder for pictures of what she sees.
//
// Page and server have different origins. What Alice sees is read from the page, and what she does
// is done by clicks and keys; Bob, with whom she talks, makes plain requests. Needs open registration
// with the dummy stage and no rate limits. Closes with one line `hydrogen: N passed, M failed` and
// exits with 1 when a check failed.

import { randomBytes } from "node:crypto";
import { launch, Tab } from "./browser.js";
import { readMissed, whisper } from "./encrypted.js";
import { serveFiles } from "./files.js";
import { Failed, Person, Tally } from "./people.js";
import { loseToken, logOut, readRefusals } from "./session.js";

const PASSWORD = "correct horse battery staple";
const MESSAGE = ".Timeline_message .Timeline_messageBody";
const HISTORY = Array.from({ length: 120 }, (_, index) => `Line ${index + 1}`);

// What the console shows in red when all is right: questions that are answered with a no.
const WRONG_PASSWORD = "403 (Forbidden) /_matrix/client/r0/login";
const LOST_TOKEN = "401 (Unauthorized) /_matrix/client/r0/sync";
const EXPECTED_ERRORS = [
    "404 (Not Found) /.well-known/matrix/client",
    "404 (Not Found) /_matrix/client/unstable/org.matrix.msc2697.v2/dehydrated_device",
];

/** Alice logs in, at her second attempt, and sees her room. */
async function arrive(tab, alice) {
    await tab.logIn(alice, "wrong");
    await tab.sees(".error", "password don't seem to be correct", "a wrong password is told");
    await tab.picture("login");
    await tab.logIn(alice);
    await tab.sees(".RoomList .name", "Lobby", "after login the room is in the list");
}

/** Bob invites alice, who sees it and accepts. */
async function invite(tally, tab, alice, bob) {
    const roomId = await bob.create("Garden", [alice.userId], { topic: "What grows" });
    await tab.sees(".RoomList .name", "Garden", "the invitation is in the list");
    tally.equal(await tab.texts(".RoomList .badge"), ["!", "120"], "as new, above what is unread");
    await tab.click(".RoomList a", "Garden");
    await tab.sees(".InviteView_inviter", `Bob B. (${bob.userId}) invited you`);
    await tab.sees(".InviteView_roomDescription", "Private room");
    await tab.picture("invitation");
    await tab.accept("Garden");
    await tab.sees(".AnnouncementView", "Alice A. joined the room");
    const path = `rooms/${roomId}/state/m.room.member/${alice.userId}`;
    tally.equal((await bob.call("GET", path)).membership, "join", "bob sees that she joined");
    return roomId;
}

/** Messages both ways, an edit, redactions; gives the event id of bob's first message. */
async function talk(tally, tab, alice, bob, roomId) {
    await tab.say("Hello, Bob");
    const isHers = (event) => event.sender === alice.userId && event.content.body === "Hello, Bob";
    await bob.gets(roomId, isHers, "bob gets alice's message");
    const hello = await bob.say(roomId, "Hello, Alice – ü");
    await tab.endsWith("Hello, Bob", "Hello, Alice – ü");
    await tab.sees(".Timeline_messageSender", "Bob B.", "the sender is named");
    await bob.send(roomId, {
        "msgtype": "m.text",
        "body": "* Hello, dear Alice",
        "m.new_content": { msgtype: "m.text", body: "Hello, dear Alice" },
        "m.relates_to": { rel_type: "m.replace", event_id: hello },
    });
    // Hydrogen knows no edits, and shows what they hold for such clients.
    await tab.endsWith("Hello, Bob", "Hello, Alice – ü", "* Hello, dear Alice");

    const slip = await bob.say(roomId, "A slip");
    await tab.endsWith("A slip");
    await bob.call("PUT", `rooms/${roomId}/redact/${slip}/1`, { reason: "too hasty" });
    await tab.sees(MESSAGE, "message has been deleted", "bob's redaction is seen");
    tally.check(!(await tab.messages()).includes("A slip"), "the redacted text is gone");
    await tab.say("My slip");
    const hers = await bob.gets(roomId, (e) => e.content.body === "My slip", "bob gets her slip");
    await tab.choose("My slip", "Delete");
    const isGone = (event) => event.event_id === hers.event_id && event.unsigned?.redacted_because;
    await bob.gets(roomId, isGone, "bob gets alice's redaction");
    return hello;
}

/** Reactions and replies both ways. */
async function respond(tally, tab, alice, bob, roomId, hello) {
    const annotation = { rel_type: "m.annotation", event_id: hello, key: "+1" };
    await bob.send(roomId, { "m.relates_to": annotation }, "m.reaction");
    await tab.sees(".Timeline_messageReactions button", "+1 1", "bob's reaction is seen");
    await tab.click(".Timeline_messageReactions button", "+1");
    await tab.sees(".Timeline_messageReactions button", "+1 2", "alice's is counted with it");
    const isHers = (event) => event.type === "m.reaction" && event.sender === alice.userId;
    const reaction = await bob.gets(roomId, isHers, "bob gets alice's reaction");
    const { event_id: reactedTo, key } = reaction.content["m.relates_to"];
    tally.equal([reactedTo, key], [hello, "+1"], "it is as bob's");
    await tab.click(".Timeline_messageReactions button", "+1");
    const isGone = (event) =>
        event.event_id === reaction.event_id && event.unsigned?.redacted_because;
    await bob.gets(roomId, isGone, "bob gets that alice takes hers back");
    await tab.sees(".Timeline_messageReactions button", "+1 1", "his is left");

    const bed = await bob.send(roomId, {
        "msgtype": "m.text",
        "body": "How are the beans?",
        "m.relates_to": { "m.in_reply_to": { event_id: hello } },
    });
    await tab.sees(MESSAGE, "How are the beans?");
    await tab.sees(".ReplyPreviewView", "Hello, Alice", "bob's reply shows what it answers");
    await tab.choose("How are the beans?", "Reply");
    await tab.sees(".MessageComposer_replyPreview", "How are the beans?", "the composer shows it");
    await tab.say("They climb");
    const isReply = (event) => event.content["m.relates_to"]?.["m.in_reply_to"]?.event_id === bed;
    const reply = await bob.gets(roomId, isReply, "bob gets alice's reply");
    tally.equal(reply.sender, alice.userId, "it is from alice");
    await tab.endsWith("How are the beans?", "They climb");
    await tab.picture("talk");
}

/** Pictures both ways, and a picture of bob, by the service worker that knows the token. */
async function show(tally, tab, alice, bob, roomId) {
    const clip = { x: 0, y: 0, width: 400, height: 300 };
    const picture = Buffer.from(await tab.page.screenshot({ clip }));
    const url = await bob.upload(picture);
    const info = { w: 400, h: 300, mimetype: "image/png", size: picture.length };
    await bob.send(roomId, { msgtype: "m.image", body: "bobs.png", url, info });
    const [size] = await tab.images("img[alt='bobs.png']", "bob's picture is shown");
    tally.equal(size, [400, 300], "in its size");

    await tab.sendPicture("hers.png", picture);
    const isHers = (e) => e.content.msgtype === "m.image" && e.sender === alice.userId;
    const sent = await bob.gets(roomId, isHers, "bob gets alice's picture");
    const received = await bob.download(sent.content.url);
    tally.check(received.equals(picture), "the picture is as it was");
    await bob.call("PUT", `rooms/${roomId}/state/m.room.avatar/`, { url });
    await tab.images(".RoomList .avatar img", "the room's avatar is shown");
    await tab.picture("pictures");
}

/** A large picture is shown as a thumbnail, and whole when alice clicks it. */
async function enlarge(tally, tab, bob, roomId) {
    const picture = Buffer.from(await tab.page.screenshot());
    const { width: w, height: h } = tab.page.viewport();
    const info = { w, h, mimetype: "image/png", size: picture.length };
    const url = await bob.upload(picture);
    await bob.send(roomId, { msgtype: "m.image", body: "large.png", url, info });
    const [[width, height]] = await tab.images("img[alt='large.png']", "a thumbnail is shown");
    tally.check(width < w, "it is smaller than the picture", `${width} pixels wide`);
    tally.check(Math.abs(width / height - w / h) < 0.02, "in its shape", `${width}×${height}`);
    await tab.click("a:has(> img[alt='large.png'])");
    await tab.sees(".lightbox .details", "large.png");
    await tab.sees(".lightbox .picture", "", "the whole picture is shown");
    await tab.picture("lightbox");
    await tab.click(".lightbox .close");
}

/** Counts of unread messages rise while another room is open, and fall when theirs is opened. */
async function unread(tally, tab, alice, bob, lobby, garden) {
    await tab.enter("Lobby");
    const badge = `.RoomList a[href*="${garden}"] .badge`;
    const before = Number((await tab.texts(badge))[0] ?? 0);
    await bob.say(garden, "One");
    await bob.say(garden, "Two");
    await tab.sees(badge, `${before + 2}`, "two more messages are counted");
    tally.equal((await tab.texts(".RoomList .name"))[0], "Garden", "their room is the first");
    tally.equal(await tab.texts(".RoomList .name.unread"), ["Garden"], "it alone is marked as unread");
    const mention = { "msgtype": "m.text", "body": "Alice!", "m.mentions": { user_ids: [alice.userId] } };
    const last = await bob.send(garden, mention);
    await tab.sees(`${badge}.highlighted`, `${before + 3}`, "the mention is highlighted");
    await tab.picture("unread");
    await tab.enter("Garden");
    const cleared = async () => (await tab.texts(badge)).length === 0;
    await tally.until(cleared, "once the room is open, the badge goes");
    const read = `${alice.userId} ${last}`;
    const hasRead = async () => (await bob.receipts(garden)).includes(read);
    await tally.until(hasRead, "bob gets alice's receipt");
}

/** Alice joins a public room by its alias, looks at who is there, leaves and forgets it. */
async function visit(tally, tab, alice, bob) {
    const name = bob.name.replace("bob", "square");
    const square = await bob.create("Square", [], { preset: "public_chat", room_alias_name: name });
    await bob.say(square, "Anybody there?");
    await tab.click(".button-utility.create");
    await tab.click(".menu button", "Join Room");
    await tab.type("#id", `#${name}:localhost`);
    await tab.click("button", "Join");
    await tab.sees(".RoomView .RoomHeader h2", "Square", "the room opens");
    await tab.endsWith("Anybody there?");
    await tab.click(".room-options");
    await tab.click(".menu button", "Room details");
    await tab.sees(".RoomDetailsView_id", `#${name}:localhost`);
    await tab.sees(".RoomDetailsView_value", "2", "two people are counted");
    await tab.click(".RoomDetailsView button", "People");
    await tab.sees(".MemberTileView_name", "Alice A.");
    const names = (await tab.texts(".MemberTileView_name")).sort();
    tally.equal(names, ["Alice A.", "Bob B."], "both are listed");
    await tab.picture("members");

    tab.page.once("dialog", (dialog) => dialog.accept());
    await tab.click(".room-options");
    await tab.click(".menu button", "Leave room");
    const gone = async () => !(await tab.texts(".RoomList .name")).includes("Square");
    await tally.until(gone, "the room that she left is not in the list");
    const path = `rooms/${square}/members?membership=leave`;
    const [left] = (await bob.call("GET", path)).chunk;
    tally.equal(left?.state_key, alice.userId, "bob sees that she left");
    await tab.click(".room-options");
    await tab.click(".menu button", "Forget room");
    const forgotten = async () => {
        const filter = encodeURIComponent('{"room":{"include_leave":true}}');
        const { rooms } = await alice.call("GET", `sync?filter=${filter}`);
        return !rooms.leave?.[square];
    };
    await tally.until(forgotten, "the server has forgotten that she was there");
}

/** Alice scrolls up to the beginning of a room. */
async function scrollBack(tally, tab) {
    await tab.enter("Lobby");
    await tab.endsWith(...HISTORY.slice(-3));
    const atTop = async () => {
        await tab.page.$eval(".Timeline_scroller", (scroller) => scroller.scrollTo(0, 0));
        return (await tab.messages())[0] === HISTORY[0];
    };
    await tally.until(atTop, "the beginning of the history comes");
    tally.equal(await tab.messages(), HISTORY, "the history is whole and in order");
    await tab.picture("history");
}

/** The page is left and comes back: from what the browser keeps, and with what came meanwhile. */
async function resume(tally, tab, carolsTab, alice, bob, lobby) {
    const devices = await alice.call("GET", "devices");
    const url = tab.page.url();
    await tab.page.goto("about:blank");
    const missed = Array.from({ length: 40 }, (_, index) => `Missed ${index + 1}`);
    for (const line of missed) await bob.say(lobby, line);
    await carolsTab.say("While you were away");
    await carolsTab.endsWith("While you were away");
    tab.syncs.splice(0);
    await tab.page.goto(url);
    await tab.sees(".RoomHeader h2", "Lobby", "the room is open again");
    await tab.endsWith(missed.at(-1));
    let shown;
    const filled = async () => {
        // A gap is filled when it is looked at.
        await tab.page.$eval(".Timeline_scroller", (scroller) => {
            const gap = scroller.querySelector(".GapView");
            gap ? gap.scrollIntoView({ block: "center" }) : scroller.scrollTo(0, 0);
        });
        shown = await tab.messages();
        return [HISTORY.at(-1), missed[0]].every((line) => shown.includes(line));
    };
    await tally.until(filled, "the gap is filled");
    const expected = [...HISTORY, ...missed].slice(-shown.length);
    tally.equal(shown, expected, "nothing is missing, twice or misplaced");
    tally.check(tab.syncs.length, "the page syncs");
    const fromAnew = tab.syncs.filter((query) => !query.includes("since="));
    tally.equal(fromAnew, [], "it goes on from where it was");
    tally.equal((await alice.call("GET", "devices")).devices.length, devices.devices.length, "no login");
    const badge = `.RoomList a[href*="${lobby}"] .badge`;
    const cleared = async () => (await tab.texts(badge)).length === 0;
    await tally.until(cleared, "what is read is not counted any more");
    await tab.picture("resumed");
    await readMissed(tab, "While you were away");
}

/** No error of a tab but those that are expected. */
function compareErrors(tally, tab, expected) {
    const prefix = "Failed to load resource: the server responded with a status of ";
    const errors = new Set(tab.errors.map((error) => error.replace(prefix, "")));
    const others = [...errors].filter((error) => !expected.includes(error));
    tally.equal(others, [], `the console of ${tab.name} shows no error`);
}

/** A room with a history, in which alice and bob are. */
async function prepare(alice, bob) {
    for (const [person, displayname] of [[alice, "Alice A."], [bob, "Bob B."]]) {
        await person.register();
        await person.call("PUT", `profile/${person.userId}/displayname`, { displayname });
    }
    const lobby = await bob.create("Lobby", [alice.userId]);
    await alice.call("POST", `join/${lobby}`, {});
    for (const line of HISTORY) await bob.say(lobby, line);
    return lobby;
}

/** The whole story, in the order in which its parts build on each other. */
async function scenario(tally, baseUrl, browser, page, screenshots) {
    const tag = randomBytes(4).toString("hex");
    const alice = new Person(tally, baseUrl, `alice-${tag}`, PASSWORD);
    const bob = new Person(tally, baseUrl, `bob-${tag}`, PASSWORD);
    const lobby = await prepare(alice, bob);
    const carol = new Person(tally, baseUrl, `carol-${tag}`, PASSWORD);
    await carol.register();
    const open = (name) => Tab.open(tally, browser, page.url, { name, screenshots });
    const [tab, carolsTab] = [await open("alice"), await open("carol")];
    try {
        await arrive(tab, alice);
        await readRefusals(tally, tab, alice);
        const garden = await invite(tally, tab, alice, bob);
        const hello = await talk(tally, tab, alice, bob, garden);
        await respond(tally, tab, alice, bob, garden, hello);
        await show(tally, tab, alice, bob, garden);
        await enlarge(tally, tab, bob, garden);
        await unread(tally, tab, alice, bob, lobby, garden);
        await whisper(tally, tab, carolsTab, alice, carol);
        await visit(tally, tab, alice, bob);
        await scrollBack(tally, tab);
        await resume(tally, tab, carolsTab, alice, bob, lobby);
        await loseToken(carolsTab, carol);
        await logOut(tally, tab, alice);
    } catch (error) {
        for (const one of [tab, carolsTab]) await one.picture(`failed-${one.name}`);
        throw error;
    } finally {
        compareErrors(tally, tab, [WRONG_PASSWORD, ...EXPECTED_ERRORS]);
        compareErrors(tally, carolsTab, [LOST_TOKEN, ...EXPECTED_ERRORS]);
        await tab.close();
        await carolsTab.close();
    }
}

const [baseUrl, chromium, screenshots] = process.argv.slice(2);
if (!chromium) {
    console.error("usage: node scenario.js BASE_URL CHROMIUM [FOLDER]");
    process.exit(2);
}
const tally = new Tally();
const page = await serveFiles({ defaultHomeServer: baseUrl });
const browser = await launch(chromium);
try {
    await scenario(tally, baseUrl, browser, page, screenshots);
} catch (error) {
    // A `Failed` was counted and printed where it happened.
    if (!(error instanceof Failed)) tally.check(false, "the scenario ran to its end", error.stack);
} finally {
    await browser.close();
    page.close();
}
console.log(`hydrogen: ${tally.passed} passed, ${tally.failed} failed`);
process.exit(tally.failed ? 1 : 0);
