"""Objects that remember how they were made.

A checkpoint must load with ``weights_only=True`` and still rebuild its space, task and method. So these objects are
stored as *specs*, plain dictionaries ``{"class_path": ..., "init_args": {...}}``, the same form that a configuration
file has. The command line and Python code record the same spec.
"""

import importlib
import inspect
import re
from collections.abc import Collection
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin

from lightning_nas.errors import SettingError, within
from lightning_nas.lazy import root

PUBLIC: dict[str, str] = root().PUBLIC

Kind = TypeVar("Kind")


class Configurable:
    """A base class that records the arguments of ``__init__`` of its instances, defaults included, as a spec.

    Arguments have to be plain (numbers, strings, booleans, None, lists, dictionaries) or ``Configurable`` themselves.
    """

    adjustable: ClassVar[frozenset[str]] = frozenset()
    """The arguments that may change, and then take effect, where a run continues from its checkpoint. A change of any
    other is refused there by name."""

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
    def build(cls, spec: "Self | dict[str, Any]", field: str = "") -> Self:
        """Returns an instance as it is and builds one from its spec.

        A spec can come from a file, so no foreign code is imported: only public classes of this package and subclasses
        that are imported already are built.

        Args:
            spec: an instance, or ``{class_path, init_args}``.
            field: what the object is called by whoever builds it. Errors about its arguments begin with it.

        Raises:
            SettingError: if ``spec`` is neither, names no subclass that is imported, or has a wrong argument.
        """
        if isinstance(spec, cls):
            return spec
        with within(field):
            if not isinstance(spec, dict) or "class_path" not in spec:
                raise SettingError(f"expected a {cls.__name__} or its spec {{class_path, init_args}}, got {spec!r}")
            found = find_class(spec["class_path"], cls)
            if found is None:
                raise SettingError(f"{spec['class_path']} is not a {cls.__name__} that is imported")
            instance = found(**spec.get("init_args", {}), **spec.get("dict_kwargs", {}))
            instance._restore(spec)
        return instance

    def _restore(self, spec: dict[str, Any]) -> None:
        """Takes what a subclass wrote into its spec beyond the arguments of ``__init__``."""


def class_path(cls: type) -> str:
    """The path of a public class of this package (``lightning_nas.DARTSCell``), of any other class its full one."""
    if cls.__module__ == f"{__package__}.{PUBLIC.get(cls.__name__)}":
        return f"{__package__}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def find_class(path: Any, base: type[Kind]) -> type[Kind] | None:
    """The class of a path, if it is ``base`` or a subclass; None where there is none that is public or imported."""
    if not isinstance(path, str):
        return None
    package, _, name = path.rpartition(".")
    if package == __package__ and name in PUBLIC:
        found = getattr(importlib.import_module(package), name)
        return found if isinstance(found, type) and issubclass(found, base) else None
    return {class_path(cls): cls for cls in (base, *subclasses(base))}.get(path)


def class_paths(value: Any) -> list[Any]:
    """All class paths in a spec, those of nested specs too."""
    if isinstance(value, dict):
        own = [value["class_path"]] if "class_path" in value else []
        return own + [path for item in value.values() for path in class_paths(item)]
    return [path for item in value for path in class_paths(item)] if isinstance(value, list) else []


def subclasses(cls: type) -> list[type]:
    """All imported subclasses, the indirect ones too."""
    children: list[type] = cls.__subclasses__()
    return [sub for child in children for sub in (child, *subclasses(child))]


def concrete(base: type) -> list[type]:
    """All imported subclasses but those that others of this package build on."""
    found = subclasses(base)
    found = [cls for cls in found if not inspect.isabstract(cls)]
    return [cls for cls in found if not any(sub.__module__.startswith(f"{__package__}.") for sub in subclasses(cls))]


def first_sentence(documented: object) -> str:
    """The first sentence of a docstring, without its full stop."""
    paragraph = " ".join((documented.__doc__ or "").strip().split("\n\n")[0].split())
    return re.split(r"(?<=[.?]) ", paragraph)[0].rstrip(".")


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
        arguments: the values of arguments by their names.
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
            raise SettingError(f"{field}.{name}: no such setting; there are {', '.join(accepted) or 'none'}")
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
