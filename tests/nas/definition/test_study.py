from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from nas.definition.sections import FrontSpec, TrainingSpec
from nas.definition.space import LogUniform
from nas.definition.study import StudyDefinition, load_study, parse_study
from nas.definition.text import parse_yaml
from nas.errors import DefinitionError

ROOT = Path(__file__).resolve().parents[3]


def definition(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "data": {"name": "digits"}, **changes}


ranges = st.tuples(st.floats(1, 10), st.floats(10.5, 99)).map(list)
entries = st.one_of(
    st.floats(1, 50),
    ranges.map(lambda r: {"uniform": r}),
    ranges.map(lambda r: {"log_uniform": r}),
    st.lists(st.floats(1, 50), min_size=1, max_size=4, unique=True).map(lambda c: {"choice": c}),
)
definitions = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True),
        "data": st.sampled_from([{"name": "digits"}, {"name": "cifar10", "train_limit": 100}]),
        "space": st.fixed_dictionaries(
            {"target": entries},
            optional={
                "penalty": entries,
                "batch_size": st.just({"int": [16, 64]}),
                "optimizer": st.just({"choice": ["sgd", "adamw"]}),
            },
        ),
    },
    optional={"latency": st.none(), "baselines": st.just(["1/2", "1/8"]), "training": st.just({"epochs": 3})},
)


@given(definitions)
def test_yaml_round_trip(data: dict[str, Any]) -> None:
    study = parse_study(data)
    assert parse_study(yaml.safe_load(study.to_yaml())) == study


def test_defaults_sweep_target_exponent_and_penalty() -> None:
    study = parse_study(definition())
    assert set(study.space) == {"target", "complexity_exponent", "penalty"}
    assert study.space["target"] == LogUniform(log_uniform=(2.0, 8.0))
    assert study.baselines == (0.5, 0.25, 0.125)
    assert study.objectives == ("top1", "macs")


def test_each_method_has_its_own_defaults() -> None:
    fractional = parse_study(definition(method="fractional"))
    assert set(fractional.space) == {"target", "penalty"}
    assert (fractional.front, fractional.sweep.trials, fractional.training.finetune_epochs) == (None, 16, 10)
    supernet = parse_study(definition(method="supernet"))
    assert set(supernet.space) == {"target"}
    assert (supernet.front, supernet.sweep.trials, supernet.training.finetune_epochs) == (FrontSpec(points=8), 1, 0)
    assert supernet.baselines == ()


def test_what_a_supernet_is_given_stands() -> None:
    given = {"sweep": {"trials": 3}, "baselines": ["1/4"], "front": {"points": 2}, "training": {"epochs": 2}}
    study = parse_study(definition(method="supernet", **given))
    assert (study.sweep.trials, study.baselines, study.training.epochs) == (3, (0.25,), 2)
    assert study.front == FrontSpec(points=2)


@pytest.mark.parametrize("method", ["gates", "fractional", "supernet"])
def test_every_method_survives_its_json_form(method: str) -> None:
    study = parse_study(definition(method=method))
    assert parse_study(study.to_dict()) == study


@pytest.mark.parametrize(
    ("entry", "points", "targets"),
    [
        ({"log_uniform": [2, 8]}, 3, (2, 4, 8)),
        ({"log_uniform": [2, 8]}, 1, (4,)),
        ({"uniform": [2, 8]}, 4, (2, 4, 6, 8)),
        ({"uniform": [2, 8]}, 1, (5,)),
        ({"choice": [5, 2, 3]}, 8, (2, 3, 5)),
        (4, 8, (4,)),
    ],
)
def test_a_supernet_draws_no_target_but_meets_several(entry: Any, points: int, targets: tuple[float, ...]) -> None:
    space = {"target": entry, "learning_rate": {"log_uniform": [0.001, 0.01]}}
    study = parse_study(definition(method="supernet", front={"points": points}, space=space))
    assert study.targets == pytest.approx(targets)
    assert (study.targets[0], study.targets[-1]) == (targets[0], targets[-1])  # the bounds to the last bit
    assert set(study.sampled) == {"learning_rate"}


def test_sampled_training_replaces_swept_values() -> None:
    study = parse_study(definition(space={"target": 4, "batch_size": {"int": [16, 64]}}, training={"epochs": 3}))
    assert study.sampled_training({"target": 4.0, "batch_size": 32}) == TrainingSpec(epochs=3, batch_size=32)


@pytest.mark.parametrize(
    ("changes", "planned"),
    [
        ({}, 16 + 3 + 2 * 5 * 3),
        ({"final": {"candidates": 1, "seeds": 2, "random": 0}}, 16 + 3 + 1 * 3 * 2),
        ({"final": {"candidates": 0}}, 16 + 3),
        ({"sweep": {"trials": 0}}, 3),
    ],
)
def test_what_is_planned(changes: dict[str, Any], planned: int) -> None:
    assert parse_study(definition(**changes)).planned == planned


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"foo": 1}, "foo: unknown key"),
        ({"data": {"name": "digit"}}, "data: unknown data set 'digit'; known: digits, cifar10"),
        ({"data": {"name": "digits", "path": "/etc"}}, "data.path: unknown key"),
        ({"data": {"name": "image_folder", "folder": "../up", "image_size": 32}}, "data.folder: must .*'../up'"),
        ({"data": {"name": "image_folder", "image_size": 32}}, "needs 'folder'"),
        ({"data": {"name": "digits", "folder": "x"}}, "works only with image_folder"),
        ({"model": {"name": "t9"}}, "model.name: unknown variant 't9'; known: micro, t0"),
        ({"model": {"name": "t0", "merge_strides": [2, 2]}}, "model.merge_strides"),
        ({"training": {"epochs": "many"}}, r"training.epochs: .*integer.*'many'"),
        ({"training": {"learning_rate": -1}}, r"training.learning_rate: .*greater than 0.*-1"),
        ({"space": {"target": {"log_uniform": [8, 2]}}}, r"target.log_uniform: `0 < low < high`.*low=8.0"),
        (
            {"space": {"target": {"gauss": [8, 2]}}},
            "target: a distribution is one of uniform, log_uniform, int, choice",
        ),
        ({"space": {"target": {"uniform": [0.5, 2]}}}, "target must be at least 1 .*0.5"),
        ({"space": {"target": "four"}}, "target must be a number, but got 'four'"),
        ({"space": {"target": 4, "lr": 0.1}}, "unknown parameter 'lr'; known: target"),
        ({"space": {"penalty": 1}}, "'target' is missing"),
        ({"space": {"target": 4, "epochs": 3}, "training": {"epochs": 3}}, "must not stand in 'training'"),
        ({"space": {"target": 4, "momentum": 2}}, "momentum=2.*less than 1"),
        (
            {"space": {"target": 4, "batch_size": {"uniform": [32, 128]}}},
            r"batch_size takes whole numbers: use \{int: \[32, 128\]\}",
        ),
        ({"space": {"target": 4, "epochs": {"log_uniform": [2, 8]}}}, "epochs takes whole numbers"),
        ({"baselines": ["4"]}, r"a ratio must be in \(0, 1\], but got '4'"),
        ({"baselines": ["a/b"]}, "a ratio is a number such as 0.25 or 1/4"),
        ({"objectives": ["top1", "latency_ms"]}, "latency is measured after the trials"),
        ({"objectives": ["top1", "flops"]}, "unknown objective 'flops'; known: top1"),
        ({"sweep": {"trials": 0}, "baselines": []}, "nothing to run"),
        ({"final": {"candidates": -1}}, r"final.candidates: .*greater than or equal to 0.*-1"),
        ({"final": {"candidates": 1.5}}, r"final.candidates: .*integer"),
        ({"final": {"candidates": 101}}, r"final.candidates: .*less than or equal to 100"),
        ({"final": {"against": ["uniform", "oracle"]}}, r"final.against.1: .*'uniform', 'random' or 'scaled'.*oracle"),
        ({"final": {"against": ["random", "random"]}}, r"final.against: kinds must differ, but got"),
        ({"final": {"show": 0}}, r"final.show: .*greater than 0.*0"),
        ({"final": {"ablate": True}}, r"final: ablate needs a space with two kinds of choice.*searches split alone"),
        ({"final": {"seeds": 0}}, r"final.seeds: .*greater than or equal to 1.*0"),
        ({"final": {"seeds": "three"}}, r"final.seeds: .*integer.*'three'"),
        ({"final": {"random": -1}}, r"final.random: .*greater than or equal to 0"),
        ({"final": {"epochs": 0}}, r"final.epochs: .*greater than or equal to 1"),
        ({"final": {"repeats": 3}}, "final.repeats: unknown key"),
        ({"final": 3}, "final: must be a mapping of keys"),
        ({"final": None}, "final: must be a mapping of keys"),
        ({"name": "a b"}, "name: must consist of at most 64 letters"),
        ({"method": "darts"}, "method: must be 'gates', 'fractional' or 'supernet'"),
        (
            {"method": "fractional", "space": {"target": 4, "complexity_exponent": 1}},
            "method fractional has no parameter 'complexity_exponent'; its own are target, penalty, and the keys",
        ),
        ({"method": "supernet", "space": {"target": 4, "penalty": 1}}, "method supernet has no parameter 'penalty'"),
        (
            {"method": "supernet", "space": {"target": 4, "finetune_epochs": {"int": [1, 3]}}},
            "method supernet has no parameter 'finetune_epochs'",
        ),
        ({"method": "supernet", "training": {"finetune_epochs": 3}}, "ignores finetune_epochs=3; leave it out"),
        ({"method": "supernet", "training": {"gate_learning_rate": 1}}, "ignores gate_learning_rate=1.0"),
        ({"method": "supernet", "front": {"points": 0}}, r"front.points: .*greater than or equal to 1.*\(got 0\)"),
        ({"method": "gates", "front": {"points": 3}}, "front: a trial of method gates settles on one network"),
    ],
)
def test_each_fault_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        parse_study(definition(**changes))


def test_all_faults_are_listed_at_once() -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_study(definition(foo=1, training={"epochs": 0}))
    assert len(str(caught.value).splitlines()) == 2
    with pytest.raises(DefinitionError) as caught:
        parse_study({"name": "x", "data": {"name": "mnist"}, "method": ["gates"]})
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["data", "method"]


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "not valid YAML"), ("[]", "mapping of keys"), (None, "cannot be read")]
)
def test_files_name_themselves(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "study.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DefinitionError, match=f"study.yaml.*{message}"):
        load_study(path)


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda p: p.name)
def test_definitions_in_the_repository_are_valid(path: Path) -> None:
    study = load_study(path)
    assert study.question
    assert study.expected_time
    assert isinstance(study, StudyDefinition)


FOREIGN = ("Input", "valid tuple", "dictionary", "instance of", "function-", "[key]", "validation", "pydantic", "Tuple")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("space: {target: .inf}", "space: target must be a finite number, but got inf"),
        ("space: {target: 4, penalty: -.inf}", "space: penalty must be a finite number, but got -inf"),
        ("space: {target: .nan}", "space: target must be a finite number, but got nan"),
        ("space: {target: {uniform: [2, .inf]}}", "space: target.uniform.1: must be a finite number (got [2, inf])"),
        ("space: {target: {choice: [.inf, 2]}}", "space: target.choice.0: must be a finite number (got [inf, 2])"),
        ("space: {target: {uniform: 3}}", "space: target.uniform: must be a list (got 3)"),
        ("space: {target: {uniform: [1]}}", "space: target.uniform.1: is missing (got [1])"),
        ("space: {target: {choice: []}}", "space: target.choice: must have at least 1 entries, not 0 (got [])"),
        ("space: {1: 2}", "space.1: a key must be a text (got 1)"),
        ("1: 2", "1: a key must be a text (got 1)"),
        ("model: {depths: 3}", "model.depths: must be a list (got 3)"),
        ("model: {depths: [1, 2]}", "model.depths: must have at least 4 entries, not 2"),
        ("model: 3", "model: must be a mapping of keys (got 3)"),
        ("front: [3]", "front: must be a mapping of keys"),
        ("objectives: [1, 2]", "objectives.0: must be a text (got 1)\nobjectives.1: must be a text (got 2)"),
        ("training: {learning_rate: .inf}", "training.learning_rate: must be a finite number (got inf)"),
        ("training: {epochs: 0}", "training.epochs: must be greater than or equal to 1 (got 0)"),
        ("latency: {device: gpu}", "latency.device: must be 'cpu' or 'cuda' (got 'gpu')"),
        ("space: {target: 4, optimizer: {choice: [adam]}}", "space: optimizer='adam': must be 'adamw' or 'sgd'"),
    ],
)
def test_a_fault_is_said_once_and_in_words_of_a_definition(text: str, expected: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_study({**definition(), **parse_yaml(f"{{{text}}}")}, "")
    assert str(caught.value) == expected
    assert not any(word in str(caught.value) for word in FOREIGN)


@given(key=st.text(min_size=1, max_size=6), section=st.sampled_from(["", "model", "data", "training", "final"]))
@example(key="\x1e\x1e", section="data")
@example(key="a\nb", section="")
@example(key="\u2028", section="model")
def test_a_fault_is_one_printable_line_whatever_the_key(key: str, section: str) -> None:
    data = definition()
    (data.setdefault(section, {}) if section else data)[key + "?"] = 1  # no key that is known has a question mark
    with pytest.raises(DefinitionError) as caught:
        parse_study(data)
    [fault] = caught.value.faults
    assert fault.isprintable()
    assert fault == str(caught.value)
