# ruff: noqa: E501, a program is a line
"""Each language: a right program passes, a wrong one does not, and leaving early or hollowing out a test is no pass."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from midspan.errors import InputError
from midspan.sandbox import Limits, Program, Sandbox, doctor
from midspan.sandbox.languages import LANGUAGES, kit, require, require_libraries

LIMITS = Limits(cpu_seconds=10, memory_bytes=2 << 30)

# language: (before the body, after it, test); the body of a right solution, then of a wrong one
FRAMES = {
    "cpp": ("#include <assert.h>\nlong f(long x) {\n", "", "}\nint main() {\n    assert(f(1) == (2));\n}\n"),
    "java": (
        "import java.util.*;\nclass Problem {\n    public static long f(long x) {\n",
        "",
        "    }\n    public static void main(String[] args) {\n    assert(f(1l) == (2l));\n    }\n\n}\n",
    ),
    "javascript": (
        "function f(x) {\n",
        "}\n",
        "const assert = require('node:assert');\nassert.deepEqual(f(1), 2);",
    ),
    "typescript": (
        "declare var process: any;\nfunction f(x: number): number {\n",
        "}\n",
        "declare var require: any;\nconst assert = require('node:assert');\nassert.deepEqual(f(1), 2);",
    ),
    "php": ("<?php\nfunction f($x) {\n", "}\n", "if (f(1) !== 2) { throw new Exception('no'); }"),
    "csharp": (
        "using System;\nusing System.Diagnostics;\nclass Problem {\n    public static long F(long x) {\n",
        "",
        "    }\n    public static void Main(string[] args) {\n    Debug.Assert(F(1) == (2L));\n    }\n\n}\n",
    ),
    "bash": (
        "#!/bin/bash\nf() {\n",
        "",
        '}\n\ncandidate() {\n    f "$@"\n}\n\nset -e\nrun_test() {\n    [[ $(candidate 1) = "2" ]]\n    [[ 1 = 1 ]]\n}\n\nrun_test\n',
    ),
    "go": (
        'package f_test\n\nimport (\n\t"testing"\n\t"os"\n)\n\nvar _ = os.Args\n\nfunc f(x int) int {\n',
        "}\n",
        'func TestF(t *testing.T) {\n\tif f(1) != 2 {\n\t\tt.Errorf("no")\n\t}\n}\n',
    ),
    "rust": ("fn f(x: isize) -> isize {\n", "", "}\nfn main() {\n    assert_eq!(f(1), 2);\n}\n"),
}
RIGHT = {
    "php": "return $x + 1;",
    "bash": "echo $(($1 + 1))",
    "rust": "x + 1",
}
WRONG = {"php": "return $x;", "bash": "echo $1", "rust": "x"}

ATTACKS = {
    ("cpp", "exit"): "exit(0);",
    ("cpp", "constructor"): "return x; }\n__attribute__((constructor)) void early() { std::_Exit(0);",
    ("cpp", "macro"): "return x; }\n#undef assert\n#define assert(x)\nvoid g() {",
    (
        "cpp",
        "assert's own function",
    ): 'return x; }\nextern "C" void __assert_fail(const char*, const char*, unsigned, const char*) {',
    ("cpp", "include itself"): "\n#include __FILE__\n",
    ("cpp", "accounts"): '\n#include "/etc/shadow"\n',
    ("cpp", "segfault"): "return *(volatile int*)0;",
    ("cpp", "busy"): "for (volatile long i = 0;; i++);",
    ("cpp", "templates"): "return 0; }\ntemplate<int N> struct T { T<N + 1> a; T<N + 2> b; };\nT<0> t; void g() {",
    ("java", "exit"): "System.exit(0); return x;",
    ("java", "halt"): "Runtime.getRuntime().halt(0); return x;",
    ("java", "assertions off"): "ClassLoader.getSystemClassLoader().setDefaultAssertionStatus(false); return x;",
    ("javascript", "exit"): "process.exit(0)",
    ("javascript", "assert"): "require('node:assert').deepEqual = () => {}; return x",
    (
        "javascript",
        "require",
    ): "}\nfunction require() { return {deepEqual() {}, writeSync() {}}; }\nfunction g() {",
    ("typescript", "exit"): "process.exit(0); return 0;",
    ("php", "exit"): "exit(0);",
    ("php", "shutdown function"): "register_shutdown_function(function() { exit(0); }); return $x;",
    ("php", "exception handler"): "set_exception_handler(function($e) { exit(0); }); return $x;",
    ("csharp", "exit"): "Environment.Exit(0); return x;",
    ("csharp", "uncaught"): "throw new Exception();",
    (
        "csharp",
        "its own Debug",
    ): "return x; }\n class Debug { public static void Assert(bool b) {} }\n static void G() {",
    ("bash", "exit"): "exit 0\n}\nexit 0\ng() {\n:",
    ("bash", "set"): "echo $1\n}\nset() { :; }\ng() {\n:",
    ("bash", "trap"): "echo $1\n}\ntrap 'exit 0' EXIT ERR\ng() {\n:",
    ("go", "exit"): "os.Exit(0); return x",
    ("go", "init"): "return x }\nfunc init() { os.Exit(0)",
    ("rust", "exit"): "std::process::exit(0)",
    ("rust", "macro"): "x }\nmacro_rules! assert_eq { ($($t:tt)*) => {} }\nfn g() -> isize { 0",
}


def _program(language: str, body: str) -> Program:
    try:
        require(language)
    except InputError as error:
        pytest.skip(str(error))
    before, after, test = FRAMES[language]
    return Program(source=f"{before}{body}\n{after}", test=test, language=language, limits=LIMITS)


@pytest.mark.parametrize("language", FRAMES)
def test_right_and_wrong(language: str, compat: Sandbox):
    right = compat.judge_one(_program(language, RIGHT.get(language, "return x + 1;")))
    assert right.status == "passed", right
    wrong = compat.judge_one(_program(language, WRONG.get(language, "return x;")))
    assert wrong.status == "failed", wrong


@pytest.mark.parametrize(("language", "name"), ATTACKS)
def test_no_attack_passes(language: str, name: str, strict: Sandbox):
    verdict = strict.judge_one(_program(language, ATTACKS[language, name]))
    assert verdict.status in ("failed", "timeout"), verdict


TYPESCRIPT = {
    "right": "const total = (xs: number[]): number => xs.reduce((x, y) => x + y, 0);\nconsole.log(total([1, 2]));\n",
    "forms": "enum E { A, B }\nnamespace N { export const x = E.B; }\nclass C<T> { constructor(private y: T) {} }\nlet c = new C(N.x);\n",
    "two errors": "const x: number = 'a';\nmissing();\n",
    "no grammar": "function f( {\n  return 1\n",
    "no module": "import * as fs from 'fs';\nfs.readFileSync('x');\n",
    "a library's name": "const name = 1;\ninterface Array<T> { own(): T }\n[1].own();\n",
    "a library's type, otherwise": "interface Array<T, U> { own(): T }\n",
    "strictness is off": "function f(x) { return x.y }\nlet s: string = null;\n",
}


@pytest.mark.parametrize("name", TYPESCRIPT)
def test_typescript_is_compiled_as_tsc_does(name: str, tmp_path: Path):
    """The snapshot and the compiler that it is of: the same words, exit status and program."""
    try:
        require("typescript")
    except InputError as error:
        pytest.skip(str(error))
    (tmp_path / "main.ts").write_text(TYPESCRIPT[name])
    tsc = (
        "node",
        kit("typescript") / "node_modules/typescript/bin/tsc",
        "--target",
        "esnext",
        "--module",
        "commonjs",
    )
    found = []
    for command in ((*tsc, "main.ts"), ("node", "--snapshot-blob", kit("typescript") / "tsc.blob", "main.ts")):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        mine = [line for line in done.stdout.splitlines() if line.startswith(("main.ts", " "))]
        found.append((mine, done.returncode, (tmp_path / "main.js").read_text()))
        (tmp_path / "main.js").unlink()
    assert found[0] == found[1]


def test_the_doctor_names_what_is_missing(monkeypatch: pytest.MonkeyPatch):
    assert [row["language"] for row in doctor()] == list(LANGUAGES)
    monkeypatch.setenv("PATH", "")
    rows = {row["language"]: row for row in doctor()}
    assert not rows["php"]["ready"]
    assert rows["php"]["remedy"] == "apt-get install php-cli"


def test_the_doctor_names_libraries_that_some_programs_load(monkeypatch: pytest.MonkeyPatch):
    """The language is ready without them, and how to get them is said all the same."""
    absent = {"/nowhere/one.h": "libone-dev", "/nowhere/two.h": "libtwo-dev", "/": "base-files"}
    monkeypatch.setitem(LANGUAGES, "bash", replace(LANGUAGES["bash"], tools={}, libraries=absent))
    row = next(row for row in doctor() if row["language"] == "bash")
    assert row["ready"]
    assert row["missing"] == ["/nowhere/one.h", "/nowhere/two.h"]
    assert row["remedy"] == "apt-get install libone-dev libtwo-dev"


def test_what_benchmarks_load_is_asked_for_before_they_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Without its crates a right program in Rust would be judged wrong."""
    monkeypatch.setattr("midspan.sandbox.languages.kits.folder", lambda name, version: tmp_path / name)
    try:
        require("javascript")
    except InputError as error:
        pytest.skip(str(error))
    with pytest.raises(InputError, match=r"javascript's benchmarks need js-md5 as well.*midspan sandbox prepare"):
        require_libraries("javascript")
    (tmp_path / "javascript").mkdir()
    require_libraries("javascript")
