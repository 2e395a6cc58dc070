"""``docs/engine-fidelity.md``, and the engine's record with the constants of a fit."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from helix_kit.errors import InputError
from helix_kit.experiments.exam.fit import with_values
from helix_kit.experiments.exam.left_out import LeftOut
from helix_kit.experiments.exam.page_text import (
    CONSTANTS,
    FOLDS,
    GPUS,
    HEAD,
    ITL,
    LIMITS,
    NOISE,
    PREDICTIONS,
    RULES,
)
from helix_kit.experiments.exam.priors import FOLLOWERS, PRIORS
from helix_kit.experiments.exam.scores import Examined, medians
from helix_kit.experiments.exam.sensitivity import GpuSensitivity, Sensitivity
from helix_kit.profiles.engines import EngineRecord, engine_names, load_engine

METRICS = {
    "e2e_mean": "E2E", "ttft_mean": "TTFT", "itl_mean": "ITL", "tpot_server_mean": "TPOT", "e2e_p90": "E2E p90",
    "e2e_p99": "E2E p99", "ttft_p90": "TTFT p90", "ttft_p99": "TTFT p99",
}  # fmt: skip
"""Metric -> heading."""
SHORT_METRICS = ("e2e_mean", "ttft_mean", "itl_mean")
GROUPS: dict[str, Callable[[Examined], bool]] = {
    "all": lambda e: True,
    "dense": lambda e: e.run.facts["kind"] == "dense",
    "experts": lambda e: e.run.facts["kind"] == "experts",
    "one GPU": lambda e: e.run.machine is not None and e.run.machine.count == 1,
    "several GPUs": lambda e: e.run.machine is not None and e.run.machine.count > 1,
}

NOISE_METRICS = ("e2e_mean", "ttft_mean", "tpot_server_mean", "ttft_p99")
FOLDS_APART = 1.5
"""Fits agree on a constant whose values differ by less than this factor."""
RULE_MEANINGS = {
    "max_num_seqs": "Requests that run at the same time; the largest CUDA graph has at most twice as many tokens",
    "max_num_batched_tokens": "Tokens that a step may take, prefill and decode together",
    "max_model_len": "Longest context in tokens; none: as long as the KV cache",
    "chunked_prefill": "Whether a prompt may be spread over several steps",
    "prefill_chunk_tokens": "Tokens of a prefill chunk; none: as many as the step has room for",
    "prefix_cache": "Whether blocks that are equal to a prompt's first blocks are used again",
    "block_tokens": "Tokens of a block of KV cache",
    "memory_share": "Share of each GPU's memory for weights, activations and KV cache",
    "asynchronous": "Whether the next step is put together while one runs",
    "max_graph_tokens": "Tokens of the largest step that has a CUDA graph",
}
"""Rule -> what it is. Sources of values: vLLM's get_batch_defaults (arg_utils.py) and vllm.py, as the record says."""
OTHER_GPUS = "A100 and L40S:"
"""With these words a constant's source goes on to GPUs that no run of the fit used."""
GPU_METRICS = ("e2e_mean", "ttft_mean")


class Fitted(NamedTuple):
    """What a page needs beside the predictions.

    Examples
    --------
    >>> Fitted([], {}, [], {}).left_out
    []
    """

    left_out: Sequence[LeftOut]
    """Fits without one model each."""
    sensitivities: dict[str, Sensitivity]
    """By constant."""
    by_gpu: Sequence[GpuSensitivity]
    """Of the GPUs that have values of their own."""
    spread: Mapping[str, float]
    """Per cent that other arrivals change, by metric."""


def page_of(engine: EngineRecord, examined: Sequence[Examined], fitted: Fitted) -> str:
    """The page as Markdown.

    Parameters
    ----------
    engine
        With the constants of the fit.
    examined
        All runs, predicted with them.
    fitted
        Errors without each model, and sensitivities.

    Returns
    -------
    str
        Ends with a newline.

    Examples
    --------
    >>> page_of(engine, examined, fitted).splitlines()[0]    # doctest: +SKIP
    '# How close predictions of an engine come'
    """
    scored = [e for e in examined if e.errors and e.split == "train"]
    unseen = [e for e in examined if e.split == "eval"]
    now = medians([e.errors for e in scored])
    return "".join([
        HEAD.format(train=len(scored), eval=len(unseen), engine=engine.name),
        _group_table(scored),
        ITL,
        _left_out_table(fitted.left_out),
        NOISE.format(**{metric: f"{fitted.spread[metric]:.1f}" for metric in NOISE_METRICS}),
        FOLDS,
        _folds_table(fitted.left_out),
        CONSTANTS.format(now=_short(now)),
        _constants_table(engine, fitted.sensitivities),
        *((GPUS, _gpus_table(engine, fitted.by_gpu)) if fitted.by_gpu else ()),
        RULES,
        _rules_table(),
        PREDICTIONS,
        _predictions_table(unseen),
        LIMITS,
    ])  # fmt: skip


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _short(errors: dict[str, float]) -> str:
    return " / ".join(f"{errors[m]:.1f}" if m in errors else "-" for m in SHORT_METRICS)


def _group_table(scored: Sequence[Examined]) -> str:
    lines = [_row(["runs", *METRICS.values()]), _row(["---", *["---:"] * len(METRICS)])]
    for name, is_in in GROUPS.items():
        errors = [e.errors for e in scored if is_in(e)]
        if errors:
            found = medians(errors)
            lines.append(
                _row([f"{name} ({len(errors)})", *(f"{found[m]:.1f}" if m in found else "-" for m in METRICS)])
            )
    return "".join(lines)


def _left_out_table(left_out: Sequence[LeftOut]) -> str:
    metrics = ("e2e_mean", "ttft_mean", "itl_mean", "tpot_server_mean", "e2e_p99", "ttft_p99")
    lines = [_row(["model left out", "runs", *(METRICS[m] for m in metrics)]), _row(["---", *["---:"] * 7])]
    groups = [(left.model, left.errors) for left in left_out]
    groups.append(("**all models**", [e for left in left_out for e in left.errors]))
    for name, errors in groups:
        found = medians(errors)
        lines.append(_row([name, str(len(errors)), *(f"{found[m]:.1f}" if m in found else "-" for m in metrics)]))
    return "".join(lines)


def _folds_table(left_out: Sequence[LeftOut]) -> str:
    """What the fits without one model each find for a constant, where they do not agree within `FOLDS_APART`."""
    lines = [_row(["constant", *(left.model.split("/")[-1] for left in left_out)])]
    lines.append(_row(["---", *["---:"] * len(left_out)]))
    for name in left_out[0].values if left_out else ():
        values = [left.values[name] for left in left_out]
        if max(values) > FOLDS_APART * min(values):
            lines.append(_row([f"`{name}`", *(f"{value:g}" for value in values)]))
    return "".join(lines)


def _rules_table() -> str:
    names = engine_names()
    engines = [load_engine(name) for name in names]
    own: list[dict[str, dict[int, list[str]]]] = [{} for _ in names]  # rule -> value -> GPUs
    for found, engine in zip(own, engines, strict=True):
        for gpu, rules in engine.rules_by_gpu.items():
            for rule, value in rules.items():
                found.setdefault(rule, {}).setdefault(value, []).append(gpu)
    lines = [_row(["rule", "meaning", *(f"`{name}`" for name in names)]), _row(["---", "---", *["---"] * len(names)])]
    for rule, meaning in RULE_MEANINGS.items():
        cells = []
        for found, engine in zip(own, engines, strict=True):
            value = getattr(engine.rules, rule)
            others = [f"{other:,}: {', '.join(gpus)}" for other, gpus in found.get(rule, {}).items()]
            cells.append(_rule_text(value) + (f" ({'; '.join(others)})" if others else ""))
        lines.append(_row([f"`{rule}`", meaning, *cells]))
    return "".join(lines)


def _rule_text(value: bool | float | None) -> str:
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:,}"


def _gpus_table(engine: EngineRecord, by_gpu: Sequence[GpuSensitivity]) -> str:
    assert engine.constants is not None, "a record of replicas has constants"
    lines = [_row(["GPU", "constant", "value", "a tenth less", "a tenth more"]), _row(["---", "---", *["---:"] * 3])]
    for entry in by_gpu:
        value = engine.constants.by_name()[entry.constant].of(entry.gpu)
        changes = (" / ".join(f"{side[m]:+.1f}" for m in GPU_METRICS) for side in (entry.less, entry.more))
        lines.append(_row([entry.gpu, f"`{entry.constant}`", f"{value:g}", *changes]))
    return "".join(lines)


def _constants_table(engine: EngineRecord, sensitivities: dict[str, Sensitivity]) -> str:
    assert engine.constants is not None, "a record of replicas has constants"
    heads = ("constant", "value", "unit", "meaning", "prior, or source", "a fifth less", "a fifth more")
    lines = [_row(heads), _row(["---", "---:", "---", "---", "---", "---:", "---:"])]
    for name, constant in engine.constants.by_name().items():
        own = ", ".join(f"{gpu} {value:g}" for gpu, value in constant.by_gpu.items())
        source = constant.source.strip()
        if name in PRIORS:
            prior = PRIORS[name]
            others = source[source.find(OTHER_GPUS) :] if OTHER_GPUS in source else ""
            source = f"{prior.value:g}, x {math.exp(prior.spread):.2g}: {prior.reason}" + (
                f". {others}" if others else ""
            )
        lines.append(_row([
            f"`{name}`", f"{constant.value:g}" + (f" ({own})" if own else ""), constant.unit, constant.meaning.strip(),
            source, *(_short(s) for s in sensitivities.get(name, ())),
            *(["-"] * 2 if name not in sensitivities else []),
        ]))  # fmt: skip
    return "".join(lines)


def _predictions_table(unseen: Sequence[Examined]) -> str:
    metrics = ("e2e_mean", "ttft_mean", "tpot_server_mean", "itl_mean", "e2e_p99", "ttft_p99")
    lines = [
        _row(["run", "GPUs", *(METRICS[m] for m in metrics), "hits"]),
        _row(["---", "---", *["---:"] * 7]),
    ]
    for entry in unseen:
        figures = entry.prediction.figures
        cells = [entry.run.name, entry.run.facts["gpu"], *(f"{figures[-1, m]:,.1f}" for m in metrics)]
        lines.append(_row([*cells, f"{100 * entry.prediction.hit_rate:.1f} %"]))
    return "".join(lines)


def record_with(text: str, engine: EngineRecord, values: dict[str, float]) -> str:
    """An engine's record with other constants; comments, order and the rest stay.

    Parameters
    ----------
    text
        The YAML file.
    engine
        What the file describes.
    values
        New values by name.

    Returns
    -------
    str
        The new file.

    Raises
    ------
    InputError
        The file has no line for one of the values.

    Examples
    --------
    >>> record_with(text, engine, {"step_ms": 1.0})    # doctest: +SKIP
    """
    constants = with_values(engine, values).constants
    assert constants is not None, "a record of replicas has constants"
    for name, constant in constants.by_name().items():
        if name not in values:
            continue
        pattern = re.compile(rf"(^  {name}:\n    value: )\S+", re.MULTILINE)
        text, found = pattern.subn(rf"\g<1>{constant.value:g}", text)
        if not found:
            raise InputError("expected a line 'value:' below the name", where=f"engine {engine.name}", field=name)
        if name in FOLLOWERS and constant.by_gpu:
            own = ", ".join(f"{gpu}: {value:g}" for gpu, value in constant.by_gpu.items())
            text = re.sub(
                rf"(^  {name}:\n(?:    .*\n)*?    by_gpu: ){{.*}}", rf"\g<1>{{{own}}}", text, flags=re.MULTILINE
            )
    return text


__all__ = ["Fitted", "page_of", "record_with"]
