"""Data modules, which own the sets of examples; the method's schedule says what is trained on when."""

from lightning_nas.data.base import DataModule, Schedule, Scheduled, Stream
from lightning_nas.data.cifar10 import CIFAR10
from lightning_nas.data.cluttered_digits import ClutteredDigits
from lightning_nas.data.digits import Digits
from lightning_nas.data.image_folder import ImageFolder
from lightning_nas.data.images import ImageData
from lightning_nas.data.no_data import NoData
from lightning_nas.data.own import AnyData, OwnData, as_data
from lightning_nas.data.penn_treebank import PennTreebank
from lightning_nas.data.py_docs import PyDocs
from lightning_nas.data.text import TextData, Window
from lightning_nas.data.text_files import TextFiles

__all__ = [
    "CIFAR10",
    "AnyData",
    "ClutteredDigits",
    "DataModule",
    "Digits",
    "ImageData",
    "ImageFolder",
    "NoData",
    "OwnData",
    "PennTreebank",
    "PyDocs",
    "Schedule",
    "Scheduled",
    "Stream",
    "TextData",
    "TextFiles",
    "Window",
    "as_data",
]
