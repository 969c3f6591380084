"""``scout init``: what it writes is valid and what was meant, and mines as it says."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import api, cli
from pipelines.config import load_task
from pipelines.errors import UsageError
from pipelines.jobs import look as looking
from pipelines.jobs.init import Started, name_of
from pipelines.sources.base import ReadOptions
from tests import helpers

ROOT = Path(__file__).resolve().parents[2]
GIVEN: dict[str, Any] = {
    "policy": "Ads that promise what nobody can promise.",
    "positive": "bait",
    "negative": "fine",
    "prior": 0.2,
}


def exported(folder: Path) -> Path:
    """Write an export of ads in three fields, with ids, impressions and a link."""
    path = folder / "my export.csv"
    with open(path, "w", encoding="utf-8", newline="") as sink:
        rows = csv.writer(sink)
        rows.writerow(["ad_id", "headline", "cta", "final_url", "impressions", "status"])
        for n, ad in enumerate(helpers.tiny_ads()):
            cta = ("Buy now", "See prices")[n % 2]
            rows.writerow(
                [ad["id"], ad["text"], cta, f"https://shop.example/{n}", n % 9, "ab"[n % 2]]
            )
    return path


def test_a_file_is_written_that_mines_as_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, path = exported(tmp_path), tmp_path / "My Policy.yaml"
    found = api.init(path, corpus=corpus, **GIVEN)
    task = load_task(path)
    assert (task.name, task.version, task.prior, task.policy) == (
        "my-policy",
        1,
        0.2,
        GIVEN["policy"],
    )
    assert (task.labels.positive, task.labels.negative) == ("bait", "fine")
    assert task.question == "Is this ad bait?" and task.prompt.form == "auto"
    assert [(f.path, f.name) for f in task.ad.fields] == [("headline", "headline"), ("cta", "cta")]
    # 200 distinct ads: experts are asked about a part of them.
    assert task.selection.budget == 25
    assert found.look is not None and (found.look.sampled, found.look.distinct) == (200, 200)
    validate, mine = (shlex.split(step.strip("`"))[1:] for step in found.next_steps)
    assert validate == ["validate", str(path)]
    assert mine[:4] == ["mine", str(path), "--corpus", str(corpus)]
    assert mine[4:8] == ["--id_field", "ad_id", "--weight_field", "impressions"]
    # Without a model's weights, and without the default that says so.
    path.write_text(path.read_text().replace("smollm2-135m-instruct", "fake"))
    assert cli.main(validate) == cli.OK
    assert "valid (task my-policy, version 1)" in capsys.readouterr().out
    mine[-1] = str(tmp_path / "w")
    assert cli.main([*mine, "--quiet", "--json"]) == cli.OK
    mined = json.loads(capsys.readouterr().out)
    assert (mined["records"], mined["rejected"], mined["unique"]) == (200, 0, 200)
    assert [name for name, _ in mined["review_items"][0]["ads"][0]["fields"]] == ["headline", "cta"]


@pytest.mark.parametrize(
    ("delimiter", "encoding"), [(";", "cp1252"), ("\t", "utf-16"), ("|", "utf-8-sig")]
)
def test_an_export_of_templates_with_decimal_commas_is_seen_through(
    delimiter: str, encoding: str, tmp_path: Path
) -> None:
    corpus, path = tmp_path / "export.csv", tmp_path / "task.yaml"
    with open(corpus, "w", encoding=encoding, newline="") as sink:
        rows = csv.writer(sink, delimiter=delimiter)
        rows.writerow(["Ad ID", "Headline", "Call to action", "Cost"])
        for n, city in enumerate(["Köln", "Zürich", "Évora", "Bath", "York"] * 12):
            headline = f"Cheap train tickets to {city} from £{n}, booked in advance"
            rows.writerow([f"AD-{n}", headline, ("Book", "Ask us")[n % 2], f"{n},50"])
    found = api.init(path, corpus=corpus, **GIVEN)
    assert [f.path for f in load_task(path).ad.fields] == ["Headline", "Call to action"]
    assert found.look is not None and found.look.sampled == 60
    command = f"scout mine {path} --corpus {corpus} --id_field 'Ad ID' --weight_field Cost"
    assert command in found.next_steps[1]


def test_the_look_is_told_in_the_file_and_on_the_screen(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    found = api.init(path, corpus=exported(tmp_path), **GIVEN)
    told = [line for line in path.read_text("utf-8").splitlines() if line.startswith("#")]
    for words in (
        "1 file (csv)",
        "all 200 records",
        "headline: text (taken for the text), in 100% of the records",
        "final_url: url (taken for the url)",
        "impressions: number (taken for the weight)",
        "Scripts: Latin 100%. Languages, where the text tells: en ",
        "texts like: headline: ",
    ):
        assert any(words in line for line in told), words
    shown = repr(found)
    assert "  languages   en " in shown and f"Task file:  {path}\n" in shown
    assert f"`scout validate {path}`, then `scout mine {path} --corpus '" in shown


def test_without_a_corpus_the_file_is_valid_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    found = api.init(path, name="other", question="Bait:", **GIVEN)
    task = load_task(path)
    assert (task.name, task.question, task.ad.fields) == ("other", "Bait:", ())
    assert found.look is None and "--corpus GLOB --workspace runs/other" in found.next_steps[1]
    again = api.init(tmp_path / "two.yaml", text_field="body", **GIVEN)
    assert [f.path for f in load_task(again.task_file).ad.fields] == ["body"]


@pytest.mark.parametrize("prior", [1e-05, 0.02, 0.123456789, 0.5])
def test_a_prior_is_a_number_in_yaml(prior: float, tmp_path: Path) -> None:
    api.init(tmp_path / "task.yaml", **{**GIVEN, "prior": prior})
    assert load_task(tmp_path / "task.yaml").prior == prior


def test_a_file_of_bad_records_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "SCANNED", 30)
    path = helpers.write_jsonl(tmp_path / "ads.jsonl", helpers.tiny_ads(20))
    path.write_bytes(path.read_bytes() + b"{broken\n" * 1000)
    found = seen(path)
    assert (found.rejected, found.ads, found.whole) == ({"not_json": 10}, 20, False)


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text("mine\n")
    with pytest.raises(
        UsageError, match=r"task\.yaml: is there already; name another file, or force"
    ):
        api.init(path, **GIVEN)
    assert path.read_text() == "mine\n"
    api.init(path, force=True, **GIVEN)
    assert load_task(path).name == "task"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": ""}, "^policy: missing; give it, or run `scout init` on a terminal"),
        ({"prior": None, "negative": ""}, "^negative, prior: missing; give them"),
        ({"prior": 2.0}, "prior: 2.0 is refused: input should be less than 1"),
        ({"name": "My Task"}, "name: 'My Task' is refused"),
        ({"positive": "skip"}, "^positive: 'skip' is refused: 'skip' is what experts say"),
        ({"positive": "Fine"}, "^positive, negative: positive and negative are both 'fine'"),
        ({"positive": "x" * 41}, "^positive: 'xxx"),
        ({"policy": "none.txt"}, "policy none.txt: no such file"),
        ({"corpus": "none.jsonl"}, "corpus none.jsonl: no file matches"),
        ({"format": "xml"}, "format: no 'xml'; choose of jsonl"),
    ],
)
def test_what_will_not_do_names_its_flag(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        api.init(tmp_path / "task.yaml", **{**GIVEN, **change})
    assert list(tmp_path.iterdir()) == []


def test_a_field_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    corpus = exported(tmp_path)
    with pytest.raises(
        UsageError, match="text_field body: no such field; there are ad_id, cta, final_url, h"
    ):
        api.init(tmp_path / "task.yaml", corpus=corpus, text_field="body", **GIVEN)


def test_a_policy_may_be_a_file(tmp_path: Path) -> None:
    policy = tmp_path / "policy.md"
    policy.write_text(
        "# Bait\n\n- promises: what nobody can\n  keep\n\nAllowed: jokes.\n", encoding="utf-8"
    )
    api.init(tmp_path / "task.yaml", **{**GIVEN, "policy": str(policy)})
    assert load_task(tmp_path / "task.yaml").policy == policy.read_text().strip()
    policy.write_bytes(b"caf\xe9")
    with pytest.raises(UsageError, match="byte 3 is not UTF-8"):
        api.init(tmp_path / "two.yaml", **{**GIVEN, "policy": str(policy)})


AWKWARD = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"])
    | st.sampled_from(" \n\t:#'\"{}[]|>-&*!%@`\\"),
    min_size=1,
    max_size=120,
).filter(lambda text: text.strip() and not text.strip().endswith((".txt", ".md")))


@given(AWKWARD)
def test_any_policy_is_read_back_as_it_was_meant(tmp_path_factory: Any, policy: str) -> None:
    path = tmp_path_factory.mktemp("init") / "task.yaml"
    api.init(path, **{**GIVEN, "policy": policy, "question": "It's: #1?"})
    task = load_task(path)
    assert task.policy == policy.strip() and task.question == "It's: #1?"


@pytest.mark.parametrize(
    "label", ["no", "sc: am", "'fine'", "- x", "{a}", "ja / nein", "否", "1", "yes"]
)
def test_labels_that_mean_something_in_yaml(label: str, tmp_path: Path) -> None:
    api.init(tmp_path / "task.yaml", **{**GIVEN, "negative": label})
    assert load_task(tmp_path / "task.yaml").labels.negative == label


def test_hostile_names_and_values_stay_comments(tmp_path: Path) -> None:
    path = tmp_path / "evil.csv"
    with open(path, "w", encoding="utf-8", newline="") as sink:
        rows = csv.writer(sink)
        rows.writerow(["hea\x1bdline: #\nprior: 0.9", "id", "x: {y}\u2028z"])
        rows.writerows(
            [[f"bad \u202e text\x85 {i}\nname: evil", f"i{i}", "- a"] for i in range(50)]
        )
    found = api.init(tmp_path / "task.yaml", corpus=path, **GIVEN)
    task = load_task(tmp_path / "task.yaml")
    assert (task.name, task.prior, len(task.ad.fields)) == ("task", 0.2, 1)
    assert not {"\x1b", "\u202e", "\x85", "\u2028"} & set(repr(found))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("My Policy!.yaml", "my-policy"),
        ("Ü.yml", "my-policy"),
        ("a" * 80 + ".yaml", "a" * 64),
        ("x_1", "x_1"),
    ],
)
def test_names_of_files_become_names_of_tasks(name: str, wanted: str) -> None:
    assert name_of(f"folder/{name}") == wanted


# --- The look -----------------------------------------------------------------------------------


def seen(corpus: Path, **read: Any) -> looking.Look:
    return looking.look([str(corpus)], ReadOptions(**read))


def test_copies_languages_lengths_and_templates(tmp_path: Path) -> None:
    german = [
        f"Günstige Zugfahrkarten nach Köln und zurück, Angebot Nummer {n} für Sie"
        for n in range(30)
    ]
    thai = [f"ราคาถูกที่สุดในวันนี้ {n}" for n in range(10)]
    rows = [{"text": text} for text in [*german, *thai, *german[:20]]]
    found = seen(helpers.write_jsonl(tmp_path / "ads.jsonl", rows))
    assert (found.ads, found.distinct, found.whole) == (60, 40, True)
    assert found.scripts == {"Latin": 0.75, "Thai": 0.25} and found.languages == {
        "de": 0.75,
        "th": 0.25,
    }
    assert found.chars == (70, 70, 70) == (len(german[-1]),) * 3
    [(template, number)] = found.templates
    assert number == 30 and template.startswith("günstige zugfahrkarten nach köln")
    assert found.templated == 0.75
    notes = " ".join(found.notes)
    assert "33% of the ads are copies" in notes and "learnt from English" in notes
    assert "75% of the texts follow 1 template: near copies" in notes


def test_english_ads_of_one_kind_need_no_advice(tmp_path: Path) -> None:
    samples = ROOT / "templates" / "samples" / "ads.jsonl"
    found = seen(samples)
    assert found.text == ("text",) and found.id_field == "" and found.weight_field == ""
    assert found.scripts["Latin"] > 0.9 and next(iter(found.languages)) == "en"
    assert found.notes == () and found.templated < 0.05


def test_what_makes_no_ad_is_counted_with_its_reason(tmp_path: Path) -> None:
    path = helpers.write_jsonl(
        tmp_path / "ads.jsonl", [*helpers.tiny_ads(), {"text": ""}, {"n": 1}]
    )
    path.write_bytes(path.read_bytes() + b"{broken\n\xff\xfe\n")
    found = seen(path)
    assert found.rejected == {"empty_text": 1, "no_text": 1, "not_json": 2}
    assert (found.ads, found.sampled) == (200, 204)
    told = "4 of 204 records make no ad: empty_text 1, no_text 1, not_json 2"
    assert any(told in note for note in found.notes)


def test_ids_that_stand_for_several_texts_are_not_used(tmp_path: Path) -> None:
    rows = [{"id": n // 2, "text": ad["text"]} for n, ad in enumerate(helpers.tiny_ads(40))]
    found = seen(helpers.write_jsonl(tmp_path / "ads.jsonl", rows))
    assert found.id_field == "none" and "one id stands for several texts" in found.notes[0]


def test_a_weight_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    rows = [
        {**ad, "views": "n/a" if n % 20 == 0 else str(n)}
        for n, ad in enumerate(helpers.tiny_ads(100))
    ]
    found = seen(helpers.write_jsonl(tmp_path / "ads.jsonl", rows))
    assert (found.weight_field, found.ads) == ("", 100)
    assert found.notes[0].startswith(
        "'views' looks like a weight, but holds values that are no numbers"
    )


def test_long_ads_get_a_larger_window(tmp_path: Path) -> None:
    rows = [{"text": f"{ad['text']} " * 30} for ad in helpers.tiny_ads(50)]
    corpus = helpers.write_jsonl(tmp_path / "ads.jsonl", rows)
    api.init(tmp_path / "task.yaml", corpus=corpus, **GIVEN)
    task, longest = load_task(tmp_path / "task.yaml"), max(len(row["text"]) for row in rows)
    assert 4 * task.model.max_ad_tokens >= longest > 4 * 256


def test_parquet_and_plain_text(tmp_path: Path) -> None:
    texts = [ad["text"] for ad in helpers.tiny_ads(40)]
    table = pa.table({"nested": [{"body": text, "n": 1} for text in texts], "when": [None] * 40})
    pq.write_table(table, tmp_path / "ads.parquet")
    found = seen(tmp_path / "ads.parquet")
    assert (found.text, found.ads, found.formats) == (("nested.body",), 40, ("parquet",))
    (tmp_path / "ads.txt").write_text("\n".join(texts))
    found = seen(tmp_path / "ads.txt")
    assert (found.text, found.ads, found.formats) == (("text",), 40, ("text",))


def test_a_large_corpus_is_looked_at_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "RECORDS", 50)
    monkeypatch.setattr(looking, "SCANNED", 120)
    ads = helpers.tiny_ads()
    for shard in range(4):
        helpers.write_jsonl(tmp_path / f"s{shard}.jsonl", ads[shard::4])
    found = seen(tmp_path / "*.jsonl")
    assert (found.files, found.sampled, found.whole) == (4, 50, False)
    api.init(tmp_path / "task.yaml", corpus=tmp_path / "*.jsonl", **GIVEN)
    monkeypatch.setattr(looking, "PARTS", 2)
    monkeypatch.setattr(looking, "RECORDS", 500)
    found = seen(tmp_path / "*.jsonl")
    # Of two files, all of their records.
    assert (found.sampled, found.whole) == (100, False)
    monkeypatch.setattr(looking, "RECORDS", 50)
    assert "a sample of 50 records" in (tmp_path / "task.yaml").read_text()
    assert load_task(tmp_path / "task.yaml").selection.budget == 100


def test_a_corpus_without_a_readable_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ads.jsonl"
    path.write_text("{oops\n" * 3)
    with pytest.raises(UsageError, match=r"corpus .*: no record of it can be read \(not_json 3\)"):
        api.init(tmp_path / "task.yaml", corpus=path, **GIVEN)


# --- On a terminal ------------------------------------------------------------------------------


class Terminal:
    """Answers questions, in their order."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)

    def isatty(self) -> bool:
        return True

    def input(self, *_: object) -> str:
        if not self.answers:
            raise EOFError
        return self.answers.pop(0)


def asked(monkeypatch: pytest.MonkeyPatch, *answers: str) -> Terminal:
    terminal = Terminal(*answers)
    monkeypatch.setattr("sys.stdin", terminal)
    monkeypatch.setattr("builtins.input", terminal.input)
    return terminal


def test_it_asks_for_what_no_flag_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, corpus = tmp_path / "spring.yaml", exported(tmp_path)
    terminal = asked(monkeypatch, "", "No bait.", "", "bait", "much", "250%", "4 %", str(corpus))
    argv = ["init", str(path), "--negative", "fine"]
    assert cli.main(argv) == cli.OK
    assert terminal.answers == []
    task = load_task(path)
    assert (task.name, task.policy, task.prior) == ("spring", "No bait.", 0.04)
    assert (task.labels.positive, task.labels.negative, len(task.ad.fields)) == ("bait", "fine", 2)
    shown = capsys.readouterr()
    assert "Name of the task (spring)" in shown.err and "Corpus (a file" in shown.err
    assert (
        "not a number: 'much'" in shown.err
        and "'250%' is refused: input should be less" in shown.err
    )
    assert shown.out.startswith("  corpus ")
    # Nothing of an answer is asked again, and a file stays unless one says so.
    asked(monkeypatch, "n")
    assert cli.main(argv) == cli.WRONG_USAGE
    assert load_task(path) == task


def test_it_asks_nothing_where_nobody_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "task.yaml"
    asked(monkeypatch, "")
    assert cli.main(["init", str(path)]) == cli.WRONG_USAGE
    assert (
        "the input ended before everything was answered; nothing is written"
        in capsys.readouterr().err
    )
    flags = ["--policy", "p", "--positive", "a", "--negative", "b", "--prior", "0.1", "--name", "n"]
    terminal = asked(monkeypatch, "left")
    assert cli.main(["init", str(path), *flags, "--json"]) == cli.OK
    assert terminal.answers == ["left"]
    assert json.loads(capsys.readouterr().out)["task_file"] == str(path)


def test_results_are_typed(tmp_path: Path) -> None:
    found = api.init(tmp_path / "task.yaml", corpus=exported(tmp_path), **GIVEN)
    assert isinstance(found, Started)
    json.dumps(found.to_json(), allow_nan=False)
