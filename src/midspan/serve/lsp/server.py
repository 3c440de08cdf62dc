"""The requests and notifications of an editor.

    textDocument/inlineCompletion     ghost text (LSP 3.18)
    textDocument/completion           the same in the list of older editors
    textDocument/codeAction           docstring, types, explanation, as commands that edit the file
    textDocument/didShowCompletion, didPartiallyAcceptCompletion, command midspan.accept      counted, no more
    midspan/status                    what is served, and the counts
    textDocument/didChangeStatus      sent: whether it is at work (Copilot's words)

Positions are in whatever units the editor speaks. A request that is taken back ends the work within a step, and a
newer one of the same file ends the older.
"""

from __future__ import annotations

import ast
import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from urllib.parse import unquote, urlsplit

from lsprotocol import types
from pygls.exceptions import PyglsError
from pygls.lsp.server import LanguageServer
from pygls.workspace import TextDocument

from midspan import __version__
from midspan.errors import InputError, WorkError
from midspan.serve.lsp.document import smallest_edit
from midspan.serve.lsp.suggest import Suggester

MOST_OPEN = 12
"""Other files that are looked at."""
ACCEPT, DOCSTRING, TYPES, EXPLAIN = (f"midspan.{name}" for name in ("accept", "docstring", "types", "explain"))
Opener = Callable[[ExitStack], Suggester]


def run(open_suggester: Opener, name: str, where: tuple[str, int] | None = None) -> None:
    """Serve an editor until it leaves, whether it says so or not.

    Args:
        open_suggester: called when the editor says hello; what it puts into the stack ends with the server.
        name: of the model, for people.
        where: host and port to listen on; stdio if None.
    """
    server = LanguageServer("midspan", __version__)
    state = _State(server, open_suggester, name)
    _documents(server, state)
    _suggestions(server, state)
    _actions(server, state)
    _counts(server, state)
    try:
        if where is None:
            server.start_io()
        else:
            server.start_tcp(*where)
    finally:
        state.close()


class _State:
    """What a server knows between requests."""

    def __init__(self, server: LanguageServer, open_suggester: Opener, name: str) -> None:
        self._server, self._open, self.name = server, open_suggester, name
        self.counts: Counter[str] = Counter()
        self._running = ExitStack()
        self._suggester: asyncio.Future[Suggester] | None = None
        self._busy = 0
        self._closed = False

    def start(self) -> None:
        """Load the model, in the background."""
        if self._suggester is None:
            self._suggester = asyncio.ensure_future(asyncio.to_thread(self._opened))

    async def suggester(self) -> Suggester:
        """What writes, once it is loaded."""
        self.start()
        assert self._suggester is not None
        return await asyncio.shield(self._suggester)

    def _opened(self) -> Suggester:
        suggester = self._open(self._running)
        gc.collect()
        gc.freeze()  # no keystroke has to wait while all that was loaded is looked through for garbage
        if self._closed:  # the editor left while the model was loaded
            self._running.close()
        return suggester

    def close(self) -> None:
        """End what was opened, or is being opened."""
        self._closed = True
        self._running.close()

    def forget(self, path: str) -> None:
        """A file was closed."""
        if self._suggester is not None and self._suggester.done() and not self._suggester.exception():
            self._suggester.result().close(path)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Tell the editor that something is under way."""
        self._busy += 1
        self._tell()
        try:
            yield
        finally:
            self._busy -= 1
            self._tell()

    def _tell(self) -> None:
        status = {"busy": self._busy > 0, "message": self.name, "kind": "Normal"}
        with suppress(PyglsError, OSError):
            self._server.protocol.notify("textDocument/didChangeStatus", status)

    def say(self, error: Exception) -> None:
        """Show a user what went wrong, in the sentence that it has."""
        self._server.window_show_message(types.ShowMessageParams(types.MessageType.Warning, str(error)))


def _documents(server: LanguageServer, state: _State) -> None:
    @server.feature(types.INITIALIZED)
    def initialized(params: types.InitializedParams) -> None:
        state.start()

    @server.feature(types.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: types.DidOpenTextDocumentParams) -> None:
        pass  # the workspace keeps it

    @server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: types.DidChangeTextDocumentParams) -> None:
        pass

    @server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: types.DidCloseTextDocumentParams) -> None:
        state.forget(_path(params.text_document.uri))

    @server.feature(types.SHUTDOWN)
    def shut_down(params: None) -> None:
        state.close()


def _suggestions(server: LanguageServer, state: _State) -> None:
    async def suggested(document: TextDocument, position: types.Position, chosen: str, *, invoked: bool) -> str:
        text, cursor = document.source, document.offset_at_position(position)
        text, cursor = text[:cursor] + chosen + text[cursor:], cursor + len(chosen)
        others = [d for uri, d in server.workspace.text_documents.items() if uri != document.uri]
        files = {_path(d.uri): d.source for d in others[:MOST_OPEN]}
        suggester = await state.suggester()
        with state.working():
            return await suggester.suggest(_path(document.uri), text, cursor, files, invoked=invoked)

    @server.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())
    async def inline(params: types.InlineCompletionParams) -> types.InlineCompletionList:
        document = server.workspace.get_text_document(params.text_document.uri)
        info = params.context.selected_completion_info
        position, chosen, lead = params.position, "", ""
        if info is not None:  # the list of completions is open: what is suggested has to go on with what it shows
            written = document.offset_at_position(params.position) - document.offset_at_position(info.range.start)
            lead, chosen = info.text, info.text[max(written, 0) :]
        invoked = params.context.trigger_kind == types.InlineCompletionTriggerKind.Invoked
        text = await suggested(document, position, chosen, invoked=invoked)
        if not text.strip():
            return types.InlineCompletionList(items=[])
        where = info.range if info is not None else types.Range(position, position)
        command = types.Command("Accepted", ACCEPT)
        item = types.InlineCompletionItem(insert_text=lead + text, range=where, command=command)
        return types.InlineCompletionList(items=[item])

    @server.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions(trigger_characters=[".", "(", " "]))
    async def listed(params: types.CompletionParams) -> types.CompletionList:
        document = server.workspace.get_text_document(params.text_document.uri)
        text = await suggested(document, params.position, "", invoked=False)
        if not text.strip():
            return types.CompletionList(is_incomplete=True, items=[])
        item = types.CompletionItem(
            label=text.strip().splitlines()[0][:60],
            label_details=types.CompletionItemLabelDetails(description="Midspan"),
            kind=types.CompletionItemKind.Text,
            detail="Midspan",
            documentation=text,
            text_edit=types.TextEdit(types.Range(params.position, params.position), text),
            filter_text=_word_before(document, params.position),
            sort_text="~",
            command=types.Command("Accepted", ACCEPT),
        )
        return types.CompletionList(is_incomplete=True, items=[item])


def _actions(server: LanguageServer, state: _State) -> None:
    @server.feature(
        types.TEXT_DOCUMENT_CODE_ACTION,
        types.CodeActionOptions(
            code_action_kinds=[types.CodeActionKind.RefactorRewrite, types.CodeActionKind.Empty]
        ),
    )
    def offered(params: types.CodeActionParams) -> list[types.CodeAction]:
        document = server.workspace.get_text_document(params.text_document.uri)
        uri, found = document.uri, []
        if document.language_id == "python" or uri.endswith(".py"):
            line = document.offset_at_position(types.Position(params.range.start.line, 0))
            function = _function_at(document.source, document.source.count("\n", 0, line) + 1)
            rewrite = types.CodeActionKind.RefactorRewrite
            if function is not None:
                found.append(_action(f"Write the docstring of {function}", rewrite, DOCSTRING, uri, function))
            found.append(_action("Write the types that this file lacks", rewrite, TYPES, uri))
        if params.range.start != params.range.end:
            code = document.text_in_client_range(params.range)
            found.append(_action("Explain this code", types.CodeActionKind.Empty, EXPLAIN, code))
        return found

    async def rewritten(uri: str, written: Callable[[Suggester, str, str], Any]) -> None:
        document = server.workspace.get_text_document(uri)
        before, version = document.source, document.version
        try:
            suggester = await state.suggester()
            with state.working():
                after = await written(suggester, _path(uri), before)
        except (InputError, WorkError) as error:
            state.say(error)
            return
        if after == before:
            state.say(WorkError("nothing usable was found; the file stays as it is"))
            return
        start, end, text = smallest_edit(before, after)
        where = types.Range(document.client_position_at_offset(start), document.client_position_at_offset(end))
        edits = types.TextDocumentEdit(
            types.OptionalVersionedTextDocumentIdentifier(uri=uri, version=version), [types.TextEdit(where, text)]
        )
        await server.workspace_apply_edit_async(
            types.ApplyWorkspaceEditParams(types.WorkspaceEdit(document_changes=[edits]), label="Midspan")
        )

    @server.command(DOCSTRING)
    async def docstring(uri: str, function: str) -> None:
        await rewritten(uri, lambda suggester, path, text: suggester.docstring(path, text, function))

    @server.command(TYPES)
    async def typed(uri: str) -> None:
        await rewritten(uri, lambda suggester, path, text: suggester.types(path, text))

    @server.command(EXPLAIN)
    async def explain(code: str) -> str:
        try:
            suggester = await state.suggester()
            with state.working():
                text = await suggester.explain(code)
        except (InputError, WorkError) as error:
            state.say(error)
            return ""
        server.window_show_message(types.ShowMessageParams(types.MessageType.Info, text))
        return text


def _counts(server: LanguageServer, state: _State) -> None:
    @server.feature("textDocument/didShowCompletion")
    def shown(params: Any) -> None:
        state.counts["shown"] += 1

    @server.feature("textDocument/didPartiallyAcceptCompletion")
    def partly(params: Any) -> None:
        state.counts["accepted in part"] += 1

    @server.command(ACCEPT)
    def accepted() -> None:
        state.counts["accepted"] += 1

    @server.feature("midspan/status")
    async def status(params: Any) -> dict[str, Any]:
        return {"model": state.name, "counts": dict(state.counts), "version": __version__}


def _action(title: str, kind: types.CodeActionKind, command: str, *arguments: str) -> types.CodeAction:
    return types.CodeAction(title, kind=kind, command=types.Command(title, command, arguments=list(arguments)))


def _path(uri: str) -> str:
    return unquote(urlsplit(uri).path).lstrip("/") or uri


def _word_before(document: TextDocument, position: types.Position) -> str:
    cursor = document.offset_at_position(position)
    start = cursor
    while start > 0 and (document.source[start - 1].isalnum() or document.source[start - 1] == "_"):
        start -= 1
    return document.source[start:cursor]


def _function_at(source: str, line: int) -> str | None:
    """The innermost function or class without a docstring round a line, as `Class.method`; None without one."""
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    found: str | None = None

    def look(body: list[ast.stmt], path: str) -> None:
        nonlocal found
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if node.lineno <= line <= (node.end_lineno or node.lineno):
                if ast.get_docstring(node) is None:
                    found = path + node.name
                look(node.body, f"{path}{node.name}.")

    look(module.body, "")
    return found
