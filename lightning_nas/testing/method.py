"""What every search in one network promises."""

import dataclasses
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_nas.callbacks import Interruption
from lightning_nas.data import DataModule
from lightning_nas.methods import OneShotMethod

POINTS = ((0, 0, 0), (0, -1, 0), (1, 2, 2), (2, -2, 0))
"""Epoch, batch and number of workers where a search is interrupted, negative batches from the epoch's end."""


@dataclasses.dataclass(frozen=True)
class MethodCase:
    """A method with all that a short search of three epochs needs.

    Attributes:
        build: makes the method; settings by name override its own.
        data: makes the data module with so many workers, some five batches an epoch.
        weight_steps: the number of steps of the weights in two epochs.
        architecture_steps: the number of steps of alphas or controller in two epochs.
        neither: the names of state that belongs to neither side, such as a counter.
        thorough: whether the search is interrupted at four points rather than at two.
    """

    build: Callable[..., OneShotMethod]
    data: Callable[[int], DataModule]
    weight_steps: int = 10
    architecture_steps: int = 10
    neither: tuple[str, ...] = ()
    thorough: bool = False

    def made(self, **settings: Any) -> OneShotMethod:
        """The method with its network."""
        return self.build(inputs=self.data(0).inputs, **settings)


class CaseTests:
    """Tests of which each is run for every case, and for each point where a search is interrupted."""

    cases: dict[str, MethodCase] = {}  # noqa: RUF012
    """The methods to test by a name for each."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each case, and each point where it is interrupted."""
        if "point" in metafunc.fixturenames:
            points = [
                pytest.param(case, point, id="-".join(map(str, (*point, name))))
                for name, case in self.cases.items()
                for point in (POINTS if case.thorough else POINTS[1:3])
            ]
            metafunc.parametrize(("case", "point"), points)
        elif "case" in metafunc.fixturenames:
            metafunc.parametrize("case", self.cases.values(), ids=self.cases)

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _one_thread(cls) -> Iterator[None]:
        """The last bits of sums depend on the number of threads."""
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)


class MethodContract(CaseTests):
    """The promises of a search in one network; see :mod:`lightning_nas.testing`."""

    @pytest.fixture(scope="class")
    @classmethod
    def uninterrupted(cls) -> Callable[[MethodCase], Any]:
        """What a search ends with that is never interrupted; each is run once."""
        finals: list[tuple[MethodCase, Any]] = []

        def get(case: MethodCase) -> Any:
            for known, final in finals:
                if known is case:
                    return final
            method, run = case.made(), quiet_trainer(max_epochs=3)
            run.fit(method, case.data(0))
            finals.append((case, final_state(method, run)))
            return finals[-1][1]

        return get

    def test_each_update_changes_its_own_side_alone(self, case: MethodCase, monkeypatch: pytest.MonkeyPatch) -> None:
        method = case.made()
        apply = OneShotMethod.apply_gradients
        updates: list[tuple[bool, set[str], bool]] = []
        before: dict[str, Any] = {}

        def spy(self: Any, optimizer: Any, parameters: Any, *args: Any, **kwargs: Any) -> None:
            of_weights = {id(p) for p in parameters} <= {id(p) for p in self.trained}
            stream = "weights" if of_weights else "architecture"
            others = {name for name in self.carries if name != stream}
            apply(self, optimizer, parameters, *args, **kwargs)
            now = _without_metrics(self)
            names = {name for name in differing(before["state"], now) if name not in case.neither}
            left = all(self.carries[o] is before["carries"].get(o) for o in others)
            updates.append((of_weights, names, left))
            before.update(state=now, carries=dict(self.carries))

        def start(self: Any, batch: Any, batch_idx: int) -> None:
            before.update(state=_without_metrics(self), carries=dict(self.carries))

        monkeypatch.setattr(OneShotMethod, "apply_gradients", spy)
        monkeypatch.setattr(type(method), "on_train_batch_start", start)
        quiet_trainer(max_epochs=3, callbacks=[EndAfter(2)]).fit(method, case.data(0))

        weight_steps = [names for of_weights, names, _ in updates if of_weights]
        architecture_steps = [names for of_weights, names, _ in updates if not of_weights]
        assert len(weight_steps) == case.weight_steps
        assert len(architecture_steps) == case.architecture_steps
        for names in weight_steps:
            assert names
            assert all(name.startswith(("network.", "task_modules.")) for name in names)
        for names in architecture_steps:
            assert names
            assert not any(name.startswith(("network.", "task_modules.")) for name in names)  # buffers included
        assert all(carries_of_other_streams_are_left for *_, carries_of_other_streams_are_left in updates)

    def test_interrupted_and_resumed_is_uninterrupted(
        self, case: MethodCase, point: tuple[int, int, int], tmp_path: Path, uninterrupted: Any
    ) -> None:
        epoch, batch, workers = point
        stopped = quiet_trainer(max_epochs=3, callbacks=[Stop(epoch, batch), Interruption(tmp_path)])
        with pytest.raises(SystemExit) as exit_:
            stopped.fit(case.made(), case.data(workers))
        assert exit_.value.code == 143

        content = torch.load(tmp_path / "last.ckpt", weights_only=True)
        again = case.build()
        assert content["hyper_parameters"]["space"] == again.space.spec
        method = type(again).load_from_checkpoint(tmp_path / "last.ckpt")
        assert_same(method.state_dict(), content["state_dict"])

        resumed = quiet_trainer(max_epochs=3)
        resumed.fit(method, case.data(workers), ckpt_path=tmp_path / "last.ckpt")
        assert_same(final_state(method, resumed), uninterrupted(case))

    def test_resumed_from_the_end_of_an_epoch(self, case: MethodCase, tmp_path: Path, uninterrupted: Any) -> None:
        each_epoch = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
        first = quiet_trainer(max_epochs=3, callbacks=[each_epoch], enable_checkpointing=True)
        first.fit(case.made(), case.data(0))
        method, resumed = case.made(), quiet_trainer(max_epochs=3)
        resumed.fit(method, case.data(0), ckpt_path=tmp_path / "epoch=1.ckpt")
        assert_same(final_state(method, resumed), uninterrupted(case))

    def test_the_seed_decides_the_search(self, case: MethodCase) -> None:
        def ended(seed: int) -> dict[str, Tensor]:
            method = case.made(seed=seed)
            quiet_trainer(max_epochs=3, callbacks=[EndAfter(1)], limit_val_batches=0).fit(method, case.data(0))
            return snapshot(method)

        first = ended(1)
        assert_same(first, ended(1))
        assert differing(first, ended(2))


# -- what the promises are tested with -------------------------------------------------------------------------------


class Stop(pl.Callback):
    """Sends SIGTERM in the middle of a step.

    Args:
        epoch: the epoch, from 0.
        batch: the batch of the epoch; a negative one counts from its end.
    """

    def __init__(self, epoch: int, batch: int) -> None:
        self.epoch, self.batch = epoch, batch

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        number = self.batch % int(trainer.num_training_batches)
        if (trainer.current_epoch, batch_idx) == (self.epoch, number):
            signal.raise_signal(signal.SIGTERM)


class EndAfter(pl.Callback):
    """Ends a training early, between two epochs.

    Args:
        epochs: the number of epochs after which it ends.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        trainer.should_stop = trainer.current_epoch + 1 == self.epochs


def quiet_trainer(**settings: Any) -> pl.Trainer:
    """A trainer on the CPU that prints and writes nothing; settings by name override that."""
    quiet: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "max_epochs": 2,
    }
    return pl.Trainer(**(quiet | settings))


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of the module's state."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def _without_metrics(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in snapshot(module).items() if "metrics" not in name}


def differing(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    """The names of what is not bit-equal."""
    return {name for name in before if not torch.equal(before[name], after[name])}


def final_state(method: pl.LightningModule, run: pl.Trainer) -> tuple[Any, ...]:
    """All that an interruption must not change: weights, optimisers, metrics. Losses are means since resuming."""
    optimizers = [optimizer.state_dict() for optimizer in run.optimizers]
    metrics = {k: float(v) for k, v in run.callback_metrics.items() if "loss" not in k}
    return snapshot(method), optimizers, metrics


def assert_same(a: Any, b: Any) -> None:
    """Fails unless both are equal, tensors to the last bit."""
    if isinstance(a, Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b
