"""Timing of networks on another machine, which runs ``nas/probes/server.py``: they travel as ONNX files."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx
import torch
from torch import nn

from nas.definition.sections import LatencySpec
from nas.errors import InputError, JobError
from nas.probes.latency import fingerprint_of
from nas.probes.runtimes import write_onnx
from nas.probes.server import MAX_PASSES, Pass
from nas.probes.table import WHOLE, TableJob
from nas.probes.timers import onnx_reference, precision_of
from nas.probes.timing import Timing, time_in_turn
from nas.scratch import scratch_folder
from partialnet.search.latency_parts import Circumstances

_ANSWER_SECONDS = 300.0  # a request of 60 s of passes may wait for another client's


class RemoteTimer:
    """Times networks in ONNX Runtime on another machine; a context.

    Args:
        url: Address of the server, such as ``http://192.168.1.7:8766``.
        token: Token of the server.
        spec: Threads, batch, and when to end; the runtime must be ``onnx``.
        input_shape: Shape of one image of the reference network: channels, height, width.

    Raises:
        InputError: If the address or the token is invalid, or the runtime is another one.
        JobError: If the server does not answer.
    """

    def __init__(self, url: str, token: str, spec: LatencySpec, input_shape: tuple[int, int, int]) -> None:
        if spec.runtime != "onnx":
            raise InputError(f"a server times networks in runtime onnx, but the runtime is {spec.runtime}")
        try:
            address = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise InputError(f"{url!r} is not an address: {error}") from None
        if address.scheme not in ("http", "https") or not address.host:
            raise InputError(f"{url!r} is not an address such as http://192.168.1.7:8766")
        if not token.isascii() or not token.isprintable():
            raise InputError("the token must consist of printable ASCII characters")
        self._url = url
        self._spec = spec
        self._input_shape = input_shape
        self._reference_id: str | None = None
        # Without trust_env=False, requests within the own network would go through a configured proxy.
        self._http = httpx.Client(
            base_url=url.rstrip("/") + "/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=_ANSWER_SECONDS,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def device(self) -> dict[str, Any]:
        """Return what timings of that machine depend on: ``device_name``, ``cpus``, ``system``, ``versions``."""
        return self._ask("GET", "/device")

    def time(self, network: nn.Module, images: torch.Tensor) -> Timing:
        """Time a network in eval mode, in the form in which it is to run, on images [B, C, H, W]."""
        if self._reference_id is None:
            self._reference_id = self._send(onnx_reference(self._input_shape, self._spec.batch))
        with scratch_folder("bench") as folder:
            key = self._send(write_onnx(network, images, folder / "network.onnx").read_bytes())
        try:
            return time_in_turn(
                lambda count, seconds: self._turns([str(self._reference_id), key], count, seconds),
                precision_of(self._spec),
                self._spec.warmup,
                one_thread=self._spec.threads == 1,
            )
        finally:
            self._ask("DELETE", f"/networks/{key}")

    def _turns(self, keys: list[str], count: int, seconds: float) -> list[list[Pass]]:
        question = {"networks": keys, "passes": min(count, MAX_PASSES), "seconds": max(0.0, seconds)}
        answer = self._ask("POST", "/turns", json=question)
        return [[(float(ms), float(busy), bool(held)) for ms, busy, held in row] for row in answer["passes"]]

    def _send(self, content: bytes) -> str:
        params = {"threads": str(self._spec.threads)}
        return str(self._ask("POST", "/networks", content=content, params=params)["id"])

    def _ask(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, **request)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise JobError(f"{self._url}: the probe server does not answer ({reason})") from error
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, Mapping):
            raise JobError(f"{self._url}: is no probe server (status {response.status_code})")
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise InputError(f"{self._url}: {answer.get('error')}")
        if response.is_error:
            raise JobError(f"{self._url}: {answer.get('error', response.status_code)}")
        return dict(answer)


def remote_job(
    model: nn.Module,
    input_shape: tuple[int, int, int],
    title: str,
    spec: LatencySpec,
    device: Mapping[str, Any],
    *,
    whole: int = WHOLE,
) -> TableJob:
    """Return the table of another machine to build; see :class:`~nas.probes.table.TableJob`.

    Args:
        model: Network with ``DPConv2d`` layers; it stays unchanged.
        input_shape: Shape of one image: channels, height, width.
        title: Name of the network.
        spec: Settings of the timings.
        device: Answer of :meth:`RemoteTimer.device`.
        whole: Number of whole networks to time.

    Raises:
        InputError: If ``whole`` is too small.
        JobError: If the answer lacks a field.
    """
    try:
        name, runtime = str(device["device_name"]), f"onnx (onnxruntime {device['versions']['onnxruntime']})"
    except (KeyError, TypeError) as error:
        raise JobError(f"the probe server does not describe its device ({error} is missing)") from error
    where = Circumstances(name, spec.threads, "float32", "channels_last", spec.batch, runtime)
    return TableJob(model, input_shape, title, where, fingerprint_of(runtime, name, spec, input_shape), spec, whole)
