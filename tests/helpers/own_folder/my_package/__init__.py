"""A package as a user of the library writes it: a space with its network, data, a method, a strategy, an evaluator."""

import torch
from torch import nn

from lightning_nas import (
    Architecture,
    Choice,
    Evaluation,
    Evaluator,
    Graph,
    ImageData,
    Network,
    Objective,
    RandomSearchWS,
    Space,
    Strategy,
    register_operation,
)


@register_operation("my_conv")
def my_conv(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Conv2d(channels, channels, 3, stride, 1)


class TwoLayers(Space):
    """Two layers, each a convolution of one kind or another."""

    def __init__(self, kernels: tuple[int, ...] = (1, 3)) -> None:
        options = tuple(f"conv_{size}x{size}" for size in kernels)
        super().__init__([Choice("first", options, "1"), Choice("second", options, "2")])
        self.kernels = kernels

    def network(self, inputs: dict[str, int], form: str = "search", channels: int = 4) -> Network:
        return TwoLayersNetwork(self, inputs, channels)

    def graph(self, architecture: Architecture) -> dict[str, Graph]:
        names = self.to_names(architecture)
        return {"network": Graph.of([("input", "1", names["first"]), ("1", "output", names["second"])])}


class TwoLayersNetwork(Network):
    """The sum of the convolutions that run, in either layer."""

    def __init__(self, space: Space, inputs: dict[str, int], channels: int) -> None:
        super().__init__()
        self.space, self.inputs = space, inputs
        widths = {"first": inputs["channels"], "second": channels}
        self.layers = nn.ModuleDict(
            {
                f"{choice.name}/{option}": nn.Conv2d(
                    widths[choice.name], channels, int(option[-1]), padding=int(option[-1]) // 2
                )
                for choice in space.choices
                for option in choice.options
            }
        )
        self.classifier = nn.Linear(channels, inputs["num_classes"])

    def forward(self, x, gates=None, drop_path=0.0):
        for name, running in self.space.resolve(gates).items():
            terms = [
                self.layers[f"{name}/{option}"](x) * (1 if weight is None else weight) for option, weight in running
            ]
            x = sum(terms).relu()
        return self.classifier(x.mean((2, 3)))

    def example(self, batch_size: int = 1):
        size = self.inputs["image_size"]
        device = self.classifier.weight.device
        return torch.zeros(batch_size, self.inputs["channels"], size, size, device=device)


class Stripes(ImageData):
    """Stripes that lie or stand."""

    mean, std = (0.5,), (0.5,)

    def __init__(self, batch_size: int = 32) -> None:
        super().__init__(batch_size, num_workers=0, architecture_share=0.5, split_seed=0)
        self.inputs = {"channels": 1, "image_size": 6, "num_classes": 2}

    def load(self, test):
        generator = torch.Generator().manual_seed(int(test))
        labels = torch.randint(0, 2, (128,), generator=generator)
        lines = torch.randint(0, 2, (128, 1, 6, 1), generator=generator).expand(-1, -1, -1, 6)
        return (torch.where(labels.view(-1, 1, 1, 1) == 1, lines, lines.transpose(2, 3)) * 255).byte(), labels


class MySearch(RandomSearchWS):
    """Random search with weight sharing, by another name."""


class LastFirst(Strategy):
    """Tries the space from its end to its beginning."""

    def propose(self, number: int) -> Architecture:
        return self.space.tables.unrank(-1 - number % self.space.size + self.space.size)


class Wide(Evaluator):
    """Prefers wide kernels, and trains nothing."""

    objective = Objective("val/width")

    def open(self, space, data, seed=0, folder=None):
        self.space = space

    def __call__(self, proposal, number):
        return Evaluation({"val/width": float(sum(proposal.architecture))}, 1.0)
