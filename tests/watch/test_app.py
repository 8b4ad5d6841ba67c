"""A run behind ASGI: what each path answers, called directly in virtual time, and mounted in a real server.

Mutants that die here: a client that holds the run, or another client, up; events that go on when the run is over or
the client has left; a name that is code on the page; a path that depends on where the application is mounted; an
answer to anything but GET and HEAD.
"""

import json
import re
from base64 import b64encode
from dataclasses import fields
from functools import partial
from hashlib import sha256
from itertools import pairwise

import httpx
import pytest
import trio
from hypercorn.middleware.dispatcher import TrioDispatcherMiddleware
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from funcpipe_trio import Pipeline, Recorder, fair_merge, watch_app
from funcpipe_trio._watch.app import path_of
from funcpipe_trio._watch.graph import graph
from funcpipe_trio._watch.picture import Picture, picture
from funcpipe_trio.testing import run_virtual
from tests._kit import Boom, endless, every, in_virtual_time, nap, run_real
from tests.plan._plans import FIXED, random_plan
from tests.watch._plans import HOSTILE, SECRET, hostile, large, small
from tests.watch._serving import serving


class Client:
    """One request, made by calling the application."""

    def __init__(self, app, path="/", method="GET", **scope):
        self.app = app
        self.scope = {"type": "http", "method": method, "path": path, "root_path": "", **scope}
        self.left = trio.Event()
        self.status = None
        self.headers = {}
        self.chunks = []
        self.ended = False
        self._is_asked = False

    async def receive(self):
        if not self._is_asked:
            self._is_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        await trio.lowlevel.checkpoint()
        assert not self.ended
        if message["type"] == "http.response.start":
            assert self.status is None
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            assert self.status is not None
            self.chunks.append(message["body"])
            self.ended = not message.get("more_body", False)

    async def __call__(self):
        await self.app(self.scope, self.receive, self.send)
        assert self.ended
        return self

    @property
    def body(self):
        return b"".join(self.chunks)

    @property
    def events(self):
        parts = self.body.decode().split("\n\n")
        assert parts.pop() == ""
        return [json.loads(part.removeprefix("data: ")) for part in parts]


def opened(make):
    """Make a test of an async function that gets a run of a plan, and a consumer at work."""

    def decorate(test):
        async def main(**arguments):
            async with make().open() as run, trio.open_nursery() as nursery:
                nursery.start_soon(consume, run)
                await test(run, **arguments)
                nursery.cancel_scope.cancel()

        return in_virtual_time(main)

    return decorate


async def consume(run):
    async for _ in run:
        await trio.lowlevel.checkpoint()


async def get(app, path="/", **how):
    return await Client(app, path, **how)()


# ---- each path


@opened(small)
async def test_statistics_are_the_reports(run):
    await trio.sleep(3)
    app = watch_app(run)
    client = await get(app, "/statistics")

    assert (client.status, client.headers["content-type"]) == (200, "application/json")
    assert client.body == json.dumps(run.report.to_dict()).encode()
    assert int(client.headers["content-length"]) == len(client.body)
    assert SECRET not in client.body.decode()


@opened(hostile)
async def test_keys_are_told_by_the_users_function(run):
    await trio.sleep(3)
    app = watch_app(run, keys=lambda key: f"tenant {key[1]}")

    assert {"tenant 0", "tenant 1"} <= {
        each["key"] for each in json.loads((await get(app, "/statistics")).body)["inputs"]
    }


@opened(small)
async def test_metrics_are_for_prometheus(run):
    await trio.sleep(1)
    client = await get(watch_app(run, name='tenants "a"'), "/metrics")

    assert client.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert f'funcpipe_run_taken_total{{pipeline="tenants \\"a\\""}} {run.report.taken}\n' in client.body.decode()


def test_readiness_follows_the_state():
    async def main():
        seen = []
        async with Pipeline.from_async_iterable(endless).map(nap).open() as run:
            app = watch_app(run)

            async def look():
                client = await get(app, "/ready")
                seen.append((client.status, json.loads(client.body)["state"]))

            await look()
            run.pause()
            await look()
            run.resume()
            run.drain_nowait()
            await look()
        await look()
        return seen

    assert run_virtual(main) == [(200, "running"), (200, "paused"), (503, "draining"), (503, "left")]


@opened(large)
async def test_the_page_holds_the_plan_and_its_policy_allows_its_own_script_only(run):
    client = await get(watch_app(run, name="a <b> & c"), "/")
    text = client.body.decode()
    (inside,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    policy = client.headers["content-security-policy"]

    assert json.loads(inside) == {"name": "a <b> & c", "plan": graph(large()._plan)}
    assert "<title>a &lt;b&gt; &amp; c</title>" in text
    assert f"script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert re.findall(r"https?://[^\"']*", text) == ["http://www.w3.org/2000/svg"]  # a name, which nothing asks for


@in_virtual_time
async def test_a_run_that_is_recorded_shows_the_users_plan():
    async with small().open(record=Recorder()) as run:
        text = (await get(watch_app(run), "/")).body.decode()
        assert json.loads(re.findall(r'id="data">(.*?)</script>', text)[0])["plan"] == graph(small()._plan)


@opened(hostile)
async def test_no_name_is_code_on_the_page(run):
    for name in (HOSTILE, "--><!--", "]]>"):
        text = (await get(watch_app(run, name=name), "/")).body.decode()

        assert text.count("<script") == 2
        assert text.count("</script>") == 2
        assert "<img" not in text
        assert SECRET not in text


PLANS = {"large": large, **FIXED, **{f"random {seed}": partial(random_plan, seed) for seed in (75, *range(30))}}


def parts_of(line):
    """Return the names of stages and links in a graph, in its order."""
    stages, links, origin = [], [], line["origin"] or {}
    if origin.get("kind") == "branch":
        links.append(origin["link"])
    inner = [each["line"] for each in origin.get("inputs", origin.get("branches", ()))]
    for each in [origin["trunk"], *inner] if "trunk" in origin else inner:
        more_stages, more_links = parts_of(each)
        stages, links = stages + more_stages, links + more_links
    links += [origin["link"]["behind"]] if origin.get("kind") == "fan-in" and origin["link"] else []
    for stage in line["stages"]:
        stages.append(stage["name"])
        links += [stage["link"]["behind"]] if stage["link"] else []
    return stages, links


@pytest.mark.parametrize("name", PLANS)
def test_the_graph_has_every_part_by_the_name_of_the_reports(name):
    """So its numbers are found; and each row of a picture is one stage with its link."""

    plan = PLANS[name]()

    async def main():
        async with plan.open() as run:
            return run.report

    report = run_virtual(main)
    names = [stage.name for stage in report.stages]
    rows = picture(report, None, "left").rows()

    assert parts_of(graph(plan._plan)) == (names, [link.behind for link in report.links])
    assert [stage.name for stage, _ in rows if stage is not None] == names
    assert all((stage is not None) == (link.behind in names) for stage, link in rows if link is not None)
    assert all(stage.name == link.behind for stage, link in rows if stage is not None and link is not None)


@opened(small)
async def test_other_paths_and_methods_are_refused(run):
    app = watch_app(run)

    for path in ("/nope", "/statistics/", "/events/1", "//", "/../statistics", "/%2e"):
        assert (await get(app, path)).status == 404, path
    for path in ("/", "/events", "/statistics", "/metrics", "/ready"):
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "get"):
            client = await get(app, path, method=method)
            assert (client.status, client.headers["allow"]) == (405, "GET, HEAD")
    assert (await get(app, "/nope", method="POST")).status == 404


@opened(small)
async def test_head_gets_the_same_without_a_body(run):
    app = watch_app(run)

    for path in ("/", "/statistics", "/metrics", "/ready"):
        head, full = await get(app, path, method="HEAD"), await get(app, path)
        assert (head.status, head.body) == (full.status, b"")
        assert head.headers == full.headers
    events = await get(app, "/events", method="HEAD")
    assert (events.status, events.body, events.headers["content-type"]) == (200, b"", "text/event-stream")


def test_a_path_that_was_cut_is_known_by_the_one_that_was_asked_for():
    """Some middleware leaves nothing of where the application is mounted but the raw path."""
    assert path_of({"path": "/", "raw_path": b"/a%20b/watch"}) == ""
    assert path_of({"path": "/", "raw_path": b"/watch/"}) == "/"
    assert path_of({"path": "/", "raw_path": b"/watch/?x=1"}) == "/"
    assert path_of({"path": "/events", "raw_path": b"/watch/events"}) == "/events"
    assert path_of({"path": "/", "raw_path": None}) == "/"


@pytest.mark.parametrize(
    ("path", "root", "inside"),
    [
        ("/", "", "/"),
        ("/metrics", "", "/metrics"),
        ("/watch/metrics", "/watch", "/metrics"),
        ("/watch/", "/watch", "/"),
        ("/watch", "/watch", ""),
        ("/watch", "/watch/", ""),
        ("/metrics", "/watch", "/metrics"),
        ("/watchers", "/watch", "/watchers"),
        ("/a/b/events", "/a/b", "/events"),
        ("/", "/watch", "/"),
        ("/metrics", None, "/metrics"),
    ],
)
def test_paths_are_those_within_the_place_where_it_is_mounted(path, root, inside):
    assert path_of({"path": path, "root_path": root}) == inside


@opened(small)
async def test_its_place_without_a_slash_leads_to_the_one_with_it(run):
    """Else the page would ask for events beside it."""
    client = await get(watch_app(run), "/a/é b", root_path="/a/é b")

    assert (client.status, client.headers["location"]) == (307, "./%C3%A9%20b/")


@opened(small)
async def test_a_server_may_say_that_it_begins_and_ends(run):
    said, heard = ["lifespan.startup", "lifespan.shutdown"], []

    async def receive():
        return {"type": said.pop(0)}

    async def send(message):
        heard.append(message["type"])

    await watch_app(run)({"type": "lifespan"}, receive, send)
    assert heard == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@opened(small)
async def test_a_websocket_is_refused_and_the_unknown_too(run):
    heard = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        heard.append(message["type"])

    await watch_app(run)({"type": "websocket", "path": "/events"}, receive, send)
    assert heard == ["websocket.close"]
    with pytest.raises(ValueError, match="watch_app: a scope of type 'smtp' is unknown"):
        await watch_app(run)({"type": "smtp"}, receive, send)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"run": small()}, TypeError, "watch_app: run must be a Run, not a Pipeline"),
        ({"name": ""}, ValueError, "watch_app: name must not be empty"),
        ({"name": 3}, TypeError, "watch_app: name must be a str, not 3"),
        ({"period": 0}, ValueError, "watch_app: period must be a number of seconds > 0, finite, not 0"),
        ({"period": True}, TypeError, "watch_app: period must be a number of seconds > 0, not True"),
        ({"keys": 3}, TypeError, "watch_app: keys must be callable, not 3"),
        ({"keys": nap}, TypeError, "watch_app: keys must be a sync function"),
        ({"keys": lambda: ""}, TypeError, "watch_app: keys must take 1 arguments"),
    ],
)
def test_wrong_arguments_are_refused(arguments, kind, message):
    async def main():
        async with small().open() as run:
            watch_app(**{"run": run, **arguments})

    with pytest.raises(kind) as caught:
        run_virtual(main)
    assert str(caught.value).splitlines()[0].startswith(message)


# ---- events


@in_virtual_time
async def test_events_follow_the_run_to_its_end():
    async with trio.open_nursery() as nursery, every(1, range(5)).map(nap).open() as run:
        client = Client(watch_app(run), "/events")
        nursery.start_soon(client)
        await consume(run)
    states = [event["state"] for event in client.events]

    assert client.headers["content-type"] == "text/event-stream"
    assert client.headers["cache-control"] == "no-store"
    assert states == ["running"] * (len(states) - 1) + ["completed"]
    assert [event["is_over"] for event in client.events] == [False] * (len(states) - 1) + [True]
    assert {later["elapsed"] - earlier["elapsed"] for earlier, later in pairwise(client.events[:-1])} == {0.5}
    assert client.events[-1]["delivered"] == 5
    assert [event["rate"] for event in client.events[:1]] == [None]


@in_virtual_time
async def test_events_of_a_run_that_is_over_are_one():
    async with every(1, range(5)).open() as run:
        await consume(run)
    first, second = [await get(watch_app(run), "/events") for _ in range(2)]

    assert [event["state"] for event in first.events] == ["completed"]
    assert first.events == second.events


@opened(small)
async def test_a_client_that_leaves_ends_its_events_at_once(run):
    client = Client(watch_app(run, period=1000), "/events")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client)
        await trio.sleep(1)
        client.left.set()
    assert trio.current_time() < 3
    assert len(client.events) == 1


@opened(small)
async def test_a_server_may_say_by_an_error_that_the_client_has_left(run):
    client = Client(watch_app(run), "/events")
    sent = client.send

    async def send(message):
        if len(client.chunks) == 3:
            raise OSError("the client has left")
        await sent(message)

    client.send = send
    await client.app(client.scope, client.receive, client.send)
    assert len(client.events) == 3


@in_virtual_time
async def test_a_run_without_a_consumer_has_all_paths():
    """Its last stage fills no link, and one that pulls from a merge is not in the plan."""
    plan = fair_merge({"a": every(1, range(9)), "b": every(1, range(9))}, name="both")
    async with trio.open_nursery() as nursery:
        run = await nursery.start(plan.run)
        app = watch_app(run)
        client = Client(app, "/events")
        nursery.start_soon(client)
        for path in ("/", "/statistics", "/metrics", "/ready"):
            assert (await get(app, path)).status == 200
    assert client.events[-1]["state"] == "completed"
    assert [stage["name"] for stage in client.events[-1]["stages"]] == ["arrivals", "arrivals#2", "both"]


@opened(small)
async def test_a_slow_client_holds_nobody_up(run):
    """One that never reads, and one that reads one event in ten seconds: the others get all, the run goes on."""
    app = watch_app(run)
    stuck, slow, *quick = [Client(app, "/events") for _ in range(22)]

    async def sleep_for(seconds, send, message):
        await send(message)
        await trio.sleep(seconds)

    stuck.send = partial(sleep_for, 1e9, stuck.send)
    slow.send = partial(sleep_for, 10, slow.send)
    before = run.report.delivered
    async with trio.open_nursery() as nursery:
        for client in (stuck, slow, *quick):
            nursery.start_soon(client)
        await trio.sleep(60.1)
        nursery.cancel_scope.cancel()

    assert len({client.body for client in quick}) == 1
    assert len(quick[0].events) == 121
    assert len(slow.events) == 5
    assert slow.events[-1]["elapsed"] > 45
    assert len(stuck.events) <= 1
    assert run.report.delivered - before > 1000


@opened(small)
async def test_pictures_are_made_once_for_all_clients(run):
    app = watch_app(run)
    clients = [Client(app, "/events") for _ in range(50)]
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(client)
        await trio.sleep(2.1)
        nursery.cancel_scope.cancel()

    assert len({id(chunk) for client in clients for chunk in client.chunks}) == 5


@opened(lambda: every(0.125, range(10**6)))
async def test_rates_do_not_come_from_long_ago(run):
    """When nobody has watched for a while, the first picture has none."""
    app = watch_app(run)
    for _ in range(2):
        client = Client(app, "/events")
        with trio.move_on_after(3.1):
            await client()
        assert client.events[0]["rate"] is None
        assert client.events[-1]["seconds"] == 2
        await trio.sleep(100)


@opened(hostile)
async def test_an_event_is_a_picture_without_the_users_data(run):
    await trio.sleep(1)
    client = Client(watch_app(run), "/events")
    with trio.move_on_after(4):
        await client()

    assert {*client.events[0]} == {each.name for each in fields(Picture)} | {"is_over"}
    assert SECRET not in client.body.decode()
    assert client.events[-1]["stages"][1]["failed"] > 0


# ---- mounted in a real server


def mounted(run):
    home = Route("/", lambda request: PlainTextResponse("home"))
    return Starlette(routes=[home, Mount("/deep/watch", watch_app(run, name="served", period=0.05))])


def test_in_a_real_server():
    async def main():
        async with small().open() as run, trio.open_nursery() as nursery:
            nursery.start_soon(consume, run)
            async with serving(mounted(run)) as address, httpx.AsyncClient(base_url=address) as client:
                assert (await client.get("/")).text == "home"
                page = await client.get("/deep/watch", follow_redirects=True)
                assert (page.status_code, page.url.path) == (200, "/deep/watch/")
                assert "<title>served</title>" in page.text
                statistics = (await client.get("/deep/watch/statistics")).json()
                assert [stage["name"] for stage in statistics["stages"]][:2] == ["big", "call big"]
                assert 'pipeline="served"' in (await client.get("/deep/watch/metrics")).text
                assert (await client.get("/deep/watch/ready")).json() == {"state": "running"}
                assert (await client.head("/deep/watch/")).content == b""
                assert (await client.post("/deep/watch/")).status_code == 405
                assert (await client.get("/deep/watch/nope")).status_code == 404
            nursery.cancel_scope.cancel()

    run_real(main)


def test_beside_another_application():
    """As one mounts it beside one of Quart, which has no mounts of its own."""

    async def main():
        async with small().open() as run, trio.open_nursery() as nursery:
            nursery.start_soon(consume, run)
            home = Starlette(routes=[Route("/", lambda request: PlainTextResponse("home"))])
            site = TrioDispatcherMiddleware({"/watch": watch_app(run), "": home})
            async with serving(site) as address, httpx.AsyncClient(base_url=address) as client:
                assert (await client.get("/")).text == "home"
                page = await client.get("/watch", follow_redirects=True)
                assert (page.status_code, page.url.path) == (200, "/watch/")
                assert (await client.get("/watch/ready")).json() == {"state": "running"}
            nursery.cancel_scope.cancel()

    run_real(main)


async def events_of(address, most=None):
    """Read some events, or all, with a client in a thread, which then leaves."""

    def read():
        events = []
        with httpx.Client() as client, client.stream("GET", f"{address}/deep/watch/events", timeout=60) as answer:
            for line in answer.iter_lines():
                if line:
                    events.append(json.loads(line.removeprefix("data: ")))
                if len(events) == most:
                    break
        return events

    return await trio.to_thread.run_sync(read)


def test_real_clients_of_events_come_and_leave():
    """Two at once; one leaves, the other sees the drain, and the end closes its stream."""

    async def main():
        seen = []
        async with trio.open_nursery() as nursery, small().open() as run:
            nursery.start_soon(consume, run)
            async with serving(mounted(run)) as address, httpx.AsyncClient(base_url=address) as client:
                async with trio.open_nursery() as clients:

                    async def stay():
                        seen.extend(await events_of(address))

                    clients.start_soon(stay)
                    assert len(await events_of(address, 3)) == 3
                    assert len(await events_of(address, 3)) == 3
                    run.drain_nowait()
                assert (await client.get("/deep/watch/ready")).status_code == 503
        return seen

    seen = run_real(main)
    assert [event["state"] for event in seen][-1] == "drained"
    assert all(not event["is_over"] for event in seen[:-1])
    assert [event["taken"] for event in seen] == sorted(event["taken"] for event in seen)


def test_a_run_that_fails_under_a_real_server():
    async def fail(number):
        await trio.sleep(0.2)
        raise Boom(SECRET)

    async def main():
        seen = []
        async with every(0.01, range(9)).map(fail, name="fail").open() as run, serving(mounted(run)) as address:
            async with trio.open_nursery() as nursery:

                async def stay():
                    seen.extend(await events_of(address))

                nursery.start_soon(stay)
                with pytest.raises(Boom):
                    await consume(run)
            async with httpx.AsyncClient(base_url=address) as client:
                return seen, (await client.get("/deep/watch/statistics")).json()

    seen, statistics = run_real(main)
    assert (seen[-1]["state"], seen[-1]["error"]) == ("failed", "Boom")
    assert (statistics["outcome"], statistics["error"]) == ("failed", "Boom")
    assert SECRET not in json.dumps([seen, statistics])
