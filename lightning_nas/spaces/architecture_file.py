"""``architecture.json``: what a search hands to a retraining, and to people.

The file is data, never code: a closed schema, options by name, the space looked up among those that are imported. A
wrong file is refused with the name of the field.
"""

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import torch

from lightning_nas.errors import SettingError, within
from lightning_nas.files import write_whole
from lightning_nas.spaces import PUBLISHED, Architecture, Space
from lightning_nas.spaces.base import Network
from lightning_nas.specs import check_arguments, concrete

FORMAT = "lightning_nas/architecture/1"
LARGEST = 1 << 20  # bytes; the largest published architectures take a few kilobytes
LARGEST_ARGUMENTS = 1 << 13  # characters; checking takes time quadratic in them
FIELDS = {"format", "space", "choices", "metrics", "method", "seed", "versions"}


class ArchitectureError(SettingError):
    """An architecture file that is not one; the message names the file and the field."""


@dataclasses.dataclass(frozen=True)
class ArchitectureRecord:
    """An architecture and what is known of it.

    Attributes:
        space: the space that it is from, unrestricted.
        architecture: the index of the option of each choice.
        metrics: numbers by name, each name saying how it was measured.
        method: the class name of the method that found it, or a citation.
        seed: the seed of the search; None: it has none.
    """

    space: Space
    architecture: Architecture
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    method: str = ""
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.architecture is None:
            raise ArchitectureError(
                "architecture: None; a search whose best() is None chooses by data, search.choose(data)"
            )

    @property
    def caption(self) -> str:
        """Where the architecture is from, in a line."""
        return self.method if self.seed is None else f"{self.method}, seed {self.seed}"

    def network(self, inputs: dict[str, int], **settings: Any) -> Network:
        """The final network of the architecture, with new weights.

        Args:
            inputs: what the network must know of the data, e.g. ``{channels: 3, image_size: 32, num_classes: 10}``.
            settings: arguments of the space's network by name, such as ``channels`` and ``cells``.
        """
        return self.space.restrict(self.architecture).network(inputs, form="final", **settings)

    def to_dict(self) -> dict[str, Any]:
        """The content of the file, plain values only."""
        from lightning_nas import __version__

        return {
            "format": FORMAT,
            "space": {"name": type(self.space).__name__, "arguments": self.space.spec["init_args"]},
            "choices": self.space.to_names(self.architecture),
            "metrics": self.metrics,
            "method": self.method,
            "seed": self.seed,
            "versions": {"lightning_nas": __version__, "torch": str(torch.__version__)},
        }

    def save(self, path: str | Path) -> None:
        """Writes the file; it is there whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n").encode())


def load_architecture(source: "str | Path | dict[str, Any] | ArchitectureRecord") -> ArchitectureRecord:
    """Reads an architecture.

    Args:
        source: the path of an ``architecture.json``, the name of a published architecture such as ``darts_v2``, the
            content of a file, or a record, which is returned as it is.

    Raises:
        ArchitectureError: naming the field that is wrong.
    """
    if isinstance(source, ArchitectureRecord):
        return source
    if isinstance(source, dict):
        return _parse(source, "architecture")
    if not isinstance(source, (str, Path)):
        raise ArchitectureError(
            f"architecture: a path, a name or a record, got {source!r}; of a search that is "
            "ArchitectureRecord(search.space, architecture)"
        )
    if str(source) in PUBLISHED:
        space, architecture, citation = PUBLISHED[str(source)].build()
        return ArchitectureRecord(space, architecture, method=citation)
    path = Path(source)
    if not os.path.isfile(path):  # ``Path.is_file`` raises for a name too long and in a folder that is closed to us
        raise ArchitectureError(
            f"architecture: there is no file {str(source)[:200]!r}, and no published architecture of that name; "
            f"published are {', '.join(PUBLISHED)}"
        )
    if path.stat().st_size > LARGEST:
        raise ArchitectureError(f"{path}: larger than {LARGEST} bytes, so it is not an architecture")
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse, object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError) as error:
        raise ArchitectureError(f"{path}: not a JSON file of an architecture: {error}") from error
    return _parse(content, str(path))


def _parse(content: Any, where: str) -> ArchitectureRecord:
    try:
        _check(isinstance(content, dict), "the content is not an object")
        for field in sorted(FIELDS - set(content)):
            raise ValueError(f"{field}: missing")
        for field in set(content) - FIELDS:
            raise ValueError(f"{str(field)[:80]}: unknown field; there are {', '.join(sorted(FIELDS))}")
        _check(content["format"] == FORMAT, f"format: expected {FORMAT!r}, got {str(content['format'])[:80]!r}")
        space = _space(content["space"])
        choices, metrics, seed = content["choices"], content["metrics"], content["seed"]
        _check(_maps(choices, str), "choices: expected option names by choice name")
        numbers = _maps(metrics, object) and all(_finite(value) for value in metrics.values())
        _check(numbers, "metrics: expected finite numbers by name")
        _check(isinstance(content["method"], str), "method: expected a name")
        _check(seed is None or type(seed) is int, "seed: expected an integer or null")
        _check(_maps(content["versions"], str), "versions: expected versions by package name")
        architecture = space.from_names(choices)
    except ValueError as error:
        # names in it are the file's: no line breaks, no control characters for a terminal, no megabytes
        message = "".join(c if c.isprintable() else "?" for c in str(error)[:500])
        raise ArchitectureError(f"{where}: {message}") from error
    return ArchitectureRecord(space, architecture, dict(metrics), content["method"], seed)


def _space(content: Any) -> Space:
    _check(isinstance(content, dict) and set(content) == {"name", "arguments"}, "space: expected name and arguments")
    known = {cls.__name__: cls for cls in reversed(concrete(Space))}  # the package's own come first
    name, arguments = content["name"], content["arguments"]
    is_known = isinstance(name, str) and name in known
    there = f"there are {', '.join(sorted(known))}; --import brings in a package of yours"
    _check(is_known, f"space.name: no space {str(name)[:80]!r}; {there}")
    _check(_maps(arguments, object), "space.arguments: expected an object")
    try:
        length = len(json.dumps(arguments))
        _check(length <= LARGEST_ARGUMENTS, f"space.arguments: {length} characters; up to {LARGEST_ARGUMENTS} are read")
        with within("space"):
            return known[name](**check_arguments(known[name], arguments, "arguments"))
    except (TypeError, RecursionError) as error:
        raise ValueError(f"space.arguments: {error}") from error


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _maps(value: Any, kind: type) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, kind) for k, v in value.items())


def _finite(value: Any) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number of an architecture file")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"{name[:80]!r} occurs twice")
        content[name] = value
    return content
