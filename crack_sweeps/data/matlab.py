"""Read arrays and structs of MATLAB 5-7 files, with every length checked before it is used.

scipy.io.loadmat reads the same files, but some damaged ones make it crash the process or read garbage that differs from
call to call, so that a training would die without naming the file.
Format: MathWorks, "MAT-File Format", level 5.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_HEADER_BYTES = 128
_MOST_BYTES = 1 << 30  # of a file, and of a variable after decompression
_DEEPEST = 8
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_STRUCT_CLASS, _NUMERIC_CLASSES = 2, range(6, 16)


class MatlabError(ValueError):
    """The file is damaged, or of a kind that is not read."""


class Struct(dict[str, "Variable"]):
    """The fields of a struct; of an array of structs, those of the first."""


Variable = np.ndarray | Struct


def read_matlab(path: Path) -> dict[str, Variable]:
    """The numeric arrays and structs of a file by name; text, cells and objects are left out.

    Raises:
        MatlabError: The file is damaged, or of another version.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise MatlabError("larger than 1 GiB")
    if data.startswith(b"MATLAB 7.3"):
        raise MatlabError("version 7.3; save it with '-v7'")
    if len(data) < _HEADER_BYTES or data[126:128] not in (b"IM", b"MI"):
        raise MatlabError("no MATLAB 5 header")
    order = "<" if data[126:128] == b"IM" else ">"
    found: dict[str, Variable] = {}
    for kind, body in _elements(memoryview(data)[_HEADER_BYTES:], order):
        if kind == _COMPRESSED:
            inner = list(_elements(memoryview(_decompressed(body)), order))
            if len(inner) != 1:
                raise MatlabError("a compressed variable that is not one variable")
            kind, body = inner[0]
        if kind != _MATRIX:
            raise MatlabError(f"an element of type {kind} where a variable should be")
        name, value = _matrix(body, order, 0)
        if value is not None:
            found[name] = value
    return found


def _decompressed(body: memoryview) -> bytes:
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(body, _MOST_BYTES)
    except zlib.error as error:
        raise MatlabError(str(error)) from error
    if not stream.eof:  # the checksum stands at the end
        raise MatlabError("compressed data that end too early or exceed 1 GiB")
    return data


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """(type, content) one after another."""
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise MatlabError("cut off within a tag")
        kind, num_bytes = (int(word) for word in np.frombuffer(data[at : at + 8], f"{order}u4"))
        if kind >> 16:  # up to four bytes stand in the tag itself
            kind, num_bytes, start, step = kind & 0xFFFF, kind >> 16, at + 4, 8
            if num_bytes > 4:
                raise MatlabError("a short element of more than 4 bytes")
        else:
            start = at + 8
            step = 8 + (num_bytes if kind == _COMPRESSED else math.ceil(num_bytes / 8) * 8)
        if start + num_bytes > len(data):
            raise MatlabError("cut off within a variable")
        yield kind, data[start : start + num_bytes]
        at += step


def _matrix(body: memoryview, order: str, depth: int) -> tuple[str, Variable | None]:
    if depth > _DEEPEST:
        raise MatlabError("structs within structs without end")
    parts = _elements(body, order)
    flags, shape = _numbers(parts, order), _numbers(parts, order)
    name = bytes(_next(parts)[1]).decode("latin-1")
    if flags.size < 1 or not 2 <= shape.size <= 8 or bool((shape < 0).any()):
        raise MatlabError("a variable without shape")
    array_class = int(flags[0]) & 0xFF
    if array_class in _NUMERIC_CLASSES:
        values = _numbers(parts, order)
        if values.size != math.prod(int(side) for side in shape):
            raise MatlabError(f"{values.size} values for an array of {'x'.join(map(str, shape))}")
        return name, values.reshape([int(side) for side in shape], order="F")
    if array_class != _STRUCT_CLASS:
        return name, None
    length = _numbers(parts, order)
    names = bytes(_next(parts)[1])
    if length.size != 1 or not 0 < int(length[0]) <= 64 or len(names) % int(length[0]):
        raise MatlabError("field names of no length")
    width = int(length[0])
    fields = Struct()
    if math.prod(int(side) for side in shape) > 0:
        for start in range(0, len(names), width):
            kind, inner = _next(parts)
            value = _matrix(inner, order, depth + 1)[1] if kind == _MATRIX and len(inner) else None
            if value is not None:
                fields[names[start : start + width].split(b"\0")[0].decode("latin-1")] = value
    return name, fields


def _next(parts: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
    part = next(parts, None)
    if part is None:
        raise MatlabError("a variable that ends too early")
    return part


def _numbers(parts: Iterator[tuple[int, memoryview]], order: str) -> np.ndarray:
    kind, content = _next(parts)
    if kind not in _NUMBERS:
        raise MatlabError(f"numbers of type {kind}")
    dtype = np.dtype(order + _NUMBERS[kind])
    if len(content) % dtype.itemsize:
        raise MatlabError("numbers that are cut off")
    return np.frombuffer(content, dtype)
