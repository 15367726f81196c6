"""The server as seen without a library: plain requests, to set the scene and to look behind it."""

import http.client
import json
import threading
from urllib.parse import quote, urlsplit

PASSWORD = "correct horse battery staple"


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, path, status, answer):
        super().__init__(f"{path}: {status} {answer}")
        self.status, self.answer = status, answer


def quoted(text):
    """A part of a path."""
    return quote(text, safe="")


class Server:
    """Requests over one kept connection for each thread."""

    def __init__(self, url):
        self.url = url
        self.address = urlsplit(url).netloc
        self.local = threading.local()

    def ask(self, method, path, body=None, token=None):
        """Sends a request below `/_matrix/client/v3`; returns the answer, which must be a 200."""
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        content = json.dumps(body) if body is not None else None
        for attempt in (1, 2):
            connection = getattr(self.local, "connection", None)
            if connection is None:
                connection = http.client.HTTPConnection(self.address, timeout=120)
                self.local.connection = connection
            try:
                connection.request(method, "/_matrix/client/v3" + path, content, headers)
                response = connection.getresponse()
                answer = json.loads(response.read())
                break
            except (http.client.RemoteDisconnected, ConnectionError, BrokenPipeError):
                # The server may close a connection that was idle.
                connection.close()
                self.local.connection = None
                if attempt == 2:
                    raise
        if response.status != 200:
            raise Refused(path, response.status, answer)
        return answer

    def register(self, name):
        """A new user; returns the login of its first device."""
        body = {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        return self.ask("POST", "/register", body)

    def log_in(self, user, device_id=None):
        """A new device of a user, or the named one."""
        identifier = {"type": "m.id.user", "user": user}
        body = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
        if device_id:
            body["device_id"] = device_id
        return self.ask("POST", "/login", body)

    def remove_device(self, user, token, device_id):
        """Removes a device with the password, as its user does from another one."""
        path = f"/devices/{quoted(device_id)}"
        try:
            self.ask("DELETE", path, {}, token)
        except Refused as refused:
            if refused.status != 401:
                raise
            auth = {
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": user},
                "password": PASSWORD,
                "session": refused.answer["session"],
            }
            self.ask("DELETE", path, {"auth": auth}, token)

    def key_count(self, token):
        """How many one-time keys a device has left."""
        counts = self.ask("POST", "/keys/upload", {}, token)["one_time_key_counts"]
        return counts.get("signed_curve25519", 0)

    def device_keys(self, token, user):
        """What `/keys/query` says about a user."""
        return self.ask("POST", "/keys/query", {"device_keys": {user: []}}, token)

    def events(self, token, room):
        """Every event of a room, newest first."""
        start = ""
        while True:
            path = f"/rooms/{quoted(room)}/messages?dir=b&limit=100{start}"
            page = self.ask("GET", path, token=token)
            yield from page["chunk"]
            if not page.get("end"):
                return
            start = f"&from={quoted(page['end'])}"
