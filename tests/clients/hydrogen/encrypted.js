// Alice and Carol, each in a browser of her own, talk in an encrypted room of alice.

/**
 * Alice creates the room by a plain request, and enters it: Hydrogen 0.3.1 has a form for it, but does
 * not wait for the room and then opens one without an id.
 */
async function create(tab, alice, carol) {
    const content = { algorithm: "m.megolm.v1.aes-sha2" };
    const encryption = { type: "m.room.encryption", state_key: "", content };
    const roomId = await alice.create("Vault", [carol.userId], { initial_state: [encryption] });
    await tab.enter("Vault");
    return roomId;
}

/** The server has nothing but ciphertext of what was said. */
async function compareCiphertext(tally, alice, roomId) {
    const events = await alice.newest(roomId, 100);
    const types = events.map((event) => event.type);
    tally.equal(types.filter((type) => type === "m.room.encrypted").length, 3, "three are encrypted");
    tally.check(!types.includes("m.room.message"), "and none is not");
    tally.check(!JSON.stringify(events).includes("secret"), "no event has the text");
}

/** Messages and a picture, both of them in all pages and none on the server. */
export async function whisper(tally, tab, carolsTab, alice, carol) {
    const roomId = await create(tab, alice, carol);
    await carolsTab.logIn(carol);
    await carolsTab.accept("Vault");
    await tab.sees(".AnnouncementView", `${carol.name} joined the room`);
    await tab.say("A secret");
    await carolsTab.endsWith("A secret");
    await carolsTab.say("Your secret is safe");
    await tab.endsWith("A secret", "Your secret is safe");
    const clip = { x: 0, y: 0, width: 300, height: 200 };
    await tab.sendPicture("secret.png", await tab.page.screenshot({ clip }));
    const [size] = await carolsTab.images("img[alt='secret.png']", "carol sees the picture");
    tally.equal(size, [300, 200], "in its size");
    await compareCiphertext(tally, alice, roomId);
    await carolsTab.picture("encrypted");
}

/** The keys are in the browser, and that of what came meanwhile has come too. */
export async function readMissed(tab, text) {
    await tab.enter("Vault");
    await tab.endsWith("A secret", "Your secret is safe", "", text);
    await tab.picture("encrypted-resumed");
}
