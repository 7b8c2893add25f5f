"""How speed is measured: two ways of doing one thing in turn, A B A B, in one process with one thread; medians.

What is compared is processor seconds (user and system, child processes included), since the wall clock of a machine
that others use says little; the wall clock is kept beside them, and every single repetition is kept too.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Self

KINDS = ("speed", "cost", "value", "interval")


@dataclass(frozen=True)
class Arm:
    """One way of doing it: what it is in words, and each repetition.

    Attributes
    ----------
    values : processor seconds a repetition; for other `unit` than "s" whatever is compared (MB, accuracy).
    wall : seconds by the clock of each repetition, where seconds are compared.
    """

    name: str
    values: tuple[float, ...]
    wall: tuple[float, ...] = ()


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes
    ----------
    kind : "speed" the ratio is peer / ours, how many times as fast ours is; "cost" is ours / peer, the share of the
        peer's cost; "value" is ours alone; "interval" is the difference ours - peer with `low` and `high`.
    objects : worked on in one repetition, for rates; 0 where a rate means nothing.
    target : "at least" or "at most" that; None where nothing was promised.
    note : what a reader must know of how it was measured.
    """

    what: str
    kind: str
    ours: Arm
    peer: Arm | None = None
    target: float | None = None
    at_most: bool = False
    objects: int = 0
    unit: str = "s"
    low: float | None = None
    high: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS or (self.kind != "value" and self.peer is None):
            raise ValueError(f"{self.what}: a row of kind {self.kind!r} with {self.peer}")

    def of(self, values: Callable[[Arm], Sequence[float]]) -> float | None:
        """The figure that is held against the target, from the medians of what `values` picks of each arm."""
        mine = values(self.ours)
        if not mine:
            return None
        if self.kind == "value":
            return median(mine)
        assert self.peer is not None
        theirs = values(self.peer)
        if not theirs:
            return None
        if self.kind == "interval":
            return sum(mine) / len(mine) - sum(theirs) / len(theirs)
        one, other = (median(theirs), median(mine)) if self.kind == "speed" else (median(mine), median(theirs))
        return one / other if other else math.inf

    @property
    def ratio(self) -> float:
        """By processor seconds (or by whatever the unit is)."""
        found = self.of(lambda arm: arm.values)
        assert found is not None
        return found

    @property
    def ratio_wall(self) -> float | None:
        """By the wall clock."""
        return self.of(lambda arm: arm.wall)

    @property
    def met(self) -> bool | None:
        """Whether the target was reached; None where there is none."""
        if self.kind == "interval":
            assert self.low is not None and self.high is not None
            return self.high >= 0  # not worse by more than the interval
        if self.target is None:
            return None
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target

    def json(self) -> dict[str, Any]:
        """JSON literals: every repetition, and what follows from them."""
        return {**asdict(self), "ratio": self.ratio, "ratio_wall": self.ratio_wall, "met": self.met}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `json`; what follows from the repetitions is computed again."""

        def arm(given: Mapping[str, Any] | None) -> Arm | None:
            return given and Arm(given["name"], tuple(given["values"]), tuple(given["wall"]))  # type: ignore[return-value]

        rest = {k: v for k, v in data.items() if k not in {"ours", "peer", "ratio", "ratio_wall", "met"}}
        ours = arm(data["ours"])
        assert ours is not None
        return cls(ours=ours, peer=arm(data["peer"]), **rest)


@dataclass(frozen=True)
class Times:
    """Of one arm: processor and wall seconds of every repetition."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def arm(self, name: str) -> Arm:
        """As an arm of a row."""
        return Arm(name, tuple(round(t, 6) for t in self.cpu), tuple(round(t, 6) for t in self.wall))


def processor() -> float:
    """Seconds that this process and its finished children have spent, in user and in system mode."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def interleaved(arms: Mapping[str, Callable[[], object]], repeats: int, *, warm: int = 1) -> dict[str, Times]:
    """Run all arms in turn, `repeats` times after `warm` rounds that do not count."""
    times = {name: Times() for name in arms}
    for number in range(warm + repeats):
        for name, function in arms.items():
            cpu, wall = processor(), time.perf_counter()
            function()
            cpu, wall = processor() - cpu, time.perf_counter() - wall
            if number >= warm:
                times[name].cpu.append(cpu)
                times[name].wall.append(wall)
    return times
