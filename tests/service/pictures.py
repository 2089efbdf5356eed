"""Take the README's screenshots: ``python -m tests.service.pictures STUDY NUMBER FOLDER`` where a ``nas.db`` is.

Starts the real service without a worker, opens the pages of a new study, of a study and of one of its trials in
Chromium, and saves ``new_study_page.png``, ``study_page.png`` and ``trial_page.png``.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from nas.plots.save import find_browser


def served() -> tuple[subprocess.Popen[str], str]:
    """Start ``nas serve`` and return it with the address that it prints."""
    command = [str(Path(sys.executable).parent / "nas"), "serve", "--no-worker"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://\S+link=\S+", line):
            return process, found[0]
    raise RuntimeError("nas serve ended without printing an address")


def main(study: str, number: str, folder: str) -> None:
    """Save the pictures in ``folder``."""
    process, address = served()
    base = address.split("?", maxsplit=1)[0].rstrip("/")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 1500})
            page.goto(address)
            page.goto(f"{base}/new")
            page.wait_for_selector("#estimate:not([hidden])")
            expect(page.get_by_text("being checked")).to_have_count(0, timeout=60_000)
            top = {"x": 0, "y": 0, "width": 1280, "height": 1200}
            page.screenshot(path=Path(folder) / "new_study_page.png", clip=top)
            for path, name in ((study, "study_page"), (f"{study}/trials/{number}", "trial_page")):
                page.goto(f"{base}/studies/{path}")
                page.wait_for_selector(".main-svg")
                expect(page.locator(".plot[aria-busy]")).to_have_count(0, timeout=60_000)
                time.sleep(1)  # the last transition
                page.screenshot(path=Path(folder) / f"{name}.png")
            browser.close()
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    main(*sys.argv[1:])
