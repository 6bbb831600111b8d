"""Pictures with captions, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

FONT_SIZE, TITLE_SIZE = 15, 20
LINE_HEIGHT = 1.4
"""The height of a line as a multiple of the font size."""
NARROW = 336
"""A panel of so many pixels has captions of `FONT_SIZE`. Wider panels have larger captions, which one can read after
the picture is scaled down.
"""
GAP = 16
INK = (30, 30, 36)
PAPER = (255, 255, 255)


@dataclass(frozen=True)
class Panel:
    """A picture with a caption under it."""

    picture: PILImage.Image
    caption: list[str]
    """The lines of the caption. A line that is too wide is wrapped."""
    alt: str = ""
    """A sentence that describes the picture for those who cannot see it."""


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


def tile(panels: Sequence[Panel], columns: int) -> PILImage.Image:
    """Put panels of the same size into rows of at most `columns`. The rows are as equal as possible."""
    if columns < 1:
        raise ValueError(f"max_columns={columns}: must be at least 1")
    columns = -(-len(panels) // -(-len(panels) // columns))
    width = max(panel.picture.width for panel in panels)
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    return stack([_row(row, width, columns) for row in rows])


def _row(panels: Sequence[Panel], width: int, columns: int) -> PILImage.Image:
    size = FONT_SIZE * max(width, NARROW) / NARROW
    font, line_height = ImageFont.load_default(size), round(LINE_HEIGHT * size)
    captions = [[part for line in panel.caption for part in wrap(line, width, font)] for panel in panels]
    height = max(panel.picture.height for panel in panels)
    lines = max(len(caption) for caption in captions)
    canvas = PILImage.new("RGB", (columns * (width + GAP) + GAP, height + 2 * GAP + lines * line_height), PAPER)
    pen = ImageDraw.Draw(canvas)
    for index, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        left = GAP + index * (width + GAP)
        canvas.paste(panel.picture, (left, GAP))
        for number, line in enumerate(caption):
            pen.text((left, height + GAP + 4 + number * line_height), line, fill=INK, font=font)
    return canvas


def titled(picture: PILImage.Image, title: str) -> PILImage.Image:
    """Put a title of one or several lines above a picture."""
    font, line_height = ImageFont.load_default(TITLE_SIZE), round(LINE_HEIGHT * TITLE_SIZE)
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
