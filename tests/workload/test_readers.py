"""Readers: each format gives its requests, and faults are named with file, line and field."""

from __future__ import annotations

import pytest

from helix_kit.errors import InputError
from helix_kit.workload import Workload

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:16:01.0000000,879,0
"""
BURST = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,230,1317,Conversation log
118,GPT-4,417,0,417,Conversation log
"""
MOONCAKE = """{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}
{"timestamp": 3052, "input_length": 2322, "output_length": 3, "hash_ids": [0]}
"""


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("azure.csv", AZURE, [(0.0, 374, 44), (4.314579, 396, 109)]),
        ("burst.csv", BURST, [(0.0, 472, 18), (40.0, 1087, 230)]),
        ("mooncake.jsonl", MOONCAKE, [(0.0, 6758, 500), (3.052, 2322, 3)]),
    ],
)
def test_reads_each_format_and_leaves_out_failed_requests(tmp_path, name, text, expected):
    path = tmp_path / name
    path.write_text(text)
    rows = [(r.arrival_s, r.input_tokens, r.output_tokens) for r in Workload.from_trace(path)]
    assert [r[1:] for r in rows] == [e[1:] for e in expected]
    assert [r[0] for r in rows] == pytest.approx([e[0] for e in expected], abs=1e-6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no known trace format"),
        ("a,b,c\n1,2,3\n", "no known trace format"),
        ("arrival_s,input_tokens,output_tokens\n", "empty"),
        ("arrival_s,input_tokens,output_tokens\n1.0,many,3\n", "trace.csv:2: input_tokens = 'many'"),
        ("arrival_s,input_tokens,output_tokens\nnan,5,3\n", "trace.csv:2: arrival_s"),
        ("arrival_s,input_tokens,output_tokens\n1.0,5\n", "trace.csv:2"),
        ('{"timestamp": 1}\n', "trace.csv:1"),
    ],
)
def test_bad_traces_name_file_line_and_field(tmp_path, text, words):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        Workload.from_trace(path)
    assert words in str(error.value)
