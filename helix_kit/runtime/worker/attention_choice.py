"""Which attention a worker uses: our Triton kernels, FlashInfer, or torch's SDPA over gathered pages."""

from __future__ import annotations

import importlib.util

import torch

from helix_kit.errors import InputError
from helix_kit.runtime.spec import check_attention
from helix_kit.runtime.worker import flashinfer
from helix_kit.runtime.worker.changed_scores import ChangedScores

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


def choose_attention(
    attention: str,
    dtype: torch.dtype,
    device: torch.device,
    *,
    head_dim: int,
    changed: ChangedScores | None = None,
) -> str:
    """The attention that `attention` asks for: ``triton``, ``flashinfer`` or ``sdpa``.

    ``auto`` takes the first of them that can be used. One that is asked for by name and cannot be used raises
    InputError. `changed` is what layers do to their scores, which the kernels do not compute.
    """
    check_attention(attention)
    obstacles = {"triton": why_no_triton, "flashinfer": flashinfer.why_unavailable}
    for name, why in obstacles.items():
        if attention not in (name, "auto"):
            continue
        reason = why(dtype, device, head_dim)
        if changed is not None:
            reason = f"its kernels compute no {changed.words}, which the model's layers have"
        if reason is None:
            return name
        if attention == name:
            raise InputError(f"{reason}; expected sdpa or auto", field="attention", value=attention)
    return "sdpa"
