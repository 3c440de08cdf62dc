// The playground: a code editor with the model's ghost text, what each suggestion cost, and a chat.
import { history, historyKeymap, defaultKeymap, indentWithTab } from "@codemirror/commands";
import { python } from "@codemirror/lang-python";
import { HighlightStyle, bracketMatching, indentOnInput, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { EditorState, Prec } from "@codemirror/state";
import { EditorView, drawSelection, highlightActiveLine, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { chat } from "./chat.js";
import { acceptGhost, clearGhost, ghost, ghostAt, showGhost } from "./ghost.js";
import { infill, models } from "./server.js";

const $ = (id) => document.getElementById(id);
const PAUSE = 60; // milliseconds without a key until the model is asked
const SAMPLE = `from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A place in the plane."""

    x: float
    y: float

    def distance(self, other: "Point") -> float:
        """How far it is to another point."""
        return 


def main() -> None:
    print(Point(0, 0).distance(Point(3, 4)))
`;

let timer, leaving;

function changed(update) {
  if (update.docChanged) {
    clearTimeout(timer);
    leaving?.abort();
    if (!ghostAt(update.state)) timer = setTimeout(ask, PAUSE);
  }
}

async function ask() {
  leaving?.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const state = view.state, cursor = state.selection.main.head;
  const text = state.doc.toString();
  const asked = {
    prefix: text.slice(0, cursor), suffix: text.slice(cursor), layout: $("layout").value,
    tokens: Number($("tokens").value) || 48, rules: $("rules").checked ? "editor" : "none",
  };
  $("note").textContent = "";
  const names = [$("model").value, $("beside").value].filter(Boolean);
  $("cards").replaceChildren();
  try {
    for (const [number, model] of names.entries()) {
      const answer = await infill({ ...asked, model, session: `playground ${number}` }, signal, (written) => {
        if (number === 0 && view.state.selection.main.head === cursor) showGhost(view, cursor, written);
      });
      $("cards").append(card(model, answer, number > 0 || !answer.text));
    }
  } catch (error) {
    if (error.name !== "AbortError") $("note").textContent = error.message;
  }
}

function card(model, { text, last }, showsText) {
  const { timings: t, layout, reason, healed_bytes: healed } = last;
  const found = document.createElement("div");
  found.className = "card";
  const total = t.cache_n + t.prompt_n || 1;
  const facts = {
    layout, ended: reason, healed: healed === 1 ? "1 byte" : `${healed} bytes`, "tokens cached": t.cache_n, "tokens read": t.prompt_n,
    written: t.predicted_n, "guessed right": `${t.draft_n_accepted} of ${t.draft_n}`,
    "first text": `${t.prompt_ms.toFixed(0)} ms`, "the rest": `${t.predicted_ms.toFixed(0)} ms`,
  };
  found.innerHTML = `<h2></h2><div class="bar" title="tokens of the prompt: cached, then read"><span class="cached"></span><span class="read"></span></div><dl></dl>`;
  found.querySelector("h2").textContent = model;
  found.querySelector(".cached").style.width = `${(100 * t.cache_n) / total}%`;
  found.querySelector(".read").style.width = `${(100 * t.prompt_n) / total}%`;
  for (const [name, value] of Object.entries(facts)) {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value ?? "";
    found.querySelector("dl").append(dt, dd);
  }
  if (showsText) {
    const pre = document.createElement("pre");
    pre.textContent = text || "(nothing)";
    found.append(pre);
  }
  return found;
}

const colours = HighlightStyle.define([
  { tag: [tags.keyword, tags.operatorKeyword], color: "var(--keyword)" },
  { tag: tags.string, color: "var(--string)" },
  { tag: tags.comment, color: "var(--comment)", fontStyle: "italic" },
  { tag: [tags.function(tags.definition(tags.variableName)), tags.definition(tags.className)], color: "var(--name)" },
  { tag: [tags.number, tags.bool, tags.null], color: "var(--number)" },
]);
const looks = EditorView.theme({
  "&": { height: "100%", fontSize: "14px" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "ui-monospace, monospace", lineHeight: "1.6" },
  ".cm-gutters": { background: "var(--paper)", color: "var(--dim)", border: "none" },
  ".cm-activeLine": { background: "color-mix(in srgb, var(--shade) 60%, transparent)" },
  ".cm-cursor": { borderLeftColor: "var(--ink)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground": { background: "var(--cached)" },
});

const view = new EditorView({
  parent: $("editor"),
  state: EditorState.create({
    doc: SAMPLE,
    selection: { anchor: SAMPLE.indexOf("return ") + 7 },
    extensions: [
      lineNumbers(), history(), drawSelection(), highlightActiveLine(), bracketMatching(), indentOnInput(),
      indentUnit.of("    "), python(), syntaxHighlighting(colours), looks, ghost,
      EditorView.contentAttributes.of({ "aria-label": "Code" }),
      Prec.highest(keymap.of([
        { key: "Tab", run: (v) => acceptGhost(v, "all") },
        { key: "Ctrl-ArrowRight", run: (v) => acceptGhost(v, "word") },
        { key: "Ctrl-ArrowDown", run: (v) => acceptGhost(v, "line") },
        { key: "Escape", run: (v) => (leaving?.abort(), clearGhost(v)) },
        { key: "Ctrl-Space", run: () => (ask(), true) },
      ])),
      keymap.of([indentWithTab, ...defaultKeymap, ...historyKeymap]),
      EditorView.updateListener.of(changed),
    ],
  }),
});

for (const id of ["layout", "tokens", "rules", "model", "beside"]) $(id).addEventListener("change", ask);
for (const name of ["code", "chat"]) $(`tab-${name}`).addEventListener("click", () => show(name));
$("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));

function show(chosen) {
  for (const name of ["code", "chat"]) {
    $(name).hidden = name !== chosen;
    $(`tab-${name}`).setAttribute("aria-selected", String(name === chosen));
  }
  (chosen === "code" ? view : $("words")).focus();
}

function theme(name) {
  document.documentElement.dataset.theme = name;
}

theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
chat($, () => $("model").value);
models().then(
  (names) => {
    for (const name of names) {
      $("model").append(new Option(name));
      $("beside").append(new Option(name));
    }
    view.focus();
    ask();
  },
  (error) => ($("note").textContent = error.message),
);
