"""What the jail holds against, by trying it: one small program per class of attack."""

from __future__ import annotations

from typing import Any

from midspan.sandbox.judge import Sandbox
from midspan.sandbox.languages import doctor
from midspan.sandbox.program import Limits, Program

_SMALL = Limits(cpu_seconds=1.0, memory_bytes=256 << 20)

ATTACKS = {
    "exit before the tests": "import os; os._exit(0)",
    "become another program": "import os; os.execv('/bin/true', ['true'])",
    "an object equal to everything": "class E:\n    def __eq__(self, other): return True\ndef f(x): return E()",
    "read the tests from the stack": (
        "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame.f_back: frame = frame.f_back\n"
        "    return frame.f_globals['expected']"
    ),
    "busy for ever": "while True: pass",
    "asleep for ever": "import time; time.sleep(1e6)",
    "memory without end": "a = []\nwhile True: a.append(bytearray(1 << 24))",
    "processes without end": "import os\nwhile True: os.fork()",
    "output without end": "while True: print('x' * 100000)",
    "write outside its folder": "open('/tmp/elsewhere', 'w')",
    "write to the system": "open('/usr/x', 'w')",
    "read accounts": "open('/etc/passwd').read()",
    "see the home folder": "import os; os.listdir('/root/.ssh')",
    "open a network socket": "import socket; socket.socket()",
    "open a local socket": "import socket; socket.socket(socket.AF_UNIX)",
    "kill the judge": "import os; os.kill(1, 9); os.kill(-1, 9)",
    "read the judge's memory": "open('/proc/1/mem', 'rb').read(1)",
    "trace the judge": (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nassert libc.ptrace(16, 1, 0, 0) == 0, 'refused'"
    ),
    "mount": "import ctypes\nassert ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, 0) == 0, 'refused'",
    "new namespaces": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0, 'refused'",
    "become root": "import os; os.setuid(0)",
}


def run_checks() -> dict[str, Any]:
    """Every attack in strict mode, each followed by an innocent program that must pass."""
    rows = []
    innocent = Program(source="def f(x): return x + 1", test="assert f(1) == 2", entry_point="f", limits=_SMALL)
    with Sandbox(1, "strict") as sandbox:
        for name, source in ATTACKS.items():
            attack = Program(
                source=source + "\n", test="expected = 2\nassert f(1) == expected", entry_point="f", limits=_SMALL
            )
            verdict, after = sandbox.judge_one(attack), sandbox.judge_one(innocent)
            held = verdict.status in ("failed", "timeout") and after.status == "passed"
            rows.append({"attack": name, "held": held, "status": verdict.status, "reason": verdict.reason})
        jail = sandbox.describe()
    return {"attacks": rows, "jail": jail, "languages": doctor()}
