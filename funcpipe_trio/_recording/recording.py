"""What was recorded of a run, as a value and as a file: which durations and outcomes, and is a file sound?

The file is text: one JSON object a line, the first about the run, each other about one function, source or stage. It
holds seconds, counts, answers such as true and false, the names of the plan, and the names of error types; no item, no
key and no text of an error. `VERSION` counts its forms.

The invariant: a recording is sound. What a file says is checked when it is read, and the error names the line.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, get_args

from .._base import checks
from .._base.frozen import dataclass
from .._base.shown import cut, escaped, option
from .._runtime.reports.report import Outcome
from .tapes import INVALID, FailureKind, Kept, Sample

VERSION = 1

_HEAD: Final = "funcpipe_trio recording"
_COUNT: Final = "tapes"
"""How many lines come after the first: so one that is missing is noticed."""
_LONGEST: Final = 1e12
"""Seconds past which a number is taken for damage; a clock that counts more could not tell milliseconds apart."""


CONSUMER = ""
"""The part that the consumer is; no part of a plan has this name."""


class Place(NamedTuple):
    """What a sample is of."""

    part: str
    """The name of the part of the plan; of the consumer, `CONSUMER`."""
    path: str
    """Which of its functions, as `Pipeline.with_settings` would name it."""
    role: str
    """What is kept, see `_FORMS`."""


@dataclass(frozen=True, slots=True)
class Recording:
    """How long everything took in a run, and how it ended: made by a `Recorder`, used by `simulate`."""

    elapsed: float
    """Seconds from the beginning of the run to its end."""
    taken: int
    """Items that its sources gave."""
    delivered: int
    """Values that reached its end."""
    outcome: str
    """How it ended, see `Report.outcome`."""
    seed: int | None
    """The seed of its jitter; None if it had none."""
    has_consumer: bool
    """Whether a block received its items (`Pipeline.open`), rather than nobody (`Pipeline.run`)."""
    changes: tuple[tuple[float, str], ...]
    """When it was drained, paused, resumed and aborted, in seconds since its beginning."""
    tapes: Mapping[Place, Kept]
    """What was kept of each function."""

    def __repr__(self) -> str:
        return f"<Recording of {self.elapsed:.6g} s: {self.taken} taken, {self.delivered} delivered, {self.outcome}>"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file; one that is there is replaced.

        Raises:
          OSError: if it cannot be written.

        Checkpoint: never (sync).
        """
        Path(path).write_text("".join(f"{line}\n" for line in _lines(self)), encoding="utf-8")

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Recording:
        """Read it from a file.

        Raises:
          OSError: if it cannot be read.
          ValueError: if it is not a recording, or damaged; the message names the line and says what is wrong with it.

        Checkpoint: never (sync).
        """
        return _Reading(os.fspath(path)).recording()


# ---- writing


def _lines(recording: Recording) -> Iterator[str]:
    head = {_HEAD: VERSION, **{name: getattr(recording, name) for name in _FIELDS}, _COUNT: len(recording.tapes)}
    yield _json(head)
    for place, kept in recording.tapes.items():
        numbers = None if kept.is_whole else kept.numbers
        yield _json({**place._asdict(), "seen": kept.seen, "numbers": numbers, "samples": kept.samples})


def _json(value: Any) -> str:
    return json.dumps(value, default=_plain, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, FailureKind):
        return value.as_json()
    if isinstance(value, Fraction):
        return {"fraction": [value.numerator, value.denominator]}
    raise TypeError(f"{type(value).__name__} is not part of a recording")  # a defect of this package


# ---- reading


class _Bad(Exception):
    """What is wrong with a line."""


class _Reading:
    """Reads one file."""

    def __init__(self, path: str) -> None:
        self._path = path  # of the file, for errors
        self._line = 0  # that is being read, from 1

    def recording(self) -> Recording:
        try:
            text = Path(self._path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            self._refuse("must be text in UTF-8")
        lines = text.splitlines()
        if not lines:
            self._refuse("must not be empty")
        tapes: dict[Place, Kept] = {}
        try:
            count, head = _head(self._object(lines[0]))
            for line in lines[1:]:
                place, kept = _tape(self._object(line))
                _require(place not in tapes, f"must not be about the same as a line before: {cut(repr(tuple(place)))}")
                tapes[place] = kept
            _require(len(tapes) == count, f"must be the last of {count + 1} lines, by what the first one says")
        except _Bad as bad:
            self._refuse(str(bad))
        return Recording(**head, tapes=tapes)

    def _object(self, line: str) -> dict[str, Any]:
        self._line += 1
        try:
            value = json.loads(line, object_hook=_unplain, parse_constant=_no_constant)
        except (ValueError, RecursionError):  # also of a number of too many digits
            raise _Bad("must be a JSON object; it is cut off, say") from None
        if not isinstance(value, dict):
            raise _Bad("must be a JSON object")
        return value

    def _refuse(self, rule: str) -> NoReturn:
        where = f", line {self._line}" if self._line else ""
        raise ValueError(f"Recording.load: {escaped(self._path)}{where} {rule}") from None


def _no_constant(name: str) -> NoReturn:
    raise _Bad(f"must hold finite numbers, not {name}")


def _unplain(value: dict[str, Any]) -> Any:
    if value.keys() == {"type", "answers"}:
        _require(_is_type_name(value["type"]), "has a failure of a wrong form")
        answers = value["answers"]
        _require(isinstance(answers, dict) and all(map(_is_said, answers.values())), "has a failure of a wrong form")
        return FailureKind(value["type"], value["answers"])
    if value.keys() == {"fraction"}:
        parts = value["fraction"]
        _require(isinstance(parts, list) and len(parts) == 2 and all(map(_is_whole, parts)), "has a wrong fraction")
        _require(parts[1] > 0, "has a wrong fraction")
        return Fraction(*parts)
    return value


def _require(is_right: bool, rule: str) -> None:
    if not is_right:
        raise _Bad(rule)


def _head(value: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    _require(_HEAD in value, f"must be the head of a recording, with {option(_HEAD)}")
    version = value[_HEAD]
    right = _is_count(version) and version == VERSION
    _require(right, f"must be of version {VERSION}, not {cut(json.dumps(version, default=str))}")
    for name, is_right in _FIELDS.items():
        _require(name in value and is_right(value[name]), f"has no {option(name)} of the right form")
    changes = tuple([(float(at), what) for at, what in value["changes"]])
    _require(_is_count(value.get(_COUNT)), f"has no {option(_COUNT)} of the right form")
    fields = {**{name: value[name] for name in _FIELDS}, "elapsed": float(value["elapsed"]), "changes": changes}
    return value[_COUNT], fields


def _tape(value: dict[str, Any]) -> tuple[Place, Kept]:
    place = Place(*(value.get(name) for name in Place._fields))  # type: ignore[arg-type]  # checked below
    _require(all(isinstance(each, str) for each in place), "must have a part, a path and a role")
    _require(place.role in _FORMS, f"has a role that is not known, {cut(repr(place.role))}")
    seen: Any = value.get("seen")
    samples: Any = value.get("samples")
    numbers: Any = value.get("numbers")
    _require(_is_count(seen) and isinstance(samples, list), "must have the number seen, and samples")
    form = _FORMS[place.role]
    wrong = next((number for number, sample in enumerate(samples) if not form(sample)), None)
    _require(wrong is None, f"must have {place.role} as samples; that with index {wrong} is not one")
    if numbers is None:
        numbers = list(range(len(samples)))
        _require(place.role == "items" or len(samples) == seen, "must have as many samples as it has seen, or numbers")
    _require(isinstance(numbers, list) and all(map(_is_count, numbers)), "must have numbers >= 0")
    ordered = all(one < two for one, two in pairwise(numbers))
    _require(len(numbers) == len(samples) and ordered, "must have one number for each sample, in order")
    _require(not numbers or numbers[-1] < seen, "must have numbers below that of what was seen")
    _require(place.role != "bursts" or len(samples) == 1, "must have one sample")
    return place, Kept(seen, numbers, samples)


# ---- forms


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= sys.maxsize


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and _is_number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and checks.is_finite(value)


def _is_seconds(value: Any) -> bool:
    return _is_number(value) and not isinstance(value, bool) and 0 <= value <= _LONGEST


def _is_end(value: Any) -> bool:
    """Whether it is seconds, or those after which something was cut off, or those after which it failed, and how."""
    if not isinstance(value, list):
        return _is_seconds(value)
    return (len(value) == 1 or _is_failure(value)) and _is_seconds(value[0])


def _is_failure(value: Any) -> bool:
    """Whether it is a pair of a number and how something failed then."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[1], FailureKind)


def _is_found_out(value: Any) -> bool:
    """Whether it is a number of values that nothing told beforehand, and None or how they failed then."""
    is_pair = _is_failure(value) or (isinstance(value, list) and len(value) == 2 and value[1] is None)
    return is_pair and _is_count(value[0])


def _is_answer(value: Any) -> bool:
    return _is_number(value) or isinstance(value, str | Fraction | FailureKind)


def _is_said(value: Any) -> bool:
    """Whether a policy may have said it of an error."""
    return value is None or value == INVALID or _is_number(value)


def _is_type_name(value: Any) -> bool:
    """Whether an error of a simulation can have a type of that name."""
    try:
        return isinstance(value, str) and type(value, (), {}) is not None
    except ValueError:  # it holds what a name cannot
        return False


def _is_change(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and _is_seconds(value[0]) and value[1] in _WHATS


def _is_burst(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and _is_count(value[0]) and _is_seconds(value[1])


def _all(form: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def is_right(value: Any) -> bool:
        return isinstance(value, list) and all(map(form, value))

    return is_right


_FORMS: Final[Mapping[str, Callable[[Sample], bool]]] = {
    "calls": lambda value: _is_seconds(value) or (_all(_is_end)(value) and value != []),  # of an item: each attempt
    "answers": _is_answer,
    "failures": lambda value: isinstance(value, FailureKind),  # of those calls that failed
    "children": _all(_is_end),  # the way to each child, and to the end
    "counts": lambda value: _is_count(value) or _is_found_out(value),
    "dues": lambda value: value is None or _is_number(value) or isinstance(value, FailureKind),  # in how many seconds
    "pulls": _is_seconds,  # how long it took
    "arrivals": _is_seconds,  # when the item came, since the beginning of the run
    "ends": _is_end,
    "items": lambda value: False,  # only counted
    "bursts": _is_burst,  # values, and seconds: of the whole run
    "holds": _is_seconds,
}
"""What the samples of each role are."""

_WHATS: Final = ("drain", "pause", "resume", "abort")

_FIELDS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "elapsed": _is_seconds,
    "taken": _is_count,
    "delivered": _is_count,
    "outcome": lambda value: value in get_args(Outcome) and value != "running",
    "seed": lambda value: value is None or (type(value) is int and 0 <= value < 1 << 64),
    "has_consumer": lambda value: isinstance(value, bool),
    "changes": _all(_is_change),
}
