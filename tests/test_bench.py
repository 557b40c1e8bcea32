"""The measurements run, count right, and the README says what they found. No figure of a test means anything."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from bench import cpu, gpu, harness, table
from sdwidgets import speed_gpu
from tests import tiny

OPENVINO = pytest.importorskip("sdwidgets.speed")._import_openvino()


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The benches set their own cache folder; none of it may stay."""
    monkeypatch.setenv("SDWIDGETS_CACHE", "")


# ---- the harness -------------------------------------------------------------------------------------------------


def test_ways_take_turns_and_every_second_turn_goes_the_other_way_round():
    order = []
    ways = {name: lambda turn, name=name: order.append((name, turn)) for name in "ab"}
    seconds = harness.take_turns(ways, turns=2, warm_up=1)
    assert order == [("a", 0), ("b", 0), ("b", 0), ("a", 0), ("a", 1), ("b", 1)]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}
    assert len(harness.take_turns(ways, turns=9, budget=0.0)["a"]) == 3, "the least, where there is no time"


def test_a_ratio_is_taken_turn_by_turn_and_has_an_interval():
    slow, fast = (
        [4.0, 8.0, 12.0, 4.0],
        [1.0, 2.0, 3.0, 1.0],
    )  # a machine that drifts, and a ratio that does not
    assert harness.ratio(slow, fast) == {"median": 4.0, "interval": [4.0, 4.0], "turns": 4}
    values = np.random.default_rng(1).normal(5, 1, 200)
    low, high = harness.bootstrap(values)
    assert low < np.median(values) < high and 0.1 < high - low < 0.8
    assert harness.bootstrap(values) == [low, high], "always the same resamples"
    rows = harness.rows_of({"stock": slow, "fast": fast}, "stock")
    assert rows["fast"]["faster"]["median"] == 4.0 and rows["stock"]["faster"]["median"] == 1.0
    assert harness.summary([3.0, 1.0, 2.0])["median"] == 2.0


def test_operations_and_bytes_are_counted():
    layer = torch.nn.Linear(8, 4)
    x = torch.zeros(2, 8)
    counted = harness.count(lambda: layer(x), [layer])
    assert counted == {
        "operations": 2.0 * 2 * 8 * 4,
        "parameter_bytes": 4.0 * (8 * 4 + 4),
        "activation_bytes": 2 * 4.0 * 2 * 4,
    }
    rates = {"float32": 64.0, "bfloat16": 128.0, "memory": 104.0}
    assert harness.best_precision(rates) == "bfloat16"
    found = harness.floor(counted, rates, "bfloat16")
    assert found["seconds"] == 1.0 and found["memory_seconds"] == 1.0, "half the bytes in half the precision"


def test_rates_of_this_machine_are_found():
    rates = harness.peaks(size=64, turns=1)
    assert set(rates) == {"float32", "bfloat16", "memory"} and min(rates.values()) > 0


def test_the_report_names_the_machine_and_no_place():
    text = json.dumps(harness.machine())
    assert torch.__version__ in text and str(harness.ROOT) not in text


# ---- the two commands --------------------------------------------------------------------------------------------


def test_all_of_it_runs_on_a_small_model(tmp_path, capsys):
    tiny.pipeline("sd").save_pretrained(tmp_path / "tiny")
    file = tmp_path / "report.json"
    sections = ["pictures", "parts", "agreement", "recording", "batches", "memory"]
    arguments = [
        "--quick",
        "--no-avx2",
        "--model",
        str(tmp_path / "tiny"),
        "--json",
        str(file),
        "--only",
        *sections,
    ]
    assert cpu.main(arguments) == 0
    report = json.loads(file.read_text())
    assert set(sections) <= set(report) and report["quick"]
    assert set(report["pictures"]["ways"]) == {"stock", "exact", "fast"}
    assert report["agreement"]["decibels"]["least"] > 30
    parts = report["parts"]
    assert parts["step"]["floor_fast"]["operations"] < parts["step"]["floor"]["operations"], (
        "the text is read beforehand"
    )
    assert parts["decode"]["floor_fast"]["operations"] < parts["decode"]["floor"]["operations"], (
        "transposed convolutions"
    )
    assert parts["fast"]["unet"]["precision"] in ("f32", "bf16") and parts["fast"]["unet"]["kernels"]
    assert set(report["recording"]) == {"exact", "fast"}
    text = capsys.readouterr().out
    assert "these figures mean nothing" in text and "times as fast as stock" in text and "| fast |" in text
    assert "/" not in report["model"]


def test_live_figures_count_what_stood_on_the_page_while_the_hand_moved():
    from bench.live import _figures

    moves = [1000.0 + 40 * n for n in range(51)]  # two seconds
    frames = [900.0, *(1010.0 + 100 * n for n in range(20)), 3120.0]
    found = _figures(moves, frames)
    assert found["moves"] == 25.5 and found["pictures"] == 10.0, "neither the one before nor the one after"
    assert found["milliseconds"]["median"] == 100.0 and found["last"] == 120.0
    rows = table.passes({"live": {"fast": {"typing": found}}})
    assert "| fast, typing | 10.0 | 120 ms | 10 a second: reached |" in rows[0]


def test_start_up_is_measured_in_processes_of_their_own():
    (seconds,) = cpu.run(cpu.IMPORT)
    assert 0 < seconds < 60
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        cpu.run("1 / 0")


def test_the_second_pass_is_told_to_do_without_avx512(monkeypatch, tmp_path):
    tiny.pipeline("sd").save_pretrained(tmp_path / "tiny")
    file = tmp_path / "report.json"
    assert (
        cpu.main(["--quick", "--model", str(tmp_path / "tiny"), "--json", str(file), "--only", "batches"])
        == 0
    )
    report = json.loads(file.read_text())
    assert report["machine"]["isa"] == "all" and report["avx2"]["machine"]["isa"] == "AVX2"
    assert set(report["avx2"]["batches"]["pictures_a_second"]) == {"exact", "fast"}


def test_the_gpu_command_runs_on_a_cpu_with_small_models(tmp_path, monkeypatch, capsys):
    """All but the compiler, which test_speed_gpu.py runs and which takes a minute."""
    monkeypatch.setattr(speed_gpu, "why_no_compiler", lambda device: "left out in this test")
    file = tmp_path / "gpu.json"
    assert gpu.main(["--small", "--turns", "1", "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    assert report["device"] == "cpu" and report["quick"] and len(report["models"]) == 2
    for model in report["models"].values():
        assert list(model["ways"]) == ["stock", "fast", "fast, recorded", "fast, recorded, previews"]
        assert model["floor"]["operations"] > 1e6 and model["first"] > 0
    assert "nothing about a GPU" in capsys.readouterr().out


def test_operations_of_many_steps_are_counted_from_few():
    shape = gpu.SMALL_SD15
    pipe = gpu.build(shape, "cpu", torch.float32)
    with torch.no_grad():
        whole = harness.count(lambda: gpu.draw(pipe, shape), [])["operations"]
    assert gpu._operations(pipe, shape) == pytest.approx(whole, rel=0.02)


@pytest.mark.parametrize(
    "shape, parameters", [(gpu.SD15, 859_520_964), (gpu.SDXL, 2_567_463_684)], ids=["SD 1.5", "SDXL"]
)
def test_the_large_models_have_the_published_sizes(shape, parameters):
    """As in `models.py`; on the meta device, which holds no numbers."""
    pipe = gpu.build(shape, "meta", torch.float16)
    assert sum(p.numel() for p in pipe.unet.parameters()) == parameters
    assert sum(p.numel() for p in pipe.vae.parameters()) == 83_653_863


def test_what_a_t4_holds_is_worked_out_from_what_was_measured():
    pipe = gpu.build(gpu.SMALL_SD15, "cpu", torch.float32)
    assert gpu.on_a_t4(3_000_000_000, pipe).startswith("fits whole")
    assert "fits part by part" in gpu.on_a_t4(gpu.T4_BYTES, pipe) or "does not fit" in gpu.on_a_t4(
        gpu.T4_BYTES, pipe
    )
    assert "does not fit" in gpu.on_a_t4(40_000_000_000, pipe)


# ---- tables and README -------------------------------------------------------------------------------------------


def test_readme_says_what_the_reports_say():
    now = (table.ROOT / "README.md").read_text(encoding="utf-8")
    assert table.between_markers(now) == table.section(table.reports()), "run: python bench/table.py --readme"


def test_a_try_is_no_report(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"bench": "cpu", "quick": True}))
    (tmp_path / "b.json").write_text(json.dumps({"bench": "training"}))
    assert table.reports(tmp_path) == {} and "No figures yet" in table.section({})


def test_figures_are_written_for_people():
    assert [table.milliseconds(x) for x in (0.00123, 0.15, 1.5, 12.34)] == [
        "1.23 ms",
        "150 ms",
        "1.50 s",
        "12.3 s",
    ]
    found = {"median": 1.021, "interval": [1.013, 1.034]}
    assert table.percent(found) == "2.1% (1.3 to 3.4)" and table.times(found) == "1.02 (1.01 to 1.03)"
    assert table.table(("a", "b"), [("x", "1")]) == "| a | b |\n|-|-:|\n| x | 1 |"
    ways = {
        "stock": harness.rows_of({"stock": [1.0]}, "stock")["stock"],
        "fast": harness.rows_of({"stock": [1.0], "fast": [0.5]}, "stock")["fast"],
    }
    assert [row[-1] for row in table.ways_rows(ways, table.ASKED)] == ["", "4: not reached"]


def test_a_readme_without_its_markers_is_refused():
    with pytest.raises(ValueError, match="needs the lines"):
        table.between_markers("nothing")
