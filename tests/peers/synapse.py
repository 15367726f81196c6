"""Files between Causerie and Synapse, each under a name of its own, over TLS on loopback.

    synapse.py --binary PATH

Synapse has no user of Causerie and the other way around: only what servers ask of each other is
tried. Users speak to their own server alone.
"""

import argparse
import json
import secrets
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
HARNESS = HERE.parent / "harness" / "certificates"
# How long a server may take to start.
START_S = 60
PASSWORD = "correct horse battery staple"
# One pixel, as PNG.
PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6360f8cfc0f01f00050001ff9e5f2b2f0000000049454e44ae426082"
)

SYNAPSE = """
server_name: "localhost:{port}"
public_baseurl: "https://localhost:{port}/"
pid_file: "{data}/pid"
listeners:
  - port: {port}
    bind_addresses: ["127.0.0.1"]
    type: http
    tls: true
    resources: [{{names: [client, federation, media], compress: false}}]
tls_certificate_path: "{certificates}/server.pem"
tls_private_key_path: "{certificates}/server.key"
federation_custom_ca_list: ["{certificates}/ca.pem"]
ip_range_whitelist: ["127.0.0.1", "::1"]
database: {{name: sqlite3, args: {{database: "{data}/db"}}}}
log_config: "{data}/log.yaml"
media_store_path: "{data}/media"
signing_key_path: "{data}/signing.key"
trusted_key_servers: []
suppress_key_server_warning: true
report_stats: false
enable_registration: true
enable_registration_without_verification: true
macaroon_secret_key: "macaroon"
form_secret: "form"
rc_registration: {{per_second: 1000, burst_count: 1000}}
"""

LOG = """
version: 1
disable_existing_loggers: false
formatters: {{plain: {{format: "%(asctime)s %(name)s %(levelname)s %(message)s"}}}}
handlers: {{file: {{class: logging.FileHandler, formatter: plain, filename: "{data}/log"}}}}
root: {{level: INFO, handlers: [file]}}
"""


class Tally:
    """Counts the checks, printing those that fail."""

    def __init__(self):
        self.passed = self.failed = 0

    def check(self, holds, message, detail=""):
        """Counts one check; a false one is printed and the run goes on."""
        if holds:
            self.passed += 1
        else:
            self.failed += 1
            print(f"peers: FAILED: {message}: {detail}", flush=True)


class Server:
    """A homeserver, and what its users ask it."""

    def __init__(self, name, port, command, folder):
        self.name, self.port = name, port
        self.url = f"https://localhost:{port}"
        self.log = folder / "output"
        self.context = ssl.create_default_context(cafile=HARNESS / "ca.pem")
        with open(self.log, "wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)

    @property
    def server_name(self):
        """The name that the other server knows it by."""
        return f"localhost:{self.port}"

    def ask(self, method, path, body=None, token=None, content_type="application/json"):
        """One request: the status, the headers and the body of the answer."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=body, method=method)
        request.add_header("Content-Type", content_type)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=60, context=self.context) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    def wait(self):
        """Waits until the server answers."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.ask("GET", "/_matrix/client/versions")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise SystemExit(f"peers: {self.name} did not start:\n{self.log.read_text()[-3000:]}")

    def register(self, user):
        """A new user's token."""
        request = {"username": user, "password": PASSWORD}
        status, _, body = self.ask("POST", "/_matrix/client/v3/register", request)
        if status == 401:
            session = json.loads(body)["session"]
            request["auth"] = {"type": "m.login.dummy", "session": session}
            status, _, body = self.ask("POST", "/_matrix/client/v3/register", request)
        assert status == 200, (self.name, status, body)
        return json.loads(body)["access_token"]

    def upload(self, token, content, content_type, name):
        """Uploads a file; the two parts of its address."""
        path = f"/_matrix/media/v3/upload?filename={name}"
        status, _, body = self.ask("POST", path, content, token, content_type)
        assert status == 200, (self.name, status, body)
        return json.loads(body)["content_uri"].removeprefix("mxc://")

    def stop(self):
        """Ends the server; its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def free_port():
    """A port nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_synapse(folder):
    """Starts Synapse with its data in a folder."""
    port = free_port()
    given = {"port": port, "data": folder, "certificates": HARNESS}
    (folder / "homeserver.yaml").write_text(SYNAPSE.format(**given))
    (folder / "log.yaml").write_text(LOG.format(**given))
    command = [sys.executable, "-m", "synapse.app.homeserver", "-c", str(folder / "homeserver.yaml")]
    subprocess.run([*command, "--generate-keys"], check=True, cwd=folder, capture_output=True)
    return Server("Synapse", port, command, folder)


def start_causerie(binary, folder, port):
    """Starts Causerie with its data in a folder."""
    tls = f'{{ certificate = "{HARNESS}/server.pem", key = "{HARNESS}/server.key" }}'
    settings = [
        f"server.name=localhost:{port}",
        f'server.listeners=[{{ address = "127.0.0.1:{port}", tls = {tls} }}]',
        f'egress.trusted_certificates=["{HARNESS}/ca.pem"]',
        'egress.allowed_networks=["127.0.0.1", "::1"]',
    ]
    command = [HERE.parent / "causerie", "serve", binary, str(port), folder, *settings]
    return Server("Causerie", port, [str(part) for part in command], folder)


def files(tally, origin, other):
    """Files of users of one server are read by users of the other, who know their addresses.

    Gives a reader's token, and the address and content of a file that they have read.
    """
    owner = origin.register(f"owner-{secrets.token_hex(4)}")
    reader = other.register(f"reader-{secrets.token_hex(4)}")
    names = f"{other.name} from {origin.name}"
    large = secrets.token_bytes(3 * 1024 * 1024 + 17)
    cases = [
        (large, "application/octet-stream", "large.bin"),
        (b"hello", "text/plain", "hello.txt"),
        (PICTURE, "image/png", "dot.png"),
    ]
    if origin.name != "Synapse":
        # Synapse leaves out both parts of the answer where the file is empty.
        cases.append((b"", "text/plain", "empty.txt"))
    read = None
    for content, kind, name in cases:
        address = origin.upload(owner, content, kind, name)
        read = read or address
        for attempt in ("first", "second"):
            path = f"/_matrix/client/v1/media/download/{address}"
            status, headers, body = other.ask("GET", path, token=reader)
            what = f"{names}: {name}, {attempt} time"
            tally.check(status == 200 and body == content, what, (status, body[:200]))
            said = headers.get("Content-Type", "").split(";")[0]
            tally.check(said == kind, f"{what}: its type", said)
            said = headers.get("Content-Disposition", "")
            tally.check(name in said, f"{what}: its name", said)
        if kind == "image/png":
            path = f"/_matrix/client/v1/media/thumbnail/{address}?width=32&height=32&method=crop"
            status, headers, body = other.ask("GET", path, token=reader)
            holds = status == 200 and headers.get_content_maintype() == "image" and body
            tally.check(holds, f"{names}: a thumbnail", (status, body[:200]))
    path = f"/_matrix/client/v1/media/download/{origin.server_name}/nosuchfile"
    status, _, body = other.ask("GET", path, token=reader)
    tally.check(status == 404, f"{names}: a file that is not there", (status, body[:200]))
    return reader, read, large


def after_a_kill(tally, causerie, reader, address, content):
    """What was read is kept, though its server is gone; what was not is refused, with a reason."""
    path = f"/_matrix/client/v1/media/download/{address}"
    status, _, body = causerie.ask("GET", path, token=reader)
    tally.check(status == 200 and body == content, "a copy outlives a kill", (status, body[:200]))
    status, _, body = causerie.ask("GET", f"{path}x", token=reader)
    holds = status == 502 and b"cannot be reached" in body
    tally.check(holds, "a server that is gone is named", (status, body[:200]))


def main():
    """Starts both, tries all, ends both; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, required=True)
    binary = parser.parse_args().binary.resolve()
    tally, servers = Tally(), []
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / name for name in ("synapse", "causerie")]
        for folder in folders:
            folder.mkdir()
        try:
            servers.append(start_synapse(folders[0]))
            servers.append(start_causerie(binary, folders[1], free_port()))
            for server in servers:
                server.wait()
            synapse, causerie = servers
            kept = files(tally, synapse, causerie)
            files(tally, causerie, synapse)
            causerie.process.kill()
            causerie.process.wait()
            synapse.stop()
            servers[1] = start_causerie(binary, folders[1], causerie.port)
            servers[1].wait()
            after_a_kill(tally, servers[1], *kept)
        finally:
            ended = [server.stop() for server in servers]
        tally.check(ended[-1] == 0, "Causerie ends by itself after SIGTERM", ended)
        if tally.failed:
            log = folders[0] / "log"
            for text in (servers[-1].log, *([log] if log.exists() else [])):
                lines = [line for line in text.read_text().splitlines() if "synapse.access" not in line]
                print(f"--- the end of {text}", *lines[-60:], sep="\n", flush=True)
    print(f"peers: {tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
