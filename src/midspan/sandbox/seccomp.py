"""The filter of system calls that every jail starts under, as the kernel's classic BPF.

What is refused has no part in solving a programming task and a long part in kernel exploits: sockets, tracing and
reading other processes, mounts, keys, BPF, io_uring, new namespaces. `clone3` answers "not implemented", because
its flags lie in memory where no filter can see them; C libraries then use `clone`, whose flags are checked.
"""

from __future__ import annotations

import errno
import platform
import struct

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_NUMBERS = {  # name: (x86_64, aarch64)
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "quotactl": (179, 60),
    "syslog": (103, 116),
    "shmget": (29, 194),  # System V and POSIX objects outlive a process: nothing is to be left for the next one
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
}
DENIED = tuple(_NUMBERS)
_CLONE, _CLONE3 = (56, 220), 435
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET,TIME}
_X32 = 0x40000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000


def is_supported() -> bool:
    """Whether the numbers of this processor's system calls are known here."""
    return platform.machine() in _AUDIT_ARCH


def program() -> bytes:
    """The filter as an array of `struct sock_filter`, for `bwrap --seccomp`."""
    column = list(_AUDIT_ARCH).index(platform.machine())
    refuse = _statement(_RETURN, _REFUSE | errno.EPERM)
    code = [
        _statement(_LOAD, 4),  # the architecture: another ABI has other numbers
        _jump(_EQUAL, _AUDIT_ARCH[platform.machine()], 1, 0),
        _statement(_RETURN, _KILL),
        _statement(_LOAD, 0),  # the call's number
    ]
    if platform.machine() == "x86_64":
        code += [_jump(_AT_LEAST, _X32, 0, 1), refuse]
    code += [_jump(_EQUAL, _CLONE3, 0, 1), _statement(_RETURN, _REFUSE | errno.ENOSYS)]
    for numbers in _NUMBERS.values():
        code += [_jump(_EQUAL, numbers[column], 0, 1), refuse]
    code += [
        _jump(_EQUAL, _CLONE[column], 0, 3),
        _statement(_LOAD, 16),  # the low half of clone's first argument
        _jump(_ANY_BIT, _NEW_NAMESPACES, 0, 1),
        refuse,
        _statement(_RETURN, _ALLOW),
    ]
    return b"".join(code)


def _statement(code: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, 0, 0, value)


def _jump(code: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
