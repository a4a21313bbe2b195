"""Sets of images, streams with augmentation, and the data module that all image data share."""

import inspect
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_nas.data.base import DataModule, DrawnStream, Shuffled, Stream, as_is, divided, evaluation_size, spread
from lightning_nas.errors import SettingError
from lightning_nas.seeding import derive_seed

Transform = Callable[[Any], Tensor]
Batch = tuple[Tensor, Tensor] | Tensor
"""Images and labels, or images alone."""

PARTS = ("weights", "architecture", "train", "test")


class Images(Protocol):
    """Gives images of bytes by their positions: a tensor ``(N, C, H, W)``, or files that are decoded on access."""

    def __getitem__(self, positions: Tensor, /) -> Any:
        """Returns ``(n, C, H, W)``, or ``n`` images ``(C, H, W)`` of any sizes, of which a transform makes a batch."""


# Random numbers are drawn for a whole batch at once, one for each image: torchvision's own transforms draw once per
# call, and called image by image they take longer than a training step of a small network.


def random_crop(images: Sequence[Tensor] | Tensor, size: int, padding: int) -> Tensor:
    """Pads images ``(C, H, W)`` with zeros and crops each at a place of its own: ``(n, C, size, size)``."""
    from torchvision.transforms.v2.functional import crop

    crops = []
    for image, (down, right) in zip(images, torch.rand(len(images), 2).tolist(), strict=True):
        height, width = image.shape[-2:]
        top = int(down * (height + 2 * padding - size + 1)) - padding
        left = int(right * (width + 2 * padding - size + 1)) - padding
        crops.append(crop(image, top, left, size, size))  # fills with zeros what is beyond the image
    return torch.stack(crops)


def random_flip(images: Tensor) -> Tensor:
    """Mirrors each image of ``(n, C, H, W)`` left to right with probability one half."""
    from torchvision.transforms.v2.functional import horizontal_flip

    return torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, horizontal_flip(images), images)


def cut_out(images: Tensor, side: int) -> Tensor:
    """Sets one square of each image of ``(n, C, H, W)`` to zero, in place (DeVries and Taylor 2017; as in DARTS).

    The centre is any pixel, so squares may reach over the borders; what lies beyond is cut off.
    """
    height, width = images.shape[-2:]
    top = torch.randint(height, (len(images), 1)) - side // 2
    left = torch.randint(width, (len(images), 1)) - side // 2
    rows, columns = torch.arange(height), torch.arange(width)
    rows_inside = (rows >= top) & (rows < top + side)
    columns_inside = (columns >= left) & (columns < left + side)
    return images.masked_fill_((rows_inside[:, :, None] & columns_inside[:, None, :])[:, None], 0)


class ImageSet(Dataset):
    """Makes normalised batches from images and labels.

    With one view of each image a batch of n is ``(n, C, H, W)`` float, with several ``(n, views, C, H, W)``.

    Args:
        images: the N images as bytes, found by their positions.
        labels: the labels of the images, ``(N,)``.
        mean, std: the mean and deviation of each channel, on the scale 0 to 1, by which batches are normalised.
        transform: the function that makes a batch ``(n, C, H, W)`` of bytes from what ``images`` gives for n positions;
            None: that is a batch already.
        positions: the positions of the images that are in the set; None: all are.
        cutout: the side in pixels of the square that is set to zero after normalisation; 0: nothing is cut out.
        views: the number of views of each image, each with a transform and a cutout of its own.
        labelled: whether a batch has the labels ``(n,)`` too; without, it is the images alone.
    """

    def __init__(
        self,
        images: Images,
        labels: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        transform: Transform | None = None,
        positions: Tensor | None = None,
        cutout: int = 0,
        views: int = 1,
        labelled: bool = True,
    ) -> None:
        self.images, self.labels, self.transform, self.cutout = images, labels, transform, cutout
        self.views, self.labelled = views, labelled
        self.positions = torch.arange(len(labels)) if positions is None else positions
        self.mean = torch.tensor(mean).view(1, -1, 1, 1)
        self.std = torch.tensor(std).view(1, -1, 1, 1)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitems__(self, numbers: Sequence[int] | Tensor) -> Batch:
        """A normalised batch of the examples with these numbers in the set."""
        positions = self.positions[numbers]
        loaded = self.images[positions]  # once for all views: files are decoded here
        views = [self._view(loaded) for _ in range(self.views)]
        images = views[0] if self.views == 1 else torch.stack(views, dim=1)
        return (images, self.labels[positions]) if self.labelled else images

    def _view(self, loaded: Any) -> Tensor:
        images = loaded if self.transform is None else self.transform(loaded)
        images = images.float().div_(255).sub_(self.mean).div_(self.std)
        return cut_out(images, self.cutout) if self.cutout else images

    def drawn(self, numbers: Sequence[int] | Tensor, seed: int) -> Batch:
        """The batch of these examples, with everything random in it drawn from a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)
            return self.__getitems__(numbers)


class EvaluatedViews(Dataset):
    """Gives batches of several augmented views to evaluate on; what is random in one depends on its first image."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, numbers: Sequence[int]) -> Batch:
        return self.images.drawn(numbers, derive_seed("evaluated views", numbers[0]))


class ImageData(DataModule):
    """Data for image classification. A subclass says how to :meth:`load` its images.

    Args:
        batch_size: the number of images in a batch on each device.
        num_workers: the number of processes that prepare batches; 0: the main process prepares them.
        architecture_share: the share of the training images on which architectures are judged; the rest trains weights.
        split_seed: the seed of the random division into the weights part and the architecture part. It is separate from
            a run's seed, so that runs are comparable.
        cutout: the side in pixels of the square that is cut out of each training image; 0: nothing is cut out.
    """

    modality = "images"
    example_name = "images"
    adjustable = DataModule.adjustable | {"cutout"}

    mean: Sequence[float]
    std: Sequence[float]

    def __init__(
        self, batch_size: int, num_workers: int, architecture_share: float, split_seed: int, cutout: int = 0
    ) -> None:
        super().__init__(batch_size, num_workers)
        if not 0 < architecture_share < 1:
            raise SettingError(f"architecture_share: between 0 and 1, got {architecture_share}")
        if cutout < 0:
            raise SettingError(f"cutout: 0 or more, got {cutout}")
        self.architecture_share = architecture_share
        self.split_seed = split_seed
        self.cutout = cutout

    def load(self, test: bool) -> tuple[Images, Tensor]:
        """Returns images ``(N, C, H, W)`` as bytes and labels ``(N,)`` of the training or the test data."""
        raise NotImplementedError

    def transform(self, augment: bool) -> Transform | None:
        """What makes a batch of bytes from loaded images, for training or evaluation; None: they are one already."""
        return None

    def division(self, count: int) -> tuple[Tensor, Tensor]:
        """Returns the positions of the weights part and of the architecture part among ``count`` training images."""
        return divided(count, self.architecture_share, self.split_seed)

    def enlarging(self, part: str) -> str:
        """What gives the ``weights`` or the ``architecture`` part more images, as messages say it."""
        return f"{'lower' if part == 'weights' else 'raise'} architecture_share, now {self.architecture_share}"

    def class_name(self, label: int) -> str:
        """What messages call a class."""
        return str(label)

    def warn_of_division(self, divided_by: str) -> None:
        """Says which settings of the random division were given in vain, where something else divides the images."""
        defaults = inspect.signature(type(self).__init__).parameters
        given = {name: getattr(self, name) for name in ("architecture_share", "split_seed") if name in defaults}
        unused = [f"{name} {value}" for name, value in given.items() if value != defaults[name].default]
        if unused:  # no error: a configuration made for other data brings them along
            rank_zero_warn(f"{' and '.join(unused)} changes nothing here: {divided_by}")

    @cached_property
    def _test(self) -> tuple[Images, Tensor]:
        return self.load(test=True)

    @cached_property
    def _training(self) -> tuple[Images, Tensor]:
        return self.load(test=False)

    @cached_property
    def _divided(self) -> dict[str, Tensor]:
        weights, architecture = self.division(len(self._training[1]))
        train = torch.cat([weights, architecture]).sort().values
        return {"weights": weights, "architecture": architecture, "train": train}

    def _positions(self, part: str) -> Tensor:
        positions = self._divided[part]
        if part == "train":  # whoever trains on everything needs no division
            return positions
        sizes = {name: len(self._divided[name]) for name in ("weights", "architecture")}
        for name, size in sizes.items():
            if not size:
                raise SettingError(
                    f"architecture_share: {self.architecture_share} gives {sizes['weights']} of the "
                    f"{len(self._divided['train'])} training images to the weights part and {sizes['architecture']} "
                    f"to the architecture part, and each needs one; {self.enlarging(name)}"
                )
        labels = self._training[1]
        present = labels[positions].unique().tolist()
        lacking = [label for label in labels[self._divided["train"]].unique().tolist() if label not in present]
        if lacking:
            names = ", ".join(map(self.class_name, lacking[:10])) + (" and more" if len(lacking) > 10 else "")
            rank_zero_warn(
                f"the {part} part, {len(positions)} images, has none of these classes of the training images: "
                f"{names}. To have some, {self.enlarging(part)}"
            )
        return positions

    def remedy(self, part: str) -> str:
        return "" if part == "train" else f", or {self.enlarging(part)}"

    def sizes(self) -> dict[str, int]:
        return {f"{part} images": len(self._divided[part]) for part in ("weights", "architecture")}

    def _set(self, part: str, augment: bool, views: int = 1, labelled: bool = True) -> ImageSet:
        if part not in PARTS:
            raise ValueError(f"there is no part {part!r}; there are {', '.join(PARTS)}")
        if labelled and not self.labelled:
            raise SettingError("labelled: false, and this reads labels")
        if views > 1 and self.transform(augment=True) is None and not self.cutout:
            raise SettingError(
                f"data: {type(self).__name__} would give {views} views of an image that are all the same, since it "
                "augments none; take other data, or set a cutout where there is one"
            )
        if augment and self.cutout > (size := self.inputs["image_size"]):
            raise SettingError(f"cutout: at most {size}, the size of the images, got {self.cutout}")
        images, labels = self._test if part == "test" else self._training
        positions = None if part == "test" else self._positions(part)
        cutout = self.cutout if augment else 0
        transform = self.transform(augment)
        return ImageSet(images, labels, self.mean, self.std, transform, positions, cutout, views, labelled)

    def stream(self, part: str, seed: int, views: int = 1, labelled: bool = True) -> Stream:
        images = self._set(part, True, views, labelled)
        self.check_batch(part, len(images))
        return DrawnStream(images, Shuffled(len(images), self.batch_size, derive_seed(seed, part), *self._ranks))

    def evaluation(self, part: str, n_batches: int | None = None, views: int = 1, labelled: bool = True) -> DataLoader:
        images = self._set(part, views > 1, views, labelled)
        if n_batches is not None:
            images.positions = images.positions[spread(len(images), min(len(images), n_batches * self.batch_size))]
        size = evaluation_size(len(images), self.batch_size)
        batches = images if views == 1 else EvaluatedViews(images)
        # by name, since Lightning makes the loader again with a sampler of its own
        return DataLoader(batches, batch_size=size, collate_fn=as_is, num_workers=self.num_workers)

    def predict_dataloader(self) -> DataLoader:
        """The images of the test part in order, without labels: what ``predict_step`` hands to the module."""
        return self.evaluation("test", labelled=False)

    def plain_batches(self, part: str = "weights") -> DataLoader:
        images = self._set(part, augment=True, labelled=self.labelled)
        self.check_batch(part, len(images))
        return DataLoader(
            images,
            batch_size=self.batch_size,
            shuffle=True,
            collate_fn=as_is,
            num_workers=self.num_workers,
            drop_last=True,
        )
