from __future__ import annotations

import csv
import io
import re

import pytest
from rich.console import Console

from lrbench.report.formats import Cell, Column, Group, Interval, Layout, Spread, console, csv_text, latex, markdown

REPORTED = Group("reported", reported=True)
MEASURED = Group("measured", notes=("other data",))
NASTY = "a|b *c* <d> & 5% _e_ #f $g$ {h} ~i~ j^2 \\k\nl `m` [n]"


def cells(*values: object) -> list[Cell]:
    return [value if isinstance(value, Cell) else Cell(value) for value in values]


def example() -> Layout:
    return Layout(
        "cal/8: a table",
        [
            Column("Method", cells("HRNet", Cell("CAL", ("never run",)))),
            Column("AP", cells(29.7, 58.4), REPORTED),
            Column("AP", cells(Cell(30.25, ("short", "other data")), None), MEASURED),
            Column("95% CI", cells(Interval(-1.04, 2.0), None), MEASURED, signed=True),
        ],
        captions=["Of seed 0."],
        breaks=frozenset({0}),
    )


def test_markdown():
    assert markdown(example()) == (
        "**cal/8: a table**\n"
        "\n"
        "| Method | *reported*<br>*AP* | measured <sup>a</sup><br>AP | measured<br>95% CI |\n"
        "| :-- | --: | --: | --: |\n"
        "| HRNet | *29.7* | 30.2 <sup>a,b</sup> | -1.0..+2.0 |\n"
        "| CAL <sup>c</sup> | *58.4* | - | - |\n"
        "\n"
        "- <sup>a</sup> other data\n"
        "- <sup>b</sup> short\n"
        "- <sup>c</sup> never run\n"
        "\n"
        "Of seed 0.  \n"
    )


def test_a_folded_table_shows_its_title_alone():
    layout = example()
    opened, folded = markdown(layout).splitlines(), markdown(layout, folded=True).splitlines()
    assert (opened[0], folded[0]) == ("**cal/8: a table**", "<details><summary>cal/8: a table</summary>")
    assert folded[1:] == [*opened[1:], "", "</details>"]  # empty lines around, or it is not read as Markdown


def test_latex():
    assert latex(example()) == (
        "\\begin{table}\n"
        "\\centering\n"
        "\\caption{cal/8: a table}\n"
        "\\begin{tabular}{lrrr}\n"
        "\\toprule\n"
        " & \\multicolumn{1}{c}{\\textit{reported}} & \\multicolumn{2}{c}{measured\\textsuperscript{a}} \\\\\n"
        "\\cmidrule(lr){2-2} \\cmidrule(lr){3-4}\n"
        "Method & \\textit{AP} & AP & 95\\% CI \\\\\n"
        "\\midrule\n"
        "HRNet & \\textit{29.7} & 30.2\\textsuperscript{a,b} & $-$1.0..$+$2.0 \\\\\n"
        "\\midrule\n"
        "CAL\\textsuperscript{c} & \\textit{58.4} & - & - \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
        "\n"
        "\\smallskip\n"
        "\\begin{minipage}{\\linewidth}\\footnotesize\n"
        "\\textsuperscript{a} other data\\\\\n"
        "\\textsuperscript{b} short\\\\\n"
        "\\textsuperscript{c} never run\\\\\n"
        "Of seed 0.\n"
        "\\end{minipage}\n"
        "\\end{table}\n"
    )


def test_csv_has_digits_and_empty_fields():
    assert csv_text(example()) == (
        "table,Method,reported: AP,measured: AP,measured: 95% CI low,measured: 95% CI high,footnotes\n"
        "cal/8: a table,HRNet,29.7,30.25,-1.04,2,other data; short\n"
        "cal/8: a table,CAL,58.4,,,,never run\n"
    )


def test_tables_of_one_csv_share_its_header():
    other = Layout("two", [Column("Method", cells("UDP")), Column("AR", cells(Spread(5.0, 0.5, 3)), MEASURED)])
    rows = list(csv.DictReader(io.StringIO(csv_text(example(), other))))
    assert [row["table"] for row in rows] == ["cal/8: a table"] * 2 + ["two"]
    assert list(rows[0])[-4:] == ["measured: AR", "measured: AR sd", "measured: AR n", "footnotes"]
    assert [rows[2][f"measured: AR{part}"] for part in ("", " sd", " n")] == ["5", "0.5", "3"]
    assert rows[2]["reported: AP"] == "" == rows[0]["measured: AR"]


def printed(layout: Layout, width: int, **options: bool) -> str:
    file = io.StringIO()
    Console(file=file, width=width, **options).print(console(layout))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def test_console():
    assert printed(example(), 80) == (
        "cal/8: a table\n"
        "\n"
        "        reported  ---- measured a ----\n"
        "Method        AP        AP      95% CI\n"
        "--------------------------------------\n"
        "HRNet       29.7  30.2 a,b  -1.0..+2.0\n"
        "--------------------------------------\n"
        "CAL c       58.4         -           -\n"
        "\n"
        " a  other data\n"
        " b  short\n"
        " c  never run\n"
        " Of seed 0."
    )


def test_a_narrow_console_loses_no_number():
    wide = printed(example(), 80)
    narrow = printed(example(), 24)
    assert max(map(len, narrow.splitlines())) <= 24
    for number in ("29.7", "58.4", "30.2", "-1.0..+2.0"):
        assert number in narrow
    assert narrow.count("HRNet") > wide.count("HRNet")


def test_reported_numbers_look_different_on_a_terminal():
    text = printed(example(), 80, force_terminal=True)
    assert re.search(r"\x1b\[[0-9;]*3m[^\x1b]*29\.7", text)
    assert not re.search(r"\x1b\[[0-9;]*3m[^\x1b]*30\.2", text)


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (None, False, "-"),
        ("", False, ""),
        (0.0, False, "0.0"),
        (-0.04, False, "0.0"),
        (-0.04, True, "+0.0"),
        (1.26, True, "+1.3"),
        (-1.26, True, "-1.3"),
        (Spread(30.04, 0.26, 3), False, "30.0 ± 0.3 (n=3)"),
        (Interval(29.04, 31.26), False, "29.0..31.3"),
    ],
)
def test_values_in_print(value: object, signed: bool, text: str):
    assert Column("x", cells(value), signed=signed).text(0) == text


def nasty() -> Layout:
    return Layout(
        NASTY, [Column(NASTY, cells(Cell(NASTY, (NASTY,)))), Column(NASTY, cells(1.0), Group(NASTY))], [NASTY]
    )


def test_markdown_is_escaped():
    text = markdown(nasty())
    escaped = "a\\|b \\*c\\* &lt;d&gt; &amp; 5% \\_e\\_ \\#f \\$g\\$ {h} \\~i\\~ j^2 \\\\k l \\`m\\` \\[n\\]"
    assert text.count(escaped) == 7
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in table] == [3, 3, 3]
    assert "hrnet_w32" in markdown(Layout("hrnet_w32", [Column("x", cells(1.0))]))


def test_latex_is_escaped():
    text = latex(nasty())
    escaped = (
        r"a\textbar{}b *c* \textless{}d\textgreater{} \& 5\% \_e\_ \#f \$g\$ \{h\} \textasciitilde{}i\textasciitilde{} "
        r"j\textasciicircum{}2 \textbackslash{}k l `m` [n]"
    )
    assert text.count(escaped) == 7
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    assert latex(Layout("--no-flip", [Column("x", cells("±"))])).count("-{}-no-flip") == 1


def test_rows_of_latex_have_as_many_cells_as_columns():
    body = latex(nasty()).split("\\midrule")[1].split("\\bottomrule")[0]
    assert len(re.findall(r"(?<!\\)&", body)) == 1
    assert body.strip().endswith("\\\\")


def test_csv_is_read_back():
    rows = list(csv.reader(io.StringIO(csv_text(nasty()))))
    flat = NASTY.replace("\n", " ")
    assert rows == [["table", flat, f"{flat}: {flat}", "footnotes"], [flat, flat, "1", flat]]


def test_console_prints_markup_as_it_is():
    assert "[bold]x[/]" in printed(Layout("[bold]x[/]", [Column("a", cells("[red]y"))]), 80)
