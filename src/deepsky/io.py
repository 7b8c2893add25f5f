"""Writing that a kill or a full disk cannot spoil, JSON without surprises, stable hashes, locks, memory given back."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import logging
import math
import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from deepsky.errors import InputError, TrainingError

if TYPE_CHECKING:
    import pyarrow as pa

TEMPORARY = ".tmp-"  # how the name of an unfinished file begins; readers of folders pass over it
LOCK = ".lock"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_log = logging.getLogger("deepsky")


def atomic_write(path: str | Path, data: bytes | str | Callable[[BinaryIO], Any]) -> None:
    """Write a file whole or not at all: whatever happens, `path` holds the old content or the new.

    A temporary file in the same folder is written, flushed to the disk and renamed. The folder is made if need be.

    Parameters
    ----------
    data : bytes, text (written as UTF-8), or a function that writes to the open binary file it is given.

    Raises
    ------
    TrainingError : the disk or a quota is full; the old file is as it was.
    OSError : anything else that the system refuses.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}"  # short: names end at 255 bytes
    try:
        with open(temporary, "xb") as file:
            if isinstance(data, str):
                file.write(data.encode())
            elif isinstance(data, bytes | bytearray | memoryview):
                file.write(data)
            else:
                data(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:  # Ctrl-C too leaves nothing behind
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno in _FULL:
            kept = "the file that was there before is unchanged" if path.exists() else "nothing was written"
            raise TrainingError(
                f"{path}: no room to write it ({error.strerror or 'disk full'}); {kept}\n"
                f"  fix: free space in {path.parent.resolve()} and run the same command again"
            ) from error
        raise
    sync_folder(path.parent)


def sync_folder(folder: str | Path) -> None:
    """Bring a folder's own entries to the disk, so that a rename in it outlives a power cut."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


# -- JSON -----------------------------------------------------------------------------------------------------
def write_json(path: str | Path, data: Any) -> None:
    """Write JSON atomically, with sorted keys: the same data give the same bytes.

    numpy scalars and arrays become numbers and lists, paths become text.

    Raises
    ------
    InputError : a number that is not finite or a key that is not text; the message says where it stands.
    TrainingError : the disk is full.
    """
    plain = _plain(data, "$", Path(path))
    atomic_write(path, json.dumps(plain, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _plain(value: Any, place: str, path: Path) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"JSON cannot hold a number that is not finite, at {place}", file=path, found=value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):  # json would turn 1 and "1" into the same key
                raise InputError(f"JSON cannot hold a key that is not text, at {place}", file=path, found=repr(key))
        return {str(k): _plain(v, f"{place}.{k}", path) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, f"{place}[{i}]", path) for i, v in enumerate(value)]
    return str(value) if isinstance(value, Path) else value


def read_json(path: str | Path) -> Any:
    """Read JSON strictly.

    Raises
    ------
    InputError : no such file, not UTF-8, not JSON, a key that stands twice, or a number that is not finite.
    """
    try:
        text = Path(path).read_bytes().decode()
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_number, parse_float=_number)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError("no such file", file=path) from None
    except IsADirectoryError:
        raise InputError("a folder where a JSON file was expected", file=path) from None
    except UnicodeDecodeError as error:
        raise InputError(f"not a JSON file: byte {error.start} is not UTF-8", file=path) from None
    except RecursionError:
        raise InputError("not a JSON file of ours: nested too deeply", file=path) from None
    except json.JSONDecodeError as error:
        raise InputError(f"not a JSON file: {error.msg}, line {error.lineno} column {error.colno}", file=path) from None
    except ValueError as error:  # ours, from the two functions below
        raise InputError(f"not a JSON file of ours: {error}", file=path) from None


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} stands twice")
    return data


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # NaN, Infinity, and 1e999
        raise ValueError(f"{text} is not a finite number")
    return number


# -- tables ---------------------------------------------------------------------------------------------------
SEAL = b"deepsky.seal"


def sealed(schema: pa.Schema) -> pa.Schema:
    """A schema with a checksum of its own names and metadata: those of a Parquet file's pages do not cover its end."""
    data = {k: v for k, v in (schema.metadata or {}).items() if k != SEAL}
    names = [(f.name.encode(), *sorted((f.metadata or {}).items())) for f in schema]
    digest = hashlib.sha256(repr((names, sorted(data.items()))).encode()).hexdigest()
    return schema.with_metadata({**data, SEAL: digest.encode()})


def write_parquet(path: str | Path, table: pa.Table) -> None:
    """Write a table atomically, a checksum with every page and one of its names and metadata."""
    import pyarrow.parquet as pq

    table = table.cast(sealed(table.schema))
    atomic_write(path, lambda file: pq.write_table(table, file, write_page_checksum=True))


def read_parquet(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table of deepsky's own and hold it against its checksums; one from elsewhere, without them, as it is.

    Raises
    ------
    InputError : it is missing, cut off or altered.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        table = pq.read_table(path, columns=columns, page_checksum_verification=True)
    except FileNotFoundError as error:
        raise InputError("a table is missing", file=path, fix="restore it from a copy, or make it again") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError("this table is damaged", file=path, found=str(error).splitlines()[0][:200],
                         fix="restore it from a copy, or make it again") from error  # fmt: skip
    seal = (schema.metadata or {}).get(SEAL)
    if seal is not None and seal != sealed(schema).metadata[SEAL]:
        raise InputError("this table is damaged", file=path, found="other names or metadata than were written",
                         fix="restore it from a copy, or make it again")  # fmt: skip
    return table.replace_schema_metadata({k: v for k, v in (table.schema.metadata or {}).items() if k != SEAL} or None)


# -- hashes ---------------------------------------------------------------------------------------------------
def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_tree(folder: str | Path, exclude: Iterable[str] = ()) -> str:
    """Hexadecimal SHA-256 of a folder: of the names and bytes of all files below it, whatever their order or dates.

    Parameters
    ----------
    exclude : patterns (``*.log``, ``labels``, ``tiles/3*``) of names or relative paths; a folder's leaves out all that
        is in it. Locks and unfinished files never count.
    """
    folder, patterns = Path(folder), [*exclude, LOCK, f"{TEMPORARY}*"]
    total = hashlib.sha256()
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    for name in sorted(files, key=os.fsencode):
        ends = [i for i, letter in enumerate(name) if letter == "/"] + [len(name)]
        above = [name[:end] for end in ends]  # a, a/b, a/b/c.npy
        if any(fnmatch(part, p) or fnmatch(part.rsplit("/", 1)[-1], p) for part in above for p in patterns):
            continue
        total.update(os.fsencode(name) + b"\0" + sha256(files[name]).encode() + b"\n")
    return total.hexdigest()


def blake_keys(ids: Iterable[str]) -> np.ndarray:
    """(n,) uint64 keys of objects' ids: the first eight bytes of BLAKE2b, the same on every machine and in every run.

    >>> int(blake_keys(["NGC 224"])[0]) == blake_key("NGC 224")
    True
    """
    blake2b = hashlib.blake2b
    digests = b"".join([blake2b(str(i).encode(errors="surrogatepass"), digest_size=8).digest() for i in ids])
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def blake_key(id: str) -> int:
    """The key of one id, 0 to 2**64 - 1."""
    digest = hashlib.blake2b(id.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def stable_uint(*parts: int | str | bytes) -> int:
    """A whole number, 0 to 2**64 - 1, that depends on every part, its type and its place: seeds from (seed, name, ...).

    >>> stable_uint(0, "ab", "c") == stable_uint(0, "a", "bc")
    False
    """
    total = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, str):
            kind, data = b"s", part.encode(errors="surrogatepass")
        elif isinstance(part, bytes):
            kind, data = b"b", part
        elif isinstance(part, int | np.integer) and not isinstance(part, bool):
            kind, data = b"i", str(int(part)).encode()
        else:
            raise TypeError(f"a stable number is made of int, str and bytes, not of {type(part).__name__}")
        total.update(kind + len(data).to_bytes(8, "little") + data)
    return int.from_bytes(total.digest(), "little")


# -- one writer a folder --------------------------------------------------------------------------------------
@contextmanager
def lock_folder(path: str | Path) -> Iterator[None]:
    """Be the only writer of a folder, which is made if need be. The system frees the lock when the process ends.

    Raises
    ------
    InputError : another process writes there; the message names it.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
                file.seek(0)
                owner = file.read().strip() or "unknown"
                raise InputError(
                    "another process writes to this folder",
                    file=folder,
                    found=f"process {owner}",
                    fix="wait for it, or choose another folder",
                ) from None
            _log.warning("%s: this file system has no locks (%s); start one writer at a time", folder, error.strerror)
        file.truncate(0)
        file.write(f"{os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield  # closing the file frees the lock; removing it would let two writers in


def release_memory() -> None:
    """Hand back to the system what was freed: Arrow's pool and glibc keep it, and the next stage would add to it."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not in every C library
        if trim is not None:
            trim(0)
