"""Forms of a schedule that earlier versions wrote. They are still read, with the same meaning."""

from typing import Any

from transformers.utils import logging

logger = logging.get_logger(__name__)

OLD_PRUNERS = {"mean_attention": "mean_head", "first_attention": "first_head"}
"""Old values of `pruner`, a field of method `tip`, and the current values."""


def current_parts(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the dict of one part in its current form. It becomes two dicts if a field of it is now a separate part.

    The log notes each old form once.
    """
    if part.get("method") == "tip" and part.get("pruner") in OLD_PRUNERS:
        pruner = OLD_PRUNERS[part["pruner"]]
        _note(f"reduction.pruner={part['pruner']!r}", f"{pruner!r}")
        return [{**part, "pruner": pruner}]
    if part.get("method") == "pumer" and "image_tower_merge_ratio" in part:
        kept = {name: value for name, value in part.items() if name != "image_tower_merge_ratio"}
        ratio = part["image_tower_merge_ratio"]
        if ratio == 0:
            return [kept]
        tower = {"method": "tome", "site": "tower", "merge_ratio": ratio}
        _note(f"reduction.image_tower_merge_ratio={ratio!r}", f"a second schedule in a list: {tower}")
        return [kept, tower]
    return [part]


def _note(old: str, new: str) -> None:
    logger.warning_once(f"{old} is an old form with the same meaning as before. Today it is {new}")
