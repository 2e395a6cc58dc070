"""Rotary variants whose frequencies depend on the length of a sequence: ``dynamic`` and ``longrope``.

Both are computed as transformers' `generate` computes them, for each request by itself:

* ``longrope`` (Phi-3, Phi-4-mini) has two sets of frequencies. Sequences that are longer than the original context take
  the long set, for all of their positions. When an answer grows beyond that length, keys that were computed before do
  not fit any more, so the request starts again: prompt and answer so far are computed anew.
* ``dynamic`` stretches the frequencies by the length. A prompt beyond the original context takes those of its own
  length, a token after the prompt those of the length that the sequence has with it. Keys stay as they were computed.

So a row of a request needs one number, the tokens of the sequence that its frequencies are for: those of the attempt
(`attempt_tokens`), or its position plus one where that is more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from helix_kit.errors import InputError

BY_LENGTH = ("dynamic", "longrope")
"""Rotary variants whose frequencies depend on the length, as transformers names them."""
_FIRST_NAMES = ("su", "yarn")
"""Names of `longrope` in the first checkpoints of Phi-3."""


class RotaryLengths(NamedTuple):
    """How the frequencies of a model depend on the length of a sequence."""

    kind: str
    """One of `BY_LENGTH`."""
    original_tokens: int
    """Sequences of up to this many tokens have the frequencies of training."""

    @classmethod
    def of(cls, config: Any, where: object) -> RotaryLengths | None:
        """What transformers' `config` says; None where frequencies do not depend on the length.

        Raises InputError, which says `where`, for layer types that change at different lengths.
        """
        variants = {cls._of_rope(config, rope) for rope in ropes_of(config).values()} - {None}
        if len(variants) > 1:
            listed = ", ".join(sorted(f"{v.kind} from {v.original_tokens} tokens on" for v in variants if v))
            expected = f"expected one rotary variant that depends on the length, at one length, not {listed}"
            raise InputError(expected, where=where, field="rope_parameters")
        return variants.pop() if variants else None

    @classmethod
    def _of_rope(cls, config: Any, rope: dict[str, Any]) -> RotaryLengths | None:
        kind = rope.get("rope_type")
        if kind not in BY_LENGTH:
            return None
        # transformers scales `dynamic` from the positions of the config, whatever else the config names.
        original = config.max_position_embeddings if kind == "dynamic" else rope["original_max_position_embeddings"]
        return cls(kind, int(original))

    def attempt_tokens(self, prompt_tokens: int, context_tokens: int) -> int:
        """Tokens of the sequence that rows of an attempt are computed for, at least.

        The attempt begins with `context_tokens`: the prompt, and the answer so far.

        >>> RotaryLengths("dynamic", 16).attempt_tokens(20, 25), RotaryLengths("longrope", 16).attempt_tokens(12, 25)
        (20, 25)
        """
        return prompt_tokens if self.kind == "dynamic" else context_tokens

    def end_of_attempt(self, attempt_tokens: int) -> int | None:
        """Position of the first token that needs other keys than the attempt has; None if there is none.

        >>> RotaryLengths("longrope", 16).end_of_attempt(12), RotaryLengths("longrope", 16).end_of_attempt(17)
        (16, None)
        """
        return self.original_tokens if self.kind == "longrope" and attempt_tokens <= self.original_tokens else None

    def root(self, attempt_tokens: int) -> bytes:
        """Stands before the blocks of an attempt: attempts with another root have other keys for the same tokens.

        >>> lengths = RotaryLengths("dynamic", 16)
        >>> lengths.root(9), lengths.root(16), lengths.root(20)
        (b'', b'', b'dynamic 20')
        """
        if attempt_tokens <= self.original_tokens:
            return b""
        return f"dynamic {attempt_tokens}".encode() if self.kind == "dynamic" else b"longrope"


def ropes_of(config: Any) -> dict[str | None, dict[str, Any]]:
    """Rotary parameters in transformers' `config`, by type of attention; None: of all layers."""
    rope = config.rope_parameters or {}
    if "rope_type" in rope:
        return {None: rope}
    return {kind: part for kind, part in rope.items() if isinstance(part, dict)}


def stored_rope_types(config: Mapping[str, Any], where: object) -> list[Any]:
    """Rotary variants that a checkpoint's config.json names, of all layers or of each type of layers (Gemma-3).

    Raises InputError, which says `where`, for a field that is not an object.

    >>> stored_rope_types({"model_type": "phi3", "rope_scaling": {"type": "su"}}, "config.json")
    ['default', 'longrope']
    """
    fields = []
    for name in ("rope_parameters", "rope_scaling"):
        fields.append(config.get(name) or {})
        if not isinstance(fields[-1], dict):
            raise InputError("expected an object with rope_type", where=where, field=name, value=fields[-1])
    ropes = [part for rope in fields for part in (rope, *rope.values()) if isinstance(part, dict)]
    kinds = [rope.get("rope_type", rope.get("type", "default")) for rope in ropes]
    return ["longrope" if config.get("model_type") == "phi3" and k in _FIRST_NAMES else k for k in kinds]
