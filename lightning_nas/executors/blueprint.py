"""What a worker builds its own evaluator from."""

import dataclasses
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluator
from lightning_nas.executors.trial import failed, run_trial
from lightning_nas.operations import own_operations, register_operation
from lightning_nas.spaces.base import Space
from lightning_nas.spaces.own.space import OwnSpace
from lightning_nas.specs import Configurable, class_path, class_paths, subclasses
from lightning_nas.strategies.base import Proposal, Trial

if TYPE_CHECKING:  # data modules need Lightning, which a search on a table does without
    from lightning_nas.data import DataModule


@dataclasses.dataclass
class Submission:
    """A trial on its way: how many workers it has lost, how long these had it, and when the present one got it."""

    number: int
    work: Any  # a Proposal, where it is a trial
    n_lost: int = 0
    seconds: float = 0.0
    began: float = 0.0


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why a worker cannot work; in plain words, since not every exception can travel."""

    message: str
    is_setting: bool

    def error(self) -> Exception:
        return SettingError(self.message) if self.is_setting else RuntimeError(self.message)


@dataclasses.dataclass(frozen=True)
class Blueprint:
    """What a worker builds its own evaluator from.

    Attributes:
        evaluator, space, data: specs; of the data None where there are none.
        seed: the seed of the search.
        folder: where trials leave the states from which they are continued; None: nowhere.
        parts: the classes that the specs name, networks too, by their paths, and what builds the user's operations in
            them, by their names; pickled, so that a worker imports what it needs.
    """

    evaluator: dict[str, Any]
    space: dict[str, Any]
    data: dict[str, Any] | None
    seed: int
    folder: Path | None
    parts: bytes

    @classmethod
    def of(
        cls,
        evaluator: Evaluator,
        space: Space,
        data: "DataModule | None",
        seed: int,
        folder: Path | None = None,
        dumps: Callable[[Any], bytes] = pickle.dumps,
    ) -> "Blueprint":
        """The blueprint for workers that evaluate like this evaluator.

        Raises:
            SettingError: if one of the objects was made from anything but plain values, or no worker could import it.
        """
        if data is not None and not data.rebuilds:
            raise SettingError(
                "executor: workers build the data again from plain settings, which a set of your own has not; take the "
                "executor Serial"
            )
        if not space.rebuilds:
            raise SettingError(
                "executor: workers build the space again, and a network that was built already is in this process "
                "alone; hand over its class, or take the executor Serial"
            )
        try:
            specs = evaluator.spec, space.spec, None if data is None else data.spec
        except (TypeError, AttributeError) as error:
            raise SettingError(
                f"executor: workers build evaluator, space and data again from plain settings, but {error}; "
                "take the executor Serial"
            ) from error
        known = {class_path(sub): sub for sub in subclasses(Configurable)}
        try:
            classes: dict[str, type] = {path: known[path] for path in class_paths(list(specs)) if path in known}
            if isinstance(space, OwnSpace):
                classes[class_path(space.source.network_class)] = space.source.network_class
            parts = dumps((classes, own_operations(specs)))
        except (pickle.PicklingError, AttributeError) as error:
            raise SettingError(
                f"executor: workers import the classes and operations that they need, but {error}"
            ) from error
        return cls(*specs, seed, folder, parts)

    def open(self) -> Evaluator | Refusal:
        """The evaluator, ready; or why there is none."""
        try:
            classes, operations = pickle.loads(self.parts)
            for name, build in operations.items():
                register_operation(name, build)
            # a class of the user's script is called otherwise in a spawned process
            names = {path: class_path(cls) for path, cls in classes.items()}
            evaluator = Evaluator.build(_renamed(self.evaluator, names))
            space = Space.build(_renamed(self.space, names))
            data: Any = None if self.data is None else Configurable.build(_renamed(self.data, names))
            evaluator.open(space, data, self.seed, self.folder)
        except SettingError as error:
            return Refusal(str(error), is_setting=True)
        except Exception:
            return Refusal(f"a worker could not open its evaluator:\n{traceback.format_exc()}", is_setting=False)
        return evaluator

    @staticmethod
    def run(evaluator: Evaluator, number: int, proposal: Proposal) -> Trial:
        """What the worker answers to a submission."""
        return run_trial(evaluator, number, proposal)

    @staticmethod
    def give_up(submission: Submission, reason: str) -> Trial:
        """What the pool answers where no worker will."""
        return failed(submission.number, submission.work, reason, submission.seconds)


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: names.get(item, item)
        if isinstance(item, str) and key in ("class_path", "network")
        else _renamed(item, names)
        for key, item in value.items()
    }
