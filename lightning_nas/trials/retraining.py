"""Which packaged configuration retrains what a search of trials finds: its space is the user's choice."""

import inspect
from pathlib import Path
from typing import Any

import yaml

from lightning_nas.files import config_folder, find_config, packaged_configs
from lightning_nas.spaces.architecture_file import load_architecture
from lightning_nas.spaces.base import Space


def retrain_config(named: str, space: Space) -> str:
    """A packaged configuration that can retrain architectures of a space.

    Args:
        named: the name of a configuration. A user's own, or one whose settings the space's network takes, is kept.
        space: the space whose architectures are retrained.

    Returns:
        the name of the configuration; else of the one for this space that is called alike, if there is one.
    """
    path = Path(find_config(named))
    if config_folder().resolve() not in path.resolve().parents or _fits(_settings(path), space):
        return named
    for name in packaged_configs():
        if Path(name).name == path.name:
            settings = _settings(config_folder() / name)
            if type(load_architecture(settings["architecture"]).space) is type(space) and _fits(settings, space):
                return name
    return named


def _settings(path: Path) -> dict[str, Any]:
    """What the configuration of a retraining says of it."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["init_args"]


def _fits(settings: dict[str, Any], space: Space) -> bool:
    return settings.get("network", {}).keys() <= inspect.signature(space.network).parameters.keys()
