"""The command line: synthlib reproduce | status | run | generate."""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from synthlib import interrupts, paths, receipts
from synthlib.settings import GenerateSettings, InputError, trick_name


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 if it worked, 2 with one line on stderr if something given is wrong, 143 after SIGTERM."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        options.command(options)
    except InputError as error:
        print(f"synthlib: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except interrupts.Terminated as error:
        print(f"synthlib: {error}", file=sys.stderr)
        return interrupts.EXIT_CODE
    except KeyboardInterrupt:
        print("synthlib: interrupted; what is finished is kept, the same command goes on from there.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="synthlib", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("reproduce", help="run what an experiment's tables and figures need, and is not done")
    command.add_argument("experiment", help="a file in experiments/, such as pocket")
    command.add_argument("--only", nargs="+", default=[], metavar="ID", help="only these results, such as T1 F2")
    command.add_argument("--cell", default="", help="only one table cell, such as T1/digits/merged/resnet")
    command.add_argument(
        "--dry-run", action="store_true", help="say what would run, how long it takes and how much it writes"
    )
    command.add_argument("--cores", type=int, default=os.cpu_count(), help="steps side by side (default: all cores)")
    command.add_argument("--profile", default="local", help="a folder in profiles/ (default: local)")
    older = command.add_mutually_exclusive_group()
    older.add_argument("--redo", action="store_true", help="run again what older code made, however long it took")
    older.add_argument("--keep", action="store_true", help="accept what older code made, and record that")
    command.set_defaults(command=_reproduce)

    command = commands.add_parser("status", help="which steps of an experiment are done, stale (why) or missing")
    command.add_argument("experiment")
    command.add_argument("--verify", action="store_true", help="check every file's sha256, not only its size")
    command.set_defaults(command=_status)

    command = commands.add_parser(
        "run", help="one step: one notebook through papermill, if its receipt is not up to date"
    )
    command.add_argument("notebook", help="01_generate, 02_train, 03_eval or 04_figures")
    command.add_argument("--params", type=Path, required=True, help="a JSON file of parameters, or a step.json")
    command.set_defaults(command=_run)

    command = commands.add_parser("generate", help="images of your own classes, as the authors' create_dataset.py")
    command.add_argument("--classes", nargs="+", required=True, help="class names; underscores become spaces")
    command.add_argument(
        "--trick", default="class_prompt", help="base_class, class_prompt, multi_domain, random_guidance, ..."
    )
    command.add_argument("--outdir", type=Path, required=True, help="writes OUTDIR/<class>/<image_id>.png")
    command.add_argument("--domains", nargs="+", default=[], help="for multi_domain (default: the paper's ten)")
    command.add_argument("--min_scale", type=float, help="random_guidance: lowest guidance scale (default 1)")
    command.add_argument("--max_scale", type=float, help="random_guidance: highest guidance scale (default 5)")
    command.add_argument("--n_samples", type=int, default=2, help="images per prompt: n_samples x n_iter (default 2)")
    command.add_argument(
        "--n_iter", type=int, default=1000, help="images per prompt: n_samples x n_iter (default 1000)"
    )
    command.add_argument("--ddim_steps", type=int, default=40, help="sampling steps (default 40)")
    command.add_argument("--seed", type=int, default=64)
    command.add_argument("--H", type=int, default=0, help="height in pixels (default: the checkpoint's own)")
    command.add_argument("--W", type=int, default=0, help="width in pixels (default: the checkpoint's own)")
    command.add_argument(
        "--model", default="", help="diffusers folder, CompVis file or hub id (default: the embedded one)"
    )
    command.add_argument("--revision", help="commit or branch of a hub id (default: main)")
    command.add_argument("--noise", help="per_image (default), or compvis: the released script's order")
    command.add_argument(
        "--guidance_draw", help="random_guidance: uniform (default), integer, or per_run_integer as theirs"
    )
    command.add_argument("--resize", help="the authors' 32A or 64 (default: the size drawn)")
    command.add_argument("--safety", help="off (default), or flag: record what the safety checker thinks")
    command.add_argument("--batch_size", type=int, help="images drawn at once; part of what an image depends on")
    command.add_argument("--probe-batch", action="store_true", help="first find the largest batch that fits in memory")
    command.add_argument("--device", default="auto", help="auto, cpu or cuda")
    command.add_argument("--precision", help="float32, float16 or bfloat16 (default: by the device)")
    command.set_defaults(command=_generate)
    return parser


def _reproduce(options: argparse.Namespace) -> None:
    from synthlib.runs.experiment import plan_steps, read_experiment
    from synthlib.runs.reproduce import dry_run, reproduce, settle_older_code

    experiment = read_experiment(options.experiment)
    steps = plan_steps(experiment, options.only, options.cell)
    if options.dry_run:
        print(dry_run(experiment, steps, options.cores))
        return
    settle_older_code(steps, options.redo, options.keep)
    signal.signal(signal.SIGTERM, interrupts.raise_terminated)
    reproduce(experiment, steps, options.only, options.cores, options.profile)
    from synthlib.results import report

    if options.cell:
        print(report.cell_text(steps[-1].run_dir))
        return
    figures = paths.resolve(steps[-1].parameters["figures_dir"])
    print(f"\n{experiment.title}. {experiment.note}\n")
    print(report.summary_text(figures, report.compare_with_reference(figures, paths.reference_dir(experiment.name))))
    print(f"\nTables and figures: {os.path.relpath(figures)}")


def _status(options: argparse.Namespace) -> None:
    from synthlib.runs.experiment import plan_steps, read_experiment
    from synthlib.runs.reproduce import states

    found = states(plan_steps(read_experiment(options.experiment)), options.verify)
    for name, state in found.items():
        print(f"{name:<45} {state}")
    print(f"{sum(state == 'done' for state in found.values())} of {len(found)} steps done")


def _run(options: argparse.Namespace) -> None:
    from synthlib.runs.run import run_step

    try:
        content = json.loads(options.params.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no file {options.params}; expected a JSON file of parameters.") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{options.params}, line {error.lineno}: {error.msg}; expected JSON.") from None
    if not isinstance(content, dict):
        raise InputError(f"{options.params} holds a JSON {type(content).__name__}; expected an object of parameters.")
    print(f"{options.notebook}: {run_step(options.notebook, content.get('parameters', content))}")


def _generate(options: argparse.Namespace) -> None:
    """Images per prompt: n_samples x n_iter, as in the authors' script; multi_domain has a prompt for each domain."""
    for name in ("n_samples", "n_iter"):
        if getattr(options, name) < 1:
            raise InputError(f"{name} is {getattr(options, name)}; expected a number of at least 1.")
    if options.noise == "compvis" and options.n_samples != 2:
        raise InputError(f"n_samples is {options.n_samples}; expected 2 with noise 'compvis', the script's order.")
    from synthlib.data.datasets import read_spec
    from synthlib.data.exchange import write_image_folder
    from synthlib.runs.experiment import complete

    trick = trick_name(options.trick)
    spec = read_spec("own", options.classes, options.domains)
    prompts_per_class = len(spec.domains) if trick == "multi_domain" else 1
    outdir = options.outdir.absolute()
    beside = outdir.with_name(f".{outdir.name}.synthlib")  # not inside, where ImageFolder would take it for a class
    given = {
        "run_dir": str(beside),
        "dataset": "own",
        "classes": options.classes,
        "trick": trick,
        "domains": options.domains,
        "images_per_class": options.n_samples * options.n_iter * prompts_per_class,
        "num_inference_steps": options.ddim_steps,
        "seed": options.seed,
        "height": options.H,
        "width": options.W,
        "model": str(Path(options.model).absolute())
        if Path(options.model).exists() and options.model
        else options.model,
        "device": options.device,
    }
    optional = (
        "min_scale",
        "max_scale",
        "batch_size",
        "revision",
        "noise",
        "guidance_draw",
        "resize",
        "safety",
        "precision",
    )
    given |= {name: value for name in optional if (value := getattr(options, name)) is not None}
    settings = GenerateSettings(**complete("01_generate", given))
    from synthlib.generation.generate import generate, open_plan

    if options.probe_batch:
        settings = _with_probed_batch(settings)
    plan = open_plan(settings)
    print(
        f"{len(plan)} images: {', '.join(spec.classes)}; {settings.images_per_class} of each class, trick {trick}.",
        flush=True,
    )
    files = generate(plan)  # several such commands may work on one folder: the receipt is written by whoever ends first
    step = receipts.begin("01_generate", settings)
    step.finish(files)
    count = write_image_folder(files[:-1], outdir)
    print(f"{count} images in {os.path.relpath(outdir)}/<class>/, shards and records in {os.path.relpath(plan.folder)}")


def _with_probed_batch(settings: GenerateSettings) -> GenerateSettings:
    """The settings with the largest batch that fits, or with that of the images which are there already."""
    from dataclasses import replace

    from synthlib.generation.generate import PLAN_FILE, open_plan
    from synthlib.generation.paint import probe_batch
    from synthlib.generation.reuse import drawn_files

    folder = paths.resolve(settings.run_dir)
    there = receipts.read_json(folder / PLAN_FILE) if drawn_files(folder) else None
    if there:
        size = there["batch_size"]
    else:
        plan = open_plan(settings)
        size = probe_batch(plan.settings, plan.spec)
    print(f"batch_size {size}: {'that of the images in the folder' if there else 'the largest that fits'}.", flush=True)
    return replace(settings, batch_size=size)


if __name__ == "__main__":
    sys.exit(main())
