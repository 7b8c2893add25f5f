"""What the HDUs of a FITS file hold: flux in which band, its noise, masks and PSFs, by the names that surveys use."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deepsky.errors import InputError
from deepsky.gate import FitsHdu, FitsLayout
from deepsky.surveys import _rice
from deepsky.surveys._filters import band_of, cube_bands
from deepsky.surveys._names import ROLES, Role, is_band, role_of, words

MOST_BANDS = 12
Header = Mapping[str, Any]


@dataclass(frozen=True)
class Plane:
    """One 2-D plane of a file.

    Attributes
    ----------
    role, band : what it holds; band "" where nothing says it.
    hdu : number of the HDU; `index` on its axis of bands, None for a 2-D HDU; `last` if that axis is the last.
    shape : (y, x).
    header : of the HDU, with the primary header behind it.
    """

    role: Role
    band: str
    hdu: int
    index: int | None
    shape: tuple[int, int]
    header: Header
    last: bool = False


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without axes of length one."""
    return tuple(n for n in shape if n > 1)


def planes(
    layout: FitsLayout,
    *,
    role: Role = "",
    named: Mapping[str, str] | None = None,
    bands: Sequence[str] | None = None,
    stack: bool = False,
    apart: bool = False,
) -> tuple[Plane, ...]:
    """Understand the image HDUs of a file.

    Parameters
    ----------
    role : what the file's own name says it holds; HDUs without a name of their own hold that.
    named : EXTNAME or number of an HDU -> role, in place of the rules; others are left out.
    bands : names of a cube's planes where the header has none.
    stack : the planes of a cube are objects, not bands.
    apart : several images of one kind may stand side by side, such as the chips of a camera.

    Raises
    ------
    InputError : no image, a cube that has no axis of bands, or several images that nothing tells apart.
    """
    images = [h for h in layout.images() if len(squeezed(h.shape)) >= 2]
    if not images:
        raise InputError("no image in two dimensions", file=layout.file, found=[h.shape for h in layout.images()],
                         expected="at least 2 x 2 pixels")  # fmt: skip
    primary = layout.hdus[0].header
    roles = [_role(h, primary, role, named) for h in images]
    if "flux" in roles:
        roles = ["other" if r == "" else r for r in roles]
    else:
        roles = [role or "flux" if r == "" else r for r in roles]
    out: list[Plane] = []
    for hdu, what in zip(images, roles, strict=True):
        if what != "other":
            out.extend(_split(hdu, what, primary, layout.file, bands, stack))
    if named is None and not apart:
        out = _by_version(out)
        _tell_apart(out, layout)
    if not out:
        raise InputError(
            "no image of a known kind",
            file=layout.file,
            found=", ".join(h.name or str(h.index) for h in images),
            fix="say what they hold: planes={'NAME': 'flux'}",
        )
    return tuple(out)


def named_planes(planes: Mapping[str | int, str] | None, file: object) -> dict[str, str] | None:
    """The option `planes` with the names of HDUs in capitals; None where it says nothing.

    Raises
    ------
    InputError : a role that there is not.
    """
    for role in (planes or {}).values():
        if str(role).lower() not in (*ROLES, "other"):
            raise InputError("planes names what an HDU holds", file=file, keyword="planes", found=role,
                             known=("flux", "ivar", "variance", "sigma", "weight", "mask", "psf", "other"))  # fmt: skip
    return {str(k).upper(): v for k, v in planes.items()} if planes else None


def _role(hdu: FitsHdu, primary: Header, file_role: Role, named: Mapping[str, str] | None) -> Role:
    """What an HDU holds; "" where its name does not say."""
    if named is not None:
        for key in (hdu.name, str(hdu.index), hdu.name.lower()):
            if key in named:
                return ROLES.get(named[key].lower(), "other")
        return "other"
    if file_role not in ("", "flux"):  # the file is a mask whatever its HDU is called
        return file_role
    name = hdu.name if hdu.name not in {"PRIMARY", "COMPRESSED_IMAGE"} else ""
    for text in (name, str(hdu.header.get("EXTTYPE") or ""), str(hdu.header.get("IMAGETYP") or "")):
        found = role_of(words(text))
        if found:
            return found
    return ""


def _split(
    hdu: FitsHdu, role: Role, primary: Header, file: object, bands: Sequence[str] | None, stack: bool
) -> list[Plane]:  # fmt: skip
    """The planes of one HDU."""
    header = {**primary, **hdu.header}
    shape = squeezed(hdu.shape)
    if len(shape) == 2:
        return [Plane(role, _band(hdu, header), hdu.index, None, (shape[0], shape[1]), header)]
    if len(shape) > 3:
        raise InputError("more axes than band, y and x", file=file, hdu=hdu.index, keyword="NAXIS", found=hdu.shape,
                         expected="(band, y, x)", fix="write one cube an object")  # fmt: skip
    last = not stack and shape[0] > MOST_BANDS >= shape[2]
    n, sides = (shape[2], shape[:2]) if last else (shape[0], shape[1:])
    if not stack and n > MOST_BANDS and len(cube_bands(header, n)) != n and (bands is None or len(bands) != n):
        raise InputError(
            "a cube with too many planes for bands",
            file=file,
            hdu=hdu.index,
            keyword="NAXIS3",
            found=hdu.shape,
            expected=f"at most {MOST_BANDS} bands, or names for them",
            fix="objects='plane' if every plane is an object",
        )
    names: Sequence[str] = cube_bands(header, n)
    if not names:
        names = bands if bands is not None and len(bands) == n else [f"band{i + 1}" for i in range(n)]
    if stack:
        names = [_band(hdu, header)] * n
    return [Plane(role, names[i] if names else "", hdu.index, i, (sides[0], sides[1]), header, last) for i in range(n)]


def _band(hdu: FitsHdu, header: Header) -> str:
    """The band of a 2-D HDU by its name or its filter keyword."""
    for word in words(hdu.name):  # in capitals, whatever the file has: SCI_G is g
        if word == "KS":
            return "Ks"
        if word.lower() not in ROLES and is_band(word):
            return word.lower() if word in "UGRIZ" else word
    return band_of(header)


def _by_version(found: list[Plane]) -> list[Plane]:
    """Noise and masks that name no band serve the image of the same EXTVER, where the images are of several bands."""
    flux = {p.header.get("EXTVER", 1): p.band for p in found if p.role == "flux" and p.index is None}
    images = [p for p in found if p.role == "flux"]
    if not (len(flux) == len(images) == len({b for b in flux.values() if b}) > 1):
        return found
    return [p if p.role == "flux" or p.band or p.index is not None
            else replace(p, band=flux.get(p.header.get("EXTVER", 1), "")) for p in found]  # fmt: skip


def _tell_apart(found: Sequence[Plane], layout: FitsLayout) -> None:
    seen: dict[tuple[str, str, int | None], int] = {}
    for plane in found:
        if plane.role in ("flux", "sigma", "variance", "ivar", "psf"):
            key = (plane.role, plane.band, plane.index if plane.role == "psf" else None)
            if key in seen and seen[key] != plane.hdu:
                names = ", ".join(f"{h.index} {h.name or '(no name)'} {h.shape}" for h in layout.images())
                one, other = seen[key], plane.hdu
                raise InputError(
                    f"several images of one kind ({plane.role}{' ' + plane.band if plane.band else ''}) in one file",
                    file=layout.file, hdu=plane.hdu, keyword="EXTNAME", found=names, expected="one a band",
                    fix=f"say which: planes={{'{one}': 'flux', '{other}': 'ivar'}}, or objects='hdu' if each is an "
                    f"object (--set \"planes={{'{one}':'flux','{other}':'ivar'}}\", --set objects=hdu)",
                )  # fmt: skip
            seen.setdefault(key, plane.hdu)


def stored(hdu: FitsHdu) -> np.dtype[Any] | None:
    """The small integer type that holds an HDU's values exactly, None where they need a float."""
    scale, zero = hdu.scale
    kind = np.dtype(hdu.dtype)
    if hdu.kind != "image" or kind.kind == "f" or kind.itemsize > 2 or "BLANK" in hdu.header or scale != 1:
        return None
    if zero == 0:
        return kind.newbyteorder("=")
    return np.dtype("uint16") if kind.itemsize == 2 and zero == 32768 else None


def array(path: Path, layout: FitsLayout, number: int) -> np.ndarray:
    """The pixels of one HDU: native byte order, scaled, blank ones NaN; small integers stay what they are.

    Plain files are mapped into memory, so that a slice reads no more than itself.
    """
    hdu = layout.hdus[number]
    if hdu.kind == "image" and not layout.compression:
        raw = np.memmap(path, hdu.dtype, "r", hdu.offset, hdu.shape)
        return np.asarray(scaled(np.asarray(raw), hdu)).reshape(squeezed(hdu.shape))
    quick = _rice.decoded(path, layout, number)
    if quick is not None:
        return quick.reshape(squeezed(hdu.shape))
    from astropy.io import fits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with fits.open(path, memmap=False) as hdus:
                data = np.asarray(hdus[number].data)
        except Exception as error:  # the decoders in C raise kinds of their own
            raise InputError(f"the pixels cannot be decoded: {error}", file=path, hdu=number,
                             fix="the file is damaged: download or write it again") from error  # fmt: skip
    return data.astype(data.dtype.newbyteorder("="), copy=False).reshape(squeezed(hdu.shape))


def scaled(raw: np.ndarray, hdu: FitsHdu) -> np.ndarray:
    """Values as they are meant: BSCALE, BZERO and BLANK applied, in native byte order."""
    kind = stored(hdu)
    if kind is not None:
        return (raw.astype(np.int32) + 32768).astype(kind) if kind == np.uint16 else raw.astype(kind)
    if raw.dtype.kind == "f":
        scale, zero = hdu.scale
        out = raw.astype(raw.dtype.newbyteorder("="))
        return out if (scale, zero) == (1, 0) else out * scale + zero
    scale, zero = hdu.scale
    values = raw * np.float64(scale) + zero
    blank = hdu.header.get("BLANK")
    if isinstance(blank, int):
        values[raw == blank] = np.nan
    return values


def pick(cube: np.ndarray, plane: Plane) -> np.ndarray:
    """The (y, x) values of a plane out of the pixels of its HDU."""
    if plane.index is None:
        return cube
    return cube[..., plane.index] if plane.last else cube[plane.index]


# Bits of a mask that mean "not measured"; detections and the like are measured. HSC and LSST name them by MP_ keywords
UNMEASURED = ("BAD", "NO_DATA", "SAT", "CR", "SUSPECT", "EDGE", "UNMASKEDNAN", "SENSOR_EDGE", "VIGNETTED")


def bad_bits(header: Header, chosen: Sequence[str | int] | None, file: object = None) -> int | None:
    """The bits of a mask that mean "not measured", None for "any bit".

    Parameters
    ----------
    chosen : names (with MP_ keywords in the header) or values (powers of two); by default the names in `UNMEASURED`
        where there are such keywords, else any bit.

    Raises
    ------
    InputError : a name that the header does not know.
    """
    known = {k[3:].upper(): int(v) for k, v in header.items() if re.match(r"MP_", k) and isinstance(v, int)}
    if chosen is None:
        return sum(1 << known[n] for n in UNMEASURED if n in known) if known else None
    value = 0
    for item in chosen:
        if isinstance(item, int) or item.isdecimal():
            value |= int(item)
        elif item.upper() in known:
            value |= 1 << known[item.upper()]
        else:
            raise InputError(
                "a mask bit that the header does not name",
                file=file,
                keyword=f"MP_{item.upper()}",
                found=item,
                known=sorted(known),
                fix="mask_bits takes values such as 4096 too",
            )
    return value


def saturated_bit(header: Header) -> int:
    """The bit of a mask that means "saturated", 0 if the header names none."""
    bit = header.get("MP_SAT")
    return 1 << bit if isinstance(bit, int) and not isinstance(bit, bool) else 0
