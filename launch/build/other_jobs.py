"""The jobs that make no tree: ``configs`` and ``evaluate``."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable

from ..core import child, files, paths
from ..core.errors import KitError
from ..core.files import hold_lock
from ..core.progress import Progress
from ..model import bert_config, metric, model_folder, squad
from ..model.variants import VARIANTS
from . import preflight, rules
from .jobs import Job
from .program import run_job

_GENERATED = Path("gen-hybrid-sparse", "generated_cfg")  # below the working folder of upstream's script


def write_configs(job: Job, prepare: Callable[[], None], ready_environment: Callable[[], None]) -> int:
    """Run the job that writes the hybrid configs, and print their names; return the program's status.

    :param prepare: sets up environment and sources; ``ready_environment`` makes the environment alone.
    :raises KitError: an input is at fault, or upstream's script fails.
    """
    preflight.check_job(job)
    job.shape()
    if not job.upstreams_script and job.invocation.python == str(paths.VENV_PYTHON):
        ready_environment()
    with hold_lock() as lock:
        if job.upstreams_script:
            prepare()
        if job.local(job.arguments.output_dir) == rules.find_user_configs():
            # Those of a person's earlier model: not every model has all four.
            shutil.rmtree(rules.find_user_configs(), ignore_errors=True)
        if job.upstreams_script:
            _run_upstreams(job, lock)
            return 0
        return subprocess.run(
            job.invocation.argv(),
            env=job.invocation.environment(os.environ),
            cwd=job.invocation.cwd,
            pass_fds=(lock,),
            preexec_fn=child.die_with_parent,
            check=False,
        ).returncode


def _run_upstreams(job: Job, lock: int) -> None:
    """Write the hybrid configs with upstream's script, and take them to ``--output_dir``."""
    made = Path(job.invocation.cwd) / _GENERATED
    shutil.rmtree(made, ignore_errors=True)
    progress = Progress("configs", expected=None)
    run_job(job, "configs", "hybrid configs", progress, lock)
    progress.done("by upstream's script")
    for config in sorted(made.glob("*/config.json")):
        if not _is_cut_from(job, config.parent.name):
            progress.note(f"{config.parent.name} left out: the dense model is too small for it")
            continue
        target = job.local(job.arguments.output_dir) / config.parent.name / config.name
        files.write_text(target, config.read_text(encoding="utf-8"))
        print(target)


def _is_cut_from(job: Job, name: str) -> bool:
    """Return whether the hybrid ``name`` removes something from the dense model: upstream does not ask."""
    dense = job.local(job.arguments.model_name_or_path)
    try:
        bert_config.make_hybrid(bert_config.read_config(dense, "MODEL"), VARIANTS[name], str(dense))
    except KitError:
        return False
    return True


def score_predictions(predictions: Path, validation_file: Path) -> str:
    """Score a file of answers without a model; return the figures as JSON.

    :param predictions: ``{"<question id>": "<answer>"}``; a missing one counts 0, as in the official script.
    :raises KitError: a file is at fault.
    """
    examples = squad.read_questions(validation_file, "VALIDATION_FILE")
    squad.check_scorable(examples)
    gold = {example.id: example.gold for example in examples}
    answers = metric.read_answers(predictions, "PREDICTIONS", gold, f"VALIDATION_FILE={validation_file}")
    missing = [identity for identity in gold if identity not in answers]
    if missing:
        shown = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        print(f"{len(missing)} of {len(gold)} questions have no answer and count 0: {shown}", file=sys.stderr)
    return json.dumps({**metric.score_answers(gold, answers), "questions": len(gold)}, indent=2)


def evaluate_job(job: Job, prepare: Callable[[], None]) -> str:
    """Run an evaluation job and return its result as JSON.

    :raises KitError: an input is at fault, or the evaluation fails.
    """
    preflight.check_job(job)
    questions = job.questions("validation_file")
    if questions is not None:
        examples = squad.read_questions(questions, job.named("validation_file"))
        squad.check_scorable(examples[: job.arguments.max_eval_samples])
    job.check_model()
    model, drawn = job.local(job.arguments.model_name_or_path), job.arguments.weights == model_folder.RANDOM
    if model.is_dir() and not drawn:
        model_folder.find_checkpoint(model)
    folder = job.local(job.arguments.output_dir)
    path = folder / "eval_results.json"
    with hold_lock() as lock:
        prepare()
        for earlier in (path, folder / "eval_predictions.json"):
            with contextlib.suppress(OSError):
                earlier.unlink()  # it would pass for this run's, should this one fail
        progress = Progress("evaluate", expected=None)
        run_job(job, "evaluate", "evaluation", progress, lock)
    results = json.loads(path.read_text(encoding="utf-8"))
    if job.upstreams_script:
        # The kit's own program says it itself; upstream's numbers would pass for a trained model's.
        weights = f"random, seed {job.arguments.seed}"
        if not drawn:
            weights = (folder / model_folder.ORIGIN).read_text(encoding="utf-8").strip()
        results["weights"] = weights
        files.write_text(path, json.dumps(results, indent=4, sort_keys=True) + "\n")
    progress.done(paths.show_path(path))
    return json.dumps(results, indent=2)
