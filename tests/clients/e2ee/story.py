"""The story that every pair is told.

Alice uses the first library of a pair and Bob the second. Alice's second device has the second
library, so that also one user's devices differ. matrix-nio knows neither cross-signing nor key
backups; where Alice's first device has it, her second one makes them.
"""

from concurrent.futures import ThreadPoolExecutor

from server import PASSWORD, Refused, quoted

# Libraries keep as many one-time keys on the server, at least.
KEYS = 50


class Device:
    """One device, in the hands of its library's driver."""

    def __init__(self, driver, name, user):
        self.driver, self.name = driver, name
        login = driver.ask(name, "login", user=user, password=PASSWORD)
        self.user, self.id, self.token = login["user_id"], login["device_id"], login["access_token"]

    def do(self, verb, **what):
        """Asks the driver for something."""
        return self.driver.ask(self.name, verb, **what)

    @property
    def signs(self):
        """Whether the library knows cross-signing and key backups."""
        return self.driver.name != "nio"


class Story:
    """What one pair of libraries lives through."""

    def __init__(self, tally, server, name, first, second):
        self.tally, self.server, self.name = tally, server, name
        self.first, self.second = first, second
        # event id -> what was said in it
        self.said = {}

    def tell(self):
        """The whole story."""
        for user in ("alice", "bob"):
            self.server.register(f"{user}-{self.name}")
        self.alice = self.login("alice", self.first)
        self.bob = self.login("bob", self.second)
        self.talk()
        self.cross_sign()
        self.verify(self.alice, self.bob)
        self.second_device()
        self.backup()
        self.removed_device()
        self.rejoin()
        for device in (self.alice, self.bob, self.laptop):
            device.do("close")

    def login(self, who, driver, suffix=""):
        """A device of a user; its keys are there when this returns."""
        device = Device(driver, f"{who}{suffix}-{self.name}", f"{who}-{self.name}")
        uploaded = lambda: self.server.key_count(device.token) >= KEYS  # noqa: E731
        self.tally.until(uploaded, f"{self.name}: {who}{suffix} has uploaded one-time keys")
        return device

    def check(self, holds, message, detail=""):
        """One check of this pair."""
        return self.tally.check(holds, f"{self.name}: {message}", detail)

    def says(self, device, body, *readers):
        """A message that every reader can read."""
        event_id = device.do("send", room=self.room, body=body)
        self.said[event_id] = body
        for reader in readers:
            found = reader.do("message", room=self.room, body=body)
            self.check(found == event_id, f"{reader.name} reads {body!r}", found)
        return event_id

    def talk(self):
        """An encrypted room, and messages both ways."""
        alice, bob = self.alice, self.bob
        self.room = alice.do("create_room", invite=[bob.user])
        bob.do("join", room=self.room)
        alice.do("members", room=self.room, count=2)
        for one, other in ((alice, bob), (bob, alice)):
            one.do("knows", user=other.user, other=other.id, known=True)
        self.says(alice, "one", bob)
        self.says(bob, "two", alice)
        events = list(self.server.events(alice.token, self.room))
        sent = {event["event_id"]: event["type"] for event in events}
        kinds = {sent.get(event_id) for event_id in self.said}
        self.check(kinds == {"m.room.encrypted"}, "the server has ciphertext only", kinds)

    def cross_sign(self):
        """The cross-signing keys of those who can have them."""
        for device, other in ((self.alice, self.bob), (self.bob, self.alice)):
            if not device.signs:
                continue
            device.do("cross_sign")
            keys = self.server.device_keys(other.token, device.user)
            user = device.user
            self.check(
                user in keys.get("master_keys", {})
                and user in keys.get("self_signing_keys", {})
                and user not in keys.get("user_signing_keys", {}),
                f"{device.name}: others see the master and self-signing keys alone",
                keys,
            )
            own = self.server.device_keys(device.token, user)
            self.check(user in own.get("user_signing_keys", {}), "one sees one's own three keys")
            master = next(iter(own["master_keys"][user]["keys"].values()))
            signing = next(iter(own["self_signing_keys"][user]["keys"]))
            signatures = own["device_keys"][user][device.id]["signatures"][user]
            self.check(signing in signatures, "one's own device is signed", (master, signatures))

    def verify(self, one, other):
        """Verification by the short authentication string, in both directions at once."""
        # nio starts without asking first, and cannot be asked.
        bare = not (one.signs and other.signs)
        first, second = (other, one) if bare and one.signs else (one, other)
        for device, target in ((first, second), (second, first)):
            device.do("knows", user=target.user, other=target.id, known=True)
            if not bare:
                device.do("identifies", user=target.user)
        what = {"user": second.user, "other": second.id}
        # Element asks people inside of a room. The sdk would answer there only when its encryption
        # sync begins anew, half a minute later.
        if first.driver.name == second.driver.name == "js" and first.user != second.user:
            what["room"] = self.room
        flow = first.do("sas_begin", **what)
        second.do("sas_answer", user=first.user, flow=flow, bare=bare)
        # Both wait for each other.
        numbers = both(
            lambda: first.do("sas_numbers", user=second.user, flow=flow, begins=True, bare=bare),
            lambda: second.do("sas_numbers", user=first.user, flow=flow, begins=False, bare=bare),
        )
        names = f"{first.name} and {second.name}"
        self.check(numbers[0] == numbers[1], f"{names} see the same numbers", numbers)
        both(
            lambda: first.do("sas_confirm", user=second.user, flow=flow, bare=bare),
            lambda: second.do("sas_confirm", user=first.user, flow=flow, bare=bare),
        )
        for device, target in ((first, second), (second, first)):
            device.do("trusts", user=target.user, other=target.id)
            if not bare and first.user != second.user:
                device.do("trusts", user=target.user)
            self.check(True, f"{device.name} trusts {target.name}")

    def second_device(self):
        """A second device gets what is sent once it is there, and is verified by the first."""
        alice, bob = self.alice, self.bob
        self.laptop = self.login("alice", self.second, "-laptop")
        bob.do("knows", user=alice.user, other=self.laptop.id, known=True)
        alice.do("knows", user=alice.user, other=self.laptop.id, known=True)
        self.since_laptop = [
            self.says(bob, "three", alice, self.laptop),
            self.says(alice, "four", bob, self.laptop),
            self.says(self.laptop, "five", alice, bob),
        ]
        self.verify(alice, self.laptop)
        if alice.signs and self.laptop.signs and bob.signs:
            # Bob has verified Alice, who signed her new device: nobody else has to tell him.
            bob.do("trusts", user=alice.user, other=self.laptop.id)
            self.check(True, "a device that its user signed is trusted by those who trust the user")

    def backup(self):
        """The keys go to the server, and a third device reads the history with them."""
        keeper = next((device for device in (self.alice, self.laptop) if device.signs), None)
        self.tablet = None
        if keeper is None:
            return
        if not self.alice.signs:
            keeper.do("cross_sign")
        recovery_key = keeper.do("backup")
        mine = set(self.said) if keeper is self.alice else set(self.since_laptop)
        self.tally.until(
            lambda: self.sessions(keeper, mine) <= self.backed_up(keeper),
            f"{self.name}: all keys of the room are in the backup",
        )
        driver = self.second if keeper is self.alice and self.second.name != "nio" else keeper.driver
        self.tablet = self.login("alice", driver, "-tablet")
        self.tablet.do("restore", room=self.room, key=recovery_key)
        expected = {event_id: self.said[event_id] for event_id in mine}
        self.reads(self.tablet, expected, "the third device reads the history from the backup")
        self.tablet.do("trusts", user=keeper.user, other=keeper.id)
        self.check(True, "the third device has the keys of its user")

    def sessions(self, device, event_ids):
        """The sessions that events were encrypted with."""
        events = self.server.events(device.token, self.room)
        return {e["content"]["session_id"] for e in events if e["event_id"] in event_ids}

    def backed_up(self, device):
        """The sessions of the room that are in the backup."""
        version = self.server.ask("GET", "/room_keys/version", token=device.token)["version"]
        path = f"/room_keys/keys/{quoted(self.room)}?version={version}"
        try:
            return set(self.server.ask("GET", path, token=device.token)["sessions"])
        except Refused:
            return set()

    def reads(self, device, expected, message):
        """Waits until a device's history is there and says what is expected."""

        def right():
            history = device.do("history", room=self.room)
            return expected.items() <= history.items()

        self.tally.until(right, f"{self.name}: {device.name}: {message}")

    def removed_device(self):
        """A device that was removed is known to nobody, and nothing is sent to it."""
        device = self.tablet or self.login("alice", self.first, "-tablet")
        self.bob.do("knows", user=device.user, other=device.id, known=True)
        self.says(self.bob, "to the tablet", device)
        device.do("close")
        self.server.remove_device(device.user, self.alice.token, device.id)
        keys = self.server.device_keys(self.bob.token, device.user)["device_keys"]
        self.check(device.id not in keys[device.user], "the keys of a removed device are gone", keys)
        for other in (self.bob, self.alice):
            other.do("knows", user=device.user, other=device.id, known=False)
        before = self.sessions(self.bob, self.said)
        event_id = self.says(self.bob, "six", self.alice, self.laptop)
        used = self.sessions(self.bob, {event_id})
        self.check(not used & before, "a new session begins when a device is removed", used)
        # Whoever takes its name finds nothing that was meant for it.
        again = self.server.log_in(device.user, device.id)
        answer = self.server.ask("GET", "/sync", token=again["access_token"])
        left = answer.get("to_device", {}).get("events", [])
        self.check(not left, "nothing was sent to a removed device", left)
        self.server.ask("POST", "/logout", {}, again["access_token"])

    def rejoin(self):
        """Somebody leaves, misses something, comes back, and reads on."""
        alice, bob = self.alice, self.bob
        bob.do("leave", room=self.room)
        alice.do("members", room=self.room, count=1)
        missed = self.says(alice, "seven", self.laptop)
        alice.do("invite", room=self.room, user=bob.user)
        bob.do("join", room=self.room)
        alice.do("members", room=self.room, count=2)
        alice.do("knows", user=bob.user, other=bob.id, known=True)
        bob.do("knows", user=alice.user, other=self.laptop.id, known=True)
        self.says(alice, "eight", bob, self.laptop)
        self.says(bob, "nine", alice, self.laptop)
        expected = dict(self.said)
        if not (alice.signs and bob.signs):
            # nio does not hand on the room's history with an invitation, the others do.
            expected[missed] = None
        self.reads(bob, expected, "the history before, between and after is readable or not")


def both(*actions):
    """Does things at the same time."""
    with ThreadPoolExecutor(len(actions)) as pool:
        return [future.result() for future in [pool.submit(action) for action in actions]]
