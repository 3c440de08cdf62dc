"""Sources → a corpus on disk, in one streaming pass. Read this file to see the whole way of a file."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from midspan.corpus.document import HELD_OUT, TRAIN
from midspan.corpus.ingest import MAX_BYTES, ingest, reading_order
from midspan.corpus.language import check_languages
from midspan.corpus.sources import open_sources
from midspan.corpus.split import HeldOut
from midspan.corpus.store import CorpusWriter, Manifest, check_place
from midspan.errors import InputError
from midspan.files import atomic_folder

PROGRESS_EVERY_FILES = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a build is; `size` is in bytes as listed, totals are known before the first file is read."""

    files: int
    total_files: int
    size: int
    total_size: int


def build(
    sources: Sequence[str],
    out: Path,
    *,
    languages: Sequence[str] | None = None,
    held_out: Sequence[str] = (),
    held_out_share: float = 0.0,
    seed: int = 0,
    max_bytes: int = MAX_BYTES,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Manifest:
    """Build a corpus at `out` from folders and git repositories (`path` or `path@revision`).

    `languages` None takes every language. `held_out` names groups, `held_out_share` takes a share of all
    groups by hash of `seed` and name. The order of `sources` plays no part. Raises InputError for sources,
    names and values that cannot be used, if `out` exists (unless `overwrite`, which replaces a corpus and
    nothing else), and if a split that was asked for ends up empty; then nothing is left at `out`.
    """
    rule = HeldOut(groups=frozenset(held_out), share=held_out_share, seed=seed)
    wanted = None if languages is None else check_languages(languages)
    if max_bytes < 1:
        raise InputError(f"a size cap of {max_bytes} bytes keeps nothing; 1048576 is the default")
    out = Path(out).expanduser().resolve()
    check_place(out, overwrite=overwrite)
    with ExitStack() as stack:
        opened = [stack.enter_context(source) for source in open_sources(sources, excluded=out)]
        found = [entry for source in opened for entry in source.entries()]
        if not found:
            raise InputError(f"no file was found in {', '.join(sources)}; name a folder that holds code")
        rule.check({entry.group for entry in found})
        entries = reading_order(found, rule)
        aside = stack.enter_context(atomic_folder(out, replace=overwrite))
        writer = stack.enter_context(CorpusWriter(aside))
        total_size = sum(entry.size for entry in entries)
        size = 0
        records = ingest(entries, held_out=rule, languages=wanted, max_bytes=max_bytes)
        for count, (entry, record) in enumerate(zip(entries, records, strict=True), start=1):
            writer.add(record)
            size += entry.size
            if progress is not None and (count % PROGRESS_EVERY_FILES == 0 or count == len(entries)):
                progress(Progress(files=count, total_files=len(entries), size=size, total_size=total_size))
        _check_not_empty(writer, rule)
        return writer.finish(
            parameters={
                "languages": None if wanted is None else sorted(wanted),
                "held_out": sorted(rule.groups),
                "held_out_share": rule.share,
                "seed": rule.seed,
                "max_bytes": max_bytes,
            },
            sources=tuple(
                {"source": source.label, "commit": source.commit}
                for source in sorted(opened, key=lambda s: s.label)
            ),
        )


def _check_not_empty(writer: CorpusWriter, rule: HeldOut) -> None:
    why = ", ".join(f"{count} {reason}" for reason, count in writer.dropped.most_common())
    if not writer.kept[TRAIN]:
        raise InputError(
            f"nothing is left to train on of {writer.files} files, dropped were {why or 'none'}; "
            "name more code, or loosen what was asked for"
        )
    if rule and not writer.kept[HELD_OUT]:
        raise InputError(f"no file of the held-out groups was kept ({why}); hold out a group that holds code")
