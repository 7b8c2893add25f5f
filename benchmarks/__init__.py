"""Benchmarks: speed as ratios in one run, the four numbers of every recipe, and the tables made from both."""
