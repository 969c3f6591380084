"""Task files: what is refused, and with which words."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from pipelines.config import Task, load_task, parse_task
from pipelines.errors import UsageError
from pipelines.sources.base import ReadOptions
from pipelines.sources.fields import AdField

POLICIES = sorted((Path(__file__).parent.parent / "templates" / "policies").glob("*.yaml"))
GOOD = "name: t\nversion: 1\npolicy: p\nquestion: q\nprior: 0.1\n"
AD = GOOD + "ad:\n  fields:\n"


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_shipped_task_files_are_valid(path: Path) -> None:
    assert load_task(path).policy


def test_the_reference_names_every_key_with_its_default() -> None:
    reference = next(path for path in POLICIES if path.stem == "reference")
    given = yaml.safe_load(reference.read_text())
    required = {"name", "version", "policy", "question", "prior"}

    def compare(model: type, values: dict, where: str) -> None:
        assert set(values) == set(model.model_fields), where
        for name, field in model.model_fields.items():
            if isinstance(values[name], dict):
                compare(field.annotation, values[name], f"{where}.{name}")
            elif where or name not in required:
                default = field.default
                assert values[name] == (list(default) if isinstance(default, tuple) else default)

    compare(Task, given, "")


# Pairs of names that come back as one, and that one.
SAME_NAMES = (
    ("Bad", "bad", "bad"),
    ("Ｂad", "bad", "bad"),
    ("Caf\u00e9", "Cafe\u0301", "Caf\u00e9"),
    ("caf\u00e9", "CAFE\u0301", "caf\u00e9"),
    ("not  bad", "not bad", "not bad"),
    ("ba\u200bd", "bad", "bad"),
    ("\u200fbad\u200e", "bad", "bad"),
    ("b\u00adad", "bad", "bad"),
    ("straße", "STRASSE", "strasse"),
    ("1", "1.0", "1"),
    ("１", "01", "1"),
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "budgt: 3\n", "f.yaml:6: budgt: unknown key"),
        (GOOD + "selection:\n  budgt: 3\n", "f.yaml:7: selection.budgt: unknown key; did you mean 'budget'?"),
        (GOOD + "modle: {}\n", "did you mean 'model'?"),
        (GOOD + "zzz: 1\n", "known keys: "),
        (GOOD.replace("0.1", "1.5"), "f.yaml:5: prior: 1.5 is refused: input should be less than 1"),
        (GOOD.replace("0.1", "0"), "input should be greater than 0"),
        (GOOD.replace("0.1", "'much'"), "f.yaml:5: prior: 'much' is refused: input should be a valid number"),
        (GOOD.replace("version: 1", "version: one"), "f.yaml:2: version: 'one' is refused"),
        (GOOD.replace("version: 1", "version: true"), "version"),
        (GOOD.replace("policy: p", "policy: '  '"), "f.yaml:3: policy: empty; write at least one character"),
        (GOOD.replace("policy: p\n", ""), "f.yaml:1: policy: missing; add this key"),
        (GOOD.replace("name: t", "name: Big Name"), "f.yaml:1: name: 'Big Name' is refused"),
        (GOOD + "labels: {positive: yes, negative: no}\n", "true/false, not text; put it in quotes"),
        (GOOD + "labels: {positive: x, negative: x}\n", "both 'x'; give two names"),
        (GOOD + "selection: {budget: 0}\n", "selection.budget: 0 is refused: input should be greater than or equal to 1"),
        (GOOD + "selection: {budget: 2.5}\n", "selection.budget: 2.5 is refused"),
        (GOOD + "labeling: {threshold: 1}\n", "labeling.threshold: 1 is refused"),
        (GOOD + "model: {dtype: int4}\n", "'bfloat16' or 'float32'"),
        (GOOD + "prompt: {form: poem}\n", "'chat' or 'completion'"),
        (GOOD + "prompt: {examples: [{text: a, label: maybe}]}\n", "prompt.examples.0.label: 'maybe' is refused"),
        (GOOD + "prompt: {forms: [{cue: Bad, positive: ' A', negative: ' B'}], form: chat}\n", "f.yaml:6: prompt.forms: is heard in a committee alone"),
        (GOOD + "prompt: {forms: [{cue: 'Bad {ad}', positive: ' A', negative: ' B'}]}\n", "prompt.forms: 'Bad {ad} A or B': template: must hold {ad} exactly once, found 2"),
        (GOOD + "prompt: {forms: [{cue: Bad, positive: ' A', negative: A}]}\n", "must differ, both are 'A'"),
        (GOOD + "prompt: {forms: [{cue: A, positive: b, negative: c}, {cue: A, positive: b, negative: c}]}\n", "prompt.forms: 'Ab orc' is asked twice"),
        (GOOD + "prompt: {forms: [{cue: A, positive: b}]}\n", "prompt.forms.0.negative: missing"),
        (GOOD + "selection: [1]\n", "f.yaml:6: selection:"),
        (AD + "    - {path: b, nmae: B}\n", "f.yaml:8: ad.fields.0.nmae: unknown key; did you mean 'name'?"),
        (AD + "    - {name: B}\n", "f.yaml:8: ad.fields.0.path: missing; add this key"),
        (AD + "    - {path: ''}\n", "f.yaml:8: ad.fields.0.path: empty"),
        (AD + "    - {path: b}\n    - {path: a, name: 'x{y'}\n", "f.yaml:9: ad.fields.1: {'path': 'a', 'name': 'x{y'} is refused: a field's name begins"),
        (AD + "    - {path: a.Ad (EN)}\n", "'Ad (EN)' does not do; 'a.Ad (EN)' needs a name of its own"),
        (AD + "    - {path: a.text}\n    - {path: b.text}\n", "two fields are called 'text'; give them names that differ"),
        (AD + "    - {path: a, name: CTA}\n    - {path: cta}\n", "two fields are called 'CTA'"),
        (AD + "    - {path: a, required: 1}\n", "ad.fields.0.required: 1 is refused"),
        (AD + "    - {path: b.head}\n  template: '{haed}'\n", "f.yaml:9: ad.template: '{haed}' is refused: no field is called {haed}; did you mean {head}?"),
        (AD + "    - {path: b}\n  template: x\n", "ad.template: 'x' is refused: holds no field; use {b}"),
        (GOOD + "ad: {template: '{b}'}\n", "f.yaml:6: ad.template: '{b}' is refused: a template needs ad.fields"),
        (GOOD + "ad: {feilds: []}\n", "ad.feilds: unknown key; did you mean 'fields'?"),
        (GOOD + "prior: 0.2\n", "f.yaml:6: prior: given twice"),
        ("", "a task file is a mapping of keys, found empty"),
        ("- a\n", "found a list"),
        ("a: [\n", "not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
        (GOOD + "seed: -1\n", "seed: -1 is refused"),
        *(
            (GOOD + f'labels: {{positive: "{a}", negative: "{b}"}}\n', f"f.yaml:6: labels: positive and negative are both '{both}'")
            for a, b, both in SAME_NAMES
        ),
        (GOOD + "labels:\n  positive: bait\n  negative: 'ｓｋｉｐ'\n", "f.yaml:8: labels.negative: 'ｓｋｉｐ' is refused: 'ｓｋｉｐ' is what experts say when"),
        (GOOD + "labels: {positive: bait, negative: 'un\u200bsure'}\n", "is what experts say when they cannot tell"),
        (GOOD + 'labels: {positive: "\u200b", negative: fine}\n', "is refused: holds nothing that can be seen"),
        (GOOD + "labels:\n  positive: bait\n  negative: 'NA'\n", "f.yaml:8: labels.negative: 'NA' is how programs write a missing value, and pandas reads it"),
        (GOOD + "labels: {positive: bait, negative: Unsure}\n", "'Unsure' is refused: 'Unsure' is what experts say when they cannot tell"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_task(text, "f.yaml")
    assert message in str(caught.value)


def test_labels_are_shown_tidy_and_as_they_are_called() -> None:
    text = 'labels: {positive: "  Cafe\u0301\u200b  gut ", negative: "\u200fＧut"}\n'
    labels = parse_task(GOOD + text, "f.yaml").labels
    assert (labels.positive, labels.negative) == ("Caf\u00e9 gut", "Ｇut")
    # Other editors' spelling of a name asks for no new version of the policy.
    other = GOOD + 'labels: {positive: "Caf\u00e9 gut", negative: "Ｇut"}\n'
    assert parse_task(other, "f").guideline() == parse_task(GOOD + text, "f").guideline()


def test_all_problems_come_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        parse_task(GOOD.replace("0.1", "7") + "seed: x\nextra: 1\n", "f.yaml")
    assert len(str(caught.value).splitlines()) == 3


def test_missing_and_undecodable_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such task file"):
        load_task(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(UsageError, match="byte 9 is not UTF-8"):
        load_task(tmp_path / "latin.yaml")
    with pytest.raises(UsageError, match="cannot be read as a task file"):
        load_task(tmp_path)


def test_a_task_is_frozen() -> None:
    task = parse_task(GOOD, "f.yaml")
    with pytest.raises(ValueError, match="frozen"):
        task.prior = 0.5  # type: ignore[misc]


def test_standardising_follows_the_embedding() -> None:
    def standardised(extra: str) -> bool:
        task = parse_task(GOOD + extra, "f")
        return task.standardize(task.embedding_preset())

    assert standardised("")
    assert not standardised("embedding: {source: encoder}\n")
    assert standardised("embedding: {source: encoder, standardize: always}\n")


def test_vectors_are_those_that_the_learner_reads() -> None:
    def embedding(extra: str) -> str:
        return parse_task(GOOD + extra, "f").embedding_preset()

    assert embedding("") == "llm"
    assert embedding("training: {learner: head, encoder: mine}\n") == "mine"
    both = "training: {learner: head, encoder: mine}\nembedding: {source: llm}\n"
    assert embedding(both) == "llm"


def test_strict_parity_needs_a_margin() -> None:
    with pytest.raises(UsageError, match=r"stopping\.parity_test: 'stays above' needs"):
        parse_task(GOOD + "stopping: {parity_test: stays above}\n", "f")


def test_the_ads_fields_go_with_the_command_lines_options() -> None:
    given = ReadOptions(id_field="key", weight_field="w")
    assert parse_task(GOOD, "f").reading(given) == given
    task = parse_task(AD + "    - {path: a.b}\n    - {path: c, name: C, required: true}\n", "f")
    fields = (AdField("a.b", "b"), AdField("c", "C", required=True))
    assert task.reading(given) == dataclasses.replace(given, fields=fields)
    # An only field without a name is the whole ad, unless a template uses it.
    alone = parse_task(AD + "    - {path: a.b}\n", "f").reading(given)
    assert alone.fields == (AdField("a.b", ""),)
    filled = parse_task(AD + "    - {path: a.b}\n  template: '<{b}>'\n", "f").reading(given)
    assert (filled.fields, filled.template) == ((AdField("a.b", "b"),), "<{b}>")
    with pytest.raises(UsageError, match=r"--text_field text: the task file has ad\.fields, which"):
        task.reading(ReadOptions(text_field="text"))


def test_a_setting_that_is_gone_is_no_error_in_what_was_written_before() -> None:
    text = (
        "name: a\nversion: 1\npolicy: p\nquestion: q\nprior: 0.1\n"
        "search: {neighbors: 3, max_cluster_rows: 20000}\n"
    )
    assert parse_task(text, "t.yaml").search.neighbors == 3
    with pytest.raises(UsageError, match="max_cluster_row"):
        parse_task(text.replace("rows", "row"), "t.yaml")
