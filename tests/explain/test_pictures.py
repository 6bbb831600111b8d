"""The pictures: what is drawn where."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import encoded
from tiny_tasks import tiny

from pumer_hf.data.snli_ve import SnliVeCollator
from pumer_hf.explain import draw_layers, draw_token_map, pictures, seen_picture
from pumer_hf.explain.panels import GAP, Panel, stack, tile, titled, wrap
from pumer_hf.explain.pictures import strip, token_colours, trace_panels
from pumer_hf.explain.prediction import encode, run
from pumer_hf.inputs import Encoder

GREY = (120, 120, 120)


def picture(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def centre(drawn, row, column, grid):
    """The colour in a patch, off its middle, where pruned patches have a stroke."""
    height, width = drawn.height / grid[0], drawn.width / grid[1]
    return drawn.getpixel((int((column + 0.5) * width), int((row + 0.3) * height)))


def test_kept_pruned_and_merged_patches_look_different():
    tokens = torch.tensor([[0, 1, -1], [1, 2, 2]])
    drawn = draw_token_map(Image.new("RGB", (24, 16), GREY), tokens)
    looks = {(row, column): centre(drawn, row, column, (2, 3)) for row in range(2) for column in range(3)}
    assert looks[0, 0] == GREY
    assert max(looks[0, 2]) < 80
    assert looks[0, 1] == looks[1, 0] != GREY
    assert looks[1, 1] == looks[1, 2] not in (GREY, looks[0, 1])
    assert drawn.size == (480, 320)


def test_a_token_keeps_its_colour_from_layer_to_layer():
    first, second = torch.tensor([[0, 0, 1, 1, 2]]), torch.tensor([[4, 4, -1, 4, 0]])
    palette = token_colours([first, second])
    assert set(palette) == {0, 2}
    big = Image.new("RGB", (400, 320), GREY)
    drawn = [draw_token_map(big, tokens, palette) for tokens in (first, second)]
    assert centre(drawn[0], 0, 0, (1, 5)) == centre(drawn[1], 0, 3, (1, 5))
    assert drawn[0].size == big.size


def test_many_tokens_have_different_colours():
    tokens = torch.arange(40).repeat_interleave(2).view(8, 10)
    palette = list(token_colours([tokens]).values())
    assert len(set(palette)) == len(palette) == 40


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
    assert drawn.width == 3 * (panel + GAP) + GAP
    wrapped = draw_layers(model, processor, picture(640, 427), **arguments, max_columns=2)
    assert wrapped.width == 2 * (panel + GAP) + GAP
    assert wrapped.height > drawn.height


def test_the_choice_before_the_first_layer_is_drawn():
    choice = {"method": "diverse", "site": "inputs", "num_keep": 5}
    model, processor = tiny("vilt", reduction=choice)
    inputs = encode(model, processor, picture(48, 48), "what digit is red?")
    traces = run(model, inputs).reduction
    ((seen, chosen),) = trace_panels(model, processor, inputs, traces)
    assert chosen.caption == ["before the first layer: 40 text and 6 image tokens", *chosen.caption[1:]]
    assert chosen.caption[1] == "of 36 patches, 5 stay, 0 share 0 tokens, 31 are gone"
    assert chosen.alt == f"The image before the first layer: {chosen.caption[1]}."
    pixels = np.asarray(chosen.picture, dtype=int)
    dark = np.abs(pixels - np.asarray(seen.picture, dtype=int)).reshape(6, 56, 6, 56, 3).mean(axis=(1, 3, 4)) > 30
    kept = (traces[0].image_source[0, 1:] >= 0).view(6, 6)
    assert (dark == ~kept.numpy()).all()


def test_padding_is_cut_off(monkeypatch):
    model, processor = tiny("vilt", "nlvr2")
    grids = []

    def draw(picture, tokens, palette):
        grids.append(tuple(tokens.shape))
        return draw_token_map(picture, tokens, palette)

    monkeypatch.setattr(pictures, "draw_token_map", draw)
    wide, tall = picture(64, 48), picture(48, 64)
    drawn = draw_layers(model, processor, [wide, tall], "both images show a seven", keep_aspect_ratio=True)
    assert grids == [(6, 8)] * 2 + [(8, 6)] * 2
    panel = 8 * 8 * 7
    assert drawn.width == 3 * (panel + GAP) + GAP  # the wide one; the canvas of both is square
    first = drawn.crop((GAP, GAP, GAP + panel, GAP + 48 * 7))
    again = np.asarray(first.resize(wide.size, Image.Resampling.NEAREST), dtype=int)
    assert (np.abs(again - np.asarray(wide, dtype=int)) <= 1).all()


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
@pytest.mark.parametrize("task", ["snli_ve", "retrieval", "nlvr2"])
def test_every_head(backbone, task):
    model, processor = tiny(backbone, task)
    images = [picture(48, 48), picture(48, 48, seed=1)] if task == "nlvr2" else picture(48, 48)
    drawn = draw_layers(model, processor, images, "is there a red digit?")
    assert drawn.height > (2 if task == "nlvr2" else 1) * 336
    assert (drawn.height > 700) == (task == "nlvr2")


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
    assert strip([[seen]]).height > tile([seen], 1).height  # the legend is under it
