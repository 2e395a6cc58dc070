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

from typing import Any, NamedTuple

from helix_kit.errors import InputError

BY_LENGTH = ("dynamic", "longrope")


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
        found = {cls._of_rope(config, rope) for rope in ropes_of(config).values()} - {None}
        if len(found) > 1:
            told = ", ".join(sorted(f"{one.kind} from {one.original_tokens} tokens on" for one in found if one))
            expected = f"expected one rotary variant that depends on the length, at one length, not {told}"
            raise InputError(expected, where=where, field="rope_parameters")
        return found.pop() if found else None

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
    """What transformers' `config` says of rotary embeddings, by type of attention; None: of all layers."""
    rope = config.rope_parameters or {}
    if "rope_type" in rope:
        return {None: rope}
    return {kind: part for kind, part in rope.items() if isinstance(part, dict)}
