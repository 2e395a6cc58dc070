"""Results show themselves by one line and a small table, whatever they hold."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

import helix_kit as hk
from helix_kit._summary import MAX_LISTED, counted, html_table, number, percent
from helix_kit.flow import Flow, Stage
from helix_kit.placement.served import Served, ServedRow
from helix_kit.scheduling import Topology
from helix_kit.simulator import Score
from helix_kit.workload.request import Request, RequestRecord

ODD_NAME = 'two\nlines <b>& "quotes"'


@pytest.fixture(scope="module")
def plan() -> hk.Plan:
    cluster = hk.Cluster.model_validate({"name": ODD_NAME, "nodes": [{"gpu": "L4", "count": 30}]})
    return hk.plan(cluster, hk.Model.preset("llama-30b"), method="proportional")


@pytest.fixture(scope="module")
def results(plan) -> list[object]:
    workload = hk.Workload.constant(rate_per_s=1.0, duration_s=500.0, input_tokens=700, output_tokens=200)
    records = [RequestRecord(request, outcome="finished", token_times_s=[1.0] * 300) for request in workload]
    rows = tuple(ServedRow(decode_tokens_per_s=i, placement=plan.placement) for i in range(50))
    served = Served(decode_tokens_per_s=3.0, mode="online", pareto=rows, progress=((0.0, 1.0),) * 500)
    with_served = plan.model_copy(update={"served": served})
    return [
        plan, with_served, plan.cluster, plan.model, plan.problem, plan.max_flow, workload, hk.Workload(()),
        hk.Run(records), hk.Run([]), records[0], served, rows[0], Score(), Flow(0.0, {}, {}, ()),
        next(iter(plan.profiles.values())), next(iter(plan.profiles.values())).decode_ms_per_layer,
        hk.Cluster.preset("geo24").network, Topology.of(plan),
        hk.Cluster.preset("geo24"), hk.Model.preset("llama2-70b"),
    ]  # fmt: skip


class Cells(HTMLParser):
    """The texts of a table's cells, and the tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.cells.append(data)


def test_every_result_is_one_short_line(results):
    for result in results:
        text = repr(result)
        assert "\n" not in text and len(text) < 300, text
        assert text.startswith(f"<{type(result).__name__}") and text.endswith(">")
        assert str(result) == text


def test_every_result_is_a_small_table_in_notebooks(results):
    for result in results:
        page = Cells(result._repr_html_())
        assert page.tags[0] == "table" and page.tags.count("tr") <= 10
        assert set(page.tags) <= {"table", "caption", "tr", "th", "td"}, "a user's name is no markup"


def test_the_line_of_a_plan_names_what_it_is_worth(plan):
    text = repr(plan)
    assert f"flow {plan.flow_tokens_per_s:,.1f} tokens/s" in text and "nodes 30 of 30" in text
    assert "method proportional" in text and "llama-30b on two lines" in text


def test_the_line_of_a_workload_has_the_rate_that_it_was_made_with():
    text = repr(hk.Workload.constant(rate_per_s=0.5, duration_s=100.0, input_tokens=700, output_tokens=200))
    assert "requests 50" in text and "arrivals 0.5 a second for 98 s" in text
    assert "mean input 700.0 tokens" in text and "mean output 200.0 tokens" in text


def test_a_pipeline_of_nodes_is_named_in_a_completion():
    handle = pytest.importorskip("helix_kit.runtime.handle")
    record = RequestRecord(Request(0, 1.0, 3, 2), first_token_s=1.5, token_times_s=[1.5, 1.75])
    answer = handle.Completion("word " * 1000, [1, 2], 3, "length", (Stage("a", 0, 6), Stage("b", 6, 8)), record)
    assert len(repr(answer)) < 300 and "nodes a -> b" in repr(answer) and "decode latency 0.25 s" in repr(answer)


def test_an_object_that_is_not_complete_can_still_be_shown():
    assert "Plan object" in repr(hk.Plan.model_construct())
    assert "Run object" in repr(hk.Run.__new__(hk.Run))
    model = hk.Model.preset("llama-30b")
    assert "Problem object" in repr(hk.Problem(hk.Cluster.preset("laptop"), model, {}, {}))


def test_numbers_as_people_write_them():
    assert [number(x) for x in (None, 0.0, 12345.67, 99.94, float("inf"))] == ["-", "0", "12,345.7", "99.9", "inf"]
    assert [percent(x) for x in (0.5, 0.0312, 12.0, float("inf"))] == ["50.0 %", "3.12 %", "1,200 %", "inf %"]


def test_long_lists_are_cut():
    counts = {f"kind{i}": 2 for i in range(MAX_LISTED + 4)}
    text = counted(counts)
    named = sum(int(n) for n in re.findall(r"(\d+) kind", text))
    rest = int(re.search(r"(\d+) of 4 other", text).group(1))
    assert named + rest == sum(counts.values())
    assert counted(dict.fromkeys("abcdefg", 1)) == "1 a, 1 b, 1 c, 1 d, 1 e, 1 f, 1 g", "one more is named, too"


def test_tables_escape_what_they_show():
    assert "&lt;x&gt;" in html_table([("<x>", "<y>")], head=("<z>", ""), caption="<c>")
