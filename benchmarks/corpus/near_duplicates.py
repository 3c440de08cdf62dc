"""Near duplicates beside datasketch and datatrove, on one core, texts in memory.

Peers get what serves their speed: datasketch its bulk call, its newest permutations and xxh32; datatrove plain
words, no normalising, 112 permutations as it comes, and files in a temporary folder because it knows no other way.
Neither compares documents in the end, we do. datatrove wants an older xxhash than Midspan, so it runs under the
interpreter that `MIDSPAN_PEERS_PYTHON` names, which has `datatrove[processing]==0.10.1`, and times itself.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import re
import subprocess
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import xxhash
from datasketch import MinHash, MinHashLSH

from benchmarks.harness import Bench
from midspan.corpus.near_duplicates import BANDS, band_keys, components, shingle_hashes, survivors

PEER_MEGABYTES = 12.0
"""What all contenders are timed on: enough for seconds of the fast ones, minutes of the slow."""

WORDS = re.compile(rb"[A-Za-z_0-9]+")


def removed_by_us(texts: Sequence[bytes]) -> int:
    """From texts to verdicts; ranks are places in `texts`."""
    keys = band_keys(texts)
    labels = components(keys[:, band] for band in range(BANDS))
    order = np.argsort(labels, kind="stable")
    removed = 0
    for group in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        if len(group) > 1:
            verdicts = survivors([shingle_hashes(texts[i]) for i in group], keys[group])
            removed += sum(verdict is not None for verdict in verdicts)
    return removed


def datasketch_sketches(texts: Sequence[bytes]) -> list[MinHash]:
    """256 permutations of 32 bits over the same shingles."""
    shingles = (
        [b" ".join(run) for run in zip(*(words[i:] for i in range(5)), strict=False)]
        for words in map(WORDS.findall, texts)
    )
    return MinHash.bulk(shingles, num_perm=256, hashfunc=xxhash.xxh32_intdigest, scheme="affine32")


def removed_by_datasketch(texts: Sequence[bytes]) -> int:
    """A text goes if the index of those kept has a candidate for it."""
    index = MinHashLSH(threshold=0.7, num_perm=256)
    kept = 0
    for place, sketch in enumerate(datasketch_sketches(texts)):
        if not index.query(sketch):
            index.insert(place, sketch)
            kept += 1
    return len(texts) - kept


def datatrove_stages(folder: str) -> None:
    """Run under the peers' interpreter: prints [seconds of signatures, seconds of all stages, texts removed]."""
    import json
    import re
    import time
    from pathlib import Path

    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupFilter
    from datatrove.utils.text import TextNormConfig
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Words(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return re.findall("[A-Za-z_0-9]+", text)

        def sent_tokenize(self, text: str) -> list[str]:
            raise NotImplementedError

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            raise NotImplementedError

    with open(f"{folder}/texts.json") as file:
        documents = [Document(text=text, id=str(place)) for place, text in enumerate(json.load(file))]
    plain = TextNormConfig(
        lowercase=False,
        norm_whitespace=False,
        remove_punctuation=False,
        norm_unicode_diacritics=False,
        norm_numbers=False,
    )
    config = MinhashConfig(norm_config=plain)
    begun = time.process_time()
    MinhashDedupSignature(f"{folder}/signatures", config, language=Words()).run(documents)
    signed = time.process_time()
    for bucket in range(config.num_buckets):
        step = MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config)
        step.run(None, bucket, config.num_buckets)
    MinhashDedupCluster(f"{folder}/buckets", f"{folder}/removed", config).run()
    Path(folder, "removed").mkdir(exist_ok=True)
    kept = sum(1 for _ in MinhashDedupFilter(f"{folder}/removed").run(documents))
    print(json.dumps([signed - begun, time.process_time() - begun, len(documents) - kept]))


class Clock:
    """Processor time of this process, and what other processes say that they took."""

    def __init__(self) -> None:
        self.elsewhere = 0.0

    def __call__(self) -> float:
        return time.process_time() + self.elsewhere


@functools.cache
def _peers_python() -> str | None:
    python = os.environ.get("MIDSPAN_PEERS_PYTHON")
    if python is None:
        return None
    probe = subprocess.run(
        [python, "-c", "import datatrove.pipeline.dedup, xxhash"], capture_output=True, text=True
    )
    return python if probe.returncode == 0 else None


def run_datatrove(texts: Sequence[bytes]) -> tuple[float, float, int]:
    """Seconds of its first stage, of all its stages, and texts removed."""
    source = inspect.getsource(datatrove_stages) + "\nimport sys\ndatatrove_stages(sys.argv[1])\n"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "texts.json").write_text(json.dumps([text.decode(errors="replace") for text in texts]))
        command = [str(_peers_python()), "-c", source, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    signatures, everything, removed = json.loads(done.stdout.splitlines()[-1])
    return signatures, everything, removed


def bytes_a_document(count: int) -> float:
    """Peak of memory in `components`, the column that it works on included, for documents with few links."""
    rng = np.random.default_rng(0)
    components([np.ones(2, np.uint64)])
    tracemalloc.start()
    components(rng.integers(1, 8 * count, count, dtype=np.uint64) for _ in range(4))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / count


def look_alikes(count: int) -> list[bytes]:
    """Texts under one long header, all pairs at Jaccard 0.6: the worst case, for none of them may go."""
    rng = np.random.default_rng(0)
    header = " ".join(f"h{n}" for n in range(300))
    return [f"{header} {' '.join(map(str, rng.integers(0, 2**40, 100)))}".encode() for _ in range(count)]


def run(bench: Bench, texts: list[bytes]) -> None:
    """Rates on what all contenders can do in time, ours on everything, then memory and the worst case."""
    clock = Clock()
    total = sum(map(len, texts)) / 1e6
    sample = texts[:: max(1, round(total / PEER_MEGABYTES))]
    amount = sum(map(len, sample)) / 1e6
    removed_by_us(sample[:50])  # the kernels are compiled before the clock starts
    datatrove: Callable[[int], Callable[[], object]] | None = None
    if _peers_python() is None:
        bench.console.print("datatrove is left out: MIDSPAN_PEERS_PYTHON names no interpreter that has it")
    else:

        def datatrove(stage: int) -> Callable[[], object]:
            def call() -> None:
                clock.elsewhere += run_datatrove(sample)[stage]

            return call

    for row, ours, theirs, stage in (
        ("near duplicates: sketch", band_keys, datasketch_sketches, 0),
        ("near duplicates: end to end, verified", removed_by_us, removed_by_datasketch, 1),
    ):
        peers: dict[str, Callable[[], object]] = {"datasketch 2.0.0": functools.partial(theirs, sample)}
        if datatrove is not None:
            peers["datatrove 0.10.1"] = datatrove(stage)
        mine = functools.partial(ours, sample)
        bench.compare(row, unit="MB/s", amount=amount, ours=mine, peers=peers, goal=20, goal_ratio=3, clock=clock)
    whole = functools.partial(removed_by_us, texts)
    bench.compare(
        f"near duplicates: end to end, verified, {total:,.0f} MB",
        unit="MB/s",
        amount=total,
        ours=whole,
        goal=20,
        clock=clock,
    )
    bench.record(
        "near duplicates: memory of components",
        unit="bytes/document",
        value=bytes_a_document(2_000_000),
        goal=30,
        better="lower",
    )
    count = min(20_000, 4 * len(texts))
    worst = look_alikes(count)
    keys, shingles = band_keys(worst), [shingle_hashes(text) for text in worst]
    begun = clock()
    survivors(shingles, keys)
    seconds = clock() - begun
    bench.record(
        f"near duplicates: one of {count:,} look-alikes, all kept",
        unit="microseconds",
        value=1e6 * seconds / count,
        goal=1000,
        better="lower",
    )
