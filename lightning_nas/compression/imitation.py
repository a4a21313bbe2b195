"""Candidates that learn to do what the trained layer in their place does: blockwise local distillation.

As in Puzzle (Bercovich et al. 2024), each candidate is trained alone: it gets what the layer gets in the trained
network, and its loss is the mean squared error against what the layer puts out, divided by the mean square of that.
All candidates are trained side by side, since none of them changes what another one reads.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from tqdm import tqdm

from lightning_nas.compression.replacements import Replacements
from lightning_nas.data import AnyData
from lightning_nas.data.own import as_data
from lightning_nas.errors import SettingError
from lightning_nas.operations.normalization import evaluating
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Architecture
from lightning_nas.spaces.own.choices import LayerChoice
from lightning_nas.spaces.own.network import OwnNetwork
from lightning_nas.spaces.own.space import OwnSpace
from lightning_nas.tasks import Task
from lightning_nas.training.optimizers import Adam, Optimizer


def imitate(
    net: nn.Module,
    task: Task,
    data: AnyData,
    steps: int = 200,
    optimizer: Optimizer | None = None,
    reference: Architecture | Mapping[str, str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, float]:
    """Trains the candidates of every ``LayerChoice`` that the trained network does not take; nothing else changes.

    Of choices inside a candidate the first options are trained.

    Args:
        net: a trained network with a ``LayerChoice`` in it.
        task: the task that says what of a batch the network reads.
        data: what a trainer's ``fit`` takes, whose ``weights`` part is trained on.
        steps: the number of batches that each candidate is trained on.
        optimizer: the optimiser of all candidates; None: ``Adam(0.003)``.
        reference: the architecture that was trained, or its options by name; None: of each choice the largest number,
            or the first option.
        seed: the seed of the order of the batches, and of dropout in candidates.
        progress: whether a bar is drawn.

    Returns:
        for each candidate, by choice and option as in ``layer/1``, the last error as a share of what it imitates.

    Raises:
        SettingError: if no layer can be replaced.
    """
    own = as_data(data)
    space = OwnSpace(net)
    network = space.network(task.network_inputs(own.inputs))
    architecture = Replacements(space, reference).reference
    taken, seen = space.to_names(architecture), _Seen(network)
    learners = {
        f"{choice.name}/{option}": (choice, candidate)
        for choice in seen.choices
        for option, candidate in zip(choice.names, choice, strict=True)
        if option != taken[choice.name] and space.matters(choice.name, taken) and list(candidate.parameters())
    }
    if not learners:
        raise SettingError("network: there is no candidate with weights beside a trained layer; put in a LayerChoice")
    rule = Adam(0.003) if optimizer is None else optimizer
    parameters = [p for _, candidate in learners.values() for p in candidate.parameters() if p.requires_grad]
    made, stream = rule.make(parameters), own.stream("weights", seed, **task.reads)
    errors: dict[str, Tensor] = {}
    gates, device = space.gates(architecture), next(network.parameters()).device
    with evaluating(network), torch.random.fork_rng(), tqdm(range(steps), "Imitating", disable=not progress) as bar:
        for step in bar:
            torch.manual_seed(derive_seed(seed, "imitation", step))
            with torch.no_grad():
                task.loss(partial(network, gates=gates), move_data_to_device(stream.get(step), device))
            given = dict(seen.given)
            with network.active(gates):
                for name, (choice, candidate) in learners.items():
                    errors[name] = _error(candidate.train(), *given[choice])
            _take_step(made, parameters, torch.stack(list(errors.values())).sum(), rule.clip)
            for _, candidate in learners.values():
                candidate.eval()
    net.load_state_dict(network.net.state_dict())
    return {name: error.item() for name, error in errors.items()}


class _Seen:
    """What goes into the layers of a network that can be replaced, and what comes out, as long as the network lives."""

    def __init__(self, network: OwnNetwork) -> None:
        self.choices = [module for module in network.modules() if isinstance(module, LayerChoice)]
        self.given: dict[LayerChoice, tuple[tuple[Any, ...], dict[str, Any], Any]] = {}
        for each in self.choices:
            each.register_forward_hook(self._see, with_kwargs=True)

    def _see(self, layer: LayerChoice, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        self.given[layer] = (args, kwargs, out)


def _take_step(
    made: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], loss: Tensor, clip: float | None
) -> None:
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
        parameter.grad = gradient
    if clip is not None:
        nn.utils.clip_grad_norm_(parameters, clip)
    made.step()


def _error(candidate: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], wanted: Any) -> Tensor:
    pairs = zip(tree_leaves(candidate(*args, **kwargs)), tree_leaves(wanted), strict=True)
    shares = [(out - goal).square().mean() / goal.square().mean() for out, goal in pairs if isinstance(goal, Tensor)]
    return torch.stack(shares).mean()
