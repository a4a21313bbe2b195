"""Whether the network that all architectures share follows the numbers that are chosen.

Its constructor runs once, with the largest numbers. Where it takes a plain number out of a value choice (the size of a
parameter, a ``range``, ``math.gcd``), only a network that is built with another number would be another one. That shows
where the network is held to one of the smallest numbers.
"""

from collections.abc import Callable, Mapping

from torch import nn

from lightning_nas.errors import SettingError
from lightning_nas.operations.sliced import SLICED
from lightning_nas.spaces.own.values import values_in

Numbers = Mapping[str, tuple[float, ...]]

IN_TRIALS = "A search of trials (TrialSearch) builds each network by itself, and can choose it"

PART_OF_ATTENTION = (nn.modules.linear.NonDynamicallyQuantizableLinear,)
"""What ``nn.MultiheadAttention`` keeps its last matrix in, which it slices itself."""


def check_followed(net: nn.Module, left: Numbers, build: Callable[[Numbers], nn.Module]) -> None:
    """Refuses a network that would not follow a value choice.

    Args:
        net: the module of a user, with the largest numbers.
        left: the values of each value choice, by label.
        build: builds the same with other values, of which only names and shapes count.

    Raises:
        SettingError: if no module keeps a value choice, or something else than layers of PyTorch's depends on one in a
            module that keeps none.
    """
    open_ones = [label for label, values in left.items() if len(values) > 1]
    if not open_ones:
        return
    held = {label for module in net.modules() for value in values_in(vars(module)) for label in value.options}
    for label in open_ones:
        if label not in held:
            raise SettingError(
                f"{label}: no module keeps the number, so that nothing would follow it in a network that all "
                f"architectures share; keep it, as in self.{label} = {label}, and use it in forward. {IN_TRIALS}"
            )
    try:
        small = build({label: (min(values),) for label, values in left.items()})
    except Exception:  # not all combinations of numbers have to be a network
        return
    modules = dict(net.named_modules())
    for path, module in small.named_modules():
        what = _forgotten(modules[path], module) if path in modules else "whether there is any"
        if what:
            raise SettingError(
                f"space: {what} of {path or type(net).__name__} follows a value choice in the constructor, but would "
                "not in a network that all architectures share; keep the value choice as an attribute there and use it "
                f"in forward, as in self.position[:, : self.width]. {IN_TRIALS}"
            )


def _forgotten(large: nn.Module, small: nn.Module) -> str:
    """What a module has that is another one in a smaller network, and cannot follow; empty: nothing."""
    if type(large) in SLICED or isinstance(large, PART_OF_ATTENTION):
        return ""
    if type(large) is not type(small):
        return "the class"
    for name, number in vars(large).items():
        if type(number) is int and number != vars(small).get(name):
            return name
    if values_in(vars(large)):
        return ""  # it slices by these itself
    others = {**small._parameters, **small._buffers}
    for name, tensor in {**large._parameters, **large._buffers}.items():
        if isinstance(tensor, (nn.UninitializedParameter, nn.UninitializedBuffer)):
            continue
        if tensor is not None and getattr(others.get(name), "shape", None) != tensor.shape:
            return f"the shape of {name}"
    return ""
