import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pumer_hf.metrics.vqa_accuracy import CONTRACTIONS, VERSIONS, normalize, vqa_accuracy, vqa_score


def ten(count, answer, *others):
    """Ten annotators, of whom `count` gave `answer`; the others say different things unless given."""
    rest = [others[n % len(others)] if others else f"other {n}" for n in range(10 - count)]
    return [answer] * count + rest


# prediction, annotators' answers, score in 2021 and in 2017
GOLDEN = [
    *[("cup", ten(count, "cup"), score, score) for count, score in [(0, 0), (1, 30), (2, 60), (3, 90), (4, 100)]],
    *[("cup", ten(count, "cup"), 100, 100) for count in (5, 9, 10)],
    ("Yes", ten(10, "yes"), 0, 100),
    ("two", ten(10, "2"), 0, 100),
    ("don't know", ten(3, "dont know"), 90, 0),
    ("a", ten(5, "a", "b"), 100, 0),
    ("1000", ten(4, "1,000", "1000"), 100, 100),
    ("st louis", ten(5, "st. louis"), 100, 100),
    # where annotators agree, 2021 compares as it stands, and 2017 with what they wrote
    ("yes", ten(10, "Yes"), 0, 0),
    ("Yes", ten(10, "Yes"), 100, 0),
    ("st louis", ten(10, "st. louis"), 0, 0),
    ("yes\n", ten(10, " yes\t"), 100, 0),  # blanks at an end: 2017 takes them off the prediction alone
    ("red\nblue", ten(10, "red blue"), 100, 100),  # within an answer they turn into spaces
    ("red\tblue", ten(10, "red\nblue"), 100, 0),
    ("yes ", ten(10, "yes"), 100, 100),
    ("yes", ten(6, "yes ", "yes"), 100, 100),  # 2017: they disagree, and four wrote it without the blank
    ("yes", ten(8, "yes ", "yes"), 100, 60),
    ("yes", ten(7, "yes.", "no "), 100, 100),
    ("no", ten(7, "yes.", "no "), 90, 0),
    # where they do not, 2017 takes articles and numbers off the prediction alone
    ("the cup", ten(6, "cup", "mug"), 100, 100),
    ("the cup", ten(6, "the cup", "mug"), 100, 0),
    ("two", ten(6, "two", "3"), 100, 0),
    ("none", ten(6, "0", "3"), 100, 100),
    ("3.5", ten(6, "3.5", "4"), 100, 100),
    ("red-white", ten(6, "red white", "pink"), 100, 100),
]


@pytest.mark.parametrize(("prediction", "answers", "score_2021", "score_2017"), GOLDEN)
def test_golden(prediction, answers, score_2021, score_2017):
    assert 100 * vqa_score(prediction, answers, "2021") == pytest.approx(score_2021)
    assert 100 * vqa_score(prediction, answers, "2017") == pytest.approx(score_2017)


@pytest.mark.parametrize("version", VERSIONS)
def test_four_annotators_are_enough(version):
    # without one of the two that said it: a third; without one of the others: two thirds
    assert vqa_score("cup", ["cup", "cup", "mug", "jar"], version) == pytest.approx(
        (1 / 3 + 1 / 3 + 2 / 3 + 2 / 3) / 4
    )


def test_the_default_is_2021():
    assert vqa_score("Yes", ten(10, "yes")) == 0
    assert vqa_accuracy(["Yes"], [ten(10, "yes")]) == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_accuracy_is_the_mean_in_percent(version):
    references = [ten(1, "cup"), ten(3, "cup"), ten(4, "cup"), ten(0, "cup")]
    assert vqa_accuracy(["cup"] * 4, references, version) == pytest.approx((30 + 90 + 100 + 0) / 4)


@pytest.mark.parametrize(
    ("answer", "normalized"),
    [
        ("The Cup", "cup"),
        ("an  apple, a pear", "apple pear"),
        ("left/right", "left right"),
        ("left / right", "left right"),
        ("(left)right", "left right"),
        ("x/y /z", "xy z"),  # a mark that is next to a space once vanishes throughout
        ("x/y/ z", "xy z"),
        ("1,000-2,000", "10002000"),  # a comma in a number makes all marks vanish
        ("a.m.", "am"),
        ("2.5", "2.5"),
        ("Ten dogs!", "10 dogs"),
        ("dont", "don't"),
        ("couldntve", "couldntve"),  # only one apostrophe comes back
        ("couldnt've", "couldn't've"),
        ("y'alld've", "y'all'd've"),
        ("lets", "lets"),
        ("don't", "don't"),
        ("a", ""),
    ],
)
def test_normalization(answer, normalized):
    assert normalize(answer) == normalized


def slow_score(prediction, answers, version):
    """The published scripts in short: 2017 as of October 2017, 2021 as of March 2021, one annotator at a time."""

    def trimmed(text):
        return re.sub(r"[\n\t]", " ", text).strip()

    def plain(text):
        kept = []
        for mark in text:
            beside_blank = mark + " " in text or " " + mark in text
            if mark in ';/[]"{}()=+\\_-><@`,?!':
                kept.append("" if beside_blank or re.search("[0-9],[0-9]", text) else " ")
            else:
                kept.append(mark)
        joined = "".join(kept)
        is_decimal = [joined[place + 1 : place + 2].isdecimal() for place in range(len(joined))]
        return "".join(mark for place, mark in enumerate(joined) if mark != "." or is_decimal[place])

    def words(text):
        digits = {"zero": "0", "none": "0", "one": "1", "two": "2", "three": "3", "ten": "10"}
        numbered = [digits.get(word, word) for word in text.lower().split()]
        kept = [word for word in numbered if word not in ("a", "an", "the")]
        return " ".join({"dont": "don't", "cant": "can't"}.get(word, word) for word in kept)

    prediction = trimmed(prediction)
    answers = answers if version == "2017" else [trimmed(answer) for answer in answers]
    if any(answer != answers[0] for answer in answers):
        answers = [plain(answer) if version == "2017" else words(plain(answer)) for answer in answers]
        prediction = words(plain(prediction))
    elif version == "2017":
        prediction = words(plain(prediction))
    scores = []
    for left_out in range(len(answers)):
        others = answers[:left_out] + answers[left_out + 1 :]
        scores.append(min(1, sum(answer == prediction for answer in others) / 3))
    return sum(scores) / len(scores)


PARTS = ["yes", "Yes", "two", "2", "a", "the", "cup", "t-shirt", "dont", "don't", "cant", "1,000", "none", "3.5"]
PARTS += [".", "/", "?", " ", "  ", "\n", "\t"]
ANSWERS = st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map("".join)


@settings(max_examples=400, deadline=None)
@given(st.data(), st.sampled_from(VERSIONS))
def test_the_score_is_that_of_the_published_script(data, version):
    said = data.draw(st.lists(ANSWERS, min_size=1, max_size=3))
    blanks = st.sampled_from(["", "", "", " ", "\n", "\t"])
    answers = [data.draw(st.sampled_from(said)) + data.draw(blanks) for _ in range(6)]
    prediction = data.draw(st.sampled_from(said))
    assert vqa_score(prediction, answers, version) == pytest.approx(slow_score(prediction, answers, version))


def test_only_so_many_full_stops_go_as_in_the_published_script():
    assert normalize("." * 32 + "x") == "x"
    assert normalize("." * 34 + "x") == "..x"


def test_the_official_table_of_contractions():
    assert len(CONTRACTIONS) == 114
    assert CONTRACTIONS["somebody'd"] == "somebodyd"  # as it stands in the official code
    assert not {"lets", "shes", "well", "were", "ill", "shell", "wed"} & set(CONTRACTIONS)  # these are words


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="version='2019': "):
        vqa_score("a", ten(5, "a"), "2019")
    with pytest.raises(ValueError, match=r"answers=\['a', 'a', 'b'\]: .*four"):
        vqa_score("a", ["a", "a", "b"])
    with pytest.raises(ValueError, match="2 predictions .*1 references"):
        vqa_accuracy(["a", "b"], [ten(5, "a")])
    with pytest.raises(ValueError, match="0 predictions"):
        vqa_accuracy([], [])
