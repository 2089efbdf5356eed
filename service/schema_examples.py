"""Examples of answers for the description of the API, made of the schemas of the bodies.

So no body lacks one, and none contradicts its schema. Words and figures of known fields are those of a small study.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_ID = "0b9d4c5e-7f1a-4c38-9d0e-2f6a1b3c4d5e"
_MOMENT = "2026-01-31T12:00:00Z"
_WORDS: Mapping[str, str] = MappingProxyType({
    "id": _ID, "study_id": _ID, "name": "digits-quickstart", "study": "digits-quickstart", "model": "partialnet_micro",
    "data": "digits", "question": "Do learned ratios beat uniform ones at equal cost?", "created_by": "alice",
    "objectives": "top1", "metric": "top1", "sort": "top1", "label": "target 3.2", "reason": "stopped early at epoch 4",
    "key": "stages.0.blocks.0.mixer", "layer": "stages.0.blocks.0.mixer", "worker": "node-1:4711", "nodes": "node-1",
    "fingerprint": "cpu-1-1-torch", "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "secret": "nas_uZb4...", "owner": "alice", "tags": "paper", "note": "for table 3", "version": "0.1.0", "api": "v1",
    "phase": "gates", "architecture_id": "4c1f0d7a9b2e", "network": "partialnet_micro", "status": "ok",
    "columns": "number", "load": 'partialnet.load_package("digits-3")',
})  # fmt: skip
_NUMBERS: Mapping[str, float] = MappingProxyType({
    "number": 3, "numbers": 3, "count": 1, "planned": 15, "top1": 0.9341, "best_top1": 0.9341, "macs": 3_130_000,
    "params": 219_000, "ratio": 0.25, "channels": 32, "active_channels": 8, "epoch": 4, "size": 981_204, "seed": 1,
    "hypervolume": 8.1e6, "value": 0.9341, "latency_ms": 1.84, "reference_ms": 12.5, "cpus": 2.0, "gpus": 0.0,
})  # fmt: skip
_KEYS: Mapping[str, str] = MappingProxyType({
    "counts": "complete", "parameters": "target", "scores": "top1", "values": "top1", "reference_point": "macs",
    "metrics": "loss", "active_channels": "stages.0.blocks.0.mixer", "circumstances": "device", "facts": "state",
})  # fmt: skip
_TEXTS: Mapping[str, str] = MappingProxyType({
    "text/csv": "number,state,parameters.target,top1,macs\r\n3,complete,3.2,0.9341,3130000\r\n",
    "text/plain": 'nas_studies{state="running"} 1.0\n',
})  # fmt: skip
_DEEPEST = 12


def add_examples(document: dict[str, Any]) -> None:
    """Add an example to each successful answer of ``document`` that has a body of JSON or text and none yet."""
    schemas = document.get("components", {}).get("schemas", {})
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if status.startswith("2"):
                    _complete(answer.get("content", {}), schemas)


def _complete(content: dict[str, Any], schemas: Mapping[str, Any]) -> None:
    for media, facts in content.items():
        if "example" in facts or "examples" in facts:
            continue
        if media == "application/json" and facts.get("schema"):
            facts["example"] = example_of(facts["schema"], schemas)
        elif media in _TEXTS:
            facts["example"] = _TEXTS[media]


def example_of(schema: Mapping[str, Any], schemas: Mapping[str, Any], name: str = "", depth: int = 0) -> Any:
    """Return a value that a JSON schema allows.

    Args:
        schema: JSON schema.
        schemas: Schemas that it refers to, by name.
        name: Name of the field that holds the value.
        depth: Number of schemas around it.
    """
    if depth > _DEEPEST:
        return None
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].rpartition("/")[2]], schemas, name, depth + 1)
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            wanted = [part for part in schema[choice] if part.get("type") != "null"]
            return example_of((wanted or schema[choice])[0], schemas, name, depth + 1)
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    return _of_type(schema, schemas, name, depth)


def _of_type(schema: Mapping[str, Any], schemas: Mapping[str, Any], name: str, depth: int) -> Any:
    kind = schema.get("type")
    if kind == "object":
        found = {key: example_of(part, schemas, key, depth + 1) for key, part in schema.get("properties", {}).items()}
        more = schema.get("additionalProperties")
        if isinstance(more, Mapping) and not found:
            key = _KEYS.get(name, "name")
            found[key] = example_of(more, schemas, key, depth + 1)
        return found
    if kind == "array":
        parts = schema.get("prefixItems") or [schema["items"]] if "items" in schema or "prefixItems" in schema else []
        return [example_of(part, schemas, name, depth + 1) for part in parts]
    if kind == "string":
        return _MOMENT if schema.get("format") == "date-time" else _WORDS.get(name, name)
    if kind in ("integer", "number"):
        found_number = _NUMBERS.get(name, schema.get("minimum", 1))
        return int(found_number) if kind == "integer" else float(found_number)
    return {"boolean": True, "null": None}.get(str(kind), _NUMBERS.get(name, 1.0))
