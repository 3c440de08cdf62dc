"""A task's folder: what was asked, what was answered, what came of it; written line by line, so that a killed
evaluation goes on where it was.

    questions.jsonl   what is asked, whole
    answers.jsonl     a line for each answer, as soon as it is there
    samples.jsonl     a line for each answer that is scored: prompt, program, verdict, reason, times, scores
    summary.json      what was measured and how, and the rows; what results.json is made of
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import xxhash

from midspan.evaluate.task import Answer, Question
from midspan.files import atomic_file, write_json

QUESTIONS, ANSWERS, SAMPLES, SUMMARY, IDENTITY = (
    "questions.jsonl",
    "answers.jsonl",
    "samples.jsonl",
    "summary.json",
    "identity.json",
)
Key = tuple[str, float, int]


class Journal:
    """The folder of one task and one model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open_for(self, identity: Mapping[str, Any], questions: Sequence[Question]) -> None:
        """Make the folder ready for these questions of this model; what another one left is set aside.

        Answers of the same model to the same questions stay.
        """
        digest = xxhash.xxh3_128()
        for question in questions:
            digest.update(json.dumps(question.to_json(), sort_keys=True).encode())
        wanted = {**identity, "questions": digest.hexdigest(), "number": len(questions)}
        if (self.folder / IDENTITY).is_file() and self.identity() != wanted:
            self.folder.rename(_free(self.folder))
        if not (self.folder / IDENTITY).is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            _write_lines(self.folder / QUESTIONS, (question.to_json() for question in questions))
            write_json(self.folder / IDENTITY, wanted)

    def identity(self) -> dict[str, Any]:
        """What `open_for` wrote; empty where it is damaged."""
        try:
            return dict(json.loads((self.folder / IDENTITY).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}

    def questions(self) -> dict[str, Question]:
        """What is asked, by its name."""
        found = map(Question.from_json, _lines(self.folder / QUESTIONS))
        return {question.id: question for question in found}

    def answers(self) -> dict[Key, Answer]:
        """What was answered."""
        found = (Answer(**values) for values in _lines(self.folder / ANSWERS))
        return {answer.key: answer for answer in found}

    def samples(self) -> dict[Key, dict[str, Any]]:
        """What was scored; of one that was scored twice the last time."""
        return {(s["question"], s["temperature"], s["copy"]): s for s in _lines(self.folder / SAMPLES)}

    def add_answers(self, answers: Iterable[Answer]) -> None:
        """Keep answers."""
        _append(self.folder / ANSWERS, map(asdict, answers))

    def add_samples(self, samples: Iterable[Mapping[str, Any]]) -> None:
        """Keep scored answers."""
        _append(self.folder / SAMPLES, samples)

    def replace_samples(self, samples: Iterable[Mapping[str, Any]]) -> None:
        """Put others in the place of all of them."""
        _write_lines(self.folder / SAMPLES, samples)


def _free(folder: Path) -> Path:
    number = 1
    while (other := folder.with_name(f"{folder.name}~{number}")).exists():
        number += 1
    return other


def _lines(path: Path) -> list[Any]:
    """The values of a JSON-lines file; the last line of a process that was killed may be half a line."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def _append(path: Path, values: Iterable[Any]) -> None:
    text = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    if not text:
        return
    with path.open("a+b") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":  # what a killed process left of its last line
                text = f"\n{text}"
        file.write(text.encode("utf-8", errors="surrogatepass"))


def _write_lines(path: Path, values: Iterable[Any]) -> None:
    with atomic_file(path) as aside, aside.open("w", encoding="utf-8") as file:
        for value in values:
            file.write(json.dumps(value, ensure_ascii=False) + "\n")
