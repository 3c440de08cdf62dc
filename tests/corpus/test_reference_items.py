import gzip
import json
from collections import Counter

import pytest

from midspan.corpus.reference_items import load_items
from midspan.errors import InputError


@pytest.fixture
def write(tmp_path):
    """Write rows as JSONL (gzipped where the name says so) and return the path."""

    def write(name, *rows):
        path = tmp_path / name
        data = "\n".join(map(json.dumps, rows)).encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


def texts(item, kind):
    return [part.text for part in item.parts if part.kind == kind]


def test_every_benchmark_that_lies_in_the_data_is_read_to_its_last_item(shared_data):
    items = load_items([shared_data])
    assert Counter(item.benchmark for item in items) == {
        "apps": 5,
        "codexglue_line_completion": 5,
        "humaneval": 164 + 1,  # and the example problem of the repository
        "humaneval_infilling": 164 + 1,  # 8652 tasks of 164 functions
        "humaneval_x": 6 * 164,
        "humanevalpack": 6 * 164,
        "mbpp": 974,  # with the 427 of the sanitised edition
        "multipl_e": 2864,
        "santacoder_fim": 444,  # 4792 tasks
        "truthfulqa": 818,  # 817 questions, one worded differently in the multiple-choice file
    }
    assert all(texts(item, "question") for item in items if item.id not in ("test/0", "0"))
    code = [item for item in items if item.benchmark in ("humaneval", "humaneval_x", "humanevalpack", "mbpp")]
    assert all(texts(item, "solution") and texts(item, "tests") for item in code)
    languages = {part.language for item in items for part in item.parts if part.kind != "question"}
    assert languages == {"c++", "c#", "javascript", "julia", "perl", "python", "ruby", "racket", "rust"} | {
        *("d", "go", "java", "lua", "php", "r", "scala", "shell", "swift", "typescript")
    }


def test_a_task_of_humaneval_in_parts(shared_data):
    (item,) = (item for item in load_items([shared_data / "humaneval"]) if item.id == "HumanEval/23")
    prose, docstring, prompt = texts(item, "question")
    assert prose == "Return length of given string"
    assert docstring == "Return length of given string\n    >>> strlen('')\n    0\n    >>> strlen('abc')\n    3"
    assert prompt.startswith("def strlen(string: str) -> int:")
    assert texts(item, "solution") == ["return len(string)"]
    assert texts(item, "tests")[0].startswith("def check(candidate):")


PROMPTS = {
    "python": 'def f(x):\n    """Add one.\n    >>> f(1)\n    2\n    """\n',
    "helper": "def g(x):\n    \"\"\"A helper.\"\"\"\n\n\ndef f(x):\n    '''Add one.\n    >>> f(1)\n    '''\n",
    "c++": "#include<vector>\n/*\nAdd one.\n>>> f(1)\n2\n*/\nint f(int x){\n",
    "java": "class A {\n    /**\n    Add one.\n    >>> f(1)\n     */\n    int f(int x) {\n",
    "go": 'import (\n    "math"\n)\n\n// Add one.\n// >>> f(1)\n// 2\nfunc f(x int) int {\n',
    "rust": "/// Add one.\n/// >>> f(1)\nfn f(x: isize) -> isize {\n",
    "lua": "-- Add one.\n-- >>> f(1)\nlocal function f(x)\n",
    "racket": "#lang racket\n\n;; Add one.\n;; >>> (f 1)\n(define (f x)\n",
    "shell": "#!/bin/bash\n# Add one.\n# >>> $(f 1)\nf() {\n",
    "c#": "using System;\nclass P {\n    // Add one.\n    // Example:\n    // f(1) => 2\n    long F(long x) {\n",
}


@pytest.mark.parametrize("language", PROMPTS)
def test_the_question_is_found_in_the_comment_or_docstring_of_any_language(write, language):
    row = {
        "name": "a",
        "language": "py",
        "prompt": PROMPTS[language],
        "stop_tokens": [],
        "tests": "assert f(1) == 2",
    }
    (item,) = load_items([write("a.jsonl", row)])
    assert texts(item, "question")[0] == "Add one."


def test_files_that_are_told_by_their_fields(write, tmp_path):
    humaneval_plus = {"task_id": "HumanEval/0", "prompt": "def f():\n", "canonical_solution": " return 1"}
    humaneval_plus |= {"entry_point": "f", "plus_input": [[1]], "base_input": [[2]]}
    mbpp_plus = humaneval_plus | {"task_id": "Mbpp/2", "prompt": '"""\nWrite f.\nassert f() == 1\n"""\n'}
    code_to_text = {"repo": "r", "path": "a.py", "func_name": "f", "code": "def f(): 1", "docstring": "One."}
    code_to_text |= {"original_string": 'def f():\n    """One."""\n    1'}
    apps = {"problem_id": 7, "question": "Sum.\n\n-----Input-----\n\nTwo.", "solutions": '["print(1)"]'}
    items = load_items(
        [
            write("a.jsonl.gz", humaneval_plus, mbpp_plus),
            write("b.jsonl", {"question": "How many?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"}),
            write("c.json", code_to_text),
            write("d.jsonl", apps),
        ]
    )
    assert [(item.benchmark, item.id) for item in items] == [
        ("humaneval", "HumanEval/0"),
        ("mbpp", "2"),
        ("gsm8k", "0"),
        ("codexglue_code_to_text", "r/a.py:f"),
        ("apps", "7"),
    ]
    assert texts(items[1], "question")[0] == "Write f."
    assert texts(items[3], "question") == [
        'def f():\n    """One."""\n    1'
    ]  # never the code without its docstring
    assert texts(items[4], "question")[0] == "Sum."
    assert texts(items[4], "solution") == ["print(1)"]


def test_rows_about_one_task_are_one_item(write):
    row = {"task_id": 3, "text": "Write f.", "code": "def f(): pass", "test_list": ["assert f()"]}
    (item,) = load_items([write("a.jsonl", row), write("b.jsonl", row | {"text": "Write a function f."})])
    assert texts(item, "question") == ["Write f.", "Write a function f."]
    assert texts(item, "solution") == ["def f(): pass"]


def test_what_cannot_be_read_is_one_sentence(write, tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        load_items([tmp_path / "absent"])
    with pytest.raises(InputError, match=r"fields a, b is not known; known are HumanEval infilling, .*GSM8K"):
        load_items([write("a.jsonl", {"a": 1, "b": 2})])
    with pytest.raises(InputError, match=r"row 2 is not like the first \(KeyError\('answer'\)\)"):
        load_items([write("b.jsonl", {"question": "a", "answer": "b"}, {"question": "a"})])
    with pytest.raises(InputError, match="has no rows with fields"):
        load_items([write("c.jsonl", 1)])
    broken = tmp_path / "d.jsonl.gz"
    broken.write_bytes(b"\x1f\x8b broken")
    with pytest.raises(InputError, match="cannot be read"):
        load_items([broken])
    notes = tmp_path / "notes.md"
    notes.write_text("# Notes")
    with pytest.raises(InputError, match="not a benchmark file"):
        load_items([notes])


def test_a_folder_may_hold_other_files_but_not_only_them(write, tmp_path):
    (tmp_path / "README.md").write_text("# Data")
    write("samples.jsonl", {"task_id": "HumanEval/0", "completion": "    return 1"})
    with pytest.raises(InputError, match="no benchmark items"):
        load_items([tmp_path])
    write("gsm8k.jsonl", {"question": "How many?", "answer": "4"})
    assert [item.benchmark for item in load_items([tmp_path])] == ["gsm8k"]
