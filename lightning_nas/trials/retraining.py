"""Which packaged configuration retrains what a search finds: its space is the user's choice."""

import inspect
from pathlib import Path
from typing import Any

import yaml

from lightning_nas.files import config_folder, find_config, packaged_configs
from lightning_nas.spaces.architecture_file import load_architecture
from lightning_nas.spaces.base import Space
from lightning_nas.spaces.own.space import OwnSpace

OF_OWN_NETWORKS = "own/retrain.yaml"
"""The configuration that retrains networks of a user's own, whose architecture is in no package."""


def retrain_config(named: str, space: Space) -> str:
    """A packaged configuration that can retrain architectures of a space.

    Args:
        named: the name of a configuration. A user's own, or one whose settings the space's network takes, is kept.
        space: the space whose architectures are retrained.

    Returns:
        the name of the configuration; else of the one for this space that is called alike, if there is one.
    """
    path = Path(find_config(named))
    if config_folder().resolve() not in path.resolve().parents:
        return named
    if isinstance(space, OwnSpace):
        return OF_OWN_NETWORKS
    if _fits(_settings(path), space):
        return named
    for name in packaged_configs():
        if Path(name).name == path.name:
            settings = _settings(config_folder() / name)
            named_there = settings.get("architecture")
            if named_there and type(load_architecture(named_there).space) is type(space) and _fits(settings, space):
                return name
    return named


def _settings(path: Path) -> dict[str, Any]:
    """What the configuration of a retraining says of it."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["init_args"]


def _fits(settings: dict[str, Any], space: Space) -> bool:
    return settings.get("network", {}).keys() <= inspect.signature(space.network).parameters.keys()
