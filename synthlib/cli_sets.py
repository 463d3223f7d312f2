"""The command line for sets of images: generate, download, import, export, describe, redraw."""

import argparse
import os
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from synthlib import paths, receipts
from synthlib.files import PLAN, read_json, write_atomic, write_json
from synthlib.gpus import VISIBLE, chosen_gpus, own_gpu, visible_gpus
from synthlib.inputs import InputError, require
from synthlib.names import IMAGE_TRICKS, TRICKS, UNKNOWN, trick_name
from synthlib.settings import GenerateSettings

SMALL = 32  # pixels, of which the miniature network and protocol learn
EXPORTS = ("folder", "eurosat", "huggingface", "npz")


def add_commands(commands: Any) -> None:
    """Add the parsers of these commands to an argparse's subparsers."""
    command = commands.add_parser("generate", help="images of your own classes, as the authors' create_dataset.py")
    command.add_argument("--classes", nargs="+", required=True, help="class names; underscores become spaces")
    command.add_argument(
        "--trick", default="class_prompt", help="base_class, class_prompt, multi_domain, random_guidance, ..."
    )
    command.add_argument("--outdir", type=Path, required=True, help="writes OUTDIR/<class>/<image_id>.png")
    command.add_argument("--domains", nargs="+", default=[], help="for multi_domain (default: the paper's ten)")
    command.add_argument("--prompts_file", default="", help="for prompt_list: a YAML file of the prompts of each class")
    command.add_argument("--min_scale", type=float, help="random_guidance: lowest guidance scale (default 1)")
    command.add_argument("--max_scale", type=float, help="random_guidance: highest guidance scale (default 5)")
    command.add_argument("--n_samples", type=int, default=2, help="images per prompt: n_samples x n_iter (default 2)")
    command.add_argument(
        "--n_iter", type=int, default=1000, help="images per prompt: n_samples x n_iter (default 1000)"
    )
    command.add_argument(
        "--ddim_steps", dest="num_inference_steps", type=int, default=40, help="sampling steps (default 40)"
    )
    command.add_argument("--seed", type=int, default=64)
    command.add_argument(
        "--H", dest="height", type=int, default=0, help="height in pixels (default: the checkpoint's own)"
    )
    command.add_argument(
        "--W", dest="width", type=int, default=0, help="width in pixels (default: the checkpoint's own)"
    )
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
    command.add_argument(
        "--shard_rows", type=int, help="images in one Parquet file (default 1000); fewer of large images"
    )
    command.add_argument("--probe-batch", action="store_true", help="first find the largest batch that fits in memory")
    command.add_argument("--device", default="auto", help="auto, cpu or cuda")
    command.add_argument("--gpus", default="", help="share the set among this machine's GPUs: all, or such as 0,2")
    command.add_argument("--precision", help="float32, float16 or bfloat16 (default: by the device)")
    command.set_defaults(command=_generate)

    command = commands.add_parser(
        "download", help="a real data set, or one of the twelve synthetic sets that the authors host"
    )
    command.add_argument("name", nargs="?", default="", help="cifar10, cifar10_generated_32A, ...; none lists them all")
    command.set_defaults(command=_download)

    command = commands.add_parser("import", help="images that others made, as a synthetic set with unknown prompts")
    command.add_argument("source", type=Path, help="class folders, a .tar.gz of them, a packed .npz, or Parquet files")
    command.add_argument("outdir", type=Path, help="a new folder; 02_train takes it as generated_dir")
    command.add_argument(
        "--dataset",
        default="own",
        help="whose classes they are: digits, cifar10, cifar100, eurosat (default: the source's own)",
    )
    command.add_argument("--trick", default=UNKNOWN, help=f"one of {', '.join(TRICKS)} (default: unknown)")
    command.add_argument(
        "--size", type=int, default=0, help="crop to a square and resize to so many pixels (default: 0, as they are)"
    )
    command.add_argument(
        "--label_column", default="", help="of Parquet files with several (default: label or fine_label, if there)"
    )
    command.set_defaults(command=_import)

    command = commands.add_parser("export", help="a set as others read it")
    command.add_argument("set", type=Path, help="folder of a generated, downloaded or imported set")
    command.add_argument("out", type=Path, help="a new folder, or for npz a new file")
    command.add_argument(
        "--to",
        required=True,
        choices=EXPORTS,
        help="class folders of PNGs, those of EuroSAT's layout, Parquet with a card, .npz",
    )
    command.add_argument(
        "--licence", default="", help="huggingface: of the images (default: what is known of the model)"
    )
    command.set_defaults(command=_export)

    command = commands.add_parser(
        "describe", help="what is in a set: counts, guidance, duplicates, versions; a contact sheet"
    )
    command.add_argument("set", type=Path, help="folder of a set, or a Hugging Face export of one")
    command.add_argument("--sheet", type=Path, help="where the contact sheet goes (default: SET_contact_sheet.png)")
    command.add_argument("--json", type=Path, help="write the same as JSON")
    command.set_defaults(command=_describe)

    command = commands.add_parser("redraw", help="draw one image of a set again and compare")
    command.add_argument("set", type=Path, help="folder of a set that was drawn here")
    command.add_argument("image_id", help="as in the set's rows and file names")
    command.add_argument("--out", type=Path, help="write the redrawn image here, as PNG")
    command.set_defaults(command=_redraw)


def _generate(options: argparse.Namespace) -> None:
    """Images per prompt: n_samples x n_iter, as in the authors' script; multi_domain has a prompt for each domain."""
    for name in ("n_samples", "n_iter"):
        require(getattr(options, name) >= 1, name, getattr(options, name), "a number of at least 1")
    theirs = options.noise != "compvis" or options.n_samples == 2
    require(theirs, "n_samples", options.n_samples, "2 with --noise compvis, the script's order")
    from synthlib.data.datasets import read_spec
    from synthlib.generation.plan import n_rows, plan_spec
    from synthlib.runs.experiment import complete

    trick = trick_name(options.trick)
    if trick in IMAGE_TRICKS:
        raise InputError(
            f"--trick is {trick!r}, which starts from real images; expected a trick of prompts: notebooks/01_generate.ipynb "
            "draws this one, with the images' folder as real_dir."
        )
    spec = read_spec("own", options.classes, options.domains)
    prompts_per_class = len(spec.domains) if trick in ("multi_domain", "domain_guidance") else 1
    outdir = options.outdir.absolute()
    beside = paths.kept_beside(outdir)
    given = {
        "run_dir": str(beside),
        "dataset": "own",
        "classes": options.classes,
        "trick": trick,
        "domains": options.domains,
        "prompts_file": paths.below_root(paths.typed(options.prompts_file)) if options.prompts_file else "",
        "images_per_class": options.n_samples * options.n_iter * prompts_per_class,
        "num_inference_steps": options.num_inference_steps,
        "seed": options.seed,
        "height": options.height,
        "width": options.width,
        "model": str(Path(options.model).absolute())
        if Path(options.model).exists() and options.model
        else options.model,
        "device": options.device,
    }
    optional = (
        "min_scale",
        "max_scale",
        "batch_size",
        "shard_rows",
        "revision",
        "noise",
        "guidance_draw",
        "resize",
        "safety",
        "precision",
    )
    given |= {name: value for name in optional if (value := getattr(options, name)) is not None}
    settings = GenerateSettings(**complete("01_generate", given))
    n = n_rows(settings, plan_spec(settings))
    print(f"{n} images: {', '.join(spec.classes)}; {n // len(spec.classes)} of each class, trick {trick}.", flush=True)
    if options.gpus:
        if options.probe_batch:
            raise InputError(
                "--probe-batch is given with --gpus; expected one of them: probe first, then give --batch_size."
            )
        os.environ[VISIBLE] = ",".join(chosen_gpus(options.gpus))  # of parts, and of what is left to this process
        _draw_in_parts(settings)
    with own_gpu(settings.device):  # before torch looks for one
        from synthlib.data.exports import write_image_folder
        from synthlib.generation.generate import generate, open_plan

        if options.probe_batch:
            settings = _with_probed_batch(settings)
        plan = open_plan(settings)
        # several such commands may work on one folder: the first to end writes the receipt
        files = generate(plan, lambda shard: write_image_folder([shard], outdir))
    step = receipts.begin("01_generate", settings)
    step.finish(files)
    written = write_image_folder(files[:-1], outdir)
    print(
        f"{len(written)} images in {os.path.relpath(outdir)}/<class>/, shards and records in {os.path.relpath(plan.folder)}"
    )
    if others := set(outdir.glob("*/*.png")) - written:
        print(f"{len(others)} other images lie in {outdir}, from an earlier call; delete them if you do not want them.")
    else:
        print(_next_training(outdir, "own", files[0]))


def _next_training(images: Path, dataset: str, shard: Path) -> str:
    """What a command that made a set of images ends with: the command that learns from them. shard: one of the set's files.

    A ResNet50 from scratch learns nothing from the few small images that the embedded model draws in a minute.
    """
    how = ["RS50", "careful"]
    if dataset == "own":
        from pyarrow.parquet import ParquetFile

        from synthlib.data.shards import decode_image, read_table, shard_classes

        if len(shard_classes(read_table(shard, ["label"]))) < 2:
            return "Next: images of another class; a classifier is trained on two or more."
        with ParquetFile(shard) as file:  # the first image alone: a shard of large ones is a gigabyte
            first = next(file.iter_batches(1, columns=["image"]))["image"][0]["bytes"].as_py()
        if max(decode_image(first).shape[:2]) <= SMALL:
            how = ["resnet", "miniature"]
    shown = os.path.relpath(images)
    words = ["synthlib", "train", "--model", how[0], "--protocol", how[1], "--dataset", dataset]
    words += ["--syn_data_location", shown, "--model_path", f"{shown}_model"]
    return f"Next: {shlex.join(words)}"


def _draw_in_parts(settings: GenerateSettings) -> None:
    """Draw a set by as many processes as GPUs can be seen, each with one of its own; what is left, the caller draws."""
    from synthlib import hub, interrupts
    from synthlib.runs.engine import engine_python
    from synthlib.runs.graph import in_parts
    from synthlib.runs.reproduce import Means, launch_by, run_steps
    from synthlib.runs.steps import PlannedStep

    if settings.device not in ("auto", "cuda"):
        raise InputError(f"--device is {settings.device!r} with --gpus; expected auto or cuda, each process gets one.")
    number = len(visible_gpus())
    whole = PlannedStep(f"01_generate/{settings.trick}", "01_generate", asdict(settings), ())
    parts = [step for step in in_parts([whole], number) if step.parameters["part"]]
    if parts:
        print(f"Each process says how far it is in {os.path.relpath(paths.resolve(settings.run_dir))}/parts/*/run.log")
        launch = launch_by(Means(cores=number, gpus="all"), parts)
        python = engine_python(launch.executor)
        hub.fetch(settings.model, settings.revision, settings.safety == "flag")  # once, before many want it
        with interrupts.terminated_at_once():
            run_steps(parts, paths.resolve(settings.run_dir) / ".engine", launch, python)


def _with_probed_batch(settings: GenerateSettings) -> GenerateSettings:
    """The settings with the largest batch that fits, or with that of the images which are there already."""
    from synthlib.generation.generate import open_plan
    from synthlib.generation.paint import probe_batch
    from synthlib.generation.reuse import drawn_files

    folder = paths.resolve(settings.run_dir)
    there = read_json(folder / PLAN) if drawn_files(folder) else None
    if there:
        size = there["batch_size"]
    else:
        plan = open_plan(settings)
        size = probe_batch(plan.settings, plan.spec)
    print(f"batch_size {size}: {'that of the images in the folder' if there else 'the largest that fits'}.", flush=True)
    return replace(settings, batch_size=size)


def _download(options: argparse.Namespace) -> None:
    from synthlib.data.hosted import HOSTED, REAL_LICENCES, REAL_SIZES

    if not options.name:
        rows = [("name", "data set", "images", "size", "licence")]
        rows += [(name, name, "real", REAL_SIZES[name], licence) for name, licence in REAL_LICENCES.items()]
        rows += [(name, hosted.dataset, hosted.trick, "not known", "not known") for name, hosted in HOSTED.items()]
        for name, dataset, trick, size, licence in rows:
            print(f"{name:<35} {dataset:<9} {trick:<16} {size:<10} {licence}")
        print(
            "CIFAR's sizes are of the makers' archives; the hub's copies, which come first, are Parquet files of another "
            "size. What is not known here is asked where a set lies, and said before its first byte: `synthlib download NAME`."
        )
        return
    from synthlib.data.downloads import download  # takes seconds
    from synthlib.data.shards import set_files

    folder = download(options.name)
    print(f"\n{options.name} is in {os.path.relpath(folder)}")
    if options.name in HOSTED:
        _print_description(folder)
        print(f"\n{_next_training(folder, HOSTED[options.name].dataset, set_files(folder)[0])}")
    else:
        print(f"Next: synthlib eval or train with --dataset {options.name}, which find it there")


def _import(options: argparse.Namespace) -> None:
    from synthlib.data.imports import import_set
    from synthlib.data.shards import set_files
    from synthlib.data.sources import open_source

    outdir, given = options.outdir.absolute(), options.source.absolute()
    trick = options.trick
    if drawn := receipts.read_receipt(paths.kept_beside(given)):
        print(f"{options.source} was drawn here: describe, export and redraw take it as it is, with its prompts.")
        trick = drawn["parameters"]["trick"] if trick == UNKNOWN else trick
    import_set(open_source(options.source, options.label_column), outdir, options.dataset, trick, options.size)
    _print_description(outdir)
    print(f"\n{_next_training(outdir, options.dataset, set_files(outdir)[0])}")


def _export(options: argparse.Namespace) -> None:
    from synthlib.data import exports
    from synthlib.data.shards import set_files, set_folder

    folder = set_folder(options.set)
    receipt = receipts.read_receipt(folder)
    if receipt is None and any((folder / name).exists() for name in (PLAN, "import.json")):
        raise InputError(f"{options.set} is not finished; give the command that makes it once more, then export it.")
    shards, out = set_files(folder), options.out.absolute()
    if out.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{options.out} lies in the set itself; give a place outside of it.")
    if options.to == "huggingface":
        count = exports.export_huggingface(shards, out, receipt, options.licence)
    elif options.to == "npz":
        count = exports.export_npz(shards, out)
    else:
        count = exports.export_folder(shards, out, "eurosat/2750" if options.to == "eurosat" else "")
    print(f"{count} images in {os.path.relpath(out)}")


def _describe(options: argparse.Namespace) -> None:
    from synthlib.data.shards import set_folder
    from synthlib.results.contact import contact_sheet

    folder = set_folder(options.set)
    files, description = _print_description(folder)
    given = options.set.absolute()
    sheet = options.sheet or given.with_name(f"{given.name}_contact_sheet.png")
    contact_sheet(files, sheet.absolute())
    print(f"\nContact sheet: {os.path.relpath(sheet)}")
    if options.json:
        write_json(options.json.absolute(), asdict(description))


def _print_description(folder: Path) -> tuple[list[Path], Any]:
    """Print what a set holds; its shards and its Description."""
    from synthlib.data.describe import describe, description_text
    from synthlib.data.shards import set_files

    files = set_files(folder)
    description = describe(files, receipts.read_receipt(folder))
    print(description_text(description))
    return files, description


def _redraw(options: argparse.Namespace) -> None:
    from synthlib.data.shards import encode_png, set_folder
    from synthlib.generation.redraw import redraw, redrawn_text

    redrawn = redraw(set_folder(options.set), options.image_id)
    if options.out:
        write_atomic(options.out.absolute(), encode_png(redrawn.redrawn))
    if not redrawn.equal:
        raise InputError(redrawn_text(redrawn))
    print(redrawn_text(redrawn))
