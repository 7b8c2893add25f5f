"""Networks: an observation, as a tensor, to features.

One file, one family, found by its name. Each has one public ``build(channels, size, *, ...)`` that returns a plain
module: ``forward`` maps (n, channels, y, x), or (n, channels) for rows, to (n, features), and ``features`` says how
many those are. Heads, and whatever turns features into a distribution, belong to tasks.
"""
