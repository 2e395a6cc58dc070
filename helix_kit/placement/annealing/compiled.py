"""Compiled steps of a search, made ready beside other work.

numba compiles them on first use, which takes several seconds, and keeps the result in a cache. A plan cannot wait for
that within a time limit of a few seconds, so another process compiles while this one plans.
"""

from __future__ import annotations

import subprocess
from types import ModuleType

from helix_kit._line_workers import start_child
from helix_kit._numba_cache import can_be_called_at_once


class Compilation:
    """Whether the compiled steps of a module can be used at once. Use it as a context manager.

    Parameters
    ----------
    module
        It has `COMPILED`, the names of its functions that are called from outside, and `compile_all`, which calls each
        of them once with the types that are used.

    Examples
    --------
    >>> from helix_kit.placement.annealing import moves
    >>> with Compilation(moves) as compilation:
    ...     ready = compilation.is_ready()
    >>> ready in (True, False)
    True
    """

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False

    def __enter__(self) -> Compilation:
        """Start compiling in another process, unless the cache holds the result."""
        if is_cached(self._module):
            self._ready = True
        else:
            self._process = start_child(f"from {self._module.__name__} import compile_all; compile_all()")
        return self

    def __exit__(self, *_: object) -> None:
        """End the other process, if it still compiles."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def wait(self) -> None:
        """Wait until the other process has compiled."""
        if self._process is not None:
            self._process.wait()

    def is_ready(self) -> bool:
        """Whether the steps are in the cache."""
        if not self._ready and self._process is not None and self._process.poll() == 0:
            self._ready = is_cached(self._module)
        return self._ready

    def is_pending(self) -> bool:
        """Whether another process still compiles."""
        return self._process is not None and self._process.poll() is None


def is_cached(module: ModuleType) -> bool:
    """Whether every function that is called from outside can be called at once."""
    return all(can_be_called_at_once(getattr(module, name)) for name in module.COMPILED)
