"""Rated tweets to a labelled corpus: what is read, what is left out, what is refused."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from benchmarks import rated_tweets
from benchmarks.rated_tweets import RatedTweet
from models.prompting import describe, render
from pipelines.config import load_task

POLICY = Path(__file__).resolve().parent.parent / "templates/policies/hostile_tweets.yaml"
# Number, text, scores; the means are worked out.
TWEETS = [
    (1, "So lucky &amp; grateful &lt;3", [3, 2, 4, 1, 2]),
    (2, "I fucking hate traffic", [-4, -2, -3, -2, -2]),
    (3, "Half of them minded", [-2, 0, -2, -1, -4, 0]),
    (10000, "damn running late", [-2, -1, -3, -1, -1]),
]


def tar_gz(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def texts_file(tweets: list) -> str:
    rows = [f"{n}\t{sum(s) / len(s):.9f}\t{text}\r\n" for n, text, s in tweets]
    return "".join(rows)


def ratings_file(tweets: list) -> str:
    return "".join(f"{n}\t{sum(s) / len(s):.9f}\t0.5\t{s}\r\n" for n, _, s in tweets)


def sdist(texts: bytes, ratings: bytes) -> bytes:
    inner = tar_gz(
        {
            "hutto_ICWSM_2014/_README_.txt": b"what is here",
            "hutto_ICWSM_2014/tweets_GroundTruth.txt": texts,
            "hutto_ICWSM_2014/tweets_anonDataRatings.txt": ratings,
        }
    )
    top = "vaderSentiment-3.3.2"
    setup = b"from setuptools import setup\nsetup(name='vaderSentiment', version='3.3.2')\n"
    return tar_gz(
        {
            f"{top}/setup.py": setup,
            f"{top}/PKG-INFO": b"Metadata-Version: 2.1\nName: vaderSentiment\nVersion: 3.3.2\n",
            f"{top}/additional_resources/hutto_ICWSM_2014.tar.gz": inner,
        }
    )


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source distribution in the real one's form, in a folder that stands for the index."""
    folder = tmp_path / "index"
    folder.mkdir()
    path = folder / "vaderSentiment-3.3.2.tar.gz"
    path.write_bytes(sdist(texts_file(TWEETS).encode(), ratings_file(TWEETS).encode()))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    pin(monkeypatch, path)
    return path


def pin(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(rated_tweets, "SHA256", sha256)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_rater_has_an_own_opinion_and_the_label_is_the_majority_of_all(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tweets.jsonl"
    assert rated_tweets.main(["--out", str(out), "--archive", str(archive), "--raters", "3"]) == 0
    hostile, other = "hostile", "other"
    found = [(r["id"], r["text"], *r["ratings"].values(), r["label"]) for r in rows(out)]
    assert found == [
        ("tweet-0001", "So lucky & grateful <3", other, other, other, other),
        ("tweet-0002", "I fucking hate traffic", hostile, hostile, hostile, hostile),
        # Three of six are no majority, though two of the three raters said hostile.
        ("tweet-0003", "Half of them minded", hostile, other, hostile, other),
        ("tweet-10000", "damn running late", hostile, other, hostile, other),
    ]
    assert list(rows(out)[0]["ratings"]) == ["rater-01", "rater-02", "rater-03"]
    assert list(tmp_path.glob(".*.tmp")) == []
    said = capsys.readouterr().out
    assert "4 tweets, 3 raters each" in said


def test_a_lower_threshold_makes_fewer_hostile(archive: Path, tmp_path: Path) -> None:
    counts = []
    for threshold in ("-1", "-2", "-3"):
        out = tmp_path / f"{threshold}.jsonl"
        argv = ["--out", str(out), "--archive", str(archive), f"--threshold={threshold}"]
        assert rated_tweets.main([*argv, "--raters", "3"]) == 0
        counts.append(sum(row["label"] == "hostile" for row in rows(out)))
    assert counts == [3, 1, 0]


def test_downloads_with_pip_and_needs_no_archive(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "tweets.jsonl"
    assert rated_tweets.main(["--out", str(out), "--raters", "4"]) == 0
    assert len(rows(out)) == 4


def test_without_network_says_so_and_writes_nothing(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive.unlink()
    out = tmp_path / "tweets.jsonl"
    assert rated_tweets.main(["--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "cannot download vaderSentiment==3.3.2" in said and "--archive" in said
    assert "No matching distribution" in said
    assert not out.exists()


def test_pip_runs_nothing_of_a_package_with_another_hash(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "ran"
    setup = f"open({str(trace)!r}, 'w').close()\n".encode()
    forged = tar_gz({"vaderSentiment-3.3.2/setup.py": setup})
    archive.write_bytes(forged)
    assert rated_tweets.main(["--out", str(tmp_path / "t.jsonl")]) == 1
    said = capsys.readouterr().err
    assert hashlib.sha256(forged).hexdigest() in said and rated_tweets.SHA256 in said
    assert "it was not used" in said
    assert not trace.exists()


def test_a_given_archive_with_another_hash_is_refused(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive.write_bytes(archive.read_bytes() + b"\0")
    out = tmp_path / "tweets.jsonl"
    assert rated_tweets.main(["--out", str(out), "--archive", str(archive)]) == 1
    assert f"expected {rated_tweets.SHA256}" in capsys.readouterr().err
    assert not out.exists()


def test_tweets_whose_files_disagree_are_left_out() -> None:
    texts = texts_file(TWEETS)
    wrong = texts.replace("2\t-2.600000000\t", "2\t-2.500000000\t")
    assert wrong != texts
    tweets, contradicted = rated_tweets.parse(wrong, ratings_file(TWEETS))
    assert [tweet.id for tweet in tweets] == ["tweet-0001", "tweet-0003", "tweet-10000"]
    assert contradicted == 1


def test_a_line_break_of_unicode_inside_a_tweet_ends_no_line() -> None:
    tweets = [(1, "one\u2028two\x85three", [0, 0])]
    parsed, _ = rated_tweets.parse(texts_file(tweets), ratings_file(tweets))
    assert parsed[0].text == "one\u2028two\x85three"


def test_more_raters_than_a_tweet_has_is_refused_and_the_last_score_is_never_a_rater(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--out", str(tmp_path / "t.jsonl"), "--archive", str(archive), "--raters"]
    assert rated_tweets.main([*argv, "5"]) == 1
    assert "tweet-0001 has 5 scores, too few for 5 raters" in capsys.readouterr().err
    assert rated_tweets.main([*argv, "4"]) == 0


@pytest.mark.parametrize(
    "wrong", [["--threshold=0"], ["--threshold=-5"], ["--raters", "1"], ["--raters", "20"]]
)
def test_arguments_out_of_range_exit_with_two(
    wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        rated_tweets.main(["--out", str(tmp_path / "t.jsonl"), *wrong])
    assert stopped.value.code == 2
    assert "must be between" in capsys.readouterr().err


def test_an_unwritable_place_is_one_line_not_a_traceback(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nowhere").write_bytes(b"a file")
    out = tmp_path / "nowhere" / "t.jsonl"
    argv = ["--out", str(out), "--archive", str(archive), "--raters", "3"]
    assert rated_tweets.main(argv) == 1
    assert "nowhere" in capsys.readouterr().err


def test_agreement_by_hand() -> None:
    # Opinions (hostile at -2): rater 1 says 1 1 0 0, rater 2 says 1 0 0 0; kappa = (3/4 - 1/2) / 1/2.
    scores = [(-2, -3, -2), (-4, 0, 0), (0, 0, -2), (1, 2, 3)]
    tweets = [RatedTweet(str(i), "t", s) for i, s in enumerate(scores)]
    found = rated_tweets.agreement(tweets, -2, 2)
    assert found["kappa of two raters"] == pytest.approx(0.5)
    assert found["opinions hostile"] == 3 / 8
    assert (found["tweets hostile"], found["share"]) == (1, 0.25)
    # The others of rater 1 say 1 0 0 0 (a tie is other), of rater 2 the same.
    assert found["rater and the others"] == pytest.approx((0.5 + 1.0) / 2)
    assert rated_tweets.agreement(tweets[3:], -2, 2)["kappa of two raters"] == "undefined"


def test_the_policy_fits_the_corpus() -> None:
    task = load_task(POLICY)
    assert (task.labels.positive, task.labels.negative) == (
        rated_tweets.POSITIVE,
        rated_tweets.NEGATIVE,
    )
    prompt = task.prompt_spec()
    assert "SKYPE NEEDS TO DIE" in describe(prompt, "SKYPE NEEDS TO DIE")
    assert render(prompt).positive_answer != render(prompt).negative_answer
