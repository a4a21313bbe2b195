"""What a batch costs and how it is scored."""

from lightning_nas.tasks.base import Carry, Task
from lightning_nas.tasks.contrastive_learning import ContrastiveLearning
from lightning_nas.tasks.distillation import Distillation
from lightning_nas.tasks.image_classification import ImageClassification
from lightning_nas.tasks.language_modeling import LanguageModeling
from lightning_nas.tasks.segmentation import Segmentation

__all__ = [
    "Carry",
    "ContrastiveLearning",
    "Distillation",
    "ImageClassification",
    "LanguageModeling",
    "Segmentation",
    "Task",
]
