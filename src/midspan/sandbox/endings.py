"""How a program of each language tells that its tests have come to their end.

The last statement prints a random token, which reaches the program in the environment of its run. Where a program
could replace what checks and prints (a macro, a builtin, a module), the tests are made to call what it cannot.
"""

from __future__ import annotations

import re
from dataclasses import replace

from midspan.sandbox.program import Program


def _before_brace(text: str, statement: str, *, from_end: int) -> str:
    """Put a statement before the last but `from_end` closing brace of a program."""
    places = [found.start() for found in re.finditer(r"\}", text)]
    if len(places) <= from_end:
        return text
    place = places[-1 - from_end]
    return f"{text[:place]}{statement}\n{text[place:]}"


GUARD_JS = """\
const assert = require('node:assert');
console.assert = (right, ...said) => { if (!right) throw new assert.AssertionError({message: said.join(' ')}); };
Object.freeze(assert); Object.freeze(assert.strict); Object.freeze(console);
Object.defineProperty(globalThis, 'REQUIRE', {value: require});
"""
HEADER_CPP = "#include <cassert>\n#include <cstdio>\n#include <cstdlib>\n"
_ASSERT_CPP = "\n#undef assert\n#define assert(...) ((__VA_ARGS__) ? (void)0 : __builtin_trap())\n"
DEBUG_CS = """\
namespace System.Diagnostics {
    public static class Debug {
        public static void Assert(bool right, string said = "") {
            if (right) return;
            Console.Error.WriteLine("assertion failed " + said);
            Environment.Exit(134);
        }
        public static void WriteLine(object said) {}
        public static void Write(object said) {}
    }
}
"""
_SET_BASH = "POSIXLY_CORRECT=1; unset -f set unset exit printf builtin command; unset POSIXLY_CORRECT; set -e"
GO_MAIN = """\
package PACKAGE

import (
\t"os"
\t"testing"
)

func TestMain(m *testing.M) {
\tcode := m.Run()
\tif code == 0 {
\t\tos.Stdout.WriteString(os.Getenv("MIDSPAN_DONE"))
\t}
\tos.Exit(code)
}
"""


def cpp(program: Program) -> str:
    """The macro is defined anew, and calls nothing that a program could replace."""
    if not program.test:
        return program.source
    test = re.sub(r"(?m)^[ \t]*#[ \t]*include[ \t]*<(assert\.h|cassert)>.*$", "", program.test)
    done = 'fflush(stdout); fputs(getenv("MIDSPAN_DONE"), stdout);'
    return _before_brace(f"{program.source}{_ASSERT_CPP}{test}", done, from_end=0)


def java(program: Program) -> str:
    if not program.test:
        return program.source
    done = 'System.out.print(System.getenv("MIDSPAN_DONE"));'
    return _before_brace(f"{program.source}\n{program.test}", done, from_end=1)


def csharp(program: Program) -> str:
    """Mono reports a failed `Debug.Assert` and goes on: the tests call one that ends the process."""
    if not program.test:
        return program.source
    test = program.test.replace("Debug.Assert(", "global::System.Diagnostics.Debug.Assert(")
    done = 'System.Console.Write(System.Environment.GetEnvironmentVariable("MIDSPAN_DONE"));'
    return _before_brace(f"{program.source}\n{test}", done, from_end=1)


def _script(program: Program, statement: str) -> str:
    return f"{program.source}\n{program.test}\n{statement}\n" if program.test else program.source


def javascript(program: Program) -> str:
    """The tests load `assert` by a name that the solution does not know: a function `require` may be its own."""
    test = re.sub(r"\brequire\((?=['\"](node:)?assert)", "globalThis.REQUIRE(", program.test)
    done = ";globalThis.REQUIRE('node:fs').writeSync(1, process.env.MIDSPAN_DONE);"
    return _script(replace(program, test=test), done)


def typescript(program: Program) -> str:
    test = re.sub(r"\brequire\((?=['\"](node:)?assert)", "(globalThis as any).REQUIRE(", program.test)
    done = ";(globalThis as any).REQUIRE('node:fs').writeSync(1, (globalThis as any).process.env.MIDSPAN_DONE);"
    return _script(replace(program, test=test), done)


def php(program: Program) -> str:
    return _script(program, "echo getenv('MIDSPAN_DONE');")


def bash(program: Program) -> str:
    """`set` may be a function by now: in POSIX mode the builtin goes first, and a variable turns that mode on."""
    test = program.test.replace("set -e\n", f"{_SET_BASH}\n", 1)
    return _script(replace(program, test=test), "printf '%s' \"$MIDSPAN_DONE\"")


def go(program: Program) -> str:
    text = f"{program.source}\n{program.test}"
    return text if re.search(r"^package \w+", text, re.M) else f"package main\n\n{text}"


def rust(program: Program) -> str:
    """Macros of the standard library's are named in full: a program may have its own `assert_eq`."""
    if not program.test:
        return program.source
    test = re.sub(r"(?<![:\w])(assert(?:_eq|_ne)?!)", r"::std::\1", program.test)
    token = 'std::env::var("MIDSPAN_DONE").unwrap()'
    done = f"{{ use std::io::Write; let _ = std::io::stdout().write_all({token}.as_bytes()); }}"
    return _before_brace(f"{program.source}\n{test}", done, from_end=1 if "#[test]" in test else 0)
