"""Languages by name and by content. The oracle, where it is installed, is go-enry, a port of GitHub's linguist."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midspan.corpus.language import (
    LANGUAGES,
    check_languages,
    extension_of,
    language_of,
    language_of_content,
    possible_languages,
)
from midspan.corpus.language_rules import RULES
from midspan.errors import InputError

# Under what name we file linguist's languages, where lower case and a hyphen is not enough.
LINGUIST = {
    "assembly": "asm",
    "graphviz (dot)": "dot",
    "java server pages": "jsp",
    "linker script": "linker-script",
    "motorola 68k assembly": "m68k",
    "pov-ray sdl": "pov-ray",
    "rocq prover": "coq",
    "roff manpage": "roff",
    "starlark": "bazel",
    "tsx": "typescript",
    "unix assembly": "asm",
    "visual basic 6.0": "vb",
    "vba": "vb",
    "wolfram language": "mathematica",
}


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("a/b.py", "python"),
        ("stubs/b.pyi", "python"),
        ("app.wsgi", "python"),
        ("a.c", "c"),
        ("a.h", "c"),
        ("a.hpp", "c++"),
        ("a.cc", "c++"),
        ("a.mm", "objective-c++"),
        ("a.ts", "typescript"),
        ("a.tsx", "typescript"),
        ("a.jsx", "javascript"),
        ("A.JAVA", "java"),
        ("run.sh", "shell"),
        ("run.bash", "shell"),
        ("Makefile", "makefile"),
        ("Dockerfile", "dockerfile"),
        ("pyproject.toml", "toml"),
        ("notebook.ipynb", "jupyter"),
        ("page.xhtml", "html"),
        ("build.sbt", "scala"),
        ("README", "text"),
        ("setup.cfg", "ini"),
        ("other.cfg", "text"),
        ("README.md", "markdown"),
        ("library.so", "other"),
        ("strange.qqq", "other"),
        ("no_extension", "other"),
        ("a.adb", "ada"),
        ("init.el", "emacs-lisp"),
        ("module.wat", "webassembly"),
        ("graph.gv", "dot"),
        ("shader.frag", "glsl"),
        ("ls.1", "roff"),
        ("query.smt2", "smt"),
        ("style.xsl", "xml"),
        ("ios/Podfile", "ruby"),
        ("go.mod", "go-mod"),
    ],
)
def test_language_by_name(path, language):
    assert language_of(path) == language
    assert language in LANGUAGES


@pytest.mark.parametrize(
    ("path", "extension"),
    [("a/B.PY", "py"), ("Makefile", ""), (".bashrc", "bashrc"), ("a.b/c", ""), ("x.tar.gz", "gz")],
)
def test_extension(path, extension):
    assert extension_of(path) == extension


CONTENT = [
    ("a.h", "#pragma once\nstruct point { int x; };\nint f(void);\n", "c"),
    ("a.h", "#ifdef __cplusplus\nextern \"C\" {\n#endif\nint f(void);\n", "c"),
    ("a.h", "#include <vector>\nint f();\n", "c++"),
    ("a.h", "namespace geo {\nint f();\n}\n", "c++"),
    ("a.h", "template <typename T> T id(T x);\n", "c++"),
    ("a.h", "int f(std::string const& s);\n", "c++"),
    ("a.h", "  private:\n  int x;\n", "c++"),
    ("a.h", "#import <Foundation/Foundation.h>\n", "objective-c"),
    ("a.h", "@interface Point : NSObject\n@end\n", "objective-c"),
    ("a.h", "/* a class of numbers, in a namespace of its own */\nint f(void);\n", "c"),
    ("a.m", "@implementation Point\n- (void)draw { }\n@end\n", "objective-c"),
    ("a.m", "function y = f(x)\n% square\ny = x .^ 2;\nend\n", "matlab"),
    ("a.m", "% a script\nx = [1 2 3];\n", "matlab"),
    ("a.m", "(* ::Package:: *)\nf[x_] := x^2\n", "mathematica"),
    ("a.m", ":- module hello.\n:- interface.\n", "mercury"),
    ("a.ts", "export const x: number = 1;\n", "typescript"),
    ("app_de.ts", '<?xml version="1.0"?>\n<!DOCTYPE TS>\n<TS version="2.1">\n</TS>\n', "xml"),
    ("a.pl", "use strict;\nmy $x = 1;\nprint $x;\n", "perl"),
    ("a.pl", "#!/usr/bin/perl\nprint 1;\n", "perl"),
    ("a.pl", ":- use_module(library(lists)).\nparent(a, b).\ngrand(X, Z) :- parent(X, Y), p(Y, Z).\n", "prolog"),
    ("a.pl", "use v6;\nsay 'hi';\n", "raku"),
    ("a.pm", "package A::B;\nuse warnings;\n1;\n", "perl"),
    ("a.t", "use strict;\nuse Test::More;\nok(1);\n", "perl"),
    ("a.v", "module top(input clk);\nalways @(posedge clk) begin\nend\nendmodule\n", "verilog"),
    ("a.v", "Require Import Arith.\nLemma a : 1 = 1.\nProof. reflexivity. Qed.\n", "coq"),
    ("a.v", "module main\n\nfn main() {\n\tprintln('hi')\n}\n", "v"),
    ("a.inc", "<?php\necho 1;\n", "php"),
    ("a.inc", "#declare Red = rgb<1, 0, 0>;\n", "pov-ray"),
    ("a.inc", "inherit autotools\nSRC_URI = \"file://x\"\n", "bitbake"),
    ("a.cls", "\\NeedsTeXFormat{LaTeX2e}\n\\ProvidesClass{a}\n", "tex"),
    ("a.cls", "VERSION 1.0 CLASS\nBEGIN\n  MultiUse = -1\nEND\nAttribute VB_Name = \"A\"\n", "vb"),
    ("a.cls", "public with sharing class A {\n  public Integer x;\n}\n", "apex"),
    ("a.r", "x <- c(1, 2)\n# mean\nmean(x)\n", "r"),
    ("a.r", "REBOL [ Title: \"x\" ]\nprint 1\n", "rebol"),
    ("a.sql", "SELECT a FROM b;\n", "sql"),
    ("a.fs", "module A\nlet x = 1\n", "f#"),
    ("a.fs", ": square dup * ;\n", "forth"),
    ("a.fs", "#version 330\nuniform vec4 c;\nvoid main() { }\n", "glsl"),
    ("a.md", "# Title\n\nText.\n", "markdown"),
    ("a.md", ";; GCC machine description\n(define_insn \"add\"\n", "gcc-machine-description"),
    ("a.d", "module a;\nimport std.stdio;\nvoid main() { }\n", "d"),
    ("main.d", "main.o: main.c \\\n  a.h\n", "makefile"),
    ("a.f", "      subroutine f(x)\n      end\n", "fortran"),
    ("a.f", ": square dup * ;\n", "forth"),
    ("a.l", "%{\n#include <stdio.h>\n%}\n%%\n", "lex"),
    ("a.ml", "let rec f x = match x with 0 -> 1 | n -> n * f (n - 1)\n", "ocaml"),
    ("a.ml", "structure A = struct\n  fun f x = x\nend\n", "standard-ml"),
    ("a.mod", "MODULE A;\nEND A.\n", "modula-2"),
    ("a.pp", "class nginx {\n  package { 'nginx': ensure => installed }\n}\n", "puppet"),
    ("a.pp", "unit A;\ninterface\nend.\n", "pascal"),
    ("a.pro", "TEMPLATE = app\nSOURCES += main.cpp\nHEADERS += a.h\n", "qmake"),
    ("a.rs", "fn main() {}\n", "rust"),
    ("a.s", "\tmovq %rax, %rbx\n", "asm"),
    ("a.s", "\tmove.l d0,d1\n\tmoveq #0,d0\n\trts\n", "m68k"),
    ("a.scm", "(define (f x) x)\n", "scheme"),
    ("a.sol", "pragma solidity ^0.8;\ncontract A {}\n", "solidity"),
    ("a.cl", "(defun f (x) x)\n", "common-lisp"),
    ("a.cl", "__kernel void f(__global float* x) { }\n", "opencl"),
    ("a.tsx", "export const A = () => <p/>;\n", "typescript"),
    ("ls.1", ".TH LS 1 \"2024\" \"x\"\n.SH NAME\nls\n", "roff"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "text", "language"), CONTENT)
def test_language_by_content(path, text, language):
    assert language_of_content(path, text, language_of(path)) == language
    assert language in possible_languages(path) <= LANGUAGES


def linguist(path: str, text: str) -> str:
    enry = pytest.importorskip("enry", reason="enry-python is the oracle")
    name = enry.get_language(path, text.encode()).lower()
    return LINGUIST.get(name, name.replace(" ", "-"))


@pytest.mark.parametrize(("path", "text", "language"), CONTENT)
def test_linguist_says_the_same(path, text, language):
    assert linguist(path, text) == language


def test_installed_headers_are_what_linguist_takes_them_for():
    torch = pytest.importorskip("torch")
    folder = Path(torch.__file__).parent / "include"
    headers = sorted(folder.rglob("*.h"))[::17][:300]
    if len(headers) < 100:
        pytest.skip("torch is installed without its headers")
    same = 0
    for path in headers:
        text = path.read_text(encoding="utf-8")
        same += language_of_content(path.name, text, "c") == linguist(path.name, text)
    assert same >= 0.98 * len(headers)  # 99.7 % over 1500 headers of a machine


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("#!/bin/sh\nls\n", "shell"),
        ("#! /usr/bin/env python3\nprint()\n", "python"),
        ("#!/usr/bin/env -S PYTHONPATH=. python3.11 -u\nprint()\n", "python"),
        ("#!/usr/local/bin/lua5.4\n", "lua"),
        ("#!/usr/bin/env Rscript\n", "r"),
        ("#!/usr/bin/env node\n", "javascript"),
        ("#!/usr/bin/env deno\n", "typescript"),
        ("#!/usr/bin/make -f\nall:\n", "makefile"),
        ('#!/bin/sh\n# \\\nexec tclsh "$0" "$@"\nputs 1\n', "tcl"),
        ("#!/bin/sh\nexec ls\n", "shell"),
        ("#!/opt/unheard-of\n", "other"),
        ("#!\n", "other"),
        ("#!/usr/bin/env\n", "other"),
        ("// -*- C++ -*-\n#pragma once\n", "c++"),
        ("/* -*- mode: c; tab-width: 8 -*- */\n", "c"),
        (";;; x.el -*- lexical-binding: t; mode: emacs-lisp -*-\n", "emacs-lisp"),
        ("x = 1\n# vim: set ft=python :\n", "python"),
        ("# -*- coding: utf-8 -*-\nx\n", "other"),
        ("<?xml version='1.0'?>\n<a/>\n", "xml"),
        ("words\n", "other"),
        ("", "other"),
    ],
)
def test_a_file_without_a_known_name(text, language):
    assert language_of_content("bin/tool", text, language_of("bin/tool")) == language


def test_a_modeline_settles_a_shared_extension_but_no_other():
    assert language_of_content("a.h", "// -*- mode: C++ -*-\nint f(void);\n", "c") == "c++"
    assert language_of_content("a.h", "/* -*- mode: python -*- */\nint f(void);\n", "c") == "c"
    assert language_of_content("a.py", "# -*- mode: ruby -*-\n", "python") == "python"


def test_only_the_head_of_a_text_decides():
    late = "int x;\n" * 10_000 + "class A {};\n"
    assert language_of_content("a.h", late, "c") == "c"


def test_names_that_leave_nothing_open():
    assert possible_languages("a.py") == {"python"}
    assert possible_languages("go.mod") == {"go-mod"}  # though .mod is open
    assert possible_languages("a.h") == {"c", "c++", "objective-c"}
    assert possible_languages("run") == LANGUAGES


NAMES = st.sampled_from(["run", "x.unheard", "Makefile", "a.py", *(f"a.{extension}" for extension in RULES)])


@given(st.text())
def test_every_name_has_a_language(path):
    assert language_of(path) in possible_languages(path) <= LANGUAGES


@given(NAMES, st.text() | st.lists(st.sampled_from([text for _, text, _ in CONTENT])).map("".join))
def test_the_answer_is_always_a_possible_one(path, text):
    assert language_of_content(path, text, language_of(path)) in possible_languages(path)


HOSTILE = (
    *(
        "\n",
        " ",
        "\n ",
        "a",
        "a(",
        "case ",
        "match ",
        "\nclass a ",
        "(",
        "\n\t",
        "!a",
        "<a",
        "$a",
        ":- ",
        "\na(b). ",
    ),
    *(
        "\n[A",
        "\nuse ",
        "\npro a ",
        "-*- mode:",
        "-*-",
        "vim: ",
        "{{",
        "static inline ",
        "\nA=",
        ";",
        "a.",
        "é",
        "\x00",
    ),
)


@pytest.mark.parametrize("fragment", HOSTILE)
def test_time_is_linear_in_hostile_texts(fragment):
    text = fragment * (5_000_000 // len(fragment))
    slowest = 0.0
    for extension in [*RULES, "unheard"]:
        begun = time.process_time()
        language_of_content(f"a.{extension}", text, language_of(f"a.{extension}"))
        slowest = max(slowest, time.process_time() - begun)
    assert slowest < 1


def test_languages_are_checked_and_lower_cased():
    assert check_languages(["Python", "c++"]) == {"python", "c++"}


def test_an_unknown_language_names_the_nearest():
    with pytest.raises(InputError, match=r"no language is called 'pyton'; did you mean 'python'\?"):
        check_languages(["c", "pyton"])
