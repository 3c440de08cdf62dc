"""The same texts through a server as from the engine behind it: every dialect, layout, healed and not."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine.dialects import serving
from engine.tiny import TEXT, tiny_model, tiny_tokenizer
from midspan.engine import Engine, Request, SampleConfig
from midspan.engine.remote import RemoteEngine
from midspan.errors import InputError, WorkError
from midspan.fim.stops import EDITOR, StopRules
from vocabularies import smollm2_path

TOKENIZER = tiny_tokenizer()
MODEL = tiny_model(TOKENIZER.vocab_size)
KINDS = ("vllm", "llama.cpp", "openai")


def engine() -> Engine:
    return Engine(MODEL, TOKENIZER, max_batch=4)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_the_engines(kind: str) -> None:
    here = engine()
    with serving(engine(), kind) as served:
        there = RemoteEngine(served.url + "/v1", TOKENIZER, max_positions=256)
        assert there.kind == kind
        for layout in ("spm", "psm", "line"):
            for stops in (StopRules(), EDITOR, StopRules(strings=("a",))):
                for prefix in ("def add(a, b):\n    retu", "x = 1\n"):
                    asked = {"layout": layout, "stops": stops, "max_tokens": 12}
                    expected = here.infill(prefix, "\n\nprint(add(1, 2))\n", **asked)  # type: ignore[arg-type]
                    found = there.infill(prefix, "\n\nprint(add(1, 2))\n", **asked)  # type: ignore[arg-type]
                    if kind != "llama.cpp" and len(found.text) > len(expected.text):
                        # A healed token counts as one of the budget there, and not here.
                        assert found.text.startswith(expected.text)
                    else:
                        assert found.text == expected.text
                        assert found.reason == expected.reason
        assert there.complete(TEXT, max_tokens=9).text.startswith(here.complete(TEXT, max_tokens=9).text)
        assert all(isinstance(i, int) for body in served.bodies for i in body["prompt"]), "ids, never text"


@pytest.mark.parametrize("kind", KINDS)
def test_sampling_and_usage(kind: str) -> None:
    sample = SampleConfig(temperature=0.8, top_p=0.9, seed=3)
    request = Request(prompt=TOKENIZER.encode(TEXT[:20]), max_tokens=10, sample=sample)
    with serving(engine(), kind) as served:
        there = RemoteEngine(served.url, TOKENIZER, max_positions=256)
        first, second = there.submit(request).result(), there.submit(request).result()
    here = engine().submit(Request(**{**_fields(request), "stop_ids": engine()._special_ids})).result()
    assert first.text == second.text == here.text
    assert first.usage.cached == 0
    assert second.usage.cached == len(request.prompt) - 1
    assert second.usage.evaluated == 1 + len(here.ids)


def _fields(request: Request) -> dict[str, object]:
    return {name: getattr(request, name) for name in request.__dataclass_fields__}


def test_cancelling_closes_the_connection() -> None:
    behind = engine()
    with serving(behind, "vllm") as served:
        there = RemoteEngine(served.url, TOKENIZER, max_positions=256)
        handle = there.submit(Request(prompt=TOKENIZER.encode(TEXT), max_tokens=150))
        for _ in handle:
            break
        assert handle.result().finish_reason == "cancelled"
        waited = time.monotonic()
        while behind.slots.num_busy and time.monotonic() - waited < 10:
            time.sleep(0.02)
        assert behind.slots.num_busy == 0


def test_servers_that_refuse_or_are_not_there() -> None:
    with pytest.raises(InputError, match="'localhost:8000' is no address"):
        RemoteEngine("localhost:8000", TOKENIZER)
    with pytest.raises(InputError, match="no kind of server 'tgi'"):
        RemoteEngine("http://localhost:8000", TOKENIZER, kind="tgi")  # type: ignore[arg-type]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(
        WorkError, match=rf"http://127.0.0.1:{port} does not answer \(.*refused.*\); start the server"
    ):
        RemoteEngine(f"http://127.0.0.1:{port}", TOKENIZER)
    with serving(engine(), "vllm", key="right") as served:
        wrong = RemoteEngine(served.url, TOKENIZER, api_key="wrong")
        with pytest.raises(WorkError, match=r"refuses the request \(401: wrong key\)"):
            wrong.complete(TEXT, max_tokens=3)
        assert RemoteEngine(served.url, TOKENIZER, api_key="right").complete(TEXT, max_tokens=3).text
        with pytest.raises(WorkError, match="404: no model other"):
            RemoteEngine(served.url, TOKENIZER, api_key="right", model="other").complete(TEXT, max_tokens=3)


@pytest.fixture(scope="module")
def llama_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """llama.cpp's server over SmolLM2."""
    folder = os.environ.get("MIDSPAN_LLAMA_CPP")
    if not folder or not (Path(folder) / "llama-server").is_file():
        pytest.skip("no llama-server: set MIDSPAN_LLAMA_CPP to the folder of llama.cpp's programs")
    program, model = str(Path(folder) / "llama-server"), str(smollm2_path())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        program,
        "-m",
        model,
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
        "-t",
        "1",
        "-c",
        "4096",
        "-np",
        "1",
    ]
    log = tmp_path_factory.mktemp("llama") / "log"
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            for _ in range(300):
                try:
                    if RemoteEngine(f"http://127.0.0.1:{port}", TOKENIZER).server.get("/health") is not None:
                        break
                except WorkError:
                    assert process.poll() is None, log.read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}", Path(model)
        finally:
            process.terminate()


@pytest.mark.slow
def test_a_real_llama_server(llama_server: tuple[str, Path]) -> None:
    """Greedy texts of the same GGUF, healed and not, up to where bfloat16 may choose otherwise; reuse by token."""
    url, model = llama_server
    here = Engine.load(model, dtype=torch.float32)
    there = RemoteEngine(url, here.tokenizer, max_positions=4096)
    assert there.kind == "llama.cpp"
    prompt = here.tokenizer.encode("import os\nimport sys\n\n\ndef main():\n    for name in os.listdir('.'):\n")
    ours = here.submit(Request(prompt=prompt, max_tokens=12)).result()
    theirs = there.submit(Request(prompt=prompt, max_tokens=12)).result()
    assert ours.text[:8] == theirs.text[:8]
    again = there.submit(Request(prompt=[*prompt, *theirs.ids[:3]], max_tokens=2)).result()
    assert again.usage.evaluated <= 6
    healed = there.complete("import os\nimport sys\n\n\ndef main():\n    for name in os.list", max_tokens=6)
    assert healed.text.startswith("dir"), "the token at the cursor is finished"
