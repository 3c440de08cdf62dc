"""What languages need beside their tools, made once per machine in the user's cache and seen read-only in a jail.

typescript   the pinned compiler, by npm
javascript   the package that benchmarks load (js-md5), by npm
cpp          bits/stdc++.h compiled ahead, for programs that include it
rust         the crates that benchmarks name (rand, regex, md5), built from Debian's sources
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import platformdirs

from midspan.errors import InputError, WorkError
from midspan.files import atomic_folder

TYPESCRIPT = "5.9.3"
JS_MD5 = "0.8.3"
INSIDE = "/opt/judge/kits"
CPP_FLAGS = ("-std=c++17", "-O0", "-w")
CRATES_APT = "librust-rand-dev librust-regex-dev librust-md5-dev librust-aho-corasick-dev librust-memchr-dev"
_REGISTRY = Path("/usr/share/cargo/registry")
_CARGO = """\
[package]
name = "kit"
version = "0.0.0"
edition = "2021"
[dependencies]
rand = "0.8"
regex = "1"
md5 = "0.7"
"""
_DEBIAN = f'[source.crates-io]\nreplace-with = "debian"\n[source.debian]\ndirectory = "{_REGISTRY}"\n'


def folder(name: str, version: str) -> Path:
    """Where a kit of these tools lives, made or not."""
    key = hashlib.sha256(f"{name} {version}".encode()).hexdigest()[:12]
    return Path(platformdirs.user_cache_dir("midspan"), "sandbox", f"{name}-{key}")


def typescript() -> Path:
    """The pinned compiler's kit."""
    return folder("typescript", TYPESCRIPT)


def javascript() -> Path:
    """The kit of packages that JavaScript's benchmarks load."""
    return folder("javascript", JS_MD5)


def make_typescript() -> None:
    """Install the pinned compiler with npm."""
    _npm(typescript(), f"typescript@{TYPESCRIPT}")


def make_javascript() -> None:
    """Install the one package that HumanEval-X and HumanEvalPack load (number 162)."""
    _npm(javascript(), f"js-md5@{JS_MD5}")


def _npm(kit: Path, package: str) -> None:
    if kit.is_dir():
        return
    if shutil.which("npm") is None:
        raise InputError("npm is not in PATH; install with: apt-get install npm")
    with atomic_folder(kit) as aside:
        options = ["--prefix", str(aside), "--no-audit", "--no-fund", "--ignore-scripts"]
        _run(["npm", "install", *options, package])


def make_cpp(version: str) -> None:
    """Compile the header that programs include most."""
    if folder("cpp", version).is_dir():
        return
    with atomic_folder(folder("cpp", version)) as aside:
        header = aside / "midspan.h"
        header.write_text("#include <bits/stdc++.h>\n#include <assert.h>\n")
        _run(["g++", *CPP_FLAGS, "-x", "c++-header", str(header), "-o", f"{header}.gch"])


def make_rust(version: str) -> None:
    """Build the crates from Debian's sources, without a network."""
    if folder("rust", version).is_dir():
        return
    if not (_REGISTRY / "rand-0.8.5").is_dir():
        raise InputError(f"the crates' sources are missing; install with: apt-get install {CRATES_APT}")
    with atomic_folder(folder("rust", version)) as aside:
        (aside / "src").mkdir()
        (aside / ".cargo").mkdir()
        (aside / "src/lib.rs").touch()
        (aside / "Cargo.toml").write_text(_CARGO)
        (aside / ".cargo/config.toml").write_text(_DEBIAN)
        _run(["cargo", "build", "--offline", "--quiet", "--lib"], cwd=aside)


def _run(command: list[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise WorkError(f"{command[0]} failed: {done.stderr.strip()[-300:]}")
