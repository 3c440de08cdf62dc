"""One process in a jail from its fork to its end: output drained, limits kept, everything swept afterwards.

CPU seconds decide a timeout. Wall time is a backstop against sleeping: what was spent waiting for a core is not
counted. Runs inside the jail: standard library only.
"""

import os
import select
import signal
import time
from contextlib import suppress
from typing import Any

_TICK = 0.02
_PAGE, _HERTZ = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
_MOST_PROCESSES = 300


class Watch:
    """Watches from its making; `until_exit` waits, `reply` says what came of it."""

    def __init__(self, limits: dict[str, Any], marker: str = "") -> None:
        self.limits, self.marker = limits, marker.encode()
        self.marked, self._tail = False, b""
        out, err = os.pipe(), os.pipe()
        self.reading, self.writing = (out[0], err[0]), (out[1], err[1])
        self.kept: dict[int, bytearray] = {fd: bytearray() for fd in self.reading}
        self.begun = time.monotonic()
        self.over, self.code, self.cpu, self.wall = "", 0, 0.0, 0.0

    def until_exit(self, main: int, unpaid: int = -1) -> None:
        """Wait for `main`, then leave nothing alive. CPU time of `unpaid` is not counted."""
        for fd in self.writing:
            os.close(fd)
        ending = os.pidfd_open(main)
        poll = select.poll()
        for fd in (*self.reading, ending):
            poll.register(fd, select.POLLIN)
        next_look = self.begun + _TICK
        while not self.over:
            ready = [fd for fd, _ in poll.poll(max(1, (next_look - time.monotonic()) * 1000))]
            for fd in ready:
                if fd != ending and not self.drain(fd):
                    poll.unregister(fd)
            if ending in ready:
                break
            if time.monotonic() >= next_look:
                self.over = self.look(main, unpaid)
                next_look = time.monotonic() + _TICK
        os.close(ending)
        self.sweep(main, unpaid)
        for fd in self.reading:
            os.set_blocking(fd, False)
            for _ in range(4):
                if not self.drain(fd):
                    break
            os.close(fd)
        self.wall = time.monotonic() - self.begun
        if not self.over and self.cpu > self.limits["cpu"]:
            self.over = "cpu"

    def drain(self, fd: int) -> bool:
        """Read a piece of output, keep what there is room for; false at the end."""
        try:
            piece = os.read(fd, 1 << 16)
        except BlockingIOError:
            return False
        kept = self.kept[fd]
        kept += piece[: max(0, self.limits["output"] - len(kept))]
        if self.marker and fd == self.reading[0]:
            self._tail = self._tail[-len(self.marker) :] + piece
            self.marked = self.marked or self.marker in self._tail
        return bool(piece)

    def look(self, main: int, unpaid: int) -> str:
        """Which limit the jail's processes are over, if any."""
        cpu, resident, count = 0.0, 0, 0
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) in (1, unpaid):
                continue
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            cpu += sum(map(int, fields[11:15])) / _HERTZ
            resident += int(fields[21]) * _PAGE
            count += 1
        if cpu > self.limits["cpu"]:
            return "cpu"
        if resident > self.limits["memory"] * 1.25:
            return "memory"
        if count > _MOST_PROCESSES:
            return "processes"
        waited = 0.0
        try:
            with open(f"/proc/{main}/schedstat", "rb") as file:
                waited = int(file.read().split()[1]) / 1e9
        except (OSError, IndexError):
            pass
        return "wall" if time.monotonic() - self.begun - waited > self.limits["wall"] else ""

    def sweep(self, main: int, unpaid: int) -> None:
        """Kill and reap everything in this PID namespace but ourselves; what has exited keeps its status."""
        while True:
            with suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            try:
                pid, status, used = os.wait4(-1, 0)
            except ChildProcessError:
                return
            if pid == main:
                self.code = os.waitstatus_to_exitcode(status)
            if pid != unpaid:
                self.cpu += used.ru_utime + used.ru_stime

    def reply(self) -> dict[str, Any]:
        """What the judge is told."""
        reply: dict[str, Any] = {
            "status": "ended",
            "reason": "",
            "code": self.code,
            "cpu": self.cpu,
            "wall": self.wall,
        }
        for name, fd in zip(("stdout", "stderr"), self.reading, strict=True):
            reply[name] = self.kept[fd].decode("utf-8", "replace")
        if self.over == "cpu" or (not self.over and self.code == -signal.SIGXCPU):
            reply.update(status="timeout", reason=f"over {self.limits['cpu']:g} CPU seconds")
        elif self.over == "wall":
            reply.update(status="timeout", reason=f"over {self.limits['wall']:g} seconds of wall time")
        elif self.over:
            most = {
                "memory": f"{self.limits['memory'] >> 20} MiB of memory",
                "processes": f"{_MOST_PROCESSES} processes",
            }
            reply.update(status="failed", reason=f"over {most[self.over]}")
        return reply
