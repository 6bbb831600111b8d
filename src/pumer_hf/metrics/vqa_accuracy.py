"""The official VQA accuracy (https://visualqa.org/evaluation.html), in the two versions that papers report."""

import re
from collections.abc import Sequence
from typing import Literal

Version = Literal["2017", "2021"]
VERSIONS: tuple[Version, ...] = ("2017", "2021")

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBER_WORDS = {**{word: str(number) for number, word in enumerate(NUMBERS)}, "none": "0"}
ARTICLES = ("a", "an", "the")
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
# A word that lacks one of its apostrophes gets it back. This is the official list: `lets` and `shes` stay.
CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
    he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
    needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
    somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
    that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've
    we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's
    who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've
    you'll you're you've
"""
CONTRACTIONS = {
    word[: match.start()] + word[match.end() :]: word
    for word in CONTRACTED.split()
    for match in re.finditer("'", word)
} | {"somebody'd": "somebodyd"}


def vqa_accuracy(predictions: Sequence[str], references: Sequence[Sequence[str]], version: Version = "2021") -> float:
    """Return the VQA accuracy in percent: the mean of [`vqa_score`] over the questions.

    Args:
        predictions: the answer to each question.
        references: the annotators' answers to each question, ten in VQA v2, at least four.
        version: `"2021"` or `"2017"`, see [`vqa_score`].
    """
    if len(predictions) != len(references) or not predictions:
        raise ValueError(
            f"{len(predictions)} predictions and {len(references)} references: give one of each per question"
        )
    scores = [vqa_score(answer, given, version) for answer, given in zip(predictions, references, strict=True)]
    return 100 * sum(scores) / len(scores)


def vqa_score(prediction: str, answers: Sequence[str], version: Version = "2021") -> float:
    """Return the score of one answer, in [0, 1].

    Each annotator is left out once, and the results are averaged. An answer scores a third for each of the others
    that gave it, at most 1.

    The versions differ in what they compare. `"2017"` is the code published with VQA v2. It normalises the prediction
    fully. It normalises the punctuation of the annotators' answers, and only if the annotators disagree. Blanks at
    the ends of these answers stay, so an answer with such a blank matches no prediction. `"2021"` is the code of the
    later challenges. It strips blanks from the prediction and the answers. It normalises both fully if the annotators
    disagree, and neither if they agree.
    """
    if version not in VERSIONS:
        raise ValueError(f"version={version!r}: choose one of {list(VERSIONS)}")
    if len(answers) < 4:
        raise ValueError(f"answers={list(answers)}: VQA accuracy needs at least four annotators (VQA v2 has ten)")
    prediction = _strip(prediction)
    if version == "2021":
        answers = [_strip(answer) for answer in answers]
    disagree = len(set(answers)) > 1
    if disagree:
        clean = normalize_punctuation if version == "2017" else normalize
        answers = [clean(answer) for answer in answers]
    if disagree or version == "2017":
        prediction = normalize(prediction)
    matches = [answer == prediction for answer in answers]
    return sum(min(1.0, (sum(matches) - left_out) / 3) for left_out in matches) / len(matches)


def normalize(answer: str) -> str:
    """Normalise an answer: lower case, digits, no punctuation, no articles, contractions with their apostrophes."""
    words = [NUMBER_WORDS.get(word, word) for word in normalize_punctuation(answer).lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def normalize_punctuation(answer: str) -> str:
    """Remove full stops, except in numbers. Other marks vanish next to a space; elsewhere they become a space.

    In an answer with a comma between digits, all marks vanish. Full stops after the 32nd stay.
    """
    comma_in_number = re.search(r"\d,\d", answer)
    cleaned = answer
    for mark in PUNCTUATION:
        vanishes = comma_in_number or f"{mark} " in answer or f" {mark}" in answer
        cleaned = cleaned.replace(mark, "" if vanishes else " ")
    return re.sub(r"\.(?!\d)", "", cleaned, count=32)  # the official code passes a flag as this count


def _strip(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()
