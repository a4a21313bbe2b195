"""Every kind of object that has a name on the command line, in one table; and a user's own packages."""

import dataclasses
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import lightning_nas
from lightning_nas.controllers import Controller, ControllerUpdate
from lightning_nas.data import DataModule
from lightning_nas.errors import SettingError
from lightning_nas.evaluators import Evaluator
from lightning_nas.executors import Executor
from lightning_nas.measures import Measure
from lightning_nas.methods import Method
from lightning_nas.relaxations import Relaxation
from lightning_nas.runs.folder import USER_PACKAGES
from lightning_nas.spaces import Space
from lightning_nas.specs import Configurable, concrete, first_sentence
from lightning_nas.strategies import Strategy
from lightning_nas.tasks import Task
from lightning_nas.training import LRSchedule, Optimizer
from lightning_nas.training.module import Module


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of object that users choose by name.

    Attributes:
        title: what ``list`` calls the kind.
        base: the class that all of them are of.
        field: what a setting of this kind is called, or ends with: ``alphas_optimizer`` is an ``optimizer``.
        listed: the class whose subclasses ``list`` shows, where that is not ``base``.
    """

    title: str
    base: type[Configurable]
    field: str
    listed: type[Configurable] | None = None

    def names(self) -> list[str]:
        """The names that a user can choose from."""
        return sorted({cls.__name__ for cls in concrete(self.base)})

    def rows(self) -> list[tuple[str, str]]:
        """Name and first sentence of each class, for ``list``."""
        return sorted({(cls.__name__, first_sentence(cls)) for cls in concrete(self.listed or self.base)})


KINDS = (
    Kind("methods", Module, "model", Method),
    Kind("spaces", Space, "space"),
    Kind("data", DataModule, "data"),
    Kind("tasks", Task, "task"),
    Kind("strategies", Strategy, "strategy"),
    Kind("evaluators", Evaluator, "evaluator"),
    Kind("measures", Measure, "measure"),
    Kind("executors", Executor, "executor"),
    Kind("controllers", Controller, "controller"),
    Kind("updates of controllers", ControllerUpdate, "update"),
    Kind("relaxations", Relaxation, "relaxation"),
    Kind("optimisers", Optimizer, "optimizer"),
    Kind("schedules of learning rates", LRSchedule, "schedule"),
)

for _name in lightning_nas.PUBLIC:  # what is imported has a short class name on the command line
    getattr(lightning_nas, _name)


def kind_of(field: str) -> Kind | None:
    """The kind of a setting by its name, such as ``model.alphas_optimizer``; None where it takes no named object."""
    last = field.rpartition(".")[2]
    return next((kind for kind in KINDS if last == kind.field or last.endswith(f"_{kind.field}")), None)


def import_packages(names: Sequence[str]) -> None:
    """Imports a user's packages, also from the folder that the command is run in, and keeps their names for processes
    that the command starts.

    Raises:
        SettingError: if one cannot be imported.
    """
    _look_here()
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever a user's package raises
            raise SettingError(f"--import: {name} cannot be imported ({type(error).__name__}: {error})") from error
    os.environ[USER_PACKAGES] = " ".join(names)


def import_class(path: str, setting: str) -> Any:
    """What a path means, whose module is imported like a user's package.

    Args:
        path: the import path, ``my_package.Net``.
        setting: the setting that has it, with which errors begin.

    Raises:
        SettingError: if there is no such module, or it cannot be imported, or has nothing of the name.
    """
    _look_here()
    module, _, name = path.rpartition(".")
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise SettingError(f"{setting}: there is no module {error.name}, of {path}") from error
        raise SettingError(f"{setting}: {module} cannot be imported ({error})") from error
    except Exception as error:  # whatever a user's package raises
        raise SettingError(f"{setting}: {module} cannot be imported ({type(error).__name__}: {error})") from error
    if not hasattr(imported, name):
        own = [n for n, held in vars(imported).items() if isinstance(held, type) and held.__module__ == module]
        raise SettingError(f"{setting}: {module} has no {name}; its classes are {', '.join(sorted(own)) or 'none'}")
    known = os.environ.get(USER_PACKAGES, "").split()
    os.environ[USER_PACKAGES] = " ".join(dict.fromkeys([*known, module]))
    return getattr(imported, name)


def _look_here() -> None:
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
