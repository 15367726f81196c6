// What becomes of a session: refusals that its page can read, a token that is gone, logout.

/** Runs in the page: a request, and what it can read of the answer. */
async function ask(method, url, token, sizeBytes) {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const body = sizeBytes && new Blob([new Uint8Array(sizeBytes)]);
    const response = await fetch(url, { method, headers, body });
    const { errcode } = await response.json();
    return `${response.status} ${errcode}`;
}

/** A page can read that the server refuses something: CORS headers are on errors too. */
export async function readRefusals(tally, tab, alice) {
    const { body: limits } = await alice.request("GET", "client/v1/media/config");
    // A page of the same origin, so that what its console says is not held against Hydrogen.
    const page = await tab.page.browserContext().newPage();
    await page.goto(new URL("page.js", tab.page.url()).href);
    for (const [method, path, token, expected, sizeBytes] of [
        ["GET", "client/v3/account/whoami", undefined, "401 M_MISSING_TOKEN"],
        ["GET", "client/v3/account/whoami", "none", "401 M_UNKNOWN_TOKEN"],
        ["PUT", "client/v3/nothing", alice.token, "404 M_UNRECOGNIZED"],
        ["DELETE", "client/v3/sync", alice.token, "405 M_UNRECOGNIZED"],
        ["POST", "client/v3/createRoom", alice.token, "413 M_TOO_LARGE", 16 << 20],
        ["POST", "media/v3/upload", alice.token, "413 M_TOO_LARGE", limits["m.upload.size"] + 1],
    ]) {
        const url = `${alice.baseUrl}/_matrix/${path}`;
        const read = await page.evaluate(ask, method, url, token, sizeBytes).catch(String);
        tally.equal(read, expected, `the page can read the answer to ${method} ${path}`);
    }
    await page.close();
}

/** Carol's token ends elsewhere; the sync that waits is told, and her page says so. */
export async function loseToken(tab, carol) {
    await carol.call("POST", "logout/all", {});
    await tab.sees(".LogoutScreen", "access token is no longer valid", "carol is told that she is out");
    await tab.picture("token-lost");
    await tab.click(".LogoutScreen button", "Proceed");
    await tab.sees(".LoginView_forwardInfo", carol.baseUrl, "and may log in again");
}

/** Alice logs out: the page forgets her, and the server her device. */
export async function logOut(tally, tab, alice) {
    const sessions = () => tab.page.evaluate(() => localStorage.getItem("hydrogen_sessions_v1"));
    const [{ accessToken }] = JSON.parse(await sessions());
    const whoami = () => alice.request("GET", "client/v3/account/whoami", undefined, accessToken);
    tally.equal((await whoami()).body.user_id, alice.userId, "the page's token is alive");
    await tab.click(".settings");
    await tab.sees(".Settings", alice.userId, "the settings are open");
    await tab.picture("settings");
    await tab.click(".Settings button", "Log out");
    await tab.click(".LogoutScreen button", "Log out");
    await tally.until(async () => (await sessions()) === "[]", "the page has forgotten alice");
    const { status, body } = await whoami();
    tally.equal([status, body.errcode], [401, "M_UNKNOWN_TOKEN"], "the token is dead");
    const databases = () => tab.page.evaluate(() => indexedDB.databases());
    const gone = async () => !(await databases()).some(({ name }) => name.startsWith("hydrogen_session"));
    await tally.until(gone, "the browser has forgotten the rooms");
    await tab.picture("logged-out");
}
