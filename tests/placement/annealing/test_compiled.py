"""The compiled steps are ready once they are cached, and compiling ends with the plan."""

import os
import subprocess
import sys

import pytest

from helix_kit.placement.annealing import compiled, moves
from helix_kit.placement.bounds import linked_sweep
from helix_kit.placement.pattern import stage_kernel


@pytest.mark.parametrize("module", [moves, stage_kernel, linked_sweep])
def test_compiling_in_another_process_fills_the_cache(module):
    subprocess.run([sys.executable, "-c", f"from {module.__name__} import compile_all; compile_all()"], check=True)
    assert compiled.is_cached(module)
    with compiled.Compilation(module) as compilation:
        assert compilation.is_ready() and not compilation.is_pending()


STEPS = """
from numba import njit

COMPILED = ("double",)

@njit(cache=True)
def double(x):
    return 2 * x

def compile_all():
    double(1)
"""


def run(folder, statements):
    """What statements print in a process of their own, with `folder` to import from."""
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); import steps\n{statements}"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_a_source_is_compiled_anew_when_it_has_changed_not_when_it_is_newer(tmp_path):
    source = tmp_path / "steps.py"
    source.write_text(STEPS)
    ask = "from helix_kit.placement.annealing.compiled import is_cached; print(is_cached(steps))"
    assert run(tmp_path, ask).strip() == "False"
    run(tmp_path, "steps.compile_all()")
    os.utime(source, (2e9, 2e9))
    assert run(tmp_path, ask).strip() == "True"
    source.write_text(STEPS.replace("2 * x", "3 * x"))
    assert run(tmp_path, ask).strip() == "False"


def test_the_other_process_ends_with_the_context(monkeypatch):
    monkeypatch.setattr(compiled, "is_cached", lambda module: False)
    with compiled.Compilation(moves) as compilation:
        assert not compilation.is_ready()
        process = compilation._process
    assert process.poll() is not None
