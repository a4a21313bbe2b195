"""How images lie in memory, which decides which kernels compute their convolutions."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def layout_of(device: torch.device) -> torch.memory_format:
    """The layout in which depthwise convolutions are fast.

    On a CPU the channels of a pixel lie side by side. CUDA's kernels for depthwise convolutions in float32 read a
    channel's image after the other, and copy every tensor that lies in another way.
    """
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format


def transformed() -> bool:
    """Whether a transform of ``torch.func`` (``grad``, ``vmap``, ``jvp``) is at work."""
    # what torch.autograd.Function.apply asks itself; functions of the new style, which transforms take, cost 40 µs more
    return bool(torch._C._are_functorch_transforms_active())


def laid_out(x: Tensor) -> Tensor:
    """The same images ``(N, C, H, W)`` in the layout of their device; without a copy where they lie so, and under
    ``torch.func``, where ``vmap`` has no layouts."""
    if transformed():
        return x
    return x.contiguous(memory_format=layout_of(x.device))


class LaidOut(nn.Module):
    """A module whose weights of convolutions lie in the layout of the device that they are on, and are moved to."""

    def lay_out(self) -> None:
        """Brings the weights into the layout of their device; at the end of ``__init__``."""
        for parameter in self.parameters():
            if parameter.dim() == 4:
                # ``to``, since to ``contiguous`` a kernel of one pixel lies in any layout
                parameter.data = parameter.data.to(memory_format=layout_of(parameter.device))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # what ``to``, ``cuda`` and a trainer call
        self.lay_out()
        return self
