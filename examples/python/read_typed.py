"""Reads typed objects out of a Plasma store, by the schema that is stored with each.

    read_typed.py SOCKET [ID ...]

shows these objects, or all typed ones that are there. It needs pyarrow 11 (the last release that has Plasma)
and numpy, and knows nothing of the programs that wrote the objects. As a module:

    client = plasma.connect("/tmp/plasma")
    value = read_typed.get(client, object_id).value

The value is a numpy array on the object's own memory: nothing is copied, and it cannot be written.
"""

import json
import struct
import sys
import warnings
from typing import Any, NamedTuple, Optional

import numpy

warnings.simplefilter("ignore", DeprecationWarning)
import pyarrow.plasma as plasma  # noqa: E402

# Magic, format, flags, fingerprint, length of the tail, of the schema, of the user's metadata.
HEADER = struct.Struct("<4sHH16sQII")

# What Rust's types are in numpy. 128 bits are more than it can count: those are bytes.
SCALARS = {
    "u8": "u1",
    "u16": "u2",
    "u32": "u4",
    "u64": "u8",
    "u128": "V16",
    "i8": "i1",
    "i16": "i2",
    "i32": "i4",
    "i64": "i8",
    "i128": "V16",
    "f32": "f4",
    "f64": "f8",
    "bool": "?",
    "char": "u4",
    "str": "u1",
}


class Untyped(Exception):
    """The object was not made by a typed client."""


class TypedObject(NamedTuple):
    """A typed object, read where it lies."""

    # As it is stored: byte order, size, alignment and type.
    schema: dict
    # All of it, or of a struct with a tail what comes before that: an array of the schema's dtype,
    # of one dimension if the object is a slice or a `str`, of none otherwise; arrays add theirs.
    value: numpy.ndarray
    # The tail of a struct that has one.
    tail: Optional[numpy.ndarray]
    # What the writer wanted to be kept with it.
    user_meta: bytes

    def text(self) -> str:
        """What is in a `str`; this is a copy."""
        return self.value.tobytes().decode()


def get(client, object_id, timeout_ms=0) -> TypedObject:
    """Gets a typed object, waiting for it if it is not sealed yet."""
    [(metadata, data)] = client.get_buffers([object_id], timeout_ms, with_meta=True)
    if data is None:
        raise KeyError(object_id)
    return parse(memoryview(metadata), data)


def parse(metadata, data) -> TypedObject:
    """Makes an object out of its metadata and its data."""
    if bytes(metadata[:4]) != b"PLT1":
        raise Untyped("its metadata is not that of a typed object")
    _, format, flags, _, tail_len, schema_len, user_len = HEADER.unpack_from(metadata)
    if (format, flags) != (1, 0):
        raise ValueError(f"format {format} with flags {flags:#x}: this reads 1 without flags")
    if len(metadata) != HEADER.size + schema_len + user_len:
        raise ValueError("the metadata is not as long as it says")
    user_at = HEADER.size + schema_len
    schema = json.loads(bytes(metadata[HEADER.size : user_at]))
    user_meta = bytes(metadata[user_at:])

    kind = schema["type"]
    dtype = dtype_of(schema)
    if is_slice(kind):
        return TypedObject(schema, numpy.frombuffer(data, dtype, tail_len), None, user_meta)
    value = numpy.ndarray((), dtype, data)
    tail = None
    place = tail_of(kind)
    if place is not None:
        offset, element = place
        element = dtype_of({**schema, "type": element})
        tail = numpy.frombuffer(data, element, tail_len, offset)
    return TypedObject(schema, value, tail, user_meta)


def dtype_of(schema) -> numpy.dtype:
    """What the schema is in numpy: of a slice, one element; of a struct, all but its tail."""
    order = "<" if schema["endian"] == "little" else ">"
    return numpy.dtype(_format(schema["type"], order))


def _format(kind, order):
    if isinstance(kind, str):
        return order + SCALARS[kind.removeprefix("NonZero").lower()]
    if "slice" in kind:
        return _format(kind["slice"], order)
    if "array" in kind:
        # Arrays of arrays are one array of more dimensions.
        lens = []
        while "array" in kind:
            lens.append(kind["len"])
            kind = kind["array"]
        return (_format(kind, order), tuple(lens))
    if "enum" in kind:
        # It is its number; the names go along with it.
        names = {variant["value"]: variant["name"] for variant in kind["variants"]}
        return numpy.dtype(_format(kind["repr"], order), metadata={"names": names})
    fields = [field for field in kind["fields"] if size_of(field["type"]) > 0]
    return numpy.dtype(
        {
            "names": [field["name"] for field in fields],
            "formats": [_format(field["type"], order) for field in fields],
            "offsets": [field["offset"] for field in fields],
            "itemsize": kind["size"],
        }
    )


def size_of(kind) -> int:
    """Bytes of a type, not counting a tail."""
    if is_slice(kind):
        return 0
    if isinstance(kind, str):
        return numpy.dtype(_format(kind, "<")).itemsize
    if "array" in kind:
        return kind["len"] * size_of(kind["array"])
    if "enum" in kind:
        return size_of(kind["repr"])
    return kind["size"]


def is_slice(kind) -> bool:
    return kind == "str" or "slice" in kind


def tail_of(kind):
    """Where a struct's tail starts, and what it is made of; None for what has no tail."""
    if "struct" not in kind or not kind["fields"]:
        return None
    last = kind["fields"][-1]
    if is_slice(last["type"]):
        return last["offset"], last["type"]
    inner = tail_of(last["type"])
    return inner and (last["offset"] + inner[0], inner[1])


def plain(value, kind) -> Any:
    """A value as Python's own, with the names of an enum's variants; this is a copy."""
    if isinstance(kind, str):
        if kind == "char":
            return chr(value.item())
        if kind.endswith("128"):
            signed = kind.lower().endswith("i128")
            return int.from_bytes(value.tobytes(), sys.byteorder, signed=signed)
        return value.item()
    if "array" in kind:
        return [plain(element, kind["array"]) for element in value]
    if "enum" in kind:
        names = {variant["value"]: variant["name"] for variant in kind["variants"]}
        return names[value.item()]
    return {
        field["name"]: plain(value[field["name"]], field["type"])
        for field in kind["fields"]
        if size_of(field["type"]) > 0
    }


def title(kind) -> str:
    """What a type is called."""
    if isinstance(kind, str):
        return kind
    if "slice" in kind:
        return f"[{title(kind['slice'])}]"
    if "array" in kind:
        return f"[{title(kind['array'])}; {kind['len']}]"
    return f"{kind.get('struct') or kind.get('enum')} v{kind['version']}"


def show(object_id, found):
    kind = found.schema["type"]
    print(f"{object_id.binary().hex()}  {title(kind)}")
    print(f"    {found.value.dtype}")
    if kind == "str":
        print(f"    {found.text()!r}")
    elif is_slice(kind):
        for element in found.value[:3]:
            print(f"    {plain(element, kind['slice'])}")
        if len(found.value) > 3:
            print(f"    and {len(found.value) - 3} more")
    else:
        print(f"    {plain(found.value, kind)}")
    if found.tail is not None:
        print(f"    and a tail of {len(found.tail)} elements: {found.tail[:8]}")


def main(socket, *ids):
    client = plasma.connect(socket)
    for object_id in map(plasma.ObjectID, map(bytes.fromhex, ids)):
        show(object_id, get(client, object_id))
    if not ids:
        for object_id in client.list():
            try:
                show(object_id, get(client, object_id))
            except (Untyped, KeyError):
                # Of another kind, or not sealed yet.
                continue


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
