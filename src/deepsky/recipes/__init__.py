"""Published systems, one a file: data, task, network, metrics, published figures, classical baseline and limit.

Each file holds one ``RECIPE`` (see `deepsky.recipe`). ``deepsky run NAME`` trains it and prints its four numbers.
"""
