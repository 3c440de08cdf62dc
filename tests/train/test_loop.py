"""The loop: it learns, it resumes bit for bit, and what it writes other software reads."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from midspan.corpus import CorpusConfig, build
from midspan.errors import InputError
from midspan.fim import FimFormat
from midspan.model import Segments
from midspan.model.weights import load_model
from midspan.rows import Rows
from midspan.tokenizer import Tokenizer
from midspan.train import Recipe, load_recipe, prepare_base, train
from midspan.train.base import sentinel_ids
from midspan.train.learner import Learner
from midspan.train.metrics import read_metrics
from midspan.train.ranks import Ranks

QUIET = Console(quiet=True)
ALONE = Ranks(0, 1, torch.device("cpu"), None)


def _losses(run: Path) -> list[tuple[int, float, float]]:
    return [(s.step, s.loss, s.grad_norm) for s in read_metrics(run / "metrics.jsonl")]


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("lora", "train.precision=fp32"),
        ("layers", "train.precision=fp32"),
        ("full", "train.precision=fp32"),
        ("full", "train.precision=bf16-states"),
        ("lora", "lora.quantise=nf4"),
    ],
)
def test_training_lowers_the_loss_and_the_model_is_there(
    tiny_recipe: Path, tmp_path: Path, method: str, more: str
) -> None:
    recipe = load_recipe(tiny_recipe, [f"train.method={method}", more])
    train(recipe, tmp_path / "run", console=QUIET)
    losses = [loss for _, loss, _ in _losses(tmp_path / "run")]
    assert len(losses) == 60
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    tokenizer = Tokenizer.load(tmp_path / "run" / "model")
    fim = FimFormat.detect(tokenizer)
    assert fim is not None
    assert fim.eot_id == 260
    assert load_model(tmp_path / "run" / "model").config.vocab_size == 261


def test_a_run_of_the_layers_leaves_the_vocabulary_alone_but_for_the_sentinels(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(tiny_recipe, ["train.method=layers", "train.precision=fp32", "train.steps=3"])
    base, tokenizer = prepare_base(recipe.base, torch.float32)
    train(recipe, tmp_path / "run", console=QUIET)
    before, after = base.state_dict(), load_model(tmp_path / "run" / "model", dtype=torch.float32).state_dict()
    vocabulary = "model.embed_tokens.weight"
    for name in before:
        if "_proj" in name:
            assert not torch.equal(before[name].bfloat16(), after[name].bfloat16()), f"{name} did not train"
    others = [i for i in range(tokenizer.vocab_size) if i not in sentinel_ids(tokenizer)]
    assert torch.equal(before[vocabulary][others].bfloat16(), after[vocabulary][others].bfloat16())


def _start(recipe: Path, run: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "midspan", "train", str(recipe), "--out", str(run), *arguments]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})


def _kill_at(process: subprocess.Popen[bytes], run: Path, step: int) -> None:
    """SIGKILL as soon as the run has recorded the step."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        path = run / "metrics.jsonl"
        if path.is_file() and path.read_bytes().count(b"\n") >= step:
            process.kill()
            break
        time.sleep(0.002)
    process.wait(timeout=120)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_killed_at_five_random_steps_and_resumed_is_bit_for_bit_the_same(
    tiny_recipe: Path, tmp_path: Path, method: str
) -> None:
    """The straight run compiles its rows in one process, the killed one in two."""
    settings = ["--set", f"train.method={method}"]
    assert _start(tiny_recipe, tmp_path / "straight", *settings).wait(timeout=300) == 0
    killed = tmp_path / "killed"
    for step in sorted(random.Random(method).sample(range(1, 58), 5)):
        resume = ["--resume"] if killed.exists() else []
        _kill_at(_start(tiny_recipe, killed, *settings, "--set", "data.workers=2", *resume), killed, step)
    assert _start(tiny_recipe, killed, *settings, "--set", "data.workers=2", "--resume").wait(timeout=300) == 0
    assert _losses(killed) == _losses(tmp_path / "straight")
    expected = _weights(tmp_path / "straight")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in _weights(killed).items())
    assert not list(killed.glob("**/.*tmp*"))


@pytest.mark.slow
@pytest.mark.parametrize("background", ["true", "false"])
def test_killed_at_twenty_moments_half_of_them_within_a_save(
    tiny_recipe: Path, tmp_path: Path, background: str
) -> None:
    settings = ["--set", "checkpoint.every_steps=1", "--set", f"checkpoint.background={background}"]
    assert _start(tiny_recipe, tmp_path / "straight", *settings).wait(timeout=300) == 0
    killed, draws, within = tmp_path / "killed", random.Random(7), 0
    for number in range(20):
        resume = ["--resume"] if killed.exists() else []
        process = _start(tiny_recipe, killed, *settings, *resume)
        before = len(_losses(killed))
        deadline = time.monotonic() + 120
        while process.poll() is None and len(_losses(killed)) <= before and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(draws.uniform(0, 0.02))
        while number % 2 and process.poll() is None and not list(killed.glob("checkpoints/.step-*")):
            pass
        process.kill()
        process.wait(timeout=120)
        within += bool(list(killed.glob("checkpoints/.step-*")))
    assert within >= 5, "not enough of the kills were within a save"
    assert _start(tiny_recipe, killed, *settings, "--resume").wait(timeout=300) == 0
    assert _losses(killed) == _losses(tmp_path / "straight")
    expected = _weights(tmp_path / "straight")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in _weights(killed).items())
    assert not list(killed.glob("**/.*tmp*"))


def test_sigusr1_saves_and_goes_on(tiny_recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = _start(tiny_recipe, run, "--set", "checkpoint.every_steps=1000", "--set", "train.steps=400")
    deadline = time.monotonic() + 120
    while not _losses(run) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR1)
    while not list(run.glob("checkpoints/step-*/COMMIT")) and time.monotonic() < deadline:
        time.sleep(0.01)
    (saved,) = run.glob("checkpoints/step-*/COMMIT")
    step = int(saved.parent.name.removeprefix("step-"))
    while len(_losses(run)) < step + 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, "it goes on"
    process.kill()
    process.wait(timeout=120)


def test_sigterm_saves_and_says_how_to_go_on(tiny_recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["--set", "checkpoint.every_steps=1000", "--set", "train.steps=2000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "midspan", "train", str(tiny_recipe), "--out", str(run), *arguments],
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").is_file() or not (run / "metrics.jsonl").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    step = _losses(run)[-1][0]
    assert f"holds step {step}: go on with --resume" in " ".join(errors.decode().split())
    assert (run / "checkpoints" / f"step-{step:08d}" / "COMMIT").is_file()


def test_a_finished_run_is_left_alone(tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = load_recipe(tiny_recipe, ["train.steps=2"])
    train(recipe, tmp_path / "run", console=QUIET)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
    train(recipe, tmp_path / "run", resume=True, console=QUIET)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")} == before


def test_refusals(tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = load_recipe(tiny_recipe, ["train.steps=2"])
    run = tmp_path / "run"
    train(recipe, run, console=QUIET)
    with pytest.raises(InputError, match="is there already; go on with --resume"):
        train(recipe, run, console=QUIET)
    with pytest.raises(InputError, match=r"begun with optimizer\.lr = 0\.005, and the recipe now says 0\.1"):
        train(load_recipe(tiny_recipe, ["train.steps=2", "optimizer.lr=0.1"]), run, resume=True, console=QUIET)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(InputError, match="is no run"):
        train(recipe, tmp_path / "other", resume=True, console=QUIET)
    with pytest.raises(InputError, match="no-corpus"):
        train(load_recipe(tiny_recipe, ["data.corpus=no-corpus"]), tmp_path / "third", console=QUIET)
    assert not (tmp_path / "third").exists(), "a run that could not begin leaves nothing"


def test_two_processes_do_not_train_one_run(tiny_recipe: Path, tmp_path: Path) -> None:
    """The second is refused while the first lives, and goes on once it is killed."""
    run = tmp_path / "run"
    first = _start(tiny_recipe, run)
    while not (run / "metrics.jsonl").is_file() and first.poll() is None:
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(InputError, match=r"another process is training .*run; wait for it, or stop it"):
            train(load_recipe(tiny_recipe), run, resume=True, console=QUIET)
    finally:
        first.kill()
        first.wait(timeout=60)
    train(load_recipe(tiny_recipe), run, resume=True, console=QUIET)
    assert (run / "model").is_dir()


def _interrupted(recipe: Recipe, run: Path) -> dict[Path, bytes]:
    """A run that was cut off after its first checkpoint: what of it must stay as it is."""
    train(recipe, run, console=QUIET)
    for gone in ("model", "adapter", "checkpoints/step-00000004"):
        shutil.rmtree(run / gone, ignore_errors=True)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000002"]
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_damaged_rows_and_another_corpus_are_refused_and_nothing_is_lost(
    tiny_recipe: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    corpus, run = tmp_path / "corpus", tmp_path / "run"
    shutil.copytree(tiny_corpus, corpus)
    recipe = load_recipe(tiny_recipe, ["train.steps=4", "checkpoint.every_steps=2", f"data.corpus={corpus}"])
    train(recipe, tmp_path / "straight", console=QUIET)
    saved = _interrupted(recipe, run)

    (shard,) = (run / "rows").glob("rows-0-*.bin")
    for count in (0, 1):  # bytes that have changed, and a file that is too short
        content = bytes(255 - byte for byte in saved[shard])
        shard.write_bytes(content[: len(content) - count])
        with pytest.raises(InputError, match=r"is damaged; remove|holds no whole compiled rows"):
            train(recipe, run, resume=True, console=QUIET)
    shutil.rmtree(run / "rows")

    (source := tmp_path / "more").mkdir()
    for number in range(40):
        (source / f"another{number}.py").write_text(f"def number_{number}(value):\n    return value + {number}\n")
    changed = tmp_path / "changed"
    build([str(source)], changed, CorpusConfig())
    moved = load_recipe(
        tiny_recipe, ["train.steps=4", "checkpoint.every_steps=2", f"data.corpus={changed}", "data.row_tokens=64"]
    )
    with pytest.raises(InputError, match=r"begun with data\.row_tokens"):
        train(moved, run, resume=True, console=QUIET)
    shutil.move(corpus, tmp_path / "aside")
    shutil.move(changed, corpus)
    with pytest.raises(InputError, match="another corpus"):
        train(recipe, run, resume=True, console=QUIET)
    shutil.rmtree(corpus)
    shutil.move(tmp_path / "aside", corpus)

    kept = {path: content for path, content in saved.items() if "checkpoints" in path.parts}
    assert {path: path.read_bytes() for path in kept} == kept
    shutil.rmtree(run / "rows", ignore_errors=True)
    train(recipe, run, resume=True, console=QUIET)
    assert _losses(run) == _losses(tmp_path / "straight")
    expected = _weights(tmp_path / "straight")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in _weights(run).items())


@pytest.mark.parametrize("together", [1, 2])
def test_the_loss_of_a_step_is_a_plain_mean_over_its_targets(
    tiny_recipe: Path, tmp_path: Path, together: int
) -> None:
    """Against whole logits and torch's own cross-entropy, document by document."""
    recipe = load_recipe(tiny_recipe, ["train.steps=1", "train.precision=fp32", f"train.rows_per_pass={together}"])
    train(recipe, tmp_path / "run", console=QUIET)
    model, _ = prepare_base(recipe.base, torch.float32)
    rows = Rows(tmp_path / "run" / "rows")
    batch = [rows[0], rows[1]]
    loss, targets, tokens = Learner(recipe, ALONE).backward(batch)
    total, count = 0.0, 0
    for row in batch:
        for start, end in zip(row.bounds, row.bounds[1:], strict=False):
            ids = torch.from_numpy(row.ids[start:end])[None]
            logits = model(ids)[0, :-1]
            total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
            count += end - start - 1
    assert (targets, tokens) == (count, sum(len(row.ids) for row in batch))
    assert loss == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_peft_and_transformers_load_what_a_run_writes_and_agree(
    tiny_recipe: Path, tmp_path: Path, tiny_base: Path, tied: bool
) -> None:
    """The merged model in transformers, and the adapter on the base in PEFT, give our logits."""
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    base = tiny_base
    if not tied:
        from dataclasses import replace

        from tests.train.conftest import TINY

        from midspan.model import Llama
        from midspan.model.weights import write_hf

        model = Llama(replace(TINY, tied=False))
        model.initialise(seed=2, std=0.08)
        base = tmp_path / "untied"
        write_hf(base, model, model.config, tokenizer=Tokenizer.load(tiny_base))
    recipe = load_recipe(tiny_recipe, [f"base={base}", "train.steps=12", "train.precision=fp32"])
    run = tmp_path / "run"
    train(recipe, run, console=QUIET)
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "model")
    assert tokenizer.convert_tokens_to_ids("<EOT>") == 260
    ids = torch.tensor([[257, 10, 20, 258, 30, 40, 259, 50, 260]])
    mine = load_model(run / "model")
    with torch.no_grad():
        expected = mine(ids, segments=Segments((0, 9)))
        merged = transformers.AutoModelForCausalLM.from_pretrained(run / "model", dtype=torch.float32)
        torch.testing.assert_close(merged(ids).logits, expected, atol=1e-4, rtol=0)
        plain = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        plain.resize_token_embeddings(261)
        adapted = peft.PeftModel.from_pretrained(plain, run / "adapter")
        # The merged model was rounded to bfloat16 on its way to disk, the adapter was not.
        torch.testing.assert_close(adapted(ids).logits, expected, atol=0.05, rtol=0)
        with adapted.disable_adapter():
            assert (adapted(ids).logits - expected).abs().max() > 0.5, "the adapter is what made the difference"


def test_the_metrics_and_the_recipe_are_json(tiny_recipe: Path, tmp_path: Path) -> None:
    train(load_recipe(tiny_recipe, ["train.steps=3"]), tmp_path / "run", console=QUIET)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    keys = {"step", "loss", "lr", "grad_norm", "tokens", "targets", "tokens_per_second", "seconds"}
    keys |= {"mfu", "memory_bytes", "data_seconds"}
    assert [set(json.loads(line)) for line in lines] == [keys] * 3
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["train"]["steps"] == 3


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_checkpoint_goes_on_where_the_processor_has_other_products(
    tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """bfloat16 or, without it, float32: what is saved is the same."""
    recipe = load_recipe(tiny_recipe, [f"train.method={method}"])
    alone = Ranks(0, 1, torch.device("cpu"), None)
    found = {}
    for has in (False, True):
        monkeypatch.setattr("midspan.model.precision.has_bfloat16", lambda has=has: has)
        found[has] = Learner(recipe, alone)
    plain, with_products = found[False], found[True]
    assert (plain.precision, with_products.precision) == (torch.float32, torch.bfloat16)
    for tensor in plain.optimizer.parameters.values():
        tensor.data += 0.01
    saved, target = plain.optimizer.state(), with_products.optimizer.state()
    assert {name: (x.shape, x.dtype) for name, x in saved.items()} == {
        name: (x.shape, x.dtype) for name, x in target.items()
    }
    for name, tensor in saved.items():
        target[name].copy_(tensor)
    with_products.optimizer.loaded()
    for name, parameter in with_products.model.named_parameters():
        assert torch.equal(parameter, plain.model.get_parameter(name).to(parameter.dtype)), name
