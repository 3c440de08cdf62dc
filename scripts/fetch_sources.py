"""The packages of a list → a folder of their source, one folder each, for `midspan corpus build`.

    python scripts/fetch_sources.py recipes/smol/adapter/sources.txt --out sources
    midspan corpus build sources "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \\
        --languages python --licences permissive --held-out-share 0.04 --out corpora/python-packages \\
        --decontaminate benchmarks/humaneval --decontaminate benchmarks/mbpp \\
        --exclude 'test/*,*/test/*,tests/*,*/tests/*,*/site-packages/*,site-packages/*,idlelib/*,lib2to3/*'

Archives come from the package index by their names and are read, never installed or run. Tests, documentation and
copies of other packages stay behind.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

INDEX = "https://pypi.org/simple"
LARGEST = 400_000
"""Bytes of a file; longer ones are data."""
KEPT = re.compile(
    r"\.(py|pyi|js|ts|tsx|c|h|cpp|cc|hpp|rs|java|go|toml|cfg)$|/(licen[cs]e|copying|notice)[^/]*$|/(PKG-INFO|METADATA)$",
    re.IGNORECASE,
)
DROPPED = re.compile(
    r"/(tests?|testing|docs?|_vendor|vendor|node_modules|locale|static)/|/test_[^/]*$|min\.js$|_pb2", re.IGNORECASE
)


def main() -> int:
    """Fetch what the command line names; the number of archives that could not be had."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path, help="archives' file names, one a line")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    lines = asked.list.read_text(encoding="utf-8").splitlines()
    archives = [line for line in lines if line and not line.startswith("#")]

    def fetch(name: str) -> str:
        try:
            unpack(name, download(name), asked.out / package_of(name))
        except (OSError, ValueError, KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
            return f"{name}: {error}"
        return ""

    with ThreadPoolExecutor(8) as pool:
        failed = [line for line in pool.map(fetch, archives) if line]
    print(*failed, f"{len(archives) - len(failed)} of {len(archives)} archives in {asked.out}", sep="\n")
    return len(failed)


def package_of(archive: str) -> str:
    """`Flask-Login-0.6.3.tar.gz` → `Flask-Login`."""
    return re.sub(r"-\d.*$", "", archive)


def download(archive: str) -> bytes:
    """An archive by its file name, found on its project's page.

    The name may say more than the project's: `mpmath-docsrc-0.16.tar.gz` is of mpmath.
    """
    words = re.sub(r"[-_.]+", "-", package_of(archive)).lower().split("-")
    urls: dict[str, str] = {}
    while words and archive not in urls:
        page = f"{INDEX}/{'-'.join(words)}/"
        asked = urllib.request.Request(page, headers={"Accept": "application/vnd.pypi.simple.v1+json"})
        words.pop()
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                urls = {file["filename"]: file["url"] for file in json.load(answer)["files"]}
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
    if archive not in urls:
        raise ValueError("the package index has no such archive")
    with urllib.request.urlopen(urls[archive], timeout=120) as answer:
        return bytes(answer.read())


def unpack(archive: str, content: bytes, folder: Path) -> None:
    """Write the files that are to be read of an archive under a folder of their own."""
    for path, read in members(archive, content):
        if DROPPED.search(f"/{path}") or not KEPT.search(f"/{path}") or ".." in path.parts:
            continue
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(read)


def members(archive: str, content: bytes) -> Iterator[tuple[PurePosixPath, bytes]]:
    """The small files of an archive; a source archive's own top folder is left out of their paths."""
    if archive.endswith((".zip", ".whl")):
        with zipfile.ZipFile(io.BytesIO(content)) as zipped:
            for info in zipped.infolist():
                if not info.is_dir() and info.file_size <= LARGEST:
                    parts = PurePosixPath(info.filename).parts
                    yield PurePosixPath(*(parts if archive.endswith(".whl") else parts[1:])), zipped.read(info)
        return
    with tarfile.open(fileobj=io.BytesIO(content)) as tarred:
        for member in tarred:
            opened = tarred.extractfile(member) if member.isfile() and member.size <= LARGEST else None
            if opened is not None:
                yield PurePosixPath(*PurePosixPath(member.name).parts[1:]), opened.read()


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
