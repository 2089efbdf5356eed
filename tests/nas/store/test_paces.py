"""What lists and plans read besides studies: one contract, run over every database."""

from __future__ import annotations

from nas.findings.pace import differing, estimate
from nas.store import Store
from tests.nas.store.makers import complete, definition, study


def test_growths_of_several_studies_come_at_once(store: Store) -> None:
    first, second = study(store, "first"), study(store, "second")
    for top1 in (0.5, 0.4, 0.9):
        complete(store, first.id, top1=top1)
    found = store.recorded_growths([first.id, second.id])
    assert found[first.id] == store.growths(first.id)
    assert [growth.number for growth in found[first.id]] == [0, 2]
    assert found[second.id] == []


def test_the_newest_study_with_like_epochs_is_compared(store: Store) -> None:
    wanted = definition("wanted")
    assert store.comparable(wanted) is None
    old, other, empty = study(store, "old"), study(store, "other", method="fractional"), study(store, "empty")
    for name in (old, other):
        complete(store, name.id)
    found = store.comparable(wanted)
    assert found is not None
    assert found[0].name == "old"
    assert [trial.epochs for trial in found[1]] == [wanted.epochs_of({})]
    assert found[1] == store.latest_ends(old.id)
    assert store.latest_ends(empty.id) == []
    complete(store, study(store, "new").id)
    newer = store.comparable(wanted)
    assert newer is not None
    assert newer[0].name == "new"
    assert store.comparable(definition(data={"name": "cifar10"})) is None


def test_a_study_of_another_batch_size_is_the_next_best_and_a_guess(store: Store) -> None:
    wanted = definition("wanted", training={"batch_size": 64})
    for name, batch_size in (("same", 64), ("older", 32), ("other", 32)):
        complete(store, study(store, name, training={"batch_size": batch_size}).id)
    exact = store.comparable(wanted)
    assert exact is not None
    assert (exact[0].name, differing(wanted, exact[0].definition)) == ("same", ())
    guess = store.comparable(definition("x", training={"batch_size": 16}, data={"name": "digits", "augment": "none"}))
    assert guess is not None
    assert guess[0].name == "other"
    found = estimate(definition("x", training={"batch_size": 16}), *guess)
    assert found.differs == ("training.batch_size",)
    assert found.seconds is not None
