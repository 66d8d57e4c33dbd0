"""Records from the JSON that the native part gives."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Mapping, TypeVar

T = TypeVar("T")


def record(cls: type[T], values: Mapping[str, Any], **nested: Callable[[Any], Any]) -> T:
    """A ``cls`` with its fields from ``values``; those in ``nested`` go through the function there unless they are ``None``."""
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        value = values.get(field.name)
        if value is not None and field.name in nested:
            value = nested[field.name](value)
        fields[field.name] = value
    return cls(**fields)
