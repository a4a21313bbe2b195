"""The entry point: which command, which configuration files, and errors in one line.

Nothing heavy is imported before it is known what is asked.
"""

import inspect
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_nas.errors import SettingError, setting_error
from lightning_nas.files import find_config
from lightning_nas.runs.folder import USER_PACKAGES, RunFolder

TRAINING = ("fit", "validate", "test", "derive")
USAGE = """\
usage: python -m lightning_nas COMMAND ...

Neural architecture search as PyTorch Lightning modules.

  fit       a search, or the retraining of what it found   fit --config darts/quickstart.yaml
  validate  the figures on the validation part             validate --ckpt_path runs/.../last.ckpt
  test      the figures on the test part                   test --ckpt_path runs/.../last.ckpt
  derive    architecture.json from a search's checkpoint   derive --ckpt_path runs/.../last.ckpt
  draw      a picture of an architecture                   draw architecture.json --out cells.svg
  profile   parameters, FLOPs, activations and latency     profile darts_v2
  list      methods, spaces, data, configurations, published architectures
  study     what a search is worth; study --help lists the studies

Each has --help. A --config is a file, or the name of a packaged one (see list). --import my_package makes a package
of your own known to any command: its spaces, methods, strategies, evaluators and data have names there then.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        the exit status: 0, or 2 for wrong input. Interruptions leave as ``SystemExit`` with 130 (Ctrl-C) or 143
        (SIGTERM).
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if argv else 2
    try:
        argv, packages = without_imports(argv)
        if packages:
            from lightning_nas.catalogue import import_packages

            import_packages(packages)
        argv = packaged_configs(argv)
        if argv[0] in TRAINING:
            train(argv)
        else:
            from lightning_nas.cli.commands import run

            run(argv, main)
    except Exception as error:
        wrong = setting_error(error)
        if wrong is None and type(error).__name__ != "MisconfigurationException":  # Lightning's word for the same
            raise
        print(f"error: {wrong or error}", file=sys.stderr)
        return 2
    return 0


def train(argv: list[str]) -> None:
    """Runs one of the commands on ``LightningCLI``."""
    from lightning_nas.cli.training import CommandLine
    from lightning_nas.training.checkpoints import checkpoint_settings

    checkpoint = value_of(argv, "--ckpt_path")
    settings: dict[str, Any] = {}
    if checkpoint:
        settings = checkpoint_settings(checkpoint, fit=argv[0] == "fit")
        files = [after for before, after in itertools.pairwise(argv) if before in ("-c", "--config")]
        if argv[0] == "fit":
            fill_defaults(settings, files)
        compare_with_files(settings, files, checkpoint)
        # after the configuration files and before the flags, so that flags win over the checkpoint
        at = max((i + 2 for i, a in enumerate(argv) if a in ("-c", "--config")), default=1)
        argv[at:at] = ["--config", json.dumps(settings)]
    CommandLine(argv, settings)


def fill_defaults(settings: dict[str, Any], files: Sequence[str]) -> None:
    """Gives a checkpoint's settings the defaults that its run had where files say otherwise: it keeps no defaults."""
    from lightning_nas.callbacks import ArchitectureLogger
    from lightning_nas.cli.training import Trainer

    for section, cls in {"trainer": Trainer, "architecture_logger": ArchitectureLogger}.items():
        if "trainer" not in settings:  # from Python: what its trainer had is not known
            return
        defaults = inspect.signature(cls).parameters
        for file in files:
            said = (yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}).get(section) or {}
            for name in said.keys() & defaults.keys() - {"default_root_dir"}:  # where a run writes is no part of it
                settings.setdefault(section, {}).setdefault(name, defaults[name].default)


def compare_with_files(settings: dict[str, Any], files: Sequence[str], checkpoint: str) -> None:
    """Says in which settings a checkpoint wins over configuration files that say others.

    Raises:
        SettingError: if the files are of another method than the checkpoint.
    """
    said: dict[str, Any] = {}
    for file in files:
        said |= dict(_leaves(yaml.safe_load(Path(file).read_text(encoding="utf-8"))))
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


def without_imports(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments without ``--import``, and the packages that it names; by default those of the run's first process.

    Raises:
        SettingError: if ``--import`` names nothing.
    """
    rest: list[str] = []
    packages: list[str] = []
    given = iter(argv)
    for argument in given:
        flag, equals, name = argument.partition("=")
        if flag != "--import":
            rest.append(argument)
            continue
        name = name if equals else next(given, "")
        if not name or name.startswith("-"):
            raise SettingError("--import: the name of a package, such as --import my_package")
        packages.append(name)
    return rest, packages or os.environ.get(USER_PACKAGES, "").split()


def value_of(argv: Sequence[str], flag: str) -> str | None:
    """The last value given to a flag as ``--flag value`` or ``--flag=value``."""
    values = [after for before, after in itertools.pairwise(argv) if before == flag]
    values += [argument.partition("=")[2] for argument in argv if argument.startswith(f"{flag}=")]
    return values[-1] if values else None


def packaged_configs(argv: Sequence[str]) -> list[str]:
    """Replaces the names of configurations that are no files by the packaged files of that name."""
    expanded: list[str] = []
    for argument in argv:
        for flag in ("-c", "--config"):
            if argument.startswith(f"{flag}="):
                expanded.append(flag)
                argument = argument.partition("=")[2]
        expanded.append(find_config(argument) if expanded and expanded[-1] in ("-c", "--config") else argument)
    return expanded
