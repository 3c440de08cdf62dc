"""Verdicts of ordinary programs, limits, and the way programs and verdicts flow."""

import itertools

import pytest

from midspan.errors import InputError
from midspan.sandbox import Limits, Program, Sandbox

RIGHT = Program(source="def f(x):\n    return x + 1\n", test="assert f(1) == 2", entry_point="f")


def test_right_and_wrong(compat: Sandbox, strict: Sandbox):
    for sandbox, mode in ((compat, "compat"), (strict, "strict")):
        assert sandbox.judge_one(RIGHT).status == "passed"
        wrong = sandbox.judge_one(Program(source="def f(x): return x", test=RIGHT.test, entry_point="f", key="w"))
        assert (wrong.status, wrong.key, wrong.mode) == ("failed", "w", mode)
        assert "AssertionError" in wrong.reason


def test_cpu_seconds_decide(compat: Sandbox):
    busy = compat.judge_one(Program(source="while True: pass", limits=Limits(cpu_seconds=0.3, wall_seconds=60)))
    assert busy.status == "timeout"
    assert "CPU" in busy.reason
    asleep = compat.judge_one(Program(source="import time; time.sleep(60)", limits=Limits(wall_seconds=0.3)))
    assert asleep.status == "timeout"
    assert "wall" in asleep.reason


def test_standard_input_and_output(compat: Sandbox):
    source = "import sys\nprint(sum(int(line) for line in sys.stdin))\nif __name__ == '__main__': sys.exit(0)\n"
    verdict = compat.judge_one(Program(source=source, stdin="1\n2\n39\n"))
    assert (verdict.status, verdict.stdout) == ("passed", "42\n")


def test_output_is_cut_and_drained(compat: Sandbox):
    source = "print('x' * 5_000_000)"
    verdict = compat.judge_one(Program(source=source, limits=Limits(output_bytes=1000)))
    assert (verdict.status, len(verdict.stdout)) == ("passed", 1000)


def test_programs_are_pulled_as_they_are_needed(compat: Sandbox):
    pulled = itertools.count()
    programs = (Program(source="", key=str(next(pulled))) for _ in range(1000))
    verdicts = compat.judge(programs)
    next(verdicts)
    verdicts.close()
    assert next(pulled) <= 2 * compat.workers + 1
    assert compat.judge_one(RIGHT).status == "passed"


def test_an_error_of_the_caller_s_programs_reaches_the_caller(compat: Sandbox):
    def programs():
        yield RIGHT
        raise RuntimeError("the model is gone")

    with pytest.raises(RuntimeError, match="the model is gone"):
        list(compat.judge(programs()))


def test_a_dead_jail_is_replaced_and_the_program_judged_again(compat: Sandbox):
    with Sandbox(1) as sandbox:
        sandbox._jails[0].process.kill()
        assert sandbox.judge_one(RIGHT).status == "passed"


def test_strict_does_to_arguments_what_was_done(strict: Sandbox):
    source = "def f(a, d, s):\n    a.sort(); d['k'] = (1, [2.5]); s.clear()\n    return (i * i for i in a)\n"
    test = (
        "a, d, s = [3, 1, 2], {}, {1}\nout = f(a, d, s)\n"
        "assert (a, d, s) == ([1, 2, 3], {'k': (1, [2.5])}, set())\n"
        "assert out != [1, 4, 9] and list(out) == [1, 4, 9]"
    )
    verdict = strict.judge_one(Program(source=source, test=test, entry_point="f"))
    assert verdict.status == "passed", verdict


def test_strict_raises_what_was_raised(strict: Sandbox):
    test = "try:\n    f(0)\nexcept ZeroDivisionError:\n    pass\nelse:\n    raise AssertionError"
    assert (
        strict.judge_one(Program(source="def f(x): return 1 / x", test=test, entry_point="f")).status == "passed"
    )


def test_strict_uses_the_benchmark_s_own_helpers(strict: Sandbox):
    trusted = "def encode(s): return s[::-1]\ndef f(s): pass\n"
    source = "def encode(s): return ''\ndef f(s): return s[::-1]\n"
    program = Program(source=source, test="assert f(encode('abc')) == 'abc'", entry_point="f", trusted=trusted)
    assert strict.judge_one(program).status == "passed"


def test_strict_holds_objects_of_the_solution(strict: Sandbox):
    source = "class Node:\n    def __init__(s, v): s.v, s.next = v, None\n"
    source += "def f(n): return n.v + (f(n.next) if n.next else 0)\n"
    test = "a = Node(1)\na.next = Node(2)\nassert f(a) == 3"
    assert strict.judge_one(Program(source=source, test=test, entry_point="f")).status == "passed"


def test_what_cannot_be_handed_over_is_our_trouble(strict: Sandbox):
    verdict = strict.judge_one(Program(source="def f(g): return g(1)", test="f(lambda x: x)", entry_point="f"))
    assert verdict.status == "error"
    assert "function" in verdict.reason


def test_bad_input_is_one_sentence(compat: Sandbox):
    for arguments in ((0,), (1, "lenient")):
        with pytest.raises(InputError, match=r"ask for|choose"):
            Sandbox(*arguments)
    with Sandbox(1) as sandbox, pytest.raises(InputError, match="'cobol' is no language"):
        sandbox.judge_one(Program(source="", language="cobol"))


@pytest.mark.slow
def test_verdicts_do_not_depend_on_workers_or_load(compat: Sandbox):
    programs = [
        RIGHT,
        Program(source="x = sum(range(3 * 10**7))", limits=Limits(cpu_seconds=5)),
        Program(source="1/0"),
    ]
    programs = [
        Program(source=p.source, test=p.test, key=str(n), limits=p.limits) for n, p in enumerate(programs * 8)
    ]
    seen = []
    for workers in (1, 2, 8):
        with Sandbox(workers) as sandbox:
            seen.append({verdict.key: verdict.status for verdict in sandbox.judge(programs)})
    assert seen[0] == seen[1] == seen[2]
