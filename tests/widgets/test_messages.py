"""Text of the editors: nothing that it shows is taken for HTML, and a solve's line holds value, bound and gap."""

import re

from helix_kit import InputError
from helix_kit.widgets.messages import Message, Note, error_text, progress_text


def test_text_is_escaped_and_lines_are_kept():
    message = Message()
    message.say("<script>alert(1)</script>\nsecond & last", "bad")
    assert "<script>" not in message.value and "&lt;script&gt;" in message.value
    assert "<br>second &amp; last" in message.value and Message.COLOURS["bad"] in message.value
    assert message.text == "<script>alert(1)</script>\nsecond & last"


def test_only_a_status_is_announced():
    status, note = Message(), Note()
    status.say("a")
    note.say("a")
    assert 'role="status"' in status.value and 'role="note"' in note.value


def test_progress_names_value_bound_and_gap():
    line = progress_text(1.25, 1000.0, 1100.0, "done")
    assert line.startswith("1.2 s: value ") and line.endswith(" (done)")
    assert float(re.search(r"gap ([\d.]+)\s*%", line).group(1)) == 10
    assert "no bound yet" in progress_text(0.5, 0.0, float("inf")) and "gap" not in progress_text(0.5, 0.0, 10.0)


def test_foreign_errors_carry_their_type():
    assert error_text(InputError("expected 1", field="n", value=2)) == "n = 2: expected 1"
    assert error_text(KeyError("x")) == "KeyError: 'x'"
