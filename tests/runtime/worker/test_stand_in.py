"""Stand-in layers: the same answers on any pipeline, also with chunks, partial ranges and others in the step."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("torch")

import torch

from helix_kit.runtime.emulation import stand_in_weights
from helix_kit.runtime.weights.checkpoint import Checkpoint
from helix_kit.runtime.worker.kv_cache import BlockTable, PagePool
from helix_kit.runtime.worker.model_layers import RequestRows
from helix_kit.runtime.worker.stand_in import StandInLayers, answer

LAYERS = 9


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HELIX_KIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        return Checkpoint(stand_in_weights(LAYERS))


class Pipeline:
    """The stages [start, end) of one request, over workers that several requests share."""

    def __init__(self, workers: list[tuple[StandInLayers, PagePool]], stages: list[tuple[int, int, int]]) -> None:
        self.workers, self.stages = workers, stages
        self.tables = [BlockTable(end - start) for _, start, end in stages]
        self.position = 0

    def feed(self, tokens: list[int]) -> int:
        """The next token after `tokens`."""
        rows = self.workers[0][0].embed(torch.tensor(tokens, dtype=torch.int32))
        for (worker, start, end), table in zip(self.stages, self.tables, strict=True):
            layers, pool = self.workers[worker]
            table.grow(pool, len(tokens))
            [rows] = layers.run(pool, [RequestRows(table, rows, self.position, start, end)])
        self.position += len(tokens)
        return int(torch.argmax(self.workers[-1][0].logits(rows[-1:]), dim=-1))


def test_any_pipeline_and_any_chunks_give_the_answer(checkpoint: Checkpoint) -> None:
    workers = [(layers := StandInLayers(checkpoint, start, end), layers.new_pool(400)) for start, end in
               ((0, 4), (2, 7), (6, 9))]  # fmt: skip
    rng = random.Random(4)
    for stages in ([(0, 0, 4), (1, 4, 7), (2, 7, 9)], [(0, 0, 2), (1, 2, 6), (2, 6, 9)]):
        prompt = [rng.randrange(64) for _ in range(45)]
        pipeline = Pipeline(workers, stages)
        cut = rng.randrange(1, 44)
        pipeline.feed(prompt[:cut])
        found = [pipeline.feed(prompt[cut:])]
        while len(found) < 20:
            found.append(pipeline.feed(found[-1:]))
        assert found == answer(prompt, num_layers=LAYERS, new_tokens=20)
        for (worker, _, _), table in zip(stages, pipeline.tables, strict=True):
            table.release(workers[worker][1])
    # Pages that others have written before make no difference.
    assert all(pool.used == 0 for _, pool in workers)


def test_requests_in_one_step_do_not_mix(checkpoint: Checkpoint) -> None:
    """Decodes of the same layers are computed together, beside a chunk and a decode of fewer layers."""
    layers = StandInLayers(checkpoint, 0, LAYERS)
    pool = layers.new_pool(400)
    prompts = [[9, 8, 7], [3], [60, 2]]
    tables = [BlockTable(LAYERS) for _ in prompts]

    def rows_of(index: int, tokens: list[int], position: int) -> RequestRows:
        tables[index].grow(pool, len(tokens))
        return RequestRows(tables[index], layers.embed(torch.tensor(tokens)), position, 0, LAYERS)

    def tokens_of(batch: list[RequestRows]) -> list[int]:
        return [int(layers.logits(rows[-1:]).argmax()) for rows in layers.run(pool, batch)]

    first = tokens_of([rows_of(0, prompts[0], 0), rows_of(1, prompts[1], 0)])
    second = tokens_of([rows_of(0, first[:1], 3), rows_of(1, first[1:], 1), rows_of(2, prompts[2], 0)])
    assert [first[0], second[0]] == answer(prompts[0], num_layers=LAYERS, new_tokens=2)
    assert [first[1], second[1]] == answer(prompts[1], num_layers=LAYERS, new_tokens=2)
    assert second[2:] == answer(prompts[2], num_layers=LAYERS, new_tokens=1)


@pytest.mark.parametrize("wrong", ["a layer twice", "a layer left out", "another token before"])
def test_a_wrong_way_changes_the_answer(checkpoint: Checkpoint, wrong: str) -> None:
    workers = [(layers := StandInLayers(checkpoint, 0, LAYERS), layers.new_pool(100))]
    stages = {"a layer twice": [(0, 0, 5), (0, 4, 9)], "a layer left out": [(0, 0, 4), (0, 5, 9)]}
    prompt = [11, 12, 13] if wrong == "another token before" else [10, 12, 13]
    pipeline = Pipeline(workers, stages.get(wrong, [(0, 0, 9)]))
    found = [pipeline.feed(prompt)]
    while len(found) < 6:
        found.append(pipeline.feed(found[-1:]))
    assert found != answer([10, 12, 13], num_layers=LAYERS, new_tokens=6)
