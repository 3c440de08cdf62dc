"""The page is whole, escaped and quotes its data; the loss curve is drawn to scale."""

import html.parser
import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from midspan.chart import Line, chart
from midspan.errors import InputError
from midspan.evaluate import Evaluation, write_report
from midspan.evaluate.pages.heldout import examples, marked_difference
from midspan.evaluate.pages.tables import paper_tables

HOSTILE = "</script><b>&\"'</pre>"
VOID = {"meta", "line", "circle", "polyline"}


class Reader(html.parser.HTMLParser):
    """Checks that tags nest, and collects them, their text and what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def test_healed_figures_stand_apart_beside_the_papers() -> None:
    """The paper's Table 14 heals no cursor; a column takes its own layout alone."""
    common = {"task": "infilling-single-line", "group": "", "metric": "pass@1", "temperature": 0.0, "n": 10}
    scores = {"psm": 10.0, "spm": 20.0, "spm-healed": 30.0}
    rows = [
        common | {"variant": name, "ours": value, "interval": [value, value]} for name, value in scores.items()
    ]
    [table] = [table for table in paper_tables([("mine", rows)]) if table.name == "Table 14"]
    ours = {name: [cell.value for cell in cells[:2]] for name, is_ours, cells in table.rows if is_ours}
    assert ours == {"mine": [10.0, 20.0], "mine, healed": [None, 30.0]}


def test_a_runs_page(run_folder: Path) -> None:
    results = Evaluation.of(str(run_folder), settings={"per_kind": 6, "window": 128}).run()
    holes = examples(run_folder, "both")
    assert len(holes) == 36
    assert any(HOSTILE in example["truth"] or HOSTILE in example["prefix"] for example in holes)
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    reader = read(page)
    assert not {"script", "link", "img", "iframe"} & reader.tags
    assert reader.links == []
    assert not re.search(r"https?://|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page
    assert HOSTILE not in page
    assert f"tiny {HOSTILE}" in reader.text  # the recipe's name, whole, once escapes are undone
    for example in [e for e in holes if (e["layout"], e["kind"]) == ("spm", "line")][:4]:
        assert example["prefix"] + example["truth"] + example["suffix"] in reader.text
        assert example["path"] in reader.text
    for row in results["rows"]:
        digits = 1 if row["unit"] in ("%", "of 100") else 2
        for key in ("ours", "before", "difference"):
            assert f"{row[key]:.{digits}f}".replace("-", "−") in reader.text
    assert "svg" in reader.tags
    assert "1,536 tokens in 0.1 minutes, 256 tokens/s" in reader.text
    (run_folder / "report.html").unlink()
    assert write_report(run_folder) == run_folder / "report.html"
    assert (run_folder / "report.html").read_text(encoding="utf-8") == page


def test_a_model_that_is_no_run(run_folder: Path, corpus_folder: Path, tmp_path: Path) -> None:
    settings = {"per_kind": 2, "window": 128, "corpus": corpus_folder}
    Evaluation.of(str(run_folder / "model"), out=tmp_path / "out", settings=settings).run()
    reader = read((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "svg" not in reader.tags
    assert "difference" not in reader.text.split("Small numbers")[0]


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no run and has no results.json"):
        write_report(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        write_report(tmp_path)


def test_difference_keeps_both_texts() -> None:
    truth, written = "return a + b\n\n    # <done>\n", "return a + c\n    # <done>\nx = 1\n"
    shown = marked_difference(written, truth)

    def without(tag: str) -> str:
        kept = re.sub(rf"<{tag}>.*?</{tag}>", "", shown, flags=re.DOTALL)
        return html.unescape(re.sub(r"</?(ins|del)>", "", kept)).replace("↵", "")

    assert without("del") == written
    assert without("ins") == truth
    assert "<ins>c</ins>" in shown
    assert marked_difference("entirely other", "return a") == "<ins>entirely other</ins>"
    assert marked_difference("", "return a") == ""


def test_the_curve_is_to_scale() -> None:
    steps, losses = [1, 2, 3, 4, 5], [5.0, 4.0, 3.0, 2.0, 1.0]
    svg = chart("loss", "nats", [Line("loss", steps, losses, smooth=True)])
    raw = r'<circle class="raw"[^>]* cx="([\d.]+)" cy="([\d.]+)"'
    dots = [(float(x), float(y)) for x, y in re.findall(raw, svg)]
    gaps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(dots)]
    assert len(dots) == 5
    assert all(gap == pytest.approx(gaps[0], abs=0.11) for gap in gaps)
    assert gaps[0][0] > 0
    assert gaps[0][1] > 0  # a lower loss is lower on the page
    grid = {float(v): float(y) for y, v in re.findall(r'y2="([\d.]+)"/><text [^>]*>([\d.]+)</text>', svg)}
    assert len(grid) >= 3
    for value, y in grid.items():
        if value in losses:
            assert y == pytest.approx(dots[losses.index(value)][1], abs=0.11)
    read(svg)


def test_curves_of_any_length_and_level() -> None:
    for steps, losses in (
        ([7, 8], [2.0, 2.0]),
        ([1, 2], [0.0, 0.0]),
        ([*range(5000)], [1e-4 * i for i in range(5000)]),
    ):
        svg = chart("loss", "nats", [Line("loss", steps, losses, smooth=True)])
        read(svg)
        assert len(svg) < 120_000
        assert "nan" not in svg


def test_page_of_saved_results_needs_no_model(run_folder: Path) -> None:
    """What the page shows comes from results.json and the answers beside it."""
    Evaluation.of(str(run_folder), settings={"per_kind": 2, "window": 128}).run()
    results = json.loads((run_folder / "results.json").read_text())
    next(row for row in results["rows"] if row["metric"] == "edit similarity")["ours"] = 12.3
    (run_folder / "results.json").write_text(json.dumps(results))
    for file in (run_folder / "model").iterdir():
        file.unlink()
    assert "12.3" in write_report(run_folder).read_text()


def test_results_of_an_older_midspan_are_still_shown(run_folder: Path, tmp_path: Path) -> None:
    """They had the held-out task alone, groups in the names of rows, and examples in place of a journal."""
    Evaluation.of(str(run_folder), settings={"per_kind": 2, "window": 128}).run()
    new = (run_folder / "report.html").read_text()
    results = json.loads((run_folder / "results.json").read_text())
    results["examples"] = examples(run_folder, "both")
    del results["tasks"]
    for row in results["rows"]:
        row["row"] = row["row"].removeprefix("heldout ")
        for name in ("task", "variant", "group", "metric", "temperature", "samples"):
            del row[name]
    (run_folder / "results.json").write_text(json.dumps(results))
    for folder in ("tasks", "tasks-base"):
        shutil.rmtree(run_folder / folder)
    assert write_report(run_folder).read_text() == new
    read(write_report(run_folder, run_folder, out=tmp_path / "both.html").read_text())
