import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split
from torchmetrics.classification import MulticlassAccuracy

from lightning_nas import LayerChoice, PathSearch


class Digits(pl.LightningModule):
    def __init__(self):
        super().__init__()
        pool = LayerChoice([nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Upsample(scale_factor=3)), nn.MaxPool2d(2)])
        conv = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.net = nn.Sequential(conv, pool, nn.Flatten(), nn.Linear(72, 10))
        self.train_acc, self.val_acc = MulticlassAccuracy(10), MulticlassAccuracy(10)

    def training_step(self, batch, batch_idx):
        logits = self.net(batch[0])
        self.train_acc(logits, batch[1])
        self.log("train_acc", self.train_acc, on_step=False, on_epoch=True)
        return nn.functional.cross_entropy(logits, batch[1])

    def validation_step(self, batch, batch_idx):
        self.val_acc(self.net(batch[0]), batch[1])
        self.log("val_acc", self.val_acc)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.8)]


def main(folder, epochs=4, seed=0):
    pl.seed_everything(seed)
    images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
    train, val = random_split(TensorDataset(images.float().view(-1, 1, 8, 8) / 16, labels), [1400, 397])
    best, patience = ModelCheckpoint(folder, "best", "val_acc", mode="max"), EarlyStopping("val_acc", mode="max")
    callbacks = [best, patience, search := PathSearch("val_acc")]
    trainer = pl.Trainer(max_epochs=epochs, callbacks=callbacks, logger=CSVLogger(folder), accelerator="cpu")
    project = Digits()
    trainer.fit(project, DataLoader(train, 100, shuffle=True), DataLoader(val, 200))
    project.net = search.freeze()
    return trainer, project
