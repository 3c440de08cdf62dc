"""A tiny model behind an application."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from starlette.testclient import TestClient

from engine.tiny import tiny_model, tiny_tokenizer
from midspan.engine import Engine
from midspan.serve import Models, ServeConfig, create_app

Open = Callable[..., TestClient]
SMALL = ServeConfig(max_tokens=48, log="none")


@pytest.fixture(scope="session")
def engine() -> Engine:
    """Random weights, greedy and silent about what they mean."""
    tokenizer = tiny_tokenizer()
    return Engine(tiny_model(tokenizer.vocab_size, max_positions=512), tokenizer)


@pytest.fixture
def opened(engine: Engine) -> Iterator[Open]:
    """A client of an application with any settings."""
    with ExitStack() as stack:

        def open_app(config: ServeConfig = SMALL, names: tuple[str, ...] = ("tiny",)) -> TestClient:
            models = Models()
            for name in names:
                models.add(name, lambda: engine)
            client = stack.enter_context(TestClient(create_app(models, config), raise_server_exceptions=False))
            models._thread.join()  # type: ignore[union-attr]
            return client

        yield open_app


@pytest.fixture
def client(opened: Open) -> TestClient:
    """A client of an application with the usual settings."""
    return opened()
