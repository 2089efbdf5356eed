"""The probe server: a real one, its refusals, and a table of another machine built through it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from nas.definition.sections import LatencySpec
from nas.errors import InputError, JobError
from nas.probes import server as server_file
from nas.probes.remote import RemoteTimer, remote_job
from nas.probes.server import Networks, ProbeServer, Refused
from nas.probes.table import build_table
from partialnet.layers.dpconv import DPConv2d

TOKEN = "0123456789abcdef"
SPEC = LatencySpec(runtime="onnx", warmup=1, n=10, interval=1.0, seconds=5)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ProbeServer(("127.0.0.1", 0), TOKEN, max_bytes=1 << 20) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


@pytest.fixture
def http(address) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False) as client:
        yield client


def relu_file(shape=(1, 4), *, kind: int = TensorProto.FLOAT, location: str | None = None) -> bytes:
    """Return an ONNX file that rectifies its input and adds a constant."""
    constant = helper.make_tensor("c", TensorProto.FLOAT, [1], [1.0])
    if location is not None:
        constant.ClearField("float_data")
        constant.data_location = TensorProto.EXTERNAL
        entry = constant.external_data.add()
        entry.key, entry.value = "location", location
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Add", ["r", "c"], ["y"])]
    x, y = (helper.make_tensor_value_info(name, kind, list(shape)) for name in "xy")
    graph = helper.make_graph(nodes, "relu", [x], [y], initializer=[constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def test_networks_are_timed_in_turn(http):
    device = http.get("/v1/device").json()
    assert set(device) == {"device_name", "cpus", "system", "versions"}
    keys = [http.post("/v1/networks", content=relu_file((1, size))).json()["id"] for size in (4, 8)]
    answer = http.post("/v1/turns", json={"networks": keys, "passes": 7}).json()
    assert [len(passes) for passes in answer["passes"]] == [7, 7]
    assert all(ms > 0 and busy >= 0 and isinstance(held, bool) for row in answer["passes"] for ms, busy, held in row)
    assert http.delete(f"/v1/networks/{keys[0]}").status_code == 200
    gone = http.post("/v1/turns", json={"networks": keys, "passes": 7})
    assert gone.status_code == 404
    assert "send it again" in gone.json()["error"]


@pytest.mark.parametrize("token", [None, "", "Bearer", "Bearer 0123456789abcdeg", f"Basic {TOKEN}", TOKEN])
@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/device"), ("POST", "/v1/networks"), ("GET", "/nothing")])
def test_without_the_token_nothing_is_answered(address, token, method, path):
    headers = {} if token is None else {"Authorization": token}
    answer = httpx.request(method, address + path, headers=headers, trust_env=False)
    assert (answer.status_code, "token" in answer.json()["error"]) == (401, True)


@pytest.mark.parametrize(
    ("content", "status", "expected"),
    [
        (b"not a network", 400, "ONNX Runtime cannot run the file"),
        (relu_file(("batch", 4)), 400, "must be float32 tensors of fixed sizes"),
        (relu_file(location="../../etc/passwd"), 400, "keeps tensors in other files"),
        (b"0" * ((1 << 20) + 1), 413, "but at most 1048576 pass"),
    ],
    ids=["text", "free-size", "other-file", "too-large"],
)
def test_files_that_are_refused(http, content, status, expected):
    answer = http.post("/v1/networks", content=content)
    assert (answer.status_code, expected in answer.json()["error"]) == (status, True), answer.text


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("[]", "must be JSON with the keys"),
        ("{", "must be JSON"),
        ('{"networks": [], "passes": 3}', "must be a list of ids"),
        ('{"networks": [3], "passes": 3}', "must be a list of ids"),
        ('{"networks": ["a"], "passes": 0}', "passes is 0"),
        ('{"networks": ["a"], "passes": true}', "passes is True"),
        ('{"networks": ["a"], "passes": 3, "seconds": -1}', "seconds is -1"),
    ],
)
def test_questions_that_are_refused(http, question, expected):
    answer = http.post("/v1/turns", content=question)
    assert (answer.status_code, expected in answer.json()["error"]) == (400, True), answer.text


@pytest.mark.parametrize("threads", ["0", "x", "-1", "99999"])
def test_numbers_of_threads_that_are_refused(http, threads):
    answer = http.post("/v1/networks", params={"threads": threads}, content=relu_file())
    assert (answer.status_code, "threads is" in answer.json()["error"]) == (400, True)


def test_the_network_used_longest_ago_makes_room():
    held = Networks(limit=2)
    first, second = held.add(relu_file(), 1), held.add(relu_file(), 1)
    held.turns([first], 1, 1.0)
    third = held.add(relu_file(), 1)
    held.turns([first, third], 1, 1.0)
    with pytest.raises(Refused, match="unknown network"):
        held.turns([second], 1, 1.0)


@pytest.mark.parametrize("token", ["short", "with a space in its middle", "ünlesbar-0123456789"])
def test_weak_tokens_are_refused(token):
    with pytest.raises(ValueError, match="at least 16 printable ASCII characters"):
        ProbeServer(("127.0.0.1", 0), token)


def test_the_file_runs_alone(tmp_path):
    """Copied elsewhere, without this project on the path, it starts and answers."""
    copy = tmp_path / "server.py"
    copy.write_bytes(Path(server_file.__file__).read_bytes())
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.Popen(
        [sys.executable, "-P", str(copy), "--port", "0"],
        cwd=tmp_path,
        env={**environment, "NAS_PROBE_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        url = line.rsplit(" ", 1)[1].strip()
        answer = httpx.get(f"{url}/v1/device", headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False)
        assert "onnxruntime" in answer.json()["versions"]
        assert TOKEN not in line
    finally:
        process.terminate()
        process.wait(30)


def test_the_file_imports_nothing_of_this_project():
    text = Path(server_file.__file__).read_text()
    assert "import nas" not in text
    assert "from nas" not in text
    assert "partialnet" not in text


class Small(nn.Module):
    """Two layers of one shape, and a fixed part."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.first, self.second = (DPConv2d(4, rest="identity", min_channels=2) for _ in range(2))

    def forward(self, x):
        return self.second(self.first(self.stem(x))).mean(dim=(2, 3))


@pytest.mark.parametrize("whole", [0, pytest.param(4, marks=pytest.mark.long)])  # one export for each network
def test_a_table_of_another_machine(address, whole):
    with RemoteTimer(address, TOKEN, SPEC, (3, 8, 8)) as timer:
        job = remote_job(Small().eval(), (3, 8, 8), "small", SPEC, timer.device(), whole=whole)
        told = []
        found = build_table(job, timer, told.append)
    assert found.fingerprint.startswith("onnx (onnxruntime ")
    assert [key.active_channels for key in found.table.rows] == [2, 4]
    assert (found.table.constant is not None) == (found.check is not None) == bool(whole)
    assert [step.position for step in told] == list(range(1, 3 + whole))
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_what_the_client_says(address):
    with pytest.raises(InputError, match="not an address such as"):
        RemoteTimer("board:8766", TOKEN, SPEC, (3, 8, 8))
    with pytest.raises(InputError, match="the runtime is torch"):
        RemoteTimer(address, TOKEN, LatencySpec(), (3, 8, 8))
    with pytest.raises(InputError, match="token is missing or wrong"), RemoteTimer(
        address, "x" * 16, SPEC, (3, 8, 8)
    ) as timer:
        timer.device()
    with pytest.raises(JobError, match="does not answer"), RemoteTimer(
        "http://127.0.0.1:9", TOKEN, SPEC, (3, 8, 8)
    ) as timer:
        timer.time(nn.ReLU(), torch.zeros(1, 3, 8, 8))
