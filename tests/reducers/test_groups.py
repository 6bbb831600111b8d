"""Groups of tokens that are alike, against a slow loop, and PuMer before the first layer, which merges them."""

import pytest
import torch
from torch.nn import functional as F

from pumer_hf.reducers import build_reducer, parse_method
from pumer_hf.reducers.groups import EXACT, group_alike, most_typical
from pumer_hf.reducers.pumer_inputs import LEAST_CONTRAST, contrast_of
from pumer_hf.tokens import Evidence, TokenPair, Tokens


def slow_groups(features, quality, num_groups):
    """Merge the cheapest pair of groups until there are `num_groups`; for one example."""
    groups = [[place] for place in range(len(features))]
    while len(groups) > num_groups:
        means = F.normalize(torch.stack([features[group].mean(dim=0) for group in groups]), dim=-1)
        best = torch.stack([quality[group].max() for group in groups])
        cost = (1 - means @ means.T) * best * best.unsqueeze(1)
        pairs = [(float(cost[i, j]), i, j) for i in range(len(groups)) for j in range(i + 1, len(groups))]
        _, i, j = min(pairs)
        groups[i] += groups.pop(j)
    return sorted(map(sorted, groups))


def members(group):
    return sorted([(group == number).nonzero().flatten().tolist() for number in range(int(group.max()) + 1)])


@pytest.fixture
def features():
    return torch.randn(3, 20, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("num_groups", [1, 4, 19, 20])
@pytest.mark.parametrize("weighed", [False, True])
def test_the_groups_are_those_of_a_slow_loop(features, num_groups, weighed):
    quality = torch.rand(3, 20, generator=torch.Generator().manual_seed(1)) + 0.5 if weighed else torch.ones(3, 20)
    group, _ = group_alike(features, quality, torch.ones(3, 20, dtype=torch.bool), num_groups)
    for row in range(3):
        assert members(group[row]) == slow_groups(features[row], quality[row], num_groups)


def test_a_group_has_the_place_of_the_token_that_is_most_like_its_mean(features):
    group, typical = group_alike(features, torch.ones(3, 20), torch.ones(3, 20, dtype=torch.bool), 5)
    assert (typical.diff(dim=1) > 0).all()
    for row in range(3):
        for number, place in enumerate(typical[row].tolist()):
            mine = (group[row] == number).nonzero().flatten()
            likeness = F.cosine_similarity(features[row, mine], features[row, mine].mean(dim=0), dim=-1)
            assert place in mine
            assert likeness[mine == place] > likeness.max() - 1e-3


def test_of_two_equal_tokens_the_first_one_gives_the_place():
    same = torch.ones(1, 4, 3)
    group = torch.tensor([[0, 0, 0, 0]])
    assert most_typical(same, group, torch.ones(1, 4, dtype=torch.bool), 1).item() == 0


def test_padding_changes_nothing(features):
    mask = torch.ones(3, 20, dtype=torch.bool)
    mask[1, 12:] = False
    mask[2, 3:] = False
    group, typical = group_alike(features, torch.ones(3, 20), mask, 5)
    alone, places = group_alike(features[1:2, :12], torch.ones(1, 12), mask[1:2, :12], 5)
    assert torch.equal(group[1, :12], alone[0])
    assert torch.equal(typical[1], places[0])
    assert group[2, :3].unique().numel() == 3  # there are fewer real tokens than groups


@pytest.mark.parametrize("length", [20, EXACT + 44])
def test_each_group_has_a_member_also_when_padding_must_fill_some(length):
    features = torch.randn(1, length, 6, generator=torch.Generator().manual_seed(4))
    mask = torch.arange(length).unsqueeze(0) < 7
    group, typical = group_alike(features, torch.ones(1, length), mask, 12)
    assert group.unique().tolist() == list(range(12))
    assert group.gather(1, typical).tolist() == [list(range(12))]
    assert group[mask].unique().numel() == 7


def test_pumer_takes_finite_gradients_where_padding_fills_groups():
    states = torch.randn(3, 21, 6, generator=torch.Generator().manual_seed(5)).half().requires_grad_()
    image = Tokens.initial(states, torch.arange(21).expand(3, 21) < 4)
    text = Tokens.initial(torch.randn(3, 4, 6).half())
    part = {"method": "pumer", "site": "inputs", "num_keep": 5}
    after, _ = build_reducer(parse_method(part), 6)(
        0, TokenPair(text, image), Evidence(None, text.states, image.states)
    )
    (gradient,) = torch.autograd.grad(F.layer_norm(after.image.states, (6,), eps=1e-12).sum(), states)
    assert gradient.isfinite().all()
    assert (after.image.mask.sum(dim=1) == 4).all()


def test_many_tokens_are_first_merged_in_rounds():
    centres = torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(0))
    kind = torch.randint(6, (1, 2 * EXACT), generator=torch.Generator().manual_seed(1))
    noise = 0.01 * torch.randn(1, 2 * EXACT, 16, generator=torch.Generator().manual_seed(2))
    features = centres[0, kind[0]].unsqueeze(0) + noise
    group, _ = group_alike(features, torch.ones(1, 2 * EXACT), torch.ones(1, 2 * EXACT, dtype=torch.bool), 6)
    assert members(group[0]) == members(kind[0])


def pair_of(features):
    image = Tokens.initial(F.pad(features, (0, 0, 1, 0)))
    text = Tokens.initial(
        torch.randn(len(features), 4, features.shape[-1], generator=torch.Generator().manual_seed(3))
    )
    return TokenPair(text, image), Evidence(None, text.states, image.states)


@pytest.mark.parametrize("merge_rest", [True, False])
def test_pumer_merges_groups_or_keeps_one_of_each(features, merge_rest):
    part = {"method": "pumer", "site": "inputs", "num_keep": 5, "p": 0.0, "contrast": 0.0, "merge_rest": merge_rest}
    pair, evidence = pair_of(features)
    after, trace = build_reducer(parse_method(part), 6)(0, pair, evidence)
    group, typical = group_alike(features, torch.ones(3, 20), torch.ones(3, 20, dtype=torch.bool), 5)
    assert torch.equal(trace.keep[:, 1:] - 1, typical)
    for row in range(3):
        for number in range(5):
            mine = group[row] == number if merge_rest else typical[row, number]
            expected = features[row, mine].view(-1, 6).mean(dim=0)
            torch.testing.assert_close(after.image.states[row, number + 1], expected)


def test_relevant_patches_stay_apart(features):
    pair, evidence = pair_of(features)
    word = features[:, 7:8]
    text = Tokens.initial(word)
    part = {"method": "pumer", "site": "inputs", "num_keep": 5, "p": 4.0, "temperature": 0.05}
    _, trace = build_reducer(parse_method(part), 6)(0, TokenPair(text, pair.image), evidence)
    held = (trace.image_source[:, 1:] == trace.image_source[:, 8:9]).sum(dim=1)
    assert held.tolist() == [1, 1, 1]


def test_what_stands_out_of_an_image_stays_apart():
    """Twelve patches are alike, and four others too. Without contrast, the four are in fewer groups."""
    generator = torch.Generator().manual_seed(0)
    centre, other = torch.eye(8)[0], torch.eye(8)[0] + 0.7 * torch.eye(8)[1]
    common = centre + 0.1 * torch.randn(12, 8, generator=generator)
    rare = other + 0.1 * torch.randn(4, 8, generator=generator)
    pair, evidence = pair_of(torch.cat([common, rare]).unsqueeze(0))
    groups = {}
    for contrast in (0.0, 1.0):
        part = {"method": "pumer", "site": "inputs", "num_keep": 6, "p": 0.0, "contrast": contrast}
        _, trace = build_reducer(parse_method(part), 8)(0, pair, evidence)
        groups[contrast] = trace.image_source[0, 13:].unique().numel()
    assert groups[1.0] > groups[0.0]


def test_contrast_is_the_distance_to_the_mean_of_the_real_patches():
    features = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[1, 3:] = False
    found = contrast_of(features, mask)
    for row, number in enumerate((5, 3)):
        real = features[row, :number]
        distance = 1 - F.cosine_similarity(real, real.mean(dim=0), dim=-1)
        torch.testing.assert_close(found[row, :number], (distance / distance.max()).clamp(min=LEAST_CONTRAST))
    assert (contrast_of(torch.ones(1, 4, 3), torch.ones(1, 4, dtype=torch.bool)) > 0).all()  # all alike


@pytest.mark.parametrize("name", ["p", "contrast"])
def test_the_form_paper_weighs_by_the_relevance_alone(name):
    part = {"method": "pumer", "site": "inputs", "keep_ratio": 0.5, "form": "paper", "prune_ratio": 0.2}
    with pytest.raises(ValueError, match=f"reduction.{name}=0.5: form 'paper'"):
        parse_method({**part, name: 0.5})
    assert parse_method(parse_method(part).to_dict()) == parse_method(part)


def test_only_the_form_spread_has_a_diversity():
    with pytest.raises(ValueError, match="reduction.diversity='dpp'"):
        parse_method({"method": "pumer", "site": "inputs", "keep_ratio": 0.5, "diversity": "dpp"})


def test_the_loops_compile(features):
    whole = torch.compile(group_alike, fullgraph=True, backend="aot_eager")
    arguments = features, torch.ones(3, 20), torch.ones(3, 20, dtype=torch.bool), 15
    for found, expected in zip(whole(*arguments), group_alike(*arguments), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("part", ["pumer", "relevant_diverse"])
def test_mixed_precision_changes_no_group_and_no_choice(part, features):
    config = parse_method({"method": part, "site": "inputs", "keep_ratio": 0.3})
    reducer = build_reducer(config, 6).eval()
    words = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(4))
    image = F.pad(features, (0, 0, 1, 0))
    pair = TokenPair(Tokens.initial(words), Tokens.initial(image))
    expected = reducer(0, pair, Evidence(None, words, image))[1].image_source
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(reducer(0, pair, Evidence(None, words, image))[1].image_source, expected)
