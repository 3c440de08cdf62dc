"""One contender in a process of its own: it says what it is ready for, and takes a step whenever it is told to.

    python -m benchmarks.train_cpu.contenders NAME MODEL ROWS --method full --rows-per-step 4

    -> a line on standard input asks for one optimizer step
    <- {"seconds": 3.1, "loss": 2.51, "peak_gb": 2.9}

Contenders take the same rows in the same order, each row one document of real code, so that everyone does the same
sums; all start from the same weights with AdamW at the same rate.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

RATE, RANK = 1e-4, 16
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Step = Callable[[Tensor], float]
"""An optimizer step on rows (rows, length): its mean loss."""


def midspan(model_path: Path, method: str, rows_per_pass: int) -> Step:
    """Our model, loss and optimizer, some rows of a step at a time."""
    from midspan.model import Segments
    from midspan.model.fused import keep_memory
    from midspan.model.lora import LoraConfig, add_lora
    from midspan.model.loss import cross_entropy_sum
    from midspan.model.weights import load_model
    from midspan.train.optimizer import Optimizer, OptimizerConfig

    keep_memory()
    model = load_model(model_path, dtype=torch.bfloat16)
    if method == "lora":
        add_lora(model, LoraConfig(rank=RANK), [], seed=0)
    optimizer = Optimizer(model, OptimizerConfig(lr=RATE, warmup_steps=0), 1000)

    def step(rows_nl: Tensor) -> float:
        targets = rows_nl.numel() - len(rows_nl)
        total = 0.0
        for some_nl in rows_nl.split(rows_per_pass):
            bounds = tuple(range(0, some_nl.numel() + 1, some_nl.shape[1]))
            hidden_nld = model.hidden(some_nl.reshape(1, -1), segments=Segments(bounds)).view(*some_nl.shape, -1)
            loss = cross_entropy_sum(hidden_nld[:, :-1].flatten(0, 1), model.lm_head, some_nl[:, 1:].flatten())
            (loss / targets).backward()
            total += float(loss.detach())
        optimizer.step(0)
        return total / targets

    return step


def plain_loop(model_path: Path, method: str, *, autocast: bool, compiled: bool) -> Step:
    """The loop that people write around transformers."""
    model = _peer(model_path, method)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    run = torch.compile(model) if compiled else model

    def step(rows_nl: Tensor) -> float:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = run(input_ids=rows_nl, labels=rows_nl, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


def _peer(model_path: Path, method: str) -> Any:
    """Transformers' model in float32, with peft's adapters where asked."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    model.train()
    if method == "lora":
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=32, target_modules=TARGETS))
    return model


def trainer(model_path: Path, method: str, rows: np.ndarray, rows_per_step: int, *, trl: bool) -> None:
    """Hugging Face's Trainer, or TRL's with packed rows: they own the loop, so a callback waits for each step."""
    import datasets
    import transformers

    class Waiting(transformers.TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not sys.stdin.readline():
                raise SystemExit
            self.begun = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds = time.perf_counter() - self.begun

        def on_log(self, *_: Any, logs: dict[str, Any], **__: Any) -> None:
            if "loss" in logs:
                _report(self.seconds, float(logs["loss"]))

    shared: dict[str, Any] = {
        "output_dir": "/nonexistent",
        "per_device_train_batch_size": rows_per_step,
        "max_steps": 1000,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.1,
        "adam_beta2": 0.95,
        "bf16": True,
        "optim": "adamw_torch_fused",
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
    }
    model = _peer(model_path, method)
    data = datasets.Dataset.from_dict({"input_ids": rows.tolist()} | ({} if trl else {"labels": rows.tolist()}))
    if trl:
        from trl import SFTConfig, SFTTrainer

        tokenizer = transformers.AutoTokenizer.from_pretrained(model_path)
        config = SFTConfig(**shared, packing=True, packing_strategy="wrapped", max_length=rows.shape[1])
        made = SFTTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer)
    else:
        made = transformers.Trainer(model=model, args=transformers.TrainingArguments(**shared), train_dataset=data)
    made.add_callback(Waiting())
    print("ready", flush=True)
    made.train()


def _report(seconds: float, loss: float) -> None:
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    peak = int(found.group(1)) / 1e6 if found else float("nan")
    print(json.dumps({"seconds": seconds, "loss": loss, "peak_gb": peak}), flush=True)


def main() -> None:
    """Load, say `ready`, then a step a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("model", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--method", choices=("full", "lora"), default="full")
    parser.add_argument("--rows-per-step", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    rows, model, method = np.load(arguments.rows), arguments.model, arguments.method
    per_step = arguments.rows_per_step
    if arguments.name in ("trainer", "trl"):
        trainer(model, method, rows, per_step, trl=arguments.name == "trl")
        return
    if arguments.name.startswith("midspan"):
        step = midspan(model, method, per_step if arguments.name == "midspan-whole" else 1)
    else:
        autocast, compiled = arguments.name != "fp32", arguments.name == "compiled"
        step = plain_loop(model, method, autocast=autocast, compiled=compiled)
    print("ready", flush=True)
    at = 0
    while sys.stdin.readline():
        chosen = torch.from_numpy(rows[np.arange(at, at + per_step) % len(rows)])
        at += per_step
        begun = time.perf_counter()
        loss = step(chosen)
        _report(time.perf_counter() - begun, loss)


if __name__ == "__main__":
    main()
