"""Validates a manifest against a custom resource definition; unknown fields are refused."""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
from jsonschema.exceptions import best_match

DEFINITIONS = Path(__file__).resolve().parents[1] / "data" / "kuberay-crds"


@cache
def schema_of(kind: str) -> dict[str, Any]:
    """The schema of the served version of a kind of Ray's, as JSON Schema."""
    definition = json.loads(gzip.decompress((DEFINITIONS / f"ray.io_{kind.lower()}s.json.gz").read_bytes()))
    (version,) = definition["spec"]["versions"]
    schema: dict[str, Any] = _strict(version["schema"]["openAPIV3Schema"])
    for free in ("metadata", "apiVersion", "kind"):
        schema["properties"][free] = {}
    return schema


def _strict(schema: Any) -> Any:
    """With what Kubernetes' own dialect adds said in JSON Schema's."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string") is True:
        strict.pop("type", None)
        strict["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    open_ended = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields") is True
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not open_ended:
        strict["additionalProperties"] = False
    return strict


@cache
def validator_of(kind: str) -> Any:
    """What holds manifests of a kind against its definition, which is itself checked here, once: that takes seconds."""
    schema = schema_of(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def check(manifest: dict[str, Any]) -> None:
    """Raises jsonschema.ValidationError where a manifest does not keep to its definition."""
    fault = best_match(validator_of(manifest["kind"]).iter_errors(manifest))
    if fault is not None:
        raise fault
