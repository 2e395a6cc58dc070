"""The compiled steps are ready once they are cached, and compiling ends with the plan."""

import subprocess
import sys

import pytest

from helix_kit.placement.annealing import compiled, moves
from helix_kit.placement.pattern import stage_kernel


@pytest.mark.parametrize("module", [moves, stage_kernel])
def test_compiling_in_another_process_fills_the_cache(module):
    subprocess.run([sys.executable, "-c", f"from {module.__name__} import compile_all; compile_all()"], check=True)
    assert compiled.is_cached(module)
    with compiled.Compilation(module) as compilation:
        assert compilation.is_ready() and not compilation.is_pending()


def test_a_changed_source_is_compiled_anew(monkeypatch, tmp_path):
    """The cache is older than the source: another process is started, and ended with the context."""
    newer = tmp_path / "moves.py"
    newer.write_text("")
    monkeypatch.setattr(moves, "__file__", str(newer))
    monkeypatch.setattr(moves, "COMPILED", ("propose",))
    monkeypatch.setattr(moves, "propose", _Uncompiled(tmp_path))
    with compiled.Compilation(moves) as compilation:
        assert not compilation.is_ready()
        process = compilation._process
    assert process.poll() is not None


class _Uncompiled:
    """A compiled function without versions, whose cache is empty."""

    def __init__(self, folder):
        self.signatures = []
        self.stats = type("Stats", (), {"cache_path": str(folder)})
