"""How long does an item wait before its next attempt? A pure function of policy, seed, stage, item and attempt.

The k-th wait is ``min(initial * factor**(k-1), longest) * (1 + jitter * u)`` with u in [-1, 1]. u is a hash, not the
next number of a generator that all items share: so a wait does not depend on what else runs, and a run can be
repeated. With m, the finaliser of SplitMix64 (Steele, Lea, Flood 2014), and ^, the exclusive or,

    u = 2 * m(m(m(s) ^ item) ^ k) / (2**64 - 1) - 1,    s = seed, then s = m(s) ^ byte for each byte of the stage's name

The seed is that of the policy; if it has none, that of the run, which is drawn elsewhere: many runs that lose the same
server at the same time do not come back at the same time. Nor do many stages of one run, whatever the seed.
"""

from __future__ import annotations

from ..policies.retry import Backoff

_MASK = 2**64 - 1


def backoff_delay(backoff: Backoff, item: int, attempt: int, *, stage: str = "", seed: int = 0) -> float:
    """Return the seconds to wait after a failed attempt.

    Args:
      backoff: the policy.
      item: number of the item, from 0.
      attempt: number of the attempt that failed, from 1.
      stage: name of the stage.
      seed: the seed of the run, used if the policy has none.
    """
    wait = min(_grown(backoff.initial, backoff.factor, attempt - 1), backoff.longest)
    if not backoff.jitter:
        return wait
    return wait * (1 + backoff.jitter * _chance(seed if backoff.seed is None else backoff.seed, stage, item, attempt))


def _grown(initial: float, factor: float, times: int) -> float:
    if initial == 0:
        return 0.0
    try:
        return initial * float(factor) ** times  # a power of an int would be exact, with any number of digits
    except OverflowError:  # too large for a float, so above the longest wait
        return float("inf")


def _chance(seed: int, stage: str, item: int, attempt: int) -> float:
    """Return a number in [-1, 1] that looks random and never changes."""
    for byte in stage.encode("utf-8", "surrogatepass"):
        seed = _mixed(seed) ^ byte
    mixed = _mixed(_mixed(_mixed(seed) ^ item) ^ attempt)
    return 2 * mixed / _MASK - 1


def _mixed(bits: int) -> int:
    bits = (bits + 0x9E3779B97F4A7C15) & _MASK
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & _MASK
    return bits ^ bits >> 31
