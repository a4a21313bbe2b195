"""Images with masks: squares and crosses as bright as each other among noise, and pixels that count for nothing."""

import torch

from lightning_nas.data import ImageData
from lightning_nas.seeding import derive_seed

IGNORED = 255
CLASSES = 3  # the ground, squares, crosses


class Masks(ImageData):
    """Images of 12×12 pixels or more, each with a square of 4×4 and a cross of 5×5, whose classes its mask says."""

    mean, std = (0.5,), (0.25,)

    def __init__(self, n_images=320, image_size=12, batch_size=32):
        super().__init__(batch_size, num_workers=0, architecture_share=0.5, split_seed=0)
        self.n_images = n_images
        self.inputs = {"channels": 1, "image_size": image_size, "num_classes": CLASSES}

    def load(self, test):
        generator = torch.Generator().manual_seed(derive_seed("masks", test))
        size = self.inputs["image_size"]
        images = torch.randint(140, (self.n_images, 1, size, size), generator=generator, dtype=torch.uint8)
        masks = torch.zeros(self.n_images, size, size, dtype=torch.long)
        places = torch.randint(2, (self.n_images, 3), generator=generator).tolist()
        for image, mask, (row, a, b) in zip(images[:, 0], masks, places, strict=True):
            mask[row + 1 : row + 5, a : a + 4] = 1
            mask[row + 8, b + 6 : b + 11] = mask[row + 6 : row + 11, b + 8] = 2
            image[mask > 0] += 100
            mask[:, -1] = IGNORED
        return images, masks
