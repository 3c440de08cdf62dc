"""The models that a server has, by name; adapters stand beside their base as `base:adapter`."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

from midspan.engine import Engine
from midspan.engine.front import Front
from midspan.serve.errors import ApiError


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model that answers."""

    name: str
    front: Front
    created: int = field(default_factory=lambda: int(time.time()))
    """When it was ready, in seconds of Unix time."""


class Models:
    """Models that are there, and those still being loaded."""

    def __init__(self) -> None:
        self._loaders: dict[str, Callable[[], Front]] = {}
        self._served: dict[str, Served] = {}
        self._failed: dict[str, Exception] = {}
        self._running = ExitStack()
        self._thread: threading.Thread | None = None

    def add(self, name: str, load: Callable[[], Front]) -> None:
        """A model that `start` will load; the first one answers where a client names none that is known."""
        self._loaders[name] = load

    def start(self, *, wait: bool = False) -> None:
        """Load in a thread of its own, one after the other."""
        self._thread = threading.Thread(target=self._load, name="midspan-models", daemon=True)
        self._thread.start()
        if wait:
            self._thread.join()

    def close(self) -> None:
        """End the engines' threads."""
        if self._thread is not None:
            self._thread.join()
        self._running.close()

    @property
    def names(self) -> list[str]:
        """All of them, loaded or not, in the order in which they were added."""
        return list(self._loaders)

    @property
    def ready(self) -> bool:
        """Whether every model that can be loaded is."""
        return len(self._served) + len(self._failed) == len(self._loaders) and bool(self._served)

    @property
    def failed(self) -> dict[str, Exception]:
        """Why a model could not be loaded."""
        return dict(self._failed)

    @property
    def served(self) -> list[Served]:
        """Those that answer."""
        return [self._served[name] for name in self._loaders if name in self._served]

    def get(self, name: str | None, *, strict: bool = True) -> Served:
        """The model that a client means; the first one where it names none.

        Args:
            name: as the client gave it.
            strict: refuse a name that is not known. llama.cpp's server does not look at it, and its clients send
                the name of whatever other model they were set to.

        Raises:
            ApiError: 404 for a name that is not known, 503 while it is loaded.
        """
        known = self.names
        chosen = known[0] if not name or name == "default" else name.removesuffix(":latest")
        if chosen not in self._loaders and not strict:
            chosen = known[0]
        if chosen not in self._loaders:
            raise ApiError(
                404,
                f"there is no model {name!r}; there are {', '.join(known)}",
                param="model",
                code="model_not_found",
            )
        if chosen in self._served:
            return self._served[chosen]
        if chosen in self._failed:
            raise ApiError(
                503, f"the model {chosen} could not be loaded: {self._failed[chosen]}", kind="server_error"
            )
        raise ApiError(
            503,
            f"the model {chosen} is being loaded; ask again in a moment",
            kind="unavailable_error",
            code="model_loading",
            headers={"Retry-After": "1"},
        )

    def _load(self) -> None:
        for name, load in self._loaders.items():
            try:
                front = load()
                if isinstance(front, Engine):
                    background: AbstractContextManager[None] = front.background()
                    self._running.enter_context(background)
                self._served[name] = Served(name=name, front=front)
                # What is here now stays: no request has to wait while all of it is looked through for garbage.
                gc.collect()
                gc.freeze()
            except Exception as error:
                self._failed[name] = error
