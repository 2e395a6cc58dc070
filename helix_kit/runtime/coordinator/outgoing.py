"""Token ids on their way from the coordinator to the first stages: gathered until the end of a round, then one message
for each worker."""

from __future__ import annotations

from helix_kit.runtime.coordinator.crew import Crew
from helix_kit.runtime.coordinator.jobs import Job
from helix_kit.runtime.transport.messages import RouteStage, RunMessage, SamplingFields, WorkItem
from helix_kit.runtime.transport.shaping import Shaper


class Outgoing:
    """What waits to be sent, by endpoint of the first stage's worker; false when there is nothing.

    A prompt goes in chunks of `chunk_tokens`. Over emulated links (`shaper`) a token counts `token_bytes`.
    """

    def __init__(
        self, crew: Crew, *, chunk_tokens: int, shaper: Shaper | None = None, token_bytes: float = 0.0
    ) -> None:
        self._crew, self._chunk_tokens = crew, chunk_tokens
        self._shaper, self._token_bytes = shaper, token_bytes
        self._waiting: dict[str, tuple[list[WorkItem], list[int]]] = {}
        """Items, and the token ids of all of them."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def _of(self, job: Job) -> tuple[list[WorkItem], list[int]]:
        return self._waiting.setdefault(self._crew.members[job.route[0].node].endpoint, ([], []))

    def add_token(self, job: Job, position: int, token: int) -> None:
        """The token that the job's next step starts from."""
        items, ids = self._of(job)
        items.append(WorkItem(job.request.id, job.epoch, position, 1, True))
        ids.append(token)

    def add_prompt(self, job: Job) -> None:
        """The job's whole context, in chunks back to back, so that stages overlap; the first one tells the route."""
        items, ids = self._of(job)
        members, p = self._crew.members, job.sampling
        route: list[RouteStage] | None = [
            RouteStage(s.node, s.start, s.end, members[s.node].endpoint) for s in job.route
        ]
        sampling: SamplingFields | None = SamplingFields(p.temperature, p.top_k, p.top_p, p.seed)
        tokens = job.context
        for at in range(0, len(tokens), self._chunk_tokens):
            chunk = tokens[at : at + self._chunk_tokens]
            last = at + len(chunk) == len(tokens)
            items.append(WorkItem(job.request.id, job.epoch, at, len(chunk), last, route, sampling))
            ids.extend(chunk)
            route = sampling = None

    def drop(self, job: Job) -> None:
        """Take out what is the job's."""
        for endpoint, (items, ids) in list(self._waiting.items()):
            if not any(item.request == job.request.id for item in items):
                continue
            kept: tuple[list[WorkItem], list[int]] = ([], [])
            at = 0
            for item in items:
                if item.request != job.request.id:
                    kept[0].append(item)
                    kept[1].extend(ids[at : at + item.tokens])
                at += item.tokens
            self._waiting[endpoint] = kept

    def flush(self) -> None:
        """Send everything."""
        nodes = {member.endpoint: member.node for member in self._crew.members.values()} if self._shaper else {}
        for endpoint, (items, ids) in self._waiting.items():
            if not items:
                continue
            message = RunMessage.of_token_ids(items, ids)
            if self._shaper is not None:
                size = len(ids) * self._token_bytes
                self._shaper.send(nodes[endpoint], size, endpoint, message)
            else:
                self._crew.send(endpoint, message)
        self._waiting.clear()
