"""Whether what a command prints is for people."""

import re
from collections.abc import Iterable

NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]\d+)?")
JSON = re.compile(r"""[{\[]\s*["']\w+["']\s*:""")


def unreadable(lines: Iterable[str]) -> list[str]:
    """The lines with JSON, a large number in powers of ten, or a number of more than six significant digits."""

    def is_wrong(number: str) -> bool:
        digits, _, power = number.partition("e")
        return power.startswith("+") or len(digits.replace(".", "").lstrip("0")) > 6

    return [line for line in lines if JSON.search(line) or any(map(is_wrong, NUMBER.findall(line)))]
