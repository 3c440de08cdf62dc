"""From files on a disk to a corpus and back, end to end: the whole of `corpus build`, cold and again."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.harness import Bench
from midspan.corpus import Corpus, CorpusConfig, build
from midspan.corpus.engine import LocalEngine


def run(bench: Bench, files: list[tuple[str, str, str]]) -> None:
    """Lay the files out as packages, build, build again, change one file, build again."""
    with tempfile.TemporaryDirectory() as scratch:
        source, out = Path(scratch) / "packages", Path(scratch) / "corpus"
        size = 0
        for repository, path, text in files:
            place = source / repository.replace("/", "-") / path
            place.parent.mkdir(parents=True, exist_ok=True)
            size += place.write_bytes(text.encode())
        megabytes = size / 1e6
        config = CorpusConfig(held_out_share=0.02)

        def timed() -> float:
            begun = time.perf_counter()
            build([str(source)], out, config, engine=LocalEngine(1))
            return time.perf_counter() - begun

        bench.record("corpus build, end to end", unit="MB/s", value=megabytes / timed())
        peak = psutil.Process().memory_info().rss / 1e9
        bench.record("corpus build, memory of the one worker", unit="GB", value=peak, goal=2.0, better="lower")
        bench.record("corpus build again, nothing changed", unit="seconds", value=timed(), better="lower")
        changed = source / files[0][0].replace("/", "-") / files[0][1]
        changed.write_text(changed.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
        bench.record("corpus build again, one file changed", unit="seconds", value=timed(), better="lower")
        begun = time.perf_counter()
        read = sum(len(document.text) for document in Corpus.open(out).documents())
        bench.record("corpus read", unit="MB/s", value=read / 1e6 / (time.perf_counter() - begun))
