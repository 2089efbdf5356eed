"""Settings of the service alone (``NAS_SERVICE_*``); what it shares with the commands is in :mod:`nas.settings`."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """How the service behaves.

    Args:
        worker: Whether an embedded worker is started and kept alive beside the API (``NAS_SERVICE_WORKER``).
        hosts: Names, besides the loopback ones, under which the service may be asked, comma-separated
            (``NAS_SERVICE_HOSTS``); ``*`` allows every name and gives up the protection against DNS rebinding.
        stop_seconds: How long the embedded worker may take to stop before it is killed (``NAS_SERVICE_STOP_SECONDS``).
    """

    model_config = SettingsConfigDict(env_prefix="NAS_SERVICE_", extra="ignore")

    worker: bool = True
    hosts: Annotated[tuple[str, ...], NoDecode] = Field(default=())
    stop_seconds: float = Field(default=30.0, gt=0)

    @field_validator("hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip().lower() for part in value.split(",") if part.strip())
        return value

    def allows(self, host: str) -> bool:
        """Return whether ``host`` (a ``Host`` header without the port) may ask this service."""
        name = host.strip("[]").lower().rstrip(".")
        if "*" in self.hosts or name in self.hosts or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False
