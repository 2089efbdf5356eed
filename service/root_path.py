"""The sub-path below which a proxy serves all of this, such as ``/nas``; empty where there is none."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class RootPath:
    """Makes every path begin with the sub-path, whether or not the proxy has taken it off.

    Args:
        app: What is asked in the end.
        root: The sub-path, without a slash at its end; that of the server if empty.
    """

    def __init__(self, app: ASGIApp, *, root: str) -> None:
        self.app = app
        self.root = root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = self.root or scope.get("root_path", "").rstrip("/")
        if root and "path" in scope:
            path, raw = scope["path"], scope.get("raw_path") or b""
            if path != root and not path.startswith(f"{root}/"):
                path, raw = root + path, root.encode() + raw
            if path == root:
                path, raw = f"{path}/", raw + b"/"
            scope = {**scope, "root_path": root, "path": path, "raw_path": raw}
        await self.app(scope, receive, send)


def root_of(scope: Scope) -> str:
    """Return the sub-path of a request."""
    # Below what is mounted, root_path has the place of the mount as well.
    root: str = scope.get("app_root_path", scope.get("root_path", ""))
    return root.rstrip("/")


def path_within(scope: Scope) -> str:
    """Return the path of a request as the routes name it: without the sub-path."""
    path: str = scope["path"]
    return path.removeprefix(root_of(scope)) or "/"
