"""No attack passes in strict mode, none reaches the next program, nothing is left alive."""

import os
from pathlib import Path

import pytest

from midspan.sandbox import Limits, Program, Sandbox

from . import attacks

LIMITS = Limits(cpu_seconds=1.0, wall_seconds=2.0, memory_bytes=256 << 20)
TEST = """\
expected = 2  # expected_marker
def check(candidate):
    assert candidate(1) == expected
    assert candidate(5) == 6
check(f)
"""
INNOCENT = Program(source="def f(x):\n    return x + 1\n", test=TEST, entry_point="f")


@pytest.fixture(autouse=True)
def _next_is_unharmed(strict: Sandbox):
    yield
    after = strict.judge_one(INNOCENT)
    assert after.status == "passed", after


@pytest.mark.parametrize("name", attacks.PYTHON)
def test_no_attack_passes(name: str, strict: Sandbox):
    verdict = strict.judge_one(Program(source=attacks.PYTHON[name], test=TEST, entry_point="f", limits=LIMITS))
    assert verdict.mode == "strict"
    assert verdict.status in ("failed", "timeout"), verdict
    assert len(verdict.stdout) <= LIMITS.output_bytes
    assert verdict.cpu_seconds < 3


@pytest.mark.parametrize("name", attacks.SYSCALLS)
def test_a_call_that_no_solution_needs_is_refused(name: str, strict: Sandbox):
    source = f"import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nassert {attacks.SYSCALLS[name]} < 0\n"
    source += "assert ctypes.get_errno() in (1, 13, 38), ctypes.get_errno()\ndef f(x): return x + 1\n"
    assert strict.judge_one(Program(source=source, test=TEST, entry_point="f", limits=LIMITS)).status == "passed"


def test_nothing_is_left_alive_or_behind(strict: Sandbox):
    left = (
        "import os, time\nopen('left', 'w').write('x')\nif os.fork() == 0:\n os.setsid()\n time.sleep(1000)\n"
        "def f(x): return x + 1\n"
    )
    assert strict.judge_one(Program(source=left, test=TEST, entry_point="f", limits=LIMITS)).status == "passed"
    look = (
        "import os\nassert os.listdir('.') == [], os.listdir('.')\n"
        "alive = [name for name in os.listdir('/proc') if name.isdigit()]\nassert len(alive) == 3, alive\n"
        "def f(x): return x + 1\n"
    )
    verdict = strict.judge_one(Program(source=look, test=TEST, entry_point="f", limits=LIMITS))
    assert verdict.status == "passed", verdict


def test_a_closed_sandbox_leaves_no_process(tmp_path: Path):
    with Sandbox(2, "compat") as sandbox:
        assert {v.status for v in sandbox.judge([INNOCENT] * 4)} == {"passed"}
        pids = [jail.process.pid for jail in sandbox._jails if jail is not None]
        assert pids
        groups = [folder for jail in sandbox._jails if jail is not None for folder in jail.cgroup.folders]
    assert not [folder for folder in groups if folder.exists()], "an empty group of processes stays behind"
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize(
    "name", ["sys.exit(0)", "os._exit(0)", "exec of true", "exit in the call", "forged frames"]
)
def test_what_compat_stops(name: str, compat: Sandbox):
    verdict = compat.judge_one(Program(source=attacks.PYTHON[name], test=TEST, limits=LIMITS))
    assert verdict.status == "failed", verdict


@pytest.mark.parametrize("name", ["always equal", "frames"])
def test_what_compat_cannot_stop(name: str, compat: Sandbox):
    """The guide names these holes: where one closes, the guide is to say so."""
    test = TEST.replace("candidate(5) == 6", "True")
    assert compat.judge_one(Program(source=attacks.PYTHON[name], test=test, limits=LIMITS)).status == "passed"
