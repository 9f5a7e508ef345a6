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
_SMALL = 64
"""Pixels up to which an image is augmented as on CIFAR, and not as a photo."""
_TEST_SHARE = 0.2
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
_PLAIN = ((0.5,), (0.5,))
_CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer"] + [
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]
Norm = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Data:
    """A data set ready for a network of a known input size.

    train: what weights are fitted on; heldout: cut from the training set, for choosing
    and scoring; test: for the final number only.
    description: what the splits were made from and how, as JSON; part of run files.
    """

    train: Split
    heldout: Split
    test: Split
    classes: tuple[str, ...]
    description: dict[str, Any]

    @property
    def digest(self) -> str:
        return digest(self.description)


@dataclass(frozen=True)
class _Pool:
    """Images that belong together; `content` identifies them with their labels."""

    images: Images
    labels: Tensor
    content: str


@dataclass(frozen=True)
class _Source:
    """What a spec names; without a test pool, the test set is cut from `train`."""

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
    """The data set `spec` for images of `input_size` = (C, H, W), C being 1 or 3.

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
    kind, _, folder = spec.partition(":")
    if spec == "digits":
        source = _digits(geometry)
    elif kind == "cifar10" and folder:
        source = _cifar10(Path(folder), geometry)
    elif Path(spec).is_dir():
        source = _folder(Path(spec), geometry, "folder", _IMAGENET)
    else:
        raise UsageError(
            f"The data {spec!r} is neither a folder nor a known data set.",
            "Give 'digits', 'cifar10:DIR' or a folder with one folder per class.",
        )
    mean = _per_channel("mean", mean or source.norm[0], geometry.channels)
    std = _per_channel("standard deviation", std or source.norm[1], geometry.channels)
    if min(std) <= 0:
        raise UsageError("The standard deviations must be above 0.")

    def split(name: str, pool: _Pool, indices: Tensor) -> Split:
        return Split(
            name=name,
            images=pool.images,
            indices=indices,
            labels=pool.labels[indices],
            size=input_size,
            mean=mean,
            std=std,
            augmentation=source.augmentation,
        )

    pool = source.train
    train = torch.arange(len(pool.labels))
    if source.test is None:
        train, cut = _stratified(pool.labels, train, _TEST_SHARE, seed_of(seed, "test"))
        test = split("test", pool, cut)
    else:
        test = split("test", source.test, torch.arange(len(source.test.labels)))
    share = heldout or (0.1 if len(train) >= 5000 else 0.25)
    train, cut = _stratified(pool.labels, train, share, seed_of(seed, "heldout"))
    parts = split("train", pool, train), split("heldout", pool, cut), test
    if not all(map(len, parts)):
        raise BadInput(
            f"The data {spec} has too few images to be split.", "Add images per class."
        )
    description = {
        "kind": source.kind,
        "content": digest([pool.content, source.test.content if source.test else ""]),
        "classes": list(source.classes),
        "sizes": {part.name: len(part) for part in parts},
        "input": list(input_size),
        "resize": geometry.resize,
        "crop": [geometry.height, geometry.width],
        "mean": list(mean),
        "std": list(std),
        "augmentation": source.augmentation,
        "heldout": share,
        "seed": seed,
    }
    return Data(*parts, tuple(source.classes), description)


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
    """`among` without, and only, the `share` drawn from each class; both ascending."""
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
    pool = _in_memory(geometry.fit(pixels), torch.from_numpy(scans.target).long())
    return _Source("digits", "0123456789", pool, None, "shift", _PLAIN)


def _cifar10(folder: Path, geometry: Geometry) -> _Source:
    """Image folders, or data_batch_1.bin .. 5.bin and test_batch.bin: a label byte and
    3×32×32 pixel bytes per image (the data set's "binary version")."""
    binary = next((f for f in (folder, folder / "cifar-10-batches-bin") if
                   (f / "test_batch.bin").is_file()), None)  # fmt: skip
    if binary is None:
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
        return _in_memory(geometry.fit(pixels), table[:, 0].long())

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
    small = pixels <= _MEMORY_BYTES
    make = _decoded if small else _listed
    return _Source(
        kind,
        classes,
        make(train_folder, train_files, geometry),
        make(test_folder, test_files, geometry) if test_folder is not None else None,
        "shift+flip"
        if max(geometry.height, geometry.width) <= _SMALL
        else "resized-crop+flip",
        norm,
    )


def _listing(folder: Path) -> tuple[list[str], list[tuple[str, int]]]:
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
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        images = threads.map(lambda file: geometry.fit(geometry.read(file[0])), files)
        pixels = torch.stack(list(images))
    return _in_memory(pixels, torch.tensor([label for _, label in files]))


def _listed(folder: Path, files: list[tuple[str, int]], geometry: Geometry) -> _Pool:
    """Images are told apart by name and size: reading them all would take too long."""
    names = [
        [Path(path).relative_to(folder).as_posix(), os.path.getsize(path)]
        for path, _ in files
    ]
    labels = torch.tensor([label for _, label in files])
    return _Pool(OnDisk([path for path, _ in files], geometry), labels, digest(names))
