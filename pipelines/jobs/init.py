"""``scout init``: a commented task file for a policy and a corpus."""

from __future__ import annotations

import functools
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipelines.config import Task, parse_task
from pipelines.console.summary import number, shares_text
from pipelines.console.typed import typed
from pipelines.console.visible import printable
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs.columns import ad_fields
from pipelines.jobs.look import Look, look
from pipelines.jobs.results import Result
from pipelines.sources.base import ReadOptions
from pipelines.store import storage

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATES = Path(__file__).resolve().parents[2] / "templates" / "init"
_LINE_CHARS = 98
_BUDGET = 100


@dataclass(frozen=True, slots=True)
class InitOptions:
    """Everything ``scout init`` was told; see ``pipelines.api.init``."""

    task_file: str
    name: str
    policy: str
    question: str
    positive: str
    negative: str
    prior: float
    corpus: tuple[str, ...]
    read: ReadOptions
    force: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Started(Result):
    """What ``init`` leaves behind.

    Attributes:
        task_file: what was written.
        task: its name.
        look: what the corpus looks like; None without one.
        next_steps: what to type now, one after the other.
    """

    task_file: str
    task: str
    look: Look | None
    next_steps: tuple[str, ...]


def init(options: InitOptions) -> Started:
    """Look at the corpus and write the task file, which is then valid.

    Args:
        options: see :class:`InitOptions`.

    Raises:
        UsageError: the file is there, a value will not do, the corpus cannot be read.
    """
    path = options.task_file
    if storage.exists(path) and not options.force:
        raise UsageError(f"{path}: is there already; name another file, or --force to replace it")
    if not options.name:
        options = replace(options, name=name_of(path))
    if not options.question:
        options = replace(options, question=f"Is this ad {options.positive}?")
    options = replace(options, policy=_policy(options.policy))
    found = look(options.corpus, options.read) if options.corpus else None
    text = _written(options, found)
    try:
        storage.write(path, text.encode("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error})") from error
    return Started(path, options.name, found, tuple(_next_steps(options, found)))


def name_of(path: str) -> str:
    """Return a task's name made of its file's."""
    stem = re.sub(r"[^a-z0-9_-]+", "-", Path(path).stem.lower()).strip("-_")
    return stem[:64] or "my-policy"


def _policy(policy: str) -> str:
    """Return a policy's text, which may be given as a file that holds it."""
    if "\n" not in policy and len(policy) < 1000 and policy.endswith((".txt", ".md")):
        try:
            return storage.read(policy).decode("utf-8-sig")
        except FileNotFoundError:
            raise UsageError(f"--policy {policy}: no such file") from None
        except UnicodeDecodeError as error:
            raise UsageError(
                f"--policy {policy}: byte {error.start} is not UTF-8; save it as UTF-8"
            ) from error
        except OSError as error:
            raise UsageError(f"--policy {policy}: cannot be read ({error.strerror})") from error
    return policy


def _written(options: InitOptions, found: Look | None) -> str:
    """Return the task file's text, checked.

    Raises:
        UsageError: a value will not do; names its flag.
    """
    fields = ad_fields(found.text) if found and found.text not in ((), ("text",)) else ()
    if not found and options.read.text_field:
        fields = ad_fields([options.read.text_field])
    policy = options.policy.strip()
    values: dict[str, Any] = {
        "name": options.name,
        "question": options.question.strip(),
        "positive": options.positive.strip(),
        "negative": options.negative.strip(),
        "prior": options.prior,
        "corpus": options.corpus,
        "look": found,
        "fields": fields,
        "budget": _budget(found),
        "max_ad_tokens": _window(found),
    }
    # In lines that people can change, unless YAML would read them otherwise than they are meant.
    plain = yaml.reader.Reader.NON_PRINTABLE.search(policy) is None
    for style in (_block, _quoted) if plain else (_quoted,):
        text = _template().render(**values, policy=f"policy: {style(policy)}")
        task = _parsed(text, options)
        if task.policy == policy:
            return text
    raise RunFailed(
        "--policy: cannot be written into YAML as it is; shorten it, and change the file"
    )


def _parsed(text: str, options: InitOptions) -> Task:
    try:
        return parse_task(text, options.task_file)
    except UsageError as error:
        # Every line of it names the file and a line that is not there: the flags are what can be mended.
        told = re.sub(rf"^{re.escape(options.task_file)}:\d+: ", "", error.typed, flags=re.M)
        told = re.sub(r"^labels\.(positive|negative)", r"--\1", told, flags=re.M)
        told = re.sub(r"^labels: ", "--positive, --negative: ", told, flags=re.M)
        told = re.sub(r"^(name|policy|question|prior)\b", r"--\1", told, flags=re.M)
        raise UsageError(told) from error


def _budget(found: Look | None) -> int:
    """Return a first budget: experts should see a part of a small corpus, not most of it."""
    if not found or not found.whole or not found.distinct:
        return _BUDGET
    return min(_BUDGET, max(5, found.distinct // 8))


def _window(found: Look | None) -> int:
    """Return tokens that hold nearly all ads, by their letters."""
    if not found or found.long <= 0.05 * found.distinct:
        return 256
    tokens = 256
    while tokens * 4 < found.chars[1] and tokens < 2048:
        tokens *= 2
    return tokens


def _next_steps(options: InitOptions, found: Look | None) -> list[str]:
    path, corpus = options.task_file, list(options.corpus)
    parts, values = ["mine", "{}"], [path]
    flags = [("corpus", place) for place in corpus]
    if found:
        names = (("id_field", found.id_field), ("weight_field", found.weight_field))
        flags += [(name, value) for name, value in names if value]
    if options.read.format:
        flags.append(("format", options.read.format))
    for name, value in flags:
        parts.append(f"--{name} {{}}")
        values.append(value)
    if not corpus:
        parts.append("--corpus GLOB")
    mine = typed(" ".join(parts), *values, workspace=f"runs/{options.name}")
    return [typed("validate {}", path), mine]


def _block(text: str) -> str:
    """Return a text as a block that people can read and change."""
    lines = text.splitlines()
    if len(lines) > 1:
        return "|-\n" + "\n".join(f"  {line.rstrip()}".rstrip() for line in lines)
    wrapped = textwrap.wrap(text, _LINE_CHARS - 2, break_long_words=False, break_on_hyphens=False)
    return ">-\n" + "\n".join(f"  {line}" for line in wrapped)


def _quoted(text: str) -> str:
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=10**6).strip()


def _plain(number: float) -> str:
    # 1e-05 is text in YAML, 1.0e-05 a number.
    return yaml.safe_dump(number).splitlines()[0]


@functools.cache
def _template() -> Template:
    import jinja2

    environment = jinja2.Environment(  # noqa: S701, YAML has no markup
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "comment": _comment,
        "number": number,
        "shares": shares_text,
        "plain": _plain,
        "yaml": _quoted,
    }
    return environment.get_template("task.yaml")


def _comment(text: str, limit: int) -> str:
    """Return a text of strangers as a part of a comment's line, which YAML can hold."""
    shown = printable(text, limit)
    return "".join(
        char if yaml.reader.Reader.NON_PRINTABLE.match(char) is None else "?" for char in shown
    )


def missing(given: Mapping[str, Any], wanted: Sequence[str]) -> UsageError:
    """Return the error of a call that lacks what no default can stand for."""
    lacking = [f"--{name}" for name in wanted if given[name] in (None, "")]
    return UsageError(
        f"{', '.join(lacking)}: missing; give {'them' if len(lacking) > 1 else 'it'}, or run `scout init` on "
        "a terminal, where it asks"
    )
