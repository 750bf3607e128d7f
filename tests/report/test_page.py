from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import Browser
from sample_records import record
from test_sketches import person

from lrbench.datasets.images import DataError
from lrbench.geometry import Size
from lrbench.method import Listing
from lrbench.records import Diagnosis, HeightBin, Record, write_record
from lrbench.report.page import Notes, groups_of, metric_heading, no_predictions, nothing_reported, page, write_page
from lrbench.report.reported import comparison, find

EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


class Table(HTMLParser):
    """Rows of the leaderboard as lists of text, and every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data

    def column(self, heading: str) -> list[str]:
        """Cells below a heading, without those of the groups' headings."""
        place = self.rows[0].index(heading)
        return [row[place].strip() for row in self.rows[1:] if len(row) == len(self.rows[0])]


def table_of(text: str) -> Table:
    return Table(text[text.index("<table") : text.index("</table>")])


def data_of(text: str) -> Any:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)


def rich(method: str, res: str, ap: float | None, **changes: Any) -> Record:
    """With an interval, a diagnosis and costs."""
    own = record(method, res, ap, **changes)
    errors = {"good": 0.5, "jitter": 0.2, "inversion": 0.1, "swap": 0.05, "miss": 0.15}
    return own.model_copy(
        update={
            "ci95": {} if ap is None else {"ap": (ap - 0.02, ap + 0.03)},
            "cost": own.cost.model_copy(
                update={"params": 2_500_000, "macs": 10**8 * len(method) * len(res), "latency_ms": 10.0 * len(method)}
            ),
            "diagnosis": Diagnosis(
                heights=[
                    HeightBin(low=0, high=32, persons=12, ap=0.125),
                    HeightBin(low=32, high=None, persons=3, ap=None),
                ],
                errors=errors,
                gains={"jitter": 0.031},
                pck={"0.1": 0.77},
                pixel_error=4.5,
            ),
        }
    )


RECORDS = [
    rich("one", "64x48", 0.2),
    rich("one", "128x96", 0.4),
    rich("three", "64x48", 0.3),
    rich("three", "128x96", None),
    rich("one", "64x48", 0.25, flip=False, settings={"note": EVIL}),
    rich("one", "64x48", 0.26, flip=False, settings={"note": "plain"}),
    rich("three", "64x48", 0.9, dataset="other", data_hash="cccc"),
]


def test_rows_are_grouped_by_protocol_and_say_so():
    groups = groups_of(RECORDS, nothing_reported, no_predictions)
    assert [group.letter for group in groups] == ["A", "B", "C"]
    assert [len(group.rows) for group in groups] == [1, 4, 2]
    assert groups[0].words.startswith("other val")
    assert "; flip test;" in groups[1].words and "no flip test" in groups[2].words
    assert [row.record.metrics.ap for row in groups[1].rows] == [0.4, 0.3, 0.2, None]
    for group in groups:
        assert all(record in [row.record for row in group.rows] for line in group.lines for record in line.records)


def test_groups_that_read_the_same_tell_their_hashes():
    first, second = (record("one", "64x48", 0.5, data_hash=name * 10) for name in "ab")
    words = [group.words for group in groups_of([first, second], nothing_reported, no_predictions)]
    assert [re.search(r"data (\w+)", text)[1] for text in words] == ["aaaaaaaa", "bbbbbbbb"]  # type: ignore[index]


def test_table_can_be_read_without_scripts():
    table = table_of(page(RECORDS))
    assert table.column("AP") == ["90.0", "40.0", "30.0", "20.0", "-", "26.0", "25.0"]
    assert table.column("95 % interval") == [
        "88.0..93.0", "38.0..43.0", "28.0..33.0", "18.0..23.0", "-", "24.0..29.0", "23.0..28.0",
    ]  # fmt: skip
    assert table.column("Size") == ["64x48", "128x96", "64x48", "64x48", "128x96", "64x48", "64x48"]
    assert table.column("Params (M)") == ["2.5"] * 7
    assert "reported AP" not in table.rows[0] and "AP50" not in table.rows[0]  # nobody has any


def test_earlier_records_of_a_row_are_left_out_and_counted():
    old = record("one", "64x48", 0.1, utc="2024-01-01T00:00:00Z")
    text = page([record("one", "64x48", 0.2), old])
    assert table_of(text).column("AP") == ["20.0"]
    assert "1 earlier of the same rows left out" in text


def test_failures_are_rows_with_their_reason():
    failed = record("one", "64x48", None, status="failed", utc="2026-01-01T00:00:00Z").model_copy(
        update={"reason": "loss <NaN>"}
    )
    text = page([record("one", "64x48", 0.2), failed])
    assert table_of(text).column("AP") == ["20.0", "-"]
    assert "failed: loss &lt;NaN&gt;" in text and "<NaN>" not in text


def test_results_of_other_tools_are_rows_with_their_file():
    files = [
        record("predictions", "64x48", ap, boxes="unknown", flip=False, recipe="none", settings={"file": name})
        for name, ap in (("a.json", 0.1), ("b.json", 0.2))
    ]
    files = [own.model_copy(update={"call": own.call.model_copy(update={"res": "", "backbone": ""})}) for own in files]
    text = page([*files, record("one", "64x48", 0.3)])
    table = table_of(text)
    assert table.column("Method") == ["predictionsb.json", "predictionsa.json", "one"]
    assert table.column("Size") == ["-", "-", "64x48"]
    assert table.column("Training")[:2] == ["-", "-"]
    assert "boxes and flip test not known" in text and "boxes from unknown" not in text


def test_metrics_of_other_protocols_have_columns_and_rank_their_rows():
    own = [
        record("one", "64x48", None, seed=seed).model_copy(update={"further": {"pckh50": score, "pckh50_head": None}})
        for seed, score in enumerate((0.3, 0.6))
    ]
    table = table_of(page(own))
    assert table.column("PCKh@0.5") == ["60.0", "30.0"]
    assert table.column("AP") == ["-", "-"]
    known = own[0].model_copy(update={"further_ci95": {"pckh50": (0.25, 0.5), "pckh50_head": (0.1, 0.2)}})
    assert table_of(page([known, own[1]])).column("95 % interval") == ["-", "PCKh@0.5 25.0..50.0"]
    assert metric_heading("pckh50_head") == "PCKh@0.5 (head)"
    assert metric_heading("ap_m") == "AP(M)"


def test_letters_stand_in_their_order():
    notes = Notes()
    assert [notes.letters(texts) for texts in (["x", "y"], ["z", "y", "z", "x"], [])] == ["a,b", "a,b,c", ""]


def beside_udp(own: Record) -> dict[str, Any] | None:
    row = find(("UDP",), "hrnet_w32", Size(64, 48))
    assert row is not None
    return comparison(row, own)


def test_reported_numbers_are_another_thing():
    coco = {"dataset": "coco", "split": "val2017", "persons": 6352}
    text = page([record("one", "64x48", 0.2), record("one", "64x48", 0.2, **coco)], beside=beside_udp)
    table = table_of(text)
    marks = [re.fullmatch(r"47\.4 ([a-z,]+)", cell) for cell in table.column("reported AP")]
    assert all(marks)
    notes = dict(re.findall(r"<dt>([a-z]+)</dt><dd>(.*?)</dd>", text))
    told = [[notes[letter] for letter in mark[1].split(",")] for mark in marks if mark]
    on_coco, on_synth = told
    assert any("arXiv:2109.09090, table" in note for note in on_coco)
    assert any(note.startswith("data: synth") for note in on_synth)
    assert not any(note.startswith("data: ") for note in on_coco)
    # what was scored on other data is never drawn into the same plot
    assert [row["reported"]["same_data"] for row in data_of(text)["rows"]] == [True, False]


def test_everything_from_records_is_escaped():
    text = page(RECORDS, methods=[Listing("one", EVIL, EVIL, EVIL)])
    assert "<img src=x" not in text
    scripts = [attributes for tag, attributes in Table(text).tags if tag == "script"]
    assert len(scripts) == 2  # data, and the page's own
    notes = [row["name"] for row in data_of(text)["rows"]]
    assert f"note={EVIL}" in notes  # in the data it is what it was


def test_the_page_loads_nothing_and_runs_only_its_own_script():
    methods = [Listing("one", "A method.", "Someone, arXiv:1911.07524", "built-in")]
    text = page(RECORDS, methods=methods)
    links = [v for _, attributes in Table(text).tags for k, v in attributes.items() if k in ("src", "href", "srcset")]
    outside = [link for link in links if link and not link.startswith(("#", "data:,"))]
    assert outside == ["https://arxiv.org/abs/1911.07524"]
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    for kind, tag in (("script", "<script>"), ("style", "<style>")):
        inline = text.split(tag, 1)[1].split(f"</{kind}>", 1)[0]
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "url(" not in text and "@import" not in text


def test_the_same_records_make_the_same_page():
    assert page(RECORDS) == page(RECORDS)


def test_many_records_make_a_small_page():
    records = [
        rich(f"method{method}", res, 0.3 + 0.001 * seed, seed=seed, settings={"sigma": float(method)})
        for method in range(20)
        for res in ("64x48", "128x96", "256x192")
        for seed in range(10)
    ]
    text = page(records, predictions=lambda own: [person(number, number) for number in range(5)])
    assert len(data_of(text)["rows"]) == 600
    assert len(text.encode()) < 5_000_000


def test_written_from_a_folder_with_its_predictions(tmp_path: Path):
    results = tmp_path / "results"
    for own in RECORDS[:2]:
        write_record(results, own, [person(5, 1.0)])
    out = write_page(results, tmp_path / "a" / "b")
    assert out == tmp_path / "a" / "b" / "index.html"
    data = data_of(out.read_text())
    assert [len(row["figures"]) for row in data["rows"]] == [1, 1]
    assert data["groups"][0]["drawn"]["images"] == [5]
    (damaged, *_) = results.rglob("*.predictions.json.gz")
    damaged.write_bytes(b"no gzip")
    with pytest.raises(DataError, match="damaged"):
        write_page(results, tmp_path)


def test_a_folder_without_records_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no records"):
        write_page(tmp_path, tmp_path)


# ------------------------------------------------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "index.html"
    methods = [Listing("one", "The first method.", "Someone 2020, arXiv:1911.07524", "built-in")]
    read = {RECORDS[1].key: [person(5, 1.0)], RECORDS[0].key: [person(5, 0.5, 4.0)], RECORDS[2].key: []}
    path.write_text(page(RECORDS, methods=methods, beside=beside_udp, predictions=lambda own: read.get(own.key)))
    return path


@pytest.fixture
def tab(browser: Browser, file: Path) -> Iterator[Browser]:
    """The page, as a desktop sees it; whatever a test does with it, the console stays silent and nothing is loaded."""
    browser.size(1200)
    browser.scheme("light")
    browser.open(file)
    yield browser
    assert browser.errors == []
    assert browser.requests == []
    assert browser.run("window.hacked === undefined")


VISIBLE = "[...document.querySelectorAll('#rows tr[data-row]')].filter(row => row.offsetParent)"


def shown(tab: Browser, column: str) -> list[str]:
    """Cells of a column in the rows that can be seen, from top to bottom."""
    place = f"document.querySelector('[data-column={column}]').cellIndex"
    return list(tab.run(f"{VISIBLE}.map(row => row.cells[{place}].textContent)"))


def click(tab: Browser, selector: str) -> None:
    tab.act(f"document.querySelector({json.dumps(selector)}).click()")


def choose(tab: Browser, name: str, value: str) -> None:
    tab.act(
        f"const control = document.querySelector('#filters [name={name}]'); control.value = {json.dumps(value)};"
        "control.dispatchEvent(new Event('input'))"
    )


def go(tab: Browser, fragment: str) -> None:
    tab.act(f"location.hash = {json.dumps(fragment)}")


def test_headings_sort_rows_within_their_group(tab: Browser):
    assert shown(tab, "ap") == ["90.0", "40.0", "30.0", "20.0", "-", "26.0", "25.0"]
    click(tab, "[data-column=ap] button")
    click(tab, "[data-column=ap] button")
    assert shown(tab, "ap") == ["90.0", "20.0", "30.0", "40.0", "-", "25.0", "26.0"]  # what is missing stays last
    assert tab.run("document.querySelector('[data-column=ap]').ariaSort") == "ascending"
    assert tab.run("document.querySelectorAll('[aria-sort]').length") == 1
    assert tab.run("location.hash") == "#/?sort=ap"
    click(tab, "[data-column=ap] button")
    assert shown(tab, "ap") == ["90.0", "40.0", "30.0", "20.0", "-", "26.0", "25.0"]
    click(tab, "[data-column=method] button")
    assert tab.run("document.querySelector('[data-column=method]').ariaSort") == "ascending"
    assert [text[:3] for text in shown(tab, "method")] == ["thr", "one", "one", "thr", "thr", "one", "one"]


def test_sizes_sort_as_sizes(tab: Browser):
    click(tab, "[data-column=res] button")
    assert shown(tab, "res")[1:5] == ["128x96", "128x96", "64x48", "64x48"]


def test_headings_work_by_keyboard(tab: Browser):
    tab.act("document.querySelector('[data-column=ap] button').focus()")
    tab.press("Enter")
    tab.act("0")
    assert tab.run("document.querySelector('[data-column=ap]').ariaSort") == "descending"


def test_filters_choose_rows_and_make_links(tab: Browser, file: Path):
    choose(tab, "res", "128x96")
    assert shown(tab, "ap") == ["40.0", "-"]
    assert tab.run("document.querySelector('#count').textContent") == "2 of 7 records"
    choose(tab, "search", "THREE")
    assert shown(tab, "ap") == ["-"]
    assert tab.run("location.hash") == "#/?res=128x96&search=THREE"
    tab.open(file, "#/?res=128x96&search=THREE")  # the link says it all
    assert shown(tab, "ap") == ["-"]
    assert tab.run("document.querySelector('[name=res]').value") == "128x96"
    choose(tab, "search", "nobody")
    assert shown(tab, "ap") == []
    assert tab.run("document.querySelector('#empty').offsetParent !== null")
    click(tab, "#reset")
    assert len(shown(tab, "ap")) == 7
    choose(tab, "protocol", "C")
    assert shown(tab, "ap") == ["26.0", "25.0"]
    choose(tab, "protocol", "")
    choose(tab, "dataset", "other")
    assert shown(tab, "ap") == ["90.0"]


def test_protocols_in_one_list_are_marked(tab: Browser):
    letters = f"{VISIBLE}.map(row => row.cells[0].offsetParent && row.cells[0].textContent)"
    assert set(tab.run(letters)) == {None}
    click(tab, "[name=mixed]")
    assert shown(tab, "ap") == ["90.0", "40.0", "30.0", "26.0", "25.0", "20.0", "-"]
    assert tab.run(letters) == ["A", "B", "B", "C", "C", "B", "B"]
    choose(tab, "dataset", "synth")
    legend = "[...document.querySelectorAll('#legend dt')].filter(e => e.offsetParent).map(e => e.textContent)"
    assert tab.run(legend) == ["B", "C"]
    choose(tab, "protocol", "C")  # one protocol needs no mark
    assert set(tab.run(letters)) == {None}
    click(tab, "[name=mixed]")
    click(tab, "#reset")
    assert shown(tab, "ap") == ["90.0", "40.0", "30.0", "20.0", "-", "26.0", "25.0"]


def tip(tab: Browser, selector: str) -> list[str]:
    """What is told of an element when it gets the focus."""
    tab.act(f"document.querySelector({json.dumps(selector)}).focus()")
    lines = "[...document.querySelectorAll('#tip p')].map(line => line.textContent)"
    assert not tab.run("document.querySelector('#tip').hidden")
    return list(tab.run(lines))


def test_reported_numbers_tell_their_source_and_differences(tab: Browser):
    lines = tip(tab, "#rows td.reported button")
    assert lines[0].startswith("reported by arXiv:2109.09090")
    assert lines[1].startswith("AP 47.4")
    assert any(line.startswith("· data: other val") for line in lines)
    tab.press("Escape")
    assert tab.run("document.querySelector('#tip').hidden")


def test_plots_tell_every_number(tab: Browser):
    go(tab, "#/plots?dataset=synth&protocol=B")
    captions = "[...document.querySelectorAll('#charts figcaption b')].map(e => e.textContent)"
    assert tab.run(captions) == ["AP over resolution", "AP over GMACs", "AP over latency (ms)"]
    lines = tip(tab, ".series[data-method=one] .point")
    assert "AP 20.0 (95 % interval 18.0 to 23.0)" in lines
    assert any("2.5 M parameters" in line and "30 ms" in line for line in lines)
    assert tab.run("document.querySelectorAll('figure:first-child .series').length") == 2  # one line per method
    assert tab.run("document.querySelectorAll('.hollow').length") == 0  # reported on other data
    go(tab, "#/plots?dataset=synth&protocol=B&search=three")
    assert tab.run("document.querySelectorAll('.series[data-method=one]').length") == 0
    go(tab, "#/plots")
    letters = "[...document.querySelectorAll('#charts > details > summary b')].map(e => e.textContent)"
    assert tab.run(letters) == ["A", "B", "C"]  # a plot never holds two


def test_the_pareto_front_is_what_no_cheaper_row_reaches(browser: Browser, tmp_path: Path):
    prices = {"a": (1, 0.2), "b": (2, 0.1), "c": (2, 0.3), "d": (4, 0.3), "e": (8, 0.35), "f": (8, 0.35)}
    records = []
    for name, (macs, ap) in prices.items():
        own = record(name, "64x48", ap)
        records.append(own.model_copy(update={"cost": own.cost.model_copy(update={"macs": macs * 10**9})}))
    path = tmp_path / "index.html"
    path.write_text(page(records))
    browser.open(path, "#/plots")
    front = "[...document.querySelectorAll('.on-front')].map(e => e.parentElement.dataset.method)"
    assert browser.run(front) == ["a", "c", "e", "f"]


def test_reported_points_are_hollow_and_only_on_the_same_data(browser: Browser, tmp_path: Path):
    coco = {"dataset": "coco", "split": "val2017", "persons": 6352}
    path = tmp_path / "index.html"
    path.write_text(page([record("one", res, 0.2, **coco) for res in ("64x48", "128x96")], beside=beside_udp))
    browser.open(path, "#/plots")
    lines = tip(browser, ".hollow")
    assert lines[0] == "one, reported, not measured here"
    assert browser.run("document.querySelectorAll('.hollow').length") == 2
    assert browser.run("document.querySelectorAll('.series .path').length") == 1


def test_methods_have_pages(tab: Browser):
    go(tab, "#/method/one")
    text = tab.run("document.querySelector('main').innerText")
    assert "The first method." in text and "AP 40.0" in text
    assert tab.run("document.querySelectorAll('article.shown .card').length") == 4
    card = "document.querySelector('article.shown .card')"
    assert tab.run(f"{card}.open")
    told = tab.run(f"{card}.textContent")
    for words in ("left shoulder", "n=12", "jitter 20.0", "AP won without jitter+3.1", "PCK@0.177.0", RECORDS[1].key):
        assert words in told
    assert tab.run(f"{card}.querySelectorAll('.people svg .bone').length") == 19
    assert "Photographs are left out" in told
    click(tab, "article.shown .compared summary")
    bars = "[...document.querySelectorAll('article.shown .compared svg')].map(e => e.getAttribute('aria-label'))"
    assert tab.run(bars) == ["good 50.0, jitter 20.0, inversion 10.0, swap 5.0, miss 15.0"] * 2


def test_records_have_links_and_drawn_beside_the_reference(tab: Browser):
    go(tab, f"#/method/one/{RECORDS[0].key}")
    card = f"document.querySelector('[data-key=\"{RECORDS[0].key}\"]')"
    assert tab.run(f"{card}.open")
    assert tab.run(f"{card}.querySelectorAll('.people .ghost').length") == 19
    go(tab, f"#/method/three/{RECORDS[2].key}")
    card = f"document.querySelector('[data-key=\"{RECORDS[2].key}\"]')"
    assert tab.run(f"{card}.querySelector('.people .absent').textContent") == "-"


@pytest.mark.parametrize("fragment", ["#/method/nobody", "#/%E0%A4%A", "#nonsense", "#/method/one/nokey", "#/?sort=x"])
def test_links_that_lead_nowhere_show_something(tab: Browser, file: Path, fragment: str):
    tab.open(file, fragment)
    assert tab.run("document.querySelectorAll('section.shown, article.shown').length") == 1


def test_text_of_records_stays_text(tab: Browser):
    go(tab, f"#/method/one/{RECORDS[4].key}")
    assert "<img src=x" in tab.run("document.querySelector('article.shown').innerText")
    assert tab.run("document.querySelectorAll('img').length") == 0


def test_the_policy_stops_foreign_scripts(browser: Browser, file: Path):
    browser.open(file)
    made = "const made = document.createElement('script'); made.textContent = 'window.hacked = 1'"
    browser.act(f"{made}; document.body.append(made)")
    assert browser.run("window.hacked === undefined")


@pytest.mark.parametrize("fragment", ["#/", "#/?mixed=1", "#/plots", "#/methods", "#/method/one"])
def test_a_phone_scrolls_no_page_sideways(tab: Browser, file: Path, fragment: str):
    tab.size(360)
    tab.open(file, fragment)
    tab.act("document.querySelectorAll('details').forEach(each => { each.open = true })")
    assert tab.run("document.documentElement.scrollWidth") == 360
    outside = (
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') &&"
        " e.getBoundingClientRect().right > 361).map(e => e.outerHTML.slice(0, 80))"
    )
    assert tab.run(outside) == []


def test_the_method_stays_in_sight_when_the_table_scrolls(tab: Browser):
    tab.size(360)
    tab.act("document.querySelector('.scroll').scrollLeft = 300")
    assert tab.run("document.querySelector('.scroll').scrollLeft") == 300
    assert tab.run("document.querySelector('#rows tbody th[scope=row]').getBoundingClientRect().left") < 20


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_schemes(tab: Browser, file: Path, scheme: str):
    tab.scheme(scheme)
    tab.open(file)
    paper = luminance(tab.run("getComputedStyle(document.body).backgroundColor"))
    assert (paper > 0.5) == (scheme == "light")
    for selector in ("body", "footer", "#rows td.reported", "#rows td.training", "header a", "#rows tbody th a"):
        ink = luminance(tab.run(f"getComputedStyle(document.querySelector({json.dumps(selector)})).color"))
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, selector


def test_the_button_changes_the_scheme_for_good(tab: Browser, file: Path):
    background = "getComputedStyle(document.body).backgroundColor"
    light = tab.run(background)
    click(tab, "#theme")
    dark = tab.run(background)
    assert luminance(dark) < 0.1 < luminance(light)
    tab.open(file)
    assert tab.run(background) == dark
    click(tab, "#theme")
    assert tab.run(background) == light


def test_without_scripts_everything_that_is_written_shows(browser: Browser, file: Path):
    browser.scripts(False)
    try:
        browser.open(file)
        assert browser.run("[...document.querySelectorAll('tr[data-row]')].every(row => row.offsetParent)")
        assert browser.run("document.querySelector('#filters').offsetParent === null")
        assert browser.run("document.querySelector('#tip').offsetParent === null")
        assert "The first method." in browser.run("document.body.innerText")
    finally:
        browser.scripts(True)
