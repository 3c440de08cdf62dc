"""A buffer over time: edits, suggestions that stand while they are typed, and other files as context."""

import random

import pytest

from engine.tiny import TEXT, tiny_model, tiny_tokenizer
from midspan.engine import Engine
from midspan.engine.context import pieces, written
from midspan.engine.session import Session
from midspan.errors import InputError
from midspan.fim.stops import StopRules

TOKENIZER = tiny_tokenizer()
MODEL = tiny_model(TOKENIZER.vocab_size, max_positions=512)


def session(**options: object) -> Session:
    return Session(Engine(MODEL, TOKENIZER, max_batch=2), "a.py", **{"stops": StopRules(), **options})  # type: ignore[arg-type]


def test_edits_are_the_editors() -> None:
    rng, here, text = random.Random(0), session(), TEXT
    here.open(text, 5)
    for _ in range(200):
        start = rng.randrange(len(text) + 1)
        end = rng.randrange(start, min(len(text), start + 6) + 1)
        new = "".join(rng.choices("ab\né", k=rng.randrange(4)))
        here.edit(start, end, new)
        text = text[:start] + new + text[end:]
        assert here.text == text
        assert here.cursor == start + len(new)
    with pytest.raises(InputError, match="lies outside"):
        here.edit(3, len(text) + 1, "")
    with pytest.raises(InputError, match="the cursor is at -1"):
        here.move(-1)


def test_a_suggestion_is_the_engines() -> None:
    here = session()
    here.open(TEXT, 20)
    found = here.suggest(max_tokens=12)
    assert found.text == Engine(MODEL, TOKENIZER).infill(TEXT[:20], TEXT[20:], max_tokens=12).text
    assert found.at == 20


def test_typing_what_was_suggested_asks_nothing() -> None:
    here = session()
    here.open(TEXT, 20)
    first = here.suggest(max_tokens=12)
    assert len(first.text) > 4
    for typed in range(1, len(first.text)):
        here.type(first.text[typed - 1])
        found = here.suggest(max_tokens=12)
        assert found.completion is None
        assert found.text == first.text[typed:]
    here.type(first.text[-1])
    assert here.suggest(max_tokens=12).completion is not None, "it is used up"


def test_a_suggestion_does_not_stand_once_the_text_changes_elsewhere() -> None:
    here = session()
    here.open(TEXT, 20)
    first = here.suggest(max_tokens=12)
    here.type(first.text[0])
    at = here.cursor
    here.edit(len(here.text), len(here.text), "x = 1\n")
    here.move(at)
    found = here.suggest(max_tokens=12)
    assert found.completion is not None
    assert found.text == Engine(MODEL, TOKENIZER).infill(here.text[:at], here.text[at:], max_tokens=12).text


def test_typing_something_else_asks_anew_and_reads_little() -> None:
    here = session()
    here.open(TEXT, 20)
    here.suggest(max_tokens=8)
    here.type("q")
    found = here.suggest(max_tokens=8)
    assert found.completion is not None
    assert found.usage.prompt - found.usage.cached <= 4
    fresh = Engine(MODEL, TOKENIZER).infill(here.text[:21], here.text[21:], max_tokens=8, layout="spm")
    assert found.text == fresh.text


def test_accepting_all_a_line_and_a_word() -> None:
    for what in ("all", "line", "word"):
        here = session()
        here.open(TEXT, 20)
        suggested = here.suggest(max_tokens=20).text
        taken = here.accept(what)  # type: ignore[arg-type]
        assert suggested.startswith(taken)
        assert taken
        assert here.text == TEXT[:20] + taken + TEXT[20:]
        assert here.suggest(max_tokens=20).text == suggested[len(taken) :] or taken == suggested
    here.move(0)
    assert here.accept() == "", "nothing is suggested there"


def test_a_newer_request_cancels_the_older() -> None:
    here = session()
    here.open(TEXT, 20)
    older = here.ask(max_tokens=100)
    here.engine._step()  # type: ignore[attr-defined]
    here.type("q")
    assert here.ask(max_tokens=4).result().finish_reason != "cancelled"
    assert older.result().finish_reason == "cancelled"


def test_warming_reads_ahead() -> None:
    here = session()
    here.open(TEXT, 40)
    here.warm()
    found = here.suggest(max_tokens=4)
    assert found.usage.prompt - found.usage.cached <= 1


FILES = {
    "shop/__init__.py": "",
    "shop/prices.py": "def price_of(item):\n    return item.cents / 100\n",
    "shop/basket.py": "class Basket:\n    def total_price(self, items):\n        return sum(price, items)\n" * 3,
    "README.md": "Nothing alike here.\n",
}
CART = "from shop.prices import price_of\n\n\ndef total_price(self, items):\n    return sum(map(price"


def test_context_takes_imports_first_then_what_is_alike() -> None:
    found = pieces("shop/cart.py", CART, len(CART), FILES, 1000)
    assert [piece.path for piece in found] == ["shop/prices.py", "shop/basket.py"]
    assert found[0].text == FILES["shop/prices.py"]
    text = written(found)
    assert text.index("# path: shop/basket.py\n") < text.index("# path: shop/prices.py\n"), "best nearest"
    for budget in range(0, 300, 7):
        small = pieces("shop/cart.py", CART, len(CART), FILES, budget)
        assert sum(len(piece.text) for piece in small) <= budget
        assert all(piece.text.endswith("\n") for piece in small)


def test_context_stays_while_typing_and_follows_a_jump() -> None:
    files = dict(FILES)
    here = session(files=files)
    here.path = "shop/cart.py"
    here.open(CART + "\n" * 100, len(CART))
    before = here.context()
    assert "price_of(item)" in before
    files["shop/prices.py"] = "changed = 1\n"
    here.type("_of")
    assert here.context() == before
    here.move(len(here.text))
    assert "changed = 1" in here.context()
