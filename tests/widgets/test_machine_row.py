"""A row of the table: the fields hold what they are given, limits hold, own GPUs can be chosen."""

from helix_kit.profiles import gpus
from helix_kit.widgets.cluster_table import TableRow
from helix_kit.widgets.machine_row import MAX_GPUS_PER_NODE, MachineRow


def test_fields_give_back_what_they_were_given():
    values = TableRow("T4", 2, 3, "eu", ("T4x2-0", "T4x2-1"))
    assert MachineRow(values).row() == values


def test_own_gpus_come_first_and_once():
    row = MachineRow(TableRow("mine", 1, 1, "local"), own_gpus=["mine", "T4"])
    assert row.gpu.options[:2] == ("mine", "T4") and row.gpu.options.count("T4") == 1
    assert set(row.gpu.options) == {"mine", *gpus()}


def test_numbers_out_of_range_are_clipped():
    row = MachineRow(TableRow("T4", 1, 1, "local"))
    row.per_node.value, row.count.value = 1000, -5
    assert row.row().gpus_per_node == MAX_GPUS_PER_NODE and row.row().count == 0


def test_a_link_between_gpus_stays_until_the_machine_is_another_one():
    row = MachineRow(TableRow("H100-80G", 4, 1, "local", (), "pcie"))
    assert row.row().gpu_link == "pcie"
    row.gpu.value = "L4"
    assert row.row().gpu_link is None
