"""The simulator is compiled before a search, once, and the user is told."""

from __future__ import annotations

import pytest

from helix_kit.profiles.engines import load_engine
from helix_kit.simulator import first_run
from helix_kit.simulator.layerwise import rules as layerwise
from helix_kit.simulator.ranged import rules as ranged
from helix_kit.simulator.replicas import rules as replicas


@pytest.mark.parametrize(
    ("execution", "engine", "rules"),
    [("range", None, ranged), ("layerwise", None, layerwise), ("range", "vllm-0.15", replicas)],
)
def test_the_rules_of_a_search_are_compiled_once(monkeypatch, capsys, execution, engine, rules):
    record = load_engine(engine) if engine else None
    assert first_run.rules_of(execution, record) is rules
    with monkeypatch.context() as patched:
        patched.setattr(first_run, "is_compiled", lambda rules: False)
        assert first_run.compile_once(execution, record)
        assert "compiling the simulator" in capsys.readouterr().err
    assert first_run.is_compiled(rules)
    assert not first_run.compile_once(execution, record)
    assert not capsys.readouterr().err


def test_a_stop_ends_the_compilation(monkeypatch):
    """Another process would compile for ten seconds: a stop does not wait for it, and nothing is compiled here."""
    monkeypatch.setattr(first_run, "is_compiled", lambda rules: False)
    monkeypatch.setattr(first_run, "compile_rules", lambda name: pytest.fail("compiled in this process"))
    asked = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 1

    assert first_run.compile_once("layerwise", stop=stop)
    assert len(asked) == 3
