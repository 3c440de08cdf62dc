"""The fused step's machine code: compiled once for this processor, kept in the user's cache.

    <cache>/kernels/decode-<hash of source, flags, compiler and processor>.so

The compiler is the system's (`c++`, `g++` or `clang++`, or what CXX names). Where there is none, or it fails,
there is no fused step and torch decodes.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from midspan.cache import cache_dir
from midspan.errors import WorkError
from midspan.files import atomic_file
from midspan.native import processor

SOURCE = Path(__file__).with_name("decode.cpp")
HEADERS = ("eights.h", "numbers.h", "pairs.h", "products.h", "tiles.h")
# Sums may be reordered into vector code; infinities and NaNs keep their meaning, and no global mode is changed.
FLAGS = (
    *("-std=c++20", "-O3", "-fPIC", "-shared", "-pthread", "-fno-math-errno", "-fno-trapping-math"),
    *("-fassociative-math", "-fno-signed-zeros", "-ffp-contract=fast", "-w"),
)

LAYER = ("qkv", "out", "gate_up", "down", "qkv_bias", "out_bias", "norm1", "norm2")
"""A layer's tensors, in the order of `Layer` in decode.cpp."""
PRODUCTS = LAYER[:4]
"""Those that an adapter may add to."""


class Shape(ctypes.Structure):
    """`Shape` of decode.cpp."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("layers", "hidden", "inner", "heads", "kv_heads", "head_dim")),
        *((name, ctypes.c_int32) for name in ("vocab", "bits", "threads")),
        ("eps", ctypes.c_float),
    ]


class Low(ctypes.Structure):
    """`Low` of decode.cpp."""

    _fields_ = [("down", ctypes.c_void_p), ("up", ctypes.c_void_p), ("rank", ctypes.c_int64)]


class Layer(ctypes.Structure):
    """`Layer` of decode.cpp."""

    _fields_ = [*((name, ctypes.c_void_p) for name in LAYER), ("low", Low * len(PRODUCTS))]


class Rows(ctypes.Structure):
    """`Rows` of decode.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("ids", "row_of", "embedding", "head")),
        *((name, ctypes.c_int32) for name in ("count", "base")),
    ]


class Memory(ctypes.Structure):
    """`Cache` of decode.cpp."""

    _fields_ = [
        ("memory", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("layer", "kind", "slot", "head")),
        ("is_bf16", ctypes.c_int32),
    ]


@cache
def load(architecture: str = "native") -> ctypes.CDLL:
    """The library for a processor by the compiler's name of it; compiled the first time.

    Raises:
        WorkError: no compiler, or it fails.
    """
    compiler = _compiler()
    identity = [SOURCE.with_name(name).read_bytes() for name in (SOURCE.name, *HEADERS)]
    identity.append(repr((FLAGS, architecture, _version(compiler), processor())).encode())
    digest = hashlib.sha256(b"\0".join(identity)).hexdigest()
    path = cache_dir() / "kernels" / f"decode-{digest[:16]}.so"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as aside:
            command = [compiler, *FLAGS, f"-march={architecture}", str(SOURCE), "-o", str(aside)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                found = [line for line in done.stderr.splitlines() if "error" in line]
                reason = found[0] if found else f"exit code {done.returncode}"
                raise WorkError(f"{compiler} could not compile the fused decode step ({reason})")
    return _declared(ctypes.CDLL(str(path)))


def available() -> bool:
    """Whether there is a library for this processor, or a compiler that makes one."""
    try:
        load()
    except WorkError:
        return False
    return True


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    library.midspan_instructions.restype = ctypes.c_char_p
    library.midspan_open.restype = ctypes.c_void_p
    library.midspan_open.argtypes = [ctypes.c_void_p] * 5
    library.midspan_rows.restype = None
    library.midspan_rows.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    library.midspan_step.restype = None
    library.midspan_step.argtypes = [
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int),
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p),
    ]
    library.midspan_close.restype = None
    library.midspan_close.argtypes = [ctypes.c_void_p]
    return library


def _compiler() -> str:
    asked = os.environ.get("CXX")
    found = next(filter(None, map(shutil.which, [asked] if asked else ["c++", "g++", "clang++"])), None)
    if found is None:
        raise WorkError(
            f"there is no C++ compiler ({asked or 'c++, g++ or clang++'}) for the fused decode step; "
            "install one, for instance with `apt install g++`"
        )
    return found


def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
