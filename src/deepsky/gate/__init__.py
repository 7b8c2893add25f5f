"""The input gate: a look at files from outside before any C code sees them.

    check_fits, check_image, check_npy, check_npz    structure, in pure Python: declared sizes against the file
    check_values, check_ivar, check_wcs              what the pixels and the header say
    run_guarded                                      reading in child processes with a memory and a time limit

Everything that cannot be used is an `InputError` that names file, HDU, keyword, what was found, what was expected
and the fix; no other exception leaves a check, whatever the bytes are.
"""

from __future__ import annotations

from deepsky.gate.arrays import ArrayLayout, check_npy, check_npz
from deepsky.gate.fits_layout import FitsHdu, FitsLayout, check_fits
from deepsky.gate.guard import processors, run_guarded
from deepsky.gate.images import ImageLayout, check_image
from deepsky.gate.source import sniff
from deepsky.gate.values import ValueReport, check_ivar, check_values
from deepsky.gate.wcs import WcsReport, check_wcs

__all__ = [
    "ArrayLayout",
    "FitsHdu",
    "FitsLayout",
    "ImageLayout",
    "ValueReport",
    "WcsReport",
    "check_fits",
    "check_image",
    "check_ivar",
    "check_npy",
    "check_npz",
    "check_values",
    "check_wcs",
    "processors",
    "run_guarded",
    "sniff",
]
