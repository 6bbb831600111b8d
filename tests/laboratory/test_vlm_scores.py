"""The scores of public sets, on answers made by hand."""

import pytest

from laboratory.vlm_scores import SCORES, TITLES, edits


@pytest.mark.parametrize(
    ("name", "text", "answers", "score"),
    [
        ("vqa", "Two.", ["2"] * 4 + ["two"] * 6, 1.0),
        ("vqa", "red", ["red", "red", *["blue"] * 8], 0.6),
        ("exact", " Left. ", ["left"], 1.0),
        ("exact", "the left", ["left"], 0.0),
        ("exact", "", ["left"], 0.0),
        ("yes_no", "Yes, there is a dog.", ["yes"], 1.0),
        ("yes_no", "No.", ["no"], 1.0),
        ("yes_no", "Not sure", ["no"], 0.0),
        ("yes_no", "", ["no"], 0.0),
        ("relaxed", "103", ["100"], 1.0),
        ("relaxed", "106", ["100"], 0.0),
        ("relaxed", "-95", ["-100"], 1.0),
        ("relaxed", "14%", ["0.14"], 1.0),
        ("relaxed", "14%", ["14"], 0.0),
        ("relaxed", "0.01", ["0"], 0.0),
        ("relaxed", "0", ["0"], 1.0),
        ("relaxed", "yes ", ["Yes"], 1.0),
        ("relaxed", "2019 and 2020", ["2019"], 0.0),
        ("letter", "B", ["B", "a cat"], 1.0),
        ("letter", "(B) a cat", ["B", "a cat"], 1.0),
        ("letter", "The answer is B.", ["B", "a cat"], 1.0),
        ("letter", "A cat is on the mat, so B", ["B", "a cat"], 1.0),
        ("letter", "A. a cat that sits on a mat", ["A", "a cat that sits on a mat"], 1.0),
        ("letter", "The right option is A.", ["A", "a cat"], 1.0),
        ("letter", "A or B", ["B", "a cat"], 0.0),
        ("letter", "a cat", ["B", "a cat"], 1.0),
        ("letter", "A very small dog sleeps", ["B", "A very small dog sleeps"], 1.0),
        ("letter", "a dog", ["B", "a cat"], 0.0),
        ("anls", "Hello  World", ["hello world", "bye"], 1.0),
        ("anls", "hello word", ["hello world"], 1 - 1 / 11),
        ("anls", "he", ["hello"], 0.0),
        ("anls", "", ["hello"], 0.0),
    ],
)
def test_an_answer_scores_as_its_set_counts_it(name, text, answers, score):
    assert SCORES[name](text, answers) == pytest.approx(score)


def test_every_score_has_a_title():
    assert TITLES.keys() == SCORES.keys()


def test_edits_of_two_texts():
    assert [edits(*pair) for pair in (("kitten", "sitting"), ("", "abc"), ("abc", ""), ("ab", "ba"))] == [3, 3, 3, 2]
