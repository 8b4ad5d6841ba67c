"""A producer that fails where nobody reads: its error is kept."""

import pytest
import trio

from funcpipe_trio import Pipeline
from funcpipe_trio.testing import fail_everywhere, run_virtual
from tests._kit import Boom


async def fail_at_once(channel):
    raise Boom


async def fail_behind_two(channel):
    await channel.send(1)
    await channel.send(2)
    raise Boom


def test_the_error_of_a_producer_that_nobody_reads_is_kept():
    """`take(0)` asks for nothing: the run completes, and its report has the error."""

    async def main():
        return await Pipeline.from_producer(fail_at_once).take(0).run()

    report = run_virtual(main)

    assert report.outcome == "completed"
    assert isinstance(report.error, Boom)
    fail_everywhere(lambda: Pipeline.from_producer(fail_at_once).take(0), only=(0, 1))


@pytest.mark.parametrize("read", [0, 1])
def test_the_error_behind_a_full_link_is_kept_when_the_consumer_leaves(read):
    """It is not raised, for nobody read as far; the report has it."""

    async def main():
        async with Pipeline.from_producer(fail_behind_two).buffer(2).open() as run:
            for _ in range(read):
                await run.receive()
            await trio.sleep(1)
        return run.report

    report = run_virtual(main)

    assert report.outcome == "left"
    assert isinstance(report.error, Boom)
    assert report.cleanup_errors == ()


def test_a_timeout_of_a_producers_own_is_its_failure():
    """Though a `Cancelled` is among what it comes of: nobody cancelled the producer."""

    async def produce(channel):
        await channel.send(0)
        with trio.fail_after(1):
            await trio.sleep_forever()

    async def main():
        with pytest.raises(trio.TooSlowError):
            await Pipeline.from_producer(produce).collect()

    run_virtual(main)
