"""SPDX expressions: what licences that apply together amount to, and what a policy says of them.

    "MIT AND (GPL-2.0-only OR Apache-2.0)"  ── leaves ──▶  MIT GPL-2.0-only Apache-2.0 OR AND  ──▶  permissive

AND asks all licences below it, OR any of them; what is not known to be permissive is other. An exception (WITH)
only adds to what its licence allows, so the licence alone is asked. Names that people write ("BSD 3
clause", "Apache 2") become expressions through `licence_names.py`.

Left out on purpose: which licences are compatible with each other.
"""

import re
from collections.abc import Iterable
from typing import Literal

from packaging.licenses import canonicalize_license_expression
from rapidfuzz import process

from midspan.corpus.document import Reason
from midspan.corpus.licence_names import AMENDMENTS, CALLED, PERMISSIVE
from midspan.errors import InputError

Kind = Literal["permissive", "none", "other"]
KINDS: tuple[Kind, ...] = ("permissive", "none", "other")

UNKNOWN = "LicenseRef-unknown"
ALL_RIGHTS_RESERVED = "LicenseRef-all-rights-reserved"


def canonical(expression: str) -> str | None:
    """An SPDX expression in its usual spelling; None where it is malformed, or names what SPDX does not list."""
    try:
        return str(canonicalize_license_expression(expression[:1000]))
    except (ValueError, RecursionError, MemoryError):
        return None


def leaves(expression: str) -> list[str] | None:
    """An expression in reverse Polish order, operators in upper case; None if it is malformed."""
    tokens = re.findall(r"[()]|[^\s()]+", expression[:1000])
    output: list[str] = []
    waiting: list[str] = []
    want_leaf = True
    for index, token in enumerate(tokens):
        operator = token.upper()
        if token == "(":
            if not want_leaf:
                return None
            waiting.append(token)
        elif token == ")":
            while waiting and waiting[-1] != "(":
                output.append(waiting.pop())
            if want_leaf or not waiting:
                return None
            waiting.pop()
        elif operator in ("AND", "OR"):
            if want_leaf:
                return None
            while waiting and waiting[-1] != "(" and (waiting[-1] == "AND" or operator == "OR"):
                output.append(waiting.pop())
            waiting.append(operator)
            want_leaf = True
        elif operator == "WITH":
            if want_leaf:
                return None
        elif index and tokens[index - 1].upper() == "WITH":
            continue  # an exception only adds to what a licence allows
        elif not want_leaf:
            return None
        else:
            output.append(token)
            want_leaf = False
    if want_leaf or "(" in waiting or not tokens or tokens[-1].upper() == "WITH":
        return None
    return output + waiting[::-1]


def _lower(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)


_PERMISSIVE, _AMENDMENTS = _lower(PERMISSIVE), _lower(AMENDMENTS)


def _holds(expression: str, among: frozenset[str]) -> bool | None:
    """Whether an expression is satisfied by licences of a set: by all under AND, by any under OR.

    None for one that holds nothing but amendments, which are left out wherever they stand.
    """
    values: list[bool | None] = []
    for token in leaves(expression) or [UNKNOWN]:
        if token in ("AND", "OR"):
            right, left = values.pop(), values.pop()
            if left is None or right is None:
                values.append(right if left is None else left)
            else:
                values.append((left and right) if token == "AND" else (left or right))
        else:
            name = token.lower()
            held = name in among or (name.endswith("+") and name[:-1] in among)
            values.append(None if name in _AMENDMENTS else held)
    return values[0]


def _all_hold(licences: Iterable[str], among: frozenset[str]) -> bool | None:
    held = [held for held in (_holds(each, among) for each in licences) if held is not None]
    return all(held) if held else None


def kind(licences: Iterable[str]) -> Kind:
    """What licences that all apply amount to: "permissive", "other", or "none" where there are none.

    AND asks all of its licences to be permissive, OR any of them; what is not known to be permissive is other.
    Notes about contributors and trademarks (`AMENDMENTS`) change nothing.
    """
    held = _all_hold(licences, _PERMISSIVE)
    return "none" if held is None else "permissive" if held else "other"


def check_allowed(allowed: Iterable[str]) -> frozenset[str]:
    """A policy's names as a set: kinds, and SPDX identifiers; InputError names the closest for an unknown one."""
    names = set()
    for name in allowed:
        known = name.lower() if name.lower() in KINDS else canonical(name)
        if known is None or " " in known:
            nearest = process.extractOne(name, [*KINDS, *sorted(PERMISSIVE)])[0]
            raise InputError(f"{name!r} is no kind of licence and no SPDX identifier; did you mean {nearest!r}?")
        names.add(known)
    return frozenset(names)


def policy_problem(licences: tuple[str, ...], allowed: frozenset[str]) -> tuple[Reason, str] | None:
    """Why a file's licences keep it out, or None; `allowed` holds kinds and SPDX identifiers (`check_allowed`)."""
    if kind(licences) in allowed:
        return None
    among = _lower(allowed) | (_PERMISSIVE if "permissive" in allowed else frozenset())
    if _all_hold(licences, among):
        return None
    said = " AND ".join(each for each in licences if _holds(each, among) is not None)
    return Reason.LICENCE, f"{said or 'no licence'} is not among {', '.join(sorted(allowed))}"


def licence_named(name: str) -> str | None:
    """What a person or a tool calls a licence → an SPDX expression; None for a name that is not known."""
    name = " ".join(name.split())[:200]
    key = re.sub(r"[\s,_()\"'-]+", " ", name.lower()).strip()
    for called in (key, key.removeprefix("the "), re.sub(r" licen[sc]es?$", "", key.removeprefix("the "))):
        if called in CALLED:
            return CALLED[called]
        known = canonical(called.replace(" ", "-"))
        if known is not None:
            return known
    return canonical(re.sub(r"(?<=[\w.+])\s*/\s*(?=\w)", " OR ", name))
