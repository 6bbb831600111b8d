"""The parts and the losses of the methods that learn where to prune, each against its formula."""

from dataclasses import replace

import pytest
import torch
from tiny_models import token_pair
from torch import multiprocessing
from torch.nn import functional as F
from two_processes import contrast_of_a_share

from pumer_hf.reducers import build_reducer, parse_method, tip_losses
from pumer_hf.reducers.dynamicvit import Predictor, ratio_loss
from pumer_hf.reducers.pruning import KeepLogits, learnable
from pumer_hf.reducers.tip import Contrast, new_pruner, weighted_mean
from pumer_hf.reducers.tip_losses import continuity_loss, contrastive_loss, sparsity_loss
from pumer_hf.tokens import Evidence

TIP = {"method": "tip", "layers": [1, 2], "prune_ratio": 0.4}
DYNAMICVIT = {"method": "dynamicvit", "layers": [1, 2], "prune_ratio": 0.4}


@pytest.mark.parametrize(("prune_ratio", "expected"), [(0.0, 0.999), (0.2, 0.8), (0.9, 0.1)])
def test_the_last_layer_of_a_pruner_starts_with_the_wanted_part(prune_ratio, expected):
    assert KeepLogits(4, prune_ratio).bias.softmax(0)[0].item() == pytest.approx(expected, abs=1e-4)


def test_sparsity_loss():
    probabilities = torch.tensor([[0.5, 0.9, 0.1], [1.0, 0.5, 0.5]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert sparsity_loss(probabilities, mask, 0.5).item() == pytest.approx((0 + 0.16 + 0.25) / 3)
    assert sparsity_loss(probabilities, torch.zeros_like(mask), 0.5) == 0
    one = torch.tensor([[False, True, False], [False, False, False]])
    assert sparsity_loss(probabilities, one, 0.5).item() == pytest.approx(0.16)


def test_a_layer_decides_about_the_patches_that_are_still_there():
    assert learnable(torch.tensor([[True, True, False, True]])).tolist() == [[False, True, False, True]]


def test_continuity_loss_equals_a_loop():
    generator = torch.Generator().manual_seed(0)
    rows, columns = 4, 5
    values = torch.rand(2, rows * columns, generator=generator)
    mask = torch.rand(2, rows * columns, generator=generator) < 0.7
    squares = []
    for example in range(2):
        for place in range(rows * columns):
            for other in range(rows * columns):
                (y, x), (v, u) = divmod(place, columns), divmod(other, columns)
                if place != other and max(abs(y - v), abs(x - u)) == 1 and mask[example, [place, other]].all():
                    squares.append((values[example, place] - values[example, other]).item() ** 2)
    found = continuity_loss(values, mask, (rows, columns)).item()
    assert found == pytest.approx(sum(squares) / len(squares), rel=1e-5)
    assert continuity_loss(torch.ones(1, 20), torch.ones(1, 20, dtype=torch.bool), (4, 5)) == 0


def test_contrastive_loss():
    text = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), dim=-1)
    image = F.normalize(torch.tensor([[1.0, 0.1], [0.2, 1.0], [-1.0, 1.0]]), dim=-1)
    expected = 0.0
    for row in range(3):
        scores = [float(image[row] @ text[other]) / 0.5 for other in range(3)]
        expected -= scores[row] - torch.tensor(scores).logsumexp(0).item()
    assert contrastive_loss(text, image, torch.tensor(0.5)).item() == pytest.approx(expected / 3, rel=1e-5)


def test_a_process_finds_the_texts_of_its_images_among_those_of_all(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    text, image = (torch.randn(6, 3, generator=generator) for _ in range(2))
    temperature = torch.tensor(0.5)
    whole = (image @ text.T / temperature).log_softmax(dim=-1).diagonal()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for rank in range(3):
        own = text[2 * rank : 2 * rank + 2]
        shares = {id(own): tuple(text.split(2))}
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        monkeypatch.setattr(tip_losses, "all_gather", lambda part, shares=shares: shares[id(part)])
        found = contrastive_loss(own, image[2 * rank : 2 * rank + 2], temperature)
        torch.testing.assert_close(found, -whole[2 * rank : 2 * rank + 2].mean())


@pytest.mark.integration  # starts processes
def test_the_contrast_is_with_the_texts_of_all_processes(tmp_path):
    generator = torch.Generator().manual_seed(0)
    text, image = (torch.randn(4, 3, generator=generator, requires_grad=True) for _ in range(2))
    expected = contrastive_loss(text, image, torch.tensor(0.5))
    expected.backward()
    torch.save((text.detach(), image.detach()), tmp_path / "inputs.pt")
    multiprocessing.spawn(contrast_of_a_share, (str(tmp_path),), nprocs=2)
    shares = [torch.load(tmp_path / f"share-{rank}.pt") for rank in range(2)]
    losses, of_text, of_image = zip(*shares, strict=True)
    assert sum(losses) / 2 == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(torch.cat(of_text) / 2, text.grad)  # DDP takes the mean over the processes
    torch.testing.assert_close(torch.cat(of_image) / 2, image.grad)


def test_ratio_loss():
    drawn = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0]])
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    assert ratio_loss(drawn, mask, 0.5).item() == pytest.approx(0.0)
    assert ratio_loss(drawn, mask, 0.75).item() == pytest.approx(0.0625)
    one = torch.tensor([[False, False, False, True]])  # an example with one token to decide about
    assert ratio_loss(drawn[1:], one, 0.5).item() == pytest.approx(0.25)
    assert ratio_loss(drawn[1:], torch.zeros_like(one), 0.75).item() == pytest.approx(0.5625)


def test_the_loss_of_dynamicvit_is_weighted_and_knows_the_ratio_of_its_layer():
    schedule = {**DYNAMICVIT, "prune_ratio": [0.75, 0.5], "ratio_weight": 3.0}
    reducer, pair = build_reducer(parse_method(schedule), 4), token_pair(4)
    drawn = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0, 0.0]])
    for layer, kept in ((1, 0.25), (2, 0.5)):
        losses = reducer.losses(layer, pair, torch.zeros(2, 5, 2), drawn)
        expected = 3 * ((3 / 4 - kept) ** 2 + (1 / 2 - kept) ** 2) / 2  # of 4 patches, and of 2
        assert {name: loss.item() for name, loss in losses.items()} == {"ratio_loss": pytest.approx(expected)}


@pytest.mark.parametrize("width", [1, 7, 8])
def test_the_predictor_of_dynamicvit_is_that_of_its_paper(width):
    predictor = Predictor(width, 0.4)
    norm, first = predictor.local[:2]
    second, third, last = predictor.decide[0], predictor.decide[2], predictor.decide[4]
    hidden, quarter = max(width // 2, 1), max(width // 4, 1)
    shapes = [tuple(layer.weight.shape) for layer in (norm, first, second, third, last)]
    assert shapes == [(width,), (width, width), (hidden, width), (quarter, hidden), (2, quarter)]
    generator = torch.Generator().manual_seed(0)
    states, weight = torch.randn(2, 5, width, generator=generator), torch.rand(2, 5, generator=generator)
    found = predictor(states, weight)
    num_local = width - width // 2
    for example in range(2):
        features = [F.gelu(first(norm(token))) for token in states[example]]
        whole = sum(part * one[num_local:] for part, one in zip(weight[example], features, strict=True))
        for place, one in enumerate(features):
            joined = torch.cat([one[:num_local], whole / weight[example].sum()])
            expected = last(F.gelu(third(F.gelu(second(joined)))))
            torch.testing.assert_close(found[example, place], expected)
    assert predictor.bfloat16()(states.bfloat16(), weight).dtype == torch.bfloat16


def test_a_pruner_of_dynamicvit_sees_the_whole_image():
    reducer = build_reducer(parse_method(DYNAMICVIT), 8)
    predictor = reducer.pruners["1"]
    states = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))
    weight = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]])
    logits = predictor(states, weight)
    assert logits.shape == (1, 5, 2)
    changed = states.clone()
    changed[0, 3] = states[0, 2]
    assert not torch.allclose(predictor(changed, weight)[0, 0], logits[0, 0])
    padding = states.clone()
    padding[0, 4] = states[0, 2]
    torch.testing.assert_close(predictor(padding, weight)[0, :4], logits[0, :4])


@pytest.mark.parametrize("width", [1, 8])
def test_the_pruner_of_tip_is_that_of_its_paper(width):
    half, quarter = max(width // 2, 1), max(width // 4, 1)
    norm, *layers = new_pruner("mlp", width, 0.3)
    assert isinstance(norm, torch.nn.LayerNorm)
    assert [type(layer) for layer in layers] == [*[torch.nn.Linear, torch.nn.GELU] * 3, KeepLogits]
    shapes = [(width, width), (half, width), (quarter, half), (2, quarter)]
    assert [layer.weight.shape for layer in layers[::2]] == shapes
    assert layers[-1].bias.softmax(0)[0].item() == pytest.approx(0.7)
    assert new_pruner("linear", width, 0.3).weight.shape == (2, width)
    assert new_pruner("first_head", width, 0.3).weight.shape == (2, 1)


def test_the_contrast_of_tip_is_of_the_directions_of_the_projections():
    generator = torch.Generator().manual_seed(0)
    contrast = Contrast(4)
    texts, images = (torch.randn(3, 4, generator=generator) for _ in range(2))
    expected = 0.0
    for row, image in enumerate(images):
        likeness = [F.cosine_similarity(contrast.image(image), contrast.text(text), dim=0).item() for text in texts]
        scores = torch.tensor(likeness) / 0.07  # its temperature, as it starts
        expected += (scores.logsumexp(0) - scores[row]).item() / 3
    assert contrast(texts, images).item() == pytest.approx(expected, rel=1e-4)


def test_the_losses_of_tip_are_weighted_and_know_the_ratio_of_their_layer():
    weights = {"sparsity_weight": 2.0, "contrastive_weight": 0.5, "continuity_weight": 5.0}
    reducer = build_reducer(parse_method({**TIP, "prune_ratio": [0.75, 0.5], **weights}), 4)
    pair = token_pair(4)
    keep = torch.tensor([[0.9, 0.8, 0.6, 0.1, 0.4], [0.9, 0.7, 0.2, 0.5, 0.5]])  # of [CLS] and the patches
    drawn = torch.tensor([[1.0, 1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0, 0.0]])
    texts = torch.stack([pair.text.states[0].mean(0), pair.text.states[1, :2].mean(0)])
    images = torch.stack([pair.image.states[0, [0, 1, 3]].mean(0), pair.image.states[1, [0, 2]].mean(0)])
    patches = torch.tensor([0.8, 0.6, 0.1, 0.4, 0.7, 0.2])  # those that are there
    edges = torch.tensor([0.8 - 0.6, 0.8 - 0.1, 0.8 - 0.4, 0.6 - 0.1, 0.6 - 0.4, 0.1 - 0.4, 0.7 - 0.2])
    for layer, kept in ((1, 0.25), (2, 0.5)):
        losses = reducer.losses(layer, pair, torch.stack([keep, 1 - keep], dim=-1).log(), drawn)
        expected = {
            "sparsity_loss": 2 * (patches - kept).square().mean(),
            "contrastive_loss": 0.5 * reducer.contrasts[str(layer)](texts, images),
            "continuity_loss": 5 * edges.square().mean(),
        }
        torch.testing.assert_close(losses, expected)


@pytest.mark.parametrize(("pruner", "heads"), [("mean_head", [0, 1, 2]), ("first_head", [0])])
def test_an_attention_pruner_reads_what_the_text_pays_each_patch(pruner, heads):
    reducer = build_reducer(parse_method({**TIP, "pruner": pruner}), 4)
    with torch.no_grad():
        reducer.pruners["2"].weight.copy_(torch.tensor([[2.0], [-1.0]]))
        reducer.pruners["2"].bias.copy_(torch.tensor([0.5, 0.25]))
    pair = token_pair(4)
    attention = torch.rand(2, 3, 3, 5, generator=torch.Generator().manual_seed(0))
    evidence = Evidence(attention, pair.text.states, pair.image.states)
    found = reducer.log_probabilities(2, pair, evidence)
    for example, (num_words, num_left) in enumerate(((3, 5), (2, 3))):  # without the padding
        share = attention[example, heads, :num_words].mean(dim=(0, 1)) * num_left
        expected = torch.stack([2 * share + 0.5, 0.25 - share], dim=-1).log_softmax(-1)
        torch.testing.assert_close(found[example], expected)
    half = replace(pair, image=replace(pair.image, states=pair.image.states.bfloat16()))
    found = reducer.bfloat16().log_probabilities(2, half, evidence)
    assert found.dtype == torch.float32


def test_a_weighted_mean_is_of_one_example_and_keeps_the_dtype():
    states, weight = torch.tensor([[[1.0], [4]], [[6], [8]]]), torch.tensor([[1.0, 3.0], [2.0, 0.0]])
    assert weighted_mean(states, weight).tolist() == [[3.25], [6.0]]
    assert weighted_mean(states.bfloat16(), weight).tolist() == [[3.25], [6.0]]


def test_the_attention_pruners_read_the_attention():
    for pruner in ("mean_head", "first_head"):
        reducer = build_reducer(parse_method({**TIP, "pruner": pruner}), 8)
        assert reducer.uses_attention
    assert not build_reducer(parse_method(TIP), 8).uses_attention
