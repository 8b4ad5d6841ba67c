"""What messages, plans and reports may say of a user's values: no item is printed, nothing is long, nothing is raw.

Every public function is called with each argument wrong in many ways, and every function of a plan answers in as many:
whatever is refused, the message holds nothing that the argument would have printed, stays short, and can be printed.
Names and keys are shown, escaped, wherever they stand.

Mutants that die here: a message with the repr of an argument; a repr that is asked and fails; a list of all the names
there are; a name in a plan, a report, a note or an error as it is.
"""

import inspect
import math
from collections.abc import Callable
from contextlib import nullcontext, suppress
from fractions import Fraction
from functools import partial
from itertools import chain

import pytest
import trio

import funcpipe_trio
from funcpipe_trio import (
    Backoff,
    CircuitBreaker,
    FairChannel,
    FairShare,
    OnError,
    Pipeline,
    PlaceLimiter,
    PlanError,
    RateLimit,
    RateLimiter,
    Retry,
    RollingLimit,
    Step,
    concat,
    fair_merge,
    merge,
    merge_sorted,
    prefer,
    threads,
    zip_latest,
    zip_pipelines,
)
from funcpipe_trio.testing import run_virtual

SECRET = "card 4111 1111"
BAD_NAMES = ["\x1b]0;title\x07", "a\nb", "\x9b2J", "\u202egnp.exe", "\udcff", "\r\x7f"]


class Secret:
    """Prints what nobody may read."""

    def __repr__(self):
        return SECRET

    __str__ = __repr__


class Huge(Secret):
    def __repr__(self):
        return SECRET + "x" * 8_000_000


class Control(Secret):
    def __repr__(self):
        return SECRET + "\x1b[2J\n"


class Raising(Secret):
    def __repr__(self):
        raise RuntimeError(SECRET)

    __str__ = __format__ = __len__ = __bool__ = __repr__


class Key:
    """A key, which may be shown, but not as it is."""

    def __init__(self, says):
        self.says = says

    def __repr__(self):
        return self.says if self.says else str(1 / 0)


class SecretCall(Secret):
    def __call__(self, *args):
        return Secret()


class SecretAsyncCall(Secret):
    async def __call__(self, *args):
        return Secret()


class SecretInt(int, Secret):
    __repr__ = __str__ = Secret.__repr__


class SecretStr(str):
    __repr__ = Secret.__repr__


class SecretError(Exception):
    def __str__(self):
        return SECRET

    __repr__ = __str__


def oddly_named(item=None):
    return Secret()


async def async_oddly_named(item=None):
    return Secret()


oddly_named.__name__ = async_oddly_named.__name__ = "\x1b]0;" + "f" * 5000

HOSTILE = {
    "secret": Secret(),
    "huge": Huge(),
    "control": Control(),
    "raising": Raising(),
    "callable": SecretCall(),
    "async callable": SecretAsyncCall(),
    "int": SecretInt(-1),
    "str": SecretStr("x"),
    "long text": SECRET * 1000,
    "empty": "",
    "bytes": SECRET.encode() * 1000,
    "list": [SECRET] * 10_000,
    "tuple": (Secret(), [SECRET], (SECRET,), 1),
    "dict": {f"{n}" * 90: Secret() for n in range(1, 3000)},
    "keys": {Key("k" * 8_000_000): Secret(), Key("\x1b[2J"): 1, Key(None): 1},
    "set": {SECRET},
    "error": SecretError(),
    "digits": -(10**5000),
    "many digits": 10**5000,
    "fraction": Fraction(-1, 3**3000),
    "nan": math.nan,
    "bool": True,
    "None": None,
    "type": int,
    "function": oddly_named,
    "async function": async_oddly_named,
    "pipeline": Pipeline.from_iterable([SECRET]),
    "share": FairShare({Key("k" * 8_000_000): 1, Key("\x1b[2J"): 2, Key(None): 3}),
    "many weights": FairShare({f"{n}" * 90: 1 for n in range(1, 3000)}),
}


def same(item):
    return item


async def call(item):
    return item


async def nap(item=None):
    await trio.sleep(1)


LINE = Pipeline.from_iterable([1, 2, 3])
FAIR = RateLimiter(RateLimit(1), FairShare())
USUAL = {
    "fn": call,
    "items": [1],
    "receive_channel": lambda: trio.open_memory_channel(1)[1],
    "async_fn": call,
    "source_factory": lambda: iter([1]),
    "retry": Retry(2),
    "reset_after": 1,
    "period": 1,
    "initial": 0,
    "n": 1,
    "capacity": 1,
    "rate_limit": RateLimit(1),
    "limit": RateLimit(1),
    "limiter": PlaceLimiter(1),
    "places": 1,
    "breaker": CircuitBreaker(),
    "runner": lambda: funcpipe_trio.threads(1),
    "delay": 1,
    "seconds": 1,
    "key": same,
    "max_keys": 1,
    "remember": 1,
    "branches": {"a": same},
    "route": same,
    "step": Step(call),
    "concurrency": 1,
    "minimum": 1,
    "maximum": 1,
    "inputs": {"a": LINE},
    "max_items": 1,
    "rate": 1,
    "executor": None,
    "value": 1,
    "item": 1,
    "weight": 1,
    "stage": "call",
}


def public_calls():
    """Return every public function and method by name, the async ones as sync ones."""
    faces = {name: getattr(funcpipe_trio, name) for name in vars(funcpipe_trio) if not name.startswith("_")}
    things = {
        "Pipeline": LINE,
        "Step": Step(same),
        "OnError": OnError,
        "RateLimiter": RateLimiter(RateLimit(1), FairShare()),
        "PlaceLimiter": PlaceLimiter(1, FairShare()),
        "FairChannel": FairChannel(),
    }
    for name, face in faces.items():
        if inspect.ismodule(face) or name.endswith(("Report", "Statistics")):
            continue
        if callable(face) and not (isinstance(face, type) and issubclass(face, Exception)):
            yield name, face
        for method in vars(face) if isinstance(face, type) else ():
            if not method.startswith("_") and name in things and callable(getattr(things[name], method)):
                yield f"{name}.{method}", getattr(things[name], method)


NO_FACES = {"StartedStep", "Step.from_plan", "Run", "OnError.describe"}  # what others make, or write
CALLS = {name: fn for name, fn in public_calls() if name not in NO_FACES}


def arguments_of(fn):
    """Return the parameters of a function, and usual arguments for those that it needs."""
    with suppress(ValueError, TypeError):
        parameters = inspect.signature(fn).parameters.values()
        usual = {
            each.name: USUAL[each.name]
            for each in parameters
            if each.default is each.empty
            and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
            and each.name in USUAL
        }
        made = ("receive_channel", "runner")
        return parameters, {name: value() if name in made else value for name, value in usual.items()}
    return (), {}


def called(fn, parameter, usual, value):
    """Call a function with one argument of this value."""
    if parameter.kind is parameter.VAR_POSITIONAL:
        made = fn(value)
    elif parameter.kind is parameter.POSITIONAL_ONLY:
        made = fn(value, **usual)
    else:
        made = fn(**{**usual, parameter.name: value})
    if inspect.iscoroutine(made):
        return run_virtual(lambda: made)
    return made


def assert_fit(text, most=600):
    """It is short, can be printed, and tells nothing."""
    assert len(text) <= most, f"{len(text)} characters: {text[:200]}"
    assert SECRET not in text
    assert text.replace("\n", "").isprintable(), ascii(text)


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("name", CALLS)
def test_what_is_refused_is_refused_in_a_fit_message(name, value):
    """Whichever argument it is; and what is accepted makes a plan that can be shown."""
    parameters, usual = arguments_of(CALLS[name])
    for parameter in parameters:
        try:
            made = called(CALLS[name], parameter, usual, HOSTILE[value])
        except SecretError:
            pass  # the user's own
        except Exception as error:
            is_one_of_ours = isinstance(error, TypeError | ValueError | LookupError | PlanError)
            assert is_one_of_ours or parameter.name == "task_status", f"{parameter}: {error!r}"
            for problem in error.problems if isinstance(error, PlanError) else (str(error),):
                assert_fit(problem)
            for note in getattr(error, "__notes__", ()):
                assert_fit(note)
        else:
            if isinstance(made, Pipeline | Step) and parameter.name != "name":  # that is there to be shown
                with suppress(PlanError, ValueError):
                    assert_fit(made.describe(), 2000)
                assert_fit(repr(made))


@pytest.mark.parametrize("value", HOSTILE)
def test_what_a_run_or_a_channel_at_work_refuses_is_told_in_a_fit_message(value):
    """In the middle of things, where keys and stages are asked for that are not there."""
    wrong = HOSTILE[value]

    async def main():
        channel = FairChannel()
        inputs = channel.group("group").open_input("input")
        lines = {str(n) * 30: LINE.map(call, name=str(n) * 30) for n in range(30)}
        async with fair_merge(lines).open() as run:
            return [
                await refusal(attempt, wrong)
                for attempt in (
                    lambda value: run.set_weight(value, 1),
                    lambda value: run.set_weight("0" * 30, value),
                    lambda value: run.set_weight("0", 1, merge=value),
                    lambda value: run.set_concurrency(value, 1),
                    lambda value: run.set_concurrency("0" * 30, value),
                    run.drain,
                    lambda value: inputs.send_nowait(1, cost=value),
                    lambda value: channel.set_weight(value, 1),
                    lambda value: channel.open_input(1, weight=value),
                    lambda value: channel.open_input(2, capacity=value),
                )
            ]

    for message in run_virtual(main):
        assert_fit(message)


async def refusal(attempt, value):
    """What is said of a value; nothing if it is taken."""
    try:
        made = attempt(value)
        if inspect.isawaitable(made):
            with trio.move_on_after(1):
                await made
    except (TypeError, ValueError, LookupError) as error:
        return str(error)
    return ""


# ---- what functions answer


class Pushing:
    """An object with state that gives what it is told to."""

    def __init__(self, fn):
        self.push = fn


class Due:
    """One that wants to be called when it is told to."""

    def __init__(self, fn):
        self.due = fn

    def push(self, item):
        return [item]

    def tick(self, now):
        return ()


ANSWERS = {
    "cost of a merge": lambda fn: fair_merge({"a": LINE}, FairShare(cost=fn)),
    "cost of a key": lambda fn: LINE.fair_by(same, FairShare(cost=fn), max_keys=1),
    "key of fair_by": lambda fn: LINE.fair_by(fn, max_keys=1),
    "new work": lambda fn: LINE.loop(same, again=fn, room=1),
    "key of distinct": lambda fn: LINE.distinct(fn, remember=1),
    "key of map": lambda fn: LINE.map(call, key=fn),
    "key of on_ok": lambda fn: LINE.on_ok(call, key=fn),
    "cost of a batch": lambda fn: LINE.batch(max_cost=1, cost=fn),
    "key of a batch": lambda fn: LINE.batch(2, key=fn, max_keys=1, full="fail"),
    "key of a batch by cost": lambda fn: LINE.batch(max_cost=2, key=fn, max_keys=1, full="fail"),
    "cost of a throttle": lambda fn: LINE.throttle(RateLimit(1), cost=fn),
    "cost of a call": lambda fn: LINE.map(Step(call).rate_limit(RateLimit(1), cost=fn)),
    "settlement of a call": lambda fn: LINE.take(1).map(Step(call).rate_limit(RateLimit(1), settle=fn)),
    "settlement at a rolling limit": lambda fn: LINE.take(1).map(Step(call).rate_limit(RollingLimit(3), settle=fn)),
    "whose share a call takes": lambda fn: LINE.map(Step(call).rate_limit(FAIR, key=fn)),
    "whose place a call takes": lambda fn: LINE.map(
        Step(nap).places(PlaceLimiter(1, FairShare()), key=fn), concurrency=3
    ),
    "route": lambda fn: LINE.partition(fn, dict.fromkeys(["a", *(str(n) + "b" * 90 for n in range(20))], same)),
    "retry_after": lambda fn: LINE.map(Step(fails).retry(Retry(2, OSError, Backoff(0), retry_after=fn))),
    "whether to retry": lambda fn: LINE.map(Step(fails).retry(Retry(2, fn, Backoff(0)))),
    "another pipeline": lambda fn: LINE.take(0).or_else(fn),
    "the end": lambda fn: LINE.on_end(fn),
    "children": lambda fn: LINE.flat_map(fn),
    "children in a stage": lambda fn: LINE.flat_map(fn, concurrency=1),
    "what push gives": lambda fn: LINE.stateful(lambda: Pushing(fn)),
    "key of an object": lambda fn: LINE.stateful(lambda: Due(lambda: None), key=fn, max_keys=1, full="fail"),
    "what push gives by key": lambda fn: LINE.stateful(lambda: Pushing(fn), key=same, max_keys=1),
    "when it is due by key": lambda fn: LINE.stateful(lambda: Due(fn), key=same, max_keys=1),
    "when it is due": lambda fn: LINE.stateful(lambda: Due(fn)),
    "what make makes": lambda fn: LINE.stateful(lambda: fn(1)),
    "what a generator is": lambda fn: LINE.through(fn),
    "a batch": lambda fn: LINE.map(fn).unbatch(),
    "a source": lambda fn: Pipeline.from_iterable(fn),
    "a source in a thread": lambda fn: Pipeline.from_iterable(fn, on=threads(1)),
    "a source that restarts": lambda fn: Pipeline.restarting(fn, Retry(1), reset_after=1),
    "what opens the resource of a step": lambda fn: LINE.map(Step(lambda _, item: call(item)).using(fn)),
    "what opens a resource": lambda fn: Pipeline.using(fn, list),
    "what is given of a resource": lambda fn: Pipeline.using(nullcontext, lambda _: fn()),
}


KEYS = {"key of fair_by", "whose share a call takes", "whose place a call takes"}
"""What they answer is a name, which reports show."""


async def fails(item):
    raise OSError(3)


@pytest.mark.parametrize("place", ANSWERS)
@pytest.mark.parametrize("value", HOSTILE)
def test_an_answer_that_cannot_be_used_is_told_in_a_fit_message(place, value):
    """The error of the stream, its notes, and the report."""

    def answer(*_args):
        return HOSTILE[value]

    async def main():
        async with ANSWERS[place](answer).take(5).open() as run:
            try:
                async for _ in run:
                    pass
            except Exception as error:
                return error, run.report
            return None, run.report

    error, report = run_virtual(main)
    is_users_own = isinstance(error, SecretError | RuntimeError)
    if error is not None and not is_users_own:
        for text in (str(error), *getattr(error, "__notes__", ())):
            if not (place == "children" and "iterable" in text):  # Python's own words
                assert_fit(text)
    shown = report.describe()
    is_there_to_be_shown = is_users_own or place in KEYS
    assert_fit(shown.replace(SECRET, "") if is_there_to_be_shown else shown, 4000)


# ---- names and keys

odd = pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)


def share_of(name):
    return FairShare({name: 2, (name, name): 1})


def plans(name):
    """Put a name wherever there is one."""

    def fn(item):
        return item

    async def later(item):
        return item

    fn.__name__ = later.__name__ = name
    error = type(name.replace("\udcff", "\r"), (Exception,), {})  # no type has half a character in its name

    def broken(item):
        raise error(name)

    source = Pipeline.from_iterable([1, 2], name=name)
    retry = Retry(2, error, Backoff(0))
    share = FairShare({name: 2, (name, 1): 1}, cost=lambda item: 1)
    yield source.map(fn).filter(fn).tap(fn).scan(lambda state, item: item, 0)
    yield source.map(later, name=name).buffer(1, name=name, overflow="drop_oldest").batch(2, name=name)
    yield source.map(Step(later).retry(retry).timeout(9), on_error=OnError.divert(later)).unbatch
    yield source.map(later, latest=True, name=name).flat_map(broken_later(error, name), latest=True, name=name)
    yield source.map(broken, on_error=OnError.skip())
    yield source.map(broken, on_error=OnError.emit())
    yield source.on_end(broken).on_end(broken, name=name)
    yield source.take(0).or_else(lambda: source.map(broken, name=name), name=name)
    yield source.map(broken, on_error=OnError.emit()).on_ok(fn).recover(broken, name=name)
    yield source.map(broken, name=name)
    tokens, few = RateLimiter(RateLimit(1), share_of(name)), PlaceLimiter(1, share_of(name))
    yield source.map(Step(later).rate_limit(tokens.group(name), key=lambda item: name), concurrency=2)
    yield source.map(Step(nap).places(few, key=lambda item: name), concurrency=2)
    yield source.map(Step(later, name=name).then(Step(broken_later(error, name)).retry(retry)))
    yield fair_merge({name: source, (name, 1): source}, share, name=name)
    failing = source.map(broken, name=name)
    yield fair_merge({name: failing, (name, 1): failing}, share, name=name, on_error=OnError.emit())
    yield fair_merge({name: failing, (name, 1): failing}, share, name=name, on_error=OnError.skip(1))
    yield merge(source, source, name=name)
    yield concat(source, zip_pipelines(source, source, name=name), name=name)
    yield source.fair_by(lambda item: name, share, max_keys=3, name=name)
    yield source.fair_by(lambda item: (name, item), max_keys=3)
    yield source.loop(fn, again=lambda item: [item], room=1, name=name)
    yield source.broadcast({name: fn}, name=name)
    yield source.broadcast({name: fn, "b": fn}, join="zip", name=name)
    yield source.balance({name: fn}, name=name)
    yield source.partition(lambda item: name, {name: fn, "b": fn}, name=name)
    yield source.partition(lambda item: f"{name}?", {name: fn, "b": fn}, name=name)
    yield source.throttle(RateLimit(9), cost=fn, name=name).debounce(1, name=name).delay(1, name=name)
    yield source.window(2, name=name).distinct(str, remember=1, name=name)
    yield source.distinct(lambda item: [], remember=1, name=name)
    yield source.flat_map(lambda item: source.map(broken, name=name), concurrency=1, name=name)
    yield source.take_for(9, name=name).stop_when(broken_stop(error, name), name=name).buffer(1)
    yield source.map(later).keep_alive(1e-6, broken_maker(error, name), name=name)
    yield source.take_until(broken, name=name)
    yield source.idle_timeout(1, name=name).timeout(1e-3, name=name).map(lambda item: item)
    yield Pipeline.restarting(lambda: 3, Retry(1), reset_after=1, name=name)
    yield Pipeline.using(lambda: name, list, name=name)
    yield Pipeline.using(nullcontext, lambda _: 3, name=name)
    yield zip_latest(source, source, name=name)
    yield prefer(source, source, at_least=2, name=name)
    yield merge_sorted(source, source, key=fn, name=name)
    yield zip_pipelines(source, Pipeline.from_iterable([1], name=name), strict=True, name=name)
    yield source.buffer(1, overflow="fail", name=name)


def broken_stop(error, name):
    async def broken():
        raise error(name)

    broken.__name__ = name
    return broken


def broken_maker(error, name):
    def broken():
        raise error(name)

    broken.__name__ = name
    return broken


def broken_later(error, name):
    async def broken(item):
        raise error(name)

    broken.__name__ = name
    return broken


@odd
def test_names_and_keys_are_escaped_wherever_they_are_shown(name):
    """In plans, reports, notes, and the errors that are ours; a line is a line."""
    for plan in filter(lambda made: isinstance(made, Pipeline), plans(name)):
        plain = plan.describe()
        assert_lines(plain)
        assert_lines(repr(plan))

        error, report = run_virtual(played, plan)

        assert_lines(report.describe())
        for text in chain([str(error)] if is_ours(error) else [], getattr(error, "__notes__", ())):
            assert_lines(text)


def assert_lines(text):
    for line in text.split("\n"):
        assert line.isprintable(), ascii(line)


def is_ours(error):
    return isinstance(error, TypeError | KeyError | ValueError | funcpipe_trio.FuncpipeError)


async def played(plan):
    async with plan.open() as run:
        error = None
        await trio.sleep(5)
        try:
            async for _ in run:
                pass
        except Exception as met:
            error = met
    return error, run.report


@odd
def test_a_report_measures_its_columns_as_they_are_shown(name):
    """An escaped name is longer than the name: the rows of a table are equally long all the same."""
    _, report = run_virtual(played, LINE.map(call, name=name).fair_by(lambda item: (name, "b")[item % 2], max_keys=2))
    tables = report.describe().split("\n\n")[1:]

    assert len(tables) == 2
    assert [len({len(line) for line in table.split("\n")}) for table in tables] == [1, 1]


@odd
def test_errors_of_a_run_escape_the_names_there_are(name):
    """Which merges, inputs and stages there are is told where another one is asked for."""

    async def main():
        lines = {name: LINE.map(call, name=name), "b": LINE}
        async with fair_merge(lines, name=name).open() as run:
            found = []
            for attempt in (
                lambda: run.set_weight(1, 1),
                lambda: run.set_weight(1, 1, merge="none"),
                lambda: run.set_concurrency("none", 1),
            ):
                with pytest.raises(KeyError) as caught:
                    attempt()
                found.append(caught.value.args[0])
            return found

    for text in run_virtual(main):
        assert_lines(text)


@odd
def test_steps_escape_their_names(name):
    step = Step(broken_later(ValueError, name), name=name).retry(Retry(2, ValueError, Backoff(0)))

    assert_lines(step.describe())
    assert_lines(repr(step))
    assert_lines(repr(step.start()))
    with pytest.raises(ValueError) as caught:
        run_virtual(step, 1)
    for note in caught.value.__notes__:
        assert_lines(note)


@odd
def test_a_channel_escapes_its_keys(name):
    channel = FairChannel()
    channel.open_input(name)
    with pytest.raises(ValueError, match=r"^FairChannel: key must not be open already, not '") as caught:
        channel.open_input(name)

    assert_lines(str(caught.value))


def test_a_name_without_end_does_not_spoil_a_plan_or_a_report():
    """It is told from others by its beginning."""
    line = LINE.map(call, name="x" * 10**6).buffer(1, name="y" * 10**6).tap(same, name="z" * 10**6)
    _, report = run_virtual(played, line)

    for text in (line.describe(), report.describe()):
        assert max(map(len, text.split("\n"))) < 2200
        assert all(each * 150 in text for each in "xz")


def test_an_error_that_cannot_be_shown_does_not_spoil_the_report():
    """Nor does one whose words are eight megabytes."""

    class Broken(Exception):
        def __str__(self):
            raise RuntimeError

    for error in (Broken(), ValueError("x" * 8_000_000)):

        def fails_so(item, error=error):
            raise error

        error_met, report = run_virtual(played, LINE.map(fails_so))

        assert error_met is error
        assert len(report.describe()) < 2000


def test_every_public_name_is_walked():
    """A function that is added joins."""
    assert {"Pipeline.map", "Pipeline.fair_by", "Step.retry", "merge", "FairShare", "Backoff", "gather"} <= set(CALLS)
    assert len(CALLS) > 80
    assert all(isinstance(fn, Callable) for fn in CALLS.values())
    assert any(parameters for parameters, _ in map(arguments_of, CALLS.values()))
    assert partial(arguments_of, merge)()[0]
