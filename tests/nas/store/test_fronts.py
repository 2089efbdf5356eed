"""Fronts, pages and hypervolumes: what is read from the columns of scores equals what whole trials say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from nas.candidate import Candidate
from nas.errors import InputError, NotFoundError
from nas.finalist import Finalist, Role
from nas.findings.growth import Growths
from nas.findings.pareto import hypervolume, pareto_points
from nas.findings.scores import default_kind
from nas.metrics import Evaluation, EvaluationKind, Measurement
from nas.store import PageQuery, Store
from nas.store.tables import HypervolumeTable
from nas.study import Study
from nas.trial import Trial, TrialKind, TrialState
from nas.wire.builders import trial_detail_from, trial_from
from partialnet.architecture import Architecture
from tests.nas.store.makers import candidate, complete, definition, networks, study, supernet
from tests.samples import examples

OBJECTIVES = ("top1", "macs", "params")
REFERENCE = {"top1": 0.0, "macs": 9.0, "params": 9.0}
WITHOUT_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)  # each step of it writes a study
SAMPLED = [HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]

# Small whole numbers make ties and equal networks frequent.
small = st.integers(0, 4).map(float)
evaluations = st.lists(
    st.builds(
        Evaluation,
        st.sampled_from([EvaluationKind.INHERITED, EvaluationKind.FINETUNED]),
        st.sampled_from(["top1", "loss"]),
        small.map(lambda value: value / 4),
        data_split=st.sampled_from(["validation", "validation", "test"]),
    ),
    max_size=4,
).map(tuple)
measurements = st.lists(
    st.builds(
        Measurement,
        st.sampled_from(["macs", "params", "latency_ms"]),
        small,
        st.just({}),
        st.sampled_from(["fvcore", "fvcore", "other"]),
    ),
    max_size=5,
).map(tuple)
trials = st.lists(
    st.tuples(
        st.sampled_from([TrialKind.SEARCH, TrialKind.SEARCH, TrialKind.BASELINE, TrialKind.RANDOM]),
        st.lists(st.tuples(st.integers(0, 6), evaluations, measurements), max_size=2),
    ),
    max_size=6,
)


def run(store: Store, made: Study, found) -> None:
    """Run trials to their ends; networks of one study share architectures, hence measurements."""
    for kind, candidates in found:
        sampled = {"ratio": 0.25} if kind is TrialKind.BASELINE else {"target": 4.0}
        [spec] = store.add_trials(made.id, [(kind, sampled)])
        store.start_trial(made.id, spec.number)
        settled = [
            Candidate(Architecture(f"net_{made.id}", {"width": width}, {}), (), scores, measured)
            for width, scores, measured in candidates
        ]
        state = TrialState.COMPLETE if settled else TrialState.FAILED
        store.end_trial(made.id, spec.number, state, candidates=settled)


def fresh(store: Store) -> Study:
    return store.create_study(definition(objectives=list(OBJECTIVES)), reference_point=REFERENCE)


@settings(max_examples=examples(20), suppress_health_check=SAMPLED, phases=WITHOUT_SHRINKING)
@given(trials, st.sampled_from([(), ("top1", "macs"), ("loss", "latency_ms"), ("params",)]),
       st.none() | st.sampled_from([EvaluationKind.INHERITED, EvaluationKind.FINETUNED, EvaluationKind.RETRAINED]))
def test_the_front_of_columns_is_that_of_whole_trials(store: Store, found, objectives, evaluation) -> None:
    made = fresh(store)
    run(store, made, found)
    whole = store.trials(made.id)
    kind = evaluation or default_kind(whole)
    points = pareto_points(whole, objectives or OBJECTIVES, kind)
    front = store.front(made.id, objectives, evaluation, dominated=tuple(TrialKind))
    assert list(front.points) == points
    assert (front.evaluation, front.scored) == (kind, len(points))
    assert front.parameters == {p.number: whole[p.number].spec.stored_parameters for p in points}
    assert front.several == {p.number for p in points if len(whole[p.number].candidates) > 1}
    alone = store.front(made.id, objectives, evaluation)
    assert list(alone.points) == [point for point in points if point.on_front]
    assert alone.hypervolume == front.hypervolume
    beside = store.front(made.id, objectives, evaluation, dominated=[TrialKind.BASELINE])
    assert list(beside.points) == [p for p in points if p.on_front or p.kind is TrialKind.BASELINE]


@settings(max_examples=examples(20), suppress_health_check=SAMPLED, phases=WITHOUT_SHRINKING)
@given(trials, st.lists(st.sampled_from(["macs <= 2", "params >= 1", "top1 >= 25 %", "latency_ms <= 1"]), unique=True))
def test_networks_that_break_a_constraint_are_on_no_front(store: Store, found, limits) -> None:
    made = store.create_study(definition(objectives=list(OBJECTIVES), constraints=limits), reference_point=REFERENCE)
    run(store, made, found)
    whole, kind = store.trials(made.id), EvaluationKind.FINETUNED
    points = pareto_points(whole, OBJECTIVES, kind, made.definition.constraints)
    within = [replace(point, on_front=False) for point in points if not point.broken]
    assert all(not point.on_front for point in points if point.broken)
    kept = {(point.number, point.position) for point in within}
    again = pareto_points(
        [replace(t, candidates=tuple(c for k, c in enumerate(t.candidates) if (t.number, k) in kept)) for t in whole],
        OBJECTIVES,
        kind,
    )
    assert sum(point.on_front for point in again) == sum(point.on_front for point in points)
    front = store.front(made.id, evaluation=kind, dominated=tuple(TrialKind))
    assert list(front.points) == points
    assert sum(front.broken.values()) == sum(len(point.broken) for point in points)
    assert front.hypervolume is None or front.hypervolume == pytest.approx(hypervolume(points, OBJECTIVES, REFERENCE))
    growths = store.growths(made.id)
    assert (growths[-1].value if growths else 0.0) == pytest.approx(front.hypervolume or 0.0)
    all_of_them = store.front(made.id, evaluation=kind, dominated=tuple(TrialKind), infeasible=True)
    assert list(all_of_them.points) == pareto_points(whole, OBJECTIVES, kind)


def test_a_constraint_on_a_later_measurement_takes_a_network_off_the_front(store: Store) -> None:
    made = study(store, objectives=["top1", "macs"], constraints=["latency <= 20 ms"])
    complete(store, made.id)
    assert len(store.front(made.id).points) == len(store.growths(made.id)) == 1
    name = store.trial(made.id, 0).candidates[0].architecture.id
    store.add_measurements(name, [Measurement("latency_ms", 25.0, {}, "here")])
    front = store.front(made.id)
    assert (front.points, front.broken, front.scored) == ((), {"latency_ms <= 20.0": 1}, 1)
    assert store.growths(made.id) == []


@settings(max_examples=examples(20), suppress_health_check=SAMPLED, phases=WITHOUT_SHRINKING)
@given(trials)
def test_the_last_growth_is_the_hypervolume_of_the_front_and_older_studies_get_the_same(store: Store, found) -> None:
    made = fresh(store)
    run(store, made, found)
    growths = store.growths(made.id)
    front = store.front(made.id, evaluation=EvaluationKind.FINETUNED)
    assert (growths[-1].value if growths else 0.0) == pytest.approx(front.hypervolume or 0.0)
    assert [growth.value for growth in growths] == sorted({growth.value for growth in growths})
    whole = store.trials(made.id)
    for growth in growths:
        before = [trial for trial in whole if trial.number <= growth.number]
        points = pareto_points(before, OBJECTIVES, EvaluationKind.FINETUNED)
        assert growth.trials == sum(trial.state is TrialState.COMPLETE for trial in before)
        assert growth.at == whole[growth.number].ended_at
        if len({m.fingerprint for t in whole for c in t.candidates for m in c.measurements}) < 2:
            assert growth.value == pytest.approx(hypervolume(points, OBJECTIVES, REFERENCE))
    with store._database.write() as session:  # as a migrated database has it
        session.execute(delete(HypervolumeTable))
    assert [(g.number, g.trials) for g in store.growths(made.id)] == [(g.number, g.trials) for g in growths]


@settings(max_examples=examples(100))
@given(st.lists(st.tuples(small, small, small), max_size=12), st.integers(0, 5))
def test_growth_point_by_point_is_the_volume_of_all(rows, first) -> None:
    known = Growths(OBJECTIVES, {"top1": 0.0, "macs": 3.0, "params": 3.0}, rows[:first])
    known.value = all_at_once(rows[:first])
    for end, row in enumerate(rows[first:], start=first + 1):
        before = known.value
        assert known.add([row]) == (known.value > before)
        assert known.value == pytest.approx(all_at_once(rows[:end]))


def all_at_once(rows) -> float:
    """The volume by counting unit cells."""
    cells = [(a, m, p) for a in range(5) for m in range(3) for p in range(3)]
    return float(sum(any(r[0] > a and r[1] <= m and r[2] <= p for r in rows) for a, m, p in cells))


def test_what_changes_an_objective_later_changes_the_growths(store: Store) -> None:
    made = study(store, objectives=["top1", "macs"])
    complete(store, made.id)
    [growth] = store.growths(made.id)
    store.set_reference_point(made.id, {"top1": 0.0, "macs": 2e6})
    [doubled] = store.growths(made.id)
    assert doubled.value > 1.9 * growth.value
    name = store.trial(made.id, 0).candidates[0].architecture.id
    store.add_evaluations(made.id, 0, name, [Evaluation(EvaluationKind.FINETUNED, "top1", 0.45)])
    assert store.growths(made.id)[0].value == pytest.approx(doubled.value / 2)
    store.set_reference_point(made.id, {"top1": 0.0})
    assert store.growths(made.id) == []
    with pytest.raises(NotFoundError):
        store.growths("nothing")


def test_a_trial_that_counts_a_network_anew_changes_the_growths_of_other_studies(store: Store) -> None:
    first, second = study(store, "a", objectives=["top1", "macs"]), study(store, "b", objectives=["top1", "macs"])
    complete(store, first.id)
    [before] = store.growths(first.id)
    store.add_trials(second.id, [(TrialKind.SEARCH, {})])
    store.start_trial(second.id, 0)
    recounted = candidate(3, measurements=(Measurement("macs", 5e5, {}, "fvcore"),))
    store.end_trial(second.id, 0, TrialState.COMPLETE, candidates=[recounted])
    [after] = store.growths(first.id)
    assert after.value == pytest.approx(store.front(first.id).hypervolume) != before.value
    complete(store, first.id, active=4)
    assert store.growths(first.id)[-1].value == pytest.approx(store.front(first.id).hypervolume)


def test_a_measurement_reaches_all_studies_with_the_network(store: Store) -> None:
    first, second = study(store, "a"), study(store, "b")
    for made in (first, second):
        complete(store, made.id)
    name = store.trial(first.id, 0).candidates[0].architecture.id
    store.add_measurements(name, [Measurement("latency_ms", 2.5, {}, "here")])
    third = study(store, "c")
    complete(store, third.id)  # settles on a network that was measured before
    for made in (first, second, third):
        [row] = store.trial_rows(made.id).rows
        assert row.networks[0].values == {"top1": 0.9, "macs": 1234.0, "latency_ms": 2.5}


def test_the_front_of_retrained_networks_has_the_means_of_the_partners(store: Store) -> None:
    made = study(store)
    complete(store, made.id)
    name = store.trial(made.id, 0).candidates[0].architecture.id
    store.add_evaluations(made.id, 0, name, [Evaluation(EvaluationKind.RETRAINED, "top1", 0.75)])
    finalist = Finalist(Role.UNIFORM, 0, None, 1250.5, (3, 4), ratio=0.125)
    for spec in store.add_finalists(made.id, [replace(finalist, seed_index=index) for index in (0, 1)]):
        store.start_trial(made.id, spec.number)
        score = Evaluation(EvaluationKind.RETRAINED, "top1", 0.5 + spec.number / 10)
        cost = Measurement("macs", 1250.0, {}, "fvcore")
        settled = Candidate(Architecture("net", {}, {"a": 3}), (), (score,), (cost,))
        store.end_trial(made.id, spec.number, TrialState.COMPLETE, candidates=[settled])
    objectives = ("top1", "macs")
    points = pareto_points(store.trials(made.id), objectives, EvaluationKind.RETRAINED)
    front = store.front(made.id, objectives, EvaluationKind.RETRAINED, dominated=tuple(TrialKind))
    assert [(p.number, p.values["top1"]) for p in points] == [(0, 0.75), (1, pytest.approx(0.65))]
    assert list(front.points) == points
    assert store.front(made.id, objectives, EvaluationKind.FINETUNED).scored == 1


class TestPages:
    @settings(max_examples=examples(15), suppress_health_check=SAMPLED, phases=WITHOUT_SHRINKING)
    @given(trials, st.integers(1, 4), st.sampled_from([None, "top1", "macs", "latency_ms"]), st.booleans())
    def test_the_pages_together_are_the_whole_list(self, store: Store, found, limit, sort, descending) -> None:
        made = fresh(store)
        run(store, made, found)
        query = PageQuery(limit=limit, sort=sort, descending=descending)
        lines, after = [], None
        while True:
            page = store.trial_page(made.id, replace(query, after=after))
            assert 0 < len(page.rows) <= limit or not found
            lines += page.rows
            after = page.after
            if after is None:
                break
        rows = {row.spec.number: row for row in store.trial_rows(made.id).rows}
        assert {row.spec.number for row in lines} == set(rows)
        if sort is None:
            assert lines == sorted(rows.values(), key=lambda row: row.spec.number, reverse=descending)
            return
        evaluation = store.trial_page(made.id, query).evaluation
        points = store.front(made.id, (sort,), evaluation, dominated=tuple(TrialKind)).points
        ordered = sorted(((p.values[sort], p.number, p.position) for p in points), reverse=descending)
        scored = lines[: len(ordered)]
        assert [(row.networks[0].values[sort], row.spec.number, row.networks[0].position) for row in scored] == ordered
        rest = [row.spec.number for row in lines[len(ordered) :]]
        assert rest == sorted(set(rows) - {point.number for point in points})

    def test_filters(self, store: Store) -> None:
        made = study(store)
        complete(store, made.id)
        store.add_trials(made.id, [(TrialKind.BASELINE, {"ratio": 0.5}), (TrialKind.SEARCH, {})])
        store.end_trial(made.id, 1, TrialState.FAILED, reason="it diverged")
        pages = {
            query: [row.spec.number for row in store.trial_page(made.id, query).rows]
            for query in (
                PageQuery(states=(TrialState.FAILED,)),
                PageQuery(states=(TrialState.QUEUED, TrialState.COMPLETE)),
                PageQuery(kinds=(TrialKind.SEARCH,)),
                PageQuery(kinds=(TrialKind.SEARCH,), sort="top1", states=(TrialState.COMPLETE,)),
                PageQuery(sort="top1", descending=True),
            )
        }
        assert list(pages.values()) == [[1], [0, 2], [0, 2], [0], [0, 1, 2]]
        [failed] = store.trial_page(made.id, PageQuery(states=(TrialState.FAILED,))).rows
        assert (failed.reason, failed.count, failed.within_budget, failed.spec.label) == (
            "it diverged", 0, None, "uniform 1/2",
        )  # fmt: skip

    def test_in_the_order_of_a_metric_a_line_is_a_network(self, store: Store) -> None:
        made = supernet(store, count=3)
        page = store.trial_page(made.id, PageQuery(limit=2, sort="macs", descending=True))
        assert [(row.spec.number, row.count, row.networks[0].position) for row in page.rows] == [(0, 3, 2), (0, 3, 1)]
        assert page.rows[0].networks[0].values["macs"] == networks()[2].measurements[0].value

    def test_a_mark_belongs_to_its_order(self, store: Store) -> None:
        made = study(store)
        for active in (3, 4, 5):
            complete(store, made.id, active)
        mark = store.trial_page(made.id, PageQuery(limit=1, sort="top1")).after
        assert mark is not None
        with pytest.raises(InputError, match="the mark belongs to a list by top1"):
            store.trial_page(made.id, PageQuery(after=mark))
        with pytest.raises(InputError, match="the mark belongs to a list by top1"):
            store.trial_page(made.id, PageQuery(after=mark, sort="top1", descending=True))

    @pytest.mark.parametrize(
        "mark", ["", "?", "AAAA", "W10", "e30", "bnVsbA", "x" * 200, "W251bGwsZmFsc2UsbnVsbCwxZTk5LDBd"]
    )
    def test_a_damaged_mark_is_refused(self, store: Store, mark: str) -> None:
        made = study(store)
        with pytest.raises(InputError, match="is not the mark of a page"):
            store.trial_page(made.id, PageQuery(after=mark))

    @given(st.text(max_size=60))
    @settings(max_examples=examples(50), suppress_health_check=SAMPLED)
    def test_no_text_as_a_mark_breaks_a_page(self, store: Store, mark: str) -> None:
        made = study(store)
        with pytest.raises(InputError):
            store.trial_page(made.id, PageQuery(after=mark))

    @pytest.mark.parametrize("facts", [{"limit": 0}, {"limit": 1001}, {"sort": "flops"}])
    def test_bad_queries_are_refused(self, facts) -> None:
        with pytest.raises(InputError, match=r"1 to 1000 lines, but limit is|unknown metric 'flops'"):
            PageQuery(**facts)

    def test_a_running_trial_of_an_interrupted_study_reads_so(self, store: Store) -> None:
        made = study(store)
        job = store.hold_search(made.id, "here", seconds=60.0)
        store.add_trials(made.id, [(TrialKind.SEARCH, {})])
        store.start_trial(made.id, 0)
        assert store.trial_rows(made.id).rows[0].state is TrialState.RUNNING
        store.heartbeat(job.id, job.epoch, -1.0)
        assert [row.state for row in store.trial_rows(made.id).rows] == [t.state for t in store.trials(made.id)]


def test_times_are_utc(store: Store) -> None:
    made = study(store)
    complete(store, made.id)
    assert store.growths(made.id)[0].at.tzinfo is UTC
    assert store.growths(made.id)[0].at <= datetime.now(UTC)
    found: Trial = store.trial(made.id, 0)
    assert store.growths(made.id)[0].at == found.ended_at


def test_a_trial_has_the_same_scores_alone_as_in_the_list(store: Store) -> None:
    """The newest latency of its network, of other circumstances than the study's usual ones, is not among them."""
    made = study(store)
    for active in (3, 4, 5):
        complete(store, made.id, active)
        [network] = store.trial(made.id, active - 3).candidates
        store.add_measurements(network.architecture.id, [Measurement("latency_ms", float(active), {}, "here")])
    elsewhere = store.trial(made.id, 0).candidates[0].architecture.id
    store.add_measurements(elsewhere, [Measurement("latency_ms", 99.0, {}, "elsewhere")])
    where = store.usual_fingerprints(made.id)
    rows = store.trial_rows(made.id).rows
    alone = [trial_detail_from(store.trial(made.id, row.spec.number), where).scores for row in rows]
    assert [scores["latency_ms"] for scores in alone] == [3.0, 4.0, 5.0]
    assert alone == [trial_from(row).scores for row in rows]
