"""The real binary with its files in S3: what goes in comes out, whole, in parts and smaller, until
it is removed. Exits with 1 when something is not as it should be."""

import argparse
import hashlib
import http.client
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from socket import socket

# moto answers whoever signs; the client of the script needs some keys all the same.
os.environ |= {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "secret"}

import boto3  # noqa: E402
from moto.server import ThreadedMotoServer  # noqa: E402

LAUNCHER = Path(__file__).parent.parent / "causerie"
BUCKET, PREFIX = "media", "causerie"
READY_S_MAX = 30


class Checks:
    """Counts what is as it should be."""

    def __init__(self):
        self.passed = self.failed = 0

    def check(self, name, good):
        if good:
            self.passed += 1
        else:
            self.failed += 1
            print(f"s3: failed: {name}", file=sys.stderr)


class Server:
    """The server under test, with its files in the bucket."""

    def __init__(self, binary, data, endpoint):
        with socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.arguments = [
            binary,
            str(self.port),
            data,
            f'media.s3_endpoint="{endpoint}"',
            f'media.s3_bucket="{BUCKET}"',
            f'media.s3_prefix="{PREFIX}"',
            'media.s3_access_key_id="AKIATEST"',
            'media.s3_secret_access_key="secret"',
        ]
        self.token = None

    def start(self):
        self.process = subprocess.Popen([LAUNCHER, "serve", *self.arguments])
        begun = time.monotonic()
        while time.monotonic() - begun < READY_S_MAX:
            try:
                if self.ask("GET", "/_matrix/client/versions")[0] == 200:
                    return
            except OSError:
                time.sleep(0.05)
        raise SystemExit("s3: the server is not ready")

    def stop(self):
        self.process.terminate()
        assert self.process.wait(30) == 0

    def admin(self, command):
        """What a command of the administrator says, on the data of the server that is stopped."""
        command = [LAUNCHER, f"admin {command}", *self.arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def ask(self, method, path, body=None, headers=()):
        """The status, the headers and the body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = dict(headers)
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        read = answer.read()
        connection.close()
        return answer.status, answer.headers, read

    def register(self, name):
        body = {"username": name, "password": "correct horse", "auth": {"type": "m.login.dummy"}}
        answer = self.ask("POST", "/_matrix/client/v3/register", json.dumps(body))
        self.token = json.loads(answer[2])["access_token"]

    def upload(self, body, content_type):
        """The address of a file, `server/id`."""
        kind = {"Content-Type": content_type}
        answer = self.ask("POST", "/_matrix/media/v3/upload", body, kind)
        return json.loads(answer[2])["content_uri"].removeprefix("mxc://")

    def download(self, place, headers=()):
        return self.ask("GET", f"/_matrix/client/v1/media/download/{place}", headers=headers)

    def thumbnail(self, place):
        path = f"/_matrix/client/v1/media/thumbnail/{place}?width=32&height=32&method=crop"
        return self.ask("GET", path)


def picture(side):
    """A PNG of one color."""

    def chunk(kind, data):
        checksum = zlib.crc32(kind + data).to_bytes(4)
        return len(data).to_bytes(4) + kind + data + checksum

    size = side.to_bytes(4) * 2
    rows = zlib.compress((b"\0" + b"\x20\x80\xff" * side) * side)
    head = chunk(b"IHDR", size + bytes([8, 2, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def scenario(server, objects, checks):
    check, noise = checks.check, random.Random(1)
    server.start()
    server.register("alice")
    # In one request, in several parts of 6 MiB, and nothing at all.
    files = [noise.randbytes(size) for size in (1_000, 20 * 1024 * 1024 + 7, 0)]
    places = [server.upload(body, "application/octet-stream") for body in files]
    for place, body in zip(places, files, strict=True):
        status, _, read = server.download(place)
        check(f"{len(body)} bytes come back", status == 200 and read == body)
    size = len(files[1])
    for wanted, part in [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=6291450-6291470", slice(6_291_450, 6_291_471)),
        ("bytes=20971000-", slice(20_971_000, size)),
        ("bytes=-5", slice(size - 5, size)),
    ]:
        status, headers, read = server.download(places[1], {"Range": wanted})
        check(f"{wanted}", (status, read) == (206, files[1][part]))
        total = headers["Content-Range"].rsplit("/")[-1]
        check(f"{wanted} says the size", total == str(size))
    check("a range beyond", server.download(places[1], {"Range": "bytes=99999999-"})[0] == 416)
    check("the same twice", server.upload(files[1], "text/plain") != places[1])
    check("is kept once", len(objects()) == len(files))
    check("below the prefix", all(name.startswith(f"{PREFIX}/") for name in objects()))
    shown = server.upload(picture(500), "image/png")
    for _ in range(2):
        status, headers, read = server.thumbnail(shown)
        check("a thumbnail", status == 200 and headers["Content-Type"].startswith("image/"))
        check("it is a picture", read[:4] == b"\x89PNG" or read[:2] == b"\xff\xd8")
    check("it is kept once", len(objects()) == len(files) + 2)
    server.stop()

    # Another process finds all of it.
    server.start()
    digest = hashlib.sha256(server.download(places[1])[2]).digest()
    check("after a restart", digest == hashlib.sha256(files[1]).digest())
    server.stop()
    said = server.admin(f"media delete mxc://{places[0]}")
    check("removed by its address", "removed" in said)
    check("from the bucket too", len(objects()) == len(files) + 1)
    server.admin("media delete-of alice")
    check("all of a user, with the thumbnails", objects() == [])
    server.start()
    check("it is gone", server.download(places[1])[0] == 404)
    server.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    binary = parser.parse_args().binary
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    endpoint = "http://{}:{}".format(*moto.get_host_and_port())
    s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    s3.create_bucket(Bucket=BUCKET)

    def objects():
        listed = s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return [entry["Key"] for entry in listed]

    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="causerie-s3-") as data:
        server = Server(binary, data, endpoint)
        try:
            scenario(server, objects, checks)
        finally:
            server.process.kill()
            server.process.wait()
    moto.stop()
    print(f"s3: {checks.passed} passed, {checks.failed} failed")
    sys.exit(checks.failed > 0 or checks.passed == 0)


if __name__ == "__main__":
    main()
