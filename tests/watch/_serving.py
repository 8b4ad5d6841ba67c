"""A real server on loopback, for as long as a block lasts."""

from contextlib import asynccontextmanager
from functools import partial

import trio
from hypercorn.config import Config
from hypercorn.trio import serve


@asynccontextmanager
async def serving(app, address="http://127.0.0.1:0"):
    """Serve an application with Hypercorn, on a free port unless an address is given; give its address."""
    config = Config()
    config.bind, config.accesslog, config.errorlog = [address.removeprefix("http://")], None, None
    config.graceful_timeout = 0.1
    over = trio.Event()
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(partial(serve, app, config, shutdown_trigger=over.wait))
        try:
            yield address
        finally:
            over.set()
