"""How do several pipelines become one? By weight, with equal shares, one after the other, or item by item as tuples.

Each function makes one value of the plan, which checks itself. These are functions, not methods of `Pipeline`, because
no input comes before the others. Nothing is merged here: the runtime does that.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeVar, overload

from ._base import checks
from ._plan.nodes import FanIn, FanInKind, Plan
from ._plan.operations import STOP
from .pipeline import Pipeline, plan_in
from .policies.fair_share import FairShare
from .policies.on_error import Failure, OnError, Skip, Stop

__all__ = ["concat", "fair_merge", "merge", "merge_sorted", "prefer", "zip_latest", "zip_pipelines"]

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
def merge_sorted(
    a: Pipeline[T],
    b: Pipeline[U],
    /,
    *,
    key: Callable[[T | U], Any] | None = None,
    reverse: bool = False,
    name: str | None = None,
) -> Pipeline[T | U]: ...


@overload
def merge_sorted(
    *pipelines: Pipeline[T],
    key: Callable[[T], Any] | None = None,
    reverse: bool = False,
    name: str | None = None,
) -> Pipeline[T]: ...


def merge_sorted(
    *pipelines: Pipeline[Any],
    key: Callable[[Any], Any] | None = None,
    reverse: bool = False,
    name: str | None = None,
) -> Pipeline[Any]:
    """Merge pipelines that are sorted, each in itself, into one that is sorted.

    It is stable: of equal items that of the earlier pipeline comes first. The order depends on no schedule, so an item
    is handed over only when every input that has not ended has one: a silent input delays the others, as in a zip. Of
    each input it holds one item, besides those in its link. That an input is sorted is not checked.

    Here items are compared, as nowhere else: by ``<``, once for each halving of the number of inputs. An error of a
    comparison, or of `key`, is the failure of the item at hand. The failure of an input comes when its next item would
    be needed: behind all items that are certainly before it.

    Args:
      pipelines: the inputs, all of which run at once; without any the stream is empty.
      key: ``key(item)`` is what is compared, a sync function, called once for each item; without it items are.
      reverse: whether the inputs are sorted from the greatest to the least.
      name: its name in reports and errors.

    Raises:
      TypeError: if an argument has a wrong type.
    """
    plans = [(number, plan_in(line)) for number, line in enumerate(pipelines)]
    kind: FanInKind = "merge_sorted"
    return Pipeline(Plan(FanIn(kind, kind if name is None else name, tuple(plans), key=key, reverse=reverse)))


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


@overload
def prefer(first: Pipeline[T], other: Pipeline[U], /, *, at_least: int, name: str | None = None) -> Pipeline[T | U]: ...


@overload
def prefer(
    first: Pipeline[T], other: Pipeline[U], another: Pipeline[V], /, *, at_least: int, name: str | None = None
) -> Pipeline[T | U | V]: ...


@overload
def prefer(first: Pipeline[T], /, *others: Pipeline[T], at_least: int, name: str | None = None) -> Pipeline[T]: ...


def prefer(first: Pipeline[Any], /, *others: Pipeline[Any], at_least: int, name: str | None = None) -> Pipeline[Any]:
    """Merge pipelines, one of which comes before the others, but does not starve them.

    An item of `first` is handed over whenever it has one, except that of `at_least` items in a row one is of the
    others, in turn, while they have any. When `first` has none, those of the others are handed over at once. It counts
    at the moment of hand-over, as in `fair_merge`; a silent input delays no other.

    Args:
      first: the pipeline that is preferred.
      others: those that come after it; all run at once.
      at_least: of how many items one is for the others, an int >= 2.
      name: its name in reports and errors.

    Raises:
      TypeError: if an argument has a wrong type.
      ValueError: if `at_least` is below 2.
    """
    plans = [(number, plan_in(line)) for number, line in enumerate((first, *others))]
    return Pipeline(Plan(FanIn("prefer", "prefer" if name is None else name, tuple(plans), at_least=at_least)))


@overload
def zip_latest(a: Pipeline[T], /, *, name: str | None = None) -> Pipeline[tuple[T]]: ...


@overload
def zip_latest(a: Pipeline[T], b: Pipeline[U], /, *, name: str | None = None) -> Pipeline[tuple[T, U]]: ...


@overload
def zip_latest(
    a: Pipeline[T], b: Pipeline[U], c: Pipeline[V], /, *, name: str | None = None
) -> Pipeline[tuple[T, U, V]]: ...


@overload
def zip_latest(
    a: Pipeline[T], b: Pipeline[U], c: Pipeline[V], d: Pipeline[W], /, *, name: str | None = None
) -> Pipeline[tuple[T, U, V, W]]: ...


@overload
def zip_latest(*pipelines: Pipeline[T], name: str | None = None) -> Pipeline[tuple[T, ...]]: ...


def zip_latest(*pipelines: Pipeline[Any], name: str | None = None) -> Pipeline[Any]:
    """Make tuples of the latest item of each pipeline: one for each item that comes, once each has given one.

    Until then a newer item of a pipeline supersedes the one before, which counts as dropped; such items are taken
    whether or not anybody asks for tuples. From the first tuple on nothing is dropped: while nobody asks, the inputs
    wait, and take turns afterwards. To get what is new rather than all, let the inputs end in
    ``buffer(1, overflow="drop_oldest")``.

    It ends when all inputs have ended; or when one ended without an item, as there will be no tuple. Then, and if it is
    stopped before the first tuple, the items that were waiting for it are discarded. A silent input delays no other
    once it has given an item. An item counts as used when it is in its first tuple; a tuple is one value.

    Args:
      pipelines: the inputs, all of which run at once; without any the stream is empty.
      name: its name in reports and errors.
    """
    return _fan_in("zip_latest", name, enumerate(pipelines))


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
