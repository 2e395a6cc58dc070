"""Measured tables: read back as written, faults named with file, line and value."""

from __future__ import annotations

import csv

import pytest

from helix_kit._files import data_dir
from helix_kit.errors import InputError
from helix_kit.profiles import load_profiles, shipped_profiles


@pytest.mark.parametrize(
    ("file", "find", "replace", "expected"),
    [
        ("layer_times.csv", "T4,decode,2,7.1", "T4,decode,2,soon", "ms_per_layer = 'soon'"),
        ("layer_times.csv", "T4,decode,2,7.1", "T4,decode,2,nan", "ms_per_layer = 'nan': expected a finite number"),
        ("layer_times.csv", "T4,decode,2,7.1", "T4,both,2,7.1", "phase = 'both'"),
        ("layer_times.csv", "T4,decode,2,7.1", "T4,decode,2,-7.1", "greater than or equal to 0"),
        ("limits.csv", "T4,2,", "T4,9,", "without gaps"),
        ("limits.csv", "T4,2,", "T4,inf,", "num_layers = 'inf': expected a finite number"),
        ("limits.csv", "T4,2,", "T4,2.5,", "num_layers = '2.5': expected a whole number"),
        ("limits.csv", "kind,", "sort,", "columns"),
    ],
)
def test_bad_tables(tmp_path, file, find, replace, expected):
    for name in ("layer_times.csv", "limits.csv"):
        text = (data_dir() / "profiles" / "llama2-70b" / name).read_text()
        if name == file:
            assert find in text
            text = text.replace(find, replace, 1)
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        load_profiles(tmp_path)
    assert expected in str(caught.value)


def test_every_row_of_a_table_is_a_point_of_its_curve():
    folder = data_dir() / "profiles" / "llama-30b"
    profiles = load_profiles(folder)
    with (folder / "layer_times.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        curve = getattr(profiles[row["kind"]], f"{row['phase']}_ms_per_layer")
        assert curve(float(row["tokens"])) == pytest.approx(float(row["ms_per_layer"]))


def test_a_model_without_shipped_tables_has_none():
    assert shipped_profiles("llama3.1-70b") == {}


def test_the_name_of_the_model_is_the_folders_unless_given():
    folder = data_dir() / "profiles" / "llama-30b"
    assert {p.model for p in load_profiles(folder).values()} == {"llama-30b"}
    assert {p.model for p in load_profiles(folder, "mine").values()} == {"mine"}
