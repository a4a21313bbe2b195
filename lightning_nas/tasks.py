"""What a batch costs and how it is scored. A task is pure: it knows neither spaces nor methods and keeps no state."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.text import Perplexity

from lightning_nas.errors import SettingError
from lightning_nas.specs import Configurable

Carry = Any
"""What a recurrent network hands from one batch of a stream to the next; None for images."""


class Task(Configurable):
    """A loss and metrics.

    Attributes:
        score: the name of the metric that decides between architectures.
        mode: ``max`` if a higher score is better, else ``min``.
    """

    score: str
    mode: str

    def loss(
        self, forward: Callable[..., Any], batch: Any, carry: Carry = None, metrics: MetricCollection | None = None
    ) -> tuple[Tensor, Carry]:
        """The mean loss of a batch, and the carry after it.

        Args:
            forward: the network with the gates already in it.
            batch: one batch of the data module.
            carry: the stream's carry so far.
            metrics: from :meth:`metrics`; updated with this batch where given.
        """
        raise NotImplementedError

    def reward(self, forward: Callable[..., Any], batch: Any, carry: Carry = None) -> tuple[Tensor, Carry]:
        """What a controller gets for one batch, a number without gradient, higher is better; and the carry after it."""
        raise NotImplementedError

    def lr_scale(self, batch: Any, inputs: dict[str, int]) -> float | None:
        """By how much the learning rate is multiplied for a step on this batch; None: it does not depend on batches."""
        return None

    def metrics(self, inputs: dict[str, int], over_ranks: bool = True) -> MetricCollection:
        """The metrics for data of this kind; over the batches of all ranks, or of this one alone."""
        raise NotImplementedError


class ImageClassification(Task):
    """Cross-entropy and accuracy for batches ``(images (N, C, H, W), labels (N,))``.

    Args:
        label_smoothing: share of the target spread over all classes, in validation losses too.
        auxiliary_weight: weight of the auxiliary classifier's loss, where the network has one (0.4 in NASNet, DARTS).
    """

    score = "accuracy"
    mode = "max"

    def __init__(self, label_smoothing: float = 0.0, auxiliary_weight: float = 0.4) -> None:
        if not 0 <= label_smoothing < 1:
            raise SettingError(f"task.label_smoothing: between 0 and 1, got {label_smoothing}")
        self.label_smoothing = label_smoothing
        self.auxiliary_weight = auxiliary_weight

    def loss(
        self, forward: Callable[..., Any], batch: Any, carry: Carry = None, metrics: MetricCollection | None = None
    ) -> tuple[Tensor, Carry]:
        images, labels = batch
        logits = forward(images)
        auxiliary = None
        if isinstance(logits, tuple):
            logits, auxiliary = logits
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        if auxiliary is not None:
            loss = loss + self.auxiliary_weight * F.cross_entropy(
                auxiliary, labels, label_smoothing=self.label_smoothing
            )
        if metrics is not None:
            metrics.update(logits.detach(), labels)
        return loss, carry

    def reward(self, forward: Callable[..., Any], batch: Any, carry: Carry = None) -> tuple[Tensor, Carry]:
        images, labels = batch
        return (forward(images).argmax(1) == labels).float().mean(), carry

    def metrics(self, inputs: dict[str, int], over_ranks: bool = True) -> MetricCollection:
        accuracy = MulticlassAccuracy(inputs["num_classes"], average="micro", sync_on_compute=over_ranks)
        return MetricCollection({"accuracy": accuracy})


class LanguageModeling(Task):
    """Cross-entropy and perplexity for the windows of a text (:class:`~lightning_nas.data.Window`).

    In training the loss has two regularisers (Merity, McCann, Socher 2017, section 4.2): ``activation_penalty · mean
    h²`` of the outputs that the decoder reads, and ``slowness · mean (h_t − h_{t−1})²`` of the hidden states.

    Args:
        activation_penalty: α; DARTS and ENAS: 0.
        slowness: β; DARTS and ENAS: 1e-3.
        reward_scale: c of a controller's reward, c / perplexity (ENAS: 80).
    """

    score = "perplexity"
    mode = "min"

    def __init__(self, activation_penalty: float = 0.0, slowness: float = 1e-3, reward_scale: float = 80.0) -> None:
        for name, value in {"activation_penalty": activation_penalty, "slowness": slowness}.items():
            if not value >= 0:
                raise SettingError(f"task.{name}: 0 or more, got {value}")
        if not reward_scale > 0:
            raise SettingError(f"task.reward_scale: above 0, got {reward_scale}")
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
        return loss, out.carry.detach().clone()  # as a view it would keep the outputs of all time steps

    def reward(self, forward: Callable[..., Any], batch: Any, carry: Carry = None) -> tuple[Tensor, Carry]:
        entropy, carry = self.loss(forward, batch, carry)
        return self.reward_scale / entropy.exp(), carry

    def lr_scale(self, batch: Any, inputs: dict[str, int]) -> float:
        """The window's length by the data's ``bptt``, which the rate is meant for (Merity, Keskar, Socher 2018)."""
        return len(batch.tokens) / inputs["bptt"]

    def metrics(self, inputs: dict[str, int], over_ranks: bool = True) -> MetricCollection:
        return MetricCollection({"perplexity": PerplexityOfMeans(over_ranks)})


class PerplexityOfMeans(Perplexity):
    """Perplexity from mean cross-entropies, which the loss has computed already; over all ranks or this one alone."""

    def __init__(self, over_ranks: bool = True) -> None:
        super().__init__(sync_on_compute=over_ranks)  # type: ignore[arg-type]

    def update(self, entropy: Tensor, n_tokens: int) -> None:  # type: ignore[override]
        """Adds a batch: its mean cross-entropy in nats, and over how many tokens."""
        self.total_log_probs += entropy * n_tokens
        self.count += n_tokens
