"""Other people's clients against a running server: each gets the engine's own text."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from midspan.engine import Engine
from midspan.engine.session import Session
from midspan.fim.stops import EDITOR

from .test_process import checkpoint, metric, served  # noqa: F401  (a fixture)

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent / "clients"
PREFIX, SUFFIX = "def add(a, b):\n    return ", "\n\n\nprint(add(1, 2))\n"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clients for Node, as the lock file names them."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("clients")
    for file in ("package.json", "package-lock.json", "ask.mjs", "browse.mjs", "lsp.mjs"):
        shutil.copy(HERE / file, folder)
    done = subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"npm could not install the clients: {done.stderr.strip().splitlines()[-1:]}")
    return folder


@pytest.fixture(scope="module")
def server(checkpoint: Path) -> Iterator[str]:  # noqa: F811
    with served(checkpoint, "--name", "code", "--quiet") as (url, _):
        yield url


@pytest.fixture(scope="module")
def expected(checkpoint: Path) -> str:  # noqa: F811
    engine = Engine.load(checkpoint, decoder="torch")
    return engine.infill(PREFIX, SUFFIX, max_tokens=12, stops=EDITOR).text


@pytest.mark.parametrize("client", ["openai", "continue", "mistral", "ollama"])
def test_a_client_for_node(client: str, packages: Path, server: str, expected: str) -> None:
    command = ["node", "ask.mjs", client, server, PREFIX, SUFFIX]
    done = subprocess.run(command, cwd=packages, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["whole"] == found["streamed"] == expected
    assert found.get("deepseek", expected) == expected
    assert found.get("models", ["code"]) == ["code"]
    assert found.get("infills", True)
    assert metric(server, "midspan_running") == 0


def test_microsofts_language_client(packages: Path, checkpoint: Path) -> None:  # noqa: F811
    server = [sys.executable, "-m", "midspan", "lsp", str(checkpoint), "--decoder", "torch"]
    command = ["node", "lsp.mjs", *server]
    done = subprocess.run(command, cwd=packages, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["inline"]
    text = "# 🚀\r\ndef add(a, b):\r\n    return \r\n\r\nprint(add(1, 2))\r\n"
    session = Session(Engine.load(checkpoint, decoder="torch"), "repo/app.py")
    session.open(text, text.index("return ") + 7)
    assert [item["insertText"] for item in found["items"]] == [session.suggest(max_tokens=128).text]
    assert found["taken_back"] in ("answered", -32800), "an answer that came first, or RequestCancelled"
    assert found["titles"][0] == "Write the docstring of add"
    assert found["code"] == 0


def test_the_playground_in_a_browser(packages: Path, server: str, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    command = ["node", "browse.mjs", server, str(tmp_path)]
    environment = {**os.environ, "CHROMIUM": chromium}
    done = subprocess.run(command, cwd=packages, capture_output=True, text=True, timeout=180, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["complaints"] == []
    assert found["elsewhere"] == [], "it asks nobody but its server"
    assert found["suggested"]
    assert found["dismissed"] == ""
    assert found["typedOn"]
    assert found["word"]
    assert found["accepted"]
    assert found["beside"] == 2
    assert not found["wider"], "400 pixels are enough"
    assert len(list(tmp_path.glob("*.png"))) == 4


def test_the_llm_command(server: str, tmp_path: Path) -> None:
    virtual = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", virtual], check=True)
    pip = subprocess.run([virtual / "bin" / "pip", "install", "--quiet", "llm"], capture_output=True, text=True)
    if pip.returncode:
        pytest.skip("pip could not install llm")
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: ours\n  model_name: code\n  api_base: {server}/v1\n  completion: true\n"
        f"- model_id: chat\n  model_name: code\n  api_base: {server}/v1\n"
    )
    for model in ("ours", "chat"):
        command = [virtual / "bin" / "llm", "-m", model, "-o", "max_tokens", "4", "--key", "none", "x = "]
        done = subprocess.run(
            command, capture_output=True, text=True, env={"LLM_USER_PATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
        )
        assert done.returncode == 0, done.stderr
