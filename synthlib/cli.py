"""The command line: experiments (reproduce, status, run); cli_sets has those for sets of images, cli_classifiers the rest."""

import argparse
import os
import sys
from pathlib import Path

from synthlib import cli_authors, cli_classifiers, cli_eval, cli_sets, interrupts, mirror, paths, receipts
from synthlib.inputs import InputError, read_json_object, written_as


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 if it worked, 2 with one line on stderr if something given is wrong, 143 after SIGTERM."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if os.path.expanduser("~") == "~":  # a container's user without an account: libraries would end with a traceback
        os.environ["HOME"] = os.sep
    try:
        with written_as(options.flags):
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
    parser = argparse.ArgumentParser(prog="synthlib", description="Can I train a classifier from class names alone?")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("reproduce", help="run what an experiment's tables and figures need, and is not done")
    command.add_argument("experiment", help="a file in experiments/, such as pocket")
    command.add_argument("--only", nargs="+", default=[], metavar="ID", help="only these results, such as T1 F2")
    command.add_argument("--cell", default="", help="only one table cell, such as T1/digits/merged/resnet")
    command.add_argument(
        "--dry-run", action="store_true", help="say what would run, how long it takes and how much it writes"
    )
    command.add_argument("--cores", type=int, default=0, help="steps side by side on this machine (default: all cores)")
    command.add_argument("--gpus", default="", help="of this machine: all (default), or such as 0,2; a step takes one")
    command.add_argument(
        "--parts", type=int, default=0, help="jobs that share the drawing of each set (default: as GPUs)"
    )
    command.add_argument("--profile", default="local", help="in profiles/, or a folder: local (default), slurm")
    older = command.add_mutually_exclusive_group()
    older.add_argument("--redo", action="store_true", help="run again what older code made, however long it took")
    older.add_argument("--keep", action="store_true", help="accept what older code made, and record that")
    command.set_defaults(command=_reproduce)

    command = commands.add_parser(
        "engine", help="install Snakemake, which reproduce needs, in an environment of its own: .engine/"
    )
    command.set_defaults(command=_engine)

    command = commands.add_parser("report", help="one page that shows everything: figures/<experiment>/report.html")
    command.add_argument("experiment", help="a file in experiments/, or interactive: what the notebooks made by hand")
    command.add_argument(
        "--reference", action="store_true", help="show the committed run, with nothing run here: reference.html"
    )
    command.set_defaults(command=_report)

    command = commands.add_parser("cells", help="the command of every table cell, with the published value beside it")
    command.add_argument("experiment")
    command.add_argument("--only", nargs="+", default=[], metavar="ID", help="only of these results, such as T1 F2")
    command.add_argument("--markdown", action="store_true", help="as folded Markdown tables")
    command.set_defaults(command=_cells)

    command = commands.add_parser("status", help="which steps of an experiment are done, stale (why) or missing")
    command.add_argument("experiment")
    command.add_argument("--verify", action="store_true", help="check every file's sha256, not only its size")
    command.set_defaults(command=_status)

    command = commands.add_parser(
        "run", help="one step: one notebook through papermill, if its receipt is not up to date"
    )
    command.add_argument("notebook", help=", ".join(paths.STEPS))
    command.add_argument("--params", type=Path, required=True, help="a JSON file of parameters, or a receipt.json")
    command.add_argument("--log", action="store_true", help="print into run.log in the step's folder")
    command.set_defaults(command=_run)

    cli_sets.add_commands(commands)
    cli_authors.add_commands(commands)
    cli_eval.add_commands(commands)
    cli_classifiers.add_commands(commands)
    _name_flags(parser)
    return parser


def _name_flags(parser: argparse.ArgumentParser) -> None:
    """Give each command its flags, by the parameters that they set (their `dest`), for the errors that name these."""
    kinds = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for command in (command for action in kinds for command in action.choices.values()):
        flags = {action.dest: action.option_strings[0] for action in command._actions if action.option_strings}
        command.set_defaults(flags=flags)
        _name_flags(command)


@interrupts.terminated_at_once()
def _reproduce(options: argparse.Namespace) -> None:
    from synthlib.runs.experiment import read_experiment
    from synthlib.runs.reproduce import Means, dry_run, launch_by, reproduce, settle_older_code
    from synthlib.runs.steps import plan_steps

    experiment = read_experiment(options.experiment)
    steps = plan_steps(experiment, options.only, options.cell)
    means = Means(options.profile, options.cores, options.parts, options.gpus)
    if options.dry_run:
        launch_by(means, steps)  # refuses what is no such thing
        print(dry_run(experiment, steps, options.cores or os.cpu_count() or 1))
        return
    mirror.bring_back()
    settle_older_code(steps, options.redo, options.keep)
    mirror.catch_up()
    reproduce(experiment, steps, means)
    from synthlib.results import compare

    if options.cell:
        print(compare.cell_text(steps[-1].run_dir))
        return
    figures = paths.resolve(steps[-1].parameters["figures_dir"])
    print(f"\n{experiment.title}. {experiment.note}\n")
    made = {suffix: receipts.output_names(steps[-1].run_dir, suffix) for suffix in (".md", ".csv")}
    shown = [paths.resolve(steps[-1].run_dir) / name for name in made[".md"]] if options.only else None
    only = [Path(name).name for name in made[".csv"]] if options.only else None
    compared = compare.compare_with_reference(figures, paths.reference_dir(experiment.name), only)
    print(compare.summary_text(figures, compared, shown))
    print(f"\nTables and figures: {os.path.relpath(figures)}")
    page = paths.report_file(experiment.name)
    from synthlib.page.origins import page_is_current

    if not page_is_current(experiment.name):
        from synthlib.page.write import write_report

        write_report(experiment.name)
    print(f"Page: {os.path.relpath(page)}")


def _engine(options: argparse.Namespace) -> None:
    from synthlib.runs.engine import set_up

    set_up()


def _report(options: argparse.Namespace) -> None:
    from synthlib.page.write import write_report

    print(f"Page: {os.path.relpath(write_report(options.experiment, options.reference))}")


def _cells(options: argparse.Namespace) -> None:
    from synthlib.runs.cells import cells_markdown, cells_text
    from synthlib.runs.experiment import read_experiment

    print((cells_markdown if options.markdown else cells_text)(read_experiment(options.experiment), options.only))


def _status(options: argparse.Namespace) -> None:
    from synthlib.runs.experiment import read_experiment
    from synthlib.runs.reproduce import states
    from synthlib.runs.steps import plan_steps

    found = states(plan_steps(read_experiment(options.experiment)), options.verify)
    for name, state in found.items():
        print(f"{name:<45} {state}")
    print(f"{sum(state == 'done' for state in found.values())} of {len(found)} steps done")


def _run(options: argparse.Namespace) -> None:
    from synthlib.runs.run import outcome_text, run_step

    content = read_json_object(options.params)
    parameters = content.get("parameters", content)
    print(f"{options.notebook}: {run_step(options.notebook, parameters, options.log)}")
    if not options.log:  # there nobody reads on
        print(outcome_text(options.notebook, parameters))


if __name__ == "__main__":
    sys.exit(main())
