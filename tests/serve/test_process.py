"""A real server process: OpenAI's own client, clients that leave, signals, addresses that are taken."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import torch

from engine.tiny import tiny_model, tiny_tokenizer
from midspan.model.lora import LoraConfig, LoraLinear, add_lora, save_adapter
from midspan.model.weights import write_hf
from midspan.serve.opening import named_models


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "tiny"
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer.vocab_size, max_positions=4096)
    write_hf(folder, model, model.config, tokenizer=tokenizer)
    return folder


def endless() -> dict[str, float]:
    """A bias with which the tiny model never ends by itself."""
    tokenizer = tiny_tokenizer()
    return {str(i): -100.0 for i in filter(tokenizer.is_special, range(tokenizer.vocab_size))}


@contextlib.contextmanager
def served(checkpoint: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [
        sys.executable,
        "-m",
        "midspan",
        "serve",
        str(checkpoint),
        "--port",
        "0",
        "--decoder",
        "torch",
        *options,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://[0-9.]+:\d+", line)
        assert found, line + process.stderr.read()
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{found[0]}/health") as answer:
                if json.load(answer)["status"] == "ok":
                    break
            time.sleep(0.05)
        yield found[0], process
    finally:
        process.kill()
        process.wait()


def metric(url: str, name: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        found = re.search(rf"^{re.escape(name)} (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_openais_client_asks_streams_and_leaves(checkpoint: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-sixteen-or-more\n")
    with served(checkpoint, "--name", "code", "--quiet") as (url, process):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        assert [model.id for model in client.models.list()] == ["code"]
        whole = client.completions.create(model="code", prompt="def f(", suffix="):\n    pass\n", max_tokens=8)
        again = client.completions.create(
            model="code", prompt="def f(", suffix="):\n    pass\n", max_tokens=8, stream=True
        )
        assert "".join(chunk.choices[0].text for chunk in again) == whole.choices[0].text
        chat = client.chat.completions.create(
            model="code", messages=[{"role": "user", "content": "hi"}], max_tokens=4, temperature=0
        )
        assert chat.usage is not None
        with pytest.raises(openai.NotFoundError, match="there is no model 'other'"):
            client.completions.create(model="other", prompt="x")
        with pytest.raises(openai.BadRequestError, match="tools is not supported"):
            client.chat.completions.create(
                model="code",
                messages=[{"role": "user", "content": "hi"}],
                tools=[{"type": "function", "function": {"name": "f"}}],
            )
        before = metric(url, "midspan_cancelled_total")
        long = client.completions.create(
            model="code",
            prompt="x = ",
            max_tokens=3900,
            temperature=1.0,
            stream=True,
            logit_bias=endless(),  # type: ignore[arg-type]  # the client's type says int
        )
        for _, chunk in zip(range(3), long, strict=False):
            assert chunk.choices
        long.close()
        deadline = time.monotonic() + 5
        while metric(url, "midspan_running") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert metric(url, "midspan_running") == 0
        assert metric(url, "midspan_cancelled_total") == before + 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


def test_a_client_that_leaves_without_a_stream_ends_the_work_too(checkpoint: Path) -> None:
    with served(checkpoint, "--quiet") as (url, _):
        host, port = url.removeprefix("http://").split(":")
        asked = {"prompt": "x = ", "max_tokens": 3900, "temperature": 1, "logit_bias": endless()}
        body = json.dumps(asked).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode() + body)
            deadline = time.monotonic() + 10
            while not metric(url, "midspan_running") and time.monotonic() < deadline:
                time.sleep(0.01)
            assert metric(url, "midspan_running") == 1
        deadline = time.monotonic() + 5
        while metric(url, "midspan_running") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert metric(url, "midspan_running") == 0
        assert metric(url, "midspan_cancelled_total") == 1


def test_an_address_that_is_taken_and_models_that_are_not_here(checkpoint: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, message in (
            ([str(checkpoint), "--port", port], f"127.0.0.1:{port} cannot be listened on"),
            ([str(tmp_path / "none")], "neither the name of a model nor a path"),
            ([str(checkpoint), str(checkpoint)], "two models would be called tiny"),
            ([str(checkpoint), "--adapter", "ours"], "write NAME=PATH"),
            ([str(checkpoint), "--host", "0.0.0.0"], "--api-key-file"),
        ):
            command = [sys.executable, "-m", "midspan", "serve", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert done.returncode == 2, done.stderr
            assert message in done.stderr.replace("\n", " ")
            assert "Traceback" not in done.stderr


def test_adapters_of_one_base_are_served_from_its_weights(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer.vocab_size, max_positions=4096)
    write_hf(tmp_path / "base", model, model.config, tokenizer=tokenizer)
    for seed, name in enumerate(("first", "second")):
        trained = tiny_model(tokenizer.vocab_size, max_positions=4096)
        add_lora(trained, LoraConfig(rank=4), [3], seed=seed)
        for module in trained.modules():
            if isinstance(module, LoraLinear):
                module.lora_B.data.normal_(generator=torch.Generator().manual_seed(seed))
        (tmp_path / name).mkdir()
        save_adapter(trained, LoraConfig(rank=4), tmp_path / name, base="../base")
    adapters = [f"{name}={tmp_path / name}" for name in ("first", "second")]
    models = named_models([str(tmp_path / "base")], [], adapters)
    models.start(wait=True)
    try:
        assert [served.name for served in models.served] == ["base", "base:first", "base:second"], models.failed
        engines = [served.front for served in models.served]
        assert len({engine.complete("x = (", max_tokens=12).text for engine in engines}) == 3
        kernels = [engine._kernel for engine in engines]  # type: ignore[attr-defined]
        if kernels[0] is not None:
            assert len({kernel._tensors["0.gate_up"].data_ptr() for kernel in kernels}) == 1
    finally:
        models.close()
