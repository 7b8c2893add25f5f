"""One kind of sky, one file: a function from a number of objects and a seed to a Sample with its truth."""
