import pytest

from midspan.corpus.language import LANGUAGES, check_languages, language_of
from midspan.errors import InputError


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("a/b.py", "python"),
        ("stubs/b.pyi", "python"),
        ("app.wsgi", "python"),
        ("a.c", "c"),
        ("a.h", "c"),
        ("a.hpp", "c++"),
        ("a.cc", "c++"),
        ("a.mm", "objective-c++"),
        ("a.ts", "typescript"),
        ("a.tsx", "typescript"),
        ("a.jsx", "javascript"),
        ("A.JAVA", "java"),
        ("run.sh", "shell"),
        ("run.bash", "shell"),
        ("Makefile", "makefile"),
        ("Dockerfile", "dockerfile"),
        ("pyproject.toml", "toml"),
        ("notebook.ipynb", "jupyter"),
        ("page.xhtml", "html"),
        ("build.sbt", "scala"),
        ("README", "text"),
        ("setup.cfg", "ini"),
        ("other.cfg", "text"),
        ("README.md", "markdown"),
        ("library.so", "other"),
        ("strange.qqq", "other"),
        ("no_extension", "other"),
    ],
)
def test_language_by_name(path, language):
    assert language_of(path) == language
    assert language in LANGUAGES


def test_languages_are_checked_and_lower_cased():
    assert check_languages(["Python", "c++"]) == {"python", "c++"}


def test_an_unknown_language_names_the_nearest():
    with pytest.raises(InputError, match=r"no language is called 'pyton'; did you mean 'python'\?"):
        check_languages(["c", "pyton"])
