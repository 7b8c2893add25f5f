"""The questions: one file each. ``ds.tasks.Classify("morphology")``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deepsky import casting, registry
from deepsky.errors import InputError
from deepsky.task import Task


def build(name: str, /, **fields: Any) -> Task:
    """Make the task called `name`: the class of the same name, capitalised, in its file.

    Raises
    ------
    InputError : no such task, or a field that it does not have or that is of another type.
    """
    known = settings(name)
    for field in fields:
        if field not in known:
            raise InputError(f"the task {name!r} has no such setting", found=field, known=known)
    return _kind(name)(**{k: _tuples(casting.check(v, known[k], k)) for k, v in fields.items()})


def settings(name: str) -> dict[str, Any]:
    """The fields of the task called `name`, each with its type.

    Raises
    ------
    InputError : no such task.
    """
    return casting.kinds(_kind(name))


def _kind(name: str) -> type[Task]:
    if name.endswith(".py"):  # a saved model may name a task, and must not run a file by it
        raise InputError("a task is known by its name", found=name, known=registry.names("tasks"))
    module = registry.find("tasks", name)
    kind: type[Task] = getattr(module, name.replace("-", " ").replace("_", " ").title().replace(" ", ""))
    return kind


def from_config(config: Mapping[str, Any]) -> Task:
    """Make a task again from its `config()`."""
    fields = dict(config)
    return build(fields.pop("task"), **fields)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    for known in registry.names("tasks"):
        if known.replace("-", " ").title().replace(" ", "") == name:
            return getattr(registry.find("tasks", known), name)
    raise AttributeError(f"no task {name!r}; known: {', '.join(registry.names('tasks'))}")
