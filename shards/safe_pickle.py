"""Read a pickle of plain containers and NumPy arrays without running anything that it names.

A pickle can call any function when it is read, and a small one can ask for any amount of memory.
Here it gets plain containers, and stand-ins for NumPy's ways to write an array, which build the
arrays themselves; every other name is refused, and memory is bounded by the size of the file.
"""

from __future__ import annotations

import pickle
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from shards.errors import FormatError

__all__ = ["array_of", "load_plain"]

_KINDS = frozenset(f"{kind}{size}" for kind in "fiu" for size in (1, 2, 4, 8)) - {"f1"} | {"b1"}
_MEMORY_PER_BYTE = 40  # a boxed number of one byte, in a list and in the table of references
_MEMORY_AT_LEAST = 1 << 30


class _DType:
    """Stands for ``numpy.dtype``: only plain numbers."""

    def __init__(self, code: object, *_: object) -> None:
        if code not in _KINDS:
            raise pickle.UnpicklingError(f"an array of dtype {code!r}; plain numbers are expected")
        self.dtype = np.dtype(str(code))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"a byte order {order!r}")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands for ``numpy.ndarray``; a view of the bytes in the pickle."""

    def __init__(self) -> None:
        self.values: np.ndarray[Any, Any] = np.zeros(0, np.float32)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        self.fill(data, kind, shape, "F" if fortran else "C")

    def fill(self, data: object, kind: object, shape: Any, order: Any) -> None:
        """Take over the content."""
        if not isinstance(kind, _DType) or not isinstance(data, bytes | bytearray):
            raise pickle.UnpicklingError("an array that is not plain numbers")
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise pickle.UnpicklingError(f"an array of shape {shape!r}")
        self.values = np.frombuffer(data, kind.dtype).reshape(shape, order=order)


def _reconstruct(*_: object) -> _Array:
    """Stand for NumPy's function of that name: an array whose content follows."""
    return _Array()


def _from_buffer(data: object, kind: object, shape: Any, order: Any, *_: object) -> _Array:
    """Stand for NumPy's function of that name, which pickles of protocol 5 name."""
    array = _Array()
    array.fill(data, kind, shape, order)
    return array


def _latin1(text: object, encoding: object) -> bytes:
    """Stand for ``_codecs.encode``, which is how bytes look in pickles of protocol 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in encoding {encoding!r}")
    return text.encode("latin1")


class _Name:
    """What a name in a pickle means here: it can be called, and nothing about it be changed."""

    __slots__ = ("_means",)

    def __init__(self, means: Any) -> None:
        self._means = means

    def __call__(self, *arguments: Any) -> Any:
        return self._means(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a state for a function")


class _ArrayName(_Name):
    """Stands for ``numpy.ndarray``, which is only ever named, never called."""

    __slots__ = ()

    def __call__(self, *_: Any) -> Any:
        raise pickle.UnpicklingError("an array that is made in an unknown way")


_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): _Name(_reconstruct),
    ("numpy._core.multiarray", "_reconstruct"): _Name(_reconstruct),
    ("numpy.core.numeric", "_frombuffer"): _Name(_from_buffer),
    ("numpy._core.numeric", "_frombuffer"): _Name(_from_buffer),
    ("numpy", "ndarray"): _ArrayName(None),
    ("numpy", "dtype"): _Name(_DType),
    ("_codecs", "encode"): _Name(_latin1),
}


class _Unpickler(pickle.Unpickler):
    """Knows the few names that an array in a pickle needs, and gives them our own meaning."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name means here; every other one is refused."""
        found = _NAMES.get((module, name))
        if found is None:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}; only NumPy arrays and plain containers are read"
            )
        return found

    def persistent_load(self, pid: object) -> Any:
        """Refuse references to objects outside the file."""
        raise pickle.UnpicklingError(f"it refers to an object outside the file, {pid!r}")


@contextmanager
def _bounded_memory(most: int) -> Iterator[None]:
    """Let the process grow by so many bytes at most: beyond, Python raises `MemoryError`."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + most
    if soft != resource.RLIM_INFINITY:
        limit = min(limit, soft)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def load_plain(path: Path) -> Any:
    """Read a pickle of any protocol, written under NumPy 1 or 2.

    Parameters
    ----------
    path : the pickle

    Returns
    -------
    its dicts, lists, tuples, strings and numbers; arrays as objects with ``values``, a read-only
    array over the bytes of the pickle (see `array_of`)

    Raises
    ------
    FormatError : if it cannot be read, names anything but arrays, or asks for more memory than a
        file of its size can need
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as handle, _bounded_memory(_MEMORY_AT_LEAST + _MEMORY_PER_BYTE * size):
            return _Unpickler(handle).load()
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise FormatError(
            f"{path}: refused as an annotation pickle: it asks for more memory than {size:,} bytes "
            "of annotations can need"
        ) from error
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise FormatError(f"{path}: refused as an annotation pickle: {error}") from error


def array_of(value: object) -> np.ndarray[Any, Any] | None:
    """Array that a value of `load_plain` stands for, or None if it stands for none."""
    return value.values if type(value) is _Array else None
