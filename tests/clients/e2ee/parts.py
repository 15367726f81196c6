"""What is told apart from the story of the pairs: keys that run out, and devices that are away."""

from story import KEYS, Device

# More to-device messages than one sync brings.
BACKLOG = 120


class Part:
    """Users and devices of one part, whose names nobody else has."""

    def __init__(self, tally, server, name, drivers):
        self.tally, self.server, self.name, self.drivers = tally, server, name, drivers

    def user(self, who):
        """A new user; returns the token of a device that nobody drives."""
        return self.server.register(f"{who}-{self.name}")["access_token"]

    def device(self, who, library, suffix=""):
        """A device of a user, whose keys are uploaded."""
        user = f"{who}-{self.name}"
        device = Device(self.drivers[library], f"{user}{suffix}", user)
        self.tally.until(lambda: self.full(device), f"{device.name}: one-time keys are uploaded")
        return device

    def full(self, device):
        """Whether a device has all of its one-time keys on the server."""
        return self.server.key_count(device.token) >= KEYS

    def check(self, holds, message, detail=""):
        """One check of this part."""
        return self.tally.check(holds, f"{self.name}: {message}", detail)

    def claim(self, token, device):
        """One one-time key of a device: its id and the key."""
        body = {"one_time_keys": {device.user: {device.id: "signed_curve25519"}}}
        keys = self.server.ask("POST", "/keys/claim", body, token)["one_time_keys"]
        claimed = keys.get(device.user, {}).get(device.id, {})
        return next(iter(claimed.items()), (None, {}))

    def room(self, alice, bob):
        """An encrypted room of two."""
        room = alice.do("create_room", invite=[bob.user])
        bob.do("join", room=room)
        alice.do("members", room=room, count=2)
        for one, other in ((alice, bob), (bob, alice)):
            one.do("knows", user=other.user, other=other.id, known=True)
        return room


def refill(part, library):
    """A library that runs uploads new one-time keys when others have claimed them."""
    part.user("bob")
    eve = part.user("eve")
    bob = part.device("bob", library)
    # Not all at once: nio takes a count of none for no count.
    seen = []
    for _ in range(2):
        seen += [part.claim(eve, bob)[0] for _ in range(KEYS - 10)]
        part.tally.until(lambda: part.full(bob), f"{part.name}: one-time keys are refilled")
    part.check(len(set(seen)) == 2 * (KEYS - 10), "no one-time key is handed out twice", seen)
    bob.do("close")


def fallback(part):
    """Where one-time keys have run out, the fallback key still lets others write."""
    part.user("alice")
    part.user("bob")
    eve = part.user("eve")
    bob = part.device("bob", "sdk")
    alice = part.device("alice", "js")
    room = alice.do("create_room", invite=[bob.user])
    bob.do("join", room=room)
    alice.do("members", room=room, count=2)
    bob.do("pause")
    key_id, key = part.claim(eve, bob)
    while key_id and not key.get("fallback"):
        key_id, key = part.claim(eve, bob)
    part.check(key.get("fallback") is True, "the last key is the fallback key", key)
    again, _ = part.claim(eve, bob)
    part.check(again == key_id, "the fallback key comes as often as it is asked for", again)
    alice.do("send", room=room, body="by the fallback key")
    bob.do("resume")
    bob.do("message", room=room, body="by the fallback key")
    part.tally.until(lambda: part.full(bob), f"{part.name}: one-time keys are refilled")
    alice.do("close")
    bob.do("close")


def backlog(part, library):
    """Who was away gets all that was sent to the device meanwhile, over several syncs."""
    part.user("alice")
    part.user("bob")
    alice, bob = part.device("alice", "js"), part.device("bob", library)
    room = part.room(alice, bob)
    bob.do("pause")
    sent = {}
    for number in range(BACKLOG):
        # Each in a session of its own, whose key goes to the device.
        alice.do("discard", room=room)
        sent[alice.do("send", room=room, body=f"line {number}")] = f"line {number}"
    bob.do("resume")
    whole = lambda: sent.items() <= bob.do("history", room=room).items()  # noqa: E731
    part.tally.until(whole, f"{part.name}: {BACKLOG} messages in sessions of their own are read")
    alice.do("close")
    bob.do("close")


def dehydrated(part, library):
    """A user without any device is sent to all the same, and reads it from the next device."""
    token = part.user("alice")
    part.user("bob")
    alice, bob = part.device("alice", "js"), part.device("bob", library)
    room = part.room(alice, bob)
    alice.do("cross_sign")
    key = alice.do("backup")
    sleeping = alice.do("dehydrate")
    devices = part.server.device_keys(token, alice.user)["device_keys"][alice.user]
    part.check(devices.get(sleeping, {}).get("dehydrated") is True, "it is said to sleep", devices)
    bob.do("knows", user=alice.user, other=sleeping, known=True)
    alice.do("close")
    part.server.remove_device(alice.user, token, alice.id)
    bob.do("knows", user=alice.user, other=alice.id, known=False)
    bob.do("send", room=room, body="good night")
    laptop = part.device("alice", "js", "-laptop")
    laptop.do("restore", room=room, key=key)
    laptop.do("dehydrate")
    laptop.do("message", room=room, body="good night")
    part.check(True, "what was sent to a sleeping device is read by the next one")
    laptop.do("close")
    bob.do("close")
