"""What one file says of licences: in its header, as a licence file, and as a package's description.

    header_licences     an SPDX tag, or the notices in its first 100 lines: our phrases, at 70 MB/s
    text_licences       the licences whose whole texts it holds: `licenseclassifier`, for licence files only
    declared_licences   what pyproject.toml, package.json, METADATA … name

`licenseclassifier` is a port of Google's licensecheck: offline, 700 licences, several in one text, a millisecond
a file. pyaskalono reads its store anew for each text (0.9 s), names one licence only, and takes the Apache licence
of `requests` for Pixar's.

What is read and not recognised is `LicenseRef-unknown`, never nothing: unknown terms are no permission.

Left out on purpose: README files, which talk about licences, and notices of third parties, which say nothing of
the files beside them.
"""

import json
import re
import string
import tomllib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from licenseclassifier import identify_license

from midspan.corpus.language import OTHER as OTHER_LANGUAGE
from midspan.corpus.language import file_name, language_of
from midspan.corpus.licence_expression import ALL_RIGHTS_RESERVED, UNKNOWN, canonical, leaves, licence_named
from midspan.corpus.licence_names import NOTICES

# ------------------------------------------------------------------------------------------ headers

HEAD_LINES = 100
HEAD_CHARACTERS = 12_000

_SPDX_TAG = re.compile(r"SPDX-License-Identifier:[ \t]*([\w.+:() \t/-]{1,200})")
_NAMED = re.compile(
    r"[\n \t*#/](?:__licen[sc]e__[ \t]*=[ \t]*[ubr]?[\"']|@licen[sc]e[ \t:]+|[Ll]icen[sc]e:[ \t]+)([^\"'\n]{1,80})"
)
_TALKS = ("licen", "permission", "public domain", "rights reserved", "redistribut", "proprietary", "copyright")

_KEPT = (string.ascii_letters + string.digits + ".+").encode()
_WORDS = bytes(value if value in _KEPT else 32 for value in range(256)).lower()

_GNU = re.compile(
    r"\bgnu (lesser |library |library or lesser |affero )?general public licen[cs]e\b|"
    r"\b([al])?gpl(?= ?v?(?:ersion )?\d)"
)
_GNU_NAMES = {"": "GPL", "l": "LGPL", "a": "AGPL"}
_GNU_FIRST = {"GPL": "GPL-1.0-or-later", "LGPL": "LGPL-2.0-or-later", "AGPL": "AGPL-1.0-or-later"}
_VERSION_AFTER = re.compile(r"^ ?v?([123](?:\.[01])?)\b(?!\.\d)|\bv(?:ersion )?([123](?:\.[01])?)\b(?!\.\d)")
_VERSION_BEFORE = re.compile(r"\bversion ([123](?:\.[01])?) of the $")
_UNDER = re.compile(r"\blicen[cs]|\bunder\b|\bterms\b")
_LATER = re.compile(r"any later version|or later|or newer|\d\+")
_CHOICE = re.compile(
    r"\balternatively\b|\bdual\b|\bat your option\b(?! any later)|\beither (?:of|the)\b|\bchoice of\b"
)


def _words(text: str) -> str:
    """Words in lower case with single blanks between them: comment signs, line ends and hyphens are gone."""
    plain = b" ".join(text.encode("utf-8", "surrogatepass").translate(_WORDS).split()).decode()
    return f" {plain} ".replace(". ", " ")


def _grants(words: str) -> list[str]:
    """The permissive families whose notice is the licence itself."""
    found = []
    if "permission is hereby granted free of charge to any person obtaining a copy" in words:
        if "shall be used for good not evil" in words:
            found.append("JSON")
        elif "except as contained in this notice the name" in words:
            found.append("X11")
        else:
            found.append("MIT")
    if "redistribution and use in source and binary forms" in words:
        if "all advertising materials mentioning" in words:
            found.append("BSD-4-Clause")
        else:
            found.append("BSD-3-Clause" if "to endorse or promote products" in words else "BSD-2-Clause")
    if "for any purpose with or without fee is hereby granted" in words:
        found.append("ISC" if "granted provided that the above copyright" in words else "0BSD")
    elif "distribute and sell this software and its documentation for any purpose is hereby granted" in words:
        found.append("MIT-open-group" if "open group" in words else "HPND-sell-variant")
    elif "permission to use copy modify" in words and "without fee is hereby granted provided" in words:
        found.append("HPND")
    return found


def _gnu(words: str) -> list[str]:
    """GNU licences with their version, and whether a later one will do.

    A mention without a version counts only as "under the terms of" a licence that no other mention dates.
    """
    dated: dict[str, str] = {}
    undated: dict[str, str] = {}
    mentions = list(_GNU.finditer(words))
    for index, mention in enumerate(mentions):
        end = mentions[index + 1].start() if index + 1 < len(mentions) else len(words)
        name = _GNU_NAMES[(mention[1] or mention[2] or "")[:1]]
        after = words[mention.end() : min(end, mention.end() + 220)]
        before = words[max(mention.start() - 60, 0) : mention.start()]
        if mention[0].endswith("gpl") and not _UNDER.search(before):
            continue  # a name in a list, or in code
        version = _VERSION_AFTER.search(after[:160]) or _VERSION_BEFORE.search(before)
        if version is not None:
            number = next(filter(None, version.groups()))
            later = "or-later" if _LATER.search(after) else "only"
            dated.setdefault(name, f"{name}-{number if '.' in number else number + '.0'}-{later}")
        elif "under the terms of the" in before:
            undated.setdefault(name, _GNU_FIRST[name])
    exception = " WITH GCC-exception-3.1" if "runtime library exception" in words else ""
    return [licence + (exception if name == "GPL" else "") for name, licence in (undated | dated).items()]


def _tagged(tag: str) -> str:
    """A tag's expression, or the identifier that it begins with, where prose or a comment's end follows."""
    return canonical(tag.strip(" \t-/")) or canonical(tag.split()[0] if tag.split() else "") or UNKNOWN


def header_licences(text: str) -> tuple[str, ...]:
    """What the first `HEAD_LINES` lines of a file say of its licence, as SPDX expressions that all apply.

    An `SPDX-License-Identifier` decides, and is `LicenseRef-unknown` where SPDX does not know it; else the notices
    that are known (`licence_names.py`), which a choice ("either", "dual", "at your option", "alternatively") joins
    by OR; else `LicenseRef-all-rights-reserved` for a bare claim; else nothing.
    """
    head = "\n".join(text[:HEAD_CHARACTERS].split("\n", HEAD_LINES)[:HEAD_LINES])
    words = _words(head)
    if "gpl" not in words and not any(word in words for word in _TALKS):
        return ()
    tags = _SPDX_TAG.findall(head)
    if tags:
        return tuple(dict.fromkeys(map(_tagged, tags)))
    found = [spdx for notice, spdx in NOTICES if notice in words]
    found += _grants(words) + _gnu(words)
    found += filter(None, (licence_named(name) for name in _NAMED.findall(f"\n{head}")))
    licences = list(dict.fromkeys(found))
    if any(spdx.startswith("BSD-") for spdx in licences):
        licences = [spdx for spdx in licences if spdx != "LicenseRef-BSD"]
    for spdx in licences:
        if " OR " in spdx and set(licences) <= {spdx, *(leaves(spdx) or ())}:
            return (spdx,)
    if len(licences) > 1 and _CHOICE.search(words):
        return (" OR ".join(licences),)
    if not licences and "all rights reserved" in words:
        return (ALL_RIGHTS_RESERVED,)
    return tuple(licences)


# ------------------------------------------------------------------------------------ licence files

_LICENCE_NAME = re.compile(
    r"(?:|.*[-_. ])(?:(?:un)?li[cs]en[cs]es?|legal|copy(?:left|right|ing)(?:v?\d)?|[al]?gpl[-_ v]?(?:\d\.?\d?)?|"
    r"bsdl?|mitx?|apache|artistic|eupl|mpl|cc0)(?:|[-_. ].*)"
)
_OF_OTHERS = re.compile(
    r".*(?:third|3rd|bundled|external|vendor|dependenc|notice)|(?:authors|contributors|credits|readme|thanks)\b"
)
_POINTER = re.compile(
    r"\b(?:LICEN[CS]E|COPYING)[-._/]\w+|\b(?:in|see) (?:the )?(?:file )?(?:LICEN[CS]E|COPYING)", re.IGNORECASE
)
_PROSE = frozenset({OTHER_LANGUAGE, "text", "markdown", "rst", "asciidoc", "html", "roff"})  # .1 is of a version
LICENCE_FOLDERS = frozenset({"licenses", "licences", "license", "licence"})


def is_licence_file(path: str) -> bool:
    """Whether a file is named as the licence of the files beside and below it.

    The rule of go-license-detector (`investigation.go`: LICENSE, LICENCE, COPYING, UNLICENSE, gpl-3.0.txt …), all
    files of a folder `LICENSES` (REUSE) and of `*.dist-info/licenses`, as far as they hold prose and not code;
    but not the collected licences of third parties.
    """
    name = file_name(path).lower()
    folder = file_name(path[: max(path.rfind("/"), 0)]).lower()
    named = folder in LICENCE_FOLDERS or _LICENCE_NAME.fullmatch(name[:200])
    return bool(named) and not _OF_OTHERS.match(name) and language_of(name) in _PROSE


MAX_LICENCE_CHARACTERS = 256 << 10
"""How much of a licence file is read: 0.15 s of work; longer ones collect the licences of third parties."""

_COPYRIGHT_LINE = re.compile(
    r"^[\W\d]{0,20}(?:portions )?(?:copyright|\(c\)|©|all rights reserved).*$", re.IGNORECASE | re.MULTILINE
)
_TERMS = re.compile(
    r" (?:permission is|is granted|grants? (?:you|of|to)|non ?commercial|prohibited|may not|must not|shall not|"
    r"not permitted|forbidden|commons clause|provided that|redistribut\w+|confidential|proprietary) "
)

# The text of such a licence alone does not grant the use of a later version.
_GNU_TEXTS = frozenset(
    {"AGPL-3.0", "GPL-1.0", "GPL-2.0", "GPL-3.0", "LGPL-2.0", "LGPL-2.1", "LGPL-3.0"}
    | {"GFDL-1.1", "GFDL-1.2", "GFDL-1.3"}
)

# After its own licence, a distribution lists what it carries: other people's files under other people's terms.
_BUNDLED = re.compile(
    r"\bbundle[sd]?\b|\bthird[- ]part(?:y|ies)\b|\b3rd[- ]party\b|\bsub-?components?\b|\bvendored\b|"
    r"\bbinary distribution|\bother licen[cs]es\b",
    re.IGNORECASE,
)


@lru_cache(maxsize=64)
def text_licences(text: str) -> tuple[str, ...]:
    """The licences whose texts or notices a licence file holds, in its order, as SPDX identifiers.

    `LicenseRef-unknown` stands for what is left over and speaks of terms (a clause that was added, a licence that
    nobody knows), and for a text in which nothing is recognised. What follows an announcement of bundled works is
    not the licence of the files beside. An empty text, and one that points to other files, says nothing.
    """
    text = text[:MAX_LICENCE_CHARACTERS]
    if not text.strip():
        return ()
    found: dict[str, None] = {}
    rest, end = [], 0
    matches = identify_license(text, coverage_threshold=0.0)
    for start, stop, spdx in [*((match.start, match.end, match.id) for match in matches), (len(text), 0, "")]:
        between = text[end:start]
        if found and _BUNDLED.search(between):
            break
        granted = _grants(_words(between)) if matches else []  # a variant that licenseclassifier does not have
        found |= dict.fromkeys(granted)
        if not granted:
            rest.append(between)
        if spdx:
            found[f"{spdx}-only" if spdx in _GNU_TEXTS else spdx] = None
        end = stop
    if not found:
        named = licence_named(text) if len(text) < 200 else None
        said = (named,) if named is not None else header_licences(text)
        found = dict.fromkeys(spdx for spdx in said if spdx != ALL_RIGHTS_RESERVED)
        if not found and len(text) < 1000 and _POINTER.search(text):
            return ()
    if not found or (matches and _TERMS.search(_words(_COPYRIGHT_LINE.sub("", "\n".join(rest))))):
        found[UNKNOWN] = None
    return tuple(found)


# ------------------------------------------------------------------------------------- declarations

DECLARING = frozenset(
    {"bower.json", "cargo.toml", "composer.json", "description", "metadata", "package.json", "pkg-info"}
    | {"pyproject.toml", "setup.cfg"}
)
"""Names of package descriptions, in lower case."""


def declared_licences(path: str, text: str) -> tuple[str, ...]:
    """What a package's own description declares (`DECLARING`), as SPDX expressions that all apply.

    A name that is not known becomes `LicenseRef-` and the name. A file that cannot be read declares nothing.
    """
    name = file_name(path).lower()
    if name not in DECLARING or len(text) > 1 << 20:
        return ()
    try:
        names = list(_declared(name, text))
    except (ValueError, RecursionError, AttributeError, TypeError):  # of hand-written files, anything
        return ()
    licences: list[str] = []
    for written in names:
        if isinstance(written, str) and written.strip() and written.strip().lower() not in _NOT_SAID:
            known = licence_named(written) if len(written) < 200 else None
            long = text_licences(written) if known is None and len(written) >= 200 else ()
            slug = re.sub(r"[^A-Za-z0-9.]+", "-", written.strip())[:60].strip("-")
            licences += long or (known or f"LicenseRef-{slug or 'unknown'}",)
    return tuple(dict.fromkeys(licences))


_NOT_SAID = frozenset({"unknown", "none", "see license", "see license file", "dual license", "other"})


def _declared(name: str, text: str) -> Iterable[Any]:
    if name.endswith(".json"):
        description = json.loads(text)
        licences = description.get("license") or description.get("licenses") or ()
        for licence in licences if isinstance(licences, list) else [licences]:
            said = licence.get("type") if isinstance(licence, dict) else licence
            if isinstance(said, str) and not said.upper().startswith("SEE LICENSE"):
                yield said
    elif name == "cargo.toml":
        yield tomllib.loads(text).get("package", {}).get("license")
    elif name == "pyproject.toml":
        description = tomllib.loads(text)
        project = description.get("project") or description.get("tool", {}).get("poetry", {})
        licence = project.get("license")
        said = licence.get("text") if isinstance(licence, dict) else licence
        yield from [said] if said else _classified(project.get("classifiers", ()))
    elif name == "setup.cfg":
        said = re.search(r"^licen[sc]e[ \t]*=[ \t]*(\S[^\n]*)", text, re.MULTILINE)
        yield from [said[1]] if said else _classified(text.split("\n"))
    else:  # core metadata, and R's DESCRIPTION, are headers as in mail
        head = text.partition("\n\n")[0]
        said = re.search(r"^License-Expression:[ \t]*([^\n]+)", head, re.MULTILINE)
        said = said or re.search(r"^License:[ \t]*([^\n]+(?:\n[ \t|]+[^\n]*)*)", head, re.MULTILINE)
        classified = list(_classified(head.split("\n")))
        known = said is not None and licence_named(said[1]) is not None
        yield from [said[1]] if said and (known or not classified) else classified


def _classified(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        _, found, said = line.partition("License :: ")
        if found:
            yield said.rpartition("::")[2].strip(" \t\"',")
