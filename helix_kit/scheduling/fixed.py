"""Fixed routes: separate pipelines, each request given to one of them in proportion to what it can serve."""

from __future__ import annotations

from collections.abc import Sequence

from helix_kit.flow import Pipeline
from helix_kit.scheduling.iwrr import Iwrr
from helix_kit.scheduling.policy import Policy, View
from helix_kit.workload.request import Request


class FixedRoutes(Policy):
    """Round robin over given pipelines, weighted by tokens/s; pipelines with a dead or full node are skipped."""

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
