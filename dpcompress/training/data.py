"""Data sets by name or folder, split into train, held-out and test."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from dpcompress.errors import BadInput, UsageError
from dpcompress.files import digest
from dpcompress.training.images import (
    Augmentation,
    Geometry,
    Images,
    InMemory,
    OnDisk,
    Split,
)
from dpcompress.training.seeding import seed_of

_MEMORY_BYTES = 1 << 30
# Images up to this size, in pixels, are augmented as on CIFAR, larger ones as photos.
_SMALL = 64
_TEST_SHARE = 0.2
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
_PLAIN = ((0.5,), (0.5,))
_CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
Norm = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Data:
    """The splits of a data set, ready for a network of a known input size.

    train: the images that weights are trained on.
    heldout: cut from the training set, for choosing and scoring.
    test: for the final number only.
    description: what the splits were made from and how, as JSON; part of run files.
    """

    train: Split
    heldout: Split
    test: Split
    classes: tuple[str, ...]
    description: dict[str, Any]

    @property
    def digest(self) -> str:
        """The digest of the description."""
        return digest(self.description)


@dataclass(frozen=True)
class _Pool:
    """A set of labelled images; `content` is the digest of images and labels."""

    images: Images
    labels: Tensor
    content: str


@dataclass(frozen=True)
class _Source:
    """The images that a spec names; without `test`, a test set is cut from `train`."""

    kind: str
    classes: Sequence[str]
    train: _Pool
    test: _Pool | None
    augmentation: Augmentation
    norm: Norm


def load_data(
    spec: str,
    *,
    input_size: tuple[int, int, int],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    resize: int | None = None,
    crop: int | None = None,
    heldout: float | None = None,
    seed: int = 0,
) -> Data:
    """Load the data set `spec` for images of `input_size` = (C, H, W), C being 1 or 3.

    Args:
        spec: "digits" (scikit-learn's 1,797 scans); "cifar10:DIR" (image folders, or
            the binary version of the data set); or a folder with train/ and test/ (or
            val/), or with one folder per class, of which a fifth becomes the test set.
            Classes are the folder names, sorted.
        mean, std: per channel, of pixels in 0..1; default by data set (ImageNet's for
            folders).
        resize: shorter side before the centre crop; default: the larger of H and W.
        crop: size of the centre crop; must be the input size, which is its default.
        heldout: share of the training images that becomes the held-out split; default
            a tenth, of fewer than 5,000 images a quarter.
        seed: of the splits.

    Raises:
        UsageError: an unknown spec or impossible options.
        BadInput: an empty folder, fewer than two classes, an unreadable image.
    """
    geometry = _geometry(input_size, resize, crop)
    source = _source(spec, geometry)
    mean = _per_channel("mean", mean or source.norm[0], geometry.channels)
    std = _per_channel("standard deviation", std or source.norm[1], geometry.channels)
    if min(std) <= 0:
        raise UsageError("The standard deviations must be above 0.")
    parts, share = _parts(source, heldout, seed)
    splits = {
        name: Split(
            name=name,
            images=pool.images,
            indices=indices,
            labels=pool.labels[indices],
            size=input_size,
            mean=mean,
            std=std,
            augmentation=source.augmentation,
        )
        for name, (pool, indices) in parts.items()
    }
    if not all(map(len, splits.values())):
        raise BadInput(
            f"The data {spec} has too few images to be split.", "Add images per class."
        )
    description = _describe(source, geometry, splits, share, seed)
    return Data(**splits, classes=tuple(source.classes), description=description)


def _describe(
    source: _Source,
    geometry: Geometry,
    splits: dict[str, Split],
    heldout: float,
    seed: int,
) -> dict[str, Any]:
    """Return what the splits were made from and how, as JSON."""
    train, test = source.train, source.test
    return {
        "kind": source.kind,
        "content": digest([train.content, test.content if test else ""]),
        "classes": list(source.classes),
        "sizes": {name: len(split) for name, split in splits.items()},
        "input": [geometry.channels, geometry.height, geometry.width],
        "resize": geometry.resize,
        "crop": [geometry.height, geometry.width],
        "mean": list(splits["train"].mean),
        "std": list(splits["train"].std),
        "augmentation": source.augmentation,
        "heldout": heldout,
        "seed": seed,
    }


def _parts(
    source: _Source, heldout: float | None, seed: int
) -> tuple[dict[str, tuple[_Pool, Tensor]], float]:
    """Divide images into train, heldout and test.

    Returns:
        Where the images of each split are, and the held-out share of the training images.
    """
    pool = source.train
    train = torch.arange(len(pool.labels))
    if source.test is None:
        train, test = _stratified(pool.labels, train, _TEST_SHARE, seed_of(seed, "test"))
    else:
        test = torch.arange(len(source.test.labels))
    share = heldout or (0.1 if len(train) >= 5000 else 0.25)
    train, cut = _stratified(pool.labels, train, share, seed_of(seed, "heldout"))
    parts = {
        "train": (pool, train),
        "heldout": (pool, cut),
        "test": (source.test or pool, test),
    }
    return parts, share


def _source(spec: str, geometry: Geometry) -> _Source:
    """Read the images that `spec` names.

    Raises:
        UsageError: an unknown spec.
        BadInput: images or files that cannot be read.
    """
    kind, _, folder = spec.partition(":")
    if spec == "digits":
        return _digits(geometry)
    if kind == "cifar10" and folder:
        return _cifar10(Path(folder), geometry)
    if Path(spec).is_dir():
        return _folder(Path(spec), geometry, "folder", _IMAGENET)
    raise UsageError(
        f"The data {spec!r} is neither a folder nor a known data set.",
        "Give 'digits', 'cifar10:DIR' or a folder with one folder per class.",
    )


def _geometry(
    size: tuple[int, int, int], resize: int | None, crop: int | None
) -> Geometry:
    channels, height, width = size
    if channels not in (1, 3):
        raise UsageError(
            f"Images have 1 or 3 channels, the network's input has {channels}.",
            "Train it in your own loop on the linearized network.",
        )
    if crop is not None and (crop, crop) != (height, width):
        raise UsageError(
            f"The crop {crop} differs from the input {height}x{width}.",
            f"Give --crop {height}, or --input {channels}x{crop}x{crop}.",
        )
    if resize is not None and resize < max(height, width):
        raise UsageError(
            f"Images resized to {resize} cannot be cropped to {height}x{width}.",
            f"Give --resize {max(height, width)} or more.",
        )
    return Geometry(channels, height, width, resize or max(height, width))


def _per_channel(name: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    if len(values) == 1:
        values = [values[0]] * channels
    if channels == 1:
        values = [sum(values) / len(values)]
    if len(values) != channels:
        raise UsageError(
            f"The {name} has {len(values)} values, the images have {channels} channels.",
            "Give one value per channel.",
        )
    return tuple(map(float, values))


def _stratified(
    labels: Tensor, among: Tensor, share: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Draw `share` of each class from the indices `among`.

    Returns:
        The indices that stay and those that were drawn, both ascending.
    """
    generator = torch.Generator().manual_seed(seed)
    cut = []
    for label in labels[among].unique():
        members = among[labels[among] == label]
        order = torch.randperm(len(members), generator=generator)
        cut.append(members[order[: round(share * len(members))]])
    taken = torch.cat(cut).sort().values
    return among[~torch.isin(among, taken)], taken


def _in_memory(pixels: Tensor, labels: Tensor) -> _Pool:
    array = np.ascontiguousarray(pixels.numpy())
    content = digest(array.tobytes() + labels.numpy().tobytes())
    return _Pool(InMemory(array), labels, content)


def _digits(geometry: Geometry) -> _Source:
    from sklearn.datasets import load_digits

    scans = load_digits()
    pixels = torch.from_numpy((scans.images * (255 / 16)).round().astype(np.uint8))
    pixels = pixels[:, None].expand(-1, geometry.channels, -1, -1)
    pool = _in_memory(
        geometry.resize_and_crop(pixels), torch.from_numpy(scans.target).long()
    )
    return _Source("digits", "0123456789", pool, None, "shift", _PLAIN)


def _cifar10(folder: Path, geometry: Geometry) -> _Source:
    """Read CIFAR-10 from image folders or from the data set's "binary version".

    That version is data_batch_1.bin .. 5.bin and test_batch.bin, with a label byte and
    3×32×32 pixel bytes per image.
    """
    binary = folder
    if not (binary / "test_batch.bin").is_file():
        binary = folder / "cifar-10-batches-bin"
    if not (binary / "test_batch.bin").is_file():
        return _folder(folder, geometry, "cifar10", _CIFAR10)

    def read(names: Sequence[str]) -> _Pool:
        rows = []
        for name in names:
            try:
                raw = np.fromfile(binary / name, dtype=np.uint8)
            except OSError as error:
                raise BadInput(f"{binary / name} cannot be read: {error}.") from error
            if raw.size == 0 or raw.size % 3073:
                raise BadInput(
                    f"{binary / name} is not a file of CIFAR-10's binary version.",
                    "Unpack the archive again.",
                )
            rows.append(raw.reshape(-1, 3073))
        table = torch.from_numpy(np.concatenate(rows))
        pixels = table[:, 1:].reshape(-1, 3, 32, 32)
        if geometry.channels == 1:
            pixels = pixels.float().mean(1, keepdim=True).round().to(torch.uint8)
        return _in_memory(geometry.resize_and_crop(pixels), table[:, 0].long())

    train = read([f"data_batch_{i}.bin" for i in range(1, 6)])
    test = read(["test_batch.bin"])
    return _Source("cifar10", _CIFAR10_CLASSES, train, test, "shift+flip", _CIFAR10)


def _folder(folder: Path, geometry: Geometry, kind: str, norm: Norm) -> _Source:
    train_folder, test_folder = folder, None
    if (folder / "train").is_dir():
        train_folder = folder / "train"
        names = (folder / name for name in ("test", "val", "valid"))
        test_folder = next((path for path in names if path.is_dir()), None)
    classes, train_files = _listing(train_folder)
    files = train_files
    if test_folder is not None:
        test_classes, test_files = _listing(test_folder)
        if test_classes != classes:
            odd = sorted(set(classes) ^ set(test_classes))
            raise BadInput(
                f"{train_folder} and {test_folder} differ in their classes: {odd[0]}.",
                "Give both the same class folders.",
            )
        files = train_files + test_files
    pixels = len(files) * geometry.height * geometry.width * geometry.channels
    make = _decoded if pixels <= _MEMORY_BYTES else _listed
    train, test = make(train_folder, train_files, geometry), None
    if test_folder is not None:
        test = make(test_folder, test_files, geometry)
    small = max(geometry.height, geometry.width) <= _SMALL
    augmentation: Augmentation = "shift+flip" if small else "resized-crop+flip"
    return _Source(kind, classes, train, test, augmentation, norm)


def _listing(folder: Path) -> tuple[list[str], list[tuple[str, int]]]:
    """List the classes of a folder, sorted, and its files with their class numbers."""
    try:
        classes, numbers = find_classes(str(folder))
        files = make_dataset(str(folder), numbers, extensions=IMG_EXTENSIONS)
    except FileNotFoundError as error:
        raise BadInput(
            f"{folder} has a class folder without images, or no class folders: "
            f"{str(error).rstrip('.')}.",
            "Put each class's images into a folder of its own.",
        ) from error
    if len(classes) < 2:
        raise BadInput(
            f"{folder} holds one class only, {classes[0]}.",
            "Two classes or more are needed, each in a folder of its own.",
        )
    return classes, files


def _decoded(folder: Path, files: list[tuple[str, int]], geometry: Geometry) -> _Pool:
    """Read images into memory."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        raw = threads.map(geometry.read, [path for path, _ in files])
        pixels = torch.stack([geometry.resize_and_crop(image) for image in raw])
    return _in_memory(pixels, torch.tensor([label for _, label in files]))


def _listed(folder: Path, files: list[tuple[str, int]], geometry: Geometry) -> _Pool:
    """List images without reading them; their digest is of names and sizes.

    Digesting the pixels of a large data set would take too long.
    """
    names = [
        [Path(path).relative_to(folder).as_posix(), os.path.getsize(path)]
        for path, _ in files
    ]
    labels = torch.tensor([label for _, label in files])
    return _Pool(OnDisk([path for path, _ in files], geometry), labels, digest(names))
