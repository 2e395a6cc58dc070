"""The list of experiments is complete, in the paper's order, and says what each is."""

import pytest

from helix_kit.errors import InputError
from helix_kit.experiments.machinery import catalogue
from helix_kit.experiments.machinery.files import load
from helix_kit.experiments.machinery.recording import run_experiment
from helix_kit.experiments.machinery.registry import Context

pytest.importorskip("matplotlib")


def test_every_experiment_says_what_it_is():
    known = catalogue.experiments()
    assert next(iter(known)) == "worked-example"
    for name, entry in known.items():
        assert entry.title and entry.paper and entry.text, name
        assert all(other in known for other in entry.needs), name


def test_unknown_names_and_missing_results_are_said(tmp_path):
    with pytest.raises(InputError, match="azure-trace"):
        run_experiment("azur-trace", tmp_path, Context())
    with pytest.raises(InputError, match="helix-kit reproduce azure-trace"):
        load("azure-trace", tmp_path)
