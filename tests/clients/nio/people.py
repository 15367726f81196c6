"""What the scenario is told in: the tally of checks, and a person with a client.

A `Person` wraps `nio.AsyncClient` with the two habits the scenario needs: every answer is the
expected class or the run stops with the server's words, and waiting is always a bounded loop of
`/sync` until a condition holds.
"""

import time

from nio import AsyncClient, AsyncClientConfig, ErrorResponse

# How long a condition may take to come through `/sync`.
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
        print(f"nio: FAILED: {message}" + (f": {detail}" if detail != "" else ""), flush=True)
        return False

    def equal(self, actual, expected, message):
        """Counts one check that two values are the same."""
        return self.check(actual == expected, message, f"{actual!r} is not {expected!r}")

    def need(self, holds, message, detail=""):
        """Like `check`, for what the rest of the scenario builds on."""
        if not self.check(holds, message, detail):
            raise Failed(message)


class Person:
    """One user with one client, and everything `/sync` has told them."""

    def __init__(self, tally, base_url, name):
        self.tally = tally
        self.name = name
        config = AsyncClientConfig(
            max_limit_exceeded=3, max_timeouts=0, request_timeout=30, encryption_enabled=False
        )
        self.client = AsyncClient(base_url, name, config=config)
        # room id -> events of its timeline, in the order in which they came
        self.timeline = {}

    @property
    def user_id(self):
        """The full user id."""
        return self.client.user_id

    async def ask(self, awaitable, message):
        """Awaits an answer that must be a success; returns it."""
        answer = await awaitable
        self.tally.need(not isinstance(answer, ErrorResponse), message, answer)
        return answer

    async def refused(self, awaitable, code, message):
        """Awaits an answer that must be the error `code`."""
        answer = await awaitable
        self.tally.equal(getattr(answer, "status_code", "a success"), code, message)

    async def sync(self, timeout_ms=0, **options):
        """One `/sync`, whose timelines are kept."""
        answer = await self.ask(
            self.client.sync(timeout=timeout_ms, **options), f"{self.name} can sync"
        )
        for room_id, room in answer.rooms.join.items():
            self.timeline.setdefault(room_id, []).extend(room.timeline.events)
        return answer

    async def until(self, condition, message):
        """Syncs until `condition(response)` is true of one response, which is returned."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            answer = await self.sync(timeout_ms=3000)
            if condition(answer):
                self.tally.check(True, message)
                return answer
        self.tally.need(False, message, f"not within {WAIT_S} s")

    async def sees(self, room_id, condition, message):
        """Syncs until one event of the room's timeline meets `condition`; returns that event."""
        deadline = time.monotonic() + WAIT_S
        while True:
            for event in self.timeline.get(room_id, []):
                if condition(event):
                    self.tally.check(True, message)
                    return event
            if time.monotonic() > deadline:
                self.tally.need(False, message, f"not within {WAIT_S} s")
            await self.sync(timeout_ms=3000)

    async def say(self, room_id, body, **content):
        """Sends a text message and returns its event id."""
        content = {"msgtype": "m.text", "body": body, **content}
        return await self.send(room_id, "m.room.message", content)

    async def send(self, room_id, kind, content):
        """Sends an event and returns its event id."""
        answer = await self.ask(
            self.client.room_send(room_id, kind, content), f"{self.name} can send {kind}"
        )
        return answer.event_id
