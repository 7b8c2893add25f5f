"""Figures of merit, one family a file: numpy in, numbers and `Estimate` out, no network and no survey needed.

Two habits hold in the whole folder. A figure is a function ``metric(prediction, truth, weight=None)`` (or of residuals
alone). Its `weight` says how often each object counts; with weights (replicates, n) it gives one number a replicate,
which is what makes the resampled intervals of `intervals` fast.
"""
