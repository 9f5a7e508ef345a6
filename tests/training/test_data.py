from collections import Counter
from itertools import product
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from dpcompress.errors import BadInput, UsageError
from dpcompress.training import data as data_module
from dpcompress.training import load_data
from dpcompress.training.images import Batches, OnDisk, Split

SIZE = (3, 16, 16)


def write_images(folder: Path, counts: dict[str, int], size: int = 20) -> Path:
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (size, size + 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:03}.png")
    return folder


def test_digits_are_split_by_class_without_overlap() -> None:
    data = load_data("digits", input_size=(3, 32, 32))
    sizes = data.description["sizes"]
    assert sizes == {"train": 1079, "heldout": 359, "test": 359}
    parts = [set(s.indices.tolist()) for s in (data.train, data.heldout, data.test)]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 1797
    share = torch.bincount(data.test.labels) / torch.bincount(data.train.labels)
    assert (share - 1 / 3).abs().max() < 0.02
    images, labels = next(iter(Batches(data.test, 8).epoch()))
    assert images.shape == (8, 3, 32, 32) and images.abs().max() <= 1
    assert labels.tolist() == data.test.labels[:8].tolist()


def test_description_tells_data_apart() -> None:
    first = load_data("digits", input_size=SIZE)
    assert first.digest == load_data("digits", input_size=SIZE).digest
    others = [
        load_data("digits", input_size=SIZE, seed=1),
        load_data("digits", input_size=SIZE, mean=[0.4]),
        load_data("digits", input_size=SIZE, resize=20),
    ]
    assert len({first.digest, *(o.digest for o in others)}) == 4


def test_folder_with_a_test_part(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"b": 12, "a": 16})
    write_images(tmp_path / "val", {"a": 3, "b": 5})
    data = load_data(str(tmp_path), input_size=SIZE, heldout=0.25)
    assert data.classes == ("a", "b")
    assert data.description["sizes"] == {"train": 21, "heldout": 7, "test": 8}
    assert str(tmp_path) not in str(data.description)


def test_folder_of_classes_is_cut(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 20, "b": 10})
    data = load_data(str(tmp_path), input_size=SIZE, heldout=0.25)
    assert data.description["sizes"] == {"train": 18, "heldout": 6, "test": 6}


def first_labels(split: Split) -> list[int]:
    return next(iter(Batches(split, 4).epoch()))[1].tolist()


@pytest.mark.filterwarnings("ignore:This process")
def test_large_sets_stay_on_disk_with_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, {"a": 12, "b": 12}, size=16)
    kept = load_data(str(tmp_path), input_size=SIZE)
    monkeypatch.setattr(data_module, "_MEMORY_BYTES", 0)
    lazy = load_data(str(tmp_path), input_size=SIZE)
    assert isinstance(lazy.train.images, OnDisk)
    ours, theirs = (
        torch.cat([x for x, _ in Batches(d.train, 4).epoch()]) for d in (kept, lazy)
    )
    assert torch.equal(ours, theirs)
    jobs = (joblib.delayed(first_labels)(lazy.train) for _ in range(2))
    for labels in joblib.Parallel(n_jobs=2)(jobs):
        assert labels == lazy.train.labels[:4].tolist()
    drawn = Batches(lazy.train, 4, seed=3, augment=True)
    first, again = (torch.cat([x for x, _ in drawn.epoch(1)]) for _ in range(2))
    assert torch.equal(first, again) and first.shape[1:] == SIZE


def test_unreadable_image_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, {"a": 8, "b": 8})
    (tmp_path / "b" / "003.png").write_bytes(b"\x89PNG no picture")
    with pytest.raises(BadInput, match=r"b.003\.png"):
        load_data(str(tmp_path), input_size=SIZE)
    monkeypatch.setattr(data_module, "_MEMORY_BYTES", 0)
    data = load_data(str(tmp_path), input_size=SIZE)
    with pytest.raises(BadInput, match=r"b.003\.png") as caught:
        for split in (data.train, data.heldout, data.test):
            list(Batches(split, 4).epoch())
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "no class folders"),
        ({"a": 5}, "one class only"),
        ({"a": 5, "b": 0}, "without images"),
        ({"a": 1, "b": 1}, "too few images"),
    ],
)
def test_useless_folders(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    write_images(tmp_path, counts)
    with pytest.raises(BadInput, match=message):
        load_data(str(tmp_path), input_size=SIZE)


def test_train_and_test_must_have_the_same_classes(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"a": 5, "b": 5})
    write_images(tmp_path / "test", {"a": 5, "c": 5})
    with pytest.raises(BadInput, match="differ in their classes: b"):
        load_data(str(tmp_path), input_size=SIZE)


@pytest.mark.parametrize(
    "options",
    [{"crop": 12}, {"resize": 12}, {"mean": [1, 2]}, {"std": [0]}, {"spec": "mnist"}],
)
def test_impossible_options(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        load_data(**{"spec": "digits", "input_size": SIZE, **options})  # type: ignore[arg-type]


def test_binary_cifar10(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, count in [*((f"data_batch_{i}.bin", 40) for i in range(1, 6)),
                        ("test_batch.bin", 30)]:  # fmt: skip
        rows = rng.integers(0, 256, (count, 3073), dtype=np.uint8)
        rows[:, 0] = np.arange(count) % 10
        rows.tofile(tmp_path / name)
    data = load_data(f"cifar10:{tmp_path}", input_size=(3, 32, 32))
    assert data.description["sizes"] == {"train": 150, "heldout": 50, "test": 30}
    assert data.test.images.raw(3)[1, 0, 2] == rows[3, 1 + 1024 + 2]
    (tmp_path / "test_batch.bin").write_bytes(b"1234")
    with pytest.raises(BadInput, match=r"test_batch\.bin"):
        load_data(f"cifar10:{tmp_path}", input_size=(3, 32, 32))


def test_order_and_augmentation_depend_on_seed_and_epoch_only() -> None:
    data = load_data("digits", input_size=(3, 8, 8))

    def draw(seed: int, epoch: int) -> torch.Tensor:
        batches = Batches(data.train, 64, seed=seed, augment=True).epoch(epoch)
        return torch.cat([images for images, _ in batches])

    first = draw(0, 1)
    torch.rand(7)
    assert torch.equal(first, draw(0, 1))
    assert not torch.equal(first, draw(0, 2)) and not torch.equal(first, draw(1, 1))


def test_fewer_images_than_a_batch_are_one_batch() -> None:
    data = load_data("digits", input_size=(3, 8, 8))
    batches = Batches(data.heldout, 512, seed=0)
    assert [len(labels) for _, labels in batches.epoch()] == [len(data.heldout)]


def test_small_images_are_shifted_and_flipped_over_zeros(tmp_path: Path) -> None:
    """Every augmented image is found among all shifts by up to 2 of 16 pixels and their
    mirror images, and all kinds occur."""
    write_images(tmp_path, {"a": 90, "b": 90}, size=16)
    data = load_data(str(tmp_path), input_size=SIZE, mean=[0], std=[1])
    plain = torch.cat([x for x, _ in Batches(data.train, 9).epoch()])
    batches = Batches(data.train, len(data.train), seed=0, augment=True)
    images, _ = next(iter(batches.epoch(2)))
    order = list(batches._order)
    padded, found = F.pad(plain[order], (2, 2, 2, 2)), []
    for image, wide in zip(images, padded, strict=True):
        ways = [
            (down, right, flip)
            for down, right, flip in product(range(5), range(5), (False, True))
            for window in [wide[:, down : down + 16, right : right + 16]]
            if torch.equal(image, window.flip(2) if flip else window)
        ]
        assert len(ways) == 1
        found += ways
    down, right, flip = map(Counter, zip(*found, strict=True))
    assert len(down) == len(right) == 5 and min(*flip.values(), *down.values()) > 5


def test_photos_are_cropped_and_resized(tmp_path: Path) -> None:
    write_images(tmp_path, {"a": 8, "b": 8}, size=80)
    data = load_data(str(tmp_path), input_size=(3, 72, 72))
    assert data.train.augmentation == "resized-crop+flip"
    images, _ = next(iter(Batches(data.train, 4, seed=0, augment=True).epoch()))
    assert images.shape == (4, 3, 72, 72)


def test_an_epoch_goes_on_in_the_middle() -> None:
    data = load_data("digits", input_size=(3, 8, 8))
    batches = Batches(data.train, 100, seed=0, augment=True)
    whole = [images for images, _ in batches.epoch(1)]
    rest = [images for images, _ in batches.epoch(1, skip=7)]
    assert len(rest) == 3 and all(map(torch.equal, rest, whole[7:]))
