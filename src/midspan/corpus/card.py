"""The data card of a corpus: what it holds, what was left out and why, as numbers, as a page and in a terminal.

    languages · licences · decisions · duplicates · contamination · redactions · sources

Everything is counted from the corpus's own files, so the card is true of what lies there and of nothing else.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from midspan.corpus.document import SPLITS
from midspan.corpus.licence import kind
from midspan.corpus.store import Corpus
from midspan.page import bar, html_page
from midspan.tokenizer import Tokenizer

LARGEST = 10
"""Clusters, groups and examples that a card names."""
_COLUMNS = [
    *("source", "group", "path", "language", "encoding", "bytes", "split", "decision", "reason", "detail"),
    *("licences", "secrets", "emails", "ips", "contamination", "cluster", "duplicate_of"),
]


def data_card(corpus: Corpus, tokenizer: Tokenizer | None = None) -> dict[str, Any]:
    """Count a corpus.

    Args:
        corpus: any.
        tokenizer: whose tokens are counted; reading all text takes a while, so only where asked.

    Returns:
        Tables by name, ready for JSON: a table is a list of rows, the largest first.
    """
    files: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    licences: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: Counter[str] = Counter()
    examples: dict[str, dict[str, str]] = {}
    clusters: dict[int, Counter[str]] = defaultdict(Counter)
    survivors: dict[int, str] = {}
    contamination: Counter[tuple[str, str]] = Counter()
    redacted: dict[str, Counter[str]] = {name: Counter() for name in ("secrets", "emails", "ips")}
    groups: Counter[tuple[str, str]] = Counter()
    encodings: Counter[str] = Counter()
    for table in corpus.rows(_COLUMNS):
        for row in table.to_pylist():
            place = f"{row['source']}/{row['path']}"
            if row["decision"] == "kept":
                files[row["split"], row["language"]] += 1
                sizes[row["split"], row["language"]] += row["bytes"]
                name = " AND ".join(row["licences"]) if row["licences"] else "none found"
                licences[name].update(files=1, bytes=row["bytes"])
                groups[row["source"], row["group"]] += row["bytes"]
                encodings[row["encoding"]] += 1
                for what, counts in redacted.items():
                    counts.update(files=bool(row[what]), found=row[what] or 0)
            else:
                reasons[row["reason"]] += 1
                examples.setdefault(row["reason"], {"path": place, "detail": row["detail"] or ""})
            for hit in row["contamination"] or ():
                item, _, how = hit.rpartition(" ")
                contamination[item.partition("/")[0], how] += 1
            if row["cluster"] is not None:
                clusters[row["cluster"]]["files"] += 1
                if row["decision"] == "kept":
                    survivors.setdefault(row["cluster"], place)
                    clusters[row["cluster"]]["kept"] += 1
    tokens = _tokens(corpus, tokenizer) if tokenizer else {}
    total = sum(sizes.values())
    largest = sorted(clusters, key=lambda c: (-clusters[c]["files"], survivors.get(c, "")))[:LARGEST]
    return {
        **corpus.manifest.summary(),
        "tokens": {split: sum(n for (s, _), n in tokens.items() if s == split) for split in SPLITS}
        if tokens
        else None,
        "by_language": [
            {
                "language": language,
                "split": split,
                "files": files[split, language],
                "bytes": size,
                "share": size / total,
                **({"tokens": tokens[split, language]} if tokens else {}),
            }
            for (split, language), size in sizes.most_common()
        ],
        "by_licence": [
            {"licence": name, "kind": _kind(name), "files": counts["files"], "bytes": counts["bytes"]}
            for name, counts in sorted(licences.items(), key=lambda item: (-item[1]["bytes"], item[0]))
        ],
        "by_reason": [{"reason": why, "files": count, **examples[why]} for why, count in reasons.most_common()],
        "near_duplicates": {
            "clusters": len(clusters),
            "files": sum(counts["files"] for counts in clusters.values()),
            "largest": [{"file": survivors.get(c, ""), **clusters[c]} for c in largest],
        },
        "contamination": [
            {"benchmark": name, "how": how, "hits": count} for (name, how), count in contamination.most_common()
        ],
        "redacted": {what: dict(counts) for what, counts in redacted.items()},
        "largest_groups": [
            {"source": source, "group": group, "bytes": size}
            for (source, group), size in groups.most_common(LARGEST)
        ],
        "encodings": dict(encodings.most_common()),
    }


def _kind(name: str) -> str:
    return kind(() if name == "none found" else tuple(name.split(" AND ")))


def _tokens(corpus: Corpus, tokenizer: Tokenizer) -> Counter[tuple[str, str]]:
    """Tokens of kept text by split and language."""
    found: Counter[tuple[str, str]] = Counter()
    for table in corpus.rows(["split", "language", "text"]):
        kept = table.filter(pc.is_valid(table["text"]))
        texts = kept["text"].to_pylist()
        for split, language, ids in zip(
            kept["split"].to_pylist(), kept["language"].to_pylist(), tokenizer.encode_batch(texts), strict=True
        ):
            found[split, language] += len(ids)
    return found


def card_page(card: Mapping[str, Any], folder: Path) -> str:
    """The card as one self-contained HTML page."""
    kept, kept_bytes = sum(card["kept"].values()), sum(card["kept_bytes"].values())
    numbers = {
        "files found": f"{card['files']:,}",
        "kept": f"{kept:,}",
        "text": f"{kept_bytes / 1e6:,.1f} MB",
        "tokens": f"{sum(card['tokens'].values()) / 1e6:,.1f} M" if card["tokens"] else None,
        "held out": f"{card['kept']['held_out']:,}" if card["kept"]["held_out"] else None,
    }
    cards = "".join(
        f'<div class="card"><small>{name}</small><b>{value}</b></div>' for name, value in numbers.items() if value
    )
    sections = [
        f"<h1>{escape(folder.name)}</h1>",
        f'<p class="soft">Data card · Midspan {card["midspan_version"]} · {card["fingerprint"]}</p>',
        f'<div class="cards">{cards}</div>',
        _section("Languages", card["by_language"], total=kept_bytes),
        _section("Licences", card["by_licence"], total=kept_bytes),
        _section("Left out", card["by_reason"], total=card["files"], amount="files"),
        _duplicates(card["near_duplicates"]),
        _section("Benchmark items found", card["contamination"], total=None),
        _section("Replaced in kept text", [{"what": k, **v} for k, v in card["redacted"].items()], total=None),
        _section("Largest repositories and packages", card["largest_groups"], total=kept_bytes),
        _section("Sources", list(card["sources"]), total=None),
        _settings(card),
    ]
    return html_page(f"{folder.name}: data card", filter(None, sections))


def _section(title: str, rows: list[Mapping[str, Any]], *, total: int | None, amount: str = "bytes") -> str:
    """A table of rows, with a bar for their share of a total."""
    if not rows:
        return ""
    columns = [name for name in rows[0] if name not in ("share", "path", "detail")]
    head = "".join(f"<th>{_heading(name)}</th>" for name in columns) + ("<th></th>" if total else "")
    body = []
    for row in rows:
        cells = "".join(f'<td data-name="{_heading(name)}">{_shown(name, row[name])}</td>' for name in columns)
        if row.get("path"):
            example = f"{row['path']}: {row['detail']}" if row["detail"] else row["path"]
            note = f'<small class="path">for example {escape(example)}</small></td>'
            cells = cells.replace("</td>", note, 1)
        if total:
            cells += f'<td class="bars">{bar(row[amount] / total)}</td>'
        body.append(f"<tr>{cells}</tr>")
    return (
        f'<h2>{title}</h2><div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _duplicates(found: Mapping[str, Any]) -> str:
    if not found["clusters"]:
        return ""
    note = f"{found['files']:,} files in {found['clusters']:,} clusters; the largest, by the file that stays:"
    table = _section("Near duplicates", found["largest"], total=None)
    return table.replace("</h2>", f'</h2><p class="soft">{note}</p>', 1)


def _settings(card: Mapping[str, Any]) -> str:
    config = card["parameters"]["config"]
    listed = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(_setting(value))}</dd>" for name, value in config.items()
    )
    return f"<h2>Settings</h2><dl>{listed}</dl>"


def _setting(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "–"
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _heading(name: str) -> str:
    return {"bytes": "MB", "file": "file that stays"}.get(name, name)


def _shown(name: str, value: Any) -> str:
    if name == "bytes":
        return f"{value / 1e6:,.2f}"
    return f"{value:,}" if isinstance(value, int) else escape("–" if value is None else str(value))
