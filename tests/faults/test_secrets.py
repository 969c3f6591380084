"""No form of an address shows user, password, token or fragment: not in errors, notes or commands."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from models import presets
from models.address import fault_of
from models.backends.base import BackendError
from pipelines import api, cli
from pipelines.console.typed import typed
from pipelines.errors import RunFailed, UsageError, without_secrets
from pipelines.jobs.calling import Notes
from pipelines.tools.argilla.format import ACCESS as ARGILLA
from pipelines.tools.label_studio.format import ACCESS as LABEL_STUDIO
from tests import helpers

SECRETS = ("s3cret", "anna.user", "t0ken", "fr4gment")
FORMS = (
    "https://anna.user:s3cret@labels.example.org/x",
    "https://s3cret@labels.example.org",
    "HTTPS://anna.user:s3cret@labels.example.org:8080",
    "https://anna.user:s3cret@[::1]:8080/",
    "https://anna.user:s3@cret:s3cret@labels.example.org",
    "https://anna.user:s3/cret/s3cret@labels.example.org",
    "https://anna.user:12/s3cret@labels.example.org",
    "https://anna.user:s3cret",
    "https://anna.user:s3cret?x=1",
    "https://anna.user%3As3cret%40labels.example.org",
    "https%3A%2F%2Fanna.user%3As3cret%40labels.example.org",
    "https://anna.user:s3cret\uff20labels.example.org",
    "https:/anna.user:s3cret@labels.example.org",
    "https:anna.user:s3cret@labels.example.org",
    "https:\\\\anna.user:s3cret@labels.example.org",
    "//anna.user:s3cret@labels.example.org",
    "anna.user:s3cret@labels.example.org",
    "  https://anna.user:s3cret@labels.example.org  ",
    "https://labels.example.org/?access_token=t0ken",
    "https://labels.example.org/?x=t0ken&y=s3cret",
    "https://labels.example.org/a#fr4gment",
    "https://labels.example.org#fr4gment?t0ken",
    "https://labels.example.org/x?#fr4gment",
    "labels.example.org/x?api_key=t0ken",
    "s3://anna.user:s3cret@bucket/ads.jsonl",
    "gs://bucket/ads.jsonl?X-Goog-Signature=t0ken",
    "hf://anna.user:s3cret@org/model",
    "ftp://anna.user:s3cret@labels.example.org/ads.jsonl",
    "abfs://anna.user:s3cret@store/ads.jsonl",
)


def check(text: str) -> None:
    assert not [secret for secret in SECRETS if secret in text], text


@pytest.mark.parametrize("form", FORMS)
def test_a_sentence_hides_it(form: str) -> None:
    for text in (form, f"{form}: no such file", f"--push {form}, or '{form}'; give `{form}`."):
        check(without_secrets(text))
    check(typed("export --push {}", form, workspace=form))
    notes = Notes(printed=False)
    notes(f"{form}: read as cp1252")
    check(str(notes._lines))
    for kind in (UsageError, RunFailed, BackendError):
        check(str(kind(f"{form}: will not do")))


@pytest.mark.parametrize(
    "text",
    [
        "https://labels.example.org:8080/x/y.json: not found; give http://localhost:8080/v1, or [::1]",
        "gs://bucket/dt=2026-11-21/ads-?.jsonl#1: gone; mail anna@example.org",
        "bq://my-project:ads.table WHERE name = 'a?b#c'",
        "task.yaml:12: model.url: http://127.0.0.1:80; s3://bucket/a@b?c",
        "vertex://my-project/europe-west1, hf://org/model, kaggle://keras/gemma/keras/g/3",
        "/data/a@b:c/ads.jsonl: line 3: 10:30 is no label @home",
    ],
)
def test_what_is_no_secret_is_told(text: str) -> None:
    assert without_secrets(text) == text


@pytest.mark.parametrize("form", FORMS)
def test_addresses_of_servers(form: str) -> None:
    for access in (LABEL_STUDIO, ARGILLA):
        try:
            found, *_ = access.check(form, {})
        except UsageError as error:
            check(str(error))
        else:
            check(found)
    check(fault_of(form))


# Cloud Storage would be asked.
@pytest.mark.parametrize("form", [form for form in FORMS if not form.startswith("gs:")])
def test_what_a_command_line_shows(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = helpers.write_task(tmp_path)
    corpus = helpers.write_jsonl(tmp_path / "ads.jsonl", helpers.tiny_ads(8))
    served = helpers.FAKE_TASK.replace(
        "model: {preset: fake}", f"model: {{backend: openai, preset: x, url: {form!r}}}"
    )
    (tmp_path / "served.yaml").write_text(served)
    # No network: none of these gets as far as that.
    commands = (
        ["mine", str(task), "--corpus", form, "--workspace", str(tmp_path / "w")],
        ["mine", str(task), "--corpus", str(corpus), "--workspace", form.strip()],
        ["validate", form],
        ["validate", str(tmp_path / "served.yaml")],
        ["import", form, "--workspace", form],
        ["publish", "--workspace", str(tmp_path / "w"), "--to", form],
        ["status", "--workspace", f"{tmp_path}/w", form],
        ["status", f"--wrokspace={form}"],
    )
    for command in commands:
        if "://" not in form and "--workspace" in command:
            # A folder of this name would be made.
            continue
        assert cli.main(command) in (cli.FAILED, cli.WRONG_USAGE), command
    said = capsys.readouterr()
    check(said.out + said.err)


@pytest.mark.parametrize("form", FORMS[:6])
def test_what_a_notebook_shows(form: str, tmp_path: Path) -> None:
    """All of a traceback: what led to an error, too."""
    with pytest.raises((UsageError, RunFailed)) as caught:
        api.import_verdicts(form, [form])
    shown = "".join(traceback.format_exception(caught.value, chain=True))
    lines = [line for line in shown.splitlines() if not line.startswith("    ")]
    check("\n".join(lines))


def test_a_models_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError) as caught:
        presets._resolve("./hf://anna.user:s3cret@org/model", None)
    check(str(caught.value))
