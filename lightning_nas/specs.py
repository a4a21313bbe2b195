"""Objects that remember how they were made.

A checkpoint must load with ``weights_only=True`` and still rebuild its space, task and method. So these objects are
stored as *specs*, plain dictionaries ``{"class_path": ..., "init_args": {...}}``, the same form that a configuration
file has. The command line and Python code record the same spec.
"""

import importlib
import inspect
from collections.abc import Collection
from typing import Any, Literal, Self, get_args, get_origin

from lightning_nas.errors import SettingError


class Configurable:
    """A base class that records the arguments of ``__init__`` of its instances, defaults included, as a spec.

    Arguments have to be plain (numbers, strings, booleans, None, lists, dictionaries) or ``Configurable`` themselves.
    """

    _init_args: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if cls.__init__ is object.__init__ and (args or kwargs):  # Python would take them silently
            raise TypeError(f"{cls.__name__} takes no arguments")
        instance = super().__new__(cls)
        # ``object.__setattr__``: a torch module's own needs ``Module.__init__`` to have run
        object.__setattr__(instance, "_init_args", _bind(cls, args, kwargs))
        return instance

    @property
    def spec(self) -> dict[str, Any]:
        """``{"class_path", "init_args"}``, made of plain values only."""
        init_args = {name: _plain(value, name) for name, value in self._init_args.items()}
        return {"class_path": class_path(type(self)), "init_args": init_args}

    @classmethod
    def build(cls, spec: "Self | dict[str, Any]") -> Self:
        """Returns an instance as it is and builds one from its spec.

        A spec can come from a file, so nothing is imported: only subclasses that are there already are built.

        Raises:
            SettingError: if ``spec`` is neither, or names no subclass that is imported.
        """
        if isinstance(spec, cls):
            return spec
        if not isinstance(spec, dict) or "class_path" not in spec:
            raise SettingError(f"expected a {cls.__name__} or its spec {{class_path, init_args}}, got {spec!r}")
        known = {class_path(sub): sub for sub in (cls, *subclasses(cls))}
        if not isinstance(spec["class_path"], str) or spec["class_path"] not in known:
            raise SettingError(f"{spec['class_path']} is no {cls.__name__} that is imported")
        instance = known[spec["class_path"]](**spec.get("init_args", {}))
        instance._restore(spec)
        return instance

    def _restore(self, spec: dict[str, Any]) -> None:
        """Takes what a subclass wrote into its spec beyond the arguments of ``__init__``."""


def class_path(cls: type) -> str:
    """The shortest import path of a class of this package (``lightning_nas.spaces.DARTSCell``), else the full one."""
    parts = cls.__module__.split(".")
    if parts[0] == __package__ and len(parts) > 2:
        room = importlib.import_module(".".join(parts[:2]))
        if getattr(room, cls.__name__, None) is cls:
            return f"{room.__name__}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def subclasses(cls: type) -> list[type]:
    """All imported subclasses, the indirect ones too."""
    children: list[type] = cls.__subclasses__()
    return [sub for child in children for sub in (child, *subclasses(child))]


def concrete(base: type) -> list[type]:
    """All imported subclasses but those that others of this package build on."""
    found = subclasses(base)
    return [cls for cls in found if not any(sub.__module__.startswith(f"{__package__}.") for sub in subclasses(cls))]


def _bind(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for klass in cls.__mro__:  # and the parents' defaults, as far as arguments reach a parent through **kwargs
        if klass is not Configurable and issubclass(klass, Configurable) and "__init__" in vars(klass):
            parameters = inspect.signature(vars(klass)["__init__"]).parameters.values()
            values = {p.name: p.default for p in parameters if p.default is not p.empty} | values
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    signature = inspect.signature(cls.__init__)  # type: ignore[misc]
    bound = signature.bind_partial(None, *args, **kwargs)  # partial: copy and pickle call __new__ without arguments
    for name, value in list(bound.arguments.items())[1:]:
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            values.update(value)
        else:
            values[name] = value
    return values


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, Configurable):
        return value.spec
    if value is None:
        return None
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)  # of a subclass (numpy's float64) just the value: weights_only refuses others
    if isinstance(value, (list, tuple)):
        return [_plain(item, name) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"{name}: the names in a dictionary have to be strings, to be stored in a checkpoint")
        return {key: _plain(item, name) for key, item in value.items()}
    raise TypeError(f"{name}: a {type(value).__name__} cannot be stored in a checkpoint; pass plain values")


def check_arguments(function: Any, arguments: dict[str, Any], field: str, skip: Collection[str] = ()) -> dict[str, Any]:
    """Checks plain arguments against a signature, names and types.

    Args:
        function: a callable with type hints, or a class.
        arguments: by name.
        field: what the arguments are called in an error.
        skip: parameters that are not the user's to give.

    Returns:
        the arguments, converted to the types of the signature.

    Raises:
        SettingError: naming ``field.argument`` and what is accepted.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    parameters = inspect.signature(function).parameters
    accepted = [name for name in parameters if name not in skip]
    for name in arguments:
        if name not in accepted:
            raise SettingError(f"{field}.{name}: no such setting; there are {', '.join(accepted)}")
    checked = {}
    for name, value in arguments.items():
        annotation = parameters[name].annotation
        if value is None and annotation is not Any and type(None) not in get_args(annotation):
            # the parser would take it for unset
            raise SettingError(f"{field}.{name}: expected {_say(annotation)}, got None")
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument(f"--{name}", type=parameters[name].annotation)
        try:
            checked[name] = parser.parse_object({name: value})[name]
        except ArgumentError as error:
            raise SettingError(
                f"{field}.{name}: expected {_say(parameters[name].annotation)}, got {value!r}"
            ) from error
    return checked


def _say(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(map(str, get_args(annotation)))
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
