"""The pictures: what is drawn where."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import PUMER, encoded
from tiny_tasks import tiny

from pumer_hf.data.snli_ve import SnliVeCollator
from pumer_hf.explain import draw_layers, draw_token_map, pictures, seen_picture
from pumer_hf.explain.drawing import HUES, Mark, first_patches, token_marks
from pumer_hf.explain.panels import GAP, PHONE, PHONE_TEXT, Panel, stack, text_size, tile, titled, wrap
from pumer_hf.explain.pictures import strip, trace_panels
from pumer_hf.explain.prediction import encode, run
from pumer_hf.inputs import Encoder

GREY = (120, 120, 120)


def picture(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def patch(drawn, row, column, grid):
    """The pixels of a patch, (height, width, 3)."""
    height, width = drawn.height // grid[0], drawn.width // grid[1]
    pixels = np.asarray(drawn, dtype=int)
    return pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]


@pytest.mark.parametrize("colour", [BLACK, GREY, WHITE])
def test_kept_pruned_and_merged_patches_look_different(colour):
    tokens = torch.tensor([[0, 1, -1], [1, 2, 2]])
    drawn = draw_token_map(Image.new("RGB", (24, 16), colour), tokens)
    assert drawn.size == (480, 320)
    kept, merged, gone = (patch(drawn, 0, column, (2, 3)) for column in range(3))
    assert (kept == colour).all()
    assert np.abs(gone - kept).mean() > (15 if colour == WHITE else 60)
    assert np.abs(gone - gone.mean(axis=(0, 1))).max() > 50  # it has lines, so it is no patch of a pale picture
    inner = merged[40:-10, 10:-10]
    assert (inner == colour).all()  # nothing lies on the picture
    assert not (merged[80, 0] == colour).all()


def test_an_outline_goes_around_all_patches_of_a_token():
    drawn = draw_token_map(Image.new("RGB", (24, 16), GREY), torch.tensor([[0, 1, 1], [2, 1, 3]]))
    colour = HUES[0]
    first, right, below = patch(drawn, 0, 1, (2, 3)), patch(drawn, 0, 2, (2, 3)), patch(drawn, 1, 1, (2, 3))
    assert (first[80:, 0] == colour).all() and (right[-1, 80:] == colour).all()
    assert (first[-1, 80:-10] == GREY).all() and (below[0, 10:-10] == GREY).all()  # not between them
    assert (right[-1, 0] == colour).all()  # the inner corner


def test_each_part_of_a_token_has_its_number():
    grid = np.array([[0, 1, 0], [2, 1, 0]])
    marked = {0: Mark(1, HUES[0]), 1: Mark(2, HUES[1])}
    assert list(first_patches(grid, marked)) == [(0, 0), (0, 1), (0, 2)]
    drawn = draw_token_map(Image.new("RGB", (24, 16), BLACK), torch.from_numpy(grid))
    numbered = [place for place in np.ndindex(2, 3) if (patch(drawn, *place, (2, 3))[6:12, 6:12] != 0).any()]
    assert numbered == [(0, 0), (0, 1), (0, 2)]


def test_a_token_keeps_its_mark_from_layer_to_layer():
    first, second = torch.tensor([[0, 0, 1, 1, 2]]), torch.tensor([[4, 4, -1, 4, 0]])
    marks = token_marks([first, second])
    assert {place: mark.number for place, mark in marks.items()} == {0: 1, 2: 2}
    big = Image.new("RGB", (400, 320), GREY)
    drawn = [draw_token_map(big, tokens, marks) for tokens in (first, second)]
    assert drawn[0].size == big.size
    assert drawn[0].getpixel((1, 200)) == drawn[1].getpixel((1, 200)) == marks[0].colour


def test_the_largest_token_comes_first_and_tokens_that_touch_differ():
    tokens = torch.arange(40).repeat_interleave(2).view(8, 10)
    tokens[7] = 35
    marks = token_marks([tokens])
    assert sorted(mark.number for mark in marks.values()) == list(range(1, 37))
    assert marks[70].number == 1
    for row in range(7):
        for column in range(0, 8, 2):
            assert marks[row * 10 + column].colour != marks[row * 10 + column + 2].colour
            if row < 6:
                assert marks[row * 10 + column].colour != marks[row * 10 + column + 10].colour


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_the_picture_is_what_the_model_sees(backbone):
    model, processor = tiny(backbone)
    original = picture(48, 48)
    seen = seen_picture(processor, encode(model, processor, original, "what?")["pixel_values"][0])
    assert (np.abs(np.asarray(seen, dtype=int) - np.asarray(original, dtype=int)) <= 1).all()


@pytest.mark.parametrize(
    ("backbone", "keep_aspect_ratio", "columns"), [("vilt", False, 6), ("vilt", True, 9), ("meter", False, 6)]
)
def test_a_wide_picture(backbone, keep_aspect_ratio, columns):
    model, processor = tiny(backbone)
    arguments = {"text": "what digit is red?", "keep_aspect_ratio": keep_aspect_ratio}
    drawn = draw_layers(model, processor, picture(640, 427), **arguments)
    panel = columns * 8 * 7  # pixels of a patch, times the factor that makes 48 at least 320
    assert drawn.width == 2 * (panel + GAP) + GAP
    wide = draw_layers(model, processor, picture(640, 427), **arguments, max_columns=3)
    assert wide.width == 3 * (panel + GAP) + GAP
    assert wide.height < drawn.height
    assert text_size(drawn.width, panel) * PHONE / drawn.width == pytest.approx(PHONE_TEXT)


def test_the_choice_before_the_first_layer_is_drawn():
    choice = {"method": "diverse", "site": "inputs", "num_keep": 5}
    model, processor = tiny("vilt", reduction=choice)
    inputs = encode(model, processor, picture(48, 48), "what digit is red?")
    traces = run(model, inputs).reduction
    ((seen, chosen),) = trace_panels(model, processor, inputs, traces)
    assert chosen.caption == ["before the first layer: 40 text (33 padding) and 6 image tokens", *chosen.caption[1:]]
    assert chosen.caption[1] == "of 36 patches, 5 stay, 31 are gone"
    assert chosen.looks == {"stays", "gone"}
    assert chosen.alt == f"The image before the first layer: {chosen.caption[1]}."
    pixels = np.asarray(chosen.picture, dtype=int)
    changed = np.abs(pixels - np.asarray(seen.picture, dtype=int)).reshape(6, 56, 6, 56, 3).sum(axis=(1, 3, 4)) > 0
    kept = (traces[0].image_source[0, 1:] >= 0).view(6, 6)
    assert (changed == ~kept.numpy()).all()


def test_padding_is_cut_off(monkeypatch):
    model, processor = tiny("vilt", "nlvr2")
    grids = []

    def draw(picture, tokens, marks):
        grids.append(tuple(tokens.shape))
        return draw_token_map(picture, tokens, marks)

    monkeypatch.setattr(pictures, "draw_token_map", draw)
    wide, tall = picture(64, 48), picture(48, 64)
    drawn = draw_layers(model, processor, [wide, tall], "both images show a seven", keep_aspect_ratio=True)
    assert grids == [(6, 8)] * 2 + [(8, 6)] * 2
    panel = 8 * 8 * 7
    assert drawn.width == 2 * (panel + GAP) + GAP  # the wide one; the canvas of both is square
    first = drawn.crop((GAP, GAP, GAP + panel, GAP + 48 * 7))
    again = np.asarray(first.resize(wide.size, Image.Resampling.NEAREST), dtype=int)
    assert (np.abs(again - np.asarray(wide, dtype=int)) <= 1).all()


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
@pytest.mark.parametrize("task", ["snli_ve", "retrieval", "nlvr2"])
def test_every_head(backbone, task):
    model, processor = tiny(backbone, task)
    images = [picture(48, 48), picture(48, 48, seed=1)] if task == "nlvr2" else picture(48, 48)
    drawn = draw_layers(model, processor, images, "is there a red digit?")
    panels = 2 * (2 if task == "nlvr2" else 1)  # below each other: a place in the second row is free
    assert panels * 336 < drawn.height < panels * 500


def test_the_model_is_left_as_it_was():
    model, processor = tiny("vilt")
    model.train()
    inputs = encode(model, processor, picture(48, 48), "what?")
    run(model, inputs)
    assert model.training


def test_wrong_models_and_images():
    model, processor = tiny("vilt", "nlvr2")
    with pytest.raises(ValueError, match=r"1 images .*PuMerViltForImagesAndText\w+ takes 2"):
        draw_layers(model, processor, picture(48, 48), "what?")
    model.set_reduction(None)
    with pytest.raises(ValueError, match="reduces no tokens"):
        draw_layers(model, processor, [picture(48, 48)] * 2, "what?")


def test_an_empty_text_is_refused():
    model, processor = tiny("vilt")
    with pytest.raises(ValueError, match="text=' '"):
        encode(model, processor, picture(48, 48), " ")


@pytest.mark.parametrize("text", ["red?", "red " * 100])
def test_a_text_is_padded_or_cut_as_in_training(text):
    model, processor = tiny("vilt")
    inputs = encode(model, processor, picture(48, 48), text)
    assert inputs["input_ids"].shape == (1, min(40, model.config.max_text_length))


def test_the_inputs_are_those_of_training():
    model, processor = tiny("vilt", "snli_ve")
    wide, text = picture(640, 427), "there is a red digit"
    row = {"image": {"bytes": encoded(wide), "path": None}, "hypothesis": text, "origin": "a row"}
    collator = SnliVeCollator(Encoder(processor).replace(max_text_length=min(40, model.config.max_text_length)))
    expected = collator([row])
    found = encode(model, processor, wide, text)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_captions_are_wrapped_and_nothing_is_cut_off():
    class Font:
        def getlength(self, text):
            return 10 * len(text)

    assert wrap("one two three", 80, Font()) == ["one two", "three"]
    assert wrap("abcdefghij kl", 40, Font()) == ["abcd", "efgh", "ij", "kl"]
    short, long = (tile([Panel(Image.new("RGB", (100, 50)), [line])], 1) for line in ("a", "many words " * 9))
    assert long.width == short.width
    assert long.height > short.height + 100
    assert titled(short, "a title").height > short.height
    assert stack([short, long]).size == (short.width, short.height + long.height)
    five = tile([Panel(Image.new("RGB", (100, 50)), ["a"])] * 5, 4)
    assert five.size == (3 * (100 + GAP) + GAP, 2 * short.height)
    with pytest.raises(ValueError, match="max_columns=0"):
        tile([Panel(Image.new("RGB", (9, 9)), [])], 0)


def test_the_pictures_have_a_legend_and_the_same_in_words():
    model, processor = tiny("vilt")
    inputs = encode(model, processor, picture(48, 48), "what digit is red?")
    ((seen, *layers),) = trace_panels(model, processor, inputs, run(model, inputs).reduction)
    assert "6 rows and 6 columns" in seen.alt
    for panel, layer in zip(layers, (0, 2), strict=True):
        for part in (f"layer {layer}", "of 36 patches", "stay", "share", "gone"):
            assert part in panel.alt
        assert panel.caption[1] in panel.alt
    for part, word in {"stays": "stays", "shares": "share a token", "gone": "gone"}.items():
        assert word in pictures.LEGEND[part]


def test_the_legend_says_what_is_in_the_picture():
    def height(*looks):
        panel = Panel(Image.new("RGB", (400, 320)), ["a"], looks=frozenset(looks))
        return strip([[panel, panel]]).height

    assert height() < height("stays") < height("stays", "gone") < height("stays", "shares", "gone")
    free = [Panel(Image.new("RGB", (400, 320)), ["a"], looks=frozenset({"gone"}))] * 3
    assert strip([free]).size == strip([[*free, free[0]]], legend={}).size  # it is in the place of the fourth


def test_padding_is_counted_apart_and_never_drawn_as_words():
    model, processor = tiny("vilt", reduction={**PUMER, "layers": [0], "text_merge_ratio": 0.4})
    inputs = encode(model, processor, picture(48, 48), "red?")
    real = int(inputs["attention_mask"].sum())
    ((seen, layer),) = trace_panels(model, processor, inputs, run(model, inputs).reduction)
    assert seen.caption[1] == f"40 text ({40 - real} padding) and 37 image tokens"
    assert layer.caption[0].startswith(f"layer 0: 24 text ({24 - real} padding) and ")
    assert not any("words" in line for line in layer.caption)
