"""Prefix-aware scheduling: the pipeline that would be done first, where it need not compute what its caches hold."""

from __future__ import annotations

from collections.abc import Sequence

from helix_kit.flow import Pipeline
from helix_kit.scheduling.policy import Policy, View
from helix_kit.workload.request import Request


class Prefix(Policy):
    """The pipeline with the least work for its throughput, once the request has been added.

    The work of a pipeline is the tokens of the requests that run on it: prompts without what the prefix caches of all
    stages held, and whole answers. So a request goes where its prefix is, unless that pipeline has more to do than
    another one by as much as the prefix saves. Pipelines with a dead or full node are skipped.

    Parameters
    ----------
    pipelines
        Pipelines with their weights in tokens/s.

    Examples
    --------
    >>> from helix_kit.flow import Stage
    >>> policy = Prefix([((Stage("a", 0, 2),), 3.0), ((Stage("b", 0, 2),), 1.0)])
    >>> policy.name
    'prefix'
    """

    name = "prefix"

    def __init__(self, pipelines: Sequence[tuple[Pipeline, float]]) -> None:
        self._pipelines = [pipeline for pipeline, rate in pipelines if rate > 0]
        self._rates = [rate for _, rate in pipelines if rate > 0]
        self._work = [0] * len(self._pipelines)
        self._added: dict[int, tuple[int, int]] = {}

    def route(self, request: Request, view: View) -> Pipeline | None:
        """The pipeline that would be done first; of equal ones the first. None where all are full."""
        context = request.input_tokens + request.output_tokens
        best, least_s, work = -1, float("inf"), 0
        for index, (pipeline, rate) in enumerate(zip(self._pipelines, self._rates, strict=True)):
            if not all(view.is_alive(s.node) and view.has_room(s.node, context, s.end - s.start) for s in pipeline):
                continue
            tokens = context - view.cached_tokens(request, pipeline)
            seconds = (self._work[index] + tokens) / rate
            if seconds < least_s:
                best, least_s, work = index, seconds, tokens
        if best < 0:
            return None
        self._work[best] += work
        self._added[request.id] = (best, work)
        return self._pipelines[best]

    def on_refused(self, request: Request, pipeline: Pipeline) -> None:
        """Take back the work counted for the pipeline."""
        self.on_finished(request)

    def on_finished(self, request: Request) -> None:
        """The pipeline has that much less to do."""
        index, work = self._added.pop(request.id, (0, 0))
        if work:
            self._work[index] -= work
