"""Learning from the outputs of a trained network as well as from labels.

Hinton, Vinyals, Dean 2015: Distilling the Knowledge in a Neural Network.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection

from lightning_nas.errors import SettingError
from lightning_nas.tasks.base import Carry, Task
from lightning_nas.tasks.image_classification import ImageClassification


class Distillation(Task):
    """``(1 − weight) · loss + weight · T² · KL(teacher ‖ student)`` of the probabilities at temperature T.

    The teacher sees the same augmented images as the network. It is asked in training alone, so validation and testing
    give the figures of the classification. Its file is needed to train and to continue, for nothing else; when a run
    continues, it has to hold the same weights, wherever it lies.

    Args:
        teacher: the path of the checkpoint of a retraining, whose classes and image size are those of the data.
        weight: the share of the teacher in the loss, from 0 to 1 (Zagoruyko and Komodakis 2017: 0.9).
        temperature: T, above 0, by which the outputs of both networks are divided before the softmax (likewise: 4).
        task: the classification that the network learns from labels; None: ``ImageClassification()``.
    """

    modality = "images"
    adjustable = frozenset({"teacher", "weight", "temperature"})

    def __init__(self, teacher: str, weight: float = 0.9, temperature: float = 4.0, task: Task | None = None) -> None:
        if not 0 <= weight <= 1:
            raise SettingError(f"weight: from 0 to 1, got {weight}")
        if not temperature > 0:
            raise SettingError(f"temperature: above 0, got {temperature}")
        self.teacher, self.weight, self.temperature = teacher, weight, temperature
        self.task = self._init_args["task"] = Task.build(task or ImageClassification(), "task")
        if self.task.modality != "images" or self.task.reads or self.task.teachers:
            raise SettingError(f"task: a classification of images by labels, got {type(self.task).__name__}")
        self.score, self.mode = self.task.score, self.task.mode

    @property
    def teachers(self) -> Mapping[str, str]:
        return {"teacher": self.teacher}

    def loss(
        self,
        forward: Callable[..., Any],
        batch: Any,
        carry: Carry = None,
        metrics: MetricCollection | None = None,
        teacher: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Carry]:
        outputs = forward(batch[0])
        loss, carry = self.task.loss(lambda _: outputs, batch, carry, metrics)
        if teacher is None:
            return loss, carry
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        return (1 - self.weight) * loss + self.weight * softened(logits, teacher(batch[0]), self.temperature), carry

    def reward(self, forward: Callable[..., Any], batch: Any, carry: Carry = None) -> tuple[Tensor, Carry]:
        return self.task.reward(forward, batch, carry)

    def metrics(self, inputs: dict[str, int], over_ranks: bool = True) -> MetricCollection:
        return self.task.metrics(inputs, over_ranks)


def softened(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T² · KL(teacher ‖ student)``, the mean over examples; T² keeps its gradients as large as those of labels.

    Args:
        student: the network's outputs before the softmax, ``(N, classes)``.
        teacher: the teacher's outputs, likewise.
        temperature: T, by which both are divided.
    """
    log_q, log_p = ((logits / temperature).log_softmax(1) for logits in (student, teacher))
    return temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
