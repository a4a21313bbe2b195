"""The errors for what a user gave, and how the parser's long messages become one line."""

import contextlib
import re
from collections.abc import Iterator
from typing import Self

_NOISE = re.compile(
    r"Does not validate against any of the Union|Subtypes:|Errors:|Given value|Expected a <class 'NoneType'>|"
    r"Problem with given class_path|Parser key|$"
)


_FIELD = re.compile(r"([A-Za-z_][\w.\[\]]*): ")


class SettingError(ValueError):
    """A setting, file or folder that cannot be used. The message names it and says what is accepted.

    It begins with the field, ``lr: above 0, got -1``, as the object itself calls it. Whoever builds the object puts
    the name that it has there in front: ``model.optimizer.lr: above 0, got -1``. The command line prints the message
    alone; any other exception is a bug and shows where it happened.
    """

    @property
    def field(self) -> str:
        """The field that the message begins with; empty where it names none."""
        named = _FIELD.match(str(self))
        return named[1] if named else ""

    def within(self, owner: str) -> Self:
        """The same error, with the field inside another object."""
        return type(self)(f"{owner}.{self}" if self.field else f"{owner}: {self}")


class Diverged(SettingError):
    """A training whose weights are no longer finite."""


@contextlib.contextmanager
def within(owner: str) -> Iterator[None]:
    """Puts ``owner`` in front of the field of a ``SettingError`` that is raised meanwhile; an empty one changes
    nothing."""
    try:
        yield
    except SettingError as error:
        if not owner:
            raise
        raise error.within(owner) from error


def setting_error(error: BaseException | None) -> SettingError | None:
    """The ``SettingError`` that an exception comes from, if there is one."""
    while error is not None and not isinstance(error, SettingError):
        error = error.__cause__ or error.__context__
    return error


def one_line(message: str) -> str:
    """``field: what is wrong`` from a message of jsonargparse.

    The parser reports every type that a value failed to be, None included; the useful line is in the middle.
    """
    field = ".".join(re.findall(r'Parser key "([^"]+)"', message))
    nested = re.search(r"NestedArg\(key='([^']+)'", message)
    if nested and field and not field.endswith(nested[1]) and "is not accepted" not in message:
        field += f".{nested[1]}"
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    lines = [line for line in lines if line and not _NOISE.match(line)] or [message.splitlines()[0]]
    text = "; ".join(dict.fromkeys(lines))
    text = re.sub(r"typing\.Literal\[([^\]]*)\]", lambda m: " or ".join(re.findall(r"'([^']*)'", m[1])), text)
    text = re.sub(r"<class '([\w.]+)'>", lambda m: m[1].rpartition(".")[2], text)
    text = text.replace("Expected a ", "expected ").replace(". Got value:", ", got")
    return f"{field}: {text}" if field else text
