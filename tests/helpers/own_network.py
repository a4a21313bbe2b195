"""Networks as a user writes them, with choices in them. Worker processes import them."""

from torch import nn

from lightning_nas import InputChoice, LayerChoice


class Net(nn.Module):
    """The example of the README, for digits."""

    def __init__(self, width=6, num_classes=10):
        super().__init__()
        self.conv1 = LayerChoice([nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(1, width, 5, padding=2)])
        self.conv2 = LayerChoice({"conv": nn.Conv2d(width, width, 3, padding=1), "pool": nn.MaxPool2d(3, 1, 1)})
        self.skip = InputChoice(n_candidates=2)
        self.classify = nn.Linear(width, num_classes)

    def forward(self, x):
        first = self.conv1(x).relu()
        second = self.conv2(first)
        return self.classify(self.skip([second, first + second]).relu().mean((2, 3)))


class Destroys(nn.Module):
    """Leaves nothing of its input."""

    def forward(self, x):
        return 0 * x


class Planted(nn.Module):
    """Classes can be told apart behind the second candidate alone, and better with the input that is not destroyed."""

    def __init__(self, num_classes=2):
        super().__init__()
        self.layer = LayerChoice({"destroys": Destroys(), "keeps": nn.Identity()})
        self.wide = nn.Sequential(nn.Conv2d(1, 16, 5, padding=2), nn.BatchNorm2d(16), nn.ReLU())
        self.reads = InputChoice(n_candidates=2)
        self.classify = nn.Linear(16, num_classes)

    def forward(self, x):
        x = self.wide(self.layer(x))
        return self.classify(self.reads([0 * x, x]).mean((2, 3)))
