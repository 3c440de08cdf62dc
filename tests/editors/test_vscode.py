"""The VS Code extension: its own tests, and a .vsix that opens and holds what VS Code wants."""

import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SOURCE = Path(__file__).resolve().parents[2] / "editors" / "vscode"


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
