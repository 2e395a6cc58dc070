"""``docs/engine-fidelity.md``, and the engine's record with the constants of a fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from helix_kit.errors import InputError
from helix_kit.experiments.exam.fit import FOLLOWERS, PRIORS, LeftOut, Sensitivity, with_values
from helix_kit.experiments.exam.scores import Examined, medians
from helix_kit.profiles.engines import EngineRecord

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
ITL divides by the length of the answer as the client counts it after reading the text again, which a simulator cannot
know: for one model of the fit it is a fifth shorter than what was generated, and its ITL is missed by as much. TPOT
divides by the tokens generated.

## Errors on models that the fit has not seen

The constants are fitted again without the runs of one model, which are then predicted: the median of the absolute
error over the model's runs in %. Without any model with 8-bit experts, only the priors are left for their constants.

"""
CONSTANTS = """
## Constants

The fit minimises the errors of each stage of the training runs, together with the distance of each constant from its
prior: what is expected of it before any run. The prior is a value and a spread, as a factor: x 1.5 says that a value
half as large again or two thirds is one standard deviation away. The last columns say what the medians of the errors
in % become (E2E / TTFT / ITL) with a fifth less and a fifth more of a constant; as fitted they are {now}.

"""
PREDICTIONS = """
## Predictions for runs that were not seen

Means in ms; hits: share of the prompt tokens found in the prefix cache. Where requests wait for one of the
`max_num_seqs` places, small errors of a step become large ones of the TTFT. `helix-kit exam -o DIR` writes each stage
and the percentiles.

"""
LIMITS = """
## What is not modelled

- A100 and L40S: no run of the fit used them. Their shares of the datasheet's bandwidth and their sampling times are
  guesses, as the record says.
- Experts in 16 bits: no run of the fit has them. The costs of their small kernels are counted, not measured; how
  evenly tokens choose them is taken from the literature.
- The KV cache of models with parts that are not layers, such as the vision tower of Llama-4: they have up to a third
  fewer blocks than the rule says. The runs of the exam tell how many they had. For dense models and Mixtral the rule
  is within 1.2 %.
- Penalties for repetition, logit processors, structured output, speculative decoding, LoRA, multimodal inputs.
- Offloading of KV blocks to the host's memory: blocks that leave the GPU are computed again.
- Sliding windows and chunked local attention: all layers attend to the whole context.
- Load of the host: tokeniser and HTTP take a constant time, however many requests there are. The time to the first
  token of one model varies more than this explains.
- Data and expert parallelism within a replica. A node that is part of two pipelines, and faults: `simulate` refuses
  these with an engine of replicas.
"""


class Fitted(NamedTuple):
    """What a page needs beside the predictions.

    Examples
    --------
    >>> Fitted([], {}).left_out
    []
    """

    left_out: Sequence[LeftOut]
    """Fits without one model each."""
    sensitivities: dict[str, Sensitivity]
    """By constant."""


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
        CONSTANTS.format(now=_short(now)),
        _constants_table(engine, fitted.sensitivities),
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


def _constants_table(engine: EngineRecord, sensitivities: dict[str, Sensitivity]) -> str:
    assert engine.constants is not None, "a record of replicas has constants"
    heads = ("constant", "value", "unit", "meaning", "prior, or source", "a fifth less", "a fifth more")
    lines = [_row(heads), _row(["---", "---:", "---", "---", "---", "---:", "---:"])]
    for name, constant in engine.constants.by_name().items():
        own = ", ".join(f"{gpu} {value:g}" for gpu, value in constant.by_gpu.items())
        source = constant.source.strip()
        if name in PRIORS:
            prior = PRIORS[name]
            source = f"{prior.value:g}, x {2.718281828**prior.spread:.2g}: {prior.reason}"
        lines.append(_row([
            f"`{name}`", f"{constant.value:g}" + (f" ({own})" if own else ""), constant.unit, constant.meaning.strip(),
            source, *(_short(s) for s in sensitivities.get(name, ())),
            *(["-"] * 2 if name not in sensitivities else []),
        ]))  # fmt: skip
    return "".join(lines)


def _predictions_table(unseen: Sequence[Examined]) -> str:
    metrics = ("e2e_mean", "ttft_mean", "tpot_server_mean", "e2e_p99", "ttft_p99")
    lines = [
        _row(["run", "GPUs", *(METRICS[m] for m in metrics), "hits"]),
        _row(["---", "---", *["---:"] * 6]),
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
