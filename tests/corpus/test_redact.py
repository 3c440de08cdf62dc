"""Secrets and addresses that were planted are gone, what surrounds them stands, and clean code stays as it is.

No secret is written in this file, not even an invented one: they are drawn when the tests run, so that the
scanners of code hosts have nothing to find here.
"""

import ast
import base64
import ipaddress
import json
import logging
import os
import pickle
import random
import re
import string
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

import midspan
from midspan.corpus import redact as redact_module
from midspan.corpus import secrets
from midspan.corpus.personal import email_spans, ip_spans
from midspan.corpus.redact import Redacted, redact
from midspan.corpus.secrets import looks_random, secret_spans
from midspan.errors import InputError

kingfisher = pytest.importorskip("kingfisher_sdk", reason="kingfisher-secret-scanner is not installed")

LOWER, UPPER, DIGITS, HEX = string.ascii_lowercase, string.ascii_uppercase, string.digits, "0123456789abcdef"
ALNUM = LOWER + UPPER + DIGITS
URLSAFE, BASE64 = ALNUM + "-_", ALNUM + "+/"
NOTHING = {"secret": 0, "email": 0, "ip": 0}


def drawn(rng: random.Random, alphabet: str, length: int) -> str:
    return "".join(rng.choice(alphabet) for _ in range(length))


def key_file(rng: random.Random, label: str, head: bytes, length: int) -> tuple[str, str]:
    """An armoured private key, and its lines without the armour. `head` is what the format begins with."""
    body = base64.b64encode(head + rng.randbytes(length)).decode()
    lines = "\n".join(body[at : at + 64] for at in range(0, len(body), 64))
    dashes = "-" * 5
    return f"{dashes}BEGIN {label}PRIVATE KEY{dashes}\n{lines}\n{dashes}END {label}PRIVATE KEY{dashes}\n", lines


def web_token(rng: random.Random) -> str:
    parts = ({"alg": "HS256", "typ": "JWT"}, {"sub": drawn(rng, DIGITS, 10), "name": drawn(rng, LOWER, 8)})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, drawn(rng, URLSAFE, 43)])


DER_HEAD = bytes.fromhex("308204a30201000282010100")
OPENSSH_HEAD = b"openssh-key-v1\0\0\0\0\4none\0\0\0\4none\0\0\0\0\0\0\0\1\0\0\0\x33\0\0\0\x0bssh-ed25519\0\0\0\x20"

# Kind -> (how it stands in code, the secret); {} is the secret's place.
PLANTED: dict[str, tuple[str, Callable[[random.Random], str]]] = {
    "aws key id": ('client = connect("{}")', lambda r: "AK" + "IA" + drawn(r, UPPER + "234567", 16)),
    "aws secret": ('aws_secret_access_key = "{}"', lambda r: drawn(r, BASE64, 40)),
    "github classic": ('TOKEN = "{}"', lambda r: "gh" + "p_" + drawn(r, ALNUM, 36)),
    "github fine-grained": (
        "x: {}",
        lambda r: "github" + "_pat_" + drawn(r, ALNUM, 22) + "_" + drawn(r, ALNUM, 59),
    ),
    "gitlab": (
        'curl -H "PRIVATE-TOKEN: {}" https://git.acme.io/api',
        lambda r: "gl" + "pat-" + drawn(r, URLSAFE, 20),
    ),
    "slack bot": (
        'slack("{}")',
        lambda r: "-".join(["xo" + "xb", drawn(r, DIGITS, 12), drawn(r, DIGITS, 12), drawn(r, ALNUM, 24)]),
    ),
    "slack webhook": (
        'post("https://hooks.slack.com/services/{}")',
        lambda r: f"T{drawn(r, UPPER + DIGITS, 10)}/B{drawn(r, UPPER + DIGITS, 10)}/{drawn(r, ALNUM, 24)}",
    ),
    "stripe": ('stripe.setup("{}")', lambda r: "sk" + "_live_" + drawn(r, ALNUM, 24)),
    "google api": ('maps({{key: "{}"}})', lambda r: "AI" + "za" + drawn(r, URLSAFE, 35)),
    "openai": (
        'connect("{}")',
        lambda r: "sk" + "-" + drawn(r, ALNUM, 20) + "T3Blbk" + "FJ" + drawn(r, ALNUM, 20),
    ),
    "anthropic": ("export CLAUDE={}", lambda r: "sk-" + "ant-api03-" + drawn(r, URLSAFE, 93) + "AA"),
    "hugging face": ('login("{}")', lambda r: "h" + "f_" + drawn(r, LOWER + UPPER, 34)),
    "npm": ("//registry.npmjs.org/:_authToken={}", lambda r: "np" + "m_" + drawn(r, ALNUM, 36)),
    "pypi": ("  password = {}", lambda r: "pypi" + "-AgEIcHlwaS5vcmc" + drawn(r, URLSAFE, 160)),
    "sendgrid": ('mail("{}")', lambda r: "S" + "G." + drawn(r, URLSAFE, 22) + "." + drawn(r, URLSAFE, 43)),
    "twilio": ('call("{}")', lambda r: "S" + "K" + drawn(r, HEX, 32)),
    "twilio auth": ('auth_token = "{}"', lambda r: drawn(r, HEX, 32)),
    "telegram": ('Bot("{}")', lambda r: drawn(r, DIGITS[1:], 10) + ":A" + "A" + drawn(r, URLSAFE, 33)),
    "azure storage": (
        'c = "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey={};EndpointSuffix=core.windows.net"',
        lambda r: base64.b64encode(r.randbytes(64)).decode(),
    ),
    "jwt": ("    Authorization: Bearer {}", web_token),
    "discord": (
        'discord_token = "{}"',
        lambda r: f"M{drawn(r, ALNUM, 23)}.{drawn(r, URLSAFE, 6)}.{drawn(r, URLSAFE, 38)}",
    ),
    "postgres url": ('URL = "postgresql+psycopg2://app:{}@db.acme.io:5432/prod"', lambda r: drawn(r, ALNUM, 16)),
    "mongodb url": ("uri: mongodb+srv://app:{}@cluster0.acme.mongodb.net/test", lambda r: drawn(r, ALNUM, 14)),
    "redis url": ('REDIS="redis://:{}@cache.acme.io:6379/0"', lambda r: drawn(r, ALNUM, 20)),
    "basic-auth url": (
        'get("https://deploy:{}@ci.acme.io/job")',
        lambda r: drawn(r, LOWER, 7) + drawn(r, DIGITS, 2),
    ),
    "curl user": ("curl -sS -u deploy:{} https://ci.acme.io/job", lambda r: drawn(r, ALNUM, 14)),
    "password": ('    password = "{}"', lambda r: drawn(r, ALNUM + "!#$%^&*", 16)),
    "password argument": ('setPassword("{}");', lambda r: drawn(r, ALNUM, 16)),
    "typed constant": ('const API_KEY: &str = "{}";', lambda r: drawn(r, ALNUM, 32)),
    "yaml api key": ("  api_key: {}", lambda r: drawn(r, ALNUM, 32)),
    "json api key": ('  "apiKey": "{}",', lambda r: drawn(r, HEX, 40)),
    "client secret": ("const clientSecret = '{}';", lambda r: drawn(r, URLSAFE, 40)),
    "environment": ("export APP_SECRET_KEY={}", lambda r: drawn(r, ALNUM, 40)),
    "properties": ("spring.datasource.password={}", lambda r: drawn(r, ALNUM, 16)),
    "xml": ('<add key="SmtpPassword" value="{}"/>', lambda r: drawn(r, ALNUM, 20)),
    "django": ("SECRET_KEY = '{}'", lambda r: drawn(r, LOWER + DIGITS + "!@#$%^&*-_=+", 50)),
    "command line": ("deploy --auth-token {} --verbose", lambda r: drawn(r, ALNUM, 32)),
}
for _label, _head, _length in (("RSA ", DER_HEAD, 1180), ("EC ", DER_HEAD, 110), ("OPENSSH ", OPENSSH_HEAD, 250)):
    PLANTED[f"{_label}private key"] = (
        'KEY = """{}"""',
        lambda r, label=_label, head=_head, length=_length: key_file(r, label, head, length)[0],  # type: ignore[misc]
    )


def service_account(rng: random.Random) -> tuple[str, str]:
    """Google's JSON for a service account, and the lines of its key as JSON writes them."""
    armoured, lines = key_file(rng, "", DER_HEAD, 1180)
    account = {"type": "service_account", "project_id": "acme-prod", "private_key_id": drawn(rng, HEX, 40)}
    account |= {"private_key": armoured, "client_email": "svc@acme-prod.iam.gserviceaccount.com"}
    return json.dumps(account | {"auth_provider_x509_cert_url": "https://www.googleapis.com/x"}), json.dumps(
        lines
    )[1:-1]


def planted(rng: random.Random) -> dict[str, tuple[str, str]]:
    """One snippet a kind, and what of it must not be seen again."""
    snippets = {}
    for kind, (template, draw) in PLANTED.items():
        secret = draw(rng)
        snippets[kind] = template.format(secret), "\n".join(secret.split("\n")[1:-2]) or secret
    return snippets | {"gcp service account": service_account(rng)}


@pytest.fixture(scope="module")
def standard_library() -> list[str]:
    """The standard library's Python files with its tests, without site-packages: 1 786 in 3.11, 31 MB."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = sorted(path for path in root.rglob("*.py") if "site-packages" not in path.parts)
    texts = []
    for path in paths:
        try:
            texts.append(path.read_text("utf-8"))
        except UnicodeDecodeError:
            continue
    return texts


# What is found, and what is left standing.


def test_planted_secrets_are_found_and_their_surroundings_stand(standard_library: list[str]) -> None:
    rng = random.Random(7)
    hosts = [
        text for text in standard_library if 2_000 < len(text) < 40_000 and not redact(text, key="k").counts["ip"]
    ]
    missed: Counter[str] = Counter()
    rounds = 12
    for _ in range(rounds):
        for kind, (snippet, secret) in planted(rng).items():
            lines = rng.choice(hosts).split("\n")
            at = rng.randrange(len(lines))
            above, below = "\n".join(["# Grüße 漢字 😀", *lines[:at]]), "\n".join(lines[at:])
            found = redact(f"{above}\n{snippet}\n{below}", key="k")
            missed[kind] += secret in found.text
            assert found.text.startswith(redact(above, key="k").text), kind
            assert found.text.endswith("\n" + redact(below, key="k").text), kind
    kinds = len(PLANTED) + 1
    assert kinds >= 30
    assert missed.total() <= 0.02 * kinds * rounds, missed
    assert max(missed.values()) <= 0.25 * rounds, missed


def test_clean_code_has_at_most_one_false_secret_in_a_thousand_files(standard_library: list[str]) -> None:
    # The modules of the library and of its tests hold no secrets; in 3.11 there is no hit at all.
    hits = [text[begin - 20 : end] for text in standard_library for begin, end in secret_spans(text.encode())]
    assert len(standard_library) > 1_000
    assert len(hits) <= len(standard_library) / 1_000, f"{len(hits)} hits"


def test_random_values_pass_and_written_ones_do_not() -> None:
    rng = random.Random(1)
    for alphabet, length, share in ((ALNUM, 16, 0.95), (ALNUM, 32, 0.99), (HEX, 32, 0.97), (URLSAFE, 40, 0.99)):
        passed = sum(looks_random(drawn(rng, alphabet, length).encode()) for _ in range(2_000))
        assert passed >= share * 2_000, (alphabet, length, passed)
    names = {node.id for node in ast.walk(ast.parse(Path(ast.__file__).read_text())) if isinstance(node, ast.Name)}
    names |= set(dir(os)) | set(dir(ast)) | set(dir(subprocess)) | set(sys.builtin_module_names)
    assert sum(map(looks_random, map(str.encode, names))) <= 0.02 * len(names)


@pytest.mark.parametrize(
    "text",
    [
        'password = "correct_horse_battery_staple"',
        "password = os.environ['DB_PASSWORD']",
        'PASSWORD = "${DB_PASSWORD}"',
        'password: "{{ vault_password }}"',
        'api_key = "your-api-key-goes-here-1234"',
        'api_key = "' + "x" * 32 + '"',
        'aws_access_key_id = "AK' + 'IAIOSFODNN7EXAMPLE"',
        'tokenizer = AutoTokenizer.from_pretrained("bigscience/bloomz-560m")',
        'pad_token = "<|endoftext|>"',
        "nextPageToken: 'b1946ac92492d2347c6235b4d2611184b1946ac9'",
        "secret_name = 'projects/acme/secrets/db-password-v2'",
        'request_token = "9f4d9f69-275a-41fe-b58e-2b837bd9ba48"',
        'integrity for token: "sha512-' + base64.b64encode(bytes(range(64))).decode() + '"',
        'sha256 of key: {"api_key": "' + "0f3b5d7a9c1e" * 5 + '0f3b"}',
        'url = "postgres://user:password@localhost:5432/db"',
        'url = f"postgres://{user}:{password}@{host}/db"',
        'proxy = "http://username:password@proxy.acme.io:8080"',
        "-----BEGIN " + "PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        'if text.startswith("-----BEGIN '
        + 'PRIVATE KEY-----"):\n    '
        + "x = parse(text)\n    " * 9
        + '"-----END PRIVATE KEY-----"',
        "key = 'secret'  # token, password",
        "def password(self, secret: str, token: Optional[str] = None) -> SecretStr: ...",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text, key="k") == Redacted(text, NOTHING)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "jane.roe@acme.io",
            "JANE@ACME.COM",
            "j+tag@mail.acme.co.uk",
            "jürgen@acme.de",
            "o'hara@acme.org",
            "x@a-b.dev",
        ),
        *("root@acme.com", "kontakt@acme.berlin"),
    ],
)
@pytest.mark.parametrize(
    "around", ["{}", "Jane <{}>", "mailto:{}?subject=x", '"{}",', "作者{}。", "//{}", "/*{}*/", "See {}.", "({})"]
)
def test_addresses_are_found(address: str, around: str) -> None:
    text = around.format(address)
    found = redact(text, key="k")
    fake = re.search(r"user-[0-9a-f]{10}@example\.com", found.text)
    assert fake
    assert found == Redacted(around.format(fake[0]), NOTHING | {"email": 1})


@pytest.mark.parametrize(
    "text",
    [
        *(
            "git@github.com:acme/x.git",
            "ssh://git@gitlab.acme.io/x",
            "noreply@acme.com",
            "1234+j@users.noreply.github.com",
        ),
        *("jane@example.com", "jane@mail.example.org", "jane@acme.test", "root@localhost", "jane@acme.local"),
        *(
            "@property",
            "@functools.cache",
            "@scope/package@1.2.3",
            "react@18.2.0",
            "image@2x.png",
            "lodash@4.17.21.tgz",
        ),
        *(
            "a @ b.T",
            "q@k.mT",
            "x@w.to(device)",
            "A@B.is_cuda",
            "(x@self.weight.T)",
            "this@Main.id",
            "return@let.it",
        ),
        *(
            "hmac-sha2-256-etm@openssh.com",
            "getty@tty1.service",
            "render@app.js:3:1",
            "https://jane@git.acme.io/x",
        ),
        *("user@host", "a@b", "user@host.", "x@", "@", "a@b.c", "name@{domain}.com", "x@1.5"),
    ],
)
def test_what_is_no_address_stays(text: str) -> None:
    assert redact(text, key="k") == Redacted(text, NOTHING)


def test_an_escape_before_an_address_stays_whole() -> None:
    for escape in (r"\n", r"\t", r"\u00e9", r"\x0b", r"\\n"):
        redacted = redact(f'text = "by{escape}jane@acme.io"', key="k").text
        assert ast.literal_eval(redacted.removeprefix("text = ")).endswith("@example.com"), redacted
        assert redacted.startswith(f'text = "by{escape[:-1]}'), redacted
    assert redact(r'"host\n93.184.216.34"', key="k").counts["ip"] == 1


@pytest.mark.parametrize(
    "address",
    [
        "93.184.216.34",
        "8.26.56.26",
        "203.55.200.1",
        "2606:2800:21f:cb07:6820:80da:af6b:8b2c",
        "2a01:4f8:111:4221::2",
    ],
)
@pytest.mark.parametrize(
    "around", ["{}", "'{}'", "http://[{}]:80/", "hosts: {}, x", "<ip>{}</ip>", "x {}/32", "ip:{};"]
)
def test_ip_addresses_become_reserved_ones(address: str, around: str) -> None:
    if around == "ip:{};" and ":" in address:
        pytest.skip("a colon belongs to an IPv6 address")
    found = redact(around.format(address), key="k")
    assert found.counts == NOTHING | {"ip": 1}
    before, after = around.split("{}")
    fake = ipaddress.ip_address(found.text.removeprefix(before).removesuffix(after))
    assert fake.version == ipaddress.ip_address(address).version
    assert fake.is_private  # which covers the documentation networks


@pytest.mark.parametrize(
    "text",
    [
        *(
            "127.0.0.1",
            "10.1.2.33",
            "192.168.17.20",
            "172.16.100.4",
            "169.254.169.254",
            "0.0.0.0",
            "255.255.255.0",
        ),
        *("224.0.0.251", "192.0.2.77", "198.51.100.200", "203.0.113.99", "8.8.8.8", "1.1.1.1", "208.67.222.222"),
        *(
            "::1",
            "fe80::1",
            "fd00::17",
            "2001:db8::42",
            "2001:4860:4860::8888",
            "ff02::1",
            "::",
            "::ffff:10.0.0.1",
        ),
        *(
            "104.16.0.0/12",
            "93.184.216.0/24",
            "2a01:4f8::/32",
            "1.2.3.4",
            "12.1.3.4",
            "3.57.65.44.5",
            "256.100.50.25",
        ),
        *(
            "version 93.184.216.34",
            "v93.184.216.34",
            "foo==93.184.216.34",
            "Chrome/93.184.216.34",
            "93.184.216.34-beta",
        ),
        *("lib-93.184.216.34", "AssemblyVersion(93.184.216.34)", "93.184.216.34.5", "1.3.101.110", "2.5.29.115"),
        *(
            "093.184.216.034",
            "12:30:45",
            "aa:bb:cc:dd:ee:ff",
            "dead::beef",
            "std::vector",
            "2024:01:02",
            "l 4.4 3.57.65.44",
        ),
        *("2024.10.12", "12.10.2024", "3.14159", "a.1.2.3.4.b", "2001::vector", "x2001:470:1f0b::1"),
    ],
)
def test_what_is_no_machine_on_the_internet_stays(text: str) -> None:
    assert redact(text, key="k") == Redacted(text, NOTHING)


# What stands in the place of what was found.


def test_the_same_value_gets_the_same_fake_and_another_key_another() -> None:
    rng = random.Random(3)
    first, second = planted(rng)["github classic"][0], planted(rng)["github classic"][0]
    text = f"{first}\njane@acme.io 93.184.216.34\n"
    one = redact(text, key="one").text
    assert redact(f"{second}\n{text}{text}", key="one").text.endswith(one + one)
    assert redact(second, key="one").text != redact(first, key="one").text
    assert not set(redact(text, key="two").text.split()) & set(one.split()) - {"TOKEN", "="}


def test_a_fake_has_the_form_of_what_it_replaces() -> None:
    kinds = ((UPPER, "U"), (LOWER, "l"), (DIGITS, "0"))
    form = str.maketrans({character: kind for alphabet, kind in kinds for character in alphabet})
    for kind, (snippet, _) in planted(random.Random(4)).items():
        found = redact(snippet, key="k")
        if kind != "gcp service account":  # whose e-mail address changes its length
            assert found.text.translate(form) == snippet.translate(form), kind
            assert found.counts == NOTHING | {"secret": 1}, kind
    token = drawn(random.Random(5), HEX, 32)
    assert bytes.fromhex(redact(f'auth_token = "{token}"', key="k").text[14:-1]) != bytes.fromhex(token)


def test_code_still_parses_and_differs_in_nothing_but_the_secret() -> None:
    for seed in range(20):
        rng = random.Random(seed)
        armoured, _ = key_file(rng, "RSA ", DER_HEAD, 1180)
        password = drawn(rng, ALNUM, 20)
        code = (
            f"KEY = {armoured!r}\nPASSWORD = b'{password}'\nDATABASE = 'mysql://app:%40{password}\\x41@db.acme.io/x'\n"
            f"def connect(token='{drawn(rng, ALNUM, 32)}'):\n\treturn token\n"
        )
        found = redact(code, key="k")
        assert found.counts["secret"] == 4
        assert password not in found.text
        before, after = ast.dump(ast.parse(code)), ast.dump(ast.parse(found.text))
        assert len(before) == len(after)
        assert re.sub(r"'[^']*'", "", before) == re.sub(r"'[^']*'", "", after)
        assert "-----BEGIN RSA PRIVATE" in found.text
        assert "%40" in found.text
        assert r"\x41" in found.text


def test_the_key_must_be_given() -> None:
    with pytest.raises(InputError, match="key of redaction is empty"):
        redact("x", key="")


# What must not happen.


def test_a_text_without_finds_is_the_same_object(standard_library: list[str]) -> None:
    clean = [text for text in standard_library[:300] if redact(text, key="k").counts == NOTHING]
    assert len(clean) > 100
    assert all(redact(text, key="k").text is text for text in clean)
    assert pickle.loads(pickle.dumps(redact("x", key="k"))) == Redacted("x", NOTHING)


def test_nothing_found_is_shown_or_logged(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    snippets = planted(random.Random(8))
    found = [redact(snippet, key="k") for snippet, _ in snippets.values()]
    shown = repr(found) + str(found) + "".join(capfd.readouterr()) + caplog.text
    assert "counts={'secret': 1" in shown
    assert not [kind for kind, (_, secret) in snippets.items() if secret[:16] in shown]
    # Not even Kingfisher's own results hold what they found, so nobody could send it anywhere.
    for snippet, secret in snippets.values():
        for finding in secrets._scanner().scan(snippet):
            assert secret not in finding.secret + repr(finding) + json.dumps(finding.to_dict(redact=False))


def test_only_the_scanner_of_kingfisher_is_imported() -> None:
    imported = set()
    for path in Path(midspan.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kingfisher"):
                imported |= {(path.name, node.module, alias.name) for alias in node.names}
            if isinstance(node, ast.Import):
                assert not [alias.name for alias in node.names if alias.name.startswith("kingfisher")], path
    names = {("secrets.py", "kingfisher_sdk", name) for name in ("Rules", "Scanner")}
    assert imported == names


def test_kingfisher_never_validates(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a credential was about to be sent to its provider")

    for name in ("__init__", "validate", "inspect", "with_variables"):
        monkeypatch.setattr(kingfisher.Validator, name, refuse)
    for name in ("__init__", "revoke", "revoke_many", "prepare"):
        monkeypatch.setattr(kingfisher.Revoker, name, refuse)
    for name in ("Validator", "Revoker"):
        monkeypatch.setattr(kingfisher._native, name, refuse)
    with pytest.raises(AssertionError, match="about to be sent"):
        kingfisher.Validator()
    secrets._scanner.cache_clear()
    assert (
        sum(redact(snippet, key="k").counts["secret"] for snippet, _ in planted(random.Random(9)).values()) >= 38
    )


ISOLATED = """
import random, socket, sys
sys.path.insert(0, {folder!r})
def counters():
    lines = open("/proc/self/net/snmp").read().splitlines()
    return [line for line in lines if line.startswith(("Ip:", "Tcp:", "Udp:"))]
def attempt(event, _):
    if event.startswith("socket."):
        raise AssertionError("the network was asked for by " + event)
{hook}
from test_redact import planted
from midspan.corpus.redact import redact
before = counters() if {namespace} else None
counts = [redact(snippet, key="k").counts["secret"] for snippet, _ in planted(random.Random(2)).values()]
if {namespace}:
    assert counters() == before, "packets were sent, or tried to be"
    try:
        socket.create_connection(("192.0.2.1", 443), 1)
    except OSError:
        pass
    assert counters() != before, "an attempt should be seen"
print(sum(counts))
"""


def run_isolated(
    command: list[str], *, hook: str = "", namespace: bool = False
) -> subprocess.CompletedProcess[str]:
    script = ISOLATED.format(folder=str(Path(__file__).parent), hook=hook, namespace=namespace)
    source = str(Path(midspan.__file__).parent.parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [*command, sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )


def test_no_packet_is_tried_in_an_empty_network_namespace() -> None:
    try:
        subprocess.run(["unshare", "-rn", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("user and network namespaces are not allowed here")
    done = run_isolated(["unshare", "-rn"], namespace=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 38


def test_no_socket_is_made_by_python() -> None:
    done = run_isolated([], hook="sys.addaudithook(attempt)")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 38


def test_without_kingfisher_the_pip_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kingfisher_sdk", None)
    secrets._scanner.cache_clear()
    with pytest.raises(InputError, match="pip install kingfisher-secret-scanner"):
        redact("x", key="k")


# Any text.

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)
PIECES = st.lists(
    st.one_of(
        ANY_TEXT,
        st.integers(0, 40).flatmap(
            lambda seed: st.sampled_from([text for text, _ in planted(random.Random(seed)).values()])
        ),
        st.sampled_from(
            ["jane@acme.io", "93.184.216.34", "2a01:4f8:111:4221::2", 'password = "', "://", "\\", "%", "@", '"']
        ),
    ),
    max_size=6,
)


@settings(max_examples=150)
@given(PIECES, st.sampled_from(["", "\n", " ", "\0"]), st.text(min_size=1, max_size=5))
def test_any_text_is_redacted_once_and_for_all(pieces: list[str], between: str, key: str) -> None:
    once = redact(between.join(pieces), key=key)
    twice = redact(once.text, key=key)
    assert twice.text is once.text
    assert twice.counts == NOTHING
    assert set(once.counts) == set(NOTHING)


@settings(max_examples=100)
@given(ANY_TEXT, ANY_TEXT, st.integers(0, 1000))
def test_finds_are_cut_out_where_they_are_whatever_is_around(before: str, after: str, seed: int) -> None:
    snippet, secret = planted(random.Random(seed))["github classic"]
    fake = redact(snippet, key="k").text
    expected = f"{redact(before, key='k').text}\n{fake}\n{redact(after, key='k').text}"
    assert redact(f"{before}\n{snippet}\n{after}", key="k").text == expected
    assert secret not in expected


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_spans_lie_inside_the_text(text: str) -> None:
    data = text.encode()
    for spans in (email_spans(data), ip_spans(data), secret_spans(data)):
        assert all(0 <= begin < end <= len(data) for begin, end in spans)
    assert redact_module._finds(data) == sorted(redact_module._finds(data))
