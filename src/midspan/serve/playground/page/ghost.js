// Ghost text: what the model would write at the cursor, shown and not yet part of the file.
import { StateEffect, StateField } from "@codemirror/state";
import { Decoration, EditorView, WidgetType } from "@codemirror/view";

const set = StateEffect.define();

class Ghost extends WidgetType {
  constructor(text) {
    super();
    this.text = text;
  }
  eq(other) {
    return other.text === this.text;
  }
  toDOM() {
    const span = document.createElement("span");
    span.className = "ghost";
    span.textContent = this.text;
    return span;
  }
  ignoreEvent() {
    return true;
  }
}

// {at, text} or null. Typing on with what is shown leaves the rest of it; anything else takes it away.
const field = StateField.define({
  create: () => null,
  update(value, transaction) {
    for (const effect of transaction.effects) if (effect.is(set)) return effect.value;
    if (!value) return null;
    if (transaction.docChanged) {
      let typed = null;
      transaction.changes.iterChanges((from, to, _, __, inserted) => {
        typed = typed === null && from === to && from === value.at ? inserted.toString() : undefined;
      });
      if (!typed || !value.text.startsWith(typed) || typed === value.text) return null;
      return { at: value.at + typed.length, text: value.text.slice(typed.length) };
    }
    return transaction.selection && transaction.state.selection.main.head !== value.at ? null : value;
  },
  provide: (f) =>
    EditorView.decorations.from(f, (value) =>
      value ? Decoration.set(Decoration.widget({ widget: new Ghost(value.text), side: 1 }).range(value.at)) : Decoration.none,
    ),
});

export const ghost = field;
export const ghostAt = (state) => state.field(field);

export function showGhost(view, at, text) {
  view.dispatch({ effects: set.of(text ? { at, text } : null) });
}

export function clearGhost(view) {
  if (!ghostAt(view.state)) return false;
  view.dispatch({ effects: set.of(null) });
  return true;
}

export function acceptGhost(view, what) {
  const found = ghostAt(view.state);
  if (!found) return false;
  const pattern = { all: /^[^]*/, word: /^\s*(\w+|[^\w\s]+)?/, line: /^\n?[^\n]*/ }[what];
  const text = found.text.match(pattern)[0] || found.text;
  const end = found.at + text.length;
  view.dispatch({ changes: { from: found.at, insert: text }, selection: { anchor: end }, userEvent: "input.complete" });
  return true;
}
