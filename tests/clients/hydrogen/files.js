// Serves the page and the packages that it imports from loopback, to the browser alone.
//
// `/packages/…` are files of the installed packages as they are. `/modules/…` are those that were
// written for `require`, wrapped so that a browser can import them: no bundler is needed.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const packages = join(here, "node_modules");

const TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
};

const PAGES = {
    "/": join(here, "page.html"),
    // What Hydrogen's service worker asks for instead of `/`.
    "/index.html": join(here, "page.html"),
    "/page.js": join(here, "page.js"),
    "/sw.js": join(packages, "hydrogen-view-sdk/lib-build/sw.js"),
};

const wrapped = (source) =>
    `const module = { exports: {} }, exports = module.exports;\n${source}\nexport default module.exports;`;

/** The content for a path of a URL. */
async function content(path) {
    if (PAGES[path]) return readFile(PAGES[path]);
    const [, kind, rest] = /^\/(packages|modules)\/(.*)$/.exec(normalize(path)) ?? [];
    if (!kind) throw new Error(`nothing is served as ${path}`);
    const file = await readFile(join(packages, rest));
    return kind === "modules" ? wrapped(file) : file;
}

/** Serves until `close()`; `config` is what Hydrogen reads as `config.json`. */
export async function serveFiles(config) {
    const server = createServer(async (request, response) => {
        const { pathname } = new URL(request.url, "http://localhost");
        try {
            const body = pathname === "/config.json" ? JSON.stringify(config) : await content(pathname);
            const type = TYPES[extname(pathname)] ?? (pathname === "/" ? "text/html" : "application/json");
            response.writeHead(200, { "Content-Type": type }).end(body);
        } catch (error) {
            response.writeHead(404).end(String(error));
        }
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    const close = () => {
        server.closeAllConnections();
        server.close();
    };
    return { url: `http://127.0.0.1:${server.address().port}/`, close };
}
