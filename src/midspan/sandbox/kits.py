"""What languages need beside their tools, made once per machine in the user's cache and seen read-only in a jail.

typescript   the pinned compiler, by npm, and a snapshot of it that starts at once
javascript   the package that benchmarks load (js-md5), by npm
cpp          bits/stdc++.h compiled ahead, for programs that include it
java         the compiler's own classes, laid out for mapping (class data sharing)
rust         the crates that benchmarks name (rand, regex, md5), built from Debian's sources
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import platformdirs

from midspan.errors import InputError, WorkError
from midspan.files import atomic_folder

TYPESCRIPT = "5.9.3"
JS_MD5 = "0.8.3"
INSIDE = "/opt/judge/kits"
CPP_FLAGS = ("-std=c++17", "-O0", "-w")
JAVAC_FLAGS = ("-J-XX:+UseSerialGC", "-J-XX:TieredStopAtLevel=1", "-J-XX:-UsePerfData", "-proc:none", "-nowarn")
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
_JAVA = """\
import java.util.*;
import java.util.function.*;
import java.util.stream.*;
public class Main {
    record Pair(int left, String right) {}
    public static void main(String[] args) {
        Map<String, List<Integer>> found = new TreeMap<>(Map.of("a", new ArrayList<>(List.of(1, 2))));
        Function<Integer, String> show = x -> "x" + x;
        for (var entry : found.entrySet()) {
            System.out.println(entry.getValue().stream().map(show).collect(Collectors.joining(", ")));
        }
        assert new Pair(1, "b").right().equals("b");
    }
}
"""


def folder(name: str, version: str) -> Path:
    """Where a kit of these tools lives, made or not."""
    key = hashlib.sha256(f"{name} {version}".encode()).hexdigest()[:12]
    return Path(platformdirs.user_cache_dir("midspan"), "sandbox", f"{name}-{key}")


def make(name: str, kit: Path) -> None:
    """Make a kit unless it is there. InputError or WorkError where that cannot be."""
    if not kit.is_dir():
        with atomic_folder(kit) as aside:
            MAKERS[name](aside)


def _typescript(aside: Path) -> None:
    _npm(aside, f"typescript@{TYPESCRIPT}")
    library = aside / "node_modules/typescript/lib"
    entry = aside / "tsc.js"
    own = Path(__file__).with_name("tsc.js").read_text(encoding="utf-8")
    entry.write_text(f"{(library / 'typescript.js').read_text(encoding='utf-8')}\n;{own}", encoding="utf-8")
    names = {
        "MIDSPAN_LIBRARIES": str(library),
        "MIDSPAN_LIBRARIES_INSIDE": f"{INSIDE}/typescript/node_modules/typescript/lib",
    }
    _run(["node", "--snapshot-blob", str(aside / "tsc.blob"), "--build-snapshot", str(entry)], env=names)


def _javascript(aside: Path) -> None:
    _npm(aside, f"js-md5@{JS_MD5}")


def _npm(aside: Path, package: str) -> None:
    if shutil.which("npm") is None:
        raise InputError("npm is not in PATH; install with: apt-get install npm")
    _run(["npm", "install", "--prefix", str(aside), "--no-audit", "--no-fund", "--ignore-scripts", package])


def _cpp(aside: Path) -> None:
    header = aside / "midspan.h"
    header.write_text("#include <bits/stdc++.h>\n#include <assert.h>\n")
    _run(["g++", *CPP_FLAGS, "-x", "c++-header", str(header), "-o", f"{header}.gch"])


def _java(aside: Path) -> None:
    (aside / "Main.java").write_text(_JAVA)
    archive = f"-J-XX:ArchiveClassesAtExit={aside / 'javac.jsa'}"
    _run(["javac", *JAVAC_FLAGS, archive, "-d", str(aside), str(aside / "Main.java")])


def _rust(aside: Path) -> None:
    if not (_REGISTRY / "rand-0.8.5").is_dir():
        raise InputError(f"the crates' sources are missing; install with: apt-get install {CRATES_APT}")
    (aside / "src").mkdir()
    (aside / ".cargo").mkdir()
    (aside / "src/lib.rs").touch()
    (aside / "Cargo.toml").write_text(_CARGO)
    (aside / ".cargo/config.toml").write_text(_DEBIAN)
    _run(["cargo", "build", "--offline", "--quiet", "--lib"], cwd=aside)


MAKERS: dict[str, Callable[[Path], None]] = {
    "typescript": _typescript,
    "javascript": _javascript,
    "cpp": _cpp,
    "java": _java,
    "rust": _rust,
}
"""By language: what fills a kit's folder."""


def _run(command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True)
    if done.returncode:
        raise WorkError(f"{command[0]} failed: {' '.join(done.stderr.split())[-300:]}")
