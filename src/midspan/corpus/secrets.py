r"""Credentials in source code: where they lie, as byte ranges of UTF-8.

Two searches, since each misses what the other finds:

    kingfisher   488 rules for the tokens of services, which carry their own prefix: ghp_…, sk_live_…, PEM blocks
    assigned     what only its name gives away: `password = "…"`, `api_key: …`, `--token …`, `https://user:…@host`

Kingfisher's package can also ask the provider whether a credential is live. It never gets to: only its scanner is
imported, the scanner is told to redact, so that a finding holds no credential that anybody could send, and a
finding does not leave `_service_spans`, which keeps two numbers of it. Rules are in the wheel; nothing is fetched.

A value that was only named counts when it looks drawn at random, and nothing counts that is a placeholder, a
published test vector, or a checksum on a line that says so. The thresholds were set on 75 692 files of the
standard library, packages and repositories in nine languages: 113 hits there, of which some 30 are false, nearly
all of them page tokens and samples in one package's manual.

Left out on purpose: strings of high entropy without a name (hashes and data, nearly always), passwords that are
words, public keys and certificates, identifiers that only accompany a secret.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from midspan.cache import cache_dir
from midspan.errors import InputError

if TYPE_CHECKING:
    from kingfisher_sdk import Scanner

Span = tuple[int, int]
"""Begin and end in bytes."""

# What Kingfisher finds only to check a credential with is no secret: account names, hosts, client ids.
_COMPANION_SECRET = re.compile(r"(?<!public)[-.](?:secret|key|token|passphrase)(?:\.\d+)?\Z")
_PIECE, _OVERLAP = 1 << 18, 1 << 14
"""Bytes of a text that Kingfisher gets at once, and again with the next; a private key has 3 to 13 thousand."""
_REPLACED_RULES = frozenset({"betterleaks.generic-credential-uri", "betterleaks.gcp-service-account"})
"""Rules that ours, or the rule for the key inside, do with a narrower span."""

_ARMOUR = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(.*?)-----END ", re.DOTALL)
_ARMOURED = re.compile(rb"(?:[A-Za-z0-9+/=]|\\[nr]){40,}")
_BASE64 = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/"
_ENCODED = 32
"""Characters of Base64 on both sides that make a find one by chance."""
_WEBHOOK = re.compile(rb"(?:https?://|hooks\.)[\w.-]+/")

_AWS_ID = re.compile(rb"(?<![A-Za-z0-9/+])A[KS]IA[A-Z2-7]{16}(?![A-Za-z0-9/+=])")
_TELEGRAM = re.compile(rb":AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])")
_CURL_USER = re.compile(rb"curl\b[^\n]{0,256}?\s(?:-u|--user)[ =]{0,2}[\"']?[^\s\"':$]{1,64}:([^\s\"'$]{4,128})")
_CREDENTIALS = re.compile(rb"://([^\s:/@?#\"'`<>()]{0,128})(?::([^\s/@\"'`<>]{1,256}))?@([A-Za-z0-9\[][\w.-]*)")

_NAMES = (b"passw", b"passphrase", b"pwd", b"secret", b"token", b"credential", b"bearer", b"authorization", b"key")
_KEY_OF = re.compile(
    rb"(?:api|access|auth|private|account|signing|secret|encrypt|encryption|master|client|shared|service|app|storage"
    rb"|consumer|subscription|license|admin|deploy|session|cookie|jwt|hmac|ssh)[ _.-]?\Z"
)
_ASSIGNED = re.compile(
    rb"""
    (?P<rest>[\w.\-\[\]]{0,32}) \\?["'`\])]{0,2}            # the name's end: token, tokens[0], "token_v2"
    (?:
        [ \t]*:[ \t]*[&A-Za-z][\w.<>\[\]|?*&' ]{0,30}=(?![=>])[ \t]*         # a type in between: key: &str =
      | [ \t]*(?:=>|:=|={1,3}|!={1,2}|\|\|=?|\?\?=?|\?=|[:>])[ \t]*
      | [ \t]*(?P<call>\(|,)[ \t]*
      | ["']?[ \t]+value[ \t]*=[ \t]*                       # <add key="password" value="...">
      | (?P<space>[ \t]+)
    )
    (?:
        [A-Za-z@]{0,2} \\?(?P<quote>["'`]) (?:(?:basic|bearer|token)[ ])?
        (?P<quoted>[!\#-&(-\[\]-_a-~]{8,512}) \\?(?P=quote)           # printable ASCII, no quotes, no backslash
      | (?:(?:basic|bearer|token)[ ])? (?P<bare>[A-Za-z0-9_\-+/=.~!@\#$%^*]{12,512})(?=[\s,;&"'`<)\]}\\]|\Z)
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
# tokenizers, a page's token, public keys, the name or the place of a secret: not the secret.
_OTHER_NAME_BEFORE = re.compile(
    rb"(?:public|next|page|pagination|continuation|starting|sync|resume|cancellation|client_?request|request|"
    rb"idempotency|change|lock|action|update|verification|creation|csrf|hash|product)[ _.-]?\Z"
)
_OTHER_NAME_AFTER = re.compile(
    rb"(?i)(?:i[sz]|.*(?:id|ids|name|names|type|url|uri|arn|path|file|field|label|hash|salt|length|size|count|format"
    rb"|prefix|suffix|pattern|regex|expires\w*|at|date|lastused|verifier|endpoint|algorithm|provider|manager)\Z)"
)
_DIGEST = re.compile(rb"[0-9a-fA-F]{32,128}|[A-Za-z0-9+/]{22,86}={1,2}")
_DIGEST_LINE = re.compile(
    rb"(?i)sha\d|sha[_-]|md5|checksum|integrity|digest|fingerprint|hash|etag|commit|revision"
)
_UUID = re.compile(rb"[0-9a-z]{8}-(?:[0-9a-z]{4}-){3}[0-9a-z]{12}", re.IGNORECASE)
_TEMPLATE = re.compile(
    rb"\{[\w.]*\}|\{\{|<[\w |-]+>|\w{3,}\([\w., ]*\)|\[\^|[aA]-[zZ]|0-9|^\$[{(]|\$\{|%\(\w+\)|%[YmdHMS][-:/%]"
    rb"|://|::|^arn:|^\.{0,2}/|\d{4}-\d\d-\d\dT|localhost|(?i:hmac|sha\d)"
)
_CHAIN = re.compile(rb"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_PLACEHOLDER = re.compile(rb"(?i)example|placeholder|changeme|redacted|\.\.\.")
_SHORT_PLACEHOLDER = re.compile(
    rb"(?i)sample|dummy|fake|change[-_]me|your[-_]|[-_]here|xxxx|\*\*\*\*|01234567|12345678|23456789|abcdefg|a1b2c3"
    rb"|1a2b3c|deadbeef|(.)\1{5}"
)
"""For values up to 64 bytes: a longer one spells these by chance, and OpenSSH keys hold long runs of A."""
# The first letters of values that RFCs and emulators publish: RFC 5849, 6749, 6750 and 7636, Azurite, jwt.io.
_PUBLISHED = (
    *(
        b"2YotnFZF",
        b"tGzv3JOk",
        b"SplxlOBe",
        b"czZCaGRS",
        b"7Fjfp0ZB",
        b"mF_9.B5f",
        b"h480djs9",
        b"ad180jjd",
        b"0685bd91",
    ),
    *(b"dBjftJeZ", b"Eby8vdM02xNOcq", b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIi"),
)
_WORDS = re.compile(
    rb"(?i)pass|pwd|secret|token|user|admin|test|foo|bar|guest|root|postgres|mysql|redis|rabbit|mongo|key|hidden|login"
)
_LOCAL_HOST = re.compile(rb"(?i)localhost|127\.|0\.0\.0\.0|[^.]*\Z|.*\bexample\b")

# The 120 most frequent letter pairs in words of source code: three quarters of those, a sixth of random letters.
_COMMON_PAIRS = frozenset(
    b"er re on in te ti es st co se en at or le nt et ed io me de al li ta ar it th ns ng ri ce an ec ic tr ro ne "
    b"he nd as to ra is ve ou ss fi pe ge ct si ea ex ch ma un rt ac pa la mp pr na di ut il rs im nc om op el em "
    b"ap ca ts pl ad po lo ll no ur am ot od ha ig rr fo us ul ep ag pt ue va mi cl id mo ab ee so ef da ie be sh "
    b"ol ho ck".split()
)


def secret_spans(data: bytes) -> Iterator[Span]:
    """The credentials of `data`, UTF-8 without NUL bytes; spans may overlap and are in no order.

    Raises:
        InputError: kingfisher-secret-scanner is not installed.
    """
    for begin, end in itertools.chain(_service_spans(data), _assigned_spans(data)):
        if not _is_checksum(data, begin, end):
            yield begin, end
    yield from _credential_spans(data)
    if b"AKIA" in data or b"ASIA" in data:  # Kingfisher wants the secret beside the id
        yield from (match.span() for match in _AWS_ID.finditer(data) if not is_placeholder(match[0]))
    for match in _CURL_USER.finditer(data):
        if not is_placeholder(match[1]) and not _WORDS.search(match[1]) and not _TEMPLATE.search(match[1]):
            yield match.span(1)
    for match in _TELEGRAM.finditer(data):
        digits = data[max(0, match.start() - 11) : match.start()]
        digits = digits[len(digits.rstrip(b"0123456789")) :]
        if 8 <= len(digits) <= 10:
            yield match.start() - len(digits), match.end()


@functools.cache
def _scanner() -> Scanner:
    """Kingfisher's scanner with its bundled rules; compiling them takes seconds, so they are kept compiled."""
    try:
        from kingfisher_sdk import Rules, Scanner
    except ImportError:
        raise InputError(
            "secrets cannot be found without Kingfisher, which is not installed; "
            "`pip install kingfisher-secret-scanner`"
        ) from None
    return Scanner(Rules(confidence="low", cache_dir=cache_dir() / "secret-rules"), redact=True)


def _service_spans(data: bytes) -> Iterator[Span]:
    """What Kingfisher finds, without what only accompanies a secret.

    Its time grows with the square of the finds in a text, so a long text is scanned in overlapping pieces. Its two
    rules for curl are slow beyond that, minutes for 200 KB of commands: it does not get to see the word.
    """
    scanner = _scanner()
    seen = data.replace(b"curl", b"CURL")
    for start in range(0, max(1, len(seen) - _OVERLAP), _PIECE):
        for finding in scanner.scan(seen[start : start + _PIECE + _OVERLAP]):
            if finding.rule_id in _REPLACED_RULES:
                continue
            if not finding.visible and not _COMPANION_SECRET.search(finding.rule_id):
                continue
            where = finding.location
            for begin, end in _narrowed(data, start + where["start_offset"], start + where["end_offset"]):
                value = data[begin:end]
                if is_placeholder(value) or (not finding.visible and not looks_random(value)):
                    continue
                if not _in_encoded(data, begin, end):
                    yield begin, end


def _in_encoded(data: bytes, begin: int, end: int) -> bool:
    """Whether the find lies amid Base64, such as a font or a WebAssembly module, which spells all by chance."""
    before, after = data[max(0, begin - _ENCODED) : begin], data[end : end + _ENCODED]
    return len(before) == len(after) == _ENCODED and not (before + after).translate(None, _BASE64)


def _narrowed(data: bytes, begin: int, end: int) -> Iterator[Span]:
    """The secret parts of a find: a key without its armour, a webhook without its host."""
    value = data[begin:end]
    if b"PRIVATE KEY" in value:
        for block in _ARMOUR.finditer(data, begin, end):
            # Code that names both lines of the armour has code between them.
            inside = sum(len(run[0]) for run in _ARMOURED.finditer(block[1]))
            if inside > 0.6 * len(block[1]):
                yield block.span(1)
    elif host := _WEBHOOK.match(value):
        yield begin + host.end(), end
    elif not _CREDENTIALS.search(value):  # which `_credential_spans` judges
        yield begin, end


def _credential_spans(data: bytes) -> Iterator[Span]:
    """Passwords in URLs of any scheme; a token in the place of the user too."""
    for match in _CREDENTIALS.finditer(data):
        user, password, host = match.groups()
        if password is None:
            if len(user) >= 20 and not is_placeholder(user) and not _TEMPLATE.search(user) and looks_random(user):
                yield match.span(1)
            continue
        if is_placeholder(password) or _TEMPLATE.search(password) or b"$" in password[:1]:
            continue
        a_word = len(password) < 5 or password == user or _WORDS.search(password) or _LOCAL_HOST.match(host)
        if looks_random(password) or not a_word:
            yield match.span(2)


def _assigned_spans(data: bytes) -> Iterator[Span]:
    """Values that look random, given to names that say password, secret, token or key."""
    lower = data.lower()
    for name in _NAMES:
        begin = lower.find(name)
        while begin >= 0:
            end = begin + len(name)
            if (name != b"key" or _KEY_OF.search(lower, max(0, begin - 12), begin)) and (
                match := _ASSIGNED.match(data, end)
            ):
                if _is_secret_name(lower, begin, name, match) and _is_secret_value(name, match):
                    yield match.span("quoted" if match["quoted"] else "bare")
                end = match.end("rest")
            begin = lower.find(name, end)


def _is_secret_name(lower: bytes, begin: int, name: bytes, match: re.Match[bytes]) -> bool:
    """Whether a name and the way it is given a value are a secret's."""
    before, rest = lower[max(0, begin - 24) : begin], match["rest"]
    if _OTHER_NAME_BEFORE.search(before) or _OTHER_NAME_AFTER.match(rest.rstrip(b"[]")):
        return False
    if match["call"]:  # setPassword("..."), put("token", "..."), but not AutoTokenizer.from_pretrained("...")
        return bool(match["quoted"]) and b"." not in rest and len(rest) < 12
    if match["space"]:  # --token ..., "bearer ...", machine x login y password z
        line = before[before.rfind(b"\n") + 1 :]
        return name == b"bearer" or re.search(rb"--[\w-]*\Z|\blogin \S+ \Z", line) is not None
    return True


def _is_secret_value(name: bytes, match: re.Match[bytes]) -> bool:
    """Whether a value is random enough for the name and the form that it is given in."""
    value = match["quoted"] or match["bare"]
    if is_placeholder(value) or _TEMPLATE.search(value) or _UUID.fullmatch(value):
        return False
    short = len(value) < 16 and name not in (b"passw", b"pwd")
    if match["bare"] and (short or _CHAIN.fullmatch(value)):
        return False
    if (match["bare"] or match["call"] or len(value) < 16) and not re.search(rb"\d", value):
        return False
    if len(value) < 12 and name not in (b"passw", b"pwd", b"passphrase"):
        return False
    return looks_random(value)


def _is_checksum(data: bytes, begin: int, end: int) -> bool:
    """Whether a value has the form of a checksum and something before it on its line says that it is one."""
    line = max(data.rfind(b"\n", 0, begin) + 1, begin - 128)
    return bool(_DIGEST.fullmatch(data, begin, end) and _DIGEST_LINE.search(data, line, begin))


def is_placeholder(value: bytes) -> bool:
    """Whether a value stands for a secret without being one: an example, or a test vector that everyone knows."""
    if value.startswith(_PUBLISHED) or _PLACEHOLDER.search(value):
        return True
    return len(value) <= 64 and _SHORT_PLACEHOLDER.search(value) is not None


def looks_random(value: bytes) -> bool:
    """Whether characters seem drawn from an alphabet rather than written: enough of them, mixed, without words.

    Passed by 19 in 20 random strings of 16 letters and digits, by 99 in 100 of 32 (`tests/corpus/test_redact.py`).
    """
    length = len(value)
    characters = value.translate(None, b"-_./+=:")
    if length < 8 or _entropy(value) < min(3.0, 0.75 * math.log2(length)):
        return False
    digits = sum(48 <= byte < 58 for byte in characters)
    if not characters.translate(None, b"0123456789abcdefABCDEF"):
        return length >= 20 and 0.25 * len(characters) <= digits < len(characters)
    lowers, uppers = sum(97 <= byte < 123 for byte in characters), sum(65 <= byte < 91 for byte in characters)
    kinds = sum((digits > 0, lowers > 0, uppers > 0, digits + lowers + uppers < len(characters)))
    if kinds < 2 or (not digits and not (lowers and uppers)) or (length < 12 and kinds < 3):
        return False
    letters = value.lower()
    pairs = [letters[i : i + 2] for i in range(length - 1) if letters[i : i + 2].isalpha()]
    common = sum(pair in _COMMON_PAIRS for pair in pairs)
    return common <= 0.3 * len(pairs) + 0.6 * math.sqrt(len(pairs))


def _entropy(value: bytes) -> float:
    """Shannon's, in bits a byte."""
    return -sum(count / len(value) * math.log2(count / len(value)) for count in Counter(value).values())
