"""C++ compiled on first use for the processor at hand, and kept in the user's cache.

    <cache>/kernels/<name>-<hash of source, flags, compiler and processor>.so

A kernel is always a faster way to what plain torch does as well, so where there is no compiler, or it fails, the
answer is None and the caller takes torch's way. `MIDSPAN_NATIVE=0` asks for that.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path

from midspan.files import atomic_file

# Vector code, but no licence to reorder arithmetic: sums that may be are marked where they stand (`omp simd`).
FLAGS: tuple[str, ...] = (
    *("-std=c++17", "-O3", "-fPIC", "-shared", "-march=native", "-fopenmp", "-fno-exceptions"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
)
if platform.machine() == "x86_64":
    FLAGS = (*FLAGS, "-mprefer-vector-width=512")


@cache
def compiled(source: Path, *defined: str, of_torch: bool = False) -> ctypes.CDLL | None:
    """The library of one C++ file, compiled the first time; None where that cannot be.

    Its parallel loops run on torch's own threads (the OpenMP library that torch has loaded): two pools on the
    same cores would wait for each other.

    Args:
        source: the file.
        defined: names that are defined while it is compiled.
        of_torch: it is written against torch's own classes (the headers of `c10`).
    """
    compiler = _compiler()
    if compiler is None or os.environ.get("MIDSPAN_NATIVE") == "0":
        return None
    openmp = _torch_openmp()
    if openmp is None:
        return None
    from midspan.cache import cache_dir

    try:
        folder = cache_dir() / "kernels"
    except ImportError:  # a machine with torch and nothing else
        return None
    flags, libraries = _torch_flags() if of_torch else (FLAGS, ("-nodefaultlibs", "-lm", "-lc", "-lgcc"))
    flags = (*flags, *(f"-D{name}" for name in defined))
    identity = repr((flags, str(openmp), _version(compiler), processor(), _torch_version())).encode()
    digest = hashlib.sha256(source.read_bytes() + b"\0" + identity).hexdigest()[:16]
    path = folder / f"{source.stem}-{digest}.so"
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as aside:
                command = [compiler, *flags, str(source), str(openmp), *libraries, "-o", str(aside)]
                subprocess.run(command, capture_output=True, check=True)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.CalledProcessError):
        return None


def _torch_version() -> str:
    import torch

    return str(torch.__version__)


def _torch_flags() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Flags and libraries for what is written against the torch of this process."""
    import torch

    home, abi = Path(torch.__file__).parent, int(torch.compiled_with_cxx11_abi())
    flags = ("-std=c++20", "-O2", "-fPIC", "-shared", "-w", f"-D_GLIBCXX_USE_CXX11_ABI={abi}")
    return (*flags, f"-I{home / 'include'}"), (f"-L{home / 'lib'}", "-lc10")


def _compiler() -> str | None:
    asked = os.environ.get("CXX")
    return next(filter(None, map(shutil.which, [asked] if asked else ["g++", "c++"])), None)


def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout


def _torch_openmp() -> Path | None:
    """GNU's OpenMP library as this process has it loaded, which is torch's."""
    import torch

    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return None
    found = [Path(line.split(maxsplit=5)[-1]) for line in maps.splitlines() if "libgomp" in line]
    ours = [path for path in found if Path(torch.__file__).parent in path.parents]
    return next(iter([*ours, *found]), None)


@cache
def processor() -> str:
    """What `-march=native` looks at: another processor needs another file, even in a shared home."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(next((x for x in lines if x.startswith(key)), "") for key in ("model name", "flags"))
