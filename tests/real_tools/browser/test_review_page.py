"""The review page in headless Chromium: by keyboard, over reloads, with hostile ads."""

from __future__ import annotations

import io
import json
import re
import socket
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from pipelines.store.workspace import Workspace
from pipelines.text import content_key
from pipelines.tools.batch import read_batch
from pipelines.tools.page.format import ReviewPage
from pipelines.verdicts.resolve_rows import Reading, resolve
from pipelines.verdicts.rows import normalize_expert
from pipelines.verdicts.shown import shown_ads
from tests import helpers
from tests.real_tools.browser.conftest import Desk, save, sign, verdicts
from tests.real_tools.browser.pages import batch_of, imported

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIX = batch_of([f"{word} offer number {i}" for i, word in enumerate("abcdefghijkl")])
TWO = batch_of(["loud", "quiet", "secret", "terms"])
HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</textarea></div><button onclick=alert(1)>Next</button>",
    "<img src=x onerror=alert(1)>",
    '<img src="http://127.0.0.1:9/pixel.gif">',
    "<svg onload=alert(1)><script href='data:,alert(1)'/></svg>",
    "<iframe src='data:text/html,<script>alert(1)</script>'></iframe>",
    "<a href='javascript:alert(1)'>click</a> javascript:alert(1)",
    "data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==",
    "http://127.0.0.1:9/a https://example.com/?q=<b>x</b>",
    "<style>*{display:none}</style><link rel=stylesheet href=//127.0.0.1:9/x.css>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>",
    "<base href='http://127.0.0.1:9/'><form action=/x><input autofocus onfocus=alert(1)>",
    "{{constructor.constructor('alert(1)')()}} ${alert(1)} #{alert(1)} <%= 1 %> {% x %}",
    "<!-- --><![CDATA[ ]]> <? ?> &lt;script&gt; &#60;script&#62; &amp;",
    "\\u003cscript\\u003ealert(1)\\u003c/script\\u003e \\\" \\' \\x3c",
    "\u202egnp.eciovni\u202c invoice",
    "\u2066\u2067\u2068 isolates without an end",
    "שלום \u200fעולם 50% (today) مرحبا http://evil.example",
    "pay\u200bpal \u200c\u200d\u2060\ufeff zero\u00adwidth",
    "null \x00 bell \x07 escape \x1b[31m delete \x7f next \x85",
    "lone \ud800 and \udfff surrogates, \ufffe and \uffff",
    "Z" + "\u0301\u0489\u20dd" * 300 + "algo",
    "\u0330" * 500 + "\n" + "a" + "\u034f\u0308" * 200,
    "W" * 10_000,
    "\n" * 400 + "below the fold",
    "\u2028line\u2029paragraph\r\nwindows\rmac\x0bvertical\x0cform",
    "[1] bait \u2713   [2] fine\n\nSaved. Pair 2 of 15   Next \u2192",
    "\U000e0049\U000e0067\U000e006e\U000e006f\U000e0072\U000e0065 tags, \u3164 filler, \u2800 braille",
    '__proto__ constructor toString null undefined "pairs": []',
)


# Controls, turners of direction, fillers, tags and halves of surrogate pairs.
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u2800\u3164\ud800-\udfff\ufeff\U000e0000-\U000e007f]"
)


def around_the_ads(page: Page, visibility: str) -> Image.Image:
    """Return a picture of the window, with the ads painted or hidden and their boxes blackened."""
    boxes = page.evaluate(
        """(visibility) => ["left", "right"].map((side) => {
            const box = document.getElementById(`text-${side}`);
            box.style.visibility = visibility;
            const { left, top, right, bottom } = box.getBoundingClientRect();
            return [Math.floor(left), Math.floor(top), Math.ceil(right), Math.ceil(bottom)];
        })""",
        visibility,
    )
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    for box in boxes:
        picture.paste((0, 0, 0), tuple(box))
    return picture


def shown(page: Page, side: str) -> tuple[str, list[str]]:
    """Return an ad's box as plain text (marks left out) and its marks, once nothing else is in it."""
    found = page.evaluate(
        """(side) => [...document.getElementById(`text-${side}`).childNodes].map((node) =>
            node.nodeType === 3 ? ["text", node.data]
            : node.matches("span.mark") && !node.children.length ? ["mark", node.textContent]
            : ["?", node.outerHTML])""",
        side,
    )
    kinds = {kind for kind, _ in found}
    assert kinds <= {"text", "mark"}, found
    marks = [text for kind, text in found if kind == "mark"]
    return "".join(text for kind, text in found if kind == "text"), marks


# --- labelling --------------------------------------------------------------------------------


def test_five_pairs_by_keyboard_alone_with_a_reload_then_imported(
    desk: Desk, tmp_path: Path
) -> None:
    task = helpers.write_task(tmp_path)
    corpus = helpers.write_jsonl(tmp_path / "ads.jsonl", helpers.tiny_ads())
    workspace = Workspace(str(tmp_path / "w"))
    helpers.run(task, corpus, tmp_path / "w")
    batch = read_batch(workspace)
    batch = replace(batch, items=batch.items[:5])
    tab = desk.tab(desk.context(), desk.write(batch))
    press, type_text = tab.keyboard.press, tab.keyboard.type
    type_text("Ann  Example")
    press("Enter")
    for key in ("1", "4", "ArrowRight", "2", "3", "c"):
        press(key)
    type_text("1 and 3 are keys only outside of this field")
    press("Escape")
    press("ArrowRight")
    press("1")
    tab.reload()
    # The name is not asked again, and the pair that was half done is the one at hand.
    assert tab.inner_text("#status").startswith("Going on where you stopped, 2 done. Pair 3 of 5")
    assert tab.inner_text("#expert") == "Ann Example"
    for key in ("3", "ArrowRight", "s", "5", "6", "u", "6"):
        press(key)
    press("ArrowRight")
    assert tab.inner_text("#finish-title") == "All pairs are done"
    assert tab.inner_text("#progress-text") == "5 of 5 pairs done"
    data = save(tab)
    resolved = resolve(ReviewPage().read(data, "v.json"), Reading(shown_ads(workspace)))
    assert resolved.rejected == ()
    said = {(v.item_id, v.ad_id): v.label for v in resolved.verdicts}
    expected = ["positive", "negative", "negative", "positive", "positive", "positive"]
    expected += ["skip"] * 4
    ads = [(item.item_id, ad.id) for item in batch.items for _, ad in item.sides()]
    assert said == dict(zip(ads, expected, strict=True))
    assert {v.expert for v in resolved.verdicts} == {"ann example"}
    assert all(v.time for v in resolved.verdicts)
    comments = [v.comment for v in resolved.verdicts]
    assert comments[2:4] == ["1 and 3 are keys only outside of this field"] * 2
    assert set(comments[:2] + comments[4:]) == {""}
    assert desk.seen.nothing(pages=2)


def test_undo_goes_back_over_pairs_and_reloads(desk: Desk) -> None:
    tab = desk.open(SIX)
    for key in ("1", "3", "ArrowRight", "s"):
        tab.keyboard.press(key)
    tab.reload()
    tab.keyboard.press("u")
    assert tab.inner_text("#item-title") == "Pair 2 of 6"
    assert tab.inner_text("#item-state") == "open"
    tab.keyboard.press("u")
    assert tab.inner_text("#status") == "Undone. Pair 1 of 6, half done."
    tab.keyboard.press("u")
    tab.keyboard.press("u")
    assert tab.inner_text("#status") == "Nothing to undo."
    assert verdicts(tab, SIX).unanswered == 12


def test_a_choice_is_taken_back_by_the_same_key_and_replaced_by_another(desk: Desk) -> None:
    tab = desk.open(TWO)
    for key in ("1", "2", "3", "3"):
        tab.keyboard.press(key)
    pressed = tab.locator("[aria-pressed=true]")
    assert [pressed.nth(i).get_attribute("data-answer") for i in range(pressed.count())] == [
        "negative"
    ]
    assert tab.inner_text("#item-state") == "half done"


def test_without_shortcuts_everything_is_within_reach_of_tab_and_space(desk: Desk) -> None:
    tab = desk.open(TWO)
    tab.click("#keys summary")
    tab.uncheck("#shortcuts")
    tab.reload()
    tab.keyboard.press("1")
    assert tab.inner_text("#item-state") == "open"
    tab.evaluate("document.activeElement.blur(); window.getSelection().removeAllRanges()")
    tab.locator("#switch").focus()
    order = []
    for _ in range(15):
        tab.keyboard.press("Tab")
        order.append(
            tab.evaluate(
                """() => { const at = document.activeElement; const own = at.dataset.answer;
                return own ? `${at.parentElement.id} ${own}` : at.id || at.parentElement.id; }"""
            )
        )
        if order[-1] in ("choices-left positive", "choices-right unsure"):
            tab.keyboard.press("Space")
    sides = ("left", "right")
    assert order == [
        "download",
        "policy",
        *(f"choices-{s} {a}" for s in sides for a in ("positive", "negative", "unsure")),
        "comment",
        "all",
        "keys",
        "previous",
        "skip",
        "undo",
        "next",
    ]
    assert tab.inner_text("#item-state") == "done"


def test_the_page_can_go_on_by_itself(desk: Desk) -> None:
    tab = desk.open(TWO)
    tab.click("#keys summary")
    tab.check("#advance")
    tab.locator("#shortcuts").focus()
    for key in "1324":
        tab.keyboard.press(key)
    assert tab.inner_text("#finish-title") == "All pairs are done"
    assert [v.label for v in verdicts(tab, TWO).verdicts] == ["positive"] * 2 + ["negative"] * 2


def test_the_end_names_what_is_open_and_leads_there(desk: Desk) -> None:
    tab = desk.open(SIX)
    for key in ("1", "3", *["ArrowRight"] * 2, *"ssss"):
        tab.keyboard.press(key)
    assert tab.inner_text("#finish-title") == "You have reached the end"
    assert tab.locator("#finish-open button").all_inner_texts() == ["2"]
    tab.click("#finish-open button")
    assert tab.inner_text("#item-title") == "Pair 2 of 6"
    assert tab.evaluate("document.activeElement.id") == "item-title"
    tab.click("#all summary")
    tab.locator("#all-items button").nth(4).click()
    assert tab.inner_text("#item-title") == "Pair 5 of 6"
    tab.keyboard.press("n")
    assert tab.inner_text("#item-title") == "Pair 2 of 6"


def test_the_text_to_copy_is_the_file(desk: Desk) -> None:
    tab = desk.open(TWO)
    for key in "ss":
        tab.keyboard.press(key)
    tab.click("#copy summary")
    tab.wait_for_function("document.getElementById('copy-text').value !== ''")
    copied = json.loads(tab.input_value("#copy-text"))
    saved = json.loads(save(tab, lambda: tab.click("#finish-download")))
    assert {**copied, "saved": ""} == {**saved, "saved": ""}
    assert "in the file that you downloaded" in tab.inner_text("#finish-next")


def test_the_models_labels_are_shown_only_where_the_batch_has_them(desk: Desk) -> None:
    blind = desk.open(TWO)
    assert blind.locator("#model-left").is_hidden()
    shown_too = desk.open(batch_of(["a", "b"], predicted=True))
    assert shown_too.inner_text("#model-left") == "The model says bait (probability 0.81)."


# --- single ads and fields --------------------------------------------------------------------


def test_a_single_ad_stands_alone_with_the_keys_of_the_left_one(desk: Desk) -> None:
    batch = batch_of(["loud", "quiet", "secret", "terms"], sizes=(1, 2, 1))
    tab = desk.open(batch)
    assert tab.inner_text("#item-title") == "Item 1 of 3"
    assert tab.inner_text("#title-left") == "Ad"
    assert tab.locator("#ad-right").is_hidden()
    middle = tab.evaluate(
        "(() => { const { left, right } = document.querySelector('.ad').getBoundingClientRect();"
        " return (left + right) / 2; })()"
    )
    assert abs(middle - 640) < 1
    # Keys of an ad that is not there do nothing.
    for key in ("3", "6"):
        tab.keyboard.press(key)
    assert tab.inner_text("#item-state") == "open"
    tab.keyboard.press("2")
    assert tab.inner_text("#status") == "Ad: fine."
    assert tab.inner_text("#item-state") == "done"
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#ad-right").is_visible()
    assert tab.inner_text("#title-left") == "Ad A"
    for key in ("1", "4", "ArrowRight", "s", "u", "5"):
        tab.keyboard.press(key)
    tab.reload()
    assert tab.inner_text("#progress-text") == "3 of 3 items done"
    resolved = verdicts(tab, batch)
    assert resolved.rejected == ()
    assert [v.label for v in resolved.verdicts] == ["negative", "positive", "negative", "skip"]


def test_a_page_of_single_ads_speaks_of_ads(desk: Desk) -> None:
    tab = desk.open(batch_of(["loud", "quiet"], sizes=(1, 1)), expert="")
    assert "both ads" not in tab.inner_text("#start")
    sign(tab, "Ann")
    assert tab.inner_text("#item-title") == "Ad 1 of 2"
    tab.click("#keys summary")
    words = tab.inner_text("main")
    assert "Comment on this ad" in words and "once it has a label" in words
    assert "pair" not in words and "ad B" not in words
    for key in "ss":
        tab.keyboard.press(key)
    assert tab.inner_text("#finish-title") == "All ads are done"


def test_fields_are_shown_apart_and_are_only_text(desk: Desk) -> None:
    fields = [
        ("Headline", "Win"),
        *((f"{n} {text[:40]}", text) for n, text in enumerate(HOSTILE[:23])),
    ]
    batch = batch_of(["one", "two"], fields=fields)
    tab = desk.open(batch)
    found = tab.evaluate(
        """() => [...document.querySelectorAll("#text-left dl.fields > *")].map((part) =>
            [part.tagName, [...part.childNodes].every((node) => node.nodeType === 3 ||
                node.matches("span.mark") && !node.children.length), part.textContent])"""
    )
    assert [tag for tag, _, _ in found] == ["DT", "DD"] * len(fields)
    assert all(only_text for _, only_text, _ in found)
    assert [found[0][2], found[1][2]] == ["Headline", "Win"]
    assert found[3][2] == HOSTILE[0]
    # What comes back is the text that the fields were made into.
    for key in "14":
        tab.keyboard.press(key)
    data = save(tab)
    assert [row["text"] for row in json.loads(data)["rows"]] == ["one", "two"]
    assert len(imported(data, batch).verdicts) == 2
    tab.emulate_media(media="print")
    tab.locator("#print dl.fields").nth(1).wait_for()
    assert desk.seen.nothing()


# --- what the browser keeps -------------------------------------------------------------------


def test_two_experts_on_one_computer_have_answers_of_their_own(desk: Desk) -> None:
    context, url = desk.context(), desk.write(TWO)
    tab = desk.tab(context, url)
    sign(tab, "Ann")
    for key in "14":
        tab.keyboard.press(key)
    tab.click("#switch")
    sign(tab, "Bob")
    assert tab.inner_text("#item-state") == "open"
    tab.keyboard.press("s")
    tab.close()
    later = desk.tab(context, url)
    # A new tab asks, with the last name at hand; the same person in other letters goes on.
    assert later.input_value("#name") == "Bob"
    sign(later, "  aNN ")
    assert later.inner_text("#progress-text") == "1 of 2 pairs done"
    assert later.inner_text("#item-title") == "Pair 1 of 2"
    labels = [v.label for v in verdicts(later, TWO).verdicts]
    assert labels == ["positive", "negative"]


def test_another_batch_starts_empty(desk: Desk) -> None:
    context = desk.context()
    tab = desk.tab(context, desk.write(TWO))
    sign(tab, "Ann")
    tab.keyboard.press("s")
    other = desk.tab(context, desk.write(replace(TWO, round=2), "second.html"))
    assert other.input_value("#name") == "Ann"
    sign(other, "Ann")
    assert other.inner_text("#progress-text") == "0 of 2 pairs done"


def test_two_tabs_of_one_expert_do_not_overwrite_each_other(desk: Desk) -> None:
    context, url = desk.context(), desk.write(TWO)
    first, second = desk.tab(context, url), desk.tab(context, url)
    for tab in (first, second):
        sign(tab, "Ann")
    first.keyboard.press("1")
    second.wait_for_function(
        "document.querySelector('#choices-left [data-answer=positive]').ariaPressed === 'true'"
    )
    second.keyboard.press("4")
    first.wait_for_function("document.getElementById('item-state').textContent === 'done'")
    assert [v.label for v in verdicts(first, TWO).verdicts] == ["positive", "negative"]


def test_a_comment_outlives_an_answer_in_the_other_tab(desk: Desk) -> None:
    context, url = desk.context(), desk.write(TWO)
    first, second = desk.tab(context, url), desk.tab(context, url)
    for tab in (first, second):
        sign(tab, "Ann")
    # Within the third of a second before what is typed is kept.
    first.evaluate(
        "const box = document.getElementById('comment'); box.value = 'typed';"
        "box.dispatchEvent(new Event('input', {bubbles: true}));"
    )
    second.keyboard.press("4")
    first.wait_for_function(
        "document.querySelector('#choices-right [data-answer=negative]').ariaPressed === 'true'"
    )
    assert first.input_value("#comment") == "typed"
    second.wait_for_function("document.getElementById('comment').value === 'typed'")


def test_a_comment_outlives_a_reload_at_once(desk: Desk) -> None:
    tab = desk.open(TWO)
    tab.keyboard.press("c")
    tab.keyboard.type("unfinished thou")
    tab.reload()
    assert tab.input_value("#comment") == "unfinished thou"


def test_a_damaged_store_is_put_aside_and_said(desk: Desk) -> None:
    tab = desk.open(TWO)
    tab.keyboard.press("1")
    [key] = tab.evaluate("Object.keys(localStorage).filter((key) => key.endsWith(' ann'))")
    for damage in (
        "{",
        "null",
        '{"format":1,"place":0,"downloaded":true,"undo":[],"answers":[]}',
        '{"format":1,"place":9,"downloaded":true,"undo":[{"place":7}],"answers":[null,null]}',
    ):
        tab.evaluate("([key, value]) => localStorage.setItem(key, value)", [key, damage])
        tab.reload()
        assert tab.inner_text("#status").startswith("What this browser had kept cannot be read")
        assert tab.evaluate("(key) => localStorage.getItem(`${key} damaged`)", key) == damage
        tab.keyboard.press("2")
        assert tab.inner_text("#item-state") == "half done"
    assert desk.seen.complaints == []


def test_where_storage_is_blocked_the_page_says_so_and_warns_on_leaving(desk: Desk) -> None:
    context = desk.context()
    context.add_init_script(
        """for (const name of ["localStorage", "sessionStorage"]) Object.defineProperty(window, name,
        { get() { throw new DOMException("blocked", "SecurityError"); } });"""
    )
    tab = desk.tab(context, desk.write(TWO))
    assert "does not keep your answers" in tab.inner_text("#warning")
    sign(tab, "Ann")
    for key in ("1", "3"):
        tab.keyboard.press(key)
    # Two experts still have answers of their own, as long as the page is open.
    tab.click("#switch")
    sign(tab, "Bob")
    assert tab.inner_text("#item-state") == "open"
    tab.click("#switch")
    sign(tab, "Ann")
    assert tab.inner_text("#item-state") == "done"
    tab.reload()
    assert desk.seen.dialogs == ["beforeunload "]
    sign(tab, "Ann")
    assert tab.inner_text("#item-state") == "open"
    tab.keyboard.press("s")
    assert len(verdicts(tab, TWO).verdicts) == 2
    tab.reload()
    assert len(desk.seen.dialogs) == 1, "what is downloaded needs no warning"


def test_a_full_store_is_noticed_when_it_happens(desk: Desk) -> None:
    tab = desk.open(TWO)
    assert tab.locator("#warning").is_hidden()
    tab.evaluate("() => { Storage.prototype.setItem = () => { throw new DOMException('full'); }; }")
    tab.keyboard.press("1")
    assert tab.locator("#warning").is_visible()
    assert tab.inner_text("#item-state") == "half done"


def test_a_name_that_the_importer_would_refuse_is_refused_at_once(desk: Desk) -> None:
    tab = desk.open(TWO, expert="")
    for name, error in (
        ("", "Please write your name."),
        (" \u200b\x07 ", "Please write your name."),
        ("\ufdfa" * 20, "Please write a shorter name."),
    ):
        sign(tab, name)
        assert tab.inner_text("#name-error") == error
        assert tab.locator("#work").is_hidden()


def test_a_clock_that_is_decades_off_leaves_the_time_out(desk: Desk) -> None:
    context = desk.context()
    context.add_init_script("Date.prototype.getUTCFullYear = () => 1970;")
    tab = desk.tab(context, desk.write(TWO))
    sign(tab, "Ann")
    tab.keyboard.press("s")
    resolved = verdicts(tab, TWO)
    assert [v.time for v in resolved.verdicts] == ["", ""]
    assert resolved.rejected == ()


# --- hostile ads ------------------------------------------------------------------------------


def test_hostile_ads_are_text_in_their_box_and_come_back_untouched(desk: Desk) -> None:
    batch = batch_of(HOSTILE)
    assert len(HOSTILE) == 30
    tab = desk.open(batch)
    for place, item in enumerate(batch.items):
        for side, ad in item.sides():
            text, _ = shown(tab, side)
            assert not HIDDEN.search(text)
            # Everything that can be seen is there, in the order of the ad.
            rest = iter(text)
            visible = [c for c in ad.text if unicodedata.category(c)[0] in "LNPS"]
            assert all(c in rest for c in visible if not HIDDEN.match(c)), (ad.text[:60], text)
            box = tab.locator(f"#text-{side}").bounding_box()
            frame = tab.locator(f".ad:has(#text-{side})").bounding_box()
            assert box is not None
            assert frame is not None
            assert frame["x"] < box["x"]
            assert box["x"] + box["width"] < frame["x"] + frame["width"]
            assert box["height"] < 400
        assert tab.evaluate("document.documentElement.scrollWidth") == 1280
        hidden, visible_too = (around_the_ads(tab, look) for look in ("hidden", "visible"))
        difference = ImageChops.difference(hidden, visible_too)
        # Borders at a fraction of a pixel may come out a shade darker.
        strongest = max(high for _, high in difference.getextrema())
        assert strongest < 16, f"pair {place + 1} is drawn outside of its box"
        for key in ("2" if place % 2 else "1", "4", "ArrowRight"):
            tab.keyboard.press(key)
    tab.keyboard.press("ArrowLeft")
    tab.evaluate(
        """() => { const field = document.getElementById("comment");
        field.value = "half \\ud83d";
        field.dispatchEvent(new Event("input")); }"""
    )
    data = save(tab)
    rows = json.loads(data)["rows"]
    assert [row["text"] for row in rows] == list(HOSTILE)
    resolved = imported(data, batch)
    assert resolved.rejected == ()
    assert [v.key for v in resolved.verdicts] == [content_key(text) for text in HOSTILE]
    assert resolved.verdicts[-1].comment == "half \\ud83d"
    assert desk.seen.nothing()


# What is shown of a text (None: all of it), and its marks.
MARKED: tuple[tuple[str, str | None, list[str]], ...] = (
    ("a\u202eb\u202cc", "abc", ["RLO", "PDF"]),
    ("a\u200b\u200b\u200bb", "ab", ["ZWSP ×3"]),
    ("\U000e0041x", "x", ["TAG A"]),
    ("e" + "\u0301" * 9, "e" + "\u0301" * 6, ["+3 marks"]),
    ("e\u0301\u0302", None, []),
    ("x\u200b\u0301", "x", ["ZWSP", "+1 mark"]),
    ("a\r\nb\rc", "a\nb\nc", ["CR"]),
    ("", "", ["no text"]),
    ("pay\u200dpal", "paypal", ["ZWJ"]),
    ("\U0001f3f4\U000e0061\U000e0062", "\U0001f3f4", ["TAG a", "TAG b"]),
    # Emoji, flags, keycaps and the joiners of scripts are spelling, not hiding.
    ("\U0001f468\u200d\U0001f469\u200d\U0001f467 ❤\ufe0f\u200d\U0001f525 1\ufe0f\u20e3", None, []),
    ("\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f", None, []),
    ("می\u200cخواهم", None, []),
    ("क\u094d\u200dष", None, []),
)


def test_what_is_invisible_gets_a_mark(desk: Desk) -> None:
    batch = batch_of([text for text, _, _ in MARKED])
    tab = desk.open(batch)
    found = []
    for _ in batch.items:
        found += [shown(tab, "left"), shown(tab, "right")]
        tab.keyboard.press("ArrowRight")
    assert found == [(text if plain is None else plain, marks) for text, plain, marks in MARKED]


def test_the_browser_enforces_the_content_security_policy(desk: Desk) -> None:
    tab = desk.open(TWO)
    server = socket.create_server(("127.0.0.1", 0))
    server.setblocking(False)
    tab.evaluate(
        """(there) => {
        window.violations = [];
        document.addEventListener("securitypolicyviolation",
            (event) => window.violations.push(event.effectiveDirective));
        const add = (tag, fields) =>
            document.body.append(Object.assign(document.createElement(tag), fields));
        add("img", { src: `${there}/x.png` });
        add("iframe", { src: "data:text/html,hello" });
        add("link", { rel: "stylesheet", href: `${there}/x.css` });
        const style = document.createElement("style");
        style.append("body { color: red }");
        document.body.append(style);
        fetch(there).catch(() => {});
        }""",
        f"http://127.0.0.1:{server.getsockname()[1]}",
    )
    tab.wait_for_function("window.violations.length >= 5")
    directives = {"img-src", "frame-src", "style-src-elem", "connect-src"}
    assert directives <= set(tab.evaluate("window.violations"))
    refused = "(act) => { try { act(); return false; } catch { return true; } }"
    for act in (
        "document.body.innerHTML = '<b>x</b>'",
        "document.body.setAttribute('onclick', 'window.ran = true')",
        "document.createElement('script').text = 'window.ran = true'",
        "window.setTimeout('window.ran = true')",
    ):
        assert tab.evaluate(f"({refused})(() => {{ {act} }})"), act
    # In a task of its own: what a test evaluates directly may evaluate more.
    tab.evaluate("setTimeout(() => { try { eval('1') } catch { window.refused = true } })")
    tab.wait_for_function("window.refused === true")
    tab.click("#item-title")
    assert tab.evaluate("window.ran") is None
    with server, pytest.raises(BlockingIOError):
        server.accept()  # nobody called


# --- seen, heard, printed ---------------------------------------------------------------------


def serious(page: Page) -> list[str]:
    """Return what axe-core finds, as rule and place."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{rule['id']} ({rule['impact']}): {rule['nodes'][0]['target']}" for rule in found]


@pytest.mark.parametrize(
    "look",
    [
        {},
        {"color_scheme": "dark"},
        {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True},
    ],
    ids=["light", "dark", "phone"],
)
def test_axe_finds_nothing(desk: Desk, look: dict[str, Any]) -> None:
    # Around the policy, because axe itself writes markup into the page.
    long_policy = "Rule. " * 400
    texts = ["loud", "W" * 5000 + HOSTILE[16], "c", "d"]
    fields = [("Headline", "Win"), ("Text", "W" * 3000)]
    batch = batch_of(texts, policy=long_policy, sizes=(2, 1, 1), fields=fields)
    tab = desk.open(batch, expert="", bypass_csp=True, **look)
    assert serious(tab) == []
    sign(tab, "")
    assert serious(tab) == [], "with an error message"
    sign(tab, "Ann")
    tab.keyboard.press("1")
    for name in ("policy", "all", "keys"):
        tab.evaluate("(id) => { document.getElementById(id).open = true; }", name)
    assert serious(tab) == [], "while labelling"
    tab.keyboard.press("ArrowRight")
    assert serious(tab) == [], "with a single ad"
    for key in ("ArrowRight", "ArrowRight"):
        tab.keyboard.press(key)
    tab.click("#copy summary")
    assert serious(tab) == [], "at the end"


def test_a_phone_needs_no_sideways_scrolling_and_no_small_targets(desk: Desk) -> None:
    batch = batch_of(["W" * 3000, "b"], positive="W" * 40, negative="a fairly long label name here")
    tab = desk.open(batch, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    sizes = tab.evaluate(
        """() => [...document.querySelectorAll("button, summary, textarea")]
        .filter((part) => part.checkVisibility())
        .map((part) => [part.id || part.textContent, part.getBoundingClientRect().height])"""
    )
    assert len(sizes) > 10
    assert [name for name, height in sizes if height < 44] == []
    tab.locator("#choices-left button").nth(0).tap()
    tab.locator("#choices-right button").nth(1).tap()
    assert tab.inner_text("#item-state") == "done"


def test_the_status_is_announced_and_a_long_ad_is_within_the_keyboards_reach(desk: Desk) -> None:
    tab = desk.open(batch_of(["line\n" * 200, "short"]))
    assert tab.get_attribute("#status", "role") == "status"
    tab.keyboard.press("1")
    assert tab.inner_text("#status") == "Ad A: bait."
    assert tab.get_attribute("#text-left", "tabindex") == "0"
    assert tab.get_attribute("#text-right", "tabindex") is None
    assert tab.locator("#more-left").is_visible()
    assert tab.locator("#more-right").is_hidden()


def test_print_lists_all_pairs_with_boxes_to_tick(desk: Desk) -> None:
    tab = desk.open(batch_of([*HOSTILE[:4], "c", "d"]))
    tab.keyboard.press("1")
    tab.emulate_media(media="print")
    assert tab.locator("#screen").is_hidden()
    # The page hears of the change with its next frame.
    tab.locator("#print article").nth(2).wait_for()
    assert tab.locator("#print article").count() == 3
    assert tab.locator("#print .ad-print").all_inner_texts() == [*HOSTILE[:4], "c", "d"]
    ticks = tab.locator("#print .boxes").all_inner_texts()
    assert ticks[0].split() == ["☑", "bait", "☐", "fine", "☐", "unsure"]
    assert "☑" not in "".join(ticks[1:])
    assert "Bait promises what nobody can promise." in tab.inner_text("#print")
    assert desk.seen.nothing()


def test_what_is_printed_has_the_answers_of_that_moment(desk: Desk) -> None:
    tab = desk.open(TWO)
    for key, ticked in (("1", "bait"), ("2", "fine")):
        tab.keyboard.press(key)
        assert tab.pdf().startswith(b"%PDF")
        boxes = tab.evaluate("document.querySelector('#print .boxes').textContent")
        assert f"☑ {ticked}" in boxes and boxes.count("☑") == 1


# --- whatever is typed ------------------------------------------------------------------------

# Half a surrogate pair cannot be typed.
TYPED = st.text(max_size=30) | st.sampled_from([*HOSTILE[:21], "'=1+1", "x" * 12_000])


@settings(max_examples=10)
@given(name=TYPED, comment=TYPED, texts=st.lists(st.text(max_size=40), min_size=2, max_size=2))
def test_nothing_that_is_typed_or_shown_breaks_the_page_or_the_import(
    desk: Desk, name: str, comment: str, texts: list[str]
) -> None:
    batch = batch_of([f"1 {texts[0]}", f"2 {texts[1]}"])
    context = desk.context()
    tab = desk.tab(context, desk.write(batch))
    expert = f"Ann {name}"[:60]
    sign(tab, expert)
    tab.fill("#comment", comment)
    tab.locator("#item-title").focus()
    for key in "14":
        tab.keyboard.press(key)
    tab.reload()
    for side in ("left", "right"):
        shown(tab, side)
    data = save(tab)
    resolved = imported(data, batch)
    assert resolved.rejected == ()
    assert [v.label for v in resolved.verdicts] == ["positive", "negative"]
    # As the field took it: browsers drop line breaks from a line of text.
    assert {v.expert for v in resolved.verdicts} == {normalize_expert(json.loads(data)["expert"])}
    assert desk.seen.dialogs == desk.seen.complaints == []
    context.close()
