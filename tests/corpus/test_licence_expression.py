"""SPDX expressions, kinds and policies. The oracle for AND and OR is Python's own logic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midspan.corpus import Reason
from midspan.corpus.licence_expression import canonical, check_allowed, kind, leaves, licence_named, policy_problem
from midspan.corpus.licence_names import AMENDMENTS, CALLED, NOTICES, PERMISSIVE
from midspan.errors import InputError


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        ((), "none"),
        (("MIT",), "permissive"),
        (("mit",), "permissive"),
        (("GPL-3.0-only",), "other"),
        (("GPL-2.0+",), "other"),
        (("Apache-2.0+",), "permissive"),
        (("MIT", "BSD-3-Clause"), "permissive"),
        (("MIT", "GPL-3.0-only"), "other"),
        (("MIT OR GPL-3.0-only",), "permissive"),
        (("MIT AND GPL-3.0-only",), "other"),
        (("GPL-2.0-only OR (MIT AND Zlib)",), "permissive"),
        (("GPL-2.0-only OR MIT AND MPL-2.0",), "other"),
        (("(GPL-2.0-only OR MIT) AND ISC",), "permissive"),
        (("Apache-2.0 WITH LLVM-exception",), "permissive"),
        (("GPL-2.0-only WITH Classpath-exception-2.0",), "other"),
        (("LicenseRef-unknown",), "other"),
        (("Strange-1.0",), "other"),
        (("MIT MIT",), "other"),
        (("((MIT)",), "other"),
        (("",), "other"),
        (("LicenseRef-CLA",), "none"),
        (("LicenseRef-CLA", "MIT"), "permissive"),
        (("MIT AND LicenseRef-trademark",), "permissive"),
        (("LicenseRef-DCO", "GPL-2.0-only"), "other"),
        (("GPL-2.0-only OR LicenseRef-DCO",), "other"),
        (("MIT OR LicenseRef-DCO",), "permissive"),
        (("LicenseRef-CLA AND LicenseRef-DCO",), "none"),
    ],
)
def test_kinds(licences, expected):
    assert kind(licences) == expected


@given(
    st.recursive(
        st.sampled_from(["MIT", "GPL-2.0-only"]),
        lambda inner: st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(
            lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
        ),
    )
)
def test_kinds_are_those_of_python_s_own_logic(expression):
    python = (
        expression.replace("MIT", "True")
        .replace("GPL-2.0-only", "False")
        .replace("AND", "and")
        .replace("OR", "or")
    )
    assert (kind((expression,)) == "permissive") is eval(python)


@given(
    st.lists(st.sampled_from(["(", ")", "MIT", "AND", "or", "WITH", "x", "+", "-"]), max_size=12).map(" ".join)
    | st.text()
)
def test_no_expression_raises(expression):
    assert kind((expression,)) in ("permissive", "none", "other")
    assert leaves(expression) is None or "(" not in leaves(expression)
    licence_named(expression)


def test_every_name_in_the_lists_is_spdx_s():
    assert not AMENDMENTS & PERMISSIVE
    for spdx in {*PERMISSIVE, *AMENDMENTS, *CALLED.values(), *(spdx for _, spdx in NOTICES)}:
        assert canonical(spdx) == spdx


@pytest.mark.parametrize(
    ("licences", "allowed", "detail"),
    [
        (("MIT",), {"permissive"}, None),
        ((), {"permissive", "none"}, None),
        ((), {"permissive"}, "no licence is not among permissive"),
        (("GPL-3.0-only",), {"permissive", "none"}, "GPL-3.0-only is not among none, permissive"),
        (("GPL-3.0-only",), {"GPL-3.0-only"}, None),
        (("MIT", "GPL-3.0-only"), {"permissive", "GPL-3.0-only"}, None),
        (("MIT", "GPL-3.0-only"), {"GPL-3.0-only"}, "MIT AND GPL-3.0-only is not among GPL-3.0-only"),
        (("MIT",), {"Apache-2.0"}, "MIT is not among Apache-2.0"),
        (("MIT OR Apache-2.0",), {"Apache-2.0"}, None),
        (("LicenseRef-CLA", "Apache-2.0"), {"Apache-2.0"}, None),
        (("anything",), {"other"}, None),
    ],
)
def test_policies(licences, allowed, detail):
    assert policy_problem(licences, frozenset(allowed)) == (None if detail is None else (Reason.LICENCE, detail))


def test_a_policy_s_names_are_checked():
    assert check_allowed(["Permissive", "gpl-3.0-only", "Sleepycat", "LicenseRef-ours"]) == {
        "permissive",
        "GPL-3.0-only",
        "Sleepycat",
        "LicenseRef-ours",
    }
    with pytest.raises(InputError, match=r"'Apach-2.0' is no kind .* did you mean 'Apache-2.0'\?"):
        check_allowed(["Apach-2.0"])
    with pytest.raises(InputError, match=r"'permisive' .* did you mean 'permissive'\?"):
        check_allowed(["permisive"])
    with pytest.raises(InputError, match=r"'MIT OR ISC' is no kind of licence"):
        check_allowed(["MIT OR ISC"])


@pytest.mark.parametrize(
    ("name", "spdx"),
    [
        ("MIT", "MIT"),
        ("The MIT License (MIT)", "MIT"),
        ("MIT/X11", "MIT"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("Apache 2", "Apache-2.0"),
        ("BSD 3-Clause License", "BSD-3-Clause"),
        ("BSD", "LicenseRef-BSD"),
        ("GPLv3+", "GPL-3.0-or-later"),
        ("GNU General Public License v2 (GPLv2)", "GPL-2.0-only"),
        ("Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
        ("ISC License (ISCL)", "ISC"),
        ("MIT OR Apache-2.0", "MIT OR Apache-2.0"),
        ("MIT/Apache-2.0", "MIT OR Apache-2.0"),
        ("(mit or apache-2.0) and isc", "(MIT OR Apache-2.0) AND ISC"),
        ("Apache-2.0 WITH LLVM-exception", "Apache-2.0 WITH LLVM-exception"),
        ("Public Domain", "LicenseRef-public-domain"),
        ("UNLICENSED", "LicenseRef-proprietary"),
        ("Unlicense", "Unlicense"),
        ("my own terms", None),
        ("", None),
    ],
)
def test_names_that_people_write(name, spdx):
    assert licence_named(name) == spdx
