"""The programs of the page 'In your own project' do what it says, in few lines; the page has them as they are."""

import importlib.util
import runpy
from pathlib import Path

import lightning.pytorch as pl
import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("make_own_project", ROOT / "docs" / "make_own_project.py")
make_own_project = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make_own_project)

PAGE = make_own_project.PAGE.read_text(encoding="utf-8")


def figures_of(names):
    """The figures of the last loop of a program's trainer."""
    return {name: float(value) for name, value in names["trainer"].callback_metrics.items()}


def own_loaders(names):
    assert names["figures"]["test/accuracy"] > 0.7  # chance: .1
    assert names["retrain"].found.architecture == names["search"].best()


def own_datamodule(names):
    accuracies = names["accuracies"]
    assert len(accuracies) == 10
    assert accuracies[names["architecture"]] == max(accuracies.values()) > 0.2  # chance: .1


def our_data(names):
    assert names["trainer"].num_training_batches == 125  # the weights part, half of 16,000 images in batches of 64
    assert names["predicted"].shape == (2000,)
    labels = names["data"].evaluation("test")
    right = sum(int((p == y).sum()) for p, (_, y) in zip(names["predicted"].split(64), labels, strict=True))
    assert right / 2000 == pytest.approx(names["figures"]["accuracy"])
    assert right / 2000 > 0.17  # chance: .1


def regression_backbone(names):
    assert figures_of(names)["error"] < 0.15  # of the mean: .25


def multi_label_backbone(names):
    assert figures_of(names)["accuracy"] > 0.8  # of the more frequent answers: .57


def feature_pyramid(names):
    model = names["model"]
    images, pixels = names["test_set"].tensors
    assert [tuple(m.shape[1:]) for m in model.body(images).values()] == [(8, 16, 16), (16, 8, 8), (32, 4, 4)]
    assert (model(images).argmax(1) == pixels).float().mean() > 0.9  # chance: .004


def own_task(names):
    assert figures_of(names)["val/supernet_error"] < 1.8  # of the mean: 2.5


def segmentation(names):
    assert figures_of(names)["val/supernet_iou"] > 0.6  # of background alone: .43


def own_operation(names):
    assert figures_of(names)["val/supernet_accuracy"] > 0.5  # chance: .1
    assert "gelu_conv" in names["space"].describe(names["search"].best())


def own_parts(names):
    trials = names["search"].trials
    assert len(trials.history) == 20
    assert trials.best.score == max(trial.score for trial in trials.history) > 0.6  # chance: .1
    first, later = trials.history[0], trials.history[1]
    assert sum(a != b for a, b in zip(first.architecture, later.architecture, strict=True)) == 1  # a neighbour


def compress(names):
    n_params = [sum(p.numel() for p in names[name].parameters()) for name in ("net", "small")]
    assert n_params[0] == 85258
    assert 25000 < n_params[1] <= 29000
    assert names["right"] / len(names["sets"][2]) > 0.95
    assert type(names["small"]) is type(names["net"])


CHECKS = {
    check.__name__: check
    for check in (
        own_loaders,
        own_datamodule,
        our_data,
        regression_backbone,
        multi_label_backbone,
        feature_pyramid,
        own_task,
        segmentation,
        own_operation,
        own_parts,
        compress,
    )
}


@pytest.fixture
def quiet_trainer(monkeypatch):
    """Bars and summaries are for people."""
    trainer = pl.Trainer
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    monkeypatch.setattr(pl, "Trainer", lambda **settings: trainer(**settings | quiet))


EACH = [
    pytest.param(path, id=path.stem, marks=() if path.stem == "own_loaders" else pytest.mark.slow)
    for path in sorted(make_own_project.PROGRAMS.glob("*.py"))
]


@pytest.mark.parametrize("path", EACH)
def test_program(path, tmp_path, monkeypatch, quiet_trainer):
    monkeypatch.chdir(tmp_path)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40
    CHECKS[path.stem](runpy.run_path(str(path), run_name="__main__"))


def test_every_program_is_on_the_page_once():
    names = make_own_project.BLOCK.findall(PAGE)
    assert sorted(names) == sorted(CHECKS) == sorted(path.stem for path in make_own_project.PROGRAMS.glob("*.py"))


def test_page_is_up_to_date():
    assert make_own_project.filled(PAGE) == PAGE, "run python docs/make_own_project.py"


def test_lines_that_name_the_package():
    source = "import torch\nfrom lightning_nas import (\n    DARTS,\n)\n\nx = torch.ones(1)\ny = DARTS(x)\n"
    assert make_own_project.package_lines(source) == {2, 3, 4, 7}
