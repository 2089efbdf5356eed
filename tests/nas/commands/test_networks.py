"""Commands on a trial with several networks, as a supernet yields them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nas.store import Store
from tests.nas.store.makers import networks, supernet


@pytest.fixture
def place(tmp_path: Path) -> Path:
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        supernet(store)
    return tmp_path


def test_a_trial_lists_its_networks_and_shows_one(nas, place) -> None:
    code, out, _ = nas("trial", "supernet", "0", cwd=place)
    assert code == 0
    for position, candidate in enumerate(networks()):
        [line] = [line for line in out.splitlines() if candidate.architecture.id[:12] in line]
        assert line.split()[:3] == [str(position), f"{50 + 10 * position}.00", f"{1 + position}.000"]
        assert "inherited" in line
    assert "stages.0.blocks.0.mixer" not in out
    code, one, _ = nas("trial", "supernet", "0", "--candidate", "2", cwd=place)
    assert (code, "candidate 2 of 3" in one, "stages.0.blocks.0.mixer" in one) == (0, True, True)
    assert "predicted (predicted, not trained), validation data" in one


def test_files_are_of_the_network_that_is_named(nas, place) -> None:
    code, _, err = nas("trial", "supernet", "0", "--architecture", "a.json", cwd=place)
    assert (code, (place / "a.json").exists()) == (2, False)
    assert "trial 0 of supernet has 3 networks: choose one" in err
    wanted = networks()[1].architecture
    code, _, _ = nas("trial", "supernet", "0", "--candidate", wanted.id[:8], "--architecture", "a.json", cwd=place)
    assert (code, json.loads((place / "a.json").read_text())) == (0, wanted.to_dict())


def test_an_export_wants_to_know_which(nas, place) -> None:
    code, _, err = nas("export", "supernet", "0", "--out", "out", cwd=place)
    assert (code, (place / "out").exists()) == (2, False)
    assert all(candidate.architecture.id[:12] in err for candidate in networks())
    code, _, err = nas("export", "supernet", "0", "--candidate", "5", "--out", "out", cwd=place)
    assert (code, "has no network '5'" in err) == (2, True)


def test_a_front_holds_networks_of_one_kind(nas, place) -> None:
    code, out, _ = nas("pareto", "supernet", cwd=place)
    assert code == 0
    assert "front of 3 scored networks, inherited weights" in out
    assert [line.split()[1] for line in out.splitlines() if line.startswith("*  ")] == ["0.0", "0.1", "0.2"]
    code, out, _ = nas("pareto", "supernet", "--evaluation", "finetuned", cwd=place)
    assert "has no trial with top1 and macs (finetuned) yet" in out
    code, out, _ = nas("pareto", "supernet", "--json", cwd=place)
    points = json.loads(out)["points"]
    assert [(point["number"], point["position"], point["on_front"]) for point in points] == [
        (0, position, True) for position in range(3)
    ]
