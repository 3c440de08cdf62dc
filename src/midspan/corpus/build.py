"""Sources → a corpus on disk. Read this file to see the whole way of a file.

    sources ── shards ── examine (map) ── cache/parts/*.parquet ── relate ── write (map) ── files/*.parquet
                                                                                                corpus.json

Parts and files carry in their names the hash of all that decides their bytes, so a step whose result lies there
already is skipped: after a change only what it touches is made again, and after a kill only what was not done.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
from rapidfuzz import process

from midspan.corpus.assemble import Assembly
from midspan.corpus.config import CorpusConfig, Progress, Report
from midspan.corpus.decontaminate import Decontaminator, load_items
from midspan.corpus.document import Reason
from midspan.corpus.engine import Engine, LocalEngine
from midspan.corpus.examine import Examination, examine_shard, part_name, warm_up
from midspan.corpus.language import check_languages
from midspan.corpus.relate import Part
from midspan.corpus.sources import Shard, find_sources
from midspan.corpus.store import CACHE, FILES, LOCK, MANIFEST_NAME, PARTS, Manifest, check_place
from midspan.errors import InputError
from midspan.files import atomic_file, locked

REDACT_KEY = "MIDSPAN_REDACT_KEY"
"""Environment variable with the key that decides what secrets are replaced by; nothing of it is ever written."""


def build(
    sources: Sequence[str],
    out: Path,
    config: CorpusConfig | None = None,
    *,
    engine: Engine | None = None,
    overwrite: bool = False,
    report: Report = lambda progress: None,
) -> Manifest:
    """Build a corpus at `out`, or bring the one that stands there up to date.

    Args:
        sources: see `sources.find_sources`; their order plays no part.
        engine: where the work runs; this process if not given.
        overwrite: let `config` and `sources` differ from those of the corpus that stands at `out`.

    Raises:
        InputError: sources, names or values cannot be used, something else stands at `out`, or nothing is left
            in a split that was asked for. What stood at `out` stays as it was.
        WorkError: a worker was killed.
    """
    config = config or CorpusConfig()
    out = Path(out).expanduser().resolve()
    check_place(out)
    opened = sorted(find_sources(sources, excluded=out), key=lambda source: source.label)
    parameters = {"config": config.values(), "sources": [source.label for source in opened]}
    before = _before(out, parameters, overwrite)
    with _locked(out):
        (out / CACHE / PARTS).mkdir(parents=True, exist_ok=True)
        (out / FILES).mkdir(exist_ok=True)
        removed = before.removed if before else ()
        report(Progress(step="listing"))
        shards = [shard for source in opened for shard in source.shards()]
        if not shards:
            raise InputError(f"no file was found in {', '.join(sources)}; name a folder that holds code")
        engine = engine or LocalEngine()
        parts = _examined(shards, _examination(config, out / CACHE), out / CACHE / PARTS, engine, report)
        commits = tuple({"source": source.label, "commit": source.commit} for source in opened)
        return Assembly(out, config, removed, engine, report).run(parts, parameters, commits)


def remove(
    folder: Path,
    groups: Sequence[str],
    *,
    engine: Engine | None = None,
    report: Report = lambda progress: None,
) -> Manifest:
    """Take groups (repositories) out of a corpus, for good: later builds leave them out too.

    Only what depended on them is written again: their own files go, and files that were dropped as duplicates of
    theirs may come back.

    Raises:
        InputError: there is no corpus, no such group in it, or its cache was deleted.
    """
    folder = Path(folder).expanduser().resolve()
    before = Manifest.read(folder)
    parts = [
        Part(path=folder / CACHE / PARTS / stored.part, source=stored.source, commit=stored.commit)
        for stored in before.stored
    ]
    for part in parts:
        if not part.path.is_file():
            raise InputError(f"{part.path} is gone, so {folder} cannot be changed; build it from its sources")
    known = {name for part in parts for name in part.groups()}
    for group in sorted(set(groups) - known):
        near = process.extractOne(group, sorted(known))
        hint = f"; the nearest is {near[0]!r}" if near else ""
        raise InputError(f"{folder} holds no repository {group!r}{hint}")
    with _locked(folder):
        removed = (*before.removed, *sorted(set(groups)))
        config = CorpusConfig.of(before.parameters["config"])
        work = Assembly(folder, config, removed, engine or LocalEngine(), report)
        return work.run(parts, before.parameters, before.sources)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Nobody else builds here meanwhile; the lock goes with the process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LOCK).touch()
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}); choose another folder") from None
    with locked(folder / LOCK, f"another process builds {folder}; wait for it, or choose another folder"):
        yield


def _before(out: Path, parameters: dict[str, Any], overwrite: bool) -> Manifest | None:
    """The corpus that stands at `out`; InputError if it was built of something else."""
    if not (out / MANIFEST_NAME).exists():
        return None
    try:
        before = Manifest.read(out)
    except InputError:
        if overwrite:
            return None
        raise
    now, then = parameters["config"], before.parameters["config"]
    different = [name for name in now if now[name] != then.get(name)]
    if parameters["sources"] != before.parameters["sources"]:
        different.insert(0, "sources")
    if different and not overwrite:
        raise InputError(
            f"{out} was built with other {', '.join(different)}; choose another folder, or pass --overwrite to "
            "change this corpus"
        )
    return before


def _examination(config: CorpusConfig, cache: Path) -> Examination:
    """The settings of examining; the index of benchmark items is made here, once, and read by every worker."""
    index, fingerprint = None, ""
    if config.decontaminate:
        decontaminator = Decontaminator.build(load_items([Path(path) for path in config.decontaminate]))
        fingerprint = decontaminator.fingerprint
        index = cache / f"benchmarks-{fingerprint}.index"
        if not index.exists():
            with atomic_file(index) as aside:
                decontaminator.save(aside)
    return Examination(
        languages=check_languages(config.languages),
        exclude=config.exclude,
        max_bytes=config.max_bytes,
        quality=config.quality,
        thresholds=config.thresholds,
        vendored=config.vendored,
        redact_key=os.environ.get(REDACT_KEY, "midspan") if config.redact else None,
        near_duplicates=config.near_duplicates,
        benchmarks=index,
        benchmarks_fingerprint=fingerprint,
    )


def _examined(
    shards: Sequence[Shard], examination: Examination, folder: Path, engine: Engine, report: Report
) -> list[Part]:
    """The parts of shards; those that are not in the cache are made."""
    parts = [
        Part(path=folder / part_name(shard, examination), source=shard.source, commit=shard.commit)
        for shard in shards
    ]
    missing = [i for i, part in enumerate(parts) if not part.path.exists() or _may_be_mended(part.path)]
    if missing:
        warm_up(examination)
    total = sum(shard.size for shard in shards)
    done = total - sum(shards[i].size for i in missing)
    report(Progress(step="examining", done=done, total=total))
    for number, _ in engine.map(examine_shard, (examination, folder), [shards[i] for i in missing]):
        done += shards[missing[number]].size
        report(Progress(step="examining", done=done, total=total))
    return parts


def _may_be_mended(part: Path) -> bool:
    """Whether a cached part holds a file that could not be read: it may be readable by now, and look the same."""
    reasons = pq.read_table(part, columns=["reason"])["reason"]
    return bool(pc.any(pc.equal(reasons, str(Reason.UNREADABLE))).as_py())
