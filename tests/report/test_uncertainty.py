"""Columns of a comparison that say how far its numbers can be trusted."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from lrbench.report.tables import compare_markdown, compare_table


def row(method: str, ap: float | None, seed: int = 0, **changes: Any) -> dict[str, Any]:
    given = {
        "method": method,
        "backbone": "hrnet_w16",
        "res": "64x48",
        "seed": seed,
        "status": "done" if ap is not None else "missing",
        "reason": "" if ap is not None else "not trained",
        "metrics": None if ap is None else {"ap": ap, "ap50": 0.6},
        "ci95": {} if ap is None else {"ap": [ap - 0.01, ap + 0.02]},
        "n_persons": 10,
    }
    return given | changes


def method(rows: list[int], mean: float, std: float | None = None, gap: dict[str, Any] | None = None) -> dict[str, Any]:
    numbers = {"mean": mean, "ci95": [mean - 0.03, mean + 0.04], "std": std, "min": mean, "max": mean}
    return {"rows": rows, "seeds": list(range(len(rows))), "metrics": {"ap": numbers}, "difference": gap}


GAP = {"to": [1], "value": -0.0312, "ci95": [-0.05, 0.002], "seed_error": None, "seed_ci95": None, "resolved": False}


def console(rows: list[dict[str, Any]], ranked: list[dict[str, Any]], width: int = 160) -> str:
    with Console(width=width, record=True, file=open("/dev/null", "w")) as drawn:
        drawn.print(compare_table({"dataset": "synth", "split": "val"}, rows, ranked))
    return drawn.export_text()


def cells(text: str, name: str) -> list[str]:
    """Words of the line of a method."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"{name} "))
    return line.split()


def test_difference_to_the_best_with_its_interval():
    text = console([row("a", 0.3), row("b", 0.33)], [method([0], 0.3, gap=GAP), method([1], 0.33)])
    assert cells(text, "a")[4:10] == ["30.0", "27.0..34.0", "-3.1", "-5.0..+0.2", "no", "60.0"]
    assert "-3.1" not in cells(text, "b")
    assert "95% CI: over images (1,000 resamples)" in text
    assert "paired over images; resolved: its 95% interval over images excludes 0" in " ".join(text.split())
    assert "seeds" not in text


def test_seeds_become_one_row_with_their_spread():
    rows = [row("a", 0.3, 0), row("b", 0.33, 0), row("a", 0.32, 1), row("b", 0.35, 1)]
    gap = GAP | {"seed_error": 0.01, "seed_ci95": [-0.06, -0.01]}
    text = console(rows, [method([0, 2], 0.31, 0.0141, gap), method([1, 3], 0.34, 0.0141)])
    assert len([line for line in text.splitlines() if line.startswith("a ")]) == 1
    assert {"31.0", "1.4", "-3.1"} <= set(cells(text, "a"))
    words = " ".join(text.split())
    assert "AP by seed: a 30.0 32.0, b 33.0 35.0." in words
    assert "its 95% interval over images and over seeds excludes 0" in words
    assert "seeds 0, 1" in words


def test_rows_that_are_not_alike_in_their_seeds_say_which_they_have():
    """A seed that failed, or of which nobody knows what it matched, is a row of its own."""
    rows = [row("a", 0.3, 0), row("a", None, 1), row("a", 0.32, 2), row("b", 0.35, 0)]
    listed = [method([0, 2], 0.31, 0.0141) | {"seeds": [0, 2]}, method([3], 0.35)]
    text = compare_markdown({}, rows, listed)
    heading, _, *body = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert [line[heading.index("Seed")] for line in body] == ["0, 2", "1", "0"]


def test_means_over_seeds_are_told_apart():
    rows = [row("a", 0.3 + i / 50 + j / 100, j, res=res) for i, res in enumerate(("64x48", "32x24")) for j in (0, 1)]
    listed = [method([0, 1], 0.305, 0.007), method([2, 3], 0.325, 0.007)]
    assert "AP by seed: a 64x48 30.0 31.0, a 32x24 32.0 33.0." in " ".join(console(rows, listed).split())


def test_several_seeds_of_one_row_only():
    rows = [row("a", 0.3, 0), row("b", 0.33, 0), row("b", 0.35, 1), row("c", 0.31, 0), row("c", 0.32, 1)]
    both = GAP | {"seed_error": 0.01, "seed_ci95": [-0.06, -0.01]}
    listed = [method([0], 0.3, gap=GAP), method([1, 2], 0.34, 0.0141), method([3, 4], 0.315, 0.007, both)]
    assert "over images and, where both have several seeds, over seeds excludes 0" in " ".join(
        console(rows, listed).split()
    )


def test_rows_without_numbers_stay():
    text = console([row("a", 0.3), row("b", None)], [method([0], 0.3)])
    assert "missing, not trained" in text
    assert "-" in cells(text, "b")


def test_a_row_that_could_not_be_compared_does_not_look_like_the_best():
    text = compare_markdown(
        {}, [row("a", 0.3), row("b", 0.33), row("c", 0.5)], [method([0], 0.3, gap=GAP), method([1], 0.33)]
    )
    heading, _, *body = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line[:1] == "|"]
    at = heading.index("to best")
    assert [line[at : at + 3] for line in body[1:]] == [["", "", ""], ["-", "-", "-"]]


def test_markdown_has_the_same_columns():
    text = compare_markdown({}, [row("a", 0.3), row("b", 0.33)], [method([0], 0.3, gap=GAP), method([1], 0.33)])
    heading, _, first, second = [line for line in text.splitlines() if line.startswith("|")]
    at = [cell.strip() for cell in heading.split("|")].index("to best")
    assert [cell.strip() for cell in first.split("|")][at : at + 3] == ["-3.1", "-5.0..+0.2", "no"]
    assert [cell.strip() for cell in second.split("|")][at : at + 3] == ["", "", ""]


def test_without_intervals_nothing_is_added():
    text = console([row("a", 0.3, ci95={})], [])
    assert "CI" not in text
    assert "best" not in text


def test_latency_is_a_column_where_it_was_measured():
    text = console([row("a", 0.3, latency_ms=12.34), row("b", 0.33)], [])
    assert "ms" in next(line for line in text.splitlines() if line.startswith("Method")).split()
    assert "12.3" in cells(text, "a")
    assert "ms" not in console([row("b", 0.33)], []).split()
