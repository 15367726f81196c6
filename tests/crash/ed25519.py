"""Ed25519 signatures (RFC 8032, section 5.1), for the few that device keys need.

The standard library has none. This one is slow and not safe against those who watch it, which is
all right for keys that protect nothing.
"""

import hashlib

PRIME = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, PRIME) % PRIME


def _root(square):
    """A square root modulo the prime, for a number that has one."""
    root = pow(square, (PRIME + 3) // 8, PRIME)
    if (root * root - square) % PRIME:
        root = root * pow(2, (PRIME - 1) // 4, PRIME) % PRIME
    return root


def _base():
    y = 4 * pow(5, -1, PRIME) % PRIME
    x = _root((y * y - 1) * pow(D * y * y + 1, -1, PRIME) % PRIME)
    x = x if x % 2 == 0 else PRIME - x
    return (x, y, 1, x * y % PRIME)


BASE = _base()


def _add(p, q):
    """The sum of two points, in extended coordinates."""
    a = (p[1] - p[0]) * (q[1] - q[0]) % PRIME
    b = (p[1] + p[0]) * (q[1] + q[0]) % PRIME
    c = 2 * p[3] * q[3] * D % PRIME
    d = 2 * p[2] * q[2] % PRIME
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % PRIME, g * h % PRIME, f * g % PRIME, e * h % PRIME)


def _multiply(scalar):
    """The base point, so many times, as bytes."""
    point, sum_ = BASE, (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            sum_ = _add(sum_, point)
        point = _add(point, point)
        scalar >>= 1
    inverse = pow(sum_[2], -1, PRIME)
    x, y = sum_[0] * inverse % PRIME, sum_[1] * inverse % PRIME
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _number(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little")


class SigningKey:
    """A key pair that is made from 32 bytes."""

    def __init__(self, seed):
        digest = hashlib.sha512(seed).digest()
        self._scalar = int.from_bytes(digest[:32], "little") & ~7 & (2**254 - 1) | 2**254
        self._prefix = digest[32:]
        self.public = _multiply(self._scalar)

    def sign(self, message):
        """The 64 bytes of a signature."""
        nonce = _number(self._prefix, message) % ORDER
        commitment = _multiply(nonce)
        challenge = _number(commitment, self.public, message) % ORDER
        response = (nonce + challenge * self._scalar) % ORDER
        return commitment + response.to_bytes(32, "little")
