"""What a run of training draws: its page while it trains and at the end, and grids by sampler and evaluations."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusion.batches import ImageRequest
from diffusion.config import DdpmConfig
from diffusion.fid.neighbours import Neighbours
from diffusion.generator import Generator
from diffusion.network.config import UNetConfig
from diffusion.process.config import ProcessConfig, SamplerConfig
from diffusion.process.process import make_process
from diffusion.report import run_pictures, sampler_grids
from diffusion.report.run_pictures import RunPictures, draw_missing
from diffusion.report.sampler_grids import PlannedGrid, affordable, draw_sampler_grids, planned, run_table
from diffusion.sampling.guidance import Prediction
from diffusion.sampling.loop import sample
from diffusion.sampling.samplers import SAMPLERS, SamplerTable
from files.errors import Interrupted, UserError
from tests.little_ddpm import TINY
from tests.scripts import succeeds
from tests.test_ddpm_report import images_of, reloads_of
from tests.test_report_page import Reader
from training.backends import Placement
from training.run import Run


def _pictures(run: Run, generator: Any = None) -> RunPictures:
    return RunPictures(run, DdpmConfig(), generator, ImageRequest(np.arange(3)), 3)


def test_the_page_is_written_at_evaluations_but_not_too_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, page = Run(tmp_path), tmp_path / "report.html"
    run.resume_at(0, 100)
    now = [0.0]
    monkeypatch.setattr(run_pictures.time, "monotonic", lambda: now[0])
    a_second = lambda run, picture: now.__setitem__(0, now[0] + 1)  # noqa: E731
    monkeypatch.setattr(run_pictures, "draw_curves", a_second)

    def evaluated(step: int, after: float) -> bool:
        now[0] += after
        page.unlink(missing_ok=True)
        run.log(step, "validation", {"loss": 0.5})
        return page.exists()

    with _pictures(run).live():
        run.log(5, "train", {"loss": 0.5})  # the first figures
        assert reloads_of(Reader(page.read_text())) == ["5"] and "Loss" not in Reader(page.read_text()).text
        assert evaluated(10, 30) and reloads_of(Reader(page.read_text())) == ["30"]
        page.unlink()
        run.log(15, "train", {"loss": 0.5})
        assert not page.exists()
        assert not evaluated(20, 19)  # a second of twenty
        assert evaluated(30, 2) and "step30of 100" in Reader(page.read_text()).text.replace("\n", "")
        assert evaluated(40, 1000) and reloads_of(Reader(page.read_text())) == ["60"]
    assert not evaluated(50, 1000)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Interrupted("stopped after step 7"), "stopped after step 7"),
        (UserError("the loss became nan"), "the loss became nan"),
        (ZeroDivisionError("x"), "ZeroDivisionError, see what"),
    ],
)
def test_a_run_that_stops_says_so_on_its_page(tmp_path: Path, error: Exception, said: str) -> None:
    run, page = Run(tmp_path), tmp_path / "report.html"
    with pytest.raises(type(error)), _pictures(run).live():
        raise error  # before it knows where it is: the page of a run that was stopped before stays
    assert not page.exists()
    run.resume_at(7, 100, '{"step": 7, "split": "train", "loss": 0.5}\n')
    with pytest.raises(type(error)), _pictures(run).live():
        raise error
    found = Reader(page.read_text(encoding="utf-8"))
    assert not reloads_of(found) and f"before its last step: {said}" in found.text and "7of 100, 7%" in found.text


def test_without_report_there_is_no_page(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.resume_at(0, 100)
    pictures = RunPictures(run, DdpmConfig(report=False), None, ImageRequest(np.arange(3)), 3)  # type: ignore[arg-type]
    with pictures.live():
        run.log(7, "validation", {"loss": 0.5})
    assert not (tmp_path / "report.html").exists()


def test_what_cannot_be_drawn_is_a_note(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Here the network is no network; the page is there, with what could be drawn."""
    run = Run(tmp_path)
    run.resume_at(0, 4)
    run.log(4, "validation", {"loss": 0.5, "mse_1_2": 0.5})
    images, near = np.zeros((3, 4, 4, 1), np.uint8), Neighbours(np.array([0.5, 0.25, 0.75]), np.array([0, 1, 1]))
    _pictures(run, SimpleNamespace(classes=(), shape=(4, 4, 1))).draw_results(images, near, images[:2], 60.0)
    assert "note: samplers/samplers.json could not be drawn: AttributeError" in capsys.readouterr().out
    page = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "samplers.json is not there" in page.text
    assert [alt for alt in images_of(page) if "training image" in alt] == [
        "sample 1 and training image 1", "sample 0 and training image 0", "sample 2 and training image 1",
    ]  # fmt: skip
    before = (tmp_path / "report.html").stat().st_mtime_ns
    draw_missing(run, DdpmConfig())
    assert (tmp_path / "report.html").stat().st_mtime_ns == before
    (tmp_path / "result.json").write_text('{"test_loss": 0.125}')
    draw_missing(run, DdpmConfig(report=False))
    assert (tmp_path / "report.html").stat().st_mtime_ns == before
    draw_missing(run, DdpmConfig())  # the page was older than the result
    assert "test loss0.1250" in (tmp_path / "report.html").read_text().replace("</span><b>", "")


def test_grids_that_take_too_long_are_left_out() -> None:
    table = {rows: SamplerTable(np.ones(rows), np.zeros((rows, 2, 4))) for rows in (4, 5, 10, 20)}
    plans = [PlannedGrid("a", most, table[rows], 1.0) for most, rows in ((20, 20), (5, 5), (5, 4), (10, 10))]
    assert affordable(plans, 1.0, 0.1, 4.9) == [5, 10, 20]
    assert affordable(plans, 1.0, 0.1, 4.8) == [5, 10]
    assert affordable(plans, 2.0, 0.1, 2.8) == []
    assert affordable([], 1.0, 0.1, 9.0) == []


@pytest.mark.parametrize(
    "process", [ProcessConfig(1000, "cosine"), ProcessConfig(8), ProcessConfig(noise_schedule="edm")]
)
def test_every_deterministic_sampler_is_compared(process: ProcessConfig) -> None:
    generator = SimpleNamespace(process=make_process(process))
    plans = planned(SamplerConfig(sampler="ancestral"), generator)  # type: ignore[arg-type]
    of = {(plan.sampler, plan.at_most): plan for plan in plans}
    assert {sampler for sampler, _ in of} == set(SAMPLERS) - {"ancestral"}
    for (sampler, most), plan in of.items():
        few = min(most, process.num_steps)
        assert len(plan.table.times) == few if sampler != "heun" else few - 2 < len(plan.table.times) <= most
        assert plan.start == pytest.approx(80.0 if process.noise_schedule == "edm" else 1.0)


@pytest.mark.parametrize("process", [ProcessConfig(50, "cosine"), ProcessConfig(noise_schedule="edm")])
def test_rows_run_by_numpy_are_those_of_the_loop(process: ProcessConfig) -> None:
    """With a network that sees x, the time and the prediction before."""
    made = make_process(process)
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 1)).astype(np.float32)

    def predict(x: Any, t: Any, before: Any) -> Any:
        return 0.3 * x / (1.0 + t) - 0.1 * before + 0.2

    for plan in planned(SamplerConfig(), SimpleNamespace(process=made)):  # type: ignore[arg-type]
        if plan.at_most != 10:
            continue
        loop = sample(plan.table, lambda x, t, before: Prediction(predict(x, t, before)), lambda row: 0, x).image
        by_numpy = run_table(plan.table, lambda x, t, before: np.asarray(predict(x, t, before)), x)
        np.testing.assert_allclose(by_numpy, np.asarray(loop), rtol=1e-4, atol=1e-5, err_msg=plan.sampler)
        assert np.abs(by_numpy - x).max() > 0.1


def test_a_note_on_grids_that_are_left_out_names_the_script_that_makes_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler_grids, "make_evaluate", lambda *about: lambda x, t, before: x)
    monkeypatch.setattr(sampler_grids, "affordable", lambda *about: [5])
    generator = SimpleNamespace(process=make_process(ProcessConfig(50)), shape=(4, 4, 1), enlarge=2)
    draw_sampler_grids(Run(tmp_path), SamplerConfig(), generator, ImageRequest(np.arange(3)), 1.0)  # type: ignore[arg-type]
    made = json.loads((tmp_path / "samplers" / "samplers.json").read_text())
    assert len(made["grids"]) == 4 and len(list((tmp_path / "samplers").glob("*_05.png"))) == 4
    assert made["notes"][0].startswith("10, 20 evaluations are left out: all grids may take 10 s.")
    assert made["notes"][0].endswith("edit_images --edit=enlarge --images=FOLDER --sampler=NAME --sampling_steps=N")


@pytest.mark.parametrize(("factor", "script"), [(0, "sample_ddpm"), (4, "edit_images --edit=enlarge")])
def test_several_hosts_say_why_there_are_no_grids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: int, script: str
) -> None:
    monkeypatch.setattr(sampler_grids, "hosts", lambda: SimpleNamespace(count=2, chief=True))
    generator = SimpleNamespace(enlarge=factor)
    draw_sampler_grids(Run(tmp_path), SamplerConfig(), generator, ImageRequest(np.arange(3)), 1.0)  # type: ignore[arg-type]
    run_pictures.draw_page(Run(tmp_path))
    text = Reader((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "There are none: training ran on 2 hosts" in text and f"experiments.{script} " in text
    assert "samplers.json is not there" not in text


@pytest.mark.slow
@pytest.mark.parametrize("process", [ProcessConfig(50, "cosine"), ProcessConfig(noise_schedule="edm")])
def test_a_grid_is_what_the_generator_makes(
    tmp_path: Path, one_replica: Placement, monkeypatch: pytest.MonkeyPatch, process: ProcessConfig
) -> None:
    """From the same noise; one compiled network runs all tables."""
    unet = UNetConfig(height=8, width=8, channels=1, base_width=8, channel_multipliers=(1,), num_blocks=1,
                      attention_resolutions=(), num_groups=4, num_classes=3)  # fmt: skip
    generator = Generator(unet, make_process(process), ("a", "b", "c"), one_replica)
    request = generator.request(np.arange(12), 5)
    config = SamplerConfig(sampler="unipc", sampling_steps=5, guidance=1.5, order=2)
    monkeypatch.setattr(sampler_grids, "EVALUATIONS", (5,))
    draw_sampler_grids(Run(tmp_path), config, generator, request, 0.0)
    made = json.loads((tmp_path / "samplers" / "samplers.json").read_text())
    assert [grid["sampler"] for grid in made["grids"]] == ["ddim", "heun", "dpm++", "unipc"] and made["images"] == 10
    with Image.open(tmp_path / "samplers" / "unipc_05.png") as picture:
        shown = np.asarray(picture)[::4, ::4]
    tiles = [shown[1 + 9 * (k // 5) :, 1 + 9 * (k % 5) :][:8, :8] for k in range(10)]
    expected = generator.images(config, request, 12)[:10, ..., 0].astype(int)
    assert np.abs(np.stack(tiles) - expected).max() <= 1


@pytest.mark.slow
def test_a_run_has_its_page(tmp_path: Path) -> None:
    flags = [*TINY, "--report", f"--run_dir={tmp_path}"]
    assert "report.html" in succeeds("ddpm", *flags)
    result, page = json.loads((tmp_path / "result.json").read_text()), tmp_path / "report.html"
    found = Reader(page.read_text(encoding="utf-8"))
    assert not reloads_of(found) and "is not there" not in found.text
    for key in ("test_loss", "val_loss", "nearest_train_of_samples", "closest_test"):
        assert f"{result[key]:.4f}" in found.text, key
    shown = images_of(found)
    assert sum("of the network" in alt for alt in shown) == 12 and sum("after step" in alt for alt in shown) == 2
    whole = page.read_bytes()
    page.unlink()
    assert "finished before" in succeeds("ddpm", *flags) and page.read_bytes() == whole
    made = page.stat().st_mtime_ns
    succeeds("ddpm", *flags)
    assert page.stat().st_mtime_ns == made
