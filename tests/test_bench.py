"""The measurements run, count right, and the README says what they found. No figure of a test means anything."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from bench import cpu, gpu, harness, live, sessions, table, ways
from sdwidgets.acceleration import cuda
from tests import tiny

OPENVINO = pytest.importorskip("sdwidgets.acceleration.openvino_graph").import_openvino()


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
    slow, fast = ([4.0, 8.0, 12.0, 4.0], [1.0, 2.0, 3.0, 1.0])  # a machine that drifts, and a ratio that does not
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


def test_attention_on_a_cpu_is_counted():
    """PyTorch has no formula for its CPU kernel: without one this would be 0. Two products: scores, and their sum of values."""
    batch, heads, queries, keys, width = 2, 3, 5, 7, 8
    q, k, v = (torch.randn(batch, heads, length, width) for length in (queries, keys, keys))
    counted = harness.count(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v), [])
    assert counted["operations"] == 2 * (2 * batch * heads * queries * keys * width)


def test_floors_add_up():
    one = {"operations": 2.0, "bytes": 3.0, "seconds": 0.5, "memory_seconds": 0.25, "precision": "float32"}
    assert harness.combined([(20, one), (1, one)]) == {"operations": 42.0, "bytes": 63.0, "seconds": 10.5, "memory_seconds": 5.25, "precision": "float32"}  # fmt: skip
    counted = {"operations": 1.0, "parameter_bytes": 2.0, "activation_bytes": 2.0}
    found = harness.floor(counted, {"float16": 1.0, "memory": 1.0}, "float16", counted_in="float16")
    assert found["memory_seconds"] == 4.0, "counted in half precision already"


def test_what_fails_is_kept_and_told(capsys):
    def fails():
        raise SystemExit(f"in {harness.ROOT}/bench")  # not even an Exception

    def lacks():
        raise harness.LeftOut("no browser")

    report = {"a": harness.attempt(fails), "b": harness.attempt(lacks), "c": harness.attempt(lambda: {"x": 1})}
    assert report == {"a": {"error": "SystemExit: in ./bench"}, "b": {"left_out": "no browser"}, "c": {"x": 1}}
    told = capsys.readouterr()
    assert "SystemExit" in told.err and "no browser" in told.out
    assert harness.failed(report) and harness.failed({"avx2": report}) and not harness.failed({"b": report["b"]})
    lacking = table.unmeasured(report, ("a", "b", "c", "d"))
    assert lacking == ["a (failed: SystemExit: in ./bench)", "b (no browser)", "d"]
    text = table.describe({"bench": "cpu", "model": "tiny", "machine": harness.machine(), "live": report["b"]})
    assert "live mode" not in text and "; live (no browser); choices" in text


def test_rates_of_this_machine_are_found():
    rates = harness.peaks(size=64, turns=1)
    assert set(rates) == {"float32", "bfloat16", "memory"} and min(rates.values()) > 0


def test_the_report_names_the_machine_and_no_place():
    text = json.dumps(harness.machine())
    assert torch.__version__ in text and str(harness.ROOT) not in text


# ---- the two commands --------------------------------------------------------------------------------------------


def test_a_section_that_fails_leaves_the_others_and_the_report(tmp_path, monkeypatch, capsys):
    tiny.pipeline("sd").save_pretrained(tmp_path / "tiny")
    file = tmp_path / "report.json"
    seen = []

    def breaks(pipes, effort):
        """A section that ends badly."""
        raise ValueError("broken on purpose")

    def looks(pipes, effort):
        """A section that reads the report as it is so far."""
        seen.append(json.loads(file.read_text()))
        return {"decibels": {"median": 1.0}}

    monkeypatch.setattr(cpu, "SECTIONS", {**cpu.SECTIONS, "memory": breaks, "live": looks})
    arguments = ["--quick", "--model", str(tmp_path / "tiny"), "--json", str(file), "--no-avx2"]
    monkeypatch.setattr(table, "describe", lambda report: "")  # of these figures it can make nothing
    assert cpu.main([*arguments, "--only", "memory", "live"]) == 1
    assert seen[0]["memory"] == {"error": "ValueError: broken on purpose"}
    report = json.loads(file.read_text())
    assert report["live"] and report["sections"] == ["memory", "live"]
    settings = report["settings"]
    assert settings["guidance"] == 7.5 and settings["size"] == [64, 64] and settings["effort"]["turns"] == 1
    assert "ValueError: broken on purpose" in capsys.readouterr().err


def test_a_pass_that_is_killed_is_an_error(tmp_path, monkeypatch):
    if cpu.platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("only x86 has a second pass")
    monkeypatch.setattr(cpu.sys, "executable", "/bin/false")
    args = cpu.argparse.Namespace(quick=True, model=None, only=None)
    assert "status 1" in cpu.in_child(args)["error"]


def test_no_prompt_is_fresh_twice_before_it_is_forgotten():
    from sdwidgets.acceleration.text_encoder import KEPT

    pipes = ways.Pipelines(table.ROOT / "data" / "pocket")
    several = pipes.fresh("stock", 300)
    assert len(set(several)) == 300 > KEPT and ways.PROMPT not in several
    assert pipes.fresh("fast", 2) + pipes.fresh("fast", 1) == several[:3], "every pipeline gets the same"
    assert len(set(pipes.prompts)) == len(pipes.prompts) == 720


def test_growth_of_memory_is_that_of_late_against_early():
    flat = [(n, 100) for n in range(1, 1001, 10)]
    assert sessions.growth(flat, 1000) == {"growth": 0.0, "interval": [0.0, 0.0]}
    grows = [(n, 900 if n <= 100 else 100 if n <= 800 else 110) for n, _ in flat]
    assert sessions.growth(grows, 1000)["growth"] == pytest.approx(0.1), "the first tenth does not count"


def test_a_network_without_a_compiled_graph_has_none():
    pipe = tiny.pipeline("sd")
    assert cpu.graph_of(pipe.unet) is None and cpu.how_fast(pipe) == {}


@pytest.mark.weekly
def test_all_of_it_runs_on_a_small_model(tmp_path, capsys):
    tiny.pipeline("sd").save_pretrained(tmp_path / "tiny")
    file = tmp_path / "report.json"
    sections = ["pictures", "parts", "agreement", "recording", "batches", "memory", "choices"]
    arguments = ["--quick", "--no-avx2", "--model", str(tmp_path / "tiny"), "--json", str(file), "--only", *sections]
    assert cpu.main(arguments) == 0
    report = json.loads(file.read_text())
    assert set(sections) <= set(report) and report["quick"]
    assert set(report["pictures"]["ways"]) == {"stock", "exact", "fast", "fast, same prompt again"}
    assert report["agreement"]["decibels"]["least"] > 30
    assert report["agreement"]["exact_is_stock"]["equal"] == 2, "bit for bit"
    parts = report["parts"]
    floors = {name: floor["operations"] for name, floor in parts["floors"].items()}
    assert set(floors) == set(table.WAYS) | {"fast, same prompt again", "turbo, fast, same prompt again"}
    assert floors["turbo, fast"] < floors["turbo"] < floors["fast"] < floors["stock"] == floors["exact"]
    assert parts["prompt"]["floor"]["operations"] == 2 * parts["prompt"]["floor_fast"]["operations"]
    choices = report["choices"]
    assert {"eager, float32", "OpenVINO, float32"} <= set(choices["ways"])
    assert "torch.compile, float32" in choices["missing"], "not in a try"
    assert choices["differs"]["eager, float32"] == 0 and max(choices["differs"].values()) < 0.1
    assert parts["step"]["floor_fast"]["operations"] < parts["step"]["floor"]["operations"], (
        "the text is read beforehand"
    )
    assert parts["decode"]["floor_fast"]["operations"] < parts["decode"]["floor"]["operations"], (
        "transposed convolutions"
    )
    assert parts["fast"]["unet"]["precision"] in ("f32", "bf16") and parts["fast"]["unet"]["kernels"]
    assert set(report["recording"]) == {"exact", "fast"}
    text = capsys.readouterr().out
    assert "Exact is stock bit for bit in 2 of 2 pictures" in text
    assert "Not measured: startup; lab; live; many." in text and "| turbo | not measured |" in text
    assert "these figures mean nothing" in text and "times as fast as stock" in text and "| fast |" in text
    assert "/" not in report["model"]


def test_live_figures_count_what_stood_on_the_page_while_the_hand_moved():
    moves = [1000.0 + 40 * n for n in range(51)]  # two seconds
    times = [900.0, *(1010.0 + 100 * n for n in range(20)), 3120.0]
    frames = [{"live": 5 + n, "time": time} for n, time in enumerate(times)]
    sent = [{"live": frame["live"], "time": frame["time"] - 80} for frame in frames]
    sent[-1]["time"] = 2970.0
    found = live._figures(moves, frames, sent[1:])
    assert found["age"]["median"] == 80.0 and found["age"]["most"] == 150.0 and found["on_the_way"] == 1
    late = [*frames[:-2], {"live": 25, "time": 2990.0}, frames[-1]]
    assert live._figures(moves, late, sent[1:])["on_the_way"] == 2, "one was sent while one was awaited"
    assert found["moves"] == 25.5 and found["pictures"] == 10.0, "neither the one before nor the one after"
    assert found["milliseconds"]["median"] == 100.0 and found["last"] == 120.0
    report = {"bench": "cpu", "model": "tiny", "machine": harness.machine(), "live": {"fast": {"typing": found}}}
    assert "| fast, typing | 10.0 | 120 ms | 10 a second: reached | 80 ms | 150 ms | 1 |" in table.describe(report)


def test_start_up_is_measured_in_processes_of_their_own():
    (seconds,) = sessions.run(sessions.IMPORT)
    assert 0 < seconds < 60
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        sessions.run("1 / 0")


@pytest.mark.weekly
def test_the_second_pass_is_told_to_do_without_avx512(monkeypatch, tmp_path):
    tiny.pipeline("sd").save_pretrained(tmp_path / "tiny")
    file = tmp_path / "report.json"
    assert cpu.main(["--quick", "--model", str(tmp_path / "tiny"), "--json", str(file), "--only", "batches"]) == 0
    report = json.loads(file.read_text())
    assert report["machine"]["isa"] == "all" and report["avx2"]["machine"]["isa"] == "AVX2"
    assert set(report["avx2"]["batches"]["pictures_a_second"]) == {"exact", "fast"}


@pytest.mark.slow
def test_the_gpu_command_runs_on_a_cpu_with_small_models(tmp_path, monkeypatch, capsys):
    """All but the compiler, which test_cuda.py runs and which takes a minute."""
    monkeypatch.setattr(cuda, "why_no_compiler", lambda device: "left out in this test")
    file = tmp_path / "gpu.json"
    assert gpu.main(["--small", "--turns", "1", "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    assert report["device"] == "cpu" and report["quick"] and len(report["models"]) == 2
    for model in report["models"].values():
        assert list(model["ways"]) == ["stock", "fast", "fast, recorded", "fast, recorded, previews"]
        assert model["floor"]["operations"] > 1e6 and model["floor"]["bytes"] > 1e6 and model["first"] > 0
        assert model["agreement"]["finite"] and model["agreement"]["decibels"] > 60, "one arithmetic, on a CPU"
        assert "in float16" in model["t4"] or "at its peak" in model["t4"]
    assert "nothing about a GPU" in capsys.readouterr().out
    text = table.describe({**report, "device": "cuda"})  # as it is written for a card
    assert "aim 300 ms: " in text and "on top of fast; 2%: " in text
    assert "Fast and stock agree to" in text and "On a T4 with 16 GB: " in text


def test_operations_of_many_steps_are_counted_from_few():
    shape = gpu.SMALL_SD15
    pipe = gpu.build(shape, "cpu", torch.float32)
    with torch.no_grad():
        whole = harness.count(lambda: gpu.draw(pipe, shape), [])["operations"]
    assert gpu._counted(pipe, shape)["operations"] == pytest.approx(whole, rel=0.02)


@pytest.mark.parametrize(
    "shape, parameters", [(gpu.SD15, 859_520_964), (gpu.SDXL, 2_567_463_684)], ids=["SD 1.5", "SDXL"]
)
def test_the_large_models_have_the_published_sizes(shape, parameters):
    """As in `loading.catalog`; on the meta device, which holds no numbers."""
    pipe = gpu.build(shape, "meta", torch.float16)
    assert sum(p.numel() for p in pipe.unet.parameters()) == parameters
    assert sum(p.numel() for p in pipe.vae.parameters()) == 83_653_863


def test_what_a_t4_holds_is_worked_out_from_what_was_measured():
    pipe = gpu.build(gpu.SMALL_SD15, "cpu", torch.float32)
    assert gpu.on_a_t4(3_000_000_000, pipe).startswith("fits whole")
    assert "fits part by part" in gpu.on_a_t4(gpu.T4_BYTES, pipe) or "does not fit" in gpu.on_a_t4(gpu.T4_BYTES, pipe)
    assert "does not fit" in gpu.on_a_t4(40_000_000_000, pipe)


# ---- tables and README -------------------------------------------------------------------------------------------


def test_pages_say_what_the_reports_say():
    now = (table.ROOT / "README.md").read_text(encoding="utf-8")
    assert table.between_markers(now) == table.figures(table.reports()), "run: python bench/table.py --write"
    assert table.PERFORMANCE.read_text(encoding="utf-8") == table.page(table.reports()), (
        "run: python bench/table.py --write"
    )


def test_a_try_is_no_report(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"bench": "cpu", "quick": True}))
    (tmp_path / "b.json").write_text(json.dumps({"bench": "learning"}))
    assert table.reports(tmp_path) == {} and "No figures yet" in table.page({})
    for name, bench in (("c", "training"), ("d", "cpu")):
        (tmp_path / f"{name}.json").write_text(json.dumps({"bench": bench}))
    assert list(table.reports(tmp_path)) == ["d", "c"], "training comes last"


def test_the_table_of_training_tells_what_was_expected_and_what_was_measured():
    row = {
        "part": "vae",
        "change": "compiled",
        "expected": "1.2: fuses",
        "ratio": 0.9,
        "samples_per_second": 31.0,
        "quartiles": [30.5, 32],
    }
    report = {
        "bench": "training",
        "machine": harness.machine() | {"load_average": [0.9, 0, 0]},
        "turns": 7,
        "rows": [row],
    }
    told = table.describe(report)
    assert "| vae: compiled | 1.2: fuses | 0.90 | 31 (30.5 to 32) |" in told and "medians of 7 steps" in told
    assert "busy when this began (load 0.9)" in told and "weights" not in told
    report["machine"]["load_average"] = [0.1, 0, 0]
    assert "busy" not in table.describe(report)


def test_figures_are_written_for_people():
    assert [table.milliseconds(x) for x in (0.00123, 0.15, 1.5, 12.34)] == ["1.23 ms", "150 ms", "1.50 s", "12.3 s"]
    found = {"median": 1.021, "interval": [1.013, 1.034]}
    assert table.percent(found) == "2.1% (1.3 to 3.4)" and table.times(found) == "1.02 (1.01 to 1.03)"
    ways = harness.rows_of({"stock": [1.0], "fast": [0.5]}, "stock")
    report = {"bench": "cpu", "model": "tiny", "machine": harness.machine(), "steps": 20, "pictures": {"ways": ways}}
    rows = dict(line.strip("| ").split(" | ", 1) for line in table.describe(report).splitlines() if line[:2] == "| ")
    assert rows["stock"] == "1.00 s (1.00 s to 1.00 s) | 1.00 (1.00 to 1.00) | not measured"
    assert rows["fast"].endswith("| 2.00 (2.00 to 2.00) | not measured |  | 4: not reached")
    assert rows["turbo, fast"] == "not measured |  |  |  | 15"


def test_verdicts_are_judged_by_the_bad_end_of_the_interval():
    assert table.verdict(4.2, (4.1, 4.4), 4.0) == "4: reached"
    assert table.verdict(4.2, (3.9, 4.4), 4.0) == "4: not shown"
    assert table.verdict(3.9, (3.8, 4.4), 4.0) == "4: not reached"
    assert table.verdict(4.0, None, 4.0) == "4: reached"
    assert table.added({"median": 1.01, "interval": [1.0, 1.02]}, 3.0) == "3%: reached"
    assert table.added({"median": 1.01, "interval": [0.99, 1.04]}, 3.0) == "3%: not shown"
    assert table.added({"median": 1.05, "interval": [1.02, 1.06]}, 3.0) == "3%: not reached"


def test_a_report_of_other_weights_or_a_busy_machine_says_so():
    """Said, not failed: weights come before figures."""
    machine = {**harness.machine(), "load_average": [0.2, 0, 0]}
    report = {"bench": "cpu", "model": "pocket", "weights": table.weights_now(), "machine": machine}
    assert table.weights_now() == harness.digest(table.ROOT / "data" / "pocket")
    quiet = table.page({"name": report})
    assert "other weights" not in quiet and "busy" not in quiet
    text = table.page({"name": {**report, "weights": "0123456789"}})
    assert f"other weights (0123456789) than `data/pocket` has now ({table.weights_now()})" in text
    assert "busy when this began (load 2.5)" in table.describe(
        {**report, "machine": {**machine, "load_average": [2.5, 0, 0]}}
    )


def test_a_readme_without_its_markers_is_refused():
    with pytest.raises(ValueError, match="needs the lines"):
        table.between_markers("nothing")


def test_a_map_finds_its_thing_where_it_lies_on_it(tmp_path):
    from bench import maps

    shape = np.zeros((8, 8), bool)
    shape[2:6, 2:6] = True
    assert maps.overlap(shape.astype(float), shape) == 1 and maps.overlap(1 - shape.astype(float), shape) == 0
    assert maps.overlap(np.roll(shape, 2, axis=1) * 0.3 + 0.5, shape) == pytest.approx(8 / 24)
    assert maps.overlap(maps.coarse(shape, 8), shape) == 1 and maps.coarse(shape, 2).max() < 1
    assert maps.main(["--count", "2", "--steps", "2", "--json", str(tmp_path / "maps.json")]) == 0
    (row,) = json.loads((tmp_path / "maps.json").read_text())["rows"]
    assert (
        row["unet"] == "pocket"
        and row["places a side"] in (8, 16)
        and row["found"]["n"] == 2
        and 0 <= row["median"] <= 1
    )
