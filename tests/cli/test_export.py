"""The command ``export``: which network it writes, with which weights, and what it says."""

from pathlib import Path

import pytest
import torch

from lightning_nas import Digits, ImageClassification, NASBench201, Retrain
from lightning_nas.cli.main import main
from lightning_nas.methods import DARTS
from lightning_nas.operations.normalization import batch_norms, recalibrated
from lightning_nas.spaces import PUBLISHED
from lightning_nas.spaces.architecture_file import ArchitectureRecord
from lightning_nas.testing.method import quiet_trainer
from lightning_nas.training import SGD

SPACE = NASBench201()
FOUND, OTHER = (3, 1, 2, 0, 3, 2), (3, 1, 2, 0, 3, 1)
NETWORK = {"channels": 4, "cells": 1}
SMALL = ["--network.channels=4", "--network.cells=1", "--latency_runs=0"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the checkpoints of a search and of a retraining, and their modules."""
    folder, modules = tmp_path_factory.mktemp("trained"), {}
    record = ArchitectureRecord(SPACE, FOUND)
    for name, module in {
        "search": DARTS(SPACE, ImageClassification(), NETWORK, order="first"),
        "retrained": Retrain(record, ImageClassification(), NETWORK, drop_path=0.0, optimizer=SGD(0.1)),
    }.items():
        run = quiet_trainer(max_epochs=1, limit_train_batches=3, limit_val_batches=0)
        run.fit(module, Digits(batch_size=128))
        run.save_checkpoint(folder / f"{name}.ckpt")
        modules[name] = module
    record.save(folder / "architecture.json")
    ArchitectureRecord(SPACE, OTHER).save(folder / "other.json")
    return folder, modules


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def exported(capsys, *argv):
    """What the program that is written computes, and the lines that are printed."""
    assert main(["export", *map(str, argv), "--out=network.pt2"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return torch.export.load("network.pt2").module(), said.out.splitlines()


def test_a_new_network_of_a_published_architecture(capsys):
    program, said = exported(capsys, "darts_v2", "--network.channels=2", "--network.cells=2", "--latency_runs=2")
    found = PUBLISHED["darts_v2"].build()
    assert said[:2] == found[0].describe(found[1]).splitlines()
    assert said[2] == "network: channels 2, cells 2, stem cifar, auxiliary False, pool_norm False"
    assert said[3] == "weights: new ones, with BatchNorm's scale that of random images"
    assert said[5].startswith("file        network.pt2, ")
    assert said[6:8] == ["input       images: batch × 3 × 32 × 32, float32", "output      logits: batch × 10, float32"]
    assert said[8].startswith("difference  ")
    assert said[9].startswith("latency     torch.export ")
    images = torch.randn(6, 3, 32, 32)
    logits = program(images)
    assert logits.shape == (6, 10)
    assert (logits - logits[:1]).abs().max() > 0.01 * logits.abs().max()  # or there would be nothing to compare
    again, _ = exported(capsys, "darts_v2", "--network.channels=2", "--network.cells=2", "--latency_runs=0")
    assert torch.equal(again(images), logits)  # new weights, the same every time


def test_inputs_of_a_new_network(capsys):
    _, said = exported(capsys, "nas_bench_201_best", *SMALL, "--inputs.dense=1", "--inputs.num_classes=3")
    assert "output      logits: batch × 3 × 32 × 32, float32" in said
    _, said = exported(capsys, "enas_ptb", "--network.hidden=3", "--inputs.vocabulary=7", "--latency_runs=0")
    assert "weights: new ones" in said
    assert "output      logits: time × batch × 7, float32" in said


def test_onnx(capsys):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra export")
    pytest.importorskip("onnxscript", reason="needs the extra export")
    assert main(["export", "nas_bench_201_best", *SMALL, "--opset=19"]) == 0
    said, error = capsys.readouterr()
    assert error == ""
    assert "\nfile        network.onnx, " in said
    assert "MB, opset 19\n" in said
    session = onnxruntime.InferenceSession("network.onnx")
    (logits,) = session.run(["logits"], {"images": torch.randn(6, 3, 32, 32).numpy()})
    assert logits.shape == (6, 10)


@pytest.mark.parametrize("named", [False, True])
def test_a_retraining_is_written_with_its_weights(trained, named, capsys):
    folder, modules = trained
    path = folder / "retrained.ckpt"
    architecture = [folder / "architecture.json"] if named else []
    program, said = exported(capsys, *architecture, "--ckpt_path", path, "--latency_runs=0")
    assert said[0] == SPACE.describe(FOUND)
    assert said[1] == "network: channels 4, cells 1"
    assert said[2] == f"weights: those of the retraining {path}"
    images = torch.randn(3, 1, 8, 8)
    network = modules["retrained"].network.cpu().eval()
    with torch.no_grad():
        assert torch.equal(program(images), network(images))


def test_an_architecture_has_the_weights_of_its_search_and_averages_of_its_own(trained, capsys):
    folder, modules = trained
    path, search = folder / "search.ckpt", modules["search"]
    images, flags = torch.randn(3, 1, 8, 8), ["--latency_runs=0", "--ckpt_path", path]
    supernet = search.network.cpu().eval()
    gates = SPACE.gates(FOUND)
    program, said = exported(capsys, folder / "architecture.json", *flags, "--calibration=0")
    assert said[2].endswith("; BatchNorm's averages are those of all its architectures together")
    with torch.no_grad():
        of_all = supernet(images, gates)
        assert torch.equal(program(images), of_all)
    program, said = exported(capsys, folder / "architecture.json", *flags, "--calibration=3")
    assert said[2].startswith(f"weights: those that the architecture shares in the search {path}; ")
    assert said[2].endswith("; BatchNorm's averages are its own over 3 training batches")
    stream = search.stream(Digits(batch_size=128), "weights")
    batches = [stream.get(index)[0] for index in range(3)]
    assert batch_norms(supernet)
    with recalibrated(supernet, lambda x: supernet(x, gates), batches), torch.no_grad():
        own = supernet(images, gates)
    assert torch.equal(program(images), own)
    assert (own - of_all).abs().max() > 0.01 * of_all.abs().max()


WRONG = {
    "nothing": ([], ["architecture: missing", "--ckpt_path"]),
    "no such architecture": (["darts_v9"], ["architecture: ", "'darts_v9'", "darts_v2"]),
    "an ending": (["darts_v2", "--out", "network.tflite"], ["network.tflite: ", ".onnx or .pt2"]),
    "a folder that is not there": (
        ["nas_bench_201_best", *SMALL, "--out", "none/network.pt2"],
        ["none/network.pt2: cannot be written"],
    ),
    "an opset of a program": (["darts_v2", "--out=a.pt2", "--opset=20"], ["opset: .onnx files alone"]),
    "no such checkpoint": (["--ckpt_path", "none.ckpt", "--out=a.pt2"], ["ckpt_path: there is no file none.ckpt"]),
    "no such setting": (["darts_v2", "--network.width=3", "--out=a.pt2"], ["--network.width", "channels, cells"]),
    "no such input": (["darts_v2", "--inputs.size=3", "--out=a.pt2"], ["--inputs.size", "image_size"]),
    "pixels of words": (["enas_ptb", "--inputs.dense=1", "--out=a.pt2"], ["--inputs.dense", "vocabulary"]),
    "negative calibration": (["darts_v2", "--calibration=-1", "--out=a.pt2"], ["--calibration: 0 or more, got -1"]),
    "a search alone": (["--ckpt_path", "search.ckpt", "--out=a.pt2"], ["architecture: missing", "is of a search"]),
    "another architecture": (
        ["other.json", "--ckpt_path", "retrained.ckpt", "--out=a.pt2"],
        ["ckpt_path: retrained.ckpt is of another architecture"],
    ),
    "another space": (
        ["darts_v2", "--ckpt_path", "search.ckpt", "--out=a.pt2"],
        ["ckpt_path: search.ckpt is of another space, NASBench201, than the architecture's, DARTSCell"],
    ),
    "settings of a trained network": (
        ["--ckpt_path", "retrained.ckpt", "--network.cells=2", "--out=a.pt2"],
        ["--network: of new networks alone"],
    ),
    "inputs of a trained network": (
        ["--ckpt_path", "retrained.ckpt", "--inputs.channels=2", "--out=a.pt2"],
        ["--inputs: of new networks alone"],
    ),
}


@pytest.mark.parametrize(("argv", "said"), WRONG.values(), ids=WRONG)
def test_wrong_input_gives_one_line_and_status_2_and_no_file(trained, argv, said, capsys):
    for file in trained[0].iterdir():
        Path(file.name).symlink_to(file)
    before = sorted(Path().iterdir())
    assert main(["export", *argv]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    (line,) = error.splitlines()
    for words in said:
        assert words in line
    assert sorted(Path().iterdir()) == before
