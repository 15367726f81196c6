// What the scenario is told in: the tally of checks, and a person who uses the server by plain
// requests.

// How long a condition may take to come true in the page or on the server.
const WAIT_MS = 15_000;

/** A step failed that the rest of the scenario builds on. */
export class Failed extends Error {}

/** Counts the checks, printing those that fail as they happen. */
export class Tally {
    passed = 0;
    failed = 0;

    /** Counts one check; a false one is printed and the run goes on. */
    check(holds, message, detail) {
        if (holds) {
            this.passed += 1;
            return true;
        }
        this.failed += 1;
        console.log(`hydrogen: FAILED: ${message}${detail === undefined ? "" : `: ${detail}`}`);
        return false;
    }

    /** Counts one check that two values are the same, compared as JSON. */
    equal(actual, expected, message) {
        const [is, shall] = [JSON.stringify(actual), JSON.stringify(expected)];
        return this.check(is === shall, message, `${is} is not ${shall}`);
    }

    /**
     * Waits until `condition()`, which may be a promise, is truthy, and gives its value; what there
     * is instead is told by `found()`.
     */
    async until(condition, message, found = () => "") {
        const deadline = Date.now() + WAIT_MS;
        for (;;) {
            const value = await condition();
            if (value || Date.now() > deadline) {
                const detail = value ? "" : `not within ${WAIT_MS} ms ${await found()}`;
                if (this.check(value, message, detail)) return value;
                throw new Failed(message);
            }
            await new Promise((resolve) => setTimeout(resolve, 50));
        }
    }
}

/** A user without a client. */
export class Person {
    transactions = 0;

    constructor(tally, baseUrl, name, password) {
        Object.assign(this, { tally, baseUrl, name, password });
    }

    /** A request as this user; gives status and body. */
    async request(method, path, body, token = this.token) {
        const response = await fetch(`${this.baseUrl}/_matrix/${path}`, {
            method,
            headers: token ? { Authorization: `Bearer ${token}` } : {},
            body: body === undefined ? body : JSON.stringify(body),
        });
        return { status: response.status, body: await response.json() };
    }

    /** A request to the client API that must succeed; gives the body. */
    async call(method, path, body) {
        const answer = await this.request(method, `client/v3/${path}`, body);
        if (this.tally.check(answer.status === 200, `${method} ${path}`, JSON.stringify(answer.body))) {
            return answer.body;
        }
        throw new Failed(path);
    }

    async register() {
        const auth = { type: "m.login.dummy" };
        const account = { username: this.name, password: this.password, auth };
        const { user_id: userId, access_token: token } = await this.call("POST", "register", account);
        Object.assign(this, { userId, token });
    }

    /** Creates a room and gives its id. */
    async create(name, invite, more = {}) {
        const room = { name, invite, preset: "private_chat", ...more };
        return (await this.call("POST", "createRoom", room)).room_id;
    }

    /** Sends an event and gives its id. */
    async send(roomId, content, type = "m.room.message") {
        const path = `rooms/${roomId}/send/${type}/${++this.transactions}`;
        return (await this.call("PUT", path, content)).event_id;
    }

    say(roomId, body) {
        return this.send(roomId, { msgtype: "m.text", body });
    }

    /** Puts a picture onto the server and gives its URI. */
    async upload(bytes) {
        const response = await fetch(`${this.baseUrl}/_matrix/media/v3/upload?filename=page.png`, {
            method: "POST",
            headers: { "Authorization": `Bearer ${this.token}`, "Content-Type": "image/png" },
            body: bytes,
        });
        return (await response.json()).content_uri;
    }

    /** The bytes of a file on the server. */
    async download(uri) {
        const path = `_matrix/client/v1/media/download/${uri.replace("mxc://", "")}`;
        const headers = { Authorization: `Bearer ${this.token}` };
        const response = await fetch(`${this.baseUrl}/${path}`, { headers });
        return Buffer.from(await response.arrayBuffer());
    }

    /** Whose read receipts are on which event of a room. */
    async receipts(roomId) {
        const { rooms } = await this.call("GET", "sync");
        const receipts = rooms.join[roomId].ephemeral.events.find((e) => e.type === "m.receipt");
        return Object.entries(receipts?.content ?? {}).flatMap(([eventId, kinds]) =>
            Object.keys(kinds["m.read"] ?? {}).map((userId) => `${userId} ${eventId}`),
        );
    }

    /** The newest events of a room, newest first. */
    async newest(roomId, limit = 10) {
        return (await this.call("GET", `rooms/${roomId}/messages?dir=b&limit=${limit}`)).chunk;
    }

    /** Waits until the newest event that `matches` is there, and gives it. */
    gets(roomId, matches, message) {
        const find = async () => (await this.newest(roomId)).find(matches);
        return this.tally.until(find, message);
    }
}
