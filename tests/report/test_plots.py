from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.transforms import Bbox
from sample_records import on_copy, record

from lrbench.records import Cost, Diagnosis, HeightBin, Record, newest, read_records, write_record
from lrbench.report.plots import drawings, plot
from lrbench.report.renderers import Ruler

BOTH = ("png", "svg")


def labels(method: str) -> tuple[str, ...]:
    return {"one": ("HRNet",), "two": ("UDP",)}.get(method, ())


def write(folder: Path, records: list[Record]) -> Path:
    for each in records:
        write_record(folder, each)
    return folder


def svg_words(path: Path) -> str:
    """What is drawn as text; SVG keeps it in comments beside the glyphs."""
    lines = path.read_text().splitlines()
    return " ".join(line.strip().removeprefix("<!--").removesuffix("-->").strip() for line in lines if "<!--" in line)


def test_figures(tmp_path: Path):
    results = write(
        tmp_path / "results",
        [
            record("one", "64x48", 0.2),
            record("one", "64x48", 0.3, seed=1),
            record("one", "128x96", 0.4),
            record("one", "256x192", None),
            record("two", "64x48", 0.5),
            record("two", "96x72", None, status="failed", keypoint_ap={}),
        ],
    )
    paths = plot(results, tmp_path / "out", labels=labels, formats=BOTH)
    names = ["ap_over_resolution_synth", "per_keypoint_synth_64x48", "per_keypoint_synth_128x96"]
    assert [path.name for path in paths] == [f"{name}.{kind}" for name in names for kind in BOTH]
    for path in paths:
        assert path.stat().st_size > 5000
        start = path.read_bytes()[:8]
        assert start == b"\x89PNG\r\n\x1a\n" if path.suffix == ".png" else start.startswith(b"<?xml")
    words = svg_words(tmp_path / "out" / "ap_over_resolution_synth.svg")
    assert "measured on synth val (rendered pictures, not COCO)" in words
    assert "one: reported, COCO val2017," in words
    assert "HRNet-W32, GT boxes (inferred)" in words
    assert "64x48" in words
    assert "mean over seeds" in words
    words = svg_words(tmp_path / "out" / "per_keypoint_synth_64x48.svg")
    assert "left shoulder" in words
    assert "-: not measured" in words


def test_default_folder_and_no_reported_curve(tmp_path: Path):
    results = write(tmp_path, [record("one", "64x48", 0.2, keypoint_ap={})])
    paths = plot(results)
    assert paths == [tmp_path / "figures" / "ap_over_resolution_synth.svg"]
    assert "reported" not in svg_words(paths[0])


def test_same_records_same_picture(tmp_path: Path):
    results = write(tmp_path, [record("one", "64x48", 0.2)])
    first = [path.read_bytes() for path in plot(results, tmp_path / "a", labels=labels, formats=BOTH)]
    assert first == [path.read_bytes() for path in plot(results, tmp_path / "b", labels=labels, formats=BOTH)]


def test_one_figure_per_dataset(tmp_path: Path):
    results = write(
        tmp_path,
        [record("one", "64x48", 0.2, keypoint_ap={}), record("one", "64x48", 0.2, dataset="my data", keypoint_ap={})],
    )
    assert [path.stem for path in plot(results)] == ["ap_over_resolution_my-data", "ap_over_resolution_synth"]


def test_result_file_without_a_crop_size(tmp_path: Path):
    results = write(tmp_path, [record("predictions", "", 0.2, backbone="")])
    assert [path.stem for path in plot(results)] == ["per_keypoint_synth_any"]


def test_nothing_to_draw(tmp_path: Path):
    with pytest.raises(ValueError, match="no records"):
        plot(tmp_path)
    write(tmp_path, [record("one", "64x48", None)])
    with pytest.raises(ValueError, match="1 records, none with an AP"):
        plot(tmp_path)


Draw = Callable[[list[Record]], dict[str, Axes]]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Axes of all figures over severity or height, by name, of records that were written and read."""

    def run(records: list[Record]) -> dict[str, Axes]:
        kinds = ("ap_over_severity", "ap_over_person_height")
        kept = newest(read_records(write(tmp_path, records)))
        return {each.name: each.draw().axes[0] for each in drawings(kept) if each.kind in kinds}

    return run


def drawn_lines(axes: Axes) -> list[tuple[list[float], list[float], bool]]:
    """x to the nearest integer, y, and whether they are joined, of everything drawn but whiskers."""
    found = [(bars.lines[0], bars.lines[0].get_linestyle() == "-") for bars in axes.containers]
    return [([round(x) for x in f.get_xdata()], [round(y, 6) for y in f.get_ydata()], joined) for f, joined in found]


def legend(axes: Axes) -> list[str]:
    (found,) = axes.figure.legends
    return [text.get_text().replace("\n", " ") for text in found.get_texts()]


def words_above(axes: Axes) -> tuple[str, str]:
    """Title and the text below it, each as one line."""
    details = axes.get_title(loc="left")
    return axes.figure.get_suptitle().replace("\n", " "), details.replace("\n", " ")


def sensor(method: str, severity: int, ap: float, weights: str = "w", **changes: object) -> Record:
    return record(method, "64x48", ap, crop="sensor", severity=severity, weights=weights, **changes)


def test_ap_over_severity(draw: Draw):
    figures = draw(
        [
            record("one", "64x48", 0.6, weights="w"),
            sensor("one", 1, 0.5),
            sensor("one", 5, 0.1),
            sensor("one", 3, 0.25),
            sensor("one", 3, 0.375, weights="second", seed=1),
            sensor("one", 1, 0.75, weights="second", seed=1),
            *(sensor("two", severity, ap, weights=f"two{severity}") for severity, ap in ((2, 0.5), (4, 0.25))),
            # other places, presets, sizes and data
            record("one", "64x48", 0.2, crop="jpeg", severity=2, weights="w"),
            record("one", "64x48", 0.2, crop="antialias", weights="w"),
            record("one", "128x96", 0.2, crop="sensor", severity=2, weights="w"),
            sensor("one", 2, 0.2, dataset="other"),
        ]
    )
    assert list(figures) == ["ap_over_severity_synth_64x48_sensor"]
    (axes,) = figures.values()
    assert legend(axes) == ["one, one network", "two, trained at each severity"]
    assert drawn_lines(axes) == [
        ([1, 3, 5], [62.5, 31.25, 10.0], True),
        ([0], [60.0], False),
        ([2, 4], [50.0, 25.0], True),
    ]
    assert axes.containers[1].lines[0].get_markerfacecolor() == "white"
    low, high = ([round(y, 6) for y in ends.get_ydata()] for ends in axes.containers[0].lines[1])
    assert (low, high) == ([50.0, 25.0, 10.0], [75.0, 37.5, 10.0])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["plain", "1", "2", "3", "4", "5"]
    title, details = words_above(axes)
    assert title == "AP over severity of sensor at 64x48, measured on synth val (rendered pictures, not COCO)"
    assert "open: plain crops, preset paper or none; mean over seeds" in details
    assert "severity" not in details


def test_severities_without_a_plain_point(draw: Draw):
    (axes,) = draw([sensor("one", 1, 0.5), sensor("one", 2, 0.4)]).values()
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "2", "3", "4", "5"]
    assert "plain" not in words_above(axes)[1]


def test_no_figure_of_one_severity(draw: Draw):
    assert draw([record("one", "64x48", 0.6), sensor("one", 3, 0.5), sensor("two", 4, 0.5)]) == {}


def test_ap_over_severity_of_copies(draw: Draw):
    given = {"scale": 4.0, "weights": "w", "persons": 70}
    figures = draw(
        [
            *(on_copy("one", ap, preset="jpeg", copy_severity=s, **given) for s, ap in ((1, 0.5), (2, 0.25))),
            on_copy("one", 0.75, preset="paper", **given),
            # half as small, of other people, of another split
            on_copy("one", 0.9, preset="jpeg", copy_severity=3, **given | {"scale": 2.0}),
            on_copy("one", 0.9, preset="jpeg", copy_severity=4, source="9876543210", **given),
            on_copy("one", 0.9, preset="jpeg", copy_severity=5, split="test", **given),
        ]
    )
    assert list(figures) == ["ap_over_severity_copies-01234567_val_scale-4_64x48_jpeg"]
    (axes,) = figures.values()
    assert legend(axes) == ["one, one network"]
    assert drawn_lines(axes) == [([1, 2], [50.0, 25.0], True), ([0], [75.0], False)]
    title, details = words_above(axes)
    assert title == (
        "AP over severity of jpeg, scale 4, at 64x48, measured on val of low-resolution copies of "
        "person_keypoints_val.json (sha256 01234567)"
    )
    assert "70 persons; data copy-paper-0-4.0, copy-jpeg-1-4.0, copy-jpeg-2-4.0; open: plain copies" in details


def test_ap_over_person_height(draw: Draw):
    given = {"weights": "w", "train_data": "coco/train"}
    figures = draw(
        [
            *(on_copy("one", ap, height=h, persons=n, **given) for h, ap, n in ((32, 0.25, 90), (64, 0.5, 80))),
            on_copy("two", 0.75, height=128, persons=7, **given),
            # other people, another preset, another size, and no level height
            on_copy("one", 0.9, height=128, source="9876543210", **given),
            on_copy("one", 0.9, height=128, preset="jpeg", copy_severity=3, **given),
            on_copy("one", 0.9, scale=4.0, **given),
            record("one", "64x48", 0.9, **given),
        ]
    )
    assert list(figures) == ["ap_over_person_height_copies-01234567_val_antialias_64x48"]
    (axes,) = figures.values()
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["32\nn=90", "64\nn=80", "128\nn=7"]
    assert list(axes.get_xticks()) == [32, 64, 128]
    assert legend(axes) == ["one, one network", "two, scored at one height"]
    ((x, y, joined), (lone_x, lone_y, _)) = drawn_lines(axes)
    assert x == pytest.approx([32, 64], rel=0.06)
    assert (y, joined) == ([25.0, 50.0], True)
    assert lone_x == pytest.approx([128], rel=0.06)
    assert lone_y == [75.0]
    title, details = words_above(axes)
    assert title.startswith("AP over person height at 64x48, antialias, measured on val of low-resolution copies of")
    assert "data copy-antialias-0-32, copy-antialias-0-64, copy-antialias-0-128; n persons scored" in details
    assert axes.get_xlabel() == "height of the annotated box (px)"


def test_heights_too_near_for_one_row_of_labels(draw: Draw):
    (axes,) = draw([on_copy("one", 0.5, height=h, weights="w") for h in (16, 17, 128)]).values()
    assert [text.get_text() for text in axes.get_xticklabels()] == ["16\nn=10", "\n\n17\nn=10", "128\nn=10"]


def test_figures_over_severity_and_height_are_written(tmp_path: Path):
    records = [sensor("one", severity, 0.5) for severity in (1, 2)] + [
        on_copy("one", 0.5, height=h, preset="jpeg", copy_severity=2) for h in (32, 48)
    ]
    paths = plot(write(tmp_path, records))
    stems = ["ap_over_severity_synth_64x48_sensor", "ap_over_person_height_copies-01234567_val_jpeg-severity-2_64x48"]
    assert [path.stem for path in paths[-2:]] == stems
    assert all(path.stat().st_size > 5000 for path in paths)
    assert "n=10" in svg_words(paths[-1])


def test_earlier_records_are_counted(draw: Draw):
    (axes,) = draw(
        [
            sensor("one", 1, 0.5, utc="2025-02-01T00:00:00Z"),
            sensor("one", 1, 0.4),
            sensor("one", 2, 0.3),
        ]
    ).values()
    assert drawn_lines(axes) == [([1, 2], [50.0, 30.0], True)]
    assert words_above(axes)[1].endswith("seed 0; the latest record of each seed counts, 1 earlier left out")


def found(records: list[Record], kind: str) -> dict[str, Axes]:
    """Axes of all figures of a kind, by name."""
    return {each.name: each.draw().axes[0] for each in drawings(records) if each.kind == kind}


def with_interval(each: Record, low: float, high: float, **cost: float) -> Record:
    return each.model_copy(update={"ci95": {"ap": (low, high)}, "cost": Cost(**cost)})


def wide_bars(axes: Axes) -> list[tuple[float, float]]:
    """Ends of the intervals drawn, from bottom to top."""
    bars = [bar for bar in axes.collections if isinstance(bar, LineCollection) and bar.get_linewidth()[0] == 5]
    return [(round(float(ends[0, 1]), 6), round(float(ends[1, 1]), 6)) for bar in bars for ends in bar.get_segments()]


def test_intervals_are_drawn_apart_from_the_spread_of_seeds():
    records = [
        with_interval(record("one", "64x48", 0.2), 0.1, 0.3),
        with_interval(record("one", "64x48", 0.4, seed=1), 0.2, 0.5),
        record("one", "128x96", 0.5),
    ]
    (axes,) = found(records, "ap_over_resolution").values()
    assert wide_bars(axes) == [(15.0, 40.0)]  # mean of the seeds' ends
    low, high = ([round(y, 6) for y in ends.get_ydata()] for ends in axes.containers[0].lines[1])
    assert (low, high) == ([20.0, 50.0], [40.0, 50.0])  # worst and best seed
    details = words_above(axes)[1]
    assert "mean over seeds, whiskers from worst to best" in details
    assert "wide bars: 95 % intervals over images" in details
    assert axes.get_ylim()[1] >= 50


def test_no_intervals_no_words_about_them():
    (axes,) = found([record("one", "64x48", 0.2)], "ap_over_resolution").values()
    assert wide_bars(axes) == []
    assert "intervals" not in words_above(axes)[1]


def test_ap_over_macs_has_the_front_and_counts_the_upscaler():
    given = {"one": (2e9, 0.25), "two": (4e9, 0.5), "three": (8e9, 0.375), "free": (0, 0.01)}
    records = [with_interval(record(name, "64x48", ap), ap, ap, macs=int(m)) for name, (m, ap) in given.items()]
    enlarged = record("one", "64x48", 0.75, upscaling={"boundary": "u8"}, pose="sr")
    records.append(enlarged.model_copy(update={"cost": Cost(macs=int(2e9), macs_sr=int(30e9))}))
    records.append(with_interval(record("other", "64x48", 0.9, flip=False), 0.8, 0.9, macs=1))
    axes = found(records, "ap_over_macs")
    assert sorted(axes) == ["ap_over_macs_synth_64x48", "ap_over_macs_synth_64x48_no-flip"]
    front = axes["ap_over_macs_synth_64x48"].lines[-1]
    assert front.get_drawstyle() == "steps-post"
    assert list(front.get_xdata()) == pytest.approx([2, 4, 32])
    assert list(front.get_ydata()) == pytest.approx([25, 50, 75])
    assert axes["ap_over_macs_synth_64x48"].get_xscale() == "log"
    assert len(legend(axes["ap_over_macs_synth_64x48"])) == 4  # a logarithm has no place for what costs nothing


def test_ap_over_latency_is_of_one_machine():
    def on(device: str, name: str) -> Record:
        each = with_interval(record(name, "64x48", 0.5), 0.4, 0.6, latency_ms=3.5)
        return each.model_copy(update={"provenance": each.provenance.model_copy(update={"device": device})})

    axes = found([on("cpu (a)", "one"), on("cpu (a)", "two"), on("cuda (b)", "one")], "ap_over_latency")
    names = ["ap_over_latency_synth_64x48_cpu-a-1-thread-float32", "ap_over_latency_synth_64x48_cuda-b-float32"]
    assert sorted(axes) == names
    assert axes[names[0]].get_xlabel() == "latency of one crop (ms), cpu (a), 1 thread, float32"
    assert len(legend(axes[names[0]])) == 2


def diagnosed(each: Record, good: float, aps: tuple[float | None, ...]) -> Record:
    ends = [(0.0, 32.0, 9), (32.0, 64.0, 8), (64.0, None, 7)]
    diagnosis = Diagnosis(
        heights=[
            HeightBin(low=low, high=high, persons=n, ap=ap, ci95=None if ap is None else (ap / 2, ap))
            for (low, high, n), ap in zip(ends, aps, strict=True)
        ],
        errors={"good": good, "jitter": 0.25, "inversion": 0.0, "swap": 0.0, "miss": 0.75 - good},
        undetected=0.125,
    )
    return each.model_copy(update={"diagnosis": diagnosis})


def test_ap_by_person_height():
    records = [
        diagnosed(record("one", "64x48", 0.5), 0.5, (None, 0.25, 0.5)),
        diagnosed(record("one", "64x48", 0.5, seed=1), 0.5, (None, 0.5, 0.5)),
        diagnosed(record("two", "64x48", 0.5, crop="antialias"), 0.5, (0.1, 0.2, 0.3)),
        record("three", "64x48", 0.5),
    ]
    axes = found(records, "ap_by_person_height")
    assert sorted(axes) == ["ap_by_person_height_synth_64x48", "ap_by_person_height_synth_64x48_antialias"]
    plain = axes["ap_by_person_height_synth_64x48"]
    assert [text.get_text() for text in plain.get_xticklabels()] == [
        "below 32\nn=9",
        "32 to 64\nn=8",
        "64 and more\nn=7",
    ]
    assert drawn_lines(plain) == [([1, 2], [37.5, 50.0], False)]
    assert wide_bars(plain) == [(18.75, 37.5), (25.0, 50.0)]
    assert "95 % intervals" in words_above(plain)[1]


def test_error_bars_add_up_from_good_to_bad():
    records = [
        diagnosed(record("one", "64x48", 0.5), 0.25, (0.1, 0.1, 0.1)),
        diagnosed(record("two", "64x48", 0.5), 0.5, (0.1, 0.1, 0.1)),
        diagnosed(record("two", "64x48", 0.5, seed=1), 0.75, (0.1, 0.1, 0.1)),
    ]
    (axes,) = found(records, "errors").values()
    assert [text.get_text() for text in axes.get_yticklabels()] == ["one", "two"]  # the best on top
    widths = [[round(bar.get_width(), 6) for bar in bars] for bars in axes.containers]
    assert widths == [[25.0, 62.5], [25.0, 25.0], [0.0, 0.0], [0.0, 0.0], [50.0, 12.5]]
    ends = [round(bar.get_x() + bar.get_width(), 6) for bar in axes.containers[-1]]
    assert ends == [100.0, 100.0]
    assert legend(axes) == ["good", "jitter", "inversion", "swap", "miss"]
    assert [text.get_text() for text in axes.texts] == ["12.5", "12.5"]


def test_other_pixels_and_upscalers_are_other_figures():
    records = [
        *(record("one", res, 0.5) for res in ("64x48", "128x96")),
        *(record("one", res, 0.5, crop="antialias") for res in ("64x48", "128x96")),
        record("one", "64x48", 0.5, crop="sensor", severity=3),
        record("one", "64x48", 0.5, upscaling={"boundary": "u8"}, pose="sr"),
    ]
    names = [each.name for each in drawings(records)]
    assert names == [
        "ap_over_resolution_synth",
        "ap_over_resolution_synth_antialias",
        "per_keypoint_synth_64x48",
        "per_keypoint_synth_128x96",
        "per_keypoint_synth_64x48_upscaled",
        "per_keypoint_synth_64x48_antialias",
        "per_keypoint_synth_128x96_antialias",
        "per_keypoint_synth_64x48_sensor-severity-3",
    ]
    assert all(each.lines == 1 for each in drawings(records))


def test_a_dataset_of_one_size_still_has_its_figure():
    assert [each.name for each in drawings([record("one", "64x48", 0.5, flip=False, keypoint_ap={})])] == [
        "ap_over_resolution_synth_no-flip"
    ]


def of_every_kind(lines: int) -> list[Record]:
    """Records of which every kind of figure is drawn, with so many lines and labels of every length."""
    methods = [f"method{number}" + "_of_a_long_name" * (number % 3) for number in range(lines)]
    found = []
    for number, name in enumerate(methods):
        for res in ("64x48", "128x96"):
            each = with_interval(record(name, res, 0.5), 0.25, 0.75, macs=10**8 * (number + 1), latency_ms=3.5 + number)
            found.append(diagnosed(each, 0.25, (0.1, 0.2, 0.3)))
        found += [sensor(name, severity, 0.5, keypoint_ap={}) for severity in (1, 2)]
        found += [on_copy(name, 0.5, height=h, weights="w", keypoint_ap={}) for h in (32, 64)]
    return found


@pytest.mark.parametrize("lines", [1, 20])
def test_nothing_is_cut_off_and_nothing_covers_another(lines: int):
    drawn = {each.kind: each.draw() for each in drawings(of_every_kind(lines), labels)}
    assert len(drawn) == 8
    for kind, figure in drawn.items():
        (axes,), (key,) = figure.axes, figure.legends
        ruler = Ruler(figure.dpi)
        inner = axes.get_tightbbox(ruler)
        legend_box, heading = key.get_window_extent(ruler), figure._suptitle.get_window_extent(ruler)
        for box in (inner, legend_box, heading):
            assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, kind
            assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1, kind
        assert not any(
            Bbox.intersection(one, two) for one, two in ((inner, legend_box), (inner, heading), (heading, legend_box))
        ), kind
        assert axes.bbox.width > 0.4 * figure.bbox.width
        # a label does not stand on the numbers of its axis
        for axis in (axes.xaxis, axes.yaxis):
            if axis.label.get_text():
                numbers = Bbox.union([t.get_window_extent(ruler) for t in axis.get_ticklabels() if t.get_text()])
                assert not Bbox.intersection(axis.label.get_window_extent(ruler), numbers), kind


def test_processes_draw_what_one_does(tmp_path: Path):
    records = write(tmp_path / "results", of_every_kind(2))
    code = (
        "import sys; from pathlib import Path; from lrbench.report import plots; plots._processors = lambda: {0};"
        "drawn = plots.plot(Path(sys.argv[1]), Path(sys.argv[2]), formats=('png', 'svg'));"
        "print(*drawn, sep='\\n'); assert 'torch' not in sys.modules"
    )
    folders = [tmp_path / "one", tmp_path / "three"]
    for processes, out in zip((1, 3), folders, strict=True):
        command = [sys.executable, "-c", code.format(processes), str(records), str(out)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert sorted(map(str, out.iterdir())) == sorted(said)
    one, three = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert len(one) == 2 * len(drawings(newest(read_records(records))))
    assert one == three


def test_a_figure_that_another_process_cannot_write(tmp_path: Path):
    records = write(tmp_path / "results", of_every_kind(1))
    for each in drawings(newest(read_records(records))):
        (tmp_path / "out" / f"{each.name}.svg").mkdir(parents=True)
    code = (
        "import sys; from pathlib import Path; from lrbench.report import plots; plots._processors = lambda: 2;"
        "plots.plot(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(records), str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1  # the one of the process that was asked
    assert "IsADirectoryError" in done.stderr
