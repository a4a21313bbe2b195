"""Which options of a user's network run in the forward pass that is under way.

They are said by a context variable, which is set for one call and reset at its end. So a network of a user's own is
called as it always was, and nothing in it stores which architecture is active.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from lightning_nas.errors import SettingError
from lightning_nas.spaces.base import Gates, Resolved, Space

Runs = list[tuple[str, Tensor | None]]
"""The options of a choice that run, by name, with their weights; None: the option alone, unweighted."""


class Running:
    """What runs in one forward pass.

    Args:
        space: whose choices are taken.
        gates: how each choice is taken; None where the space has one architecture.
    """

    def __init__(self, space: Space, gates: Gates | None) -> None:
        self.resolved: Resolved = space.resolve(gates)
        self.numbers: dict[str, float] = {}
        for choice in space.choices:
            if choice.values and not choice.relaxable:
                ((option, _),) = self.resolved[choice.name]
                self.numbers[choice.name] = choice.values[choice.options.index(option)]

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Inside, choices and values read what runs from here."""
        token = _RUNNING.set(self)
        try:
            yield
        finally:
            _RUNNING.reset(token)


_RUNNING: ContextVar[Running | None] = ContextVar("running", default=None)


def runs_of(name: str) -> Runs:
    """What runs of a choice in this forward pass.

    Raises:
        SettingError: outside of a forward pass with gates.
    """
    running = _RUNNING.get()
    if running is None or name not in running.resolved:
        raise SettingError(
            f"{name}: no architecture is chosen in this call; call Space.of(net).network(inputs) with gates, or "
            "freeze(net, architecture). In the backward pass of torch.utils.checkpoint pass use_reentrant=False"
        )
    _keep_for_recomputation(running)
    return running.resolved[name]


def numbers_now() -> Mapping[str, float]:
    """The value that each value choice has in this forward pass, by name; empty outside of one."""
    running = _RUNNING.get()
    if running is None:
        return {}
    _keep_for_recomputation(running)
    return running.numbers


def _keep_for_recomputation(running: Running) -> None:
    """Has a part of a network that ``torch.utils.checkpoint`` computes again in the backward pass run the same then.

    By that time the forward pass is over. The part that is being checkpointed is known to the hook that packs what
    autograd saves (PyTorch 2.14; no public name has it). Where it is not found, choices say so in the backward pass.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    pack = hooks[0] if hooks else None
    if not getattr(pack, "_checkpoint_internal", False):
        return
    cells = dict(zip(pack.__code__.co_freevars, pack.__closure__ or (), strict=True))
    if "frame" in cells:
        frame = cells["frame"].cell_contents
        if not isinstance(frame.recompute_fn, _Again):
            frame.recompute_fn = _Again(frame.recompute_fn, running)


class _Again:
    """A function that is called with what ran when it was called first."""

    def __init__(self, function: Callable[..., Any], running: Running) -> None:
        self.function, self.running = function, running

    def __call__(self, *args: Any) -> Any:
        with self.running.active():
            return self.function(*args)
