"""Two parts of the contract of every reducer: a padded example is reduced as it is alone, and equal tokens are ranked
by their place.
"""

from typing import Any

import pytest
import torch
from tiny_models import FAMILIES, REDUCTIONS, inputs_of, parts_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PATCH = 4
WORDS, PADDED_WORDS = 7, 12
GRID = (3, 4)
"""Rows and columns of patches of the picture."""
CANVASES = {"below": (5, 4), "right": (3, 7), "both": (4, 6)}
"""Rows and columns of patches of the canvas, by where its padding is."""
BY_PLACE = ("tome", "random")
"""Methods that look at where a token stands. Padding at the right of a picture moves its patches in the raster."""
OTHER_PLACES = (("random", "layers"), ("random", "inputs"), ("grid", "inputs"), ("pumer", "inputs"))
"""Methods that keep other ones of equal tokens than the first ones, and where. PuMer makes one group of the first."""

REDUCED = {name: [part.to_dict() for part in parts_of(reduction)] for name, reduction in REDUCTIONS.items()}
del REDUCED["none"]
ONE_LAYER = [name for name in REDUCED if not name.endswith("extreme")]
"""Of each method and its options one schedule: layers and ratios are the tests' own."""


def is_by_place(name: str) -> bool:
    return any(part["method"] in BY_PLACE for part in REDUCED[name])


# METER's pictures fill their canvas: its texts alone have padding.
PADDED = [("meter", name, "below") for name in ONE_LAYER]
PADDED += [
    ("vilt", name, canvas) for name in ONE_LAYER for canvas in CANVASES if canvas == "below" or not is_by_place(name)
]
LEFT = [("vilt", name) for name in ONE_LAYER]
LEFT += [("meter", name) for name in ONE_LAYER if "text_merge_ratio" in REDUCED[name][-1]]


def example_alone(family) -> dict[str, Tensor]:
    """One example without padding: a picture of `GRID` patches (METER's are all square) and `WORDS` text tokens."""
    generator = torch.Generator().manual_seed(4)
    inputs = {"input_ids": torch.randint(1, 40, (1, WORDS), generator=generator)}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    grid = GRID if "pixel_mask" in family.inputs() else (4, 4)
    inputs["pixel_values"] = torch.randn(1, 3, *(PATCH * size for size in grid), generator=generator)
    return {**inputs, "image_saliency": torch.rand(1, *grid, generator=generator)}


def padded(family, inputs: dict[str, Tensor], canvas: tuple[int, int]) -> dict[str, Tensor]:
    """The same example with padded text, on a canvas of so many patches. What is padded is noise."""
    longer = (0, PADDED_WORDS - WORDS)
    result = {name: torch.nn.functional.pad(inputs[name], longer) for name in ("input_ids", "attention_mask")}
    if "pixel_mask" not in family.inputs():
        return {**inputs, **result}
    generator = torch.Generator().manual_seed(5)
    rows, columns = inputs["image_saliency"].shape[1:]
    pixels = torch.randn(1, 3, *(PATCH * size for size in canvas), generator=generator)
    pixels[:, :, : PATCH * rows, : PATCH * columns] = inputs["pixel_values"]
    mask = torch.zeros(1, *pixels.shape[2:], dtype=torch.long)
    mask[:, : PATCH * rows, : PATCH * columns] = 1
    saliency = torch.full((1, *canvas), 2.0)  # padding looks worth more than any patch
    saliency[:, :rows, :columns] = inputs["image_saliency"]
    return {**result, "pixel_values": pixels, "pixel_mask": mask, "image_saliency": saliency}


def image_mask(inputs: dict[str, Tensor]) -> Tensor:
    """Which image tokens of the example are real, the [CLS] first: bool (L,)."""
    pixels = inputs.get("pixel_mask", torch.ones_like(inputs["pixel_values"][:, 0]))
    patches = pixels[0, ::PATCH, ::PATCH].flatten().bool()
    return torch.cat([torch.ones(1, dtype=torch.bool), patches])


def even_padding(mask: Tensor) -> int:
    """How many padding tokens a matching can merge away: those of the even half."""
    return int((~mask[2::2]).sum())


def merging(kept: int, merged: int, length: int) -> float:
    """The ratio that takes `merged` of `length` tokens away, `kept` being how many are left before; 0 for none."""
    assert merged <= (kept - 1) // 2, "more than a matching can merge"
    return merged / length


def in_one_layer(part: dict[str, Any]) -> dict[str, Any]:
    """The same part, in layer 1 if it works in layers."""
    if "layers" not in part:
        return part
    return {name: value[0] if isinstance(value, list) else value for name, value in part.items()} | {"layers": [1]}


def same_schedules(part: dict[str, Any], text: Tensor, image: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parts of one layer that take as many real tokens away: of an example alone, and of the same example padded.

    Args:
        part: the method with its options.
        text: bool (Lt,), which tokens of the padded text are real.
        image: bool (Lv,), the same of the image.
    """
    alone: dict[str, float | None] = {}
    both: dict[str, float | None] = {}
    num_text, num_image = int(text.sum()), int(image.sum())
    if "prune_ratio" in part:
        pruned = 3
        alone["prune_ratio"] = pruned / num_image
        both["prune_ratio"] = (pruned + len(image) - num_image) / len(image)
    if "image_merge_ratio" in part:  # after pruning, no padding is left
        alone["image_merge_ratio"], both["image_merge_ratio"] = 2 / num_image, 2 / len(image)
        alone["text_merge_ratio"], both["text_merge_ratio"] = 2 / num_text, (2 + even_padding(text)) / len(text)
    if "merge_ratio" in part:
        masks = [image] if part.get("site") == "inputs" else [text, image]
        alone["merge_ratio"], both["merge_ratio"] = same_merge_ratios(*masks)
    if "site" in part and part["method"] == "tome":  # a tenth of a longer sequence is another number
        alone["round_ratio"] = both["round_ratio"] = 0.5
    if part.get("keep_ratio", 1.0) < 1:
        alone = both = {"keep_ratio": None, "num_keep": 5}
    return in_one_layer(part) | alone, in_one_layer(part) | both


def untouched(part: dict[str, Any], image_ratio: float) -> dict[str, Any]:
    """The part in one layer, with ratios so small that padding alone goes."""
    ratios = [name for name in part if name.endswith("_ratio") and name != "keep_ratio" and part[name] != 0]
    part = in_one_layer(part) | dict.fromkeys(ratios, 0.2)
    images = {"prune_ratio": image_ratio, "image_merge_ratio": image_ratio, "keep_ratio": 1 - image_ratio}
    return part | {name: value for name, value in images.items() if part.get(name, 0) != 0}


def same_merge_ratios(*masks: Tensor) -> tuple[float, float]:
    """Ratios, without padding and with it, that merge as many real tokens of each modality, and some of each."""
    candidates = [step / 200 for step in range(1, 100)]
    lengths = [(int(mask.sum()), len(mask), even_padding(mask)) for mask in masks]
    for alone in candidates:
        for both in candidates:
            real = [round(alone * number) for number, _, _ in lengths]
            if min(real) > 0 and real == [round(both * length) - padding for _, length, padding in lengths]:
                return alone, both
    raise AssertionError(f"no ratio merges as many real tokens of {lengths}")


def groups(source: Tensor, mask: Tensor) -> list[set[int]]:
    """Which real tokens are together after a reduction, each group a set of their places among the real ones."""
    held = source[mask].tolist()
    return sorted(({place for place, one in enumerate(held) if one == token} for token in set(held) - {-1}), key=min)


@pytest.mark.parametrize(("family", "name", "canvas"), PADDED)
def test_a_padded_example_loses_the_tokens_that_it_loses_alone(family, name, canvas):
    family, reduction = FAMILIES[family], REDUCED[name]
    one = example_alone(family)
    two = padded(family, one, CANVASES[canvas])
    text, image = two["attention_mask"][0].bool(), image_mask(two)
    own, matched = map(list, zip(*(same_schedules(part, text, image) for part in reduction), strict=True))
    alone = family.model(own)(**one)
    together = family.model(matched)(**two)
    trace, padded_trace = alone.reduction[-1], together.reduction[-1]
    every = (torch.ones(WORDS, dtype=torch.bool), torch.ones(int(image.sum()), dtype=torch.bool))
    assert groups(padded_trace.text_source[0], text) == groups(trace.text_source[0], every[0])
    assert groups(padded_trace.image_source[0], image) == groups(trace.image_source[0], every[1])
    assert len(groups(trace.image_source[0], every[1])) < image.sum()
    torch.testing.assert_close(together.logits, alone.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("family", "name"), LEFT)
def test_as_long_as_padding_is_left_no_real_token_goes(family, name):
    family = FAMILIES[family]
    one = example_alone(family)
    two = padded(family, one, (8, 8))
    image_ratio = 0.2 if "pixel_mask" in two else 0.0  # METER's pictures have no padding
    reduction = [untouched(part, image_ratio) for part in REDUCED[name]]
    reduced, plain = family.model(reduction), family.model(None)
    plain.load_state_dict(reduced.state_dict(), strict=False)
    torch.testing.assert_close(reduced(**two).logits, plain(**one).logits, atol=1e-5, rtol=1e-5)


class UnstableSort(TorchDispatchMode):
    """Sorts that do not ask to be stable give equal values in reverse, as they may on some device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is not torch.ops.aten.sort.default:
            return func(*args, **(kwargs or {}))
        values, dim, descending = (*args, *(-1, False)[len(args) - 1 :])
        ordered, index = torch.sort(values.flip(dim), dim=dim, descending=descending, stable=True)
        return ordered, values.shape[dim] - 1 - index


def equal_tokens(family, reduction):
    """A model that knows no places, and a batch of pictures of one colour and texts of one word."""
    model, inputs = family.model(reduction), inputs_of(family)
    for name, parameter in model.named_parameters():
        if "position_embedding" in name:
            parameter.data.zero_()
    inputs["pixel_values"] = torch.ones_like(inputs["pixel_values"])
    inputs["image_saliency"] = torch.ones_like(inputs["image_saliency"])
    inputs["input_ids"] = 3 * inputs["attention_mask"]
    return model, inputs


def skip_if_equal_rows_differ(model, inputs):
    """The kernels of some processors round equal rows of a matrix differently, and then no tokens are equal."""
    num_text = inputs["input_ids"].shape[1]
    with model.token_reduction.using({}):
        outputs = model(**inputs, output_hidden_states=True)
    patches = [states[0, num_text + 1 :] for states in outputs.hidden_states]
    assert all(torch.allclose(one, one[:1], atol=1e-5) for one in patches), "the patches are not equal"
    if not all((one == one[:1]).all() for one in patches):
        pytest.skip("the kernels of this processor round equal rows differently")


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("reduction", REDUCED.values(), ids=REDUCED)
def test_equal_tokens_are_ranked_by_their_place(family, reduction):
    model, inputs = equal_tokens(family, reduction)
    skip_if_equal_rows_differ(model, inputs)
    expected = model(**inputs)
    first = expected.reduction[0]
    where = reduction[0]["method"], reduction[0].get("site", "layers")
    if first.keep is not None and where not in OTHER_PLACES:  # the first example has no padding
        if first.saliency is not None:
            assert (first.saliency[0, 1:] == first.saliency[0, 1]).all(), "the patches are not equal"
        assert torch.equal(first.keep[0], torch.arange(first.keep.shape[1]))
    with UnstableSort():
        found = model(**inputs)
    assert_same_tokens(found.reduction, expected.reduction)
    assert torch.equal(found.logits, expected.logits)
    for index in range(len(inputs["input_ids"])):
        alone = model(**{name: value[[index]] for name, value in inputs.items()})
        assert_same_tokens(alone.reduction, expected.reduction, [index])


def assert_same_tokens(found, expected, examples=slice(None)):
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.text_source, other.text_source[examples])
        assert torch.equal(one.image_source, other.image_source[examples])
