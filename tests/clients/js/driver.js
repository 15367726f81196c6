// matrix-js-sdk with its Rust crypto, driven over a pipe: `node driver.js BASE_URL`; see
// ../e2ee/run.py, whose requests and answers are JSON, one a line. One process holds any number of
// devices, each under the name that the other side gives it.

import { createInterface } from "node:readline";
import { silence } from "./people.js";

const sdk = await import("matrix-js-sdk");
const { CryptoEvent, VerificationPhase, decodeRecoveryKey } = await import(
    "matrix-js-sdk/lib/crypto-api/index.js"
);
const { UserId } = await import("@matrix-org/matrix-sdk-crypto-wasm");

// How long a condition may take to come true.
const WAIT_MS = 40_000;
const SAS = "m.sas.v1";

/** Waits until `condition()` gives something, and returns it. */
async function until(condition, what) {
    const deadline = Date.now() + WAIT_MS;
    for (;;) {
        const value = await condition();
        if (value) return value;
        if (Date.now() > deadline) throw new Error(`not within ${WAIT_MS} ms: ${what}`);
        await new Promise((resolve) => setTimeout(resolve, 30));
    }
}

/** One device, with its running client. */
class Device {
    requests = new Map();
    verifications = new Map();
    secretKey = undefined;

    async login({ url, user, password }) {
        const identifier = { type: "m.id.user", user };
        const login = await sdk
            .createClient({ baseUrl: url, logger: silence })
            .loginRequest({ type: "m.login.password", identifier, password });
        this.password = password;
        this.client = sdk.createClient({
            baseUrl: url,
            userId: login.user_id,
            deviceId: login.device_id,
            accessToken: login.access_token,
            timelineSupport: true,
            verificationMethods: [SAS],
            cryptoCallbacks: {
                getSecretStorageKey: async ({ keys }) =>
                    this.secretKey && [Object.keys(keys)[0], this.secretKey],
                cacheSecretStorageKey: (_id, _info, key) => (this.secretKey = key),
            },
            logger: silence,
        });
        await this.client.initRustCrypto({ useIndexedDB: false });
        this.crypto = this.client.getCrypto();
        this.client.on(CryptoEvent.VerificationRequestReceived, (request) =>
            this.requests.set(request.transactionId, request),
        );
        await this.client.startClient({ lazyLoadMembers: true, threadSupport: true });
        await until(() => this.client.isInitialSyncComplete(), "the first sync");
        return login;
    }

    async close() {
        this.client.stopClient();
    }

    async create_room({ invite }) {
        const created = await this.client.createRoom({
            preset: "private_chat",
            invite,
            initial_state: [
                {
                    type: "m.room.encryption",
                    state_key: "",
                    content: { algorithm: "m.megolm.v1.aes-sha2" },
                },
            ],
        });
        await this.#encrypted(created.room_id);
        return created.room_id;
    }

    /** Waits for the invitation, and accepts it. */
    async join({ room }) {
        await until(() => this.#room(room)?.getMyMembership() === "invite", "the invitation");
        await this.client.joinRoom(room);
        await until(() => this.#room(room)?.getMyMembership() === "join", "the join");
        await this.#encrypted(room);
    }

    async leave({ room }) {
        await this.client.leave(room);
        await until(() => this.#room(room)?.getMyMembership() === "leave", "the leave");
    }

    async invite({ room, user }) {
        await this.client.invite(room, user);
    }

    async members({ room, count }) {
        const joined = () => this.#room(room)?.getJoinedMemberCount() === count;
        await until(joined, `${count} members`);
    }

    async send({ room, body }) {
        return (await this.client.sendTextMessage(room, body)).event_id;
    }

    /** Waits for a message that was encrypted and is readable. */
    async message({ room, body }) {
        const find = () => this.#events(room).find((event) => readable(event) === body);
        return (await until(find, `the message ${body}`)).getId();
    }

    /** The encrypted events of the whole history, and what they say. */
    async history({ room }) {
        const joined = this.#room(room);
        while (joined.oldState.paginationToken) await this.client.scrollback(joined, 100);
        const history = {};
        for (const event of this.#events(room).filter((event) => event.isEncrypted())) {
            if (!readable(event)) {
                await event.attemptDecryption(this.client.getCrypto(), { isRetry: true });
            }
            history[event.getId()] = readable(event) ?? null;
        }
        return history;
    }

    /** Waits until a device is known, or is not. */
    async knows({ user, other, known }) {
        const right = async () => {
            const devices = (await this.crypto.getUserDeviceInfo([user], true)).get(user);
            return (devices?.has(other) ?? false) === known;
        };
        await until(right, `${user} ${other} ${known ? "is" : "is not"} known`);
    }

    /** Waits until the cross-signing keys of a user are known. */
    async identifies({ user }) {
        await until(() => this.crypto.userHasCrossSigningKeys(user), `${user} has keys`);
    }

    async trusts({ user, other }) {
        const trusted = async () =>
            other
                ? (await this.crypto.getDeviceVerificationStatus(user, other))?.isVerified()
                : (await this.crypto.getUserVerificationStatus(user)).isVerified();
        await until(trusted, `${user} ${other ?? ""} is trusted`);
    }

    async cross_sign() {
        await this.crypto.bootstrapCrossSigning({
            setupNewCrossSigning: true,
            authUploadDeviceSigningKeys: (request) => this.#authenticated(request),
        });
    }

    async backup() {
        const key = await this.crypto.createRecoveryKeyFromPassphrase();
        await this.crypto.bootstrapSecretStorage({
            createSecretStorageKey: async () => key,
            setupNewSecretStorage: true,
            setupNewKeyBackup: true,
        });
        await until(() => this.crypto.getActiveSessionBackupVersion(), "the backup");
        return key.encodedPrivateKey;
    }

    async restore({ key }) {
        this.secretKey = decodeRecoveryKey(key);
        await this.crypto.bootstrapCrossSigning({});
        await this.crypto.loadSessionBackupPrivateKeyFromSecretStorage();
        await this.crypto.checkKeyBackupAndEnable();
        return (await this.crypto.restoreKeyBackup()).imported;
    }

    /** Leaves a device that sleeps, after waking the one before, if there is one. */
    async dehydrate() {
        await this.crypto.startDehydration();
        const path = "/org.matrix.msc3814.v1/dehydrated_device";
        const prefix = "/_matrix/client/unstable";
        const http = this.client.http;
        return (await http.authedRequest("GET", path, undefined, undefined, { prefix })).device_id;
    }

    /** The next message begins a new session. */
    async discard({ room }) {
        await this.crypto.forceDiscardSession(room);
    }

    async sas_begin({ user, other, room }) {
        const request = room
            ? await this.crypto.requestVerificationDM(user, room)
            : await this.crypto.requestDeviceVerification(user, other);
        this.requests.set(request.transactionId, request);
        return request.transactionId;
    }

    async sas_answer({ user, flow, bare }) {
        if (bare) {
            const machine = this.crypto.olmMachine;
            const sas = await until(() => machine.getVerification(new UserId(user), flow), "a start");
            await this.#makeRequest(sas.accept());
            this.verifications.set(flow, sas);
            return;
        }
        await (await until(() => this.requests.get(flow), "a request")).accept();
    }

    /** The numbers that both sides must see. */
    async sas_numbers({ flow, begins, bare }) {
        if (bare) {
            const sas = this.verifications.get(flow);
            await until(() => sas.canBePresented(), "the numbers");
            return Array.from(sas.decimals());
        }
        const request = this.requests.get(flow);
        let verifier;
        if (begins) {
            await until(() => request.phase === VerificationPhase.Ready, "the request is accepted");
            verifier = await request.startVerification(SAS);
        } else {
            verifier = await until(() => request.verifier, "the start");
        }
        const done = verifier.verify();
        done.catch(() => {});
        this.verifications.set(flow, { done, verifier });
        return (await until(() => verifier.getShowSasCallbacks(), "the numbers")).sas.decimal;
    }

    async sas_confirm({ flow, bare }) {
        const verification = this.verifications.get(flow);
        if (bare) {
            for (const request of await verification.confirm()) await this.#makeRequest(request);
            await until(() => verification.isDone(), "the end of the verification");
            return;
        }
        await verification.verifier.getShowSasCallbacks().confirm();
        await verification.done;
    }

    #room(room) {
        return this.client.getRoom(room);
    }

    #events(room) {
        return this.#room(room)?.getLiveTimeline().getEvents() ?? [];
    }

    async #encrypted(room) {
        await until(() => this.crypto.isEncryptionEnabledInRoom(room), "the room is encrypted");
    }

    #makeRequest(request) {
        return this.crypto.outgoingRequestProcessor.makeOutgoingRequest(request);
    }

    /** Makes a request, and once more with the password when the server asks for it. */
    async #authenticated(request) {
        try {
            return await request(null);
        } catch (error) {
            if (error.httpStatus !== 401) throw error;
            return await request({
                type: "m.login.password",
                identifier: { type: "m.id.user", user: this.client.getUserId() },
                password: this.password,
                session: error.data.session,
            });
        }
    }
}

/** What an event says, when it was encrypted and is not any more. */
function readable(event) {
    return event.isEncrypted() && !event.isDecryptionFailure() ? event.getContent().body : undefined;
}

const url = process.argv[2];
const devices = new Map();

async function answer(request) {
    if (request.do === "login") devices.set(request.device, new Device());
    const device = devices.get(request.device);
    return (await device[request.do]({ url, ...request })) ?? null;
}

for await (const line of createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    answer(request).then(
        (value) => console.log(JSON.stringify({ id: request.id, value })),
        (error) => console.log(JSON.stringify({ id: request.id, error: String(error?.stack ?? error) })),
    );
}
process.exit(0);
