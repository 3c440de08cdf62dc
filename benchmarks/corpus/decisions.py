"""What is decided about one file by itself: language, origin, quality, licence header. MB/s of text on one core.

Peers, where they are installed: go-enry for language and origin, licenseclassifier for headers. The rows are of
all files, but "language of .h" (the ambiguous extension that real code has most of) and the header's, whose peer
is slow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from licenseclassifier import identify_license

from benchmarks.harness import Bench
from midspan.corpus.language import extension_of, language_of, language_of_content
from midspan.corpus.licence import header_licences
from midspan.corpus.origin import origin_problem
from midspan.corpus.quality import quality_problem

Files = Sequence[tuple[str, str]]
GOAL = 20.0


def _enry_language(files: Files) -> dict[str, Callable[[], object]]:
    try:
        import enry
    except ImportError:
        return {}
    encoded = [(path, text.encode()) for path, text in files]
    return {"go-enry": lambda: [enry.get_language(path, data) for path, data in encoded]}


def _enry_origin(files: Files) -> dict[str, Callable[[], object]]:
    try:
        import enry
    except ImportError:
        return {}
    encoded = [(path, text.encode()) for path, text in files]
    return {"go-enry": lambda: [enry.is_vendor(path) or enry.is_generated(path, data) for path, data in encoded]}


def _classifier(files: Files) -> dict[str, Callable[[], object]]:
    heads = ["\n".join(text.split("\n", 100)[:100])[:12_000] for _, text in files]
    return {"licenseclassifier": lambda: [identify_license(head, coverage_threshold=0.0) for head in heads]}


def _decide(path: str, text: str) -> None:
    """As ingest asks: what the name settles is not read."""
    if origin_problem(path, None) is None and origin_problem(path, text) is None:
        quality_problem(text, path, language_of_content(path, text, language_of(path)))
        header_licences(text)


def run(bench: Bench, files: list[tuple[str, str]]) -> None:
    """Rows for each step, and for all of them together, over (path, text) of real code."""
    languages = {path: language_of(path) for path, _ in files}

    def row(
        name: str, of: Files, call: Callable[[str, str], object], peers: dict[str, Callable[[], object]]
    ) -> None:
        if of:
            bench.compare(
                f"decisions: {name}",
                unit="MB/s",
                amount=sum(len(text.encode()) for _, text in of) / 1e6,
                ours=lambda: [call(path, text) for path, text in of],
                peers=peers,
                goal=GOAL,
                clock=time.process_time,
            )

    def by_content(path: str, text: str) -> str:
        return language_of_content(path, text, languages[path])

    headers = [file for file in files if extension_of(file[0]) == "h"]
    some = files[:: max(len(files) // 2000, 1)]
    row("language", files, by_content, _enry_language(files))
    row("language of .h", headers, by_content, _enry_language(headers))
    row("origin", files, origin_problem, _enry_origin(files))
    row("quality", files, lambda path, text: quality_problem(text, path, languages[path]), {})
    row("licence header", some, lambda _, text: header_licences(text), _classifier(some))
    row("all of them", files, _decide, {})
