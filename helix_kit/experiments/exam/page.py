"""``docs/engine-fidelity.md``, and the engine's record with the constants of a fit."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from helix_kit.errors import InputError
from helix_kit.experiments.exam.fit import FOLLOWERS, PRIORS, with_values
from helix_kit.experiments.exam.left_out import LeftOut
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

HEAD = """# How close predictions of an engine come

`helix-kit exam` predicts real runs of vLLM 0.15.1 from their workloads and settings alone: {train} runs on H100, on
which the constants of `data/engines/{engine}.yaml` were fitted, and {eval} further runs on H100, A100 and L40S, which
were not seen. The measurements are not part of this repository; this page has the errors over groups of runs, and our
predictions for the {eval}. The constants are global or per kind of GPU, never per model or per run. `helix-kit exam
--fit --store` makes the fit, the record and this page anew; all of them follow from the training runs and a seed.

## Errors on the runs of the fit

Median of the absolute error in %, whole runs.

"""
ITL = """
A measured ITL divides by the length of the answer as the client counts it after reading the text again. For one model
of the fit it is a fifth shorter than what was generated, and its ITL is missed by as much: errors of ITL compare the
measured ITL with our TPOT, which divides by the tokens generated. The workloads tell the client's count, but in the
training runs that count was itself computed from the measured ITL, so that an ITL by it would have the error of TPOT.

## Errors on models that the fit has not seen

The constants are fitted again without the runs of one model, which are then predicted: the median of the absolute
error over the model's runs in %. Without any model with 8-bit experts, only the priors are left for their constants.
Without Llama-2, the only model whose query heads all have keys and values of their own, little but the prior tells how
fast attention reads the cache. The form of the step model and of the fit was chosen by these errors, so that other
models may be missed by somewhat more.

"""
NOISE = """
Other arrivals at the same rates change a run's mean E2E by {e2e_mean} %, its mean TTFT by {ttft_mean} %, its TPOT by
{tpot_server_mean} %, and the 99th percentile of its TTFT by {ttft_p99} % (one standard deviation, median over the
runs). No simulator that is not told when requests arrived can be better than that.
"""
NOISE_METRICS = ("e2e_mean", "ttft_mean", "tpot_server_mean", "ttft_p99")
FOLDS = """
What is left is what the other models cannot tell. The fits without a model agree on most constants; they differ by
more than half on these:

"""
FOLDS_APART = 1.5
CONSTANTS = """
## Constants

The fit minimises the errors of each stage of the training runs, together with the distance of each constant from its
prior: what is expected of it before any run. The prior is a value and a spread, as a factor: x 1.5 says that a value
half as large again or two thirds is one standard deviation away. The last columns say what the medians of the errors
in % become (E2E / TTFT / ITL) with a fifth less and a fifth more of a constant; as fitted they are {now}.

"""
RULES = """
## Rules

Rules are settings, not constants: the records of `data/engines` have the engine's defaults, and a run of the exam has
those that it was started with. `helix` is the runtime of this package; its times come from profiles, so that its record
has no constants.

"""
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
GPUS = """
What the values for A100 and L40S do: the change of the predictions for the runs on these GPUs, in % (E2E / TTFT), when
the value is a tenth smaller and a tenth larger.

"""
OTHER_GPUS = "A100 and L40S:"
"""With these words a constant's source goes on to GPUs that no run of the fit used."""
GPU_METRICS = ("e2e_mean", "ttft_mean")
PREDICTIONS = """
## Predictions for runs that were not seen

Means in ms; hits: share of the prompt tokens found in the prefix cache. ITL divides by the client's count of tokens,
which the workloads tell, TPOT by the tokens generated. Where requests wait for one of the
`max_num_seqs` places, small errors of a step become large ones of the TTFT. `helix-kit exam -o DIR` writes each stage
and the percentiles.

"""
LIMITS = """
## What is not modelled

- A100 and L40S: no run of the fit used them. Their shares of the datasheet and their sampling times come from
  published measurements of other programs, launches and bookkeeping are taken to last as long as on H100.
- Experts in 16 bits: no run of the fit has them. The costs of their small kernels are counted, not measured; how
  evenly tokens choose them is taken from the literature.
- The KV cache of models with parts that are not layers, such as the vision tower of Llama-4: they have up to a third
  fewer blocks than the rule says. The runs of the exam tell how many they had. For dense models and Mixtral the rule
  is within 1.2 %.
- Logit processors, structured output, speculative decoding, LoRA, multimodal inputs.
- Offloading of KV blocks to the host's memory: blocks that leave the GPU are computed again.
- Sliding windows and chunked local attention: all layers attend to the whole context.
- Which experts tokens choose depends on the text. The model with 8-bit experts takes longer for answers of 1,448
  tokens than predicted, and less long for answers of 250: the first are missed by twice as much as the others.
- Load of the host: tokeniser and HTTP take a constant time, however many requests there are. The time to the first
  token of one model varies more than this explains.
- Data and expert parallelism within a replica. A node that is part of two pipelines, and faults: `simulate` refuses
  these with an engine of replicas.
"""


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
            said = _said(value)
            others = [f"{other:,}: {', '.join(gpus)}" for other, gpus in found.get(rule, {}).items()]
            cells.append(said + (f" ({'; '.join(others)})" if others else ""))
        lines.append(_row([f"`{rule}`", meaning, *cells]))
    return "".join(lines)


def _said(value: bool | float | None) -> str:
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
