"""Bodies of requests, read within limits, and answers, sent within them."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

from bertjax.serving.errors import Refused, too_large
from bertjax.serving.extra import needed
from bertjax.serving.work import Limits

with needed():
    import msgspec
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response

T = TypeVar("T")
_BYTES_A_NUMBER = 21  # of JSON, at most nearly
_CHUNK = 64 * 1024  # bytes of an answer that are sent before the client must have read on


class Bodies:
    """Reads bodies; all that are held at a time have a limit together."""

    def __init__(self, limits: Limits):
        self._limits, self._held = limits, 0

    async def read(self, request: Request) -> bytearray:
        """Returns a request's body; `release` it when it is read.

        Raises:
          Refused: it is no JSON by its headers, too large, too slow, or too much is being read.
          ClientDisconnect: the client has gone.
        """
        headers, limits = request.headers, self._limits
        if headers.get("content-encoding", "identity") != "identity":
            raise Refused(415, "the body is compressed; send it as it is", "unsupported_encoding")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "the body is to be JSON; say so by Content-Type: application/json", "unsupported_type")
        announced = headers.get("content-length", "0")
        if len(announced) > 15 or int(announced) > limits.max_body:
            raise self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(limits.seconds):
                more = True
                while more:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    chunk, more = message.get("body", b""), message.get("more_body", False)
                    self._held += len(chunk)
                    body += chunk
                    if len(body) > limits.max_body:
                        raise self._too_large()
                    if self._held > limits.max_bodies and len(body) < self._held:
                        raise Refused(
                            429, "too much is being read; try again", "overloaded", headers={"Retry-After": "1"}
                        )
        except TimeoutError:
            self.release(body)
            raise Refused(408, f"the body did not come within {limits.seconds:g} s", "too_slow") from None
        except BaseException:
            self.release(body)
            raise
        return body

    def release(self, body: bytearray) -> None:
        """Counts a body as held no more."""
        self._held -= len(body)

    def _too_large(self) -> Refused:
        return too_large(f"the body has more than {self._limits.max_body:,} bytes; send less at once", "body_too_large")


def decoded(body: bytearray, schema: type[T]) -> T:
    """Returns a body as its schema has it.

    Raises:
      Refused: it is no JSON, or not of this schema.
    """
    try:
        return msgspec.json.decode(body, type=schema)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        param = where.rstrip("`").lstrip(".") or None
        raise Refused(422, f"{param or 'the body'}: {message}", "invalid_type", param=param) from None
    except (ValueError, RecursionError) as error:  # no UTF-8, half a character, or too deep
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        raise Refused(400, f"the body is not JSON: {reason}", "invalid_json") from None


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Returns what work comes to, and gives it up when the client goes. Raises ClientDisconnect then."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        task.cancel()
        gone.cancel()


class Answers:
    """Long answers that are being written or fetched; all that are held at a time have a limit together."""

    def __init__(self, limits: Limits):
        self._limits, self._held = limits, 0

    @contextlib.contextmanager
    def room(self, num_numbers: int) -> Iterator[Callable[[], None]]:
        """Makes room for an answer of so many numbers; what is yielded gives it up, as an error inside does.

        Raises:
          Refused: there is none.
        """
        size = _BYTES_A_NUMBER * num_numbers
        if size <= _CHUNK:
            yield lambda: None
            return
        if self._held and self._held + size > self._limits.max_answers:
            later = {"Retry-After": "1"}
            raise Refused(429, "too many long answers are being fetched; try again", "overloaded", headers=later)
        self._held += size

        def give_up() -> None:
            self._held -= size

        try:
            yield give_up
        except BaseException:
            give_up()
            raise


class Answer(Response):
    """A body of bytes; a long one goes in parts, each within a time, so that no slow reader keeps it here.

    Args:
      seconds: for each part.
      sent: is called when it has gone, or cannot go.
    """

    def __init__(self, content: bytes, seconds: float, sent: Callable[[], None], **how: Any):
        super().__init__(content, **how)
        self._seconds, self._sent = seconds, sent

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        """Sends it."""
        try:
            await self._send(scope, receive, send)
        finally:
            self._sent()

    async def _send(self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        if len(self.body) <= _CHUNK:
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for start in range(0, len(self.body), _CHUNK):
            part, more = bytes(self.body[start : start + _CHUNK]), start + _CHUNK < len(self.body)
            async with asyncio.timeout(self._seconds):
                await send({"type": "http.response.body", "body": part, "more_body": more})
