"""Splits of labelled images, in memory or on disk, and batches of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as vision

from dpcompress.errors import BadInput
from dpcompress.training.seeding import seed_of, seeded

Transform = Callable[[Tensor], Tensor]
Augmentation = Literal["shift", "shift+flip", "resized-crop+flip"]


@dataclass(frozen=True)
class Geometry:
    """From a picture of any size to (C, H, W) uint8.

    The shorter side becomes `resize` pixels, then the centre is cut to H×W.
    """

    channels: int
    height: int
    width: int
    resize: int

    def read(self, path: str) -> Tensor:
        """The picture in `path`, uint8 (channels, height', width') of its own size.

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

    def fit(self, image: Tensor) -> Tensor:
        if min(image.shape[1:]) != self.resize:
            image = vision.resize(image, [self.resize], antialias=True)
        if image.shape[1:] != (self.height, self.width):
            image = vision.center_crop(image, [self.height, self.width])
        return image


class Images(Protocol):
    """Pictures by index."""

    def raw(self, index: int) -> Tensor: ...
    def fitted(self, index: int) -> Tensor: ...


@dataclass(frozen=True)
class InMemory:
    """uint8 (N, C, H, W), decoded once; an array, since joblib shares those."""

    pixels: NDArray[np.uint8]

    def raw(self, index: int) -> Tensor:
        return torch.from_numpy(self.pixels[index])

    fitted = raw


@dataclass(frozen=True)
class OnDisk:
    """Files that are decoded each time they are asked for."""

    paths: Sequence[str]
    geometry: Geometry

    def raw(self, index: int) -> Tensor:
        return self.geometry.read(self.paths[index])

    def fitted(self, index: int) -> Tensor:
        return self.geometry.fit(self.raw(index))


@dataclass(frozen=True)
class Split:
    """Labelled images with the normalisation that their network expects.

    indices: which of `images` belong to this split; labels: int64, one per index.
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
        """uint8 (B, C, H, W) → float32 network input, channels last."""
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (self.mean, self.std))
        images = (pixels.float() / 255 - mean) / std
        return images.contiguous(memory_format=torch.channels_last)

    def first(self, count: int) -> Tensor:
        """The first `count` images (or all) as the network takes them, (N, C, H, W)."""
        images: Tensor = next(iter(Batches(self, count).epoch()))[0]
        return images.clone()

    def sample(self, count: int, seed: int) -> Split:
        """`count` of the images (or all), drawn with `seed`, in the drawn order."""
        generator = torch.Generator().manual_seed(seed_of(seed, "sample"))
        drawn = torch.randperm(len(self), generator=generator)[:count]
        return replace(self, indices=self.indices[drawn], labels=self.labels[drawn])

    def augmenter(self) -> Transform:
        """A random transform of one raw image to (C, H, W); draws from torch's RNG."""
        _, height, width = self.size
        if self.augmentation == "resized-crop+flip":
            crop = v2.RandomResizedCrop((height, width), antialias=True)
            return v2.Compose([crop, v2.RandomHorizontalFlip()])
        # 4 pixels at 32×32, as is usual on CIFAR.
        shift = v2.RandomCrop(
            (height, width), padding=[max(width // 8, 1), max(height // 8, 1)]
        )
        if self.augmentation == "shift":
            return shift
        return v2.Compose([shift, v2.RandomHorizontalFlip()])


class Batches:
    """Batches of a split as (float input, labels); the same for every number of workers.
    A split with fewer images than `size` is one batch.

    With `seed` the order is drawn anew for each epoch, incomplete batches are left out,
    and with `augment` each image is transformed by its own generator, seeded by (seed,
    epoch, index). Without `seed`: in order, unchanged, to the last image.

    Raises (while iterating):
        BadInput: an unreadable image.
    """

    def __init__(
        self, split: Split, size: int, *, seed: int | None = None, augment: bool = False
    ) -> None:
        size = min(size, len(split))
        self._view = _View(split, seed, split.augmenter() if augment else None)
        self._order = _Order(len(split), seed)
        lazy = isinstance(split.images, OnDisk)
        self.loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
            self._view,
            batch_size=size,
            sampler=self._order,
            drop_last=seed is not None,
            collate_fn=_as_it_is,
            num_workers=min(os.cpu_count() or 1, 8) if lazy else 0,
            generator=torch.Generator().manual_seed(0),
        )

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, number: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        self._view.epoch = self._order.epoch = number
        for batch in self.loader:
            if isinstance(batch, BadInput):
                raise batch
            yield batch


def _as_it_is(batch: Any) -> Any:
    return batch


class _Order(Sampler[int]):
    def __init__(self, length: int, seed: int | None) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        if self.seed is None:
            return iter(range(self.length))
        generator = torch.Generator().manual_seed(seed_of(self.seed, "order", self.epoch))
        return iter(torch.randperm(self.length, generator=generator).tolist())


class _View(Dataset[tuple[Tensor, Tensor]]):
    """Whole batches of a split, augmented and normalised.

    A bad image is returned, not raised: a worker process would wrap the error into a
    traceback.
    """

    def __init__(self, split: Split, seed: int | None, augment: Transform | None) -> None:
        self.split, self.seed, self.augment, self.epoch = split, seed, augment, 0

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, batch: list[int]) -> tuple[Tensor, Tensor] | BadInput:
        try:
            pixels = torch.stack([self._image(i) for i in batch])
        except BadInput as error:
            return error
        return self.split.normalise(pixels), self.split.labels[batch]

    def _image(self, position: int) -> Tensor:
        index = int(self.split.indices[position])
        if self.augment is None:
            return self.split.images.fitted(index)
        with seeded(self.seed, "image", self.epoch, index):
            return self.augment(self.split.images.raw(index))
