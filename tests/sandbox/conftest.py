"""One sandbox per mode for the room's tests, where a jail can be made."""

from collections.abc import Iterator

import pytest

from midspan.errors import InputError
from midspan.sandbox import Sandbox


def _opened(mode: str) -> Iterator[Sandbox]:
    try:
        sandbox = Sandbox(1, mode)
    except InputError as error:
        pytest.skip(str(error))
    with sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def compat() -> Iterator[Sandbox]:
    yield from _opened("compat")


@pytest.fixture(scope="session")
def strict() -> Iterator[Sandbox]:
    yield from _opened("strict")
