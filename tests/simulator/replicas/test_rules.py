"""The rules of a replica against queueing theory, a plain LRU cache, and sums that must come out."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

from helix_kit.workload.request import Request
from helix_kit.workload.workload import Workload


def poisson(rate_per_s, count, seed, input_tokens=1, output_tokens=1):
    arrivals = np.random.default_rng(seed).exponential(1 / rate_per_s, count).cumsum()
    return [Request(i, float(t), input_tokens, output_tokens) for i, t in enumerate(arrivals)]


def test_batches_of_one_are_a_queue_with_constant_service(make_replica):
    """M/D/1: the mean wait is rho s / (2 (1 - rho)) (Pollaczek and Khinchine)."""
    requests = poisson(0.7, 60_000, 1)
    _, queue = make_replica(requests, fixed_s=1.0, max_num_seqs=1)
    waits = queue.records["finished"] - queue.records["arrival"] - 1.0
    assert waits.mean() == pytest.approx(0.7 / (2 * (1 - 0.7)), rel=0.05)


def test_batches_of_one_are_a_queue_with_general_service(make_replica):
    """M/G/1 with answers of 1 or 4 tokens of 0.2 s each: the mean wait is rate E[s^2] / (2 (1 - rho))."""
    rng = np.random.default_rng(3)
    requests = poisson(1.2, 20_000, 2)
    requests = [
        Request(r.id, r.arrival_s, 1, int(n)) for r, n in zip(requests, rng.choice([1, 4], 20_000), strict=True)
    ]
    _, queue = make_replica(requests, fixed_s=0.2, max_num_seqs=1)
    service = 0.2 * queue.records["output"]
    waits = queue.records["finished"] - queue.records["arrival"] - service
    rho = 1.2 * 0.5
    assert waits.mean() == pytest.approx(1.2 * (0.2**2 + 0.8**2) / 2 / (2 * (1 - rho)), rel=0.05)


def test_little(make_replica):
    """Requests in the system, sampled at fixed times, are the rate times the mean stay (Little's law)."""
    requests = poisson(5.0, 5_000, 4, input_tokens=30, output_tokens=20)
    _, queue = make_replica(requests, fixed_s=0.01, token_s=0.0005)
    arrived, finished = queue.records["arrival"], queue.records["finished"]
    moments = np.linspace(10.0, 900.0, 4_000)
    inside = [(np.count_nonzero(arrived <= t) - np.count_nonzero(finished <= t)) for t in moments]
    assert np.mean(inside) == pytest.approx(5.0 * (finished - arrived).mean(), rel=0.05)


def test_an_asynchronous_engine_takes_a_request_one_step_later(make_replica):
    """With a step of 1 s that begins at 0 and the next one put together at once, a request of 0.5 s joins the third."""
    requests = [Request(0, 0.0, 1, 10), Request(1, 0.5, 1, 1)]
    _, queue = make_replica(requests, fixed_s=1.0, asynchronous=True)
    assert queue.records["finished"].tolist() == [10.0, 3.0]
    _, queue = make_replica(requests, fixed_s=1.0)
    assert queue.records["finished"].tolist() == [10.0, 2.0]


def test_stages_work_on_several_steps_at_the_same_time(make_replica):
    """Two stages of 1 s and hops of 0.25 s: a token takes 2.5 s, and steps of one request each do not wait."""
    requests = [Request(0, 0.0, 1, 3), Request(1, 0.0, 1, 3)]
    _, queue = make_replica(requests, fixed_s=1.0, hop_s=0.25, stages=2, max_num_batched_tokens=1)
    assert queue.records["finished"].tolist() == pytest.approx([7.5, 8.5])


def test_prompts_are_cut_to_the_token_budget(make_replica):
    replica, queue = make_replica([Request(0, 0.0, 150, 1)], fixed_s=1.0)
    assert queue.records["finished"][0] == 3.0  # 64 + 64 + 22 tokens
    assert replica.state.stages["prefill_tokens"][0] == 150


def check_conservation(replica, queue):
    """Every token of every request came back once, in order, and all blocks are free again."""
    requests, times = replica.tokens
    assert np.bincount(requests, minlength=len(queue.records)).tolist() == queue.records["output"].tolist()
    assert (np.diff(times) >= 0).all()
    assert replica.record["free"] == replica.blocks
    assert (replica.state.blocks["users"] == 0).all()
    assert replica.record["waiting"] == replica.record["running"] == replica.record["flights"] == 0
    held = replica.state.block_of_key[replica.state.block_of_key >= 0]
    assert len(set(held.tolist())) == len(held)


@pytest.mark.parametrize("asynchronous", [True, False])
@pytest.mark.parametrize("blocks", [400, 30])
def test_nothing_is_lost_with_shared_blocks_and_few_of_them(make_replica, blocks, asynchronous):
    """30 blocks of 4 tokens are too few for what runs, so requests are preempted; they still get every token."""
    workload = Workload.shared_prompts(20.0, 30.0, groups=3, prompts_per_group=3, system_tokens=18, question_tokens=13,
                                       output_tokens=25)  # fmt: skip
    replica, queue = make_replica(list(workload), blocks=blocks, fixed_s=0.02, block_tokens=4, max_num_seqs=8,
                                  asynchronous=asynchronous)  # fmt: skip
    check_conservation(replica, queue)
    assert (replica.record["preemptions"] > 0) == (blocks == 30)
    assert replica.record["hit_tokens"] > 0
    assert replica.record["kv_peak"] <= blocks


def test_hits_are_those_of_a_plain_lru(make_replica):
    """One request at a time: its prompt's blocks are looked up in order, and what was used longest ago is forgotten.

    Blocks of an answer take room as well. Within a request the last block is forgotten first."""
    rng = np.random.default_rng(5)
    size, blocks = 4, 60
    prompts = rng.zipf(1.3, 600) % 12
    requests = [
        Request(i, 1000.0 * i, 8 + 4 * int(p) + 2, 5, prefix=((int(p) % 3, 8), (3 + int(p), 4 * int(p) + 2)))
        for i, p in enumerate(prompts)
    ]
    _, queue = make_replica(requests, blocks=blocks, fixed_s=0.1, block_tokens=size)
    cache: OrderedDict[object, None] = OrderedDict((("empty", i), None) for i in range(blocks))
    expected = []
    for request in requests:
        first, second = request.prefix
        content = [(first[0], i) for i in range(first[1])] + [(second[0], i) for i in range(second[1])]
        names = [tuple(content[: size * (i + 1)]) for i in range(len(content) // size)]
        hits = 0
        while hits < min(len(names), (request.input_tokens - 1) // size) and names[hits] in cache:
            hits += 1
        expected.append(hits * size)
        # The last token of the answer is never computed.
        wanted = -(-(request.input_tokens + request.output_tokens - 1) // size)
        used = [names[i] if i < len(names) else ("answer", request.id, i) for i in range(wanted)]
        for name in used[:hits]:
            del cache[name]
        for _ in used[hits:]:
            cache.popitem(last=False)
        # A prompt's last full block is computed anew where it ends the prompt, and then its older copy keeps the name.
        again = [name if name not in cache else ("copy", request.id, i) for i, name in enumerate(used)]
        for name in reversed(again):
            cache[name] = None
    assert queue.records["hit_tokens"].tolist() == expected
    assert sum(expected) > 0


def test_without_a_prefix_cache_there_are_no_hits(make_replica):
    workload = Workload.shared_prompts(5.0, 10.0)
    replica, queue = make_replica(list(workload), fixed_s=0.01, prefix_cache=False, blocks=4000)
    check_conservation(replica, queue)
    assert replica.record["hit_tokens"] == 0
