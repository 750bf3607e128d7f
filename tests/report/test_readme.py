"""The page of a results folder: rebuilt from its records, and what each of its tables says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from sample_records import record

from lrbench.records import Cost, Diagnosis, HeightBin, Metrics, Record, write_record
from lrbench.report.formats import Layout, Spread
from lrbench.report.leaderboard import leaderboard
from lrbench.report.plots import save_svg
from lrbench.report.readme import (
    COMMAND,
    FIGURES,
    benchmarks,
    error_kinds,
    figures,
    person_heights,
    read_notes,
    readme,
    resolutions,
    with_front,
    write,
)

RESULTS = Path(__file__).parents[2] / "results"
STALE = f"results/ is not what its records say; write it again with: {COMMAND}"


@pytest.fixture
def committed() -> Path:
    if not (RESULTS / "README.md").is_file():
        pytest.skip("this checkout has no results")
    return RESULTS


def test_the_committed_page_is_what_the_records_say(committed: Path):
    same = (committed / "README.md").read_bytes() == readme(committed).encode()
    assert same, STALE


@pytest.mark.slow
def test_the_committed_figures_are_what_the_records_say(committed: Path, tmp_path: Path):
    drawn = figures(committed)
    files = {path.stem: path for path in (committed / FIGURES).iterdir()}
    assert sorted(files) == sorted(drawing.name for drawing in drawn), STALE
    made_by = {re.search(r"Matplotlib v([\w.+-]+)", path.read_text())[1] for path in files.values()}
    if made_by != {matplotlib.__version__}:
        pytest.skip(f"figures were drawn by matplotlib {', '.join(sorted(made_by))}, here is {matplotlib.__version__}")
    for drawing in drawn:
        path = save_svg(drawing.draw(), tmp_path, drawing.name)
        assert path.read_bytes() == files[drawing.name].read_bytes(), f"{path.name}: {STALE}"


def results_of(folder: Path, records: list[Record]) -> Path:
    for each in records:
        write_record(folder, each)
    return folder


def column(table: Layout, heading: str, group: str = "") -> list[Any]:
    """Values of a column; of several with this heading the one of the group."""
    (found,) = (
        c for c in table.columns if c.heading == heading and (not group or (c.group and c.group.heading == group))
    )
    return [cell.value for cell in found.cells]


def costing(macs: int | None, each: Record) -> Record:
    return each.model_copy(update={"cost": Cost(macs=macs)})


def test_sections_figures_and_notes(tmp_path: Path):
    records = [record(name, res, 0.2) for name in ("one", "two", "three") for res in ("64x48", "128x96")]
    results = results_of(tmp_path, records)
    (results / "notes.md").write_text("Above all.\n\n## Keypoints\n\nEyes are *hard*.\n\n```\n## no heading\n```\n")
    page, *drawn = write(results)
    text = page.read_text()
    assert re.findall(r"^## .+", text, re.MULTILINE) == [
        "## What was measured", "## Leaderboards", "## AP over resolution", "## Keypoints", "## no heading",
        "## Provenance",
    ]  # fmt: skip
    assert text.index("Above all.") < text.index("## What was measured")
    assert "## Keypoints\n\nEyes are *hard*.\n\n```\n## no heading\n```\n\n![" in text
    links = re.findall(r"\]\((.+?)\)", text)
    assert links == [str(path.relative_to(results)) for path in drawn]
    assert all(path.is_file() for path in drawn)
    assert "figures/per_keypoint_synth_64x48.svg" in links


def test_other_pixels_have_a_section_and_their_tables_are_closed(tmp_path: Path):
    records = [record("one", "64x48", 0.2), record("one", "64x48", 0.1, crop="sensor", severity=3)]
    text = readme(results_of(tmp_path, records))
    plain, other = text.index("\n**synth val"), text.index("<details><summary>synth val")
    assert text.index("## Leaderboards") < plain < text.index("## Degraded pixels") < other
    assert "pixels: crops sensor severity 3" in text[other : text.index("</summary>", other)]
    assert text.count("<details>") == text.count("\n\n</details>\n") == 1


def test_a_leaderboard_without_ap_has_no_front():
    pck = record("one", "64x48", None).model_copy(update={"further": {"pck10": 0.5}})
    (table,) = leaderboard([pck])
    assert with_front(table) is table


def test_the_order_of_files_does_not_matter(tmp_path: Path):
    records = [record(name, "64x48", 0.2, seed=seed) for name in ("one", "two") for seed in (0, 1)]
    pages = [readme(results_of(tmp_path / name, order)) for name, order in (("a", records), ("b", records[::-1]))]
    assert pages[0] == pages[1]


def test_no_records(tmp_path: Path):
    with pytest.raises(ValueError, match="no records"):
        readme(tmp_path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [("## Weather\nfine\n", "'Weather' is not of the page, which has What"), ("## Cost\n## Cost\n", "there twice")],
)
def test_notes_that_would_be_lost(tmp_path: Path, text: str, problem: str):
    path = tmp_path / "notes.md"
    path.write_text(text)
    with pytest.raises(ValueError, match=problem):
        read_notes(path)


def test_the_front_of_a_leaderboard():
    given = {"cheap": (10, 0.2), "dear": (30, 0.5), "dearer": (40, 0.4), "unknown": (None, 0.9), "free": (0, 0.1)}
    (table,) = leaderboard(costing(macs, record(name, "64x48", ap)) for name, (macs, ap) in given.items())
    marked = with_front(table)
    found = dict(zip(column(marked, "Method"), column(marked, "Front"), strict=True))
    assert found == {"cheap": "yes", "dear": "yes", "free": "yes", "dearer": "", "unknown": ""}
    assert marked.rows == table.rows
    assert [c.heading for c in marked.columns if c.heading != "Front"] == [c.heading for c in table.columns]


def test_seeds_are_averaged_before_the_front():
    records = [costing(10, record("one", "64x48", ap, seed=seed)) for seed, ap in enumerate((0.1, 0.5))]
    (table,) = leaderboard([*records, costing(10, record("two", "64x48", 0.4))])
    marked = with_front(table)
    assert dict(zip(column(marked, "Method"), column(marked, "Front"), strict=True)) == {"one": "", "two": "yes"}


def test_resolutions_have_a_table_for_every_range():
    aps = {"64x48": 0.1, "128x96": 0.3, "256x192": 0.4}
    records = [record("one", res, ap) for res, ap in aps.items()]
    records += [record(name, res, ap / 2) for name in ("two", "three") for res, ap in list(aps.items())[:2]]
    records += [record("three", "64x48", 0.07, seed=1), record("lone", "64x48", 0.9)]
    short, long = resolutions(records)
    assert short.title.endswith("crops 64x48 to 128x96")
    assert column(short, "Method") == ["three", "two"]
    assert column(short, "Area") == pytest.approx([100 * (0.06 + 0.15) / 2, 100 * (0.05 + 0.15) / 2])
    assert column(short, "AP 64x48") == [Spread(pytest.approx(6.0), pytest.approx(2**0.5), 2), pytest.approx(5.0)]
    assert column(short, "Epochs") == ["2, 2", "2, 2"]
    assert column(long, "Method") == ["one"]
    assert column(long, "Half AP") == ["91 px"]  # 64 px and half an octave


def diagnosed(each: Record, ap: float, persons: int = 7) -> Record:
    diagnosis = Diagnosis(
        heights=[
            HeightBin(low=0, high=32, persons=persons, ap=None),
            HeightBin(low=32, high=None, persons=90, ap=ap, ci95=(ap - 0.1, ap + 0.1)),
        ],
        errors={"good": ap, "jitter": 0.2, "inversion": 0.0, "swap": 0.1, "miss": 0.7 - ap},
        gains={"jitter": 0.05, "miss": None},
        pck={"0.1": 0.6},
        pixel_error=3.25,
        undetected=0.02,
    )
    return each.model_copy(update={"diagnosis": diagnosis})


def test_person_heights_have_counts_and_intervals():
    records = [diagnosed(record("one", "64x48", 0.5, seed=seed), ap) for seed, ap in enumerate((0.4, 0.6))]
    records += [diagnosed(record("two", "64x48", 0.6), 0.3), record("none", "64x48", 0.9)]
    (table,) = person_heights(records)
    assert table.captions[-1] == "95% CI: over images; of several seeds the mean of their ends."
    assert not any("seeds" in caption for each in person_heights(records[2:]) for caption in each.captions)
    assert column(table, "Method") == ["two", "one"]
    assert column(table, "AP", "below 32 px, n=7") == [None, None]
    assert column(table, "AP", "32 and more px, n=90") == [30.0, Spread(50.0, pytest.approx(200**0.5), 2)]
    low, high = zip(*column(table, "95% CI", "32 and more px, n=90"), strict=True)
    assert (low, high) == (pytest.approx((20, 40)), pytest.approx((40, 60)))


def test_error_kinds():
    (table,) = error_kinds([diagnosed(record("one", "64x48", 0.5), 0.25), record("none", "64x48", 0.9)])
    shares = "keypoints of matched persons (%)"
    found = [column(table, kind, shares)[0] for kind in ("good", "jitter", "swap", "miss")]
    assert found == pytest.approx([25, 20, 10, 45])
    assert column(table, "miss", "AP won by mending all") == [None]
    assert column(table, "jitter", "AP won by mending all") == [5.0]
    assert (column(table, "undetected (%)"), column(table, "picture"), column(table, "crop")) == ([2.0], [3.25], [None])
    assert column(table, "0.1") == [60.0]


def test_records_without_a_diagnosis_have_no_such_tables():
    records = [record("one", "64x48", 0.5)]
    assert not [*person_heights(records), *error_kinds(records), *resolutions(records)]


def test_benchmarks(tmp_path: Path):
    rows = [{"name": "a", "ms": {"median": 1.5, "min": 1, "max": 2}, "params": 7}, {"name": "b", "rate": 2.25}]
    (tmp_path / "speed.json").write_text(json.dumps({"threads": 2, "load": [1.5, 2], "flip": True, "rows": rows}))
    once = {"median": 8.5, "min": 8.5, "max": 8.5}
    levels = {"image": {"work": {"sum": 5.72}}, "crop": {"work": {"sum": once, "more": 1}}}
    (tmp_path / "degrade.json").write_text(json.dumps({"cores": 2, "levels": levels}))
    (tmp_path / "a_bar.json").write_text(json.dumps({"machine": {"cores": 2}, "lines": [{"what": "a bar"}]}))
    degrade, speed = benchmarks(tmp_path)
    assert speed.captions == ["threads 2; load 1.5, 2; flip yes."]
    assert [column(speed, name) for name in ("name", "ms", "params", "rate")] == [
        ["a", "b"], ["1.5 (1 to 2)", None], [7.0, None], [None, 2.25],
    ]  # fmt: skip
    assert [c.text(1) for c in speed.columns] == ["b", "-", "-", "2.25"]
    assert [c.heading for c in degrade.columns] == ["", "image", "crop"]
    assert [[c.text(row) for c in degrade.columns] for row in range(degrade.rows)] == [
        ["work sum", "5.72", "8.5"], ["work more", "-", "1"],
    ]  # fmt: skip
    (tmp_path / "speed.json").write_text("{")
    with pytest.raises(ValueError, match=r"benchmark .*speed\.json: .*tests/benchmarks/speed\.py"):
        list(benchmarks(tmp_path))


def test_an_interval_is_printed_beside_its_ap(tmp_path: Path):
    known = record("one", "64x48", 0.5).model_copy(
        update={"ci95": {"ap": (0.45, 0.56)}, "metrics": Metrics(ap=0.5, ap50=None)}
    )
    text = readme(results_of(tmp_path, [known, record("two", "64x48", 0.4)]))
    assert re.search(r"^\| one .*\| 50\.0 \| 45\.0\.\.56\.0 \| - ", text, re.MULTILINE)
    assert re.search(r"^\| two .*\| 40\.0 \| - ", text, re.MULTILINE)
