"""What `lrbench ls` lists: counts, sizes, years, what ships and is kept, and tables with rows of others."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import lrbench.method
from lrbench import listing as module
from lrbench import published
from lrbench.geometry import Size
from lrbench.listing import (
    COUNTED,
    SHIPPED_KINDS,
    SIZES,
    SOURCES,
    built_in,
    counts,
    facts,
    listing,
    reported_labels,
    shipped,
    year,
)
from lrbench.method import costs, list_methods, load_method, method_names
from lrbench.report.reported import table
from lrbench.report.summaries import listing_table

ANY = {"backbone": "hrnet_w32", "sizes": ["64x48"], "params": {"64x48": 5}, "macs": {"64x48": 7}}
PICKY = '''"""Takes crops from 128x96 on."""
from lrbench.methods import hrnet

PAPER = "arXiv:2012.00001"

def build(size, backbone: str = "hrnet_w16"):
    if size.height < 128:
        raise ValueError(f"picky cannot take {size}")
    return hrnet.build(size, backbone)
'''


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LRBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lrbench.method, "_plugins", {})
    return tmp_path / "cache"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names whose networks were counted; nothing is really counted, and nothing ships."""
    names: list[str] = []
    monkeypatch.setattr(module, "shipped", lambda: None)

    def count(name: str) -> dict[str, Any]:
        names.append(name)
        return dict(ANY)

    monkeypatch.setattr(module, "facts", count)
    return names


@pytest.mark.parametrize(
    ("paper", "expected"),
    [
        ("Sun et al., CVPR 2019, arXiv:1902.09212", 2019),
        ("Wang et al., Pattern Recognition 126, 2022, arXiv:2109.09090", 2022),
        ("Yu et al., arXiv:1902.09212, CVPR 2020", 2020),
        ("Gu et al., arXiv:2405.12247", 2024),
        ("none: a baseline of this benchmark", None),
        ("", None),
    ],
)
def test_year(paper: str, expected: int | None):
    assert year(paper) == expected


def test_every_paper_of_ours_has_a_year():
    for row in list_methods():
        assert row.paper.startswith("none") or year(row.paper), row


@pytest.mark.parametrize("name", method_names())
def test_counts_without_arithmetic_are_those_with(name: str):
    method = load_method(name, Size(64, 48), "hrnet_w16")
    assert counts(method) == costs(method)


def test_networks_that_need_numbers_are_counted_too():
    def build() -> Any:
        model = load_method("hrnet", Size(64, 48), "hrnet_w16").build_model()
        assert float(next(model.parameters()).detach().abs().sum()) > 0  # impossible without numbers
        return model

    method = load_method("hrnet", Size(64, 48), "hrnet_w16")
    assert counts(dataclasses.replace(method, build_model=build)) == costs(method)


def test_facts():
    assert facts("hrnet") == {
        "backbone": "hrnet_w32",
        "sizes": [str(size) for size in SIZES],
        "params": {"64x48": 12_802_417, "256x192": 28_536_113},
        "macs": {"64x48": 429_004_800, "256x192": 7_645_003_776},
    }
    assert facts("meanpose")["params"] == {"64x48": 0, "256x192": 0}


def row_of(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (row,) = [row for row in rows if row["name"] == name]
    return row


@pytest.mark.usefixtures("cache")
def test_sizes_that_are_refused_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "picky.py").write_text(PICKY)
    (tmp_path / "never.py").write_text(PICKY.replace("< 128", "< 1000"))
    (tmp_path / "broken.py").write_text(PICKY.replace("if size.height", "if size.tallness"))
    real = facts
    monkeypatch.setattr(module, "shipped", lambda: None)
    monkeypatch.setattr(module, "facts", lambda name: real(name) if name in ("picky", "never", "broken") else ANY)
    rows = listing("methods", [tmp_path / f"{name}.py" for name in ("picky", "never", "broken")])
    picky = row_of(rows, "picky")
    assert picky["sizes"] == ["128x96", "128x128", "192x144", "256x192", "384x288"]
    assert list(picky["params"]) == list(picky["macs"]) == [str(COUNTED[1])]
    assert (picky["year"], picky["backbone"], picky["error"]) == (2020, "hrnet_w16", None)
    assert row_of(rows, "never")["error"] == "ValueError: picky cannot take 64x48"
    assert row_of(rows, "broken")["error"].startswith("AttributeError: 'Size' object has no attribute")
    assert row_of(rows, "broken")["params"] == {}


def in_a_new_process(expression: str, prelude: str = "pass") -> tuple[Any, bool]:
    """JSON of what an expression about the module gives there, and whether torch was imported for it."""
    code = (
        f"import json, sys; from lrbench import listing; {prelude}; value = {expression};"
        "print(json.dumps([value, 'torch' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    value, torch = json.loads(done.stdout)
    return value, torch


def test_a_kept_listing_needs_no_torch(cache: Path, calls: list[str]):
    rows = listing("methods", [])
    assert calls == [row["name"] for row in rows] == method_names()
    assert listing("methods", []) == rows
    assert len(calls) == len(rows)
    nothing_ships = "listing.shipped = lambda: None"
    assert in_a_new_process("listing.listing('methods', [])", nothing_ships) == (rows, False)


STALE = "lrbench/listing.json is not what the code says; write it again with: python -m lrbench.listing"


@pytest.fixture(scope="module")
def ready() -> dict[str, Any]:
    found = shipped()
    assert found is not None, STALE
    return found


@pytest.mark.parametrize("name", method_names())
def test_what_ships_is_what_the_networks_say(ready: dict[str, Any], name: str):
    row = {**row_of(ready["rows"]["methods"], name), "year": None}
    (item,) = [item for item in list_methods() if item.name == name]
    assert row == {**vars(item), "year": None, **facts(name)}, STALE


def test_all_else_that_ships(ready: dict[str, Any], calls: list[str]):
    made = built_in()
    assert calls == method_names() == [row["name"] for row in ready["rows"]["methods"]]
    assert {**made["rows"], "methods": None} == {**ready["rows"], "methods": None}, STALE
    assert (made["code"], made["labels"]) == (ready["code"], ready["labels"]), STALE
    assert [row["year"] for row in ready["rows"]["methods"]] == [year(row.paper) for row in list_methods()]


@pytest.mark.parametrize("kind", SHIPPED_KINDS)
def test_nobody_waits_for_torch_where_nothing_is_kept(cache: Path, ready: dict[str, Any], kind: str):
    assert in_a_new_process(f"listing.listing({kind!r}, [])") == (ready["rows"][kind], False)
    assert not cache.exists()


def test_the_same_rows_beside_torch_and_plugins(cache: Path, ready: dict[str, Any], tmp_path: Path):
    (tmp_path / "picky.py").write_text(PICKY)
    *rows, picky = listing("methods", [tmp_path / "picky.py"])
    assert rows == ready["rows"]["methods"]
    assert picky["sizes"][0] == "128x96"
    for kind in ("backbones", "upscalers", "tables"):
        assert listing(kind, []) == ready["rows"][kind]


def test_names_in_papers(ready: dict[str, Any]):
    names = {name: list(lrbench.method.reported_labels(name)) for name in [*method_names(), "predictions"]}
    assert "HRNet" in names["hrnet"]
    assert {name: list(reported_labels(name)) for name in names} == names
    code = "{name: listing.reported_labels(name) for name in " + repr(list(names)) + "}"
    assert in_a_new_process(code) == (names, False)


def test_edited_code_is_not_described_by_what_ships(ready: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "SOURCES", (*SOURCES, "geometry.py"))
    assert shipped.__wrapped__() is None


def test_an_edited_file_that_ships(ready: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "listing.json"
    monkeypatch.setattr(module, "SHIPPED", path)
    for content in ("", "[]", "{}", "\x00"):
        path.write_text(content)
        assert shipped.__wrapped__() is None
    path.write_text(json.dumps(ready))
    assert shipped.__wrapped__() == ready


def test_what_changes_is_counted_again(cache: Path, calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plugin = tmp_path / "picky.py"
    plugin.write_text(PICKY)
    listing("methods", [plugin])
    listing("methods", [plugin])
    assert calls.count("picky") == 1
    plugin.write_text(PICKY + "\n")
    listing("methods", [plugin])
    assert calls.count("picky") == 2
    assert calls.count("hrnet") == 1
    monkeypatch.setattr(module, "version", lambda package: "another")
    listing("methods", [])
    assert calls.count("hrnet") == 2


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"code": 1}', "\x00"])
def test_damaged_shelf_is_counted_anew(cache: Path, calls: list[str], content: str):
    rows = listing("methods", [])
    (shelf,) = cache.iterdir()
    good = shelf.read_bytes()
    shelf.write_text(content)
    assert listing("methods", []) == rows
    assert len(calls) == 2 * len(rows)
    assert shelf.read_bytes() == good


def test_folder_that_cannot_be_written(tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LRBENCH_CACHE", str(tmp_path / "file"))
    assert [row["name"] for row in listing("methods", [])] == method_names()


def test_progress_only_while_counting(cache: Path, calls: list[str]):
    said: list[tuple[Any, ...]] = []
    listing("methods", [], lambda *words: said.append(words))
    total = len(calls)
    assert said[0] == ("count networks", 0, total, calls[0])
    assert said[-1] == ("count networks", total, total, "")
    said.clear()
    listing("methods", [], lambda *words: said.append(words))
    assert not said


def test_tables_name_the_rows_that_can_only_be_reported():
    rows = {row["name"]: row for row in listing("tables", [])}
    others = rows["cal/9"]["reported_only"]
    assert {"CPN", "CPN (ensemble)", "RMPE"} <= set(others)
    assert not {"CAL", "HRNet", "UDP", "SimpleBaseline"} & set(others)
    number = sum(row.method in others for row in table("cal/9"))
    assert (
        f"; {number} of a method that is not one of ours ({', '.join(others)}): reported only"
        in (rows["cal/9"]["summary"])
    )
    for name in ("cal/6", "cal/7", "cal/8"):  # variants of a method of ours are ours
        assert rows[name]["reported_only"] == []
        assert "reported only" not in rows[name]["summary"]


def test_tables_follow_the_methods_there_are(monkeypatch: pytest.MonkeyPatch):
    labels = {"hrnet": {"RMPE": {}}}
    monkeypatch.setattr(published, "reported_settings", lambda name: labels.get(name, {}))
    rows = {row["name"]: row for row in listing("tables", [])}
    assert "RMPE" not in rows["cal/9"]["reported_only"]
    assert "HRNet" in rows["cal/9"]["reported_only"]


def test_table_for_people():
    row = {"name": "one", "summary": "Idea [x].", "paper": "A, 2020", "source": "dist 1.0", "error": None, **ANY}
    bad = {**row, "name": "two", "error": "ImportError: gone", "source": "built-in", "sizes": [], "params": {}}
    text = io.StringIO()
    Console(width=200, file=text).print(listing_table("methods", [row, {**bad, "macs": {}}]))
    for words in ("Idea [x].", "A, 2020", "dist 1.0", "cannot be loaded: ImportError: gone", "64x48"):
        assert words in text.getvalue()
