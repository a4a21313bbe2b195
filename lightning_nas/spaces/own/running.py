"""Which options of a user's network run in the forward pass that is under way.

They are said by a context variable, which is set for one call and reset at its end. So a network of a user's own is
called as it always was, and nothing in it stores which architecture is active.
"""

import contextlib
import copy
import re
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
        self.task = _backward()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Inside, choices and values read what runs from here."""
        token = _RUNNING.set(self)
        try:
            yield
        except TypeError as error:  # of functions that take nothing but an int
            if re.search(r"\b(Chosen|Value|__index__)\b", str(error)):
                error.add_note("In a forward pass int() of a number that is chosen is the plain number.")
            raise
        finally:
            _RUNNING.reset(token)


_RUNNING: ContextVar[Running | None] = ContextVar("running", default=None)


def runs_of(name: str) -> Runs:
    """What runs of a choice in this forward pass.

    Raises:
        SettingError: outside of a forward pass with gates.
    """
    running = _running()
    if running is None or name not in running.resolved:
        raise not_running(name)
    return running.resolved[name]


def numbers_now() -> Mapping[str, float]:
    """The value that each value choice has in this forward pass, by name; empty outside of one.

    Raises:
        SettingError: in the backward pass of another forward pass.
    """
    running = _running()
    return {} if running is None else running.numbers


def not_running(name: str) -> SettingError:
    """The error of a choice that is asked for outside of a forward pass.

    Args:
        name: the name of the choice.
    """
    return SettingError(
        f"{name}: no architecture is chosen in this call; call Space.of(net).network(inputs) with gates, or take "
        "freeze(net, architecture), after a PathSearch or RelaxedSearch module.net = search.freeze(). In the backward "
        "pass of torch.utils.checkpoint pass use_reentrant=False"
    )


def _running() -> Running | None:
    """What runs in this forward pass; what ``torch.utils.checkpoint`` computes again in the backward pass, when the
    forward pass is over, will run the same then."""
    running = _RUNNING.get()
    if running is None or torch.compiler.is_compiling():
        return running
    if running.task != _backward():
        raise not_running("a choice")
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
        _keep_for_recomputation(running)
    return running


def _keep_for_recomputation(running: Running) -> None:
    """Has every part of a network that is being checkpointed, one inside the other, run the same when it is computed
    again. These are known to the hooks that pack what autograd saves (PyTorch 2.14; no public name has them). Where
    one is not found, choices say so in the backward pass.
    """
    pack, unpack = torch._C._autograd._top_saved_tensors_default_hooks(True)
    if getattr(pack, "_checkpoint_internal", False) and "frame" in pack.__code__.co_freevars:
        cells = dict(zip(pack.__code__.co_freevars, pack.__closure__ or (), strict=True))
        frame = cells["frame"].cell_contents
        if isinstance(frame.recompute_fn, _Again):
            return  # as are those around it
        frame.recompute_fn = _Again(frame.recompute_fn, running)
    if torch._C._autograd._saved_tensors_hooks_is_enabled():  # type: ignore[attr-defined]  # not under torch.func
        torch._C._autograd._pop_saved_tensors_default_hooks()
        try:
            if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
                _keep_for_recomputation(running)
        finally:
            torch._C._autograd._push_saved_tensors_default_hooks(pack, unpack)


def _backward() -> int:
    """The number of the backward pass that is under way in this thread, -1 where there is none."""
    return -1 if torch.compiler.is_compiling() else torch._C._current_graph_task_id()


class _Again:
    """A function that is called with what ran when it was called first."""

    def __init__(self, function: Callable[..., Any], running: Running) -> None:
        self.function, self.running = function, running

    def __call__(self, *args: Any) -> Any:
        running = copy.copy(self.running)
        running.task = _backward()
        with running.active():
            return self.function(*args)
