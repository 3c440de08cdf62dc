import pytest
from hypothesis import given
from hypothesis import strategies as st

from midspan.corpus import HELD_OUT, TRAIN
from midspan.corpus.split import HeldOut
from midspan.errors import InputError

NAMES = [f"package-{index}" for index in range(4000)]


def test_the_split_of_a_name_never_changes():
    # A golden list: a changed hash would move held-out code into training.
    rule = HeldOut(share=0.01, seed=7)
    found = [index for index, name in enumerate(NAMES[:400]) if rule.split(name) == HELD_OUT]
    assert found == [1, 94, 110, 114, 115, 169, 192, 247]


@given(st.lists(st.text(), unique=True), st.randoms(), st.floats(0, 0.99), st.integers())
def test_neither_order_nor_company_matters(groups, random, share, seed):
    rule = HeldOut(share=share, seed=seed)
    splits = {group: rule.split(group) for group in groups}
    random.shuffle(groups)
    assert all(rule.split(group) == splits[group] for group in groups[: len(groups) // 2])


def test_the_share_is_met_and_a_larger_one_only_adds():
    small, large = (
        {name for name in NAMES if HeldOut(share=share).split(name) == HELD_OUT} for share in (0.05, 0.2)
    )
    assert small < large
    assert len(small) / len(NAMES) == pytest.approx(0.05, abs=0.015)
    assert len(large) / len(NAMES) == pytest.approx(0.2, abs=0.025)


def test_another_seed_holds_out_others():
    first, second = (
        {name for name in NAMES if HeldOut(share=0.1, seed=seed).split(name) == HELD_OUT} for seed in (0, 1)
    )
    assert len(first & second) < len(first) / 4  # a tenth by chance


def test_named_groups_are_held_out_by_exact_name():
    rule = HeldOut(groups=frozenset({"json"}))
    assert [rule.split(name) for name in ("json", "jsonschema", "Json")] == [HELD_OUT, TRAIN, TRAIN]


@pytest.mark.parametrize("share", [-0.1, 1.0, 5, float("nan")])
def test_a_share_outside_its_range_is_refused(share):
    with pytest.raises(InputError, match=r"is not in \[0, 1\)"):
        HeldOut(share=share)


def test_an_unknown_name_names_the_nearest_group():
    with pytest.raises(
        InputError, match=r"no group is called 'asyncoi', so it cannot be held out; the nearest is 'asyncio'"
    ):
        HeldOut(groups=frozenset({"asyncoi"})).check({"asyncio", "json"})


def test_a_share_that_takes_no_group_is_said():
    with pytest.raises(
        InputError, match=r"0\.0001 with seed 0 takes none of the 2 groups; .* for example 'asyncio'"
    ):
        HeldOut(share=0.0001).check({"asyncio", "json"})


def test_holding_out_everything_is_refused():
    with pytest.raises(InputError, match="every group is held out"):
        HeldOut(groups=frozenset({"json"})).check({"json"})
