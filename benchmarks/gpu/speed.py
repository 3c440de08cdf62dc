"""Tokens a second, memory and share of the peak of one training step, ours and transformers'."""

from __future__ import annotations

import functools
import gc
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.shapes import SHAPES, bytes_needed, flops_of, peak_tflops
from midspan.model import Llama
from midspan.model.lora import LoraConfig, add_lora
from midspan.rows import Row
from midspan.rows.segments import SEGMENT
from midspan.train.objective import Objective, join
from midspan.train.parallel import ParallelConfig, lighten
from midspan.train.replay import Replay

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Step = Callable[[torch.Tensor], float]


def ours(
    shape: str, method: str, tokens: int, device: torch.device, *, recompute: bool, compiled: bool, replayed: bool
) -> Step:
    """Our model and loss, bfloat16 weights and moments; rows of `tokens`, each of two documents."""
    model = _on(device, lambda: Llama(SHAPES[shape]))
    if method == "lora":
        add_lora(model, LoraConfig(rank=16), [], seed=0)
        model.to(device)
    checkpointing = "full" if recompute else "none"
    lighten(
        model,
        ParallelConfig(activation_checkpointing=checkpointing, compile=compiled, replay=replayed),
        train=method,
    )
    optimizer, objective = _adamw(model, device), Objective(model)
    replays: dict[int, Replay] = {}

    def step(ids_rl: torch.Tensor) -> float:
        rows = [_row(ids_l.cpu().numpy()) for ids_l in ids_rl]
        one = join(rows)
        if not replayed:
            loss = objective(one.to(device)) / len(one.at_n)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return float(loss.detach())
        length = ids_rl.numel()
        if length not in replays:
            replays[length] = Replay(objective, device, length=length, most=tokens)
        replays[length].begin()
        total = replays[length].backward(one, len(one.at_n))
        optimizer.step()
        return float(total) / len(one.at_n)

    return step


def _row(ids: np.ndarray) -> Row:
    segments = np.zeros(2, SEGMENT)
    segments["end"] = (len(ids) // 3, len(ids))
    return Row(ids, segments)


def theirs(shape: str, method: str, device: torch.device, *, recompute: bool) -> Step:
    """Transformers' Llama with flash attention where it is installed, else SDPA; adapters by peft."""
    import transformers

    config = SHAPES[shape]
    flash = device.type == "cuda" and importlib.util.find_spec("flash_attn") is not None
    values = transformers.LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        max_position_embeddings=config.max_positions,
        tie_word_embeddings=config.tied,
        attn_implementation="flash_attention_2" if flash else "sdpa",
    )
    model: Any = _on(device, lambda: transformers.LlamaForCausalLM(values))
    model.train()
    if method == "lora":
        import peft

        model = peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=32, target_modules=TARGETS))
    if recompute:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    optimizer = _adamw(model, device)

    def step(ids_rl: torch.Tensor) -> float:
        loss = model(input_ids=ids_rl, labels=ids_rl, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def _on(device: torch.device, make: Callable[[], Any]) -> Any:
    """A bfloat16 model made where it is needed, its weights small draws."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            model = make()
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.02)
    return model


def _adamw(model: torch.nn.Module, device: torch.device) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-5, fused=device.type in ("cuda", "cpu"))


def _forget() -> None:
    """Give back what another contender held; what was compiled for its model keeps that alive."""
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def measure(
    make: Callable[[], Step], vocab: int, tokens: int, rows: int, device: torch.device, steps: int
) -> dict[str, float]:
    """Median seconds of a step after two to warm up, tokens a second, and the most memory (GiB; 0 on a CPU)."""
    _forget()
    step = make()
    ids_rl = torch.randint(vocab, (rows, tokens), generator=torch.Generator().manual_seed(0)).to(device)
    seconds, loss = [], 0.0
    for _ in range(steps + 2):
        begun = time.perf_counter()
        loss = step(ids_rl)  # a number: the device has finished
        seconds.append(time.perf_counter() - begun)
    middle = statistics.median(seconds[2:])
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    return {"seconds": middle, "tokens_per_second": rows * tokens / middle, "gib": memory, "loss": loss}


def case(
    shape: str, method: str, tokens: int, rows: int, device: torch.device, steps: int, only: list[str]
) -> dict[str, Any]:
    """One row: ours as it is, compiled, replayed and both where that works, and theirs."""
    config, of_pass = SHAPES[shape], rows * tokens
    _forget()
    room = torch.cuda.mem_get_info()[0] if device.type == "cuda" else 8 << 30
    recompute = bytes_needed(config, of_pass, method, recompute=False) > 0.9 * room
    row: dict[str, Any] = {"recompute": recompute}
    if bytes_needed(config, of_pass, method, recompute=recompute) > 0.95 * room:
        return row | {"skipped": f"needs more than the {room / 2**30:.0f} GiB that are free"}
    kinds = {"ours": (False, False)}
    if device.type == "cuda":
        kinds |= {"ours, compiled": (True, False), "ours, replayed": (False, True), "ours, both": (True, True)}
    contenders: dict[str, Callable[[], Step]] = {
        name: functools.partial(
            ours, shape, method, tokens, device, recompute=recompute, compiled=compiled, replayed=replayed
        )
        for name, (compiled, replayed) in kinds.items()
    }
    if importlib.util.find_spec("transformers") and (method == "full" or importlib.util.find_spec("peft")):
        contenders["transformers"] = lambda: theirs(shape, method, device, recompute=recompute)
    peak = peak_tflops(torch.cuda.get_device_name()) if device.type == "cuda" else None
    for name, make in contenders.items():
        if only and name not in only:
            continue
        begun = time.perf_counter()
        try:
            found: dict[str, Any] = dict(measure(make, config.vocab_size, tokens, rows, device, steps))
        except Exception as error:  # a contender that cannot run is a result, not the end of the others
            row[name] = {"failed": f"{type(error).__name__}: {str(error)[:300]}"}
            print(f"{name}: {row[name]}", flush=True)
            continue
        if peak:
            rate = found["tokens_per_second"] * flops_of(config, tokens, method)
            found["mfu_percent"] = 100 * rate / 1e12 / peak
        row[name] = found | {"seconds_in_all": time.perf_counter() - begun}
    return row
