// Ghost text: the rest of the last suggestion while it is typed on, else the server's.
import * as vscode from "vscode";
import { ServerError, infill } from "./client";
import { State } from "./state";

export class Provider implements vscode.InlineCompletionItemProvider {
  private last?: { uri: string; before: string; text: string };

  constructor(private readonly state: State) {}

  async provideInlineCompletionItems(
    document: vscode.TextDocument,
    position: vscode.Position,
    context: vscode.InlineCompletionContext,
    token: vscode.CancellationToken,
  ): Promise<vscode.InlineCompletionItem[]> {
    if (!this.state.on || !this.state.speaks(document.languageId)) return [];
    const text = document.getText();
    const chosen = context.selectedCompletionInfo;
    let cursor = document.offsetAt(position);
    let before = text.slice(0, cursor);
    const start = chosen ? document.offsetAt(chosen.range.start) : cursor;
    if (chosen) before = text.slice(0, start) + chosen.text;
    const suggestion = await this.suggestion(document, before, text.slice(cursor), context, token);
    if (!suggestion.trim() || token.isCancellationRequested) return [];
    const range = chosen ? chosen.range : new vscode.Range(position, position);
    const command = { command: "midspan.accepted", title: "Accepted" };
    return [{ insertText: (chosen?.text ?? "") + suggestion, range, command }];
  }

  private async suggestion(
    document: vscode.TextDocument,
    before: string,
    behind: string,
    context: vscode.InlineCompletionContext,
    token: vscode.CancellationToken,
  ): Promise<string> {
    const uri = document.uri.toString();
    const invoked = context.triggerKind === vscode.InlineCompletionTriggerKind.Invoke;
    const standing = this.standing(uri, before);
    if (standing) return !invoked && trifling(standing) ? "" : standing;
    const settings = this.state.settings();
    if (!invoked && !(await quiet(settings.pause, token))) return "";
    const leaving = new AbortController();
    token.onCancellationRequested(() => leaving.abort());
    this.state.working(1);
    try {
      const text = await infill(
        await this.state.server(),
        {
          prefix: before.slice(-settings.characters), suffix: behind.slice(0, settings.characters),
          maxTokens: settings.maxTokens, layout: settings.layout, session: uri.slice(-200),
          invoked,
          extra: this.state.others(document, settings.openFiles),
        },
        leaving.signal,
      );
      this.last = { uri, before, text };
      this.state.well();
      return text;
    } catch (error) {
      if (error instanceof ServerError) this.state.ill(error.message);
      else if ((error as Error).name !== "AbortError") throw error;
      return "";
    } finally {
      this.state.working(-1);
    }
  }

  // What is left of the last suggestion, if what was typed since then began it.
  private standing(uri: string, before: string): string {
    const last = this.last;
    if (!last || last.uri !== uri || !before.startsWith(last.before)) return "";
    const typed = before.slice(last.before.length);
    return last.text.startsWith(typed) && typed !== last.text ? last.text.slice(typed.length) : "";
  }
}

// What is left of a suggestion only closes a bracket or two: not worth the key that accepts it. What the server
// sends is looked at there.
function trifling(text: string): boolean {
  return /^[)\]}>;,:'"`]{1,3}$/.test(text.replace(/\s/g, ""));
}

// Wait for a while; false if the request was taken back meanwhile.
function quiet(pause: number, token: vscode.CancellationToken): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(!token.isCancellationRequested), pause);
    token.onCancellationRequested(() => (clearTimeout(timer), resolve(false)));
  });
}
