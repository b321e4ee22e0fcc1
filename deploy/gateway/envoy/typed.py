"""Envoy's typed_config."""

from typing import Any

HTTP = "envoy.extensions.filters.http"


def typed(message: str, **fields: Any) -> dict[str, Any]:
    """Return a message with the name that Envoy finds it by."""
    return {"@type": f"type.googleapis.com/{message}", **fields}


def named(name: str, message: str, **fields: Any) -> dict[str, Any]:
    """Return an extension: its name and its typed_config."""
    return {"name": name, "typed_config": typed(message, **fields)}
