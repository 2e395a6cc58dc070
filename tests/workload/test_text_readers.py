"""Files with texts, sessions and blocks: examples in the form that their tools document."""

from __future__ import annotations

import json

import pytest

from helix_kit import Workload
from helix_kit.errors import InputError


def written(folder, name, entries, *, as_list=False):
    path = folder / name
    path.write_text(json.dumps(entries) if as_list else "".join(json.dumps(e) + "\n" for e in entries))
    return path


def test_sharegpt(tmp_path):
    turns = [{"from": "human", "value": "a" * 40}, {"from": "gpt", "value": "b" * 81}, {"from": "human", "value": "c"}]
    data = [{"id": "x1", "conversations": turns}, {"id": "x2", "conversations": turns[:1]}, {"conversations": turns}]
    load = Workload.from_trace(written(tmp_path, "sharegpt.json", data, as_list=True))
    assert [(r.input_tokens, r.output_tokens, r.session) for r in load] == [(10, 21, "x1"), (10, 21, None)]
    assert load[0].prompt == "a" * 40 and load.rate_per_s == 1.0
    assert any("1 conversations" in note for note in load.notes) and any("no times" in note for note in load.notes)
    assert load.scaled(4.0)[1].prompt == "a" * 40 and load.scaled(4.0).rate_per_s == pytest.approx(4.0)


def test_vllm_custom(tmp_path):
    load = Workload.from_trace(written(tmp_path, "d.jsonl", [{"prompt": "Hello, world", "output_tokens": 7},
                                                             {"prompt": "Hello"}]))  # fmt: skip
    assert [(r.input_tokens, r.output_tokens) for r in load] == [(3, 7), (2, 256)]


def test_aiperf_single_and_multi_turn(tmp_path):
    rows = [{"text": "abcd", "timestamp": 500, "output_length": 3}, {"texts": ["abcdefgh"], "timestamp": 2500}]
    single = Workload.from_trace(written(tmp_path, "s.jsonl", rows))
    assert [r.arrival_s for r in single] == [0.0, 2.0] and single[1].input_tokens == 2
    turns = [{"text": "abcd", "timestamp": 1000}, {"text": "efgh", "delay": 3000}]
    multi = Workload.from_trace(written(tmp_path, "m.jsonl", [{"session_id": "q", "turns": turns}]))
    assert [(r.arrival_s, r.session, r.prompt) for r in multi] == [(0.0, "q", "abcd"), (3.0, "q", "efgh")]


def test_mooncake_keeps_its_blocks(tmp_path):
    rows = [{"timestamp": 0, "input_length": 1000, "output_length": 5, "hash_ids": [1, 2]},
            {"timestamp": 3000, "input_length": 1500, "output_length": 5, "hash_ids": [1, 2, 9]}]  # fmt: skip
    load = Workload.from_trace(written(tmp_path, "mooncake.jsonl", rows))
    assert [r.prefix for r in load] == [((1, 512), (2, 488)), ((1, 512), (2, 512), (9, 476))]
    assert load.limited(max_input=1200)[0].prefix == load[0].prefix


@pytest.mark.parametrize("tokens, hashes, each", [(1000, 2, 512), (40, 3, 16), (100, 5, 20)])
def test_blocks_of_other_formats_are_as_long_as_fits(tmp_path, tokens, hashes, each):
    row = {"at": 0, "in": tokens, "out": 5, "hash_ids": list(range(hashes))}
    columns = {"arrival": "at", "input": "in", "output": "out"}
    [request] = Workload.from_trace(written(tmp_path, "own.jsonl", [row]), columns=columns)
    assert [n for _, n in request.prefix] == [min(each, tokens - each * i) for i in range(hashes)]


def test_bailians_conversations(tmp_path):
    def turn(chat, parent, at):
        return {"chat_id": chat, "parent_chat_id": parent, "timestamp": at, "input_length": 20, "output_length": 5,
                "type": "text", "turn": 1, "hash_ids": [chat]}  # fmt: skip

    load = Workload.from_trace(written(tmp_path, "qwen.jsonl", [turn(7, -1, 0), turn(8, 7, 1), turn(9, 8, 2),
                                                                turn(3, -1, 3)]))  # fmt: skip
    assert [r.session for r in load] == ["7", "7", "7", "3"]


def test_azure_2024(tmp_path):
    path = tmp_path / "azure.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,2162,5\n"
                    "2024-05-10 00:00:02.009930+00:00,2399,6\n")  # fmt: skip
    load = Workload.from_trace(path)
    assert [(round(r.arrival_s, 6), r.input_tokens, r.output_tokens) for r in load] == [(0.0, 2162, 5), (2.0, 2399, 6)]


@pytest.mark.parametrize(
    "entry, words",
    [
        ({"prompt": 3}, "prompt = 3: expected a text"),
        ({"prompt": "x", "output_tokens": 0}, "output_tokens = 0"),
        ({"conversations": [3]}, "conversations"),
        ({"turns": 3}, "turns"),
        ({"text": "x", "timestamp": "now"}, "timestamp = 'now'"),
        ({"timestamp": 0, "input_length": 5, "output_length": 5, "hash_ids": ["a"]}, "hash_ids"),
    ],
)
def test_refusals_name_the_line(tmp_path, entry, words):
    with pytest.raises(InputError) as refused:
        Workload.from_trace(written(tmp_path, "bad.jsonl", [entry]))
    assert words in str(refused.value) and "bad.jsonl:1" in str(refused.value)
