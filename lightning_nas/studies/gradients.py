"""Do validation batches agree on where the alphas should go?"""

import dataclasses
import itertools
import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from lightning_nas.data import DataModule
from lightning_nas.errors import SettingError
from lightning_nas.methods import DARTS, OneShotMethod
from lightning_nas.operations.normalization import batch_statistics
from lightning_nas.seeding import derive_seed


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Cosines between first-order architecture gradients of disjoint batches.

    Attributes:
        cosines: the cosines of all pairs of batches.
        shuffled: the same with the labels of each batch shuffled, all shuffles together.
        batch_size: examples in a batch.
    """

    cosines: list[float]
    shuffled: list[float]
    batch_size: int

    def describe(self) -> str:
        """Both means and spreads, with what they are of."""
        rows = {"labels": self.cosines, "shuffled labels": self.shuffled}
        lines = [f"cosine between architecture gradients of disjoint validation batches of {self.batch_size}"]
        for name, cosines in rows.items():
            spread = statistics.stdev(cosines) if len(cosines) > 1 else 0.0
            lines.append(f"  {name:15}  {statistics.fmean(cosines):+.3f} ± {spread:.3f}  ({len(cosines)} pairs)")
        return "\n".join(lines)


def gradient_agreement(method: OneShotMethod, data: DataModule, n_batches: int, n_shuffles: int) -> Agreement:
    """Measures on the first batches of the architecture part. The search is left as it was.

    Args:
        method: a search with alphas and its network.
        data: image data, batches ``(images, labels)``.
        n_batches: the number of disjoint batches.
        n_shuffles: how often the labels of each batch are shuffled.

    Raises:
        SettingError: if the search has no alphas, or a pass over the part has fewer batches.
    """
    if not isinstance(method, DARTS):
        raise SettingError(f"ckpt_path: {type(method).__name__} has no alphas, so there is no gradient of them")
    if not method.task.labelled:
        raise SettingError(f"ckpt_path: {type(method.task).__name__} has no labels that could be shuffled")
    stream = method.stream(data, "architecture")
    if n_batches > len(stream):
        raise SettingError(f"--n_batches: at most {len(stream)}, the batches of the architecture part, got {n_batches}")
    batches = [stream.get(index) for index in range(n_batches)]
    jobs = [batches]
    for number in range(n_shuffles):
        generator = torch.Generator().manual_seed(derive_seed(method.seed, "shuffled labels", number))
        jobs.append([_with_shuffled_targets(batch, generator) for batch in batches])
    with tqdm(total=n_batches * len(jobs), desc="Gradients", leave=False) as progress:
        real, *shuffled = [_cosines([_gradient(method, batch, progress) for batch in job]) for job in jobs]
    return Agreement(real, list(itertools.chain(*shuffled)), len(batches[0][1]))


def _with_shuffled_targets(batch: Any, generator: torch.Generator) -> Any:
    """The batch with its second part, labels or the words that follow, in a random order."""
    targets = batch[1].flatten()[torch.randperm(batch[1].numel(), generator=generator)].view_as(batch[1])
    parts = [batch[0], targets, *batch[2:]]
    return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)


def _gradient(method: DARTS, batch: Any, progress: tqdm) -> Tensor:
    with batch_statistics(method.network):
        loss = method.loss(partial(method.network, gates=method.gates()), batch, "architecture")
        gradient = torch.autograd.grad(loss, method.alphas)[0]
    progress.update()
    return gradient[method.present]


def _cosines(gradients: Sequence[Tensor]) -> list[float]:
    return [float(torch.cosine_similarity(a, b, dim=0)) for a, b in itertools.combinations(gradients, 2)]
