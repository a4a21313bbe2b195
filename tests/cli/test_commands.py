"""The commands without a trainer, as a user types them: what they print, and one line for whatever is wrong."""

import json
import re
from pathlib import Path

import pytest

from lightning_nas.catalogue import KINDS
from lightning_nas.cli.main import main, packaged_configs
from lightning_nas.data import CIFAR10, Digits
from lightning_nas.errors import SettingError
from lightning_nas.files import config_folder, find_config
from lightning_nas.methods import DARTS
from lightning_nas.spaces import PUBLISHED, DARTSCell
from lightning_nas.spaces.architecture_file import load_architecture

MAGIC = {".svg": b"<?xml", ".png": b"\x89PNG\r\n", ".pdf": b"%PDF-", ".dot": b"digraph {"}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def lines(capsys, *argv):
    """What a command that goes well prints."""
    status = main(argv)
    said = capsys.readouterr()
    assert (status, said.err) == (0, "")
    return said.out.splitlines()


# -- help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_command(capsys, flag):
    said = "\n".join(lines(capsys, flag))
    assert said.startswith("usage: python -m lightning_nas")
    for command in ("fit", "validate", "test", "derive", "draw", "profile", "export", "list", "study"):
        assert re.search(rf"^  {command} +\S", said, re.MULTILINE)


def test_without_a_command_there_is_the_usage_and_the_status_of_wrong_input(capsys):
    assert main([]) == 2
    assert capsys.readouterr().out.startswith("usage: python -m lightning_nas")


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("draw", ["architecture", "--out"]),
        ("profile", ["architecture", "--network", "--inputs", "--batch_size", "--latency_runs", "--device"]),
        ("export", ["architecture", "--ckpt_path", "--out", "--network", "--inputs", "--opset", "--calibration"]),
        ("list", ["--help"]),
        ("study random", ["--search", "--others", "--retrain", "--seeds", "--folder"]),
        ("study search", ["--config", "--strategies", "--n_trials", "--budget", "--seeds", "--report", "--folder"]),
        ("study controller", ["ckpt_path", "--n_architectures", "--n_batches", "--retrain_weights", "--folder"]),
        ("study gradients", ["ckpt_path", "--n_batches", "--n_shuffles"]),
    ],
)
def test_each_command_has_help(capsys, command, flags):
    with pytest.raises(SystemExit) as caught:
        main([*command.split(), "--help"])
    said = capsys.readouterr()
    assert (caught.value.code, said.err) == (0, "")
    assert said.out.startswith(f"usage: python -m lightning_nas {command}")
    for flag in flags:
        assert re.search(rf"^ +(-h, )?{flag}\b", said.out, re.MULTILINE), flag


@pytest.mark.parametrize("study", ["random", "search", "controller"])
def test_help_says_which_folder_a_study_has_without_the_flag(capsys, study):
    with pytest.raises(SystemExit):
        main(["study", study, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"null: in runs/study-{study}-..., by " in said


@pytest.mark.parametrize("flags", [[], ["--help"], ["-h"]])
def test_study_alone_lists_the_studies(capsys, flags):
    assert main(["study", *flags]) == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: python -m lightning_nas study WHICH")
    assert re.search(r"^  random +Does a search beat random\?$", said, re.MULTILINE)
    assert re.search(r"^  gradients +\S", said, re.MULTILINE)


# -- draw ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", MAGIC)
def test_draw_writes_each_format_and_says_where(capsys, suffix):
    assert lines(capsys, "draw", "darts_v2", "--out", f"cells{suffix}") == [f"cells{suffix}"]
    assert Path(f"cells{suffix}").read_bytes().startswith(MAGIC[suffix])
    assert [path.name for path in Path().iterdir()] == [f"cells{suffix}"]


def test_draw_takes_a_file_and_writes_what_is_known_below_the_picture(capsys):
    found = load_architecture("snas_mild")
    assert lines(capsys, "draw", "snas_mild", "--out=published.dot") == ["published.dot"]
    assert f'  label="{found.method}";' in Path("published.dot").read_text()
    type(found)(found.space, found.architecture, method="DARTS", seed=3).save("architecture.json")
    assert lines(capsys, "draw", "architecture.json", "--out=found.dot") == ["found.dot"]
    assert '  label="DARTS, seed 3";' in Path("found.dot").read_text()
    drawn = [Path(name).read_text().splitlines()[3:] for name in ("published.dot", "found.dot")]
    assert drawn[0] == drawn[1]
    assert lines(capsys, "draw", "architecture.json") == ["architecture.svg"]
    assert Path("architecture.svg").read_bytes().startswith(MAGIC[".svg"])


# -- profile ---------------------------------------------------------------------------------------------------------


def figures(said):
    """``{"parameters": 246106, ...}`` from the lines of the table."""
    rows = [re.match(r"([\w-]+(?: \w+)?) {2,}([\d,.]+)", line) for line in said]
    return {row[1]: float(row[2].replace(",", "")) for row in rows if row}


def test_profile_of_the_network_of_the_search(capsys):
    said = lines(capsys, "profile", "darts_v2", "--latency_runs", "0")
    found = load_architecture("darts_v2")
    assert said[:2] == found.space.describe(found.architecture).splitlines()
    assert said[2] == "network: channels 16, cells 8, stem cifar, auxiliary False, pool_norm False"
    costs = figures(said[3:])
    assert costs["parameters"] == 246_106
    assert costs["FLOPs"] == 2 * costs["multiply-adds"]
    assert set(costs) == {"parameters", "FLOPs", "multiply-adds", "activations"}


def test_profile_of_the_papers_network_has_the_published_size(capsys):
    settings = ["--network.channels=36", "--network.cells", "20", "--network.auxiliary", "true"]
    said = lines(capsys, "profile", "darts_v2", *settings, "--device=meta", "--latency_runs=0")  # computes nothing
    assert said[2] == "network: channels 36, cells 20, stem cifar, auxiliary True, pool_norm False"
    assert figures(said)["parameters"] == 3_349_342  # as the released code prints it, without the auxiliary head
    assert figures(said)["auxiliary head"] > 0


def test_profile_measures_latency_and_takes_other_data(capsys):
    small = ["--network.channels=2", "--network.cells=2", "--latency_runs=1", "--batch_size=3"]
    said = lines(capsys, "profile", "darts_v1", *small)
    assert re.fullmatch(r"latency +\d+\.\d{3}  ms per batch of 3, cpu", said[-1])
    default = figures(said)
    assert default["latency"] > 0
    other = figures(lines(capsys, "profile", "darts_v1", *small, "--inputs.num_classes", "17"))
    width = 2 * 2 * 2 * 4  # two channels, doubled by both reductions, in each of four nodes
    assert other["parameters"] - default["parameters"] == 7 * (width + 1)
    larger = figures(lines(capsys, "profile", "darts_v1", *small, "--inputs.image_size=64"))
    assert larger["parameters"] == default["parameters"]
    assert larger["FLOPs"] > 3.9 * default["FLOPs"]


# -- list ------------------------------------------------------------------------------------------------------------


def test_list_has_all_there_is_with_a_line_on_each(capsys):
    said = lines(capsys, "list")
    titles = [line for line in said if not line.startswith(" ")]
    assert titles == [*(kind.title for kind in KINDS), "configurations", "published architectures"]
    sections, rows = {}, {}
    for line in said:
        if line in titles:
            sections[line] = rows = {}
        else:
            name, text = re.fullmatch(r"  (\S+) {2,}(.*)", line).groups()
            rows[name] = text
    for title, cls in (("methods", DARTS), ("spaces", DARTSCell), ("data", CIFAR10), ("data", Digits)):
        text = sections[title][cls.__name__]
        assert len(text) > 20
        assert " ".join(cls.__doc__.split()).startswith(f"{text}.")
    assert {"darts/search.yaml", "darts/retrain.yaml", "darts/quickstart.yaml"} < set(sections["configurations"])
    for name, text in sections["configurations"].items():
        assert text
        assert Path(find_config(name)).read_text().startswith(f"# {text}\n")
    citations = {name: each.describe() for name, each in PUBLISHED.items()}
    assert sections["published architectures"] == citations
    assert "darts_v2" in citations


# -- wrong input -----------------------------------------------------------------------------------------------------

SMALL = ["profile", "darts_v2", "--network.channels=2", "--network.cells=2", "--latency_runs=0"]
WRONG = {
    "no such command": (["drawing"], ["'drawing'", "--help"]),
    "a flag for a command": (["--version"], ["'--version'", "--help"]),
    "draw: nothing to draw": (["draw"], ["architecture"]),
    "draw: no such architecture": (["draw", "darts_v3"], ["architecture: ", "'darts_v3'", "darts_v1", "snas_mild"]),
    "draw: two architectures": (["draw", "darts_v1", "darts_v2"], ["unrecognized", "darts_v2"]),
    "draw: an unknown suffix": (
        ["draw", "darts_v2", "--out", "cells.jpg"],
        ["--out: ", "cells.jpg", ".svg, .png, .pdf"],
    ),
    "draw: a folder that is not there": (["draw", "darts_v2", "--out", "none/cells.svg"], ["--out: ", "none/"]),
    "draw: a flag without its value": (["draw", "darts_v2", "--out"], ["--out"]),
    "draw: a hostile file": (["draw", "hostile.json"], ["hostile.json: ", "a?b: unknown field"]),
    "profile: no such flag": ([*SMALL, "--channels", "3"], ["--channels"]),
    "profile: no such setting of the network": (
        [*SMALL, "--network.width", "3"],
        ["--network.width", "channels, cells"],
    ),
    "profile: the form of the network": ([*SMALL, "--network.form", "search"], ["--network.form", "channels, cells"]),
    "profile: a setting of the wrong type": ([*SMALL, "--network.cells", "many"], ["--network.cells", "int", "many"]),
    "profile: a setting that the network refuses": ([*SMALL, "--network.channels", "3"], ["network.channels", "even"]),
    "profile: a network that does not fit the data": (
        [*SMALL, "--network.auxiliary=true", "--inputs.image_size=8"],
        ["network.auxiliary", "8×8"],
    ),
    "profile: no such input": ([*SMALL, "--inputs.size", "8"], ["--inputs.size", "image_size"]),
    "profile: an input of the wrong type": (
        [*SMALL, "--inputs.image_size", "big"],
        ["inputs.image_size", "int", "big"],
    ),
    "profile: no pixels": ([*SMALL, "--inputs.image_size", "0"], ["--inputs.image_size", "at least 1"]),
    "profile: negative channels": ([*SMALL, "--inputs.channels", "-1"], ["--inputs.channels", "at least 1"]),
    "profile: no classes": ([*SMALL, "--inputs.num_classes", "0"], ["--inputs.num_classes", "at least 1"]),
    "profile: an empty batch": ([*SMALL, "--batch_size", "0"], ["--batch_size", "at least 1"]),
    "profile: negative runs": ([*SMALL, "--latency_runs", "-1"], ["--latency_runs", "0 or more"]),
    "profile: runs as a word": ([*SMALL, "--latency_runs", "few"], ["latency_runs", "int", "few"]),
    "profile: no such device": ([*SMALL, "--device", "abacus"], ["--device: abacus"]),
    "profile: a device that is not here": ([*SMALL, "--device", "hpu"], ["--device: hpu"]),
    "profile: latency where nothing runs": (
        [*SMALL, "--device=meta", "--latency_runs=1"],
        ["--device", "--latency_runs 0"],
    ),
    "list: something": (["list", "methods"], ["methods"]),
    "study: of nothing": (["study", "nothing"], ["study nothing", "--help"]),
    "study: gradients of no file": (["study", "gradients", "none.ckpt"], ["ckpt_path", "none.ckpt"]),
    "study: one batch": (["study", "gradients", "none.ckpt", "--n_batches", "1"], ["--n_batches", "at least 2"]),
    "study: one seed": (["study", "random", "--seeds", "1"], ["--seeds", "at least 2", "got 1"]),
    "study: seeds as a word": (["study", "random", "--seeds", "two"], ["seeds", "int", "two"]),
    "study: no such configuration": (
        ["study", "random", "--search", "none.yaml"],
        ["none.yaml", "darts/quickstart.yaml"],
    ),
    "study: no such retraining": (
        ["study", "random", "--retrain", "none.yaml"],
        ["none.yaml", "darts/quickstart_retrain.yaml"],
    ),
}


@pytest.mark.parametrize(("argv", "said"), WRONG.values(), ids=WRONG)
def test_wrong_input_gives_one_line_and_status_2(capsys, argv, said):
    hostile = {**load_architecture("darts_v2").to_dict(), "a\nb": 1}
    Path("hostile.json").write_text(json.dumps(hostile))
    assert main(argv) == 2
    out, error = capsys.readouterr()
    assert out == ""
    (line,) = error.splitlines()
    assert line.startswith("error: ")
    for part in said:
        assert part in line
    assert [path.name for path in Path().iterdir()] == ["hostile.json"]  # and nothing is written


def test_a_bug_is_no_wrong_input(monkeypatch):
    def fail(found):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("lightning_nas.spaces.architecture_file.load_architecture", fail)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main(["draw", "darts_v2"])


# -- configurations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["darts/search.yaml", "darts/quickstart.yaml"])
def test_a_packaged_configuration_is_found_with_and_without_its_folder(name):
    packaged = config_folder() / name
    assert packaged.is_file()
    assert Path(find_config(name)) == Path(find_config(f"configs/{name}")) == packaged


@pytest.mark.parametrize("name", ["darts/quickstart.yaml", "configs/darts/quickstart.yaml", "mine.yaml"])
def test_a_file_at_hand_is_preferred(name, tmp_path):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("model: DARTS\n")
    assert find_config(name) == name
    assert find_config(str(tmp_path / name)) == str(tmp_path / name)


@pytest.mark.parametrize("name", ["none.yaml", "quickstart", "configs", ""])
def test_a_configuration_that_is_nowhere_lists_the_packaged(name):
    with pytest.raises(SettingError) as caught:
        find_config(name)
    assert str(caught.value).startswith(f"--config: there is no file {name}")
    for packaged in (
        "darts/search.yaml",
        "darts/quickstart.yaml",
        "darts/retrain.yaml",
        "darts/quickstart_retrain.yaml",
    ):
        assert packaged in str(caught.value)


def test_only_what_stands_behind_config_is_looked_up():
    argv = [
        "fit",
        "--config",
        "darts/search.yaml",
        "-c=darts/retrain.yaml",
        "--config=configs/darts/search.yaml",
        "--x",
        "darts/search.yaml",
    ]
    darts, retrain = (str(config_folder() / name) for name in ("darts/search.yaml", "darts/retrain.yaml"))
    expected = ["fit", "--config", darts, "-c", retrain, "--config", darts, "--x", "darts/search.yaml"]
    assert packaged_configs(argv) == expected
