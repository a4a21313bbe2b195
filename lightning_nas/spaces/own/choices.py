"""Choices in the network of a user: which layer, which inputs, how many blocks."""

import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from lightning_nas.errors import SettingError
from lightning_nas.spaces.base import Choice
from lightning_nas.spaces.own.running import Runs, runs_of
from lightning_nas.spaces.own.values import check_label
from lightning_nas.spaces.sums import add_weighted

Reduction = Literal["sum", "mean", "concat", "none"]


class OwnChoice(nn.Module):
    """What the choices in a network of a user share.

    Args:
        label: what the choice is called; None: by its place in the network.

    Attributes:
        name: the name of the choice in the space of the network, which gives it.
    """

    def __init__(self, label: str | None) -> None:
        super().__init__()
        if label is not None:
            check_label(label)
        self.label, self.name = label, label or ""

    def choices(self, node: str) -> list[Choice]:
        """The decisions of the space, called as it is.

        Args:
            node: the node that they belong to.
        """
        raise NotImplementedError

    def inside(self) -> Iterator[tuple[str, nn.Module, tuple[str, ...]]]:
        """What it holds: the name and the module, and the options with which that runs; none: with all of them."""
        return iter(())

    def restrict(self, left: Mapping[str, Choice]) -> None:
        """Removes what runs under none of the options that are left.

        Args:
            left: the choices of the space, by name.
        """

    def plain(self) -> nn.Module:
        """What stands in its place where nothing is left to choose: a module of PyTorch's, or the user's own."""
        raise NotImplementedError


class LayerChoice(OwnChoice):
    """A layer to choose: just one of the candidates is left in a found network.

    In a search it may be several that run, each with a weight; what they put out, tensors or tuples of them, is added
    up then. A candidate may have choices in it. Like a list it has a length, an order, items and ``del``.

    Args:
        candidates: modules that take the same arguments and put out the same shapes: a list, or by name. In a list they
            are called ``0``, ``1`` and so on.
        label: what the choice is called; None: by its place in the network. Choices with the same label are the same
            decision, and have candidates of the same names.

    Raises:
        SettingError: if there are no candidates, or one is no module, or a name cannot be a module's.

    Example::

        from torch import nn
        from lightning_nas import LayerChoice

        conv = LayerChoice([nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 6, 5, padding=2)])
        act = LayerChoice({"relu": nn.ReLU(), "gelu": nn.GELU()}, label="activation")
    """

    def __init__(self, candidates: Sequence[nn.Module] | Mapping[str, nn.Module], label: str | None = None) -> None:
        super().__init__(label)
        if not isinstance(candidates, Mapping):
            candidates = {str(number): candidate for number, candidate in enumerate(candidates)}
        for name, candidate in candidates.items():
            try:
                self.add_module(name, candidate)
            except (KeyError, TypeError) as error:
                raise SettingError(f"candidates: {name!r}: {error.args[0]}") from error
        if not self._modules:
            raise SettingError("candidates: at least one module to choose")

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self._modules.values())  # type: ignore[arg-type]  # no candidate is None

    def __getitem__(self, key: int | str) -> nn.Module:
        return self._modules[self._called(key)]  # type: ignore[return-value]

    def __delitem__(self, key: int | str) -> None:
        del self._modules[self._called(key)]

    def _called(self, key: int | str) -> str:
        if isinstance(key, str):
            return key
        return list(self._modules)[key]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the candidates."""
        return tuple(self._modules)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the candidate that is chosen puts out, with its own arguments."""
        if len(self._modules) == 1:
            (candidate,) = self
            return candidate(*args, **kwargs)
        total: Any = None
        for option, weight in _some(runs_of(self.name), self.name):
            term = self._modules[option](*args, **kwargs)  # type: ignore[misc]
            if weight is not None:
                term = tree_map(lambda x, w=weight: w * x if isinstance(x, Tensor) else x, term)
            total = term if total is None else tree_map(lambda a, b: a + b if isinstance(b, Tensor) else b, total, term)
        return total

    def choices(self, node: str) -> list[Choice]:
        return [Choice(self.name, self.names, node)]

    def inside(self) -> Iterator[tuple[str, nn.Module, tuple[str, ...]]]:
        for name, candidate in self._modules.items():
            yield name, candidate, (name,)  # type: ignore[misc]

    def restrict(self, left: Mapping[str, Choice]) -> None:
        for name in self.names:
            if name not in left[self.name].options:
                del self[name]

    def plain(self) -> nn.Module:
        (candidate,) = self
        return candidate


class InputChoice(OwnChoice):
    """Some of several inputs: ``skip([a, b, c])`` is what is chosen of them.

    Args:
        n_candidates: the number of inputs to choose from.
        n_chosen: how many are chosen; None: any number of them, at least one.
        reduction: what is made of those that are chosen: their ``sum``, their ``mean``, side by side along ``dim``
            (``concat``), or a list of them (``none``), of which a search runs one set at a time.
        label: what the choice is called; None: by its place in the network. Choices with the same label are the same
            decision.
        dim: the dimension along which inputs are put side by side.

    Raises:
        SettingError: if a number is out of range, or ``concat`` would have results of several widths.

    Example::

        from lightning_nas import InputChoice

        skip = InputChoice(n_candidates=2)  # used as skip([x, x + x0])
    """

    def __init__(
        self,
        n_candidates: int,
        n_chosen: int | None = 1,
        reduction: Reduction = "sum",
        label: str | None = None,
        dim: int = 1,
    ) -> None:
        super().__init__(label)
        if n_candidates < 1:
            raise SettingError(f"n_candidates: 1 or more, got {n_candidates}")
        if n_chosen is not None and not 1 <= n_chosen <= n_candidates:
            raise SettingError(f"n_chosen: from 1 to n_candidates, {n_candidates}, or None, got {n_chosen}")
        if reduction not in get_args(Reduction):
            raise SettingError(f"reduction: {', '.join(get_args(Reduction))}, got {reduction!r}")
        if reduction == "concat" and n_chosen is None:
            raise SettingError("n_chosen: a number with reduction concat, or what comes out has several widths")
        self.n_candidates, self.n_chosen, self.reduction, self.dim = n_candidates, n_chosen, reduction, dim
        self.sets = list(itertools.combinations(range(n_candidates), n_chosen)) if n_chosen else []
        self.fixed: tuple[int, ...] | None = None

    def forward(self, inputs: Sequence[Tensor]) -> Any:
        """What is made of the inputs that are chosen.

        Args:
            inputs: ``n_candidates`` tensors, for ``sum`` and ``mean`` of one shape.
        """
        if len(inputs) != self.n_candidates:
            raise SettingError(f"{self.name or 'InputChoice'}: {self.n_candidates} inputs, got {len(inputs)}")
        if self.fixed is not None:
            return self._reduced([(inputs[k], None) for k in self.fixed])
        if not self.n_chosen:
            each = [runs_of(f"{self.name}/{k}") for k in range(self.n_candidates)]
            on = [(x, dict(runs)["on"]) for x, runs in zip(inputs, each, strict=True) if "on" in dict(runs)]
            return self._reduced(on if on else [(inputs[0] * 0, None)])
        total = None
        for option, weight in _some(runs_of(self.name), self.name):
            result = self._reduced([(inputs[int(k)], None) for k in option.split("+")])
            total = result if self.reduction == "none" else add_weighted(total, result, weight)
        return total

    def _reduced(self, terms: list[tuple[Tensor, Tensor | None]]) -> Any:
        """What is made of some inputs and their weights; None: one."""
        weighted = [x if weight is None else weight * x for x, weight in terms]
        if self.reduction == "none":
            return weighted
        if self.reduction == "concat":
            return torch.cat(weighted, self.dim)
        total = functools.reduce(operator.add, weighted)
        if self.reduction == "sum":
            return total
        weights = [weight for _, weight in terms if weight is not None]
        return total / (torch.stack(weights).sum() if weights else len(terms))

    def choices(self, node: str) -> list[Choice]:
        relaxable = self.reduction != "none"
        if self.n_chosen:
            options = tuple("+".join(map(str, chosen)) for chosen in self.sets)
            return [Choice(self.name, options, node, "input", relaxable=relaxable)]
        return [
            Choice(f"{self.name}/{k}", ("off", "on"), node, "skip", group=self.name, relaxable=relaxable)
            for k in range(self.n_candidates)
        ]

    def restrict(self, left: Mapping[str, Choice]) -> None:
        if self.n_chosen:
            options = left[self.name].options
            self.fixed = tuple(map(int, options[0].split("+"))) if len(options) == 1 else None
            return
        options_of = [left[f"{self.name}/{k}"].options for k in range(self.n_candidates)]
        if all(len(options) == 1 for options in options_of):
            self.fixed = tuple(k for k, options in enumerate(options_of) if options == ("on",)) or None

    def plain(self) -> nn.Module:
        """A module of a traced function, since PyTorch has none that chooses."""
        graph = fx.Graph()
        inputs = graph.placeholder("inputs")
        chosen = [graph.call_function(operator.getitem, (inputs, k)) for k in self.fixed or ()]
        if self.reduction == "none":
            graph.output(chosen)
        elif self.reduction == "concat":
            graph.output(graph.call_function(torch.cat, (chosen, self.dim)))
        else:
            total = functools.reduce(lambda a, b: graph.call_function(operator.add, (a, b)), chosen)
            if self.reduction == "mean":
                total = graph.call_function(operator.truediv, (total, len(chosen)))
            graph.output(total)
        return fx.GraphModule(nn.Module(), graph, "Inputs")


class RepeatChoice(OwnChoice):
    """How many blocks follow each other: the first ones are left in a found network.

    Args:
        blocks: the blocks, as a list or an ``nn.Sequential``; or a function that builds one from its number.
        depth: the numbers of blocks to choose from; 0 passes the input on.
        label: what the choice is called; None: by its place in the network. Choices with the same label are the same
            decision.

    Raises:
        SettingError: if a depth is negative, or greater than the number of blocks.

    Example::

        from torch import nn
        from lightning_nas import RepeatChoice

        stage = RepeatChoice(lambda k: nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()), depth=[1, 2, 4])
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module] | nn.Sequential | Callable[[int], nn.Module],
        depth: Sequence[int],
        label: str | None = None,
    ) -> None:
        super().__init__(label)
        depths = sorted(set(depth))
        if not depths or depths[0] < 0:
            raise SettingError(f"depth: numbers of blocks to choose from, 0 or more, got {list(depth)}")
        if not isinstance(blocks, (Sequence, nn.Sequential, nn.ModuleList)):
            blocks = [blocks(number) for number in range(depths[-1])]
        if depths[-1] > len(blocks):
            raise SettingError(f"depth: at most the number of blocks, {len(blocks)}, got {depths[-1]}")
        self.depths = tuple(depths)
        for number in range(depths[-1]):
            self.add_module(str(number), blocks[number])

    def forward(self, x: Any) -> Any:
        """What the last of the blocks that are chosen puts out."""
        blocks = list(self._modules.values())
        if len(self.depths) == 1:
            for block in blocks:
                x = block(x)  # type: ignore[misc]
            return x
        weights = {int(option): weight for option, weight in _some(runs_of(self.name), self.name)}
        total: Any = None
        for number in range(max(weights) + 1):
            x = blocks[number - 1](x) if number else x  # type: ignore[misc]
            if number in weights:
                total = add_weighted(total, x, weights[number])
        return total

    def choices(self, node: str) -> list[Choice]:
        return [Choice(self.name, tuple(map(str, self.depths)), node, "value", values=self.depths)]

    def inside(self) -> Iterator[tuple[str, nn.Module, tuple[str, ...]]]:
        for number, (name, block) in enumerate(self._modules.items()):
            deeper = tuple(str(depth) for depth in self.depths if depth > number)
            yield name, block, () if len(deeper) == len(self.depths) else deeper  # type: ignore[misc]

    def restrict(self, left: Mapping[str, Choice]) -> None:
        self.depths = tuple(int(value) for value in left[self.name].values)
        for name in list(self._modules)[max(self.depths) :]:
            del self._modules[name]

    def plain(self) -> nn.Module:
        return nn.Sequential(*self._modules.values())  # type: ignore[arg-type]


def _some(runs: Runs, name: str) -> Runs:
    if not runs:
        raise ValueError(f"{name}: all weights of its options are zero, so nothing would run")
    return runs
