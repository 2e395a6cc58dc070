"""The paper's mixed-integer program (Helix, section 4.4) and the method that solves it.

Nothing is imported here, so that Pyomo is loaded only when the program is built: see `method` and `program`.
"""

__all__: list[str] = []
