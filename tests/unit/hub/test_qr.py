"""The two drawings of a join file show one and the same code."""

from __future__ import annotations

import re

from hub.qr import QUIET, svg, terminal

FILE = (
    'hub_url = "https://hub.example.org:8421"\n'
    f'hub_key = "kkkkkkkkkkkkkkkk+ead9c647+{"A" * 44}"\nca_sha256 = "{"0" * 64}"\ntoken = "{"t" * 26}"\n'
)
FINDER = ["#######", "#.....#", "#.###.#", "#.###.#", "#.###.#", "#.....#", "#######"]


def from_svg(drawn: str) -> list[str]:
    """Its modules, row by row; `#` is dark."""
    size = int(re.search(r'viewBox="0 0 (\d+) \1"', drawn)[1])  # type: ignore[index]
    rows = [["."] * size for _ in range(size)]
    path = re.search(r'stroke="#000" d="([^"]*)"', drawn)[1]  # type: ignore[index]
    x, y = 0.0, 0.0
    for step, arguments in re.findall(r"([Mmh])([-\d. ]+)", path):
        numbers = [float(number) for number in re.findall(r"-?\d*\.?\d+", arguments)]
        if step == "h":
            for column in range(int(numbers[0])):
                rows[int(y)][int(x) + column] = "#"
            x += numbers[0]
        else:
            x, y = (numbers[0], numbers[1]) if step == "M" else (x + numbers[0], y + numbers[1])
    return ["".join(row) for row in rows]


def from_terminal(drawn: str) -> list[str]:
    """Its modules; a character is two of them, and a block is light."""
    rows = []
    for line in drawn.splitlines():
        rows.append("".join("." if character in "█▀" else "#" for character in line))
        rows.append("".join("." if character in "█▄" else "#" for character in line))
    return rows


def test_page_and_terminal_show_the_same_code() -> None:
    page, screen = from_svg(svg(FILE, "A join file")), from_terminal(terminal(FILE))
    assert [row[:7] for row in cropped(page)[:7]] == FINDER
    size = len(cropped(page))
    assert cropped(screen)[:size] == cropped(page)
    assert max(len(line) for line in terminal(FILE).splitlines()) <= 80  # it fits a terminal
    assert not page[0].strip(".")


def cropped(rows: list[str]) -> list[str]:
    """Without the space around."""
    size = len(rows[0]) - 2 * QUIET
    return [row[QUIET : QUIET + size] for row in rows[QUIET : QUIET + size]]


def test_a_page_gets_no_style_and_no_script() -> None:
    drawn = svg(FILE, "A <join> file")
    assert "style" not in drawn
    assert "A &lt;join&gt; file" in drawn
