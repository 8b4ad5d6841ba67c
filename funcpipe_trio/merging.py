"""How do several pipelines become one? By weight, with equal shares, one after the other, or item by item as tuples.

Each function makes one value of the plan, which checks itself. These are functions, not methods of `Pipeline`, because
no input comes before the others. Nothing is merged here: the runtime does that.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, TypeVar, overload

from ._base import checks
from ._plan.nodes import FanIn, FanInKind, Plan
from ._plan.operations import STOP
from .pipeline import Pipeline, plan_in
from .policies.fair_share import FairShare
from .policies.on_error import Failure, OnError, Skip, Stop

__all__ = ["concat", "fair_merge", "merge", "zip_pipelines"]

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")
W = TypeVar("W")
K = TypeVar("K", bound=Hashable)


@overload
def fair_merge(
    inputs: Mapping[K, Pipeline[T]],
    share: FairShare[K] | None = None,
    *,
    on_error: Stop | Skip = ...,
    name: str | None = None,
) -> Pipeline[T]: ...


@overload
def fair_merge(
    inputs: Mapping[K, Pipeline[T]], share: FairShare[K] | None = None, *, on_error: OnError, name: str | None = None
) -> Pipeline[T | Failure[None]]: ...


def fair_merge(
    inputs: Mapping[Any, Pipeline[Any]],
    share: FairShare[Any] | None = None,
    *,
    on_error: OnError = STOP,
    name: str | None = None,
) -> Pipeline[Any]:
    """Merge several pipelines by weight.

    All inputs run at once. While inputs f and m both have items, the service they got, by weight, differs by at most
    ``cost_f/weight_f + cost_m/weight_m`` (start-time fair queueing) at the moment of hand-over: there is no link behind
    a merge, the next stage takes from it directly. A silent input does not delay the others.

    Args:
      inputs: the pipelines by key; without any the stream is empty.
      share: their weights, the capacity of each input's link, and what an item costs.
      on_error: what happens when an input fails, see `merge`.
      name: its name in reports and errors.

    Raises:
      PlanError: if `share` names an input that does not exist.
      TypeError: if an argument has a wrong type.
      ValueError: if `on_error` is a `divert`, or a `skip` with a ratio.
    """
    checks.mapping("fair_merge", "inputs", inputs, "keys to pipelines")
    shared = FairShare() if share is None else share
    return _fan_in("fair_merge", name, inputs.items(), shared, on_error=on_error)


@overload
def merge(
    a: Pipeline[T],
    b: Pipeline[U],
    /,
    *,
    on_error: Stop | Skip = ...,
    name: str | None = None,
) -> Pipeline[T | U]: ...


@overload
def merge(
    a: Pipeline[T],
    b: Pipeline[U],
    /,
    *,
    on_error: OnError,
    name: str | None = None,
) -> Pipeline[T | U | Failure[None]]: ...


@overload
def merge(
    a: Pipeline[T],
    b: Pipeline[U],
    c: Pipeline[V],
    /,
    *,
    on_error: Stop | Skip = ...,
    name: str | None = None,
) -> Pipeline[T | U | V]: ...


@overload
def merge(
    a: Pipeline[T],
    b: Pipeline[U],
    c: Pipeline[V],
    /,
    *,
    on_error: OnError,
    name: str | None = None,
) -> Pipeline[T | U | V | Failure[None]]: ...


@overload
def merge(
    a: Pipeline[T],
    b: Pipeline[U],
    c: Pipeline[V],
    d: Pipeline[W],
    /,
    *,
    on_error: Stop | Skip = ...,
    name: str | None = None,
) -> Pipeline[T | U | V | W]: ...


@overload
def merge(
    a: Pipeline[T],
    b: Pipeline[U],
    c: Pipeline[V],
    d: Pipeline[W],
    /,
    *,
    on_error: OnError,
    name: str | None = None,
) -> Pipeline[T | U | V | W | Failure[None]]: ...


@overload
def merge(*pipelines: Pipeline[T], on_error: Stop | Skip = ..., name: str | None = None) -> Pipeline[T]: ...


@overload
def merge(*pipelines: Pipeline[T], on_error: OnError, name: str | None = None) -> Pipeline[T | Failure[None]]: ...


def merge(*pipelines: Pipeline[Any], on_error: OnError = STOP, name: str | None = None) -> Pipeline[Any]:
    """Merge several pipelines with equal shares, each item as it comes; without any the stream is empty.

    Args:
      pipelines: the inputs, all of which run at once.
      on_error: what happens when an input fails, which then has ended. `stop`: the stream ends there, in the turn of
        that input. `emit`: a `Failure` takes the place of the input's next item (its ``item`` is None, its ``stage``
        the number or key of the input), and the others go on. `skip`: the others go on; more than ``max_failures``
        inputs that failed end the stream. ``report.inputs`` says which input failed, and with what type of error.
      name: its name in reports and errors.

    Raises:
      TypeError: if an argument has a wrong type.
      ValueError: if `on_error` is a `divert`, or a `skip` with a ratio.
    """
    return _fan_in("merge", name, enumerate(pipelines), FairShare(), on_error=on_error)


@overload
def concat(a: Pipeline[T], b: Pipeline[U], /, *, name: str | None = None) -> Pipeline[T | U]: ...


@overload
def concat(a: Pipeline[T], b: Pipeline[U], c: Pipeline[V], /, *, name: str | None = None) -> Pipeline[T | U | V]: ...


@overload
def concat(
    a: Pipeline[T], b: Pipeline[U], c: Pipeline[V], d: Pipeline[W], /, *, name: str | None = None
) -> Pipeline[T | U | V | W]: ...


@overload
def concat(*pipelines: Pipeline[T], name: str | None = None) -> Pipeline[T]: ...


def concat(*pipelines: Pipeline[Any], name: str | None = None) -> Pipeline[Any]:
    """Chain pipelines: all items of the first, then those of the next, which is started when the first has ended.

    ``concat(concat(a, b), c)`` is ``concat(a, b, c)``, unless the inner one has its own name, or an operation behind
    it.
    """
    return _fan_in("concat", name, enumerate(pipelines))


@overload
def zip_pipelines(a: Pipeline[T], /, *, strict: bool = False, name: str | None = None) -> Pipeline[tuple[T]]: ...


@overload
def zip_pipelines(
    a: Pipeline[T], b: Pipeline[U], /, *, strict: bool = False, name: str | None = None
) -> Pipeline[tuple[T, U]]: ...


@overload
def zip_pipelines(
    a: Pipeline[T], b: Pipeline[U], c: Pipeline[V], /, *, strict: bool = False, name: str | None = None
) -> Pipeline[tuple[T, U, V]]: ...


@overload
def zip_pipelines(
    a: Pipeline[T], b: Pipeline[U], c: Pipeline[V], d: Pipeline[W], /, *, strict: bool = False, name: str | None = None
) -> Pipeline[tuple[T, U, V, W]]: ...


@overload
def zip_pipelines(
    *pipelines: Pipeline[T], strict: bool = False, name: str | None = None
) -> Pipeline[tuple[T, ...]]: ...


def zip_pipelines(*pipelines: Pipeline[Any], strict: bool = False, name: str | None = None) -> Pipeline[Any]:
    """Make tuples of one item from each pipeline, until the first of them ends.

    An item of a longer input that no tuple needs is discarded with the reason ``not needed``.

    Args:
      pipelines: the inputs, all of which run at once; without any the stream is empty.
      strict: whether inputs of different lengths are an error (a ValueError in the stream, behind the last tuple). A
        drain stops the inputs where they are; different lengths are then not an error.
      name: its name in reports and errors.
    """
    return _fan_in("zip", name, enumerate(pipelines), strict=strict)


def _fan_in(
    kind: FanInKind,
    name: str | None,
    inputs: Iterable[tuple[Hashable, Pipeline[Any]]],
    share: FairShare[Any] | None = None,
    *,
    strict: bool = False,
    on_error: OnError = STOP,
) -> Pipeline[Any]:
    plans = [(key, plan_in(line)) for key, line in inputs]
    return Pipeline(Plan(FanIn(kind, kind if name is None else name, tuple(plans), share, strict, on_error)))
