"""The errors that a user sees, and the one way of wording them.

Every message says what was found, what was expected, what is known and how to mend it.

    DeepskyError          exit code 1: the user can mend it
    ├── InputError        a file, table or argument that cannot be used as it is
    │   └── ContractError a survey that does not fit a saved model
    ├── MissingExtra      an optional package that is not installed
    ├── TrainingError     a run that cannot start or cannot go on (memory, NaN loss, disk)
    └── Incomplete        exit code 2: work remains, run the same command again
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from difflib import get_close_matches
from types import ModuleType
from typing import Any


class DeepskyError(Exception):
    """Any error that deepsky raises on purpose; the command line prints it without a traceback."""

    exit_code = 1


class InputError(DeepskyError):
    """Input that cannot be used, worded from its parts.

    Parameters
    ----------
    problem : one sentence that says what is wrong.
    file, hdu, keyword : where it is.
    found, expected, known : what stands there, what should, and which values there are.
    fix : what to do about it, as a command or an argument where there is one.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: object = None,
        hdu: object = None,
        keyword: str | None = None,
        found: object = None,
        expected: object = None,
        known: Iterable[object] | None = None,
        fix: str | None = None,
    ) -> None:
        self.problem = problem
        self.file, self.hdu, self.keyword = file, hdu, keyword
        self.found, self.expected, self.fix = found, expected, fix
        place = [f"{file}" if file is not None else "", f"HDU {hdu}" if hdu is not None else ""]
        place.append(f"keyword {keyword}" if keyword else "")
        where = ", ".join(p for p in place if p)
        lines = [f"{where}: {problem}" if where else problem]
        lines += [
            f"  {name}: {value}" for name, value in (("found", found), ("expected", expected)) if value is not None
        ]
        if known is not None:
            names = [str(k) for k in known]
            lines.append(f"  known: {', '.join(names) if names else '(none)'}")
            lower = {n.lower(): n for n in names}
            near = get_close_matches(str(found).lower(), lower, n=1)
            if near and fix is None:
                self.fix = fix = f"did you mean {lower[near[0]]!r}?"
        if fix is not None:
            lines.append(f"  fix: {fix}")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[Any, ...]:  # travels between processes whole
        return _rebuild, (type(self), str(self), self.__dict__)


def _rebuild(kind: type[InputError], message: str, state: dict[str, Any]) -> InputError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class ContractError(InputError):
    """A survey whose bands, pixel scale, unit or size differ from those a model was trained on."""


class TrainingError(DeepskyError):
    """Training that cannot start or cannot go on."""


class Incomplete(DeepskyError):
    """Work that stopped part of the way; the same command goes on from there."""

    exit_code = 2


class MissingExtra(DeepskyError, ImportError):
    """An optional package that this function needs is not installed."""


def need(module: str, extra: str) -> ModuleType:
    """Import an optional module, or say which extra holds it.

    Raises
    ------
    MissingExtra : the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".", maxsplit=1)[0]:
            raise
        raise MissingExtra(
            f"this needs the package {module.split('.', maxsplit=1)[0]!r}, which is not installed\n"
            f"  fix: pip install 'deepsky[{extra}]'"
        ) from error
