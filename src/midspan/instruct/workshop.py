"""The folder in which a data set comes about, stage by stage.

    FOLDER/
      paid.ledger         every answer that a model gave
      verdicts.ledger     what came of every program that was run
      questions.jsonl     one question a line
      tests.jsonl         those that have tests which say something
      solutions.jsonl     all answers to them with their verdicts, and which one is kept
      yield.json          what each stage asked for, dropped and kept

Every file but the ledgers is a function of them and of the settings, and is written whole at the end of its stage.
So a stage that was killed is run again: what was answered or executed before costs nothing, the rest goes on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from midspan.errors import InputError
from midspan.files import atomic_file, write_json
from midspan.instruct.ledger import Ledger

QUESTIONS, TESTS, SOLUTIONS, YIELD = "questions.jsonl", "tests.jsonl", "solutions.jsonl", "yield.json"

_FIELDS = {
    QUESTIONS: ("id", "question", "language"),
    TESTS: ("id", "question", "language", "setup", "tests", "entry"),
    SOLUTIONS: ("id", "question", "language", "tests", "shown", "answers", "kept"),
}
"""What the stage behind a file reads of its rows."""
_ID = re.compile("[0-9a-f]{1,32}")

Row = dict[str, Any]


class Workshop:
    """A folder with its ledgers open. Use as a context manager.

    Raises:
        InputError: another command is at work there, or no folder can be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be made ({error.strerror}); choose another folder") from error
        with ExitStack() as stack:
            self.paid = stack.enter_context(Ledger(folder / "paid.ledger"))
            self.verdicts = stack.enter_context(Ledger(folder / "verdicts.ledger", durable=False))
            self._stack = stack.pop_all()

    def __enter__(self) -> Workshop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def rows(self, name: str) -> Iterator[Row]:
        """The rows of a stage's file. InputError where the stage is still to come."""
        return stage_rows(self.folder, name)

    def write(self, name: str, rows: Iterable[Row]) -> None:
        """Replace a stage's file, whole or not at all."""
        write_rows(self.folder / name, rows)

    def report(self, stage: str, found: Row) -> None:
        """Keep what a stage yielded."""
        path = self.folder / YIELD
        write_json(path, (json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}) | {stage: found})


def stage_rows(folder: Path, name: str) -> Iterator[Row]:
    """The rows of a stage's file. InputError where the stage is still to come, or a row lacks a field."""
    path = folder / name
    if not path.is_file():
        stage = name.partition(".")[0]
        raise InputError(f"{folder} has no {name} yet; run `midspan instruct {stage} {folder}` before this")
    return _whole(path, _FIELDS[name])


def _whole(path: Path, fields: tuple[str, ...]) -> Iterator[Row]:
    """The rows of a stage's file, which others may have written: each with its fields, and an id that is one."""
    for number, row in enumerate(read_rows(path), start=1):
        missing = [name for name in fields if not isinstance(row, dict) or name not in row]
        if missing:
            raise InputError(
                f"{path}, line {number}: {', '.join(missing)} is missing; a row has {', '.join(fields)}"
            )
        if not isinstance(row["id"], str) or not _ID.fullmatch(row["id"]):
            raise InputError(
                f"{path}, line {number}: the id is {row['id']!r}; it must be up to 32 hexadecimal digits"
            )
        yield row


def read_rows(path: Path) -> Iterator[Row]:
    """The objects of a JSON Lines file. InputError for a line that is none."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                sentence = f"{path}, line {number}: this is no JSON ({error}); run its stage again"
                raise InputError(sentence) from None
            yield value


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write objects as JSON Lines, whole or not at all."""
    with atomic_file(path) as aside, aside.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
