"""Codecs: whatever the chunks, the same lines, frames and values; and what is wrong is told by its place alone.

Mutants that die here: a \\r that ends one chunk while its \\n begins the next; a length cut in two; an offset that
counts characters; a message, or an error, that has content in it; a decoder that two runs share.
"""

import json
import pickle
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio import Pipeline
from funcpipe_trio.codecs import CodecError, Frames, JsonLines, Lines
from funcpipe_trio.testing import run_virtual


def cut(draw, content):
    """Cut bytes into chunks, anywhere."""
    places = sorted(draw(st.lists(st.integers(0, len(content)), max_size=8)))
    return [content[a:b] for a, b in zip([0, *places], [*places, len(content)], strict=True)]


def decoded(codec, chunks):
    """Return the values, and the error behind them."""

    async def main():
        values = []
        async with Pipeline.from_iterable(chunks).stateful(codec).open() as run:
            try:
                async for value in run:
                    values.append(value)
            except CodecError as error:
                return values, str(error), error.offset
        return values, None, None

    return run_virtual(main)


def split(content, max_length=10**6):
    """The lines, by another way: whole, and without a machine."""
    *lines, last = content.split(b"\n")
    lines = [line.removesuffix(b"\r") for line in lines] + ([last] if last else [])
    return [line.decode("latin-1") for line in lines]


@given(st.data())
def test_lines_are_the_same_whatever_the_chunks(data):
    content = data.draw(st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"\xe9", b"bc"])).map(b"".join))

    got = decoded(Lines("latin-1"), cut(data.draw, content))

    assert got == (split(content), None, None)


@given(st.data())
def test_so_are_the_errors_and_what_comes_before_them(data):
    parts = [b"\n", b"\r", b"\r\n", b"a", b"\xff", b"bc", b"\xc3\xa9"]
    content = data.draw(st.lists(st.sampled_from(parts)).map(b"".join))

    for codec in (Lines(max_length=3), JsonLines(max_length=3)):
        whole = decoded(codec, [content] if content else [])
        assert decoded(codec, cut(data.draw, content)) == whole


@given(st.data())
def test_frames_are_the_same_whatever_the_chunks(data):
    prefix = data.draw(st.integers(1, 8))
    frames = data.draw(st.lists(st.binary(max_size=9), max_size=6))
    content = b"".join(len(frame).to_bytes(prefix, "big") + frame for frame in frames)
    missing = data.draw(st.integers(0, min(3, len(content))))
    content = content[: len(content) - missing]

    got = decoded(Frames(prefix), cut(data.draw, content))

    assert got == decoded(Frames(prefix), [content] if content else [])
    if not missing:
        assert got == (frames, None, None)
    else:
        assert got[0] == frames[: len(got[0])]


@given(st.data())
def test_values_of_lines_of_json_are_the_same_whatever_the_chunks(data):
    values = data.draw(st.lists(st.one_of(st.none(), st.integers(), st.text(), st.lists(st.booleans()))))
    end = data.draw(st.sampled_from([b"\n", b"\r\n", b"\n \n"]))
    content = end.join(json.dumps(value, ensure_ascii=False).encode() for value in values)

    assert decoded(JsonLines(), cut(data.draw, content)) == (values, None, None)


SECRET = b"s3cr3t"


@pytest.mark.parametrize(
    ("codec", "chunks", "values", "message", "offset"),
    [
        (
            Lines(max_length=4),
            [b"ab\n", SECRET],
            ["ab"],
            "Lines: the line at offset 3 is longer than max_length, 4 bytes",
            3,
        ),
        (
            Lines(max_length=4),
            [b"ab\n" + SECRET + b"\ncd\n"],
            ["ab"],
            "Lines: the line at offset 3 is longer than max_length, 4 bytes",
            3,
        ),
        (
            Lines(),
            [b"a\xc3\xa9\n", SECRET + b"\xff\n"],
            ["a\xe9"],
            "Lines: the line at offset 4, of 7 bytes, is not utf-8",
            4,
        ),
        (
            JsonLines(),
            [b"1\n\n", b"{" + SECRET + b"}\n2"],
            [1],
            "JsonLines: the line at offset 3, of 8 bytes, is not JSON (at column 2)",
            3,
        ),
        (
            JsonLines(),
            [b"[" * 100_000],
            [],
            "JsonLines: the line at offset 0, of 100000 bytes, is not JSON",
            0,
        ),
        (
            Frames(2, max_length=4),
            [b"\0\1a\0\6" + SECRET],
            [b"a"],
            "Frames: the frame at offset 3, of 6 bytes, is longer than max_length, 4 bytes",
            3,
        ),
        (
            Frames(2),
            [b"\0\1a\0\7", SECRET],
            [b"a"],
            "Frames: the frame at offset 3 is cut off: 8 bytes of at least 9",
            3,
        ),
        (Frames(2), [b"\0"], [], "Frames: the frame at offset 0 is cut off: 1 bytes of at least 2", 0),
    ],
)
def test_what_is_wrong_is_told_by_its_place_and_never_its_content(codec, chunks, values, message, offset):
    if isinstance(codec, JsonLines) and chunks[0].startswith(b"[["):
        codec = JsonLines(max_length=10**6)
    assert decoded(codec, chunks) == (values, message, offset)

    async def main():
        await Pipeline.from_iterable(chunks).stateful(codec).collect()

    with pytest.raises(CodecError) as caught:
        run_virtual(main)
    error = caught.value
    assert SECRET.decode() not in repr(error.args)
    assert (error.__cause__, error.__context__) == (
        None,
        None,
    )  # what decodes, or parses, puts the content into its error


def test_a_stopped_stream_tells_what_was_not_complete():
    discarded = []

    async def main():
        plan = Pipeline.from_iterable([b"a\nb", b"c"]).stateful(Lines, holds=2)
        async with plan.buffer(1).open(on_discard=lambda item, *_: discarded.append(item)) as run:
            await run.receive()

    run_virtual(main)

    assert discarded == [b"b"]  # the other chunk was not taken: there was no room


def test_one_in_a_plan_makes_one_for_each_run():
    plan = Pipeline.from_iterable([b"a\nb"]).stateful(Lines(max_length=5))

    assert run_virtual(plan.collect) == run_virtual(plan.collect) == ["a", "b"]
    for make in (Lines, partial(Lines, "latin-1"), lambda: Lines()):
        assert run_virtual(Pipeline.from_iterable([b"a\nb"]).stateful(make).collect) == ["a", "b"]
    assert plan == Pipeline.from_iterable(plan._plan.origin.origin.value).stateful(Lines(max_length=5))
    assert "stateful Lines" in plan.describe()


def test_it_is_a_value():
    assert repr(Lines(max_length=3)) == "Lines(encoding='utf-8', max_length=3)"
    assert Lines() == Lines() != Lines(max_length=3)
    assert hash(Frames(2)) == hash(Frames(2))
    assert Lines() != JsonLines()
    assert pickle.loads(pickle.dumps(Frames(2))) == Frames(2)
    assert list(JsonLines()().push(b"1\n")) == [1]


@pytest.mark.parametrize("chunk", ["a", 3, None, [1]])
def test_a_chunk_that_is_not_bytes_is_refused(chunk):
    async def main():
        await Pipeline.from_iterable([chunk]).stateful(Lines).collect()

    with pytest.raises(TypeError, match=r"^Lines: a chunk must be bytes, not an? "):
        run_virtual(main)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: Lines(3), TypeError, "Lines: encoding must be a str, not 3"),
        (
            lambda: Lines("utf-16"),
            ValueError,
            "Lines: encoding must name an encoding of text in which a line ends with",
        ),
        (lambda: Lines("utf-9"), ValueError, "Lines: encoding must name an encoding of text in which a line ends with"),
        (lambda: Lines("hex"), ValueError, "Lines: encoding must name an encoding of text in which a line ends with"),
        (lambda: Lines("a\0b"), ValueError, "Lines: encoding must name an encoding of text in which a line ends with"),
        (lambda: Lines(max_length=0), ValueError, "Lines: max_length must be >= 1, not 0"),
        (lambda: JsonLines(max_length=True), TypeError, "JsonLines: max_length must be an int >= 1, not True"),
        (lambda: Frames(0), ValueError, "Frames: prefix must be >= 1, not 0"),
        (lambda: Frames(9), ValueError, "Frames: prefix must be from 1 to 8, not 9"),
        (lambda: Frames(max_length="9"), TypeError, "Frames: max_length must be an int >= 1, not a str of length 1"),
    ],
)
def test_what_is_wrong_is_refused_when_it_is_made(make, kind, message):
    with pytest.raises(kind) as caught:
        make()

    assert str(caught.value).startswith(message)
