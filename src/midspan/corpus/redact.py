r"""Secrets and personal data out of a text, each replaced by a fake that fits in its place.

    password = "hX7$kd02Wq"  # ask jane.roe@acme.io      password = "xZ2$zy34Xy"  # ask user-5be1f0c2d9@example.com
    host = "93.184.216.34"                          ->   host = "203.0.113.77"

`secrets.py` and `personal.py` say where the finds lie, as ranges of bytes; overlapping ones become one and all are
replaced in one pass by position, since a value may be found in one place and be harmless in another.

A fake says nothing but the form of what it replaces: the length, the kind of every character (lower, upper, digit,
hexadecimal if all are) and the punctuation, so that the code still parses. Its letters come from `xyz` (`abc` in
hexadecimal) and its digits from `234`. So people, models and other scanners see that it is none, and so do we:
what consists of them is never found again. Texts are replaced until nothing is found, mostly at the first look
again, so a redacted text comes back as it is.

Nothing that was found is logged, printed or kept: a result counts, and its repr does not show the text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from midspan.corpus.personal import email_spans, ip_spans
from midspan.corpus.secrets import Span, secret_spans
from midspan.errors import InputError

SECRET, EMAIL, IP = "secret", "email", "ip"
KINDS = (SECRET, EMAIL, IP)
"""From the gravest."""

_DOCUMENTATION_NETWORKS = ("192.0.2", "198.51.100", "203.0.113")
_FAKE_CHARACTERS = frozenset("abcxyzABCXYZ234")
_FIXED = re.compile(
    r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[0-7]{1,3}|[^\W\d_]|\\)"
    r"|%[0-9A-Fa-f]{2}"
    r"|[^\w\\]|[\\_]"
)
"""What a fake keeps, so that the text still parses: escape sequences and punctuation."""


@dataclass(frozen=True)
class Redacted:
    """A text without what was found, and how much that was."""

    text: str = field(repr=False)
    counts: Mapping[str, int]
    """Replacements by kind: secret, email, ip. All three are there."""


def redact(text: str, *, key: str) -> Redacted:
    """Replace secrets, e-mail addresses and IP addresses; a text without any comes back as the same object.

    The same value gets the same fake wherever `key` is the same: take one key for a corpus. A fake cannot be
    turned back. It is drawn from a keyed SHAKE-256 of the value, which has no inverse, and keeps less than two
    bits a character, so that many values share every fake. What remains is trying: whoever knows the key can see
    whether a guess gives the fake, and a short password can be guessed. Take a random key, do not publish it.

    Raises:
        InputError: `key` is empty, or kingfisher-secret-scanner is not installed.
    """
    if not key:
        raise InputError(
            "the key of redaction is empty, so fakes could be traced back by trying; give a random one"
        )
    counts = dict.fromkeys(KINDS, 0)
    original = data = text.encode("utf-8", "surrogatepass")
    first = True
    while finds := _finds(data):
        pieces, done = [], 0
        for begin, end, kind in finds:
            value = data[begin:end].decode("utf-8", "surrogatepass")
            # Later looks find what the fakes make together with their surroundings. Each turns at least one more
            # character into a fake's and none back, so the looking ends.
            fake = _fake(value, kind if first else SECRET, key)
            pieces += [data[done:begin], fake.encode("utf-8", "surrogatepass")]
            counts[kind] += first
            done = end
        data, first = b"".join([*pieces, data[done:]]), False
    return Redacted(text if data is original else data.decode("utf-8", "surrogatepass"), counts)


def _finds(data: bytes) -> list[tuple[int, int, str]]:
    """All finds as (begin, end, kind), in order and apart; overlapping ones are merged into the graver kind."""
    # Kingfisher would take many NUL bytes for UTF-16 and count positions in what it decoded.
    without_nul = data.replace(b"\0", b" ") if b"\0" in data else data
    searches = (secret_spans(without_nul), email_spans(data), ip_spans(data))
    found = sorted((*_whole(data, span), rank) for rank, spans in enumerate(searches) for span in spans)
    merged: list[tuple[int, int, int]] = []
    for begin, end, rank in found:
        if merged and begin < merged[-1][1]:
            before = merged.pop()
            begin, end, rank = before[0], max(end, before[1]), min(rank, before[2])
        merged.append((begin, end, rank))
    return [(begin, end, KINDS[rank]) for begin, end, rank in merged if not _is_fake(data[begin:end])]


def _is_fake(found: bytes) -> bool:
    """Whether a find is a fake already, or by the luck of three in ten characters looks like one."""
    return _FAKE_CHARACTERS.issuperset(_FIXED.sub("", found.decode("utf-8", "surrogatepass")))


def _whole(data: bytes, span: Span) -> Span:
    """The span widened to whole characters: a byte 10xxxxxx is inside one."""
    begin, end = span
    while begin and data[begin] & 0xC0 == 0x80:
        begin -= 1
    while end < len(data) and data[end] & 0xC0 == 0x80:
        end += 1
    return begin, end


def _fake(value: str, kind: str, key: str) -> str:
    """What replaces a value; the same for the same value and key."""
    secret_key = hashlib.blake2b(key.encode("utf-8", "surrogatepass")).digest()
    keyed = hashlib.shake_256(secret_key + kind.encode() + b"\0" + value.encode("utf-8", "surrogatepass"))
    if kind == EMAIL:
        return f"user-{keyed.hexdigest(5)}@example.com"
    if kind == IP:
        number = int.from_bytes(keyed.digest(4))
        if ":" in value:
            return f"2001:db8::{number >> 16:x}:{number & 0xFFFF | 1:x}"
        return f"{_DOCUMENTATION_NETWORKS[number % 3]}.{number // 3 % 254 + 1}"
    return _fake_secret(value, keyed.digest(len(value)))


def _fake_secret(value: str, draws: bytes) -> str:
    """A value of the same form: what is fixed stays, every other character becomes one of three of its kind."""
    kept: set[int] = set()
    for match in _FIXED.finditer(value):
        kept.update(range(*match.span()))
    drawn = [character for position, character in enumerate(value) if position not in kept]
    letters = "abc" if all(character in "0123456789abcdefABCDEF" for character in drawn) else "xyz"
    fake = []
    for position, (character, draw) in enumerate(zip(value, draws, strict=True)):
        if position in kept:
            fake.append(character)
        elif character.isdecimal():
            fake.append("234"[draw % 3])
        else:
            chosen = letters[draw % 3]
            fake.append(chosen.upper() if character.isupper() else chosen)
    return "".join(fake)
