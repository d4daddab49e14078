"""Seven cells x 16 languages of one task on one backbone: a study's one process against one process a cell and language.

    python benchmarks/study_evaluation.py [--store DIR] [--sample 4] [--threads 2]

Trains the seven cells shortly into a store, deletes the scores and has one worker make all of them again. Then runs the
same scores as `isogloss evaluate` processes, one language each: a sample of them, evenly spread over the cells, as the
whole takes hours. Both ways use the same threads, by default all cores, as both commands do. Prints wall-clock and processor seconds, as other work on the machine counts in the first only.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from isogloss.storage import read_json
from isogloss.study import LocalEngine, Store, make_plan, read_study, run_plan

SHARED = Path(os.environ.get("ISOGLOSS_SHARED", "../shared")) / "data"
# In scripts that the vocabulary knows: a text in another falls to bytes, up to 512 tokens a sentence.
LANGUAGES = [
    "eng",
    "deu",
    "spa",
    "fra",
    "ces",
    "slk",
    "tel",
    "swh",
    "rus",
    "arb",
    "hin",
    "ron",
    "nld",
    "bul",
    "hrv",
    "ukr",
]
STUDY = f"""\
name: evaluation-speed
grid:
  backbone: bundled:encoder
  cell: [head, TA, TP, LA+TA, LA+TP, LP+TA, LP+TP]
  language_adapter: adapter:16
  language_prompt: prompt:20
  task_adapter: adapter:8
  task_prompt: prompt:20
  task: topic
  source: en
targets: [{", ".join(LANGUAGES)}]
tasks: {{topic: {{data: {SHARED / "sib200"}}}}}
language: {{text: {SHARED / "unlabelled"}, stage: {{steps: 1, length: 32, batch_size: 4, limit: 40}}}}
stage: {{steps: 1, batch_size: 4, select: last}}
"""


def children() -> float:
    """Processor seconds of finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("runs/study/evaluation-speed"))
    parser.add_argument("--sample", type=int, default=4, help="processes to run the other way")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of either way [all cores]")
    options = parser.parse_args()
    file = options.store.with_suffix(".yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(STUDY)
    plan = make_plan(read_study(file))
    store = Store(options.store, create=True, name=plan.name)

    def run() -> tuple[float, float]:
        began, used = time.monotonic(), children()
        result = run_plan(
            plan, store, LocalEngine(store.folder, threads=options.threads, logs=store.folder / "runs"), workers=1
        )
        assert not result.failed, result.failed
        return time.monotonic() - began, children() - used

    run()
    print("trained", flush=True)
    scores = [step for step in plan.steps.values() if step.kind == "evaluation"]
    values = {step.key: read_json(store.place(step.key) / "scores.json")["value"] for step in scores}
    for step in scores:
        shutil.rmtree(store.place(step.key))
    wall, used = run()
    print(
        f"study, one worker of {options.threads} threads: {len(scores)} scores in {wall:.1f} s ({used:.1f} s of processor), starting and loading included"
    )
    chosen = [scores[number * len(scores) // options.sample] for number in range(options.sample)]
    began, before = time.monotonic(), children()
    for step in chosen:
        parts = [str(store.place(need) / "module") for need in step.needs]
        modules = [word for part in parts for word in ("--modules", part)]
        command = [
            "evaluate",
            "--data",
            str(SHARED / "sib200"),
            "--targets",
            step.spec["language"],
            *modules,
            "--threads",
            str(options.threads),
            "--json",
        ]
        subprocess.run([str(Path(sys.executable).with_name("isogloss")), *command], check=True, capture_output=True)
        assert read_json(store.place(step.key) / "scores.json")["value"] == values[step.key]
    wall_one = (time.monotonic() - began) / len(chosen)
    used_one = (children() - before) / len(chosen)
    print(f"one process a score: {wall_one:.1f} s each ({used_one:.1f} s of processor), mean of {len(chosen)}")
    print(
        f"all {len(scores)} that way: {wall_one * len(scores):.0f} s ({used_one * len(scores):.0f} s of processor), "
        f"{wall_one * len(scores) / wall:.0f} ({used_one * len(scores) / used:.0f}) times as long"
    )


if __name__ == "__main__":
    main()
