"""How images lie in memory."""

from torch import Tensor


def channels_last(x: Tensor) -> Tensor:
    """``(N, C, H, W)`` with the channels of a pixel side by side in memory; ``x`` itself where they are.

    As ``x.contiguous(memory_format=torch.channels_last)``, which ``torch.func.vmap`` refuses.
    """
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
