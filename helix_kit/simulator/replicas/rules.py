"""The rules of one replica, compiled: which requests a step takes, how long it lasts, which KV blocks it needs.

A step first takes the running requests in order of admission, a token for each and the rest of a prompt within the
token budget. Then it admits waiting requests, first come first served, as long as there is budget, a place and
blocks. Where the running ones lack blocks, the last one admitted gives its own up and starts again from its prompt.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# Compiled code: numba infers the types.
from __future__ import annotations

from helix_kit.simulator.compiled import compiled, inlined
from helix_kit.simulator.replicas.state import DONE, RUNNING, WAITING, State
from helix_kit.simulator.state import NONE

FINISHED, ROOM_NEEDED = 0, 1


@inlined
def take_from_free(state, block):
    """Take a block out of the chain of free blocks."""
    replica, blocks = state.replica[0], state.blocks
    before, after = blocks[block]["previous"], blocks[block]["next"]
    if before == NONE:
        replica["free_head"] = after
    else:
        blocks[before]["next"] = after
    if after == NONE:
        replica["free_tail"] = before
    else:
        blocks[after]["previous"] = before
    replica["free"] -= 1


@inlined
def give_back(state, block):
    """One user less; without any the block goes to the end of the free ones, and its content can still be found."""
    replica, blocks = state.replica[0], state.blocks
    blocks[block]["users"] -= 1
    if blocks[block]["users"] == 0:
        tail = replica["free_tail"]
        blocks[block]["previous"], blocks[block]["next"] = tail, NONE
        if tail == NONE:
            replica["free_head"] = block
        else:
            blocks[tail]["next"] = block
        replica["free_tail"] = block
        replica["free"] += 1


@compiled
def release(state, at):
    """Give all blocks of a request back, the last one first, so that the ends of prompts are forgotten first."""
    request, block_tokens = state.requests[at], state.replica[0]["block_tokens"]
    count = -(-request["computed"] // block_tokens)
    for i in range(count - 1, -1, -1):
        give_back(state, state.slots[request["slot"], i])


@compiled
def extend(state, at, held, wanted):
    """Give a request new blocks until it has `wanted`; the caller has made sure that they are free."""
    replica, blocks, request = state.replica[0], state.blocks, state.requests[at]
    for i in range(held, wanted):
        block = replica["free_head"]
        take_from_free(state, block)
        old = blocks[block]["key"]
        if old != NONE:
            state.block_of_key[old] = NONE
        blocks[block]["key"], blocks[block]["users"] = NONE, 1
        state.slots[request["slot"], i] = block
    used = len(blocks) - replica["free"]
    replica["kv_peak"] = max(replica["kv_peak"], used)


@compiled
def remember(state, at, before):
    """Full blocks that were filled since `before` tokens can be found by their content from now on."""
    replica, request = state.replica[0], state.requests[at]
    if replica["prefix_cache"] == 0:
        return
    full = min(request["computed"] // replica["block_tokens"], request["keys"])
    for i in range(before // replica["block_tokens"], full):
        key = state.keys[request["first_key"] + i]
        if key >= 0 and state.block_of_key[key] == NONE:
            block = state.slots[request["slot"], i]
            state.block_of_key[key] = block
            state.blocks[block]["key"] = key


@compiled
def preempt_last(state):
    """The request admitted last gives its blocks up and waits as the first; its tokens so far are prefilled again."""
    replica = state.replica[0]
    at = state.running[replica["running"] - 1]
    request = state.requests[at]
    release(state, at)
    replica["running"] -= 1
    state.free_slots[replica["max_requests"] - replica["running"] - 1] = request["slot"]
    # Tokens on their way are lost, and asked for again.
    request["lost"] += request["in_flight"]
    request["sampled"], request["in_flight"] = request["generated"], 0
    request["computed"], request["state"] = 0, WAITING
    request["restarts"] += 1
    replica["preemptions"] += 1
    request["next"] = replica["waiting_head"]
    if replica["waiting_head"] == NONE:
        replica["waiting_tail"] = at
    replica["waiting_head"] = at
    replica["waiting"] += 1


@inlined
def tokens_to_compute(request):
    """Tokens that are known, or asked for, and not scheduled yet; none where the answer is complete."""
    if request["sampled"] >= request["output"]:
        return 0
    return request["input"] + request["sampled"] - request["computed"]


@compiled
def admit_first(state, budget):
    """Admit the first waiting request. Returns how many tokens of it the step takes; 0 where it must wait."""
    replica, blocks = state.replica[0], state.blocks
    at = replica["waiting_head"]
    request = state.requests[at]
    size = replica["block_tokens"]
    known = request["input"] + request["sampled"]
    hits, idle_hits = 0, 0
    if replica["prefix_cache"] == 1:
        # The last token is computed anyway, because its output is wanted.
        for i in range(min(request["keys"], (known - 1) // size)):
            key = state.keys[request["first_key"] + i]
            if key < 0 or state.block_of_key[key] == NONE:
                break
            hits += 1
            idle_hits += blocks[state.block_of_key[key]]["users"] == 0
    tokens = known - hits * size
    if tokens > budget:
        if replica["chunked"] == 0:
            return 0
        tokens = budget
    wanted = -(-(hits * size + tokens) // size)
    if wanted - hits + idle_hits > replica["free"]:
        return 0
    replica["waiting_head"] = request["next"]
    if request["next"] == NONE:
        replica["waiting_tail"] = NONE
    replica["waiting"] -= 1
    request["slot"] = state.free_slots[replica["max_requests"] - replica["running"] - 1]
    state.running[replica["running"]] = at
    replica["running"] += 1
    request["state"] = RUNNING
    for i in range(hits):
        block = state.block_of_key[state.keys[request["first_key"] + i]]
        if blocks[block]["users"] == 0:
            take_from_free(state, block)
        blocks[block]["users"] += 1
        state.slots[request["slot"], i] = block
    extend(state, at, hits, wanted)
    replica["asked_tokens"] += known
    replica["hit_tokens"] += hits * size
    if request["started"] < 0:
        request["started"] = replica["now"]
        request["hit_tokens"] = hits * size
    request["computed"] = hits * size
    return tokens


@inlined
def stage_seconds(stage, linear, prefill, decodes, context, pairs, sampled):
    """How long a stage takes for a step; `helix_kit.profiles.step.StepCosts` has the formula in words."""
    tokens = prefill + decodes
    seconds = linear[tokens] + stage["fixed"] + stage["context"] * context + stage["pair"] * pairs
    if prefill > 0:
        seconds += stage["mixed"]
    if tokens > stage["graph_tokens"]:
        seconds += stage["eager"]
    return seconds + stage["sampled"] * sampled


@compiled
def schedule(state):
    """Put a step together and start it. Returns whether there was anything to do."""
    replica, size = state.replica[0], state.replica[0]["block_tokens"]
    flight = (replica["flight_first"] + replica["flights"]) % replica["depth"]
    prefill, decodes, context, pairs, sampled = 0, 0, 0, 0, 0
    budget = replica["token_budget"]
    preempted = False
    place = 0
    while budget > 0:
        if place < replica["running"]:
            at = state.running[place]
            request = state.requests[at]
            place += 1
            tokens = tokens_to_compute(request)
            if tokens == 0 or (request["in_flight"] > 0 and replica["overlaps"] == 0):
                continue
            tokens = min(tokens, budget)
            held = -(-request["computed"] // size)
            wanted = -(-(request["computed"] + tokens) // size)
            while wanted - held > replica["free"] and replica["running"] >= place:
                preempted = True
                preempt_last(state)
            if replica["running"] < place:
                break  # The request itself was the last one.
            extend(state, at, held, wanted)
        else:
            if preempted or replica["waiting_head"] == NONE or replica["running"] >= replica["max_requests"]:
                break
            at = replica["waiting_head"]
            request = state.requests[at]
            tokens = admit_first(state, budget)
            if tokens == 0:
                break
            place += 1
        before = request["computed"]
        request["computed"] += tokens
        remember(state, at, before)
        budget -= tokens
        if tokens == 1 and before >= request["input"]:
            decodes += 1
            context += before + 1
        else:
            prefill += tokens
            context += before + tokens
            pairs += tokens * before + tokens * (tokens + 1) // 2
        if request["computed"] == request["input"] + request["sampled"]:
            request["sampled"] += 1
            request["in_flight"] += 1
            state.flight_requests[flight, sampled] = at
            sampled += 1
    if prefill + decodes == 0:
        return False
    at_s = replica["now"] + replica["schedule"]
    for i in range(len(state.stages)):
        stage = state.stages[i]
        start = max(at_s, stage["free_at"])
        end = start + stage_seconds(stage, state.linear[i], prefill, decodes, context, pairs, sampled)
        stage["free_at"] = end
        within = min(end, replica["window_end"]) - max(start, replica["window_start"])
        stage["busy"] += max(0.0, within)
        stage["prefill_tokens"] += prefill
        stage["decode_tokens"] += decodes
        if replica["record_batches"] == 1:
            batch = state.batches[replica["batches"]]
            batch["node"], batch["start"], batch["end"] = i, start, end
            batch["prefill"], batch["decodes"] = prefill, decodes
            replica["batches"] += 1
        at_s = end + stage["hop"] + stage["hop_token"] * (prefill + decodes)
    state.flights[flight]["end"], state.flights[flight]["requests"] = at_s, sampled
    replica["flights"] += 1
    replica["steps"] += 1
    return True


@compiled
def finish_flight(state):
    """The oldest step has ended: its tokens go to the clients, and complete requests give their blocks back."""
    replica = state.replica[0]
    first = replica["flight_first"]
    flight = state.flights[first]
    replica["now"] = max(replica["now"], flight["end"])
    is_done = False
    for i in range(flight["requests"]):
        at = state.flight_requests[first, i]
        request = state.requests[at]
        if request["lost"] > 0:
            request["lost"] -= 1
            continue
        request["generated"] += 1
        request["in_flight"] -= 1
        token = replica["tokens"]
        state.token_request[token], state.token_time[token] = at, flight["end"] + replica["answer"]
        replica["tokens"] += 1
        if request["generated"] == request["output"]:
            request["finished"] = flight["end"] + replica["answer"]
            release(state, at)
            request["state"] = DONE
            is_done = True
    if is_done:
        kept = 0
        for i in range(replica["running"]):
            at = state.running[i]
            if state.requests[at]["state"] == DONE:
                state.free_slots[replica["max_requests"] - (replica["running"] - (i - kept))] = state.requests[at][
                    "slot"
                ]
            else:
                state.running[kept] = at
                kept += 1
        replica["running"] = kept
    replica["flight_first"] = (first + 1) % replica["depth"]
    replica["flights"] -= 1


@compiled
def receive(state):
    """Requests that have arrived by now wait."""
    replica = state.replica[0]
    while replica["next_arrival"] < replica["arrived"]:
        at = state.arrivals[replica["next_arrival"]]
        if state.requests[at]["arrival"] > replica["now"]:
            break
        state.requests[at]["next"] = NONE
        if replica["waiting_tail"] == NONE:
            replica["waiting_head"] = at
        else:
            state.requests[replica["waiting_tail"]]["next"] = at
        replica["waiting_tail"] = at
        replica["waiting"] += 1
        replica["next_arrival"] += 1


@compiled
def advance(packed, until):
    """Simulate until the time `until`. Returns `ROOM_NEEDED` early where the logs are full."""
    state = State(*packed)
    replica = state.replica[0]
    while True:
        if len(state.token_time) - replica["tokens"] < replica["max_requests"]:
            return ROOM_NEEDED
        if replica["record_batches"] == 1 and len(state.batches) - replica["batches"] < len(state.stages):
            return ROOM_NEEDED
        receive(state)
        if replica["flights"] < replica["depth"] and schedule(state):
            continue
        if replica["flights"] > 0:
            if state.flights[replica["flight_first"]]["end"] > until:
                return FINISHED
            finish_flight(state)
        elif replica["next_arrival"] < replica["arrived"]:
            arrival = state.requests[state.arrivals[replica["next_arrival"]]]["arrival"]
            if arrival > until:
                return FINISHED
            replica["now"] = max(replica["now"], arrival)
        else:
            return FINISHED
