// What the scenario is told in: the tally of checks, and a person with running clients.

// The SDK is written for Node 22 and browsers; this is all that Node 20 lacks of it.
Promise.withResolvers ??= function () {
    const resolvers = {};
    resolvers.promise = new this((resolve, reject) => Object.assign(resolvers, { resolve, reject }));
    return resolvers;
};

const sdk = await import("matrix-js-sdk");
export const { ClientEvent, EventTimeline, EventType, KnownMembership, ReceiptType } = sdk;
export const { RelationType, RoomMemberEvent, TimelineWindow } = sdk;
export const { Direction, NotificationCountType, ThreadFilterType } = sdk;

// How long a condition may take to come through the running client.
const WAIT_MS = 20_000;

export const silence = { trace() {}, debug() {}, info() {}, warn() {}, error() {}, log() {} };
silence.getChild = () => silence;
// Parts of the SDK log past the logger that a client is given; the checks speak for themselves.
console.debug = console.info = console.warn = () => {};

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
        console.log(`js: FAILED: ${message}${detail === undefined ? "" : `: ${detail}`}`);
        return false;
    }

    /** Counts one check that two values are the same, compared as JSON. */
    equal(actual, expected, message) {
        const [is, shall] = [JSON.stringify(actual), JSON.stringify(expected)];
        return this.check(is === shall, message, `${is} is not ${shall}`);
    }

    /** Like `check`, for what the rest of the scenario builds on. */
    need(holds, message, detail) {
        if (!this.check(holds, message, detail)) throw new Failed(message);
    }

    /** Waits until `condition()` is true, and gives its value. */
    async until(condition, message) {
        const deadline = Date.now() + WAIT_MS;
        for (;;) {
            const value = condition();
            if (value) {
                this.check(true, message);
                return value;
            }
            this.need(Date.now() < deadline, message, `not within ${WAIT_MS} ms`);
            await new Promise((resolve) => setTimeout(resolve, 20));
        }
    }

    /** Awaits a request that must succeed. */
    async succeeds(request, message) {
        try {
            const answer = await request;
            this.check(true, message);
            return answer;
        } catch (error) {
            this.check(false, message, error);
            throw new Failed(message);
        }
    }

    /** Awaits a request that must be refused with `errcode`. */
    async refused(request, errcode, message) {
        const outcome = await request.then(
            () => "a success",
            (error) => error.errcode ?? String(error),
        );
        this.equal(outcome, errcode, message);
    }
}

/** One user; `client` is the first client, `open()` gives further ones of the same device. */
export class Person {
    running = [];

    constructor(tally, baseUrl, name) {
        Object.assign(this, { tally, baseUrl, name });
    }

    /** Registers as the SDK's interactive authentication does: ask for the flows, then the dummy. */
    async register(password) {
        const client = sdk.createClient({ baseUrl: this.baseUrl, logger: silence });
        const flows = await client.registerRequest({}).then(
            () => undefined,
            (error) => error,
        );
        this.tally.equal(flows?.httpStatus, 401, "registration asks for interactive authentication");
        this.tally.check(
            flows?.data?.flows?.some((flow) => flow.stages.join() === "m.login.dummy"),
            "the dummy stage alone is a flow",
            JSON.stringify(flows?.data),
        );
        const auth = { type: "m.login.dummy", session: flows?.data?.session };
        this.login = await this.tally.succeeds(
            client.registerRequest({ username: this.name, password, auth }),
            `${this.name} registers`,
        );
        this.userId = this.login.user_id;
        this.client = await this.open(20);
    }

    /** A running client with lazy loading and threads, after its first sync. */
    async open(initialSyncLimit) {
        const client = sdk.createClient({
            baseUrl: this.baseUrl,
            userId: this.userId,
            deviceId: this.login.device_id,
            accessToken: this.login.access_token,
            timelineSupport: true,
            logger: silence,
        });
        this.running.push(client);
        await client.startClient({ initialSyncLimit, lazyLoadMembers: true, threadSupport: true });
        await this.tally.until(() => client.isInitialSyncComplete(), `${this.name}'s client is in sync`);
        return client;
    }

    /** The room as the first client knows it. */
    room(roomId) {
        return this.client.getRoom(roomId);
    }

    /** Waits until an event is in the first client's live timeline. */
    sees(roomId, eventId, message) {
        const find = () => this.room(roomId)?.findEventById(eventId);
        return this.tally.until(find, message);
    }

    /** Sends a text message and returns its event id. */
    async say(roomId, body) {
        const sent = this.client.sendTextMessage(roomId, body);
        return (await this.tally.succeeds(sent, `${this.name} can send`)).event_id;
    }

    /** Stops every client of this person. */
    stop() {
        for (const client of this.running.splice(0)) client.stopClient();
    }
}
