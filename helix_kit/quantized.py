"""What layers weigh whose projections are rounded to few bits when they are loaded, as ``serve --quantize`` does.

A weight becomes a code of 4 or 8 bits. The weights of a group, which are neighbouring inputs of one output, share a
scale in float32 and a zero of 8 bits. Norms, biases, routers, the embedding and the output projection stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable

from helix_kit.errors import InputError
from helix_kit.layers import LayerKind, WeightFormat

METHODS = ("int4", "int8")
"""What weights can be rounded to when they are loaded."""
GROUPS = (128, 64, 32)
"""Sizes of groups: the largest that divides the inputs of a matrix is taken."""
SCALE_BITS, ZERO_BITS = 32, 8


def check_method(method: str) -> str:
    """The method, if there is one of this name.

    Parameters
    ----------
    method
        A name.

    Returns
    -------
    str
        The same.

    Raises
    ------
    InputError
        When it is none of `METHODS`.

    Examples
    --------
    >>> check_method("int4")
    'int4'
    """
    if method not in METHODS:
        raise InputError(f"expected one of {', '.join(METHODS)}", field="quantize", value=method)
    return method


def group_size(method: str, inputs: Iterable[int]) -> int:
    """The size of the groups of matrices with these inputs.

    Parameters
    ----------
    method
        One of `METHODS`, for errors.
    inputs
        Inputs of the matrices.

    Returns
    -------
    int
        Of the matrix with the smallest groups.

    Raises
    ------
    InputError
        When a matrix cannot be divided into groups.

    Examples
    --------
    >>> group_size("int4", [4096, 14336]), group_size("int4", [576, 1536])
    (128, 64)
    """
    sizes = sorted(set(inputs))
    for size in GROUPS:
        if all(width % size == 0 for width in sizes):
            return size
    expected = f"expected matrices whose inputs are a multiple of {GROUPS[-1]}"
    found = ", ".join(map(str, sizes))
    raise InputError(f"{expected}; this model's have {found}", field="quantize", value=method)


def rounded_format(method: str, inputs: Iterable[int]) -> WeightFormat:
    """How rounded weights are kept.

    Parameters
    ----------
    method
        One of `METHODS`.
    inputs
        Inputs of the model's matrices.

    Returns
    -------
    WeightFormat
        Products are computed in 16 bits, with expanded weights.

    Raises
    ------
    InputError
        For another method, or matrices that cannot be divided into groups.

    Examples
    --------
    >>> rounded_format("int4", [4096]).bits_per_weight, rounded_format("int8", [576]).bits_per_weight
    (4.3125, 8.625)
    """
    bits = int(check_method(method).removeprefix("int"))
    return WeightFormat(
        name=method, bits=bits, group_size=group_size(method, inputs), group_bits=SCALE_BITS + ZERO_BITS
    )


def rounded_kind(kind: LayerKind, form: WeightFormat, dtype_bytes: int) -> LayerKind:
    """A kind of layer whose projections are rounded.

    Parameters
    ----------
    kind
        As it is stored; it must know its `projection_params`.
    form
        How the rounded weights are kept.
    dtype_bytes
        Bytes of a weight that is not rounded.

    Returns
    -------
    LayerKind
        With fewer bytes of weights.

    Examples
    --------
    >>> kind = LayerKind(name="full", kv_bytes_per_token=1, params=1010, projection_params=1000, weight_bytes=2020)
    >>> rounded_kind(kind, rounded_format("int4", [128]), 2).weight_bytes
    559.0625
    """
    saved = dtype_bytes - form.bits_per_weight / 8
    experts = kind.experts
    if experts is not None:
        fewer = {"weight_bytes": experts.weight_bytes - (experts.projection_params or 0) * saved}
        experts = experts.model_copy(update=fewer)
    weight_bytes = kind.weight_bytes - (kind.projection_params or 0) * saved
    return kind.model_copy(update={"weight_bytes": weight_bytes, "experts": experts})


__all__ = ["GROUPS", "METHODS", "check_method", "group_size", "rounded_format", "rounded_kind"]
