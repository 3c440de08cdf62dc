from dataclasses import replace

import pytest
import xxhash

from midspan.corpus import Document

DOCUMENT = Document(source="app", group="app", path="src/é.py", text="x = '≠'\n", language="python")


def test_the_id_never_changes():
    # A golden value: ids are stored in corpora and in fingerprints of runs.
    assert DOCUMENT.id == 8801672811202670874
    assert DOCUMENT.id == xxhash.xxh3_64("app\0app\0src/é.py\0x = '≠'\n".encode()).intdigest()


@pytest.mark.parametrize("field", ["source", "group", "path", "text"])
def test_the_id_depends_on_names_and_text(field):
    assert replace(DOCUMENT, **{field: "other"}).id != DOCUMENT.id


def test_the_id_does_not_depend_on_commit_or_language():
    assert replace(DOCUMENT, commit="abc", language="text").id == DOCUMENT.id


def test_moving_a_letter_between_fields_changes_the_id():
    assert replace(DOCUMENT, source="ap", group="papp").id != DOCUMENT.id
