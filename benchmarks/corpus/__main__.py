"""`python -m benchmarks.corpus [--quick] [--only STEP,...]`: every step of the corpus, in MB/s of one core."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAYON_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from benchmarks.corpus import (
    build,
    data,
    decisions,
    decontaminate,
    near_duplicates,
    redact,
    repository,
    rows,
    sources,
)
from benchmarks.harness import Bench

STEPS = ("sources", "decisions", "redact", "decontaminate", "near_duplicates", "repository", "rows", "build")


def main() -> None:
    """Run the steps that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few megabytes once: does it run?")
    parser.add_argument("--only", default=",".join(STEPS), help=f"some of {','.join(STEPS)}")
    parser.add_argument("--megabytes", type=float, default=300.0)
    parser.add_argument("--data", type=Path, default=os.environ.get("MIDSPAN_DATA", "../shared/data"))
    arguments = parser.parse_args()
    asked = arguments.only.split(",")
    files = data.files(5 if arguments.quick else arguments.megabytes)
    texts = [text for _, _, text in files]
    bench = Bench("corpus", runs=1 if arguments.quick else 3)
    size = sum(len(text.encode()) for text in texts) / 1e6
    bench.console.print(f"{len(files):,} files of real code, {size:,.0f} MB")
    if "sources" in asked:
        sources.run(bench, files)
    if "decisions" in asked:
        decisions.run(bench, [(path, text) for _, path, text in files])
    if "redact" in asked:
        redact.run(bench, texts)
    if "decontaminate" in asked:
        decontaminate.run(bench, texts, arguments.data)
    if "near_duplicates" in asked:
        near_duplicates.run(bench, [text.encode() for text in texts])
    if "repository" in asked:
        repository.run(bench, files)
    if "rows" in asked:
        rows.run(bench, texts)
    if "build" in asked:
        build.run(bench, files)
    bench.finish(quick=arguments.quick)


if __name__ == "__main__":
    main()
