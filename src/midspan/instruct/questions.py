"""Stage 1: questions, in batches, without those that say the same and those of benchmarks.

The paper asked Llama 2 70B for 50 at a time, 62,000 in all, and removed exact duplicates. A request here is a
function of its number: subjects, or a piece of the user's own code, are drawn by it. Two questions are the same if
they are equal but for case and white space; near duplicates are a matter of `corpus.near_duplicates`.
"""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import xxhash

from midspan.corpus import Corpus
from midspan.corpus.decontaminate import Decontaminator, load_items
from midspan.corpus.near_duplicates import band_keys, shingle_hashes, survivors
from midspan.engine.sample import SampleConfig
from midspan.engine.server import Server
from midspan.errors import InputError, WorkError
from midspan.fim import Draws
from midspan.instruct.asking import Ask, Paid, answers
from midspan.instruct.form import Form
from midspan.instruct.forms import form_of
from midspan.instruct.prompts import question_fault, questions_prompt, read_questions
from midspan.instruct.workshop import QUESTIONS, Row, Workshop
from midspan.instruct.yields import ASKED, DIFFERENT, Yield

Progress = Callable[[int, int], None]
"""Called with what is done and what there is to do."""

SAMPLE = SampleConfig(temperature=0.8, top_p=0.95)
_PIECE_LINES = (4, 40)
_TOKENS_A_QUESTION = 60


@dataclass(frozen=True, kw_only=True)
class QuestionsConfig:
    """What is asked for."""

    number: int = 1000
    per_request: int = 50
    """The paper's."""
    language: str = "python"
    sample: SampleConfig = SAMPLE
    """The paper does not say."""
    seeds: Path | None = None
    """A corpus whose code questions are to be about."""
    near_duplicates: bool = False
    """Whether near duplicates go, too."""
    benchmarks: tuple[Path, ...] = ()
    """Files of benchmarks whose questions go."""
    parallel: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        at_least_1(number=self.number, per_request=self.per_request, parallel=self.parallel)


def at_least_1(**options: int) -> None:
    """InputError for an option below 1."""
    for name, value in options.items():
        if value < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")


def check_seeds(seeds: Path | None, endpoint: str | None, *, send_code: bool) -> None:
    """InputError where a user's own code would leave the machine without a word of theirs."""
    if seeds is not None and endpoint is not None and not send_code and not Server(endpoint).is_here:
        raise InputError(
            f"--seeds would send code of {seeds} to {endpoint}; give --send-code if that is meant, or ask a model "
            "on this machine"
        )


def ask_questions(
    shop: Workshop, paid: Paid, config: QuestionsConfig, progress: Progress = lambda *_: None
) -> Yield:
    """Ask for questions and keep those that are fit, in the order of the requests.

    Raises:
        InputError: a language, corpus or benchmark that is not there.
        WorkError: the model cannot answer, or refuses every request.
    """
    form, found = form_of(config.language), Yield(stage="questions")
    pieces = _pieces(config.seeds) if config.seeds is not None else []
    benchmarks = decontaminator(config.benchmarks)
    asks = _asks(form, config, pieces)
    lists: list[list[str]] = [[] for _ in asks]
    num_refused = 0
    for done, answer in enumerate(answers(paid, asks, config.parallel), start=1):
        if answer.refused:
            num_refused += 1
            found.dropped[f"refused: {answer.refused[:80]}"] += 1
        lists[answer.number] = [question for text in answer.texts for question in read_questions(text)]
        if num_refused == len(asks):
            raise WorkError(f"all {num_refused} requests were refused: {answer.refused}")
        progress(done, len(asks))
    read = [question for questions in lists for question in questions]
    rows = _fit(read, form, config, benchmarks, found)
    found.paid, found.known = paid.paid, paid.known
    found.row("asked for", config.number, paper=ASKED)
    found.row("read", len(read), of=config.number)
    found.row("different and fit", len(rows), of=len(read), paper=DIFFERENT, base=ASKED)
    shop.write(QUESTIONS, rows)
    shop.report("questions", found.to_json())
    return found


def _asks(form: Form, config: QuestionsConfig, pieces: Sequence[str]) -> list[Ask]:
    asks = []
    for number in range(math.ceil(config.number / config.per_request)):
        draws = Draws(config.seed, 0, number)
        code = pieces[draws.below(len(pieces))] if pieces else ""
        size = min(config.per_request, config.number - number * config.per_request)
        asks.append(
            Ask(
                messages=questions_prompt(form, size, draws, code),
                max_tokens=200 + _TOKENS_A_QUESTION * size,
                sample=seeded(config.sample, config.seed, number),
            )
        )
    return asks


def seeded(sample: SampleConfig, seed: int, number: int) -> SampleConfig:
    """The same sampling with a seed of its own for each request."""
    bits = xxhash.xxh3_64_intdigest(f"{seed} {number}".encode())
    return replace(sample, seed=bits >> 33)  # servers take 31 bits


def _fit(
    read: Sequence[str], form: Form, config: QuestionsConfig, benchmarks: Decontaminator | None, found: Yield
) -> list[Row]:
    seen: set[str] = set()
    kept: list[str] = []
    for question in read:
        same = " ".join(question.casefold().split()).rstrip(".")
        fault = "exact duplicate" if same in seen else question_fault(question)
        seen.add(same)
        if not fault and benchmarks is not None and benchmarks.hits(question, config.language):
            fault = "a benchmark's"
        if fault:
            found.dropped[fault] += 1
        else:
            kept.append(question)
    if config.near_duplicates and kept:
        texts = [question.casefold().encode() for question in kept]
        stay = survivors([shingle_hashes(text) for text in texts], band_keys(texts))
        found.dropped["near duplicate"] += sum(verdict is not None for verdict in stay)
        kept = [question for question, verdict in zip(kept, stay, strict=True) if verdict is None]
    return [
        {"id": question_id(form.name, question), "language": form.name, "question": question} for question in kept
    ]


def question_id(language: str, question: str) -> str:
    """XXH3-64 of a question, in hex."""
    return xxhash.xxh3_64_hexdigest(f"{language}\0{question}".encode("utf-8", "replace"))


def decontaminator(paths: Sequence[Path]) -> Decontaminator | None:
    """The benchmarks to keep clear of; None where none is named."""
    return Decontaminator.build(load_items(list(paths))) if paths else None


def _pieces(folder: Path) -> list[str]:
    """Functions of a corpus' Python files, and stretches of lines of its others; in the corpus' order.

    Raises:
        InputError: there is no corpus, or nothing in it to ask about.
    """
    least, most = _PIECE_LINES
    pieces: list[str] = []
    for document in Corpus.open(folder).documents():
        if document.language == "python":
            found = _functions(document.text)
        else:
            lines = document.text.split("\n")
            found = ["\n".join(lines[start : start + most]) for start in range(0, len(lines), most)]
        pieces += [piece.strip("\n") for piece in found if least <= len(piece.strip().split("\n")) <= most]
    if not pieces:
        raise InputError(f"{folder} has no function of {least} to {most} lines; name a corpus with more code")
    return pieces


def _functions(text: str) -> list[str]:
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    defined = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return [ast.get_source_segment(text, node) or "" for node in defined]
