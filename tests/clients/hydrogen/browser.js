// Chromium without a window, and one tab of it as its user sees it: by the text of elements, by
// clicks and by keys, and with all that its console says about errors.

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import puppeteer from "puppeteer-core";

// A message, and not one that another one quotes.
const TILE = ".Timeline_scroller > ul > li.Timeline_message";

/** Starts the browser; its profile lies in the folder for temporary files and goes with it. */
export function launch(executablePath) {
    return puppeteer.launch({
        executablePath,
        args: [
            ...(process.getuid() === 0 ? ["--no-sandbox"] : []),
            // Chromium's own services: nothing but loopback is there.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
        ],
    });
}

/** One page in a context of its own, as it were another person's browser. */
export class Tab {
    errors = [];
    syncs = [];
    leftovers = [];

    /** `name` says whose tab it is; pictures go to the folder `screenshots`, if there is one. */
    static async open(tally, browser, url, { name, screenshots }) {
        const context = await browser.createBrowserContext();
        const page = await context.newPage();
        await page.setViewport({ width: 1100, height: 750 });
        const tab = Object.assign(new Tab(), { tally, page, name, screenshots });
        tab.listen();
        await page.goto(url);
        return tab;
    }

    /**
     * Collects every error that the page does not handle, and all that its console shows in red; also
     * the queries of its syncs.
     */
    listen() {
        this.page.on("request", (request) => {
            const { pathname, search } = new URL(request.url());
            if (pathname.endsWith("/sync")) this.syncs.push(search);
        });
        this.page.on("pageerror", (error) => this.errors.push(`uncaught: ${error.stack ?? error}`));
        this.page.on("requestfailed", (request) => {
            const { errorText } = request.failure();
            // What the page itself takes back: the sync that waits when it is left.
            if (errorText === "net::ERR_ABORTED") return;
            this.errors.push(`${errorText} ${new URL(request.url()).pathname}`);
        });
        this.page.on("console", (message) => {
            if (message.type() !== "error") return;
            const { url } = message.location();
            // Hydrogen asks its own origin for `undefined`, before an image has a source.
            if (url === new URL("undefined", this.page.url()).href) return;
            this.errors.push(`${message.text()} ${url ? new URL(url).pathname : ""}`.trim());
        });
    }

    /** The texts of the elements that are shown, from top to bottom. */
    texts(selector) {
        return this.page.$$eval(selector, (elements) =>
            elements.filter((element) => element.checkVisibility()).map((element) => element.innerText),
        );
    }

    /** What the messages of the open room say, from top to bottom: no times, no quoted messages. */
    messages() {
        return this.page.$$eval(`${TILE} > .Timeline_messageBody`, (bodies) =>
            bodies.map((body) => {
                const copy = body.cloneNode(true);
                for (const part of copy.querySelectorAll("time, .ReplyPreviewView")) part.remove();
                return copy.textContent;
            }),
        );
    }

    /** Waits until the open room's last messages are these. */
    endsWith(...expected) {
        const wanted = JSON.stringify(expected);
        const last = async () => JSON.stringify((await this.messages()).slice(-expected.length));
        const message = `${this.name} sees at the end ${wanted}`;
        return this.tally.until(async () => (await last()) === wanted, message, last);
    }

    /** Waits until the images that `selector` finds have arrived, and gives their sizes. */
    async images(selector, message) {
        const read = () =>
            this.page.$$eval(selector, (images) =>
                images.map((image) => [image.naturalWidth, image.naturalHeight]),
            );
        await this.tally.until(async () => {
            const sizes = await read();
            return sizes.length && sizes.every(([width]) => width);
        }, message);
        return read();
    }

    /** Chooses from the menu of the message with this text, once the server has given it an id. */
    async choose(text, option) {
        await this.act(TILE, text, async (message) => {
            const id = await message.evaluate((node) => node.dataset.eventId);
            if (!id?.startsWith("$")) return false;
            await message.hover();
            await (await message.$(".Timeline_messageOptions")).click();
            return true;
        });
        await this.click(".menu button", option);
    }

    /** Logs in by the form. */
    async logIn(person, password = person.password) {
        await this.sees(".LoginView_forwardInfo", person.baseUrl, "the login form finds the server");
        await this.type("#username", person.name);
        await this.type("#password", password);
        await this.click("button", "Log In");
    }

    /** Opens a room by its name in the list. */
    async enter(name) {
        await this.click(".RoomList a", name);
        await this.sees(".RoomHeader h2", name, `${this.name} has opened ${name}`);
    }

    /** Accepts the invitation to a room. */
    async accept(name) {
        await this.enter(name);
        await this.click(".InviteView button", "Accept");
        await this.sees(".RoomView .RoomHeader h2", name, `${name} opens`);
    }

    /** Sends a picture as a file from the disk. */
    async sendPicture(name, bytes) {
        const folder = await mkdtemp(join(tmpdir(), "hydrogen-"));
        const file = join(folder, name);
        await writeFile(file, bytes);
        await this.click(".sendFile");
        const [chooser] = await Promise.all([
            this.page.waitForFileChooser(),
            this.click(".menu button", "Send picture"),
        ]);
        await chooser.accept([file]);
        await this.images(`img[alt='${name}']`, `${this.name} sees ${name}`);
        // Hydrogen may still read the file until it is sent.
        this.leftovers.push(folder);
    }

    /** The tab closes, and what it was given goes. */
    async close() {
        for (const folder of this.leftovers) await rm(folder, { recursive: true });
        await this.page.browserContext().close();
    }

    /** Writes a message and sends it. */
    async say(text) {
        await this.type(".MessageComposer textarea", text);
        await this.page.keyboard.press("Enter");
    }

    /** Waits until an element with this text among others is shown. */
    sees(selector, text, message = `${this.name} sees ${text}`) {
        const shown = async () => (await this.texts(selector)).some((shown) => shown.includes(text));
        return this.tally.until(shown, message);
    }

    /** Clicks the first element with this text, as soon as it is there. */
    click(selector, text = "") {
        return this.act(selector, text, async (element) => {
            await element.click();
            return true;
        });
    }

    /** Does something with the first element with this text, until `action` says that it is done. */
    act(selector, text, action) {
        const has = (node, text) => node.checkVisibility() && node.innerText.includes(text);
        const attempt = async () => {
            for (const element of await this.page.$$(selector)) {
                if (await element.evaluate(has, text)) return action(element);
            }
            return false;
        };
        // Hydrogen may put another element into the place of one that was just found.
        const retried = () =>
            attempt().catch((error) => {
                if (/detached|not clickable/i.test(error.message)) return false;
                throw error;
            });
        return this.tally.until(retried, `${this.name} finds ${text || selector}`);
    }

    /** Replaces the content of a field by typing. */
    async type(selector, text) {
        await this.page.waitForSelector(selector);
        await this.page.$eval(selector, (field) => field.select());
        await this.page.type(selector, text);
    }

    /** What the person looks at now, as a file. */
    async picture(name) {
        if (!this.screenshots) return;
        await this.page.screenshot({ path: join(this.screenshots, `${name}.png`) });
    }
}
