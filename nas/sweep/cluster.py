"""Ray for one search: a private one or a cluster; the number of trials that fit; the run of the trials."""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nas.errors import InputError, NasError
from nas.scratch import scratch_folder, sweep_leftovers

# Ray reads these: no usage reports, no signal handler, no log files, no change of the working folder; and patience with
# a trial that returns on a busy machine, because Ray would otherwise silently drop the next one.
_ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "TUNE_GLOBAL_CHECKPOINT_S": "86400",
        "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "86400",
    }
)
_OBJECT_STORE_BYTES = 128 * 2**20
_LONGEST_BASE = 23  # + 17 of our folder + 43 of Ray's session + 21 of a socket is below 107
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108  mkdtemp creates our folder in them
_ANSWER_SECONDS = 5.0


@contextmanager
def quiet_ray() -> Iterator[None]:
    """Keep Ray's own messages out of the terminal inside the block; the tables hold the results."""
    with _environment(_ENVIRONMENT):
        import ray  # noqa: F401  # its import sets up its logger

        logger = logging.getLogger("ray")
        level = logger.level
        logger.setLevel(logging.CRITICAL)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module=r"ray\b.*")
                yield
        finally:
            logger.setLevel(level)


@contextmanager
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables inside the block, or unset those that are None, and restore them at its end."""
    before = {name: os.environ.get(name) for name in changes}
    _set_environment(changes)
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _own_token() -> Iterator[None]:
    """Make a private Ray use a token that only this process and its children know, inside the block.

    By default, Ray uses one token for all of a user's clusters, in a file that other users may be able to read. Ray
    uses token authentication by default; we clear the variables that could switch it off.
    """
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # compiled

    loader = AuthenticationTokenLoader.instance()
    with _environment({"RAY_AUTH_MODE": None, "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_AUTH_TOKEN_PATH": None}):
        loader.reset_cache()
        yield
    loader.reset_cache()


@contextmanager
def ray_session(address: str | None = None, *, cpus: float | None = None, gpus: float | None = None) -> Iterator[None]:
    """Start a private Ray on this machine, or join the cluster at ``address``; a Ray that already runs is used as it
    is.

    A private Ray has neither dashboard nor usage reports, and demands a token from each client. Its files are deleted
    at its end.

    Args:
        address: Address of a cluster; None for a private Ray.
        cpus: Number of CPUs to declare; None for those of the machine.
        gpus: Number of GPUs to declare, which need not exist; None for those of the machine.

    Raises:
        InputError: If nothing answers at ``address``.
        InputError: If no folder is suitable for the sockets of a private Ray.
        NasError: If a private Ray does not start.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": False}
    if address is not None and address != "local":
        check_address(address)
        try:
            ray.init(address=address, **common)
            yield
        finally:
            ray.shutdown()
        return
    base = socket_base()
    sweep_leftovers([base])
    with scratch_folder("ray", base) as folder, _own_token():
        local = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES, "_temp_dir": str(folder)}
        try:
            start_patiently(lambda: ray.init(address="local", num_cpus=cpus, num_gpus=gpus, **local, **common))
            yield
        finally:
            ray.shutdown()


def socket_base() -> Path:
    """Return a folder whose name leaves room for those of Ray's sockets, which have at most 107 characters in total.

    It is the system's folder for temporary files; if its name is too long, a folder that all systems have.

    Raises:
        InputError: If there is no writable one.
    """
    asked = tempfile.gettempdir()
    for place in (asked, *_SHORT_FOLDERS):
        if len(os.fsencode(place)) <= _LONGEST_BASE and Path(place).is_dir() and os.access(place, os.W_OK | os.X_OK):
            return Path(place)
    raise InputError(
        f"TMPDIR is {asked}, of {len(os.fsencode(asked))} characters, but Ray's sockets need a folder of at most "
        f"{_LONGEST_BASE}, and none of {', '.join(_SHORT_FOLDERS)} may be written; set TMPDIR to a shorter one"
    )


def start_patiently(init: Callable[[], object], attempts: int = 3) -> None:
    """Start a private Ray, with retries: on a busy machine it can exceed Ray's own limit of 30 s.

    Raises:
        NasError: If each attempt exceeded the limit.
    """
    import ray

    for attempt in range(attempts):
        try:
            init()
            return
        except Exception as error:  # Ray raises a plain Exception here
            ray.shutdown()
            if "timed out during startup" not in str(error):
                raise
            if attempt == attempts - 1:
                raise NasError(
                    f"Ray did not start within 30 s, {attempts} times in a row: the machine is busy; try again later "
                    "or with fewer searches at a time"
                ) from error


def check_address(address: str) -> None:
    """Check that something answers at a cluster's address: Ray itself tries for minutes and ignores Ctrl-C.

    Args:
        address: Address ``HOST:PORT``; Ray resolves ``auto`` and ``local`` itself.

    Raises:
        InputError: If the address is invalid, or nothing answers there.
    """
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"Ray address {address!r} must be HOST:PORT, such as 10.0.0.5:6379, or 'auto'")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"no Ray cluster answers at {address} ({error.strerror or error}); is it running, and is the address right?"
        ) from None


def fitting_trials(resources: Mapping[str, float], cpus: float, gpus: float) -> int:
    """Return how many trials fit at once on a cluster.

    Args:
        resources: Resources of the cluster, as Ray reports them.
        cpus: Number of CPUs for each trial.
        gpus: Number of GPUs for each trial: a fraction of one, or a whole number.

    Raises:
        InputError: If not even one trial fits; the message gives its request and the resources.
    """
    if gpus > 1 and gpus != int(gpus):
        raise InputError(f"sweep.gpus_per_trial is {gpus:g}, but must be a fraction of one GPU or a whole number")
    shares = [math.floor(resources.get("CPU", 0.0) / cpus + 1e-9)]
    if gpus > 0:
        there = resources.get("GPU", 0.0)
        # A trial uses one GPU: free parts of several GPUs do not add up to one share.
        shares.append(math.floor(there / gpus + 1e-9) if gpus >= 1 else int(there) * math.floor(1 / gpus + 1e-9))
    if min(shares) < 1:
        raise InputError(
            f"a trial asks for {cpus:g} CPUs and {gpus:g} GPUs, but there are {resources.get('CPU', 0):g} and "
            f"{resources.get('GPU', 0):g}; lower sweep.cpus_per_trial or sweep.gpus_per_trial"
        )
    return min(shares)


class _Stopper:
    """Ends all trials once ``closed`` returns true."""

    def __init__(self, closed: Callable[[], bool]) -> None:
        self._closed = closed

    def __call__(self, _trial_id: str, _result: Mapping[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._closed()

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        return object, ()


def run_trials(
    trainable: Callable[..., None],
    context: Any,
    searcher: Any,
    recorder: Any,
    *,
    name: str,
    cpus: float,
    gpus: float,
    concurrent: int,
    stop: Callable[[], bool],
    scheduler: Any = None,
) -> None:
    """Run trials until the searcher has no more or ``stop`` returns true. Ray must have been started.

    Processes are reused for trial after trial: starting one and importing torch takes longer than many epochs.

    Args:
        trainable: Function of a config and ``context``, importable by name on each machine of the cluster.
        context: Data that all trials share, sent once through Ray's object store.
        searcher: Searcher in Ray's interface.
        recorder: Callback in Ray's interface.
        name: Name of the experiment, which is made unique.
        cpus: Number of CPUs for each trial.
        gpus: Number of GPUs for each trial.
        concurrent: Number of trials at once.
        stop: Function that is called several times a second; true ends the running trials.
        scheduler: Early stopping in Ray's interface; None lets each trial run to its end.
    """
    from ray import tune

    stopper = type("Stopper", (_Stopper, tune.Stopper), {})(stop)
    resources = {"cpu": cpus, **({"gpu": gpus} if gpus else {})}
    with scratch_folder("tune") as folder:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trainable, context=context), resources),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=concurrent,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: f"trial-{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name=f"{name}-{uuid.uuid4().hex[:12]}",
                storage_path=str(folder),
                verbose=0,
                callbacks=[recorder],
                stop=stopper,
            ),
        )
        tuner.fit()
