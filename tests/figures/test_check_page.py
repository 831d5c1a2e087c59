"""The page of pictures: one file, same bytes, nothing unescaped, stamped, small enough, readable without scripts."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from figures.check_page import (
    GREY_STEP,
    STAMP,
    CheckPage,
    Picture,
    check_page_text,
    png_of,
    side_by_side,
    write_check_page,
)
from tests.figures.page_reader import Reader

HOSTILE = "<img src=x onerror=alert(1)>\"'&"


def picture(number: int, noise: float = 40.0, **changes) -> Picture:
    random = np.random.default_rng(number)
    shapes = (96, 80), (80, 80), (80, 96)
    slices = tuple(
        np.clip(90 + noise * random.standard_normal(shape), 0, 255).astype(np.uint8)
        for shape in shapes
    )
    return replace(
        Picture(
            "T1", f"s{number:03d}", "female, train", slices, 9.5 - number, (), (("lowest", "0"),)
        ),
        **changes,
    )


def page_of(*pictures: Picture, **changes) -> CheckPage:
    page = CheckPage(
        experiment="study",
        simulated=False,
        counts={"error": {"files": 1200}, "warning": {}, "note": {"machine": 2}},
        findings=(("error", "files", "T1", "s001", "no such file", "look"),),
        pictures=pictures,
        n_looked_at=len(pictures),
        n_headers=5000,
        outlier_z=6.0,
    )
    return replace(page, **changes)


@pytest.fixture(scope="module")
def page() -> str:
    odd = picture(1, reasons=("its axial slice is unlike the cohort's",))
    return check_page_text(page_of(odd, picture(2), picture(3, contrast="swi", score=float("nan"))))


def test_the_same_check_gives_the_same_bytes(tmp_path):
    first = write_check_page(page_of(picture(1)), tmp_path / "a.html").read_bytes()
    assert first == write_check_page(page_of(picture(1)), tmp_path / "b.html").read_bytes()


def test_the_page_asks_nothing_of_the_network(page):
    reader = Reader(page)
    for tag, attributes in reader.tags:
        for name in ("src", "href", "action"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith(("#", "data:image/png;base64,")), (tag, value)
        assert "style" not in attributes and not any(name.startswith("on") for name in attributes)
    policy = next(a["content"] for t, a in reader.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    for tag in ("style", "script"):
        content = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        assert len(content) == 1
        fingerprint = base64.b64encode(hashlib.sha256(content[0].encode()).digest()).decode()
        assert f"'sha256-{fingerprint}'" in policy


def test_it_says_at_its_top_that_it_shows_individuals(page):
    assert page.index(STAMP) < page.index("<main") and "keep it inside" in STAMP
    assert "simulated cohort" not in page
    assert "simulated cohort" in check_page_text(page_of(simulated=True))


def test_nothing_can_become_markup():
    hostile = picture(
        1,
        contrast=HOSTILE,
        subject_id=HOSTILE,
        about=HOSTILE,
        reasons=(HOSTILE,),
        facts=((HOSTILE, HOSTILE),),
    )
    text = check_page_text(page_of(hostile, experiment=HOSTILE, findings=((HOSTILE,) * 6,)))
    assert HOSTILE not in text and html.escape(HOSTILE, quote=False).split('"')[0] in text
    reader = Reader(text)
    assert sum(tag == "img" for tag, _ in reader.tags) == 1
    assert sum(tag == "script" for tag, _ in reader.tags) == 1


def test_it_is_read_without_scripts(page):
    reader = Reader(page)
    words = " ".join(reader.words)
    for said in (
        "T1, subject s001",
        "its axial slice is unlike",
        "unusual: 8.5",
        "no such file",
        "1,200",
    ):
        assert said in words
    images = [attributes for tag, attributes in reader.tags if tag == "img"]
    assert len(images) == 3 and all(image["alt"] and image["width"] for image in images)
    hidden = [a for _, a in reader.tags if "data-live" in a]
    assert hidden and all("hidden" in attributes for attributes in hidden)  # shown by the script
    assert words.count("unusual:") == 2  # a cohort that cannot be compared has no number


def test_every_label_points_at_something(page):
    reader = Reader(page)
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in reader.tags:
        assert attributes.get("aria-labelledby", ids[0]) in ids
        assert attributes.get("href", "#main")[1:] in ids


def test_the_order_is_that_of_the_check(page):
    assert re.findall(r'data-subject="(\w+)"', page) == ["s001", "s002", "s003"]


def test_a_page_of_two_hundred_noisy_volumes_is_small_enough():
    text = check_page_text(page_of(*(picture(n) for n in range(200)), n_looked_at=900))
    assert len(text) < 5_500_000
    assert "200 of the 900 volumes that were looked at are shown" in text


def test_a_page_without_a_volume_or_finding():
    text = check_page_text(page_of(findings=()))
    assert "No volume was opened." in text and "<p>Nothing.</p>" in text


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (96, 262)])
def test_a_png_is_the_picture(shape):
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    read = Image.open(io.BytesIO(png_of(values)))
    assert read.mode == "L" and np.array_equal(np.asarray(read), values)


def test_slices_stand_side_by_side():
    mosaic = side_by_side(picture(1).slices)
    assert mosaic.shape == (96, 80 + 80 + 96 + 6)
    assert (mosaic % GREY_STEP == 0).all() and not mosaic[:8, 90:].any()


def test_ratings_are_kept_by_place_and_not_by_id(page):
    script = re.search(r"<script>(.*?)</script>", page, re.S).group(1)
    kept = re.search(r"function keep\(\).*?\n}", script, re.S).group(0)
    assert "JSON.stringify(ratings)" in kept and "catch" in kept
    assert "subject" not in kept
    key = re.search(r'data-key="(\w+)"', page).group(1)
    other = check_page_text(page_of(picture(7)))
    assert key != re.search(r'data-key="(\w+)"', other).group(1)
