"""``nas serve``: starts the web service, with a worker beside it."""

from __future__ import annotations

import gc
import importlib
import ipaddress
import os
import signal
import socket
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from nas.commands.options import (
    Database,
    DataRoots,
    RayAddress,
    Storage,
    console,
    note,
    open_store,
    say,
    settings_from,
)
from nas.errors import InputError
from nas.host.interrupts import INTERRUPTED, Requests, heard_signals
from nas.settings import LOCAL_RAY, Settings, check_origin, check_root_path, check_token
from nas.tokens import LINK_SECONDS

DEFAULT_PORT = 8000
_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104  compared with, not bound to
_PORTS_TRIED = 20
_CLOSE_SECONDS = 5
_SWITCH_SECONDS = 0.001  # the loop gets its turn beside a long read five times as often as by default
_COLLECTED_AFTER = 10_000  # objects: a front makes tens of thousands, and the collector would look 50 times meanwhile


def serve(
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on; 0.0.0.0 for all addresses.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="PORT", min=0, max=65535, help=f"Port \\[{DEFAULT_PORT} or the next free one]"),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Host name by which browsers reach this machine."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-origin",
            metavar="URL",
            help="Address that browsers show, such as https://nas.example.org, where a proxy asks under another host.",
        ),
    ] = None,
    root_path: Annotated[
        str, typer.Option("--root-path", metavar="PATH", help="Sub-path under which a proxy serves this, such as /nas.")
    ] = "",
    token: Annotated[
        str | None,
        typer.Option(
            "--token", metavar="TOKEN", help="Token with the scope admin, besides those of nas token \\[NAS_TOKEN]"
        ),
    ] = None,
    tls_certificate: Annotated[
        Path | None,
        typer.Option("--tls-certificate", metavar="FILE", help="Certificate (PEM, with its chain): serve HTTPS."),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option("--tls-key", metavar="FILE", help="Private key of the certificate, if its file lacks it."),
    ] = None,
    worker: Annotated[
        bool, typer.Option("--worker/--no-worker", help="Run launched searches on this machine, each in a process.")
    ] = True,
    database: Database = None,
    storage: Storage = None,
    data_root: DataRoots = None,
    ray_address: RayAddress = None,
) -> None:
    """Serve the web pages and the REST API, and print the address to open.

    By default, only this machine can connect. The link in the printed address signs in one browser, once, within 15
    minutes; nas token link prints another one, and nas token create makes tokens for scripts and other people. With
    NAS_TOKEN, no link is printed. Ctrl-C stops the service and cleanly stops the search of its worker; the next start
    continues it.

    \b
    Examples:
      nas serve
      nas serve --port 9000 --no-worker
      nas serve --host 0.0.0.0 --allow-host nas.example.org
      nas serve --host 0.0.0.0 --tls-certificate nas.pem --tls-key nas.key
      nas serve --root-path /nas --allow-origin https://example.org
    """
    settings = settings_from(database, storage, data_root, ray_address)
    if settings.ray_address != LOCAL_RAY:
        from nas.sweep.joined import check_address

        check_address(settings.ray_address)
    given = check_token(token, "--token") if token else settings.checked_token()
    tls = _checked_tls(tls_certificate, tls_key)
    with open_store(settings, create=True) as store:  # one that cannot be opened gives a message of one line here
        link = store.create_link() if given is None else None
    root = check_root_path(root_path, "--root-path") or os.environ.get("NAS_SERVICE_ROOT_PATH", "").rstrip("/")
    origins = [check_origin(origin, "--allow-origin") for origin in allow_origin or ()]
    listener = listen(host, port)
    _set_environment(settings, given, worker)
    _extend_environment("NAS_SERVICE_HOSTS", [*(allow_host or ()), *_own_names(host)])
    _extend_environment("NAS_SERVICE_ORIGINS", origins)
    os.environ["NAS_SERVICE_ROOT_PATH"] = root
    shown = address(host, listener.getsockname()[1], link, root, encrypted=bool(tls))
    if not is_loopback(host) and not tls:
        _warn_of_plain_text(host, os.environ.get("NAS_SERVICE_ORIGINS", ""))
    _run(listener, f"open {shown}\n{_how_to_sign_in(link)}\nstop with Ctrl-C", tls)


def listen(host: str, port: int | None) -> socket.socket:
    """Return a socket bound to ``port``; without one, to the default port or, if that is taken, the next free one.

    Raises:
        InputError: If the address is not one of this machine's, or the port is taken or not allowed.
    """
    wanted = [port] if port is not None else [*range(DEFAULT_PORT, DEFAULT_PORT + _PORTS_TRIED), 0]
    reason = ""
    for number in wanted:
        try:
            family = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0][0]
            listener = socket.create_server((host, number), family=family)
            # Connections inherit it. asyncio sets it only where the protocol's number is given, and each answer on a
            # kept connection would otherwise wait 40 ms for the client's acknowledgement.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return listener
        except OSError as error:
            reason = (error.strerror or str(error)).partition(" (while")[0]
    raise InputError(f"cannot listen on --host {host} --port {wanted[0]}: {reason}; choose another one")


def address(host: str, port: int, link: str | None, root: str = "", *, encrypted: bool = False) -> str:
    """Return the URL to open, with the one-time link; below the sub-path ``root`` if there is one."""
    name = "localhost" if host in _EVERYWHERE else host
    shown = f"[{name}]" if ":" in name else name
    return f"http{'s' if encrypted else ''}://{shown}:{port}{root}/{link_query(link)}"


def link_query(link: str | None) -> str:
    """Return the query of an address that signs in a browser; empty without a link."""
    return "" if link is None else f"?link={link}"


def _how_to_sign_in(link: str | None) -> str:
    if link is None:
        return "sign in with NAS_TOKEN, or with a token of nas token create"
    return f"the link works once, within {LINK_SECONDS / 60:g} minutes; nas token link prints another one"


def _checked_tls(certificate: Path | None, key: Path | None) -> dict[str, str]:
    """Return the options of the server for HTTPS; none without a certificate.

    Raises:
        InputError: If a file cannot be read as what it should be.
    """
    if certificate is None:
        if key is not None:
            raise InputError(f"--tls-key {key} works only with --tls-certificate FILE")
        return {}
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        options = f"--tls-certificate {certificate}" + ("" if key is None else f" --tls-key {key}")
        raise InputError(
            f"{options}: {getattr(error, 'strerror', None) or error}; "
            "they must be PEM files that belong together, and the key must not be encrypted"
        ) from None
    return {"ssl_certfile": str(certificate), **({} if key is None else {"ssl_keyfile": str(key)})}


def _warn_of_plain_text(host: str, origins: str) -> None:
    if "https://" in origins:
        note(f"{host} is reachable from other machines: let only the proxy with TLS ({origins}) reach this port")
        return
    note(
        f"warning: {host} is reachable from other machines, and the connection is not encrypted: everyone on the way "
        "can read the tokens and start searches here; give --tls-certificate, or put a proxy with TLS in front and "
        "name its address with --allow-origin https://..."
    )


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is reachable only from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _own_names(host: str) -> list[str]:
    """Return the host names of a service that listens on ``host``."""
    if is_loopback(host):
        return []
    return [socket.gethostname().lower()] if host in _EVERYWHERE else [host.lower()]


def _set_environment(settings: Settings, token: str | None, worker: bool) -> None:
    """Put the settings into the environment: the server loads the application by name, which reads them there."""
    os.environ |= {**settings.variables(), **({} if token is None else {"NAS_TOKEN": token})}
    os.environ["NAS_SERVICE_WORKER"] = "1" if worker else "0"


def _extend_environment(variable: str, values: list[str]) -> None:
    """Add ``values`` to a variable that holds several, separated by commas."""
    known = [value for value in os.environ.get(variable, "").split(",") if value]
    if values:
        os.environ[variable] = ",".join([*known, *values])


def _protocol() -> Any:
    """Return the service's own protocol: by name, since nothing here imports the service."""
    return importlib.import_module("service.protocol").TimedProtocol


def _keep() -> None:
    """Take what is there out of later collections, without what is garbage already."""
    gc.collect()
    gc.freeze()


def _run(listener: socket.socket, greeting: str, tls: Mapping[str, str]) -> None:
    gc.disable()  # while all is loaded: none of it is garbage, and the collector would look through it many times
    gc.set_threshold(_COLLECTED_AFTER)
    sys.setswitchinterval(_SWITCH_SECONDS)
    import uvicorn

    requests = Requests()

    class Server(uvicorn.Server):
        """Prints the address only when the server answers."""

        async def startup(self, sockets: list[Any] | None = None) -> None:
            await super().startup(sockets)
            gc.freeze()  # what is loaded stays: looking through all of it would hold up requests
            gc.enable()
            loading = self.lifespan.state.get("loading")
            if loading is not None:  # the same for what is loaded beside the first requests
                loading.add_done_callback(lambda _: _keep())
            if self.started:
                say(console(), greeting)

        async def shutdown(self, sockets: list[Any] | None = None) -> None:
            before_close = self.lifespan.state.get("before_close")
            if before_close is not None:  # ends the streams of events, which would otherwise never end
                before_close()
            await super().shutdown(sockets)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if not requests.new():
                return
            if requests.count > 1:
                # The kernel tells the worker, which hands its jobs back.
                note("ended at the second signal")
                os._exit(INTERRUPTED)
            super().handle_exit(sig, frame)

    # An access log would record the links in addresses.
    config = uvicorn.Config(
        "service.app:create_app_from_environment",
        factory=True,
        http=_protocol(),
        ssl_certfile=tls.get("ssl_certfile"),
        ssl_keyfile=tls.get("ssl_keyfile"),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_CLOSE_SECONDS,
    )
    server = Server(config)
    if signal.SIGHUP in heard_signals():  # uvicorn does not know it
        signal.signal(signal.SIGHUP, lambda _number, _frame: os.kill(os.getpid(), signal.SIGTERM))
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        note("stopped; `nas serve` continues the search")
    finally:
        gc.enable()
    if not server.started:
        raise typer.Exit(1)
