"""Casting: words and values as the types of a signature, or a refusal that names the setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest
from tests import made_up

from deepsky import casting, tasks
from deepsky.errors import InputError
from deepsky.training import train

EDGES = tuple[float, ...] | float
LIMITS = tuple[tuple[str, float, float], ...]


@pytest.mark.parametrize(("text", "kind", "value"), [
    ("No", bool, False), ("TRUE", bool, True), ("off", bool, False), ("3", float, 3.0), ("1e3", int, 1000),
    ("None", float | None, None), ("0.5", float | None, 0.5), ("no", str | None, "no"), ("Adam", str, "Adam"),
    ("Small", Literal["small", "medium"], "small"), ("8,16", tuple[int, ...], (8, 16)), ("(8,)", tuple[int, ...], (8,)),
    ("2.5", EDGES, 2.5), ("-3.5,0.5", EDGES, (-3.5, 0.5)), ("kind", tuple[str, ...] | str, ("kind",)),
    ("('a', \"b\")", tuple[str, ...], ("a", "b")), ("z,0,5", LIMITS, (("z", 0.0, 5.0),)),
    ("(('z',0,5),(w,1,2))", LIMITS, (("z", 0.0, 5.0), ("w", 1.0, 2.0))), ("64,32", int | tuple[int, int], (64, 32)),
    ("{'width': 8}", Mapping[str, Any] | None, {"width": 8}), ("False", Any, False), ("[1, 2]", Any, [1, 2]),
])  # fmt: skip
def test_a_text_is_read_as_its_type(text: str, kind: Any, value: object) -> None:
    found = casting.read(text, kind, "x")
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(("text", "kind", "expected"), [
    ("perhaps", bool, "true or false"), ("1.5", int, "a whole number"), ("true", int, "a whole number"),
    ("0,5", float, "a number"), ("fast", float | None, "a number, or none"), ("none", float, "a number"),
    ("big", Literal["small", "medium"], "known: small, medium"), ("big", Literal["a", "b"] | None, "known: a, b"),
    ("8,x", tuple[int, ...], "several with commas"),
    ("0,10", LIMITS, "text,number,number"), ("1,2,3", tuple[int, int], "whole number,whole number"),
    ("width", Mapping[str, Any], "a dict"), ("{", Mapping[str, Any], "a dict"),
])  # fmt: skip
def test_a_text_of_another_type_is_refused_by_name(text: str, kind: Any, expected: str) -> None:
    with pytest.raises(InputError, match="keyword --set x: a setting has the wrong type") as error:
        casting.read(text, kind, "--set x")
    assert f"found: {text}" in str(error.value) and expected in str(error.value)


@pytest.mark.parametrize(("value", "kind"), [("3", int), (True, int), ("no", bool), (2, bool), ("1", float),
                                             (True, float), (3, str), ((1, "a"), tuple[int, ...])])  # fmt: skip
def test_values_are_held_against_their_types(value: object, kind: Any) -> None:
    with pytest.raises(InputError, match="wrong type"):
        casting.check(value, kind, "x")
    assert casting.check([1, 2], tuple[float, ...], "x") == (1, 2) and casting.check(1, bool, "x") is True


def test_a_class_variable_is_no_setting() -> None:
    @dataclass
    class Some:
        name: ClassVar[str] = "some"
        x: int = 3

    Some.__annotations__ = {"name": ClassVar[str], "x": int}
    assert casting.kinds(Some) == {"x": int}
    assert "name" not in tasks.settings("classify")


@pytest.mark.parametrize("wrong", [{"lr": "fast"}, {"augment": True}, {"seed": "abc"}, {"balance": "no"},
                                   {"settings": {"hidden": "8"}}, {"settings": {"hiden": (8,)}}])  # fmt: skip
def test_the_library_call_is_held_against_its_types_before_anything_is_written(tmp_path, wrong) -> None:
    survey = made_up.survey(tmp_path / "s", n=60)
    with pytest.raises(InputError, match="wrong type|no such setting"):
        train(tasks.Classify("shape"), survey, network="mlp", to=tmp_path / "m", quiet=True, **wrong)
    assert not (tmp_path / "m").exists()
