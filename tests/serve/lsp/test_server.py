"""A real language server over stdio, asked by pygls' own client."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types
from pygls.exceptions import JsonRpcException
from pygls.lsp.client import LanguageClient

from engine.tiny import chain_model, tiny_model, tiny_tokenizer
from midspan.engine import Engine
from midspan.engine.session import Session
from midspan.fim import with_sentinels
from midspan.model.weights import write_hf
from serve.test_process import served
from vocabularies import byte_vocabulary

URI = "file:///repo/app.py"
TEXT = "# 🚀 rockets\ndef add(a, b):\n    return \n\n\nprint(add(1, 2))\n"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lsp") / "tiny"
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer.vocab_size, max_positions=2048)
    write_hf(folder, model, model.config, tokenizer=tokenizer)
    return folder


class Client(LanguageClient):
    """An editor that does what it is told."""

    def __init__(self) -> None:
        super().__init__("test", "1")
        self.edits: list[types.ApplyWorkspaceEditParams] = []
        self.messages: list[str] = []

        @self.feature(types.WORKSPACE_APPLY_EDIT)
        def apply(params: types.ApplyWorkspaceEditParams) -> types.ApplyWorkspaceEditResult:
            self.edits.append(params)
            return types.ApplyWorkspaceEditResult(applied=True)

        @self.feature(types.WINDOW_SHOW_MESSAGE)
        def show(params: types.ShowMessageParams) -> None:
            self.messages.append(params.message)

        @self.feature("textDocument/didChangeStatus")
        def status(params: Any) -> None:
            pass


@asynccontextmanager
async def editor(*arguments: str, units: str = "utf-16") -> AsyncIterator[Client]:
    client = Client()
    await client.start_io(
        sys.executable, "-m", "midspan", "lsp", *arguments, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    general = types.GeneralClientCapabilities(position_encodings=[types.PositionEncodingKind(units)])
    found = await client.initialize_async(
        types.InitializeParams(capabilities=types.ClientCapabilities(general=general), process_id=os.getpid())
    )
    assert found.capabilities.position_encoding == units
    assert found.capabilities.inline_completion_provider
    client.initialized(types.InitializedParams())
    try:
        yield client
    finally:
        await client.shutdown_async(None)
        client.exit(None)
        await asyncio.wait_for(client.stop(), 20)


def opened(client: Client, text: str = TEXT, uri: str = URI) -> None:
    client.text_document_did_open(types.DidOpenTextDocumentParams(types.TextDocumentItem(uri, "python", 1, text)))


def at(line: int, character: int) -> types.Position:
    return types.Position(line, character)


async def suggestion(
    client: Client,
    position: types.Position,
    kind: types.InlineCompletionTriggerKind = types.InlineCompletionTriggerKind.Automatic,
    **context: Any,
) -> types.InlineCompletionList:
    params = types.InlineCompletionParams(
        context=types.InlineCompletionContext(trigger_kind=kind, **context),
        text_document=types.TextDocumentIdentifier(URI),
        position=position,
    )
    found = await asyncio.wait_for(client.text_document_inline_completion_async(params), 60)
    assert isinstance(found, types.InlineCompletionList)
    return found


def expected(checkpoint: Path, text: str, cursor: int, tokens: int = 64) -> str:
    session = Session(Engine.load(checkpoint, decoder="torch"), "repo/app.py")
    session.open(text, cursor)
    return session.suggest(max_tokens=tokens).text


def run(what: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(what())  # type: ignore[arg-type]


def test_a_suggestion_is_the_engines_and_stands_while_it_is_typed(checkpoint: Path) -> None:
    cursor = TEXT.index("return ") + len("return ")

    async def edit() -> None:
        async with editor(str(checkpoint), "--decoder", "torch") as client:
            opened(client)
            (item,) = (await suggestion(client, at(2, 11))).items
            assert item.insert_text == expected(checkpoint, TEXT, cursor)
            assert item.range == types.Range(at(2, 11), at(2, 11))
            first = item.insert_text[0]
            change = types.TextDocumentContentChangePartial(types.Range(at(2, 11), at(2, 11)), first)
            client.text_document_did_change(
                types.DidChangeTextDocumentParams(types.VersionedTextDocumentIdentifier(2, URI), [change])
            )
            (rest,) = (await suggestion(client, at(2, 12) if first != "\n" else at(3, 0))).items
            assert rest.insert_text == item.insert_text[1:]
            listed = await client.text_document_completion_async(
                types.CompletionParams(types.TextDocumentIdentifier(URI), at(2, 12) if first != "\n" else at(3, 0))
            )
            assert isinstance(listed, types.CompletionList)
            edit = listed.items[0].text_edit
            assert isinstance(edit, types.TextEdit)
            assert edit.new_text == rest.insert_text
            client.protocol.notify("textDocument/didShowCompletion", {"item": {}})
            client.protocol.notify("textDocument/didPartiallyAcceptCompletion", {"acceptedLength": 1})
            await client.workspace_execute_command_async(types.ExecuteCommandParams("midspan.accept"))
            status = await client.protocol.send_request_async("midspan/status", {})
            assert sorted(status.counts) == [1, 1, 1], "shown, accepted in part, accepted"

    run(edit)


@pytest.mark.parametrize(("units", "column"), [("utf-8", 4), ("utf-16", 2), ("utf-32", 1)])
def test_positions_are_in_the_editors_units(checkpoint: Path, units: str, column: int) -> None:
    text = "🚀x\n"

    async def edit() -> None:
        async with editor(str(checkpoint), "--decoder", "torch", units=units) as client:
            opened(client, text)
            found = (await suggestion(client, at(0, column))).items
            assert [item.insert_text for item in found] == [
                t for t in [expected(checkpoint, text, 1)] if t.strip()
            ]

    run(edit)


def test_what_only_closes_is_shown_to_who_asks_for_it(tmp_path: Path) -> None:
    tokenizer = with_sentinels(byte_vocabulary())
    end = tokenizer.id_of("</s>")
    assert end is not None
    model = chain_model(tokenizer, "x=y})", end, max_positions=2048)
    write_hf(tmp_path / "closing", model, model.config, tokenizer=tokenizer)

    async def edit() -> None:
        async with editor(str(tmp_path / "closing"), "--decoder", "torch") as client:
            opened(client, "f({x=y\n")
            invoked = types.InlineCompletionTriggerKind.Invoked
            assert not (await suggestion(client, at(0, 6))).items
            (item,) = (await suggestion(client, at(0, 6), kind=invoked)).items
            assert item.insert_text == "})"
            change = types.TextDocumentContentChangeWholeDocument("f({x\n")
            client.text_document_did_change(
                types.DidChangeTextDocumentParams(types.VersionedTextDocumentIdentifier(2, URI), [change])
            )
            (item,) = (await suggestion(client, at(0, 4))).items
            assert item.insert_text == "=y})"
            change = types.TextDocumentContentChangePartial(types.Range(at(0, 4), at(0, 4)), "=y")
            client.text_document_did_change(
                types.DidChangeTextDocumentParams(types.VersionedTextDocumentIdentifier(3, URI), [change])
            )
            assert not (await suggestion(client, at(0, 6))).items, "nor is it when it is all that is left"
            assert (await suggestion(client, at(0, 6), kind=invoked)).items[0].insert_text == "})"

    run(edit)


def test_a_completion_that_is_shown_is_gone_on_with(checkpoint: Path) -> None:
    text = "import o\n"

    async def edit() -> None:
        async with editor(str(checkpoint), "--decoder", "torch") as client:
            opened(client, text)
            info = types.SelectedCompletionInfo(types.Range(at(0, 7), at(0, 8)), "os")
            found = (await suggestion(client, at(0, 8), selected_completion_info=info)).items
            for item in found:
                assert isinstance(item.insert_text, str)
                assert item.insert_text.startswith("os")
                assert item.range == info.range
                assert item.insert_text[2:] == expected(checkpoint, "import os\n", 9)

    run(edit)


def test_a_request_that_is_taken_back_ends(checkpoint: Path) -> None:
    async def edit() -> None:
        async with editor(str(checkpoint), "--decoder", "torch") as client:
            opened(client, "x = 1\n" * 200)
            invoked = types.InlineCompletionContext(types.InlineCompletionTriggerKind.Invoked)
            params = types.InlineCompletionParams(invoked, types.TextDocumentIdentifier(URI), at(200, 0))
            asked = client.protocol.send_request(types.TEXT_DOCUMENT_INLINE_COMPLETION, params, msg_id="one")
            client.cancel_request(types.CancelParams("one"))
            with pytest.raises((JsonRpcException, asyncio.CancelledError)):
                await asyncio.wait_for(asyncio.wrap_future(asked), 30)
            assert len((await suggestion(client, at(3, 0))).items) in (0, 1), "and the next one is answered"

    run(edit)


def test_code_actions_edit_the_file_or_say_why_not(checkpoint: Path) -> None:
    async def edit() -> None:
        async with editor(str(checkpoint), "--decoder", "torch") as client:
            opened(client)
            params = types.CodeActionParams(
                types.TextDocumentIdentifier(URI), types.Range(at(2, 0), at(2, 5)), types.CodeActionContext([])
            )
            actions = await client.text_document_code_action_async(params)
            titles = [action.title for action in actions or []]
            assert titles == [
                "Write the docstring of add",
                "Write the types that this file lacks",
                "Explain this code",
            ]
            commands = [("docstring", [URI, "add"]), ("types", [URI]), ("explain", ["x = 1"])]
            for name, arguments in commands:
                await client.workspace_execute_command_async(
                    types.ExecuteCommandParams(f"midspan.{name}", arguments=arguments)
                )
            assert len(client.edits) + len(client.messages) >= 3
            opened(client, "def broken(:\n")
            await client.workspace_execute_command_async(
                types.ExecuteCommandParams("midspan.docstring", arguments=[URI, "broken"])
            )
            assert "no Python at line 1" in client.messages[-1]

    run(edit)


def test_an_editor_that_dies_takes_its_server_along(checkpoint: Path) -> None:
    command = [sys.executable, "-m", "midspan", "lsp", str(checkpoint), "--decoder", "torch"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    assert process.stdout is not None
    for message in (
        {"id": 1, "method": "initialize", "params": {"capabilities": {}, "processId": None, "rootUri": None}},
        {"method": "initialized", "params": {}},
        {"id": 2, "method": "midspan/status", "params": {}},
    ):
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    process.stdin.flush()
    assert b"Content-Length" in process.stdout.readline()
    process.stdin.close()
    assert process.wait(timeout=60) is not None


def test_a_running_server_can_do_the_work(checkpoint: Path) -> None:
    cursor = TEXT.index("return ") + len("return ")

    async def edit(url: str) -> None:
        async with editor("--server", url) as client:
            opened(client)
            (item,) = (await suggestion(client, at(2, 11))).items
            assert item.insert_text == expected(checkpoint, TEXT, cursor)

    with served(checkpoint, "--quiet") as (url, _):
        asyncio.run(edit(url))
