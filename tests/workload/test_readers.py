"""Readers: each format gives its requests, and faults are named with file, line and field."""

from __future__ import annotations

import json
import time

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


AZURE_ROWS = [("2023-11-16 18:15:46.6805900", 374, 44), ("2023-11-16 18:15:50.9951690", 396, 109)]


def azure(delimiter=",", end="\n", quote="", times=None):
    rows = [("TIMESTAMP", "ContextTokens", "GeneratedTokens"), *AZURE_ROWS]
    if times:
        rows = [rows[0], *((t, *row[1:]) for t, row in zip(times, AZURE_ROWS, strict=True))]
    return "".join(delimiter.join(f"{quote}{cell}{quote}" for cell in row) + end for row in rows)


def write(tmp_path, text, name="trace.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        azure(), azure(";"), azure("\t"), azure(end="\r\n"), azure(quote='"'), "\n\n" + azure(), azure() + "\n  \n,,\n",
        "# exported by a program, version 2\n" + azure(), b"\xef\xbb\xbf" + azure().encode(),
        azure(times=("2023-11-16T18:15:46.6805900Z", "2023-11-16T18:15:50.995169Z")),
        azure(times=("2023-11-16 18:15:46.68059+00:00", "2023-11-16 20:15:50.9951690+02:00")),
        ",".join(("", "TIMESTAMP", "ContextTokens", "GeneratedTokens")) + "\n"
        + "".join(f"{i},{t},{a},{b}\n" for i, (t, a, b) in enumerate(AZURE_ROWS)),
        azure().replace("TIMESTAMP,ContextTokens", " Timestamp , CONTEXTTOKENS"),
    ],
)  # fmt: skip
def test_the_same_requests_however_the_file_was_exported(tmp_path, text):
    workload = Workload.from_trace(write(tmp_path, text))
    assert [(r.input_tokens, r.output_tokens) for r in workload] == [(374, 44), (396, 109)]
    assert [r.arrival_s for r in workload] == pytest.approx([0.0, 4.314579], abs=1e-6)


def test_times_without_an_offset_are_utc_wherever_the_program_runs(tmp_path, monkeypatch):
    """In Berlin clocks are put forward at 01:00 UTC of this day: local time would lose an hour."""
    path = write(tmp_path, azure(times=("2024-03-31 00:30:00.0000000", "2024-03-31 03:30:00.0000000")))
    gaps = []
    for zone in ("UTC", "Europe/Berlin", "America/New_York"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        gaps.append(Workload.from_trace(path)[1].arrival_s)
    monkeypatch.undo()
    time.tzset()
    assert gaps == [10_800.0] * 3


def jsonl(times, **more):
    return "".join(json.dumps({"timestamp": t, "input_length": 100, "output_length": 20, **more}) + "\n" for t in times)


@pytest.mark.parametrize("more", [{}, {"chat_id": 1}])
@pytest.mark.parametrize("scale", [1, 1000])
def test_the_unit_of_json_lines_is_the_plausible_one_and_is_said(tmp_path, more, scale):
    path = write(tmp_path, jsonl([3 * scale * i for i in range(50)], **more), "t.jsonl")
    workload = Workload.from_trace(path)
    assert workload.rate_per_s == pytest.approx(1 / 3)
    assert workload.notes[-1] == f"times are in {'s' if scale == 1 else 'ms'}"
    assert len(workload.notes) == (1 if (scale == 1) == bool(more) else 2), "a unit that is not the usual one is said"


def test_the_unit_can_be_given(tmp_path):
    path = write(tmp_path, jsonl([0, 3000, 6000]), "t.jsonl")
    assert [r.arrival_s for r in Workload.from_trace(path, time_unit="us")] == [0.0, 0.003, 0.006]
    with pytest.raises(InputError, match="time_unit = 'minutes': expected one of s, ms, us, ns"):
        Workload.from_trace(path, time_unit="minutes")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vidur.csv", "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,7,3\n2.5,8,4\n"),
        ("splitwise.csv", "request_id,arrival_timestamp,batch_size,prompt_size,token_size\n0,0.5,1,7,3\n1,2.5,1,8,4\n"),
        (
            "llmservingsim.jsonl",
            '{"input_toks": 7, "output_toks": 3, "arrival_time_ns": 0}\n'
            '{"input_toks": 8, "output_toks": 4, "arrival_time_ns": 2000000000}\n',
        ),
        (
            "list.json",
            '[{"timestamp": 0, "input_length": 7, "output_length": 3},\n'
            '{"timestamp": 2000, "input_length": 8, "output_length": 4}]',
        ),
    ],
)
def test_traces_of_other_simulators_are_read(tmp_path, name, text):
    workload = Workload.from_trace(write(tmp_path, text, name))
    assert [(r.arrival_s, r.input_tokens, r.output_tokens) for r in workload] == [(0.0, 7, 3), (2.0, 8, 4)]


def test_columns_can_be_named(tmp_path):
    path = write(tmp_path, "ts;prompt;gen\n2024-05-10T00:00:01Z;7;3\n2024-05-10T00:00:03Z;8;4\n")
    columns = {"arrival": "TS", "input": "prompt", "output": "gen"}
    assert [(r.arrival_s, r.input_tokens) for r in Workload.from_trace(path, columns=columns)] == [(0.0, 7), (2.0, 8)]
    path = write(tmp_path, "ts,prompt,gen\n1000,7,3\n3000,8,4\n")
    assert [r.arrival_s for r in Workload.from_trace(path, columns=columns, time_unit="ms")] == [0.0, 2.0]
    with pytest.raises(InputError, match="columns = 'inputs': expected one of arrival, input, output"):
        Workload.from_trace(path, columns={"inputs": "prompt"})


def test_our_fields_may_stand_in_json_lines(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"arrival_s": 3, "input_tokens": 7, "output_tokens": 2, "prefix": "5:4"}\n')
    (request,) = Workload.from_trace(path)
    assert (request.arrival_s, request.input_tokens, request.output_tokens) == (3.0, 7, 2)
    assert request.prefix == ((5, 4),)


def test_a_trace_of_requests_without_tokens_is_not_called_empty(tmp_path):
    path = write(tmp_path, "arrival_s,input_tokens,output_tokens\n0,5,0\n")
    with pytest.raises(InputError, match="expected at least one request with input and output tokens"):
        Workload.from_trace(path)


def test_rows_left_out_are_counted(tmp_path):
    workload = Workload.from_trace(write(tmp_path, BURST))
    assert "1 row without input or output tokens is left out" in workload.notes
    assert workload.scaled(1.0).notes == workload[:1].notes == workload.notes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the trace is empty"),
        ("a,b,c\n1,2,3\n", "no known trace format"),
        ("arrival_s,input_tokens,output_tokens\n", "empty"),
        ("arrival_s,input_tokens,output_tokens\n1.0,many,3\n", "trace.csv:2: input_tokens = 'many'"),
        ("arrival_s,input_tokens,output_tokens\nnan,5,3\n", "trace.csv:2: arrival_s"),
        ("arrival_s,input_tokens,output_tokens\n1.0,5\n", "trace.csv:2: expected 3 columns, not 2"),
        ("arrival_s,input_tokens,output_tokens\n-1.0,5,3\n", "trace.csv:2: arrival_s = -1.0"),
        ("arrival_s,input_tokens,output_tokens\n1.0,inf,3\n", "trace.csv:2: input_tokens = 'inf'"),
        ("arrival_s,input_tokens,output_tokens\n1.0,1e400,3\n", "trace.csv:2: input_tokens = '1e400'"),
        ("arrival_s,input_tokens,output_tokens\n1.0,3,1e20\n", "trace.csv:2: output_tokens = '1e20'"),
        ("arrival_s,input_tokens,output_tokens\n1.0,5.5,3\n", "trace.csv:2: input_tokens = '5.5'"),
        ('arrival_s,input_tokens,output_tokens\n1.0,"5,3\n', "trace.csv:2: not valid CSV"),
        ("arrival_s,input_tokens,input_tokens,output_tokens\n1,5,6,3\n", "trace.csv:1: input_tokens: expected the col"),
        ('{"timestamp": 1}\n', "no known trace format"),
        ('{"timestamp": 1, "input_length": 2, "output_length": 3}\n{"timestamp": 2}\n', "trace.csv:2: missing field"),
        ('{"timestamp": null, "input_length": 2, "output_length": 3}\n', "trace.csv:1: timestamp"),
        ('{"timestamp": 1, "input_length": Infinity, "output_length": 3}\n', "trace.csv:1: input_length = inf"),
        ('{"timestamp": 1, "input_length": true, "output_length": 3}\n', "trace.csv:1: input_length = True"),
        ('{"timestamp": 1\n', "trace.csv:1: not valid JSON"),
        (
            '{"timestamp": 1, "timestamp": 9, "input_length": 2, "output_length": 3}\n',
            "trace.csv:1: timestamp: expected e",
        ),
        ('{"timestamp": ' + "[" * 100_000 + "\n", "trace.csv:1: not valid JSON here: it is nested too deeply"),
    ],
)
def test_bad_traces_name_file_line_and_field(tmp_path, text, words):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        Workload.from_trace(path)
    assert words in str(error.value)


@pytest.mark.parametrize(("unit", "scale"), [("s", 1), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)])
def test_times_of_a_clock_are_told_by_their_size(tmp_path, unit, scale):
    """1,700,000,000 s is November 2023; the three requests are 3 and 4 s apart in every unit."""
    path = tmp_path / "trace.csv"
    rows = "".join(f"{int((1_700_000_000 + t) * scale)},10,5\n" for t in (0, 3, 7))
    for header in ("arrival_s,input_tokens,output_tokens", "arrived_at,num_prefill_tokens,num_decode_tokens"):
        path.write_text(f"{header}\n{rows}")
        workload = Workload.from_trace(path)
        assert [r.arrival_s for r in workload] == pytest.approx([0, 3, 7], abs=1e-3)
        told = " ".join(workload.notes)
        assert ((unit == "s" or f"taken for {unit} since 1970" in told) and "1970" in told) or "arrived" in header


def test_a_time_that_no_clock_shows_is_refused(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n1e300,10,5\n")
    with pytest.raises(InputError, match=r"arrival_s = 1e\+300: expected times in seconds"):
        Workload.from_trace(path)
