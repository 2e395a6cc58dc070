"""What numba's cache on disk tells of a function. Nothing here imports numba, which takes half a second."""

from __future__ import annotations

from typing import Any


def can_be_called_at_once(function: Any) -> bool:
    """Whether a function of numba's is compiled: in this process, or in the cache for this state of its source.

    Numba knows the source by its content. Its time says nothing: a file that is installed or checked out again is newer
    than a cache that still holds.
    """
    return bool(function.signatures or function._cache._cache_file._load_index())
