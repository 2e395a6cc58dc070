"""Rotary frequencies that depend on the length: logits and tokens are those of `generate`, below, at and beyond it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from layer_chain import TOLERANCE, Chain, reference, unused_reference  # noqa: E402

from helix_kit.errors import InputError  # noqa: E402
from helix_kit.runtime import Engine, serve  # noqa: E402
from helix_kit.runtime.weights.checkpoint import Checkpoint  # noqa: E402
from helix_kit.runtime.weights.rotary_lengths import RotaryLengths  # noqa: E402
from helix_kit.runtime.weights.tiny import tiny_checkpoint, tiny_plan  # noqa: E402

ORIGINAL = 48
"""Tokens of the original context: the frequencies change behind it."""
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "original_max_position_embeddings": ORIGINAL,
    "short_factor": [1.0, 1.02, 1.05, 1.1, 1.2, 1.3, 1.4, 1.5],
    "long_factor": [1.2, 1.6, 2.2, 3.0, 4.0, 5.5, 7.0, 9.0],
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 6.0}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "longrope": (
        "phi3",
        {"original_max_position_embeddings": ORIGINAL, "rope_parameters": LONGROPE, "max_position_embeddings": 256},
    ),
    "dynamic": ("llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": ORIGINAL}),
}
LAYERS = {"a": (0, 4), "b": (2, 6)}
PROMPTS = (20, 30, ORIGINAL, ORIGINAL + 1, 70)
"""With 22 new tokens the first stays within the original context, the second grows beyond it, the last begin there."""
NEW_TOKENS = 22


@pytest.fixture(scope="module", params=MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family, settings = MODELS[request.param]
    return tiny_checkpoint(tmp_path_factory.mktemp(request.param), family, seed=3, **settings)


def prompt_of(tokens: int) -> list[int]:
    return torch.randint(3, 250, (tokens,), generator=torch.Generator().manual_seed(tokens)).tolist()


def generated(folder: Path, prompt: list[int], new_tokens: int = NEW_TOKENS) -> Any:
    """The answer of `generate`, with its logits."""
    return unused_reference(folder).generate(
        torch.tensor([prompt]), max_new_tokens=new_tokens, do_sample=False, eos_token_id=None, pad_token_id=0,
        output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip


def answers(folder: Path, prompts: list[list[int]], new_tokens: int = NEW_TOKENS) -> list[list[int]]:
    return [generated(folder, one, new_tokens).sequences[0, len(one) :].tolist() for one in prompts]


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    """Two workers, the second of which is entered in the middle of its range."""
    with serve(tiny_plan(folder, LAYERS), folder, launcher="inproc", pace=False, chunk_tokens=16) as running:
        yield running


def test_logits_of_an_answer_that_grows_beyond_the_original_context(folder: Path) -> None:
    """Step by step over two workers. Where keys change, the sequence so far is computed again, as another request."""
    prompt = prompt_of(ORIGINAL - 3)
    answer = generated(folder, prompt, 8)
    sequence, lengths = answer.sequences[0], Checkpoint(folder).rotary_lengths
    assert lengths is not None
    chain = Chain(folder)
    rows, attempt, known = [], 0, 0
    for length in range(len(prompt), len(sequence)):
        end = lengths.end_of_attempt(chain.rotary_tokens.get(attempt, 0)) if known else None
        if known == 0 or (end is not None and length - 1 >= end):
            attempt, known = attempt + 1, 0
            chain.rotary_tokens[attempt] = lengths.attempt_tokens(len(prompt), length)
        rows.append(chain.step([(attempt, 3, sequence[known:length])])[attempt][-1])
        known = length
    assert attempt == (2 if lengths.kind == "longrope" else 1)
    ours, theirs = torch.stack(rows), torch.cat(answer.logits)
    assert theirs.std() > 0.1
    assert float((ours - theirs).abs().max()) <= TOLERANCE


def test_the_two_sides_differ(folder: Path) -> None:
    """Otherwise the other tests would show nothing: with frequencies of a short sequence, logits are others."""
    prompt, chain = torch.tensor(prompt_of(70)), Chain(folder)
    chain.rotary_tokens = {1: 70, 2: 0}
    ours, wrong = (chain.step([(request, 3, prompt)])[request][-1] for request in (1, 2))
    theirs = generated(folder, prompt.tolist(), 1).logits[0][0]
    assert float((ours - theirs).abs().max()) <= TOLERANCE < float((wrong - theirs).abs().max())


def test_requests_of_all_lengths_are_served_together(engine: Engine, folder: Path) -> None:
    """Prompts in chunks beside decodes, and a second time from the prefix cache, which has each prompt already."""
    prompts = [prompt_of(tokens) for tokens in PROMPTS]
    expected = answers(folder, prompts)
    for _ in range(2):
        found = engine.generate(prompts, max_new_tokens=NEW_TOKENS, ignore_eos=True)
        assert [one.token_ids for one in found] == expected
    assert engine.status().cached_tokens > 0


def test_requests_share_no_blocks_that_were_computed_for_another_length(engine: Engine, folder: Path) -> None:
    """The first 16 or 32 tokens are equal, so their blocks would be found if only tokens counted."""
    engine.reset_prefix_cache()
    long = prompt_of(90)
    prompts = [long[:40], long[:60], long, long[:61], long[:40]]
    records = []
    for prompt, expected in zip(prompts, answers(folder, prompts, 6), strict=True):
        answer = engine.generate(prompt, max_new_tokens=6, ignore_eos=True)
        assert answer.token_ids == expected
        records.append(answer.record.cached_tokens)
    lengths = engine.checkpoint.rotary_lengths
    assert lengths is not None
    # Beyond the original context, all lengths share with longrope, none with dynamic.
    assert records == [0, 0, 48, 48, 32] if lengths.kind == "longrope" else [0, 0, 0, 0, 32]


def test_an_answer_goes_on_after_a_worker_was_lost(folder: Path) -> None:
    """It starts again with the tokens so far; dynamic frequencies are still those of its prompt."""
    prompts = [prompt_of(42), prompt_of(60)]
    expected = answers(folder, prompts, 40)
    with serve(tiny_plan(folder, LAYERS, step_ms=2.0), folder, launcher="inproc", pace=True) as engine:
        handles = [engine.submit(prompt, max_new_tokens=40, ignore_eos=True) for prompt in prompts]
        for handle in handles:
            pieces = iter(handle)
            for _ in range(10):  # the first has become longer than the original context
                next(pieces)
        requests = engine._coordinator.requests
        engine._coordinator.call(lambda: requests.start_again("b", was_lost=True))
        assert [handle.result().token_ids for handle in handles] == expected
        assert [handle.result().record.restarts for handle in handles] == [1, 1]


def test_pages_promised_for_some_tokens_at_a_time(folder: Path) -> None:
    """Answers without a limit, on a worker with pages for little more than one of them."""
    prompts = [prompt_of(40), prompt_of(44)]
    plan = tiny_plan(folder, {"a": (0, 6)}, kv_tokens_per_layer=128)
    with serve(plan, folder, launcher="inproc", pace=False) as engine:
        options = {"max_new_tokens": 30, "promise_tokens": 8, "ignore_eos": True}
        found = [one.token_ids for one in engine.generate(prompts, **options)]
    assert found == answers(folder, prompts, 30)


def test_other_families_equal_a_pass_over_the_whole_sequence(tmp_path: Path) -> None:
    """transformers computes keys anew at the change for Phi-3 alone; elsewhere its cache mixes both sets of them."""
    rope = {**LONGROPE, "factor": 4.0}
    folder = tiny_checkpoint(tmp_path, "llama", seed=3, rope_parameters=rope)
    prompt = prompt_of(40)
    model = reference(folder)
    expected = model.generate(
        torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None, use_cache=False
    )
    with serve(tiny_plan(folder, LAYERS), folder, launcher="inproc", pace=False) as engine:
        answer = engine.generate(prompt, max_new_tokens=NEW_TOKENS, ignore_eos=True)
    assert answer.token_ids == expected[0, len(prompt) :].tolist()


def changed(folder: Path, rope: dict[str, Any], **more: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    config |= {"rope_parameters": rope, **more}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_what_a_config_says(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "phi3", pad_token_id=0, tie_word_embeddings=False)
    assert Checkpoint(folder).rotary_lengths is None
    old = {"type": "yarn", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}  # as the first Phi-3 called it
    changed(folder, {}, rope_scaling=old, original_max_position_embeddings=64)
    assert Checkpoint(folder).rotary_lengths == RotaryLengths("longrope", 64)
    changed(folder, {**LONGROPE, "long_factor": [2.0] * 7}, rope_scaling=None)
    with pytest.raises(InputError, match=r"transformers cannot read it: .*long_factor"):
        _ = Checkpoint(folder).rotary_lengths


def test_layers_that_change_at_different_lengths_are_refused(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, "gemma3_text", max_position_embeddings=128)
    ropes = {"full_attention": LONGROPE, "sliding_attention": {**LONGROPE, "original_max_position_embeddings": 20}}
    changed(folder, ropes)
    with pytest.raises(InputError, match="not longrope from 20 tokens on, longrope from 48 tokens on"):
        _ = Checkpoint(folder).rotary_lengths
    changed(folder, {**ropes, "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}})
    assert Checkpoint(folder).rotary_lengths == RotaryLengths("longrope", 48)
