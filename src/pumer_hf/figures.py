"""Figures and durations as people read them: in tables, cards, on the page and at the end of a run."""


def figure(value: float) -> str:
    """Write a number with four significant digits, or with all before the point: `0.01681`, `92.33`, `12,346`."""
    short = f"{value:.4g}"
    return f"{value:,.0f}" if abs(float(short)) >= 1000 else short


def duration(seconds: float) -> str:
    """Write a time with its unit: `85.3 ms`, `1.04 s`, `2 min 5 s`, `1 h 3 min`."""
    rounded = float(f"{seconds:.3g}")
    if rounded < 1:
        return f"{1000 * rounded:.3g} ms"
    if rounded < 60:
        return f"{rounded:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
