"""Puts the table of exported networks into ``export.md``: ``python docs/make_export.py``, some minutes.

Every figure is that of files that were written, and run beside their networks.
"""

import re
import tempfile
from pathlib import Path

from lightning_nas import Exported, export_network
from lightning_nas.cli.networks import network_to_export
from lightning_nas.spaces.published import PUBLISHED

PAGE = Path(__file__).parent / "export.md"
NETWORKS: dict[str, tuple[str, dict[str, int]]] = {
    "darts_v2": ("darts_v2", {}),
    "darts_v2, dense": ("darts_v2", {"dense": 1}),
    "nasnet_a_darts": ("nasnet_a_darts", {}),
    "nas_bench_201_best": ("nas_bench_201_best", {}),
    "enas_micro": ("enas_micro", {}),
    "enas_macro": ("enas_macro", {}),
    "proxyless_mobile": ("proxyless_mobile", {}),
    "spos_channels": ("spos_channels", {}),
    "darts_ptb_v2": ("darts_ptb_v2", {}),
    "enas_ptb": ("enas_ptb", {}),
}
"""By what a row is called, the published architecture and the inputs that are not as usual."""
COLUMNS = ("network", "space", "inputs", "outputs", "opset", ".onnx, MB", "difference", ".pt2, MB", "difference")


def written(called: str, suffix: str) -> Exported:
    """A network at the size that its paper reports, written to a file that is gone afterwards, and run."""
    name, inputs = NETWORKS[called]
    _, network, _ = network_to_export(name, None, dict(PUBLISHED[name].size), inputs, 0)
    with tempfile.TemporaryDirectory() as folder:
        return export_network(network, Path(folder) / f"network{suffix}")


def row(called: str) -> list[str]:
    """The figures of a network, as the columns have them; differences are parts of the largest output."""
    onnx, program = written(called, ".onnx"), written(called, ".pt2")
    ports = ["<br>".join(port.describe() for port in ports) for ports in (onnx.inputs, onnx.outputs)]
    space = type(PUBLISHED[NETWORKS[called][0]].build()[0]).__name__
    figures = [f"{onnx.opset}"]
    for exported in (onnx, program):
        figures += [f"{exported.size / 1e6:.1f}", f"{exported.relative:.1e}"]
    return [f"`{called}`", f"`{space}`", *ports, *figures]


def table() -> str:
    """The table of all networks in Markdown."""
    rows = [COLUMNS, ["---"] * len(COLUMNS), *map(row, NETWORKS)]
    return "\n".join("| " + " | ".join(line) + " |" for line in rows)


def filled(page: str) -> str:
    """The page with the table as the code makes it."""
    return re.sub(
        r"<!-- table -->.*?<!-- end -->", f"<!-- table -->\n\n{table()}\n\n<!-- end -->", page, flags=re.DOTALL
    )


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
