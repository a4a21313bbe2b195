"""Names of a package that are imported when they are asked for, so that importing the package itself stays quick."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, module_of: Mapping[str, str]) -> Callable[[str], Any]:
    """A ``__getattr__`` for a package.

    Args:
        package: the package's full name, its ``__name__``.
        module_of: for each public name the module below the package that defines it.
    """

    def __getattr__(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)

    return __getattr__


def root() -> Any:
    """The package itself, for its modules: it is not imported by name, since type checkers read that it imports all."""
    return importlib.import_module(__package__ or "")
