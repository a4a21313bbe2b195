"""What each option of each choice costs, so that a cost is a sum over choices: differentiable where the weights are."""

import dataclasses
import functools
import math
from collections import Counter
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_nas.errors import SettingError
from lightning_nas.operations import Operation
from lightning_nas.operations.normalization import evaluating
from lightning_nas.spaces.base import Network
from lightning_nas.spaces.cells import Candidates

COSTS = ("parameters", "multiply_adds", "memory_accesses")
"""What is counted: weights of convolutions; multiply-adds, nine for each value of a 3×3 pool; and the values that
convolutions, pools and identities read and write, with the weights that they read (Ma et al. 2018)."""


@dataclasses.dataclass(frozen=True)
class CostTable:
    """The costs of all options, at every place where a choice is built into a network: once in each cell of its kind,
    nowhere if there is no such cell.

    Attributes:
        costs: ``(n_places, most options, 3)``: what an option costs there, in the order of ``COSTS``.
        choice: ``(n_places,)``: the index of the choice that is taken at each place.
        share: ``(n_places,)``: one divided by the number of places of that choice, so that a sum of costs times shares
            is the cost of a mean cell.
    """

    costs: Tensor
    choice: Tensor
    share: Tensor

    @classmethod
    def of(cls, network: Network) -> Self:
        """Counts what the operations on a network's edges cost for one example.

        Args:
            network: a network in search form, which is left as it is.

        Raises:
            SettingError: if choices are not operations on edges, so that costs are no sum over choices.
        """
        choices = network.space.choices
        index = {choice.name: k for k, choice in enumerate(choices)}
        places = _places(network)
        if not places or any(place not in index for _, place, _ in places):
            space = type(network.space).__name__
            raise SettingError(f"space: costs of {space} are no sum over choices; it has no operation for each option")
        widest = max(len(choice.options) for choice in choices)
        costs = torch.zeros(len(places), widest, len(COSTS))
        for row, ((candidates, place, source), (height, width)) in zip(costs, places.items(), strict=True):
            for k, option in enumerate(choices[index[place]].options):
                operation, stride = candidates.table[option], candidates.stride(source)
                if operation is not None:
                    row[k] = torch.tensor(_costs(operation, candidates.channels, stride, height, width))
        choice = torch.tensor([index[place] for _, place, _ in places])
        numbers = Counter(choice.tolist())
        return cls(costs, choice, torch.tensor([1 / numbers[k] for k in choice.tolist()]))

    def under(self, weights: Tensor) -> Tensor:
        """What every place costs under weights of the options.

        Args:
            weights: for each choice a weight for each option, ``(n_choices, most options)``.

        Returns:
            ``(n_places, 3)``: the sums of weights times costs.
        """
        return torch.einsum("po,poc->pc", weights[self.choice], self.costs.to(weights.dtype))

    def to(self, device: torch.device) -> Self:
        """The table on another device."""
        return type(self)(self.costs.to(device), self.choice.to(device), self.share.to(device))


def _places(network: Network) -> dict[tuple[Candidates, str, int], tuple[int, int]]:
    """For every edge in the network the height and width of the state that it reads."""
    found: dict[tuple[Candidates, str, int], tuple[int, int]] = {}

    def see(candidates: nn.Module, given: tuple[Any, ...]) -> None:
        place, source, _, state, *_ = given
        if state is not None:
            found[candidates, place, source] = tuple(state.shape[2:])  # type: ignore[index]

    hooks = [m.register_forward_pre_hook(see) for m in network.modules() if isinstance(m, Candidates)]
    try:
        with evaluating(network), torch.no_grad():
            # one option after the other, since after a node whose edges are all none nothing is read
            for k in range(max(len(choice.options) for choice in network.space.choices)):
                network(network.example(), {c.name: min(k, len(c.options) - 1) for c in network.space.choices})
    finally:
        for hook in hooks:
            hook.remove()
    return found


@functools.cache
def _costs(operation: Operation, channels: int, stride: int, height: int, width: int) -> tuple[float, ...]:
    with torch.device("meta"):
        view = operation.view(stride).build(channels, stride, False).eval()
        body = operation.body(channels, stride, False)
        state = torch.empty(1, channels, height, width)
    aten = torch.ops.aten
    convolutions = {aten.convolution: _multiply_adds}
    pools = dict.fromkeys((aten.max_pool2d_with_indices, aten.avg_pool2d), _of_pool)
    read = dict.fromkeys((aten.convolution, *pools), _accesses)
    flops = FlopCounterMode(display=False, custom_mapping=convolutions | pools)
    accesses = FlopCounterMode(display=False, custom_mapping=read)
    with torch.no_grad(), flops, accesses:
        seen = view(state)
        if body is not None:
            body.eval()(seen)
    n_params = 0 if body is None else sum(parameter.numel() for parameter in body.parameters())
    if body is None and seen is state:
        return 0.0, 0.0, 2.0 * state.numel()  # the identity is read and written
    counted = [
        sum(counter.get_flop_counts().get("Global", {}).get(op, 0) for op in read) for counter in (flops, accesses)
    ]
    return float(n_params), *map(float, counted)


def _multiply_adds(x: Any, weight: Any, *others: Any, out_shape: Any, **options: Any) -> int:
    """Of a convolution: for every output a product with each weight of its channel."""
    return math.prod(out_shape) * math.prod(weight[1:])


def _of_pool(x: Any, *others: Any, out_shape: Any, **options: Any) -> int:
    return 9 * math.prod(_first(out_shape))


def _accesses(x: Any, *others: Any, out_shape: Any, **options: Any) -> int:
    weight = others[0] if len(others) > 1 and isinstance(others[0], torch.Size) else ()
    return math.prod(x) + (math.prod(weight) if weight else 0) + math.prod(_first(out_shape))


def _first(shape: Any) -> Any:
    """A pool's maxima come with their places."""
    return shape[0] if isinstance(shape[0], (tuple, torch.Size)) else shape
