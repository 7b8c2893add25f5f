"""Format versions: integers that grow when what is written changes; every older one is read, a newer one refused."""

from __future__ import annotations

from typing import Final

SURVEY_FORMAT: Final = 1
MODEL_FORMAT: Final = 1
