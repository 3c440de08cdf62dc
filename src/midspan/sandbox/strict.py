"""Strict mode: the tests in one process, the solution in another, plain data between them.

    zygote ── fork ── trusted: prompt helpers and tests; `candidate` is a Proxy ─┐ frames of plain data
           └─ fork ── untrusted: the solution, answering calls ──────────────────┘

A value that cannot cross stays with the solution and the tests hold a Handle on it: equal to itself alone.
What a call did to its arguments (lists, dicts, sets, bytearrays) is done to the tests' own. Nothing that
the solution says is code, a type, or a method: the tests compare plain data by the methods of this process.

Runs inside the jail: standard library only.
"""

import builtins
import importlib
import sys
import types
from collections.abc import Callable
from typing import Any

from midspan.sandbox.plain import pack, read_frame, unpack, write_frame

_MUTABLE = (list, dict, set, bytearray)


class CannotCross(BaseException):
    """The tests want to hand over what is not plain data: the sandbox's limit, not the solution's fault."""


class SolutionGone(BaseException):
    """The solution's process ended or broke the protocol."""


class Handle:
    """A value that stayed with the solution: attributes and calls go there, comparisons do not."""

    __slots__ = ("_link", "_number")

    def __init__(self, link: "Link", number: int) -> None:
        object.__setattr__(self, "_link", link)
        object.__setattr__(self, "_number", number)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._link.ask("get", self._number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._link.ask("set", self._number, name, value)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._link.call(self._number, args, named)

    def __repr__(self) -> str:
        return f"<value of the solution, number {self._number}>"


class Link:
    """The tests' end of the channel."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing

    def lookup(self, name: str) -> Any:
        """A global of the solution; NameError where it has none."""
        return self._answer({"do": "lookup", "name": name})

    def ask(self, what: str, number: int, name: str, *value: Any) -> Any:
        """Read or set an attribute of what a handle stands for."""
        return self._answer({"do": what, "on": number, "name": name, "args": [self._pack(item) for item in value]})

    def call(self, number: int, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Call what a handle stands for, and do to our arguments what was done to theirs."""
        sent = [self._pack(item) for item in args]
        question = {
            "do": "call",
            "on": number,
            "args": sent,
            "named": {k: self._pack(v) for k, v in named.items()},
        }
        return self._answer(question, args)

    def _answer(self, question: dict[str, Any], args: tuple[Any, ...] = ()) -> Any:
        try:
            write_frame(self._writing, question)
            reply = read_frame(self._reading)
            if type(reply) is not dict:
                raise ValueError("a reply is a dict")
            for place, changed in reply.get("changed", ()):
                _become(args[place], unpack(changed, self._handle))
            if "raised" in reply:
                error = _exception(str(reply["raised"]), str(reply.get("text", "")))
            else:
                return unpack(reply["value"], self._handle)
        except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, RecursionError) as trouble:
            raise SolutionGone(f"{type(trouble).__name__}: {trouble}") from None
        raise error

    def _handle(self, number: Any) -> Handle:
        if type(number) is not int:
            raise ValueError("a handle is a number")
        return Handle(self, number)

    def _pack(self, value: Any) -> Any:
        return pack(value, self._keep)

    def _keep(self, value: Any) -> int:
        if type(value) is Handle and value._link is self:
            return object.__getattribute__(value, "_number")
        raise CannotCross(f"strict mode cannot hand a {type(value).__name__} to the solution")


def _become(target: Any, value: Any) -> None:
    """Give a mutable argument the content that the solution left in its copy."""
    if type(target) is not type(value):
        raise ValueError("an argument has changed its type")
    if isinstance(target, list | bytearray):
        target[:] = value
    elif isinstance(target, dict | set):
        target.clear()
        target.update(value)


def _exception(name: str, text: str) -> Exception:
    kind = getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return RuntimeError(f"{name[:80]}: {text}")
    try:
        return kind(text)
    except TypeError:  # UnicodeDecodeError and its like want more arguments
        return RuntimeError(f"{name}: {text}")


def run_tests(trusted: str, test: str, entry_point: str, reading: int, writing: int) -> dict[str, Any]:
    """The trusted side. Returns the record: a status and a reason."""
    link = Link(reading, writing)
    namespace: dict[str, Any] = {}
    stdlib = sys.stdlib_module_names
    try:
        ready = read_frame(reading)
        if ready != {"ready": True}:
            return {"status": "failed", "reason": str(ready.get("reason", ""))[:500]}
        exec(compile(trusted, "<prompt>", "exec"), namespace)
        namespace[entry_point] = link.lookup(entry_point)
        code = compile(test, "<test>", "exec")
        for name in _free_names(code) - set(namespace):  # classes and helpers of the solution's that tests use
            if name in stdlib and not name.startswith("_"):  # the solution imported it; the tests take their own
                namespace[name] = importlib.import_module(name)
            elif not hasattr(builtins, name):
                try:
                    namespace[name] = link.lookup(name)
                except NameError:
                    continue
        exec(code, namespace)
    except CannotCross as limit:
        return {"status": "error", "reason": str(limit)}
    except SolutionGone as gone:
        return {"status": "failed", "reason": f"the solution's process is gone: {gone}"[:500]}
    except BaseException as error:
        return {"status": "failed", "reason": f"{type(error).__name__}: {error}"[:500]}
    return {"status": "passed", "reason": ""}


def _free_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _free_names(constant)
    return names


def serve_solution(source: str, reading: int, writing: int) -> None:
    """The untrusted side: run the solution, then answer until the tests are over. Says nothing about success."""
    namespace: dict[str, Any] = {}
    kept: list[Any] = []

    def keep(value: Any) -> int:
        kept.append(value)
        return len(kept) - 1

    try:
        exec(compile(source, "<solution>", "exec"), namespace)
    except BaseException as error:
        write_frame(writing, {"reason": describe(error)})
        return
    write_frame(writing, {"ready": True})
    while True:
        try:
            question = read_frame(reading)
        except (EOFError, OSError):
            return
        write_frame(writing, _reply(question, namespace, kept, keep))


def _reply(
    question: dict[str, Any], namespace: dict[str, Any], kept: list[Any], keep: Callable[[Any], int]
) -> dict[str, Any]:
    args: list[Any] = []
    reply: dict[str, Any] = {}
    try:
        args = [unpack(item, kept.__getitem__) for item in question.get("args", ())]
        reply["value"] = pack(_do(question, namespace, kept, args), keep)
    except BaseException as error:
        reply = {"raised": type(error).__name__, "text": describe(error)}
    changed: list[Any] = []
    for place, before in enumerate(question.get("args", ())):
        if place < len(args) and isinstance(args[place], _MUTABLE):
            after = pack(args[place], keep)
            if after != before:
                changed.append([place, after])
    if changed:
        reply["changed"] = changed
    return reply


def _do(question: dict[str, Any], namespace: dict[str, Any], kept: list[Any], args: list[Any]) -> Any:
    what = question["do"]
    if what == "lookup":
        if question["name"] not in namespace:
            raise NameError(f"name {question['name']!r} is not defined")
        return namespace[question["name"]]
    if what == "get":
        return getattr(kept[question["on"]], question["name"])
    if what == "set":
        return setattr(kept[question["on"]], question["name"], args[0])
    named = {name: unpack(value, kept.__getitem__) for name, value in question["named"].items()}
    return kept[question["on"]](*args, **named)


def describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:500]
    except BaseException:
        return type(error).__name__
