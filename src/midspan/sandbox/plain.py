"""Plain data between a process that is trusted and one that is not: JSON with a tag for what JSON has not.

None, bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, range and iterators cross,
rebuilt on the other side as exactly those types, so that no method of the sender's goes with them. An iterator
is read out (up to a bound) and arrives as an iterator; anything else stays where it is and a handle crosses.

Runs inside the jail too: standard library only, and nothing imported from the package.
"""

import json
import os
import struct
from collections.abc import Callable
from typing import Any

LIMIT = 16 << 20
_MOST_ITEMS = 200_000


def read_exactly(fd: int, size: int) -> bytes:
    """`size` bytes of a pipe; EOFError where it ends sooner."""
    parts = []
    while size:
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            raise EOFError("the other side is gone")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_frame(fd: int) -> Any:
    """One frame: four bytes of length, then JSON. ValueError beyond the limit."""
    (size,) = struct.unpack("<I", read_exactly(fd, 4))
    if size > LIMIT:
        raise ValueError(f"a frame of {size} bytes is over the limit of {LIMIT}")
    return json.loads(read_exactly(fd, size))


def write_frame(fd: int, value: Any) -> None:
    """The other half of `read_frame`."""
    body = json.dumps(value).encode("ascii")
    if len(body) > LIMIT:
        raise ValueError(f"a frame of {len(body)} bytes is over the limit of {LIMIT}")
    rest = memoryview(struct.pack("<I", len(body)) + body)
    while rest:
        rest = rest[os.write(fd, rest) :]


_SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


def pack(value: Any, keep: Callable[[Any], int]) -> Any:
    """A value as JSON; `keep(value)` gives the handle of what cannot cross."""
    kind: Any = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if isinstance(value, bool | int):
        number = int.__int__(value)
        return number if -(1 << 53) < number < 1 << 53 else {"int": hex(number)}
    if isinstance(value, float):
        return {"float": float.hex(value)}
    if isinstance(value, str):
        return str.__str__(value)
    for name, base in _SEQUENCES.items():
        if isinstance(value, base):
            return {name: [pack(item, keep) for item in base.__iter__(value)]}
    if isinstance(value, dict):
        return {"dict": [[pack(key, keep), pack(item, keep)] for key, item in dict.items(value)]}
    if isinstance(value, complex):
        return {"complex": [float.hex(value.real), float.hex(value.imag)]}
    if isinstance(value, bytes | bytearray):
        return {"bytes" if isinstance(value, bytes) else "bytearray": bytes(value).hex()}
    if kind is range:
        return {"range": [value.start, value.stop, value.step]}
    if hasattr(kind, "__next__"):
        items = []
        for item in value:
            items.append(pack(item, keep))
            if len(items) > _MOST_ITEMS:
                raise ValueError(f"an iterator of more than {_MOST_ITEMS} items")
        return {"iterator": items}
    return {"handle": keep(value)}


def unpack(value: Any, handle: Callable[[Any], Any]) -> Any:
    """What `pack` made, as plain data; `handle(number)` stands for what stayed behind."""
    if not isinstance(value, dict):
        if isinstance(value, list):
            raise ValueError("a bare list is no value")
        return value
    ((tag, inner),) = value.items()
    if tag in _SEQUENCES:
        return _SEQUENCES[tag](unpack(item, handle) for item in inner)
    if tag == "dict":
        return {unpack(key, handle): unpack(item, handle) for key, item in inner}
    if tag == "int":
        return int(inner, 16)
    if tag == "float":
        return float.fromhex(inner)
    if tag == "complex":
        return complex(float.fromhex(inner[0]), float.fromhex(inner[1]))
    if tag in ("bytes", "bytearray"):
        return (bytes if tag == "bytes" else bytearray).fromhex(inner)
    if tag == "range":
        return range(*inner)
    if tag == "iterator":
        return iter([unpack(item, handle) for item in inner])
    if tag == "handle":
        return handle(inner)
    raise ValueError(f"no such kind of value: {tag!r}")
