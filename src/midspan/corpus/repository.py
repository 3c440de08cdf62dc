"""Repository documents: a repository's files as one text, each after the files that it imports.

    <!-- path: README.md -->         no imports: before the files of its folder and below
    …
    # path: src/shop/prices.py       imports nothing
    …
    # path: src/shop/cart.py         imports prices.py
    …
    # path: tests/test_cart.py       imports cart.py

In a long context the model then reads a definition before its uses (DeepSeek-Coder §2.2). A file begins with its
path, in a comment of its language.

`reading_order` walks the files by path and puts before each one whatever it imports that has not come yet, in the
order of its imports, and before those what they import: depth first, so that a dependency stands close to its
first use. Cycles are opened first where few imports are lost. A file then comes before one that it imports only
where the two are on a cycle. DeepSeek's Algorithm 1, which takes the file with the fewest dependencies still to
come, also places files that merely use a cycle before it, and gets cycles wrong more often: over 51 packages it
put 84 % of the imports before their use, this order 95 %, the order of paths 54 %
(`benchmarks/corpus/repository.py`).

A file without any link (a README, a table, a configuration) stands before the first linked file of its own folder
or below, or of the nearest folder above that has one: the repository's README comes first, data beside its code.

DeepSeek makes one sample of each connected part of the graph. Here a document is the whole repository: the files
without links (documentation, configuration, most fixtures) would be samples of one file each, and the stage that
reads these documents exists to fill its long context.

Left out on purpose: cutting a file (whoever packs rows cuts to length), and imports across repositories.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import groupby

from midspan.corpus.document import Document
from midspan.corpus.imports import Files, dependencies
from midspan.corpus.imports.scan import ancestors, by_folder
from midspan.errors import InputError

_COMMENTS = {
    ("// ", ""): "apinotes asciidoc aspectj c c# c++ cuda cue dart f# gleam go go-mod groovy hlsl java javascript "
    "json json5 jsonnet kotlin less metal modulemap objective-c objective-c++ pascal php prisma proto qml rust "
    "sass scala scss solidity stylus swift system-verilog thrift typescript vala verilog zig",
    ("<!-- ", " -->"): "astro dtd html markdown mdx myst plist quarto svelte vue xml",
    ("/* ", " */"): "css",
    ("-- ", ""): "elm haskell lean lua luau purescript sql vhdl",
    ("; ", ""): "asm beancount clojure ini scheme",
    ("% ", ""): "bib erlang tex",
    ("(* ", " *)"): "ocaml",
    ("{# ", " #}"): "jinja twig",
    ("<%# ", " %>"): "ejs erb",
    ("{{! ", " }}"): "handlebars mustache",
    (".. ", ""): "rst",
    ("! ", ""): "fortran",
    ('" ', ""): "vim",
    ("' ", ""): "vb",
    ("REM ", ""): "batch",
}
"""What stands before and after a comment: its languages. All others take "# "."""

_COMMENT_OF = {language: marks for marks, languages in _COMMENTS.items() for language in languages.split()}


def path_header(path: str, language: str) -> str:
    """One line, with its end, that names a file in a comment of its language."""
    before, after = _COMMENT_OF.get(language, ("# ", ""))
    name = path.replace("\n", "\\n")
    return f"{before}path: {name}{after}\n"


def reading_order(files: Files) -> list[str]:
    """Every path once, dependencies first; the same whatever the order of `files`.

    Args:
        files: path → (language, text) of one repository.
    """
    return order(dependencies(files))


def order(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """The order of `reading_order` for a graph: path → the paths that it needs, with an entry for each path."""
    linked = {path for path, needed in needs.items() if needed}.union(*needs.values())
    hosts = {""}.union(*(ancestors(path.rpartition("/")[0]) for path in linked))
    guests: dict[str, list[str]] = {}
    for path in sorted(needs.keys() - linked, key=_readme_first):
        host = next(folder for folder in ancestors(path.rpartition("/")[0]) if folder in hosts)
        guests.setdefault(host, []).append(path)
    found = guests.pop("", [])
    opened = _without_cycles({path: needs[path] for path in sorted(linked, key=by_folder)})
    for path in _depth_first(opened, opened, set()):
        for folder in reversed(list(ancestors(path.rpartition("/")[0]))):
            found += guests.pop(folder, ())
        found.append(path)
    return found


def _readme_first(path: str) -> tuple[str, bool, str]:
    folder, _, name = path.rpartition("/")
    return by_folder(folder), not name.lower().startswith("readme"), name


def _depth_first(starts: Iterable[str], links: Mapping[str, Sequence[str]], begun: set[str]) -> Iterator[str]:
    """Each path after what it leads to, passing over `begun`; no recursion, for chains may be long."""
    for start in starts:
        stack = [(start, iter(links[start]))] if start not in begun else []
        begun.add(start)
        while stack:
            following = next((other for other in stack[-1][1] if other not in begun), None)
            if following is None:
                yield stack.pop()[0]
            else:
                begun.add(following)
                stack.append((following, iter(links[following])))


def _without_cycles(needs: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """The graph with every cycle opened: of the edges inside a strongly connected part, some are left out.

    Kosaraju: on the reversed edges, depth first from the paths that finished last, each start finds its part.
    """
    users = _reversed(needs)
    begun: set[str] = set()
    opened = dict(needs)
    for start in reversed(list(_depth_first(needs, needs, set()))):
        part = set(_depth_first([start], users, begun))
        if len(part) > 1:
            place = {path: index for index, path in enumerate(_least_late(part, needs))}
            for path in part:
                opened[path] = [other for other in needs[path] if other not in part or place[other] < place[path]]
    return opened


def _least_late(part: set[str], needs: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """An order of a strongly connected part in which few paths come before one that they need.

    Next is a path that lacks nothing, else the one that the most others wait for, less what it lacks itself
    (after Eades, Lin and Smyth, "A fast and effective heuristic for the feedback arc set problem", 1993).
    """
    paths = sorted(part)
    number = {path: index for index, path in enumerate(paths)}
    inner = [[number[other] for other in needs[path] if other in part] for path in paths]
    users: list[list[int]] = [[] for _ in paths]
    for index, needed in enumerate(inner):
        for other in needed:
            users[other].append(index)
    lacks, awaited = [len(needed) for needed in inner], [len(several) for several in users]
    count = len(paths)

    def entry(index: int) -> int:  # one number, for a heap of tuples takes twice the time
        return ((lacks[index] > 0) * (1 << 40) + lacks[index] - awaited[index]) * count + index

    waiting = [entry(index) for index in range(count)]
    heapify(waiting)
    done = [False] * count
    while waiting:
        first = heappop(waiting)
        index = first % count
        if done[index]:
            continue
        if first < entry(index):  # it was worth more when it was put there
            heappush(waiting, entry(index))
            continue
        done[index] = True
        yield paths[index]
        for other in inner[index]:
            awaited[other] -= 1
        for other in users[index]:
            lacks[other] -= 1
            if not done[other]:
                heappush(waiting, entry(other))


def _reversed(links: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    back: dict[str, list[str]] = {path: [] for path in links}
    for path, others in links.items():
        for other in others:
            back[other].append(path)
    return back


def repository_documents(documents: Iterable[Document], *, max_chars: int | None = None) -> Iterator[Document]:
    """One document for each repository, in the order in which the repositories come.

    Args:
        documents: files; those of one (source, group) must follow each other. Memory holds one repository.
        max_chars: a longer repository becomes several documents, each of as many files in reading order as fit;
            a file that is longer by itself stands alone, whole. None makes one document of any length.

    Yields:
        Documents with path "", or "part-1", "part-2" and so on where there are several. The language is the one
        with the most bytes, the commit that of the first file.

    Raises:
        InputError: `max_chars` is not positive.
    """
    if max_chars is not None and max_chars < 1:
        raise InputError(f"max_chars is {max_chars}; give a positive number of characters, or leave it out")
    for _, files in groupby(documents, key=lambda document: (document.source, document.group)):
        of_path: dict[str, list[Document]] = {}
        for document in files:
            of_path.setdefault(document.path, []).append(document)
        paths = reading_order({path: (same[0].language, same[0].text) for path, same in of_path.items()})
        parts = list(_split([document for path in paths for document in of_path[path]], max_chars))
        for number, part in enumerate(parts, 1):
            yield _joined(part, f"part-{number}" if len(parts) > 1 else "")


def _section(document: Document) -> str:
    return path_header(document.path, document.language) + document.text.rstrip("\n") + "\n"


def _split(documents: Iterable[Document], max_chars: int | None) -> Iterator[list[Document]]:
    part: list[Document] = []
    length = 0
    for document in documents:
        more = len(_section(document))
        if part and max_chars is not None and length + more > max_chars:
            yield part
            part, length = [], 0
        part.append(document)
        length += more
    yield part


def _joined(documents: Sequence[Document], path: str) -> Document:
    size: Counter[str] = Counter()
    for document in documents:
        size[document.language] += len(document.text.encode())
    return Document(
        source=documents[0].source,
        group=documents[0].group,
        path=path,
        text="".join(map(_section, documents)),
        language=min(size, key=lambda language: (-size[language], language)),
        commit=documents[0].commit,
    )
