"""A network of the user's own where a space is asked for: ``--model.space my_package.Net``.

The parser knows spaces alone. So before it reads a command line, every class of a network, in a flag or in a
configuration file, becomes an ``OwnSpace`` of that network, and what is said of its constructor the ``arguments``.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from lightning_nas.errors import SettingError
from lightning_nas.files import config_content

OF_SPEC = ("class_path", "init_args", "dict_kwargs")


def with_own_networks(argv: Sequence[str]) -> list[str]:
    """The arguments of a command with an ``OwnSpace`` in the place of every class of a network.

    The modules of these classes are imported, as ``--import`` does. Files of architectures and checkpoints are not
    looked at: what they name has to be imported already. Where a network takes the place of a configuration's own
    space, the settings of that space's networks go too.

    Args:
        argv: the command and its arguments, in which every ``--config`` is followed by its file.

    Raises:
        SettingError: beginning with the setting, if there is no such class or it is no network.
    """
    parts = [*_parts(argv)]
    for part in parts:
        if part.setting.endswith("space.help") and "." in (part.value or ""):
            _help(str(part.value), part.setting.removesuffix(".help"))
    own: dict[str, bool] = {}  # whether a space is a network of the user's, by its setting; the last one counts
    files: list[tuple[Part, Any, dict[str, bool]]] = []
    for part in parts:
        if not part.is_configuration:
            continue
        content = config_content(str(part.value))
        if part.flag in ("-c", "--config"):
            spaces: dict[str, bool] = {}
            files.append((part, _translated(content, "", spaces), spaces))
            own |= spaces
        elif part.names_space:
            part.give(_space(content, part.setting, own))
        else:
            part.give(_translated(content, part.setting, own))
    for part, content, spaces in files:
        for setting, is_own in spaces.items():
            if own[setting] and not is_own:
                _leave_out(content, setting)
        part.give(content)
    for part in parts:
        part.flag = _of_constructor(part.flag, own)
    return [argument for part in parts for argument in part.arguments]


@dataclasses.dataclass
class Part:
    """A flag with its value, as they stand in a command line; a positional argument has no flag.

    Attributes:
        flag: the flag with its dashes, or nothing.
        value: the value; None: there is none.
        joined: whether both are one argument, ``--flag=value``.
    """

    flag: str
    value: str | None = None
    joined: bool = False

    def give(self, content: Any) -> None:
        """Takes another value, in one line, which the parser reads as it reads the same in a file."""
        if content != config_content(str(self.value)):
            self.value = yaml.safe_dump(content, default_flow_style=True, width=float("inf"), sort_keys=False).strip()

    @property
    def setting(self) -> str:
        """What the flag sets, ``model.space`` for ``--model.init_args.space.class_path``."""
        return ".".join(name for name in self.flag.lstrip("-").split(".") if name not in OF_SPEC)

    @property
    def names_space(self) -> bool:
        """Whether its value is a space, or the name of the class of one."""
        return self.setting.rpartition(".")[2] == "space" and not self.flag.endswith(("init_args", "dict_kwargs"))

    @property
    def is_configuration(self) -> bool:
        """Whether classes in it are imported; those in files of architectures and checkpoints are not."""
        if self.value is None or not self.flag.startswith("-"):
            return False
        of_file = self.flag in ("-c", "--config") or self.value.endswith((".yaml", ".yml"))
        return self.names_space or self.value.startswith("{") or of_file

    @property
    def arguments(self) -> list[str]:
        given = [*([self.flag] if self.flag else []), *([] if self.value is None else [self.value])]
        return ["=".join(given)] if self.joined else given


def _parts(argv: Sequence[str]) -> Iterator[Part]:
    waiting = ""
    for argument in argv:
        if argument.startswith("-"):
            if waiting:
                yield Part(waiting)
            flag, equals, value = argument.partition("=")
            waiting = "" if equals else flag
            if equals:
                yield Part(flag, value, joined=True)
        else:
            yield Part(waiting, argument)
            waiting = ""
    if waiting:
        yield Part(waiting)


def _translated(value: Any, setting: str, own: dict[str, bool]) -> Any:
    """A part of a configuration with spaces in the place of networks, of which ``own`` is told."""
    if not isinstance(value, dict):
        return value
    changed = {}
    for key, item in value.items():
        name = setting if key in OF_SPEC else f"{setting}.{key}" if setting else str(key)
        changed[key] = _space(item, name, own) if key == "space" else _translated(item, name, own)
    return changed


def _space(given: Any, setting: str, own: dict[str, bool]) -> Any:
    """A space as the parser reads it: what is given, or the spec of an ``OwnSpace``."""
    from lightning_nas.spaces import Space
    from lightning_nas.spaces.own.space import OwnSpace
    from lightning_nas.specs import class_path, find_class

    spec = {"class_path": given} if isinstance(given, str) else given
    path = spec.get("class_path") if isinstance(spec, dict) else None
    if not isinstance(path, str):
        return given
    arguments = spec.get("init_args") or {}
    own[setting] = path in ("OwnSpace", class_path(OwnSpace))
    if own[setting] and isinstance(arguments, dict) and "." in str(arguments.get("network")):
        _network(str(arguments["network"]), f"{setting}.network")
    if "." not in path or path.startswith("lightning_nas.") or find_class(path, Space) is not None:
        return given
    network = _network(path, setting)
    if issubclass(network, Space):
        return given
    own[setting] = True
    arguments = {"network": class_path(network), "arguments": arguments}
    return {"class_path": class_path(OwnSpace), "init_args": arguments}


def _network(path: str, setting: str) -> type:
    """The class of a network, or of a space, whose module is imported.

    Raises:
        SettingError: if there is none.
    """
    from torch import nn

    from lightning_nas.catalogue import import_class
    from lightning_nas.spaces import Space

    found = import_class(path, setting)
    if not isinstance(found, type) or not issubclass(found, (nn.Module, Space)):
        what = "a class" if isinstance(found, type) else f"a {type(found).__name__}"
        raise SettingError(f"{setting}: {path} is {what}; expected the class of an nn.Module, or a Space")
    return found


OF_THE_SPACE = ("limit", "bins", "cost", "cost_weight", "drop_path")
"""Settings of methods that a configuration sets for the networks of its own space."""


def _leave_out(content: Any, setting: str) -> None:
    """Leaves the space out of a configuration, and what it sets for the networks of that space."""
    *owners, _ = setting.split(".")
    for owner in owners:
        content = content[owner]
        content = content.get("init_args", content)
    evaluator = content.get("evaluator")
    for settings in (content, evaluator.get("init_args") if isinstance(evaluator, dict) else None):
        if isinstance(settings, dict):
            settings.pop("network", None)
    del content["space"]
    left_out = [name for name in OF_THE_SPACE if content.pop(name, None) is not None]
    controller = content.get("controller")
    of_controller = controller.get("init_args") if isinstance(controller, dict) else None
    if isinstance(of_controller, dict) and of_controller.pop("operation_bias", None) is not None:
        left_out.append("controller.operation_bias")
    if left_out:
        names = ", ".join(".".join([*owners, name]) for name in left_out)
        print(f"Left out of the configuration, since it is for its own space: {names}", file=sys.stderr)


def _of_constructor(flag: str, own: dict[str, bool]) -> str:
    """A flag of an own network's constructor, ``--model.space.width``, as one of the space's ``arguments``."""
    names = flag.split(".")
    for k in range(1, len(names) + 1):
        head, rest = names[:k], [name for name in names[k:] if name not in OF_SPEC]
        if own.get(Part(".".join(head)).setting) and rest and rest[0] not in ("network", "arguments", "help"):
            return ".".join([*head, "arguments", *rest])
    return flag


def _help(path: str, setting: str) -> None:
    """Prints the arguments of a network's constructor, and ends the program.

    Raises:
        SystemExit: with 0, as every ``--help``.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog=f"--{setting} {path}", add_help=False)
    parser.add_class_arguments(_network(path, setting), setting, fail_untyped=False)
    parser.print_help()
    raise SystemExit(0)
