"""The whole way of a newcomer through the pages of ``nas serve``, with its worker, its searches and its trainings."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from partialnet.package import load_package
from tests.service.browsing import browser_marks, chromium, sync_api
from tests.waiting import wait_for

__all__ = ["chromium"]
pytestmark = [*browser_marks, pytest.mark.long, pytest.mark.ray, pytest.mark.timeout(900)]


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The address that a first ``nas serve`` prints, in an empty folder."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("NAS_", "RAY_"))}
    command = [sys.executable, "-m", "nas", "serve", "--port", "0"]
    with (tmp_path / "serve.log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=kept, stdout=log, stderr=log)

    def said() -> str:
        return (tmp_path / "serve.log").read_text()

    try:
        wait_for(lambda: "?link=" in said() or process.poll() is not None)
        assert process.poll() is None, said()
        yield re.search(r"http://\S+\?link=\S+", said())[0]
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(120)
    assert code == 0, said()


def marks(page: Any) -> int:
    """Return the number of trials in the figure of the front."""
    count: int = page.locator("#front .scatterlayer .trace path.point").count()
    return count


def launch(page: Any) -> str:
    """Launch a small quickstart from the form; return the path of its page."""
    page.get_by_role("link", name="Begin with the quickstart").click()
    values = {"Name": "chain", "Epochs": 2, "Fine-tuning epochs": 1, "Trials": 40, "Learned networks": 0}
    for label, value in {**values, "Training images": 100}.items():
        page.get_by_label(label, exact=True).fill(str(value))
        page.get_by_label(label, exact=True).press("Enter")
    text = page.get_by_label("Definition (YAML)")
    for line in ("name: chain", "epochs: 2 ", "trials: 40", "candidates: 0", "train_limit: 100"):
        sync_api.expect(text).to_have_value(re.compile(re.escape(line)))
    sync_api.expect(page.locator("#check-status")).to_contain_text("The definition is valid")
    page.get_by_role("button", name="Launch").click()
    page.wait_for_url("**/studies/*")
    return str(page.evaluate("location.pathname"))


def exported(page: Any, folder: Path) -> Path:
    """Export the network of the trial that is shown, and return the unpacked folder."""
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Export this network").click()
    with zipfile.ZipFile(waiting.value.path()) as archive:
        archive.extractall(folder)
    (found,) = folder.iterdir()
    return found


def test_from_the_first_start_to_the_end(chromium: Any, address: str, tmp_path: Path) -> None:
    url = address.partition("/?")[0]
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(240_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(address)
    assert httpx.get(address, follow_redirects=True).status_code == 401  # a link works once
    study = launch(page)

    page.evaluate("window.stayed = true")
    seen = {wait_for(lambda: marks(page))}
    wait_for(lambda: marks(page) > max(seen))  # the front grows while somebody looks
    assert page.evaluate("window.stayed")

    trial = page.evaluate(f"fetch('/api/v1{study}/trials?kind=baseline&state=complete').then(a => a.json())")
    number = trial["trials"][0]["number"]
    page.get_by_role("link", name=f"Trial {number}", exact=True).click()
    sync_api.expect(page.locator("#splits .main-svg")).not_to_have_count(0)
    network = load_package(exported(page, tmp_path / "export"))
    assert network.model(torch.zeros(1, *network.preprocessing.input_shape)).shape == (1, 10)

    page.get_by_role("link", name="Train this network further").click()
    page.get_by_label("Epochs").fill("1")
    page.get_by_role("button", name="Train", exact=True).dblclick()
    page.wait_for_url("**/trainings/*")
    sync_api.expect(page.locator("#state")).to_contain_text("finished")
    made = page.evaluate("fetch('/api/v1/trainings').then(a => a.json())")
    assert made["count"] == 1  # of two clicks

    page.goto(f"{url}{study}")
    page.get_by_role("button", name="Stop", exact=True).click()
    sync_api.expect(page.locator("#state")).to_contain_text("stopped")

    page.goto(f"{url}/tokens")
    page.get_by_label("Name", exact=True).fill("laptop")
    page.get_by_role("button", name="Create").dblclick()
    bearer = {"Authorization": f"Bearer {page.locator('#secret').inner_text()}"}
    assert httpx.get(f"{url}/api/v1/studies", headers=bearer).status_code == 200
    page.get_by_role("button", name="Revoke laptop").click()
    sync_api.expect(page.get_by_text("revoked")).to_be_visible()
    wait_for(lambda: httpx.get(f"{url}/api/v1/studies", headers=bearer).status_code == 401)
    context.close()
    assert problems == []
