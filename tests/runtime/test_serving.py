"""Starting an engine: what is refused, what is reported, and that workers are as fast as they are told to be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from greedy_tokens import greedy  # noqa: E402
from idling import wait_until_idle  # noqa: E402
from low_bit_checkpoints import low_bit_checkpoint  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.runtime import serve, serving  # noqa: E402
from helix_kit.runtime.weights.low_bit import quantize as rounded  # noqa: E402
from helix_kit.runtime.weights.tiny import UNUSUAL, tiny_checkpoint, tiny_plan  # noqa: E402


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
    with pytest.raises(InputError, match=r"num_hidden_layers = 4: expected 6"):
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


def test_how_far_a_start_is_and_how_layers_are_computed_is_said(
    plan, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "PROGRESS_PERIOD_S", 0.001)
    said: list[str] = []
    with serve(plan, tiny_llama, launcher="inproc", pace=False, progress=said.append) as engine:
        workers = engine.status().workers.values()
        assert {worker.description for worker in workers} == {"attention sdpa, layers of transformers, float32"}
    assert said and all(
        re.fullmatch(r"\d of 4 workers are up(; [abcd]: loading layers \d to \d)?", line) for line in said
    )


def test_paced_steps_take_the_profiles_time(tiny_llama: Path) -> None:
    step_ms = 16.0
    plan = tiny_plan(tiny_llama, {"a": (0, 3), "b": (3, 6)}, step_ms=step_ms)
    with serve(plan, tiny_llama, launcher="inproc", pace=True, time_scale=2.0) as engine:
        answer = engine.generate([5, 6, 7], max_new_tokens=13, ignore_eos=True)
    # Six layers a token, stretched by 2; the profile charges prefill and decode half of step_ms each at 0.
    layers, expected_s = 6, step_ms / 2 / 1e3 * 2
    # How much more they take is the machine's: that a step is padded to no more is in worker/test_pacing.py.
    assert answer.decode_latency_s >= layers * expected_s * 0.999


@pytest.mark.parametrize("method", ["int4", "int8"])
def test_a_plan_says_that_weights_are_rounded(method: str, tmp_path: Path) -> None:
    """`serve` rounds them without being told: answers are those of transformers with the rounded weights."""
    folder = tiny_checkpoint(tmp_path / "tiny", num_hidden_layers=4)
    plan = tiny_plan(folder, {"a": (0, 3), "b": (2, 4)}, quantize=method)
    with serve(plan, folder, launcher="inproc", pace=False) as engine:
        answer = engine.generate([5, 6, 7], max_new_tokens=8, ignore_eos=True)
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        tensors[name] = rounded(tensors[name], method).expand(torch.float32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert answer.token_ids == greedy(folder, [5, 6, 7], 8)


def test_plan_and_weights_that_disagree_on_few_bits_are_refused(tmp_path: Path) -> None:
    packed, plain = low_bit_checkpoint(tmp_path, "gptq", num_hidden_layers=2)
    whole = {"a": (0, 2)}
    rounding = tiny_plan(plain, whole, quantize="int4")
    with pytest.raises(InputError, match=r"quantize = 'int8': expected int4, which the plan's model"):
        serve(rounding, plain, quantize="int8", launcher="inproc")
    with pytest.raises(
        InputError, match=r"not quantised yet: .*has quantization_config. To serve them as they are, plan"
    ):
        serve(rounding, packed, launcher="inproc")
    with pytest.raises(
        InputError, match=r"quantization_config: missing field: .* weights of 4.74 bits.*--quantize int4"
    ):
        serve(tiny_plan(packed, whole), plain, launcher="inproc")


@pytest.mark.parametrize(
    ("family", "kv_pages", "prefix_cache"),
    [("gemma2", 26, False), ("gemma2", 26, True), ("gemma2", 64, True), ("gpt_oss", 26, True), ("mistral", 26, True)],
)
def test_windows_need_few_pages(family: str, kv_pages: int, prefix_cache: bool, tmp_path: Path) -> None:
    """A request whose keys of all tokens would take 40 pages is served within 26, and answered as by `generate`."""
    folder = tiny_checkpoint(tmp_path, family, **UNUSUAL[family], seed=2)
    plan = tiny_plan(folder, {"a": (0, 4), "b": (2, 6)})
    start = [3 + 7 * i % 200 for i in range(80)]
    prompts = [[*start, *([8] * 16), 5, 9, 11], [*start, *([9] * 20)], start[:40]]
    options = {"launcher": "inproc", "pace": False, "chunk_tokens": 16, "kv_pages": kv_pages}
    with serve(plan, folder, prefix_cache=prefix_cache, **options) as engine:
        first = engine.generate(prompts[0], max_new_tokens=60, ignore_eos=True)
        handles = [engine.submit(prompt, max_new_tokens=20, ignore_eos=True) for prompt in prompts]
        later = [handle.result() for handle in handles]
        wait_until_idle(engine)
        status = engine.status()
    assert first.token_ids == greedy(folder, prompts[0], 60)
    for prompt, answer in zip(prompts, later, strict=True):
        assert answer.token_ids == greedy(folder, prompt, 20)
    assert 0 < status.workers["a"].pages_peak <= kv_pages
    if family == "gemma2":  # where there is room, the blocks of prompts stay whole, and others begin after them
        assert (status.cached_tokens > 0) == (kv_pages == 64)
