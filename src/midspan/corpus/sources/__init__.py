"""Where files come from: folders, git repositories, rows, archives, the hub.

    find_sources(specs) ──▶ Source ── shards() ──▶ Shard ── files() ──▶ File

`spec.py` says how a source is named and finds it. `source.py` says what the three are; a shard is a plain value
that any process reads. `folder.py`, `git.py`, `jsonl.py`, `parquet.py`, `archive.py` and `hub.py` are the kinds.
Nothing but a source named `hf:` touches the network.
"""

from midspan.corpus.sources.source import MAX_SHARD_BYTES, MAX_SHARD_FILES, File, Shard, Source
from midspan.corpus.sources.spec import find_sources

__all__ = [
    "MAX_SHARD_BYTES",
    "MAX_SHARD_FILES",
    "File",
    "Shard",
    "Source",
    "find_sources",
]
