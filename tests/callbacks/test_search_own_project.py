"""Searching inside a user's own Lightning project: their module, their data, their trainer."""

import csv
import difflib
import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from lightning_nas import (
    Adam,
    GumbelSoftmax,
    InputChoice,
    LayerChoice,
    PathSearch,
    RelaxedSearch,
    RepeatChoice,
    SettingError,
    StraightThroughGumbel,
    ValueChoice,
    load_architecture,
)
from lightning_nas.callbacks import own_steps
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.own.running import _RUNNING
from tests.helpers.own_project import plain, searching
from tests.helpers.ranks import ROOT, run_ranks

KINDS = {
    "paths": lambda **settings: PathSearch("val_acc", **settings),
    "softmax": lambda **settings: RelaxedSearch(alphas_optimizer=Adam(0.05), **settings),
    "gumbel": lambda **settings: RelaxedSearch(GumbelSoftmax(), alphas_optimizer=Adam(0.05), **settings),
    "straight_through": lambda **settings: RelaxedSearch(
        StraightThroughGumbel(1.0, 0.1), alphas_optimizer=Adam(0.02), **settings
    ),
}
BOTH = ("paths", "softmax")


def loaders(n=192):
    """To train and to validate on, half of ``n`` examples each, in batches of 16."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(3, (n,), generator=generator)
    x = torch.randn(n, 6, generator=generator) + 2 * nn.functional.one_hot(labels, 6)
    sets = [TensorDataset(x[k::2], labels[k::2]) for k in range(2)]
    return [DataLoader(part, 16) for part in sets]


class Resumable(DataLoader):
    """A loader that goes on where a checkpoint was written, which a trainer asks it for."""

    done = 0

    def __iter__(self):
        start, self.done = self.done % len(self), 0
        for number, batch in enumerate(super().__iter__()):
            if number >= start:
                self.done = number + 1
                yield batch

    def state_dict(self):
        return {"done": self.done}

    def load_state_dict(self, state):
        self.done = state["done"]


def body():
    torch.manual_seed(0)
    first = LayerChoice({"zero": nn.Threshold(1e9, 0.0), "linear": nn.Linear(6, 6)}, label="first")
    return nn.Sequential(first, nn.BatchNorm1d(6), LayerChoice([nn.ReLU(), nn.Tanh()], label="act"), nn.Linear(6, 3))


class Project(pl.LightningModule):
    """A project that keeps whatever a project may keep."""

    def __init__(self, net=None, fails_at=None):
        super().__init__()
        self.net = body() if net is None else net
        self.metrics = MetricCollection({"acc": MulticlassAccuracy(3), "mean": MeanMetric()})
        self.val_acc = MulticlassAccuracy(3)
        self.fails_at, self.losses, self.n_steps = fails_at, [], 0

    def training_step(self, batch, batch_idx):
        if self.fails_at == batch_idx:
            raise RuntimeError("theirs")
        logits = self.net(batch[0])
        loss = cross_entropy(logits, batch[1])
        self.losses.append(float(loss))
        self.n_steps += 1
        self.metrics["acc"](logits, batch[1])
        self.metrics["mean"](loss)
        self.log("train_acc", self.metrics["acc"], on_step=False, on_epoch=True)
        self.log("train_loss", loss)
        self.logger.experiment.add_note(batch_idx) if hasattr(self.logger.experiment, "add_note") else None
        return {"loss": loss}

    def validation_step(self, batch, batch_idx):
        logits = self.net(batch[0])
        self.val_acc(logits, batch[1])
        self.log("val_acc", self.val_acc)
        return cross_entropy(logits, batch[1])

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


class Manual(Project):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)["loss"]
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()


def trainer_of(folder, *callbacks, **settings):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1, "max_epochs": 2}
    return pl.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=list(callbacks),
        logger=CSVLogger(folder),
        **quiet | settings,
    )


def fitted(folder, search, project=None, **settings):
    project = project or Project()
    trainer = trainer_of(folder, search, **settings)
    trainer.fit(project, *loaders())
    return trainer, project


# -- a project and what is changed in it -----------------------------------------------------------------------------


def test_at_most_five_lines_are_changed():
    before, after = (Path(module.__file__).read_text().splitlines() for module in (plain, searching))
    changed = [line for line in difflib.ndiff(before, after) if line.startswith("+ ")]
    assert 0 < len(changed) <= 5
    assert len(before) <= 43


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "kind", [*BOTH, *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS if kind not in BOTH)]
)
def test_the_better_option_is_found_and_all_is_logged_as_before(kind, seed, tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(searching, "PathSearch", lambda monitor: found.append(KINDS[kind](seed=seed)) or found[0])
    trainer, project = searching.main(tmp_path, seed=seed)
    (search,) = found
    assert search.space.to_names(search.best()) == {"1": "1"}
    assert [type(part) for part in project.net] == [nn.Sequential, nn.MaxPool2d, nn.Flatten, nn.Linear]
    assert (tmp_path / "best.ckpt").exists()
    assert {"val_acc", "train_acc"} <= set(trainer.callback_metrics)
    with open(Path(trainer.logger.log_dir) / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    for name in ("val_acc", "train_acc"):
        assert sum(bool(row[name]) for row in rows) == trainer.current_epoch == 4
    if kind == "paths":
        assert float(rows[-1]["arch/val_acc"]) == pytest.approx(search.scores[search.best()])
        assert search.scores[(1,)] > search.scores[(0,)] + 0.2
    else:
        assert sum(bool(row["arch/entropy"]) for row in rows) == 4
        shares = [float(row["arch/1/1"]) for row in rows if row["arch/1/1"]]
        assert shares[-1] > (0.6 if kind == "straight_through" else 0.8)
        assert shares[-1] == pytest.approx(float(search.probabilities()[0, 1]))


def test_the_plain_project_runs(tmp_path):
    trainer, _ = plain.main(tmp_path, epochs=1)
    assert trainer.callback_metrics["val_acc"] > 0.5


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("project", [Project, Manual])
def test_with_one_candidate_it_trains_as_without_a_search(project, kind, tmp_path):
    """Bit for bit, with what is logged, the order of shuffled batches, dropout and the rate of the optimiser."""

    def net(wrap):
        torch.manual_seed(0)
        return nn.Sequential(wrap(nn.Linear(6, 6)), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))

    ended = []
    for wrap, callbacks in ((lambda m: m, []), (lambda m: LayerChoice([m], label="one"), [KINDS[kind]()])):
        theirs, trainer = project(net(wrap)), trainer_of(tmp_path, *callbacks, max_epochs=3)
        train, val = loaders()
        pl.seed_everything(0)
        trainer.fit(theirs, DataLoader(train.dataset, 16, shuffle=True), val)
        figures = {k: float(v) for k, v in trainer.callback_metrics.items() if "arch" not in k}
        if kind == "paths":
            del figures["val_acc"]  # validates by the statistics of the batch
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        state = [v for k, v in theirs.state_dict().items() if "metrics" not in k]
        ended.append((state, figures, theirs.losses, theirs.n_steps, rate, trainer.global_step))
    (one, *others), (other, *rest) = ended
    assert all(map(torch.equal, one, other))
    assert others == rest
    assert others[-1] == 18


@pytest.mark.parametrize("kind", BOTH)
def test_manual_optimisation(kind, tmp_path):
    search = KINDS[kind]()
    trainer, project = fitted(tmp_path, search, Manual(), max_epochs=6)
    assert trainer.global_step == project.n_steps == 36
    assert search.space.to_names(search.best())["first"] == "linear"


# -- the steps -------------------------------------------------------------------------------------------------------


class Spy(pl.Callback):
    """What a search does in a step, for those who look."""

    def __init__(self, look):
        self.look, self.seen = look, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(self.look(trainer, pl_module, batch_idx))


def test_the_gradient_of_the_alphas_is_that_of_their_loss(tmp_path, monkeypatch):
    """Against central differences of the loss that their step returns on the validation batch."""
    gradients = []
    monkeypatch.setattr(
        "lightning_nas.callbacks.relaxed_search.apply_gradients",
        lambda trainer, step, parameters, gradient, clip: gradients.append(gradient[0].clone()),
    )
    search = RelaxedSearch()
    trainer, project = trainer_of(tmp_path, search, max_steps=1, max_epochs=-1, precision="64-true"), Project()
    expected = []

    def look(trainer, module, batch_idx):
        (x, y), step = next(iter(trainer.val_dataloaders)), 1e-3
        for k, option in itertools.product(range(2), range(2)):
            losses = []
            for sign in (1, -1):
                alphas = search.alphas.detach().double()
                alphas[k, option] += sign * step
                rows = dict(zip(("first", "act"), alphas.softmax(1), strict=True))
                search.run(rows)
                losses.append(float(cross_entropy(module.net(x.double()), y)))
            expected.append((losses[0] - losses[1]) / (2 * step))

    trainer.callbacks.insert(1, Spy(look))
    trainer.fit(project, *loaders())
    assert gradients[0].flatten().tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_step_of_the_alphas_is_not_noticed(tmp_path):
    search, before = RelaxedSearch(), []

    def state(module):
        kept = {k: v.clone() for k, v in module.state_dict().items()}
        kept |= {f"grad of {k}": None if p.grad is None else p.grad.clone() for k, p in module.named_parameters()}
        metrics = [(name, m._update_count, m.metric_state) for name, m in module.metrics.items()]
        return kept, repr(metrics), list(module.losses), module.n_steps, vars(module).keys(), torch.get_rng_state()

    def look(trainer, module, batch_idx):
        before.append(state(module))
        alphas = search.alphas.detach().clone()
        search.step_alphas(trainer, module, batch_idx)
        assert not torch.equal(alphas, search.alphas)
        after = state(module)
        for (name, one), other in zip(before[-1][0].items(), after[0].values(), strict=True):
            assert one is other is None or torch.equal(one, other), name
        assert before[-1][1:5] == after[1:5]
        assert torch.equal(before[-1][5], after[5])

    trainer_of(tmp_path, Spy(look), search).fit(Project(), *loaders())
    assert len(before) == 12


@pytest.mark.parametrize("n", [2, 3])
def test_alphas_learn_on_all_validation_batches_in_turn(n, tmp_path, monkeypatch):
    seen, run_step = [], own_steps.run_step
    monkeypatch.setattr(
        own_steps, "run_step", lambda t, m, batch, i: seen.append(int(batch[1][0])) or run_step(t, m, batch, i)
    )
    train, _ = loaders()
    val = DataLoader(TensorDataset(torch.randn(2 * n, 6), torch.arange(2 * n) // 2 % 3), 2)
    search = RelaxedSearch(n_calibration=1)
    trainer_of(tmp_path, search, num_sanity_val_steps=0).fit(Project(), train, val)
    assert seen[:12] == [k % n for k in range(12)]


def test_an_architecture_is_drawn_for_every_batch_and_stays_for_it(tmp_path):
    """Several forward passes, a part that is computed again in the backward pass, and accumulated gradients."""
    ran = []

    class Several(Project):
        def training_step(self, batch, batch_idx):
            ran.append([])
            h = checkpoint(self.net[0], batch[0], use_reentrant=False)
            loss = cross_entropy(self.net[1:](h), batch[1]) + cross_entropy(self.net(batch[0]), batch[1])
            self.log("train_loss", loss)
            return loss

    net = body()
    for name, option in zip(net[0].names, net[0], strict=True):
        option.register_forward_pre_hook(lambda *_, name=name: ran[-1].append(name) if ran else None)
    search = PathSearch("val_acc", seed=3)
    project, trainer = Several(net), trainer_of(tmp_path, search, accumulate_grad_batches=2, num_sanity_val_steps=0)
    drawn = []
    trainer.callbacks.insert(1, Spy(lambda t, m, i: drawn.append(search.draw("training", t.current_epoch, i))))
    search.choose = lambda *_: search.scores.update({(0, 0): 0.0}) or {}
    trainer.fit(project, *loaders())
    names = [search.space.to_names(architecture)["first"] for architecture in drawn]
    assert set(names) == {"zero", "linear"}
    for name, seen in zip(names, ran, strict=False):
        n = 3 if name == "linear" else 2  # the other has nothing to learn behind it
        assert seen[:n] == [name] * n


def test_the_network_runs_in_their_hooks_too(tmp_path):
    class Looks(Project):
        def on_validation_epoch_end(self):
            self.log("mean_logit", self.net(torch.ones(2, 6)).mean())

        def on_train_epoch_end(self):
            self.net(torch.ones(2, 6))

    trainer, _ = fitted(tmp_path, PathSearch("mean_logit"), Looks())
    assert "mean_logit" in trainer.callback_metrics


def test_a_frozen_batch_norm_stays_as_it_is(tmp_path):
    class Frozen(Project):
        def train(self, mode=True):
            super().train(mode)
            self.net[1].eval()
            return self

    for kind in BOTH:
        project = Frozen()
        project.net[1].running_mean.fill_(0.5)
        project.train()
        search = KINDS[kind]()
        fitted(tmp_path, search, project)
        for norm in (project.net[1], search.freeze()[1]):
            assert norm.running_mean.eq(0.5).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"check_val_every_n_epoch": 2, "num_sanity_val_steps": 0},
        {"val_check_interval": 2},
        {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5},
        {"precision": "bf16-mixed"},
        {"fast_dev_run": True},
        {"max_steps": 5, "max_epochs": -1},
        {"limit_val_batches": 2, "limit_train_batches": 0.5},
        {"reload_dataloaders_every_n_epochs": 1},
    ],
    ids=lambda settings: next(iter(settings)),
)
@pytest.mark.parametrize("kind", BOTH)
def test_settings_of_the_trainer(kind, settings, tmp_path):
    search = KINDS[kind]()
    trainer, project = fitted(tmp_path, search, **settings)
    assert ({"train_acc"} if "max_steps" in settings else {"val_acc", "train_acc"}) <= set(trainer.callback_metrics)
    assert search.freeze()(torch.ones(2, 6)).isfinite().all()
    assert _RUNNING.get() is None
    if kind == "softmax":
        assert search.n_steps == project.n_steps > 0


# -- the end ---------------------------------------------------------------------------------------------------------


def test_a_candidate_is_worth_what_its_frozen_network_is(tmp_path):
    search = PathSearch("val_acc", population=4)
    trainer, project = fitted(tmp_path, search)
    assert set(search.scores) == set(search.space)
    assert list(search.scores.values()) == sorted(search.scores.values(), reverse=True)
    project.net = search.freeze()
    (figures,) = trainer.validate(project, loaders()[1], verbose=False)
    assert figures["val_acc"] == search.scores[search.best()]


def test_lower_may_be_better_and_rounds_go_on(tmp_path):
    one, other = PathSearch("val_acc", "min", population=2, rounds=2), PathSearch("val_acc", "max", population=4)
    for search in (one, other):
        fitted(tmp_path, search)
    assert one.scores == other.scores  # all there are, in another order
    assert list(one.scores.values()) == list(other.scores.values())[::-1]


def test_ctrl_c_keeps_the_best_so_far(tmp_path, monkeypatch):
    validated, calls = own_steps.validated, []

    def stops(trainer):
        calls.append(trainer)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return validated(trainer)

    monkeypatch.setattr(own_steps, "validated", stops)
    search = PathSearch("val_acc")
    trainer, _ = fitted(tmp_path, search)
    assert len(search.scores) == 2
    assert search.best() in search.scores
    assert trainer.callbacks[0] is search
    search.freeze()


def test_what_is_no_number_comes_last(tmp_path, monkeypatch):
    values = iter([math.nan, 0.25, math.nan, math.nan])
    monkeypatch.setattr(own_steps, "validated", lambda trainer: {"val_acc": next(values)})
    search = PathSearch("val_acc")
    fitted(tmp_path, search)
    assert [math.isnan(score) for score in search.scores.values()] == [False, True, True, True]


@pytest.mark.parametrize("kind", BOTH)
def test_a_frozen_network_has_no_trace(kind, tmp_path):
    search = KINDS[kind]()
    _, project = fitted(tmp_path, search, max_epochs=4)
    frozen = search.freeze()
    names = search.space.to_names(search.best())
    torch.manual_seed(0)
    act = nn.ReLU() if names["act"] == "0" else nn.Tanh()
    written = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), act, nn.Linear(6, 3))
    assert names["first"] == "linear"
    assert list(frozen.state_dict()) == list(written.state_dict())
    assert repr(frozen) == repr(written)
    assert not [part for part in frozen.modules() if type(part).__module__.startswith("lightning_nas")]
    assert all(part.training and not part._forward_pre_hooks for part in frozen.modules())
    for name, weight in frozen.named_parameters():
        name = name.replace("0.", "0.linear.", 1) if name.startswith("0.") else name
        assert torch.equal(weight, project.net.get_parameter(name))
    project.net = frozen
    plain_trainer = trainer_of(tmp_path)
    plain_trainer.fit(project, *loaders())
    assert plain_trainer.callback_metrics["val_acc"] > 0.5


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        width = ValueChoice([2, 4, 8], "width")
        self.conv, self.norm = nn.Conv1d(1, width, 3, padding=1), nn.BatchNorm1d(width)
        self.blocks = RepeatChoice(lambda k: nn.Sequential(nn.Linear(6, 6), nn.ReLU()), [0, 1, 2], "depth")
        self.skip = InputChoice(2, label="skip")
        self.classify = nn.Linear(width, 3)

    def forward(self, x):
        x = self.skip([x, self.blocks(x)])
        return self.classify(self.norm(self.conv(x[:, None])).mean(2))


def test_widths_and_depths_are_searched_where_they_stand(tmp_path):
    torch.manual_seed(0)
    net = Net()
    weights, types = dict(net.named_parameters()), [type(part) for part in net.modules()]
    search = PathSearch("val_acc", population=6, rounds=2)
    trainer, project = fitted(tmp_path, search, Project(net), max_epochs=3)
    assert project.net is net
    assert [type(part) for part in net.modules()] == types
    assert all(net.get_parameter(name) is weight for name, weight in weights.items())
    assert len(search.scores) == 12
    frozen, names = search.freeze(), search.space.to_names(search.best())
    assert frozen.conv.out_channels == frozen.norm.num_features == int(names["width"])
    assert type(frozen.conv) is nn.Conv1d
    project.net = frozen
    (figures,) = trainer.validate(project, loaders()[1], verbose=False)
    assert figures["val_acc"] == search.scores[search.best()]
    found = load_architecture(Path(trainer.log_dir) / "architecture.json")
    assert found.space.to_names(found.architecture) == names
    assert found.metrics["val_acc"] == search.scores[search.best()]


def test_choices_in_the_module_itself(tmp_path):
    class Itself(Project):
        def __init__(self):
            super().__init__(nn.Linear(6, 3))
            self.first = LayerChoice([nn.Threshold(1e9, 0.0), nn.Linear(6, 6)])

        def training_step(self, batch, batch_idx):
            return super().training_step((self.first(batch[0]), batch[1]), batch_idx)

    search = RelaxedSearch(alphas_optimizer=Adam(0.1))
    trainer, _ = fitted(tmp_path, search, Itself(), max_epochs=4)
    assert search.space.to_names(search.best()) == {"first": "1"}
    frozen = search.freeze()
    assert isinstance(frozen, Itself)
    assert type(frozen.first) is nn.Linear
    content = json.loads((Path(trainer.log_dir) / "architecture.json").read_text())
    assert content["choices"] == {"first": "1"}
    assert content["method"] == "RelaxedSearch"


@pytest.mark.parametrize("kind", BOTH)
def test_an_exception_leaves_nothing_behind(kind, tmp_path):
    project = Project(fails_at=1)
    types = [type(part) for part in project.modules()]
    with pytest.raises(RuntimeError, match="theirs"):
        fitted(tmp_path, KINDS[kind](), project)
    assert _RUNNING.get() is None
    assert [type(part) for part in project.modules()] == types
    assert "log" not in vars(project)
    with pytest.raises(SettingError, match="no architecture is chosen"):
        project.net(torch.ones(2, 6))
    project.fails_at = None
    search = KINDS[kind]()
    fitted(tmp_path, search, project)  # it can be fitted again
    assert _RUNNING.get() is None
    search.freeze()(torch.ones(2, 6))


# -- continuing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [{"every_n_epochs": 1}, {"every_n_train_steps": 4}])
@pytest.mark.parametrize("kind", KINDS)
def test_continued_is_uninterrupted(kind, every, tmp_path):
    def run(**settings):
        search = KINDS[kind](seed=5)
        saved = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, **every)
        trainer, project = trainer_of(tmp_path, search, saved, max_epochs=4, num_sanity_val_steps=0), Project()
        train, val = loaders()
        trainer.fit(project, Resumable(train.dataset, 16), val, **settings)
        return search, project

    search, project = run()
    step = 12 if "every_n_epochs" in every else 8
    path = tmp_path / f"step={step}.ckpt"
    torch.load(path, weights_only=True)
    again, continued = run(ckpt_path=path)
    weights = [{k: v for k, v in p.state_dict().items() if "metrics" not in k} for p in (project, continued)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert search.best() == again.best()
    if kind == "paths":
        assert search.scores == again.scores
    else:
        assert torch.equal(search.alphas, again.alphas)
        assert search.n_steps == again.n_steps == 24
        for name, value in search.optimizer.state_dict()["state"][0].items():
            assert torch.equal(value, again.optimizer.state_dict()["state"][0][name])
    with pytest.raises(SettingError, match="seed: 5 as in the checkpoint, got 6"):
        trainer_of(tmp_path, KINDS[kind](seed=6)).fit(Project(), *loaders(), ckpt_path=path)
    other = nn.Sequential(LayerChoice([nn.Linear(6, 3), nn.Linear(6, 3)], label="other"))
    with pytest.raises((SettingError, RuntimeError)):
        trainer_of(tmp_path, KINDS[kind](seed=5)).fit(Project(other), *loaders(), ckpt_path=path)


TWO_RANKS = """
import sys
sys.path.insert(0, {root!r})
import torch
from tests.callbacks.test_search_own_project import KINDS, Project, loaders, trainer_of

for name in {names!r}:
    search, project = KINDS[name](), Project()
    strategy = "ddp" if name == "softmax" else "ddp_find_unused_parameters_true"
    run = trainer_of({folder!r}, search, devices=2, strategy=strategy, max_epochs=3)
    run.fit(project, *loaders())
    state = {{"weights": dict(project.net.named_parameters()), "frozen": search.freeze().state_dict()}}
    state |= {{"scores": search.scores}} if name == "paths" else {{"alphas": search.alphas.detach()}}
    torch.save(state | {{"best": search.best()}}, "{folder}/" + name + str(run.global_rank) + ".pt")
"""


@pytest.mark.slow
def test_two_ranks_end_equal(tmp_path):
    run_ranks(TWO_RANKS.format(root=str(ROOT), names=list(KINDS), folder=str(tmp_path)), tmp_path)
    for name in KINDS:
        one, other = (torch.load(tmp_path / f"{name}{rank}.pt", weights_only=True) for rank in (0, 1))
        assert one["best"] == other["best"]
        assert one.get("scores") == other.get("scores")
        for part in ("weights", "frozen"):
            assert all(torch.equal(value, other[part][key]) for key, value in one[part].items())
        if name != "paths":
            assert torch.equal(one["alphas"], other["alphas"])
            assert not torch.equal(one["alphas"], torch.zeros_like(one["alphas"]))


# -- what is refused -------------------------------------------------------------------------------------------------


def refused(folder, search, project=None, val=True, **settings):
    train, held_out = loaders()
    with pytest.raises(SettingError) as error:
        trainer_of(folder, *search if isinstance(search, list) else [search], **settings).fit(
            project or Project(), train, held_out if val else None
        )
    assert _RUNNING.get() is None
    return str(error.value)


def test_what_cannot_be_searched(tmp_path):
    assert "no choice in" in refused(tmp_path, PathSearch("val_acc"), Project(nn.Linear(6, 3)))
    compiled = body()
    compiled[3].compile(backend="eager")
    assert refused(tmp_path, PathSearch("val_acc"), Project(compiled)).startswith("network: one that is not compiled")
    assert "just one option of width can run at a time" in refused(tmp_path, RelaxedSearch(), Project(Net()))
    assert refused(tmp_path, RelaxedSearch(network="backbone")).startswith("network: an attribute of Project")
    assert refused(tmp_path, PathSearch("val_acc"), val=False).startswith("data: PathSearch chooses on validation")
    assert "one search at a time" in refused(tmp_path, [PathSearch("val_acc"), RelaxedSearch()])
    assert refused(tmp_path, PathSearch("val_f1")) == (
        "monitor: a figure that validation_step logs, got 'val_f1'; there are train_loss, val_acc"
    )


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        (DDPStrategy(start_method="spawn"), "auto, or ddp by processes of their own (torchrun), got DDPStrategy"),
        (FSDPStrategy(), "auto, or ddp by processes of their own (torchrun), got FSDPStrategy"),
        (DDPStrategy(static_graph=True), "ddp without static_graph, since other parts run in every batch"),
        (DDPStrategy(), "ddp_find_unused_parameters_true, since a batch leaves weights unused"),
        (DDPStrategy(find_unused_parameters=True), None),
    ],
)
def test_strategies(strategy, said):
    trainer = SimpleNamespace(strategy=strategy)
    if said is None:
        PathSearch("val_acc")._check_strategy(trainer)
        return
    for search in (PathSearch("val_acc"), RelaxedSearch(StraightThroughGumbel())):
        with pytest.raises(SettingError) as error:
            search._check_strategy(trainer)
        assert str(error.value) == f"trainer.strategy: {said}"
    if "unused" in said:
        RelaxedSearch()._check_strategy(trainer)


def test_a_step_without_a_loss_is_refused(tmp_path):
    class Silent(Manual):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)

    assert refused(tmp_path, RelaxedSearch(), Silent()).startswith("validation_step: has to return its loss")
    fitted(tmp_path, PathSearch("val_acc"), Silent())


def test_settings_are_checked():
    for wrong, said in (
        (lambda: PathSearch("val_acc", "most"), "mode: max or min, got 'most'"),
        (lambda: PathSearch("val_acc", rounds=0), "rounds: at least 1, got 0"),
        (lambda: RelaxedSearch(n_calibration=0), "n_calibration: at least 1, got 0"),
    ):
        with pytest.raises(SettingError) as error:
            wrong()
        assert str(error.value) == said
    for search in (PathSearch("val_acc"), RelaxedSearch()):
        with pytest.raises(SettingError, match="come to its end first"):
            search.freeze()


def test_batches_are_the_same_however_often_they_are_read(tmp_path):
    """Of a loader that shuffles, and whose workers persist while the trainer reads it as well."""
    data = TensorDataset(torch.arange(10))
    loader = DataLoader(data, 2, shuffle=True, num_workers=1, persistent_workers=True)
    mine = iter(loader)
    first = next(mine)
    seed = derive_seed(0, "batches")
    one, other = ([batch[0].tolist() for batch in own_steps._seeded(own_steps._of_its_own(loader), seed)] for _ in "ab")
    assert one == other
    assert sorted(itertools.chain(*one)) == list(range(10))
    assert sorted([*first[0].tolist(), *(n for batch in mine for n in batch[0].tolist())]) == list(range(10))
