"""What every command does alike: finite numbers, and one message for what ends it early."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from helix_kit.cli import catalog
from helix_kit.cli.command import Command, stop_on_interrupt
from helix_kit.cli.shared import app


@pytest.mark.parametrize(
    ("args", "option"),
    [
        (("plan", "single24", "--model", "llama2-70b", "--time-limit", "nan"), "--time-limit = nan"),
        (("plan", "single24", "--model", "llama2-70b", "--reach", "inf"), "--reach = inf"),
        (("simulate", "absent.json", "--rate", "nan"), "--rate = nan"),
        (("explain", "absent.json", "--time-limit", "inf"), "--time-limit = inf"),
        (("fleet", "--model", "x", "--gpus", "L4", "--rate", "inf"), "--rate = inf"),
        (("bench", "http://127.0.0.1:1", "--timeout", "nan"), "--timeout = nan"),
        (("export", "absent.json", "--to", "vllm", "-o", "x", "--max-loss", "nan"), "--max-loss = nan"),
    ],
)
def test_numbers_are_finite(helix_kit, args, option):
    code, out, err = helix_kit(*args)
    assert (code, out) == (2, "") and err == f"helix-kit: {option}: expected a finite number\n"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--latency-limit", "-1"), "--latency-limit = -1.0: expected a number of seconds above 0"),
        (("--mode", "online", "--rate", "-2"), "--rate = -2.0: online mode needs the requests/s"),
        (("--slo", "ttft:2h"), "--slo = 'ttft:2h': expected limits"),
        (("--engine", "vllm-9"), "--engine: unknown engine 'vllm-9'"),
        (("--pin", "X=0:99", "--objective", "flow"), "unknown node 'X'"),
        (("--pin", "L4-0=0:99", "--objective", "flow"), "--pin: L4-0 = '0:99': expected 0 <= start"),
    ],
)
def test_errors_name_the_option_that_was_typed(helix_kit, tmp_path, options, told):
    path = tmp_path / "two.yaml"
    path.write_text("name: two\nnodes: [{gpu: L4, count: 2}]\n")
    code, out, err = helix_kit("plan", path, "--model", "llama3.1-8b", *options)
    assert (code, out) == (2, "") and told in err


def test_a_field_of_a_file_is_no_option(helix_kit, tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text("name: two\nnodes: [{gpu: L4, count: 2}]\nmemory_share: 3\n")
    code, _, err = helix_kit("plan", path, "--model", "llama3.1-8b")
    assert code == 2 and err.startswith(f"helix-kit: {path}: memory_share = 3: ")


def test_every_command_is_one_of_these():
    assert {command.cls for command in app.registered_commands} == {Command}


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b.csv"), 1, "a/b.csv: No space left on device"),
        (OSError(errno.EROFS, "Read-only file system"), 1, "Read-only file system"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 1, "x: Permission denied"),
        (MemoryError(), 1, "the memory of this machine does not suffice"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_what_the_machine_refuses_is_one_message(helix_kit, monkeypatch, raised, code, told):
    def fail() -> None:
        raise raised

    monkeypatch.setattr(catalog, "plain_console", fail)
    assert helix_kit("catalog") == (code, "", f"helix-kit: {told}\n")


def test_a_defect_of_ours_keeps_its_trace(helix_kit, monkeypatch):
    def fail() -> None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    monkeypatch.setattr(catalog, "plain_console", fail)
    with pytest.raises(ConnectionRefusedError):
        helix_kit("catalog")


def test_the_first_interrupt_is_kept_and_the_second_ends_the_program():
    before = signal.getsignal(signal.SIGINT)
    with stop_on_interrupt() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(1)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
