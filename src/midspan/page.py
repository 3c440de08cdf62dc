"""The pages that Midspan writes: one style sheet, light and dark; `chart.py` draws for them.

A page is a single file: no script, no font, no picture is fetched. Colours are CSS variables, so that drawings
follow the page into dark mode; a plotting library's output would not.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fbfbfa; --card: #ffffff; --ink: #1c1e21; --soft: #62676e; --line: #e1e3e6;
  --accent: #0b63b8; --faint: #b9cfe6; --good: #12703c; --good-back: #dff3e6; --bad: #a9291f; --bad-back: #fbe3e0;
  --code: #f4f5f7; --hole: #fff2c2;
  --line-1: #0b63b8; --line-2: #c4570a; --line-3: #157f4a; --line-4: #8a3ab9; --line-5: #b5264f; --line-6: #5d6570;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15171a; --card: #1d2024; --ink: #e8eaed; --soft: #9aa1aa; --line: #33383e;
    --accent: #6cb2f5; --faint: #35526f; --good: #6fd397; --good-back: #173a26;
    --bad: #f4968b; --bad-back: #4a201c; --code: #23272c; --hole: #4d4214;
    --line-1: #6cb2f5; --line-2: #f3a35c; --line-3: #68cf95; --line-4: #c794ee;
    --line-5: #f28aa6; --line-6: #aab1ba;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 68rem; background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
h1 { margin: 0; font-size: 1.75rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.2rem; }
h3 { margin: 1.5rem 0 .4rem; font-size: 1rem; }
p { margin: .4rem 0; }
.soft, small { color: var(--soft); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; }
.cards { margin: 1.25rem 0 .75rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .9rem 1rem; }
.card b { display: block; font-size: 1.3rem; font-weight: 600; white-space: nowrap; }
.card b span { color: var(--soft); font-weight: 400; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.25rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; }
thead th, td small { color: var(--soft); font-weight: 400; }
tbody th { padding-top: 1.1rem; font-weight: 600; }
td small { display: inline-block; margin-left: .5rem; }
td[data-name] small { min-width: 7.5rem; text-align: left; }
.good { color: var(--good); } .bad { color: var(--bad); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.charts { gap: 1.75rem 1.5rem; }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; } figcaption small { font-weight: 400; margin-left: .35rem; }
.legend { display: flex; flex-wrap: wrap; gap: 0 1rem; font-size: .875rem; color: var(--soft); }
.legend span { overflow-wrap: anywhere; }
.legend i { display: inline-block; width: 1.1em; border-top: 3px solid; }
.legend i { vertical-align: .25em; margin-right: .35em; }
svg { display: block; width: 100%; height: auto; margin-top: .35rem; }
svg text { fill: var(--soft); font: 13px system-ui, sans-serif; font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); }
svg .raw { opacity: .3; }
svg .mean { fill: none; stroke-width: 2.25; stroke-linejoin: round; stroke-linecap: round; }
.example { margin: 1.5rem 0; }
.example header { display: flex; flex-wrap: wrap; gap: .25rem .75rem; align-items: baseline; }
.example pre { margin-top: .4rem; }
.example header b { overflow-wrap: anywhere; }
.sides { display: grid; gap: .5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); }
.sides { margin-top: .5rem; }
.side { min-width: 0; } .side > small { display: flex; justify-content: space-between; gap: .5rem; }
pre {
  margin: 0; padding: .6rem .75rem; background: var(--code); border-radius: .4rem; overflow-x: auto;
  font: .8125rem/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; tab-size: 4;
}
.bar { display: inline-block; height: .6em; background: var(--accent); border-radius: .15rem; min-width: 1px; }
td.bars { width: 30%; text-align: left; } td small.path { display: block; margin: 0; overflow-wrap: anywhere; }
.context { color: var(--soft); }
.context mark { background: var(--hole); color: var(--ink); border-radius: .2rem; }
ins { background: var(--bad-back); color: var(--bad); text-decoration: none; border-radius: .15rem; }
del { color: var(--bad); text-decoration-thickness: 1px; opacity: .75; }
pre.exact { background: var(--good-back); color: var(--good); }
.paper td, .paper th { padding: .15rem .5rem; }
.paper td:first-child { white-space: nowrap; }
.paper td small { display: block; margin: 0; min-width: 0; text-align: right; font-size: .75rem; }
tr.ours td { color: var(--accent); border-bottom-color: var(--faint); }
tr.ours td:first-child { font-weight: 600; }
.charts.few { grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); }
details.sample { margin: .3rem 0 .3rem 1rem; }
details.sample > summary { color: var(--ink); margin: 0; overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--soft); margin-top: .75rem; }
@media (max-width: 40rem) {
  body { padding: 1.25rem .9rem 3rem; }
  h1 { font-size: 1.4rem; }
  thead { display: none; }
  table, tbody, tr, td, tbody th { display: block; text-align: left; }
  tr { padding: .5rem 0; border-bottom: 1px solid var(--line); }
  th, td { border: 0; padding: .05rem 0; }
  td:first-child { font-weight: 600; }
  td[data-name]::before { content: attr(data-name); display: inline-block; width: 6.5rem; color: var(--soft); }
  tbody th { padding-top: .6rem; }
  .runs td[data-name] { display: flex; gap: .75rem; white-space: normal; }
  .runs td[data-name]::before { flex: 0 0 45%; overflow-wrap: anywhere; }
}
"""


def html_page(title: str, sections: Iterable[str]) -> str:
    """A whole page of finished sections; the title is plain text."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} · Midspan</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(sections)
        + "\n</body>\n</html>\n"
    )


def bar(share: float) -> str:
    """A bar as long as a share of its cell, from 0 to 1."""
    return f'<span class="bar" style="width: {100 * min(max(share, 0.0), 1.0):.1f}%"></span>'
