"""Readers: one file is one kind of input (see `deepsky.source`)."""
