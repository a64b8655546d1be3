"""How good what was found is: average precision and recall of gold passages, exact match and F1 of answers.

Passages are known by their titles, as HotpotQA, MuSiQue and HoVer name them. All values are between 0 and 1, NaN where
there is nothing to compare with; `interval` says how sure a mean of them is.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Collection, Sequence

from heedful.data.passages import plain_title
from heedful.evals.intervals import Interval, share

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def average_precision(titles: Sequence[str], gold: Collection[str]) -> float:
    """AP of a ranking, best first: the mean over all gold titles of the precision at the rank of each, 0 for those that
    are not in it.

    A gold title counts where it stands first; a second passage of the same title is a miss, as any other is.
    Source: LeReT (arXiv 2410.23214), whose reward it is.
    """
    left = {plain_title(title) for title in gold}
    if not left:
        return float("nan")
    count, found, total = len(left), 0, 0.0
    for rank, title in enumerate(map(plain_title, titles), start=1):
        if title in left:
            left.discard(title)
            found += 1
            total += found / rank
    return total / count


def recall(titles: Collection[str], gold: Collection[str]) -> float:
    """Share of the gold titles that are among the titles."""
    wanted = {plain_title(title) for title in gold}
    return len(wanted & {plain_title(title) for title in titles}) / len(wanted) if wanted else float("nan")


def plain_answer(text: str) -> str:
    """An answer as answers are compared (SQuAD): lower case, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, truths: Sequence[str]) -> float:
    """1 where the answer equals one of the truths, as `plain_answer` has them; NaN without truths.

    Source: Rajpurkar et al. 2016 (SQuAD), whose script HotpotQA and others use.
    """
    return (
        float(plain_answer(answer) in {plain_answer(truth) for truth in truths}) if truths else float("nan")
    )


def answer_f1(answer: str, truths: Sequence[str]) -> float:
    """The best F1 of the answer's words with those of one of the truths, by count; NaN without truths.

    Where one of the two is yes, no or "no answer", only equality counts, as in HotpotQA's script. Source: as
    `exact_match`.
    """
    return max((_f1(answer, truth) for truth in truths), default=float("nan"))


def _f1(answer: str, truth: str) -> float:
    said, right = plain_answer(answer), plain_answer(truth)
    if said == right:
        return 1.0
    if {said, right} & {"yes", "no", "noanswer"}:
        return 0.0
    ours, theirs = said.split(), right.split()
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs)) if shared else 0.0


def interval(values: Sequence[float]) -> Interval:
    """The mean over questions with its 95% interval; values that are NaN are left out and counted.

    Raises HeedfulError when none is left.
    """
    return share(list(values))
