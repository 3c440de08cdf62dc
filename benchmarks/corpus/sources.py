"""Reading: from each kind of source to bytes, and from bytes to text, on one core with the disk's cache warm."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import Bench
from midspan.corpus.decode import decode
from midspan.corpus.sources import find_sources

MEGABYTES = 100.0
"""What is laid out in every kind; more says nothing more."""


def run(bench: Bench, files: list[tuple[str, str, str]]) -> None:
    """Lay the files out in every kind of source and read each."""
    chosen, size = [], 0
    for repository, path, text in files:
        data = text.encode()
        chosen.append((f"{repository.replace('/', '-')}/{path}", data))
        size += len(data)
        if size >= MEGABYTES * 1e6:
            break
    megabytes = size / 1e6
    with tempfile.TemporaryDirectory() as scratch:
        for kind, spec in _lay_out(Path(scratch), chosen).items():
            (source,) = find_sources([str(spec)], excluded=Path(scratch) / "corpus")
            shards = list(source.shards())

            def read(shards: list = shards) -> int:
                return sum(
                    len(file.data or b"") for shard in shards for file in shard.files(lambda path: True, 1 << 20)
                )

            assert read() == size, f"{kind}: {read()} of {size} bytes"
            clock = _with_children if kind == "git" else time.process_time
            bench.compare(f"read {kind}", unit="MB/s", amount=megabytes, ours=read, clock=clock)
            bench.compare(
                f"list {kind}",
                unit="files/s",
                amount=len(chosen),
                ours=lambda source=source: list(source.shards()),
                clock=clock,
            )
    texts = [data for _, data in chosen]
    bench.compare(
        "decode UTF-8",
        unit="MB/s",
        amount=megabytes,
        ours=lambda: [decode(data) for data in texts],
        goal=500.0,
        clock=time.process_time,
    )


def _lay_out(scratch: Path, files: list[tuple[str, bytes]]) -> dict[str, Path]:
    """The same files as a folder, a packed repository, archives and rows."""
    folder = scratch / "folder"
    for path, data in files:
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    places = {"folder": folder, "git": scratch / "git"}
    git = ["git", "-C", str(places["git"])]
    subprocess.run(["git", "init", "-q", str(places["git"])], check=True)
    (places["git"] / ".git/info/attributes").write_text("* -text\n")
    work = [*git, "--work-tree", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*work, "add", "-A", "-f"], check=True)
    subprocess.run([*work, "commit", "-q", "-m", "all"], check=True)
    subprocess.run([*git, "gc", "-q"], check=True)
    for suffix in ("tar", "tar.gz"):
        places[suffix] = scratch / f"x.{suffix}"
        with tarfile.open(places[suffix], "w:gz" if suffix == "tar.gz" else "w") as archive:
            archive.add(folder, "x")
    places["JSON lines"] = scratch / "x.jsonl"
    with places["JSON lines"].open("w") as lines:
        for path, data in files:
            lines.write(json.dumps({"path": path, "content": data.decode()}) + "\n")
    places["JSON lines, zstd"] = scratch / "x.jsonl.zst"
    with pa.output_stream(places["JSON lines, zstd"], compression="zstd") as packed:
        packed.write(places["JSON lines"].read_bytes())
    places["Parquet, zstd"] = scratch / "x.parquet"
    table = pa.table({"path": [path for path, _ in files], "content": [data.decode() for _, data in files]})
    pq.write_table(table, places["Parquet, zstd"], compression="zstd", row_group_size=1000)
    return places


def _with_children() -> float:
    """Seconds of processor time, of this process and of those it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
