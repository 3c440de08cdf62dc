"""The languages: which tools they need, how a program is built and run, and how its completion is seen.

Every program ends with a statement that prints a random token, which reaches it in the environment of its run
and of no compiler: a program that leaves early, whatever its exit status, has not passed. What counts as the end
is the end of the test's own entry point.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from midspan.errors import InputError, WorkError
from midspan.native import processor
from midspan.sandbox import endings, kits
from midspan.sandbox.program import Program, Status

_BUILD = {"cpu": 30.0, "wall": 120.0, "memory": 3 << 30}
_PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp/box", "TMPDIR": "/tmp/box", "LANG": "C.UTF-8"}
_TSC = "node_modules/typescript/bin/tsc"
_TUPLES = "/usr/share/java/javatuples-1.2.jar"
_PACKAGES = {"javascript": "js-md5", "rust": "the crates rand, regex and md5"}  # in their kits


@dataclass(frozen=True, kw_only=True)
class Language:
    """How one language is built and run."""

    tools: dict[str, str]
    """Programs that it needs, each with the Debian package that brings it."""
    version: tuple[str, ...] = ()
    file: str = ""
    finish: Callable[[Program], str] = lambda program: f"{program.source}\n{program.test}"
    """The whole program's text, its completion included."""
    build: tuple[tuple[str, ...], ...] = ()
    run: tuple[str, ...] = ()
    extra: dict[str, str] = field(default_factory=dict)
    """More files in the box."""
    env: dict[str, str] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)
    """Files that some programs of the benchmarks need, each with the Debian package that brings it."""


_JAVA = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:-UsePerfData", "-Xss64m")

LANGUAGES: dict[str, Language] = {
    "python": Language(tools={}),
    "cpp": Language(
        tools={"g++": "g++"},
        version=("g++", "--version"),
        file="main.cpp",
        finish=endings.cpp,
        build=(("g++", *kits.CPP_FLAGS, "-include", "midspan.h", "main.cpp", "-o", "main"),),
        run=("/tmp/box/main",),
        extra={"midspan.h": endings.HEADER_CPP},
        libraries={
            "/usr/include/openssl/md5.h": "libssl-dev",
            "/usr/include/boost/any.hpp": "libboost-dev",
        },
    ),
    "java": Language(
        tools={"javac": "default-jdk-headless", "java": "default-jre-headless"},
        version=("javac", "-version"),
        file="Main.java",
        finish=endings.java,
        build=(
            (
                *("javac", *kits.JAVAC_FLAGS, f"-J-XX:SharedArchiveFile={kits.INSIDE}/java/javac.jsa"),
                *("-encoding", "UTF8", "-cp", _TUPLES, "-d", "/tmp/box", "Main.java"),
            ),
        ),
        run=("java", *_JAVA, "-Xmx512m", "-ea", "-cp", f"/tmp/box:{_TUPLES}", "MAIN"),
        libraries={_TUPLES: "libjavatuples-java"},
    ),
    "javascript": Language(
        tools={"node": "nodejs"},
        version=("node", "--version"),
        file="main.js",
        finish=endings.javascript,
        run=("node", "-r", "/tmp/box/guard.js", "/tmp/box/main.js"),
        extra={"guard.js": endings.GUARD_JS},
        env={"NODE_PATH": f"{kits.INSIDE}/javascript/node_modules"},
    ),
    "typescript": Language(
        tools={"node": "nodejs", "npm": "npm"},
        version=("node", _TSC, "--version"),  # in its kit
        file="main.ts",
        finish=endings.typescript,
        build=(("node", "--snapshot-blob", f"{kits.INSIDE}/typescript/tsc.blob", "main.ts"),),
        run=("node", "-r", "/tmp/box/guard.js", "/tmp/box/main.js"),
        extra={"guard.js": endings.GUARD_JS},
    ),
    "php": Language(
        tools={"php": "php-cli"},
        version=("php", "--version"),
        file="main.php",
        finish=endings.php,
        run=("php", "-d", "display_errors=stderr", "-d", "opcache.enable_cli=0", "/tmp/box/main.php"),
    ),
    "csharp": Language(
        tools={"mcs": "mono-mcs", "mono": "mono-runtime"},
        version=("mono", "--version"),
        file="main.cs",
        finish=endings.csharp,
        build=(
            (
                *("mcs", "-d:DEBUG", "-r:System.Numerics.dll", "-langversion:latest", "main.cs", "debug.cs"),
                "-out:main.exe",
            ),
        ),
        run=("mono", "/tmp/box/main.exe"),
        extra={"debug.cs": endings.DEBUG_CS},
    ),
    "bash": Language(
        tools={"bash": "bash", "bc": "bc", "jq": "jq", "gawk": "gawk"},
        version=("bash", "--version"),
        file="main.sh",
        finish=endings.bash,
        run=("bash", "/tmp/box/main.sh"),
    ),
    "go": Language(
        tools={"go": "golang-go"},
        version=("go", "version"),
        file="main_test.go",
        finish=endings.go,
        build=(("go", "test", "-vet=off", "-c", "-o", "main", "main_test.go", "done_test.go"),),
        run=("/tmp/box/main",),
        env={
            "GO111MODULE": "off",
            "GOPATH": "/usr/share/gocode",
            "GOCACHE": "/tmp/box/.go",
            "GOFLAGS": "",
            "GOMAXPROCS": "2",
        },
        libraries={
            "/usr/share/gocode/src/github.com/stretchr/testify/assert": "golang-github-stretchr-testify-dev"
        },
    ),
    "rust": Language(
        tools={"rustc": "rustc"},
        version=("rustc", "--version"),
        file="main.rs",
        finish=endings.rust,
        build=(("rustc", "--edition", "2021", "-A", "warnings", "-C", "debuginfo=0", "main.rs", "-o", "main"),),
        run=("/tmp/box/main",),
    ),
}


def find(name: str) -> Language:
    """A language by name; InputError naming the known ones."""
    language = LANGUAGES.get(name)
    if language is None:
        raise InputError(f"{name!r} is no language of the sandbox; known are {', '.join(LANGUAGES)}")
    return language


def kit(name: str) -> Path:
    """Where the kit of a language is, made or not: one for each version of its tools."""
    if name == "typescript":
        made_of = f"{kits.TYPESCRIPT} {version('javascript')} {processor()}"  # a snapshot is for its like alone
    else:
        made_of = kits.JS_MD5 if name == "javascript" else version(name)
    return kits.folder(name, made_of)


def binds() -> dict[str, str]:
    """The kits that are here: path inside a jail, path outside."""
    found = {name: kit(name) for name in kits.MAKERS if not missing(name)}
    return {f"{kits.INSIDE}/{name}": str(path) for name, path in found.items() if path.is_dir()}


def prepare() -> dict[str, str]:
    """Make every kit whose tools are here. Returns what came of each."""
    outcome = {}
    for name in kits.MAKERS:
        outcome[name] = "tools are missing"
        if not missing(name):
            try:
                kits.make(name, kit(name))
                outcome[name] = "ready"
            except (InputError, WorkError) as error:
                outcome[name] = str(error)
    return outcome


def missing(name: str) -> dict[str, str]:
    """Tools of a language that are not here, with the Debian packages that bring them."""
    return {tool: package for tool, package in find(name).tools.items() if shutil.which(tool) is None}


def require(name: str) -> None:
    """InputError where a language is unknown or cannot be run here."""
    absent = missing(name)
    if absent:
        packages = " ".join(sorted(set(absent.values())))
        raise InputError(f"{name} needs {', '.join(absent)}; install with: apt-get install {packages}")
    if name == "typescript" and not kit(name).is_dir():
        raise InputError("typescript needs its pinned compiler; install with: midspan sandbox prepare")


def require_libraries(name: str) -> None:
    """InputError where some of a language's benchmarks would fail for want of a library, whatever the answer."""
    require(name)
    absent, remedy = lacking(name)
    if absent:
        raise InputError(f"{name}'s benchmarks need {', '.join(absent)} as well; install with: {remedy}")


def lacking(name: str) -> tuple[list[str], str]:
    """What some of a language's benchmarks need and is not here, and the commands that bring it."""
    absent = {path: package for path, package in find(name).libraries.items() if not os.path.exists(path)}
    remedies = [f"apt-get install {' '.join(sorted(absent.values()))}"] if absent else []
    if name in _PACKAGES and not kit(name).is_dir():
        absent[_PACKAGES[name]] = ""
        remedies.append("midspan sandbox prepare")
    return [*absent], "; ".join(remedies)


def doctor() -> list[dict[str, Any]]:
    """One row per language: whether it can be judged here, the version, what is missing and what brings it.

    A language is ready without the libraries that only some programs of the benchmarks load; an evaluation asks
    for those too.
    """
    rows = []
    for name in LANGUAGES:
        try:
            require(name)
            absent, remedy = lacking(name)
            rows.append(
                {"language": name, "ready": True, "version": version(name), "missing": absent, "remedy": remedy}
            )
        except InputError as error:
            remedy = str(error).partition("install with: ")[2]
            rows.append(
                {"language": name, "ready": False, "version": "", "missing": list(missing(name)), "remedy": remedy}
            )
    return rows


@functools.cache
def first_line(command: tuple[str, ...]) -> str:
    """The first line that a command prints, empty where it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ""
    return (done.stdout or done.stderr).strip().partition("\n")[0]


@functools.cache
def version(name: str) -> str:
    """What a language's compiler or interpreter says it is."""
    if name == "python":
        import platform

        return f"Python {platform.python_version()}"
    command = list(find(name).version)
    if name == "typescript":
        command[1] = str(kit(name) / _TSC)
    return first_line(tuple(command))


def job(program: Program) -> dict[str, Any]:
    """The files and commands of a program that is not Python, as the zygote takes them."""
    language = find(program.language)
    text = language.finish(program)
    files = {language.file: text, **language.extra}
    run = list(language.run)
    build = [list(command) for command in language.build]
    if program.language == "java":
        run[-1] = _java_class(text)
    if program.language in ("javascript", "typescript"):
        own = f"require_{secrets.token_hex(8)}"
        files = {file: content.replace("REQUIRE", own) for file, content in files.items()}
    if program.language == "go":
        package = re.search(r"^package (\w+)", text, re.M)
        files["done_test.go"] = endings.GO_MAIN.replace("PACKAGE", package[1] if package else "main")
    if program.language == "cpp" and "bits/stdc++.h" in text and kit("cpp").is_dir():
        build[0][build[0].index("midspan.h")] = f"{kits.INSIDE}/cpp/midspan.h"
    if program.language == "cpp" and "<openssl/" in text:
        build[0].append("-lcrypto")
    if program.language == "rust":
        deps = kit("rust") / "target/debug/deps"
        crates = {path.name[3:].partition("-")[0]: path.name for path in deps.glob("lib*.rlib")}
        inside = f"{kits.INSIDE}/rust/target/debug/deps"
        named = [f"--extern={name}={inside}/{crates[name]}" for name in ("rand", "regex", "md5") if name in crates]
        build[0][1:1] = [f"-Ldependency={inside}", *named, *(["--test"] if "#[test]" in text else [])]
    env = {**_PATH, **language.env}
    commands = [_command(argv, env, is_program=False) | {"limits": _BUILD} for argv in build]
    return {
        "files": files,
        "commands": [*commands, _command(run, env, is_program=True)],
        "token": secrets.token_hex(16),
    }


def _command(argv: list[str], env: dict[str, str], *, is_program: bool) -> dict[str, Any]:
    program = argv[0] if argv[0].startswith("/") else os.path.realpath(shutil.which(argv[0]) or argv[0])
    if os.path.basename(program) == "rustup":  # a proxy that would look for a compiler in the home folder
        program = first_line((argv[0], "--print", "sysroot")) + "/bin/rustc"
    return {"argv": [program, *argv[1:]], "env": env, "is_program": is_program}


def _java_class(text: str) -> str:
    """The class with `main`: the last one that begins a line before it."""
    before = text.partition("static void main")[0]
    named = re.findall(r"^(?:public\s+|final\s+|abstract\s+)*class\s+(\w+)", before, re.M)
    return named[-1] if named else "Main"


def outcome(program: Program, answer: dict[str, Any]) -> tuple[Status, str, str]:
    """(status, reason, stdout) of commands that ended within their limits."""
    stdout = answer["stdout"]
    if not answer["is_program"]:
        said = " ".join((answer["stderr"] or stdout).split())[:300]
        return "failed", f"does not compile: {said}", stdout
    code = answer["code"]
    how = f"exit with status {code}" if code >= 0 else f"killed by signal {-code}"
    if program.stdin is not None and not program.test:
        return ("passed", "", stdout) if code == 0 else ("failed", how, stdout)
    if code != 0:
        lines = answer["stderr"].strip().splitlines()
        return "failed", f"{how}: {lines[0][:300]}" if lines else how, stdout
    if not answer["marked"]:
        return "failed", f"{how} before the tests were completed", stdout
    return "passed", "", stdout
