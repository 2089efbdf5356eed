"""The reference of the API as the page shows it: what OpenAPI's description holds, with its references followed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_ARGUMENT = re.compile(r" {4}(?P<name>\w+): (?P<text>.*)")
_METHODS = ("get", "post", "put", "patch", "delete")
_BOUNDS = (
    ("minimum", "at least {}"), ("maximum", "at most {}"), ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
)  # fmt: skip


@dataclass(frozen=True)
class Parameter:
    """A parameter of a route, or a key of a body.

    Args:
        name: Name of the parameter.
        place: Place in the request: path, query, header, or empty for a key of a body.
        kind: Type and bounds.
        required: Whether a request must hold it.
        text: Meaning, as the description of the API says it.
    """

    name: str
    place: str
    kind: str
    required: bool
    text: str


@dataclass(frozen=True)
class Content:
    """A body of a request or of an answer.

    Args:
        media_type: Type of the content.
        kind: Name of the body.
        keys: Keys of the body.
        example: Example; None if there is none.
    """

    media_type: str
    kind: str
    keys: tuple[Parameter, ...]
    example: str | None


@dataclass(frozen=True)
class Answer:
    """An answer of a route.

    Args:
        status: HTTP status.
        text: Meaning, as the description of the API says it.
        contents: Bodies by type.
    """

    status: str
    text: str
    contents: tuple[Content, ...]

    @property
    def good(self) -> bool:
        """Whether the request succeeded."""
        return self.status.startswith("2")


@dataclass(frozen=True)
class Route:
    """A route of the API.

    Args:
        id: Id of its section in the page.
        method: HTTP method.
        path: Path with its parameters.
        text: Meaning, as the description of the API says it.
        parameters: Parameters of path, query and headers.
        bodies: Bodies of the request.
        answers: Answers by status.
    """

    id: str
    method: str
    path: str
    text: str
    parameters: tuple[Parameter, ...]
    bodies: tuple[Content, ...]
    answers: tuple[Answer, ...]


def groups_of(document: Mapping[str, Any]) -> dict[str, list[Route]]:
    """Return the routes of OpenAPI's description by their first tag, in its order."""
    found: dict[str, list[Route]] = {}
    schemas = document.get("components", {}).get("schemas", {})
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                operation = item[method]
                group = next(iter(operation.get("tags", ())), "other")
                found.setdefault(group, []).append(_route(method, path, operation, schemas))
    return found


def _route(method: str, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> Route:
    parameters = tuple(
        Parameter(
            entry["name"], entry["in"], _kind(entry.get("schema", {})), entry.get("required", False),
            entry.get("description", ""),
        )
        for entry in operation.get("parameters", ())
    )  # fmt: skip
    answers = tuple(
        Answer(status, answer.get("description", ""), _contents(answer, schemas))
        for status, answer in operation.get("responses", {}).items()
    )
    bodies = _contents(operation.get("requestBody", {}), schemas)
    text = operation.get("description") or operation.get("summary", "")
    return Route(operation["operationId"], method.upper(), path, text, parameters, bodies, answers)


def _contents(holder: Mapping[str, Any], schemas: Mapping[str, Any]) -> tuple[Content, ...]:
    return tuple(
        Content(media_type, _kind(entry.get("schema", {})), _keys(entry.get("schema", {}), schemas), _example(entry))
        for media_type, entry in holder.get("content", {}).items()
    )


def _example(entry: Mapping[str, Any]) -> str | None:
    examples = [shown.get("value") for shown in entry.get("examples", {}).values()]
    example = entry.get("example", examples[0] if examples else None)
    return example if isinstance(example, str) or example is None else json.dumps(example, indent=2)


def _keys(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """Return the keys of the object that a schema describes."""
    reference = schema.get("$ref")
    if reference is not None:
        schema = schemas.get(reference.rpartition("/")[2], {})
    required, meanings = schema.get("required", ()), _arguments(schema.get("description", ""))
    return tuple(
        Parameter(name, "", _kind(entry), name in required, entry.get("description", meanings.get(name, "")))
        for name, entry in schema.get("properties", {}).items()
    )


def _arguments(docstring: str) -> dict[str, str]:
    """Return what a docstring says of each argument: the description of a body is that of its class."""
    found: dict[str, str] = {}
    name = None
    for line in docstring.partition("Args:")[2].splitlines():
        begun = _ARGUMENT.fullmatch(line)
        if begun is not None:
            name = begun["name"]
            found[name] = begun["text"]
        elif name is not None and line.strip():
            found[name] += f" {line.strip()}"
    return {name: text.replace("``", "") for name, text in found.items()}


def _kind(schema: Mapping[str, Any]) -> str:
    """Return a type in words, with its bounds."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(entry) for entry in schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    kind = str(schema.get("type", "any value"))
    if kind == "array":
        kind = f"list of {_kind(schema.get('items', {}))}"
    elif kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        kind = f"mapping of {_kind(schema['additionalProperties'])}"
    bounds = [words.format(schema[key]) for key, words in _BOUNDS if key in schema]
    default = [] if schema.get("default") is None else [f"default {json.dumps(schema['default'])}"]
    return ", ".join([kind, *bounds, *default])
