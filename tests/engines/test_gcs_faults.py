"""Cloud Storage that fails: one sentence that says what and where, and a workspace that stays whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from google.api_core.retry import retry_base, retry_unary

from pipelines import cli
from pipelines.errors import RunFailed, UsageError
from pipelines.sources import registry
from pipelines.sources.base import ReadOptions
from pipelines.sources.survey import survey
from pipelines.store import listing, storage
from pipelines.store.workspace import Workspace
from tests import helpers
from tests.engines.faulty_storage import LIST, READ, WRITE, Fault, FaultyStorage, served
from tests.sources import parts

CORPUS, ROOT = "gs://scout/ads/*", "gs://scout/w"


@pytest.fixture
def faulty() -> Iterator[FaultyStorage]:
    with served("scout") as found:
        lines = "".join(json.dumps(ad) + "\n" for ad in helpers.tiny_ads())
        storage.write("gs://scout/ads/0.jsonl", lines.encode())
        yield found


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let Google's two minutes of trying again pass at once; what was slept, seconds."""
    slept: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append)
    for module in (retry_unary, retry_base):
        monkeypatch.setattr(module, "time", clock)
    return slept


@pytest.mark.parametrize(
    ("fault", "act", "said"),
    [
        (None, lambda: list(listing.matching("gs://nobucket/ads/*")), "no such bucket or object"),
        (None, lambda: storage.write("gs://nobucket/x", b""), "there is no such bucket or object"),
        (None, lambda: storage.opened("gs://scout/none"), "there is no such bucket or object"),
        (Fault(LIST, 403), lambda: storage.match(CORPUS), "object storage does not let us in"),
        (Fault(LIST, 403), lambda: list(listing.matching(CORPUS)), "does not have storage.objects"),
        (Fault(READ, 403), lambda: storage.read("gs://scout/ads/0.jsonl"), "not let us in"),
        (Fault(READ, 403), lambda: storage.opened("gs://scout/ads/0.jsonl"), "give the account"),
        (Fault(WRITE, 403), lambda: storage.write("gs://scout/x", b""), "does not let us in"),
        (Fault(LIST), lambda: storage.match(CORPUS), r"out of order, and stayed so .*Backend Er"),
        (Fault(READ), lambda: storage.read("gs://scout/ads/0.jsonl"), "run it again later"),
        (Fault(WRITE), lambda: storage.write("gs://scout/x", b""), "is out of order, and stayed"),
    ],
)
def test_what_fails_is_told_in_one_sentence(
    fault: Fault | None,
    act: Callable[[], object],
    said: str,
    faulty: FaultyStorage,
    hurried: list[float],
) -> None:
    faulty.faults = [fault] if fault else []
    with pytest.raises(RunFailed, match=said) as caught:
        act()
    message = caught.value.message
    assert message.startswith("gs://") and "\n" not in message
    # No address of a server, which nobody can do anything about.
    assert "http" not in message
    # What may pass is asked for again, what will not is not.
    assert bool(hurried) == (fault is not None and fault.status == 503)


@pytest.mark.parametrize("pattern", [LIST, READ, WRITE])
def test_what_passes_is_waited_for(
    pattern: str, faulty: FaultyStorage, hurried: list[float]
) -> None:
    faulty.faults = [Fault(pattern, times=3)]
    storage.write("gs://scout/ads/1.jsonl", b'{"text": "an ad"}\n')
    assert [item.path[-7] for item in storage.match(CORPUS)] == ["0", "1"]
    assert storage.read("gs://scout/ads/1.jsonl") == b'{"text": "an ad"}\n'
    assert len(hurried) == 3


def test_an_object_that_is_replaced_under_its_reader(faulty: FaultyStorage) -> None:
    path = "gs://scout/large/0.jsonl"
    line = json.dumps({"text": "x" * 1000}).encode() + b"\n"
    storage.write(path, line * 3000)
    [part] = parts([path])
    source = registry.get("files")
    assert len(list(source.read(part, ReadOptions()))) == 3000
    with pytest.MonkeyPatch.context() as patch:
        # The second of the three pieces in which it is fetched comes too late.
        patch.setattr(storage, "FETCHED_BYTES", 1 << 20)
        again = Fault(READ, 0, times=1, passed=1)
        again.act = lambda: storage.write(path, line * 2999)
        faulty.faults = [again]
        records = source.read(part, ReadOptions())
        with pytest.raises(RunFailed, match=f"{path}: was written again while it was read; run"):
            list(records)
        [part] = parts([path])
        faulty.faults = [Fault(READ, 0, times=1, passed=1, act=lambda: storage.remove(path))]
        with pytest.raises(RunFailed, match=f"{path}: was deleted while it was read"):
            list(source.read(part, ReadOptions()))


@pytest.mark.parametrize(
    ("corpus", "root", "fault", "status", "said"),
    [
        ("gs://nobucket/ads", ROOT, None, cli.FAILED, "gs://nobucket/ads"),
        (
            CORPUS,
            "gs://nobucket/w",
            None,
            cli.WRONG_USAGE,
            "--workspace gs://nobucket/w: cannot be",
        ),
        (
            CORPUS,
            ROOT,
            Fault(WRITE, 403),
            cli.WRONG_USAGE,
            f"--workspace {ROOT}: cannot be written",
        ),
        (CORPUS, ROOT, Fault(READ, 403), cli.FAILED, "gs://scout/ads/0.jsonl: object storage does"),
    ],
)
def test_what_can_be_known_is_told_before_anything_is_scored(
    corpus: str,
    root: str,
    fault: Fault | None,
    status: int,
    said: str,
    faulty: FaultyStorage,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    task = helpers.write_task(tmp_path)
    faulty.faults = [fault] if fault else []
    assert cli.main(["mine", str(task), "--corpus", corpus, "--workspace", root]) == status
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"scout: error: {said}")
    faulty.faults = []
    assert not storage.match("gs://scout/w/**")


def test_an_upload_that_fails_leaves_a_workspace_that_goes_on(
    faulty: FaultyStorage, tmp_path: Path, hurried: list[float]
) -> None:
    task = helpers.write_task(tmp_path)
    near = helpers.run(
        task, helpers.write_jsonl(tmp_path / "a.jsonl", helpers.tiny_ads()), tmp_path
    )
    place, seen = Workspace(ROOT), 0
    # The probe is the first upload; each run gets further than the one before it.
    for passed in (1, 3, 5, 8, 11):
        faulty.faults = [Fault(WRITE, passed=passed)]
        with pytest.raises(
            RunFailed, match=r"gs://scout/w/(rounds|scores)/.*: object storage is out of o"
        ):
            helpers.run(task, CORPUS, ROOT)  # type: ignore[arg-type]
        faulty.faults = []
        stages = [name for name in ("scored", "clusters", "pairs") if place.latest(1, name)]
        for name in stages:
            manifest = place.latest(1, name)
            assert manifest is not None
            for file in manifest.files:
                assert len(storage.read(place.path(file.path))) == file.bytes
        assert len(stages) >= seen
        seen = len(stages)
    assert seen >= 1
    far = helpers.run(task, CORPUS, ROOT)  # type: ignore[arg-type]
    assert far.scored_now == 0
    assert storage.read(far.pairs_file) == helpers.pairs_bytes(near)


def test_a_corpus_that_is_gone_when_the_workers_look(faulty: FaultyStorage) -> None:
    with pytest.raises(UsageError, match="no file matches"):
        survey(["gs://scout/none"], ReadOptions(), 1)
