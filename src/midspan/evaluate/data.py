"""The data of benchmarks: files in a folder that the user names, or from the hub when asked; known by their hash.

    midspan eval … --data DIR      DIR/humaneval/HumanEval.jsonl.gz, or DIR/HumanEval.jsonl.gz
    midspan eval … --data hub      openai/openai_humaneval of the Hugging Face hub, fetched into its own cache

Where DIR holds `SHA256SUMS` (as `sha256sum` writes it), every file that is read has to agree with it. Upstream's
own hashes are known for many files, so a result can say whether it is of the data that everybody has.
"""

from __future__ import annotations

import csv
import fnmatch
import gzip
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midspan.corpus import Corpus
from midspan.errors import InputError

SUMS = "SHA256SUMS"
HUB = "hub"


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file of a benchmark."""

    file: str
    """Its place below the data folder: a folder of the benchmark's, and upstream's own name."""
    origin: str
    """Where it comes from, for people."""
    sha256: str = ""
    """Of the file that upstream gives out, where it is known."""
    hub: tuple[str, str] = ("", "")
    """A data set of the hub, and which of its files has the same rows."""


class Data:
    """Where the data is, and what was read of it."""

    def __init__(self, where: str | Path | None) -> None:
        self._hub = where == HUB
        self._folder = None if where is None or self._hub else Path(where)
        if self._folder is not None and not self._folder.is_dir():
            raise InputError(
                f"--data is {str(where)!r}, which is no folder; name the folder of the benchmark files"
            )
        self._sums = _sums(self._folder)
        self.used: dict[str, dict[str, Any]] = {}
        """Name of a file → its hash, whether that is upstream's, and where it is from."""

    def path(self, source: Source) -> Path:
        """The file.

        Raises:
            InputError: it is not there, or is not the one that the folder's list of hashes names.
        """
        if self._hub:
            return _from_hub(source)
        if self._folder is None:
            raise InputError(
                f"the data of this task is not here: {source.file} of {source.origin}; name its folder with "
                "--data DIR, or fetch it with --data hub"
            )
        for path in (self._folder / source.file, self._folder / Path(source.file).name):
            if path.exists():
                return path
        raise InputError(
            f"{self._folder} has no {source.file}; it comes from {source.origin}: put it there, or use --data hub"
        )

    def has(self, source: Source) -> bool:
        """Whether the file is in the folder."""
        if self._folder is None:
            return False
        return any((self._folder / name).exists() for name in (source.file, Path(source.file).name))

    def rows(self, source: Source) -> list[dict[str, Any]]:
        """The rows of a JSON, JSON-lines, CSV or Parquet file, whether or not it is compressed by gzip."""
        path = self.path(source)
        data = path.read_bytes()
        self._note(source, path, data)
        try:
            return _rows(path.name.removesuffix(".gz"), gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
        except (ValueError, KeyError, OSError, EOFError) as error:
            raise InputError(f"{path} cannot be read ({error}); fetch it again from {source.origin}") from error

    def corpus(self, folder: Path | None, task: str) -> Corpus:
        """The corpus that a task is made of, noted as used.

        Raises:
            InputError: none was named, or it is no corpus.
        """
        if folder is None:
            raise InputError(f"{task} needs a corpus; name one with --corpus DIR")
        corpus = Corpus.open(folder)
        self.took(str(folder), corpus.fingerprint)
        return corpus

    def took(self, name: str, digest: str, origin: str = "") -> None:
        """Remember what else was read: a corpus, a folder of sources."""
        self.used[name] = {"file": name, "fingerprint": digest, "upstream": None, "origin": origin}

    def _note(self, source: Source, path: Path, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest()
        listed = self._sums.get(path.resolve())
        if listed is not None and listed != digest:
            raise InputError(
                f"{path} has SHA-256 {digest} and {SUMS} says {listed}; fetch it again from {source.origin}"
            )
        known = {"": None, digest: True}.get(source.sha256, False)
        self.used[source.file] = {
            "file": source.file,
            "sha256": digest,
            "upstream": known,
            "origin": source.origin,
        }


def _sums(folder: Path | None) -> Mapping[Path, str]:
    if folder is None or not (folder / SUMS).is_file():
        return {}
    found = {}
    for line in (folder / SUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.strip().partition(" ")
        if len(digest) == 64 and name:
            found[(folder / name.strip().lstrip("*")).resolve()] = digest.lower()
    return found


def _rows(name: str, data: bytes) -> list[dict[str, Any]]:
    if name.endswith(".parquet"):
        import pyarrow.parquet

        return list(pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist())
    text = data.decode("utf-8-sig")
    if name.endswith(".csv"):
        return list(csv.DictReader(io.StringIO(text)))
    if name.endswith(".json") and text.lstrip()[:1] in "[{":
        found = json.loads(text)
        if isinstance(found, list):
            return found
        return [
            {"group": group, "name": key, "values": values}
            for group, each in found.items()
            for key, values in each.items()
        ]
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def _from_hub(source: Source) -> Path:
    """The file of the hub that has the same rows; this and nothing else is fetched."""
    repository, pattern = source.hub
    if not repository:
        raise InputError(
            f"{source.file} is not on the hub; get it from {source.origin} and name its folder with --data DIR"
        )
    try:
        import huggingface_hub
    except ImportError:
        raise InputError("--data hub needs huggingface_hub; `pip install 'midspan[hub]'`") from None
    try:
        files = huggingface_hub.list_repo_files(repository, repo_type="dataset")
        found = [name for name in files if fnmatch.fnmatchcase(name, pattern)]
        if len(found) != 1:
            raise InputError(f"the data set {repository} has {len(found)} files like {pattern}; fetch it yourself")
        return Path(huggingface_hub.hf_hub_download(repository, found[0], repo_type="dataset"))
    except (OSError, huggingface_hub.errors.HfHubHTTPError, huggingface_hub.errors.HFValidationError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{repository} cannot be fetched from the hub ({said}); name a folder with --data DIR"
        ) from None
