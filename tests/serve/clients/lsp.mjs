// Microsoft's own protocol library against `midspan lsp`: node lsp.mjs PROGRAM ARGUMENT...; facts go out as JSON.
import { spawn } from "node:child_process";
import * as protocol from "vscode-languageserver-protocol/node";

const [program, ...rest] = process.argv.slice(2);
const server = spawn(program, rest, { stdio: ["pipe", "pipe", "inherit"] });
const connection = protocol.createProtocolConnection(
  new protocol.StreamMessageReader(server.stdout), new protocol.StreamMessageWriter(server.stdin),
);
connection.listen();

const uri = "file:///repo/app.py";
const text = "# 🚀\r\ndef add(a, b):\r\n    return \r\n\r\nprint(add(1, 2))\r\n";
const { capabilities } = await connection.sendRequest(protocol.InitializeRequest.type, {
  processId: process.pid, rootUri: null, capabilities: { general: { positionEncodings: ["utf-16"] } },
});
await connection.sendNotification(protocol.InitializedNotification.type, {});
await connection.sendNotification(protocol.DidOpenTextDocumentNotification.type, {
  textDocument: { uri, languageId: "python", version: 1, text },
});
const place = { textDocument: { uri }, position: { line: 2, character: 11 } };
const ask = (token) => connection.sendRequest(
  protocol.InlineCompletionRequest.type, { ...place, context: { triggerKind: 1 } }, token,
);
const { items } = await ask();
const source = new protocol.CancellationTokenSource();
const leaving = ask(source.token).then(() => "answered", (error) => error.code);
source.cancel();
const taken_back = await leaving;
const actions = await connection.sendRequest(protocol.CodeActionRequest.type, {
  textDocument: { uri }, context: { diagnostics: [] },
  range: { start: place.position, end: place.position },
});
await connection.sendRequest(protocol.ShutdownRequest.type);
const ended = new Promise((resolve) => server.on("exit", resolve));
await connection.sendNotification(protocol.ExitNotification.type);
const code = await ended;
console.log(JSON.stringify({
  inline: Boolean(capabilities.inlineCompletionProvider), items, taken_back, code,
  titles: actions.map((action) => action.title),
}));
