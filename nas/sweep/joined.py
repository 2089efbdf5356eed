"""A Ray cluster that somebody else started: its address and token, our code on its nodes, faults of its nodes.

A search that ends leaves the cluster and its folders alone. Ray ends the search's processes on all nodes, also when the
search is killed.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import nas
import partialnet
from nas.artifacts import Artifacts
from nas.errors import ClusterFault, InputError, NasError, one_line
from nas.scratch import scratch_folder, sweep_leftovers
from nas.settings import LOCAL_RAY

if TYPE_CHECKING:
    from nas.sweep.trainable import TrialContext

_ANSWER_SECONDS = 5.0
_CHECK_SECONDS = 120.0
_TOKEN_PLACES = "RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"  # noqa: S105  names of places
_NEEDED = ("torch", "torchvision", "timm", "fvcore")


def check_address(address: str, source: str = "Ray address") -> None:
    """Check that something answers at a cluster's address: Ray itself tries for minutes and ignores Ctrl-C.

    Args:
        address: Address ``HOST:PORT``; Ray resolves ``auto`` and ``local`` itself.
        source: Origin of the address, for the message.

    Raises:
        InputError: If the address is invalid, or nothing answers there.
    """
    if address in ("auto", LOCAL_RAY):
        return
    if address.startswith("ray://"):
        raise InputError(
            f"{source} {address!r} is one of Ray's client, which cannot run a search; give the address of the cluster "
            "itself, HOST:PORT with port 6379 by default, on a machine that is a node of it"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"{source} {address!r} must be HOST:PORT, such as 10.0.0.5:6379, or 'auto'")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"no Ray cluster answers at {address} ({error.strerror or error}); is it running, and is the address right?"
        ) from None


@contextmanager
def joined_ray(address: str, environment: Mapping[str, str], **options: Any) -> Iterator[None]:
    """Be a driver of the cluster at ``address`` inside the block.

    The nodes receive this machine's ``nas`` and ``partialnet``; their dependencies must be installed there.

    Args:
        address: Address ``HOST:PORT``, or ``auto`` for the cluster of ``RAY_ADDRESS`` or of this machine.
        environment: Environment variables of the processes on the nodes.
        options: Further options of ``ray.init``.

    Raises:
        ClusterFault: If nothing answers there, the token is not the cluster's, or this machine is no node of it.
    """
    import ray

    with _token_mode():
        try:
            found = check_cluster(address)
        except InputError as error:
            raise ClusterFault(str(error)) from error
        try:
            ray.init(address=found, runtime_env=_runtime_environment(environment), **options)
        except Exception as error:
            ray.shutdown()
            raise ClusterFault(
                f"the Ray cluster at {found} could not be joined: {one_line(error)}; a search runs on a node of the "
                f"cluster (`ray start --address={found} --num-cpus=0` makes this machine one)"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()


def check_cluster(address: str) -> str:
    """Return the address ``HOST:PORT`` of a cluster that answers this user.

    Raises:
        InputError: If none answers at ``address``, or the token is not the cluster's.
    """
    check_address(address)
    with _token_mode():
        found = _resolve(address)
        _check_token(found)
    return found


@contextmanager
def _token_mode() -> Iterator[None]:
    """Use Ray's token authentication inside the block if this user has a token, as Ray's own commands do."""
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

    before = os.environ.get("RAY_AUTH_MODE")
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("RAY_AUTH_MODE", None)


def _resolve(address: str) -> str:
    from ray._private.services import canonicalize_bootstrap_address

    try:
        found = canonicalize_bootstrap_address(address)
    except Exception as error:
        raise InputError(f"Ray address {address!r}: {one_line(error)}") from None
    if found is None:
        raise InputError(
            f"Ray address {address!r}: neither RAY_ADDRESS nor this machine names a running cluster; start one with "
            "`ray start --head`, or give HOST:PORT"
        )
    return str(found)


def _check_token(address: str) -> None:
    """Refuse a wrong token at once: ``ray.init`` would try for 20 s and then not name the reason.

    Raises:
        InputError: If the cluster refuses this user's token, or a missing one.
    """
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled
    from ray.exceptions import AuthenticationError

    try:
        GcsClient(address=address)
    except AuthenticationError:
        raise InputError(
            f"the Ray cluster at {address} refuses this client: its token is missing or wrong; put the token of the "
            f"cluster in {_TOKEN_PLACES}"
        ) from None
    except Exception as error:
        raise InputError(f"no Ray cluster answers at {address}: {one_line(error)}") from None


def _runtime_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    return {
        "py_modules": [str(_folder(package)) for package in (nas, partialnet)],
        "excludes": ["__pycache__/"],
        "env_vars": dict(environment),
    }


def _folder(package: ModuleType) -> Path:
    assert package.__file__ is not None
    return Path(package.__file__).parent


def check_nodes(context: TrialContext) -> None:
    """Check that the other nodes of a cluster can run trials: software, storage and data roots.

    A node that joins later is not checked; its trials report what it lacks.

    Args:
        context: Data that all trials of the search share.

    Raises:
        ClusterFault: If a node lacks something; the message lists each node with its faults.
        StoreError: If the storage cannot be written from here.
    """
    import ray

    sweep = context.definition.sweep
    own = ray.get_runtime_context().get_node_id()
    nodes = [node for node in live_nodes() if node["NodeID"] != own and node["Resources"].get("CPU", 0) > 0]
    nodes = [node for node in nodes if node["Resources"].get("GPU", 0) >= min(1, sweep.gpus_per_trial)]
    if not nodes:
        return
    marker = f"studies/{context.study_id}/nodes/{secrets.token_hex(8)}"
    artifacts = Artifacts(context.storage)
    with scratch_folder("weights") as folder:
        (folder / "marker").write_bytes(b"")
        artifacts.put(folder / "marker", marker, "marker")
    try:
        faults = _ask(nodes, context, marker)
    finally:
        with suppress(NasError):
            artifacts.remove(marker)
    if faults:
        raise ClusterFault(
            f"{len(faults)} of {len(nodes)} other nodes of the Ray cluster cannot run trials: {'; '.join(faults)}"
        )


def _ask(nodes: Sequence[Mapping[str, Any]], context: TrialContext, marker: str) -> list[str]:
    import ray
    from ray.exceptions import ActorDiedError, GetTimeoutError, NodeDiedError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = {}
    for node in nodes:
        place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(num_cpus=0, max_retries=0)(node_faults).options(scheduling_strategy=place)
        asked[node["NodeManagerAddress"]] = task.remote(context, marker)
    found = []
    for address, answer in asked.items():
        try:
            faults = ray.get(answer, timeout=_CHECK_SECONDS)
        except (NodeDiedError, ActorDiedError):
            continue  # it has left the cluster, so no trial will go there
        except GetTimeoutError:
            faults = [f"it did not answer within {_CHECK_SECONDS:g} s"]
        except RayError as error:
            cause = getattr(error, "cause", None) or error
            faults = [one_line(f"{type(cause).__name__}: {cause}")[:500]]
        if faults:
            found.append(f"{address}: {', '.join(faults)}")
    return found


def node_faults(context: TrialContext, marker: str) -> list[str]:
    """Return what the node that runs this lacks for a trial, one clause each; delete what dead processes left there.

    Args:
        context: Data that all trials of the search share.
        marker: URI of a file that the search has just stored.
    """
    sweep_leftovers()
    faults = [f"{name} is not installed" for name in _NEEDED if find_spec(name) is None]
    faults += [f"there is no data root {root}" for root in context.data_roots if not root.is_dir()]
    try:
        artifacts = Artifacts(context.storage)
        if not artifacts.exists(marker):
            faults.append(f"{artifacts!r} is another place there; use a folder that all nodes share, or a URL")
    except Exception as error:  # each file system raises its own
        faults.append(f"the storage cannot be read: {one_line(error)}")
    return faults


def live_nodes() -> list[dict[str, Any]]:
    """Return Ray's records of the nodes that are alive."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]
