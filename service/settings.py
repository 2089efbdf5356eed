"""Settings of the service alone (``NAS_SERVICE_*``); :mod:`nas.settings` has those that it shares with the commands."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from nas.settings import check_origin, check_root_path


class ServiceSettings(BaseSettings):
    """Settings of the service.

    Args:
        worker: Whether an embedded worker is started and kept alive beside the API (``NAS_SERVICE_WORKER``).
        hosts: Host names, besides the loopback ones, under which the service answers, comma-separated
            (``NAS_SERVICE_HOSTS``); ``*`` allows all names and gives up the protection against DNS rebinding.
        origins: Addresses that browsers show if a proxy uses another host name, comma-separated, such as
            ``https://nas.example.org`` (``NAS_SERVICE_ORIGINS``).
        root_path: Sub-path under which a proxy serves this, such as ``/nas`` (``NAS_SERVICE_ROOT_PATH``).
        stop_seconds: Time for the embedded worker to stop before it is killed, in seconds
            (``NAS_SERVICE_STOP_SECONDS``).
        check_launches: Whether data and targets are checked before a study is created, in a process with torch
            (``NAS_SERVICE_CHECK_LAUNCHES``); by default with the embedded worker, which has the data.
        log_requests: Whether each request is logged as a line of JSON (``NAS_SERVICE_LOG_REQUESTS``).
        body_bytes: Largest size of a request's body in bytes (``NAS_SERVICE_BODY_BYTES``).
        body_seconds: Time in seconds until a body must be whole (``NAS_SERVICE_BODY_SECONDS``).
        rate: Number of requests per second that a token may send in the mean (``NAS_SERVICE_RATE``), of this process.
        change_rate: Number of changing requests per second (``NAS_SERVICE_CHANGE_RATE``).
        searches: Largest number of studies of a token whose search waits or runs (``NAS_SERVICE_SEARCHES``).
    """

    model_config = SettingsConfigDict(env_prefix="NAS_SERVICE_", extra="ignore")

    worker: bool = True
    hosts: Annotated[tuple[str, ...], NoDecode] = Field(default=())
    origins: Annotated[tuple[str, ...], NoDecode] = Field(default=())
    root_path: str = ""
    stop_seconds: float = Field(default=30.0, gt=0)
    check_launches: bool | None = None
    log_requests: bool = False
    body_bytes: int = Field(default=1 << 20, gt=0)
    body_seconds: float = Field(default=30.0, gt=0)
    rate: float = Field(default=500.0, gt=0)
    change_rate: float = Field(default=10.0, gt=0)
    searches: int = Field(default=50, gt=0)

    @field_validator("hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip().lower() for part in value.split(",") if part.strip())
        return value

    @field_validator("origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        parts = [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        return tuple(check_origin(part, "NAS_SERVICE_ORIGINS") for part in parts) if isinstance(parts, Iterable) else ()

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, value: str) -> str:
        return check_root_path(value, "NAS_SERVICE_ROOT_PATH")

    def allows(self, host: str) -> bool:
        """Return whether the service answers under ``host`` (a ``Host`` header without the port)."""
        name = host.strip("[]").lower().rstrip(".")
        if "*" in self.hosts or name in self.hosts or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False
