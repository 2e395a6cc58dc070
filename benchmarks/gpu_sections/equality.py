"""Layers on the device beside the same layers on the CPU, by attention backend, batch, family and kind of step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gpu_sections.shared import Check, Found, Table

LAYERS = 6
CHUNK = 16
FLOAT32_LIMIT = 1e-3
"""Largest difference of a value, in parts of the spread of the step's rows."""
BFLOAT16_LIMIT = 0.3
"""Largest mean difference of a request's rows, in parts of their spread. On a CPU 0.06 to 0.16 is seen; rows that are
computed from another request's pages differ by more than 1."""
WIDE = {"hidden_size": 384, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 64}
"""Heads of 64 values, as all kernels know them, and three query heads for each key head."""


def run_scenario(stage: Any, pool: Any, batch: int, seed: int) -> list[torch.Tensor]:
    """Results of steps of every kind, on the host: chunks, decodes, both together, pages that are used again.

    Every third request enters the range in its middle. After some decodes the first request leaves, and another one
    takes its place while the others decode.
    """
    from helix_kit.runtime.worker.kv_cache import BlockTable
    from helix_kit.runtime.worker.model_layers import RequestRows

    generator = torch.Generator().manual_seed(seed)
    starts = [2 if i % 3 == 2 else 0 for i in range(batch)]
    tables = [BlockTable(LAYERS - start) for start in starts]
    found: list[torch.Tensor] = []

    def step(tokens_of: dict[int, int]) -> None:
        rows = []
        for request, tokens in tokens_of.items():
            table, hidden = tables[request], torch.randn(tokens, stage.hidden_size, generator=generator)
            position = table.num_tokens
            table.grow(pool, tokens)
            hidden = hidden.to(stage.device, stage.dtype)
            rows.append(RequestRows(table, hidden, position, starts[request], LAYERS))
        results = stage.run(pool, rows)
        # Copied at once: a later step may write to the same buffers.
        found.extend(result.float().cpu().clone() for result in results)
        last = torch.stack([result[-1] for result in results])
        with torch.inference_mode():
            found.append(stage.logits(last).float().cpu().clone())

    left = [3 + (7 * i) % 29 for i in range(batch)]
    while any(left):
        step({i: min(CHUNK, left[i]) or 1 for i in range(batch)})
        left = [max(0, tokens - CHUNK) for tokens in left]
    for _ in range(3):
        step(dict.fromkeys(range(batch), 1))
    tables[0].release(pool)
    starts[0] = 2 - starts[0]
    tables[0] = BlockTable(LAYERS - starts[0])
    step({0: 19, **dict.fromkeys(range(1, batch), 1)})
    step(dict.fromkeys(range(batch), 1))
    for table in tables:
        table.release(pool)
    return found


def worst(got: list[torch.Tensor], expected: list[torch.Tensor], *, mean: bool) -> float:
    """Largest difference over all results, in parts of the spread; infinite where a value is not finite."""
    errors = []
    for a, b in zip(got, expected, strict=True):
        difference = (a - b).abs()
        error = float((difference.mean() if mean else difference.max()) / b.std())
        errors.append(error if torch.isfinite(a).all() else float("inf"))
    return max(errors)


def make(folder: Path, dtype: str, device: str, attention: str, **more: Any) -> tuple[Any, Any]:
    """Layers and a pool, warmed up, so that whatever is captured at the start is used."""
    from helix_kit.runtime.weights.checkpoint import Checkpoint
    from helix_kit.runtime.worker.model_layers import ModelLayers

    stage = ModelLayers(Checkpoint(folder), 0, LAYERS, dtype=dtype, device=device, attention_backend=attention, **more)
    pool = stage.new_pool(2000)
    if device != "cpu":
        stage.warm_up(pool)
    return stage, pool


def backends(check: Check) -> list[str]:
    """The attention backends of the runtime, but for FlashInfer, which compiles for a minute: a section of its own."""
    from helix_kit.runtime.spec import ATTENTION

    return [name for name in ATTENTION if name not in ("auto", "flashinfer")]


class Comparison:
    """Compares layers on the device with those on the CPU, and notes each comparison as a row."""

    def __init__(self, check: Check) -> None:
        self.check = check
        self.table = Table("Layers on the device beside the CPU", ("what", "batches", "largest error", "limit", ""))
        self.found = Found(tables=[self.table])
        self._references: dict[Path, dict[int, list[torch.Tensor]]] = {}

    def reference(self, folder: Path, batch: int) -> list[torch.Tensor]:
        known = self._references.setdefault(folder, {})
        if batch not in known:
            stage, pool = make(folder, "float32", "cpu", "sdpa")
            known[batch] = run_scenario(stage, pool, batch, seed=batch)
        return known[batch]

    def compare(
        self, what: str, folder: Path, dtype: str, attention: str, batches: tuple[int, ...], **more: Any
    ) -> float:
        """Largest error over the batches. A combination that the runtime refuses is noted, and is no mistake.

        `more` are further arguments of `ModelLayers`.
        """
        from helix_kit.errors import InputError

        limit = FLOAT32_LIMIT if dtype == "float32" else BFLOAT16_LIMIT
        shown = ", ".join(map(str, batches))
        try:
            stage, pool = make(folder, dtype, self.check.device, attention, **more)
            errors = {}
            for batch in batches:
                got = run_scenario(stage, pool, batch, seed=batch)
                errors[batch] = worst(got, self.reference(folder, batch), mean=dtype != "float32")
        except InputError as error:
            self.table.rows.append([what, shown, "-", "-", f"refused: {error}"])
            return float("nan")
        except Exception as error:
            self.note(what, shown, float("inf"), limit, f"{type(error).__name__}: {str(error)[:200]}")
            return float("inf")
        self.found.data[what] = errors
        bad = [str(batch) for batch, error in errors.items() if not error <= limit]
        self.note(what, shown, max(errors.values()), limit, f"wrong at {', '.join(bad)}" if bad else "")
        return max(errors.values())

    def beside_sdpa(self) -> None:
        """In bfloat16 no backend may be much less exact than torch's own attention."""
        base = self.found.data.get("bfloat16, sdpa", {})
        for what, errors in list(self.found.data.items()):
            if what.startswith("bfloat16, ") and base:
                for batch, error in errors.items():
                    if not error <= 1.5 * base[batch] + 1e-3:
                        self.found.wrong.append(
                            f"{what}, batch {batch}: error {error:.3g}, sdpa's is {base[batch]:.3g}"
                        )

    def same_bits(self, what: str, first: list[torch.Tensor], second: list[torch.Tensor]) -> None:
        """Note whether two lists of results are equal bit by bit."""
        same = all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        self.found.data[what] = {"same_bits": same}
        error = 0.0 if same else worst(first, second, mean=False)
        self.note(what, "-", error, 0.0, "" if same else "bits differ")

    def note(self, what: str, batches: str, error: float, limit: float, why: str = "") -> None:
        self.table.rows.append([what, batches, f"{error:.2g}", f"{limit:.2g}", why or "equal"])
        self.check.say(f"  {what}: {error:.2g} of {limit:.2g} {why}")
        if why:
            self.found.wrong.append(f"{what}: {why}")


def section_equality(check: Check) -> Found:
    """Every backend in float32 and bfloat16, every family, graphs beside eager, and two workers on the device."""
    from helix_kit.runtime.weights.tiny import UNUSUAL, tiny_checkpoint

    folder, sizes = check.folder, check.sizes
    compared = Comparison(check)
    with ExactFloat32():
        llama = tiny_checkpoint(folder / "tiny-llama", max_position_embeddings=512)
        wide = tiny_checkpoint(folder / "tiny-wide", **WIDE)
        for attention in backends(check):
            compared.compare(f"float32, {attention}", llama, "float32", attention, sizes.equality_batches)
            compared.compare(f"bfloat16, {attention}", wide, "bfloat16", attention, sizes.equality_batches)
        compared.beside_sdpa()
        for family in sizes.families:
            if family != "llama":
                # Kernels are compared on heads of the usual size: of the settings, only the window is taken.
                settings = UNUSUAL[family] if family == "mistral" else {}
                model = tiny_checkpoint(folder / f"tiny-{family}", family, **settings)
                compared.compare(f"float32, {check.attention}, {family}", model, "float32", check.attention, (7,))
        compare_graphs(check, compared, wide)
        compare_deterministic(check, compared, wide)
        compare_served(check, compared, llama)
    check.free()
    return compared.found


class ExactFloat32:
    """Products in float32: TensorFloat-32 would round them to ten bits."""

    def __enter__(self) -> None:
        self.before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = False

    def __exit__(self, *_: object) -> None:
        torch.backends.cuda.matmul.allow_tf32 = self.before


def compare_graphs(check: Check, compared: Comparison, folder: Path, attention: str | None = None) -> None:
    """The same steps with CUDA graphs and without, by the attention of all sections or another one."""
    from helix_kit.runtime.worker.static_step import StepOptions

    batches, attention = check.sizes.equality_batches, attention or check.attention
    try:
        results = []
        for value in (True, False):
            stage, pool = make(folder, "bfloat16", check.device, attention, options=StepOptions(graphs=value))
            results.append([tensor for b in batches for tensor in run_scenario(stage, pool, b, seed=b)])
        error = worst(*results, mean=True)
        same = all(torch.equal(a, b) for a, b in zip(*results, strict=True))
        compared.found.data["graphs"] = {"error": error, "same_bits": same}
        why = "" if error <= BFLOAT16_LIMIT / 4 else "differ"
        what = f"graphs beside eager, bfloat16, {attention}" + (" (same bits)" if same else "")
        compared.note(what, ", ".join(map(str, batches)), error, BFLOAT16_LIMIT / 4, why)
    except Exception as error:
        compared.note("graphs beside eager", "-", float("inf"), 0.0, f"{type(error).__name__}: {str(error)[:200]}")


def compare_deterministic(check: Check, compared: Comparison, folder: Path) -> None:
    """Deterministic steps: beside the CPU; the same steps twice; and a request alone and among others, bit by bit."""
    from helix_kit.errors import InputError
    from helix_kit.runtime.worker.static_step import StepOptions

    for attention in ("triton", "varlen"):
        what, options = f"bfloat16, {attention}, deterministic", StepOptions(deterministic=True)
        compared.compare(what, folder, "bfloat16", attention, check.sizes.equality_batches, options=options)
        try:
            stage, pool = make(folder, "bfloat16", check.device, attention, options=options)
            compared.same_bits(f"{what}, two runs", *(run_scenario(stage, pool, 9, seed=9) for _ in range(2)))
            alone, among = request_among(stage, pool, 0), request_among(stage, pool, 33)
            compared.same_bits(f"{what}, alone and among 33", alone, among)
        except InputError:
            continue  # `compare` has noted why
        except Exception as error:
            compared.note(f"{what}, bits", "-", float("inf"), 0.0, f"{type(error).__name__}: {str(error)[:200]}")


def request_among(stage: Any, pool: Any, others: int) -> list[torch.Tensor]:
    """Results of one request in steps with `others`: its rows and its logits, on the host.

    Its prompt of 40 tokens is cut elsewhere if there are others, as a scheduler does it.
    """
    from helix_kit.runtime.worker.kv_cache import BlockTable
    from helix_kit.runtime.worker.model_layers import RequestRows

    own, other = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    tables, rows, logits = [BlockTable(LAYERS) for _ in range(others + 1)], [], []
    prompt = torch.randn(43, stage.hidden_size, generator=own)
    for step, part in enumerate(prompt.split([9, 31, 1, 1, 1] if others else [40, 1, 1, 1])):
        batch = []
        for index, table in enumerate(tables):
            is_own = index == others
            tokens = len(part) if is_own else 1 + 4 * ((step + index) % 2)
            hidden = part if is_own else torch.randn(tokens, stage.hidden_size, generator=other)
            position = table.num_tokens
            table.grow(pool, tokens)
            batch.append(RequestRows(table, hidden.to(stage.device, stage.dtype), position, 0, LAYERS))
        results = stage.run(pool, batch)
        rows.append(results[-1].float().cpu().clone())
        with torch.inference_mode():
            logits.append(stage.logits(torch.stack([result[-1] for result in results]))[-1].float().cpu())
    for table in tables:
        table.release(pool)
    return [torch.cat(rows), *logits[-4:]]


def compare_served(check: Check, compared: Comparison, folder: Path) -> None:
    """Greedy answers of two workers that share the device and overlap, beside the CPU's; workers are threads."""
    from helix_kit.runtime import serve
    from helix_kit.runtime.weights.tiny import tiny_plan

    prompts = [[5, 6, 7], [9] * 40, [11, 12], [30] * 17]
    placement = {"a": (0, 4), "b": (2, 6)}
    answers = []
    try:
        for device in ("cpu", check.device):
            devices = dict.fromkeys(placement, device)
            with serve(
                tiny_plan(folder, placement), folder, launcher="inproc", pace=False, chunk_tokens=8, devices=devices,
                attention="sdpa" if device == "cpu" else check.attention,
            ) as engine:  # fmt: skip
                handles = [engine.submit(ids, max_new_tokens=12, ignore_eos=True) for ids in prompts]
                answers.append([handle.result(60).token_ids for handle in handles])
        same = sum(a == b for a, b in zip(*answers, strict=True))
        compared.found.data["served"] = {"same": same, "of": len(prompts)}
        why = "" if same == len(prompts) else f"{len(prompts) - same} of {len(prompts)} answers differ"
        compared.note("greedy answers of two workers on the device", "4", float(len(prompts) - same), 0.0, why)
    except Exception as error:
        compared.note("greedy answers", "4", float("inf"), 0.0, f"{type(error).__name__}: {str(error)[:200]}")


def section_flashinfer(check: Check) -> Found:
    """FlashInfer's kernels beside the CPU; they are compiled here if they are not yet."""
    from helix_kit.runtime.weights.tiny import tiny_checkpoint

    compared = Comparison(check)
    compared.table.title = "FlashInfer beside the CPU"
    for ratio in (3, 4):
        sizes = WIDE | {"num_attention_heads": 2 * ratio}
        folder = tiny_checkpoint(check.folder / f"tiny-wide-{ratio}", **sizes)
        what = f"bfloat16, flashinfer, {ratio} query heads a key head"
        compared.compare(what, folder, "bfloat16", "flashinfer", check.sizes.equality_batches)
        compare_graphs(check, compared, folder, "flashinfer")
    check.free()
    return compared.found
