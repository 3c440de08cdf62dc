"""What the sandbox is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["compat", "strict"]
"""`compat` runs the official program whole; `strict` keeps the tests in a process out of the solution's reach."""

Status = Literal["passed", "failed", "timeout", "error"]
"""`error` is the sandbox's own trouble: it says nothing about the program and is never counted as a failure."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one program may use."""

    cpu_seconds: float = 3.0
    """Decides a timeout, whatever else the machine is doing."""
    wall_seconds: float | None = None
    """The backstop for a program that sleeps; four times the CPU seconds if None."""
    memory_bytes: int = 1 << 30
    output_bytes: int = 64 << 10
    """Kept of each stream; what comes beyond is read and dropped."""


LIMITS = Limits()


@dataclass(frozen=True, kw_only=True)
class Program:
    """One program and its tests."""

    source: str
    """What the model had a hand in: for a function task the prompt and its completion."""
    language: str = "python"
    test: str = ""
    """What is run after the source and must end without complaint; in `strict` mode it is trusted."""
    entry_point: str | None = None
    """The function under test; `strict` mode wants it, and falls back on `compat` for a program without one."""
    trusted: str = ""
    """The part of the source that the benchmark wrote, for tests that call its helpers (HumanEval/38 and /50)."""
    stdin: str | None = None
    """What the program reads; with it there is usually no test, and the caller judges `Verdict.stdout`."""
    limits: Limits = LIMITS
    key: str = ""
    """The caller's name for it, handed back in the verdict."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of a program."""

    key: str
    status: Status
    reason: str = ""
    """One line: the exception, the signal, the limit that was met."""
    stdout: str = ""
    stderr: str = ""
    """Both cut at `Limits.output_bytes`."""
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    mode: Mode = "compat"
    """How it was judged in fact."""
