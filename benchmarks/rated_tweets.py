"""Write a corpus of real tweets in which every text carries several people's own opinions.

    python -m benchmarks.rated_tweets --out tweets.jsonl
    scout simulate templates/policies/hostile_tweets.yaml --corpus tweets.jsonl --workspace DIR

Source: C.J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of
Social Media Text", ICWSM 2014; the data travel in the source distribution vaderSentiment 3.3.2 (MIT).
About 20 people (for 1,000 tweets more than 90) gave each tweet a score from -4, extremely negative,
to 4, extremely positive. A score of at most --threshold counts as that person's "hostile"; the label
is "hostile" when more than half of all the tweet's scores do.

What the data are, found by measuring them:

* The scores measure how negative a tweet is, not at whom it is aimed: among the positives are insults
  and rage, but also grief, pain and bad news. The policy's words say so.
* Column k is not one person throughout. Tweets with 92, 93, ... scores come in multiples of 25: people
  got batches of 25 tweets, and in a batch a column seems to be one person. Over all tweets with
  equally many scores, be they 25 or 3,200, the columns' means vary 1.4 to 2.8 times as much as
  shuffled ones; were a column one person everywhere, that would grow with the number of tweets. Which
  tweets shared a batch is not recorded. So rater-01 is a seat that many people sat on: the kappa
  of two seats is that of two people drawn at random, and no seat has habits of its own.
* The 20th column is like no other: it equals the rounded mean of the rest in 59% of the tweets,
  the others in 44 to 51%. It never becomes a rater.
* 199 tweets are sets made up to vary capitals, exclamation marks and adverbs of 30 real ones. The two
  files give them different means and nothing tells which is right: they are left out.
"""

from __future__ import annotations

import argparse
import html
import io
import itertools
import json
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _common
from models.embedded import PresetError, download, sha256
from pipelines.numerics.agreement import cohen_kappa
from pipelines.store import storage

POSITIVE, NEGATIVE = "hostile", "other"
THRESHOLD = -2
# Experts see an ad in twos and threes: of five seats any two share enough ads for a kappa, of
# twenty they would share next to none.
RATERS = 5
# The last seat of the usual twenty is left out; see above.
MAX_RATERS = 19
LOWEST = -4

# What is inside need not be checked: the hash says which file it is.
SOURCE = "vaderSentiment==3.3.2"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
_INNER = "/additional_resources/hutto_ICWSM_2014.tar.gz"
_TEXTS = "/tweets_GroundTruth.txt"
_RATINGS = "/tweets_anonDataRatings.txt"
# Means are published with nine decimals.
_MEAN_TOLERANCE = 1e-6


class SourceError(RuntimeError):
    """The data cannot be used as asked; the message says what was found and what to do."""


@dataclass(frozen=True, slots=True)
class RatedTweet:
    """A tweet and what people thought of it.

    Attributes:
        id: "tweet-" and the source's number, four digits at least.
        text: The tweet, HTML entities resolved.
        scores: One a person, -4 (extremely negative) to 4, in the source's order.
    """

    id: str
    text: str
    scores: tuple[int, ...]


def read_source(path: Path) -> tuple[str, str]:
    """Read the two files out of the source distribution; nothing is unpacked to the disk.

    Returns:
        The text of the tweets' file and of the ratings' file.

    Raises:
        SourceError: If the hash is not the pinned one.
    """
    if (got := sha256(path)) != SHA256:
        raise SourceError(
            f"{path.name}: the file's sha256 is {got}, expected {SHA256}; it was not used"
        )
    inner = member(path.read_bytes(), _INNER)
    return member(inner, _TEXTS).decode("utf-8"), member(inner, _RATINGS).decode("utf-8")


def member(archive: bytes, name: str) -> bytes:
    """Return the content of the file of a tar.gz whose path ends with a name."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as opened:
        content = opened.extractfile(next(m for m in opened if m.name.endswith(name)))
        assert content is not None, "a regular file has content"
        return content.read()


def parse(texts: str, ratings: str) -> tuple[list[RatedTweet], int]:
    """Read the two files, which list the same tweets in the same order.

    Args:
        texts: Lines of id, mean score and text, separated by tabs.
        ratings: Lines of id, mean score, standard deviation and a JSON list of scores.

    Returns:
        The tweets, and how many were left out because the files give them different means.
    """
    tweets, contradicted = [], 0
    for (number, mean, text), (*_, listed) in zip(_rows(texts), _rows(ratings), strict=True):
        scores = tuple(json.loads(listed))
        if abs(float(mean) - sum(scores) / len(scores)) > _MEAN_TOLERANCE:
            contradicted += 1
        else:
            tweets.append(RatedTweet(f"tweet-{number:0>4}", html.unescape(text), scores))
    return tweets, contradicted


def _rows(content: str) -> list[list[str]]:
    # Not splitlines(): a tweet may hold what Unicode takes for a line break.
    lines = content.removesuffix("\n").split("\n")
    return [line.removesuffix("\r").split("\t") for line in lines]


def is_hostile(scores: Sequence[int], threshold: int) -> bool:
    """Tell whether more than half of the scores are at most the threshold; a tie is not."""
    return 2 * sum(score <= threshold for score in scores) > len(scores)


def record(tweet: RatedTweet, threshold: int, raters: int) -> dict[str, Any]:
    """Make the corpus record of a tweet: the first raters' opinions, and the majority of all."""
    return {
        "id": tweet.id,
        "text": tweet.text,
        "ratings": {
            f"rater-{seat:02}": POSITIVE if score <= threshold else NEGATIVE
            for seat, score in enumerate(tweet.scores[:raters], 1)
        },
        "label": POSITIVE if is_hostile(tweet.scores, threshold) else NEGATIVE,
    }


def agreement(tweets: Sequence[RatedTweet], threshold: int, raters: int) -> dict[str, Any]:
    """Measure one threshold: shares of positives, and how well the first raters agree.

    Returns:
        The threshold, the share of hostile opinions among the raters', the number and share of
        tweets hostile by the majority, the mean Cohen's kappa of two raters, and that of one rater
        with the majority of all the tweet's other scores; a kappa is "undefined" where all
        opinions are the same.
    """
    opinions = np.array([tweet.scores[:raters] for tweet in tweets]) <= threshold
    majority = np.array([is_hostile(tweet.scores, threshold) for tweet in tweets])
    others = [
        np.array([is_hostile(t.scores[:seat] + t.scores[seat + 1 :], threshold) for t in tweets])
        for seat in range(raters)
    ]
    return {
        "score at most": threshold,
        "opinions hostile": float(opinions.mean()),
        "tweets hostile": int(majority.sum()),
        "share": float(majority.mean()),
        "kappa of two raters": mean_kappa(itertools.combinations(opinions.T, 2)),
        "rater and the others": mean_kappa(zip(opinions.T, others, strict=True)),
    }


def mean_kappa(pairs: Iterable[tuple[np.ndarray, ...]]) -> float | str:
    """Average Cohen's kappa over pairs of bool (n,); "undefined" if it is for one of them."""
    kappas = [cohen_kappa(first, second)[0] for first, second in pairs]
    return "undefined" if None in kappas else float(np.mean(kappas))  # type: ignore[arg-type]


def run(out: Path, archive: Path | None, threshold: int, raters: int) -> None:
    """Fetch, convert and write; print what was done.

    Raises:
        PresetError: If the data cannot be downloaded.
        SourceError: If the archive is another one, or has too few scores for the raters.
        OSError: If a file cannot be read or written.
    """
    if archive:
        texts, ratings = read_source(archive)
    else:
        _common.log(f"downloading {SOURCE} (2.5 MB)")
        with tempfile.TemporaryDirectory() as folder:
            # pip checks the hash before it runs setup.py for the metadata.
            how = ("--no-binary=:all:", "--no-build-isolation")
            otherwise = "fetch its .tar.gz elsewhere and give it with --archive"
            texts, ratings = read_source(download(SOURCE, SHA256, Path(folder), how, otherwise))
    tweets, contradicted = parse(texts, ratings)
    fewest = min(tweets, key=lambda tweet: len(tweet.scores))
    # The last score of a tweet never becomes a rater; see the top.
    if len(fewest.scores) <= raters:
        raise SourceError(
            f"{fewest.id} has {len(fewest.scores)} scores, too few for {raters} raters; "
            "give a smaller --raters"
        )
    records = (record(tweet, threshold, raters) for tweet in tweets)
    lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records)
    storage.write(str(out), lines.encode())
    thresholds = sorted({-1, -2, -3, threshold}, reverse=True)
    _common.print_table([agreement(tweets, value, raters) for value in thresholds])
    print(
        f"left out: {contradicted} tweets for which the source's two files give different means\n"
        f"wrote {out}: {len(tweets)} tweets, {raters} raters each, {POSITIVE!r} for a score "
        f"of at most {threshold}; the label is the majority of all of a tweet's scores\n"
        "source: Hutto and Gilbert, ICWSM 2014, in vaderSentiment 3.3.2, MIT"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the conversion; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the corpus, JSON lines")
    parser.add_argument(
        "--archive",
        type=Path,
        help=f"the source distribution {SOURCE}, downloaded before (default: download)",
    )
    parser.add_argument(
        "--threshold",
        type=int,
        default=THRESHOLD,
        help=f"highest score that is {POSITIVE}, -4 to -1 (default: {THRESHOLD})",
    )
    parser.add_argument(
        "--raters",
        type=int,
        default=RATERS,
        help=f"people whose opinions are written, 2 to {MAX_RATERS} (default: {RATERS})",
    )
    args = parser.parse_args(argv)
    if not LOWEST <= args.threshold <= -1:
        parser.error(f"--threshold must be between {LOWEST} and -1, got {args.threshold}")
    if not 2 <= args.raters <= MAX_RATERS:
        parser.error(f"--raters must be between 2 and {MAX_RATERS}, got {args.raters}")
    try:
        run(args.out, args.archive, args.threshold, args.raters)
    except (PresetError, SourceError, OSError) as e:
        print(f"rated_tweets: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
