"""What is checked before a run begins.

Its parts against each other, its settings against those of the checkpoint that it continues from, and the trainer's
settings against what a module can do with them.
"""

import inspect
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.trainer import Trainer

from lightning_nas.data import DataModule
from lightning_nas.errors import SettingError
from lightning_nas.spaces.base import Network, Space
from lightning_nas.specs import Configurable, find_class
from lightning_nas.tasks import Task

# -- parts -----------------------------------------------------------------------------------------------------------


def check_parts(space: Space, task: Task | None, data: Any) -> None:
    """Refuses a space, a task and data of different kinds. What has no ``modality`` is not checked.

    Raises:
        SettingError: naming what does not fit.
    """
    if task is not None and task.modality not in (None, space.modality):
        name, other = type(task).__name__, type(space).__name__
        raise SettingError(f"task: {name} is for {task.modality}, and networks of {other} read {space.modality}")
    modality = data.modality if isinstance(data, DataModule) else None
    if modality not in (None, space.modality):
        name, other = type(data).__name__, type(space).__name__
        raise SettingError(f"data: {name} gives {modality}, and networks of {other} read {space.modality}")
    if task is not None and isinstance(data, DataModule):
        check_reads(task, data)


def check_reads(task: Task, data: DataModule) -> None:
    """Refuses data without the labels that a task reads, or without the views.

    Raises:
        SettingError: naming what is not there.
    """
    name, other = type(data).__name__, type(task).__name__
    if task.labelled and not data.labelled:
        raise SettingError(f"data: {name} without labels, and {other} reads labels")
    accepted = inspect.signature(data.stream).parameters
    lacking = [asked for asked in task.reads if asked not in accepted]
    if lacking:
        raise SettingError(
            f"data: {other} reads {task.views} views of each example, and {name} gives one; its stream and evaluation "
            f"have to take {' and '.join(lacking)}"
        )


def check_inputs(built_for: Mapping[str, int], data: DataModule, space: Space) -> None:
    """Refuses data for which a network that is there already was not built, as far as they tell.

    Raises:
        SettingError: naming what of the data differs.
    """
    for name in space.usual_inputs:
        if name in built_for and name in data.inputs and data.inputs[name] != built_for[name]:
            raise SettingError(
                f"data: {type(data).__name__} has {name} {data.inputs.get(name)}, and the network was built for "
                f"{built_for[name]}"
            )


def check_network(network: Network, task: Task | None) -> None:
    """Refuses a network that cannot run, or whose outputs the task cannot read, where that is not known yet.

    Args:
        network: the network, on any device.
        task: what reads its outputs; None: nothing does.

    Raises:
        SettingError: saying why.
    """
    output = network.try_out()
    if output is not None and task is not None:
        task.check_output(output, network.inputs)


# -- continuing ------------------------------------------------------------------------------------------------------


def check_continued(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    field: str,
    also: Collection[str] = (),
    only: Collection[str] | None = None,
) -> None:
    """Refuses settings that are others than those in the checkpoint and cannot change there.

    Args:
        before: the spec in the checkpoint.
        now: the spec of the object that continues. An argument that is a name or a path where the checkpoint has a spec
            is passed over: what it means is known once it is built.
        field: what the object is called in an error.
        also: arguments that may change besides those that the class declares.
        only: the arguments that may change in place of those that the class declares, and then nothing in objects
            inside; None: those of the class, and inside what other classes declare.

    Raises:
        SettingError: naming the first such setting, with both values.
    """
    if before["class_path"] != now["class_path"]:
        was, name = (str(spec["class_path"]).rpartition(".")[2] for spec in (before, now))
        what = f"{was} in the checkpoint, {name} now; a checkpoint continues its own run, for a new one leave it out"
        raise SettingError(f"{field}: {what}" if field else what)
    found = find_class(now["class_path"], Configurable)
    frozen: Mapping[str, Collection[str]] = getattr(found, "frozen", {})
    own = {**before, **now}.keys() - {"class_path", "init_args", "dict_kwargs"}  # a restricted space has one
    for name in sorted(own):
        if before.get(name) != now.get(name):
            values = before.get(name, "not set"), now.get(name, "not set")
            raise _unchangeable(f"{field}.{name}" if field else name, *values)
    adjustable = {*also, *(only if only is not None else found.adjustable if found else ())}
    _check_values(before.get("init_args", {}), now.get("init_args", {}), field, adjustable, frozen, only is not None)


def _check_values(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    field: str,
    adjustable: Collection[str],
    frozen: Mapping[str, Collection[str]],
    all_frozen: bool,
) -> None:
    for name, value in now.items():
        was, part = before.get(name), f"{field}.{name}" if field else name
        if name in adjustable or name not in before or value == was:
            continue
        if name == "inputs" and (value is None or was is None):  # asked of the data
            continue
        if isinstance(was, Mapping) and isinstance(value, Mapping):
            if "class_path" in was and "class_path" in value:
                check_continued(was, value, part, only=() if all_frozen else frozen.get(name))
            else:
                _check_values(was, value, part, (), {}, all_frozen or name in frozen)
                for other in [*value.keys() - was.keys(), *was.keys() - value.keys()]:  # no setting, but its default
                    raise _unchangeable(f"{part}.{other}", was.get(other, "not set"), value.get(other, "not set"))
        elif not (isinstance(was, Mapping) and isinstance(value, str)):
            raise _unchangeable(part, was, value)


def _unchangeable(field: str, was: Any, now: Any) -> SettingError:
    return SettingError(
        f"{field}: {_short(was)} in the checkpoint, {_short(now)} now; it cannot change where a run continues, but in "
        "a new one"
    )


def _short(value: Any) -> str:
    named = (
        str(value["class_path"]).rpartition(".")[2] if isinstance(value, Mapping) and "class_path" in value else value
    )
    return str(named)[:80]


def check_sizes(before: Mapping[str, int], data: DataModule) -> None:
    """Refuses data with other numbers of examples than those that a checkpoint was trained on.

    Raises:
        SettingError: naming the part.
    """
    for part, size in data.sizes().items():
        if part not in before or before[part] == size:
            continue
        if part.endswith("positions"):
            raise SettingError(
                f"data: the {part.removesuffix(' positions')} set has other examples than in the checkpoint; a run "
                "continues on the data that it began with: divide them by a seed, random_split(…, generator=…)"
            )
        raise SettingError(
            f"data: {before[part]} {part} in the checkpoint, {size} now; a run continues on the data that it began with"
        )


# -- the trainer -----------------------------------------------------------------------------------------------------


def check_trainer_settings(settings: Mapping[str, Any], refused: Mapping[str, str]) -> None:
    """Refuses settings of the trainer that would have no effect on a module, or a wrong one.

    Args:
        settings: the values by the names of the trainer's arguments.
        refused: by the name of an argument what is said where it is not at its default.

    Raises:
        SettingError: naming the setting and what to use instead.
    """
    defaults = inspect.signature(Trainer.__init__).parameters
    for name, value in settings.items():
        if name in refused and value is not None and value != defaults[name].default:
            raise SettingError(f"trainer.{name}: {refused[name]}")


def check_epochs(trainer: Trainer) -> None:
    """Refuses a trainer whose number of epochs is not known before it trains.

    Raises:
        SettingError: saying why it has to be.
    """
    epochs = trainer.max_epochs
    timers = [each for each in trainer.callbacks if isinstance(each, Timer)]  # type: ignore[attr-defined]
    limited = trainer.max_steps != -1 or any(timer.time_remaining() is not None for timer in timers)
    if (epochs is None and limited) or (epochs is not None and epochs < 1):  # limited by others, it has no epochs
        raise SettingError(f"trainer.max_epochs: at least 1, since the learning rate follows it; got {epochs}")


def check_precision(precision: str, accepted: Collection[str], why: str) -> None:
    """Refuses what a module cannot be computed in; none ``accepted``: anything is.

    Raises:
        SettingError: naming what it can be computed in.
    """
    if accepted and precision not in accepted:
        raise SettingError(f"trainer.precision: {' or '.join(accepted)}, got {precision}; {why}")


def check_callbacks(callbacks: Iterable[Callback], refused: Mapping[str, str]) -> None:
    """Refuses callbacks that do not do what they are for.

    Args:
        callbacks: the callbacks that the trainer calls.
        refused: by the name of a class what is said of it, and of what inherits from it; nothing is said, by an empty
            text, of a class that can be used although one that it inherits from cannot.

    Raises:
        SettingError: naming the callback and what to use instead.
    """
    for callback in callbacks:
        named = next((cls.__name__ for cls in type(callback).__mro__ if cls.__name__ in refused), None)
        if named is not None and refused[named]:
            raise SettingError(f"trainer.callbacks: {type(callback).__name__} {refused[named]}")


def check_choices(before: Sequence[Any], now: Sequence[Any]) -> None:
    """Refuses a checkpoint of a network whose choices were others, or in another order.

    Args:
        before: the name and the options of each choice, as the checkpoint has them.
        now: the same of the space that goes on.

    Raises:
        SettingError: naming the first choice that differs.
    """
    for had, has in itertools.zip_longest(before, now):
        if had != has:
            words = ["no choice" if each is None else f"{each[0]}: {', '.join(each[1])}" for each in (had, has)]
            raise SettingError(f"space: the choices of the checkpoint in its order; it has {words[0]}; now {words[1]}")


def check_monitored(callbacks: Iterable[Callback], figures: Collection[str]) -> None:
    """Refuses callbacks that follow a figure which will not be there.

    Raises:
        SettingError: naming the callback, and the figures that will be there.
    """
    for callback, monitored in monitoring(callbacks):
        if monitored not in figures:
            raise SettingError(
                f"trainer.callbacks: {type(callback).__name__} monitors {monitored!r}, which this run does not have; "
                f"there are {', '.join(figures)}"
            )


def monitoring(callbacks: Iterable[Callback]) -> list[tuple[Callback, str]]:
    """The callbacks that follow a figure, each with its name."""
    followed = [(callback, getattr(callback, "monitor", None)) for callback in callbacks]
    return [(callback, name) for callback, name in followed if isinstance(name, str)]


def check_trains(trainer: Trainer) -> None:
    """Refuses limits that leave nothing to train, after which there would be nothing to conclude from.

    Raises:
        SettingError: naming the limit.
    """
    for name in ("max_epochs", "max_steps", "limit_train_batches"):
        if getattr(trainer, name) == 0:
            raise SettingError(f"trainer.{name}: above 0, or nothing is trained")
