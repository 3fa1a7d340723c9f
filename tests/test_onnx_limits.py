"""What an ONNX file may hold: files made to be small and to need much, real ones, damaged ones."""

import math
import os
import re
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, Callable, List, NamedTuple, Tuple

import numpy
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from launch import onnx_limits, onnx_model
from launch.errors import KitError
from launch.onnx_limits import DEFAULT, Limits, check

from .conftest import assert_user_error, run

VARINT, FIXED64, BYTES, GROUP, GROUP_END, FIXED32 = range(6)


def varint(number: int, *, bytes_used: int = 1) -> bytes:
    """The number; with more bytes than it needs, where more are asked for."""
    low = bytearray()
    while number > 127 or len(low) + 1 < bytes_used:
        low.append(number & 127 | 128)
        number >>= 7
    return bytes([*low, number])


def tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def within(content: bytes, *numbers: int) -> bytes:
    """``content`` as the field with the last number, in that with the number before, and so on."""
    for number in reversed(numbers):
        content = tag(number, BYTES) + varint(len(content)) + content
    return content


def number_of(message: str, field: str) -> int:
    return getattr(onnx, message).DESCRIPTOR.fields_by_name[field].number  # type: ignore[no-any-return]


GRAPH = number_of("ModelProto", "graph")
NODE, INITIALIZER = number_of("GraphProto", "node"), number_of("GraphProto", "initializer")
INPUT, ATTRIBUTE = number_of("NodeProto", "input"), number_of("NodeProto", "attribute")
INTS, FLOATS, T, G = (number_of("AttributeProto", name) for name in ("ints", "floats", "t", "g"))
DIMS, DATA_TYPE, FLOAT_DATA, INT64_DATA, RAW_DATA = (
    number_of("TensorProto", name) for name in ("dims", "data_type", "float_data", "int64_data", "raw_data")
)
UNKNOWN = 1000


def refusal(path: Path, limits: Limits = DEFAULT) -> KitError:
    with pytest.raises(KitError) as caught:
        check(path, limits)
    assert caught.value.where == str(path)
    assert caught.value.hint
    return caught.value


@pytest.fixture
def written(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        return path

    return write


@pytest.fixture(scope="module")
def reused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that each example of a property writes anew."""
    return tmp_path_factory.mktemp("limits") / "model.onnx"


# ---- what is accepted


def with_tensors(*tensors: TensorProto) -> ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    node = helper.make_node(
        "Identity", ["x"], ["x"], doc_string="remark", axes=[1, -2], to=1.5, mode="linear"
    )
    graph = helper.make_graph([node], "g", [value], [value], list(tensors))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)])


def raw(values: Any) -> TensorProto:
    return numpy_helper.from_array(numpy.asarray(values), "raw")


def typed(data_type: int, dims: List[int], values: List[Any]) -> TensorProto:
    return helper.make_tensor("typed", data_type, dims, values)


def elsewhere() -> TensorProto:
    tensor = TensorProto(name="far", data_type=TensorProto.FLOAT, dims=[1000, 1000])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    return tensor


def nested() -> ModelProto:
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    constant = helper.make_node("Constant", [], ["y"], value=raw(numpy.float32([1, 2])))
    branch = helper.make_graph([constant], "branch", [], [value])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.INT64, None)
    graph = helper.make_graph([node], "g", [sequence], [value])
    graph.sparse_initializer.append(
        helper.make_sparse_tensor(raw(numpy.float32([3])), raw(numpy.int64([7])), [10**6, 10**6])
    )
    return helper.make_model(graph)


SMALL = {
    "raw": with_tensors(
        *(
            raw(numpy.ones((2, 3), kind))
            for kind in ("f2", "f4", "f8", "i1", "i8", "u1", "u4", "?", "c8", "c16")
        )
    ),
    "typed": with_tensors(
        *(
            typed(kind, [2, 3], [1] * 6)
            for kind in range(TensorProto.FLOAT, TensorProto.BFLOAT16)
            if kind not in (TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128)
        )
    ),
    "complex": with_tensors(typed(TensorProto.COMPLEX64, [2], [1 + 2j, 3])),
    "texts": with_tensors(typed(TensorProto.STRING, [3], [b"a", b"", b"c" * 99])),
    "one element": with_tensors(raw(numpy.float32(1))),
    "no element": with_tensors(raw(numpy.ones((0, 10**9), "f4")), typed(TensorProto.FLOAT, [0], [])),
    "no shape and no value": with_tensors(TensorProto()),
    "four bits each": with_tensors(TensorProto(dims=[7], data_type=22, raw_data=b"1234")),
    "in another file": with_tensors(elsewhere()),
    "graphs in attributes": nested(),
    "nothing but a version": ModelProto(ir_version=3),
}


@pytest.mark.parametrize("model", SMALL.values(), ids=SMALL)
def test_real_models_are_accepted(written, model: ModelProto) -> None:
    check(written(model.SerializeToString()))


def counts(message: Any, depth: int = 0) -> Tuple[int, int, int, int]:
    """Messages, fields, values and depth of a message as protobuf writes it."""
    messages, fields, values, deepest = 1, 0, 0, depth
    for field, content in message.ListFields():
        several = content if field.label == field.LABEL_REPEATED else [content]
        packed = field.has_options and field.GetOptions().packed
        fields += 1 if packed else len(several)
        if field.message_type:
            inner = [counts(one, depth + 1) for one in several]
            messages += sum(one[0] for one in inner)
            fields += sum(one[1] for one in inner)
            values += sum(one[2] for one in inner)
            deepest = max(deepest, *(one[3] for one in inner))
        elif several is content:
            values += len(content)
    return messages, fields, values, deepest


def exact(message: Any) -> Limits:
    """Limits that a message just keeps."""
    messages, fields, values, depth = counts(message)
    return Limits(file_bytes=message.ByteSize(), messages=messages, fields=fields, values=values, depth=depth)


# ---- limits, to the unit


def texts(descriptor: Any) -> Any:
    if descriptor.type == descriptor.TYPE_BYTES:
        return st.binary(max_size=20)
    return st.text(max_size=5) | st.just("long" * 40)


def numbers(descriptor: Any) -> Any:
    kinds = {
        descriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
        descriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
        descriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
        descriptor.CPPTYPE_FLOAT: st.floats(width=32),
        descriptor.CPPTYPE_DOUBLE: st.floats(),
    }
    if descriptor.enum_type:
        return st.sampled_from([value.number for value in descriptor.enum_type.values])
    return kinds[descriptor.cpp_type]


@st.composite
def messages(draw: Any, kind: Any = ModelProto, depth: int = 0) -> Any:
    """Any message of a kind, but that its tensors hold what they declare."""
    message = kind()
    fields = [field for field in kind.DESCRIPTOR.fields if depth < 6 or not field.message_type]
    if not fields:
        return message
    for field in draw(st.lists(st.sampled_from(fields), max_size=4, unique_by=lambda field: field.name)):
        several = draw(st.integers(0, 3)) if field.label == field.LABEL_REPEATED else 1
        for _ in range(several):
            if field.message_type:
                inner = draw(messages(field.message_type._concrete_class, depth + 1))
                if field.label == field.LABEL_REPEATED:
                    getattr(message, field.name).append(inner)
                else:
                    getattr(message, field.name).CopyFrom(inner)
            else:
                text = field.type in (field.TYPE_BYTES, field.TYPE_STRING)
                value = draw((texts if text else numbers)(field))
                if field.label == field.LABEL_REPEATED:
                    getattr(message, field.name).append(value)
                else:
                    setattr(message, field.name, value)
    if kind is TensorProto:
        message.ClearField("dims")
        message.dims.extend(draw(st.sampled_from([[], [1], [1, 1], [0], [0, 2**62]])))
        if math.prod(message.dims):
            message.data_type = draw(st.sampled_from([TensorProto.UINT8, TensorProto.BOOL, 99]))
            message.raw_data = draw(st.binary(min_size=1, max_size=9))
    return message


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(model=messages())
def test_every_unit_counts(reused: Path, model: ModelProto) -> None:
    content = model.SerializeToString()
    assume(content)
    ModelProto.FromString(content)
    reused.write_bytes(content)
    limits = exact(model)
    check(reused)
    check(reused, limits)
    for name, words in (
        ("file_bytes", "bytes"),
        ("messages", "messages"),
        ("fields", "fields"),
        ("values", "values"),
        ("depth", "within each other"),
    ):
        most = getattr(limits, name)
        if most:
            less = Limits(**{**vars(limits), name: most - 1})
            error = refusal(reused, less)
            assert "too much" in error.what
            assert words in error.what
            assert f"where {most - 1:,} are the limit" in error.what


def test_values_count_packed_and_not(written) -> None:
    for number in (1, 2**63, 2**64 - 1):
        one = varint(number)
        for wire, path in (
            (within((tag(INTS, VARINT) + one) * 9, GRAPH, NODE, ATTRIBUTE), "ints"),
            (within(one * 9, GRAPH, NODE, ATTRIBUTE, INTS), "packed ints"),
            (within((tag(INT64_DATA, VARINT) + one) * 9, GRAPH, INITIALIZER), "int64_data"),
            (within(one * 9, GRAPH, INITIALIZER, INT64_DATA), "packed int64_data"),
            (
                within(one * 4, GRAPH, NODE, ATTRIBUTE, INTS) + within(one * 5, GRAPH, NODE, ATTRIBUTE, INTS),
                "2",
            ),
        ):
            check(written(wire), Limits(values=9))
            assert "at least 9 values" in refusal(written(wire), Limits(values=8)).what, path
    four = struct.pack("<f", 1)
    for wire in (
        within((tag(FLOATS, FIXED32) + four) * 9, GRAPH, NODE, ATTRIBUTE),
        within(four * 9, GRAPH, NODE, ATTRIBUTE, FLOATS),
        within(four * 9, GRAPH, INITIALIZER, FLOAT_DATA),
    ):
        check(written(wire), Limits(values=9))
        assert "at least 9 values" in refusal(written(wire), Limits(values=8)).what


@pytest.mark.parametrize("size", [onnx_limits._CHUNK - 4, onnx_limits._CHUNK, 3 * onnx_limits._CHUNK + 7])
def test_packed_numbers_across_what_is_read_at_once(written, size: int) -> None:
    for length in (1, 3, 10):
        many = size // length
        wire = within(varint(1, bytes_used=length) * many, GRAPH, NODE, ATTRIBUTE, INTS)
        assert len(ModelProto.FromString(wire).graph.node[0].attribute[0].ints) == many
        check(written(wire), Limits(values=many))
        assert "values" in refusal(written(wire), Limits(values=many - 1)).what
    for end in (b"\x80" * 10 + b"\0", b"\x80"):
        bad = within(b"\0" * (size - 5) + end, GRAPH, NODE, ATTRIBUTE, INTS)
        assert "a packed number that does not end" in refusal(written(bad)).what
        with pytest.raises(DecodeError):
            ModelProto.FromString(bad)


def test_unknown_fields_count_by_their_bytes(written) -> None:
    for wire in (
        tag(UNKNOWN, VARINT) + b"\x05",
        tag(UNKNOWN, FIXED32) + bytes(4),
        tag(UNKNOWN, FIXED64) + bytes(8),
        within(b"text", UNKNOWN),
        within(b"a graph is no string", 2 + 5 * 100),
        tag(GRAPH, VARINT) + b"\x05",  # known by its number, but not in this form
    ):
        kept = ModelProto.FromString(wire)
        assert kept.ByteSize() == len(wire)
        assert not kept.ListFields()
        check(written(wire), Limits(values=len(wire)))
        assert "values" in refusal(written(wire), Limits(values=len(wire) - 1)).what


def test_a_message_that_is_given_in_parts_counts_each_time(written) -> None:
    """protobuf joins the parts to one."""
    part = within(b"", GRAPH, NODE)
    wire = part * 5 + within(b"", GRAPH) * 3
    assert counts(ModelProto.FromString(wire))[0] == 1 + 1 + 5
    check(written(wire), Limits(messages=1 + 8 + 5))
    assert "at least 14 messages" in refusal(written(wire), Limits(messages=13)).what


def test_protobuf_refuses_what_is_nested_too_deeply(written) -> None:
    chain = [GRAPH, NODE, ATTRIBUTE] + 40 * [G, NODE, ATTRIBUTE]
    wire = within(b"", *chain[: DEFAULT.depth])
    ModelProto.FromString(wire)
    check(written(wire))
    wire = within(b"", *chain[: DEFAULT.depth + 1])
    with pytest.raises(DecodeError):
        ModelProto.FromString(wire)
    assert "at least 101 messages within each other, where 100" in refusal(written(wire)).what
    wire = within(b"", *chain[:120])
    assert "at least 101 messages within each other" in refusal(written(wire)).what


# ---- tensors that declare more than they hold


def shaped(*dims: int, packed: bool = False, **more: Any) -> bytes:
    tensor = TensorProto(**{"data_type": TensorProto.FLOAT, "raw_data": b"1234", **more}).SerializeToString()
    sizes = [varint(size % 2**64) for size in dims]
    shape = within(b"".join(sizes), DIMS) if packed else b"".join(tag(DIMS, VARINT) + size for size in sizes)
    return shape + tensor


FALSE_SHAPES = [
    ((10**15,), "1,000,000,000,000,000 elements are declared, 1 are there"),
    ((10**5, 10**5, 10**5), "1,000,000,000,000,000 elements are declared, 1 are there"),
    ((2,), "2 elements are declared, 1 are there"),
    ((-1,), "a dimension of -1"),
    ((-(2**63), 0), "a dimension of -9223372036854775808"),
    ((2**32, 2**32), "more elements than 63 bits can count"),
    ((2**40, 2**40), "more elements than 63 bits can count"),
    ((1,) * 33, "at least 33 dimensions of one tensor, where 32 are the limit"),
]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("dims", "words"), FALSE_SHAPES)
def test_a_shape_that_the_values_do_not_fill(
    written, dims: Tuple[int, ...], words: str, packed: bool
) -> None:
    tensor = shaped(*dims, packed=packed)
    assert tuple(TensorProto.FromString(tensor).dims) == dims
    for places in (
        (GRAPH, INITIALIZER),
        (GRAPH, NODE, ATTRIBUTE, T),
        (GRAPH, NODE, ATTRIBUTE, number_of("AttributeProto", "tensors")),
        (GRAPH, number_of("GraphProto", "sparse_initializer"), number_of("SparseTensorProto", "values")),
        (GRAPH, NODE, ATTRIBUTE, G, INITIALIZER),
    ):
        assert words in refusal(written(within(tensor, *places))).what


@pytest.mark.parametrize(
    ("more", "room"),
    [
        ({"raw_data": b"12345678"}, 2),
        ({"data_type": TensorProto.DOUBLE, "raw_data": b"12345678"}, 1),
        ({"data_type": TensorProto.COMPLEX128, "raw_data": b"12345678" * 2}, 1),
        ({"data_type": TensorProto.BFLOAT16, "raw_data": b"12345678"}, 4),
        ({"data_type": TensorProto.INT8, "raw_data": b"12345678"}, 8),
        ({"data_type": TensorProto.UNDEFINED, "raw_data": b"12"}, 16),
        ({"data_type": 99, "raw_data": b"12"}, 16),
        ({"raw_data": b"", "float_data": [1, 2]}, 0),  # numpy would not look at the second
        ({"data_type": TensorProto.STRING, "raw_data": b"12", "string_data": [b"a"]}, 1),
        ({"raw_data": None, "float_data": [1, 2]}, 2),
        ({"data_type": TensorProto.COMPLEX64, "raw_data": None, "float_data": [1, 2]}, 1),
        ({"data_type": TensorProto.BOOL, "raw_data": None, "int32_data": [1, 2, 300]}, 3),
        ({"data_type": TensorProto.UINT32, "raw_data": None, "uint64_data": [1, 2, 300]}, 3),
    ],
)
def test_what_a_tensor_has_room_for(written, more: Any, room: int) -> None:
    check(written(within(shaped(room, **more), GRAPH, INITIALIZER)))
    words = f"{room + 1} elements are declared, {room} are there"
    assert words in refusal(written(within(shaped(room + 1, **more), GRAPH, INITIALIZER))).what


def test_a_shape_counts_wherever_it_stands_in_the_tensor(written) -> None:
    late = TensorProto(data_type=TensorProto.FLOAT, raw_data=b"1234").SerializeToString() + shaped(
        4, data_type=None, raw_data=None
    )
    assert "4 elements are declared" in refusal(written(within(late, GRAPH, INITIALIZER))).what


def test_values_in_another_file_may_be_many_but_not_without_bound(written) -> None:
    far = {"raw_data": None, "data_location": TensorProto.EXTERNAL}
    check(written(within(shaped(10**9, **far), GRAPH, INITIALIZER)))
    words = "more elements than 63 bits can count"
    assert words in refusal(written(within(shaped(2**40, 2**40, **far), GRAPH, INITIALIZER))).what
    # Taken back by the last word, and not by one that protobuf does not know.
    location = tag(number_of("TensorProto", "data_location"), VARINT)
    again = shaped(10**9, **far) + location
    check(written(within(again + b"\x07", GRAPH, INITIALIZER)))
    assert "are declared" in refusal(written(within(again + b"\0", GRAPH, INITIALIZER))).what


def test_tensors_that_protobuf_would_join_are_refused(written) -> None:
    """Each is whole, but the shapes follow each other in the joint one, which has the values of the last."""
    part = shaped(1000, data_type=TensorProto.INT8, raw_data=b"1" * 1000)
    alone = within(within(part, T), GRAPH, NODE, ATTRIBUTE)
    check(written(alone * 2))  # of two nodes
    twice = within(within(part, T) * 2, GRAPH, NODE, ATTRIBUTE)
    joint = ModelProto.FromString(twice).graph.node[0].attribute[0].t
    assert list(joint.dims) == [1000, 1000]
    assert len(joint.raw_data) == 1000
    assert "a second tensor where one belongs" in refusal(written(twice)).what
    sparse = within(within(part, 1), number_of("AttributeProto", "sparse_tensor"))
    assert "a second tensor" in refusal(written(within(sparse * 2, GRAPH, NODE, ATTRIBUTE))).what


# ---- damaged bytes


DAMAGED = {
    "a tag without an end": b"\x08\x01\x80",
    "a tag of six bytes": varint(GRAPH << 3 | BYTES, bytes_used=6) + b"\0",
    "a number without an end": b"\x08\xff",
    "a number that is missing": b"\x08",
    "a number of eleven bytes": b"\x08" + varint(1, bytes_used=11),
    "a length that is missing": tag(GRAPH, BYTES),
    "a length without an end": tag(GRAPH, BYTES) + b"\x80",
    "a length of six bytes": tag(GRAPH, BYTES) + varint(0, bytes_used=6),
    "a length behind the end": tag(GRAPH, BYTES) + b"\x05\0",
    "a length of 32 bits": tag(GRAPH, BYTES) + varint(2**32 - 1),
    "a length of 35 bits": tag(GRAPH, BYTES) + varint(2**35 - 1),
    "a part longer than the whole": within(tag(NODE, BYTES) + b"\x04", GRAPH) + bytes([8, 1, 8, 1]),
    "a text longer than the whole": within(tag(2, BYTES) + b"\x04", GRAPH) + bytes([8, 1, 8, 1]),
    "a number in two messages": within(b"\x50\x80", GRAPH) + b"\x01",
    "four bytes cut": within(tag(2, FIXED32) + b"abc", GRAPH, NODE, ATTRIBUTE),
    "eight bytes cut": tag(UNKNOWN, FIXED64) + b"abcdefg",
    "field 0": b"\x00\x01",
    "field 0 as text": b"\x02\x01a",
    "field 0 in a message": within(b"\x00", GRAPH),
    "wire type 6": tag(1, 6) + b"\x01",
    "wire type 7": tag(UNKNOWN, 7) + b"\x01",
    "the end of a group": tag(1, GROUP_END),
    "the end of a group in a message": within(tag(1, GROUP_END), GRAPH),
    "a group without an end": tag(1, GROUP) + b"\x08\x01",
    "packed floats and a half": within(b"abcdef", GRAPH, INITIALIZER, FLOAT_DATA),
    "packed integers cut": within(b"\x01\x80", GRAPH, INITIALIZER, INT64_DATA),
    "packed integers of eleven bytes": within(varint(1, bytes_used=11), GRAPH, INITIALIZER, INT64_DATA),
    "packed dimensions cut": within(b"\x01\x80", GRAPH, INITIALIZER, DIMS),
}


def is_parsed(content: bytes) -> bool:
    """Whether protobuf takes all of it."""
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            ModelProto.FromString(content)
    except DecodeError:
        return False
    return not said  # so it tells that it stopped before the end


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_bytes(written, content: bytes) -> None:
    assert not is_parsed(content)
    error = refusal(written(content))
    assert "damaged: it has " in error.what
    assert ", at byte " in error.what


def test_forms_that_nobody_writes_but_protobuf_reads(written) -> None:
    for content in (
        varint(GRAPH << 3 | BYTES, bytes_used=5) + varint(0, bytes_used=5),
        b"\x08" + varint(1, bytes_used=10),
        b"\x08" + b"\xff" * 9 + b"\x7f",
        within(tag(DIMS, VARINT) + varint(2**64 + 1) + shaped(), GRAPH, INITIALIZER),
    ):
        assert is_parsed(content)
        check(written(content))


def test_bits_that_protobuf_drops_hide_nothing(written) -> None:
    nodes = within(b"", NODE) * 5
    content = varint(GRAPH << 3 | BYTES | 2**32) + varint(len(nodes)) + nodes
    assert len(ModelProto.FromString(content).graph.node) == 5
    check(written(content), Limits(messages=7))
    assert "7 messages" in refusal(written(content), Limits(messages=6)).what

    content = tag(DATA_TYPE, VARINT) + varint(2**32 + TensorProto.FLOAT) + shaped(2, data_type=None)
    assert TensorProto.FromString(content).data_type == TensorProto.FLOAT
    assert "2 elements are declared, 1" in refusal(written(within(content, GRAPH, INITIALIZER))).what

    location = tag(number_of("TensorProto", "data_location"), VARINT)
    content = shaped(2) + location + varint(TensorProto.EXTERNAL) + location + varint(2**32)
    assert TensorProto.FromString(content).data_location == TensorProto.DEFAULT
    assert "2 elements are declared, 1" in refusal(written(within(content, GRAPH, INITIALIZER))).what


def test_each_packed_dimension_counts_as_a_field(written) -> None:
    """They are decoded one by one: half a million tensors of 32 each would take a quarter of a minute."""
    content = within(shaped(1, 1, 1, 1, packed=True), GRAPH, INITIALIZER)
    check(written(content), Limits(fields=2 + 1 + 4 + 2))
    assert "fields" in refusal(written(content), Limits(fields=8)).what


def test_groups_are_refused_though_protobuf_keeps_them(written) -> None:
    content = tag(UNKNOWN, GROUP) + b"\x08\x01" + tag(UNKNOWN, GROUP_END)
    assert is_parsed(content)
    assert "wire type 3" in refusal(written(content)).what


def test_an_empty_file(written) -> None:
    assert "it is empty" in refusal(written(b"")).what


TIGHT = Limits(file_bytes=4000, messages=40, fields=200, values=300, depth=12)
EXCUSES = ("too much", "wire type 3", "wire type 4", "a tensor", "a second tensor", "it is empty")
"""Refusals of what protobuf would take."""


def assert_agrees_with_protobuf(path: Path, content: bytes, limits: Limits) -> None:
    path.write_bytes(content)
    refused = ""
    try:
        check(path, limits)
    except KitError as error:
        refused = error.what
    if not any(excuse in refused for excuse in EXCUSES):
        assert is_parsed(content) == (not refused), refused
    if refused:
        return
    model = ModelProto.FromString(content)
    parsed = counts(model)
    assert parsed[0] <= limits.messages
    assert parsed[2] <= limits.values
    assert parsed[3] <= limits.depth
    # With what it keeps of unknown fields; integers that were packed are written with a tag each.
    assert model.ByteSize() <= len(content) + 10 * limits.values
    for tensor in model.graph.initializer:
        elements = math.prod(tensor.dims)
        assert 0 <= elements < 2**63
        if tensor.dims and tensor.data_location != tensor.EXTERNAL:
            assert elements <= 8 * tensor.ByteSize()


def pieces() -> Any:
    """Bytes in which the wire format is likely to be found."""
    tags = st.builds(
        tag,
        st.sampled_from([*range(16), 20, 22, 25, UNKNOWN]),
        st.sampled_from([0, 0, 1, 2, 2, 2, 3, 4, 5, 6]),
    )
    leaf = st.binary(max_size=6) | st.builds(varint, st.integers(0, 2**64 - 1)) | tags
    return st.recursive(
        leaf,
        lambda inner: (
            st.builds(b"".join, st.lists(inner, max_size=4)) | st.builds(within, inner, st.integers(1, 25))
        ),
        max_leaves=20,
    )


@settings(max_examples=500, deadline=None)
@given(content=st.binary(max_size=40) | pieces(), limits=st.sampled_from([DEFAULT, TIGHT]))
def test_any_bytes(reused: Path, content: bytes, limits: Limits) -> None:
    assert_agrees_with_protobuf(reused, content, limits)


REAL = {name: SMALL[name].SerializeToString() for name in ("raw", "typed", "texts", "graphs in attributes")}


@settings(max_examples=500, deadline=None)
@given(
    content=st.sampled_from(list(REAL.values())),
    place=st.integers(0, max(map(len, REAL.values()))),
    byte=st.integers(0, 255),
    limits=st.sampled_from([DEFAULT, TIGHT]),
)
def test_a_changed_byte(reused: Path, content: bytes, place: int, byte: int, limits: Limits) -> None:
    changed = bytearray(content)
    changed[place % len(content)] = byte
    assert_agrees_with_protobuf(reused, bytes(changed), limits)


@pytest.mark.parametrize("content", REAL.values(), ids=REAL)
def test_a_file_that_was_cut(reused: Path, content: bytes) -> None:
    for cut in range(len(content)):
        assert_agrees_with_protobuf(reused, content[:cut], DEFAULT)


# ---- small files that need much, in a process that may not have it


class Bomb(NamedTuple):
    """A file by its parts, each of some bytes and then zeros, which take no place on the disk.

    :param words: of the refusal.
    """

    parts: List[Tuple[bytes, int]]
    words: str

    def place(self, path: Path) -> Path:
        with path.open("wb") as handle:
            for start, zeros in self.parts:
                handle.write(start)
                handle.seek(zeros, os.SEEK_CUR)
            handle.truncate()
        return path


def ending_in(zeros: int, *numbers: int, start: bytes = b"") -> Tuple[bytes, int]:
    """A part: ``start`` and zeros as the field with the last number, in that with the number before ..."""
    for number in reversed(numbers):
        start = tag(number, BYTES) + varint(len(start) + zeros) + start
    return start, zeros


def of(content: bytes) -> List[Tuple[bytes, int]]:
    return [(content, 0)]


MANY = 3_000_000
GIGABYTE = 2**30
MESSAGES = "at least 500,001 messages, where 500,000 are the limit"
FIELDS = "at least 1,000,001 fields, where 1,000,000 are the limit"
VALUES = "values beside raw data, where 16,000,000 are the limit"

BOMBS = {
    "nodes": Bomb(of(within(within(b"", NODE) * (2 * MANY), GRAPH)), MESSAGES),
    "attributes": Bomb(of(within(within(b"", ATTRIBUTE) * MANY, GRAPH, NODE)), MESSAGES),
    "tensors": Bomb(of(within(within(b"", INITIALIZER) * MANY, GRAPH)), MESSAGES),
    "texts": Bomb(of(within(within(b"a", INPUT) * (3 * MANY), GRAPH, NODE)), FIELDS),
    "unknown fields": Bomb(of(within(b"a", 15) * (3 * MANY)), FIELDS),
    "integers": Bomb([ending_in(17 * MANY, GRAPH, INITIALIZER, INT64_DATA)], VALUES),
    "one unknown field": Bomb([ending_in(GIGABYTE, UNKNOWN)], VALUES),
    "the whole file": Bomb(
        [ending_in(GIGABYTE, number_of("ModelProto", "doc_string"))] * 2,
        "at least 2,147,483,660 bytes, where 2,147,483,647 are the limit",
    ),
}

MAY_GROW = 500_000_000
"""Bytes that a program may take beside what the imports took."""

CONFINED = """
import mmap, resource, sys, time
from pathlib import Path
import onnx
from launch import onnx_limits
from launch.errors import exit_with_message

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))

most = status("VmData") + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_DATA, (most, most))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
"""
CHECKED = """
started = time.monotonic()

def body():
    try:
        onnx_limits.check(Path(sys.argv[1]))
    finally:
        print(time.monotonic() - started, status("VmHWM"))
    return 0

exit_with_message(body)
"""
PARSED = """
with open(sys.argv[1], "rb") as handle:
    onnx.ModelProto.FromString(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
print("parsed")
"""

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel bounds and tells memory there")


def confined(code: str, path: Path) -> "subprocess.CompletedProcess[str]":
    return run([sys.executable, "-c", CONFINED + code, str(path), str(MAY_GROW)])


@needs_linux
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_small_file_that_needs_much(tmp_path: Path, bomb: Bomb) -> None:
    path = bomb.place(tmp_path / "bomb.onnx")
    assert path.stat().st_blocks * 512 < 30e6
    without = confined(PARSED, path)
    assert without.returncode != 0
    assert re.search("bad_alloc|MemoryError|cannot allocate memory", without.stderr), without
    done = confined(CHECKED, path)
    assert_user_error(done, bomb.words, str(path))
    seconds, peak = map(float, done.stdout.split())
    assert seconds < 2
    assert peak < 300e6


@needs_linux
def test_what_keeps_all_limits_is_parsed_in_half_a_gigabyte(tmp_path: Path) -> None:
    """The dearest messages, with an unknown field in each, and arrays that have just doubled."""
    node = within(within(within(b"a", 100), ATTRIBUTE) * (DEFAULT.messages - 20), GRAPH, NODE)
    arrays = [bytes(2**23 + 1), bytes(2**22 + 1)]
    path = tmp_path / "model.onnx"
    path.write_bytes(node + b"".join(within(array, GRAPH, NODE, ATTRIBUTE, INTS) for array in arrays))
    check(path)
    assert confined(PARSED, path).stdout == "parsed\n"


@needs_linux
def test_weights_are_not_read(tmp_path: Path) -> None:
    """As in the kit's largest file, but zeros."""
    size = 1_300_000_000
    tensor = shaped(size // 4, raw_data=None) + tag(RAW_DATA, BYTES) + varint(size)
    path = Bomb([ending_in(size, GRAPH, INITIALIZER, start=tensor)], "").place(tmp_path / "large.onnx")
    done = confined(CHECKED, path)
    assert done.returncode == 0, done.stderr
    seconds, peak = map(float, done.stdout.split())
    assert seconds < 0.5
    assert peak < 150e6


# ---- where it is used


def test_a_model_is_not_read_beyond_the_limits(tmp_path: Path) -> None:
    path = BOMBS["attributes"].place(tmp_path / "bomb.onnx")
    with pytest.raises(KitError, match="500,001 messages"):
        onnx_model.Model(path)


def test_a_comparison_tells_of_the_limit(tmp_path: Path) -> None:
    path = BOMBS["attributes"].place(tmp_path / "bomb.onnx")
    good = tmp_path / "good.onnx"
    good.write_bytes(REAL["raw"])
    for pair in ((good, path), (path, good)):
        done = run(["make", "--no-print-directory", "compare", *(f"{n}={p}" for n, p in zip("AB", pair))])
        assert_user_error(done, MESSAGES, str(path))
