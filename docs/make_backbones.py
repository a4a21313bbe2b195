"""Puts the table of published backbones into ``backbones.md``: ``python docs/make_backbones.py``.

Every figure is that of a network that was built and run, on the meta device, where nothing is computed.
"""

import re
from pathlib import Path

import torch

from lightning_nas import Features
from lightning_nas.costs.profile import count_parameters
from lightning_nas.spaces.image_networks import ImageNetwork
from lightning_nas.spaces.published import PUBLISHED

PAGE = Path(__file__).parent / "backbones.md"
BACKBONES = (
    "darts_v2",
    "pdarts",
    "snas_moderate",
    "nasnet_a_darts",
    "amoebanet_a_darts",
    "enas_micro",
    "enas_macro",
    "nas_bench_201_best",
    "proxyless_cpu",
    "proxyless_mobile",
    "spos_blocks",
    "spos_channels",
)
COLUMNS = ("name", "stages: channels/stride", "features", "parameters", "without a head", "21 classes", "5 channels")


def backbone(name: str, **inputs: int) -> ImageNetwork:
    """The network of a published architecture at the size that its paper reports, on the meta device."""
    published = PUBLISHED[name]
    space, architecture, _ = published.build()
    with torch.device("meta"):
        network = space.restrict(architecture).network(
            dict(space.usual_inputs) | inputs, form="final", **published.size
        )
    assert isinstance(network, ImageNetwork)
    return network.eval()


def row(name: str) -> list[str]:
    """The figures of a published architecture, as the columns have them."""
    network, height, width = backbone(name), 160, 96
    images = torch.empty(1, 3, height, width, device="meta")
    stages = [f"{maps.shape[1]}/{height // maps.shape[2]}" for maps in Features(network)(images).values()]
    sizes = [count_parameters(network)]
    for classes in (0, 21):
        network.reset_classifier(classes)
        sizes.append(count_parameters(network))
        if classes == 0:
            features = network(images).shape[1]
    sizes.append(count_parameters(backbone(name, channels=5)))
    return [f"`{name}`", ", ".join(stages), f"{features:,}", *(f"{size:,}" for size in sizes)]


def table() -> str:
    """The table of all backbones in Markdown."""
    rows = [COLUMNS, ["---"] * len(COLUMNS), *map(row, BACKBONES)]
    return "\n".join("| " + " | ".join(line) + " |" for line in rows)


def filled(page: str) -> str:
    """The page with the table as the code makes it."""
    return re.sub(
        r"<!-- table -->.*?<!-- end -->", f"<!-- table -->\n\n{table()}\n\n<!-- end -->", page, flags=re.DOTALL
    )


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
