"""The best of a search under a limit of parameters, as each method judges."""

import functools
import json

import pytest

from lightning_nas.cli.main import main
from lightning_nas.costs.parameters import Parameters
from lightning_nas.errors import SettingError
from lightning_nas.runs.folder import RunFolder
from lightning_nas.spaces import NASBench201
from lightning_nas.spaces.architecture_file import load_architecture
from lightning_nas.supernets import Scorer
from tests.helpers.methods import darts, digits, enas, gdas, pdarts, random_search_ws, snas, spos

SPACE = NASBench201(operations=["none", "skip_connect", "nor_conv_3x3"])  # 729
BUILT = {"inputs": digits().inputs, "space": SPACE}
METHODS = {"darts": darts, "gdas": gdas, "snas": snas, "enas": enas, "random-search-ws": random_search_ws, "spos": spos}


@functools.cache
def counted():
    """The parameters of all architectures."""
    method = darts(**BUILT)
    count = Parameters(SPACE, method.network.inputs, **method.network_settings)
    return {architecture: count(architecture) for architecture in SPACE}


def few(share):
    """A limit that about this share of the architectures keeps."""
    return sorted(counted().values())[int(share * SPACE.size)]


@pytest.fixture
def asked(monkeypatch):
    """Scores from the architecture in place of those under shared weights, and of what they were asked."""
    asked = []
    monkeypatch.setattr(Scorer, "__call__", lambda scorer, a: asked.append(a) or float(sum(a)))
    return asked


@pytest.mark.parametrize("name", METHODS)
def test_what_is_found_and_what_it_is_compared_with_keep_the_limit(name, asked, tmp_path):
    method, count, most = METHODS[name](**BUILT), counted(), few(0.2)
    outcome = method.conclude(digits(), RunFolder(tmp_path), n_random=5, limits=[f"n_params <= {most}"])
    found = load_architecture(tmp_path / "architecture.json")
    assert found.metrics["n_params_at_search_size"] == outcome.costs.n_params == count[found.architecture] <= most
    assert len(outcome.drawn) == 5
    assert max(count[a] for a, _ in outcome.drawn) <= most
    assert all(count[a] <= most for a in (*asked, *outcome.candidates, outcome.best_random.architecture))
    said = outcome.describe()
    assert f"limit        n_params <= {most}\n" in said
    assert "5 random architectures under the same limit and weights" in said


@pytest.mark.parametrize("name", METHODS)
def test_a_limit_that_all_keep_changes_nothing(name, asked, tmp_path):
    data, method = digits(), METHODS[name](**BUILT)
    one, other = (method.conclude(data, RunFolder(tmp_path), 4, limits) for limits in ([], ["n_params <= 1e9"]))
    assert one.found.architecture == other.found.architecture
    assert one.candidates == other.candidates
    assert one.drawn == other.drawn


@pytest.mark.parametrize("name", ["darts", "snas", "gdas"])
def test_alphas_say_which_is_the_best_under_a_limit(name):
    method, count = METHODS[name](**BUILT), counted()
    weights = method.choice_weights()

    def total(architecture):
        return sum(row[option] for row, option in zip(weights, architecture, strict=True))

    for share in (0.02, 0.2, 0.5):
        chosen, candidates = method.choose(digits(), limits=[f"n_params <= {few(share)}"])
        assert total(chosen) == pytest.approx(max(total(a) for a in SPACE if count[a] <= few(share)), abs=1e-9)
        assert count[chosen] <= few(share)
        assert candidates == {}


def test_p_darts_has_few_skips_under_a_limit_too():
    method = pdarts(inputs=digits().inputs, max_skips=0)
    count = Parameters(method.space, method.network.inputs, **method.network_settings)
    free = count(method.best())
    chosen, _ = method.choose(digits(), limits=[f"n_params <= {free - 1}"])
    assert count(chosen) < free
    options = zip(method.space.choices, method.space.to_names(chosen).values(), strict=True)
    assert not [choice.name for choice, option in options if choice.cell != "reduce" and option == "skip_connect"]


def test_a_limit_of_the_settings_and_a_further_one_hold_together(asked):
    method, count = spos(**BUILT, limit=f"n_params <= {few(0.6)}"), counted()
    scores = method.choose(digits())[1]
    assert few(0.2) < max(count[a] for a in scores) <= few(0.6)
    chosen, scores = method.choose(digits(), limits=[f"n_params <= {few(0.2)}"])
    assert max(count[a] for a in (chosen, *scores)) <= few(0.2)


def test_a_limit_that_nothing_keeps_is_said_with_the_smallest():
    least = min(counted().values())
    said = (
        f"^limits: no architecture of NASBench201 keeps n_params <= 3; the smallest there is has n_params {least:,}; "
    )
    for name in METHODS:
        with pytest.raises(SettingError, match=said):
            METHODS[name](**BUILT).choose(digits(), limits=["n_params <= 3"])


def test_derive_takes_the_limit_as_a_flag(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    few = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=0"]
    small = ["--model.network.cells=1", "--model.space=NASBench201"]
    assert main(["fit", "--config", "darts/quickstart", *few, *small, "--architecture_logger.n_random=0"]) == 0
    params = json.loads((tmp_path / "runs/darts-1/architecture.json").read_text())["metrics"]["n_params_at_search_size"]
    checkpoint = "--ckpt_path=runs/darts-1/checkpoints/last.ckpt"
    capsys.readouterr()
    assert main(["derive", checkpoint, f"--max_params={params - 1:e}", "--n_random=3", "--folder=small"]) == 0
    said = capsys.readouterr().out
    assert "limit        n_params <= " in said
    assert "3 random architectures under the same limit and weights" in said
    found = load_architecture(tmp_path / "small" / "architecture.json")
    assert 0 < found.metrics["n_params_at_search_size"] < params
    assert main(["derive", checkpoint, "--max_params=1e9", "--n_random=0", "--folder=same"]) == 0
    same, before = (load_architecture(tmp_path / p / "architecture.json") for p in ("same", "runs/darts-1"))
    assert same.architecture == before.architecture
    assert main(["derive", checkpoint, "--max_params=12", "--folder=none"]) == 2
    said = capsys.readouterr().err
    assert (
        "error: limits: no architecture of NASBench201 keeps n_params <= 12; the smallest there is has n_params" in said
    )
    assert not (tmp_path / "none").exists()
