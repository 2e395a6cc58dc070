"""Fixed routes: every request takes one of a few given pipelines, in proportion to their throughput."""

from __future__ import annotations

from collections.abc import Sequence

from helix_kit.flow import Pipeline
from helix_kit.scheduling.iwrr import Iwrr
from helix_kit.scheduling.policy import Policy, View
from helix_kit.workload.request import Request


class FixedRoutes(Policy):
    """Interleaved weighted round robin over given pipelines. Pipelines with a dead or full node are skipped.

    Parameters
    ----------
    pipelines
        Pipelines with their weights in tokens/s.

    Examples
    --------
    >>> from helix_kit.flow import Stage
    >>> policy = FixedRoutes([((Stage("a", 0, 2),), 3.0), ((Stage("b", 0, 2),), 1.0)])
    >>> policy.name
    'fixed'
    """

    name = "fixed"

    def __init__(self, pipelines: Sequence[tuple[Pipeline, float]]) -> None:
        self._pipelines = [p for p, rate in pipelines if rate > 0]
        self._wheel = Iwrr([rate for _, rate in pipelines if rate > 0])
        self._taken: dict[int, int] = {}

    def route(self, request: Request, view: View) -> Pipeline | None:
        """The next pipeline with room, or None."""
        tokens = request.input_tokens + request.output_tokens
        allowed = [
            index
            for index, pipeline in enumerate(self._pipelines)
            if all(view.is_alive(s.node) and view.has_room(s.node, tokens, s.end - s.start) for s in pipeline)
        ]
        index = self._wheel.choose(request.input_tokens, allowed)
        if index < 0:
            return None
        self._taken[request.id] = index
        return self._pipelines[index]

    def on_refused(self, request: Request, pipeline: Pipeline) -> None:
        """Take back the work counted for the pipeline."""
        self._wheel.add(self._taken.pop(request.id), -request.input_tokens)

    def on_finished(self, request: Request) -> None:
        """Forget the request."""
        self._taken.pop(request.id, None)

    def on_token(self, request: Request) -> None:
        """Count one token on the request's pipeline."""
        if request.id in self._taken:
            self._wheel.add(self._taken[request.id], 1)
