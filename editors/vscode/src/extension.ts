// Midspan in VS Code: ghost text, and commands that write docstrings and types or explain code.
import * as vscode from "vscode";
import { post } from "./client";
import { Provider } from "./inline";
import { State } from "./state";

export function activate(context: vscode.ExtensionContext): void {
  const item = vscode.window.createStatusBarItem(vscode.StatusBarAlignment.Right, 100);
  const state = new State(context.secrets, item);
  const python = { language: "python" };
  context.subscriptions.push(
    item,
    vscode.languages.registerInlineCompletionItemProvider({ pattern: "**" }, new Provider(state)),
    vscode.languages.registerCodeActionsProvider(python, { provideCodeActions: offered }),
    command("toggle", () => state.toggle()),
    command("accepted", () => askServer(state, "/v1/events", { type: "select" })),
    command("docstring", (name?: string) => rewrite(state, "/v1/code/docstring", { function: name ?? functionAt() })),
    command("types", () => rewrite(state, "/v1/code/types", {})),
    command("explain", () => explain(state)),
    command("key", async () => {
      const key = await vscode.window.showInputBox({ prompt: "The server's key", password: true });
      if (key !== undefined) await state.keep(key);
    }),
  );
}

function command(name: string, run: (...args: any[]) => unknown): vscode.Disposable {
  return vscode.commands.registerCommand(`midspan.${name}`, run);
}

function offered(document: vscode.TextDocument, range: vscode.Range): vscode.CodeAction[] {
  const kind = vscode.CodeActionKind.RefactorRewrite;
  const found: vscode.CodeAction[] = [];
  const add = (title: string, name: string, args: unknown[] = []) => {
    const action = new vscode.CodeAction(title, kind);
    action.command = { command: `midspan.${name}`, title, arguments: args };
    found.push(action);
  };
  const name = nameAt(document, range.start.line);
  if (name) add(`Write the docstring of ${name}`, "docstring", [name]);
  add("Write the types that this file lacks", "types");
  if (!range.isEmpty) add("Explain this code", "explain");
  return found;
}

function functionAt(): string | undefined {
  const editor = vscode.window.activeTextEditor;
  return editor && nameAt(editor.document, editor.selection.start.line);
}

// The function or class that a line is in, as Class.method: by its indentation, upwards.
export function nameAt(document: vscode.TextDocument, line: number): string | undefined {
  const names: string[] = [];
  let indent = Infinity;
  for (let number = line; number >= 0; number--) {
    const text = document.lineAt(number).text;
    if (!text.trim()) continue;
    const column = text.length - text.trimStart().length;
    const found = text.match(/^\s*(?:async\s+)?(?:def|class)\s+(\w+)/);
    if (found && column < indent) names.unshift(found[1]);
    indent = Math.min(indent, column);
    if (indent === 0) break;
  }
  return names.join(".") || undefined;
}

async function rewrite(state: State, path: string, body: object): Promise<void> {
  const editor = vscode.window.activeTextEditor;
  if (!editor) return;
  const { document } = editor, version = document.version, source = document.getText();
  const asked = { source, path: vscode.workspace.asRelativePath(document.uri), ...body };
  const found = await askServer(state, path, asked, "Midspan writes");
  if (!found) return;
  if (document.version !== version) {
    void vscode.window.showWarningMessage("The file was changed meanwhile; nothing was written.");
  } else if (found.source === source) {
    void vscode.window.showInformationMessage("Nothing usable was found; the file stays as it is.");
  } else {
    const all = new vscode.Range(document.positionAt(0), document.positionAt(source.length));
    await editor.edit((edit) => edit.replace(all, found.source));
  }
}

async function explain(state: State): Promise<void> {
  const editor = vscode.window.activeTextEditor;
  const code = editor?.document.getText(editor.selection);
  if (!code) return;
  const content = `Explain what this code does, briefly:\n\n${code}`;
  const body = { messages: [{ role: "user", content }], max_tokens: 256, temperature: 0 };
  const found = await askServer(state, "/v1/chat/completions", body, "Midspan reads");
  if (!found) return;
  const text = found.choices[0].message.content;
  await vscode.window.showTextDocument(await vscode.workspace.openTextDocument({ content: text, language: "markdown" }), { preview: true, viewColumn: vscode.ViewColumn.Beside });
}

// Ask the server, with progress if it has a title; what goes wrong is shown, and nothing comes back then.
async function askServer(state: State, path: string, body: object, title?: string): Promise<any> {
  const ask = async () => post(await state.server(), path, body);
  try {
    if (!title) return await ask();
    return await vscode.window.withProgress({ location: vscode.ProgressLocation.Window, title }, ask);
  } catch (error) {
    if (title) void vscode.window.showErrorMessage(`Midspan: ${(error as Error).message}`);
    return undefined;
  }
}
