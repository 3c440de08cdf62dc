// As much of VS Code's API as the extension touches, for tests without VS Code.
export const settings: Record<string, unknown> = {};
export const messages: string[] = [];
export class Position {
  constructor(readonly line: number, readonly character: number) {}
}
export class Range {
  constructor(readonly start: Position, readonly end: Position) {}
}
export enum InlineCompletionTriggerKind { Invoke = 0, Automatic = 1 }
export enum StatusBarAlignment { Left = 1, Right = 2 }
export const workspace = {
  textDocuments: [] as any[],
  getConfiguration: () => ({ get: (name: string, other: unknown) => settings[name] ?? other }),
  asRelativePath: (uri: any) => String(uri).replace("file:///repo/", ""),
};
export const window = { showErrorMessage: (text: string) => messages.push(text) };
export const languages = {}, commands = {};
export class CodeAction {}
export const CodeActionKind = {};

export class Document {
  languageId = "python";
  version = 1;
  uri = { scheme: "file", toString: () => this.path };
  constructor(public text: string, readonly path = "file:///repo/app.py") {}
  getText() {
    return this.text;
  }
  offsetAt(position: Position) {
    const lines = this.text.split("\n").slice(0, position.line);
    return lines.reduce((sum, line) => sum + line.length + 1, 0) + position.character;
  }
  lineAt(line: number) {
    return { text: this.text.split("\n")[line] };
  }
}

export class Token {
  isCancellationRequested = false;
  private readonly listeners: (() => void)[] = [];
  onCancellationRequested(listener: () => void) {
    this.listeners.push(listener);
    return { dispose() {} };
  }
  cancel() {
    this.isCancellationRequested = true;
    this.listeners.forEach((listener) => listener());
  }
}
