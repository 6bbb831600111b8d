"""The greedy choices against slow versions with loops and determinants."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pumer_hf.reducers.choice import RIDGE, choose_coverage, choose_dpp, choose_max_min

CHOICES = {"dpp": choose_dpp, "max_min": choose_max_min, "coverage": choose_coverage}
each_choice = pytest.mark.parametrize("choose", CHOICES.values(), ids=CHOICES)


def cosines(features):
    unit = torch.nn.functional.normalize(features.double(), dim=-1)
    return (unit @ unit.T).tolist()


def kernel(features, quality):
    """The kernel of the DPP of one example, with the ridge, in float64."""
    similarity = torch.tensor(cosines(features), dtype=torch.float64)
    similarity += RIDGE * torch.eye(len(features), dtype=torch.float64)
    return quality.double().unsqueeze(1) * similarity * quality.double()


def dpp_gain(features, quality, chosen, token):
    """By what factor a token increases the determinant of the kernel of the chosen part."""
    matrix, tokens = kernel(features, quality), [*chosen, token]
    before, after = (torch.linalg.det(matrix[part][:, part]).item() for part in (chosen, tokens))
    return after / before


def max_min_gain(features, quality, chosen, token):
    similarity = cosines(features)
    others = chosen or [other for other in range(len(features)) if other != token]
    distance = min((1 - similarity[token][other] for other in others), default=2.0)
    return max(distance, RIDGE) * quality[token].item()


def coverage_gain(features, quality, chosen, token):
    similarity = cosines(features)
    added = 0.0
    for other in range(len(features)):
        covered = max((similarity[other][one] for one in chosen), default=-1.0)
        added += max(similarity[other][token] - covered, 0.0)
    return max(added / len(features), RIDGE / 10) * quality[token].item()


GAINS = {choose_dpp: dpp_gain, choose_max_min: max_min_gain, choose_coverage: coverage_gain}
"""What each choice makes as large as it can at each step, one token at a time."""


@each_choice
@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 9),
    width=st.integers(5, 12),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_each_step_takes_the_token_with_the_highest_gain(choose, batch, length, width, seed, data):
    generator = torch.Generator().manual_seed(seed)
    num_keep = data.draw(st.integers(1, min(length, width - 1)))
    features = torch.randn(batch, length, width, generator=generator)
    quality = torch.rand(batch, length, generator=generator) + 0.1
    found = choose(features, quality, torch.ones(batch, length, dtype=torch.bool), num_keep)
    for example, tokens in enumerate(found.tolist()):
        assert len(set(tokens)) == num_keep
        for step, token in enumerate(tokens):
            gains = {
                other: GAINS[choose](features[example], quality[example], tokens[:step], other)
                for other in range(length)
                if other not in tokens[:step]
            }
            assert gains[token] == pytest.approx(max(gains.values()), rel=2e-3)  # gains are rounded


@each_choice
def test_padding_is_chosen_last_and_changes_nothing(choose):
    generator = torch.Generator().manual_seed(1)
    features, quality = torch.randn(1, 6, 8, generator=generator), torch.rand(1, 6, generator=generator)
    loud = torch.cat([features, 50 * torch.randn(1, 3, 8, generator=generator)], dim=1)
    best = torch.cat([quality, torch.full((1, 3), 9.0)], dim=1)
    mask = torch.arange(9).unsqueeze(0) < 6
    for num_keep in range(1, 7):
        alone = choose(features, quality, mask[:, :6], num_keep)
        assert torch.equal(choose(loud, best, mask, num_keep), alone)
    assert choose(loud, best, mask, 9)[0, 6:].tolist() == [6, 7, 8]


@each_choice
@pytest.mark.parametrize("width", [1, 2, 3])
def test_more_tokens_than_the_features_span_are_chosen_by_quality(choose, width):
    features = torch.eye(3)[:1, :width].repeat(6, 1).unsqueeze(0)  # all the same
    quality = torch.tensor([[0.2, 0.9, 0.5, 0.1, 0.8, 0.3]])
    chosen = choose(features, quality, torch.ones(1, 6, dtype=torch.bool), 6)
    assert chosen[0].tolist() == [1, 4, 2, 5, 0, 3]


@each_choice
def test_equal_tokens_are_chosen_by_their_place(choose):
    mask = torch.ones(2, 7, dtype=torch.bool)
    chosen = choose(torch.ones(2, 7, 4), torch.full((2, 7), 0.3), mask, 5)
    assert chosen.tolist() == 2 * [[0, 1, 2, 3, 4]]


@each_choice
def test_two_groups_give_one_token_each_before_a_second(choose):
    features = torch.eye(2)[[0, 0, 0, 1, 1]].unsqueeze(0)
    chosen = choose(features, torch.ones(1, 5), torch.ones(1, 5, dtype=torch.bool), 2)
    assert chosen.tolist() == [[0, 3]]


@each_choice
def test_a_quality_of_almost_nothing_still_comes_before_padding(choose):
    quality = torch.tensor([[1.0, 1e-44, 0.0, 1.0]])
    mask = torch.tensor([[True, True, True, False]])
    assert choose(torch.randn(1, 4, 3), quality, mask, 4)[0, -1] == 3


def test_the_greedy_dpp_is_close_to_the_best_set():
    generator = torch.Generator().manual_seed(2)
    features, quality = torch.randn(8, 6, generator=generator), torch.rand(8, generator=generator) + 0.2
    matrix = kernel(features, quality)

    def volume(tokens):
        return torch.linalg.slogdet(matrix[list(tokens)][:, list(tokens)])[1].item()

    sets = sorted(itertools.combinations(range(8), 3), key=volume, reverse=True)
    chosen = choose_dpp(features[None], quality[None], torch.ones(1, 8, dtype=torch.bool), 3)[0].tolist()
    assert sets.index(tuple(sorted(chosen))) < 3


@each_choice
def test_mixed_precision_changes_no_choice(choose):
    features = torch.randn(2, 40, 6, generator=torch.Generator().manual_seed(2))
    quality = torch.rand(2, 40, generator=torch.Generator().manual_seed(3)) + 0.5
    mask = torch.ones(2, 40, dtype=torch.bool)
    expected = choose(features, quality, mask, 20)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(choose(features, quality, mask, 20), expected)
