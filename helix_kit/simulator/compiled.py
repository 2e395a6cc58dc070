"""How the simulator's rules are compiled: `@compiled` for a function, `@inlined` for one that goes into its callers.

Both switch off numba's count of references to arrays (`_nrt=False`), which took more than half of a simulation's time:
numba counts again at each function that a tuple of arrays is passed to. The count is not needed here. The drivers hold
every array for as long as compiled code runs, and compiled code makes no array. Numba refuses to compile a function
that makes one under this option.
"""

from __future__ import annotations

from typing import Any

from numba import njit

OPTIONS: dict[str, Any] = {"cache": True, "_nrt": False}

compiled = njit(**OPTIONS)
inlined = njit(inline="always", **OPTIONS)
