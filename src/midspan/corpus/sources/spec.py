"""How a source is named, and found.

    DIR                      a data set if it holds rows and nothing else; a git repository's HEAD; a folder
    DIR@REVISION             a git repository at a revision
    FILE.jsonl[.gz|.zst]     rows
    FILE.parquet             rows
    FILE.tar[.gz|...] .zip   an archive
    hf:OWNER/NAME[:CONFIG][@REVISION]
    text:any of these        natural language

A source is called by its last name, with as many parent folders as it takes to tell it from the others, so that
rows are the same on every machine.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from midspan.corpus.sources.archive import TAR_SUFFIXES, ZIP_SUFFIXES, Archive
from midspan.corpus.sources.folder import Folder
from midspan.corpus.sources.git import find_git_dir, open_repository
from midspan.corpus.sources.hub import PREFIX as HUB_PREFIX
from midspan.corpus.sources.hub import open_dataset
from midspan.corpus.sources.row_file import RowFile
from midspan.corpus.sources.rows import ROW_SUFFIXES, Rows, find_row_files
from midspan.corpus.sources.source import Source
from midspan.corpus.sources.stream import stamp
from midspan.errors import InputError

PROSE_PREFIX = "text:"
SUFFIXES = (*ROW_SUFFIXES, *TAR_SUFFIXES, *ZIP_SUFFIXES)


class _Named(NamedTuple):
    spec: str
    prose: bool
    place: Path | None
    """None for the hub."""
    revision: str | None


def find_sources(specs: Sequence[str], *, excluded: Path) -> list[Source]:
    """The sources that the user named, by label; in what order they were named plays no part.

    Args:
        specs: as above.
        excluded: a folder that is no part of any source: the corpus being built.

    Raises:
        InputError: a source is absent, of no kind that is known, or named twice.
    """
    if not specs:
        raise InputError("no source was named; name a folder or a git repository")
    named = [_parse(spec) for spec in specs]
    keys = [(each.place or each.spec, each.revision) for each in named]
    counts = Counter(keys)
    for each, key in zip(named, keys, strict=True):
        if counts[key] > 1:
            raise InputError(f"source {each.spec!r} is named twice; name it once")
    names = _short_names({each.place for each in named if each.place is not None})
    return sorted((_find(each, names, excluded) for each in named), key=lambda source: source.label)


def _parse(spec: str) -> _Named:
    """Split `text:path@revision`; an `@` that belongs to an existing path is not a revision's."""
    bare = spec.removeprefix(PROSE_PREFIX)
    prose = bare != spec
    if bare.startswith(HUB_PREFIX):
        return _Named(bare, prose, None, None)
    cuts = [len(bare), *(index for index, letter in enumerate(bare) if letter == "@")]
    for end in cuts:
        place = _absolute(bare[:end])
        if bare[:end] and os.path.isdir(place):
            place = place.parent if place.name == ".git" else place
            return _Named(spec, prose, place, bare[end + 1 :] or None)
    place = _absolute(bare)
    if not bare or not os.path.exists(place):
        raise InputError(f"source {spec!r} is not there; name a folder or a git repository on this machine")
    if not os.path.isfile(place) or not place.name.endswith(SUFFIXES):
        raise InputError(
            f"source {spec!r} is a file of no kind that is read ({', '.join(SUFFIXES)}); name its folder"
        )
    return _Named(spec, prose, place, None)


def _absolute(path: str) -> Path:
    return Path(os.path.realpath(os.path.expanduser(path)))


def _find(named: _Named, names: dict[Path, str], excluded: Path) -> Source:
    place, prose, revision = named.place, named.prose, named.revision
    if place is None:
        return open_dataset(named.spec, prose=prose)
    label = names[place]
    if os.path.isfile(place):
        if place.name.endswith(ROW_SUFFIXES):
            file = RowFile(source=label, name=place.name, path=place, stamp=stamp(place), prose=prose)
            return Rows(label=label, row_files=(file,), prose=prose)
        return Archive(label=label, path=place, prose=prose)
    if revision is None and (paths := find_row_files(place, excluded)):
        files = (
            RowFile(source=label, name=str(path.relative_to(place)), path=path, stamp=stamp(path), prose=prose)
            for path in paths
        )
        return Rows(label=label, row_files=tuple(files), prose=prose)
    git_dir = find_git_dir(place)
    if git_dir is not None:
        named_label = label if revision is None else f"{label}@{revision}"
        return open_repository(place, git_dir, label=named_label, group=label, revision=revision, prose=prose)
    if revision is not None:
        raise InputError(
            f"source {named.spec!r} asks for a revision, and {place} is no git repository; name the folder alone"
        )
    return Folder(label=label, root=place, excluded=excluded, prose=prose)


def _short_names(places: set[Path]) -> dict[Path, str]:
    """The fewest last parts of each path that no other shares, without a bare repository's `.git`."""
    names: dict[Path, str] = {}
    for depth in range(1, max((len(place.parts) for place in places), default=0) + 1):
        tails = {place: "/".join(place.parts[-depth:]).removesuffix(".git") for place in places}
        counts = Counter(tails.values())
        names = {place: tail for place, tail in tails.items() if counts[tail] == 1} | names
    for place in sorted(places - names.keys()):
        raise InputError(f"source {str(place)!r} has the same name as another; rename one of the two folders")
    return names
