"""What a server is told about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from midspan.engine.prompts import AnyLayout
from midspan.errors import InputError

LAYOUTS: tuple[AnyLayout, ...] = ("auto", "spm", "psm", "line")
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Limits and manners of a server; none of them needs to be given."""

    host: str = "127.0.0.1"
    port: int = 8012
    """llama.vim and llama.vscode expect a server here."""
    keys: tuple[str, ...] = ()
    """Who may ask: one of these as a bearer token. Nobody has to say so where there is none."""
    open_to_all: bool = False
    """Listen beyond this machine without a key."""
    requests_per_minute: int = 0
    """Of one key, or of one address where there are no keys; 0 for any number."""
    max_body: int = 4 << 20
    """Bytes of a request."""
    max_tokens: int = 4096
    """Of one text, whatever is asked for."""
    max_copies: int = 16
    """Texts that one request may ask for."""
    queue: int = 64
    """Texts that may wait beside those under way; more are told to come back."""
    timeout: float = 120.0
    """Seconds for one request; its texts end there as they are."""
    body_timeout: float = 20.0
    """Seconds in which a request has to arrive whole."""
    shutdown_timeout: float = 10.0
    """Seconds that requests under way have when the server is to end."""
    layout: AnyLayout = "auto"
    max_prompt: int = 4096
    """Tokens that an infilling prompt may have."""
    cors_origins: tuple[str, ...] = ()
    """Pages of other addresses that may ask from a browser; none unless named."""
    log: Literal["json", "none"] = "json"

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise InputError(f"the port is {self.port}; ports are 0 (any free one) to 65535")
        for name in ("requests_per_minute", "queue"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        for name in ("max_body", "max_tokens", "max_copies", "timeout", "body_timeout", "max_prompt"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.host not in LOOPBACK and not self.keys and not self.open_to_all:
            raise InputError(
                f"{self.host} can be reached from other machines, and no key is asked for; give --api-key-file, "
                "or --open-to-all if everyone who reaches it may use it"
            )


def known_layout(name: str) -> AnyLayout:
    """A layout by its name.

    Raises:
        InputError: there is none of that name.
    """
    found = next((layout for layout in LAYOUTS if layout == name), None)
    if found is None:
        raise InputError(f"the layout is {name!r}; the layouts are {', '.join(LAYOUTS)}")
    return found
