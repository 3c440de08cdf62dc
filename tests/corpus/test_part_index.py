import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from midspan.corpus.part_index import MAX_PLACES, NO_DISTANCES, PartIndex, windows

WIDTH = 4
TOKENS = st.lists(st.sampled_from("xyz+-="), min_size=1, max_size=40)  # letters are names


def encoded(tokens):
    """Values (0 for a name) and distances to the last use, one token at a time."""
    last = {}
    distances = []
    for place, token in enumerate(tokens):
        distances.append(place - last.get(token, place) if token.isalpha() else 0)
        last[token] = place
    values = np.array([0 if token.isalpha() else ord(token) for token in tokens], np.uint64)
    return values, np.array(distances, np.int32)


def shape(tokens):
    """Tokens with names numbered by their first use: equal for two pieces that differ by names alone."""
    names = {}
    return tuple(names.setdefault(token, len(names)) if token.isalpha() else token for token in tokens)


@given(TOKENS)
def test_windows_have_one_hash_exactly_if_they_differ_by_names_alone(tokens):
    hashes = windows(*encoded(tokens), WIDTH)
    shapes = [shape(tokens[start : start + WIDTH]) for start in range(len(tokens) - WIDTH + 1)]
    assert len(hashes) == len(shapes)
    assert len({*zip(shapes, hashes.tolist(), strict=True)}) == len({*shapes}) == len({*hashes.tolist()})


@given(st.lists(TOKENS, min_size=1, max_size=6), TOKENS)
def test_parts_with_names_are_found_as_by_looking_everywhere(parts, text):
    by_shape = {shape(part): part for part in parts if len(part) >= WIDTH}
    index, order = PartIndex.build([encoded(part) for part in by_shape.values()], WIDTH)
    chosen = [list(by_shape)[number] for number in order]
    assert sorted(index.find(*encoded(text))) == sorted(
        (number, start, start + len(part))
        for number, part in enumerate(chosen)
        for start in range(len(text) - len(part) + 1)
        if shape(text[start : start + len(part)]) == part
    )


@given(st.lists(st.text("ab", min_size=WIDTH, max_size=12), max_size=8, unique=True), st.text("ab", max_size=30))
def test_bytes_are_found_as_by_looking_everywhere(parts, text):
    def values(string):
        return np.frombuffer(string.encode(), np.uint8)

    index, order = PartIndex.build([(values(part), NO_DISTANCES) for part in parts], WIDTH)
    chosen = [parts[number] for number in order]
    assert sorted(index.find(values(text))) == sorted(
        (number, start, start + len(part))
        for number, part in enumerate(chosen)
        for start in range(len(text))
        if text.startswith(part, start)
    )


def test_a_text_of_repetitions_names_a_part_a_few_times():
    index, _ = PartIndex.build([(np.frombuffer(b"abcdefgh", np.uint8), NO_DISTANCES)], WIDTH)
    found = index.find(np.frombuffer(b"abcdefgh" * 1000, np.uint8))
    assert found == [(0, 8 * place, 8 * place + 8) for place in range(MAX_PLACES)]
