"""A jail for the tests that run code, where one can be made."""

import pytest

from midspan.errors import InputError
from midspan.sandbox import Sandbox


@pytest.fixture(scope="session")
def jail() -> None:
    """Skips where no jail can be made."""
    try:
        Sandbox(1).close()
    except InputError as error:
        pytest.skip(str(error))
