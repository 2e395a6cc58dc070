"""Progress: a callable hears every moment, and the bar ends full."""

from __future__ import annotations

from helix_kit.simulator.progress import watcher


def test_a_callable_hears_the_moment_and_the_end():
    heard = []
    with watcher(lambda now_s, end_s: heard.append((now_s, end_s)), 60.0) as watch:
        watch(5.0)
        watch(60.0)
    assert heard == [(5.0, 60.0), (60.0, 60.0)]


def test_a_bar_ends_full(capsys):
    with watcher(True, 60.0) as watch:
        watch(5.0)
    assert "simulated 60 of 60 s" in capsys.readouterr().out


def test_without_progress_nothing_is_shown(capsys):
    with watcher(False, 60.0) as watch:
        watch(5.0)
    assert capsys.readouterr() == ("", "")
