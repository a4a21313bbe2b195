"""Operations of a user's own: plain modules that get a name among the candidates of every space of image cells."""

from collections.abc import Callable
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.operations.registry import OPERATIONS, Operation, View

Builder = Callable[[int, int, bool], nn.Module]
"""``(channels, stride, affine)`` to a new module: a function, or a module's class."""

Own = TypeVar("Own", bound=Builder)

_BUILDERS: dict[str, Builder] = {}
# not the state of ``skip_connect``, by which a cell knows an identity, that drop-path spares
_INPUT = View("input", lambda channels, stride, affine: nn.Identity())


@overload
def register_operation(name: str, build: Own) -> Own: ...


@overload
def register_operation(name: str, build: None = None) -> Callable[[Own], Own]: ...


def register_operation(name: str, build: Any = None) -> Any:
    """Gives an operation of your own a name, for the ``operations`` of every space of image cells.

    Use it as a decorator of a function or of a module's class, or call it with both. What is built reads the state
    ``(N, channels, H, W)`` as it is, *before any ReLU*, which other readers of the state get too: so it must not be
    changed in place (no ``nn.ReLU(inplace=True)`` at the beginning). It returns
    ``(N, channels, ⌈H/stride⌉, ⌈W/stride⌉)``, and the package multiplies that by the edge's weight. Where classes of
    your own are known (``--import``, worker processes), operations are too, if registered where a module is imported.

    Args:
        name: what the operation is called in settings, files and drawings: a Python identifier that is not taken.
            Registering a function of the same module and name again replaces it, as a notebook does.
        build: a function of ``(channels, stride, affine)`` that returns a new module. The stride is 1 or 2; ``affine``
            says whether BatchNorms should learn scale and shift: not in a search, where other candidates do not
            either. None: what is decorated is registered.

    Returns:
        the function itself, or a decorator that returns it.

    Raises:
        SettingError: if the name is taken, or no identifier.

    Example::

        @register_operation("conv_gelu")
        def conv_gelu(channels, stride, affine):
            return nn.Sequential(
                nn.GELU(), nn.Conv2d(channels, channels, 3, stride, 1), nn.BatchNorm2d(channels, affine=affine)
            )

        space = NASBench201(operations=["skip_connect", "conv_gelu"])
    """
    if build is None:
        return lambda decorated: register_operation(name, decorated)
    if not isinstance(name, str) or not name.isidentifier():
        raise SettingError(f"name: letters, digits and underscores, got {name!r}")
    if not callable(build):
        raise SettingError(f"build: a function of (channels, stride, affine), got {build!r}")
    if name in OPERATIONS and (name not in _BUILDERS or _origin(_BUILDERS[name]) != _origin(build)):
        raise SettingError(f"name: there is an operation {name!r} already, take another name")
    _BUILDERS[name] = build
    OPERATIONS[name] = Operation(lambda stride: _INPUT, lambda *place: OwnBody(name, build, *place))
    return build


def own_operations(settings: Any) -> dict[str, Builder]:
    """The functions that build the operations of a user's own that plain settings name anywhere, by name."""
    if isinstance(settings, dict):
        settings = [*settings.values()]
    if isinstance(settings, (list, tuple)):
        return {name: build for item in settings for name, build in own_operations(item).items()}
    return {settings: _BUILDERS[settings]} if isinstance(settings, str) and settings in _BUILDERS else {}


def _origin(build: Any) -> Any:
    """Where a function or class was defined; of any other object itself."""
    return (build.__module__, build.__qualname__) if hasattr(build, "__qualname__") else build


class OwnBody(nn.Module):
    """A module of a user's, whose result is multiplied by the edge's weight.

    Args:
        name: what the operation is called.
        build: the function of ``(channels, stride, affine)`` that returns the module.
        channels: the channels of what it reads and returns.
        stride: by how much it divides height and width, 1 or 2.
        affine: whether its BatchNorms should learn scale and shift.
    """

    def __init__(self, name: str, build: Builder, channels: int, stride: int, affine: bool) -> None:
        super().__init__()
        self.name, self.channels, self.stride = name, channels, stride
        self.module = build(channels, stride, affine)
        if not isinstance(self.module, nn.Module):
            raise SettingError(f"operations: {name} has to build an nn.Module, got {self.module!r}")

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """The module's result times ``weight``, a scalar; None: one.

        Raises:
            SettingError: if the module changes its input, or the result has another shape than the place needs.
        """
        # neither a compiler's tensors nor those of inference mode count changes
        counts = not torch.compiler.is_compiling() and not x.is_inference()
        version = x._version if counts else 0
        out: Tensor = self.module(x)
        if counts and x._version != version:
            raise SettingError(
                f"operations: {self.name} changes its input in place, which other operations read; begin with a module "
                "that is not inplace"
            )
        height, width = (-(-size // self.stride) for size in x.shape[2:])
        expected = (x.shape[0], self.channels, height, width)
        if tuple(out.shape) != expected:
            raise SettingError(
                f"operations: {self.name} has to give {expected} at stride {self.stride}, got {tuple(out.shape)}"
            )
        return out if weight is None else weight * out
