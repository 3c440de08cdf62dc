"""Decontamination: speed of all three nets, recall on planted copies of every item, flags in real code.

A plant is an item (question, solution and tests as its file has them) put between two definitions of a real file:

    verbatim     as it is; and the question alone
    reformatted  one of: tabs, two spaces, blank lines, wraps at 50 columns, other quotes, a comment, JSON, CRLF
    renamed      solution and tests without the question, every name that they bind changed

Real code is what `data.files` finds on this machine, none of it from the benchmarks as far as we know; every flag
is printed, to be looked at. Precision is that of a corpus of which one file in a thousand holds a copy.
"""

from __future__ import annotations

import ast
import io
import json
import random
import re
import subprocess
import sys
import textwrap
import time
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.harness import Bench
from midspan.corpus.decontaminate import Decontaminator, Item, load_items

_INDENT = re.compile(r"^ +", re.MULTILINE)
_NAMES = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|//[^\n]*|(?<![.\w#])[A-Za-z_]\w*')
_RESERVED = """
    any as auto bool boolean break byte case catch char class const continue default delete do double else
    enum false final float fn for fmt func function if impl import in include int interface let long loop main
    map match mod mut namespace new nil null package private pub public range return self short sizeof static
    std string String struct super switch template this throw true try type typeof undefined unsigned use
    using var vec vector void where while
"""
_BUILD = """
import sys
from pathlib import Path
from midspan.corpus.decontaminate import Decontaminator, load_items
Decontaminator.build(load_items([Path(sys.argv[1])]))
status = Path("/proc/self/status").read_text()  # getrusage would count the process that started this one
print(int(status.partition("VmHWM:")[2].split()[0]) / 1000)
"""

_REFORMATS: tuple[Callable[[str], str], ...] = (
    lambda text: _INDENT.sub(lambda run: "\t" * (-(-len(run[0]) // 4)), text),
    lambda text: _INDENT.sub(lambda run: " " * (len(run[0]) // 2), text),
    lambda text: text.replace("\n", "\n\n"),
    lambda text: "\n".join(line for one in text.split("\n") for line in textwrap.wrap(one, 50) or [""]),
    lambda text: text.replace("'", '"'),
    lambda text: "".join(f"# {line}\n" for line in text.split("\n")),
    lambda text: json.dumps({"text": text}),
    lambda text: text.replace("\r\n", "\n").replace("\n", "\r\n"),
)


def parts_of(item: Item, *kinds: str) -> list[str]:
    """The longest question, the first solution, the first tests of an item, those that are asked for."""
    found = []
    for kind in kinds:
        texts = [part.text for part in item.parts if part.kind == kind]
        found += [max(texts, key=len) if kind == "question" else texts[0]] if texts else []
    return found


def language_of(item: Item) -> str:
    """The language of an item's code."""
    return next((part.language for part in item.parts if part.language), "text")


def renamed(item: Item) -> str | None:
    """The item's code with other names and without docstrings; None where it has no solution or does not parse."""
    if not parts_of(item, "solution"):
        return None
    if language_of(item) != "python":
        return renamed_by_pattern("\n\n".join(parts_of(item, "solution", "tests")))
    solution, tests = parts_of(item, "solution")[0], "\n\n".join(parts_of(item, "tests"))
    questions = [part.text for part in item.parts if part.kind == "question"]
    for program in (solution, *(f"{question}\n    {solution}" for question in sorted(questions, key=len))):
        try:
            return renamed_python(f"{program}\n\n{tests}\n".replace("\r\n", "\n"))
        except (SyntaxError, tokenize.TokenError):
            continue
    return None


def renamed_python(program: str) -> str:
    """Change every name that a program binds, and cut its docstrings; the layout stays."""
    bound, docstrings = set(), []
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
            if ast.get_docstring(node) is not None:
                docstrings.append(node.body[0])
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
    names = {name: f"fresh_{number}" for number, name in enumerate(sorted(bound))}
    lines = program.splitlines(keepends=True)
    edits, before = [], ""
    for token in tokenize.generate_tokens(io.StringIO(program).readline):
        if token.type == tokenize.NAME and token.string in names and before != ".":
            edits.append((*token.start, token.end[1], names[token.string]))
        before = token.string
    for row, start, stop, name in reversed(edits):
        lines[row - 1] = lines[row - 1][:start] + name + lines[row - 1][stop:]
    for node in docstrings:
        for row in range(node.lineno, (node.end_lineno or node.lineno) + 1):
            lines[row - 1] = ""
    return "".join(lines)


def renamed_by_pattern(code: str) -> str:
    """Change every word of code that is not reserved, nor behind a full stop, in a string or in a comment."""
    names: dict[str, str] = {}
    reserved = _RESERVED.split()

    def change(match: re.Match[str]) -> str:
        word = match[0]
        if word in reserved or not (word[0].isalpha() or word[0] == "_"):
            return word
        return names.setdefault(word, f"fresh_{len(names)}")

    return _NAMES.sub(change, code)


def plants(items: Sequence[Item]) -> Iterator[tuple[str, Item, str]]:
    """(kind, item, what is planted) for every kind and item that has it."""
    for number, item in enumerate(items):
        whole = "\n\n".join(parts_of(item, "question", "solution", "tests"))
        yield "verbatim", item, whole
        yield "question alone, verbatim", item, parts_of(item, "question")[0]
        yield "reformatted", item, _REFORMATS[number % len(_REFORMATS)](whole)
        code = renamed(item)
        if code:
            yield "renamed", item, code


def planted(text: str, hosts: Sequence[str], rng: random.Random) -> str:
    """A file with the text between two of its definitions."""
    host = rng.choice(hosts)
    at = rng.choice([match.start() for match in re.finditer(r"^(?:def|class) ", host, re.MULTILINE)])
    return f"{host[:at]}{text}\n{host[at:]}"


def run(bench: Bench, texts: list[str], data: Path) -> None:
    """Speed, recall by kind of plant, and precision."""
    begun = time.process_time()
    items = load_items([data])
    index = Decontaminator.build(items)
    bench.record(
        "decontamination: read and index all benchmarks",
        unit="s",
        better="lower",
        goal=60,
        value=time.process_time() - begun,
    )
    memory = subprocess.run([sys.executable, "-c", _BUILD, str(data)], capture_output=True, text=True, check=True)
    bench.record(
        "decontamination: memory to index them", unit="MB", better="lower", goal=500, value=float(memory.stdout)
    )
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    bench.compare(
        "decontamination: three nets",
        unit="MB/s",
        amount=megabytes,
        goal=20,
        clock=time.process_time,
        ours=lambda: [index.hits(text, "python") for text in texts],
    )
    _against_a_loop(bench, texts, items, index)
    _recall(bench, texts, [item for item in items if item.id not in ("test/0", "0")], index)
    _precision(bench, texts, items, index)


def _against_a_loop(bench: Bench, texts: list[str], items: list[Item], index: Decontaminator) -> None:
    """BigCode's way: every part is looked for in every text in lower case (one net of the three)."""
    few = texts[:: max(len(texts) // 40, 1)]
    parts = {part.text.lower() for item in items for part in item.parts}
    bench.compare(
        "decontamination: against a loop over parts",
        unit="MB/s",
        goal_ratio=10,
        clock=time.process_time,
        amount=sum(len(text.encode()) for text in few) / 1e6,
        ours=lambda: [index.hits(text, "python") for text in few],
        peers={"substring loop": lambda: [[part in text.lower() for part in parts] for text in few]},
    )


def _recall(bench: Bench, texts: list[str], items: list[Item], index: Decontaminator) -> None:
    hosts = [text for text in texts if "\ndef " in text and len(text) < 20_000][:500]
    rng = random.Random(0)
    tried: Counter[tuple[str, str]] = Counter()
    found: Counter[tuple[str, str]] = Counter()
    for kind, item, text in plants(items):
        tried[kind, item.benchmark] += 1
        hits = index.hits(planted(text, hosts, rng), language_of(item))
        found[kind, item.benchmark] += any((hit.benchmark, hit.id) == (item.benchmark, item.id) for hit in hits)
    for kind in dict.fromkeys(kind for kind, _ in tried):
        by_benchmark = {name: count for (one, name), count in tried.items() if one == kind}
        shares = ", ".join(f"{name} {found[kind, name]}/{count}" for name, count in by_benchmark.items())
        bench.console.print(f"{kind}: {shares}", highlight=False)
        value = 100 * sum(found[kind, name] for name in by_benchmark) / sum(by_benchmark.values())
        bench.record(
            f"decontamination: {kind}", unit="% found", value=value, goal=100 if kind == "verbatim" else 95
        )


def _precision(bench: Bench, texts: list[str], items: list[Item], index: Decontaminator) -> None:
    flagged = 0
    by_benchmark: Counter[tuple[str, str]] = Counter()
    for text in texts:
        hits = index.hits(text, "python")
        flagged += bool(hits)
        for hit in hits:
            by_benchmark[hit.benchmark, hit.how] += 1
            bench.console.print(
                f"flagged for {hit.benchmark} {hit.id} ({hit.how}): {text[:80]!r}", highlight=False
            )
    bench.console.print(f"{flagged} of {len(texts):,} files flagged: {dict(by_benchmark)}", highlight=False)
    copies = max(len(texts) / 1000, 1)
    bench.record(
        "decontamination: precision, a copy in 1000 files",
        unit="%",
        goal=90,
        value=100 * copies / (copies + flagged),
    )
