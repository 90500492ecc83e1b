"""A reader of ONNX files, enough to know what is in one before any runtime touches it.

An ONNX file is one protobuf message (onnx.proto, version 2 syntax). The wire format is a run of fields, each a tag
(number and wire type) and a varint, 4 bytes, 8 bytes or a length with so many bytes. This module walks them with
bounds checked everywhere, in time linear in the file and without copying weights; what it cannot read is a
``ModelError`` that names the file. It is stricter than protobuf where a lenient reader would let two readers see two
different models: a message that may stand once stands once, and a known field has its own wire type.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import numpy as np

from ..errors import ModelError
from .onnx_parts import Attribute, Graph, MetadataEntry, Node, OnnxFile, Span, SparseTensor, Tensor, Value, signed

MAX_FILE_BYTES = 2**31 - 1  # protobuf's own limit
MAX_FIELDS = 1_000_000  # a network of thousands of nodes has some 100,000
MAX_DEPTH = 8  # graphs inside nodes of graphs
MAX_TEXT = 256  # bytes of a word among the attributes that are kept

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def parse_onnx(data: bytes | memoryview, where: str) -> OnnxFile:
    """Read a whole ONNX file (without its weights' values).

    Raises:
        ModelError: truncated, or not an ONNX file; ``where`` names it.
    """
    return _Parser(data, where).model()


def metadata_entries(data: bytes | memoryview, where: str) -> list[MetadataEntry]:
    """Only the metadata entries of an ONNX file; the graph is passed over unread.

    Raises:
        ModelError: truncated, or not an ONNX file.
    """
    parser = _Parser(data, where)
    return [parser.metadata(start, end, tag) for number, _, _, start, end, tag in parser.top() if number == 14]


class _Parser:
    """Walks one file; ``budget`` bounds the number of fields and so the time."""

    def __init__(self, data: bytes | memoryview, where: str) -> None:
        self.data = memoryview(data).cast("B")
        self.where = where
        self.budget = MAX_FIELDS
        if len(self.data) > MAX_FILE_BYTES:
            raise ModelError(f"{where}: {len(self.data)} bytes, more than an ONNX file can have ({MAX_FILE_BYTES})")
        if not len(self.data):
            raise ModelError(f"{where}: the file is empty")

    def fail(self, why: str) -> NoReturn:
        raise ModelError(f"{self.where}: not a whole ONNX file ({why})")

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """Return (unsigned value, next position)."""
        value = shift = 0
        while True:
            if at >= end or shift >= 70:
                self.fail(f"a number breaks off at byte {at}")
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, at
            shift += 7

    def fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int, int, int]]:
        """Yield (number, wire type, varint, payload start, payload end, tag start) of each field of a message."""
        at = start
        while at < end:
            self.budget -= 1
            if self.budget < 0:
                self.fail(f"more than {MAX_FIELDS} fields")
            tag_start = at
            tag, at = self.varint(at, end)
            number, wire = tag >> 3, tag & 7
            value, first = 0, at
            if wire == VARINT:
                value, at = self.varint(at, end)
            elif wire == BYTES:
                size, first = self.varint(at, end)
                at = first + size
            elif wire == FIXED32:
                at += 4
            elif wire == FIXED64:
                at += 8
            else:
                self.fail(f"wire type {wire} at byte {tag_start}")
            if number == 0:
                self.fail(f"field 0 at byte {tag_start}")
            if at > end:
                self.fail(f"{at - end} bytes are missing at byte {first}")
            yield number, wire, value, first, at, tag_start

    def message(
        self, start: int, end: int, wires: dict[int, int], once: tuple[int, ...] = ()
    ) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield (number, varint, payload start, payload end, tag start) of the fields in ``wires``, checked.

        ``once`` are the numbers of messages that protobuf would merge if they stood twice.
        """
        seen = set()
        for number, wire, value, first, last, tag in self.fields(start, end):
            if number not in wires:
                continue
            if wire != wires[number]:
                self.fail(f"field {number} has wire type {wire} at byte {tag}")
            if number in once:
                if number in seen:
                    self.fail(f"field {number} stands twice at byte {tag}")
                seen.add(number)
            yield number, value, first, last, tag

    def text(self, start: int, end: int) -> str:
        try:
            return str(self.data[start:end], "utf-8")
        except UnicodeDecodeError:
            self.fail(f"a name is not UTF-8 at byte {start}")

    def top(self) -> Iterator[tuple[int, int, int, int, int, int]]:
        """The fields of the outermost message; a file without a graph is not ONNX."""
        wires = {1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 7: BYTES, 8: BYTES, 14: BYTES}
        wires |= {20: BYTES, 25: BYTES}
        graphs = 0
        for row in self.fields(0, len(self.data)):
            number, wire, _, _, _, tag = row
            if wire != wires.get(number, wire):
                self.fail(f"field {number} has wire type {wire} at byte {tag}")
            graphs += number == 7
            if graphs > 1:
                self.fail(f"a second graph at byte {tag}")
            yield row
        if not graphs:
            self.fail("no graph in it")

    def model(self) -> OnnxFile:
        graph: Graph | None = None
        metadata, opsets, producer = [], {}, ""
        ir_version = functions = training = 0
        for number, _, value, start, end, tag in self.top():
            if number == 1:
                ir_version = value
            elif number == 2:
                producer = self.text(start, end)
            elif number == 7:
                graph = self.graph(start, end, 0)
            elif number == 8:
                domain, version = self.opset(start, end)
                opsets[domain] = version
            elif number == 14:
                metadata.append(self.metadata(start, end, tag))
            elif number == 20:
                training += 1
            elif number == 25:
                functions += 1
        if graph is None:  # top() has failed before
            self.fail("no graph in it")
        return OnnxFile(
            self.data, self.where, graph, tuple(metadata), ir_version, opsets, producer, functions, training
        )

    def opset(self, start: int, end: int) -> tuple[str, int]:
        domain, version = "", 0
        for number, value, first, last, _ in self.message(start, end, {1: BYTES, 2: VARINT}):
            if number == 1:
                domain = self.text(first, last)
            else:
                version = value
        return domain, version

    def metadata(self, start: int, end: int, tag: int) -> MetadataEntry:
        key, span = "", (end, end)
        for number, _, first, last, _ in self.message(start, end, {1: BYTES, 2: BYTES}, once=(1, 2)):
            if number == 1:
                key = self.text(first, last)
            else:
                span = (first, last)
        return MetadataEntry(key, span, (tag, end))

    def graph(self, start: int, end: int, depth: int) -> Graph:
        if depth > MAX_DEPTH:
            self.fail(f"graphs nested more than {MAX_DEPTH} deep")
        nodes, initializers, sparse = [], [], []
        lists: dict[int, list[Value]] = {11: [], 12: [], 13: []}
        wires = {1: BYTES, 5: BYTES, 11: BYTES, 12: BYTES, 13: BYTES, 15: BYTES}
        for number, _, first, last, _ in self.message(start, end, wires):
            if number == 1:
                nodes.append(self.node(first, last, depth))
            elif number == 5:
                initializers.append(self.tensor(first, last))
            elif number == 15:
                sparse.append(self.sparse(first, last))
            else:
                lists[number].append(self.value(first, last))
        return Graph(
            tuple(nodes), tuple(initializers), tuple(sparse), tuple(lists[11]), tuple(lists[12]), tuple(lists[13])
        )

    def node(self, start: int, end: int, depth: int) -> Node:
        texts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: [], 7: []}
        attributes = {}
        for number, _, first, last, _ in self.message(start, end, dict.fromkeys((1, 2, 3, 4, 5, 7), BYTES)):
            if number == 5:
                attribute = self.attribute(first, last, depth)
                if attribute.name in attributes:
                    self.fail(f"attribute {attribute.name!r} stands twice at byte {first}")
                attributes[attribute.name] = attribute
            else:
                texts[number].append(self.text(first, last))
        name, op_type, domain = ("".join(texts[number][-1:]) for number in (3, 4, 7))
        return Node(op_type, domain, name, tuple(texts[1]), tuple(texts[2]), attributes)

    def attribute(self, start: int, end: int, depth: int) -> Attribute:
        name, i, f, text = "", None, None, b""
        ints: list[int] = []
        floats: list[float] = []
        tensors: list[Tensor] = []
        sparse: list[SparseTensor] = []
        graphs: list[Graph] = []
        for number, wire, value, first, last, tag in self.fields(start, end):
            if number in (1, 4, 5, 6, 10, 11, 22, 23) and wire != BYTES:
                self.fail(f"field {number} has wire type {wire} at byte {tag}")
            if (number in (5, 22) and (tensors or sparse)) or (number == 6 and graphs):
                self.fail(f"field {number} stands twice at byte {tag}")
            if number == 1:
                name = self.text(first, last)
            elif number == 2 and wire == FIXED32:
                f = float(np.frombuffer(self.data[first:last], "<f4")[0])
            elif number == 3 and wire == VARINT:
                i = signed(value)
            elif number == 4:
                text = bytes(self.data[first : min(last, first + MAX_TEXT)])
            elif number == 7:
                floats += np.frombuffer(self.data[first : last - (last - first) % 4], "<f4").tolist()
            elif number == 8:
                ints += [signed(value)] if wire == VARINT else self.packed(first, last)
            elif number in (5, 10):
                tensors.append(self.tensor(first, last))
            elif number in (22, 23):
                sparse.append(self.sparse(first, last))
            elif number in (6, 11):
                graphs.append(self.graph(first, last, depth + 1))
        return Attribute(name, i, f, text, tuple(ints), tuple(floats), tuple(tensors), tuple(sparse), tuple(graphs))

    def packed(self, start: int, end: int) -> list[int]:
        """Signed numbers of a packed field of varints."""
        numbers, at = [], start
        while at < end:
            self.budget -= 1
            if self.budget < 0:
                self.fail(f"more than {MAX_FIELDS} fields")
            value, at = self.varint(at, end)
            numbers.append(signed(value))
        return numbers

    def tensor(self, start: int, end: int) -> Tensor:
        name, data_type, external, entries, raw = "", 0, False, 0, 0
        dims: list[int] = []
        kinds = {4: "float", 5: "int32", 6: "string", 7: "int64", 10: "double", 11: "uint64", 9: "raw"}
        spans: dict[str, list[Span]] = {}
        for number, wire, value, first, last, tag in self.fields(start, end):
            if (number in (8, 9, 13, 6) and wire != BYTES) or (number in (2, 14) and wire != VARINT):
                self.fail(f"field {number} has wire type {wire} at byte {tag}")
            if number == 1:
                dims += [signed(value)] if wire == VARINT else self.packed(first, last)
            elif number == 2:
                data_type = value
            elif number == 3:
                self.fail(f"a tensor in segments at byte {tag}")
            elif number == 8:
                name = self.text(first, last)
            elif number == 13 or (number == 14 and value):
                external = True
            elif number in kinds:
                raw += number == 9
                if raw > 1:
                    self.fail(f"raw data stand twice at byte {tag}")
                spans.setdefault(kinds[number], []).append((first, last))
                entries += self.count(number, wire, first, last)
        storage = "mixed" if len(spans) > 1 else next(iter(spans), "")
        places = tuple(span for group in spans.values() for span in group)
        return Tensor(name, data_type, tuple(dims), storage, places, entries, external)

    def count(self, number: int, wire: int, first: int, last: int) -> int:
        """How many values one occurrence of a tensor's data field holds."""
        size = last - first
        if number in (6, 9) or wire != BYTES:
            return 1
        if number in (4, 10):  # float, double
            width = 4 if number == 4 else 8
            if size % width:
                self.fail(f"{size} bytes of {width}-byte values at byte {first}")
            return size // width
        if size and self.data[last - 1] >= 0x80:
            self.fail(f"a number breaks off at byte {last}")
        return int(np.count_nonzero(np.frombuffer(self.data[first:last], np.uint8) < 0x80))

    def sparse(self, start: int, end: int) -> SparseTensor:
        parts: dict[int, Tensor] = {}
        dims: list[int] = []
        for number, wire, value, first, last, tag in self.fields(start, end):
            if number in (1, 2):
                if wire != BYTES or number in parts:
                    self.fail(f"field {number} of a sparse tensor at byte {tag}")
                parts[number] = self.tensor(first, last)
            elif number == 3:
                dims += [signed(value)] if wire == VARINT else self.packed(first, last)
        return SparseTensor(parts.get(1), parts.get(2), tuple(dims))

    def value(self, start: int, end: int) -> Value:
        name, data_type, dims = "", 0, None
        for number, _, first, last, _ in self.message(start, end, {1: BYTES, 2: BYTES}, once=(2,)):
            if number == 1:
                name = self.text(first, last)
                continue
            for _, _, tensor_first, tensor_last, _ in self.message(first, last, {1: BYTES}, once=(1,)):
                for part, code, a, b, _ in self.message(tensor_first, tensor_last, {1: VARINT, 2: BYTES}, once=(2,)):
                    if part == 1:
                        data_type = code
                    else:
                        dims = tuple(self.dim(c, d) for _, _, c, d, _ in self.message(a, b, {1: BYTES}))
        return Value(name, data_type, dims)

    def dim(self, start: int, end: int) -> int | str | None:
        dim: int | str | None = None
        for number, value, first, last, _ in self.message(start, end, {1: VARINT, 2: BYTES}):
            dim = signed(value) if number == 1 else self.text(first, last)
        return dim
