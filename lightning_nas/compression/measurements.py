"""What was measured of architectures, in memory and in a file of lines that survives whatever ends the program."""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_nas.errors import SettingError
from lightning_nas.trials.locked_file import LockedFile, line, read_free, whole_lines


class Measurements:
    """Figures by architecture.

    Args:
        path: the path of the file, which need not be there; None: nothing is written.
        about: what the figures are of, plain values; the first line of the file.

    Raises:
        SettingError: if the file is of something else, or damaged, or somebody writes to it.
    """

    def __init__(self, path: Path | None, about: dict[str, Any]) -> None:
        self.path, self.about = path, about
        self._figures: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
        self._file: LockedFile | None = None
        self._size = 0
        if path is not None and path.exists():
            self._read(path)

    def _read(self, path: Path) -> None:
        lines = whole_lines(read_free(path))
        self._size = len(lines)
        for number, each in enumerate(lines.splitlines()):
            try:
                content = json.loads(each)
                if number:
                    figures = {str(name): float(value) for name, value in content["figures"].items()}
                    self._known(content["choices"]).update(figures)
            except (ValueError, TypeError, LookupError, RecursionError, AttributeError) as error:
                raise SettingError(
                    f"file: {path}: line {number + 1} is damaged ({type(error).__name__}); delete the line, and what "
                    "it says is measured again"
                ) from error
            if not number:
                there = content if isinstance(content, dict) else {}
                differing = [name for name, here in self.about.items() if there.get(name) != here]
                if differing:
                    raise SettingError(
                        f"file: {path} is of a library with other {', '.join(differing)}; choose another file"
                    )

    def _known(self, names: Mapping[str, str]) -> dict[str, float]:
        return self._figures.setdefault(tuple(sorted((str(k), str(v)) for k, v in names.items())), {})

    def of(self, names: Mapping[str, str]) -> dict[str, float]:
        """What is known of an architecture.

        Args:
            names: the options of its choices by their names.
        """
        return dict(self._known(names))

    def add(self, names: Mapping[str, str], figures: Mapping[str, float]) -> dict[str, float]:
        """Adds figures of an architecture, and returns all that is known of it then.

        Args:
            names: the options of its choices by their names.
            figures: what was measured, by the names of the figures.

        Raises:
            SettingError: if a figure is no finite number, or the disk does not take the line.
        """
        if not all(map(math.isfinite, figures.values())):
            chosen = ", ".join(f"{name}: {option}" for name, option in names.items())
            raise SettingError(f"network: figures of it with {chosen} are no numbers: {dict(figures)}")
        if self._file is not None:
            self._file.write(line({"choices": dict(names), "figures": dict(figures)}))
        self._known(names).update(figures)
        return self.of(names)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Inside, what is added is written to the file, which nobody else writes to."""
        if self.path is None or self._file is not None:
            yield
            return
        self._file = LockedFile(self.path)
        try:
            self._file.cut(self._size)  # of a last line that was cut off
            if not self._size:
                self._file.write(line(self.about))
            yield
        finally:
            self._size = len(self._file.read())
            self._file.close()
            self._file = None
