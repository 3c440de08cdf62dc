"""`python -m benchmarks.keystrokes [--quick]`: what a keystroke costs, and how many a model saves.

Traces are typed into real files, a suggestion after each character:

    evaluated   tokens of the prompt that have to be read for it
    cached      share of the prompt that need not be
    first token milliseconds from the key to the first text, alone and beside two busy processes
    a line      milliseconds from the key to a suggestion of one line that is whole
    saved       keys that accepting whole lines saves (only where the model can infill by training)
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks.harness import Bench
from benchmarks.keystrokes import peer
from benchmarks.keystrokes.traces import Trace, traces
from midspan.cache import model_file
from midspan.engine import Engine, Request
from midspan.engine.decoder import open_decoder
from midspan.engine.prompts import AnyLayout
from midspan.engine.remote import RemoteEngine
from midspan.engine.session import Session
from midspan.fim.format import FimFormat
from midspan.fim.stops import EDITOR
from midspan.model.precision import computed_in
from midspan.tokenizer import Tokenizer
from midspan.train.base import prepare_base

PREFIX, SUFFIX = 2000, 1000
"""Tokens."""
STEPS = "keys,peer,guesses"
GOALS = {"first": 15.0, "line": 120.0, "sooner": 100.0}
Ask = Callable[[str, str], tuple[float, int, int]]
"""Prefix and suffix to milliseconds, the prompt's tokens, and those of them that were cached."""


def timed(
    engine: Engine | RemoteEngine, make: Callable[[], Request], *, whole: bool = False
) -> tuple[float, int, int]:
    """From before a request is made until its first text is there, or all of it."""
    begun = time.perf_counter()
    handle = engine.submit(make())
    pieces = iter(handle)
    if whole:
        handle.result()
    else:
        next(pieces, "")
    spent = time.perf_counter() - begun
    usage = handle.result().usage
    return 1e3 * spent, usage.prompt, usage.cached


def asking(engine: Engine, layout: AnyLayout) -> Ask:
    """A question of one token."""

    def ask(prefix: str, suffix: str) -> tuple[float, int, int]:
        return timed(engine, lambda: engine.infilling(prefix, suffix, layout=layout, max_tokens=1))

    return ask


def asking_line(engine: Engine) -> Ask:
    """A question of a line, as an editor asks."""

    def ask(prefix: str, suffix: str) -> tuple[float, int, int]:
        rules = replace(EDITOR, max_lines=1)
        return timed(engine, lambda: engine.infilling(prefix, suffix, max_tokens=32, stops=rules), whole=True)

    return ask


def typed(ask: Ask, trace: Trace, keys: int) -> list[tuple[float, int, int]]:
    """What was asked after each key but the first."""
    ends = range(min(keys, len(trace.typed)))
    return [ask(trace.prefix + trace.typed[:end], trace.suffix) for end in ends][1:]


def saved(engine: Engine, trace: Trace) -> tuple[int, int]:
    """Keys that were needed, with whole lines accepted by one, and characters."""
    session, keys = Session(engine, trace.path, max_prompt=None), 0
    session.open(trace.prefix + trace.suffix, len(trace.prefix))
    done = 0
    while done < len(trace.typed):
        line = trace.typed[done:].partition("\n")[0]
        suggestion = session.suggest(max_tokens=24).text.partition("\n")[0]
        if line and suggestion == line:
            session.type(line)
            done += len(line)
        else:
            session.type(trace.typed[done])
            done += 1
        keys += 1
    return keys, len(trace.typed)


def main() -> None:
    """Measure and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short trace: does it run?")
    parser.add_argument("--model", default="smollm2-135m", help="a name, a checkpoint's path or a run's folder")
    parser.add_argument("--traces", type=int, default=3)
    parser.add_argument("--keys", type=int, default=40, help="of each trace")
    parser.add_argument("--decoder", default="fused", help="torch or fused")
    parser.add_argument("--only", default=STEPS, help=f"some of {STEPS}")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.traces, arguments.keys = 1, 4
    torch.set_num_threads(2)
    bench = Bench("keystrokes", threads=2, runs=1)
    model, tokenizer = prepare_base(arguments.model, computed_in(torch.bfloat16, "cpu"))
    engine = Engine(model, tokenizer, max_batch=4, decoder=open_decoder(model, arguments.decoder, 8))
    scale = 8 if arguments.quick else 1
    places = traces(tokenizer, arguments.traces, prefix_tokens=PREFIX // scale, suffix_tokens=SUFFIX // scale)
    asked = arguments.only.split(",")
    if "keys" in asked:
        typing(bench, engine, places, arguments.keys)
    if "peer" in asked and peer.program() is not None and arguments.model == "smollm2-135m":
        gguf = model_file("smollm2-135m")
        with peer.server(gguf, Tokenizer.load(gguf), 2) as remote:
            compare(bench, remote, engine, tokenizer, places, arguments.keys)
    if "guesses" in asked:
        guesses(bench, engine, places, min(arguments.keys, 24), 8 if arguments.quick else 48)
    if "keys" in asked and arguments.model != "smollm2-135m":  # as it comes, it was not taught to infill
        counts = [saved(engine, trace) for trace in places]
        share = 1 - sum(keys for keys, _ in counts) / sum(characters for _, characters in counts)
        bench.record("keys saved", unit="%", value=100 * share)
    bench.finish(quick=arguments.quick, partial=arguments.only != STEPS)


def typing(bench: Bench, engine: Engine, places: list[Trace], number: int) -> None:
    """The first text after a key by layout, a whole line, and the first text beside two busy processes."""
    layouts: tuple[AnyLayout, ...] = ("auto", "psm", "line")
    for layout in layouts:
        engine.slots.clear()
        keys = min(number, 8) if layout == "psm" else number  # it takes a second a key
        row(bench, layout, [key for trace in places for key in typed(asking(engine, layout), trace, keys)])
    engine.slots.clear()
    value = statistics.median(key[0] for trace in places for key in typed(asking_line(engine), trace, number))
    bench.record("auto: a suggestion of a line, p50", unit="ms", value=value, goal=GOALS["line"], better="lower")
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        engine.slots.clear()
        found = [key for trace in places for key in typed(asking(engine, "auto"), trace, number)]
    finally:
        for process in busy:
            process.kill()
            process.wait()
    row(bench, "auto, both cores busy", found)


def row(bench: Bench, name: str, found: list[tuple[float, int, int]]) -> None:
    """The figures of one way of asking."""
    milliseconds = sorted(time_ for time_, _, _ in found)
    evaluated = [prompt - cached for _, prompt, cached in found]
    goal = (4.0, 97.0) if name.startswith("auto") else (None, None)
    bench.record(
        f"{name}: tokens read a key",
        unit="tokens",
        value=statistics.median(evaluated),
        better="lower",
        goal=goal[0],
    )
    share = 100 * sum(cached for _, _, cached in found) / sum(prompt for _, prompt, _ in found)
    bench.record(f"{name}: cached", unit="%", value=share, goal=goal[1])
    p50, p95 = (milliseconds[int(q * (len(milliseconds) - 1))] for q in (0.5, 0.95))
    wanted = GOALS["first"] if name == "auto" else None
    bench.record(f"{name}: first token, p50", unit="ms", value=p50, goal=wanted, better="lower")
    bench.record(f"{name}: first token, p95", unit="ms", value=p95, better="lower")


def guesses(bench: Bench, engine: Engine, places: list[Trace], keys: int, max_tokens: int) -> None:
    """With and without guesses: suggestions key by key, and writing on, behind prompts read before."""
    bench.runs = 3
    bench.compare_rates(
        "suggestions while typing, with guesses",
        unit="tokens/s",
        ours=lambda: suggested(engine, places, keys),
        peers={"without": lambda: suggested(engine, places, keys, drafts=None)},
        goal_ratio=1.5,
    )
    asked = [engine.completing(trace.prefix, max_tokens=max_tokens, stop_ids=frozenset()) for trace in places]
    plain = [replace(request, drafts=None) for request in asked]

    texts: dict[bool, list[str]] = {}

    def write(requests: list[Request]) -> float:
        engine.slots.clear()
        for request in requests:
            engine.submit(replace(request, max_tokens=1)).result()
        begun = time.perf_counter()
        texts[requests is asked] = [engine.submit(request).result().text for request in requests]
        return max_tokens * len(requests) / (time.perf_counter() - begun)

    bench.compare_rates(
        "writing on with guesses",
        unit="tokens/s",
        ours=lambda: write(asked),
        peers={"without": lambda: write(plain)},
    )
    same = sum(a == b for a, b in zip(texts[True], texts[False], strict=True))
    bench.record("the same text as without guesses", unit="%", value=100 * same / len(places), goal=100.0)


def suggested(engine: Engine, places: list[Trace], keys: int, **options: None) -> float:
    """Tokens a second of a suggestion after each key, whatever stands of the one before."""
    tokens, seconds = 0, 0.0
    engine.slots.clear()
    for trace in places:
        session = Session(engine, trace.path, max_prompt=None)
        session.open(trace.prefix + trace.suffix, len(trace.prefix))
        session.warm()
        begun = time.perf_counter()
        for character in trace.typed[:keys]:
            session.type(character)
            found = session.ask(max_tokens=24, **options).result()
            session.taken(found)
            tokens += len(found.ids)
        seconds += time.perf_counter() - begun
    return tokens / seconds


def compare(
    bench: Bench, remote: RemoteEngine, engine: Engine, tokenizer: Tokenizer, places: list[Trace], keys: int
) -> None:
    """The same keys, ours and llama.cpp's in turns; its GGUF has no sentinels, so other pieces stand in."""
    fim = FimFormat.detect(tokenizer)
    assert fim is not None
    stand_in = {fim.prefix_id: 4, fim.suffix_id: 6, fim.middle_id: 7}

    def ask_peer(layout: AnyLayout) -> Ask:
        def make(prefix: str, suffix: str) -> Request:
            prompt = engine.prompt(prefix, suffix, layout=layout, max_tokens=1, heal=False)
            return Request(prompt=[stand_in.get(i, i) for i in prompt.ids], max_tokens=1)

        def ask(prefix: str, suffix: str) -> tuple[float, int, int]:
            return timed(remote, lambda: make(prefix, suffix))

        return ask

    ours: list[float] = []
    theirs: dict[str, list[float]] = {"psm": [], "spm": []}
    for trace in places:
        ours += [key[0] for key in typed(asking(engine, "spm"), trace, keys)]
        theirs["psm"] += [key[0] for key in typed(ask_peer("psm"), trace, min(keys, 6))]
        theirs["spm"] += [key[0] for key in typed(ask_peer("spm"), trace, keys)]
    peers = {
        "llama.cpp, order of its /infill": statistics.median(theirs["psm"]),
        "llama.cpp, SPM by ids": statistics.median(theirs["spm"]),
    }
    mine = statistics.median(ours)
    bench.record("first token beside llama.cpp (SPM)", unit="ms", value=mine, peers=peers, better="lower")
    sooner = statistics.median(theirs["psm"]) / mine
    bench.record("sooner than llama.cpp's order", unit="times", value=sooner, goal=GOALS["sooner"])


if __name__ == "__main__":
    main()
