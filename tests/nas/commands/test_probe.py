"""``nas probe``: a network, a table from clock to study, the server; and what is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from nas.probes import server as server_file
from nas.probes.server import ProbeServer
from nas.probes.table import DeviceTable
from tests.nas.tiny import tiny

TOKEN = "0123456789abcdef"
QUICK = ("--interval", "1", "--seconds", "0.1")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """A cache of latency tables of one test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("PARTIALNET_CACHE", str(folder))
    return folder


def test_a_network(nas):
    code, out, err = nas("probe", "network", "micro", "--size", "32", *QUICK)
    assert code == 0, err
    assert out.startswith("micro\n")
    assert "times the reference network, which took" in out
    code, out, err = nas("probe", "network", "micro", "--size", "32", *QUICK, "--json")
    found = json.loads(out)
    assert (found["network"], found["metric"]) == ("micro", "latency_ms")
    assert found["value"] == pytest.approx(found["figures"]["ratio"] * found["figures"]["reference_ms"])


def write_study(**changes: object) -> None:
    """Write ``study.yaml``: one search trial and one baseline."""
    study = tiny(
        latency={"table": "auto", "n": 10, "interval": 1.0, "seconds": 0.2, "warmup": 1},
        sweep={"trials": 1, "seed": 3},
        baselines=[1 / 4],
        training={"epochs": 1, "finetune_epochs": 1, "batch_size": 40, "learning_rate": 0.01},
        **changes,
    )
    Path("study.yaml").write_text(yaml.safe_dump(study.to_dict()))


def test_a_table_from_the_clock_to_a_study(nas, ray_here):
    write_study(objectives=["top1", "predicted_ms"], name="quick")
    code, out, err = nas("probe", "table", "study.yaml", *QUICK, "--whole", "4", "--out", "t.json")
    assert code == 0, err
    assert "constant: " in out
    assert "rank correlation" in out
    table = DeviceTable.load(Path("t.json"))
    code, out, err = nas("probe", "table", "study.yaml", *QUICK, "--whole", "4", "--json")
    assert json.loads(out) == table.to_dict()
    assert "read from the cache" in err
    code, out, err = nas("run", "study.yaml", "--quiet")
    assert code == 0, err
    code, out, err = nas("pareto", "latest", "--all", "--x", "predicted_ms", "--csv")
    assert code == 0, err
    assert "predicted_ms" in out.splitlines()[0]
    assert len(out.splitlines()) == 3
    code, out, err = nas("trial", "latest", "0")
    assert "latency by the table (ms)" in out
    assert table.table.circumstances.device in out


def test_a_table_of_a_network_of_another_family(nas):
    code, out, err = nas("probe", "table", "resnet10t", "--size", "32", *QUICK, "--whole", "0", "--json")
    assert code == 0, err
    rows = json.loads(out)["table"]["rows"]
    assert {row["channels"] for row in rows} >= {64, 128}


@pytest.fixture
def far() -> Iterator[str]:
    """Address of a probe server."""
    with ProbeServer(("127.0.0.1", 0), TOKEN) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


@pytest.mark.long  # one export for each row
def test_a_table_of_another_machine(nas, far):
    options = ("--option", "embed_dim=8", "--option", "depths=[1,1,1,1]", "--size", "32")
    code, out, err = nas("probe", "table", "micro", *options, *QUICK, "--whole", "0", "--on", far, "--token", TOKEN)
    assert code == 0, err
    assert "onnx (onnxruntime " in out
    assert "so its error is unknown" in out


def test_another_machine_needs_its_token(nas, far, monkeypatch):
    ask = ("probe", "table", "micro", "--size", "32", "--on", far)
    code, _, err = nas(*ask)
    assert (code, "the token is missing; give --token or NAS_PROBE_TOKEN" in err) == (2, True)
    code, _, err = nas(*ask, "--token", "wrong-token-of-length")
    assert (code, "token is missing or wrong" in err) == (2, True)
    monkeypatch.setenv("NAS_PROBE_TOKEN", "another-wrong-token")
    code, _, err = nas(*ask)
    assert (code, "token is missing or wrong" in err) == (2, True)


def test_the_servers_file(nas):
    code, out, _ = nas("probe", "serve", "--path")
    assert (code, out.strip()) == (0, server_file.__file__)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["network", "micro", "--runtime", "tflite"], "--runtime: "),
        (["network", "micro", "--runtime", "onnx", "--device", "cuda"], "runtime 'onnx' runs on the processor"),
        (["network", "micro", "--threads", "0"], "--threads: "),
        (["network", "micro", "--interval", "-1"], "--interval: "),
        (["network", "nothing"], "there is no network and no file 'nothing'"),
        (["table", "nothing.yaml"], "nothing.yaml: cannot be read"),
        (["table", "micro", "--size", "32", "--whole", "2", *QUICK], "use 0 or at least 4"),
        (["table", "micro", "--token", TOKEN], "--token works only with --on"),
        (["table", "micro", "--on", "board", "--token", TOKEN], "'board' is not an address such as"),
        (["table", "micro", "--on", "http://b", "--runtime", "torch", "--token", TOKEN], "the runtime is torch"),
        (["table", "micro", "--out", "none/t.json"], "--out none/t.json: the folder"),
        (["table", "study.yaml", "--size", "32"], "--size and --option work only with a network"),
        (["serve", "--token", "short"], "--token must be at least 16"),
        (["serve", "--host", "203.0.113.7", "--token", TOKEN], "cannot listen on --host 203.0.113.7"),
    ],
)
def test_what_is_refused(nas, arguments, expected):
    code, out, err = nas("probe", *arguments)
    assert (code, out) == (2, "")
    assert expected in err


def test_a_server_that_does_not_answer(nas):
    code, _, err = nas("probe", "table", "micro", "--on", "http://127.0.0.1:9", "--token", TOKEN)
    assert (code, "the probe server does not answer" in err) == (1, True)
    assert not list(Path.cwd().iterdir())
