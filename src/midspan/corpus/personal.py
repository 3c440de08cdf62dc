r"""E-mail and IP addresses of people and machines in source code: where they lie, as byte ranges of UTF-8.

All searches start at a literal (an `@`, a dot, a colon) that a C loop finds at memory speed, and look at what
surrounds it only there. The checks are BigCode's (`pii_detection/`), with the traps that code sets:

    kept  john@example.com  git@github.com  noreply@x.com     nobody is behind it
    kept  A @ B.to(x)  q@k.mT  this@Main.id  aes@openssh.com  an operator, a label, the name of a cipher
    kept  10.0.0.7  127.0.0.1  192.0.2.1  fe80::1  8.8.8.8    private, loopback, documentation, public DNS
    kept  1.2.3.4  version 12.4.0.1  Chrome/12.4.0.1  2.5.29.15  10.1.0.0/16   versions, OIDs, networks

Left out on purpose: names, user names, telephone numbers and postal addresses, for which a pattern finds mostly
code; the user of a URL (`https://john@host/`); domains in other scripts than Latin.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

Span = tuple[int, int]
"""Begin and end in bytes."""

_DOMAIN = re.compile(rb"@((?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.){1,8})([A-Za-z]{2,24})(?!\.?[\w(]|-\w)")
_ASCII_LOCAL = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+'-"
_LOCAL_BYTES = _ASCII_LOCAL + bytes(range(0x80, 0x100))
# Letters of Latin scripts, U+00C0 to U+024F: an address right behind a Chinese character begins after it.
_LATIN_LOCAL = re.compile(rb"(?:[A-Za-z0-9._%+'-]|[\xc3-\xc9][\x80-\xbf])+\Z")
_ESCAPE = re.compile(rb"(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[0-7]{1,3}|.)", re.DOTALL)
_MAX_LOCAL = 64

# Every country has two letters; of the many others those that people have addresses under.
_GENERIC_DOMAINS = frozenset(
    b"com org net edu gov mil int info biz name pro mobi dev app cloud tech online site xyz email blog shop store "
    b"systems solutions software agency digital network academy studio design group team world life live page "
    b"works zone space website company consulting services institute foundation engineering science health "
    b"community media social chat games bank law care finance ventures capital partners energy school university "
    b"berlin london paris nyc tokyo museum coop aero jobs travel asia post".split()
)
_NOT_COUNTRIES = frozenset(b"js ts go rb hs cs kt vb jl db".split())
"""Endings of file names that no country has: stack traces say `render@app.js:3:1`."""

_NOBODY = re.compile(
    rb"(?i)(?:no[-_]?reply|do[-_]?not[-_]?reply|(?:git|hg|svn|cvs|bzr|anonymous|this|super|self|return|break|continue)\Z)"
)
_NOWHERE = re.compile(
    rb"(?:^|\.)(?:example\.[a-z]{2,3}|example|test|invalid|localhost|localdomain|local|openssh\.com|libssh\.org"
    rb"|noreply\.github\.com)\Z"
)

_DOTTED = re.compile(rb"\.(\d{1,3}\.\d{1,3}\.\d{1,3})(?![\w]|\.\d|[-+]\w|\.[x*])")
_GLUED = re.compile(rb"[.+_\x80-\xff-]\Z|(?<!\\)[A-Za-z]\Z")
"""What before four numbers makes them part of something else; the letter of an escape, `\\n`, does not."""
_VERSIONED = re.compile(
    rb"(?i)(?:version|\bver\b|\brev|release|build|section|chapter|oid|identifier|\bv ?[=:]|,v|[=~<>^!]=)"
    rb"[^\n]{0,30}\Z|(?<![\d.])\d*\.\d+[ ,]\Z"
)
"""What makes four numbers a version; behind a decimal number they are two of a path: `4.4 3.57.65.44`."""
_COLONS = re.compile(rb":(?<=[23][0-9A-Fa-f]{3}:)[0-9A-Fa-f:]{2,34}")
_OBJECT_IDENTIFIERS = (b"1.3.6.", b"1.3.14.", b"1.3.101.", b"2.5.4.", b"2.5.29.", b"2.16.")
_PREFIX = re.compile(rb"/(\d{1,3})(?!\d)")

_RESOLVERS = """
1.1.1.1 1.0.0.1 8.8.8.8 8.8.4.4 9.9.9.9 9.9.9.10 149.112.112.112 208.67.222.222 208.67.220.220 4.2.2.1 4.2.2.2
64.6.64.6 64.6.65.6 76.76.2.0 76.76.19.19 84.200.69.80 94.140.14.14 94.140.15.15 114.114.114.114 119.29.29.29
180.76.76.76 185.228.168.9 223.5.5.5 223.6.6.6 2001:4860:4860::8888 2001:4860:4860::8844
2606:4700:4700::1111 2606:4700:4700::1001 2620:fe::fe 2620:fe::9 2620:119:35::35 2620:119:53::53
"""
PUBLIC_DNS = frozenset(_RESOLVERS.split())
"""Resolvers that configuration names everywhere; they tell nothing about anyone."""


def email_spans(data: bytes) -> Iterator[Span]:
    """The e-mail addresses of `data`, UTF-8, in order."""
    for match in _DOMAIN.finditer(data):
        at = match.start()
        window = data[max(0, at - _MAX_LOCAL) : at]
        local = window[len(window.rstrip(_LOCAL_BYTES)) :]
        if not local.isascii():
            latin = _LATIN_LOCAL.search(local)
            local = latin[0] if latin else b""
        local = local.lstrip(b"._%+'-")
        if data[at - len(local) - 1 : at - len(local)] == b"\\":  # "...\njane@x.com": the n is not hers
            local = _ESCAPE.sub(b"", local, count=1)
        if not local or local.endswith(b".") or _NOBODY.match(local):
            continue
        domain = (match[1] + match[2]).lower()
        if not _is_top(match[2]) or _NOWHERE.search(domain):
            continue
        begin = at - len(local)
        if not _in_userinfo(data, begin):
            yield begin, match.end()


def _is_top(written: bytes) -> bool:
    """Whether the last part of a domain is one: `q @ k.mT`, a product and its transpose, ends like Malta's."""
    top = written.lower()
    known = top not in _NOT_COUNTRIES if len(top) == 2 else top in _GENERIC_DOMAINS
    return known and (written.islower() or written.isupper())


def _in_userinfo(data: bytes, begin: int) -> bool:
    """Whether `begin` lies between a URL's slashes and its host: `https://user:PASS@host`."""
    before, slashes, between = data[max(0, begin - 128) : begin].rpartition(b"://")
    return bool(slashes) and not before.endswith(b"mailto") and not re.search(rb"[\s/,;<>\"']", between)


def ip_spans(data: bytes) -> Iterator[Span]:
    """The IPv4 addresses of `data` in order, then the IPv6 addresses."""
    for match in _DOTTED.finditer(data):
        window = data[max(0, match.start() - 5) : match.start()]
        first = window[len(window.rstrip(b"0123456789")) :]
        before = window[: len(window) - len(first)]
        if not 1 <= len(first) <= 3 or _GLUED.search(before):
            continue
        begin, end = match.start() - len(first), match.end()
        if _is_public(data, begin, end) and not _is_version(data, begin, end):
            yield begin, end
    for match in _COLONS.finditer(data):
        begin, end = match.start() - 4, match.end()
        around = data[max(0, begin - 1) : begin] + data[end : end + 1]
        if not re.search(rb"[\w:.]", around) and _is_public(data, begin, end):
            yield begin, end


def _is_public(data: bytes, begin: int, end: int) -> bool:
    """Whether the address is one machine's on the Internet, rather than reserved, a network or a resolver.

    IPv6 has addresses of machines only in 2000::/3, so `dead::beef` of a C++ program is none.
    """
    written = data[begin:end].decode()
    try:
        address = ipaddress.ip_address(written)
    except ValueError:  # an octet above 255 or with a leading zero, too few groups
        return False
    if not address.is_global or address.is_multicast or address.is_reserved or str(address) in PUBLIC_DNS:
        return False
    if prefix := _PREFIX.match(data, end):
        host_bits = address.max_prefixlen - int(prefix[1])
        return not (host_bits > 0 and int(address) % (1 << host_bits) == 0)
    return True


def _is_version(data: bytes, begin: int, end: int) -> bool:
    """Whether four numbers are a version, a section or an object identifier rather than an address."""
    value = data[begin:end]
    # 12.1.3.4 and 8.2.4.45 are sections and versions far more often than addresses, of which they are one in 4000.
    if len(value) <= 8 or all(int(number) < 32 for number in value.split(b".")):
        return True
    if value.endswith(b".0.0") or value.startswith(_OBJECT_IDENTIFIERS):
        return True
    before = data[max(0, begin - 48) : begin]
    product = before[-1:] == b"/" and before[-2:-1].isalnum()  # Chrome/12.4.0.1, but not http://12.4.0.1
    return product or _VERSIONED.search(before) is not None
