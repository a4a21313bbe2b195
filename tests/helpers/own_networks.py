"""Eight networks with choices, as their users write them, and one architecture of each written by hand without any."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_nas import InputChoice, LayerChoice, OwnSpace, RepeatChoice, ValueChoice

IMAGES = {"channels": 3, "image_size": 8, "num_classes": 5}
TEXT = {"vocabulary": 11}


# -- a layer and a skip ------------------------------------------------------------------------------------------------


class Example(nn.Module):
    def __init__(self, num_classes=5):
        super().__init__()
        self.conv1 = LayerChoice([nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 6, 5, padding=2)])
        self.skip = InputChoice(n_candidates=2)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.classify = nn.Linear(6, num_classes)

    def forward(self, x):
        x0 = torch.relu(self.conv1(x))
        x1 = torch.relu(self.conv2(x0))
        return self.classify(self.skip([x1, x0 + x1]).mean((2, 3)))


class ExampleByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.classify = nn.Linear(6, 5)

    def forward(self, x):
        x0 = torch.relu(self.conv1(x))
        x1 = torch.relu(self.conv2(x0))
        return self.classify((x0 + x1).mean((2, 3)))


# -- choices in candidates of choices ----------------------------------------------------------------------------------


def conv(channels=4, kernel=3):
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2)


class Nested(nn.Module):
    def __init__(self, num_classes=5):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        deep = nn.Sequential(
            LayerChoice({"three": conv(), "five": conv(kernel=5)}),
            nn.BatchNorm2d(4),
            LayerChoice(
                {"relu": nn.ReLU(), "pair": nn.Sequential(LayerChoice([nn.Tanh(), nn.ELU(), nn.GELU()]), conv())}
            ),
        )
        self.block = LayerChoice({"single": conv(), "deep": deep, "same": nn.Identity()})
        self.last = LayerChoice([LayerChoice([conv(), conv(kernel=1)]), nn.BatchNorm2d(4)])
        self.classify = nn.Linear(4, num_classes)

    def forward(self, x):
        return self.classify(self.last(self.block(self.stem(x))).mean((2, 3)))


class NestedByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.block = nn.Sequential(conv(kernel=5), nn.BatchNorm2d(4), nn.Sequential(nn.ELU(), conv()))
        self.last = conv(kernel=1)
        self.classify = nn.Linear(4, 5)

    def forward(self, x):
        return self.classify(self.last(self.block(self.stem(x))).mean((2, 3)))


# -- one decision in several places ------------------------------------------------------------------------------------


def activation():
    return LayerChoice({"gelu": nn.GELU(), "tanh": nn.Tanh()}, label="activation")


class Shared(nn.Module):
    def __init__(self, num_classes=5):
        super().__init__()
        width = ValueChoice([2, 4, 6], "width")
        self.stem = nn.Conv2d(3, width, 1)
        inner = ValueChoice([1, 3], "inner")  # only inside of candidates
        through = nn.Sequential(nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1))
        self.a = LayerChoice({"norm": nn.BatchNorm2d(width), "wide": through}, label="layer")
        self.act = activation()
        wide = nn.Sequential(nn.Conv2d(width, width, 1), activation())
        self.b = LayerChoice({"norm": nn.BatchNorm2d(width), "wide": wide}, label="layer")
        self.c = LayerChoice([nn.Identity(), nn.Conv2d(width, width, inner, padding=inner // 2)])
        self.classify = nn.Linear(ValueChoice([2, 4, 6], "width"), num_classes)

    def forward(self, x):
        return self.classify(self.c(self.b(self.act(self.a(self.stem(x))))).mean((2, 3)))


class SharedByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.a = nn.Sequential(nn.Conv2d(4, 1, 1), nn.Conv2d(1, 4, 1))
        self.act = nn.Tanh()
        self.b = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Tanh())
        self.c = nn.Conv2d(4, 4, 1)
        self.classify = nn.Linear(4, 5)

    def forward(self, x):
        return self.classify(self.c(self.b(self.act(self.a(self.stem(x))))).mean((2, 3)))


# -- which of several inputs -------------------------------------------------------------------------------------------


class Inputs(nn.Module):
    def __init__(self, num_classes=5):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 4, kernel, padding=kernel // 2) for kernel in (1, 3, 5)])
        self.one = InputChoice(3)
        self.two = InputChoice(4, n_chosen=2, reduction="mean")
        self.any = InputChoice(3, n_chosen=None)
        self.some = InputChoice(3, n_chosen=None, reduction="mean", label="mixed")
        self.beside = InputChoice(3, n_chosen=2, reduction="concat")
        self.list = InputChoice(4, n_chosen=2, reduction="none")
        self.classify = nn.Linear(8, num_classes)

    def forward(self, x):
        a, b, c = (layer(x) for layer in self.layers)
        d = torch.relu(self.one([a, b, c]))
        e = torch.relu(self.two([a, b, c, d]))
        f = self.any([c, d, e])
        g = self.some([d, e, f])
        first, second = self.list([d, e, f, g])
        h = self.beside([first - second, f, torch.sigmoid(g)])
        return self.classify(h.mean((2, 3)))


class InputsByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 4, kernel, padding=kernel // 2) for kernel in (1, 3, 5)])
        self.classify = nn.Linear(8, 5)

    def forward(self, x):
        a, b, c = (layer(x) for layer in self.layers)
        d = torch.relu(b)
        e = torch.relu((a + d) / 2)
        f = c + d + e
        g = (d + f) / 2
        return self.classify(torch.cat([e - g, torch.sigmoid(g)], 1).mean((2, 3)))


# -- how many blocks ---------------------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, mix):
        super().__init__()
        self.mix, self.norm = mix, nn.BatchNorm2d(4)

    def forward(self, x):
        return x + torch.relu(self.norm(self.mix(x)))


class Repeated(nn.Module):
    def __init__(self, num_classes=5):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.first = RepeatChoice(lambda k: Block(LayerChoice([conv(), conv(kernel=1)])), depth=[0, 1, 3])
        self.second = RepeatChoice([nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)], depth=[1, 2])
        self.third = RepeatChoice(nn.Sequential(Block(conv()), Block(activation())), depth=[0, 1, 2], label="depth")
        self.fourth = RepeatChoice(lambda k: nn.Tanh(), depth=[0, 1, 2], label="depth")
        self.classify = nn.Linear(4, num_classes)

    def forward(self, x):
        return self.classify(self.fourth(self.third(self.second(self.first(self.stem(x))))).mean((2, 3)))


class RepeatedByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.first = nn.Sequential(Block(conv(kernel=1)), Block(conv()), Block(conv(kernel=1)))
        self.second = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
        self.third = nn.Sequential(Block(conv()), Block(nn.Tanh()))
        self.fourth = nn.Sequential(nn.Tanh(), nn.Tanh())
        self.classify = nn.Linear(4, 5)

    def forward(self, x):
        return self.classify(self.fourth(self.third(self.second(self.first(self.stem(x))))).mean((2, 3)))


# -- widths and kernels ------------------------------------------------------------------------------------------------


class Widths(nn.Module):
    def __init__(self, n_words=11, width=None, extra=None, kernel=None, along=None):
        super().__init__()
        width = width or ValueChoice([4, 5, 8], "width")
        extra = extra or ValueChoice([1, 2, 5], "extra")
        kernel = kernel or ValueChoice([1, 3, 5], "kernel")
        along = along or ValueChoice([2, 3], "along")
        self.embed = nn.Embedding(n_words, width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Conv1d(width, width * 4, kernel, padding=kernel // 2)
        self.bn1 = nn.BatchNorm1d(width * 4)
        self.each = nn.Conv1d(width * 4, width * 4, kernel, padding="same", groups=width * 4, bias=False)
        self.narrow = nn.Conv2d(width * 4, width // 2 * 2, (1, along), groups=2)
        self.bn2 = nn.BatchNorm2d(width // 2 * 2, affine=False)
        self.beside = nn.Linear(width * 4, extra)
        self.classify = nn.Linear(width // 2 * 2 + extra, n_words, bias=False)

    def forward(self, x):
        x = self.norm(self.embed(x)).transpose(1, 2)
        x = torch.relu(self.each(torch.relu(self.bn1(self.widen(x)))))
        maps = torch.relu(self.bn2(self.narrow(x.unsqueeze(2)))).mean((2, 3))
        return self.classify(torch.cat([maps, self.beside(x.mean(2))], 1))


def widths_by_hand():
    return Widths(width=5, extra=2, kernel=3, along=2)  # numbers alone: nothing is chosen in it then


# -- a transformer -----------------------------------------------------------------------------------------------------


def encoder(width, heads, hidden, **settings):
    return nn.TransformerEncoderLayer(width, heads, hidden, batch_first=True, **settings)


class Transformer(nn.Module):
    def __init__(self, n_words=11):
        super().__init__()
        self.width = ValueChoice([4, 8], "width")
        heads, hidden = ValueChoice([1, 2, 4], "heads"), ValueChoice([3, 6], "hidden")
        self.depth = ValueChoice([1, 2, 3], "depth")
        self.embed = nn.Embedding(n_words, self.width)
        self.position = nn.Parameter(torch.randn(9, self.width))
        self.layers = nn.ModuleList(encoder(self.width, heads, hidden, dropout=0.1) for _ in range(self.depth))
        self.more = RepeatChoice(
            lambda k: encoder(self.width, 2, hidden, norm_first=True, activation="gelu"), depth=[0, 1, 2]
        )
        self.query = nn.Parameter(torch.randn(1, 1, self.width))
        self.pool = nn.MultiheadAttention(self.width, heads, batch_first=True)
        self.norm = LayerChoice([nn.LayerNorm(self.width), nn.Identity()])
        self.classify = nn.Linear(self.width, n_words)

    def forward(self, x):
        x = self.embed(x) + self.position[: x.shape[1], : int(self.width)]  # int(): for compilers
        for layer in self.layers[: self.depth]:
            x = layer(x)
        x = self.more(x)
        pooled, _ = self.pool(self.query[..., : int(self.width)].expand(len(x), -1, -1), x, x)
        return self.classify(self.norm(pooled[:, 0]))


class TransformerByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.position = nn.Parameter(torch.randn(9, 4))
        self.layers = nn.ModuleList(encoder(4, 2, 3, dropout=0.1) for _ in range(2))
        self.more = nn.Sequential(encoder(4, 2, 3, norm_first=True, activation="gelu"))
        self.query = nn.Parameter(torch.randn(1, 1, 4))
        self.pool = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.LayerNorm(4)
        self.classify = nn.Linear(4, 11)

    def forward(self, x):
        x = self.embed(x) + self.position[: x.shape[1]]
        for layer in self.layers:
            x = layer(x)
        x = self.more(x)
        pooled, _ = self.pool(self.query.expand(len(x), -1, -1), x, x)
        return self.classify(self.norm(pooled[:, 0]))


# -- recurrent ---------------------------------------------------------------------------------------------------------


class Gated(nn.Module):
    """A GRU that returns what an LSTM does."""

    def __init__(self, width):
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)

    def forward(self, x, hx=None):
        out, h = self.gru(x, None if hx is None else hx[0])
        return out, (h, h)


class Recurrent(nn.Module):
    def __init__(self, n_words=11):
        super().__init__()
        width = ValueChoice([2, 5], "width")
        self.embed = nn.Embedding(n_words, width)
        self.read = nn.Linear(width, 6)
        self.first = LayerChoice({"lstm": nn.LSTM(6, 6, batch_first=True), "gru": Gated(6)})
        self.second = LayerChoice({"lstm": nn.LSTM(6, 6, batch_first=True), "gru": Gated(6)})
        self.which = InputChoice(2, n_chosen=None)
        self.classify = nn.Linear(6, n_words)

    def forward(self, x):
        out, state = self.first(self.read(self.embed(x)))
        again, _ = self.second(out, hx=state)
        return self.classify(self.which([out, again])[:, -1])


class RecurrentByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 5)
        self.read = nn.Linear(5, 6)
        self.first = nn.LSTM(6, 6, batch_first=True)
        self.second = Gated(6)
        self.classify = nn.Linear(6, 11)

    def forward(self, x):
        out, state = self.first(self.read(self.embed(x)))
        again, _ = self.second(out, hx=state)
        return self.classify((out + again)[:, -1])


# -- all of them -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class OwnCase:
    """A network with choices.

    Attributes:
        network: its class.
        inputs: what it is told of the data.
        chosen: one architecture, by names.
        by_hand: builds that architecture, without the package.
        size: the number of its architectures, counted by hand.
    """

    network: type[nn.Module]
    inputs: dict[str, int]
    chosen: dict[str, str]
    by_hand: Callable[[], nn.Module]
    size: int

    def space(self) -> OwnSpace:
        return OwnSpace(self.network)

    def batch(self, size=3) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        if "vocabulary" in self.inputs:
            return torch.randint(self.inputs["vocabulary"], (size, 7), generator=generator)
        return torch.randn(size, 3, 8, 8, generator=generator)


OWN = {
    "example": OwnCase(Example, IMAGES, {"conv1": "1", "skip": "1"}, ExampleByHand, 2 * 2),
    "nested": OwnCase(
        Nested,
        IMAGES,
        {
            "block": "deep",
            "block/deep/0": "five",
            "block/deep/2": "pair",
            "block/deep/2/pair/0": "1",
            "last": "0",
            "last/0": "1",
        },
        NestedByHand,
        (1 + 2 * (1 + 3) + 1) * (2 + 1),
    ),
    "shared": OwnCase(
        Shared,
        IMAGES,
        {"width": "4", "layer": "wide", "activation": "tanh", "c": "1", "inner": "1"},
        SharedByHand,
        3 * 2 * (1 + 2 + 2 + 2),  # `inner` counts wherever it is inside of what runs
    ),
    "inputs": OwnCase(
        Inputs,
        IMAGES,
        {"one": "1", "two": "0+3", "beside": "0+2", "list": "1+3"}
        | {"any/0": "on", "any/1": "on", "any/2": "on", "mixed/0": "on", "mixed/1": "off", "mixed/2": "on"},
        InputsByHand,
        3 * 6 * 7 * 7 * 3 * 6,
    ),
    "repeated": OwnCase(
        Repeated,
        IMAGES,
        {"first": "3", "first/0/mix": "1", "first/1/mix": "0", "first/2/mix": "1", "second": "2"}
        | {"depth": "2", "activation": "tanh"},
        RepeatedByHand,
        (1 + 2 + 8) * 2 * (1 + 1 + 2),
    ),
    "widths": OwnCase(
        Widths, TEXT, {"width": "5", "extra": "2", "kernel": "3", "along": "2"}, widths_by_hand, 3 * 3 * 3 * 2
    ),
    "transformer": OwnCase(
        Transformer,
        TEXT,
        {"width": "4", "heads": "2", "hidden": "3", "depth": "2", "more": "1", "norm": "0"},
        TransformerByHand,
        2 * 3 * 2 * 3 * 3 * 2,
    ),
    "recurrent": OwnCase(
        Recurrent,
        TEXT,
        {"width": "5", "first": "lstm", "second": "gru", "which/0": "on", "which/1": "on"},
        RecurrentByHand,
        2 * 2 * 2 * 3,
    ),
}
"""The networks, by a name for each."""
