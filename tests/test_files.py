"""Files of users: what YAML and JSON mean, and what an error says."""

from __future__ import annotations

import codecs
import errno
import gzip
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helix_kit import Cluster, InputError, Plan
from helix_kit._files import exists, read_json, read_text, read_yaml, unknown, validate, write_result, write_yaml
from helix_kit.cluster import load_cluster
from helix_kit.model import load_model

CLUSTER = """name: t
coordinator: {region: us}
nodes:
  - {gpu: L4, count: 2, region: us}
network:
  within_region: {bandwidth_gbps: 10, latency_ms: 1}
"""


def load(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Cluster.load(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("010", 10), ("0o10", 8), ("1:30", "1:30"), ("1e3", 1000.0), ("no", "no"), ("on", "on"), ("y", "y"),
        ("true", True), ("null", None), ("'1e3'", "1e3"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(tmp_path, text, expected):
    path = tmp_path / "a.yaml"
    path.write_text(f"a: {text}\n")
    value = read_yaml(path)["a"]
    assert value == expected and type(value) is type(expected)


def test_written_yaml_reads_back(tmp_path):
    data = {"z": 1, "no": "no", "t": "1:30", "o": "010", "nodes": [{"a": 1e-5, "b": None}, {"c": [1, 2]}], "e": "1e3"}
    path = tmp_path / "a.yaml"
    path.write_text(write_yaml(data))
    back = read_yaml(path)
    assert back == data and list(back) == list(data)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("network:", "nodes: []\nnetwork:"), r'c\.yaml:5: expected every key once.*"nodes"'),
        (("count: 2", "count: 2, count: 4"), r'c\.yaml:4: expected every key once.*"count"'),
        (("latency_ms: 1", "latency_ms: 1:30"), r"latency_ms = '1:30': expected a number without a unit$"),
        (("bandwidth_gbps: 10", "bandwidth_gbps: 10Gbps"), r"bandwidth_gbps = '10Gbps': expected a number"),
        (("gpu: L4", "gpu: RTX 4090"), r"nodes\[0\]\.gpu: unknown GPU 'RTX 4090': did you mean RTX4090\?"),
        (("gpu: L4", "gpu: l4"), r"nodes\[0\]\.gpu: unknown GPU 'l4': did you mean L4\?"),
        (("gpu: L4", "gpu: 4090"), r"nodes\[0\]\.gpu = 4090: expected text[^;]*$"),
        (("count: 2", "gpu_per_node: 2"), r"gpu_per_node = 2: unknown field: did you mean gpus_per_node\?$"),
        (("count: 2", "gpus_per_node: true"), r"gpus_per_node = True: expected a whole number$"),
        (("count: 2", "name: rack1/0"), r"nodes\[0\]\.name = 'rack1/0': expected letters a to z, digits[^;]*$"),
        (("name: t\n", ""), r"c\.yaml: name: missing field$"),
        (("- {gpu", "\t- {gpu"), r"c\.yaml:4: not valid YAML"),
    ],
)
def test_one_fault_is_one_problem_with_file_field_and_value(tmp_path, change, expected):
    assert change[0] in CLUSTER
    with pytest.raises(InputError, match=expected):
        load(tmp_path, CLUSTER.replace(*change, 1))


def test_a_region_without_a_coordinator_is_one_problem(tmp_path):
    text = CLUSTER.replace("coordinator: {region: us}\n", "").replace("region: us", "region: us east")
    with pytest.raises(InputError, match=r"nodes\[0\]\.region = 'us east'[^;]*$"):
        load(tmp_path, text.replace(", count: 2", ""))


def test_empty_nodes_are_a_problem_of_their_own(tmp_path):
    with pytest.raises(InputError, match=r"nodes: expected at least one entry$"):
        load(tmp_path, CLUSTER.replace("  - {gpu: L4, count: 2, region: us}", "  []"))


@pytest.mark.parametrize(
    "links",
    [
        "[{between: [L4-0, L4-1], bandwidth_gbps: 1}, {between: [L4-1, L4-0], bandwidth_gbps: 2}]",
        "[{between: [L4-0, L4-1], bandwidth_gbps: 1}, {source: L4-1, target: L4-0, bandwidth_gbps: 2}]",
        "[{source: L4-1, target: L4-0, bandwidth_gbps: 2}, {source: L4-1, target: L4-0, bandwidth_gbps: 2}]",
    ],
)
def test_a_link_stands_once(tmp_path, links):
    with pytest.raises(InputError, match=r"network\.links\[1\]: the link L4-[01] -> L4-[01] stands in links\[0\] too"):
        load(tmp_path, f"{CLUSTER}  links: {links}\n")


def test_the_two_directions_of_a_link_may_differ(tmp_path):
    links = "[{source: L4-1, target: L4-0, bandwidth_gbps: 2}, {source: L4-0, target: L4-1, bandwidth_gbps: 3}]"
    cluster = load(tmp_path, f"{CLUSTER}  links: {links}\n")
    assert cluster.link("L4-1", "L4-0").bandwidth_gbps == 2 and cluster.link("L4-0", "L4-1").bandwidth_gbps == 3


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    assert load(tmp_path, b"\xef\xbb\xbf" + CLUSTER.replace("\n", "\r\n").encode()) == load(tmp_path, CLUSTER)


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_utf_16_is_read_where_its_mark_says_so(tmp_path, mark):
    """As PowerShell 5 writes what a command prints."""
    encoding = "utf-16-le" if mark == codecs.BOM_UTF16_LE else "utf-16-be"
    assert load(tmp_path, mark + CLUSTER.replace("\n", "\r\n").encode(encoding)) == load(tmp_path, CLUSTER)
    with pytest.raises(InputError, match="expected text in UTF-8"):
        load(tmp_path, mark + b"\xd8")


def test_a_pipe_is_read_once(tmp_path):
    """As `helix-kit plan <(make-cluster)` gives it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as threads:
        written = threads.submit(pipe.write_text, CLUSTER)
        assert read_text(pipe) == CLUSTER
        written.result()


def test_a_result_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path, link = tmp_path / "plan.json", tmp_path / "latest.json"
    link.symlink_to(path)
    write_result(link, "first")
    assert path.read_text() == "first" and link.is_symlink()

    def full(self, content):
        Path.touch(self)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space") as raised:
        patch.setattr(Path, "write_bytes", full)
        write_result(path, "second")
    assert raised.value.filename == str(path)  # a full disk names no file by itself
    assert path.read_text() == "first" and {p.name for p in tmp_path.iterdir()} == {"plan.json", "latest.json"}


def test_ctrl_c_leaves_no_half_of_a_result(tmp_path, monkeypatch):
    path = tmp_path / "rows.csv"
    path.write_text("before")

    def press(self, content):
        Path.touch(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "write_bytes", press)
        write_result(path, b"after")
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_result_is_written_into_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as threads:
        read = threads.submit(pipe.read_text)
        write_result(pipe, "the result")
        assert read.result() == "the result"
    assert pipe.is_fifo()


def test_yaml_that_is_nested_too_deeply_is_refused_with_the_file(tmp_path):
    with pytest.raises(InputError, match=r"\.yaml: not valid YAML here: it is nested too deeply"):
        load(tmp_path, "name: " + "[" * 600)


def test_tags_of_programming_languages_are_refused(tmp_path):
    with pytest.raises(InputError, match="tag"):
        load(tmp_path, "name: !!python/object/apply:os.system ['true']\n")


def test_json_keys_stand_once_and_faults_have_a_line(tmp_path, overlapping_plan):
    path = tmp_path / "plan.json"
    path.write_text('{"a": 1, "b": {"c": 1, "c": 2}}')
    with pytest.raises(InputError, match=r"plan\.json: c: expected every key once"):
        read_json(path)
    path.write_text('{"a": 1,\n "b": }')
    with pytest.raises(InputError, match=r"plan\.json:2: not valid JSON"):
        read_json(path)
    text = overlapping_plan.to_json()
    path.write_text(text.replace('"method":', '"method": "x", "method":', 1))
    with pytest.raises(InputError, match="method: expected every key once"):
        Plan.load(path)
    assert json.loads(text) == json.loads(overlapping_plan.to_json())


def test_names_that_no_file_can_have(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: x")
    for path in (tmp_path / "mine.yaml" / "x.yaml", tmp_path / f"{'a' * 300}.yaml"):
        with pytest.raises(InputError, match="cannot be read as text"):
            read_text(path)
    for name in ("a" * 5000, "a\0b"):
        assert not exists(name)
        with pytest.raises(InputError, match="unknown cluster preset"):
            load_cluster(name)
        with pytest.raises(InputError, match="unknown model preset"):
            load_model(name)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_text(tmp_path / "nothing.yaml")
    with pytest.raises(InputError, match="cannot be read as text"):
        read_text(tmp_path)


def test_content_that_is_no_mapping_is_refused():
    with pytest.raises(InputError, match=r"f\.yaml: content = 'x': expected a mapping"):
        validate(Cluster, "x", "f.yaml")


@pytest.mark.parametrize(
    ("name", "hint"), [("a100-40g", "did you mean A100-40G? "), ("L 4", "did you mean L4? "), ("zzzz", "")]
)
def test_near_misses_come_first(name, hint):
    assert unknown("GPU", name, ["L4", "A100-40G", "L4"]) == f"unknown GPU {name!r}: {hint}Known: A100-40G, L4"


@pytest.mark.parametrize(
    ("text", "words"),
    [("[" * 200_000, "nested too deeply"), ('{"a": ' + "1" * 5000 + "}", "digits"), ("", "not valid JSON")],
)
def test_json_that_python_cannot_take_is_refused_with_the_file(tmp_path, text, words):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_json(path)
    assert "plan.json" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"), [(gzip.compress(b"a,b\n", mtime=0), "gzip"), (b"PK\x03\x04\x80\x81", "zip archive")]
)
def test_a_packed_file_is_named(tmp_path, content, words):
    path = tmp_path / "trace.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_json(path)
