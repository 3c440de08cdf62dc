"""Repository documents: speed, whether the scan finds what a parser finds, and how often a file that is imported
comes before its use, in our order and in others.
"""

from __future__ import annotations

import ast
import random
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush

from benchmarks.harness import Bench
from midspan.corpus.document import Document
from midspan.corpus.imports import Files, dependencies, python
from midspan.corpus.language import language_of
from midspan.corpus.repository import order, reading_order, repository_documents

PARSED_MEGABYTES = 20.0


def run(bench: Bench, files: list[tuple[str, str, str]]) -> None:
    """(repository, path, text) of many repositories, those of one repository after another."""
    repositories: dict[str, dict[str, tuple[str, str]]] = {}
    for repository, path, text in files:
        repositories.setdefault(repository, {})[path] = (language_of(path), text)
    code = {
        name: {path: item for path, item in found.items() if item[0] == "python"}
        for name, found in repositories.items()
    }
    _speed(bench, "imports and reading order, Python", code.values(), goal=20.0)
    _speed(bench, "imports and reading order, all languages", repositories.values(), goal=20.0)

    documents = [
        Document(source="code", group=name, path=path, text=text, language=language)
        for name, found in repositories.items()
        for path, (language, text) in found.items()
    ]
    bench.compare(
        "repository documents of 64 thousand characters",
        unit="MB/s",
        amount=sum(len(text.encode()) for _, _, text in files) / 1e6,
        ours=lambda: sum(1 for _ in repository_documents(documents, max_chars=1 << 16)),
        clock=time.process_time,
    )
    _scan(bench, [text for found in code.values() for _, text in found.values()])
    _order(bench, repositories.values())
    _size(bench)


def _speed(bench: Bench, row: str, repositories: Iterable[Files], goal: float) -> None:
    taken = [found for found in repositories if found]
    megabytes = sum(len(text.encode()) for found in taken for _, text in found.values()) / 1e6
    if megabytes:
        bench.compare(
            row,
            unit="MB/s",
            amount=megabytes,
            ours=lambda: [reading_order(found) for found in taken],
            goal=goal,
            clock=time.process_time,
        )


def _scan(bench: Bench, texts: list[str]) -> None:
    """The scan beside `ast`, on a sample: a parser is some ten times slower."""
    texts = random.Random(0).sample(texts, len(texts))
    size, parsed = 0.0, []
    for text in texts:
        parsed.append(text)
        size += len(text.encode()) / 1e6
        if size > PARSED_MEGABYTES:
            break
    found: list[Counter[python.Import] | None] = []
    bench.compare(
        "Python import statements",
        unit="MB/s",
        amount=size,
        ours=lambda: [python.imports(text) for text in parsed],
        peers={"ast": lambda: found.extend(map(_parse, parsed))},
        clock=time.process_time,
    )
    statements = different = 0
    for text, expected in zip(parsed, found, strict=False):
        if expected is not None:
            ours = Counter(python.imports(text))
            statements += expected.total()
            different += ((ours - expected) + (expected - ours)).total()
    share = 100 - 100 * different / max(statements, 1)
    bench.record(f"agreement with ast on {statements:,} import statements", unit="%", value=share, goal=99.0)


def _parse(text: str) -> Counter[python.Import] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return None
    found: Counter[python.Import] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(python.Import(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found[python.Import(node.module or "", node.level, tuple(alias.name for alias in node.names))] += 1
    return found


def _order(bench: Bench, repositories: Iterable[Files]) -> None:
    """The share of imports that name an earlier file, as a mean over repositories with at least 50 imports."""
    orders = {"ours": order, "DeepSeek's Algorithm 1": _algorithm_1, "paths": sorted}
    shares: dict[str, list[float]] = {name: [] for name in orders}
    for files in repositories:
        needs = dependencies(files)
        edges = [(path, other) for path, needed in needs.items() for other in needed]
        if len(edges) >= 50:
            for name, arrange in orders.items():
                place = {path: index for index, path in enumerate(arrange(needs))}
                early = sum(place[other] < place[path] for path, other in edges)
                shares[name].append(100 * early / len(edges))
    count = len(shares["ours"])
    if count:
        means = {name: sum(found) / count for name, found in shares.items()}
        row = f"imports that name an earlier file, mean of {count} repositories"
        bench.record(row, unit="%", value=means.pop("ours"), peers=means, goal_ratio=1.0)


def _algorithm_1(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """DeepSeek-Coder's: always the file with the fewest dependencies still to come; equals by path."""
    missing = {path: len(needed) for path, needed in needs.items()}
    users: dict[str, list[str]] = {path: [] for path in needs}
    for path, needed in needs.items():
        for other in needed:
            users[other].append(path)
    waiting = [(count, path) for path, count in missing.items()]
    heapify(waiting)
    placed: dict[str, None] = {}
    while waiting:
        _, path = heappop(waiting)
        if path not in placed:
            placed[path] = None
            for user in users[path]:
                missing[user] -= 1
                heappush(waiting, (missing[user], user))
    return list(placed)


def _size(bench: Bench) -> None:
    """A made-up repository as large as they come: 2 % of the imports close cycles."""
    rng = random.Random(0)
    paths = [f"p{index // 300}/q{index % 300 // 20}/{index}.py" for index in range(100_000)]
    needs = {
        path: [paths[rng.randrange(100_000 if rng.random() < 0.02 else index + 1)] for _ in range(5)]
        for index, path in enumerate(paths)
    }
    begun = time.process_time()
    order(needs)
    seconds = time.process_time() - begun
    row = "order of 100,000 files with 500,000 imports"
    bench.record(row, unit="seconds", value=seconds, goal=10.0, better="lower")
