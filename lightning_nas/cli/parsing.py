"""The arguments of a command that needs no trainer, from the signature of its function."""

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn

from docstring_parser import parse  # jsonargparse brings it, for the same
from jsonargparse import ArgumentParser

from lightning_nas.errors import SettingError, one_line


def parsed(
    command: Callable[..., None], name: str, argv: Sequence[str], skip: Collection[str], configured: bool
) -> dict[str, Any]:
    """The arguments of a command by name.

    Args:
        command: its signature and docstring say what there is.
        name: what the command is called in its help.
        argv: what stands behind the name.
        skip: the parameters that are no arguments.
        configured: whether the arguments can come from a file; what is a class there is built. Else what has no default
            is known by its place, and ``architecture`` always.

    Raises:
        SettingError: for a wrong argument.
    """
    parser = ArgumentParser(
        prog=f"python -m lightning_nas {name}",
        description=inspect.cleandoc(command.__doc__ or "").partition("\n\n")[0],
    )
    parser.error = _refuse  # type: ignore[method-assign]
    if configured:
        import lightning_nas.catalogue  # noqa: F401  # what is imported has a short class name

        parser.add_argument("--config", action="config", help="a file with these settings")
    first = inspect.signature(command).parameters.get("architecture")
    skipped: set[str | int] = set(skip)
    if first is not None and first.default is None:  # the parser takes what has a default for a flag
        helps = {each.arg_name: each.description for each in parse(command.__doc__ or "").params}
        parser.add_argument("architecture", nargs="?", help=helps["architecture"])
        skipped.add("architecture")
    parser.add_function_arguments(command, as_positional=not configured, skip=skipped)
    arguments = parser.parse_args(list(argv))
    return _built(arguments) if configured else arguments.as_dict()


def _built(arguments: Any) -> dict[str, Any]:
    """The settings of a file, with objects in the place of specs."""
    from lightning_nas.cli.lightning_adapter import as_spec
    from lightning_nas.specs import Configurable

    def built(value: Any, field: str) -> Any:
        if not isinstance(value, dict):
            return value
        if "class_path" in value:
            return Configurable.build(value, field)
        return {key: built(item, f"{field}.{key}") for key, item in value.items()}

    return {name: built(value, name) for name, value in as_spec(arguments).items() if name != "config"}


def _refuse(message: str, *args: object, **kwargs: object) -> NoReturn:
    raise SettingError(one_line(message))
