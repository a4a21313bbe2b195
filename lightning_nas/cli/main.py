"""The entry point: which command, which configuration files, and errors in one line.

Nothing heavy is imported before it is known what is asked.
"""

import itertools
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from lightning_nas.cli.own_networks import with_own_networks
from lightning_nas.errors import SettingError, setting_error
from lightning_nas.files import find_config
from lightning_nas.runs.folder import USER_PACKAGES

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
  export    a network as ONNX, or a torch.export program   export --ckpt_path runs/.../last.ckpt --out net.onnx
  list      methods, spaces, data, configurations, published architectures
  study     what a search is worth; study --help lists the studies

Each has --help. A --config is a file, or the name of a packaged one (see list). --import my_package makes a package
of your own known to any command: its spaces, methods, strategies, evaluators and data have names there then.
Where a space is asked for, a network of your own with choices in it can stand: --model.space my_package.Net.
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
        argv = with_own_networks(packaged_configs(argv))
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
    from lightning_nas.cli.continuing import weigh
    from lightning_nas.cli.training import CommandLine
    from lightning_nas.training.checkpoints import checkpoint_settings

    checkpoint = value_of(argv, "--ckpt_path")
    settings: dict[str, Any] = {}
    if checkpoint:
        settings = checkpoint_settings(checkpoint, fit=argv[0] == "fit")
        files = [after for before, after in itertools.pairwise(argv) if before in ("-c", "--config")]
        weigh(settings, files, checkpoint, fit=argv[0] == "fit")
        # after the configuration files and before the flags, so that flags win over the checkpoint
        at = max((i + 2 for i, a in enumerate(argv) if a in ("-c", "--config")), default=1)
        argv[at:at] = ["--config", json.dumps(settings)]
    CommandLine(argv, settings)


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
