"""What the scenario is told in: the tally of checks, the bridge, and a person with a client.

The bridge is `mautrix.appservice.AppService`, started as `mautrix.bridge` starts one. It remembers
all it is sent. Waiting is always a bounded loop until a condition holds.
"""

import asyncio
import logging
import time

from aiohttp import web
from mautrix.api import Method, Path
from mautrix.appservice import AppService
from mautrix.appservice.state_store import FileASStateStore
from mautrix.client import ClientAPI
from mautrix.errors import MatrixRequestError, MForbidden
from mautrix.types import RoomCreatePreset, SpecVersions

# How long a condition may take to come true.
WAIT_S = 20


class Failed(Exception):
    """A step failed that the rest of the scenario builds on."""


class Tally:
    """Counts the checks, printing those that fail as they happen."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    def check(self, holds, message, detail=""):
        """Counts one check; a false one is printed and the run goes on."""
        if holds:
            self.passed += 1
            return True
        self.failed += 1
        print(f"mautrix: FAILED: {message}" + (f": {detail}" if detail != "" else ""), flush=True)
        return False

    def equal(self, actual, expected, message):
        """Counts one check that two values are the same."""
        return self.check(actual == expected, message, f"{actual!r} is not {expected!r}")

    def need(self, holds, message, detail=""):
        """Like `check`, for what the rest of the scenario builds on."""
        if not self.check(holds, message, detail):
            raise Failed(message)

    async def succeeds(self, awaitable, message):
        """Awaits an answer that must be a success; returns it."""
        try:
            answer = await awaitable
        except MatrixRequestError as error:
            self.need(False, message, f"{error.http_status} {error.errcode} {error}")
        self.check(True, message)
        return answer

    async def refused(self, awaitable, errcode, message):
        """Awaits an answer that must be the error `errcode`."""
        try:
            await awaitable
            outcome = "a success"
        except MatrixRequestError as error:
            outcome = error.errcode
        self.equal(outcome, errcode, message)

    async def until(self, condition, message):
        """Waits until `condition()` is true, and returns its value."""
        deadline = time.monotonic() + WAIT_S
        while True:
            value = condition()
            if value:
                self.check(True, message)
                return value
            self.need(time.monotonic() < deadline, message, f"not within {WAIT_S} s")
            await asyncio.sleep(0.02)


class Bridge:
    """An application service that keeps what it is sent; it can be stopped and started again."""

    def __init__(self, tally, base_url, registration, state_path):
        self.tally = tally
        self.base_url = base_url
        self.registration = registration
        self.state_path = state_path
        # All events and ephemeral events, in the order in which they came.
        self.events = []
        # The ids of the transactions, once for each time that they came.
        self.transactions = []
        # How many transactions are answered with an error before one is taken.
        self.refuse = 0
        # What the server asked for.
        self.asked = []

    async def start(self):
        """Starts listening, then greets the server as `mautrix.bridge.matrix` does."""
        host, port, as_token, hs_token = self.registration
        self.az = AppService(
            server=self.base_url,
            domain="localhost",
            as_token=as_token,
            hs_token=hs_token,
            bot_localpart="bridgebot",
            id="bridge",
            query_user=self._query_user,
            query_alias=self._query_alias,
            state_store=FileASStateStore(self.state_path, binary=False),
            ephemeral_events=True,
            encryption_events=True,
            aiohttp_params={"middlewares": [self._middleware()]},
        )
        # One after the other, so that the order of the events is kept.
        self.az.synchronous_handlers = True
        self.az.matrix_event_handler(self._event)
        await self.az.start(host, port)
        versions = await self.tally.succeeds(self.bot.versions(), "the bridge asks for versions")
        self.tally.check(versions.supports_at_least(SpecVersions.V17), "which are new enough")
        try:
            me = await self.bot.whoami()
        except MForbidden:
            await self.tally.succeeds(self.bot.ensure_registered(), "the bot is registered")
            me = await self.bot.whoami()
        self.tally.equal(me.user_id, "@bridgebot:localhost", "whoami names the bot")
        ping = self.az.ping_self(self.bot.api.get_txn_id())
        await self.tally.succeeds(ping, "the server reaches the bridge")
        config = await self.tally.succeeds(self.bot.get_media_repo_config(), "the media limits")
        self.tally.check(config.upload_size > 1000, "say how large a file may be")
        await self.tally.succeeds(self.bot.set_displayname("Bridge bot"), "the bot has a name")

    async def stop(self):
        """Stops listening. What it was sent so far is kept, as in a bridge's database."""
        await self.az.stop()

    @property
    def bot(self):
        """The bridge's own user."""
        return self.az.intent

    def puppet(self, name):
        """A user of the bridge."""
        return self.bot.user(f"@bridge_{name}:localhost")

    def got(self, event_id):
        """The event, once for each time it was sent to the bridge."""
        return [event for event in self.events if getattr(event, "event_id", None) == event_id]

    def ephemeral(self, kind, room_id):
        """The contents of a kind of ephemeral events of a room."""
        return [event.content for event in self.events if event.type == kind
                and event.room_id == room_id]

    def _middleware(self):
        @web.middleware
        async def remember(request, handler):
            if "/transactions/" in request.path:
                self.transactions.append(request.path.rsplit("/", 1)[1])
                if self.refuse:
                    self.refuse -= 1
                    return web.json_response({"errcode": "M_UNKNOWN"}, status=500)
            return await handler(request)

        return remember

    async def _event(self, event):
        self.events.append(event)

    async def _query_user(self, user_id):
        self.asked.append(user_id)
        if "nobody" in user_id:
            return None
        puppet = self.bot.user(user_id)
        await puppet.ensure_registered()
        await puppet.set_displayname("Made when asked for")
        return {"made": True}

    async def _query_alias(self, alias):
        self.asked.append(alias)
        if "nowhere" in alias:
            return None
        localpart = alias[1:].split(":")[0]
        await self.bot.create_room(
            alias_localpart=localpart, name="Made when asked for", preset=RoomCreatePreset.PUBLIC
        )
        return {"made": True}


class Person:
    """One user of the server with one client, and everything `/sync` has told them."""

    def __init__(self, tally, base_url, name):
        self.tally = tally
        self.name = name
        log = logging.getLogger("mau.person")
        self.client = ClientAPI(f"@{name}:localhost", base_url=base_url, log=log)
        self.since = None
        # room id -> the events of its timeline, as JSON
        self.timeline = {}
        # room id -> the users who type
        self.typing = {}

    @property
    def user_id(self):
        """The full user id."""
        return self.client.mxid

    async def register(self, password):
        """Registers with the dummy stage."""
        body = {"username": self.name, "password": password, "auth": {"type": "m.login.dummy"}}
        answer = await self.tally.succeeds(
            self.client.api.request(Method.POST, Path.v3.register, body), f"{self.name} registers"
        )
        self.client.api.token = answer["access_token"]
        self.client.device_id = answer["device_id"]

    async def say(self, room_id, body):
        """Sends a text message and returns its event id."""
        return await self.tally.succeeds(
            self.client.send_text(room_id, body), f"{self.name} can send"
        )

    async def sync(self):
        """One `/sync`, which is kept."""
        answer = await self.client.sync(since=self.since, timeout=2000)
        self.since = answer["next_batch"]
        for room_id, room in answer.get("rooms", {}).get("join", {}).items():
            events = room.get("timeline", {}).get("events", [])
            self.timeline.setdefault(room_id, []).extend(events)
            for event in room.get("ephemeral", {}).get("events", []):
                if event["type"] == "m.typing":
                    self.typing[room_id] = event["content"]["user_ids"]

    async def until(self, condition, message):
        """Syncs until `condition()` is true, and returns its value."""
        deadline = time.monotonic() + WAIT_S
        while not (value := condition()):
            self.tally.need(time.monotonic() < deadline, message, f"not within {WAIT_S} s")
            await self.sync()
        self.tally.check(True, message)
        return value

    async def sees(self, room_id, condition, message):
        """Syncs until one event of the room's timeline meets `condition`; returns that event."""

        def found():
            return next(filter(condition, self.timeline.get(room_id, [])), None)

        return await self.until(found, message)

    async def close(self):
        """Closes the client's connections."""
        await self.client.api.session.close()
