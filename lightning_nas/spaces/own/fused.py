"""PyTorch's fused kernels for evaluation, which a network with choices does without.

``nn.TransformerEncoderLayer`` and ``nn.MultiheadAttention`` have kernels that run in evaluation mode without gradients.
They read the weights of the layers inside as they are, past slices and choices, and round in their own way. So that all
architectures are run alike, and a found one as it was in the search, none of them runs until a network is frozen.
"""

from typing import Any

from torch import nn

from lightning_nas.operations.sliced import SlicedMultiheadAttention


def unfuse(net: nn.Module) -> None:
    """Has every module take the way that it takes in training (PyTorch 2.14).

    Args:
        net: the module of a user, with all that is in it.
    """
    for module in net.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.register_forward_pre_hook(_no_hook)  # to which its kernel gives way
        elif isinstance(module, nn.TransformerEncoder) and module.use_nested_tensor:
            module.use_nested_tensor = None  # type: ignore[assignment]  # which its layers would read in their kernel alone
        elif type(module) is nn.MultiheadAttention and module._qkv_same_embed_dim and module.bias_k is None:
            module.__class__ = SlicedMultiheadAttention


def fuse(module: nn.Module) -> None:
    """Undoes for one module what :func:`unfuse` did.

    Args:
        module: a module of a network without choices.
    """
    hooks = module._forward_pre_hooks
    for number in [number for number, hook in hooks.items() if hook is _no_hook]:
        del hooks[number]
    if isinstance(module, nn.TransformerEncoder) and module.use_nested_tensor is None:
        module.use_nested_tensor = True
    elif type(module) is SlicedMultiheadAttention:
        module.__class__ = nn.MultiheadAttention  # type: ignore[assignment]


def _no_hook(module: nn.Module, given: Any) -> None:
    """Does nothing."""
