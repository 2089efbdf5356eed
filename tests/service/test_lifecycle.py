"""Routes and pages offer and do what the table of state and action allows, for every pair."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from nas.lifecycle import Action, allows
from nas.study import StudyState
from tests.service.conftest import Place
from tests.service.fixture_study import definition
from tests.service.test_api import sign_in

ROUTES = [(state, action) for state in StudyState for action in (Action.PAUSE, Action.STOP, Action.RESUME)]


@pytest.mark.parametrize(("state", "action"), ROUTES)
def test_a_button_is_there_if_the_route_would_do_it(
    api: TestClient, place: Place, state: StudyState, action: Action
) -> None:
    study, job = place.store.submit_study(definition("any"), {"top1": 0.0})
    if state is StudyState.INTERRUPTED:  # it is never stored, but follows from a lease
        place.store.set_study_state(study.id, StudyState.RUNNING)
        assert place.store.lease_job("dead", seconds=-1) is not None
    else:
        if not allows(state, Action.PAUSE):
            place.store.pause(study.id)  # no search is under way
        place.store.set_study_state(study.id, state)
    sign_in(api)
    page = api.get(f"/studies/{study.id}").text
    assert (f'data-action="{action.value}"' in page) is allows(state, action)
    response = api.post(f"/api/v1/studies/{study.id}/{action.value}")
    if allows(state, action):
        assert response.status_code == 202, response.text
    else:
        assert response.status_code == 409
        assert response.json()["error"] == "ConflictError"
        assert f"study any is {state.value}" in response.json()["detail"]
        assert place.store.study(study.id).state is state
    assert len(place.store.jobs(study.id)) == 1 + (action is Action.RESUME and allows(state, action))
    assert job.id in [known.id for known in place.store.jobs(study.id)]
