"""Files of a finished experiment as they are read back."""

import pytest

from helix_kit.errors import InputError
from helix_kit.experiments.machinery.files import check_folder, is_complete, load, provenance


def test_only_empty_cells_are_missing_values(tmp_path):
    (tmp_path / "a.csv").write_text("method,value\nnone,1\n,2\nNA,\n")
    table = load("a", tmp_path)
    assert table["method"].isna().tolist() == [False, True, False] and table["method"][2] == "NA"
    assert table["value"].isna().tolist() == [False, False, True]


def test_measurements_come_with_the_table(tmp_path):
    (tmp_path / "a.csv").write_text("x\n1\n")
    assert load("a", tmp_path).attrs == {}
    (tmp_path / "a.json").write_text('{"measured": {"seconds": 2.5}}')
    assert load("a", tmp_path).attrs == {"seconds": 2.5}


def test_a_provenance_that_cannot_be_read_is_empty(tmp_path):
    (tmp_path / "a.json").write_text('{"inputs": ')
    assert provenance("a", tmp_path) == provenance("b", tmp_path) == {}


def test_complete_means_table_and_both_pictures(tmp_path):
    for ending in ("csv", "png", "pdf"):
        assert not is_complete("a", tmp_path)
        (tmp_path / f"a.{ending}").touch()
    assert is_complete("a", tmp_path)


@pytest.mark.parametrize("fast", [True, False])
def test_a_folder_has_results_of_one_kind(tmp_path, fast):
    (tmp_path / "a.json").write_text('{"inputs": {"fast": %s}}' % str(fast).lower())  # noqa: UP031
    check_folder(tmp_path, fast=fast)
    with pytest.raises(InputError, match=r"a\.json: inputs\.fast"):
        check_folder(tmp_path, fast=not fast)
