"""Checks that an image is what Complement needs: ports, TLS from the suite's authority, the server's
name, registration without limits, data kept over a restart and a `docker commit`.

The suite would fail in every test at once where one of these is missing, without saying why.
Needs a Docker engine and openssl; standard library only. Called by `image`.
"""

import http.client
import json
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

NAME = "hs1"
# What the suite grants a server before it gives up on it.
START_SECONDS_MAX = 30
image = "causerie-complement"


def docker(*args):
    return subprocess.run(
        ["docker", *args], check=True, capture_output=True, text=True
    ).stdout.strip()


class Container:
    """A server in a container, with the suite's authority mounted as the suite mounts it."""

    def __init__(self, image, ca):
        self.id = docker(
            "run", "-d", "-e", f"SERVER_NAME={NAME}", "-v", f"{ca}:/complement/ca",
            "-p", "127.0.0.1::8008", "-p", "127.0.0.1::8448", image,
        )  # fmt: skip
        self.wait()

    def port(self, inside):
        return int(docker("port", self.id, str(inside)).splitlines()[0].rsplit(":", 1)[1])

    def wait(self):
        end = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < end:
            try:
                if self.request("GET", "/_matrix/client/versions")[0] == 200:
                    return
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)
        raise AssertionError(f"no answer: {docker('logs', '--tail', '20', self.id)}")

    def request(self, method, path, body=None, token=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port(8008)}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")

    def register(self, username):
        return self.request(
            "POST",
            "/_matrix/client/v3/register",
            {"username": username, "password": "a-password", "auth": {"type": "m.login.dummy"}},
        )

    def remove(self):
        docker("rm", "-f", self.id)


class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.ca = pathlib.Path(cls.folder.name)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
             "-subj", "/CN=Complement", "-keyout", cls.ca / "ca.key", "-out", cls.ca / "ca.crt"],
            check=True, capture_output=True,
        )  # fmt: skip
        cls.server = Container(image, cls.ca)

    @classmethod
    def tearDownClass(cls):
        cls.server.remove()
        cls.folder.cleanup()

    def certificate(self, server):
        context = ssl.create_default_context(cafile=self.ca / "ca.crt")
        with (
            socket.create_connection(("127.0.0.1", server.port(8448)), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=NAME) as tls,
        ):
            return tls.getpeercert()

    def test_ports_are_exposed(self):
        config = json.loads(docker("image", "inspect", image))[0]["Config"]
        self.assertEqual({"8008/tcp", "8448/tcp"}, set(config["ExposedPorts"]))
        self.assertFalse(config.get("Volumes"), "docker commit leaves volumes out")

    def test_tls_is_of_the_authority_of_the_suite(self):
        certificate = self.certificate(self.server)
        self.assertEqual((("DNS", NAME),), certificate["subjectAltName"])

    def test_registration_has_no_limits_and_the_name_is_right(self):
        for number in range(30):
            status, body = self.server.register(f"user{number}")
            self.assertEqual((200, f"@user{number}:{NAME}"), (status, body.get("user_id")))

    def test_data_outlives_a_restart(self):
        _, alice = self.server.register("alice")
        docker("restart", "--time", "10", self.server.id)
        self.server.wait()
        whoami = "/_matrix/client/v3/account/whoami"
        status, body = self.server.request("GET", whoami, token=alice["access_token"])
        self.assertEqual((200, f"@alice:{NAME}"), (status, body.get("user_id")))
        self.certificate(self.server)

    def test_data_outlives_a_commit_of_the_running_container(self):
        _, bob = self.server.register("bob")
        made = docker("commit", self.server.id)
        try:
            copy = Container(made, self.ca)
            try:
                whoami = "/_matrix/client/v3/account/whoami"
                status, _ = copy.request("GET", whoami, token=bob["access_token"])
                self.assertEqual(200, status)
            finally:
                copy.remove()
        finally:
            docker("rmi", "-f", made)

    def test_stops_cleanly_at_sigterm(self):
        server = Container(image, self.ca)
        try:
            docker("stop", "--time", "10", server.id)
            code = int(docker("inspect", "-f", "{{.State.ExitCode}}", server.id))
            self.assertEqual(0, code, f"128 + {int(signal.SIGKILL)} is a server that was killed")
        finally:
            server.remove()


if __name__ == "__main__":
    image = sys.argv.pop(1) if len(sys.argv) > 1 else image
    unittest.main()
