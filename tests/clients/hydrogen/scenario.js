// Alice uses a server through Hydrogen in Chromium: `node scenario.js BASE_URL CHROMIUM [FOLDER]`,
// with the path of the browser, and a folder for pictures of what she sees.
//
// Page and server have different origins. What Alice sees is read from the page, and what she does
// is done by clicks and keys; Bob, with whom she talks, makes plain requests. Needs open registration
// with the dummy stage and no rate limits. Closes with one line `hydrogen: N passed, M failed` and
// exits with 1 when a check failed.

import { randomBytes } from "node:crypto";
import { launch, Tab } from "./browser.js";
import { serveFiles } from "./files.js";
import { Failed, Person, Tally } from "./people.js";

const PASSWORD = "correct horse battery staple";
const MESSAGE = ".Timeline_message .Timeline_messageBody";

/** Alice logs in by the form, at her second attempt. */
async function logIn(tally, tab, alice) {
    await tab.sees(".LoginView_forwardInfo", alice.baseUrl, "the login form has found the server");
    await tab.type("#username", alice.name);
    await tab.type("#password", "wrong");
    await tab.click("button", "Log In");
    await tab.sees(".error", "password don't seem to be correct", "a wrong password is told");
    await tab.picture("login");
    await tab.type("#password", alice.password);
    await tab.click("button", "Log In");
    await tab.sees(".RoomList .name", "Lobby", "after login the room is in the list");
}

/** Messages both ways. */
async function talk(tally, tab, alice, bob, roomId) {
    await tab.click(".RoomList a", "Lobby");
    await tab.sees(".RoomHeader h2", "Lobby", "the room is open");
    await tab.type(".MessageComposer textarea", "Hello, Bob");
    await tab.page.keyboard.press("Enter");
    const isHers = (event) => event.sender === alice.userId && event.content.body === "Hello, Bob";
    await bob.gets(roomId, isHers, "bob gets alice's message");
    await tab.sees(MESSAGE, "Hello, Bob", "alice sees her message");
    await bob.say(roomId, "Hello, Alice – ü");
    await tab.sees(MESSAGE, "Hello, Alice – ü", "alice sees bob's message");
    await tab.picture("talk");
}

/** The whole story, in the order in which its parts build on each other. */
async function scenario(tally, baseUrl, browser, page, screenshots) {
    const tag = randomBytes(4).toString("hex");
    const alice = new Person(tally, baseUrl, `alice-${tag}`, PASSWORD);
    const bob = new Person(tally, baseUrl, `bob-${tag}`, PASSWORD);
    await alice.register();
    await bob.register();
    const lobby = await bob.create("Lobby", [alice.userId]);
    await alice.call("POST", `join/${lobby}`, {});
    const tab = await Tab.open(tally, browser, page.url, { name: "alice", screenshots });
    try {
        await logIn(tally, tab, alice);
        await talk(tally, tab, alice, bob, lobby);
    } finally {
        await tab.picture("end");
        console.log(tab.errors);
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
