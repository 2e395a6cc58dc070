"""The measurement of a device, and the tables that planner and simulator read from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")


from helix_kit import Cluster, plan
from helix_kit.errors import InputError
from helix_kit.profiles import load_profiles
from helix_kit.runtime.profile import DECODE_REQUESTS, PREFILL_TOKENS, emulated, measure, write_tables
from helix_kit.runtime.profile_steps import STEPS


def test_measure_write_and_read_back(tiny_llama: Path, tmp_path: Path) -> None:
    told: list[float] = []
    found = measure(
        tiny_llama, kind="mine", layers=2, repeats=3, memory_gb=1.0, steps=False, progress=lambda _, s: told.append(s)
    )
    assert told == sorted(told) and told[-1] == 1.0
    assert [p.tokens for p in found.points if p.phase == "prefill"] == list(PREFILL_TOKENS)
    assert [p.tokens for p in found.points if p.phase == "decode"] == list(DECODE_REQUESTS)
    assert all(0 < p.low_ms <= p.ms_per_layer <= p.high_ms for p in found.points)
    big, small = (next(p for p in found.points if p.tokens == n and p.phase == "prefill") for n in (512, 1))
    assert big.ms_per_layer > small.ms_per_layer
    slow = emulated(found, {"slow": 3.0}, {"slow": 4})
    write_tables([found, *slow], tmp_path / "tables")
    profiles = load_profiles(tmp_path / "tables", "tiny")
    assert set(profiles) == {"mine", "slow"}
    assert profiles["mine"].decode_ms_per_layer(4) == pytest.approx(found.profile().decode_ms_per_layer(4), rel=1e-3)
    # Tables round to microseconds.
    assert profiles["slow"].step_ms(64, 8) == pytest.approx(3 * profiles["mine"].step_ms(64, 8), rel=3e-2)
    assert (profiles["mine"].max_layers, profiles["slow"].max_layers) == (6, 4)
    # Keys and values of a token in one layer: 2 x 2 heads x 16 x 4 bytes; 90 % of 1 GB less what weights take.
    assert 0.95 * 0.9e9 / 256 < profiles["mine"].kv_capacity(1) < 0.9e9 / 256
    half = replace(found, memory_share=0.45).limits()[0].kv_capacity_layer_tokens
    assert found.limits()[0].kv_capacity_layer_tokens - half == pytest.approx(0.45e9 / 256, abs=1)

    # The cluster to start from can be planned with these tables as it stands, and its file reads back equal.
    (tmp_path / "cluster.yaml").write_text(found.starter_cluster().to_yaml())
    cluster = Cluster.load(tmp_path / "cluster.yaml")
    assert cluster == found.starter_cluster()
    made = plan(cluster, found.model, profiles=profiles)
    assert set(made.placement) == {"mine-0", "mine-1"} and made.flow_tokens_per_s > 0
    # 2 FLOP a parameter and token: the effective figure is below what the fastest point would allow.
    big_s = big.ms_per_layer / 1e3
    assert cluster.gpus["mine"].fp16_tflops == pytest.approx(
        2 * found.model.layer_params * 512 / big_s / 1e12, rel=0.01
    )


def test_too_little_memory_holds_no_layer(tiny_llama: Path) -> None:
    found = measure(tiny_llama, layers=1, repeats=1, memory_gb=1e-4, steps=False)
    assert found.limits() == []
    with pytest.raises(InputError, match="memory_share = 90"):
        measure(tiny_llama, memory_share=90)
    with pytest.raises(InputError, match="repeats"):
        measure(tiny_llama, repeats=0)
    with pytest.raises(InputError, match="deterministic = True: this worker computes on a CPU"):
        measure(tiny_llama, deterministic=True)


def test_steps_are_written_beside_the_tables(tiny_llama: Path, tmp_path: Path) -> None:
    found = measure(tiny_llama, kind="mine", layers=1, repeats=1, memory_gb=1.0)
    assert [(s.prefill_tokens, s.decode_requests, s.context_tokens) for s in found.steps] == [tuple(s) for s in STEPS]
    assert {s.graphs for s in found.steps} == {"none"}
    assert all(s.ratio == pytest.approx(s.roofline_ms / s.ms_per_layer) and s.ratio > 0 for s in found.steps)
    write_tables([found], tmp_path)
    rows = (tmp_path / "steps.csv").read_text().splitlines()
    assert rows[0].split(",")[-3:] == ["high_ms", "roofline_ms", "ratio"]
    assert len(rows) == 1 + len(STEPS)
    assert set(load_profiles(tmp_path, "tiny")) == {"mine"}


def test_two_processes_that_share_each_layer_are_measured(tiny_llama: Path, tmp_path: Path) -> None:
    found = measure(tiny_llama, kind="mine", layers=1, repeats=1, memory_gb=1.0, tensor_parallel=2)
    assert (found.kind, found.gpus, found.facts["tensor_parallel"]) == ("minex2-tp2", 2, 2)
    assert all(p.ms_per_layer > 0 for p in found.points)
    write_tables([found], tmp_path)
    cluster = found.starter_cluster()
    assert cluster.kind_counts == {"minex2-tp2": 2} and cluster.gpus["mine"].memory_gb == 0.5
    made = plan(cluster, found.model, profiles=load_profiles(tmp_path, "tiny"), method="proportional")
    assert set(made.placement) == {"minex2-tp2-0", "minex2-tp2-1"}
    with pytest.raises(InputError, match="profile: num_heads = 4: expected a multiple of 3"):
        measure(tiny_llama, tensor_parallel=3)
