"""Where the tokens of an image lie on it."""

import pytest
import torch
from models.decoders.tiny import TWO, image_lengths, pixels, tiny_model
from torch import nn

from pumer_hf.models.decoders.family import ImageFeatures
from pumer_hf.models.families import DECODERS

DRAWN = [name for name, row in DECODERS.items() if row.grids is not None]
SIZES = [TWO, (6, 4)]
OUTPUTS = ("out_proj", "proj", "o_proj", "projection_layer")
"""What the last linear layer of attention is called, in one tower or another."""


def without_mixing(model):
    """The model, in whose image tower no patch sees another, whatever its layers of attention are called."""
    for name, module in model.named_modules():
        last = name.removesuffix(".linear").rpartition(".")[2]
        in_attention = "attn" in name or "attention" in name
        if isinstance(module, nn.Linear) and in_attention and last in OUTPUTS:
            nn.init.zeros_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def part_of(name, inputs, image, row, column, grid):
    """A mask of the pixel values of which a token at this place is made."""
    values = inputs["pixel_values"]
    mask = torch.zeros_like(values, dtype=torch.bool)
    if values.ndim >= 4:
        flat = mask.view(-1, *values.shape[-3:])
        high, wide = grid.height // grid.rows, grid.width // grid.columns
        flat[image, :, row * high : (row + 1) * high, column * wide : (column + 1) * wide] = True
    elif name == "gemma4":
        places = inputs["image_position_ids"][image].div(2, rounding_mode="floor")
        mask[image, (places[:, 0] == column) & (places[:, 1] == row)] = True
    else:  # the processor of Qwen-VL puts the patches of a token behind each other
        first = sum(4 * h * w for h, w in SIZES[:image]) + 4 * (row * grid.columns + column)
        mask[first : first + 4] = True
    return mask


@pytest.mark.parametrize("name", DRAWN)
def test_a_token_is_made_of_its_part_of_the_picture(name):
    model = without_mixing(tiny_model(name))
    inputs = pixels(name, SIZES, [len(SIZES)])
    inputs["pixel_values"].requires_grad_()
    encoded = model.base_model.get_image_features(**inputs, return_dict=True)
    lengths = image_lengths(model, name, SIZES)
    grids = DECODERS[name].grids(model.config, inputs, lengths)
    assert [grid.rows * grid.columns for grid in grids] == lengths
    tokens = ImageFeatures.of(encoded).features.split(lengths)
    for image, (grid, features) in enumerate(zip(grids, tokens, strict=True)):
        for place in (0, 1, grid.columns, len(features) - 1):
            score = features[place].square().sum()
            (gradient,) = torch.autograd.grad(score, inputs["pixel_values"], retain_graph=True)
            own = part_of(name, inputs, image, *divmod(place, grid.columns), grid)
            assert gradient[own].any()
            assert not gradient[~own].any(), (image, place)


def test_families_whose_tokens_are_no_grid_are_not_drawn():
    assert set(DECODERS) - set(DRAWN) == {"llava_next", "llava_onevision"}


def test_tokens_that_do_not_cover_the_picture_are_named():
    values = torch.zeros(1, 3, 24, 24)
    for length in (35, 37):
        with pytest.raises(ValueError, match=f"{length} image tokens do not lie in rows on 24 x 24 pixels"):
            DECODERS["llava"].grids(None, {"pixel_values": values}, [length])
    with pytest.raises(ValueError, match="pixel_values: 1 pictures, but 2 groups"):
        DECODERS["llava"].grids(None, {"pixel_values": values}, [36, 36])
    inputs = pixels("qwen2_vl", [TWO], [1])
    with pytest.raises(ValueError, match="23 image tokens do not fill 4 rows and 6 columns"):
        DECODERS["qwen2_vl"].grids(tiny_model("qwen2_vl").config, inputs, [23])


def test_a_wide_picture_has_more_columns_than_rows():
    (grid,) = DECODERS["llava"].grids(None, {"pixel_values": torch.zeros(1, 3, 24, 48)}, [72])
    assert (grid.rows, grid.columns) == (6, 12)
