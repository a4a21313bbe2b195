"""A trained network made smaller, on cluttered digits: ``python -m benchmarks.compression``.

A ResNet is trained. The block library narrows and shortens it to a half and a quarter of its parameters; beside it
stand the same network thinned uniformly, all widths by one share, and the found architecture trained from new weights.
"""

import argparse
import copy
import logging
import math
import statistics
import warnings
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.transfer import spread
from lightning_nas import (
    Architecture,
    BlockLibrary,
    ClutteredDigits,
    ImageClassification,
    RepeatChoice,
    Space,
    choose_widths,
    freeze,
    order_by_importance,
)
from lightning_nas.costs.profile import count_parameters
from lightning_nas.operations.normalization import recalibrated
from lightning_nas.testing.method import quiet_trainer

WIDTHS, BLOCKS = (16, 32, 64), 2
SHARES = (0.25, 0.5, 0.75)
RATE, FINE_RATE = 0.1, 0.03
N_CALIBRATION = 8


class Block(nn.Module):
    """A basic block of ResNet (He et al. 2016)."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out)
        self.conv2, self.bn2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False), nn.BatchNorm2d(n_out)
        projection = (nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))
        self.shortcut = nn.Sequential(*projection) if n_in != n_out or stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class ResNet(nn.Module):
    """Three stages of basic blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, WIDTHS[0], 3, padding=1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU()
        )
        self.stage1, self.stage2, self.stage3 = (
            nn.Sequential(*(Block(n_in if not k else n_out, n_out, stride if not k else 1) for k in range(BLOCKS)))
            for n_in, n_out, stride in zip((WIDTHS[0], *WIDTHS), WIDTHS, (1, 2, 2), strict=False)
        )
        self.classify = nn.Linear(WIDTHS[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.stage3(self.stage2(self.stage1(self.stem(x)))).mean((2, 3)))


class Classifier(pl.LightningModule):
    """A network in training: SGD with momentum, the rate by a cosine."""

    def __init__(self, network: nn.Module, rate: float) -> None:
        super().__init__()
        self.network, self.rate = network, rate

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.network(images), labels)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), self.rate, 0.9, weight_decay=5e-4, nesterov=True)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def trained(network: nn.Module, data: ClutteredDigits, epochs: int, rate: float, seed: int) -> nn.Module:
    """The network after so many epochs on the weights part."""
    torch.manual_seed(seed)
    network.train()  # a trainer leaves the mode as it is
    quiet_trainer(max_epochs=epochs, limit_val_batches=0).fit(Classifier(network, rate), data)
    return network


def accuracy(network: nn.Module, data: ClutteredDigits) -> float:
    """The share of the test images."""
    network.eval()
    with torch.no_grad():
        right = [(network(images).argmax(1) == labels) for images, labels in data.evaluation("test")]
    return torch.cat(right).float().mean().item()


def accuracy_cut(network: nn.Module, data: ClutteredDigits) -> float:
    """The same of a network that was cut just now, BatchNorm with its own statistics of training images."""
    stream = data.stream("weights", 0)
    batches = [stream.get(number)[0] for number in range(N_CALIBRATION)]
    with recalibrated(network, network, batches):
        return accuracy(network, data)


def thinned(net: nn.Module, goal: float) -> nn.Module:
    """The network with one share of all widths, by bisection that with the nearest number of parameters."""
    low, high, found = 0.05, 1.0, []
    for _ in range(12):
        share = (low + high) / 2
        narrow = copy.deepcopy(net)
        choose_widths(narrow, [share])
        found.append(freeze(narrow, {choice.name: choice.options[0] for choice in Space.of(narrow).choices}))
        low, high = (share, high) if count_parameters(found[-1]) < goal else (low, share)
    return min(found, key=lambda small: abs(count_parameters(small) - goal))


def compared(seed: int, data: ClutteredDigits, epochs: int, fine: int) -> Iterator[tuple[str, float, float, float]]:
    """Rows of a seed: what was measured, of how many parameters, test accuracy before and after fine-tuning."""
    torch.manual_seed(seed)
    net = trained(ResNet(), data, epochs, RATE, seed)
    whole = count_parameters(net)
    yield "as it was trained", whole, accuracy(net, data), accuracy(tuned(net, data, fine, seed), data)
    ordered = copy.deepcopy(net)
    choose_widths(ordered, SHARES)
    order_by_importance(ordered, data.stream("weights", 0).get(0)[0])
    net.load_state_dict(ordered.state_dict())
    for name in ("stage1", "stage2", "stage3"):
        setattr(ordered, name, RepeatChoice(getattr(ordered, name), depth=[*range(1, BLOCKS + 1)]))
    library = BlockLibrary(ordered, ImageClassification(), data, progress=False)
    for share in (0.5, 0.25):
        architecture = library.best(f"n_params <= {share * whole}")
        report(library, architecture, seed)
        found = freeze(ordered, architecture)
        same = thinned(net, count_parameters(found))
        for name, small in {"library": found, "uniform": same}.items():
            fine_tuned = accuracy(tuned(small, data, fine, seed), data)
            yield f"{share:.0%}, {name}", count_parameters(small), accuracy_cut(small, data), fine_tuned
        torch.manual_seed(seed)
        new = trained(copy.deepcopy(found).apply(reset), data, epochs + fine, RATE, seed)
        yield f"{share:.0%}, the library's from new weights", count_parameters(new), math.nan, accuracy(new, data)


def tuned(network: nn.Module, data: ClutteredDigits, epochs: int, seed: int) -> nn.Module:
    """A copy that is trained on."""
    return trained(copy.deepcopy(network), data, epochs, FINE_RATE, seed)


def reset(module: nn.Module) -> None:
    """Gives a layer new weights."""
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()  # type: ignore[operator]


def report(library: BlockLibrary, architecture: Architecture, seed: int) -> None:
    """Prints what was found, and how far the sums are from it."""
    changes, figures = library.replacements.changes(architecture), library.figures(architecture)
    sums = ", ".join(f"{name} {library.sum(name)(changes):,.4g} (is {figures[name]:,.4g})" for name in figures)
    print(f"seed {seed}: {library.space.describe(architecture)}; sums: {sums}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--fine", type=int, default=2)
    parser.add_argument("--images", type=int, default=2800)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    data = ClutteredDigits(n_images=arguments.images, architecture_share=0.25)
    rows: dict[str, list[tuple[float, ...]]] = {}
    for seed in arguments.seeds:
        for name, *figures in compared(seed, data, arguments.epochs, arguments.fine):
            rows.setdefault(name, []).append((*figures,))
            print(f"seed {seed}: {name}: {figures}", flush=True)
    print("| network | parameters | test accuracy before | after fine-tuning |\n|---|---|---|---|")
    for name, each in rows.items():
        params, before, after = zip(*each, strict=True)
        shown = "" if math.isnan(before[0]) else spread(before)
        print(f"| {name} | {statistics.fmean(params):,.0f} | {shown} | {spread(after)} |")


if __name__ == "__main__":
    main()
