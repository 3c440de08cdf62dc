"""The VS Code extension: its own tests, a .vsix that opens, and that in a VS Code which a browser shows."""

import json
import os
import shutil
import socket
import subprocess
import time
import zipfile
from pathlib import Path

import pytest

from engine.tiny import chain_model
from midspan.fim import with_sentinels
from midspan.model.weights import write_hf
from serve.test_process import served
from vocabularies import byte_vocabulary

pytestmark = pytest.mark.slow
SOURCE = Path(__file__).resolve().parents[2] / "editors" / "vscode"
CLIENTS = Path(__file__).resolve().parents[1] / "serve" / "clients"
BEFORE, SAID, BEHIND = "def add(a, b):\n    retu", "x*(y+1)", "\n\n\nprint(add(1, 2))\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("vscode") / "vscode"
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("node_modules", "out", "*.vsix"))
    done = subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"npm could not install the tools: {done.stderr.strip().splitlines()[-1:]}")
    return folder


def test_its_own_tests(built: Path) -> None:
    done = subprocess.run(["npm", "test"], cwd=built, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_command_makes_a_vsix(built: Path) -> None:
    done = subprocess.run(["npm", "run", "package"], cwd=built, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(built / "midspan.vsix") as package:
        assert package.testzip() is None
        names = package.namelist()
        manifest = json.loads(package.read("extension/package.json"))
        script = package.read("extension/out/extension.js").decode()
        assert b"midspan" in package.read("extension.vsixmanifest")
    assert "[Content_Types].xml" in names
    assert manifest["main"] == "./out/extension.js"
    commands = {command["command"] for command in manifest["contributes"]["commands"]}
    assert all(f'"{name.removeprefix("midspan.")}"' in script for name in commands)


@pytest.mark.parametrize("extension", ["ours", "llama.vscode"])
def test_a_suggestion_in_code_server(built: Path, tmp_path: Path, extension: str) -> None:
    """CODE_SERVER names the command of an installed code-server; a browser types and takes the suggestion.

    LLAMA_VSCODE names a .vsix of llama.vscode, which is asked to do the same.
    """
    code, chromium = os.environ.get("CODE_SERVER"), shutil.which("chromium") or shutil.which("google-chrome")
    if not code or not chromium:
        pytest.skip("set CODE_SERVER to the command of a code-server, and install chromium")
    vsix, sign, setting = built / "midspan.vsix", "Midspan", "midspan.url"
    if extension == "ours":
        subprocess.run(["npm", "run", "package"], cwd=built, capture_output=True, check=True)
    else:
        named = os.environ.get("LLAMA_VSCODE")
        if named is None:
            pytest.skip("set LLAMA_VSCODE to a .vsix of llama.vscode")
        vsix, sign, setting = Path(named), "llama", "llama-vscode.endpoint"
    for name in ("package.json", "package-lock.json"):
        shutil.copy(CLIENTS / name, tmp_path)
    shutil.copy(Path(__file__).parent / "code_server.mjs", tmp_path)
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=tmp_path, capture_output=True, check=True)
    tokenizer = with_sentinels(byte_vocabulary())
    end = tokenizer.id_of("</s>")
    assert end is not None
    model = chain_model(tokenizer, " " + SAID, end, max_positions=4096)
    write_hf(tmp_path / "ours", model, model.config, tokenizer=tokenizer)
    (tmp_path / "work").mkdir()
    file = tmp_path / "work" / "app.py"
    file.write_text(BEFORE + BEHIND)
    places = ["--user-data-dir", str(tmp_path / "user"), "--extensions-dir", str(tmp_path / "extensions")]
    added = [*code.split(), *places, "--install-extension", str(vsix)]
    done = subprocess.run(added, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with served(tmp_path / "ours") as (url, _):
        settings = {
            setting: url,
            "llama-vscode.ask_install_llamacpp": False,
            "workbench.startupEditor": "none",
            "telemetry.telemetryLevel": "off",
        }
        (tmp_path / "user" / "User").mkdir(parents=True, exist_ok=True)
        (tmp_path / "user" / "User" / "settings.json").write_text(json.dumps(settings))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        options = ["--auth", "none", "--bind-addr", address, "--disable-telemetry", "--disable-update-check"]
        command = [*code.split(), *places, *options, "--disable-workspace-trust", str(file.parent)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as editor:
            try:
                _listens(address)
                asked = ["node", "code_server.mjs", f"http://{address}/?folder={file.parent}", "shot.png", sign]
                environment = {**os.environ, "CHROMIUM": chromium}
                done = subprocess.run(
                    asked, cwd=tmp_path, capture_output=True, text=True, timeout=180, env=environment
                )
                assert done.returncode == 0, done.stdout + done.stderr
                assert SAID in json.loads(done.stdout)["shown"].replace("\xa0", " ")
                assert file.read_text() == BEFORE + "rn " + SAID + BEHIND
            finally:
                editor.terminate()


def _listens(address: str) -> None:
    host, port = address.split(":")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"nothing listens at {address}")
