"""Data sets of the Hugging Face hub: their Parquet files, fetched into the hub's own cache.

    hf:bigcode/the-stack-smol                     every Parquet file
    hf:bigcode/the-stack-smol:data/python         those of one configuration, or below one folder
    hf:openai/openai_humaneval@refs/convert/parquet

This is the only source that uses the network, and only when it is named so. The revision is resolved to a commit
once; a file is known by its commit and its hash there, so any machine that reads a shard finds it in its own cache
or fetches the same bytes. Where a data set has a split called train, other splits are left out.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midspan.corpus.sources.row_file import RowFile
from midspan.corpus.sources.rows import PARQUET_SUFFIX, Rows
from midspan.errors import InputError

PREFIX = "hf:"
_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<config>[^@]+))?(@(?P<revision>.+))?")


@dataclass(frozen=True, kw_only=True)
class HubFile(RowFile):
    """A file of a data set; `path` is its place on the hub."""

    repository: str
    commit: str

    def local(self) -> Path:
        """The file in this machine's cache, fetched if it is not there."""
        hub = _hub()
        with _said(self.source):
            return Path(
                hub.hf_hub_download(
                    self.repository,
                    str(self.path),
                    repo_type="dataset",
                    revision=self.commit,
                    endpoint=os.environ.get("HF_ENDPOINT"),
                )
            )


def open_dataset(spec: str, *, prose: bool = False) -> Rows:
    """The data set that `hf:owner/name[:config][@revision]` names. InputError if it cannot be had."""
    parsed = _NAME.fullmatch(spec.removeprefix(PREFIX))
    if parsed is None:
        raise InputError(f"source {spec!r} is not of the form hf:owner/name[:config][@revision]")
    name, config, revision = parsed["name"], parsed["config"], parsed["revision"]
    api = _hub().HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    with _said(spec):
        info = api.dataset_info(name, revision=revision, files_metadata=True)
    found = {each.rfilename: each for each in info.siblings or () if each.rfilename.endswith(PARQUET_SUFFIX)}
    if not found:
        raise InputError(
            f"{spec} holds no Parquet files; the hub makes them of many data sets: name the revision "
            f"{PREFIX}{name}@refs/convert/parquet"
        )
    names = _of_config(sorted(found), config, (info.card_data or {}).get("configs") or [])
    if not names:
        folders = sorted({each.rsplit("/", 1)[0] for each in found if "/" in each})
        raise InputError(f"{spec} has no Parquet files in {config!r}; its folders are {', '.join(folders)}")
    return Rows(
        label=spec,
        commit=info.sha,
        prose=prose,
        row_files=tuple(
            HubFile(
                source=spec,
                name=each,
                path=Path(each),
                stamp=found[each].blob_id,
                prose=prose,
                repository=name,
                commit=info.sha,
            )
            for each in _train(names)
        ),
    )


def _of_config(names: list[str], config: str | None, configs: list[dict[str, Any]]) -> list[str]:
    """The files of a configuration: as the data set's card says, or below the folder of that name."""
    if config is None:
        return names
    patterns: list[str] = []
    for each in configs:
        if each.get("config_name") == config:
            files = each.get("data_files", [])
            files = [files] if isinstance(files, str | dict) else files
            for file in files:
                paths = file.get("path", []) if isinstance(file, dict) else file
                patterns += [paths] if isinstance(paths, str) else paths
    if patterns:
        return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    return [name for name in names if f"/{config.strip('/')}/" in f"/{name}"]


def _train(names: list[str]) -> list[str]:
    train = [name for name in names if re.search(r"(^|[/_.-])train([/_.-])", name)]
    return train or names


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise InputError(
            "huggingface_hub is not installed; `pip install 'midspan[hub]'`, or fetch the data set and name "
            "its folder"
        ) from None
    return huggingface_hub


@contextmanager
def _said(spec: str) -> Iterator[None]:
    """The hub's errors as sentences."""
    errors = _hub().errors
    try:
        yield
    except errors.GatedRepoError:
        name = spec.removeprefix(PREFIX)
        raise InputError(
            f"{spec} is gated; accept its terms on the page of {name} and log in with `hf auth login`"
        ) from None
    except errors.RepositoryNotFoundError:
        raise InputError(f"{spec} is not on the hub, or is private; log in with `hf auth login`") from None
    except errors.RevisionNotFoundError:
        raise InputError(f"{spec} has no such revision") from None
    except errors.HFValidationError as error:
        raise InputError(f"source {spec!r} cannot be a data set's name ({error})") from None
    except (errors.HTTPError, OSError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{spec} cannot be fetched ({said}); go online, or name a folder that holds its Parquet files"
        ) from None
