import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pumer_hf.training.losses import bucket_distillation_loss, buckets_of, distillation_loss, total_loss


def softmax_by_hand(logits, temperature):
    powers = [math.exp(value / temperature) for value in logits]
    return [power / sum(powers) for power in powers]


def distillation_by_hand(student_rows, teacher_rows, temperature):
    total = 0.0
    for student_logits, teacher_logits in zip(student_rows, teacher_rows, strict=True):
        student = softmax_by_hand(student_logits, temperature)
        teacher = softmax_by_hand(teacher_logits, temperature)
        total += sum(p * (math.log(p) - math.log(q)) for p, q in zip(teacher, student, strict=True))
    return temperature**2 * total / len(student_rows)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1000),
    batch=st.integers(1, 5),
    classes=st.integers(2, 6),
    temperature=st.sampled_from([0.5, 1.0, 2.0, 4.0]),
)
def test_distillation_loss_is_the_mean_over_the_batch_of_the_divergence_of_the_student_from_the_teacher(
    seed, batch, classes, temperature
):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = 2 * torch.randn(2, batch, classes, generator=generator)
    loss = distillation_loss(student, teacher, temperature)
    expected = distillation_by_hand(student.tolist(), teacher.tolist(), temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_distillation_loss_of_two_answers_worked_out_by_hand():
    student = torch.tensor([[0.0, 0.0]])
    teacher = torch.tensor([[math.log(3.0), 0.0]])  # probabilities 3/4 and 1/4
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert distillation_loss(student, teacher).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_distillation_loss_of_equal_distributions_is_zero(temperature):
    logits = torch.tensor([[1.0, -2.0, 0.5], [30.0, -30.0, 0.0]])
    assert distillation_loss(logits, logits, temperature).item() == 0.0
    assert distillation_loss(logits, logits + 3.0, temperature).item() == pytest.approx(0.0, abs=1e-5)


def test_distillation_loss_sends_the_gradient_to_the_student():
    student = torch.tensor([[1.0, -1.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, 2.0, 0.0]])
    distillation_loss(student, teacher, temperature=2.0).backward()
    # d/dx of T^2 KL(p || softmax(x / T)) is T (softmax(x / T) - p), per example of the batch
    expected = 2.0 * ((student.detach() / 2).softmax(-1) - (teacher / 2).softmax(-1))
    torch.testing.assert_close(student.grad, expected)


def test_distillation_loss_stays_finite_for_extreme_logits():
    student = torch.tensor([[1e4, -1e4]])
    assert torch.isfinite(distillation_loss(student, -student))


@pytest.mark.parametrize("shape", [(2, 4), (1, 3), (3,)])
def test_distillation_loss_rejects_logits_of_different_shapes_and_names_both(shape):
    with pytest.raises(ValueError, match=r"\(2, 3\)") as error:
        distillation_loss(torch.zeros(2, 3), torch.zeros(shape))
    assert str(shape) in str(error.value)


def test_distillation_loss_of_bf16_logits_is_computed_in_float32():
    student, teacher = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0)).bfloat16()
    loss = distillation_loss(student, teacher, temperature=2.0)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, distillation_loss(student.float(), teacher.float(), 2.0), rtol=0, atol=0)


def test_total_loss_weighs_only_the_distillation_term_with_alpha():
    terms = {
        "task_loss": torch.tensor(2.0),
        "distillation_loss": torch.tensor(3.0),
        "ratio_loss": torch.tensor(0.25),
        "other_loss": torch.tensor(0.5),
    }
    assert total_loss(terms, alpha=0.5).item() == 2.0 + 0.5 * 3.0 + 0.25 + 0.5
    assert total_loss(terms, alpha=0.0).item() == 2.0 + 0.25 + 0.5


def test_total_loss_leaves_missing_terms_out():
    task, distillation = torch.tensor(2.0), torch.tensor(3.0)
    assert total_loss({"task_loss": task}, alpha=4.0).item() == 2.0
    assert total_loss({"task_loss": task, "distillation_loss": distillation}, alpha=4.0).item() == 14.0
    assert total_loss({"task_loss": task, "ratio_loss": distillation}, alpha=4.0).item() == 5.0


def test_total_loss_is_infinite_with_an_infinite_term():
    terms = {"task_loss": torch.tensor(math.inf), "distillation_loss": torch.tensor(1.0)}
    assert total_loss(terms, alpha=0.5).item() == math.inf


def test_total_loss_sends_a_gradient_to_every_term_and_leaves_the_terms_alone():
    terms = {name: torch.tensor(2.0, requires_grad=True) for name in ("task_loss", "distillation_loss", "ratio_loss")}
    total_loss(terms, alpha=0.5).backward()
    assert {name: term.grad.item() for name, term in terms.items()} == {
        "task_loss": 1.0,
        "distillation_loss": 0.5,
        "ratio_loss": 1.0,
    }
    assert all(term.item() == 2.0 for term in terms.values())


# What a teacher says in advance


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), number=st.integers(1, 4), size=st.integers(2, 9), data=st.data())
def test_the_divergence_over_buckets_is_that_of_the_sums_of_their_probabilities(seed, number, size, data):
    top_k = data.draw(st.integers(1, size))
    generator = torch.Generator().manual_seed(seed)
    student, teacher = 2 * torch.randn(2, number, size, generator=generator)
    expected = 0.0
    for student_row, teacher_row in zip(student.tolist(), teacher.tolist(), strict=True):
        ours, theirs = softmax_by_hand(student_row, 1.0), softmax_by_hand(teacher_row, 1.0)
        best = sorted(range(size), key=lambda token, row=theirs: -row[token])
        groups = [[token] for token in best[:top_k]] + ([best[top_k:]] if top_k < size else [])
        for group in groups:
            p, q = (sum(row[token] for token in group) for row in (theirs, ours))
            expected += p * (math.log(p) - math.log(q))
    found = bucket_distillation_loss(student, buckets_of(teacher, top_k)).item()
    assert found == pytest.approx(expected / number, rel=1e-4, abs=1e-5)
    whole = distillation_loss(student, teacher).item()
    assert found <= whole + 1e-5
    if top_k == size:
        assert found == pytest.approx(whole, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("top_k", [1, 5, 6, 9], ids=["one", "some", "all", "more than all"])
def test_the_divergence_over_buckets_sends_a_finite_gradient_to_the_student(top_k):
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(3, 6, generator=generator).requires_grad_()
    teacher = 2 * torch.randn(3, 6, generator=generator)
    bucket_distillation_loss(student, buckets_of(teacher, top_k)).backward()
    assert student.grad.isfinite().all()
    assert student.grad.abs().sum() > 0
    if top_k >= 6:
        torch.testing.assert_close(student.grad, (student.detach().softmax(-1) - teacher.softmax(-1)) / 3)


def test_a_token_without_probability_adds_nothing():
    teacher = torch.tensor([[0.0, 0.0, -torch.inf]])
    student = torch.tensor([[0.0, 0.0, 1.0]], requires_grad=True)
    loss = bucket_distillation_loss(student, buckets_of(teacher, 3))
    assert loss.item() == pytest.approx(math.log((2 + math.e) / 2), rel=1e-5)
    loss.backward()
    assert student.grad.isfinite().all()


def test_buckets_of_other_tokens_are_an_error():
    buckets = buckets_of(torch.randn(2, 8), 3)
    with pytest.raises(ValueError, match=r"\(3, 8\).* 2 answer tokens"):
        bucket_distillation_loss(torch.zeros(3, 8), buckets)
    with pytest.raises(ValueError, match=f"token {int(buckets.tokens.max())}"):
        bucket_distillation_loss(torch.zeros(2, int(buckets.tokens.max())), buckets)
