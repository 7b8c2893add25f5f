"""Numbers that stand for "no value", such as a redshift of -99: told from the values that are meant."""

from __future__ import annotations

from typing import Final

import numpy as np

USUAL: Final = (-1, -9, -99, -999, -9999, -99999, -9.99, -99.9, -99.99, -999.9, 99, 999, 9999, 99999, 99.9, 99.99,
                999.9, -32768, -2147483648, 1e20, -1e20, 1e30, -1e30)  # fmt: skip
FAR = 3  # times the range of the others, by which a sentinel lies beyond them
FEWEST = 5  # other values, without which nothing can be told
TAKEN = "taken as missing"


def found(values: np.ndarray) -> dict[float, int]:
    """The sentinels among finite `values` (n,), and how often each occurs.

    One of the usual numbers counts where it is repeated and lies far beyond all others (by `FAR` times the range of 98%
    of them), -1 also where it is the only negative number among fractions.

    >>> found(np.array([0.1, -99, 0.7, 0.3, -99, 0.2, 0.9, -99]))
    {-99.0: 3}
    """
    counts = {float(v): int(np.isclose(values, v, rtol=1e-6).sum()) for v in USUAL}
    repeated = [v for v, n in counts.items() if n > 1]
    if not repeated:
        return {}
    others = values[~np.isclose(values[:, None], np.array(repeated)[None], rtol=1e-6).any(1)]
    if len(others) < FEWEST or len(np.unique(others)) < 2:
        return {}
    low, high = np.quantile(others, [0.01, 0.99])
    beyond = {v for v in repeated if max(low - v, v - high) > FAR * (high - low)}
    many = 2 * len(np.unique(others)) > len(others) and not (others == np.round(others)).all()
    if -1.0 in repeated and others.min() >= 0 and many:
        beyond.add(-1.0)
    return {v: counts[v] for v in sorted(beyond)}
