"""The same loads with transformers: `generate` on padded batches, and `generate_batch`, its continuous batching."""

from __future__ import annotations

import time
from typing import Any

import torch

from gpu_sections.serving import mixed_prompts, prompts
from gpu_sections.shared import Check, Found, Table, rate


def load_model(check: Check) -> Any:
    """The large model as transformers loads it, on the device."""
    from transformers import AutoModelForCausalLM

    began = time.monotonic()
    dtype = getattr(torch, check.sizes.dtype)
    folder = check.checkpoint("large")
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map=check.device)
    except (ImportError, ValueError):  # device_map needs accelerate
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(check.device)
    check.say(f"  transformers' model loaded in {time.monotonic() - began:.1f} s")
    return model.eval()


def generation(tokens: int) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(
        max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0
    )


def section_generate(check: Check) -> Found:
    """`generate`: prefill and decode tokens/s by batch."""
    model = load_model(check)
    found = time_generate(check, model)
    compare_logits(check, model, found)
    del model
    check.free()
    return found


def time_generate(check: Check, model: Any) -> Found:
    sizes, found = check.sizes, Found()

    def run(batch: list[list[int]], new_tokens: int) -> float:
        ids = torch.tensor(batch, device=check.device)
        check.sync()
        began = time.monotonic()
        out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=generation(new_tokens))
        check.sync()
        assert out.shape[1] == ids.shape[1] + new_tokens
        return time.monotonic() - began

    title = f"transformers' generate, prompts of {sizes.prompt}, {sizes.hf_new_tokens} new tokens"
    table = Table(title, ("batch", "prefill tokens/s", "decode tokens/s"))
    for batch in sizes.bench_batches:
        load = prompts(batch, sizes.prompt, check.vocabulary, 2)
        run(load, 2)
        first_s = min(run(load, 1) for _ in range(2))
        rest_s = max(run(load, 1 + sizes.hf_new_tokens) - first_s, 1e-9)
        result = {
            "prefill_tokens_per_s": batch * sizes.prompt / first_s,
            "decode_tokens_per_s": batch * sizes.hf_new_tokens / rest_s,
        }
        found.data[batch] = result
        table.rows.append([str(batch), *map(rate, result.values())])
        check.say("  generate, batch", *table.rows[-1])
    load = prompts(1, sizes.long_prompt, check.vocabulary, 3)
    run(load, 1)
    best = sizes.long_prompt / min(run(load, 1) for _ in range(3))
    found.data["long_prefill_tokens_per_s"] = best
    table.rows.append([f"1, prompt of {sizes.long_prompt}", rate(best), "-"])
    check.say(f"  generate, prefill of {sizes.long_prompt}: {best:.0f} tokens/s")
    found.tables.append(table)
    return found


def compare_logits(check: Check, model: Any, found: Found) -> None:
    """Logits of the large model by our layers beside those of transformers, after a prefill and after a decode."""
    from gpu_sections.timing import Layers
    from helix_kit.runtime.worker.kv_cache import BlockTable
    from helix_kit.runtime.worker.model_layers import RequestRows

    tokens = 40 if check.on_gpu else 12
    layers = Layers(check, "large", check.attention, 2 * tokens)
    ids = torch.tensor(prompts(1, tokens, check.vocabulary, 9)[0], device=check.device)
    with torch.inference_mode():
        expected = model(ids[None]).logits[0, -2:].float()
        table, rows = BlockTable(layers.count), layers.stage.embed(ids)
        got = []
        for start, stop in ((0, tokens - 1), (tokens - 1, tokens)):
            position = table.num_tokens
            table.grow(layers.pool, stop - start)
            [result] = layers.stage.run(layers.pool, [RequestRows(table, rows[start:stop], position, 0, layers.end)])
            got.append(layers.stage.logits(result[-1:]).float()[0].clone())
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(got, expected, strict=True)]
    same = [bool(a.argmax() == b.argmax()) for a, b in zip(got, expected, strict=True)]
    found.data["logits"] = {"error": errors, "same_argmax": same}
    shown = Table("Logits of all layers beside transformers'", ("after", "difference / norm", "same likeliest token"))
    for name, error, equal in zip(("prefill", "decode"), errors, same, strict=True):
        shown.rows.append([name, f"{error:.4f}", "yes" if equal else "no"])
        check.say("  logits:", *shown.rows[-1])
    found.tables.append(shown)
    limit = 0.15 if check.sizes.dtype != "float32" else 1e-3
    if not max(errors) <= limit:
        found.wrong.append(f"logits differ by {max(errors):.3f} of their norm from transformers', limit {limit:g}")


def section_generate_batch(check: Check) -> Found:
    """`generate_batch` on the mixed load."""
    sizes = check.sizes
    model = load_model(check)
    load, config = mixed_prompts(check), generation(sizes.mixed_new_tokens)
    more: dict[str, Any] = {}
    if not check.on_gpu:
        from transformers.generation.configuration_utils import ContinuousBatchingConfig

        # By default it takes most of the machine's memory, which takes minutes to fill.
        more["continuous_batching_config"] = ContinuousBatchingConfig(num_blocks=16, max_batch_tokens=64)
    model.generate_batch(inputs=load[:4], generation_config=generation(4), progress_bar=False, **more)
    check.sync()
    began = time.monotonic()
    results = model.generate_batch(inputs=load, generation_config=config, progress_bar=False, **more)
    taken_s = time.monotonic() - began
    made = sum(len(result.generated_tokens) for result in results.values())
    assert made == sizes.mixed_requests * sizes.mixed_new_tokens, f"{made} tokens"
    table = Table("Mixed load with transformers' continuous batching", ("", "output tokens/s", "seconds"))
    table.rows.append(["generate_batch", rate(made / taken_s), f"{taken_s:.2f}"])
    check.say("  ", *table.rows[-1])
    del model
    check.free()
    return Found({"output_tokens_per_s": made / taken_s, "seconds": taken_s}, [table])
