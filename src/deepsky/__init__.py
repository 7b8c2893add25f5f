"""deepsky: deep learning for astronomy, from survey data to a catalogue that can be published.

A network turns an observation into a distribution of the truth.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# The table of contents: every public name and the module that holds it, loaded on first use so that
# `import deepsky` costs nothing. The order is the flow of data.
_CONTENTS = {
    "open": "deepsky.ingestion",
    "ingest": "deepsky.ingestion",
    "Survey": "deepsky.survey",
    "Sample": "deepsky.sample",
    "tasks": "deepsky.tasks",
    "train": "deepsky.training",
    "crossvalidate": "deepsky.crossval",
    "load": "deepsky.model",
    "Model": "deepsky.model",
    "predict": "deepsky.inference",
    "Catalogue": "deepsky.catalogue",
    "evaluate": "deepsky.evaluation",
    "compare": "deepsky.evaluation",
    "Report": "deepsky.evaluation",
    "learning_curve": "deepsky.learning",
    "write_hats": "deepsky.hats",
}
__all__ = ["__version__", *_CONTENTS]  # noqa: PLE0604 (all strings)


def __getattr__(name: str) -> Any:
    if name not in _CONTENTS:
        raise AttributeError(f"module 'deepsky' has no attribute {name!r}; it has {', '.join(_CONTENTS)}")
    home = importlib.import_module(_CONTENTS[name])
    return home if _CONTENTS[name].rsplit(".", 1)[-1] == name and name in {"tasks"} else getattr(home, name)


def __dir__() -> list[str]:
    return __all__
