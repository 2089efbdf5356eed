"""HEAD for each GET route: the same answer without its body."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MARK = "nas.head"


class Head:
    """Answers HEAD as GET, and leaves the body out.

    It is not done at the routes, because the description of the API would then list each operation twice.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        ended = False

        async def send_without_body(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                await send(message)
            elif message["type"] == "http.response.body" and not ended:
                ended = True
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self.app({**scope, "method": "GET", _MARK: True}, receive, send_without_body)


def is_head(scope: Scope) -> bool:
    """Return whether a request that reads as GET was HEAD."""
    return scope.get(_MARK, False) is True
