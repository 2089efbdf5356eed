"""The files of `service/deploy`: they parse, refer to what exists, and run commands with options that exist."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from nas.cli import make_app
from nas.settings import Settings
from service.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "service" / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
OBJECTS: dict[str, dict[str, Any]] = {
    entry["kind"]: entry for entry in yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text(encoding="utf-8"))
}
CLUSTER = OBJECTS["RayJob"]["spec"]["rayClusterSpec"]
GROUPS = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]
PODS = [*(group["template"]["spec"] for group in GROUPS), OBJECTS["Deployment"]["spec"]["template"]["spec"]]
CONTAINERS = [container for pod in PODS for container in pod["containers"] + pod.get("initContainers", [])]
SUBMITTER = OBJECTS["RayJob"]["spec"]["submitterPodTemplate"]["spec"]["containers"]


def instructions(name: str) -> list[str]:
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.partition(" ")[2].strip() for line in joined.splitlines() if line.startswith(f"{name} ")]


def commands() -> Iterator[list[str]]:
    """Yield every `nas` command of the files, as arguments."""
    yield json.loads(instructions("CMD")[0])
    for service in COMPOSE["services"].values():
        if service["image"] == "nas":
            yield service["command"]
    yield shlex.split(OBJECTS["RayJob"]["spec"]["entrypoint"])[1:]
    for container in CONTAINERS:
        if "args" in container:
            yield container["args"]


@pytest.mark.parametrize("arguments", list(commands()), ids=" ".join)
def test_each_command_is_one_with_these_options(arguments: list[str]) -> None:
    group = typer.main.get_command(make_app())
    context: Any = group.make_context("nas", list(arguments))
    while isinstance(names := getattr(context.command, "commands", None), dict):
        name, *rest = [*context._protected_args, *context.args]
        assert name in names
        context = names[name].make_context(name, rest, parent=context)
    assert context.args == []


def test_the_image_copies_what_there_is_and_the_packages_that_it_installs() -> None:
    sources = [source for line in instructions("COPY") for source in line.split()[:-1]]
    assert all(list(ROOT.glob(source)) for source in sources)
    packages = {"partialnet", "nas", "service", "studies/*.yaml"}  # the build reads the definitions
    assert packages | {"pyproject.toml", "requirements.lock", "README.md"} == set(sources)
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["nas"]
    assert instructions("USER") == ["nas"]  # not root


def names_of(model: type[Settings] | type[ServiceSettings]) -> set[str]:
    return {f"{model.model_config['env_prefix']}{field}".upper() for field in model.model_fields}


def variables() -> set[str]:
    found = set(OBJECTS["ConfigMap"]["data"])
    found |= {entry["name"] for container in [*CONTAINERS, *SUBMITTER] for entry in container.get("env", ())}
    for service in COMPOSE["services"].values():
        found |= set(service["environment"])
    return found | set(re.findall(r"\bNAS_[A-Z_]+(?==)", DOCKERFILE))


def test_each_variable_of_ours_is_a_setting() -> None:
    own = {name for name in variables() if name.startswith("NAS_")}
    assert own <= names_of(Settings) | names_of(ServiceSettings)
    assert {"NAS_DATABASE_URL", "NAS_STORAGE", "NAS_TOKEN"} <= own


class TestCompose:
    def test_services_wait_for_those_that_exist(self) -> None:
        for service in COMPOSE["services"].values():
            assert set(service.get("depends_on", ())) <= set(COMPOSE["services"])
            assert service["environment"] or service["image"] != "nas"

    def test_volumes_are_declared(self) -> None:
        used = {volume.partition(":")[0] for service in COMPOSE["services"].values() for volume in service["volumes"]}
        assert {name for name in used if re.fullmatch(r"[a-z]+", name)} == set(COMPOSE["volumes"])

    def test_the_schema_is_upgraded_before_what_needs_it(self) -> None:
        for name in ("api", "worker"):
            needs = COMPOSE["services"][name]["depends_on"]
            assert needs == {"schema": {"condition": "service_completed_successfully"}}

    def test_no_secret_has_a_default_and_only_this_machine_reaches_the_service(self) -> None:
        text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
        assert {"NAS_TOKEN", "POSTGRES_PASSWORD"} <= set(re.findall(r"\$\{([A-Z_]+):\?", text))
        assert COMPOSE["services"]["api"]["ports"] == ["127.0.0.1:8000:8000"]


class TestKubeRay:
    def test_the_kinds_and_their_versions(self) -> None:
        assert {kind: entry["apiVersion"] for kind, entry in OBJECTS.items()} == {
            "ConfigMap": "v1", "RayJob": "ray.io/v1", "Deployment": "apps/v1", "Service": "v1"
        }  # fmt: skip
        assert CLUSTER["rayVersion"] == version("ray")
        assert len({group["groupName"] for group in CLUSTER["workerGroupSpecs"]}) == len(GROUPS) - 1

    def test_each_node_starts_with_options_that_ray_knows(self) -> None:
        from ray.scripts.scripts import start

        known = {option.lstrip("-") for parameter in start.params for option in parameter.opts}
        for group in GROUPS:
            assert set(group["rayStartParams"]) <= known
        assert CLUSTER["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"

    def test_each_ray_process_demands_the_token(self) -> None:
        wanted = {"valueFrom": {"secretKeyRef": {"name": "nas", "key": "ray-token"}}}
        for container in [*(container for pod in PODS[:-1] for container in pod["containers"]), *SUBMITTER]:
            environment = {entry.pop("name"): entry for entry in [dict(entry) for entry in container["env"]]}
            assert environment["RAY_AUTH_MODE"] == {"value": "token"}
            assert environment["RAY_AUTH_TOKEN"] == wanted

    def test_references_resolve(self) -> None:
        keys = set()
        for container in [*CONTAINERS, *SUBMITTER]:
            assert container["image"] == "nas"
            for source in container.get("envFrom", ()):
                assert source["configMapRef"]["name"] == OBJECTS["ConfigMap"]["metadata"]["name"]
            secret = [entry["valueFrom"]["secretKeyRef"] for entry in container.get("env", ()) if "value" not in entry]
            assert {reference["name"] for reference in secret} <= {"nas"}
            keys |= {reference["key"] for reference in secret}
        text = (DEPLOY / "kuberay.yaml").read_text(encoding="utf-8")
        assert keys == set(re.findall(r"--from-literal=([a-z0-9-]+)=", text))
        for pod in PODS:
            volumes = {volume["name"] for volume in pod.get("volumes", ())}
            for container in pod["containers"]:
                assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes

    def test_the_service_finds_the_api(self) -> None:
        deployment = OBJECTS["Deployment"]["spec"]
        labels = deployment["template"]["metadata"]["labels"]
        assert OBJECTS["Service"]["spec"]["selector"] == deployment["selector"]["matchLabels"] == labels
        [api] = deployment["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in api["ports"]}
        assert OBJECTS["Service"]["spec"]["ports"][0]["targetPort"] in ports
        assert str(ports["http"]) in api["args"]


@pytest.mark.parametrize("name", ["compose.yaml", "kuberay.yaml"])
def test_the_health_of_the_api_has_its_route(name: str) -> None:
    from service.auth import PUBLIC

    addresses = re.findall(r"/[a-z0-9/]*healthz", (DEPLOY / name).read_text(encoding="utf-8"))
    assert addresses
    assert set(addresses) <= PUBLIC
