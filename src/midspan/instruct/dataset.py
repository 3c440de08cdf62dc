"""Stage 4: one file of conversations to train on, from solved questions, files of others, and the safety set.

A solved question becomes a conversation in one of two forms, drawn by its id. So the model learns both, and that
the one who asks decides:

    tags    the question, the test that was shown, "between [PYTHON] and [/PYTHON]"    →  [PYTHON] code [/PYTHON]
    plain   the question, sometimes with the test                                     →  ```python code ```

Preferences are what a run leaves beside: of each question a solution that passed and one that failed, in the
conversational format of TRL's trainers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from midspan.corpus.decontaminate import Decontaminator
from midspan.errors import InputError
from midspan.fim import Draws
from midspan.instruct.asking import conversation
from midspan.instruct.forms import form_of
from midspan.instruct.imports import entries
from midspan.instruct.questions import decontaminator
from midspan.instruct.workshop import SOLUTIONS, Row, stage_rows, write_rows
from midspan.instruct.yields import ASKED, SOLVED, Yield
from midspan.tokenizer.chat import Message

_WITH_TAGS = 0.5
_WITH_TEST = 0.5
"""Of the questions without tags."""
_TAGGED = (
    "Put your code between [{tag}] and [/{tag}] tags.",
    "Your code should start with a [{tag}] tag and end with a [/{tag}] tag.",
    "Answer with code between the tags [{tag}] and [/{tag}], and nothing else.",
)
_TESTED = (
    "Your code should pass this test:\n\n{test}",
    "This has to hold:\n\n{test}",
    "For example:\n\n{test}",
)


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What a data set is made of."""

    sources: tuple[Path, ...] = ()
    """Folders of self-instruction, and files of conversations."""
    safety: bool = False
    """Whether the safety set is added."""
    benchmarks: tuple[Path, ...] = ()
    """Files of benchmarks whose questions and solutions go."""
    skip_bad: bool = False
    """Whether entries that cannot be used are left out and counted, or end the work."""
    seed: int = 0


@dataclass(kw_only=True)
class _Parts:
    """What has come together so far."""

    conversations: list[list[Message]] = field(default_factory=list)
    preferences: list[Row] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)


def build(out: Path, config: BuildConfig, *, preferences: Path | None = None) -> Yield:
    """Write conversations, one {"messages": [...]} a line, and preferences if they are asked for.

    Raises:
        InputError: a source is not there, is of no known kind, or holds an entry that cannot be used (its line is
            named); or there is nothing to write.
    """
    if not config.sources and not config.safety:
        raise InputError(
            "there is nothing to build from; name folders or files of conversations, or give --safety"
        )
    found, parts, benchmarks = Yield(stage="build"), _Parts(), decontaminator(config.benchmarks)
    for source in config.sources:
        if source.is_dir():
            _add_solved(source, config, benchmarks, parts, found)
        else:
            _add_file(source, config, benchmarks, parts, found)
    if config.safety:
        for messages in safety_set():
            _add(messages, "safety", parts, found)
    if not parts.conversations:
        raise InputError("no conversation is left to write; see why with `midspan instruct solutions`")
    write_rows(out, ({"messages": said(messages)} for messages in parts.conversations))
    if preferences is not None:
        write_rows(preferences, parts.preferences)
        found.row("preferences", len(parts.preferences))
    found.row("self-instructed", parts.counts["solved"], paper=SOLVED, base=ASKED)
    found.row("imported", parts.counts["imported"])
    found.row("safety", parts.counts["safety"])
    found.row("conversations", len(parts.conversations))
    return found


def said(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as JSON has them."""
    return [{"role": message.role, "content": message.content} for message in messages]


def safety_set() -> list[list[Message]]:
    """Requests that are declined with what can be done instead, each beside a harmless one that is answered."""
    lines = files("midspan.instruct").joinpath("safety.jsonl").read_text(encoding="utf-8").splitlines()
    return [[Message(**message) for message in json.loads(line)["messages"]] for line in lines]


def taught(row: Row, seed: int = 0) -> list[Message]:
    """A solved question as a conversation."""
    form, code = form_of(row["language"]), row["answers"][row["kept"]]["code"].strip("\n")
    draws = Draws(seed, 2, int(row["id"], 16))
    test = _TESTED[draws.below(len(_TESTED))].format(test=row["tests"][row["shown"]])
    if draws.unit() < _WITH_TAGS:
        wanted = _TAGGED[draws.below(len(_TAGGED))].format(tag=form.tag)
        return list(
            conversation(f"{row['question']}\n\n{test}\n\n{wanted}", f"[{form.tag}]\n{code}\n[/{form.tag}]")
        )
    named = "" if form.title.lower() in row["question"].lower() else f" Write it in {form.title}."
    question = f"{row['question']}{named}" + (f"\n\n{test}" if draws.unit() < _WITH_TEST else "")
    return list(conversation(question, f"```{form.fence}\n{code}\n```"))


def preference(row: Row) -> Row | None:
    """The kept solution of a question beside the first that failed its tests; None where none did."""
    failed = [answer["code"] for answer in row["answers"] if answer["status"] in ("failed", "timeout")]
    if row["kept"] is None or not failed:
        return None
    form = form_of(row["language"])
    wanted = _TAGGED[0].format(tag=form.tag)
    test = _TESTED[0].format(test=row["tests"][row["shown"]])
    prompt = [Message("user", f"{row['question']}\n\n{test}\n\n{wanted}")]
    chosen, rejected = (
        [Message("assistant", f"[{form.tag}]\n{code}[/{form.tag}]")]
        for code in (row["answers"][row["kept"]]["code"], failed[0])
    )
    return {"prompt": said(prompt), "chosen": said(chosen), "rejected": said(rejected)}


def _add_solved(
    folder: Path, config: BuildConfig, benchmarks: Decontaminator | None, parts: _Parts, found: Yield
) -> None:
    for row in stage_rows(folder, SOLUTIONS):
        if row["kept"] is None:
            continue
        texts = [row["question"], row["answers"][row["kept"]]["code"], "\n".join(row["tests"])]
        if _is_known(texts, row["language"], benchmarks):
            found.dropped["a benchmark's"] += 1
        elif _add(taught(row, config.seed), "solved", parts, found) and (pair := preference(row)) is not None:
            parts.preferences.append(pair)


def _add_file(
    path: Path, config: BuildConfig, benchmarks: Decontaminator | None, parts: _Parts, found: Yield
) -> None:
    for entry in entries(path):
        if entry.fault and not config.skip_bad:
            raise InputError(f"{entry.place}: {entry.fault} (--skip-bad leaves such entries out)")
        if entry.fault:
            found.dropped["cannot be used"] += 1
        elif _is_known([message.content for message in entry.messages], "python", benchmarks):
            found.dropped["a benchmark's"] += 1
        else:
            _add(entry.messages, "imported", parts, found)


def _is_known(texts: Iterable[str], language: str, benchmarks: Decontaminator | None) -> bool:
    return benchmarks is not None and bool(benchmarks.hits("\n\n".join(texts), language))


def _add(messages: list[Message], kind: str, parts: _Parts, found: Yield) -> bool:
    """Take a conversation, unless the same is there."""
    key = json.dumps(said(messages))
    if key in parts.seen:
        found.dropped["exact duplicate"] += 1
        return False
    parts.seen.add(key)
    parts.conversations.append(messages)
    parts.counts[kind] += 1
    return True
