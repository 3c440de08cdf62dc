"""The licences of one repository's files, from the facts of each."""

from hypothesis import given
from hypothesis import strategies as st

from corpus.licence_texts import APACHE, BSD_3, MIT
from midspan.corpus.licence import ALL_RIGHTS_RESERVED, UNKNOWN, Facts, facts, kind, resolve


def resolved(files: dict[str, str]) -> dict[str, tuple[str, ...]]:
    return resolve({path: facts(path, text) for path, text in files.items()})


def test_a_header_wins_over_the_nearest_licence_file_and_that_over_the_declaration():
    found = resolved(
        {
            "LICENSE": APACHE,
            "pyproject.toml": '[project]\nlicense = "GPL-3.0-only"\n',
            "src/a.py": "x = 1\n",
            "src/b.py": "# SPDX-License-Identifier: ISC\n",
            "src/zlib/COPYING": BSD_3,
            "src/zlib/deep/c.c": "int x;\n",
            "src/zlibrary/d.c": "int x;\n",
            "src/e.c": "// Copyright X Corp. All rights reserved.\nint x;\n",
        }
    )
    assert found == {
        "LICENSE": ("Apache-2.0",),
        "pyproject.toml": ("Apache-2.0",),
        "src/a.py": ("Apache-2.0",),
        "src/b.py": ("ISC",),
        "src/zlib/COPYING": ("BSD-3-Clause",),
        "src/zlib/deep/c.c": ("BSD-3-Clause",),
        "src/zlibrary/d.c": ("Apache-2.0",),
        "src/e.c": ("Apache-2.0",),
    }


def test_a_declaration_counts_where_no_licence_file_is_above():
    assert resolved(
        {
            "package.json": '{"license": "MIT"}',
            "src/a.js": "x\n",
            "sub/package.json": '{"license": "ISC"}',
            "sub/b.js": "x\n",
        }
    ) == {
        "package.json": ("MIT",),
        "src/a.js": ("MIT",),
        "sub/package.json": ("ISC",),
        "sub/b.js": ("ISC",),
    }


def test_without_any_word_there_is_no_licence_and_a_bare_claim_stands():
    assert resolved({"a.py": "x = 1\n", "b.py": "# All rights reserved.\n"}) == {
        "a.py": (),
        "b.py": (ALL_RIGHTS_RESERVED,),
    }


def test_terms_that_nobody_knows_are_not_covered_by_a_licence_further_up():
    found = resolved(
        {
            "LICENSE": MIT,
            "package.json": '{"license": "MIT"}',
            "ee/LICENSE": "Ours alone.\n",
            "ee/a.js": "x\n",
            "b.js": "x\n",
        }
    )
    assert (found["ee/a.js"], found["b.js"]) == ((UNKNOWN,), ("MIT",))
    assert kind(found["ee/a.js"]) == "other"
    named = resolved({"LICENSE": "Ours alone.\n", "package.json": '{"license": "UNLICENSED"}', "a.js": "x\n"})
    assert named["a.js"] == ("LicenseRef-proprietary",)


def test_terms_that_are_added_to_a_known_licence_stay_but_for_what_a_wheel_bundles():
    text = f"{MIT}\nThe Software may not be sold.\n"
    assert resolved({"LICENSE": text, "package.json": '{"license": "MIT"}', "a.js": "x\n"})["a.js"] == (
        "MIT",
        UNKNOWN,
    )
    wheel = {
        "a-1.dist-info/LICENSE": text,
        "a-1.dist-info/METADATA": "License-Expression: MIT\n\n",
        "a/b.py": "x\n",
    }
    assert resolved(wheel)["a/b.py"] == ("MIT",)


def test_several_licence_files_of_a_folder_all_apply():
    assert resolved({"LICENSE-APACHE": APACHE, "LICENSE-MIT": MIT, "src/a.rs": "x\n"})["src/a.rs"] == (
        "Apache-2.0",
        "MIT",
    )


def test_a_folder_of_licences_is_for_its_parent():
    assert resolved({"LICENSES/MIT.txt": MIT, "src/a.rs": "x\n"})["src/a.rs"] == ("MIT",)


def test_licences_of_installed_distributions_are_for_their_packages():
    found = resolved(
        {
            "Pillow-1.0.dist-info/licenses/LICENSE": MIT,
            "Pillow-1.0.dist-info/RECORD": "PIL/__init__.py,,\nPillow-1.0.dist-info/RECORD,,\n../x,,\n",
            "PIL/a.py": "x = 1\n",
            "numpy-2.0.dist-info/licenses/LICENSE.txt": BSD_3,
            "numpy-2.0.dist-info/licenses/numpy/random/LICENSE.md": APACHE,
            "numpy/a.py": "x = 1\n",
            "numpy/random/b.py": "x = 1\n",
            "six-1.0.dist-info/METADATA": "Name: six\nLicense: MIT\n\n",
            "six-1.0.dist-info/RECORD": "six.py,,\n",
            "six.py": "x = 1\n",
            "google_auth-1.dist-info/LICENSE": APACHE,
            "google_auth-1.dist-info/RECORD": "google/auth/__init__.py,,\n",
            "google/auth/a.py": "x = 1\n",
            "google/other/a.py": "x = 1\n",
        }
    )
    assert found["PIL/a.py"] == ("MIT",)
    assert found["numpy/a.py"] == ("BSD-3-Clause",)
    assert found["numpy/random/b.py"] == ("Apache-2.0",)
    assert found["six.py"] == ("MIT",)
    assert found["google/auth/a.py"] == ("Apache-2.0",)
    assert found["google/other/a.py"] == ()


def test_resolve_does_not_depend_on_the_order_of_files():
    files = {"LICENSE-MIT": Facts(text=("MIT",)), "LICENSE-APACHE": Facts(text=("Apache-2.0",)), "a.rs": Facts()}
    assert resolve(files) == resolve(dict(reversed(files.items())))


PATHS = st.sampled_from(
    ["a.py", "LICENSE", "a/LICENSE", "a-1.dist-info/RECORD", "a-1.dist-info/METADATA", "/", "a//b", ""]
)


@given(
    st.dictionaries(
        PATHS, st.text(st.characters()) | st.sampled_from([MIT, "License: MIT\n", "a/__init__.py,,\n"])
    )
)
def test_no_repository_raises_and_every_file_gets_an_answer(files):
    found = resolved(files)
    assert set(found) == set(files)
    assert all(isinstance(licence, str) and licence for licences in found.values() for licence in licences)
