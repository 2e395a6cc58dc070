"""`benchmarks/gpu_check.py` as far as it runs on a CPU: with tiny shapes its sections measure, count and compare."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPT = FOLDER / "gpu_check.py"
SECTIONS = "machine,equality,steps,mixed,open,closed_loop,attention"


@pytest.fixture(scope="module", autouse=True)
def importable():
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))
    for name in [name for name in sys.modules if name.split(".")[0] in ("gpu_sections", "gpu_check")]:
        del sys.modules[name]


def run(*arguments: object, limit_s: float = 570) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_s)


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("gpu-check")
    done = run("--tiny", "--only", SECTIONS, "-o", folder / "out", "--folder", folder / "scratch")
    text = (folder / "out" / "gpu-check.json").read_text(encoding="utf-8")
    page = (folder / "out" / "gpu-bench.md").read_text(encoding="utf-8")
    return SimpleNamespace(done=done, found=json.loads(text), page=page, scratch=folder / "scratch")


def test_every_section_runs_with_tiny_shapes(tiny_run: SimpleNamespace) -> None:
    sections = tiny_run.found["sections"]
    assert {name: section["status"] for name, section in sections.items()} == dict.fromkeys(SECTIONS.split(","), "ok")
    assert tiny_run.done.returncode == 0
    assert not any(tiny_run.scratch.iterdir()), "checkpoints are removed at the end"


def test_numbers_are_there(tiny_run: SimpleNamespace) -> None:
    data = {name: section["data"] for name, section in tiny_run.found["sections"].items()}
    assert max(error for errors in (data["equality"]["float32, sdpa"],) for error in errors.values()) <= 1e-3
    assert data["equality"]["served"] == {"same": 4, "of": 4}
    for step in data["steps"]["decode"].values():
        assert step["ratio"] == pytest.approx(step["step_ms"] / step["floor_ms"])
    assert data["mixed"]["output_tokens_per_s"] > 0 and data["mixed"]["steps"] >= 4
    load = data["open"]["8"]
    assert load["unfinished"] == 0
    assert load["TTFT"]["p50_ms"] <= load["TTFT"]["p99_ms"] <= load["E2EL"]["p99_ms"]
    assert {"simulated", "served"} == set(data["closed_loop"]["8: ITL mean, ms"])


def test_the_document_has_a_table_for_each_section(tiny_run: SimpleNamespace) -> None:
    tables = [block.splitlines() for block in tiny_run.page.split("\n\n") if block.startswith("|")]
    assert len(tables) >= 8
    for table in tables:
        assert len({line.count("|") for line in table}) == 1
    assert "decode step over its memory floor, batch 1" in tiny_run.page


def test_what_cannot_run_is_one_clear_line() -> None:
    done = run("--only", "machine,speed")
    assert done.returncode == 2 and done.stderr.startswith("unknown section speed: expected some of machine")
    if not torch.cuda.is_available():
        done = run()
        assert done.returncode == 2 and not done.stdout
        assert done.stderr.startswith("gpu-check needs a CUDA device")


def check_of(tmp_path: Path):
    from gpu_sections.shared import Check
    from gpu_sections.sizes import ON_CPU

    return Check(ON_CPU, "cpu", tmp_path, "auto")


def test_a_section_that_fails_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_check
    from gpu_sections.report import Outcome
    from gpu_sections.shared import Found

    def broken(_):
        raise ValueError("no such thing")

    sections = {
        "a": broken,
        "b": lambda _: Found({"x": 1}),
        "c": lambda _: Found({"x": 2}, wrong=["three is not four"]),
        "d": lambda _: __import__("time").sleep(5),
    }
    monkeypatch.setattr(gpu_check, "section", sections.__getitem__)
    monkeypatch.setattr(gpu_check, "SECTION_LIMIT_S", 0.2)
    check, written = check_of(tmp_path), []
    outcomes = gpu_check.run_all(
        check, [Outcome(name) for name in sections], 60.0, lambda found: written.append([one.status for one in found])
    )
    assert [one.status for one in outcomes] == ["failed", "ok", "failed", "failed"]
    assert "no such thing" in outcomes[0].error and outcomes[2].error == "three is not four"
    assert "not done after" in outcomes[3].error
    assert written[0] == ["failed", "not run", "not run", "not run"]
    assert check.found["b"].data == {"x": 1}


def test_results_of_another_model_are_called_wrong(tmp_path: Path, tiny_llama: Path) -> None:
    from gpu_sections.equality import Comparison, make, run_scenario, worst

    from helix_kit.runtime.weights.tiny import tiny_checkpoint

    other = tiny_checkpoint(tmp_path / "other", seed=1)
    compared = Comparison(check_of(tmp_path))
    compared._references[tiny_llama] = {3: run_scenario(*make(other, "float32", "cpu", "sdpa"), 3, seed=3)}
    assert compared.compare("float32", tiny_llama, "float32", "sdpa", (3,)) > 1
    assert compared.compare("bfloat16", tiny_llama, "bfloat16", "sdpa", (3,)) > 0.5
    assert len(compared.found.wrong) == 2 and "wrong at 3" in compared.found.wrong[0]
    assert (
        compared.compare("refused", tiny_llama, "float32", "flashinfer", (3,)) != 0 and len(compared.found.wrong) == 2
    )
    broken = [torch.ones(2, 3), torch.tensor([[1.0, float("nan")]])]
    assert worst(broken, [torch.eye(2, 3), torch.eye(1, 2)], mean=True) == float("inf")


def test_bits_that_depend_on_the_batch_are_called_wrong(tmp_path: Path, tiny_llama: Path) -> None:
    """Steps of one size with attention row by row are the same among others; one that looks at the batch is not."""
    from gpu_sections.equality import Comparison, make, request_among
    from varlen_stand_in import Varlen

    from helix_kit.runtime.worker import torch_kernels
    from helix_kit.runtime.worker.static_step import StepOptions
    from helix_kit.runtime.worker.step_kernels import StepKernels
    from helix_kit.runtime.worker.varlen import VarlenAttention

    class Curious(VarlenAttention):
        def attend(self, query, cache, batch, scaling, window):
            out = super().attend(query, cache, batch, scaling, window)
            return out * (1 + 1e-6 * int((batch.block_sizes > 0).sum()))

    compared = Comparison(check_of(tmp_path))
    for kind in (VarlenAttention, Curious):
        kernels = StepKernels(torch_kernels, kind(Varlen().op, deterministic=True))
        options = StepOptions(32, kernels=kernels, deterministic=True)
        stage, pool = make(tiny_llama, "float32", "cpu", "sdpa", options=options)
        compared.same_bits(kind.__name__, request_among(stage, pool, 0), request_among(stage, pool, 6))
    assert compared.found.wrong == ["Curious: bits differ"]
    assert compared.found.data["VarlenAttention"] == {"same_bits": True}


def test_after_the_deadline_no_section_is_begun(tmp_path: Path) -> None:
    import gpu_check
    from gpu_sections.report import Outcome

    check = check_of(tmp_path)
    check.began -= 10.0
    [outcome] = gpu_check.run_all(check, [Outcome("machine")], 5.0, lambda _: None)
    assert (outcome.status, outcome.error) == ("not run", "the 5 s were over")


def test_an_engine_that_does_not_start_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpu_sections.shared import Check, EngineStartError

    check = check_of(tmp_path)

    def fail(self, kind):
        raise RuntimeError("no kernels")

    monkeypatch.setattr(Check, "_start", fail)
    with pytest.raises(RuntimeError, match="no kernels"):
        check.engine("one")
    with pytest.raises(EngineStartError, match="failed before: no kernels"):
        check.engine("one")


def test_the_mixed_load_is_the_known_one() -> None:
    from gpu_sections.serving import mixed_prompts
    from gpu_sections.sizes import FULL

    load = mixed_prompts(SimpleNamespace(sizes=FULL, vocabulary=128256))
    assert len(load) == 64 and sum(map(len, load)) == 20_914


@pytest.mark.parametrize("rate_per_s", [5.0, 10.0])
def test_open_loads_have_the_lengths_that_they_say(rate_per_s: float) -> None:
    from gpu_sections.serving import open_load
    from gpu_sections.sizes import FULL

    load = open_load(SimpleNamespace(sizes=FULL), rate_per_s)
    assert len(load) == pytest.approx(30 * rate_per_s, rel=0.25)
    assert np.mean([r.input_tokens for r in load]) == pytest.approx(566, rel=0.06)
    assert np.mean([r.output_tokens for r in load]) == pytest.approx(247, rel=0.06)
    assert max(r.input_tokens + r.output_tokens for r in load) <= 8192


def test_targets_are_judged_from_the_data() -> None:
    from gpu_sections.report import targets
    from gpu_sections.shared import Found

    found = {
        "steps": Found({"decode": {1: {"ratio": 1.3}, 8: {"ratio": 1.51}}}),
        "mixed": Found({"output_tokens_per_s": 2500.0}),
        "generate_batch": Found({"output_tokens_per_s": 500.0}),
        "two_workers": Found({"ratio": 0.79}),
        "closed_loop": Found({"head_ms": 0.5, "5: ITL mean, ms": {"simulated": 7.7, "served": 8.0}}),
    }
    rows = {row[0]: row[1:] for row in targets(found)}
    assert rows["decode step over its memory floor, batch 1"] == ["1.30", "<= 1.35", "yes"]
    assert rows["decode step over its memory floor, batch 8"][2] == "no"
    assert rows["mixed load over generate_batch"] == ["5.00", ">= 5", "yes"]
    assert rows["two workers on the card over one, decode tokens/s"][2] == "no"
    assert rows["simulated over served, 5: ITL mean, ms"] == ["0.963", "within 5 %", "yes"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_checkpoints_are_read_as_they_were_written(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpu_sections import checkpoints
    from gpu_sections.sizes import TINY
    from safetensors import safe_open

    from helix_kit.runtime.weights.checkpoint import Checkpoint

    monkeypatch.setattr(checkpoints, "SHARD_BYTES", 100_000)
    folder = checkpoints.random_checkpoint(tmp_path / "m", TINY, dtype=dtype, device="cpu")
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) >= 2
    Checkpoint(folder).check_tensors()
    values = {}
    for shard in shards:
        with safe_open(shard, framework="pt") as file:
            values |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    query = values["model.layers.3.self_attn.q_proj.weight"]
    assert query.dtype == getattr(torch, dtype)
    assert float(query.float().std()) == pytest.approx(0.02, rel=0.1)
    assert torch.equal(values["model.norm.weight"].float(), torch.ones(TINY["hidden_size"]))
    assert not torch.equal(query, values["model.layers.2.self_attn.q_proj.weight"])


def test_a_noisy_profile_is_made_steady() -> None:
    from gpu_sections.serving import steady

    from helix_kit.profiles.profile import Curve, Profile

    noisy = Curve(x=(0, 1, 2, 4), y=(0, 2.0, 1.5, 3.0))
    profile = Profile(
        kind="x", model="m", source="s", prefill_ms_per_layer=noisy, decode_ms_per_layer=noisy,
        kv_capacity_layer_tokens=(9,), prefill_max_requests=(1,), decode_max_requests=(1,),
    )  # fmt: skip
    assert steady(profile).decode_ms_per_layer.y == (0.0, 2.0, 2.0, 3.0)
