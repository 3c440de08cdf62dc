// The provider against a mock of VS Code and a real HTTP server.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { nameAt } from "../src/extension";
import { Provider } from "../src/inline";
import { State } from "../src/state";
import { Document, InlineCompletionTriggerKind, Position, Range, Token, settings, workspace } from "./vscode";

const bodies: any[] = [];
let answer = { status: 200, body: { content: "a + b" } as any, wait: 0 };
let gone = 0;
const server = createServer((request, response) => {
  let data = "";
  request.on("data", (piece) => (data += piece));
  request.on("end", () => {
    bodies.push({ ...JSON.parse(data), authorization: request.headers.authorization });
    const timer = setTimeout(() => response.writeHead(answer.status).end(JSON.stringify(answer.body)), answer.wait);
    response.on("close", () => response.writableFinished || (clearTimeout(timer), gone++));
  });
});
const item: any = { show() {} };
const secrets: any = { get: async () => "secret" };
const state = new State(secrets, item);

before(() => new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => {
  settings.url = `http://127.0.0.1:${(server.address() as any).port}/`;
  settings.pause = 5;
  resolve();
})));
after(() => (server.closeAllConnections(), server.close()));

const context = { triggerKind: InlineCompletionTriggerKind.Automatic, selectedCompletionInfo: undefined } as any;
const ask = (provider: Provider, document: Document, at: Position, given = context, token = new Token()) =>
  provider.provideInlineCompletionItems(document as any, at as any, given, token as any) as Promise<any[]>;

test("a suggestion is the server's, for what stands round the cursor", async () => {
  const other = new Document("PRICE = 3\n", "file:///repo/prices.py");
  workspace.textDocuments = [other];
  const document = new Document("def f(a, b):\n    return \nprint(1)\n");
  const [found] = await ask(new Provider(state), document, new Position(1, 11));
  assert.equal(found.insertText, "a + b");
  const body = bodies.at(-1);
  assert.equal(body.input_prefix, "def f(a, b):\n    return ");
  assert.equal(body.input_suffix, "\nprint(1)\n");
  assert.deepEqual(body.input_extra, [{ filename: "prices.py", text: "PRICE = 3\n" }]);
  assert.equal(body.authorization, "Bearer secret");
});

test("what is typed on stands without asking", async () => {
  const provider = new Provider(state), document = new Document("x = ");
  await ask(provider, document, new Position(0, 4));
  const asked = bodies.length;
  document.text = "x = a +";
  assert.equal((await ask(provider, document, new Position(0, 7)))[0].insertText, " b");
  assert.equal(bodies.length, asked);
  document.text = "x = q";
  await ask(provider, document, new Position(0, 5));
  assert.equal(bodies.length, asked + 1);
});

test("what is left of it does not take the tab key for a bracket", async () => {
  const provider = new Provider(state), document = new Document("x = ");
  answer.body = { content: "f(a);" };
  await ask(provider, document, new Position(0, 4));
  assert.equal(bodies.at(-1).stop_rules, "editor");
  const asked = bodies.length;
  document.text = "x = f(a";
  assert.deepEqual(await ask(provider, document, new Position(0, 7)), []);
  const invoked = { ...context, triggerKind: InlineCompletionTriggerKind.Invoke };
  assert.equal((await ask(provider, document, new Position(0, 7), invoked))[0].insertText, ");");
  assert.equal(bodies.length, asked);
  document.text = "y = ";
  await ask(provider, document, new Position(0, 4), invoked);
  assert.equal(bodies.at(-1).stop_rules, "invoked");
  answer.body = { content: "a + b" };
});

test("a chosen completion is gone on with", async () => {
  const document = new Document("import o");
  const info = { range: new Range(new Position(0, 7), new Position(0, 8)), text: "os" };
  const [found] = await ask(new Provider(state), document, new Position(0, 8), { ...context, selectedCompletionInfo: info });
  assert.equal(bodies.at(-1).input_prefix, "import os");
  assert.equal(found.insertText, "osa + b");
  assert.equal(found.range, info.range);
});

test("a request that is taken back is closed", async () => {
  answer.wait = 5000;
  const token = new Token(), document = new Document("y = ");
  const asking = ask(new Provider(state), document, new Position(0, 4), context, token);
  await new Promise((resolve) => setTimeout(resolve, 100));
  token.cancel();
  assert.deepEqual(await asking, []);
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(gone, 1);
  answer.wait = 0;
});

test("trouble is in the status bar and goes away again", async () => {
  answer = { status: 503, body: { error: { message: "Loading model" } }, wait: 0 };
  assert.deepEqual(await ask(new Provider(state), new Document("z = "), new Position(0, 4)), []);
  assert.equal(item.tooltip, "Loading model");
  answer = { status: 200, body: { content: "1" }, wait: 0 };
  await ask(new Provider(state), new Document("z = "), new Position(0, 4));
  assert.equal(item.tooltip, "Suggestions are on");
});

test("nothing is asked when it is off, or in other languages", async () => {
  const asked = bodies.length;
  state.toggle();
  assert.deepEqual(await ask(new Provider(state), new Document("a"), new Position(0, 1)), []);
  state.toggle();
  settings.languages = ["rust"];
  assert.deepEqual(await ask(new Provider(state), new Document("a"), new Position(0, 1)), []);
  settings.languages = undefined;
  assert.equal(bodies.length, asked);
});

test("the function round a line", () => {
  const document = new Document("class A:\n    x = 1\n\n    def f(self):\n        return 1\n\ndef g():\n    pass\nh = 2\n") as any;
  assert.equal(nameAt(document, 4), "A.f");
  assert.equal(nameAt(document, 1), "A");
  assert.equal(nameAt(document, 7), "g");
  assert.equal(nameAt(document, 8), undefined);
});
