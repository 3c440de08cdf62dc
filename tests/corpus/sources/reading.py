"""How these tests read a source: every shard crosses a pickle, as it does on its way to a worker."""

import pickle
from pathlib import Path

from midspan.corpus.sources import MAX_SHARD_BYTES, MAX_SHARD_FILES, File, Shard, Source, find_sources

NOWHERE = Path("/nowhere/corpus")
MIB = 1 << 20


def found(*specs: object, excluded: Path = NOWHERE) -> list[Source]:
    """The sources of specs."""
    return find_sources([str(spec) for spec in specs], excluded=excluded)


def shards(*specs: object, excluded: Path = NOWHERE) -> list[Shard]:
    """All shards, each within its limits and under a name of its own that a file can have."""
    listed = [
        pickle.loads(pickle.dumps(shard)) for each in found(*specs, excluded=excluded) for shard in each.shards()
    ]
    for shard in listed:
        assert shard.num_files <= MAX_SHARD_FILES
        assert shard.size <= MAX_SHARD_BYTES or shard.num_files == 1
        assert "/" not in shard.name
        assert 0 < len(shard.name.encode()) < 128
        assert len(shard.fingerprint) == 32
    assert len({shard.name for shard in listed}) == len(listed)
    return listed


def files(*specs: object, max_bytes: int = MIB, wanted=lambda path: True, excluded: Path = NOWHERE) -> list[File]:
    """All files of all shards, as many as were listed."""
    listed = shards(*specs, excluded=excluded)
    read = [list(shard.files(wanted, max_bytes)) for shard in listed]
    assert [len(each) for each in read] == [shard.num_files for shard in listed]
    return [file for each in read for file in each]


def contents(*specs: object, **options) -> dict[str, bytes]:
    """Path → bytes of every file that was read."""
    return {file.path: file.data for file in files(*specs, **options) if file.data is not None}


def problems(*specs: object, **options) -> dict[str, tuple[str, str]]:
    """Path → (reason, detail) of every file with a problem; such a file has no bytes."""
    bad = [file for file in files(*specs, **options) if file.problem is not None]
    assert all(file.data is None for file in bad)
    return {file.path: (str(file.problem), file.detail) for file in bad}
