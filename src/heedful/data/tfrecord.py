"""TFRecord files and tf.train.Example without TensorFlow.

A record is its length (8 bytes, little endian), a checksum of it, the data, and a checksum of that: CRC-32C,
rotated and shifted. An Example is a map from names to a list of byte strings, of float32 or of int64, in protobuf's
wire format, which is read here directly.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from heedful.errors import HeedfulError

Array = NDArray[Any]
POLYNOMIAL = 0x82F63B78
LANES = 2048
"""Stretches of a long record whose checksums are computed side by side."""
Value = list[bytes] | Array


@cache
def _table() -> NDArray[np.uint32]:
    """The checksum of each single byte."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> np.uint32(1)) ^ np.uint32(POLYNOMIAL), table >> np.uint32(1))
    return table


def _zeros(state: NDArray[np.uint32], count: int) -> NDArray[np.uint32]:
    """The states after `count` zero bytes, by the powers of two of one step's matrix over GF(2)."""
    step = 0
    while count:
        if count & 1:
            columns = _power(step)
            after = np.zeros_like(state)
            for bit in range(32):
                after ^= np.where(state >> np.uint32(bit) & np.uint32(1), columns[bit], np.uint32(0))
            state = after
        count >>= 1
        step += 1
    return state


@cache
def _power(step: int) -> NDArray[np.uint32]:
    """What 2^step zero bytes make of each single bit."""
    if step == 0:
        bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
        return _table()[bits & np.uint32(255)] ^ (bits >> np.uint32(8))
    before = _power(step - 1)
    return _zeros(before, 2 ** (step - 1))


def crc32c(data: bytes | memoryview) -> int:
    """CRC-32C (Castagnoli) of `data`; long data goes in many stretches at once, and these are joined."""
    values = np.frombuffer(data, dtype=np.uint8)
    table = _table()
    if len(values) < 4 * LANES:
        state = 0xFFFFFFFF
        steps = table.tolist()
        for value in values.tolist():
            state = steps[(state ^ value) & 255] ^ (state >> 8)
        return state ^ 0xFFFFFFFF
    each = -(-len(values) // LANES)
    # Zeros in front change nothing of a checksum that starts at zero.
    lanes = np.concatenate([np.zeros(each * LANES - len(values), np.uint8), values]).reshape(LANES, each).T
    state = np.zeros(LANES, dtype=np.uint32)
    for column in np.ascontiguousarray(lanes):
        state = table[(state ^ column) & np.uint32(255)] ^ (state >> np.uint32(8))
    size = each
    while len(state) > 1:
        state = _zeros(state[::2], size) ^ state[1::2]
        size *= 2
    begin = _zeros(np.array([0xFFFFFFFF], dtype=np.uint32), len(values))
    return int(state[0] ^ begin[0]) ^ 0xFFFFFFFF


def masked(checksum: int) -> int:
    """A checksum as TFRecord stores it."""
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def record_places(path: Path) -> list[tuple[int, int]]:
    """(offset, length) of the data of each record; only the lengths are read.

    Raises HeedfulError naming file and record where a length does not match its checksum or the file ends too early.
    """
    size = path.stat().st_size
    places: list[tuple[int, int]] = []
    with path.open("rb") as file:
        at = 0
        while at < size:
            file.seek(at)
            head = file.read(12)
            where = f"{path}: record {len(places)} at byte {at}"
            if len(head) < 12:
                raise HeedfulError(f"{where} ends too early: the file was cut off")
            length, checksum = struct.unpack("<QI", head)
            if masked(crc32c(head[:8])) != checksum:
                raise HeedfulError(f"{where}: the checksum of its length is wrong: the file is damaged")
            if at + length + 16 > size:
                raise HeedfulError(f"{where} ends too early: the file was cut off")
            places.append((at + 12, length))
            at += length + 16
    return places


def read_record(path: Path, place: tuple[int, int], where: str) -> bytes:
    """The data of a record. Raises HeedfulError with the place where its checksum is wrong."""
    offset, length = place
    with path.open("rb") as file:
        file.seek(offset)
        data, tail = file.read(length), file.read(4)
    if len(data) < length or len(tail) < 4 or masked(crc32c(data)) != struct.unpack("<I", tail)[0]:
        raise HeedfulError(f"{where}: the checksum of its data is wrong: {path} is damaged")
    return data


def write_record(file: BinaryIO, data: bytes) -> None:
    """Add one record to a file."""
    head = struct.pack("<Q", len(data))
    file.write(
        head + struct.pack("<I", masked(crc32c(head))) + data + struct.pack("<I", masked(crc32c(data)))
    )


def parse_example(data: bytes, where: str) -> dict[str, Value]:
    """The features of a tf.train.Example: byte strings as a list, float32 and int64 as arrays, empty ones as [].

    Raises HeedfulError with the place where the bytes are no Example.
    """
    try:
        found: dict[str, Value] = {}
        for number, features in _fields(memoryview(data)):
            if number != 1:
                continue
            for _, entry in _fields(features):
                parts = dict(_fields(entry))
                found[bytes(parts[1]).decode("utf-8")] = _value(parts.get(2, memoryview(b"")))
        return found
    except (IndexError, KeyError, ValueError, struct.error, UnicodeDecodeError) as error:
        raise HeedfulError(f"{where} is no tf.train.Example: {error!r}") from error


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """(number, value) of each field of a message."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
        elif kind == 2:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise ValueError("a field ends too early")
            yield number, data[at : at + length]
            at += length
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            yield number, data[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {kind}")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _value(data: memoryview) -> Value:
    for kind, inner in _fields(data):
        if kind == 1:
            return [bytes(value) for _, value in _fields(inner)]
        if kind == 2:
            parts = [np.frombuffer(value, dtype="<f4") for _, value in _fields(inner)]
            return np.concatenate(parts) if parts else np.zeros(0, np.float32)
        if kind == 3:
            numbers: list[int] = []
            for _, value in _fields(inner):
                numbers += [value] if isinstance(value, int) else _varints(value)
            return np.array([n - 2**64 if n >= 2**63 else n for n in numbers], dtype=np.int64)
    return []


def _varints(data: memoryview) -> list[int]:
    values = np.frombuffer(data, dtype=np.uint8)
    if not (values & 128).any():
        return values.tolist()
    found, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        found.append(value)
    return found


def make_example(features: Mapping[str, Sequence[bytes] | Array]) -> bytes:
    """A tf.train.Example with these features; arrays of whole numbers or booleans are int64, others float32."""
    entries = []
    for name, values in features.items():
        if isinstance(values, np.ndarray) and values.dtype.kind in "iub":
            packed = b"".join(_make_varint(int(v) % 2**64) for v in values.reshape(-1))
            kind, inner = 3, _field(1, packed)
        elif isinstance(values, np.ndarray):
            kind, inner = 2, _field(1, values.astype("<f4").tobytes())
        else:
            kind, inner = 1, b"".join(_field(1, value) for value in values)
        entries.append(_field(1, _field(1, name.encode()) + _field(2, _field(kind, inner))))
    return _field(1, b"".join(entries))


def _field(number: int, data: bytes) -> bytes:
    return _make_varint(number << 3 | 2) + _make_varint(len(data)) + data


def _make_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_records(path: Path, examples: Iterable[bytes]) -> None:
    """Write a TFRecord file of these records."""
    from heedful.atomic import appearing

    with appearing(path) as out:
        for data in examples:
            write_record(out, data)
