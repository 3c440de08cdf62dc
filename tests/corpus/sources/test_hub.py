"""The hub's source against a hub: a server on this machine that answers the routes that the client asks."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("huggingface_hub")

COMMIT = "0123456789" * 4
CARD = {"configs": [{"config_name": "small", "data_files": [{"split": "train", "path": "small/*.parquet"}]}]}


def parquet(*texts):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"content": texts, "path": [f"{text}.py" for text in texts]}), sink)
    return sink.getvalue().to_pybytes()


DATA_SETS = {
    "owner/code": {
        "README.md": b"about",
        "data/python/train-00000-of-00002.parquet": parquet("a", "b"),
        "data/python/train-00001-of-00002.parquet": parquet("c"),
        "data/python/test-00000-of-00001.parquet": parquet("held out"),
        "data/java/train-00000-of-00001.parquet": parquet("d"),
        "small/0.parquet": parquet("e"),
    },
    "owner/none": {"README.md": b"about", "data.json": b"{}"},
    "owner/broken": {"train.parquet": b"this is no parquet"},
}


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[str]] = []

    def log_message(self, *arguments):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.asked.append(path)
        if found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self.about(found[1], found[2] or "main")
        elif found := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.file(*found.groups())
        else:
            self.answer(404)

    do_HEAD = do_GET  # noqa: N815 - as the server wants it

    def about(self, name, revision):
        if name == "owner/gated":
            self.answer(403, b"{}", X_Error_Code="GatedRepo")
        elif name not in DATA_SETS:
            self.answer(404, b"{}", X_Error_Code="RepoNotFound")
        elif revision not in ("main", "v1", COMMIT):
            self.answer(404, b"{}", X_Error_Code="RevisionNotFound")
        else:
            siblings = [
                {"rfilename": path, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
                for path, data in DATA_SETS[name].items()
            ]
            body = {"id": name, "sha": COMMIT, "siblings": siblings, "cardData": CARD}
            self.answer(200, json.dumps(body | {"tags": [], "private": False}).encode())

    def file(self, name, revision, path):
        data = DATA_SETS[name].get(path)
        if data is None or revision != COMMIT:
            self.answer(404, X_Error_Code="EntryNotFound")
        else:
            etag = f'"{hashlib.sha1(data).hexdigest()}"'
            self.answer(200, data, ETag=etag, X_Repo_Commit=COMMIT, Accept_Ranges="bytes")


READ = """
import json, pickle, sys
from pathlib import Path
from midspan.corpus.sources import find_sources
from midspan.errors import InputError

def told(spec):
    try:
        (source,) = find_sources([spec], excluded=Path("/nowhere"))
        shards = [pickle.loads(pickle.dumps(shard)) for shard in source.shards()]
        files = [file for shard in shards for file in shard.files(lambda path: True, 1 << 20)]
    except InputError as error:
        return {"error": str(error)}
    return {
        "label": source.label, "commit": source.commit, "prose": source.prose,
        "files": [(file.group, file.path, file.data.decode(), file.language) for file in files],
        "shards": [(shard.name, shard.fingerprint) for shard in shards],
    }

print(json.dumps([told(spec) for spec in sys.argv[1:]]))
"""


@pytest.fixture
def hub(tmp_path):
    """A function that reads sources in a process of their own: the client settles its server on import."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Hub.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def read(*specs, home="home", **environment):
        known = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        known |= {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(tmp_path / home),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "*",
        }
        known |= environment
        done = subprocess.run([sys.executable, "-c", READ, *specs], capture_output=True, env=known, check=True)
        return json.loads(done.stdout)

    yield read
    server.shutdown()
    server.server_close()


def texts(answer):
    assert "error" not in answer, answer
    return [text for _, _, text, _ in answer["files"]]


def test_a_data_set_is_its_training_files_at_a_commit(hub):
    answer = hub("hf:owner/code")[0]
    assert texts(answer) == ["d", "a", "b", "c"]
    assert (answer["label"], answer["commit"], answer["prose"]) == ("hf:owner/code", COMMIT, False)
    assert answer["files"][1] == ["a.py", "a.py", "a", None]
    downloads = [path for path in Hub.asked if "/resolve/" in path]
    assert all(f"/resolve/{COMMIT}/" in path for path in downloads)
    assert not any("test-" in path or "README" in path for path in downloads)


def test_a_configuration_is_a_folder_or_what_the_card_says(hub):
    python, java, small, prose = hub(
        "hf:owner/code:data/python", "hf:owner/code:java", "hf:owner/code:small@v1", "text:hf:owner/code:java"
    )
    assert (texts(python), texts(java), texts(small)) == (["a", "b", "c"], ["d"], ["e"])
    assert prose["files"] == [["d.py", "d.py", "d", "text"]]


def test_what_is_in_the_cache_is_not_fetched_again(hub):
    first = hub("hf:owner/code:python")
    Hub.asked.clear()
    assert hub("hf:owner/code:python") == first
    assert not [path for path in Hub.asked if "/resolve/" in path]
    assert hub("hf:owner/code:python", home="another")[0]["shards"] == first[0]["shards"]  # on another machine


SENTENCES = {
    "hf:owner/none": "hf:owner/none holds no Parquet files; .* name the revision hf:owner/none@refs/convert/par",
    "hf:owner/code:rust": "no Parquet files in 'rust'; its folders are data/java, data/python, small",
    "hf:owner/absent": "hf:owner/absent is not on the hub, or is private; log in with `hf auth login`",
    "hf:owner/gated": "hf:owner/gated is gated; accept its terms on the page of owner/gated",
    "hf:owner/code@v9": "hf:owner/code@v9 has no such revision",
    "hf:owner/broken": "train.parquet of source 'hf:owner/broken' cannot be read",
    "hf:nonsense": "source 'hf:nonsense' is not of the form hf:owner/name",
    "hf:own--er/-..x": "source 'hf:own--er/-..x' cannot be a data set's name",
}


def test_what_the_hub_does_not_have_is_said(hub):
    for sentence, answer in zip(SENTENCES.values(), hub(*SENTENCES), strict=True):
        assert re.search(sentence, answer["error"])


def test_offline_the_remedy_is_said(hub):
    for environment in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        (answer,) = hub("hf:owner/code", **environment)
        assert re.search("hf:owner/code cannot be fetched .*; go online, or name a folder that", answer["error"])


def test_other_sources_never_ask(hub, tmp_path):
    (tmp_path / "x.parquet").write_bytes(parquet("a"))
    assert texts(hub(str(tmp_path / "x.parquet"))[0]) == ["a"]
    assert Hub.asked == []
