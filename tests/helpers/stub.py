"""What type checkers read in place of the names that are imported when they are asked for: ``__init__.pyi``.

``python -m tests.helpers.stub`` writes it.
"""

from pathlib import Path

import lightning_nas

PATH = Path(lightning_nas.__file__).with_suffix(".pyi")


def stub():
    """The text of ``lightning_nas/__init__.pyi``."""
    names = sorted(lightning_nas.PUBLIC.items(), key=lambda item: (item[1], item[0]))
    lines = [
        "# Written by `python -m tests.helpers.stub` from PUBLIC in __init__.py, for type checkers.",
        "# ruff: noqa: I001",
        *(f"from lightning_nas.{module} import {name} as {name}" for name, module in names),
        "",
        "__version__: str",
        "PUBLIC: dict[str, str]",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PATH.write_text(stub(), encoding="utf-8")
