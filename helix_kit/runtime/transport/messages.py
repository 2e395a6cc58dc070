"""The messages between workers and coordinator: their fields, and the bounds of these. `wire` says how they travel.

>>> from helix_kit.runtime.transport.messages import FreeMessage, RequestEpoch
>>> FreeMessage([RequestEpoch(7, 0)])
FreeMessage(requests=[RequestEpoch(request=7, epoch=0)], kept=[])
"""

from __future__ import annotations

import array
from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

MAX_ITEMS = 65536
MAX_STAGES = 1024
MAX_POSITION = 1 << 24
MAX_TEXT = 8192
MAX_INT = 1 << 62
MAX_HOPS = 64
MAX_BIASES = 1024
MAX_END_IDS = 4096
MAX_TOP = 20

DtypeName: TypeAlias = Literal["int32", "float32", "bfloat16", "float16"]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_INT)]
TokenId: TypeAlias = Annotated[int, Meta(ge=0, lt=1 << 31)]
MonotonicSeconds: TypeAlias = Annotated[float, Meta(ge=0, le=1e12)]
"""A moment on the monotonic clock, which the processes of a machine share."""
TopCount: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_TOP)]
Penalty: TypeAlias = Annotated[float, Meta(ge=-2, le=2)]
Text: TypeAlias = Annotated[str, Meta(max_length=MAX_TEXT)]
Endpoint: TypeAlias = Annotated[str, Meta(max_length=MAX_TEXT, pattern="^tcp://")]


class _Fields(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """Travels as a list of its values: the names would be most of a short message, and of the work of reading it."""


class BlockRun(_Fields):
    """Blocks [first, first + count) of an attempt at a request. A block is 16 tokens in all layers of its stage, or in
    a `part` of them: as `helix_kit.scheduling.windowed_blocks` numbers it."""

    request: Count
    epoch: Count
    first: Count
    count: Annotated[int, Meta(ge=1, le=MAX_POSITION)]
    part: Annotated[int, Meta(ge=0, le=2)] = 0


class RouteStage(_Fields):
    """One stage of a request's pipeline: layers [start, end) on the worker `node`, which listens on `endpoint`.

    The request begins after the blocks in `shared`, which the worker has computed for other requests. Of its own blocks
    [keep_first, keep_stop), the pages in layers with windows stay for others when they have passed.
    """

    node: Text
    start: Count
    end: Count
    endpoint: Endpoint
    shared: Annotated[list[BlockRun], Meta(max_length=MAX_ITEMS)] = []
    keep_first: Count = 0
    keep_stop: Count = 0


class SamplingFields(_Fields):
    """How a request's tokens are sampled; the fields of `helix_kit.runtime.SamplingParams`, in the same order."""

    temperature: Annotated[float, Meta(ge=0, le=100)]
    top_k: Count
    top_p: Annotated[float, Meta(gt=0, le=1)]
    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100)] = 1.0
    logit_bias: Annotated[
        tuple[tuple[TokenId, Annotated[float, Meta(ge=-100, le=100)]], ...], Meta(max_length=MAX_BIASES)
    ] = ()
    min_tokens: Count = 0
    end_ids: Annotated[tuple[TokenId, ...], Meta(max_length=MAX_END_IDS)] = ()
    logprobs: TopCount | None = None
    prompt_logprobs: TopCount | None = None
    prompt_tokens: Count = 0


class WorkItem(_Fields):
    """One request's rows in a `RunMessage`: `tokens` rows, the first of which is at `position` of the request.

    `wants_token` says that a token is to be sampled after the last of these rows. `route` and `sampling` come with the
    first rows of an epoch only. `token_ids` (int32) are the tokens of the rows, for requests whose sampling depends on
    them; one more is the token after the last row, where its log-probability is wanted. With the first rows come also
    the tokens before them, whose blocks are shared.
    `decode_until` comes with the route, and again when pages are promised for more tokens: up to this position, the
    last stage gives the tokens that it samples to the first stage itself. They need not come back from the coordinator.
    `rotary_tokens` comes with the route, too: the length of the sequence that rotary frequencies are for, at least.
    """

    request: Count
    epoch: Count
    position: Annotated[int, Meta(ge=0, le=MAX_POSITION)]
    tokens: Annotated[int, Meta(ge=1, le=MAX_POSITION)]
    wants_token: bool
    route: Annotated[list[RouteStage], Meta(min_length=1, max_length=MAX_STAGES)] | None = None
    sampling: SamplingFields | None = None
    token_ids: bytes | None = None
    decode_until: Annotated[int, Meta(ge=0, le=MAX_POSITION)] = 0
    rotary_tokens: Annotated[int, Meta(ge=0, le=MAX_POSITION)] = 0


class RequestEpoch(_Fields):
    """One attempt at a request. The epoch rises when the request starts again after a worker was lost."""

    request: Count
    epoch: Count


class LogprobFields(_Fields):
    """Log-probability and rank of a token, and the likeliest alternatives with theirs."""

    logprob: float
    rank: Count
    top: Annotated[list[tuple[TokenId, float]], Meta(max_length=MAX_TOP)]


class SampledToken(_Fields):
    """The token that was sampled for `position` of a request; -1 where the scores are not numbers.

    Where log-probabilities of the prompt are wanted, its tokens come as such messages, too.
    """

    request: Count
    epoch: Count
    position: Count
    token: Annotated[int, Meta(ge=-1, le=MAX_INT)]
    logprobs: LogprobFields | None = None


class WorkerCounters(_Fields):
    """What a worker has counted since it started. The names are those of `Engine.status()`."""

    pages_used: Count = 0
    requests: Count = 0
    steps: Count = 0
    overruns: Count = 0
    overrun_s: float = 0
    busy_s: float = 0
    prefill_tokens: Count = 0
    decode_tokens: Count = 0
    pages_peak: Count = 0
    malformed: Count = 0
    foreign: Count = 0
    stale: Count = 0
    cpu_s: float = 0
    pages_cached: Count = 0


class RunMessage(_Fields, tag="run"):
    """Rows for a worker's next steps, from the coordinator (token ids) or from the stage before (hidden states).

    `tensor` holds the raw bytes of all items' rows, in the order of the items. Its first dimension is the number of
    rows. `due_s` is when an emulated link delivers the message; 0 on a real one.
    """

    items: Annotated[list[WorkItem], Meta(min_length=1, max_length=MAX_ITEMS)]
    dtype: DtypeName
    shape: Annotated[tuple[Annotated[int, Meta(ge=0, le=1 << 30)], ...], Meta(min_length=1, max_length=2)]
    tensor: memoryview
    due_s: MonotonicSeconds = 0.0

    @classmethod
    def of_token_ids(cls, items: list[WorkItem], token_ids: Sequence[int]) -> RunMessage:
        """Token ids for a first stage: int32, shape (tokens,)."""
        return cls(items, "int32", (len(token_ids),), memoryview(array.array("i", token_ids)).cast("B"))


class FreeMessage(_Fields, tag="free"):
    """Coordinator to worker: drop these requests and free their KV pages, except the blocks in `kept`."""

    requests: Annotated[list[RequestEpoch], Meta(max_length=MAX_ITEMS)]
    kept: Annotated[list[BlockRun], Meta(max_length=MAX_ITEMS)] = []


class EvictMessage(_Fields, tag="evict"):
    """Coordinator to worker: free the pages of these blocks, which were kept and which no request uses."""

    blocks: Annotated[list[BlockRun], Meta(min_length=1, max_length=MAX_ITEMS)]


class ForgetMessage(_Fields, tag="forget"):
    """Coordinator to worker: the worker that listened on `endpoint` is gone."""

    endpoint: Text


class StopMessage(_Fields, tag="stop"):
    """Coordinator to worker: stop."""


class FromWorker(_Fields):
    """A message to the coordinator.

    `node` names the worker; `generation` is that of its `WorkerSpec` and tells it from an earlier worker of the node.
    """

    node: Text
    generation: Count


class ReadyMessage(FromWorker, tag="ready"):
    """The worker has loaded its layers, has this many KV pages and listens on `endpoint`."""

    endpoint: Text
    pages: Count
    pid: Count
    rank_pids: Annotated[list[Count], Meta(max_length=MAX_STAGES)] = []
    """Processes that compute the worker's layers together; none where it is one process."""
    windows: Annotated[list[Count], Meta(max_length=MAX_ITEMS)] = []
    """Window of each layer in tokens, 0 for none, where pages are returned once it has passed; else empty."""
    description: Text = ""
    """How it computes its layers, for people."""


class TokensMessage(FromWorker, tag="tokens"):
    """Tokens sampled in one step. `due_s` is when an emulated link delivers them; 0 on a real one."""

    tokens: Annotated[list[SampledToken], Meta(max_length=MAX_ITEMS)]
    due_s: MonotonicSeconds = 0.0


class HeartbeatMessage(FromWorker, tag="beat"):
    """The worker is alive.

    `hop_s` maps each sender to the mean time that its rows spent at this worker since the last heartbeat.
    """

    counters: WorkerCounters
    hop_s: Annotated[dict[Text, float], Meta(max_length=MAX_HOPS)]


class StartingMessage(FromWorker, tag="starting"):
    """What the worker is doing until it is ready, for people."""

    doing: Text


class FailedMessage(FromWorker, tag="failed"):
    """The worker ends because of an error."""

    reason: Text


Message: TypeAlias = (
    RunMessage
    | FreeMessage
    | EvictMessage
    | ForgetMessage
    | StopMessage
    | ReadyMessage
    | TokensMessage
    | HeartbeatMessage
    | StartingMessage
    | FailedMessage
)
