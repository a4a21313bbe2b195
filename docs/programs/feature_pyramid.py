"""A feature pyramid on a published network: at which pixel is the dot?"""

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.ops import FeaturePyramidNetwork

from lightning_nas import Features, load_architecture


def dots(n):
    images, pixels = 0.7 * torch.rand(n, 3, 16, 16), torch.randint(0, 256, (n,))
    images.flatten(2)[torch.arange(n), :, pixels] = 1.0
    return TensorDataset(images, pixels)


class Finder(pl.LightningModule):
    def __init__(self):
        super().__init__()
        inputs = {"channels": 3, "image_size": 16, "num_classes": 0}
        self.body = Features(load_architecture("nas_bench_201_best").network(inputs, channels=8, cells=1))
        self.pyramid = FeaturePyramidNetwork([info.channels for info in self.body.feature_info.values()], 16)
        self.head = nn.Conv2d(16, 1, 1)

    def forward(self, images):
        return self.head(self.pyramid(self.body(images))["0"]).flatten(1)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)


torch.manual_seed(0)
model, test_set = Finder(), dots(256)
pl.Trainer(max_epochs=2).fit(model, DataLoader(dots(1024), batch_size=32, shuffle=True))
print((model.eval()(test_set.tensors[0]).argmax(1) == test_set.tensors[1]).float().mean())
