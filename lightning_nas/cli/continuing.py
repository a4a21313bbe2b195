"""A checkpoint's settings beside those of configuration files, which it wins over."""

import inspect
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from lightning_nas.callbacks import ArchitectureLogger
from lightning_nas.cli.training import Trainer
from lightning_nas.errors import SettingError
from lightning_nas.files import config_content
from lightning_nas.runs.folder import RunFolder


def weigh(settings: dict[str, Any], files: Sequence[str], checkpoint: str, fit: bool) -> None:
    """Says in which settings a checkpoint wins over configuration files.

    Args:
        settings: those in the checkpoint. Where the run continues, they get the defaults that it had.
        files: the paths of the configuration files, or their texts.
        checkpoint: the path of the checkpoint.
        fit: whether the run continues.

    Raises:
        SettingError: if the files are of another method than the checkpoint.
    """
    contents = [config_content(file) or {} for file in files]
    if fit:
        _fill_defaults(settings, contents)
    _compare(settings, contents, checkpoint)


def _fill_defaults(settings: dict[str, Any], contents: Sequence[dict[str, Any]]) -> None:
    """Gives a checkpoint's settings the defaults that its run had where files say otherwise: it keeps no defaults."""
    if "trainer" not in settings:  # from Python: what its trainer had is not known
        return
    for section, cls in {"trainer": Trainer, "architecture_logger": ArchitectureLogger}.items():
        defaults = inspect.signature(cls).parameters
        for content in contents:
            said = content.get(section) or {}
            for name in said.keys() & defaults.keys() - {"default_root_dir"}:  # where a run writes is no part of it
                settings.setdefault(section, {}).setdefault(name, defaults[name].default)


def _compare(settings: dict[str, Any], contents: Sequence[dict[str, Any]], checkpoint: str) -> None:
    said = {name: value for content in contents for name, value in _leaves(content)}
    kept = dict(_leaves(settings))
    was, now = (str(of.get("model", "")).rpartition(".")[2] for of in (kept, said))
    if now and was != now:
        instead = "To continue it leave --config out, to begin a new run --ckpt_path"
        if now == "Retrain":
            folder = RunFolder.of_checkpoint(checkpoint)
            instead = f"To retrain what the search found, give --model.architecture {folder.architecture} instead"
        raise SettingError(
            f"ckpt_path: {checkpoint} is of {was}, and the configuration of {now}; a checkpoint continues its own run. "
            f"{instead}"
        )
    said.pop("model", None)  # the same class, perhaps by its short name
    differ = [f"{name} {kept[name]} (not {value})" for name, value in said.items() if kept.get(name, value) != value]
    if differ:
        print(f"from the checkpoint, which wins over files and not over flags: {', '.join(differ)}", file=sys.stderr)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The plain values of a configuration by their full names, that of a class by the object's own."""
    if isinstance(value, dict):
        for key, item in value.items():
            inner = name if key in ("class_path", "init_args") else f"{name}.{key}" if name else str(key)
            yield from _leaves(item, inner)
    elif isinstance(value, (int, float)) or name == "model":
        yield name, value
