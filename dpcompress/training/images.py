"""Splits of labelled images, in memory or on disk, and batches of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as vision

from dpcompress.errors import BadInput
from dpcompress.training.seeding import seed_of, seeded

Augmentation = Literal["shift", "shift+flip", "resized-crop+flip"]


@dataclass(frozen=True)
class Geometry:
    """The size of images, uint8 (channels, height, width), and how pictures get it.

    A picture's shorter side is resized to `resize` pixels, then the centre is cut out.
    """

    channels: int
    height: int
    width: int
    resize: int

    def read(self, path: str) -> Tensor:
        """Read the picture in `path`, uint8 (channels, height', width') of its own size.

        Raises:
            BadInput: not a picture, or a damaged one.
        """
        mode = "RGB" if self.channels == 3 else "L"
        try:
            with Image.open(path) as picture:
                return vision.pil_to_tensor(picture.convert(mode))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise BadInput(
                f"The image {path} cannot be read: {error}.", "Replace or remove it."
            ) from error

    def resize_and_crop(self, image: Tensor) -> Tensor:
        """Return one or more images, uint8 (…, height', width'), in the final size."""
        if min(image.shape[1:]) != self.resize:
            image = vision.resize(image, [self.resize], antialias=True)
        if image.shape[1:] != (self.height, self.width):
            image = vision.center_crop(image, [self.height, self.width])
        return image


class Images(Protocol):
    """The pictures of a data set, uint8 (C, H, W): raw, or resized and cropped."""

    def raw(self, index: int) -> Tensor: ...
    def resized(self, index: int) -> Tensor: ...


@dataclass(frozen=True)
class InMemory:
    """The pictures of a data set in their final size, uint8 (N, C, H, W), decoded once.

    They are an array, because joblib shares arrays between processes.
    """

    pixels: NDArray[np.uint8]

    def raw(self, index: int) -> Tensor:
        return torch.from_numpy(self.pixels[index])

    resized = raw  # the pictures are in their final size already


@dataclass(frozen=True)
class OnDisk:
    """The pictures in files, which are decoded each time that they are asked for."""

    paths: Sequence[str]
    geometry: Geometry

    def raw(self, index: int) -> Tensor:
        return self.geometry.read(self.paths[index])

    def resized(self, index: int) -> Tensor:
        return self.geometry.resize_and_crop(self.raw(index))


@dataclass(frozen=True)
class Split:
    """The labelled images of a split, with the normalisation that the network expects.

    indices: which of `images` belong to this split.
    labels: int64, one per index.
    size: (C, H, W) of the network's input.
    mean, std: per channel, of pixels in 0..1.
    """

    name: str
    images: Images
    indices: Tensor
    labels: Tensor
    size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation

    def __len__(self) -> int:
        return len(self.indices)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return uint8 (B, C, H, W) as float32 network input, channels last."""
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (self.mean, self.std))
        images = (pixels.float() / 255 - mean) / std
        return images.contiguous(memory_format=torch.channels_last)

    def first(self, count: int) -> Tensor:
        """Load the first `count` images, or all, as network input (N, C, H, W)."""
        part = replace(self, indices=self.indices[:count], labels=self.labels[:count])
        return torch.cat([images for images, _ in Batches(part, 64).epoch()])

    def sample(self, count: int, seed: int) -> Split:
        """Draw `count` of the images, or all, with `seed`; they keep the drawn order."""
        generator = torch.Generator().manual_seed(seed_of(seed, "sample"))
        drawn = torch.randperm(len(self), generator=generator)[:count]
        return replace(self, indices=self.indices[drawn], labels=self.labels[drawn])


class Batches:
    """The batches of a split, as (float32 input, labels).

    They do not depend on the number of reading processes. A split with fewer images than
    `size` is one batch. With `seed` the order is drawn anew for each epoch, incomplete
    batches are left out, and with `augment` each image is transformed in a way that
    depends on (seed, epoch, index) only. Without `seed` all images come in order.

    Raises (while iterating):
        BadInput: an unreadable image.
    """

    def __init__(
        self, split: Split, size: int, *, seed: int | None = None, augment: bool = False
    ) -> None:
        self.size = size = min(size, len(split))
        self._view = _View(split, seed, augment)
        self._order = _Order(len(split), seed)
        # A worker process of joblib or Ray may not have child processes.
        readers = isinstance(split.images, OnDisk) and parent_process() is None
        self.loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
            self._view,
            batch_size=size,
            sampler=self._order,
            drop_last=seed is not None,
            collate_fn=_as_it_is,
            num_workers=min(os.cpu_count() or 1, 8) if readers else 0,
            generator=torch.Generator().manual_seed(0),
        )

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, number: int = 0, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of one epoch, without its first `skip`."""
        self._view.epoch = self._order.epoch = number
        self._order.skip = skip * self.size
        for batch in self.loader:
            if isinstance(batch, BadInput):
                raise batch
            yield batch


def _as_it_is(batch: Any) -> Any:
    return batch


class _Order(Sampler[int]):
    """The order of the images in one epoch, from the one after the first `skip`."""

    def __init__(self, length: int, seed: int | None) -> None:
        self.length, self.seed = length, seed
        self.epoch = self.skip = 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        if self.seed is None:
            return iter(range(self.skip, self.length))
        generator = torch.Generator().manual_seed(seed_of(self.seed, "order", self.epoch))
        order = torch.randperm(self.length, generator=generator)
        return iter(order[self.skip :].tolist())


class _View(Dataset[tuple[Tensor, Tensor]]):
    """The images of a split by index, made into batches, augmented and normalised.

    The error of a bad image is returned, not raised: a reading process would wrap it into
    a traceback.
    """

    def __init__(self, split: Split, seed: int | None, augment: bool) -> None:
        self.split, self.seed, self.epoch = split, seed, 0
        self.augmentation = split.augmentation if augment else None
        self._drawn: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, batch: list[int]) -> tuple[Tensor, Tensor] | BadInput:
        images, indices = self.split.images, self.split.indices[batch].tolist()
        try:
            if self.augmentation == "resized-crop+flip":
                pixels = torch.stack([self._cropped(i) for i in indices])
            else:
                pixels = torch.stack([images.resized(i) for i in indices])
        except BadInput as error:
            return error
        if self.augmentation in ("shift", "shift+flip"):
            pixels = self._shifted(pixels, batch)
        return self.split.normalise(pixels), self.split.labels[batch]

    def _cropped(self, index: int) -> Tensor:
        """Crop, resize and flip one image at random, as is usual for photos."""
        crop = v2.RandomResizedCrop(self.split.size[1:], antialias=True)
        with seeded(self.seed, "image", self.epoch, index):
            image = v2.RandomHorizontalFlip()(crop(self.split.images.raw(index)))
        assert isinstance(image, Tensor)
        return image

    def _shifted(self, pixels: Tensor, batch: list[int]) -> Tensor:
        """Shift, and perhaps flip, images at random, as is usual for small ones.

        The whole batch is done at once: one by one, it would take longer than a training
        step on a GPU.
        """
        _, height, width = self.split.size
        # 4 pixels at 32×32, as is usual on CIFAR.
        most = torch.tensor([max(height // 8, 1), max(width // 8, 1), 0])
        if self._drawn is None or self._drawn[0] != self.epoch:
            generator = torch.Generator()
            generator.manual_seed(seed_of(self.seed, "shift", self.epoch))
            self._drawn = self.epoch, torch.rand(len(self), 3, generator=generator)
        drawn = self._drawn[1][batch]
        down, right, _ = (drawn * (2 * most + 1)).long().unbind(1)
        rows = down[:, None] + torch.arange(height)
        columns = right[:, None] + torch.arange(width)
        if self.augmentation == "shift+flip":
            columns = torch.where(drawn[:, 2:] < 0.5, columns, columns.flip(1))
        top, left, _ = most.tolist()
        padded = F.pad(pixels, (left, left, top, top))
        number = torch.arange(len(batch))[:, None, None]
        picked = padded[number, :, rows[:, :, None], columns[:, None, :]]
        return picked.permute(0, 3, 1, 2)
