"""From a study to its plan: every step once, keyed by its content, and which points use it."""

from collections.abc import Mapping, Sequence
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.languages import resolve
from isogloss.storage import content_key
from isogloss.study import sources
from isogloss.study.checks import check_head, check_study
from isogloss.study.grid import Point, language_codes, points, replaced
from isogloss.study.labels import labelled, point_words, short_names
from isogloss.study.named import Named
from isogloss.study.published import published_notes
from isogloss.study.reading import Marks
from isogloss.study.shares import given_shares
from isogloss.study.spec import Study, TaskSection, TestSet
from isogloss.study.stages import merged_stage
from isogloss.study.steps import Plan, Step, step_key

_ALL = "all"
_PAIRWISE = 20  # So many languages are named in a note at most.


def make_plan(study: Study, marks: Marks | None = None, *, ahead: bool = False) -> Plan:
    """Plans a study: nothing is loaded or run.

    Args:
        study: From `read_study`.
        marks: Where its values stand, for errors.
        ahead: Look at nothing on the Hub and allow folders that are not there yet; a note names what is taken on trust.

    Raises:
        IsoglossError: Something that the study names does not exist, or no point is left.
    """
    return _Planner(study, marks or Marks(), ahead).plan()


class _Planner:
    def __init__(self, study: Study, marks: Marks, ahead: bool) -> None:
        self.study, self.marks, self.named = study, marks, Named(study, marks, ahead)
        self.out = Plan(
            study.name,
            study.description,
            options={
                "retries": study.retries,
                "tokens_per_batch": study.tokens_per_batch,
                "shares": given_shares(study, self.marks),
                "groups": {name: language_codes([name], study, ("groups",), self.marks) for name in study.groups},
            },
            published=[item.model_dump() for item in study.published],
        )
        self.lacking: dict[str, dict[str, None]] = {}
        self.targets = (
            None
            if study.targets == [_ALL] and _ALL not in study.groups
            else language_codes(study.targets, study, ("targets",), marks)
        )
        self.out.options["targets"] = self.targets  # A report says which of them have no score.
        self._stages: dict[tuple[str, str, str | None], dict[str, Any]] = {}
        self._tests: dict[str, list[tuple[str, str, str, str]]] = {}
        self._words: dict[str, dict[str, str]] = {}

    def plan(self) -> Plan:
        self.out.notes += check_study(self.study, self.marks)
        found = points(self.study, self.marks)
        for point, self.named.here in found.items():
            self.named.check_backbone(point.backbone)
        self._short = short_names(point.backbone for point in found)
        for point, self.named.here in found.items():
            self._add(point)
        self.out.steps = labelled(self.out.steps, self._words)
        for reason, codes in self.lacking.items():
            self._lack(reason, list(codes))
        self.out.notes += published_notes(self.study, self.out.points, self.marks)
        if self.named.unseen:
            names = ", ".join(self.named.unseen)
            self.out.notes.append(
                f"on the Hub or not there yet, so not looked at: {names}; the run skips languages that they lack"
            )
        return self.out

    def _lack(self, reason: str, codes: Sequence[str]) -> None:
        shown = ", ".join(codes[:_PAIRWISE]) + (f" and {len(codes) - _PAIRWISE} more" if len(codes) > _PAIRWISE else "")
        if self.study.lacking == "error":
            raise IsoglossError(
                f"{self.marks.at(('targets',))} cannot be met: {reason}: {shown}; or set `lacking: skip`."
            )
        self.out.notes.append(f"{reason}: {shown}")

    def _step(
        self,
        kind: str,
        words: dict[str, str],
        spec: dict[str, Any],
        inputs: dict[str, Any],
        needs: Sequence[str],
        group: str = "",
    ) -> str:
        key = step_key(kind, spec)
        if key not in self.out.steps:
            self._words[key] = words
            self.out.steps[key] = Step(key, kind, "", group or key, tuple(needs), spec, inputs)
        return key

    def _add(self, point: Point) -> None:
        section = self.study.tasks[point.task]
        tests = self._tests.get(point.task)
        if tests is None:
            tests = self._tests[point.task] = self._test_sets(point.task, section)
        parts = {code: self._part(point, code) for code in point.source}
        for code, part in parts.items():
            if point.language_module and part is None:
                listed = ("language", "text") in self.marks.where
                where = self.named.here.at(("language", "text") if listed else ("grid", "cell"))
                raise IsoglossError(
                    f"{where} {'has' if listed else 'needs `language.text`, but there is'} no text for the source {code}, which the "
                    f"cell {point.cell} needs; add it, or take the cell or the source out."
                )
        key = self._task(point, section, {code: part for code, part in parts.items() if part})
        evaluations: list[tuple[str, str, str]] = []
        for code, name, data, split in tests:
            part = self._part(point, code)
            if point.language_module and part is None:
                self.lacking.setdefault(f"no text for a language module, so not scored in cell {point.cell}", {})[
                    code
                ] = None
                continue
            evaluations.append((code, name, self._evaluation(point, section, key, part, code, name, data, split)))
        for code in point.source:
            # The source is scored too, for the gap that transfer leaves.
            if all(code != done for done, _, _ in evaluations):
                for name, given, split in self._named_tests(section):
                    path = self.named.data_path(point.task, given)
                    where = self.named.look(path, sources.data_for, given, code)
                    if self.named.identity(path, where, code, split):
                        evaluations.append(
                            (code, name, self._evaluation(point, section, key, parts[code], code, name, where, split))
                        )
        self.out.points.append(
            {
                "factors": point.factors(),
                "task": point.task,
                "source": "+".join(point.source),
                "seed": point.seed,
                "step": key,
                "seen": self._seen(point),
                "evaluations": evaluations,
            }
        )

    def _named_tests(self, section: TaskSection) -> list[tuple[str, sources.Data, str]]:
        given = section.test or [TestSet(data=section.data)]
        names = [item.name or (item.data if isinstance(item.data, str) else item.split) for item in given]
        short = [name.rstrip("/").split("/")[-1] for name in names]
        if len(set(short)) < len(short):  # Two splits of one data set, or folders of one name.
            short = [f"{name} ({item.split})" for name, item in zip(names, given, strict=True)]
        return [(name, item.data, item.split) for name, item in zip(short, given, strict=True)]

    def _test_sets(self, name: str, section: TaskSection) -> list[tuple[str, str, str, str]]:
        """(language, test set, data, split) of everything that is to be scored."""
        found = []
        for test, data, split in self._named_tests(section):
            path = self.named.data_path(name, data)
            if self.targets is not None:
                wanted = self.targets
            elif isinstance(data, str):
                wanted = list(self.named.look(path, sources.languages_in, data))
            else:
                raise IsoglossError(
                    f"{self.marks.at(('targets',))} is `all`, but the tests of {name} are in several data sets; list them."
                )
            for code in wanted:
                where = self.named.look(path, sources.data_for, data, code)
                if self.named.identity(path, where, code, split) is None:
                    self.lacking.setdefault(f"no split '{split}' for {name} in '{where}'", {})[code] = None
                    continue
                found.append((code, test, where, split))
        if not found:
            raise IsoglossError(
                f"{self.marks.at(('tasks', name))} can be scored on none of the targets; check its data and `targets`."
            )
        return found

    def _part(self, point: Point, code: str) -> dict[str, Any] | None:
        """The language part of a language: a step that trains it, or a module that is there already."""
        if point.language_module is None:
            return None
        language = resolve(code)
        section = self.study.language
        for number, folder in enumerate(section.ready):
            path = ("language", "ready", number)
            found = self.named.look(path, sources.ready_module, folder, point.backbone, point.language_module, code)
            if found:
                return {"key": f"ready:{found[1][:16]}", "folder": found[0]}
        text = self.named.look(("language", "text"), sources.text_of, language, section.text)
        if text is None:
            return None
        module = point.language_module
        method = module.split(":")[0].split(",")[0]
        if section.init_text and method == "prompt":
            module = replaced(module, (("text", section.init_text.format(name=language.name)), ("init", "text")))
        stage = section.stage.model_dump(exclude_none=True)
        if method in type(section).model_fields:
            stage |= getattr(section, method).model_dump(exclude_none=True)
        spec = {
            "backbone": sources.backbone_identity(point.backbone),
            "language": code,
            "text": sources.text_identity(text),
            "module": module,
            "stage": stage,
            "seed": point.language_seed,
        }
        head, _, options = point.language_module.partition(",")
        words = {
            "kind": "language module",
            "backbone": self._short[point.backbone],
            "module": head,
            "options": options,
            "code": code,
            "language_seed": f"seed {point.language_seed}",
        }
        return {"key": self._step("language", words, spec, {"backbone": point.backbone, "text": text}, ())}

    def _stage(self, point: Point, section: TaskSection) -> dict[str, Any]:
        kind = sources.backbone_kind(point.backbone)
        place = (point.task, point.cell, kind)
        if place in self._stages:
            return self._stages[place]
        merged = merged_stage(self.study, point, kind, self.named.here)
        check_head(merged, section, point.task, point.cell, kind, self.marks)
        self._stages[place] = merged
        return merged

    def _task(self, point: Point, section: TaskSection, parts: Mapping[str, Mapping[str, Any]]) -> str:
        trained: dict[str, str] = {}
        dev: dict[str, str] = {}
        path = ("tasks", point.task, "data")
        data = {code: self.named.look(path, sources.data_for, section.data, code) for code in point.source}
        for code in point.source:
            for split, kept in ((section.train, trained), (section.dev, dev)):
                if split is None:
                    continue
                identity = self.named.identity(path, data[code], code, split)
                if identity is None:
                    raise IsoglossError(
                        f"{self.marks.at(path)} names '{data[code]}', which has no split '{split}' for "
                        f"{code}; name another split, or `dev: null` to hold out a tenth of the training rows."
                    )
                kept[code] = identity
        module = point.task_module
        if section.init_text and module.split(":")[0] == "prompt":
            text = section.init_text.format(name=resolve(point.source[0]).name)
            module = replaced(module, (("text", text), ("init", "text")))
        asked = {
            "name": section.task or point.task,
            "fields": section.fields or None,
            "labels": section.labels,
            "label_map": section.label_map or None,
        }
        stage = self._stage(point, section)
        spec: dict[str, Any] = {
            "backbone": sources.backbone_identity(point.backbone),
            "task": sources.facts(asked),
            "train": trained,
            "dev": dev,
            "limit": section.limit_train,
            "bad_rows": section.bad_rows,
            "module": module,
            "stage": stage,
            "freeze": point.freeze,
            "shots": point.shots,
            "seed": point.seed,
            "languages": {code: part["key"] for code, part in parts.items()},
        }
        needs = [part["key"] for part in parts.values() if "folder" not in part]
        inputs: dict[str, Any] = {
            "backbone": point.backbone,
            "data": data,
            "train": section.train,
            "dev": section.dev,
            "ready": {part["key"]: part["folder"] for part in parts.values() if "folder" in part},
        }
        if point.pool != "none":
            spec["pool"] = self.named.look(("grid", "pool"), sources.module_digest, point.pool)
            inputs["pool"] = point.pool
        if point.update != "none":
            fixed = self._fixed(point.update)
            if fixed is None:
                spec["update"] = self._update(point, section, spec, inputs)
                needs.append(spec["update"])
            else:
                spec["update"], inputs["update"] = fixed
        group = ""
        if self._may_share(point, stage):
            group = "seeds-" + content_key({name: value for name, value in spec.items() if name != "seed"})[:24]
        words = {"kind": "task", **point_words(point, self._short)}
        return self._step("task", words, spec, inputs, needs, group)

    def _may_share(self, point: Point, stage: Mapping[str, Any]) -> bool:
        if not self.study.seeds_together or not point.freeze or point.update != "none" or point.pool != "none":
            return False
        from isogloss.modules import parse_module
        from isogloss.training.seed_stage import can_share
        from isogloss.training.task_stage import TaskStage

        if sources.backbone_card(point.backbone).get("pool"):
            return False
        kind = sources.backbone_kind(point.backbone)
        return can_share(kind, parse_module(point.task_module), TaskStage(**stage))

    def _fixed(self, name: str) -> tuple[str, str] | None:
        """Identity of a rule or start that is no step, and what opens it: a control by its words, a folder by its content."""
        text = self.study.updates[name].control
        if text is None:
            return None
        return sources.update_identity(text) or f"control:{text}", text

    def _update(self, point: Point, section: TaskSection, task: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
        """The step that learns an update rule or a start."""
        asked = self.study.updates[point.update]
        where = self.marks.at(("updates", point.update))
        data = {}
        identities = {}
        for code in language_codes(asked.auxiliary, self.study, ("updates", point.update, "auxiliary"), self.marks):
            path = ("updates", point.update, "data") if asked.data else ("tasks", point.task, "data")
            data[code] = self.named.look(path, sources.data_for, asked.data or section.data, code)
            identity = self.named.identity(path, data[code], code, asked.split)
            if identity is None or code in point.source:
                reason = "is the source" if code in point.source else f"has no split '{asked.split}' in '{data[code]}'"
                raise IsoglossError(f"{where} names the auxiliary {code}, which {reason}; name another language.")
            identities[code] = identity
        parts = {}
        if point.language_module:
            parts = {code: self._part(point, code) for code in (*point.source, *identities)}
            lacking = [code for code, part in parts.items() if part is None]
            if lacking:
                raise IsoglossError(f"{where}: there is no text for a language module of {', '.join(lacking)}; add it.")
        found = {code: part for code, part in parts.items() if part}
        kept = ("backbone", "task", "train", "limit", "bad_rows", "module", "freeze", "seed")
        spec = {
            **{name: task[name] for name in kept},
            "method": asked.method,
            "auxiliary": identities,
            "auxiliary_split": asked.split,
            "stage": asked.stage,
            "languages": {code: part["key"] for code, part in found.items()},
        }
        places = {
            **{name: inputs[name] for name in ("backbone", "data", "train")},
            "auxiliary": data,
            "ready": {part["key"]: part["folder"] for part in found.values() if "folder" in part},
        }
        words = {"kind": f"update {point.update}", **point_words(point, self._short), "update": ""}
        return self._step(
            "update", words, spec, places, [part["key"] for part in found.values() if "folder" not in part]
        )

    def _seen(self, point: Point) -> list[str]:
        """Languages whose labels took part in making a model."""
        section = self.study.updates.get(point.update)
        if section and section.control is not None:
            return list(dict.fromkeys([*point.source, *sources.update_seen(section.control)]))
        names = section.auxiliary if section else []
        others = language_codes(names, self.study, ("updates", point.update, "auxiliary"), self.marks) if names else []
        return [*point.source, *others]

    def _evaluation(
        self,
        point: Point,
        section: TaskSection,
        task: str,
        part: Mapping[str, Any] | None,
        code: str,
        name: str,
        data: str,
        split: str,
    ) -> str:
        spec = sources.facts(
            {
                "task": task,
                "language": code,
                "part": part["key"] if part else None,
                "data": self.named.identity(self.named.data_path(point.task, data), data, code, split),
                "split": split,
                "limit": section.limit_test,
                "metric": section.metric,
                "bad_rows": section.bad_rows,
            }
        )
        needs = [task, *([part["key"]] if part and "folder" not in part else [])]
        inputs = {
            "backbone": point.backbone,
            "data": data,
            "test": name,
            "ready": {part["key"]: part["folder"]} if part and "folder" in part else {},
        }
        trained = point_words(point, self._short)
        # The cell says enough of the module, unless there are several of a kind.
        trained |= {"module": "", "options": point.task_module if point.task_module != "none" else ""}
        words = {"kind": "score", **trained, "on": f"on {code}", "test": f"of {name}", "split": split}
        return self._step("evaluation", words, spec, inputs, needs, f"scores-{task}")
