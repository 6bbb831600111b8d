"""The picture of an elastic student in its card: its metric over its measured speed."""

from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw, ImageFont

from ..results import Elastic, Metric

SIZE = (960, 600)
MARGIN = (110, 50, 60, 90)
"""The pixels around the plot: left, top, right, bottom."""
FONT_SIZE = 22
DARK, GREY, BLUE = (40, 40, 46), (160, 160, 168), (31, 119, 180)
NUM_TICKS = 5
DASH = 12
"""The length of a dash, and of the gap after it, in pixels."""
Scale = Callable[[float], float]


def draw_curve(elastic: Elastic, teacher: Metric, name: str) -> Image.Image:
    """Draw the metric of an elastic student over its measured speed, with the unreduced teacher as a dashed line.

    Beside each point stands the part of the schedule.

    Args:
        elastic: the student at several speeds.
        teacher: the metric of the teacher.
        name: the name of the metric.
    """
    picture = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(picture)
    draw.font = ImageFont.load_default(FONT_SIZE)
    points = elastic.points
    left, top, right, bottom = MARGIN[0], MARGIN[1], SIZE[0] - MARGIN[2], SIZE[1] - MARGIN[3]
    speeds, values = (
        widened([point.speed for point in points] + [1.0]),
        widened([point.metric.value for point in points] + [teacher.value]),
    )
    x, y = scale(speeds, left, right), scale(values, bottom, top)
    draw.line([(left, top), (left, bottom), (right, bottom)], fill=DARK, width=2)
    for value in ticks(values):
        draw.text((left - 12, y(value)), teacher.type.of(value).text(), fill=DARK, anchor="rm")
        draw.line([(left, y(value)), (right, y(value))], fill=(232, 232, 236))
    for value in ticks(speeds):
        draw.text((x(value), bottom + 12), f"{value:.2f}x", fill=DARK, anchor="mt")
    draw.text(((left + right) / 2, SIZE[1] - 14), "measured speed, teacher = 1", fill=DARK, anchor="mb")
    draw.text((left, top - 14), teacher.type.title(name), fill=DARK, anchor="lb")
    for start in range(left, right, 2 * DASH):
        draw.line([(start, y(teacher.value)), (start + DASH, y(teacher.value))], fill=GREY, width=3)
    draw.text((right, y(teacher.value) - 8), "teacher", fill=GREY, anchor="rb")
    draw.line([(x(point.speed), y(point.metric.value)) for point in points], fill=BLUE, width=4, joint="curve")
    for point in points:
        where = x(point.speed), y(point.metric.value)
        draw.circle(where, 8, fill=BLUE)
        draw.text((where[0], where[1] + 14), f"{point.factor:.0%}", fill=DARK, anchor="mt")
    return picture


def widened(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of values with some space at both ends."""
    space = 0.1 * (max(values) - min(values)) or 1.0
    return min(values) - space, max(values) + space


def scale(ends: tuple[float, float], start: float, stop: float) -> Scale:
    """Return the function that turns values in a range into pixels from `start` to `stop`."""
    low, high = ends
    return lambda value: start + (value - low) / (high - low) * (stop - start)


def ticks(ends: tuple[float, float]) -> list[float]:
    """Return values inside a range, evenly spaced."""
    low, high = ends
    return [low + (high - low) * (step + 0.5) / NUM_TICKS for step in range(NUM_TICKS)]
