"""Settings from the environment (``NAS_*``), overridden by flags. The only place that reads them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """Where things are.

    Args:
        database_url: SQLAlchemy URL of the store (``NAS_DATABASE_URL``).
        storage: fsspec URL or folder of weights and exports (``NAS_STORAGE``).
        data_roots: Folders in which data sets are looked for, separated as in ``PATH`` (``NAS_DATA_ROOTS``).
        token: The service's access token (``NAS_TOKEN``); made at start when absent.
    """

    model_config = SettingsConfigDict(env_prefix="NAS_", extra="ignore")

    database_url: str = "sqlite:///nas.db"
    storage: str = "nas-storage"
    data_roots: Annotated[tuple[Path, ...], NoDecode] = Field(default=())
    token: SecretStr | None = None

    @field_validator("data_roots", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(Path(part).expanduser() for part in value.split(os.pathsep) if part)
        return value
