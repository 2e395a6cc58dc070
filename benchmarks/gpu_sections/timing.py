"""The device's own ceilings, and the time of steps of a model's layers beside them."""

from __future__ import annotations

from typing import Any

import torch

from gpu_sections.equality import backends
from gpu_sections.shared import Check, Found, Table, ms, rate

HOP_ROWS = (1, 32, 512)
DETERMINISTIC = ", deterministic"


def section_machine(check: Check) -> Found:
    """Copy bandwidth, matrix products, and rows that leave the device and come back."""
    sizes, found = check.sizes, Found()
    copy = check.copy_bytes_per_s()
    dtype = getattr(torch, sizes.dtype)
    flops = matmul_flops_per_s(check, dtype)
    found.data = {"copy_tb_per_s": copy / 1e12, "matmul_tflops": flops / 1e12}
    table = Table("The card", ("", "measured"))
    table.rows += [
        ["copy on the device, bytes read and written, TB/s", f"{copy / 1e12:.2f}"],
        [f"{sizes.dtype} matrix product of {sizes.matmul}, TFLOP/s", f"{flops / 1e12:.0f}"],
    ]
    for rows in HOP_ROWS:
        found.data[f"hop_us_{rows}"] = hop_s(check, rows, dtype) * 1e6
        table.rows.append([f"{rows} rows to the host and back, us", f"{found.data[f'hop_us_{rows}']:.0f}"])
    found.tables.append(table)
    check.free()
    return found


def matmul_flops_per_s(check: Check, dtype: torch.dtype) -> float:
    """Operations per second of a product of two square matrices of random numbers."""
    size = check.sizes.matmul
    a, b = (torch.randn(size, size, device=check.device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / check.seconds(lambda: a @ b, repeats=7)


def hop_s(check: Check, rows: int, dtype: torch.dtype) -> float:
    """Seconds that a stage adds to a step: rows to pinned memory, waited for, and to the device again."""
    from helix_kit.runtime.worker.transfer import to_device, to_host

    where = torch.device(check.device)
    tensor = torch.randn(rows, check.sizes.large["hidden_size"], device=where).to(dtype)
    return check.seconds(lambda: to_device(to_host(tensor), where), repeats=20)


class Layers:
    """Layers on the device, their pool, and steps of them as a worker runs them."""

    def __init__(
        self,
        check: Check,
        name: str,
        attention: str,
        pool_tokens: int,
        layers: int | None = None,
        *,
        deterministic: bool = False,
    ) -> None:
        from helix_kit.model import Model
        from helix_kit.runtime.weights.checkpoint import Checkpoint
        from helix_kit.runtime.worker.kv_cache import pages_for
        from helix_kit.runtime.worker.model_layers import ModelLayers
        from helix_kit.runtime.worker.static_step import StepOptions

        folder = check.checkpoint(name)
        item_bytes = getattr(torch, check.sizes.dtype).itemsize
        self.check, self.model = check, Model.from_hf(folder, dtype_bytes=item_bytes)
        self.end = self.model.num_layers
        self.start = 0 if layers is None else self.end - layers
        self.count = self.end - self.start
        options = StepOptions(max_rows=max(512, *check.sizes.prefills), deterministic=deterministic)
        self.stage = ModelLayers(
            Checkpoint(folder), self.start, self.end, dtype=check.sizes.dtype, device=check.device,
            attention_backend=attention, options=options,
        )  # fmt: skip
        self.pool = self.stage.new_pool(pages_for(pool_tokens, self.count))
        self.stage.warm_up(self.pool)

    @property
    def weight_bytes(self) -> float:
        return self.model.layer_gb * 1e9 * self.count

    @property
    def backend(self) -> str:
        """How the layers are computed, in the runtime's own words."""
        return str(self.stage.description)

    def floor_s(self, batch: int, context: int) -> float:
        """The time to read the weights, and keys and values of the context, at the bandwidth of a copy."""
        kv_bytes = batch * context * self.model.kv_bytes_per_token_layer * self.count
        return (self.weight_bytes + kv_bytes) / self.check.copy_bytes_per_s()

    def decode(self, batch: int, context: int) -> tuple[float, float | None, int]:
        """Median seconds of a decode step; seconds in which the GPU is busy, if known; kernels."""
        from helix_kit.runtime.worker.kv_cache import BlockTable
        from helix_kit.runtime.worker.model_layers import RequestRows

        stage, sizes = self.stage, self.check.sizes
        tables = [BlockTable(self.count) for _ in range(batch)]
        for table in tables:
            table.grow(self.pool, context)
        rows = torch.randn(batch, stage.hidden_size, device=stage.device, dtype=stage.dtype).split(1)

        def step() -> None:
            entries = []
            for table, row in zip(tables, rows, strict=True):
                position = table.num_tokens
                table.grow(self.pool, 1)
                entries.append(RequestRows(table, row, position, self.start, self.end))
            stage.run(self.pool, entries)

        taken_s = self.check.seconds(step, repeats=sizes.repeats, warm=5)
        busy_s, kernels = self.busy(step)
        for table in tables:
            table.release(self.pool)
        return taken_s, busy_s, kernels

    def prefill(self, tokens: int) -> float:
        """Median seconds of one chunk of `tokens` tokens."""
        from helix_kit.runtime.worker.kv_cache import BlockTable
        from helix_kit.runtime.worker.model_layers import RequestRows

        table = BlockTable(self.count)
        table.grow(self.pool, tokens)
        stage = self.stage
        hidden = torch.randn(tokens, stage.hidden_size, device=stage.device, dtype=stage.dtype)
        entries = [RequestRows(table, hidden, 0, self.start, self.end)]
        taken_s = self.check.seconds(lambda: stage.run(self.pool, entries), repeats=5)
        table.release(self.pool)
        return taken_s

    def projection(self, batch: int) -> float:
        """Median seconds of the final norm and the output projection."""
        stage = self.stage
        hidden = torch.randn(batch, stage.hidden_size, device=stage.device, dtype=stage.dtype)
        with torch.inference_mode():
            return self.check.seconds(lambda: stage.logits(hidden), repeats=self.check.sizes.repeats)

    def busy(self, step: Any) -> tuple[float | None, int]:
        """Seconds of a step in which the GPU runs kernels, and their number; (None, 0) where that cannot be told."""
        count = self.check.sizes.profiler_steps
        if not self.check.on_gpu:
            return None, 0
        try:
            from torch.profiler import ProfilerActivity, profile

            with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
                for _ in range(count):
                    step()
                self.check.sync()
            events = [e for e in profiler.events() if e.device_type == torch.autograd.DeviceType.CUDA]
        except Exception as error:
            self.check.say("  no profile of the step:", error)
            return None, 0
        return sum(e.device_time for e in events) / count / 1e6, len(events) // count


def section_steps(check: Check) -> Found:
    """Decode steps of all layers of the large model beside their memory floor, and its prefill."""
    return steps_of(check, "large", "The large model")


def section_small_steps(check: Check) -> Found:
    """The same for the small model."""
    return steps_of(check, "small", "The small model")


def steps_of(check: Check, name: str, title: str) -> Found:
    sizes, found = check.sizes, Found()
    pool_tokens = max(sizes.step_batches) * (sizes.context + 8 * sizes.repeats) + max(sizes.prefills)
    layers = Layers(check, name, check.attention, pool_tokens)
    shape = f"{layers.count} layers of {layers.model.hidden_size}, {layers.weight_bytes / 1e9:.2f} GB, {sizes.dtype}"
    where = f"attention {check.attention} ({layers.backend})"
    found.data = {"backend": layers.backend, "layers": layers.count, "decode": {}, "prefill": {}}
    head = ("batch", "step, ms", "floor, ms", "step / floor", "GPU busy, ms", "kernels", "output projection, ms")
    table = Table(f"{title}: decode steps of {shape}, context {sizes.context}, {where}", head)
    for batch in sizes.step_batches:
        taken_s, busy_s, kernels = layers.decode(batch, sizes.context)
        floor_s, head_s = layers.floor_s(batch, sizes.context), layers.projection(batch)
        found.data["decode"][batch] = {
            "step_ms": 1e3 * taken_s,
            "floor_ms": 1e3 * floor_s,
            "ratio": taken_s / floor_s,
            "busy_ms": None if busy_s is None else 1e3 * busy_s,
            "kernels": kernels,
            "projection_ms": 1e3 * head_s,
        }
        busy = "-" if busy_s is None else f"{1e3 * busy_s:.2f} ({busy_s / taken_s:.0%})"
        cells = [str(batch), ms(taken_s), ms(floor_s), f"{taken_s / floor_s:.2f}", busy, str(kernels), ms(head_s)]
        table.rows.append(cells)
        check.say(f"  {name} decode, batch {batch}:", *cells[1:])
    found.tables.append(table)
    table = Table(f"{title}: prefill of one chunk", ("tokens", "ms", "tokens/s"))
    for tokens in sizes.prefills:
        taken_s = layers.prefill(tokens)
        found.data["prefill"][tokens] = {"ms": 1e3 * taken_s, "tokens_per_s": tokens / taken_s}
        table.rows.append([str(tokens), ms(taken_s), rate(tokens / taken_s)])
        check.say(f"  {name} prefill of {tokens}: {ms(taken_s)} ms, {tokens / taken_s:.0f} tokens/s")
    found.tables.append(table)
    del layers
    check.free()
    return found


def section_attention(check: Check, names: list[str] | None = None) -> Found:
    """Decode steps of a few layers with each attention backend, at a short and a long context."""
    from helix_kit.errors import InputError

    sizes, found = check.sizes, Found()
    contexts, batches = (sizes.context, sizes.long_context), (min(sizes.step_batches), sizes.step_batches[-2])
    head = ("attention", *(f"batch {b}, context {c}" for c in contexts for b in batches))
    table = Table(f"Milliseconds of a decode step of {sizes.attention_layers} layers", head)
    pool_tokens = max(batches) * (max(contexts) + 8 * sizes.repeats)
    floors = []
    for name in names or [*backends(check), *(f"{one}{DETERMINISTIC}" for one in ("triton", "varlen"))]:
        try:
            attention, deterministic = name.removesuffix(DETERMINISTIC), name.endswith(DETERMINISTIC)
            layers = Layers(check, "large", attention, pool_tokens, sizes.attention_layers, deterministic=deterministic)
            times = [layers.decode(batch, context)[0] for context in contexts for batch in batches]
            floors = [layers.floor_s(batch, context) for context in contexts for batch in batches]
            found.data[name] = [1e3 * taken for taken in times]
            table.rows.append([name, *(ms(taken) for taken in times)])
            del layers
        except InputError as error:
            table.rows.append([name, f"refused: {error}", *("-" for _ in head[2:])])
        except Exception as error:
            table.rows.append([name, f"{type(error).__name__}: {str(error)[:120]}", *("-" for _ in head[2:])])
            found.wrong.append(f"{name}: {type(error).__name__}: {error}")
        check.say("  attention", *table.rows[-1])
        check.free()
    table.rows.append(["floor", *(ms(floor) for floor in floors)])
    found.tables.append(table)
    return found


def section_flashinfer_steps(check: Check) -> Found:
    """FlashInfer's row of the table of attention backends."""
    return section_attention(check, ["flashinfer"])
