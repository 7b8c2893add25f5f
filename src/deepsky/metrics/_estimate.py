"""Estimate: a figure with its interval, its number of objects and its definition; binomial intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from scipy.special import ndtri

from deepsky.errors import InputError


@dataclass(frozen=True)
class Estimate:
    """A figure of merit as it is quoted.

    Attributes
    ----------
    value : the point estimate, on the whole sample; NaN where it is not defined.
    low, high : interval at `level`; NaN where the sample says nothing of it.
    n : number of objects.
    definition : one sentence that says what was computed.
    level : of the interval.
    groups : number of groups that were resampled, None where objects were taken as independent.
    """

    value: float
    low: float
    high: float
    n: int
    definition: str
    level: float = 0.95
    groups: int | None = None

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "not defined"
        if math.isnan(self.low) or math.isnan(self.high):
            return f"{self.value:.3g}"
        digits = _digits(self.high - self.low, self.value)
        value, low, high = (round(x, digits) + 0.0 for x in (self.value, self.low, self.high))  # no minus before a zero
        return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

    def __repr__(self) -> str:
        share = "" if self.groups is None else f" in {self.groups:,} groups"
        return f"{self} ({self.level:.0%}, n = {self.n:,}{share}; {self.definition})"

    def json(self) -> dict[str, Any]:
        """JSON literals; a NaN becomes null."""
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `json`."""
        numbers = {k: float("nan") if data[k] is None else float(data[k]) for k in ("value", "low", "high")}
        return cls(**{**dict(data), **numbers})


def _digits(width: float, value: float) -> int:
    """Decimals that show two figures of the interval's width (three of the value where it has none)."""
    scale = width if width > 0 else abs(value) / 10
    return 3 if scale == 0 or not math.isfinite(scale) else min(max(1 - math.floor(math.log10(scale)), 0), 12)


def check_level(level: float) -> float:
    """A probability strictly between 0 and 1.

    Raises
    ------
    InputError : it is not.
    """
    if not 0 < level < 1:
        raise InputError("a level lies between 0 and 1", found=level, fix="0.95 for 95%")
    return float(level)


def wilson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a binomial proportion (Wilson 1927; Brown, Cai & DasGupta 2001).

    Parameters
    ----------
    successes, n : counts; n = 0 gives (0, 1).
    """
    check_level(level)
    if not 0 <= successes <= n:
        raise InputError("successes lie between 0 and n", found=f"{successes} of {n}")
    if n == 0:
        return 0.0, 1.0
    z, p = float(ndtri(0.5 + level / 2)), successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # at the ends the formula is exact, but only up to rounding
    return (0.0 if successes == 0 else max(0.0, centre - half), 1.0 if successes == n else min(1.0, centre + half))


def proportion(successes: float, n: int, definition: str, level: float = 0.95) -> Estimate:
    """A share with its Wilson interval; NaN with the interval (0, 1) where n = 0."""
    low, high = wilson(successes, n, level)
    return Estimate(successes / n if n else float("nan"), low, high, n, definition, level)
