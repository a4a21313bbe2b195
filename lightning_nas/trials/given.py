"""What a search is given before its first trial: architectures to try first, and results that are known already."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_nas.errors import SettingError, within
from lightning_nas.objectives import Objective
from lightning_nas.spaces.architecture_file import load_architecture
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.specs import class_path
from lightning_nas.strategies.base import Trial
from lightning_nas.trials.log import read_trials, written


def architectures(given: Sequence[Architecture | str | dict[str, Any]] | None, space: Space) -> list[Architecture]:
    """The architectures of a space that are tried first.

    Args:
        given: each as the path of an ``architecture.json``, its content, the name of a published architecture, or the
            index of each choice's option.
        space: the space that is searched.

    Raises:
        SettingError: if one cannot be read, or is none of the space.
    """
    return [_architecture(each, space) for each in given or ()]


def _architecture(given: Any, space: Space) -> Architecture:
    if isinstance(given, tuple):
        if not space.legal(given):
            raise SettingError(f"try_first: no legal architecture of {type(space).__name__}, got {given}")
        return given
    with within("try_first"):
        record = load_architecture(given)
    if class_path(type(record.space)) != class_path(type(space)):
        there, here = type(record.space).__name__, type(space).__name__
        raise SettingError(f"try_first: an architecture of {here} expected, got one of {there}")
    try:
        return space.from_names(record.space.to_names(record.architecture))
    except ValueError as error:
        raise SettingError(f"try_first: no architecture of this {type(space).__name__}: {error}") from error


def known_trials(path: Path | None, space: Space, objectives: Sequence[Objective]) -> list[Trial]:
    """The trials of another search of the same space, judged by these objectives.

    They have numbers below 0, and cost nothing here.

    Args:
        path: the ``trials.jsonl`` of the other search; None: there is none.
        space: the space of both.
        objectives: what the trials are judged by.

    Raises:
        SettingError: if it cannot be read, or has not the metrics of the objectives.
    """
    if path is None:
        return []
    try:
        trials = read_trials(path, space, objectives)
    except SettingError as error:  # which begins with the path
        raise SettingError(f"known: {error}") from error
    first = -len(trials)
    return [
        dataclasses.replace(trial, number=first + place, cost=0.0, continues=None, same_as=None)
        for place, trial in enumerate(trials)
    ]


def summary(known: Sequence[Trial], space: Space) -> dict[str, Any] | None:
    """What distinguishes known trials from any others, in a line; None: there are none."""
    if not known:
        return None
    content = json.dumps([written(trial, space) for trial in known], sort_keys=True)
    digest = hashlib.blake2b(content.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()
    return {"n_trials": len(known), "digest": digest}
