"""Label Studio by its API: a place is a project, a record a task.

A line in the project's description, ``ad-scout: TASK vVERSION``, is how it is found again; titles may
change. Importing an item twice would double its task.

A server with SQLite, the default, repeats a request by itself while somebody else writes, after half of
it was done: one call then makes two projects, or two tasks of each item. Two pushes at the same time do
the same. So a push looks at what it left, and where something is there twice the older one stays; it
deletes only what came while it ran, and no task that anybody has begun. What is doubled all the same is
said (tasks) or refused by the next push (projects).

Why not Label Studio's own SDK: 2.1.2 brings 23 more packages, OpenCV, a code formatter and a data faker among
them, and needs a numpy below 2.3, against our 2.4. What is needed are a dozen calls.
"""

from __future__ import annotations

import contextlib
import html
import itertools
import json
import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from pipelines.console.progress import step
from pipelines.console.visible import printable
from pipelines.errors import RunFailed
from pipelines.tools import outgoing
from pipelines.tools.batch import Batch
from pipelines.tools.label_studio import format
from pipelines.tools.label_studio.client import NO_LABEL_STUDIO, Client, Refusal
from pipelines.tools.outgoing import PAIR, SINGLE
from pipelines.tools.server import Held, Say, Server, told
from pipelines.verdicts.names import fold_name

TASKS_A_PAGE = 100
PROJECTS_A_PAGE = 100
_MARK = "ad-scout: "
_MAX_TITLE_CHARS = 50
_MAX_IMPORT_SECONDS = 600
# What the reader of exports looks at. The policy, predictions, drafts, times of viewing and whatever
# else changes without anybody answering stay on the server. ``pair_id``: of an earlier version.
_DATA = {"item_id", "pair_id", "task", "version", "round"} | {
    name for slot in (*PAIR, *SINGLE) for name in (slot.id, slot.text)
}
_ANNOTATION = ("id", "was_cancelled", "created_at", "updated_at")
_RESULT = ("from_name", "to_name", "type", "value")


class LabelStudioServer(Server):
    """A Label Studio server: places are projects as the API gives them, records are tasks."""

    noun = "project"
    missing = (
        f"no project of this user's organization has the line '{_MARK}{{}}' in its description"
    )
    strangers = (
        "user numbers {} answered, but are not in the organization any more; their numbers stand for "
        "their names"
    )

    def __init__(self, client: Client) -> None:
        self.client, self.url = client, client.url

    @classmethod
    @contextlib.contextmanager
    def connected(cls, url: str, token: str, environment: Mapping[str, str]) -> Iterator[Self]:
        """Give the server; see :class:`pipelines.tools.server.Server`."""
        client = Client(url, token, environment=environment)
        client.check()
        yield cls(client)

    def address(self, place: Any) -> str:
        """Return the project's own page."""
        return f"{self.url}/projects/{_number(place)}"

    # --- projects ---

    def find(self, name: str) -> dict[str, Any] | None:
        """Return the project with the line.

        Raises:
            RunFailed: there are several, or one that only looks like it.
        """
        ours, others = self._named(name)
        line = _MARK + name
        if len(ours) > 1:
            places = " and ".join(map(self.address, ours))
            raise RunFailed(
                f"{places}: each has the line {line!r} in its description; delete it from all but one"
            )
        if not ours and others:
            raise RunFailed(
                f"{self.address(others[0])}: is called {_title(name)!r}, but its description lacks the "
                f"line {line!r}; add the line if it is the task's project, otherwise rename the project"
            )
        return ours[0] if ours else None

    def create(self, name: str, batch: Batch) -> dict[str, Any]:
        """Return a new project; if somebody makes one at the same moment, one for both."""
        wanted = _settings(batch) | {
            "title": _title(name),
            "description": (
                "Ads for experts to label. Keep the next line: it is how ad-scout finds this project "
                f"again.\n{_MARK}{name}"
            ),
            "label_config": format.config(batch).decode(),
        }
        config = {"label_config": wanted["label_config"]}
        self.client.call("POST", "/api/projects/validate/", body=config)
        made = self.client.object("POST", "/api/projects/", body=wanted)
        ours, _ = self._named(name)
        # Whoever else makes one at this moment chooses the same.
        project = min(ours, key=_number, default=made)
        if _number(project) != _number(made):
            self.client.call("DELETE", f"/api/projects/{_number(made)}/")
        return project

    def adapt(self, place: Any, batch: Batch, say: Say) -> list[str]:
        """Refuse other labels; bring settings up to date.

        Title, description and layout stay as somebody may have changed them.
        """
        del say
        self._check_labels(place, batch)
        wanted = _settings(batch)
        same = {name: place.get(name) == value for name, value in wanted.items()}
        # The server spells markup its own way.
        found, ours = (_plain(d.get("expert_instruction")) for d in (place, wanted))
        same["expert_instruction"] = found == ours
        changes = {name: value for name, value in wanted.items() if not same[name]}
        if changes:
            self.client.call("PATCH", f"/api/projects/{_number(place)}/", body=changes)
        return sorted(changes)

    def _named(self, name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the projects with the line, and those that have only its title."""
        ours, others = [], []
        for project in self._projects():
            lines = [part.strip() for part in str(project.get("description") or "").splitlines()]
            if _MARK + name in lines:
                ours.append(project)
            # Long names are cut, so that another version's project may have this title too.
            elif project.get("title") == _title(name) and _MARK not in "\n".join(lines):
                others.append(project)
        return ours, others

    def _projects(self) -> Iterator[dict[str, Any]]:
        seen = 0
        path, size = "/api/projects/", {"page_size": PROJECTS_A_PAGE}
        for found, total in self._pages(path, size, "results", "count"):
            yield from found
            seen += len(found)
            if not found or seen >= total:
                return

    def _pages(
        self, path: str, params: Mapping[str, Any], items: str, total: str
    ) -> Iterator[tuple[list[dict[str, Any]], int]]:
        """Yield each page's objects, and how many there are on all; without an end of its own."""
        for page in itertools.count(1):
            answer = self.client.object("GET", path, params={**params, "page": page})
            number = answer.get(total) or 0
            if not isinstance(number, int):
                raise RunFailed(f"{self.url}{path}: answered without a number; {NO_LABEL_STUDIO}")
            yield self._objects(path, answer.get(items)), number

    def _check_labels(self, project: Mapping[str, Any], batch: Batch) -> None:
        """Refuse a project whose answers could not be read as this task's."""
        root = ET.fromstring(format.config(batch))  # noqa: S314 (written by this project)
        controls = project.get("parsed_label_config")
        for control in root.iter("Choices"):
            name, to_name = control.attrib["name"], control.attrib["toName"]
            wanted = [choice.attrib["value"] for choice in control.iter("Choice")]
            known = controls.get(name) if isinstance(controls, dict) else None
            found = known.get("labels") if isinstance(known, dict) else None
            if (
                not isinstance(known, dict)
                or not isinstance(found, list)
                or set(map(fold_name, map(str, found))) != set(map(fold_name, wanted))
            ):
                shown = ", ".join(printable(str(label), 40) for label in found or []) or "none"
            elif known.get("to_name") != [to_name]:
                shown = f"labels of {printable(json.dumps(known.get('to_name')), 40)}"
            else:
                continue
            raise RunFailed(
                f"{self.address(project)}: its choices for {name} are {shown}, the task's are "
                f"{', '.join(wanted)}; give the task another version, or set the labeling interface to "
                "the configuration of `scout export --tool label-studio`"
            )

    # --- tasks ---

    def records(self, batch: Batch) -> list[dict[str, Any]]:
        """Return the batch's tasks."""
        return format.tasks(batch)

    def fields(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a task's data; an earlier version called its item ``pair_id``."""
        data = record.get("data")
        if not isinstance(data, dict):
            return {}
        old = "pair_id" in data and "item_id" not in data
        return {"item_id": data["pair_id"], **data} if old else data

    def held(self, place: Any, batch: Batch) -> Held:
        """Return item id -> its tasks."""
        found: Held = {}
        for task in self._tasks(_number(place), f"listing the project's {batch.noun}s", {}):
            item = self.fields(task).get("item_id")
            if isinstance(item, str):
                found.setdefault(item, []).append(task)
        return {item: sorted(tasks, key=_number) for item, tasks in found.items()}

    def send(self, place: Any, records: Sequence[dict[str, Any]]) -> bool:
        """Import some tasks."""
        path = f"/api/projects/{_number(place)}/import"
        params = {"commit_to_project": "true"}
        try:
            answer = self.client.object("POST", path, params=params, body=list(records))
        except Refusal as refusal:
            if refusal.status != 413 or len(records) == 1:
                raise
            return False
        if "import" in answer:
            self._await_import(f"/api/projects/{_number(place)}/imports/{answer['import']}/")
        elif answer.get("task_count") != len(records):
            raise RunFailed(
                f"{self.url}{path}: imported {printable(str(answer.get('task_count')), 20)} of "
                f"{len(records)} tasks; look into the server's log"
            )
        return True

    def settle(self, place: Any, batch: Batch, before: Held, after: Held, say: Say) -> list[str]:
        """Have the predictions of this model shown, and every item there once."""
        number, changed = _number(place), []
        # Label Studio shows the predictions of one model.
        path = f"/api/projects/{number}/"
        shows = batch.show_predictions and bool(batch.items)
        if shows and self.client.object("GET", path).get("model_version") != batch.model_id:
            self.client.call("PATCH", path, body={"model_version": batch.model_id})
            changed = ["model_version"]
        known = {task["id"] for tasks in before.values() for task in tasks}
        doubled = [
            item.item_id
            for item in batch.items
            if len(after[item.item_id]) > 1 and self._copies_left(after[item.item_id], known)
        ]
        if doubled:
            say(
                f"{self.address(place)}: there more than once: {batch.counted(len(doubled))} "
                f"({doubled[0]}, ...), imported by hand or by two pushes at the same time; experts may "
                "label them twice, their last answer counts"
            )
        return changed

    def answers(self, place: Any) -> tuple[list[dict[str, Any]], set[str]]:
        """Return a project's tasks with their annotations, experts by their e-mail addresses."""
        emails = self._emails()
        records, strangers = [], set()
        everything = {"fields": "all"}
        for raw in self._tasks(_number(place), "listing the project's answers", everything):
            annotations = self._objects("/api/tasks/", raw.get("annotations"))
            data = {name: value for name, value in self.fields(raw).items() if name in _DATA}
            records.append(_canonical(raw.get("id"), data, annotations, emails))
            for annotation in records[-1]["annotations"]:
                by = annotation["completed_by"]
                if isinstance(by, dict) and not by["email"]:
                    strangers.add(str(by["id"]))
        return records, strangers

    def _tasks(
        self, number: int, label: str, params: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Yield a project's tasks, each once.

        Raises:
            RunFailed: tasks disappear while they are listed.
        """
        seen: set[int] = set()
        # Otherwise an ad that begins like the address of a storage would be rewritten.
        fixed = {"project": number, "page_size": TASKS_A_PAGE, "resolve_uri": "false", **params}
        with step(label) as listed:
            for found, total in self._pages("/api/tasks/", fixed, "tasks", "total"):
                listed.total = total
                listed(len(found))
                for task in found:
                    if _number(task) not in seen:
                        seen.add(_number(task))
                        yield task
                if len(seen) >= total:
                    return
                if not found:
                    raise RunFailed(
                        f"{self.url}/projects/{number}: lists {len(seen):,} of {total:,} tasks; they "
                        "change while they are read: run the command again"
                    )

    def _objects(self, path: str, values: Any) -> list[dict[str, Any]]:
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise RunFailed(
                f"{self.url}{path}: answered without a list of objects; {NO_LABEL_STUDIO}"
            )
        return values

    def _copies_left(self, tasks: Sequence[Mapping[str, Any]], known: set[Any]) -> bool:
        """Delete new copies of an item that nobody has begun; return whether more than one is left."""
        idle = [task for task in tasks if task["id"] not in known and not self._is_begun(task)]
        if len(idle) == len(tasks):
            # Whoever else settles this at the moment keeps the same one.
            idle = idle[1:]
        for task in idle:
            self._unless_gone("DELETE", task)
        return len(tasks) - len(idle) > 1

    def _is_begun(self, task: Mapping[str, Any]) -> bool:
        found = self._unless_gone("GET", task)
        return isinstance(found, dict) and any(
            found.get(name) for name in ("annotations", "drafts", "draft_exists")
        )

    def _unless_gone(self, method: str, task: Mapping[str, Any]) -> Any:
        try:
            return self.client.call(method, f"/api/tasks/{_number(task)}/")
        except Refusal as refusal:
            if refusal.status != 404:
                raise
            return None

    def _await_import(self, path: str) -> None:
        """Wait for an import that the server does in the background, as the paid editions do."""
        end = time.monotonic() + _MAX_IMPORT_SECONDS
        pause = 0.1
        while time.monotonic() < end:
            answer = self.client.object("GET", path)
            if answer.get("status") == "completed":
                return
            if answer.get("status") == "failed":
                why = self.client.shown(told(answer.get("error")))
                raise RunFailed(f"{self.url}{path}: failed: {why}")
            time.sleep(pause)
            pause = min(2 * pause, 5.0)
        raise RunFailed(
            f"{self.url}{path}: not done after {_MAX_IMPORT_SECONDS} s; push again when it is, not "
            "before: items could be doubled"
        )

    def _emails(self) -> dict[int, str]:
        """Return number -> e-mail address of the organization's users."""
        path = "/api/users/"
        answer = self.client.call("GET", path)
        if isinstance(answer, dict):
            answer = answer.get("results")
        return {
            user["id"]: str(user.get("email") or "")
            for user in self._objects(path, answer)
            if isinstance(user.get("id"), int)
        }


def _settings(batch: Batch) -> dict[str, Any]:
    """Return what a push keeps up to date, as the API takes it."""

    def quote(text: str) -> str:
        # HTML that shows every sign of the policy as itself.
        return html.escape(outgoing.holdable(text.strip())).replace("\n", "<br>")

    instruction = outgoing.filled("label_studio_instructions.html", batch, quote)
    return {
        "expert_instruction": instruction.decode(),
        "show_instruction": True,
        "maximum_annotations": batch.experts_per_ad,
        "show_collab_predictions": batch.show_predictions and bool(batch.items),
    }


def _plain(markup: Any) -> str:
    """Return the words of an instruction."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", str(markup or ""))).split())


def _title(name: str) -> str:
    return name[:_MAX_TITLE_CHARS]


def _number(thing: Mapping[str, Any]) -> int:
    """Return the number of a project or task."""
    number = thing.get("id")
    if not isinstance(number, int):
        raise RunFailed(
            f"the server names something without a number: {printable(str(number), 40)}"
        )
    return number


def _canonical(
    number: Any,
    data: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    emails: Mapping[int, str],
) -> dict[str, Any]:
    """Return what a task says, without what changes when nobody answers."""
    found = []
    for annotation in annotations:
        results = annotation.get("result")
        if isinstance(results, list):
            results = [
                {name: item[name] for name in _RESULT if name in item}
                if isinstance(item, dict)
                else item
                for item in results
            ]
        kept = {name: annotation.get(name) for name in _ANNOTATION}
        by = annotation.get("completed_by")
        if isinstance(by, dict):
            by = by.get("id")
        if isinstance(by, int):
            by = {"id": by, "email": emails.get(by, "")}
        found.append({**kept, "completed_by": by, "result": results})
    found.sort(key=lambda item: (str(item["updated_at"]), str(item["id"])))
    return {"id": number, "data": data, "annotations": found}
