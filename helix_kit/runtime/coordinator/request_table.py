"""The requests that have not ended: those that wait for a pipeline, and those that run on one.

Everything here runs in the coordinator's thread. A request is identified by (id, epoch). The epoch rises when the
request is started again because a worker was lost, so that late messages about the earlier attempt are recognised.
"""

from __future__ import annotations

import bisect
import functools
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from helix_kit.flow import Pipeline
from helix_kit.runtime.coordinator.active_request import ActiveRequest
from helix_kit.runtime.coordinator.admission import can_ever_fit
from helix_kit.runtime.coordinator.routing import Router
from helix_kit.runtime.coordinator.token_sender import TokenSender
from helix_kit.runtime.coordinator.worker_manager import WorkerManager
from helix_kit.runtime.handle import Completion, FailureCode, FinishReason, Handle, Piece, RequestFailedError
from helix_kit.runtime.logprobs import TokenLogprobs
from helix_kit.runtime.node_workers import to_workers
from helix_kit.runtime.transport.messages import MAX_ITEMS, EvictMessage, FreeMessage, RequestEpoch, SampledToken
from helix_kit.runtime.worker.kv_cache import PAGE_TOKENS
from helix_kit.workload.request import Outcome

NAN_REASON = (
    "are not numbers (NaN): the weights hold NaN or infinity, or numbers grow too large for the dtype (float16: "
    "try bfloat16)"
)
MAX_LOSSES = 5
"""How many workers may be lost while they run a request. After one more it fails: it may be what ends them, and must
not end all of them."""


class RequestTable:
    """Admits requests to pipelines, adds their tokens, and ends them.

    Parameters
    ----------
    workers
        The engine's workers, and the KV pages promised on them.
    router
        Chooses pipelines; replaced when the plan is.
    sender
        Takes the token ids for the first stages.
    now_s
        The engine's clock.
    max_queue
        How many requests may wait; None: any number.
    """

    def __init__(
        self,
        workers: WorkerManager,
        router: Router,
        sender: TokenSender,
        now_s: Callable[[], float],
        max_queue: int | None,
    ) -> None:
        self.router = router
        self._workers, self._sender = workers, sender
        self._now_s, self._max_queue = now_s, max_queue
        self.waiting: deque[ActiveRequest] = deque()
        self.running: dict[int, ActiveRequest] = {}
        """By id."""
        self._by_handle: dict[Handle, ActiveRequest] = {}
        self.may_admit = False
        """Whether anything has happened since a waiting request was last refused that could let it in now."""
        self.max_running: int | None = None
        """How many requests may run at once; None: as many as have pages."""
        self.tokens_out = 0
        """Tokens generated for all requests so far."""
        self.prompt_tokens = self.cached_tokens = 0
        """Tokens of the prompts of all requests that were started, and those among them that the prefix caches held."""

    def queue_length(self, node: str) -> int:
        """Requests that run on a pipeline through the node."""
        return sum(any(s.node == node for s in active.pipeline or ()) for active in self.running.values())

    # ---- submission ----------------------------------------------------------------------------------------------

    def submit(self, active: ActiveRequest) -> None:
        """Let a request wait for a pipeline; reject it when the queue is full."""
        self._by_handle[active.handle] = active
        if self._max_queue is not None and len(self.waiting) >= self._max_queue:
            self._reject(active, f"the queue is full ({self._max_queue} requests wait)", "queue_full")
        else:
            self.waiting.append(active)
            self.may_admit = True
            self.fail_without_pipeline()

    def refuse(self, active: ActiveRequest, reason: str) -> None:
        """Fail a request that came after the engine was told to stop."""
        self._by_handle[active.handle] = active
        self._fail(active, RequestFailedError(reason, "closed"))

    def cancel(self, handle: Handle) -> None:
        """End the request of `handle` with the tokens that it has; nothing to do when it has ended."""
        active = self._by_handle.get(handle)
        if active is None:
            return
        if active in self.waiting:
            self.waiting.remove(active)
        self._complete(active, "cancelled")

    # ---- admission -----------------------------------------------------------------------------------------------

    def admit(self) -> None:
        """Start waiting requests, oldest first, until one does not fit; reject those that never will.

        Requests at which the policy raises an exception fail.
        """
        while self.waiting and self.router.has_pipeline and not self._is_full:
            active = self.waiting[0]
            if active.promise_tokens is not None:
                request = active.request
                active.routed = replace(request, output_tokens=active.next_promise - request.input_tokens)
            try:
                started = self._route_and_start(active)
            except RequestFailedError as error:
                if self.waiting and self.waiting[0] is active:  # not when `on_admitted` failed
                    self.waiting.popleft()
                self._fail(active, error)
                continue
            if started:
                continue
            if self._can_never_fit(active):
                self.waiting.popleft()
                if active.generated and active.promise_tokens is not None:
                    # Its length was to be what fits, and a pipeline with more pages has been lost since.
                    self._complete(active, "length")
                    continue
                reason = (
                    f"{active.next_promise} tokens of context fit into the KV pages of no pipeline: expected a "
                    "shorter prompt, fewer new tokens, or workers with more KV pages (memory, and `kv_pages` if given)"
                )
                self._reject(active, reason, "too_large")
            else:
                self.may_admit = False
                return

    @property
    def _is_full(self) -> bool:
        return self.max_running is not None and len(self.running) >= self.max_running

    def _route_and_start(self, active: ActiveRequest) -> bool:
        """Start the first waiting request if the policy finds a pipeline, and that has pages; whether it started."""
        active.prepare_attempt()
        self._workers.ledger.look_up(active.wanted_hashes, active.keepable_blocks)
        pipeline = self.router.route(active.routed)
        if not pipeline:
            return False
        worker_pipeline = to_workers(pipeline, self._workers.workers_of)
        if not self._promise_pages(active, worker_pipeline):
            self.router.policy_refused(active.routed, pipeline)
            return False
        self.waiting.popleft()
        self._start(active, pipeline, worker_pipeline)
        return True

    def _promise_pages(self, active: ActiveRequest, worker_pipeline: Pipeline) -> bool:
        active.promised_tokens = active.next_promise
        ledger = self._workers.ledger
        shared = ledger.promise(active.request.id, active.epoch, active.promised_tokens, worker_pipeline)
        if shared is None:
            return False
        active.shared, active.has_token = shared, False
        active.keeps = {worker: ledger.keeps(worker, active.request.id, active.epoch) for worker in shared}
        active.cached_tokens = PAGE_TOKENS * sum(run.count for run in shared[worker_pipeline[0].node])
        self._send_evictions()
        return True

    def _send_evictions(self) -> None:
        """Tell the workers which idle blocks had to go for what was just promised."""
        for worker, blocks in self._workers.ledger.take_evicted().items():
            for first in range(0, len(blocks), MAX_ITEMS):
                message = EvictMessage(blocks[first : first + MAX_ITEMS])
                self._workers.send(self._workers.records[worker].endpoint, message)

    def reset_prefix_cache(self) -> None:
        """Forget all blocks that no request uses."""
        self._workers.ledger.clear()
        self._send_evictions()

    def _start(self, active: ActiveRequest, pipeline: Pipeline, worker_pipeline: Pipeline) -> None:
        active.pipeline = active.record.pipeline = pipeline
        active.worker_pipeline = worker_pipeline
        self.running[active.request.id] = active
        if active.record.started_s is None:
            active.record.started_s = self._now_s()
            active.handle.mark_started()
            active.record.cached_tokens = min(active.cached_tokens, len(active.prompt))
            self.prompt_tokens += len(active.prompt)
            self.cached_tokens += active.record.cached_tokens
        self.router.policy_admitted(active.routed, pipeline)
        self._sender.add_prompt(active)

    def max_request_tokens(self, limit: int) -> int:
        """The most tokens, up to `limit`, that a request can have on some pipeline; `limit` if that is not known."""
        if self._workers.is_starting or not self._fits_when_empty(1):
            return limit
        return bisect.bisect_left(range(1, limit + 1), True, key=lambda tokens: not self._fits_when_empty(tokens))

    def _can_never_fit(self, active: ActiveRequest) -> bool:
        # How many pages a worker will have is not known while it comes up: the request waits.
        return not self._workers.is_starting and not self._fits_when_empty(active.next_promise)

    def _fits_when_empty(self, tokens: int) -> bool:
        """Whether some pipeline could hold one request of `tokens` if it held no other."""
        holds = functools.partial(self._workers.has_pages, when_empty=True)
        return can_ever_fit(tokens, self.router.links, self.router.placement, holds)

    def reject_overdue(self) -> None:
        """Reject requests that have waited past their time limit without having been started."""
        now = self._now_s()
        overdue = [w for w in self.waiting if w.deadline_s is not None and now > w.deadline_s]
        for active in [w for w in overdue if w.record.started_s is None]:
            self.waiting.remove(active)
            self._reject(active, "waited longer than its time limit", "timeout")

    def fail_without_pipeline(self) -> None:
        """Fail the waiting requests when the workers leave no pipeline, or the policy fails, and none is coming up."""
        if self.router.has_pipeline or self._workers.is_starting:
            return
        code: FailureCode = "no_pipeline"
        reason = f"no pipeline is left through all layers; lost: {self._workers.lost_reasons}"
        if self.router.fault is not None:
            reason, code = self.router.fault, "policy_failed"
        for active in list(self.waiting):
            self._fail(active, RequestFailedError(reason, code))
        self.waiting.clear()

    # ---- tokens --------------------------------------------------------------------------------------------------

    def add_token(self, sampled: SampledToken, came_s: float) -> None:
        """The last stage has sampled a token, which came at `came_s`; ignored if it is not the next of its epoch.

        It calls few functions: after a sleep, in which the processor's caches have gone, a call takes microseconds.
        """
        active, position, token = self.running.get(sampled.request), sampled.position, sampled.token
        if active is None or active.epoch != sampled.epoch:
            return
        fields = sampled.logprobs
        logprobs = None if fields is None else TokenLogprobs(token, fields.logprob, fields.rank, tuple(fields.top))
        if position < len(active.prompt_logprobs):
            active.prompt_logprobs[position] = logprobs
            return
        generated, record = active.generated, active.record
        if position != len(active.prompt) + len(generated):
            return
        if token < 0:
            self._fail(active, RequestFailedError(f"the scores of token {position} {NAN_REASON}", "not_numbers"))
            return
        if not active.has_token:
            # All stages have computed the prompt: other requests may share its blocks from now on.
            active.has_token = True
            self._add_computed(active)
            if active.prompt_logprobs and not generated:
                active.handle.set_prompt_logprobs(active.prompt_logprobs)
            if active.request.output_tokens == 0:
                self._complete(active, "length")
                return
        generated.append(token)
        if logprobs is not None:
            active.logprobs.append(logprobs)
        record.tokens_generated += 1
        record.token_times_s.append(came_s)
        if record.first_token_s is None:
            record.first_token_s = came_s
        self.tokens_out += 1
        reason = self._hand_out(active, token, logprobs)
        if reason is not None:
            self._complete(active, reason)
            return
        self.router.untold_tokens.append(active.routed)
        if position % PAGE_TOKENS == 0:
            self._workers.ledger.advance(active.request.id, active.epoch, position)
        if position >= active.decode_until:  # else its workers go on by themselves
            self._go_on(active, position, token)

    def _go_on(self, active: ActiveRequest, position: int, token: int) -> None:
        """Let the first stage compute the token, or let the request start again."""
        if active.end_of_attempt is not None and position >= active.end_of_attempt:
            self._wait_again(active)  # with the keys of a longer sequence
        elif position < active.promised_tokens or self._promise_more(active):
            self._sender.add_token(active, position, token)
        else:
            self._wait_again(active)

    def _add_computed(self, active: ActiveRequest) -> None:
        """Let others share what the request has computed: all of its context except the token that came last."""
        tokens = len(active.prompt) + max(0, len(active.generated) - 1)
        self._workers.ledger.add_computed(active.request.id, active.epoch, active.hashes(tokens))

    def _promise_more(self, active: ActiveRequest) -> bool:
        """Promise pages for the next tokens of a long answer; False when a worker of its pipeline has none."""
        tokens, ledger = active.next_promise, self._workers.ledger
        if not ledger.extend(active.request.id, active.epoch, tokens, active.worker_pipeline):
            return False
        active.promised_tokens = tokens
        self._send_evictions()
        return True

    def _wait_again(self, active: ActiveRequest) -> None:
        """Let a request wait for pages among those that came before and after it; then it starts with its tokens.

        Each start promises pages for further tokens, or is the one for long sequences, so that every request is
        finished at some time.
        """
        self._leave_pipeline(active)
        active.epoch += 1
        later = (index for index, other in enumerate(self.waiting) if other.request.id > active.request.id)
        self.waiting.insert(next(later, len(self.waiting)), active)

    def _hand_out(self, active: ActiveRequest, token: int, logprobs: TokenLogprobs | None) -> FinishReason | None:
        """Give the token to the handle; returns why it ends the request, None when it does not."""
        if token in active.stop_ids and len(active.generated) > active.sampling.min_tokens:
            active.handle.add_piece(Piece(token, "", logprobs))
            return "stop"
        if active.may_end_by_text and active.text is not None:
            text, met_stop = active.text.feed(token)
            active.handle.add_piece(Piece(token, text, logprobs))
            if met_stop:
                return "stop"
        else:
            active.handle.add_token(token, logprobs)
        return "length" if len(active.generated) >= active.request.output_tokens else None

    # ---- ends ----------------------------------------------------------------------------------------------------

    def start_again(self, worker: str, *, was_lost: bool) -> None:
        """A worker has ended: put its requests back to the head of the queue, in order of arrival."""
        hit = [active for active in self.running.values() if any(s.node == worker for s in active.worker_pipeline)]
        again: list[ActiveRequest] = []
        for active in hit:
            active.losses += was_lost
            if active.losses > MAX_LOSSES:
                reason = f"{active.losses} workers were lost while they had this request, which may be what ended them"
                self._fail(active, RequestFailedError(reason))
                continue
            self._leave_pipeline(active)
            active.epoch += 1
            active.record.restarts += 1
            again.append(active)
        self.waiting.extendleft(sorted(again, key=lambda active: -active.request.id))

    def fail_all(self, reason: str) -> None:
        """Fail every request, because the engine stops."""
        for active in [*self.waiting, *self.running.values()]:
            self._fail(active, RequestFailedError(reason, "closed"))
        self.waiting.clear()

    def _leave_pipeline(self, active: ActiveRequest) -> None:
        """Free the request's pages on the workers that are up, except what others may share, and stop running it."""
        if active.worker_pipeline and active.has_token:
            self._add_computed(active)
        kept = self._workers.ledger.leave(active.request.id, active.epoch)
        freed = [RequestEpoch(active.request.id, active.epoch)]
        for stage in active.worker_pipeline:
            worker = self._workers.records[stage.node]
            if worker.state == "up":
                self._workers.send(worker.endpoint, FreeMessage(freed, kept.get(stage.node, [])))
        self._sender.discard(active)
        active.pipeline, active.worker_pipeline = None, ()
        self.running.pop(active.request.id, None)
        self.router.policy_finished(active.routed)
        self.may_admit = True

    def _complete(self, active: ActiveRequest, reason: FinishReason) -> None:
        completion = Completion(
            text="",  # the handle makes it when the caller asks for it
            token_ids=list(active.generated),
            prompt_tokens=len(active.prompt),
            finish_reason=reason,
            pipeline=active.pipeline or (),
            record=active.record,
            logprobs=tuple(active.logprobs) if active.sampling.logprobs is not None else None,
            prompt_logprobs=tuple(active.prompt_logprobs) if active.sampling.prompt_logprobs is not None else None,
        )
        self._end(active, completion, "cancelled" if reason == "cancelled" else "finished")

    def _reject(self, active: ActiveRequest, reason: str, code: FailureCode) -> None:
        self._end(active, RequestFailedError(reason, code), "rejected")

    def _fail(self, active: ActiveRequest, error: RequestFailedError) -> None:
        self._end(active, error, "failed")

    def _end(self, active: ActiveRequest, result: Completion | RequestFailedError, outcome: Outcome) -> None:
        self._leave_pipeline(active)
        record = active.record
        record.outcome, record.finished_s = outcome, self._now_s()
        if isinstance(result, RequestFailedError):
            record.reason = str(result)
        self._by_handle.pop(active.handle, None)
        active.handle.finish(record, result)
