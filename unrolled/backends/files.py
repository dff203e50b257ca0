"""Generated kernels as real files in a cache folder, loaded as modules.

Numba can only cache, and Triton only read, functions that lie in a file. A file's name ends in a
hash of its text and of everything else that its machine code depends on, so it never changes.
"""

import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from threading import RLock
from types import ModuleType

_loading = RLock()


def cache_folder() -> Path:
    """Where kernels are kept.

    The environment variable UNROLLED_CACHE names it; else it is `unrolled` in the user's cache
    folder; else, where that cannot be written, a temporary folder of this process.
    """
    if chosen := os.environ.get("UNROLLED_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or "~/.cache"
    folder = Path(base).expanduser() / "unrolled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK)
    except OSError:
        usable = False
    return folder if usable else _folder_of_this_process()


@cache
def _folder_of_this_process() -> Path:
    # What lies in the folder is run, so nobody else may have made it.
    return Path(tempfile.mkdtemp(prefix="unrolled-"))


def write(name: str, text: str, depends_on: Iterable[str]) -> Path:
    """Write a kernel into the cache folder, unless it is there already.

    Args:
        name: of the kernel, for people.
        text: of the file.
        depends_on: what its machine code depends on beside its text.
    """
    digest = hashlib.sha256("\0".join([text, *depends_on]).encode()).hexdigest()[:16]
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{name}_{digest}.py"
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as file:
            file.write(text)
        os.replace(file.name, path)  # another process may have been quicker: same text
    return path


def load(path: Path) -> ModuleType:
    """Import a kernel's file as a module."""
    name = f"unrolled_kernels.{path.stem}"
    with _loading:  # a module is in that list before it is complete
        if name in sys.modules:
            return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module
