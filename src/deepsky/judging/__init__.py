"""Judging: what a catalogue says held against what is true: figures with intervals, numbers to draw, what to beware of.

`answering` pairs a catalogue with the truth, `merit` computes the figures of merit and their intervals, `bins` those in
bins of a column, `counting` who is judged and who is left out, `drawing` the numbers behind the drawings of a report,
`caveats` what a reader must know before believing a figure.
"""

from __future__ import annotations

from deepsky.judging.answering import Answers, Known, answers, constant, known, looked_for, subset
from deepsky.judging.bins import Binned, binned, in_bins, owner
from deepsky.judging.caveats import Check
from deepsky.judging.drawing import PREVALENCES, curves
from deepsky.judging.merit import better, compared, figures, headline, table
from deepsky.judging.question import Question, judge, priors, standing

__all__ = [
    "PREVALENCES",
    "Answers",
    "Binned",
    "Check",
    "Known",
    "Question",
    "answers",
    "better",
    "binned",
    "compared",
    "constant",
    "curves",
    "figures",
    "headline",
    "in_bins",
    "judge",
    "known",
    "looked_for",
    "owner",
    "priors",
    "standing",
    "subset",
    "table",
]
