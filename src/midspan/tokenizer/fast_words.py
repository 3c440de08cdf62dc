"""Where the words of a text end: the pre-tokenisers of the families as tables that a compiled loop follows.

A byte-pair encoder merges inside words only, so this decides what may be looked up as a whole. A family's regular
expressions are worked out by hand into a transducer: for the state that the text so far has led to and the class
of the next character, the next state and where words end now. A run of white space shows why "now" may be late:

    characters     x  \\n  _  _  y          GPT-4's expressions, and _ for a blank
    states         let nl0 nw1 nw2 let
    words          x| \\n| _| _  y          only y tells that \\n was the last newline, and that it takes one blank

so a word can end at the current character, at the one before, or behind the last newline.

    kind      regular expressions                                              families
    gpt2      GPT-2's; for `digits` 1, numbers were cut out first              GPT-2 (0), SmolLM2, StarCoder (1)
    gpt4      one expression, numbers in groups of up to `digits`              Llama 3 (3), Qwen (1)
    deepseek  newlines, letters, punctuation, CJK, numbers, each in turn       DeepSeek-Coder

What a letter, a number, a space and a punctuation mark is comes as a table, made from the library whose ids have
to be met.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

LETTER, NUMBER, WHITE, PUNCTUATION, CJK = 1, 2, 4, 8, 16
AT_MARK, AT_PREVIOUS, AT_CURRENT, SET_MARK = 1, 2, 4, 8
"""Where a word ends when a character is read: behind the last newline, before the character before it, before it;
and whether it is a newline, behind which the mark is set. No two of them mean the same place."""
START, END = "start", "end"
"""The state before the first character, and the class of the end of a text, where a word ends in any case."""
COLUMNS = 16
"""Of a table; the last is END's."""

Rule = Callable[[str, str], tuple[str, int]]
"""From a state and a class to the next state and the sum of what happens."""


def table_of(rule: Rule, classes: Sequence[str]) -> np.ndarray:
    """A transducer as a table: at state * COLUMNS + class, next state * 256 + what happens, int64."""
    states, rows = [START], []
    for state in states:  # grows as new ones are met
        row = np.zeros(COLUMNS, np.int64)
        for column, name in (*enumerate(classes), (COLUMNS - 1, END)):
            following, happens = rule(state, name)
            if name == END:
                following = START
            if following not in states:
                states.append(following)
            row[column] = states.index(following) << 8 | happens
        rows.append(row)
    return np.concatenate(rows)


def gpt2(digits: int) -> np.ndarray:
    """GPT-2's words; with `digits`, each number is one of its own and the rest does not see it."""

    def rule(state: str, name: str) -> tuple[str, int]:
        letter, other = name in _LETTERS, name in ("other", "apostrophe")
        if state == START:
            return begin(name), 0
        if (state, name) in (("apo", "stmd"), ("apr", "e"), ("apl", "l")):
            return "con", 0
        if state == "apo" and name in ("rv", "l"):
            return "apr" if name == "rv" else "apl", 0
        if state in ("apr", "apl"):  # no contraction: the letter is a word's first
            return ("let", AT_PREVIOUS) if letter else (begin(name), AT_PREVIOUS | AT_CURRENT)
        if (state == "let" and letter) or (state == "num" and name == "number" and not digits):
            return state, 0
        if state in ("apo", "oth") and other:
            return "oth", 0
        if state[0] not in "12":
            return begin(name), AT_CURRENT
        # A run of white space, of one character or more: its last blank goes with what follows it.
        if name in ("blank", "white", "newline"):
            return ("2b" if name == "blank" else "2w"), 0
        if name == END or (name == "number" and digits):
            return begin(name), AT_CURRENT
        before = AT_PREVIOUS if state[0] == "2" else 0
        if state[1] == "b":
            return ("oth" if other else begin(name)), before
        return begin(name), before | AT_CURRENT

    def begin(name: str) -> str:
        begun = {
            "number": "num",
            "blank": "1b",
            "white": "1w",
            "newline": "1w",
            "apostrophe": "apo",
            "other": "oth",
        }
        return begun.get(name, "let")

    return table_of(rule, _CLASSES)


def gpt4(digits: int) -> np.ndarray:
    """GPT-4's words: letters take one character before them, others take newlines behind them."""

    def rule(state: str, name: str) -> tuple[str, int]:
        letter, other = name in _LETTERS, name in ("other", "apostrophe")
        if (state, name) in (("apo", "stmd"), ("apr", "e"), ("apl", "l")):
            return "con", 0
        if state == "apo" and name in ("rv", "l"):
            return "apr" if name == "rv" else "apl", 0
        if letter and state in ("let", "apo", "apr", "apl", "one", "1b", "1w"):
            return "let", 0
        if other and state in ("one", "apo", "oth", "1b"):
            return "oth", 0
        if name == "newline" and state in ("one", "apo", "oth", "onl"):
            return "onl", 0
        if state.startswith("num") and name == "number" and int(state[3:]) < digits:
            return f"num{int(state[3:]) + 1}", 0
        newline = SET_MARK if name == "newline" else 0
        if state[0] not in "12m":
            return begin(name), newline | (AT_CURRENT if state != START else 0)
        # A run of white space, "m" behind a newline in it: up to its last newline it is a word.
        if newline:
            return "m0", SET_MARK
        marked, last = state[0] == "m", state[-2:]
        if name in ("blank", "white"):
            return "m" * marked + ("1" if last == "m0" else "2") + name[0], 0
        if last == "m0":
            return begin(name), AT_CURRENT
        before = (AT_MARK if marked else 0) | (AT_PREVIOUS if last[0] == "2" and name != END else 0)
        if letter or (other and last[1] == "b"):
            return ("let" if letter else "oth"), before
        return begin(name), before | AT_CURRENT

    def begin(name: str) -> str:
        begun = {
            "number": "num1",
            "blank": "1b",
            "white": "1w",
            "newline": "m0",
            "apostrophe": "apo",
            "other": "one",
        }
        return begun.get(name, "let")

    return table_of(rule, _CLASSES)


def deepseek() -> np.ndarray:
    """DeepSeek-Coder's words: runs of letters or of punctuation take one space, and CJK parts from the rest."""

    def rule(state: str, name: str) -> tuple[str, int]:
        """A state is the class of the word's characters; "V" is a run of others that ends in a space."""
        body = name[0] in "LP"
        if name in ("N", "newline", END) or state in ("N", "newline", START) or state[1] != name[1]:
            behind = AT_PREVIOUS if state[0] == "V" and body else 0
            return name, behind | (AT_CURRENT if state != START else 0)
        if body:
            joins = state[0] in (name[0], "W")
            return name, 0 if joins else AT_PREVIOUS if state[0] == "V" else AT_CURRENT
        if state[0] in "LP":
            return name, AT_CURRENT
        return ("V" if name[0] == "W" else "O") + name[1], 0

    return table_of(rule, _DEEPSEEK_CLASSES)


_LETTERS = ("letter", "stmd", "rv", "e", "l")
_CLASSES = (*_LETTERS, "number", "blank", "white", "newline", "apostrophe", "other")
_DEEPSEEK_CLASSES = (*(part + cjk for part in "LPWO" for cjk in "cn"), "N", "newline")


def gpt_classes(classes: np.ndarray, *, any_case: bool) -> np.ndarray:
    """The classes that `gpt2` and (with `any_case`) `gpt4` read, by code point, uint8."""
    found = np.full(len(classes), _CLASSES.index("other"), np.uint8)
    for bit, name in ((LETTER, "letter"), (NUMBER, "number"), (WHITE, "white")):
        found[(classes & bit) > 0] = _CLASSES.index(name)
    of_contractions = ("stmdSTMDſ", "rvRV", "eE", "lL") if any_case else ("stmd", "rv", "e", "l")
    named = dict(zip(_LETTERS[1:], of_contractions, strict=True))
    for name, characters in (named | {"newline": "\r\n", "blank": " ", "apostrophe": "'"}).items():
        found[[ord(character) for character in characters]] = _CLASSES.index(name)
    return found


def deepseek_classes(classes: np.ndarray) -> np.ndarray:
    """The classes that `deepseek` reads, by code point, uint8."""
    part = np.select([(classes & bit) > 0 for bit in (LETTER, PUNCTUATION, WHITE)], [0, 2, 4], 6)
    found = (part + ((classes & CJK) == 0)).astype(np.uint8)
    found[(classes & NUMBER) > 0] = _DEEPSEEK_CLASSES.index("N")
    found[[ord("\r"), ord("\n")]] = _DEEPSEEK_CLASSES.index("newline")
    return found
