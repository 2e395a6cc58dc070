"""A box that shows its plan as a picture where no kernel runs."""

import pytest

from helix_kit.widgets import still
from helix_kit.widgets.picture_box import PictureBox


class Box(PictureBox):
    """A box whose plan comes when its work has ended."""

    def __init__(self, plan):
        super().__init__([])
        self._late, self._plan = plan, None

    def shown_plan(self):
        return self._plan

    def wait(self, timeout_s=60.0):
        self._plan = self._late
        return True


@pytest.mark.parametrize("live", [True, False])
def test_a_picture_takes_the_place_of_the_widget_where_no_kernel_runs(plan, monkeypatch, live):
    monkeypatch.setattr(still, "is_live", lambda: live)
    data, _ = Box(plan)._repr_mimebundle_()
    assert (still.WIDGET_MIME in data) is live
    if not live:
        assert data["image/png"], "the plan was waited for"


def test_a_box_without_a_plan_has_no_picture(monkeypatch):
    monkeypatch.setattr(still, "is_live", lambda: False)
    data, _ = Box(None)._repr_mimebundle_()
    assert "image/png" not in data
