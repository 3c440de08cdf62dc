"""Redaction: secrets alone, and with e-mail and IP addresses, on code that holds next to none of the first.

    python -m benchmarks.corpus --only redact

Compiling Kingfisher's rules (seconds, then cached) is not counted: a worker does it once.
"""

from __future__ import annotations

import time

from benchmarks.harness import Bench
from midspan.corpus.redact import redact
from midspan.corpus.secrets import secret_spans


def run(bench: Bench, texts: list[str]) -> None:
    """Time one core on `texts`; the goal is H4's, 20 MB/s."""
    datas = [text.encode() for text in texts]
    megabytes = sum(map(len, datas)) / 1e6
    redact("", key="benchmark")

    def find_secrets() -> int:
        return sum(1 for data in datas for _ in secret_spans(data))

    def redact_all() -> int:
        return sum(sum(redact(text, key="benchmark").counts.values()) for text in texts)

    clock = time.process_time
    bench.compare("find secrets", unit="MB/s", amount=megabytes, ours=find_secrets, goal=20.0, clock=clock)
    bench.compare(
        "redact secrets, e-mail and IP addresses",
        unit="MB/s",
        amount=megabytes,
        ours=redact_all,
        goal=20.0,
        clock=clock,
    )
