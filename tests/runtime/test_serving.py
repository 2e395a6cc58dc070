"""Starting an engine: what is refused, what is reported, and that workers are as fast as they are told to be."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.runtime import serve  # noqa: E402
from helix_kit.runtime.weights.tiny import tiny_checkpoint, tiny_plan  # noqa: E402


@pytest.fixture(scope="module")
def plan(tiny_llama: Path):
    return tiny_plan(tiny_llama, {"a": (0, 4), "b": (2, 6), "c": (0, 3), "d": (3, 6)})


def test_bad_set_ups_are_refused(plan, tiny_llama: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"launcher": "proces"}, "did you mean process"),
        ({"time_scale": 0}, "time_scale"),
        ({"devices": {"z": "cpu"}}, "unknown node 'z'"),
        ({"policy": "helixx"}, "unknown policy"),
        ({"dtype": "int3"}, "expected one of float32, bfloat16, float16"),
    ):
        with pytest.raises(InputError, match=message):
            serve(plan, tiny_llama, **{"launcher": "inproc", **options})
    other = tiny_checkpoint(tmp_path / "other", num_hidden_layers=4)
    with pytest.raises(InputError, match=r"num_layers = 4.*expected 6"):
        serve(plan, other, launcher="inproc")
    with pytest.raises(InputError, match="expected a folder with the weights of llama"):
        serve(plan, launcher="inproc")


def test_broken_weights_are_reported(plan, tmp_path: Path) -> None:
    broken = tiny_checkpoint(tmp_path / "broken")
    path = broken / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(b"\x10\0\0\0\0\0\0\0not a header....")
    with pytest.raises(InputError, match="not a safetensors file"):
        serve(plan, broken, launcher="inproc")
    # A tensor under another name is found before any worker starts.
    path.write_bytes(whole.replace(b"model.layers.5.mlp.up_proj", b"model.layers.5.mlp.xx_proj"))
    with pytest.raises(InputError, match=r"'model.layers.5.mlp.up_proj.weight' is missing"):
        serve(plan, broken, launcher="inproc")


def test_paced_steps_take_the_profiles_time(tiny_llama: Path) -> None:
    step_ms = 16.0
    plan = tiny_plan(tiny_llama, {"a": (0, 3), "b": (3, 6)}, step_ms=step_ms)
    with serve(plan, tiny_llama, launcher="inproc", pace=True, time_scale=2.0) as engine:
        answer = engine.generate([5, 6, 7], max_new_tokens=13, ignore_eos=True)
    # Six layers a token, stretched by 2; the profile charges prefill and decode half of step_ms each at 0.
    layers, expected_s = 6, step_ms / 2 / 1e3 * 2
    # How much more they take is the machine's: that a step is padded to no more is in worker/test_pacing.py.
    assert answer.decode_latency_s >= layers * expected_s * 0.999
