"""The sub-path below which a proxy serves the service, such as ``/nas``; empty without one."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class RootPath:
    """Makes each path begin with the sub-path, whether or not the proxy has removed it.

    Args:
        app: Application that answers the request.
        root: Sub-path without a slash at its end; that of the server if empty.
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
    # For a mounted application, root_path also contains the place of the mount.
    root: str = scope.get("app_root_path", scope.get("root_path", ""))
    return root.rstrip("/")


def path_within(scope: Scope) -> str:
    """Return the path of a request as the routes name it, without the sub-path."""
    path: str = scope["path"]
    return path.removeprefix(root_of(scope)) or "/"
