"""A network that is trained already made smaller: a third of its parameters, chosen part by part."""

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from lightning_nas import BlockLibrary, ImageClassification, choose_widths, freeze, order_by_importance

pixels, labels = load_digits(return_X_y=True)
digits = TensorDataset(torch.tensor(pixels / 16).float().view(-1, 1, 8, 8), torch.tensor(labels))
sets = random_split(digits, [0.6, 0.2, 0.2], torch.Generator().manual_seed(0))
train_loader, val_loader, test_loader = (DataLoader(each, 32, shuffle=each is sets[0]) for each in sets)


class Classifier(pl.LightningModule):
    def __init__(self, net, rate):
        super().__init__()
        self.net, self.rate = net.train(), rate

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), self.rate)


torch.manual_seed(0)
layers = [nn.Conv2d(1, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.BatchNorm2d(64), nn.ReLU()]
net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, 64), nn.ReLU(), nn.Linear(64, 10))
pl.Trainer(max_epochs=3).fit(Classifier(net, 0.003), train_loader)
choose_widths(net, [0.25, 0.5, 0.75])
order_by_importance(net, torch.zeros(1, 1, 8, 8))
library = BlockLibrary(net, ImageClassification(), (train_loader, val_loader))
small = freeze(net, library.best("n_params <= 29000"))
pl.Trainer(max_epochs=1).fit(Classifier(small, 0.001), train_loader)
right = sum(int((small.eval()(images).argmax(1) == labels).sum()) for images, labels in test_loader)
print(right / len(sets[2]))
