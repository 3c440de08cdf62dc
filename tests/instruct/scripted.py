"""An endpoint with OpenAI's chat completions that says what it was told to say: for proofs and for timing.

It knows questions about adding a number, and answers each by a plan: tests that are good, weak, vacuous or
malformed, and ten solutions, one letter each.

    R right   D right, each in other words   W wrong   C crashes   H hangs   M malicious   X no tags
    U unfinished   F flaky

It keeps a log of what was asked, so that a proof can say what was paid for.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MALICIOUS = (
    "import os; os._exit(0)",
    "import sys; sys.exit(0)",
    "class Liar:\n    def __eq__(self, other): return True\ndef NAME(n): return Liar()",
    "import os\ndef NAME(n):\n    while True:\n        if os.fork() == 0: os.setsid()",
    "open('/tmp/left-behind', 'w').write('x' * 10**6)\nopen('/etc/passwd', 'a').write('x')",
    "import socket\nsocket.create_connection(('127.0.0.1', 80))",
    "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\ndef NAME(n): return n",
    "import subprocess\nsubprocess.Popen(['sleep', '1000'])\ndef NAME(n): return None",
    "import builtins\nbuiltins.AssertionError = type('Quiet', (BaseException,), {})\ndef NAME(n): return None",
    "x = ' ' * (1 << 34)",
)


@cache
def hash_of(text: str, seed: int) -> int:
    """The hash of a text in an interpreter with that seed."""
    command = [sys.executable, "-c", f"print(hash({text!r}))"]
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@dataclass
class Script:
    """What the endpoint says."""

    questions: Callable[[int], list[str]] = lambda _: []
    """The number of a request for questions → what it gives."""
    tests: Callable[[int], str] = lambda _: "good"
    """The number in a question → good, weak, vacuous or malformed."""
    solutions: Callable[[int], str] = lambda _: "R" * 10
    """The number in a question → a letter for each solution."""
    said: Callable[[str], str] | None = None
    """In place of all that: the last message → the answer to it."""
    most_choices: int = 1000
    """Texts in one answer."""
    failures: list[int] = field(default_factory=list)
    """Statuses that the next requests get in place of an answer."""
    seconds: float = 0.0
    """How long an answer takes."""
    batches: dict[str, int] = field(default_factory=dict)
    """Requests for questions, numbered as they come; one that is sent again keeps its number."""
    log: list[tuple[str, str]] = field(default_factory=list)
    """The key and the body of every request that was answered."""
    lock: threading.Lock = field(default_factory=threading.Lock)


def question(number: int) -> str:
    """The question of a number."""
    return f"Write a function add_{number} that is given a number and returns that number plus {number}."


def tests(number: int, kind: str) -> str:
    """What a model answers that is asked for tests."""
    name = f"add_{number}"
    found = {
        "good": [f"{name}(1) == {1 + number}", f"{name}({-number}) == 0", f"{name}(100) == {100 + number}"],
        "weak": [f"isinstance({name}({n}), int) and {name}({n}) != {n}" for n in (1, 2, 3)],
        "vacuous": [f"{name}({n}) in (None, {n + number})" for n in (1, 2, 3)],
        "malformed": [f"{name}(1) == {1 + number}"],
    }[kind]
    lines = "\n".join(f"# Test case {n}:\nassert {test}" for n, test in enumerate(found, 1))
    return f"Sure.\n{lines}" if kind == "malformed" else f"[TESTS]\n{lines}\n[/TESTS]"


def solution(number: int, letter: str, place: int) -> str:
    """What a model answers that is asked for a solution."""
    name = f"add_{number}"
    right = f"def {name}(n):\n    return n + {number}"
    code = {
        "R": right,
        "D": f"def {name}(n):\n    more = {place}\n    return n + {number} + more - {place}",
        "W": f"def {name}(n):\n    return n - {number} - {place}",
        "C": f"def {name}(n):\n    raise ValueError({place})",
        "H": f"def {name}(n):\n    while True:\n        n += {place}",
        "M": MALICIOUS[(number + place) % len(MALICIOUS)].replace("NAME", name),
        "X": right,
        "U": f"def {name}(n):\n    pass  # TODO: your code here",
        "F": f"def {name}(n):\n    return n + {number} if hash('{name}') == {hash_of(name, 0)} else n",
    }[letter]
    if letter == "M" and name not in code:
        code += f"\ndef {name}(n): return None"
    return f"Here it is:\n{code}" if letter == "X" else f"[PYTHON]\n{code}\n[/PYTHON]"


def texts(script: Script, body: dict[str, Any], key: str) -> list[str]:
    """The answer to a request."""
    first, last = body["messages"][0]["content"], body["messages"][-1]["content"]
    if script.said is not None:
        return [script.said(last)]
    if "programming exercises" in first:
        with script.lock:
            number = script.batches.setdefault(key, len(script.batches))
        found = script.questions(number)
        return ["Here you are:\n\n" + "\n".join(f"{n}. {item}" for n, item in enumerate(found, 1))]
    number = int(re.findall(r"add_(\d+)", last)[0])
    if "[TESTS]" in first:
        return [tests(number, script.tests(number))]
    letters = script.solutions(number)
    offset = len(letters) - body["n"]
    return [solution(number, letters[place], place) for place in range(offset, len(letters))]


@contextmanager
def serving(script: Script) -> Iterator[str]:
    """The address of a running endpoint."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._answer(200, {"object": "list", "data": [{"id": "scripted"}]})

        def do_POST(self) -> None:
            said = self.rfile.read(int(self.headers["Content-Length"])).decode()
            with script.lock:
                status = script.failures.pop(0) if script.failures else 200
            if status != 200:
                self._answer(status, {"error": {"message": "as planned"}})
                return
            time.sleep(script.seconds)
            body = json.loads(said)
            key = self.headers["Idempotency-Key"]
            found = texts(script, body, key)[: script.most_choices]
            with script.lock:
                script.log.append((key, said))
            self._answer(200, {"choices": [{"message": {"role": "assistant", "content": text}} for text in found]})

        def _answer(self, status: int, value: dict[str, Any]) -> None:
            data = json.dumps(value).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                pass  # whoever asked is dead

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: Any) -> None:
            pass  # whoever asked is dead

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
