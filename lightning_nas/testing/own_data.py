"""What every search in one network promises of data that are a user's own: loaders, or an ordinary data module."""

import random
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_nas.callbacks import Interruption
from lightning_nas.testing.method import (
    CaseTests,
    MethodCase,
    Stop,
    assert_same,
    final_state,
    quiet_trainer,
)


class Examples(Dataset):
    """Examples as their owner keeps them, one by one, with noise that is drawn anew each time one is asked for.

    Args:
        images: the N images, ``(N, C, H, W)``.
        labels: the labels of the images, ``(N,)``.
        noise: how strong the noise is that each of the three global generators adds; 0: there is none.
    """

    def __init__(self, images: Tensor, labels: Tensor, noise: float = 0.0) -> None:
        self.images, self.targets, self.noise = images, labels, noise

    @classmethod
    def of(cls, case: MethodCase, part: str, noise: float = 0.0) -> "Examples":
        """A part of the case's data, as evaluation sees it."""
        batches = list(case.data(0).evaluation(part))
        return cls(torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]), noise)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.images[index], int(self.targets[index])
        if self.noise:
            drawn = torch.rand(()) + random.random() + float(np.random.rand())  # noqa: NPY002  (as users' transforms do)
            image = image + self.noise * drawn
        return image, label


class OwnModule(pl.LightningDataModule):
    """An ordinary data module, which knows nothing of searches.

    Args:
        train: the examples to train on.
        validation: the examples to validate on; None: there are none.
        batch_size: the number of examples in a batch.
        num_workers: the number of processes that prepare batches; 0: this process prepares them.
    """

    def __init__(self, train: Dataset, validation: Dataset | None, batch_size: int, num_workers: int = 0) -> None:
        super().__init__()
        self.train, self.validation = train, validation
        self.batch_size, self.num_workers = batch_size, num_workers

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, self.batch_size, shuffle=True, num_workers=self.num_workers)

    def val_dataloader(self) -> Any:
        if self.validation is None:
            return []
        return DataLoader(self.validation, self.batch_size, num_workers=self.num_workers)


def as_loaders(module: OwnModule) -> dict[str, Any]:
    """The loaders of a data module as arguments of ``Trainer.fit``."""
    loaders = {"train_dataloaders": module.train_dataloader()}
    return loaders if module.validation is None else loaders | {"val_dataloaders": module.val_dataloader()}


class Seen(pl.Callback):
    """Keeps the batches of all training steps."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.steps.append(batch)

    def images(self, stream: str) -> set[bytes]:
        """The different images that a stream has delivered."""
        batches = (step[stream] for step in self.steps if stream in step)
        images = (batch if isinstance(batch, Tensor) else batch[0] for batch in batches)
        return {image.numpy().tobytes() for batch in images for image in batch.flatten(0, -4)}  # each view is one


class OwnDataContract(CaseTests):
    """The promises of a search whose images are handed over as loaders, or as a data module that knows of no search.

    The images are those of the case's data without augmentation, taken one by one; see :mod:`lightning_nas.testing`.
    """

    def handed(self, case: MethodCase, noise: float, separate: bool, num_workers: int = 0) -> OwnModule:
        """The case's images as another's data module has them.

        Args:
            case: whose images are taken.
            noise: how strong the noise is that is drawn anew each time.
            separate: whether there are images to validate on; if not, the search divides those to train on.
            num_workers: the number of processes that prepare batches; 0: this process prepares them.
        """
        train = Examples.of(case, "weights" if separate else "train", noise)
        validation = Examples.of(case, "architecture", noise) if separate else None
        return OwnModule(train, validation, case.data(0).batch_size, num_workers)

    def test_equal_batches_give_an_equal_search(self, case: MethodCase, monkeypatch: pytest.MonkeyPatch) -> None:
        """Division, schedule and ranking are those of our own data, of which the images are not augmented."""
        ours = case.data(0)
        monkeypatch.setattr(type(ours), "transform", lambda self, augment: lambda images: images)
        monkeypatch.setattr("lightning_nas.data.own.OwnData._check_views", lambda *given: None)
        theirs = self.handed(case, noise=0.0, separate=False)
        ends = []
        for arguments, data in (({"datamodule": ours}, ours), (as_loaders(theirs), theirs.train_dataloader())):
            method, seen = case.made(), Seen()
            run = quiet_trainer(max_epochs=3, callbacks=[seen])
            run.fit(method, **arguments)
            ends.append((seen.steps, final_state(method, run), method.choose(data)))
        assert_same(*ends)

        weights, architecture = seen.images("weights"), seen.images("architecture")
        assert weights
        assert not weights & architecture
        held_out = Examples.of(case, "architecture").images
        assert not weights & {image.numpy().tobytes() for image in held_out}

    def test_interrupted_and_handed_over_otherwise_is_uninterrupted(self, case: MethodCase, tmp_path: Path) -> None:
        """Images with noise of their own, two workers before and none after, loaders before and a module after."""
        before = self.handed(case, noise=0.1, separate=True, num_workers=2)
        stopped = quiet_trainer(max_epochs=3, callbacks=[Stop(1, 2), Interruption(tmp_path)])
        with pytest.raises(SystemExit) as exit_:
            stopped.fit(case.made(), **as_loaders(before))
        assert exit_.value.code == 143

        content = torch.load(tmp_path / "last.ckpt", weights_only=True)["lightning_nas"]
        assert content["sizes"] == {
            "weights examples": len(before.train),  # type: ignore[arg-type]
            "architecture examples": len(before.validation),  # type: ignore[arg-type]
        }
        ends = []
        for path in (tmp_path / "last.ckpt", None):
            method, run = case.made(), quiet_trainer(max_epochs=3)
            run.fit(method, datamodule=self.handed(case, noise=0.1, separate=True), ckpt_path=path)
            ends.append(final_state(method, run))
        assert_same(*ends)
