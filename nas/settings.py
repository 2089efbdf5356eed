"""Settings from the environment (``NAS_*``), overridden by flags. No other file reads them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from nas.errors import InputError

LOCAL_RAY = "local"
SECRET_KEYS = ("password", "passfile", "sslpassword", "key", "secret", "token")
_SECRET_QUERY = re.compile(rf"[?&](?:{'|'.join(SECRET_KEYS)})=", re.IGNORECASE)


class Settings(BaseSettings):
    """Database, storage, data roots and token.

    Args:
        database_url: SQLAlchemy URL of the store (``NAS_DATABASE_URL``).
        storage: fsspec URL or folder of weights and exports (``NAS_STORAGE``).
        data_roots: Folders to search for data sets, separated as in ``PATH`` (``NAS_DATA_ROOTS``).
        ray_address: Address of a Ray cluster for searches and trainings (``NAS_RAY_ADDRESS``): ``HOST:PORT``, ``auto``,
            or ``local``, with which each search starts a Ray of its own, and trainings run without one.
        server: Address of a service that the commands ask instead of the database (``NAS_SERVER``).
        token: Access token (``NAS_TOKEN``): the service accepts it with the scope ``admin``, clients send it.
    """

    model_config = SettingsConfigDict(env_prefix="NAS_", extra="ignore")

    database_url: str = "sqlite:///nas.db"
    storage: str = "nas-storage"
    data_roots: Annotated[tuple[Path, ...], NoDecode] = Field(default=())
    ray_address: str = LOCAL_RAY
    token: SecretStr | None = None
    server: str | None = None

    @field_validator("data_roots", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(Path(part).expanduser() for part in value.split(os.pathsep) if part)
        return value

    @field_validator("ray_address")
    @classmethod
    def _none_is_local(cls, value: str) -> str:
        return value.strip() or LOCAL_RAY

    def variables(self) -> dict[str, str]:
        """Return the ``NAS_*`` variables from which another process reads these settings, without the token."""
        return {
            "NAS_DATABASE_URL": self.database_url,
            "NAS_STORAGE": self.storage,
            "NAS_DATA_ROOTS": os.pathsep.join(str(root) for root in self.data_roots),
            "NAS_RAY_ADDRESS": self.ray_address,
        }

    def environment(self) -> dict[str, str]:
        """Return the environment of a child process: that of this process, with these settings and without the token.

        The environment carries the settings because all users of a machine can read the arguments of a process.
        """
        return {**{key: value for key, value in os.environ.items() if key != "NAS_TOKEN"}, **self.variables()}

    def checked_token(self) -> str | None:
        """Return ``NAS_TOKEN``; None if it is not set.

        Raises:
            InputError: If the configured token is too short or has forbidden characters.
        """
        return None if self.token is None else check_token(self.token.get_secret_value(), "NAS_TOKEN")


def check_token(token: str, source: str) -> str:
    """Return ``token`` if it is a valid access token.

    Raises:
        InputError: If it is too short or cannot be part of an address; the message names ``source``, never the token.
    """
    if len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(f"{source} must be at least 16 printable ASCII characters without spaces")
    return token


def check_root_path(path: str, source: str) -> str:
    """Return the sub-path of a service without a slash at its end; empty for none.

    Raises:
        InputError: If it is not a path; the message names ``source``.
    """
    if path.strip("/") and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+/?", path):
        raise InputError(f"{source} is {path!r}, but must be a path such as /nas, in letters and digits")
    return path.rstrip("/")


def check_origin(origin: str, source: str) -> str:
    """Return an origin in lower case: scheme, host and the port unless it is the scheme's default.

    Raises:
        InputError: If it is not an origin; the message names ``source``.
    """
    text = origin.strip().lower().rstrip("/")
    if not re.fullmatch(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", text):
        raise InputError(f"{source} has {origin!r}, but must be an address without a path, such as https://nas.example.org")
    return text


def mask(url: str) -> str:
    """Return a URL of a database or a storage without its secrets, judged by its text alone.

    A parser would split a password with unescaped characters, and only its first part would be hidden. All text that
    may belong to a secret is hidden, even if that is more than necessary.
    """
    found = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url)
    scheme = found.group() if found else ""
    rest = url.removeprefix(scheme)
    secret, at = _SECRET_QUERY.search(rest), rest.rfind("@")
    if scheme and rest.startswith("/") and secret is None:  # no user, no password: the "@" is part of a path
        return url
    if secret is not None and at > secret.start():  # nobody knows which of two secrets the "@" belongs to
        return f"{scheme}***"
    if secret is not None:
        rest = f"{rest[: secret.end()]}***"
    if at >= 0:
        user, colon, _ = rest[:at].partition(":")
        shown = f"{user}{colon and ':***'}" if scheme and re.fullmatch(r"[^@/?#]*", user) else "***"
        rest = shown + rest[at:]
    return f"{scheme}{rest}"


def is_torn(url: str) -> bool:
    """Return whether an "@" that is not escaped may have put a part of the password where a host is expected."""
    secret = _SECRET_QUERY.search(url)
    return url.count("@") > 1 or (secret is not None and url.rfind("@") > secret.start())
