"""The prefix policy: where the prefix is, unless that pipeline has more to do by as much as the prefix saves."""

from __future__ import annotations

from cluster_views import OpenView, equal_requests

from helix_kit.flow import Stage
from helix_kit.scheduling import Prefix
from helix_kit.workload.request import Request

A, B = (Stage("a", 0, 2),), (Stage("b", 0, 1), Stage("c", 1, 2))


class Cached(OpenView):
    """B holds so many tokens of every request."""

    def __init__(self, tokens, **options):
        super().__init__(**options)
        self.tokens = tokens

    def cached_tokens(self, request, pipeline):
        return self.tokens if pipeline == B else 0


def test_load_weighs_against_the_prefix():
    """Both pipelines do 1 token/s. A request has 110 tokens, of which b holds 60: it costs 110 on a, 50 on b."""
    policy = Prefix([(A, 1.0), (B, 1.0)])
    chosen = [policy.route(request, Cached(60)) for request in equal_requests(4)]
    # Work on (a, b) before each: (0, 0), (0, 50), (0, 100), (110, 100).
    assert chosen == [B, B, A, B]


def test_shares_follow_the_throughput_where_nothing_is_cached():
    policy = Prefix([(A, 3.0), (B, 1.0), (A, 0.0)])
    chosen = [policy.route(request, OpenView()) for request in equal_requests(40)]
    assert chosen.count(A) == 30


def test_work_goes_with_the_request():
    policy = Prefix([(A, 1.0), (B, 1.0)])
    first, second, third = (Request(i, 0.0, 1000, 1) for i in range(3))
    assert policy.route(first, OpenView()) == A
    assert policy.route(second, OpenView()) == B
    policy.on_refused(second, B)
    policy.on_finished(Request(9, 0.0, 1, 1))  # of a policy before this one
    assert policy.route(third, OpenView()) == B
    policy.on_finished(first)
    assert policy.route(second, OpenView()) == A


def test_full_and_dead_nodes_are_skipped():
    class Full(OpenView):
        def has_room(self, node, tokens, num_layers):
            return node != "a"

    policy = Prefix([(A, 9.0), (B, 1.0)])
    request = Request(0, 0.0, 10, 10)
    assert policy.route(request, Full()) == B
    assert policy.route(request, Full(dead=["c"])) is None
