"""``report.html`` of a diffusion model: what is on it, while training goes on and after it."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion.report.data import NEAREST, Pairs, Progress
from diffusion.report.page import write_page
from diffusion.report.sections import MOST_GRIDS, thinned
from files.errors import UserError
from tests.test_report_page import EVIL, Reader
from training import page as pages

CLASSES = (EVIL, "a\nb", "c")
RESULT = {
    "val_loss": 0.2345, "test_loss": 0.3456, "val_fid": 12.25,
    "val_bits_per_dim": 1.0625, "test_bits_per_dim": 1.125, "val_mse_1_6": 0.1111, "test_mse_1_6": 0.2222,
    "nearest_train_of_samples": 0.4567, "nearest_train_of_test": 0.5678, "closest_sample": 0.0789,
    "closest_test": 0.0891, "train_seconds": 123.4, "total_seconds": 234.5, "images_per_second": 5678.0,
    "num_parameters": 1_234_567, "steps": 40, "seed": 7,
}  # fmt: skip


def _noise_png(path: Path, side: int, seed: int = 0) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(path)


def _write_run(folder: Path) -> None:
    """The files of a finished run of 20 evaluations, with little pictures."""
    folder.mkdir()
    split = {"shape": [1455, 8, 8, 1], "by_class": [700, 700, 55], "sha256": ""}
    samplers = {"images": 3, "notes": [f"20 {EVIL}"], "grids": [
        {"sampler": "ddim", "at_most": 5, "evaluations": 5, "file": "ddim_05.png", "seconds_per_image": 0.125},
        {"sampler": "heun", "at_most": 5, "evaluations": 4, "file": "../heun_05.png", "seconds_per_image": 0.375},
    ]}  # fmt: skip
    for name, content in {
        "data.json": {"classes": CLASSES, "notes": [EVIL], "train": split, "test": split},
        "result.json": RESULT,
        "samplers/samplers.json": samplers,
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    lines = []
    for step in range(2, 42, 2):
        _noise_png(folder / "samples" / f"step_{step:07d}.png", 4, step)
        lines += [{"step": step, "split": "train", "loss": 0.5, "examples_per_second": 321.0},
                  {"step": step, "split": "validation", "loss": 0.25, "mse_1_6": 0.125}]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name in ("samples.png", "curves.png", "loss_by_time.png", "samplers/ddim_05.png", "samplers/heun_05.png"):
        _noise_png(folder / name, 4, len(name))
    (folder / "flags.txt").write_text("--data_path=<b>\n")
    pixels = np.zeros((2, 8, 8, 1), np.uint8)
    Pairs(np.array([9, 4]), pixels, np.array([70, 80]), pixels, np.array([0.03125, 0.0625])).save(folder / NEAREST)


def _page(folder: Path, progress: Progress | None = None) -> Reader:
    write_page(folder, folder / "report.html", progress)
    return Reader((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "<b>&run"
    _write_run(path)
    return path


def images_of(page: Reader) -> list[str]:
    return [attributes["alt"] or "" for tag, attributes in page.tags if tag == "img"]


def reloads_of(page: Reader) -> list[str | None]:
    return [attributes["content"] for _, attributes in page.tags if attributes.get("http-equiv") == "refresh"]


def test_what_a_run_found_is_on_its_page(folder: Path) -> None:
    page = _page(folder)
    for said in (
        "test loss0.3456validation 0.2345", "bits per dimension1.1250validation 1.0625",
        "FID while training12.25", "steps40", "seed7", "train images1,455",
        "0.4567median of samples; of held-out images 0.5678", "seconds of training123.4", "seconds in all234.5",
        "images a second, training5,678", "parameters1,234,567", "closest sample0.0789", "closest held-out image0.0891",
        "0.12 s an image", "4 evaluations, 0.38 s an image", "1 – 60.11110.2222", "a b700700",
    ):  # fmt: skip
        assert said in page.text.replace("\n", ""), said
    shown = images_of(page)
    assert [alt for alt in shown if "training image" in alt] == [
        "sample 9 and training image 70", "sample 4 and training image 80",
    ]  # fmt: skip
    assert page.text.index("0.0312") < page.text.index("0.0625")
    steps = [int(alt.split()[-1]) for alt in shown if alt.startswith("samples after step")]
    assert len(steps) == MOST_GRIDS and steps == sorted(steps) and (steps[0], steps[-1]) == (2, 40)
    checked = [attributes["aria-label"] for tag, attributes in page.tags if "checked" in attributes]
    assert checked == ["step 40"]
    assert {"ddim, 5 evaluations of the network", "heun, 4 evaluations of the network"} <= set(shown)
    assert not reloads_of(page)


def test_the_page_of_a_run_that_enlarges(tmp_path: Path) -> None:
    """It says what stands beside what, of how many images its figures are, and nothing of classes."""
    folder = tmp_path / "run"
    _write_run(folder)
    figures = {"test_psnr": 21.5, "test_psnr_bicubic": 20.25, "test_psnr_nearest": 18.75, "test_psnr_images": 100}
    (folder / "result.json").write_text(json.dumps(RESULT | figures))
    assert "Four columns" not in _page(folder).text and "Classes: " in _page(folder).text
    (folder / "config.json").write_text(json.dumps({"config": {"enlarge": 4}}))
    text = _page(folder).text.replace("\n", "")
    assert "21.50dB, mean of 100 test images; bicubic 20.25, nearest 18.75" in text
    assert text.count("from left to right: it made 4 times smaller, that enlarged by bicubic interpolation") == 2
    assert "Classes: " not in text
    going_on = _page(folder, Progress(20, 40, "1:23", "2026-11-26 10:00:00", 17)).text
    assert going_on.count("Four columns an image") == 1


def test_nothing_of_a_users_becomes_a_part_of_it_and_it_asks_for_nothing(folder: Path) -> None:
    page = _page(folder)
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "object"}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    shown = EVIL.replace("\ud800", "\N{REPLACEMENT CHARACTER}").replace("\x00", "\N{REPLACEMENT CHARACTER}")
    assert shown in page.text and "<b>&run" in page.text and "--data_path=<b>" in page.text
    assert "a b" in page.text and f"20 {shown}" in page.text
    addresses = page.values("src") + page.values("href")
    assert addresses and all(one.startswith(("#", "data:")) for one in addresses)
    (policy,) = (about["content"] for _, about in page.tags if "Policy" in (about.get("http-equiv") or ""))
    assert policy and "default-src 'none'" in policy and "script-src" not in policy


def test_a_page_is_read_again_only_while_training_goes_on(folder: Path) -> None:
    page = _page(folder, Progress(20, 40, "1:23", "2026-11-26 10:00:00", 17))
    assert reloads_of(page) == ["17"]
    for said in ("step20of 40, 50%", "time left1:23", "validation loss0.2500training 0.5000", "images a second321"):
        assert said in page.text.replace("\n", "")
    assert "0.3456" not in page.text
    assert not [alt for alt in images_of(page) if "network" in alt or "training image" in alt]
    stopped = _page(folder, Progress(20, 40, "1:23", "10:00:00", 0, f"the loss became nan: {EVIL}"))
    assert not reloads_of(stopped) and "before its last step: the loss became nan: <script>" in stopped.text
    assert not reloads_of(_page(folder))


def test_parts_whose_files_are_missing_or_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "result.json").write_text('{"test_loss": 0.25}')
    page = _page(folder)
    for name in ("samples.png", "samplers.json", "nearest.npz", "curves.png"):
        assert f"{name} is not there" in page.text
    assert "test loss0.2500" in page.text.replace("\n", "")
    before = (folder / "report.html").read_bytes()
    for name, content in (
        (NEAREST, b"PK"),
        ("result.json", b"{"),
        ("samplers/samplers.json", b"[]"),
        ("metrics.jsonl", b"{"),
    ):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        kept = path.read_bytes() if path.exists() else None
        path.write_bytes(content)
        with pytest.raises(UserError, match=re.escape(name)):
            write_page(folder, folder / "report.html")
        path.write_bytes(kept) if kept else path.unlink()
    assert (folder / "report.html").read_bytes() == before


def test_pairs_of_another_form_are_refused(tmp_path: Path) -> None:
    pixels, ones = np.zeros((2, 4, 4, 1), np.uint8), np.ones(2)
    for damaged in (
        Pairs(ones, pixels, ones, pixels[:1], ones),
        Pairs(ones, pixels[..., 0], ones, pixels[..., 0], ones),
        Pairs(np.ones(3), pixels, ones, pixels, ones),
        Pairs(np.float64(1), pixels, ones, pixels, ones),  # type: ignore[arg-type]
    ):
        damaged.save(tmp_path / NEAREST)
        with pytest.raises(UserError, match=r"nearest\.npz: damaged"):
            Pairs.load(tmp_path / NEAREST)


def test_a_page_is_small_whatever_its_pictures(folder: Path, tmp_path: Path) -> None:
    large = tmp_path / "large"
    _write_run(large)
    _noise_png(tmp_path / "noise.png", 500)
    for path in large.rglob("*.png"):
        path.write_bytes((tmp_path / "noise.png").read_bytes())  # 750 KB each
    pixels = np.random.default_rng(0).integers(0, 256, (20, 128, 128, 3), np.uint8)
    numbers = np.arange(20)
    Pairs(numbers, pixels, numbers, pixels, numbers / 20).save(large / NEAREST)
    page = _page(large)
    assert 1e6 < (large / "report.html").stat().st_size < 5e6
    assert len(images_of(page)) == MOST_GRIDS + 3 + 2 + 20


def test_large_pictures_are_made_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    _noise_png(path, 200)
    same = Reader(pages.image(path, "x")).tags[0][1]["src"] or ""
    assert same.startswith("data:image/png;base64,")
    small = Reader(pages.image(path, "x", 5000)).tags[0][1]["src"] or ""
    kind, _, data = small.partition(",")
    assert kind == "data:image/jpeg;base64" and len(data) < 5000 * 4 / 3 + 4
    with Image.open(io.BytesIO(base64.b64decode(data))) as shown:
        assert shown.size in ((100, 100), (50, 50))
    monkeypatch.setattr(pages, "_MOST_PIXELS", 200 * 200 - 1)
    assert "a.png is too large for this page: 200 × 200 pixels" in Reader(pages.image(path, "x", 5000)).text
    path.write_bytes(path.read_bytes()[:6000])
    monkeypatch.undo()
    assert "a.png cannot be shown" in Reader(pages.image(path, "x", 5000)).text


def test_grids_are_thinned_evenly() -> None:
    grids = [(step, Path(str(step))) for step in range(100)]
    kept = [step for step, _ in thinned(grids, 16)]
    assert (kept[0], kept[-1], len(kept)) == (0, 99, 16) and set(np.diff(kept)) <= {6, 7}
    assert thinned(grids[:3], 16) == grids[:3]
