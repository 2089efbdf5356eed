"""A client of the service's API for scripts and notebooks, sync and async. Loads neither torch nor ray.

Its answers are types of :mod:`nas.wire.bodies`. An error of the service is raised as the class that it names
(``NotFoundError``, ``ConflictError``, ...). Code that uses the client and code that uses the store therefore handle
failures alike.
"""

from __future__ import annotations

from nas.client.asynchronous import AsyncClient
from nas.client.sync import Client
from nas.client.transport import Retries

__all__ = ["AsyncClient", "Client", "Retries"]
