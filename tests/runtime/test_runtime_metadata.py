"""Metadata travel in the file, whatever else is in it stays byte for byte, and what makes no sense is named."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import onnx
import pytest

import artifacts
from vidlet.errors import ModelError
from vidlet.runtime import graph_sha256, load, read_metadata, validate_metadata, write_metadata

SCHEMA = json.loads((Path(__file__).parents[2] / "schema" / "artifact.json").read_text("utf-8"))


@pytest.fixture
def model_path(tmp_path):
    return artifacts.save(artifacts.classifier(), tmp_path / "model.onnx")


def test_metadata_come_back_as_they_were_written(model_path):
    written = artifacts.metadata(labels=["rot", "grün", "蓝", "moving"], note="unknown keys are kept")
    write_metadata(model_path, written)
    assert read_metadata(model_path) == written
    assert read_metadata(model_path.read_bytes()) == written


def test_the_onnx_package_reads_the_same_metadata(model_path):
    properties = {p.key: p.value for p in onnx.load(model_path).metadata_props}
    theirs = json.loads(properties["vidlet"])
    assert len(theirs.pop("checksum")) == 64
    assert theirs == read_metadata(model_path)


def test_writing_changes_nothing_but_the_entry(model_path):
    model = onnx.load(model_path)
    model.metadata_props.insert(0, onnx.StringStringEntryProto(key="other", value="kept"))
    model_path.write_bytes(model.SerializeToString())
    write_metadata(model_path, artifacts.metadata(temperature=2.5))
    after = onnx.load(model_path)
    assert [p.key for p in after.metadata_props] == ["other", "vidlet"]
    for each in (model, after):
        del each.metadata_props[:]
    assert model == after


def test_writing_twice_is_writing_once(model_path):
    first = model_path.read_bytes()
    write_metadata(model_path, artifacts.metadata())
    assert model_path.read_bytes() == first


def test_refused_metadata_leave_the_file_as_it_was(model_path):
    before = model_path.read_bytes()
    with pytest.raises(ModelError, match="labels"):
        write_metadata(model_path, artifacts.metadata(labels="red"))
    assert model_path.read_bytes() == before
    assert [p.name for p in model_path.parent.iterdir()] == ["model.onnx"]


def test_the_graph_hash_is_that_of_the_file_without_the_entry(tmp_path, model_path):
    graph = artifacts.classifier().SerializeToString()
    assert graph_sha256(graph) == hashlib.sha256(graph).hexdigest()
    assert graph_sha256(model_path.read_bytes()) == hashlib.sha256(graph).hexdigest()
    write_metadata(model_path, artifacts.metadata(evidence=[], labels=list("abcd")))
    assert graph_sha256(model_path.read_bytes()) == hashlib.sha256(graph).hexdigest()


def test_the_graph_hash_changes_with_a_weight(model_path):
    model = onnx.load(model_path)
    before = graph_sha256(model_path.read_bytes())
    model.graph.initializer[3].raw_data = bytes(64)
    assert graph_sha256(model.SerializeToString()) != before


def test_two_entries_are_refused(model_path):
    model = onnx.load(model_path)
    model.metadata_props.add(key="vidlet", value="{}")
    with pytest.raises(ModelError, match=r"m\.onnx: 2 'vidlet' metadata entries"):
        read_metadata(model.SerializeToString(), "m.onnx")


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"format": NaN}', "[" * 100_000, '"\ud83d"', "9" * 10_000])
def test_metadata_that_are_no_json_object_are_refused(model_path, text):
    model = onnx.load(model_path)
    del model.metadata_props[:]
    data = model.SerializeToString()
    payload = text.encode("utf-8", "surrogatepass")
    length = len(payload)
    varint = b""
    while length >= 128:
        varint, length = varint + bytes([length % 128 + 128]), length // 128
    field = b"\x0a\x06vidlet\x12" + varint + bytes([length]) + payload
    outer, size = b"", len(field)
    while size >= 128:
        outer, size = outer + bytes([size % 128 + 128]), size // 128
    with pytest.raises(ModelError, match=r"m\.onnx: "):
        read_metadata(data + b"\x72" + outer + bytes([size]) + field, "m.onnx")


def test_a_newer_major_format_is_refused_and_a_newer_minor_one_is_read():
    assert validate_metadata(artifacts.metadata(format="1.7"))["format"] == "1.7"
    with pytest.raises(ModelError, match=r"format '2\.0', this vidlet reads format 1"):
        validate_metadata(artifacts.metadata(format="2.0"))


BAD = {
    "format": [None, 1.0, "1", "one", "1.x", "", "²·0"],
    "labels": [None, "red", ["a", "a"], [""], [1], {}, []],
    "box_labels": ["person", ["a", "a"], 3],
    "inputs": [None, [], ["pictures"], "frames", ["audio"], ["frames", "rgb"]],
    "sampling": [
        None,
        {},
        {"rule": "rate", "hz": 8},
        {"rule": "rate", "hz": 0, "median_s": 2},
        {"rule": "rate", "hz": True, "median_s": 2},
        {"rule": "uniform", "frames": 0, "median_s": 2},
        {"rule": "uniform", "frames": 2.5, "median_s": 2},
        {"rule": "uniform", "frames": 25, "median_s": -1},
        {"rule": "random", "hz": 8, "median_s": 2},
        {"rule": "rate", "hz": 1e300, "median_s": 2},
        {"rule": "rate", "hz": 1e-300, "median_s": 2},
        {"rule": "uniform", "frames": 10**6, "median_s": 2},
        {"rule": "rate", "hz": 10**400, "median_s": 2},
    ],
    "resize": [None, {}, "bilinear", {"rule": 3}, {"rule": ""}],
    "flow": [{}, "farneback", {"rule": 3}],
    "multi_label": ["yes", 1],
    "recipe": ["default", []],
    "provenance": ["torchvision", []],
    "temperature": [0, -1.0, "1", True],
    "evidence": [{}, ["accuracy"], [{"what": "accuracy"}], [{"value": 1}], [{"what": "x", "value": 1, "data": 3}]],
    "sizes": [[], {"head": -1}, {"head": "big"}, {"head": 1.5}],
}
GOOD = [
    {},
    {"labels": [], "box_labels": ["person"]},
    {"inputs": ["frames", "flow"]},
    {"inputs": ["rgb"], "resize": None},
    {"inputs": ["rgb", "audio"], "resize": None},
    {"sampling": {"rule": "uniform", "frames": 25, "median_s": 3.5}},
    {"sampling": {"rule": "rate", "hz": 0.5, "median_s": 3, "later": "kept"}},
    {"temperature": 1.7, "evidence": None, "sizes": None, "recipe": None, "provenance": None, "box_labels": None},
    {"multi_label": True, "something": "new"},
]
CASES = [(key, value) for key, values in BAD.items() for value in values]


@pytest.mark.parametrize(("key", "value"), CASES, ids=[f"{key}-{i}" for i, (key, _) in enumerate(CASES)])
def test_what_a_key_may_not_hold_is_named(key, value):
    found = artifacts.metadata()
    found.pop(key) if value is None else found.update({key: value})
    with pytest.raises(ModelError, match=rf"^f\.onnx: .*\b{key}\b") as caught:
        validate_metadata(found, "f.onnx")
    assert "\n" not in str(caught.value)
    assert not follows_schema(found)


@pytest.mark.parametrize("changes", GOOD, ids=range(len(GOOD)))
def test_what_is_allowed_is_allowed_by_validator_and_schema(changes):
    found = artifacts.metadata(**changes)
    assert validate_metadata(found) == found
    assert follows_schema(found)


def follows_schema(value, schema=SCHEMA):
    """The part of JSON Schema 2020-12 that schema/artifact.json uses, so that no package is needed to hold it up."""
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    rules = {
        "type": lambda kind: (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and (kind == "number" or value == value // 1)
            if kind in ("number", "integer")
            else isinstance(value, kinds[kind])
        ),
        "$ref": lambda name: follows_schema(value, SCHEMA["$defs"][name.rpartition("/")[2]]),
        "enum": lambda allowed: value in allowed,
        "const": lambda only: value == only,
        "oneOf": lambda parts: sum(follows_schema(value, part) for part in parts) == 1,
        "allOf": lambda parts: all(follows_schema(value, part) for part in parts),
        "if": lambda test: not follows_schema(value, test) or follows_schema(value, schema["then"]),
        "then": lambda _: True,
        "required": lambda names: not isinstance(value, dict) or all(name in value for name in names),
        "properties": lambda named: (
            not isinstance(value, dict) or all(follows_schema(value[k], v) for k, v in named.items() if k in value)
        ),
        "additionalProperties": lambda part: all(follows_schema(each, part) for each in value.values()),
        "items": lambda part: not isinstance(value, list) or all(follows_schema(each, part) for each in value),
        "contains": lambda part: not isinstance(value, list) or any(follows_schema(each, part) for each in value),
        "uniqueItems": lambda _: not isinstance(value, list) or len({json.dumps(v) for v in value}) == len(value),
        "minItems": lambda n: not isinstance(value, list) or len(value) >= n,
        "maxItems": lambda n: not isinstance(value, list) or len(value) <= n,
        "minLength": lambda n: not isinstance(value, str) or len(value) >= n,
        "pattern": lambda _: not isinstance(value, str) or (value[:2] == "1." and value[2:].isdecimal()),
        "minimum": lambda n: not isinstance(value, (int, float)) or value >= n,
        "maximum": lambda n: not isinstance(value, (int, float)) or value <= n,
    }
    silent = ("$schema", "title", "description", "$defs")
    if "type" in schema and not rules["type"](schema["type"]):
        return False
    return all(rules[word](rule) for word, rule in schema.items() if word not in silent)


def test_the_schema_itself_is_valid_where_jsonschema_is_installed():
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert jsonschema.Draft202012Validator(SCHEMA).is_valid(artifacts.metadata())


@pytest.mark.parametrize(
    ("none", "said"),
    [
        ({"label": "red"}, "none must be"),
        ({"threshold": 1.5}, "none must be"),
        ({"threshold": 0.4, "label": 3}, "none must be"),
        ({"threshold": 0.4, "label": "purple"}, "none names 'purple', which is none of the labels"),
    ],
)
def test_none_of_these_has_a_threshold_and_a_label_of_the_file(none, said):
    validate_metadata(artifacts.metadata(none={"threshold": 0.4, "label": "red"}))
    validate_metadata(artifacts.metadata(none={"threshold": 0.4}))
    with pytest.raises(ModelError, match=said):
        validate_metadata(artifacts.metadata(none=none))


def test_a_file_for_litert_is_told_apart_and_the_model_that_it_was_made_of_is_named(tmp_path, model_path):
    """Whatever reads a model file says what a .tflite file is, what runs it, and which file of the run to use."""
    path, whole = tmp_path / "run" / "a.tflite", b"\x1c\0\0\0TFL3"
    path.parent.mkdir()
    path.write_bytes(whole)
    with pytest.raises(ModelError, match=r"a\.tflite: a file for LiteRT .*none of vidlet; .*`vidlet export`"):
        load(path)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("vidlet.json", json.dumps({"made_of": graph_sha256(model_path.read_bytes())}))
    path.write_bytes(whole + archive.getvalue())
    with pytest.raises(ModelError, match=r"runs it on phones and boards .* use the \.onnx file of the run that it"):
        load(path)
    model_path.rename(path.with_name("model.int8.onnx"))
    path.with_name("broken.onnx").write_bytes(b"no")
    with pytest.raises(ModelError, match=r"here, use .*model\.int8\.onnx$"):
        load(path)
