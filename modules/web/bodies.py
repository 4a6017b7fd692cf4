"""How large a request may be: files have their own limit, but anything may be sent as settings."""

from collections.abc import Awaitable, Callable
from typing import Any

LEAST_BYTES = 2**22  # of settings; some fields hold small pictures
Send = Callable[[dict[str, Any]], Awaitable[None]]


class BodyLimit:
    """An ASGI application around another, which gets no bodies larger than limit_bytes.

    Nor those that do not say how large they are.
    """

    def __init__(self, app: Any, limit_bytes: int) -> None:
        self.app, self.limit_bytes = app, max(limit_bytes, LEAST_BYTES)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        """Pass the request on, or answer with 411 or 413."""
        if scope["type"] == "http" and (status := self._refused(dict(scope["headers"]))):
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await self.app(scope, receive, send)

    def _refused(self, headers: dict[bytes, bytes]) -> int | None:
        if b"transfer-encoding" in headers:
            return 411
        length = headers.get(b"content-length", b"0")
        return 413 if not length.isdigit() or int(length) > self.limit_bytes else None
