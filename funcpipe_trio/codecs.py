"""How do chunks of bytes become lines, frames or JSON values? By objects for `Pipeline.stateful`.

``chunks.stateful(Lines(max_length=1000))`` is a stream of lines: each run makes its own decoder from the one in the
plan. Where the chunks are cut makes no difference. What is malformed, or longer than `max_length`, is a `CodecError`
with its place in the stream, behind all that came before it; no content is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, ClassVar, Generic, TypeVar

from ._base import checks
from ._base.errors import FuncpipeError
from ._base.shown import kind_of, option

__all__ = ["CodecError", "Frames", "JsonLines", "Lines"]

U = TypeVar("U")

MAX_LENGTH = 1 << 20
"""The most bytes of a line or frame unless something else is said: 1 MiB."""


class CodecError(FuncpipeError, ValueError):
    """A line or frame is malformed, too long, or cut off.

    Args:
      message: the text of the error.
      offset: where it begins in the stream, in bytes from 0.
    """

    offset: int
    """Where the line or frame begins in the stream, in bytes from 0."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message, offset)
        self.offset = offset

    def __str__(self) -> str:
        return str(self.args[0])


class _Codec(Generic[U]):
    """What all codecs share: settings that are checked, and the bytes that wait for the rest of a line or frame.

    Called, it makes another with the same settings, so one can stand in a plan.
    """

    _settings: ClassVar[tuple[str, ...]] = ("max_length",)

    def __init__(self, max_length: int) -> None:
        where = type(self).__name__
        self.max_length: int = checks.integer(where, "max_length", max_length, at_least=1)
        self._chunks: list[bytes] = []  # what waits, in the pieces in which it came
        self._waiting = 0  # bytes in those
        self._offset = 0  # where the current line or frame begins in the stream

    def __call__(self) -> _Codec[U]:
        return type(self)(**self._values())

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), *self._values().values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._values().items())})"

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._settings}

    def held(self) -> list[bytes]:
        """Hand out what came of a line or frame that is not complete."""
        rest = self._peek()
        self._keep_only(b"")
        return [rest] if rest else []

    def _keep(self, chunk: bytes) -> None:
        if chunk:
            self._chunks.append(chunk)
            self._waiting += len(chunk)

    def _keep_only(self, rest: bytes) -> None:
        self._chunks.clear()
        self._waiting = 0
        self._keep(rest)

    def _peek(self) -> bytes:
        return b"".join(self._chunks)

    def _checked(self, chunk: Any) -> bytes:
        if not isinstance(chunk, bytes | bytearray | memoryview):
            raise TypeError(f"{type(self).__name__}: a chunk must be bytes, not {kind_of(chunk)}")
        return bytes(chunk)

    def _error(self, rule: str) -> CodecError:
        return CodecError(f"{type(self).__name__}: {rule}", self._offset)


class _LineCodec(_Codec[U]):
    """What codecs of lines share; `_values_of` gives what a line becomes."""

    encoding: str = "utf-8"
    """Of the text."""

    def push(self, chunk: bytes, /) -> Iterator[U]:
        """Take a chunk; give what the lines that it completes become."""
        *complete, rest = self._checked(chunk).split(b"\n")
        for piece in complete:
            self._keep(piece)
            yield from self._ended(b"\n")
        self._keep(rest)
        if self._waiting > self.max_length + 1:  # one more may be a \r, which is not part of the line
            raise self._too_long()

    def flush(self) -> Iterator[U]:
        """Give what the last line becomes."""
        if self._waiting:
            yield from self._ended(b"")

    def _ended(self, mark: bytes) -> Iterator[U]:
        size, line = self._waiting + len(mark), self._peek()
        if mark:
            line = line.removesuffix(b"\r")
        if len(line) > self.max_length:
            raise self._too_long()
        yield from self._values_of(self._text(line), len(line))
        self._offset += size
        self._keep_only(b"")

    def _values_of(self, line: str, size: int) -> Iterable[U]:
        raise NotImplementedError

    def _text(self, line: bytes) -> str:
        with suppress(UnicodeError):  # left before the other is raised: it holds the content
            return line.decode(self.encoding)
        raise self._error(f"the line at offset {self._offset}, of {len(line)} bytes, is not {self.encoding}")

    def _too_long(self) -> CodecError:
        return self._error(f"the line at offset {self._offset} is longer than max_length, {self.max_length} bytes")


class Lines(_LineCodec[str]):
    r"""Makes lines of text from chunks of bytes.

    A line ends with ``\n``; that, and a ``\r`` before it, are not part of it. What stands behind the last ``\n`` is a
    line, too, given at the end of the stream.

    Args:
      encoding: of the text, one in which a line ends with the byte ``\n``, so not UTF-16 or UTF-32.
      max_length: the most bytes of a line, an int >= 1.

    Raises:
      TypeError: if an argument has a wrong type; in the stream, if a chunk is not bytes.
      ValueError: if `max_length` is below 1, or there is no such encoding.
      CodecError: in the stream, if a line is longer, or is not of that encoding.
    """

    _settings: ClassVar[tuple[str, ...]] = ("encoding", "max_length")

    def __init__(self, encoding: str = "utf-8", *, max_length: int = MAX_LENGTH) -> None:
        super().__init__(max_length)
        self.encoding: str = _encoding(type(self).__name__, encoding)

    def _values_of(self, line: str, size: int) -> Iterable[str]:
        return (line,)


class JsonLines(_LineCodec[Any]):
    """Makes values from lines of JSON, from chunks of bytes; blank lines are left out.

    Args:
      max_length: the most bytes of a line, an int >= 1.

    Raises:
      TypeError: if `max_length` is not an int; in the stream, if a chunk is not bytes.
      ValueError: if `max_length` is below 1.
      CodecError: in the stream, if a line is longer, or is not JSON in UTF-8.
    """

    def __init__(self, *, max_length: int = MAX_LENGTH) -> None:
        super().__init__(max_length)

    def _values_of(self, line: str, size: int) -> Iterable[Any]:
        if not line.strip():
            return ()
        try:
            return (json.loads(line),)
        except (ValueError, RecursionError) as error:  # left before the other is raised: it holds the content
            at = f" (at column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise self._error(f"the line at offset {self._offset}, of {size} bytes, is not JSON{at}")


class Frames(_Codec[bytes]):
    """Makes frames from chunks of bytes: each is preceded by its length.

    Args:
      prefix: bytes of the length, big-endian, an int from 1 to 8.
      max_length: the most bytes of a frame, without its length, an int >= 1.

    Raises:
      TypeError: if an argument has a wrong type; in the stream, if a chunk is not bytes.
      ValueError: if an argument is out of range.
      CodecError: in the stream, if a frame is longer, or cut off by the end of the stream.
    """

    _settings = ("prefix", "max_length")

    def __init__(self, prefix: int = 4, *, max_length: int = MAX_LENGTH) -> None:
        super().__init__(max_length)
        self.prefix: int = checks.integer(type(self).__name__, "prefix", prefix, at_least=1)
        if prefix > 8:
            raise checks.refuse(ValueError, type(self).__name__, "prefix", "be from 1 to 8", prefix)
        self._needed = self.prefix  # bytes until something is complete: a length, or a frame with its length

    def push(self, chunk: bytes, /) -> Iterator[bytes]:
        """Take a chunk; give the frames that it completes."""
        self._keep(self._checked(chunk))
        if self._waiting < self._needed:
            return
        waiting, at = self._peek(), 0
        try:
            while len(waiting) - at >= self.prefix:
                self._needed = self.prefix + self._length(waiting[at : at + self.prefix])
                if len(waiting) - at < self._needed:
                    break
                yield waiting[at + self.prefix : at + self._needed]
                at += self._needed
                self._offset += self._needed
                self._needed = self.prefix
        finally:
            self._keep_only(waiting[at:])

    def _length(self, prefix: bytes) -> int:
        length = int.from_bytes(prefix, "big")
        if length > self.max_length:
            said = f"the frame at offset {self._offset}, of {length} bytes, is longer than max_length"
            raise self._error(f"{said}, {self.max_length} bytes")
        return length

    def flush(self) -> Iterator[bytes]:
        """Refuse a frame that is not complete."""
        if self._waiting:
            had = self._waiting
            raise self._error(f"the frame at offset {self._offset} is cut off: {had} bytes of at least {self._needed}")
        return iter(())


def _encoding(where: str, encoding: Any) -> str:
    checks.text(where, "encoding", encoding)
    try:
        is_right = "\n".encode(encoding) == b"\n" and "\r".encode(encoding) == b"\r"
    except (LookupError, ValueError):
        is_right = False
    if not is_right:
        rule = "name an encoding of text in which a line ends with the byte \\n"
        raise checks.refuse(ValueError, where, "encoding", rule, encoding, show=option)
    return encoding  # type: ignore[no-any-return]  # `text` checked it
