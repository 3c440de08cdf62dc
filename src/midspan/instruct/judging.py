"""Programs through the sandbox, with every verdict kept: what was run once is not run again.

Equal programs are one, whoever wrote them. The sandbox's own troubles are no verdicts and are not kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from types import TracebackType

from midspan.instruct.ledger import Ledger, key_of
from midspan.sandbox import Limits, Program, Sandbox, Status
from midspan.sandbox.languages import version

OTHER_HASH_SEED = 1

Name = tuple[int, ...]
"""What the caller calls a program."""


@dataclass(frozen=True)
class Outcome:
    """What is kept of a verdict."""

    status: Status
    reason: str = ""


class Judge:
    """Two sandboxes with different hash seeds, opened when they are needed. Use as a context manager."""

    def __init__(self, ledger: Ledger, *, workers: int | None = None, cpu_seconds: float = 3.0) -> None:
        self.limits = Limits(cpu_seconds=cpu_seconds)
        self._ledger, self._workers = ledger, workers
        self._sandboxes: dict[int, Sandbox] = {}
        self._stack = ExitStack()
        self.executed = 0
        """Programs that were run now."""

    def __enter__(self) -> Judge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(
        self, programs: Iterable[tuple[Name, Program]], *, hash_seed: int = 0
    ) -> Iterator[tuple[Name, Outcome]]:
        """Judge named programs, in the order of completion.

        Raises:
            InputError: no jail can be made, or a language's tools are missing.
        """
        ready: deque[tuple[Name, Outcome]] = deque()
        waiting: dict[str, list[Name]] = {}

        def fresh() -> Iterator[Program]:
            for name, program in programs:
                key = key_of([asdict(replace(program, key="")), hash_seed, version(program.language)])
                known = self._ledger.get(key)
                if known is not None:
                    ready.append((name, Outcome(*known)))
                elif key in waiting:
                    waiting[key].append(name)
                else:
                    waiting[key] = [name]
                    yield replace(program, key=key)

        for verdict in self._sandbox(hash_seed).judge(fresh()):
            outcome = Outcome(verdict.status, verdict.reason)
            if outcome.status != "error":
                self._ledger.put(verdict.key, [outcome.status, outcome.reason])
            self.executed += 1
            ready.extend((name, outcome) for name in waiting.pop(verdict.key))
            while ready:
                yield ready.popleft()
        yield from ready

    def _sandbox(self, hash_seed: int) -> Sandbox:
        if hash_seed not in self._sandboxes:
            made = Sandbox(self._workers, "strict", hash_seed=hash_seed)
            self._sandboxes[hash_seed] = self._stack.enter_context(made)
        return self._sandboxes[hash_seed]
