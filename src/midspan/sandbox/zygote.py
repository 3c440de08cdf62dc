"""The process that waits in a jail, warm, and forks once per program.

It is process 1 of the jail's own PID namespace: nothing in there can kill, stop or trace it, every orphan becomes
its child, and `kill(-1)` between programs leaves nothing alive. It never reads a program: its fork does, from the
pipe that the judge writes to, so that one program's tests are not in the memory that the next one is forked from.

    judge ─ frames ─▶ zygote: header          fork ─▶ reads the program, says so, runs it
    judge ◀ frames ── zygote: what came of it ◀────── exit status, CPU time, record

Runs inside the jail: standard library only.
"""

import gc
import os
import secrets
import shutil
import signal
import sys
from typing import Any

from midspan.sandbox import confine, strict
from midspan.sandbox.plain import read_frame, write_frame
from midspan.sandbox.watch import Watch

BOX = confine.BOX
WARM = (
    "abc array ast bisect calendar cmath collections collections.abc contextlib copy dataclasses datetime decimal "
    "enum fractions functools hashlib heapq inspect io itertools json math operator queue random re statistics "
    "string textwrap time traceback typing unicodedata"
)
_MOST_ENTRIES = 5_000


class Zygote:
    """One jail's process 1: reads headers, forks, watches, sweeps, answers."""

    def __init__(self, requests: int, answers: int) -> None:
        self.requests, self.answers = requests, answers
        self.null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        os.makedirs(BOX, exist_ok=True)
        self.abi, self.ruleset = confine.landlock()

    def serve(self) -> None:
        """Answer until the judge closes its end."""
        write_frame(self.answers, {"ready": True, "landlock": self.abi})
        while True:
            try:
                header = read_frame(self.requests)
            except EOFError:
                return
            run = {"python": self.run_python, "strict": self.run_strict, "command": self.run_command}
            answer = run[header["kind"]](header)
            answer["retire"] = not wipe(BOX)
            write_frame(self.answers, answer)
            if answer["retire"]:
                return

    def run_python(self, header: dict[str, Any]) -> dict[str, Any]:
        """Compat mode: source and tests in one fork; success is its record, with the run's token, and exit 0."""
        token = secrets.token_hex(16)
        watch = Watch(header)
        record, recording = os.pipe()
        stdin = self.stdin(header)
        child = os.fork()
        if child == 0:
            program = read_frame(self.requests)
            (fd,) = confine.enter_box(self.ruleset, (stdin, *watch.writing), (recording,))
            confine.limit(header, address_space=True)
            run_whole(program, fd, token)
        os.close(recording)
        watch.until_exit(child)
        said = read_available(record)
        reply = watch.reply()
        if reply["status"] == "ended":
            judge_record(reply, said, token)
        if stdin != self.null:
            os.close(stdin)
        return reply

    def run_strict(self, header: dict[str, Any]) -> dict[str, Any]:
        """Strict mode: two forks; the one with the tests reads them before the other one exists.

        The record needs no token: the solution never holds the pipe.
        """
        watch = Watch(header)
        record, recording = os.pipe()
        ask_in, ask_out = os.pipe()
        answer_in, answer_out = os.pipe()
        trusted = os.fork()
        if trusted == 0:
            tests = read_frame(self.requests)
            os.write(recording, b"!")
            fds = confine.enter_box(self.ruleset, (self.null,) * 3, (recording, answer_in, ask_out))
            confine.limit({**header, "cpu": header["cpu"] * 2 + 5}, address_space=False)
            outcome = strict.run_tests(tests["trusted"], tests["test"], tests["entry_point"], fds[1], fds[2])
            os.write(fds[0], record_of("", outcome))
            os._exit(0)
        if os.read(record, 1) != b"!":
            raise RuntimeError("the process of the tests did not start")
        solution = os.fork()
        if solution == 0:
            source = read_frame(self.requests)["source"]
            fds = confine.enter_box(self.ruleset, (self.null, *watch.writing), (ask_in, answer_out))
            confine.limit(header, address_space=True)
            strict.serve_solution(source, *fds)
            os._exit(0)
        for fd in (recording, ask_in, ask_out, answer_in, answer_out):
            os.close(fd)
        watch.until_exit(trusted, unpaid=trusted)
        said = read_available(record)
        reply = watch.reply()
        if reply["status"] == "ended":
            judge_record(reply, said, "")
        return reply

    def run_command(self, header: dict[str, Any]) -> dict[str, Any]:
        """Other languages: files into the box, then commands, the last of which is the program."""
        body = read_frame(self.requests)
        for name, text in body["files"].items():
            with open(f"{BOX}/{name}", "w", encoding="utf-8", errors="surrogatepass") as file:
                file.write(text)
        stdin = self.stdin(header)
        reply: dict[str, Any] = {}
        spent = 0.0
        try:
            for command in body["commands"]:
                limits = {**header, **command.get("limits", {})}
                watch = Watch(limits, marker=body["token"] if command["is_program"] else "")
                child = os.fork()
                if child == 0:
                    self.execute(command, body["token"], stdin, watch, limits)
                watch.until_exit(child)
                reply = watch.reply()
                reply["built_cpu"] = spent
                reply["is_program"] = command["is_program"]
                reply["marked"] = watch.marked
                if reply["status"] != "ended" or (reply["code"] != 0 and not command["is_program"]):
                    break
                spent += reply["cpu"]
        finally:
            if stdin != self.null:
                os.close(stdin)
        return reply

    def execute(
        self, command: dict[str, Any], token: str, stdin: int, watch: Watch, limits: dict[str, Any]
    ) -> None:
        """Become a command of another language."""
        try:
            env = {**command["env"], **({"MIDSPAN_DONE": token} if command["is_program"] else {})}
            confine.enter_box(self.ruleset, (stdin, *watch.writing), ())
            confine.limit(limits, address_space=False)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.execve(command["argv"][0], command["argv"], env)
        finally:
            os._exit(127)

    def stdin(self, header: dict[str, Any]) -> int:
        """A descriptor with what the program is to read."""
        if header.get("stdin") is None:
            return self.null
        fd = os.memfd_create("stdin")
        text = header["stdin"].encode("utf-8", "surrogatepass")
        while text:
            text = text[os.write(fd, text) :]
        os.lseek(fd, 0, os.SEEK_SET)
        return fd


def run_whole(program: dict[str, Any], record: int, token: str) -> None:
    """Run a program in this process, write its record, and end: never returns."""
    leave, write, made = os._exit, os.write, record_of
    namespace: dict[str, Any] = {"__name__": "__main__"} if program["is_script"] else {}
    try:
        try:
            exec(compile(program["source"], "<program>", "exec"), namespace)
        except SystemExit as stop:
            if not program["is_script"] or stop.code not in (None, 0):
                raise
        sys.stdout.flush()
        outcome = made(token, {"status": "passed", "reason": ""})
    except BaseException as error:
        outcome = made(token, {"status": "failed", "reason": strict.describe(error)})
        try:
            sys.stdout.flush()
            import traceback

            if not isinstance(error, SystemExit):
                own = error.__traceback__.tb_next if error.__traceback__ else None
                traceback.print_exception(error.with_traceback(own), limit=-8)
        except BaseException:
            pass
    try:
        write(record, outcome)
    finally:
        leave(0)


def record_of(token: str, outcome: dict[str, Any]) -> bytes:
    """The line that says how a run ended."""
    return f"{token} {outcome['status']} {outcome['reason'][:500]!r}".encode("ascii", "backslashreplace")[:2000]


def judge_record(reply: dict[str, Any], said: bytes, token: str) -> None:
    """Turn an exit and a record into a verdict."""
    found, _, rest = said.decode("ascii", "replace").partition(" ")
    if found.lstrip("!") != token:
        reply["status"], reply["reason"] = "failed", ended_early(reply["code"])
        return
    status, _, reason = rest.partition(" ")
    reply["status"], reply["reason"] = status, reason[1:-1]
    if status == "passed" and reply["code"] != 0:
        reply["status"], reply["reason"] = "failed", ended_early(reply["code"])


def ended_early(code: int) -> str:
    """How a process ended that did not complete its tests."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name} before the tests were completed"
    return f"exit with status {code} before the tests were completed"


def read_available(fd: int) -> bytes:
    """What lies in a pipe, and close it."""
    os.set_blocking(fd, False)
    try:
        return os.read(fd, 4096)
    except BlockingIOError:
        return b""
    finally:
        os.close(fd)


def wipe(folder: str) -> bool:
    """Empty the box. False where there is so much in it that a new jail is quicker."""
    entries = os.listdir(folder)
    if len(entries) > _MOST_ENTRIES:
        return False
    try:
        for name in entries:
            path = f"{folder}/{name}"
            if os.path.isdir(path) and not os.path.islink(path):
                if sum(len(files) + 1 for _, (_, _, files) in zip(range(1000), os.walk(path), strict=False)) > 900:
                    return False
                shutil.rmtree(path)
            else:
                os.unlink(path)
    except (OSError, RecursionError):
        return False
    return True


def main() -> None:
    """Take the judge's pipes away from 0 and 1, warm up, serve."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # which means nothing to the first process of a namespace
    requests = os.dup(0)
    answers = os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)
    for name in WARM.split():
        __import__(name)
    confine.hide_memory()
    zygote = Zygote(requests, answers)
    gc.collect()
    gc.freeze()
    zygote.serve()
