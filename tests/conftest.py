"""Fixtures that every room's tests share."""

import os
from pathlib import Path

import hypothesis
import pytest
import torch

from vocabularies import code_llama_model, vocabulary  # noqa: F401, fixtures

hypothesis.settings.register_profile("midspan", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("midspan")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of benchmark and vocabulary files: MIDSPAN_DATA, or ../shared/data beside the checkout."""
    path = Path(os.environ.get("MIDSPAN_DATA", REPOSITORY.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"{path} is absent; set MIDSPAN_DATA to the folder with the vocabulary files")
    return path


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
