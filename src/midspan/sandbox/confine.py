"""What a process does to itself inside the jail, before it runs what a model wrote.

    own session · rlimits · Landlock: may write in its own folder only · standard streams · no other descriptor

Runs inside the jail: standard library only.
"""

import ctypes
import math
import os
import resource
import struct
from typing import Any

BOX = "/tmp/box"
_FILE_BYTES, _FILES, _PROCESSES = 64 << 20, 256, 256
_NO_NEW_PRIVS, _SET_DUMPABLE = 38, 4
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_WRITES = 0b1_1111_1111_0010  # write file; remove and make entries: bits 1 and 4 to 12
_REFER, _TRUNCATE = 1 << 13, 1 << 14  # ABI 2, ABI 3
_TCP, _SCOPES = 0b11, 0b11  # ABI 4: bind and connect; ABI 6: abstract sockets and signals
_libc = ctypes.CDLL(None, use_errno=True)


def hide_memory() -> None:
    """Close this process's memory, environment and descriptors to others of its user, and give up privileges."""
    _libc.prctl(_SET_DUMPABLE, 0, 0, 0, 0)
    _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)


def landlock() -> tuple[int, int]:
    """(ABI, ruleset) that allows writing below BOX and to /dev/null alone; (0, -1) where the kernel has none."""
    abi = _libc.syscall(_LANDLOCK_CREATE, None, 0, 1)
    if abi < 1:
        return 0, -1
    writes = _WRITES | (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0)
    rules = struct.pack("<QQQ", writes, _TCP if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _libc.syscall(_LANDLOCK_CREATE, rules, size, 0)
    if ruleset < 0:
        return 0, -1
    files_only = (1 << 1) | (_TRUNCATE if abi >= 3 else 0)
    for path, allowed in ((BOX, writes), ("/dev/null", files_only)):
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        _libc.syscall(_LANDLOCK_ADD, ruleset, 1, struct.pack("<Qi", allowed, place), 0)
        os.close(place)
    return abi, ruleset


def limit(limits: dict[str, Any], *, address_space: bool) -> None:
    """Kernel limits of one process. CPU is a second late: the watcher counts finer and decides."""
    cpu = math.ceil(limits["cpu"]) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))
    resource.setrlimit(resource.RLIMIT_NPROC, (_PROCESSES, _PROCESSES))
    if address_space:
        resource.setrlimit(resource.RLIMIT_AS, (limits["memory"], limits["memory"]))


def enter_box(ruleset: int, streams: tuple[int, int, int], keep: tuple[int, ...]) -> tuple[int, ...]:
    """Take the streams as 0, 1, 2 and `keep` as 3, 4, …; close all else. Returns the new numbers of `keep`."""
    os.setsid()
    os.chdir(BOX)
    if ruleset >= 0 and _libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) != 0:
        os._exit(125)
    high = [os.dup(fd) for fd in (*streams, *keep)]  # first out of the way of the numbers that they are to have
    base = max(high) + 1
    moved = [_move(fd, base + place) for place, fd in enumerate(high)]
    for place, fd in enumerate(moved):
        os.dup2(fd, place, inheritable=place < 3)
    os.closerange(len(moved), 1024)
    return tuple(range(3, len(moved)))


def _move(fd: int, target: int) -> int:
    os.dup2(fd, target, inheritable=False)
    return target
