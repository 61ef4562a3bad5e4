from __future__ import annotations

import time
from collections import defaultdict

import cv2
import numpy as np
import pytest

from kubeyolo.data.checks import check_image
from kubeyolo.data.decode import decode_image
from kubeyolo.data.duplicates import ComparedImage, find_copies, near_pairs
from kubeyolo.data.findings import Findings
from tests.data.image_files import saved, smooth_image


def found_in(images):
    """Return the findings in images (split, name, file) by code."""
    splits, findings = defaultdict(list), Findings()
    for split, name, data in images:
        checked = check_image(data, None)
        splits[split].append(ComparedImage(name, checked.sha256, checked.hash, checked.thumbnail))
    find_copies(splits, findings)
    return {finding.code: finding for finding in findings.all()}


def test_the_same_bytes_are_found_within_and_between_splits():
    a, b, c = (saved(smooth_image(60, 50, seed), "PNG") for seed in range(3))
    images = [("train", "a", a), ("train", "b", b), ("train", "a2", a), ("val", "c", c), ("val", "b2", b)]
    found = found_in([*images, ("test", "a3", a)])
    assert {code: finding.count for code, finding in found.items()} == {"image_twice": 1, "leak": 2}
    assert found["image_twice"].first == "train: 'a2' is the same as 'a'"
    assert found["leak"].first == "val: 'b2' is the same as 'b' of train"


def changed(pixels):
    height, width = pixels.shape[:2]
    for quality in (60, 80, 95):
        yield f"quality {quality}", saved(pixels, "JPEG", quality=quality)
    for scale in (0.25, 0.8, 2.0):
        yield (
            f"scale {scale}",
            saved(cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), "JPEG"),
        )
    for gain in (0.95, 1.1):
        yield f"gain {gain}", saved((pixels * gain).clip(0, 255).astype(np.uint8), "JPEG")
    for part in (0.01, 0.02, 0.04):
        y, x = max(1, round(height * part / 2)), max(1, round(width * part / 2))
        yield f"cut {part}", saved(np.ascontiguousarray(pixels[y:-y, x:-x]), "JPEG")


@pytest.mark.parametrize("folder", ["coco_cc", "bccd"])
def test_near_copies_of_real_images_are_found_and_no_others(shared, folder):
    paths = sorted((shared / "data" / folder / "train").iterdir())[::3][:20]
    files = [path.read_bytes() for path in paths]
    train = [("train", path.name, data) for path, data in zip(paths, files, strict=True)]
    others = sorted((shared / "data" / folder / "val").iterdir())
    assert found_in([*train, *(("val", path.name, path.read_bytes()) for path in others)]) == {}
    variants = [dict(changed(decode_image(data))) for data in files]
    for kind in variants[0]:
        near = found_in([*train, *(("val", str(i), made[kind]) for i, made in enumerate(variants))])
        if kind == "quality 80":
            assert near["near_leak"].first == f"val: '0' nearly equals {paths[0].name!r} of train"
        assert near["near_leak"].count >= len(files) - (4 if kind == "cut 0.04" else 2), kind


def test_images_that_show_little_are_no_copies_of_each_other():
    plain = [np.full((50, 60, 3), grey, np.uint8) for grey in (0, 1, 128, 129, 254, 255)]
    dark = [np.random.default_rng(i).integers(0, 5, (50, 60, 3)).astype(np.uint8) for i in range(6)]
    files = [saved(image, "PNG") for image in plain + dark]
    assert found_in([("train" if i % 2 else "val", str(i), data) for i, data in enumerate(files)]) == {}


def brute_pairs(a, b, distance):
    bits = np.array([[bin(int(x) ^ int(y)).count("1") for y in b] for x in a])
    return set(zip(*(axis.tolist() for axis in np.nonzero(bits <= distance)), strict=True))


@pytest.mark.parametrize("distance", [0, 3, 8, 20])
def test_pairs_within_a_distance_are_all_found(distance):
    rng = np.random.default_rng(distance)
    a = rng.integers(0, 2**63, 60, np.uint64) * np.uint64(2) + np.uint64(1)
    b = a[:40].copy()
    for i in range(40):
        for bit in rng.choice(64, i % (distance + 4), replace=False):
            b[i] ^= np.uint64(1 << int(bit))
    found = {
        pair
        for x, y in near_pairs(a, b, np.ones(len(b), bool), distance)
        for pair in zip(x.tolist(), y.tolist(), strict=True)
    }
    assert found == brute_pairs(a, b, distance)


def test_many_images_are_compared_in_seconds():
    rng = np.random.default_rng(0)
    train, val = (rng.integers(0, 2**63, count, np.uint64) for count in (30_000, 2_000))
    val[:50] = train[:50] ^ np.uint64(0b1011)
    started = time.process_time()
    found = {int(y) for _, b in near_pairs(train, val, np.ones(len(val), bool)) for y in b}
    assert found >= set(range(50))
    assert time.process_time() - started < 5


def test_many_frames_of_one_scene_end_in_seconds():
    findings = Findings()
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, 256).astype(np.uint8).tobytes()
    other = rng.integers(0, 256, 256).astype(np.uint8).tobytes()
    splits = {
        "train": [ComparedImage(str(i), f"t{i}", 12345 ^ 1 << i % 60, grey) for i in range(5000)],
        "val": [ComparedImage(str(i), f"v{i}", 12345 ^ 1 << i % 50, grey if i % 2 else other) for i in range(200)],
    }
    started = time.process_time()
    find_copies(splits, findings)
    assert [(finding.code, finding.count) for finding in findings.all()] == [("near_leak", 100)]
    assert time.process_time() - started < 10
