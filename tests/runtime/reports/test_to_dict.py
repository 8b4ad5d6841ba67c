"""A snapshot as JSON: complete, plain, and without anything of the user's data.

Mutants that die here: a field that is left out; a Fraction or a tuple that JSON does not have; a key, an item or the
text of an error that slips in.
"""

import json
from dataclasses import fields
from fractions import Fraction

import pytest

import funcpipe_trio
from funcpipe_trio import FairShare, OnError, Pipeline, RateLimit, Retry, Step, fair_merge
from funcpipe_trio.testing import run_virtual
from tests._kit import Boom, nap

SECRET = "4111 1111 1111 1111"


async def fail(item):
    if item[1] % 3 == 0:
        raise Boom(SECRET)
    await nap(item)
    return item


def everything():
    line = Pipeline.from_iterable([(SECRET, number) for number in range(12)], name="cards")
    keyed = line.fair_by(lambda item: (SECRET, item[1] % 2), FairShare(cost=lambda item: Fraction(1, 3)), max_keys=3)
    step = Step(fail).retry(Retry(2, on=Boom)).rate_limit(RateLimit(9))
    merged = fair_merge({"a": keyed.map(step, concurrency=2, on_error=OnError.skip()), "b": line}, FairShare({"a": 3}))
    return merged.batch(3).unbatch()


def ended(plan):
    return run_virtual(plan.run)


def test_it_is_json_without_the_users_data():
    """Whatever an item, a key or an error says."""
    report = ended(everything())
    text = json.dumps(report.to_dict())

    assert SECRET not in text
    assert json.loads(text) == report.to_dict()
    assert {each["key"] for each in report.to_dict()["inputs"]} == {"#1", "#2", "a", "b"}


def names(kind):
    return {each.name for each in fields(kind) if not each.name.startswith("_")}


def test_every_field_is_in_it():
    """By the name that it has in the class; a new one comes in by being there."""
    told = ended(everything()).to_dict()

    assert set(told) == names(funcpipe_trio.Report) | {"version", "throughput", "in_flight", "blame", "advice"}
    assert set(told["stages"][0]) == names(funcpipe_trio.StageReport) | {"busy"}
    assert set(told["links"][0]) == names(funcpipe_trio.LinkReport)
    assert set(told["inputs"][0]) == names(funcpipe_trio.InputReport)
    assert set(told["remade"][0]) == names(funcpipe_trio.RemakeReport)
    calls = next(stage for stage in told["stages"] if stage["kind"] == "async")
    assert set(calls["policies"]) == names(funcpipe_trio.PolicyReport)
    assert set(calls["latency"]) == {"count", "p50", "p90", "p99", "max"}
    assert calls["failures"] == {"Boom": 4}


def test_a_function_tells_keys():
    told = ended(everything()).to_dict(keys=lambda key: f"tenant {key[1]}")

    assert {each["key"] for each in told["inputs"] if each["kind"] == "fair_by"} == {"tenant 0", "tenant 1"}


def test_an_error_is_told_by_its_type():
    async def main():
        async with Pipeline.from_iterable([(SECRET, 3)]).map(fail).open() as run:
            with pytest.raises(Boom):
                await run.receive()
        return run.report.to_dict(), run.statistics().to_dict()

    report, statistics = run_virtual(main)

    assert (report["error"], report["outcome"], report["cleanup_errors"]) == ("Boom", "failed", [])
    assert "error" not in statistics


@pytest.mark.parametrize("keys", [1, "x", lambda: "", nap])
def test_what_tells_keys_must_be_a_function_of_one(keys):
    with pytest.raises(TypeError, match=r"^RunStatistics\.to_dict: keys must (be|take)"):
        ended(Pipeline.from_iterable([1])).to_dict(keys=keys)
