"""How long does an item wait before its next attempt? A pure function of policy, item number and attempt.

The k-th wait is ``min(initial * factor**(k-1), maximum) * (1 + jitter * u)`` with u in [-1, 1]. u is a hash of seed,
item and attempt (the finaliser of SplitMix64: Steele, Lea, Flood 2014), not the next number of a generator that all
items share: so a wait depends on nothing that runs beside it, and a run can be repeated.
"""

from __future__ import annotations

from ..policies.retry import Backoff

__all__ = ["backoff_delay"]

_MASK = 2**64 - 1


def backoff_delay(backoff: Backoff, item: int, attempt: int) -> float:
    """Give the seconds to wait after a failed attempt.

    Args:
      backoff: the policy.
      item: number of the item, from 0.
      attempt: number of the attempt that failed, from 1.
    """
    wait = min(_grown(backoff.initial, backoff.factor, attempt - 1), backoff.maximum)
    return wait * (1 + backoff.jitter * _chance(backoff.seed, item, attempt))


def _grown(initial: float, factor: float, times: int) -> float:
    if initial == 0:
        return 0.0
    try:
        return initial * float(factor) ** times  # a power of an int would be exact, however many digits that takes
    except OverflowError:  # beyond any float, so beyond the maximum
        return float("inf")


def _chance(seed: int, item: int, attempt: int) -> float:
    """Give a number in [-1, 1] that looks random and never changes."""
    mixed = _mixed(_mixed(_mixed(seed) ^ item) ^ attempt)
    return 2 * mixed / _MASK - 1


def _mixed(bits: int) -> int:
    bits = (bits + 0x9E3779B97F4A7C15) & _MASK
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & _MASK
    return bits ^ bits >> 31
