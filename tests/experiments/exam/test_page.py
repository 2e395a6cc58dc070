"""The engine's record with other constants."""

from __future__ import annotations

import pytest

from helix_kit import _files
from helix_kit.errors import InputError
from helix_kit.experiments.exam.page import record_with
from helix_kit.profiles.engines import load_engine


def test_only_the_values_change(tmp_path):
    engine = load_engine("vllm-0.15")
    text = (_files.data_dir() / "engines" / "vllm-0.15.yaml").read_text()
    half = engine.constants.sampling_ns_per_logit.value / 2
    (tmp_path / "new.yaml").write_text(record_with(text, engine, {"step_ms": 1.25, "sampling_ns_per_logit": half}))
    new = load_engine(tmp_path / "new.yaml")
    assert new.constants.step_ms.value == 1.25
    # Sampling times of other GPUs are a multiple of this one.
    own = engine.constants.sampling_ns_per_logit.by_gpu
    assert new.constants.sampling_ns_per_logit.by_gpu == pytest.approx({g: v / 2 for g, v in own.items()}, rel=1e-3)
    changed = {n for n, c in new.constants.by_name().items() if c != engine.constants.by_name()[n]}
    assert changed == {"step_ms", "sampling_ns_per_logit"}
    assert new.rules_by_gpu == engine.rules_by_gpu
    with pytest.raises(InputError, match="step_ms"):
        record_with("name: other", engine, {"step_ms": 1.0})
