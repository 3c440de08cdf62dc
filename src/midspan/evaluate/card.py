"""The model card of a lineage: what was trained on what, what it scores, and where its limits are.

    runs, in the order of training ──► stages    recipe.json, metrics.jsonl
    their corpora                  ──► data      counted from their own files (corpus/card.py)
    results.json of runs and of further folders ──► scores

It is Markdown with the header that Hugging Face reads, so it lies beside weights as README.md. Everything in it is
read from these files; only the licence and the author's notes are said by the user. What a file does not say, the
card does not say: a corpus that is gone is named as gone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from midspan.cache import REGISTRY, SHIPPED
from midspan.corpus import Corpus
from midspan.corpus.card import data_card
from midspan.errors import InputError
from midspan.evaluate.runs import RunView, method, view
from midspan.files import write_text

CARD = "README.md"
PAPER = "[arXiv 2308.12950](https://arxiv.org/abs/2308.12950)"
SAFETY = ("red-team", "truthfulqa", "toxigen", "bold")
"""Tasks that ask what a model says, and not how well."""
_FEW = 6
"""Licences, languages and reasons that are named one by one."""


def write_card(
    *folders: Path,
    results: Sequence[Path] = (),
    name: str | None = None,
    licence: str | None = None,
    notes: str = "",
    out: Path | None = None,
) -> list[Path]:
    """Write the card of the model that the last run made.

    Args:
        folders: runs, in the order of training.
        results: further folders with a results.json, of evaluations of that model.
        name: the model's; the last run's if None.
        licence: of the model, as SPDX names it; the base's if None and known.
        notes: Markdown of the author's own, put in front of the limits.
        out: the file; README.md beside the last run's weights, and beside its adapter where there is one, if None.

    Returns:
        The files that were written.

    Raises:
        InputError: a folder is no run or has no results, or the last run has no weights yet.
    """
    runs = [view(folder) for folder in folders]
    for run in runs:
        if run.recipe is None:
            raise InputError(f"{run.folder} is no run; name folders that `midspan train` made, in their order")
    measured = [view(folder) for folder in results]
    for one in measured:
        if one.results is None:
            raise InputError(f"{one.folder} has no results.json; run `midspan eval` with --out {one.folder} first")
    places = [(out, runs[-1].folder / "adapter")] if out else []
    if not places:
        last = runs[-1].folder
        places = [(last / kind / CARD, last / kind) for kind in ("model", "adapter") if (last / kind).is_dir()]
        if not places:
            raise InputError(f"{last} has no weights yet; finish it with `midspan train --resume`, or name --out")
    for path, weights in places:
        is_adapter = weights.name == "adapter" and weights.is_dir()
        title = name or runs[-1].name
        write_text(path, card(runs, measured, name=title, licence=licence, notes=notes, is_adapter=is_adapter))
    return [path for path, _ in places]


def card(
    runs: Sequence[RunView],
    measured: Sequence[RunView] = (),
    *,
    name: str,
    licence: str | None = None,
    notes: str = "",
    is_adapter: bool = False,
) -> str:
    """The card's text; arguments as `write_card`."""
    first = _recipe(runs[0])
    base = first["base"]
    known = REGISTRY.get(base) or SHIPPED.get(base)
    licence = licence or (known.licence if known else None)
    what = f"an adapter of {base}" if is_adapter else f"{base}, trained on"
    about = f"{known.about}; {known.licence}" if known else ""
    opening = f"{name} is {what}{f' ({about})' if about else ''}, made by Midspan"
    sections = [
        _front_matter(base, licence, is_adapter),
        f"# {name}",
        f"{opening} as the Code Llama paper does ({PAPER}). This page is written from the runs' own files.",
        *_training(runs),
        *_data(runs),
        *_scores([*runs, *measured]),
        *_use(name),
        *(["## Notes", notes.strip()] if notes.strip() else []),
        "## Limits",
        "\n".join(f"- {limit}" for limit in _limits(runs, [*runs, *measured], licence)),
    ]
    return "\n\n".join(sections) + "\n"


def _recipe(run: RunView) -> dict[str, Any]:
    assert run.recipe is not None
    return run.recipe


def _front_matter(base: str, licence: str | None, is_adapter: bool) -> str:
    """What Hugging Face reads: YAML, of which JSON's strings and lists are a part."""
    values = {
        "license": licence.lower() if licence else None,
        "base_model": base,
        "library_name": "peft" if is_adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["code", "fill-in-the-middle", "midspan"],
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in values.items() if value]
    return "\n".join(["---", *lines, "---"])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _training(runs: Sequence[RunView]) -> list[str]:
    rows = []
    for run in runs:
        recipe = _recipe(run)
        train, data, fim = recipe["train"], recipe["data"], recipe["fim"]
        size = f"{train['steps']:,} steps of {train['rows_per_step']:,} rows of {data['row_tokens']:,}"
        if run.steps and run.steps[-1].step < train["steps"]:
            size = f"{run.steps[-1].step:,} of {size}"  # stopped before its end
        row = [run.name, method(recipe), size, f"{recipe['optimizer']['lr']:g}", f"{fim['rate']:g}"]
        if run.steps:
            last = run.steps[-1]
            few = max(1, len(run.steps) // 20)
            begin, end = (sum(s.loss for s in part) / few for part in (run.steps[:few], run.steps[-few:]))
            row += [f"{last.tokens:,}", f"{begin:.2f} to {end:.2f}", f"{last.seconds / 60:,.1f}"]
        else:
            row += ["", "", ""]
        rows.append(row)
    head = ["stage", "trained", "size", "rate", "infilling", "tokens", "loss", "minutes"]
    seeds = ", ".join(str(seed) for seed in sorted({_recipe(run)["train"]["seed"] for run in runs}))
    note = f"Losses are nats per trained token, means of the first and last twentieth. Seed {seeds}."
    return ["## Training", _table(head, rows), note]


def _sources(runs: Sequence[RunView]) -> tuple[list[str], list[str]]:
    """Corpora and files of conversations that any stage reads, once each."""
    corpora, conversations = [], []
    for run in runs:
        data = _recipe(run)["data"]
        corpora += [one for one in (data["corpus"], *(s["corpus"] for s in data["sources"])) if one]
        conversations += [s["conversations"] for s in data["sources"] if s.get("conversations")]
    return list(dict.fromkeys(corpora)), list(dict.fromkeys(conversations))


def _data(runs: Sequence[RunView]) -> list[str]:
    corpora, conversations = _sources(runs)
    found = ["## Data"]
    for place in corpora:
        try:
            found.append(_corpus(place, data_card(Corpus.open(Path(place)))))
        except InputError:
            found.append(f"**{place}**: not at hand when this card was made.")
    for place in conversations:
        path = Path(place)
        count = f"{sum(1 for line in path.open(encoding='utf-8') if line.strip()):,}" if path.is_file() else "its"
        found.append(f"**{place}**: {count} conversations, of which the answers are trained.")
    return found


def _corpus(place: str, card: dict[str, Any]) -> str:
    kept, size, config = card["kept"], card["kept_bytes"], card["parameters"]["config"]
    found = f"{card['files']:,} files found, {sum(kept.values()):,} kept, {sum(size.values()) / 1e6:,.1f} MB"
    lines = [
        f"**{place}** (fingerprint `{card['fingerprint']}`): "
        f"{found}; {size.get('train', 0) / 1e6:,.1f} MB to train on."
    ]
    if card["held_out_groups"]:
        lines.append(f"Held out, {size.get('held_out', 0) / 1e6:,.1f} MB: {', '.join(card['held_out_groups'])}.")
    for title, key, rows in (("Languages", "language", "by_language"), ("Licences", "licence", "by_licence")):
        sizes: Counter[str] = Counter()
        for row in card[rows]:
            sizes[row[key]] += row["bytes"]
        lines.append(f"{title} by bytes: {_shares(sizes)}.")
    if card["by_reason"]:
        reasons = [f"{row['reason']} {row['files']:,}" for row in card["by_reason"]]
        lines.append(f"Left out, files: {', '.join(reasons[:_FEW])}{', …' if len(reasons) > _FEW else ''}.")
    replaced = [f"{what} {counts.get('found', 0):,}" for what, counts in card["redacted"].items()]
    if config.get("redact"):
        lines.append(f"Replaced in the text: {', '.join(replaced)}.")
    against = [Path(each).name for each in config.get("decontaminate", ())]
    lines.append(f"Kept out of it: {', '.join(against)}." if against else "No benchmark was kept out of it.")
    return "\n".join(lines)


def _shares(sizes: Counter[str]) -> str:
    total = sum(sizes.values()) or 1
    named = [f"{name} {100 * size / total:.1f} %" for name, size in sizes.most_common(_FEW)]
    others = len(sizes) - len(named)
    return ", ".join(named) + (f", {others} others" if others > 0 else "")


def _scores(views: Sequence[RunView]) -> list[str]:
    found = []
    for one in views:
        results = one.results
        if results is None:
            continue
        rows = [row for row in results["rows"] if _is_shown(row)]
        head = ["", "questions", "this model", *(["before"] if any("before" in row for row in rows) else [])]
        cells = []
        for row in rows:
            asked = row["task"] if row["task"] == "heldout" else f"{row['task']}:{row['variant']}"
            named = f"{asked} {row['group']} {row['metric']}, {row['unit']}"
            line = [" ".join(named.split()), f"{row['n']:,}", _value(row["ours"], row["interval"])]
            if len(head) > 3:
                line.append(_value(row["before"], row["before_interval"]) if "before" in row else "")
            cells.append(line)
        asked = ", ".join(dict.fromkeys(f"{task['task']}:{task['variant']}" for task in results["tasks"]))
        made = f"`midspan eval MODEL --tasks {asked.replace(', ', ',')}`"
        note = (
            f"{results['date'][:10]}, {results['hardware']}, Midspan {results['commit']}: {made}; 95 % intervals."
        )
        found += [_table(head, cells), note]
    return ["## Scores", *(found or ["Nothing was measured."])]


def _is_shown(row: dict[str, Any]) -> bool:
    """Of held-out holes, each layout as a whole."""
    return row["task"] != "heldout" or row["group"].split()[-1] not in ("line", "lines", "span")


def _value(value: float, interval: Sequence[float]) -> str:
    digits = 2 if abs(value) < 10 else 1
    low, high = interval
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _use(name: str) -> list[str]:
    lines = (f"midspan infill {name} FILE.py:LINE:COLUMN", f"midspan serve {name}")
    return ["## Use", "\n".join(f"    {line}" for line in lines)]


def _limits(runs: Sequence[RunView], views: Sequence[RunView], licence: str | None) -> Iterable[str]:
    recipes = [_recipe(run) for run in runs]
    rows = [row for one in views if one.results for row in one.results["rows"]]
    ended = [row for row in rows if row["metric"] == "ended by itself" and row["group"].endswith(" all")]
    for row in ended:
        layout = row["group"].split()[0].upper()
        if row["ours"] < 50:
            share = f"{row['ours']:.1f} %"
            yield f"In {layout} it ends by itself in {share} of the holes: let the engine's stops end it."
    yield f"The longest text that it was trained on has {max(r['data']['row_tokens'] for r in recipes):,} tokens."
    if not any(s.get("conversations") for recipe in recipes for s in recipe["data"]["sources"]):
        yield "It continues and fills in text; it was not tuned to follow instructions, nor to refuse any."
    missing = [task for task in SAFETY if task not in {row["task"] for row in rows}]
    if missing:
        yield f"Not measured: {', '.join(missing)}."
    yield "It may repeat what it read, errors and licensed text included; read what it writes before you keep it."
    if licence is None:
        yield "No licence was named; the base's terms bind it too."
