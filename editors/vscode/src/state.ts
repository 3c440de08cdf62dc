// Settings, the key, and the item in the status bar.
import * as vscode from "vscode";
import { Settings } from "./client";

export class State {
  on = true;
  private busy = 0;
  private trouble = "";

  constructor(private readonly secrets: vscode.SecretStorage, private readonly item: vscode.StatusBarItem) {
    item.command = "midspan.toggle";
    this.show();
    item.show();
  }

  settings() {
    const found = vscode.workspace.getConfiguration("midspan");
    return {
      pause: found.get("pause", 60), maxTokens: found.get("maxTokens", 64), layout: found.get("layout", "auto"),
      characters: found.get("characters", 60000), openFiles: found.get("openFiles", 4),
    };
  }

  async server(): Promise<Settings> {
    const found = vscode.workspace.getConfiguration("midspan");
    const key = await this.secrets.get("midspan.key");
    return { url: found.get("url", "http://127.0.0.1:8012"), model: found.get("model", ""), key };
  }

  async keep(key: string): Promise<void> {
    await this.secrets.store("midspan.key", key);
  }

  speaks(language: string): boolean {
    const languages = vscode.workspace.getConfiguration("midspan").get<string[]>("languages", ["*"]);
    return languages.includes("*") || languages.includes(language);
  }

  // Other files that are open, the same language first: what the model is shown beside this one.
  others(document: vscode.TextDocument, most: number) {
    return vscode.workspace.textDocuments
      .filter((other) => other !== document && other.uri.scheme === "file" && other.getText().length < 20000)
      .sort((a, b) => Number(b.languageId === document.languageId) - Number(a.languageId === document.languageId))
      .slice(0, most)
      .map((other) => ({ filename: vscode.workspace.asRelativePath(other.uri), text: other.getText() }));
  }

  toggle(): void {
    this.on = !this.on;
    this.show();
  }

  working(step: number): void {
    this.busy += step;
    this.show();
  }

  well(): void {
    this.trouble = "";
    this.show();
  }

  ill(message: string): void {
    this.trouble = message;
    this.show();
  }

  private show(): void {
    const icon = !this.on ? "circle-slash" : this.trouble ? "warning" : this.busy ? "loading~spin" : "sparkle";
    this.item.text = `$(${icon}) Midspan`;
    this.item.tooltip = this.trouble || (this.on ? "Suggestions are on" : "Suggestions are off");
  }
}
