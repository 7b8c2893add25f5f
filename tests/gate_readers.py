"""Functions that the gate's tests run in child processes: importable, and light to import."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any


def double(number: float) -> float:
    return 2 * number


def slowly(number: int, seconds: float) -> int:
    time.sleep(seconds)
    return number


def process_of(number: int) -> tuple[int, int]:
    return number, os.getpid()


def threads() -> tuple[str, str]:
    return os.environ["OMP_NUM_THREADS"], os.environ["OPENBLAS_NUM_THREADS"]


def ill(kind: str, log: str = "") -> str:
    """Do what `kind` says; `log` is a file that counts the tries."""
    if log:
        with Path(log).open("a") as file:
            file.write(f"{os.getpid()}\n")
    if kind == "once":
        kind = "killed" if len(Path(log).read_text().splitlines()) == 1 else "fine"
    if kind == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif kind == "null":
        ctypes.string_at(0)
    elif kind == "abort":
        os.abort()
    elif kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "exit":
        os._exit(3)
    elif kind == "hang":
        time.sleep(3600)
    elif kind == "memory":
        return str(len(bytearray(8 << 30)))
    elif kind == "raise":
        raise ZeroDivisionError("one by nothing")
    elif kind == "leave":
        raise SystemExit(4)
    elif kind == "unpicklable":
        return lambda: None  # type: ignore[return-value]
    elif kind == "print":
        sys.stdout.write("noise\n")
    return kind


def astropy_layout(path: str) -> tuple[list[dict[str, Any]], bool]:
    """What astropy finds in a FITS file: each HDU's layout, and whether all its checksums hold."""
    from astropy.io import fits

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with fits.open(path, disable_image_compression=True) as hdus, fits.open(path) as decoded:
            found = [_describe(hdu, image) for hdu, image in zip(hdus, decoded, strict=True)]
        try:
            with fits.open(path, checksum=True, disable_image_compression=True) as hdus:
                len(hdus)
        except OSError:
            return found, False
    return found, not any("verification failed" in str(w.message) for w in caught)


def _describe(hdu: Any, decoded: Any) -> dict[str, Any]:
    """`decoded` is the same HDU with tile-compressed images as images."""
    kind = type(decoded).__name__
    layout = {"kind": kind, "offset": hdu.fileinfo()["datLoc"], "name": hdu.name}
    if kind in ("PrimaryHDU", "ImageHDU", "CompImageHDU"):
        return layout | {"shape": tuple(decoded.shape), "bitpix": decoded.header["BITPIX"]}
    if kind == "BinTableHDU":
        widths = [column.dtype.itemsize for column in hdu.columns]
        return layout | {"shape": (hdu.header["NAXIS2"],), "widths": widths, "row": hdu.header["NAXIS1"]}
    return layout


def astropy_pixels(path: str, number: int) -> Any:
    """The pixels of one HDU as astropy reads them."""
    from astropy.io import fits

    with fits.open(path, memmap=False) as hdus:
        return hdus[number].data
