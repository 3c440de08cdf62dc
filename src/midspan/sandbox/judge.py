"""The judge: programs in, verdicts out, one jail per worker.

    caller ─ programs ─▶ queue ─▶ threads, each with a jail ─▶ queue ─ verdicts ─▶ caller

A thread only waits for its jail. Programs are pulled a few ahead of the workers, whatever their number.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

from midspan.errors import InputError
from midspan.sandbox import languages, seccomp
from midspan.sandbox.jail import Jail, bwrap, packages
from midspan.sandbox.program import Mode, Program, Verdict

_AHEAD = 2
_MEMORY_BYTES = 4 << 30


class Sandbox:
    """Judges programs in jails.

    Args:
        workers: jails at a time; one per usable core if None.
        mode: `strict` judges Python functions with their tests in another process; other programs are judged in
            `compat`, and each verdict says which it was.
        hash_seed: of the interpreters in the jails, 0 to 2^32 - 1: what depends on the order of sets of strings
            changes with it.

    Raises:
        InputError: a language that is unknown or whose tools are missing; no jail can be made.
    """

    def __init__(self, workers: int | None = None, mode: Mode = "compat", *, hash_seed: int = 0) -> None:
        if workers is not None and workers < 1:
            raise InputError(f"{workers} workers judge nothing; ask for 1 or more")
        if mode not in ("compat", "strict"):
            raise InputError(f"{mode!r} is no mode of the sandbox; choose compat or strict")
        if not 0 <= hash_seed < 2**32:
            raise InputError(f"hash_seed is {hash_seed}; it lies between 0 and 2^32 - 1")
        self.mode: Mode = mode
        self._hash_seed = hash_seed
        self.workers = workers or len(os.sched_getaffinity(0))
        self._jails: list[Jail | None] = [None] * self.workers
        self._used: set[str] = set()
        self._lock = threading.Lock()
        self._first = self._open_jail()
        self._jails[0] = self._first

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every jail."""
        for place, jail in enumerate(self._jails):
            if jail is not None:
                jail.close()
                self._jails[place] = None

    def judge_one(self, program: Program) -> Verdict:
        """One program's verdict."""
        self._check(program)
        return self._judge(0, program)

    def judge(self, programs: Iterable[Program]) -> Iterator[Verdict]:
        """Verdicts in the order of completion."""
        waiting: queue.Queue[Program | None] = queue.Queue()
        done: queue.Queue[Verdict | BaseException] = queue.Queue()

        def work(place: int) -> None:
            while (program := waiting.get()) is not None:
                try:
                    done.put(self._judge(place, program))
                except BaseException as error:
                    done.put(error)

        threads = [threading.Thread(target=work, args=(place,), daemon=True) for place in range(self.workers)]
        for thread in threads:
            thread.start()
        running, more = 0, iter(programs)
        try:
            while True:
                while running < self.workers * _AHEAD and (program := next(more, None)) is not None:
                    self._check(program)
                    waiting.put(program)
                    running += 1
                if not running:
                    return
                came = done.get()
                running -= 1
                if isinstance(came, BaseException):
                    raise came
                yield came
        finally:
            self._stop(waiting, threads)

    def describe(self) -> dict[str, Any]:
        """What a result has to name: mode, jail, what is enforced, and the tools' versions."""
        jail = self._first
        return {
            "mode": self.mode,
            "jail": f"{os.path.basename(bwrap())} {languages.first_line((bwrap(), '--version')).split()[-1]}",
            "seccomp": seccomp.is_supported(),
            "landlock": jail.landlock,
            "cgroup": jail.cgroup.kind,
            "limits": "CPU seconds; wall time less waiting for a core; address space or memory; output",
            "workers": self.workers,
            "packages": [os.path.basename(path) for path in packages() if not path.endswith(".libs")],
            "tools": {name: languages.version(name) for name in sorted(self._used | {"python"})},
        }

    def _check(self, program: Program) -> None:
        if program.language not in self._used:
            languages.require(program.language)
            self._used.add(program.language)

    def _stop(self, waiting: queue.Queue[Program | None], threads: list[threading.Thread]) -> None:
        while not waiting.empty():  # the caller has had enough
            try:
                waiting.get_nowait()
            except queue.Empty:
                break
        for _ in threads:
            waiting.put(None)
        if any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join()

    def _open_jail(self) -> Jail:
        return Jail(binds=languages.binds(), memory_bytes=_MEMORY_BYTES, hash_seed=self._hash_seed)

    def _judge(self, place: int, program: Program) -> Verdict:
        """Ask a worker's jail; after trouble that is not the program's, ask a fresh one, once."""
        mode: Mode = self.mode if program.language == "python" and program.entry_point else "compat"
        if program.stdin is not None:
            mode = "compat"
        trouble = ""
        for _ in range(2):
            try:
                answer = self._ask(place, program, mode)
            except (OSError, EOFError, ValueError, KeyError) as error:
                trouble = f"the jail failed: {type(error).__name__}: {error}"
                self._retire(place)
                continue
            if answer.get("retire"):
                self._retire(place)
            return _verdict(program, mode, answer)
        return Verdict(key=program.key, status="error", reason=trouble, mode=mode)

    def _ask(self, place: int, program: Program, mode: Mode) -> dict[str, Any]:
        jail = self._jails[place]
        if jail is None:
            with self._lock:
                jail = self._jails[place] = self._open_jail()
        frames = _frames(program, mode)
        silence = 20 * (frames[0]["wall"] + 60)  # far beyond what the zygote allows: it has stopped answering
        return jail.ask(*frames, within=silence)

    def _retire(self, place: int) -> None:
        jail, self._jails[place] = self._jails[place], None
        if jail is not None:
            jail.close()


def _frames(program: Program, mode: Mode) -> list[dict[str, Any]]:
    limits = program.limits
    header: dict[str, Any] = {
        "cpu": limits.cpu_seconds,
        "wall": limits.cpu_seconds * 4 if limits.wall_seconds is None else limits.wall_seconds,
        "memory": limits.memory_bytes,
        "output": limits.output_bytes,
        "stdin": program.stdin,
    }
    if program.language != "python":
        return [{**header, "kind": "command"}, languages.job(program)]
    if mode == "strict":
        tests = {"trusted": program.trusted, "test": program.test, "entry_point": program.entry_point}
        return [{**header, "kind": "strict"}, tests, {"source": program.source}]
    whole = f"{program.source}\n{program.test}"
    return [{**header, "kind": "python"}, {"source": whole, "is_script": program.stdin is not None}]


def _verdict(program: Program, mode: Mode, answer: dict[str, Any]) -> Verdict:
    status, reason, stdout = answer["status"], answer["reason"], answer["stdout"]
    if program.language != "python" and status == "ended":
        status, reason, stdout = languages.outcome(program, answer)
    if status not in ("passed", "failed", "timeout", "error"):
        status, reason = "error", f"the jail said {status!r}"
    return Verdict(
        key=program.key,
        status=status,
        reason=reason,
        stdout=stdout,
        stderr=answer["stderr"],
        cpu_seconds=answer["cpu"],
        wall_seconds=answer["wall"],
        mode=mode,
    )
