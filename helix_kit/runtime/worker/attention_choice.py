"""Which attention a worker uses: our Triton kernels, FlashInfer, torch's `varlen_attn`, or SDPA over gathered pages.

| | reads pages | CUDA graphs | same bits whatever else is in the batch |
|---|---|---|---|
| triton | yes | all steps | with `deterministic`: contexts are not split |
| flashinfer | yes | steps of decodes | no |
| varlen | yes | all steps | with `deterministic`: ``num_splits=1`` |
| sdpa | gathers them | none | no |
"""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import NamedTuple

import torch

from helix_kit.errors import InputError
from helix_kit.runtime.spec import check_attention
from helix_kit.runtime.worker import flashinfer, torch_kernels, varlen
from helix_kit.runtime.worker.changed_scores import ChangedScores
from helix_kit.runtime.worker.static_batch import HeadShape
from helix_kit.runtime.worker.step_kernels import StepKernels

MIN_TRITON_CAPABILITY = (7, 5)
MIN_TRITON_CAPABILITY_BFLOAT16 = (8, 0)
MAX_TRITON_HEAD_DIM = 256


def why_no_triton(dtype: torch.dtype, device: torch.device, head_dim: int) -> str | None:
    """The reason why the Triton kernels cannot be used here; None if they can."""
    if device.type != "cuda":
        return f"it needs a CUDA device, and this worker computes on {device.type}"
    if head_dim > MAX_TRITON_HEAD_DIM:
        return f"its kernels take heads of at most {MAX_TRITON_HEAD_DIM} values, the model's have {head_dim}"
    needed = MIN_TRITON_CAPABILITY_BFLOAT16 if dtype == torch.bfloat16 else MIN_TRITON_CAPABILITY
    capability = torch.cuda.get_device_capability(device)
    if torch.version.hip is None and capability < needed:
        name = torch.cuda.get_device_name(device)
        need, has = (".".join(map(str, pair)) for pair in (needed, capability))
        return f"in {str(dtype).removeprefix('torch.')} it needs compute capability {need}, and {name} has {has}"
    if importlib.util.find_spec("triton") is None:
        return "it is not installed: pip install triton"
    return None


OBSTACLES = {"triton": why_no_triton, "flashinfer": flashinfer.why_unavailable, "varlen": varlen.why_unavailable}
"""Backend -> the function that says why a dtype, a device or a head size is not for it, in the order of auto."""
DETERMINISTIC = ("triton", "varlen")
"""Backends that give a request the same bits whatever else is in the batch, if they are asked to."""


class ChosenAttention(NamedTuple):
    """An attention backend, and why it is this one, for people."""

    name: str
    """``triton``, ``flashinfer``, ``varlen`` or ``sdpa``."""
    why: str = ""
    """Empty where it was asked for by name, or nothing else could be."""


def kernels_for(
    chosen: ChosenAttention, device: torch.device, dtype: torch.dtype, heads: HeadShape, *, deterministic: bool
) -> StepKernels | None:
    """The kernels of steps with an attention that reads pages; None for SDPA, which gathers them.

    Norms, rotary embedding and gate are those of our Triton kernels where these run, else torch's own.
    """
    if chosen.name == "sdpa":
        return None
    module: ModuleType = torch_kernels
    if why_no_triton(dtype, device, heads.head_dim) is None:
        from helix_kit.runtime.worker import triton_kernels

        module = triton_kernels
    if chosen.name == "flashinfer":
        return StepKernels(module, flashinfer.make_attention(dtype, device, heads))
    if chosen.name == "varlen":
        op = varlen.torch_op()
        assert op is not None, "why_unavailable has refused a torch without it"
        return StepKernels(module, varlen.make_attention(op, deterministic=deterministic))
    return StepKernels(module)


def choose_attention(
    attention: str,
    dtype: torch.dtype,
    device: torch.device,
    *,
    head_dim: int,
    changed: ChangedScores | None = None,
    deterministic: bool = False,
) -> ChosenAttention:
    """The attention that `attention` asks for. ``auto`` takes the first that can be used, in the order of `ATTENTION`.

    `changed` is what layers do to their scores, which the kernels do not compute. `deterministic` leaves out what
    computes a request differently when others are in the batch.

    Raises
    ------
    InputError
        What is asked for by name cannot be used, or nothing can that is deterministic.
    """
    check_attention(attention)
    if device.type == "cpu" and deterministic:
        raise _not_deterministic("this worker computes on a CPU")
    if device.type == "cpu" and attention == "auto":
        return ChosenAttention("sdpa")
    reasons: list[str] = []
    for name, why in OBSTACLES.items():
        if attention not in (name, "auto"):
            continue
        if changed is not None:
            reason: str | None = f"its kernels compute no {changed.words}, which the model's layers have"
        elif deterministic and name not in DETERMINISTIC:
            reason = "it computes a request differently when others are in the batch"
        else:
            reason = why(dtype, device, head_dim)
        if reason is None:
            if attention == name:
                return ChosenAttention(name)
            return ChosenAttention(name, "; ".join(["auto", *reasons]))
        if attention == name:
            expected = "triton, varlen" if deterministic else "sdpa"
            raise InputError(f"{reason}; expected {expected} or auto", field="attention", value=attention)
        reasons.append(f"no {name}: {reason}")
    if changed is not None:
        reasons = [f"the kernels for GPUs compute no {changed.words}"]
    if not deterministic:
        return ChosenAttention("sdpa", "" if attention == "sdpa" else "; ".join(["auto", *reasons]))
    if attention == "sdpa":
        reasons = ["sdpa computes a request differently when others are in the batch"]
    raise _not_deterministic("; ".join(reasons))


def _not_deterministic(reason: str) -> InputError:
    expected = "expected a GPU on which --attention triton or varlen runs"
    return InputError(f"{reason}: {expected}", field="deterministic", value=True)


def check_deterministic(*, has_experts: bool, has_ranks: bool) -> None:
    """Raises InputError for a model or a division of it whose results depend on the other rows of a step."""
    if has_experts:
        reason = "the rows of a step that take the same expert are one product, whose rounding depends on their number"
    elif has_ranks:
        reason = "GPUs that share each layer add up their results in an order that depends on a row's place in a step"
    else:
        return
    raise InputError(f"{reason}: this is not offered for it", field="deterministic", value=True)
