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


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("azure-trace", ["azure-trace"]),
        # The second shows measurements, and is left out while there are none.
        ("6.3", [n for n in ("single-cluster", "real-single-cluster") if n in catalogue.experiments()]),
        ("Section 6.8", ["problem-sizes", "ablations"]),
        ("§6.9", ["solver-quality", "convergence", "placement-methods"]),
        ("figure 5", ["azure-trace"]),
    ],
)
def test_a_section_of_the_paper_names_its_experiments(word, names):
    assert catalogue.experiments_of(word) == names


def test_a_chapter_stands_for_all_of_its_sections():
    assert {"single-cluster", "geo-distributed", "ablations"} <= set(catalogue.experiments_of("6"))
    with pytest.raises(InputError, match=r"no experiment of section 7\.1: expected one of 6\.3, 6\.4"):
        catalogue.experiments_of("7.1")
    with pytest.raises(InputError, match="did you mean azure-trace"):
        catalogue.experiments_of("azur-trace")
