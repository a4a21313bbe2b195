"""Language modelling: the next word of a text."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map
from torchmetrics import MetricCollection
from torchmetrics.text import Perplexity

from lightning_nas.errors import SettingError
from lightning_nas.tasks.base import Carry, Task


class LanguageModeling(Task):
    """Cross-entropy and perplexity for the windows of a text (:class:`~lightning_nas.data.Window`).

    In training the loss has two regularisers (Merity, McCann, Socher 2017, section 4.2): ``activation_penalty · mean
    h²`` of the outputs that the decoder reads, and ``slowness · mean (h_t − h_{t−1})²`` of the hidden states. A network
    of your own that puts out logits alone has neither; one that puts out a ``LanguageOutput`` has both.

    Args:
        activation_penalty: α; DARTS and ENAS: 0.
        slowness: β; DARTS and ENAS: 1e-3.
        reward_scale: c of a controller's reward, c / perplexity (ENAS: 80).
    """

    score = "perplexity"
    mode = "min"
    modality = "text"
    adjustable = frozenset({"activation_penalty", "slowness", "reward_scale"})

    def __init__(self, activation_penalty: float = 0.0, slowness: float = 1e-3, reward_scale: float = 80.0) -> None:
        for name, value in {"activation_penalty": activation_penalty, "slowness": slowness}.items():
            if not value >= 0:
                raise SettingError(f"{name}: 0 or more, got {value}")
        if not reward_scale > 0:
            raise SettingError(f"reward_scale: above 0, got {reward_scale}")
        self.activation_penalty, self.slowness, self.reward_scale = activation_penalty, slowness, reward_scale

    def loss(
        self, forward: Callable[..., Any], batch: Any, carry: Carry = None, metrics: MetricCollection | None = None
    ) -> tuple[Tensor, Carry]:
        out = forward(batch.tokens, carry=carry, first=batch.first)
        entropy = F.cross_entropy(out.logits.flatten(0, 1), batch.targets.flatten())
        if metrics is not None:
            metrics.update(entropy.detach(), batch.targets.numel())
        loss = entropy
        if out.hidden is not None:  # the network is in training
            if self.activation_penalty:
                loss = loss + self.activation_penalty * out.dropped.square().mean()
            if self.slowness and len(out.hidden) > 1:
                loss = loss + self.slowness * out.hidden.diff(dim=0).square().mean()
        return loss, tree_map(_kept, out.carry)

    def reward(self, forward: Callable[..., Any], batch: Any, carry: Carry = None) -> tuple[Tensor, Carry]:
        entropy, carry = self.loss(forward, batch, carry)
        return self.reward_scale / entropy.exp(), carry

    def lr_scale(self, batch: Any, inputs: dict[str, int]) -> float:
        """The window's length by the data's ``bptt``, which the rate is meant for (Merity, Keskar, Socher 2018)."""
        return len(batch.tokens) / inputs["bptt"]

    def metrics(self, inputs: dict[str, int], over_ranks: bool = True) -> MetricCollection:
        return MetricCollection({"perplexity": PerplexityOfMeans(over_ranks)})


def _kept(x: Any) -> Any:
    """A tensor of a carry by itself; as a view it would keep the outputs of all time steps."""
    return x.detach().clone() if isinstance(x, Tensor) else x


class PerplexityOfMeans(Perplexity):
    """Perplexity from mean cross-entropies, which the loss has computed already; over all ranks or this one alone."""

    def __init__(self, over_ranks: bool = True) -> None:
        super().__init__(sync_on_compute=over_ranks)  # type: ignore[arg-type]

    def update(self, entropy: Tensor, n_tokens: int) -> None:  # type: ignore[override]
        """Adds a batch: its mean cross-entropy in nats, and over how many tokens."""
        self.total_log_probs += entropy * n_tokens
        self.count += n_tokens
