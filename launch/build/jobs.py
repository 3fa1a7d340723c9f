"""Jobs: configurations of the launch file, ready to run, and what their products depend on."""

import contextlib
import functools
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence

from ..core import files, hidden, paths
from ..core.errors import KitError
from ..model import bert_config, model_folder
from ..model.variants import QUANTIZED, BertShape, Spec, Variant, parse_name
from ..qa.arguments import IMPORTANCE, Arguments, parse_arguments
from ..setup import requirements
from ..sources.source import Source
from ..vscode.invocation import Invocation, Part, Rewriter, format_parts, read_option
from ..vscode.launch_file import Configuration, LaunchFile, find_configuration, read_launch_file
from ..vscode.resolve import Variables, resolve_configuration
from . import rules, upstream

_JOBS = ("configs", "evaluate")  # configurations that make runs, besides the variants'

_FILES = ("model_name_or_path", "config_name", "tokenizer_name", "train_file", "nncf_config")
"""Arguments that count by the content of the file or folder they name, where there is one."""

_UNREAD = (
    # where things go, and what only an evaluation or a download acts on
    "output_dir",
    "to_onnx",
    "overwrite_output_dir",
    "cache_dir",
    "do_eval",
    "validation_file",
    "max_eval_samples",
    "per_device_eval_batch_size",
    "n_best_size",
    "max_answer_length",
)
"""Arguments that an ONNX file does not depend on."""

_WEIGHTS = ".weights.bin"
"""Beside the ONNX file: the trained weights that upstream's script reads."""

_QUESTIONS = ("train_file", "validation_file")

_FLAT = "the flat form, which upstream's script reads"  # the rule by which a question file is converted

_CUT = "as the kit's own step has read and cut it, which comes before upstream's script"

_UNKEYED_VARIABLES = ("PATH", "TORCH_EXTENSIONS_DIR", "HF_HOME")  # they lead to tools

_PROGRAM = ("core", "model", "qa")
"""The rooms of the kit in which all that its program imports is; ``tests/test_layers.py`` proves it."""


@dataclass(frozen=True)
class Run:
    """One configuration of a launch file as it runs; ``name`` is the kit's for one of upstream's.

    :param origin: the configuration and its launch file, in words.
    :param source: what it runs on; None for a program that is not the question-answering program.
    """

    name: str
    invocation: Invocation
    origin: str
    parts: Sequence[Part]
    source: Optional[Source]

    def explain(self) -> str:
        """Return each part as in the launch file and, where it differs, as it runs and by which rule."""
        source = f"\non source {self.source.describe()}" if self.source else ""
        return f"{self.origin}{source}\n\n{format_parts(list(self.parts))}"

    def shell(self) -> str:
        """Return a POSIX shell command that does the same."""
        return self.invocation.shell()


@dataclass(frozen=True)
class Configured(Run):
    """One configuration whose program the kit knows.

    :param configuration: its entry in the launch file, for errors; None for one of upstream's.
    :param arguments: its command line, parsed.
    """

    configuration: Optional[Configuration]
    arguments: Any

    def local(self, path: str) -> Path:
        """Return a path of the command line, relative ones from the working directory."""
        return Path(self.invocation.cwd) / path

    def named(self, argument: str) -> str:
        """Return what names an argument's file, for errors: a make variable, or its place in the file."""
        option = f"--{argument}"
        part = next((part for part in reversed(self.parts) if read_option(part) == option), None)
        if part is None:
            return option
        variable = next((rule for rule in part.rules if rule in rules.VARIABLES), None)
        if variable or self.configuration is None or not part.before or {*part.rules} - {_FLAT, _CUT}:
            return variable or option
        return f"{self.configuration.place(self.configuration.path('args'))}: {option}"

    @property
    def checkpoint(self) -> Optional[Path]:
        """Folder of the trained weights that go into a tree; None where there are none."""
        return None


@dataclass(frozen=True)
class Job(Configured):
    """One configuration that runs the question-answering program, the kit's or upstream's.

    :param variant: None where it makes no tree.
    :param downloaded: its inputs on the hub, see :class:`launch.build.hub.Local`; None for others.
    :param originals: what each file or folder that is made for upstream's script is made of.
    :param asked: the arguments before; None where nothing was made for upstream's script.
    """

    source: Source
    arguments: Arguments
    variant: Optional[Variant]
    downloaded: Optional[Mapping[str, Any]] = None
    originals: Mapping[str, str] = field(default_factory=dict)
    asked: Optional[Arguments] = None

    @property
    def made(self) -> Optional[Path]:
        """The ONNX file that the run makes, as its arguments have it; None where it makes none."""
        return self.arguments.name_onnx(self.variant.precision if self.variant else QUANTIZED)

    @property
    def preparation(self) -> Optional[Invocation]:
        """The kit's program that reads a checkpoint for upstream's script and runs before it; else None."""
        if self.asked is None or self.asked.checkpoint is None:
            return None
        words = [self.originals.get(word, word) for word in self.invocation.args]
        heads = ["--heads", self.asked.heads] if self.asked.heads else []
        args = (str(self.arguments.weights), *words, *heads)
        return replace(self.invocation, target=("-m", "launch.qa.write_weights"), args=args)

    def shell(self) -> str:
        """Return a POSIX shell command that does the same."""
        before = self.preparation
        return (f"{before.shell()} && \\\n" if before else "") + self.invocation.shell()

    @property
    def upstreams_script(self) -> bool:
        """Whether the program is upstream's own script."""
        return rules.is_upstreams(self.source)

    def questions(self, argument: str) -> Optional[Path]:
        """Return the file of questions given as ``argument``, before conversion; None where there is none."""
        value = getattr(self.arguments, argument)
        return None if value is None else self.local(self.originals.get(value, value))

    @property
    def checkpoint(self) -> Optional[Path]:
        """Folder of the trained weights that go into the tree; None where they are drawn."""
        folder = (self.asked or self.arguments).checkpoint
        return None if folder is None else self.local(str(folder))

    def shape(self) -> BertShape:
        """Return the dimensions of the job's model.

        :raises KitError: the config cannot be read, is unsound, or gives a tree another graph.
        """
        source = self.local(self.arguments.config_source)
        name = self.named("config_name" if self.arguments.config_name else "model_name_or_path")
        config, where = bert_config.read_config(source, name), str(bert_config.find_config(source))
        if self.variant is not None:
            bert_config.check_graph(config, where)
        shape = bert_config.read_shape(config, where)
        if self.variant is not None and not self.variant.hybrid:
            # The NNCF config says it; a dense model's own config does not.
            shape = replace(shape, overall_sparsity=self.variant.overall_sparsity)
        return shape

    def check_model(self) -> None:
        """Check the model's config and tokenizer before anything is loaded.

        :raises KitError: one of them is at fault, or a feature is too long for the model.
        """
        shape, tokens = self.shape(), self.arguments.max_seq_length
        bert_config.check_length(shape, tokens, self.arguments.config_source)
        tokenizer = self.local(self.arguments.tokenizer_source)
        if not tokenizer.is_dir():
            name = self.named("tokenizer_name" if self.arguments.tokenizer_name else "model_name_or_path")
            raise KitError(
                "The folder of the tokenizer does not exist.",
                where=f"{name}={tokenizer}",
                hint="Name a folder with vocab.txt or tokenizer.json.",
            )
        model_folder.check_tokenizer(tokenizer, shape, tokens)


@dataclass(frozen=True)
class TreeJob(Job):
    """A job that makes a variant's tree."""

    variant: Variant

    @property
    def onnx_path(self) -> Path:
        """Where the program puts its ONNX file."""
        return self.local(str(self.made))

    @property
    def work(self) -> Path:
        """The folder in which the tree is built."""
        return self.onnx_path.parent

    def spec(self) -> Spec:
        """Return what the tree must be."""
        return Spec.of(self.variant, self.shape(), self.arguments.max_seq_length)


def load_job(launch: str, name: str, selection: rules.Selection, source: Source) -> Job:
    """Return a configuration's job; a KitError where the launch file or an input is at fault.

    :param launch: the launch file's path, or ``upstream`` for that of the transformers fork.
    """
    return _job(read_configuration(launch, name, source), name, selection, source)


def run_of(launch: str, name: str, selection: rules.Selection, source: Source) -> Run:
    """As :func:`load_job`, but a configuration of another program is returned as the file has it."""
    read = read_configuration(launch, name, source)
    if read.configuration is None or name in _JOBS or parse_name(name) or rules.runs_the_kits(read.rewriter):
        return _job(read, name, selection, source)
    return Run(name, read.rewriter.result(), read.origin, read.rewriter.parts(), source=None)


class Read(NamedTuple):
    """A configuration as VS Code runs it; one of upstream's, without ``configuration``, as it runs here.

    :param entry: the variant whose configuration it is, of the kind of the job's; empty where none.
    """

    rewriter: Rewriter
    origin: str
    configuration: Optional[Configuration]
    entry: str


def read_configuration(launch: str, name: str, source: Source) -> Read:
    """Return a configuration of the launch file, or of upstream's; a KitError where there is none."""
    if launch == upstream.UPSTREAM:
        rewriter = upstream.rewrite_upstream(name, source)
        origin = f"{upstream.name_upstream(name)!r} in {paths.show_path(upstream.find_upstream_file())}"
        return Read(rewriter, origin, None, upstream.name_entry(rewriter))
    launch_file = files.expand_path(launch, "LAUNCH")
    configuration = _find_configuration(read_launch_file(launch_file), name)
    if configuration.here.get("envFile") is None:
        _tell_of_env_file()
    # VS Code takes the selected interpreter: a person's, else what it finds, in the kit's folder first.
    python = str(paths.VENV_PYTHON) if os.access(str(paths.VENV_PYTHON), os.X_OK) else sys.executable
    variables = Variables(configuration, paths.REPOSITORY, os.environ)
    rewriter = Rewriter(resolve_configuration(variables, python))
    rewriter.as_written(configuration.here, variables.substitute)
    found = configuration.name
    origin = f"{found!r} in {paths.show_path(launch_file)}"
    return Read(rewriter, origin if found == name else f"{name!r}, by {origin}", configuration, found)


def _find_configuration(launch_file: LaunchFile, name: str) -> Configuration:
    """Return a configuration by name; a variant's own, in either precision, or else the first of its kind."""
    there, variant = [one.name for one in launch_file.configurations], parse_name(name)
    if variant is not None and name not in there:
        alike = [parse_name(one) for one in there]
        kind = [one.name for one in alike if one and one.quantized and one.hybrid == variant.hybrid]
        name = variant.base if variant.base in there else (kind or [name])[0]
    return find_configuration(launch_file, name)


@functools.lru_cache(maxsize=None)
def _tell_of_env_file() -> None:
    if (paths.REPOSITORY / ".env").exists():
        note = "VS Code reads .env, and make does not: what programs are to get belongs into the launch file"
        print(f"note: {note}", file=sys.stderr, flush=True)


def _job(read: Read, name: str, selection: rules.Selection, source: Source) -> Job:
    """Return a configuration's job; a program that takes the kit's arguments may stand in the kit's place."""
    rewriter, configuration = read.rewriter, read.configuration
    where, hint = "", 'Set "program" to one of launch/qa/, or give the configuration another name.'
    kits = rules.runs_the_kits(rewriter)
    if configuration:
        target = rewriter.target.after
        key = {"-m": "module", "-c": "code"}[target[0]] if len(target) > 1 else "program"
        where = f"{configuration.place(configuration.path(key))} = {hidden.show_word(target[-1])}"
        if key != "program":
            what = f"Make runs {name!r} as the question-answering program, and this is none."
            raise KitError(what, where=where, hint=hint)
        rules.move_to_source(rewriter, source, where)
    variant = parse_name(name)
    if variant is not None:
        rules.make_variant(rewriter, variant, read.entry)
    selected = rules.apply_selection(
        rewriter,
        selection,
        variant,
        cut=variant is not None and read.entry not in (variant.name, variant.base),
        sample_is_default=configuration is not None,
        upstreams_script=rules.is_upstreams(source),
    )
    rules.set_threads(rewriter, selection.threads, os.environ)
    try:
        arguments = _arguments(rewriter)
    except KitError as error:
        if configuration is None:
            raise
        if kits:
            where = configuration.place(configuration.path("args"))
            raise KitError(error.what, where=where, hint=error.hint) from None
        what = f"Make runs {name!r} as the question-answering program, and this is another"
        raise KitError(f"{what}, or has wrong arguments.  {error.what}", where=where, hint=hint) from None
    run = name, rewriter.result(), read.origin, rewriter.parts(), source
    job = Job(*run, configuration, arguments, variant, selected.downloaded)
    return _converted(job, rewriter)


def _converted(job: Job, rewriter: Rewriter) -> Job:
    """Return a job with questions and weights in the form that upstream's script reads, if it runs that.

    The weights are written when it runs, beside the ONNX file.
    """
    made = {}
    if job.upstreams_script and job.checkpoint and job.made:
        cut = str(job.made.parent / _WEIGHTS)
        made[cut] = str(job.arguments.weights)
        rewriter.set("--weights", cut, _CUT)
        rewriter.drop("--heads", _CUT)
    for name in _QUESTIONS if job.upstreams_script else ():
        path = job.questions(name)
        if path is not None and paths.SAMPLE not in path.parents:
            flat = str(rules.flatten_questions(path, job.named(name)))
            made[flat] = str(path)
            rewriter.set(f"--{name}", flat, _FLAT)
    changed = {"invocation": rewriter.result(), "parts": rewriter.parts(), "arguments": _arguments(rewriter)}
    return replace(job, **changed, originals=made, asked=job.arguments) if made else job  # type: ignore[arg-type]


def _arguments(rewriter: Rewriter) -> Arguments:
    """Return the parsed command line; a value that is not to be shown is a :class:`hidden.Word`.

    :raises KitError: it is wrong, or a number or a switch comes from a variable of the environment.
    """
    invocation = rewriter.result()
    program = Path(invocation.target[-1]).name
    arguments = parse_arguments(program, invocation.args)
    try:
        shown = vars(parse_arguments(program, list(map(hidden.show_word, invocation.args))))
    except KitError as error:
        hint = "Write it out: what a tree was made from is published with it."
        raise KitError(error.what, where=error.where, hint=hint) from None
    differing: Dict[str, Any] = {
        name: hidden.Word(value, shown[name])
        for name, value in vars(arguments).items()
        if value != shown[name]
    }
    return replace(arguments, **differing)


def load_tree(launch: str, variant: Variant, selection: rules.Selection, source: Source) -> TreeJob:
    """As :func:`load_job`; also a KitError where it makes another file, or in another folder."""
    job = TreeJob(**vars(load_job(launch, variant.name, selection, source)))
    made = job.made
    where = f"{launch}: {variant.name}"
    if made is None or made.name != f"{variant.stem}.onnx":
        raise KitError(
            f"The configuration does not make {variant.stem}.onnx" + (f" but {made.name}." if made else "."),
            where=where,
            hint="Correct --to_onnx, or the folder of --config_name, in the launch file.",
        )
    config = job.local(str(job.arguments.nncf_config))
    quantized = variant.quantized
    with contextlib.suppress(KitError):  # what else is wrong with it, others say
        quantized = rules.is_quantized(rules.read_nncf_config(config))
    if quantized != variant.quantized:
        raise KitError(
            f"The NNCF config {'quantizes' if quantized else 'does not quantize'}, and {variant.name}"
            f" is {'not ' if quantized else ''}quantized.",
            where=f"{job.named('nncf_config')}={config}",
            hint="Correct the config's algorithms, or name a variant of the other precision (PRECISION=).",
        )
    if job.work.name != variant.base:
        raise KitError(
            f"The tree would be built in a folder that is not the variant's own: {job.work}.",
            where=where,
            hint=f"Point --to_onnx to <folder>/{variant.base}/{made.name} in the launch file.",
        )
    return job


def make_onnx_key(job: TreeJob) -> Dict[str, Any]:
    """Return what the ONNX file of a job depends on, as JSON.

    Files count by their content, folders of this machine not at all: a moved checkout keeps its trees.

    :raises KitError: a file that the command line names cannot be read.
    """
    invocation = job.invocation
    arguments = {
        name: _content(job.local(value), value, job.named(name)) if name in _FILES else _recorded(value)
        for name, value in vars(job.arguments).items()
        if name not in (*_UNREAD, "weights", "heads") and value is not None
    }
    if job.checkpoint is not None:
        arguments["weights"] = "file:" + model_folder.digest_checkpoint(job.checkpoint)
        arguments["heads"] = (job.asked or job.arguments).heads or IMPORTANCE
    # Upstream's scripts are part of the source; the report on zeros is the kit's on either, and so is reading
    # a checkpoint.
    rooms = _PROGRAM[:-1] if job.upstreams_script and job.checkpoint is None else _PROGRAM
    program = [path for room in rooms for path in sorted((paths.PACKAGE / room).glob("*.py"))]
    return {
        "arguments": arguments,
        # Without the variables that are removed: whether the shell has them is nobody's business.
        "environment": {
            name: _recorded(value)
            for name, value in invocation.env.items()
            if value is not None and name not in _UNKEYED_VARIABLES
        },
        "interpreter": [_recorded(word) for word in (invocation.python, *invocation.options)],
        "target": [_content(job.local(word), word, "program") for word in invocation.target]
        if not job.upstreams_script
        else [Path(invocation.target[-1]).name],
        "lock": requirements.digest_lock("runtime.lock"),
        "program": files.digest_files(program, paths.PACKAGE),
        "source": job.source.key(),
    }


def _recorded(value: Any) -> Any:
    """Return a value as a key has it: without the checkout's place, and nothing hidden."""
    if not isinstance(value, str):
        return value
    text = hidden.name_folders(value, {"${workspaceFolder}": paths.REPOSITORY})
    if not isinstance(value, hidden.Word):
        return text
    shown = hidden.name_folders(value.shown, {"${workspaceFolder}": paths.REPOSITORY})
    return f"{shown} ({files.digest_with_key(text)[:16]})"


def _content(path: Path, word: str, name: str) -> str:
    """Return the digest of the file or folder ``path``; where there is none, ``word`` as recorded."""
    try:
        if path.is_dir():
            return "folder:" + files.digest_model_folder(path)
        return "file:" + files.digest_file(path) if path.exists() else _recorded(word)
    except OSError as error:
        raise KitError(
            f"A file that the launch configuration names cannot be read: {error.strerror}.",
            where=f"{name}={hidden.show_word(word)}",
            hint="Make it readable, or name another.",
        ) from None
