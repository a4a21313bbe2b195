"""NASWOT: Neural Architecture Search without Training (Mellor, Turner, Storkey, Crowley, ICML 2021)."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_nas.errors import SettingError
from lightning_nas.measures.base import Measure
from lightning_nas.operations.normalization import batch_statistics, evaluating
from lightning_nas.spaces.base import Network

if TYPE_CHECKING:
    from lightning_nas.data import DataModule


class NASWOT(Measure):
    """How differently a network with new weights responds to different images.

    A ReLU writes a code for each image, 1 where it lets through and 0 where it does not. With the codes of a batch as
    the rows of X, ``K`` is the sum of ``X Xᵀ + (1 − X)(1 − X)ᵀ`` over all ReLUs, and the figure is ``log |det K|``.

    Differs from the released code: a ReLU whose result several operations read is computed, and counts, once.

    Args:
        n_images: the number of images in the batch (released code: 128).
    """

    name = "naswot"
    needs_data = True

    def __init__(self, n_images: int = 128) -> None:
        if n_images < 2:
            raise SettingError(f"n_images: at least 2, got {n_images}")
        self.n_images = n_images

    def __call__(self, network: Network, data: "DataModule | None", seed: int) -> float:
        assert data is not None
        stream = data.stream("weights", seed)
        n_batches = min(len(stream), -(-self.n_images // data.batch_size))
        images = torch.cat([stream.get(number)[0] for number in range(n_batches)])[: self.n_images]
        images = images.to(next(network.parameters()).device)
        patterns = _Patterns(len(images))
        with evaluating(network), batch_statistics(network), torch.no_grad(), patterns:
            network(images)
        sign, log_determinant = torch.linalg.slogdet(patterns.kernel)
        return float(log_determinant) if sign != 0 and log_determinant.isfinite() else math.nan


class _Patterns(TorchDispatchMode):
    """Sums the kernels of all ReLUs that are computed meanwhile, wherever in a network they are."""

    def __init__(self, n_images: int) -> None:
        super().__init__()
        self.kernel = torch.zeros(n_images, n_images, dtype=torch.float64)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if function.overloadpacket in (torch.ops.aten.relu, torch.ops.aten.relu_):
            self._add(out)
        return out

    def _add(self, activations: Tensor) -> None:
        codes = (activations > 0).flatten(1).float()
        both_on, both_off = codes @ codes.T, (1 - codes) @ (1 - codes).T
        self.kernel += (both_on + both_off).cpu()
