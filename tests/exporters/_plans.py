"""What the tests of all exporters run: a plan that fails, retries, drops, merges and batches, with secrets in it."""

import trio

from funcpipe_trio import OnError, Pipeline, RateLimit, Retry, Step, fair_merge
from tests._kit import Boom

SECRET = "a card number"


async def embed(item):
    await trio.sleep(0.25)
    if item[1] % 5 == 0:
        raise Boom(SECRET)
    return item


def tenant(name):
    step = Step(embed).retry(Retry(2, on=Boom)).rate_limit(RateLimit(100, burst=10))
    return Pipeline.from_iterable([(SECRET, n) for n in range(20)], name=name).map(
        step, concurrency=4, on_error=OnError.skip(), name=f"embed {name}"
    )


def plan():
    merged = fair_merge({"a": tenant("a"), "b": tenant("b")}, name="tenants")
    return merged.fair_by(lambda item: item[0], max_keys=10).filter(lambda item: item[1] != 7).batch(5).buffer(2)
