"""What a C, C++, Objective-C or CUDA file includes.

`#include "x"` is looked for beside the file; then it, like `#include <x>`, is any file of the repository whose
path ends in `/x`, the one that shares the most folders with the including file if there are several: the
compiler's include folders are not known. `<string.h>` and its like name the system's header whatever the
repository holds, unless an `include` folder holds it: then the repository is a C library.

Left out on purpose: conditions (`#if 0`) and includes through a macro.
"""

import re
from collections.abc import Iterator
from posixpath import normpath

from midspan.corpus.imports.scan import COMMENTS, QUOTED, Files, by_folder, in_code, join, nearest

LANGUAGES = frozenset({"c", "c++", "objective-c", "objective-c++", "cuda"})

_NOISE = re.compile(
    rf"""{COMMENTS}
    | (?:\b|(?<=[uUL8]))R"(?P<mark>[^()\s\\]{{0,16}})\((?:[^)]++|\)(?!(?P=mark)"))*+(?:\)(?P=mark)")?+
    | (?<=\d)'  # between digits
    | {QUOTED}""",
    re.VERBOSE | re.DOTALL,
)
_INCLUDE = re.compile(
    r"""\n[ \t]*+\#[ \t]*+(?:include(?:_next)?|import)\b[ \t]*+(?:/\*[^*\n]*+\*/[ \t]*+)?+
    (?: "([^"\n]{1,1000}+)" | <([^>\n]{1,1000}+)>)""",
    re.VERBOSE,
)
_SYSTEM = re.compile(  # the C standard's headers, then those of POSIX whose names are everyday words
    r"""(?: assert | complex | ctype | errno | fenv | float | inttypes | iso646 | limits | locale | math | setjmp
    | signal | stdalign | stdarg | stdatomic | stdbit | stdbool | stdckdint | stddef | stdint | stdio | stdlib
    | stdnoreturn | string | tgmath | threads | time | uchar | wchar | wctype
    | dirent | fcntl | memory | poll | pthread | sched | search | strings | syslog | unistd )\.h""",
    re.VERBOSE,
)


def includes(text: str) -> list[tuple[str, bool]]:
    """The included names in order, and whether each stood in quotes."""
    text = f"\n{text}"
    found = in_code(_INCLUDE.finditer(text), _NOISE, text)
    return [(match[1] or match[2], match[1] is not None) for match in found]


class C:
    """The files of one repository by the ends of their paths."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._includes = {path: includes(text) for path, (kind, text) in files.items() if kind in LANGUAGES}
        asked = {_end(*include) for found in self._includes.values() for include in found}
        self._ends: dict[str, list[str]] = {}
        for path in sorted(files, key=by_folder):
            end = path
            while end:
                if end in asked:
                    self._ends.setdefault(end, []).append(path)
                end = end.partition("/")[2]

    def imported(self, path: str, text: str) -> Iterator[str]:
        """The files that one file includes, in order, perhaps more than once."""
        del text  # scanned when the repository was
        folder = path.rpartition("/")[0]
        for name, quoted in self._includes[path]:
            beside = normpath(join(folder, name))
            if quoted and beside in self._files:
                yield beside
                continue
            end = _end(name, quoted)
            if end in self._ends:
                yield nearest(self._ends[end], path)


def _end(name: str, quoted: bool) -> str:
    """What the path of an included file ends in."""
    end = normpath(name).lstrip("/")
    while end.startswith("../"):
        end = end.removeprefix("../")
    return f"include/{end}" if not quoted and _SYSTEM.fullmatch(end) else end
