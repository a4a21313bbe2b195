"""The study of controllers: its figures against slow or known ones, and a whole study from a checkpoint."""

import contextlib
import csv
import dataclasses
import io
import itertools
import math
import statistics
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_nas.cli.main import main
from lightning_nas.controllers import LSTMController
from lightning_nas.data import Digits
from lightning_nas.errors import SettingError
from lightning_nas.methods import DARTS, ENAS, load_search
from lightning_nas.spaces import DARTSCell, ENASMicro
from lightning_nas.studies.controller import (
    ControllerStudy,
    Drawn,
    deviation,
    effective_rank,
    hamming_distance,
    study_controller,
    train_with_untrained,
    trained_epochs,
    unique_share,
)
from lightning_nas.supernets import Scorer
from lightning_nas.tasks import ImageClassification
from tests.helpers.optimizers import objects

EPOCHS = 2
KINDS = ["trained", "untrained", "random"]


def enas(**settings):
    space = ENASMicro(nodes=1, operations=["skip_connect", "sep_conv_3x3", "max_pool_3x3"])
    small = {"network": {"channels": 2, "layers": 1}, "controller_steps": 2, "samples_per_step": 3, "bn": "batch"}
    return ENAS(
        space,
        ImageClassification(),
        **objects(ENAS, small | {"controller_lr": 0.5, "drop_path": 0.2, "seed": 3} | settings),
    )


def fitted(method, folder):
    """The path of the checkpoint of a search."""
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        callbacks=[ModelCheckpoint(folder, "last", save_on_train_epoch_end=True)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(method, datamodule=Digits(batch_size=128))
    return str(folder / "last.ckpt")


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    return fitted(enas(), tmp_path_factory.mktemp("search"))


@pytest.fixture(scope="module")
def studied(search, tmp_path_factory):
    """The folder of a study of the search, and what was printed."""
    folder, said = tmp_path_factory.mktemp("studied"), io.StringIO()
    with contextlib.redirect_stdout(said):
        status = main(["study", "controller", search, f"--folder={folder}", "--n_architectures=6", "--n_batches=1"])
    assert status == 0
    return folder, said.getvalue()


def rows(folder):
    with open(folder / "controller.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def differing(one, other):
    """The names of tensors that are not equal."""
    assert one.keys() == other.keys()
    return [name for name, value in one.items() if not torch.equal(value, other[name])]


# -- figures ---------------------------------------------------------------------------------------------------------


def test_diversity_against_counting_by_hand():
    drawn = [(0, 1, 2), (0, 1, 2), (0, 2, 2), (1, 0, 0)]
    assert unique_share(drawn) == 3 / 4
    assert hamming_distance(drawn) == pytest.approx((0 + 1 + 3 + 1 + 3 + 3) / 6)
    assert hamming_distance([(5, 5)] * 3) == 0


def test_hamming_distance_is_the_mean_over_pairs():
    drawn = [tuple(row) for row in torch.randint(0, 4, (30, 7), generator=torch.Generator().manual_seed(0)).tolist()]
    pairs = list(itertools.combinations(drawn, 2))
    expected = sum(sum(a != b for a, b in zip(one, other, strict=True)) for one, other in pairs) / len(pairs)
    assert hamming_distance(drawn) == pytest.approx(expected)


def test_deviation_is_of_each_unit_over_architectures():
    hidden = torch.tensor([[[1.0, 5.0], [0.0, 0.0]], [[1.0, 7.0], [0.0, 2.0]], [[1.0, 9.0], [3.0, 4.0]]])
    steps = [(0 + statistics.stdev([5, 7, 9])) / 2, (statistics.stdev([0, 0, 3]) + statistics.stdev([0, 2, 4])) / 2]
    assert deviation(hidden).tolist() == pytest.approx(steps)


@pytest.mark.parametrize("values", [(1.0,), (2.0, 2.0, 2.0), (3.0, 1.0)])
def test_effective_rank_of_known_singular_values(values):
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(9, len(values), generator=generator).double()
    left, _ = torch.linalg.qr(left - left.mean(0))  # orthonormal, and still centred
    right, _ = torch.linalg.qr(torch.randn(12, len(values), generator=generator).double())
    matrix = left * torch.tensor(values).double() @ right.T + torch.randn(
        12, generator=generator
    )  # the same in all rows
    shares = [value / sum(values) for value in values]
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    assert effective_rank(matrix.view(9, 4, 3)) == pytest.approx(expected)


def test_hidden_states_that_are_all_equal_have_no_rank():
    hidden = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0)).expand(7, -1, -1)
    assert effective_rank(hidden) == 0  # although the mean of equal numbers is rounded
    assert effective_rank(torch.zeros(3, 2, 2)) == 0
    assert deviation(hidden).max() < 1e-6


def test_the_table_says_what_was_measured(tmp_path):
    same_score = Drawn([(0, 1), (0, 1)], [-1.0, -2.0], {"trained": [0.5, 0.75], "untrained": [0.25, math.nan]})
    hidden = torch.zeros(2, 3, 4)
    hidden[1] = 2.0
    states = dict.fromkeys(("trained", "untrained", "trained, reading random", "untrained, reading random"), hidden)
    study = ControllerStudy(dict.fromkeys(KINDS, same_score), states, True, "accuracy", 4, 14, tmp_path)
    text = study.describe()
    for said in ("2 architectures", "accuracy", "4 batches", "0.6250 ± 0.1768", "1 finite", "50%", "0.00", "1.50"):
        assert said in text
    assert f"{statistics.stdev([0, 2]):.4f}" in text
    assert f"{math.sqrt(2):.4f}" in text  # half of the hidden states are 2
    assert "14 epochs" in text
    assert "not of trained networks" in text
    assert "does not by itself say" in text
    assert "is uniform" in text
    short = dataclasses.replace(study, uniform=False, epochs=0).describe()
    assert "operation_bias" in short
    assert "epochs" not in short


# -- a study from a checkpoint -----------------------------------------------------------------------------------------


def test_every_row_of_the_table_can_be_computed_again(search, studied):
    folder, _ = studied
    method, data = load_search(search)
    untrained, _ = load_search(str(folder / f"untrained_{EPOCHS}_epochs" / "last.ckpt"))
    evaluators = {"trained": Scorer.of(method, data, 1), "untrained": Scorer.of(untrained, data, 1)}
    found = rows(folder)
    pairs = [(row["drawn_from"], row["weights_of"]) for row in found]
    assert pairs == [(kind, weights) for kind in KINDS for weights in evaluators for _ in range(6)]
    for row in found:
        architecture = method.space.from_names({c.name: row[c.name] for c in method.space.choices})
        assert float(row["score"]) == evaluators[row["weights_of"]](architecture)
        policy = {"trained": method.policy, "untrained": untrained.policy}.get(row["drawn_from"])
        expected = -math.log(method.space.size)
        if policy is not None:
            expected = policy.evaluate(torch.tensor([architecture])).log_prob.item()
        assert float(row["log_prob"]) == pytest.approx(expected, abs=1e-5)
    assert len({row["score"] for row in found}) > 4
    for name in ("controller.svg", "hidden.svg"):
        assert (folder / name).read_bytes().startswith(b"<?xml")


def test_the_summary_has_the_means_of_the_table(studied):
    folder, said = studied
    for kind, weights in itertools.product(KINDS, KINDS[:2]):
        chosen = [r for r in rows(folder) if (r["drawn_from"], r["weights_of"]) == (kind, weights)]
        scores = [float(row["score"]) for row in chosen]
        assert f"{statistics.fmean(scores):.4f} ± {statistics.stdev(scores):.4f}" in said
    assert "is uniform" in said


def test_the_same_seed_gives_the_same_files_and_the_search_stays(search, tmp_path):
    method, data = load_search(search)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    studies = []
    for name in ("one", "two"):
        torch.manual_seed(len(studies))  # nothing depends on it
        studies.append(study_controller(method, data, tmp_path / name, n_architectures=3, n_batches=1))
    assert not differing(before, method.state_dict())
    assert not method.training
    for name in ("controller.csv", "controller.svg", "hidden.svg"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    hidden = studies[0].hidden
    assert not differing(hidden, studies[1].hidden)
    n_choices = len(method.space.choices)
    assert {tuple(h.shape) for h in hidden.values()} == {(3, n_choices, method.policy.controller.width)}


def test_an_operation_bias_is_said(tmp_path):
    data = Digits(batch_size=128)
    biased = LSTMController(hidden=4, operation_bias={"sep_conv_3x3": 3.0})
    method = enas(controller=biased, inputs=data.inputs).eval()
    study = study_controller(method, data, tmp_path, n_architectures=8, n_batches=1)
    assert "not uniform" in study.describe()
    options = [name for row in rows(tmp_path) if row["drawn_from"] == "untrained" for name in row.values()]
    assert options.count("sep_conv_3x3") > 3 * options.count("skip_connect")


def test_the_test_part_is_not_touched(search, tmp_path, monkeypatch):
    load = Digits.load

    def guarded(self, test):
        assert not test
        return load(self, test)

    monkeypatch.setattr(Digits, "load", guarded)
    method, data = load_search(search)
    study_controller(method, data, tmp_path, n_architectures=2, n_batches=1, epochs=1)


# -- weights trained with the untrained policy -------------------------------------------------------------------------


def test_but_for_the_policy_it_is_the_search_itself(tmp_path):
    """A search that leaves its own policy untrained is repeated bit for bit, though its controller took more steps."""
    method, data = load_search(fitted(enas(controller_lr=0.0), tmp_path / "search"))
    again = train_with_untrained(method, data, EPOCHS, tmp_path)
    assert not differing(method.network.state_dict(), again.network.state_dict())
    assert not differing(method.policy.state_dict(), again.policy.state_dict())


def test_the_policy_stays_as_the_search_began(search, tmp_path):
    method, data = load_search(search)
    again = train_with_untrained(method, data, EPOCHS, tmp_path)
    began = method.policy.controller.policy(method.space, method.seed).state_dict()
    assert not differing(began, again.policy.state_dict())
    assert differing(began, method.policy.state_dict())
    assert differing(method.network.state_dict(), again.network.state_dict())
    assert trained_epochs(search) == trained_epochs(tmp_path / f"untrained_{EPOCHS}_epochs" / "last.ckpt") == EPOCHS


def test_an_interrupted_study_goes_on_and_a_finished_one_trains_no_more(search, tmp_path, monkeypatch):
    method, data = load_search(search)
    whole = train_with_untrained(method, data, EPOCHS, tmp_path / "whole").network.state_dict()
    started = ENAS.on_train_epoch_start

    def stop(self):
        started(self)
        if self.current_epoch == 1:
            raise ZeroDivisionError

    with monkeypatch.context() as context:
        context.setattr(ENAS, "on_train_epoch_start", stop)
        with pytest.raises(ZeroDivisionError):
            train_with_untrained(method, data, EPOCHS, tmp_path / "parts")
    steps = []
    step = ENAS.training_step
    monkeypatch.setattr(ENAS, "training_step", lambda self, *batch: (steps.append(batch[1]), step(self, *batch))[1])
    assert not differing(whole, train_with_untrained(method, data, EPOCHS, tmp_path / "parts").network.state_dict())
    assert steps == [0, 1, 2, 3, 4, 5]  # of the second epoch: five of the weights, one of the controller
    assert not differing(whole, train_with_untrained(method, data, EPOCHS, tmp_path / "parts").network.state_dict())
    assert len(steps) == 6


@pytest.fixture(scope="module")
def other_search(tmp_path_factory):
    """A checkpoint of the same settings whose weights are others."""
    path = fitted(enas(), tmp_path_factory.mktemp("other"))
    checkpoint = torch.load(path, weights_only=True)
    next(iter(checkpoint["state_dict"].values())).add_(1)
    torch.save(checkpoint, path)
    return path


def test_weights_of_another_search_are_not_taken(search, tmp_path):
    method, data = load_search(search)
    train_with_untrained(method, data, 1, tmp_path)
    with pytest.raises(SettingError, match=r"--folder: .* are of another search"):
        train_with_untrained(enas(seed=4), data, 1, tmp_path)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--n_architectures=3"], "n_architectures is 2 there and 3 here"),
        (["--n_batches=2"], "n_batches is 1 there and 2 here"),
        (["--retrain_weights=false"], "untrained_epochs is 2 there and 0 here"),
        ([], "digest_of_weights is "),
    ],
)
def test_a_folder_takes_one_study(flags, said, search, other_search, tmp_path, monkeypatch, capsys):
    """Elsewhere by default, where the weights of the untrained policy are found again; refused where it is named."""
    monkeypatch.chdir(tmp_path)
    small = ["--n_architectures=2", "--n_batches=1"]
    assert main(["study", "controller", search, *small]) == 0
    (table,) = Path("runs").glob("study-controller-enas-*/controller.csv")
    before, fit = table.read_bytes(), pl.Trainer.fit
    monkeypatch.setattr(pl.Trainer, "fit", lambda *_, **__: pytest.fail("the weights were trained already"))
    assert main(["study", "controller", search, *small]) == 0  # the same study
    assert list(Path("runs").glob("*/controller.csv")) == [table]

    other = ["study", "controller", search if flags else other_search, *small, *flags]
    assert main(other) == 0
    assert len(list(Path("runs").glob("*/controller.csv"))) == 2
    assert len(list(Path("runs").glob("study-controller-weights-enas-*/untrained_2_epochs/last.ckpt"))) == 1

    monkeypatch.setattr(pl.Trainer, "fit", fit)
    assert main([*other, f"--folder={table.parent}"]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert table.read_bytes() == before


# -- wrong input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--n_architectures=1"], ["--n_architectures", "at least 2", "got 1"]),
        (["--n_batches=0"], ["--n_batches", "at least 1", "got 0"]),
        (["--device=abacus"], ["device", "cpu", "abacus"]),
        (["--device=mps"], ["--device: mps"]),
        (["--folder=a_file"], ["--folder: a_file is no folder"]),
        (["--folder=other"], ["--folder: other holds untrained_2_epochs and no settings.yaml", "another --folder"]),
    ],
)
def test_wrong_input_gets_one_line(flags, said, search, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    if "--folder=other" in flags:
        kept = tmp_path / "other" / f"untrained_{EPOCHS}_epochs" / "last.ckpt"
        kept.parent.mkdir(parents=True)
        kept.symlink_to(search)
    assert main(["study", "controller", search, *flags]) == 2
    out, error = capsys.readouterr()
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert out == ""
    for part in said:
        assert part in line
    assert not list(tmp_path.rglob("*.csv"))


def test_a_search_without_a_controller_is_refused_by_its_name(tmp_path):
    method = DARTS(DARTSCell(nodes=1), ImageClassification())
    with pytest.raises(SettingError, match=r"ckpt_path: .*ENAS.*DARTS"):
        study_controller(method, Digits(), tmp_path / "study")
    assert not (tmp_path / "study").exists()
