"""Which kernels keep their widgets: told by the last request of a real kernel, and end to end through nbconvert."""

from __future__ import annotations

from types import SimpleNamespace

import IPython
import pytest

from helix_kit.widgets import FlowGraph
from helix_kit.widgets.still import WIDGET_MIME, is_live


@pytest.fixture
def kernel(monkeypatch):
    """A stand-in for IPython in a kernel whose last request is `request["content"]`."""
    request = {"content": {}}
    shell = SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda channel: request))
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    monkeypatch.delenv("SERVER_SOFTWARE", raising=False)
    return request


def test_a_reader_who_may_type_keeps_the_widget(kernel, plan):
    kernel["content"] = {"allow_stdin": True}
    data, _ = FlowGraph(plan)._repr_mimebundle_()
    assert is_live() and WIDGET_MIME in data and "image/png" in data


def test_a_program_gets_the_picture_alone(kernel, plan):
    kernel["content"] = {"allow_stdin": False}
    data, metadata = FlowGraph(plan)._repr_mimebundle_()
    assert not is_live() and WIDGET_MIME not in data and "image/png" in data and "image/png" in metadata


def test_voila_is_live_although_it_cannot_type(kernel, monkeypatch, plan):
    kernel["content"] = {"allow_stdin": False}
    monkeypatch.setenv("SERVER_SOFTWARE", "voila/0.5")
    data, _ = FlowGraph(plan)._repr_mimebundle_()
    assert is_live() and WIDGET_MIME in data and "image/png" not in data, "no picture that nobody sees"


def test_outside_a_kernel_and_with_an_unknown_request_widgets_stay(kernel, monkeypatch):
    kernel["content"] = {}
    assert is_live()
    monkeypatch.setattr(IPython, "get_ipython", lambda: None)
    assert is_live()


def test_nbconvert_executes_and_the_page_has_the_flow_graph(tmp_path):
    nbconvert = pytest.importorskip("nbconvert", reason="needs the notebooks extra")
    import nbformat

    source = """
import helix_kit as hk
cluster = hk.Cluster.model_validate({"name": "pair", "nodes": [{"gpu": "L4", "count": 2}]})
problem = hk.Problem.of(cluster, hk.Model.preset("SmolLM2-135M"))
plan = hk.Plan.from_placement(problem, {"L4-0": (0, 15), "L4-1": (15, 30)}, method="hand")
plan.show()"""
    editor = """
from helix_kit.widgets import ClusterEditor
editor = ClusterEditor(cluster, "SmolLM2-135M", simulate=False)
editor.solve()
editor"""
    cells = [nbformat.v4.new_code_cell(text.strip()) for text in (source, editor)]
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernelspec})
    executed, _ = nbconvert.preprocessors.ExecutePreprocessor(timeout=120).preprocess(notebook)
    page, _ = nbconvert.HTMLExporter().from_notebook_node(executed)
    body = page[page.index("<body") :]
    assert body.count("data:image/png;base64") == 2, "plan.show(), and the editor's plan although it was being solved"
    assert "widget-view+json" not in body
