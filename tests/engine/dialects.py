"""A real HTTP server over a real engine that speaks as vLLM, llama.cpp's server or OpenAI's completions do.

Only what `engine.remote` sends is understood. Ids go in, events come out, and each kind takes what is owed in its
own way: allowed ids, a grammar, or a bias.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from midspan.engine import Engine, Request, SampleConfig


class Allowed:
    """A constraint of one token."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids

    def begin(self) -> "AllowedWalk":
        return AllowedWalk(self.ids)


class AllowedWalk:
    done = may_end = False

    def __init__(self, ids: list[int]) -> None:
        self._ids = ids

    def allowed(self) -> Any:
        import torch

        return torch.tensor(self._ids)

    def take(self, token_id: int) -> None:
        self.done = True


class Served:
    """What a running server saw."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.bodies: list[dict[str, Any]] = []
        self.cancelled = 0


@contextmanager
def serving(engine: Engine, kind: str, *, key: str | None = None) -> Iterator[Served]:
    """A server for the time of a block."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def reply(self, value: Any, status: int = 200) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            answers: dict[tuple[str, str], Any] = {
                ("llama.cpp", "/props"): {"total_slots": 1},
                ("vllm", "/version"): {"version": "0.11.0"},
                ("vllm", "/v1/models"): {"data": [{"id": "code"}]},
                ("openai", "/v1/models"): {"data": [{"id": "code"}]},
            }
            found = answers.get((kind, self.path))
            self.reply(found if found is not None else {"error": "no"}, 200 if found is not None else 404)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.bodies.append(body)
            if key is not None and self.headers["Authorization"] != f"Bearer {key}":
                self.reply({"error": {"message": "wrong key", "type": "auth"}}, 401)
                return
            if kind != "llama.cpp" and body["model"] != "code":
                self.reply({"error": {"message": f"no model {body['model']}"}}, 404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            try:
                self.stream(body)
            except (BrokenPipeError, ConnectionResetError):
                served.cancelled += 1

        def event(self, value: Any) -> None:
            self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")
            self.wfile.flush()

        def stream(self, body: dict[str, Any]) -> None:
            sample = SampleConfig(temperature=body["temperature"], top_p=body["top_p"], seed=body["seed"])
            tokenizer = engine.tokenizer
            special = frozenset(filter(tokenizer.is_special, range(tokenizer.vocab_size)))
            request = Request(prompt=body["prompt"], max_tokens=1, sample=sample, stop_ids=special, num_logprobs=0)
            if kind == "llama.cpp":
                owed = b""
                if "grammar" in body:
                    literal = re.match(r'root ::= ("(?:[^"\\]|\\.)*")', body["grammar"])
                    assert literal is not None
                    owed = json.loads(literal[1]).encode()
                budget = body["n_predict"] - len(owed)
                found = engine.submit(replace(request, max_tokens=budget, owed=owed)).result()
                for token_id in found.ids:
                    self.event({"content": tokenizer.decode([token_id]), "tokens": [token_id], "stop": False})
                usage = found.usage
                timings = {"prompt_n": usage.prompt - usage.cached, "predicted_n": len(found.ids)}
                stop = {"limit": "limit"}.get("limit" if found.finish_reason == "length" else "", "eos")
                self.event({"content": "", "tokens": [], "stop": True, "stop_type": stop, "timings": timings})
                return
            allowed = body.get("allowed_token_ids")
            if kind == "openai" and body.get("logit_bias"):
                allowed = [int(i) for i, bias in body["logit_bias"].items() if bias == 100] or None
            constraint = Allowed(allowed) if allowed else None
            request = replace(request, max_tokens=body["max_tokens"], constraint=constraint)
            handle = engine.submit(request)
            for piece in handle:
                self.event({"choices": [{"text": piece, "finish_reason": None}]})
            found = handle.result()
            self.event(
                {
                    "choices": [
                        {"text": "", "finish_reason": "length" if found.finish_reason == "length" else "stop"}
                    ]
                }
            )
            usage = {"prompt_tokens": found.usage.prompt, "completion_tokens": len(found.ids)}
            usage["prompt_tokens_details"] = {"cached_tokens": found.usage.cached}
            self.event({"choices": [], "usage": usage})
            self.wfile.write(b"data: [DONE]\n\n")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Served(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with engine.background():
            yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
