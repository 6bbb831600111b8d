"""Pictures with captions, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from .drawing import swatch

FONT_SIZE = 15
"""The smallest text. Wide pictures have larger text, see [`text_size`]."""
PHONE, PHONE_TEXT = 390, 10.5
"""The width of a phone in pixels, and the size of a text that one can read on it."""
LINE_PART = 1 / 16
"""A text has at most this part of the length of its line."""
TITLE = 1.25
"""The size of a title as a multiple of the text."""
LINE_HEIGHT = 1.4
"""The height of a line as a multiple of the font size."""
GAP = 16
INK, QUIET = (24, 24, 30), (82, 82, 92)
PAPER = (255, 255, 255)


@dataclass(frozen=True)
class Panel:
    """A picture with a caption under it."""

    picture: PILImage.Image
    caption: list[str]
    """The lines of the caption. A line that is too wide is wrapped."""
    alt: str = ""
    """A sentence that describes the picture for those who cannot see it."""
    looks: frozenset[str] = frozenset()
    """The looks of the patches in it ([`drawing.looks`])."""


def looks_in(panels: Sequence[Panel], legend: Mapping[str, str]) -> dict[str, str]:
    """Return the part of a legend that is about panels: the looks that are in one of them."""
    return {look: words for look, words in legend.items() if any(look in panel.looks for panel in panels)}


def text_size(width: int, place: int | None = None) -> float:
    """Return the size of the text in a picture, which one can still read after the picture is scaled to a phone.

    Args:
        width: the pixels of the whole picture.
        place: the pixels of a line. The text is smaller where a line would have too few words; default: `width`.
    """
    return max(FONT_SIZE, min(PHONE_TEXT * width / PHONE, LINE_PART * (width if place is None else place)))


def wrap(line: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Break a line of text so that each part fits `width` pixels: at spaces, and within words that are too long."""
    lines = [""]
    for word in line.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines


def tile(panels: Sequence[Panel], columns: int, legend: Mapping[str, str] | None = None) -> PILImage.Image:
    """Put panels into rows of at most `columns`, as equal as possible. The legend has the free place, or is below.

    Args:
        panels: the panels.
        columns: how many stand in a row at most.
        legend: what the looks of a patch mean; those that no panel has are left out.
    """
    if columns < 1:
        raise ValueError(f"max_columns={columns}: must be at least 1")
    columns = -(-len(panels) // -(-len(panels) // columns))
    width = max(panel.picture.width for panel in panels)
    total = columns * (width + GAP) + GAP
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    pictures = [_row(row, width, total) for row in rows]
    shown = looks_in(panels, legend or {})
    if not shown:
        return stack(pictures)
    taken = len(rows[-1]) % columns * (width + GAP)
    drawn = legend_picture(shown, total - taken - 2 * GAP, text_size(total, width))
    if not taken:
        return stack([*pictures, _below(drawn, total)])
    last = PILImage.new("RGB", (total, max(pictures[-1].height, drawn.height + 2 * GAP)), PAPER)
    last.paste(pictures[-1])
    last.paste(drawn, (taken + GAP, GAP))
    return stack([*pictures[:-1], last])


def _below(legend: PILImage.Image, width: int) -> PILImage.Image:
    canvas = PILImage.new("RGB", (width, legend.height + GAP), PAPER)
    canvas.paste(legend, (GAP, 0))
    return canvas


def _row(panels: Sequence[Panel], width: int, total: int) -> PILImage.Image:
    """Put panels side by side; `width` is that of each place, and `total` that of the row."""
    size = text_size(total, width)
    font, line_height = ImageFont.load_default(size), round(LINE_HEIGHT * size)
    captions = [
        [(part, fill) for line, fill in coloured(panel.caption) for part in wrap(line, width, font)]
        for panel in panels
    ]
    height = max(panel.picture.height for panel in panels)
    lines = max(len(caption) for caption in captions)
    canvas = PILImage.new("RGB", (total, height + 2 * GAP + lines * line_height), PAPER)
    pen = ImageDraw.Draw(canvas)
    for index, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        left = GAP + index * (width + GAP)
        canvas.paste(panel.picture, (left, GAP))
        for number, (line, fill) in enumerate(caption):
            pen.text((left, panel.picture.height + GAP + 6 + number * line_height), line, fill=fill, font=font)
    return canvas


def coloured(caption: Sequence[str]) -> list[tuple[str, tuple[int, int, int]]]:
    """Return the lines of a caption with their colours: the first one is the darkest."""
    return [(line, QUIET if number else INK) for number, line in enumerate(caption)]


def legend_picture(legend: Mapping[str, str], width: int, size: float) -> PILImage.Image:
    """Draw what the looks of a patch mean: an example and a few words for each.

    Args:
        legend: the words by the name of the look.
        width: the width of the picture.
        size: the size of the text.
    """
    font, line_height = ImageFont.load_default(size), round(LINE_HEIGHT * size)
    side = round(2.4 * size)
    texts = {look: wrap(words, width - side - GAP, font) for look, words in legend.items()}
    heights = [max(side, len(lines) * line_height) + GAP for lines in texts.values()]
    canvas = PILImage.new("RGB", (width, sum(heights)), PAPER)
    pen = ImageDraw.Draw(canvas)
    top = 0
    for (look, lines), height in zip(texts.items(), heights, strict=True):
        canvas.paste(swatch(look, side), (0, top))
        first = top + max(0, (side - len(lines) * line_height) // 2)
        for number, line in enumerate(lines):
            pen.text((side + GAP, first + number * line_height), line, fill=INK, font=font)
        top += height
    return canvas


def titled(picture: PILImage.Image, title: str) -> PILImage.Image:
    """Put a title of one or several lines above a picture."""
    size = TITLE * text_size(picture.width)
    font, line_height = ImageFont.load_default(size), round(LINE_HEIGHT * size)
    lines = [part for line in title.splitlines() for part in wrap(line, picture.width - 2 * GAP, font)]
    top = GAP + len(lines) * line_height
    canvas = PILImage.new("RGB", (picture.width, top + picture.height), PAPER)
    canvas.paste(picture, (0, top))
    pen = ImageDraw.Draw(canvas)
    for number, line in enumerate(lines):
        pen.text((GAP, GAP + number * line_height), line, fill=INK, font=font)
    return canvas


def stack(pictures: Sequence[PILImage.Image]) -> PILImage.Image:
    """Put pictures below one another."""
    canvas = PILImage.new("RGB", (max(one.width for one in pictures), sum(one.height for one in pictures)), PAPER)
    top = 0
    for picture in pictures:
        canvas.paste(picture, (0, top))
        top += picture.height
    return canvas
