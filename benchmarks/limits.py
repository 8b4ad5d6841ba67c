"""What does a call cost at a limiter, if it need not wait, and if ten thousand keys wait for it by weight?

- A token that is there: `acquire`, next to the least that a trio user would write (a bucket in floats, a checkpoint).
- A decision: who of ten thousand waiting calls is next, without tasks: each finds the first one, charges and removes
  it, the last one of its key.
- A decision and a call that joins the line: another one of a key that waits anyway, of the same key, which has left
  with its last call, or of one that was never seen.
- A turn: ten thousand tasks, each with a key of its own, wait for one place and hold it in turn, all in trio.
"""

from __future__ import annotations

from ._model import Benchmark, Case, Contender, Target, Timed, way

__all__ = ["BENCHMARK"]

KEYS = 10_000
FIRST_COME = "first come, first served"
LEAVE, STAY, RETURN, NEW = "keys that leave", "keys that stay", "keys that leave and return", "ever new keys"

TOKEN = Case(
    name="a token that is there",
    contenders=(
        Contender("limiter", way("ours:tokens_there", 0)),
        Contender("limiter, 100 keys", way("ours:tokens_there", 100)),
        Contender("by hand", way("by_trio:tokens_there")),
    ),
    targets=(Target("limiter", "by hand", at_most=4.0), Target("limiter, 100 keys", "by hand")),
    items=100_000,
    quick_items=3_000,
)


def _kept(timed: Timed) -> object:
    """Return what all agree on: as many wait as before."""
    return timed.result


DECISION = Case(
    name=f"a decision, {KEYS:_} waiting",
    contenders=(
        Contender(LEAVE, way("ours:decisions", KEYS), view=_kept),
        Contender(FIRST_COME, way("ours:decisions", 0), view=_kept),
    ),
    targets=(Target(LEAVE, FIRST_COME, at_most=5_000, difference=True),),
    items=100_000,
    quick_items=3_000,
)

JOIN = Case(
    name=f"a decision and a join, {KEYS:_} waiting",
    contenders=(
        Contender(STAY, way("ours:decisions_and_joins", KEYS, 2, False), view=_kept),
        Contender(RETURN, way("ours:decisions_and_joins", KEYS, 1, False), view=_kept),
        Contender(NEW, way("ours:decisions_and_joins", KEYS, 1, True), view=_kept),
        Contender(FIRST_COME, way("ours:decisions_and_joins", KEYS, 0, False), view=_kept),
    ),
    targets=(
        Target(STAY, FIRST_COME, at_most=5_000, difference=True),
        Target(RETURN, FIRST_COME, difference=True),
        Target(NEW, FIRST_COME, difference=True),
    ),
    items=100_000,
    quick_items=3_000,
)

TURN = Case(
    name=f"a turn, {KEYS:_} tasks",
    contenders=(
        Contender("by weight", way("ours:turns", KEYS, True)),
        Contender(FIRST_COME, way("ours:turns", KEYS, False)),
    ),
    targets=(Target("by weight", FIRST_COME, at_most=2.5),),
    items=10 * KEYS,
    quick_items=KEYS,
    check_items=1_000,
)

BENCHMARK = Benchmark(
    name="limits",
    question="what does a call cost at a limiter, and with ten thousand keys that wait for it?",
    unit="ns per item",
    cases=(TOKEN, DECISION, JOIN, TURN),
)
