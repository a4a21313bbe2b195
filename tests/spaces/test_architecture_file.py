"""``architecture.json``: what is written is read again, and everything else is refused by the name of the field."""

import json
import time
from pathlib import Path
from random import Random

import pytest

import lightning_nas
from lightning_nas import ImageClassification, Retrain
from lightning_nas.errors import SettingError
from lightning_nas.spaces import PUBLISHED, DARTSCell
from lightning_nas.spaces.architecture_file import (
    FORMAT,
    LARGEST,
    ArchitectureError,
    ArchitectureRecord,
    load_architecture,
)

SPACES = {
    "darts": DARTSCell(),
    "normal cells of seven nodes": DARTSCell(kinds=["normal"], nodes=7),
    "few operations": DARTSCell(nodes=2, operations=["none", "conv_7x1_1x7", "skip_connect"]),
}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def assert_same(one, other):
    assert type(one.space) is type(other.space)
    assert one.space.spec == other.space.spec
    assert one.space.choices == other.space.choices
    assert (one.architecture, one.metrics, one.method, one.seed) == (
        other.architecture,
        other.metrics,
        other.method,
        other.seed,
    )


# -- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_architecture_is_found_by_name_and_survives_a_file(name):
    found = load_architecture(name)
    space, architecture, citation = PUBLISHED[name].build()
    assert_same(found, ArchitectureRecord(space, architecture, {}, citation, None))
    found.save("architecture.json")
    assert_same(load_architecture("architecture.json"), found)
    assert_same(load_architecture(found.to_dict()), found)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_random_architectures_survive_a_file(space):
    rng = Random(0)
    metrics = {"validation accuracy": 0.1 + 0.2, "n_params": 246106, "tiny": 5e-324, "negative": -1.0}
    for seed in (*range(10), 2**63 - 1):
        found = ArchitectureRecord(space, space.random(rng), metrics, "DARTS", seed)
        found.save(Path("deep", "folder", "architecture.json"))
        assert_same(load_architecture(Path("deep/folder/architecture.json")), found)


def test_an_architecture_of_a_part_of_a_space_is_written_as_one_of_the_whole():
    whole = DARTSCell(nodes=2)
    part = whole.restrict({choice.name: ["none", "dil_conv_5x5", "skip_connect"] for choice in whole.choices})
    architecture = part.random(Random(1))
    ArchitectureRecord(part, architecture, method="DARTS").save("architecture.json")
    read = load_architecture("architecture.json")
    assert read.space.spec == whole.spec
    assert read.space.to_names(read.architecture) == part.to_names(architecture)


def test_the_file_is_readable():
    found = load_architecture("darts_v2")
    found.save("architecture.json")
    content = json.loads(Path("architecture.json").read_text())
    assert set(content) == {"format", "space", "choices", "metrics", "method", "seed", "versions"}
    assert content["space"]["name"] == "DARTSCell"
    assert content["choices"]["normal/0->2"] == "sep_conv_3x3"
    assert content["choices"] == found.space.to_names(found.architecture)
    assert content["versions"]["lightning_nas"] == lightning_nas.__version__
    assert "Infinity" not in Path("architecture.json").read_text()


def test_a_file_is_found_before_a_name_is_refused():
    load_architecture("darts_v1").save("mine")
    assert load_architecture("mine").architecture == load_architecture("darts_v1").architecture


# -- saving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metrics", [{"loss": float("nan")}, {"loss": float("inf")}])
def test_what_could_not_be_read_again_is_not_written(metrics):
    good = load_architecture("darts_v1")
    good.save("architecture.json")
    with pytest.raises(ValueError, match="not JSON compliant"):
        ArchitectureRecord(good.space, good.architecture, metrics).save("architecture.json")
    assert [path.name for path in Path().iterdir()] == ["architecture.json"]
    assert_same(load_architecture("architecture.json"), good)


def test_a_full_disk_leaves_the_former_file_and_no_other(monkeypatch):
    good = load_architecture("darts_v1")
    good.save("architecture.json")
    write = Path.write_bytes

    def fail(self, content):
        write(self, content[: len(content) // 2])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(SettingError, match="no space left"):
        load_architecture("darts_v2").save("architecture.json")
    assert [path.name for path in Path().iterdir()] == ["architecture.json"]
    assert_same(load_architecture("architecture.json"), good)


# -- hostile and damaged content -------------------------------------------------------------------------------------


def good():
    return load_architecture("darts_v2").to_dict()


def changed(*path, to):
    """The content of a good file with another value in one place; the value ``...`` takes the field out."""
    content = good()
    *parents, last = path
    place = content
    for name in parents:
        place = place[name]
    if to is ...:
        del place[last]
    else:
        place[last] = to
    return json.dumps(content)


def raw(name, text):
    """The same with text that ``json.dumps`` would not write."""
    marker = "the place to change"
    return changed(*name, to=marker).replace(f'"{marker}"', text)


THREE_LIVE_EDGES = ("choices", "normal/2->3")  # node 3 of darts_v2 has edges from 0 and 1 already

HOSTILE = {
    # the schema is closed
    "unknown field": (changed("command", to="rm"), "command: unknown field; there are choices, format"),
    "missing field": (changed("seed", to=...), "seed: missing"),
    "missing choices": (changed("choices", to=...), "choices: missing"),
    "another format": (changed("format", to="lightning_nas/architecture/2"), "format: expected"),
    "format as a number": (changed("format", to=1), "format: expected"),
    # choices
    "unknown operation": (
        changed("choices", "normal/0->2", to="conv_9x9"),
        "choices.normal/0->2: no option 'conv_9x9'",
    ),
    "missing choice": (changed("choices", "reduce/1->5", to=...), "choices.reduce/1->5: missing"),
    "unknown choice": (changed("choices", "normal/0->9", to="none"), "choices.normal/0->9: DARTSCell has no such"),
    "path traversal": (changed("choices", "../../etc/passwd", to="none"), "choices.../../etc/passwd: DARTSCell has no"),
    "three live edges": (changed(*THREE_LIVE_EDGES, to="skip_connect"), "choices.normal/2->3: skip_connect is illegal"),
    "one live edge": (changed("choices", "normal/1->2", to="none"), "choices.normal/1->2: none is illegal"),
    "an option's index": (changed("choices", "normal/0->2", to=4), "choices: expected option names"),
    "choices in a list": (changed("choices", to=["none"]), "choices: expected option names"),
    # the space
    "unknown space": (changed("space", "name", to="NASNet"), "space.name: no space 'NASNet'; there are"),
    "a Python path": (changed("space", "name", to="os.system"), "space.name: no space 'os.system'; there are"),
    "a class that is not a space": (changed("space", "name", to="CIFAR10"), "space.name: no space 'CIFAR10'"),
    "the base class": (changed("space", "name", to="Space"), "space.name: no space 'Space'"),
    "a name in a list": (changed("space", "name", to=["DARTSCell"]), "space.name: no space"),
    "a name in an object": (changed("space", "name", to={"DARTSCell": 1}), "space.name: no space"),
    "a space that is a name": (changed("space", to="DARTSCell"), "space: expected name and arguments"),
    "a class path in the space": (changed("space", "class_path", to="os.system"), "space: expected name and arguments"),
    "many nodes": (changed("space", "arguments", "nodes", to=10**6), "space.nodes: between 1 and 16, got 1000000"),
    "no nodes": (changed("space", "arguments", "nodes", to=0), "space.nodes: between 1 and 16, got 0"),
    "nodes as a word": (changed("space", "arguments", "nodes", to="many"), "space.arguments.nodes: expected int"),
    "nodes as a fraction": (changed("space", "arguments", "nodes", to=4.5), "space.arguments.nodes: expected int"),
    "nodes as a boolean": (changed("space", "arguments", "nodes", to=True), "space.arguments.nodes: expected int"),
    "nodes as null": (changed("space", "arguments", "nodes", to=None), "space.arguments.nodes: expected int"),
    "nodes in a list": (changed("space", "arguments", "nodes", to=[4]), "space.arguments.nodes: expected int"),
    "nodes as an object": (
        changed("space", "arguments", "nodes", to={"class_path": "os.system"}),
        "space.arguments.nodes: expected int",
    ),
    "operations as a word": (changed("space", "arguments", "operations", to="none"), "space.arguments.operations"),
    "operations in operations": (
        changed("space", "arguments", "operations", to=["none", ["skip_connect"]]),
        "space.arguments.operations",
    ),
    "an unknown operation of the space": (
        changed("space", "arguments", "operations", to=["none", "os.system"]),
        "space.operations: no operation 'os.system'",
    ),
    "another space's operations": (
        changed("space", "arguments", "operations", to=["none", "skip_connect"]),
        "choices.normal/0->2: no option 'sep_conv_3x3'",
    ),
    "thousands of operations": (
        changed("space", "arguments", "operations", to=["none"] * 3_000),
        "space.arguments: 24",
    ),
    "an unknown argument": (changed("space", "arguments", "path", to="/etc"), "space.arguments.path: no such setting"),
    "self as an argument": (changed("space", "arguments", "self", to=1), "space.arguments.self: no such setting"),
    "arguments in a list": (changed("space", "arguments", to=[4]), "space.arguments: expected an object"),
    # metrics and the rest
    "NaN": (raw(("metrics",), '{"loss": NaN}'), "NaN is not a number"),
    "Infinity": (raw(("metrics",), '{"loss": Infinity}'), "Infinity is not a number"),
    "-Infinity": (raw(("metrics",), '{"loss": -Infinity}'), "-Infinity is not a number"),
    "a number too large": (raw(("metrics",), '{"loss": 1e999}'), "metrics: expected finite numbers"),
    "an integer too large": (raw(("metrics",), '{"loss": 1%s}' % ("0" * 400)), "metrics: expected finite numbers"),
    "digits without end": (raw(("metrics",), '{"loss": 1%s}' % ("0" * 5000)), "not a JSON file of an architecture"),
    "a metric as a string": (changed("metrics", "loss", to="0.5"), "metrics: expected finite numbers"),
    "a metric as a boolean": (changed("metrics", "loss", to=True), "metrics: expected finite numbers"),
    "a metric as null": (changed("metrics", "loss", to=None), "metrics: expected finite numbers"),
    "metrics in a list": (changed("metrics", to=[0.5]), "metrics: expected finite numbers"),
    "seed as a fraction": (changed("seed", to=1.0), "seed: expected an integer or null"),
    "seed as a boolean": (changed("seed", to=True), "seed: expected an integer or null"),
    "seed as a string": (changed("seed", to="1"), "seed: expected an integer or null"),
    "method in a list": (changed("method", to=["DARTS"]), "method: expected a name"),
    "versions as numbers": (changed("versions", "torch", to=2), "versions: expected versions by package name"),
    "a field twice": (json.dumps(good()).replace('"seed"', '"seed": 1, "seed"'), "'seed' occurs twice"),
    "a choice twice": (
        json.dumps(good()).replace('"normal/0->2"', '"normal/0->2": "none", "normal/0->2"'),
        "'normal/0->2' occurs twice",
    ),
    # no architecture at all
    "empty": ("", "not a JSON file of an architecture"),
    "text": ("normal: sep_conv_3x3(0)", "not a JSON file of an architecture"),
    "cut off": (json.dumps(good())[:-10], "not a JSON file of an architecture"),
    "more behind it": (json.dumps(good()) + "{}", "not a JSON file of an architecture"),
    "binary": (b"\x80\x04\x95\xff\xfe\x00", "not a JSON file of an architecture"),
    "brackets without end": ("[" * 100_000, "not a JSON file of an architecture"),
    "deeply nested": ("[" * 100_000 + "]" * 100_000, "not a JSON file of an architecture"),
    "a nested argument": (
        raw(("space", "arguments", "nodes"), "[" * 500 + "]" * 500),
        "space.arguments.nodes: expected int",
    ),
    "a list": ("[]", "the content is not an object"),
    "a word": ('"darts_v2"', "the content is not an object"),
    "null": ("null", "the content is not an object"),
    "an empty object": ("{}", "choices: missing"),
    "more than 1 MiB": (json.dumps(good()) + " " * LARGEST, "larger than 1048576 bytes"),
}


@pytest.mark.parametrize(("content", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused_by_the_name_of_the_field(content, message):
    path = Path("architecture.json")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ArchitectureError) as caught:
        load_architecture(path)
    said = str(caught.value)
    assert said.startswith("architecture.json: ")
    assert message in said
    assert said.isprintable()
    assert len(said) < 600
    assert isinstance(caught.value, SettingError)  # the command line says it in one line


def test_the_good_file_is_good():
    """Else all of the above could be refused for another reason."""
    Path("architecture.json").write_text(changed("metrics", "loss", to=0.5))
    assert load_architecture("architecture.json").metrics == {"loss": 0.5}
    Path("architecture.json").write_text(raw(("metrics",), '{"loss": 1%s}' % ("0" * 300)))
    assert load_architecture("architecture.json").metrics == {"loss": 10**300}


def test_a_file_of_one_mebibyte_is_read():
    content = json.dumps(good())
    Path("architecture.json").write_text(content + " " * (LARGEST - len(content)))
    assert load_architecture("architecture.json").architecture == load_architecture("darts_v2").architecture


def test_tens_of_thousands_of_names_are_refused_quickly():
    """What is done with the names must not take time quadratic in their number."""
    content = good()
    content["metrics"] = {str(k): 0 for k in range(30_000)}
    Path("architecture.json").write_text(json.dumps(content).replace('"29999"', '"0"'))
    start = time.perf_counter()
    with pytest.raises(ArchitectureError, match="'0' occurs twice"):
        load_architecture("architecture.json")
    assert time.perf_counter() - start < 10  # quadratic: a minute


def test_names_cannot_break_lines_or_steer_a_terminal():
    Path("architecture.json").write_text(changed("choices", "a\nb\x1b[31m\u202e", to="none"))
    with pytest.raises(ArchitectureError, match=r"choices\.a\?b\?\[31m\?: DARTSCell has no such choice$"):
        load_architecture("architecture.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "choices: missing"),
        ({**good(), 1: 2}, "1: unknown field"),
        ({**good(), "metrics": {1: 0.5}}, "metrics: expected"),
        ({**good(), "metrics": {"loss": float("nan")}}, "metrics: expected"),
        ({**good(), "format": f"{FORMAT}.5"}, "format: expected"),
    ],
)
def test_a_dictionary_is_checked_alike(content, message):
    with pytest.raises(ArchitectureError, match=f"^architecture: {message}"):
        load_architecture(content)


@pytest.mark.parametrize("name", ["darts_v3", "none.json", ".", "a" * 5000, '{"format": 1}', "nul\0", ""])
def test_an_unknown_name_lists_the_published(name):
    with pytest.raises(ArchitectureError) as caught:
        load_architecture(name)
    assert str(caught.value).startswith(f"architecture: there is no file {name[:200]!r}")
    assert all(published in str(caught.value) for published in PUBLISHED)


def test_a_record_is_read_as_it_is_and_gives_its_final_network():
    record = load_architecture("darts_v2")
    assert load_architecture(record) is record
    inputs = {"channels": 3, "image_size": 32, "num_classes": 10}
    network = record.network(inputs, channels=36, cells=20)
    assert sum(p.numel() for p in network.parameters()) == PUBLISHED["darts_v2"].n_params
    retrain = Retrain(record, ImageClassification(), {"channels": 4, "cells": 3}, inputs)
    assert retrain.hparams["architecture"] == record.to_dict()
    assert {name: p.shape for name, p in retrain.network.named_parameters()} == {
        name: p.shape for name, p in record.network(inputs, channels=4, cells=3).named_parameters()
    }
