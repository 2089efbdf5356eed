"""The pages in a real browser: what they show, do and ask for, at two widths. Tests that only read come first."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from nas.definition.requested_training import parse_training
from nas.jobs import DesiredState, JobKind
from nas.plots.layers import Layer, mark_layers
from nas.study import StudyState
from nas.trial import TrialKind
from nas.worker.runner import run_job
from service.app import create_app
from service.settings import ServiceSettings
from tests.service.browsing import TIMEOUT, Tab, Visit, browser_marks, chromium, reader, sync_api, tab, unchanged, visit
from tests.service.conftest import TOKEN, place_in, serve, stripping_proxy
from tests.service.fixture_study import (
    FAILED,
    FINISHED,
    LAYERS,
    REPORT,
    RUNNING,
    definition,
    finish_export,
    parameters,
    run_trial,
)

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")

__all__ = ["chromium", "reader", "tab", "unchanged", "visit"]
pytestmark = browser_marks


def test_signing_in_cleans_the_address(reader: Visit) -> None:
    reader.page.context.clear_cookies()
    reader.open(f"/?link={reader.place.store.create_link()}")
    assert reader.page.url == f"{reader.url}/"
    assert reader.page.title().startswith("Studies")
    assert reader.page.evaluate("document.cookie") == ""  # no script reads it
    names = reader.page.locator("#list tbody th").all_inner_texts()
    assert names == [RUNNING, FINISHED]


def test_signing_in_by_the_form(reader: Visit) -> None:
    reader.page.context.clear_cookies()
    reader.refused = "status of 401"
    reader.page.goto(f"{reader.url}/studies/{FINISHED}")
    reader.page.get_by_label("Access token").fill(TOKEN)
    reader.page.keyboard.press("Enter")
    reader.page.wait_for_selector("#front .main-svg")
    assert reader.page.url == f"{reader.url}/studies/{FINISHED}"


def test_the_scatter_shows_front_and_baselines_and_opens_a_trial(reader: Visit) -> None:
    reader.open(f"/studies/{reader.study()}")
    assert reader.marks().count() == 14
    legend = reader.page.locator("#front .legendtext").all_text_contents()
    assert legend == ["front", "learned networks", "uniform ratio (baseline)"]
    reader.expect("#front .xtitle").to_have_text("FLOPs (multiply-adds)")
    reader.expect("#front .ytitle").to_have_text("top-1 (%)")
    assert reader.page.locator("#front .scatterlayer .trace path.js-line").count() == 1
    box = reader.marks().nth(3).bounding_box()
    reader.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    reader.expect("#front .hoverlayer .hovertext").to_contain_text("trial 3")
    reader.expect("#front .hoverlayer .hovertext").to_contain_text("multiply-adds")
    reader.page.mouse.down()
    reader.page.mouse.up()
    reader.page.wait_for_url(f"**/studies/{reader.study()}/trials/3")
    assert reader.page.get_by_role("heading", level=1).inner_text().startswith("Trial 3")


def test_a_cell_of_the_ratios_opens_its_trial(reader: Visit) -> None:
    reader.open(f"/studies/{reader.study()}")
    cells = reader.page.locator("#ratios .barlayer .point path")
    reader.page.locator("#ratios-of").select_option("all")
    sync_api.expect(cells).to_have_count(11 * len(LAYERS))  # the trials that did not fail
    cells.nth(0).scroll_into_view_if_needed()
    box = cells.nth(0).bounding_box()  # in the lowest row: the cheapest, with the largest target
    reader.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    reader.expect("#ratios .hoverlayer .hovertext").to_contain_text("b = 6 (trial 10)")
    reader.page.mouse.down()
    reader.page.mouse.up()
    reader.page.wait_for_url(f"**/studies/{reader.study()}/trials/10")


def test_what_is_opened_is_drawn_and_figures_are_saved(reader: Visit) -> None:
    reader.open(f"/studies/{reader.study()}")
    drawn_later = ("figures/hypervolume", "figures/parallel", "importance")
    assert not any(name in sent for sent in reader.requests for name in drawn_later)
    for name in ("Hypervolume", "Importance of parameters", "Parallel coordinates"):
        reader.page.get_by_role("heading", name=name).click()
    reader.expect("#importance").to_contain_text("need 20 complete search trials")
    growths = reader.place.store.growths(reader.study())
    reader.expect("#hypervolume .scatterlayer .trace path.point").to_have_count(len(growths))
    reader.expect("#parallel .scatterlayer .trace path.js-line >> nth=0").to_be_attached()
    for format_, start in (("png", b"\x89PNG"), ("svg", b"<svg"), ("csv", b"series,FLOPs (multiply-adds),top-1 (%)")):
        with reader.page.expect_download() as waiting:
            reader.page.get_by_label(f"{format_.upper()} file of the Pareto front").click()
        assert waiting.value.suggested_filename == f"{FINISHED}-pareto-front.{format_}"
        assert Path(waiting.value.path()).read_bytes().startswith(start)
    cells = ["=1", "+1", "-1+cmd", "@a", "\t=1", "a,b", "a\r", -1, None]
    quoted = reader.page.evaluate("async (cells) => cells.map((await import('/static/saving.js')).quoted)", cells)
    assert quoted == ["'=1", "'+1", "'-1+cmd", "'@a", "'\t=1", '"a,b"', '"a\r"', "-1", ""]
    texts = [
        "a &lt;b&gt; &amp;lt;", "<b>x</b><br>y", "&#x27;&#39;&quot;", "1 < 2", "&unknown;", "&constructor;",
        "<extra></extra>z", 3,
    ]  # fmt: skip
    shown = reader.page.evaluate("async (texts) => texts.map((await import('/static/saving.js')).shown)", texts)
    assert shown == ["a <b> &lt;", "x y", "''\"", "1 < 2", "&unknown;", "&constructor;", "z", 3]


def test_the_axes_are_chosen_and_stay_in_the_address(reader: Visit) -> None:
    reader.open(f"/studies/{reader.study()}")
    reader.page.get_by_label("Horizontal").select_option("latency_ms")
    reader.expect("#front .xtitle").to_have_text("latency (ms)")
    assert reader.marks().count() == 8
    reader.page.reload()
    reader.expect("#front .xtitle").to_have_text("latency (ms)")
    assert reader.page.get_by_label("Horizontal").input_value() == "latency_ms"


def test_choices_that_hold_nothing_are_not_offered(reader: Visit) -> None:
    """Neither a metric or evaluation kind without a score, nor the metric of the other axis, also after a change."""
    reader.open(f"/studies/{reader.study()}")
    axes = reader.page.locator("#axes")
    assert axes.locator("[name=evaluation] option").all_inner_texts() == ["inherited", "finetuned"]
    assert axes.locator("[name=x] option[value=predicted_ms], [name=x] option[value=loss]").count() == 0
    assert axes.locator("[name=x] option:disabled").get_attribute("value") == "top1"
    reader.page.get_by_label("Vertical").select_option("top5")
    reader.expect("#axes [name=x] option:disabled").to_have_attribute("value", "top5")
    assert reader.page.locator("#filter [name=state] option").all_inner_texts() == ["all", "complete", "failed"]


def test_the_table_sorts_by_keyboard_with_what_is_missing_last(reader: Visit) -> None:
    reader.open(f"/studies/{reader.study()}")
    orders = []
    for direction in ("ascending", "descending"):
        reader.page.get_by_role("button", name="latency (ms)").focus()
        reader.page.keyboard.press("Enter")
        reader.expect(f"#trials th[aria-sort={direction}]").to_contain_text("latency")
        assert reader.page.evaluate("document.activeElement.textContent") == "latency (ms)"
        texts = reader.page.locator("#trials tbody td:nth-child(8)").all_inner_texts()
        present = [float(text) for text in texts if text != "\u2013"]
        assert texts[len(present) :] == ["\u2013"] * (15 - len(present))
        orders.append(present)
    assert orders[0] == sorted(orders[0])
    assert orders[1] == orders[0][::-1]
    reader.page.reload()  # the address names the order
    reader.expect("#trials th[aria-sort=descending]").to_contain_text("latency")


def test_a_study_says_what_was_found(reader: Visit) -> None:
    reader.open(f"/studies/{reader.study()}")
    assert reader.page.locator(".report li:visible").all_inner_texts() == [REPORT[0]]
    reader.page.get_by_text("1 more finding").click()
    assert reader.page.locator(".report li:visible").all_inner_texts() == list(REPORT)
    assert "<b>at equal cost</b>" in reader.page.locator(".lead").inner_text()  # shown, not interpreted
    assert reader.page.get_by_role("button", name="Stop").count() == 0


def test_a_trial_shows_its_ratios_scores_and_training(reader: Visit) -> None:
    reader.open(f"/studies/{reader.study()}/trials/4")
    assert reader.page.locator("#splits .barlayer .point").count() == len(LAYERS)
    layers = reader.page.locator("#splits-part tbody th").all_inner_texts()
    assert layers == [layer[0] for layer in LAYERS]
    scores = reader.page.locator("#scores").inner_text()
    for expected in ("finetuned", "aten::gelu", "threads 1", "warmup 10", "torch 2.14.1"):
        assert expected in scores
    assert reader.page.locator("#history .main-svg").count() > 0
    assert reader.page.locator("#history .legendtext").count() >= 3
    assert reader.page.locator("#levels .barlayer .point").count() == len(LAYERS)  # each stays at one level
    reader.page.get_by_text("Log", exact=True).click()
    reader.expect("#log tbody tr:first-child").to_contain_text("trial")


def test_no_name_of_an_axis_lies_over_another_on_a_phone(reader: Visit) -> None:
    figure = go.Figure(go.Bar(x=[0, 13], y=[0, 29]))
    mark_layers(figure, [Layer(f"layer {place}", f"3.{place + 1}", 64, 2) for place in range(14)])
    figure.update_yaxes(tickvals=list(range(30)), ticktext=[f"b = 2 (trial {row})" for row in range(30)])
    reader.page.set_viewport_size({"width": 390, "height": 900})
    reader.open(f"/studies/{reader.study()}")
    shown = json.loads(figure.to_json())
    drawing = "async (shown) => (await import('/static/figure.js')).draw(document.getElementById('ratios'), shown)"
    reader.page.evaluate(drawing, shown)
    for axis, start, size in (("x", "x", "width"), ("y", "y", "height")):
        reader.expect(f"#ratios .{axis}tick text >> nth=9").to_be_visible()
        names = reader.page.locator(f"#ratios .{axis}tick text").all()
        boxes = sorted((name.bounding_box() for name in names), key=lambda box: box[start])
        gaps = [after[start] - before[start] - before[size] for before, after in itertools.pairwise(boxes)]
        assert min(gaps) > -3, (axis, gaps)  # a box has a little room above and below its letters


def test_the_keyboard_reaches_everything(reader: Visit) -> None:
    reader.open(f"/studies/{reader.study()}")
    reader.page.keyboard.press("Tab")
    assert reader.page.evaluate("document.activeElement.textContent") == "Skip to the content"
    reached = set()
    for _ in range(120):
        reader.page.keyboard.press("Tab")
        reached.add(reader.page.evaluate("document.activeElement.name || document.activeElement.textContent.trim()"))
    assert {"x", "y", "evaluation", "0", "14", "Definition"} <= reached


@pytest.mark.parametrize("stops", [True, False], ids=["stopped", "forgotten"])
def test_a_form_is_sent_once_until_the_browser_gives_up(visit: Visit, stops: bool) -> None:
    """After the Stop button a form can be sent again; a browser that does not tell of it allows so after a while."""
    page = visit.page.context.new_page()  # with a clock and scripts of its own
    if not stops:
        page.add_init_script("delete Window.prototype.navigation; delete window.navigation;")
    page.clock.install()
    page.goto(f"{visit.url}/tokens")
    assert page.evaluate("'navigation' in window") is stops
    sent, button = list[str](), page.get_by_role("button", name="Create")
    button.scroll_into_view_if_needed()
    box = button.bounding_box()
    create = partial(page.mouse.click, box["x"] + 5, box["y"] + 5)  # a locator waits for the answer
    page.route("**/tokens", lambda route: sent.append(route.request.method))  # no answer comes
    page.get_by_label("Name", exact=True).fill("alice")
    for _ in range(3):
        create()
    page.wait_for_timeout(200)
    assert sent == ["POST"]
    page.context.new_cdp_session(page).send("Page.stopLoading")
    page.unroute("**/tokens")
    if not stops:
        create()
        assert [token.name for token in visit.place.store.tokens()] == []
        page.clock.fast_forward(10_000)
    create()
    sync_api.expect(page.locator("#made-heading")).to_have_text("Token alice was created")
    page.close()


def test_trials_are_chosen_in_a_box_and_compared(visit: Visit) -> None:
    """Marks in a box are chosen, which a live update keeps; the bar leads to a comparison that its address names."""
    store, study = visit.place.store, visit.place.store.study(RUNNING)
    run_trial(store, study, store.trial(study.id, 3).spec)
    visit.open(f"/studies/{study.id}")
    visit.page.get_by_label("Colour").first.select_option("parameters.target")
    visit.expect("#front .legendtext >> nth=-1").to_have_text("3.2")
    visit.page.get_by_label("choose in a box").check()
    area = visit.page.locator("#front .nsewdrag").bounding_box()
    visit.page.mouse.move(area["x"] + 2, area["y"] + 2)
    visit.page.mouse.down()
    visit.page.mouse.move(area["x"] + area["width"] - 2, area["y"] + area["height"] - 2, steps=4)
    visit.page.mouse.up()
    visit.expect("#compare-status").to_have_text("3 trials chosen.")
    sync_api.expect(visit.page.locator("input.choose:checked")).to_have_count(3)
    run_trial(store, study, store.trial(study.id, 4).spec)
    sync_api.expect(visit.marks()).to_have_count(4)
    sync_api.expect(visit.page.locator("input.choose:checked")).to_have_count(3)
    visit.page.get_by_label("Choose trial 0 for a comparison").uncheck()
    visit.page.get_by_role("link", name="Compare 2 trials").click()
    visit.page.wait_for_url(f"**/compare?trial={study.id[:8]}%3A1&trial={study.id[:8]}%3A3")
    visit.expect(".plot[aria-busy]").to_have_count(0)
    assert visit.page.locator("#compare-splits .scatterlayer .trace").count() == 2
    assert visit.page.locator("tr.differs").count() > 0


def test_a_long_table_begins_with_a_page_and_grows_on_demand(visit: Visit) -> None:
    store = visit.place.store
    study, _ = store.submit_study(definition("long"), {"top1": 0.0})
    store.add_trials(study.id, [(TrialKind.SEARCH, {"target": 2.0 + 0.1 * number}) for number in range(130)])
    store.add_trials(study.id, [(TrialKind.BASELINE, {"ratio": 0.5})])
    visit.open(f"/studies/{study.id}")
    lines = visit.page.locator("#trials tbody tr")
    assert lines.count() == 50
    for direction in ("ascending", "descending"):
        visit.page.get_by_role("button", name="target").click()
        visit.expect(f"#trials th[aria-sort={direction}]").to_contain_text("target")
    assert visit.page.locator("#trials tbody th").first.inner_text() == "129"
    for count in (100, 131):
        visit.page.get_by_role("button", name="Show more").click()
        sync_api.expect(lines).to_have_count(count)
    visit.expect("#trials caption").to_contain_text("131 of 131 trials")
    assert visit.page.get_by_role("button", name="Show more").count() == 0
    store.start_trial(study.id, 0)  # the last but one of the order: what was added stays fresh as well
    visit.expect("#trials tbody tr:nth-child(130) .state").to_have_text("running")
    assert lines.count() == 131
    visit.page.get_by_label("Kind").select_option("baseline")
    sync_api.expect(lines).to_have_count(1)
    with visit.page.expect_download() as waiting:
        visit.page.get_by_role("link", name="Download these trials as CSV").click()
    assert len(Path(waiting.value.path()).read_text().splitlines()) == 2


def test_an_open_page_tells_that_it_lost_its_service_and_goes_on_by_itself(visit: Visit) -> None:
    store, context = visit.place.store, visit.page.context
    study = store.study(RUNNING)
    visit.open(f"/studies/{study.id}")
    visit.refused = "Failed to load resource"
    context.set_offline(True)
    visit.expect("#connection").to_contain_text("cannot be reached")
    context.set_offline(False)
    visit.expect("#connection").to_contain_text("is back")
    cookies = context.cookies()
    context.clear_cookies()
    visit.expect("#connection").to_contain_text("You are signed out")
    run_trial(store, study, store.trial(study.id, 3).spec)
    context.add_cookies(cookies)  # as another tab does that signs in
    visit.expect("#overview .progress").to_contain_text("3 of 15")
    sync_api.expect(visit.marks()).to_have_count(3)


def test_a_figure_that_could_not_be_drawn_says_so_and_is_drawn_at_the_next_chance(visit: Visit) -> None:
    visit.refused = "net::ERR_FAILED"
    visit.page.route("**/static/plotly-*", lambda route: route.abort())
    visit.open(f"/studies/{visit.study()}")
    visit.expect("#front-status").to_have_text("The figure cannot be drawn: plotly.js could not be loaded")
    visit.page.unroute("**/static/plotly-*")
    visit.page.locator("#trials button.sort").first.click()  # which does not change what is to be drawn
    visit.expect("#front .main-svg >> nth=0").to_be_visible()
    visit.expect("#front-status").to_have_text("")
    visit.marks().nth(3).scroll_into_view_if_needed()
    box = visit.marks().nth(3).bounding_box()
    visit.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    visit.expect("#front .hoverlayer .hovertext").to_contain_text("trial 3")
    visit.page.mouse.down()
    visit.page.mouse.up()
    visit.page.wait_for_url("**/trials/3")


def test_a_quiet_page_asks_for_nothing_that_it_has(visit: Visit) -> None:
    """While nothing happens in a study that runs, its page asks for its parts only, which are not sent again."""
    visit.open(f"/studies/{visit.study(RUNNING)}")
    parts = "**/parts?*"
    with visit.page.expect_response(parts):
        pass
    visit.requests.clear()
    with visit.page.expect_response(parts) as waiting:
        pass
    assert waiting.value.request.all_headers()["if-none-match"]
    assert [sent for sent in visit.requests if "/parts" not in sent] == []


def test_a_study_without_results_shows_no_empty_figures(visit: Visit) -> None:
    store = visit.place.store
    study, _ = store.submit_study(definition("hopeless"), {"top1": 0.0})
    store.set_study_state(study.id, StudyState.FAILED, reason="the data are missing")
    visit.open(f"/studies/{study.id}")
    assert visit.page.locator(".plot:visible").count() == 0
    assert "No network has a score." in visit.page.locator("#axes-part").inner_text()
    assert not any("/figures/" in sent for sent in visit.requests)


def test_a_running_study_stays_fresh_and_keeps_the_reader_s_order(visit: Visit) -> None:
    store = visit.place.store
    study = store.study(RUNNING)
    visit.open(f"/studies/{study.id}")
    assert visit.marks().count() == 2
    visit.page.get_by_role("button", name="Trial").click()
    sync_api.expect(visit.page.locator("#trials tbody th").first).to_have_text("11")
    run_trial(store, study, store.trial(study.id, 3).spec)
    sync_api.expect(visit.marks()).to_have_count(3)
    assert visit.page.locator("#trials tbody th").first.inner_text() == "11"  # still in descending order
    visit.expect("#overview .progress").to_contain_text("3 of 15")  # the plot may have been a round ahead
    visit.page.get_by_role("button", name="Pause").click()
    visit.expect("#state").to_contain_text("pausing")
    search = store.jobs(study.id)[0]
    assert search.desired is DesiredState.PAUSED
    store.finish_job(search.id, search.epoch, type(search.state).CANCELLED)
    visit.page.get_by_role("button", name="Resume").click()
    visit.expect("#state").to_contain_text("queued")
    assert store.study(study.id).state is StudyState.QUEUED


def test_form_and_text_of_a_new_study_follow_each_other(visit: Visit) -> None:
    visit.open("/")
    visit.page.get_by_role("link", name="New study").first.click()
    text, epochs = visit.page.get_by_label("Definition (YAML)"), visit.page.get_by_label("Epochs", exact=True)
    sync_api.expect(epochs).to_have_value("8")
    before = text.input_value()
    epochs.fill("12")
    sync_api.expect(text).to_have_value(before.replace("epochs: 8       #", "epochs: 12       #"))
    visit.page.get_by_role("group", name="Target").get_by_label("to").fill("6")
    sync_api.expect(text).to_have_value(re.compile(r"target: \{log_uniform: \[1.6, 6\]\} +# the paper's b"))
    visit.page.get_by_label("Early stopping").select_option("mo_asha")
    sync_api.expect(text).to_have_value(re.compile("early_stopping: {method: mo_asha}"))
    visit.page.get_by_label("Method").select_option("fractional")
    sync_api.expect(visit.page.get_by_role("group", name="Complexity exponent")).to_be_hidden()
    visit.expect("#faults").to_contain_text("complexity_exponent")
    text.fill("name: x\ndata: {name: mnist}\ntraining:\n  epochs: 0\nsweeep: {trials: 3}\n")
    visit.expect("#faults li").to_have_count(3)
    visit.expect("#field-training-epochs-fault").to_contain_text("must be greater than or equal to 1")
    visit.expect("#field-data-name-fault").to_contain_text("unknown data set 'mnist'")
    assert visit.page.locator("#lines .faulty").all_text_contents() == ["2\n", "4\n", "5\n"]
    visit.page.get_by_role("button", name="line 4").click()
    assert text.evaluate("e => e.value.slice(e.selectionStart, e.selectionEnd)") == "  epochs: 0"
    visit.refused = "status of 422"
    visit.page.get_by_role("button", name="Launch").click()
    visit.expect("#launch-errors").to_contain_text("sweeep: unknown key")
    text.fill("name: [")
    visit.expect("#faults").to_contain_text("not valid YAML")
    assert visit.page.evaluate("document.getElementById('form-fields').disabled")


def test_a_first_study_from_the_empty_list_to_a_trial(tab: Tab, tmp_path: Path) -> None:
    """The empty list, the quickstart from the form, its front as it grows, a trial."""
    with place_in(tmp_path) as place, tab.visit(place) as visit:
        visit.open("/")
        visit.page.get_by_role("link", name="Begin with the quickstart").click()
        visit.page.get_by_label("Name", exact=True).fill("my-first")
        visit.expect("#check-status").to_contain_text("The definition is valid")
        visit.expect("#estimate-facts").to_contain_text("22 (10 search + 3 baselines + 9 final)")
        visit.page.get_by_role("button", name="Launch").click()
        visit.page.wait_for_url("**/studies/*")
        assert visit.page.get_by_role("heading", level=1).inner_text() == "my-first"
        assert "until a worker is free" in visit.page.locator("#trials").inner_text()
        store = place.store
        study = store.study("my-first")
        assert study.state is StudyState.QUEUED
        assert study.definition.training.epochs == 8
        specs = store.add_trials(study.id, [(TrialKind.SEARCH, parameters(index)) for index in range(3)])
        assert store.lease_job("fixture", seconds=600) is not None
        store.set_study_state(study.id, StudyState.RUNNING)
        for count, spec in enumerate(specs[:2], start=1):
            run_trial(store, study, spec)
            sync_api.expect(visit.marks()).to_have_count(count)
        visit.page.get_by_role("link", name="Trial 1").click()
        visit.expect("#splits .main-svg").not_to_have_count(0)


def test_a_study_is_kept(visit: Visit) -> None:
    """Named, tagged, archived, cloned, extended and deleted from its page."""
    store, study = visit.place.store, visit.study()
    visit.open(f"/studies/{study}")
    visit.page.get_by_text("Manage this study").click()
    visit.page.get_by_label("Name", exact=True).fill("renamed")
    visit.page.get_by_label("Tags").fill("paper, two")
    visit.page.get_by_label("Note").fill("Worth <b>a look</b>.")
    visit.page.get_by_role("button", name="Save").click()
    visit.expect("#overview").to_contain_text("Worth <b>a look</b>.")
    assert visit.page.get_by_role("heading", level=1).inner_text() == "renamed"
    assert (store.study(study).name, store.study(study).tags) == ("renamed", ("paper", "two"))
    visit.page.get_by_role("button", name="Archive").click()
    visit.expect("#archive").to_have_text("Take out of the archive")
    visit.page.get_by_label("Add search trials").fill("3")
    visit.page.get_by_role("button", name="Extend").click()
    visit.expect("#state").to_contain_text("queued")
    visit.expect("#delete-waits").to_be_visible()  # its search waits
    visit.page.get_by_label("Delete for good").fill("renamed")
    assert visit.page.get_by_role("button", name="Delete").is_disabled()
    visit.page.get_by_role("button", name="Stop").click()
    sync_api.expect(visit.page.get_by_role("button", name="Delete")).to_be_enabled()
    visit.refused = "status of 404"  # of a refresh that comes too late
    visit.page.get_by_role("button", name="Delete").click()
    visit.page.wait_for_url(f"{visit.url}/")
    assert [row.study.name for row in store.studies()] == [RUNNING]
    visit.page.goto(f"{visit.url}/studies/{RUNNING}")
    visit.page.get_by_role("link", name="Clone").click()
    sync_api.expect(visit.page.get_by_label("Name", exact=True)).to_have_value(RUNNING)


def test_an_export_is_queued_awaited_and_downloaded(visit: Visit, tmp_path: Path) -> None:
    visit.open(f"/studies/{visit.study()}/trials/4")
    visit.page.get_by_role("button", name="Export this network").click()
    visit.expect("#export-status").to_contain_text("Waiting")
    with visit.page.expect_download() as waiting:
        content = finish_export(visit.place.store, visit.place.artifacts, tmp_path)
    assert waiting.value.suggested_filename == f"{FINISHED}-trial-4.zip"
    assert Path(waiting.value.path()).read_bytes() == content
    visit.page.reload()
    assert visit.page.get_by_role("link", name="Download the zip").is_visible()


def test_a_network_is_trained_for_an_epoch_from_its_page(visit: Visit) -> None:
    visit.open(f"/studies/{visit.study()}/trials/4")
    visit.page.get_by_role("link", name="Train this network further").click()
    visit.expect("#train").to_contain_text(f"trial 4 of {FINISHED}")
    visit.page.get_by_label("Data set").select_option("digits")
    visit.page.get_by_text("Size and number of images").click()
    visit.page.get_by_label("Training images").fill("60")
    visit.page.get_by_label("Epochs").fill("1")
    visit.page.get_by_label("Batch size").fill("0")
    visit.page.evaluate("document.getElementById('train').noValidate = true")
    visit.refused = "status of 422"
    visit.page.get_by_role("button", name="Train", exact=True).click()
    visit.expect("#train-errors").to_contain_text("settings.batch_size: must be greater than or equal to 2")
    visit.page.get_by_label("Batch size").fill("30")
    visit.page.get_by_role("button", name="Train", exact=True).click()
    visit.page.wait_for_url("**/trainings/*")
    store = visit.place.store
    job = store.lease_job("here", kinds=[JobKind.TRAIN], seconds=600)
    assert job is not None
    assert run_job(store, visit.place.settings, job.id, job.epoch) == 0
    visit.expect("#state").to_contain_text("finished")
    visit.expect("#history .scatterlayer .trace").to_have_count(2)
    with visit.page.expect_download() as waiting:
        visit.page.get_by_role("link", name="Download the package").click()
    with zipfile.ZipFile(waiting.value.path()) as archive:
        assert any(name.endswith("/model.safetensors") for name in archive.namelist())
    assert store.trial(visit.study(), 4).candidates[0].trainings[0].recipe is not None


def serious(visit: Visit, **options: Any) -> list[tuple[str, Any]]:
    """Return what axe finds that hinders somebody: the rule, and the place."""
    found = axe.Axe().run(visit.page, options={"resultTypes": ["violations"], **options}).response["violations"]
    rules = [rule for rule in found if rule["impact"] in ("serious", "critical")]
    return [(rule["id"], node["target"]) for rule in rules for node in rule["nodes"]]


def test_every_page_fits_its_width_and_axe_finds_nothing_serious(visit: Visit) -> None:
    """All rules of axe in the light theme; in the dark one, contrast alone can differ."""
    place = visit.place
    place.store.submit_study(definition("a" * 64), {"top1": 0.0})
    study = visit.study()
    training = place.store.submit_training(parse_training({"study": FINISHED, "trial": 4}))
    further = ["/trainings", f"/trainings/{training.id}", "/architectures",
               f"/architectures/{training.source.architecture_id}"]  # fmt: skip
    paths = ["/", f"/studies/{study}", f"/studies/{RUNNING}", f"/studies/{'a' * 64}", f"/studies/{study}/trials/4",
             f"/studies/{study}/trials/{FAILED}", f"/compare?trial={study}:3&trial={RUNNING}:1", "/new", "/help",
             "/help/api", "/queue", "/tokens", *further]  # fmt: skip
    dark = [paths[1], further[1], "/tokens"]
    ruled, contrasted = ["/", "/new", "/help", "/queue", "/tokens", paths[1]], ["/", "/new", "/help/api"]
    for path in paths:  # each is loaded once, on a phone, and then widened
        visit.page.set_viewport_size({"width": 390, "height": 900})
        visit.open(path)
        assert visit.page.get_by_role("heading", level=1).count() == 1
        for scheme, width in (("light", 390), *([("dark", 390)] if path in dark else []), ("light", 1280)):
            visit.page.emulate_media(color_scheme=scheme)
            visit.page.set_viewport_size({"width": width, "height": 900})
            wide = visit.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, (path, scheme, width)
        visit.page.evaluate("[...document.querySelectorAll('details')].slice(0, 3).forEach(e => (e.open = true))")
        if path in ruled:
            assert serious(visit) == [], path
        if path in contrasted:
            visit.page.emulate_media(color_scheme="dark")
            assert serious(visit, runOnly=["color-contrast"]) == [], path
            visit.page.emulate_media(color_scheme="light")


def test_behind_a_proxy_that_takes_the_sub_path_off_and_renames_the_host(
    chromium: Any, tmp_path: Path, filled: Path
) -> None:
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    targets: list[str] = []
    with place_in(tmp_path) as place, serve(stripping_proxy("/team/nas", targets)) as shown:
        app = create_app(place.settings, ServiceSettings(worker=False, root_path="/team/nas", origins=shown))
        with serve(app) as behind:
            targets.append(behind)
            page = chromium.new_context().new_page()
            page.set_default_timeout(TIMEOUT)
            problems: list[str] = []
            page.on("console", lambda message: message.type == "error" and problems.append(message.text))
            page.goto(f"{shown}/team/nas/?link={place.store.create_link()}")
            assert page.url == f"{shown}/team/nas/"
            page.get_by_role("link", name=RUNNING).click()
            page.wait_for_selector("#front .main-svg")
            page.get_by_role("button", name="Stop").click()
            sync_api.expect(page.locator("#state")).to_contain_text("stopping")
            page.get_by_role("link", name="Trial 0").click()
            page.wait_for_selector("#splits .main-svg")
            assert page.url.startswith(f"{shown}/team/nas/studies/")
            assert problems == []
            page.context.close()
        assert place.store.jobs(place.store.study(RUNNING).id)[0].desired is DesiredState.STOPPED
