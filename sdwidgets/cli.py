"""The command `sdwidgets`: one thin function a verb. Exit: 0 done, 1 failed, 2 misused, 130 interrupted."""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import sys
from pathlib import Path

from safetensors import SafetensorError

from .generation.validation import as_number
from .loading.catalog import MODELS, find_model
from .loading.errors import LoadError, UnknownModelError
from .trace import CONTROLS, Control

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
MAX_BATCH = 1_000_000


class UsageError(ValueError):
    """The command line asks for something impossible; the message says what is possible."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status. Errors are a sentence on stderr, with --debug a traceback."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.verb is None:
        parser.print_help()
        return MISUSED
    try:
        return args.run(args) or DONE
    except KeyboardInterrupt:
        return _fail(args, "interrupted.", INTERRUPTED)
    except (UnknownModelError, ValueError) as error:  # UsageError, SettingsError, other modules' sentences
        return _fail(args, str(error), MISUSED)
    except (LoadError, ImportError, EOFError) as error:
        return _fail(args, str(error), FAILED)
    except BrokenPipeError:  # the reader, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (
        OSError,
        SafetensorError,
    ) as error:  # the second is safetensors' word for the first, with its number in the text
        number = getattr(error, "errno", None) or int((re.findall(r"os error (\d+)", str(error)) or [0])[0])
        full = number in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
        sentence = "the disk is full; what was made is kept. Make room and run the same command again."
        return _fail(args, sentence if full else _os_sentence(error), FAILED)
    except MemoryError:
        return _fail(args, "out of memory; choose a smaller size or model, or close other programs.", FAILED)
    except RuntimeError as error:
        return _fail(args, str(error).splitlines()[0] if str(error) else type(error).__name__, FAILED)


def _fail(args, sentence: str, status: int) -> int:
    if args.debug:
        import traceback

        traceback.print_exc()
    print(f"sdwidgets {args.verb}: {sentence}", file=sys.stderr)
    return status


def _os_sentence(error: OSError | SafetensorError) -> str:
    if not isinstance(error, OSError) or error.filename is None or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}."


def make_parser() -> argparse.ArgumentParser:
    from . import __doc__ as about
    from .pocket.evaluate import add_arguments as of_evaluate
    from .pocket.train import add_arguments as of_train

    parser = argparse.ArgumentParser(prog="sdwidgets", description=(about or __doc__).strip().splitlines()[0])
    parser.set_defaults(verb=None)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND")
    for run, text in (
        (generate, "make a picture, or many"),
        (doctor, "tell what this machine can run"),
        (scenes, "draw a sheet of the scenes that Pocket learns from"),
        (train, "train a part of Pocket"),
        (evaluate, "measure how well Pocket draws what the prompt says"),
        (card, "write a model card from its records"),
    ):
        name = run.__name__
        verb = verbs.add_parser(name, help=text, description=run.__doc__.strip().splitlines()[0])
        for option, settings in _options().get(name, {}).items():
            verb.add_argument(option, **settings)
        if name in ("train", "evaluate"):
            {"train": of_train, "evaluate": of_evaluate}[name](verb)
        verb.add_argument("--debug", action="store_true", help="on an error, show Python's traceback too")
        verb.set_defaults(run=run, verb=name)
    return parser


def _option_of(name: str, control: Control) -> dict:
    kind = {"type": as_number} if control.kind in (int, float) else {}
    return {"dest": name, "metavar": control.metavar, "help": control.help, **kind}


def _options() -> dict[str, dict[str, dict]]:
    """Verb -> its arguments, as argparse takes them; those of train and evaluate stand in pocket."""
    file = {"type": Path, "metavar": "FILE"}
    return {
        "generate": {
            "prompt": {"nargs": "?", "metavar": "PROMPT", "help": "what the picture shows"},
            **{control.option: _option_of(name, control) for name, control in CONTROLS.items() if control.option},
            "--model": {"default": "pocket", "metavar": "NAME", "help": f"{', '.join(MODELS)}, a folder, or a hub id"},
            "--device": {"default": "auto", "help": "auto, cpu, cuda, cuda:1 or mps (default: auto)"},
            "--dtype": {"default": "auto", "help": "auto, float32, float16 or bfloat16 (default: auto)"},
            "--speed": {"default": "exact", "help": "exact, bit for bit, or fast, up to rounding (default: exact)"},
            "--output": {"type": Path, "help": "the picture (default: picture.png); with --prompts-file a folder"},
            "--trace": file | {"help": "also keep every step, for sdwidgets.Trace.load"},
            "--html": file | {"help": "also write a page that replays the run"},
            "--prompts-file": file | {"help": "many pictures: one prompt a line, UTF-8"},
            "--seeds": {"metavar": "A:B", "help": "with --prompts-file: seeds A to B - 1 for each prompt (default: 0:1)"},
            "--batch-size": {"type": as_number, "default": "auto", "metavar": "N", "help": "with --prompts-file: pictures drawn at once (default: found out)"},
        },
        "doctor": {"--json": {"action": "store_true", "help": "the same as JSON"}},
        "scenes": {
            "--count": {"type": as_number, "default": 64, "metavar": "N", "help": "how many scenes (default: 64)"},
            "--seed": {"type": as_number, "default": 0, "help": "which ones (default: 0)"},
            "--output": {"type": Path, "default": Path("scenes.png"), "help": "the sheet (default: scenes.png)"},
        },
        "card": {
            "folder": {"nargs": "?", "type": Path, "metavar": "FOLDER", "help": "a folder that sdwidgets train export wrote (default: Pocket's)"},
        },
    }  # fmt: skip


def generate(args) -> int:
    """Make a picture from a prompt, or one for every prompt of a file and every seed of a range."""
    many = args.prompts_file is not None
    if many == (args.prompt is not None):
        raise UsageError(
            'give either a PROMPT, as in sdwidgets generate "a cat on a red background", or --prompts-file.'
        )
    if many and (args.trace or args.html or args.seed is not None):
        raise UsageError("--trace, --html and --seed are for one picture; with --prompts-file use --seeds A:B.")
    if args.batch_size != "auto" and not (isinstance(args.batch_size, int) and 1 <= args.batch_size <= 1024):
        raise UsageError(f"--batch-size must be auto, or 1 to 1024, not {args.batch_size!r}.")
    if not many and args.batch_size != "auto":
        raise UsageError("--batch-size goes with --prompts-file.")
    if not many and args.seeds is not None:
        raise UsageError("--seeds goes with --prompts-file; for one picture use --seed.")
    return _generate_many(args) if many else _generate_one(args)


def _requests(args, pipe, prompts: list[str], seeds) -> list:
    from .generation.batch import Request
    from .generation.schedulers import find_scheduler
    from .generation.validation import check_settings

    row = find_model(args.model)
    usual = {"num_inference_steps": row.steps, "guidance_scale": row.guidance} if row else {}
    options = {name: getattr(args, name) for name, control in CONTROLS.items() if control.option and name != "seed"}
    settings = usual | {k: v for k, v in options.items() if v is not None}
    settings["scheduler"] = None if args.scheduler is None else find_scheduler(args.scheduler, pipe).label
    model = row.name if row else args.model
    made = [Request(model, prompt=p, seed=s, **settings) for p in prompts for s in seeds]
    notes = dict.fromkeys(note.text for request in made for note in check_settings(pipe, **request.settings()))
    for text in notes:
        print(f"sdwidgets generate: {text}", file=sys.stderr)
    return made


def _generate_one(args) -> int:
    from .generation.batch import FORMATS, draw, write_picture
    from .loading.pipeline import load

    output = args.output or Path("picture.png")
    if output.suffix.lower() not in FORMATS:
        raise UsageError(f"--output must end in {', '.join(FORMATS)}, not {output.name!r}.")
    for path in filter(None, (output, args.trace, args.html)):
        _need_folder(path.parent)
    pipe = load(args.model, args.device, args.dtype, speed=args.speed)
    (request,) = _requests(args, pipe, [args.prompt], [0 if args.seed is None else args.seed])
    image = _draw_recorded(pipe, request, args) if args.trace or args.html else draw(pipe, request)
    write_picture(image, output, request)
    print(output)
    return DONE


def _draw_recorded(pipe, request, args):
    from .generation.batch import call, pipeline_of
    from .recording import record

    trace, own = None, pipeline_of(pipe, request)
    try:
        with record(own) as trace:
            return call(own, [request])[0]
    finally:  # an interrupted run keeps its steps so far
        if trace is not None and len(trace):
            trace.settings = trace.settings.completed(request.settings())
            for path, write in ((args.trace, trace.save), (args.html, trace.export_html)):
                if path is not None:
                    write(path)
                    print(path)


def _need_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; make it first.")


def _read_prompts(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text; save it as UTF-8, one prompt a line.") from None
    prompts = [line.strip() for line in re.split(r"\r\n|\r|\n", text) if line.strip()]  # no other sign ends a line
    if not prompts:
        raise UsageError(f"{path} holds no prompt; write one a line.")
    return list(dict.fromkeys(prompts))  # a prompt given twice makes the same picture


def _read_seeds(text: str | None) -> range:
    first, colon, end = (text or "0:1").partition(":")
    try:
        start = int(first)
        seeds = range(start, int(end) if colon else start + 1)
    except ValueError:
        raise UsageError(f"--seeds must look like 0:4 (seeds 0, 1, 2, 3), not {text!r}.") from None
    if start < 0 or not len(seeds):
        raise UsageError(f"--seeds {text} holds no seed; 0:4 means seeds 0, 1, 2, 3.")
    return seeds


def _generate_many(args) -> int:
    from .generation.batch import batch, divided, my_share
    from .loading.pipeline import load

    prompts, seeds = _read_prompts(args.prompts_file), _read_seeds(args.seeds)
    if len(prompts) * len(seeds) > MAX_BATCH:
        raise UsageError(
            f"{len(prompts):,} prompts x {len(seeds):,} seeds are too many; at most {MAX_BATCH:,} pictures."
        )
    folder = args.output or Path("pictures")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder} is a file; with --prompts-file give a folder.")
    rank, world_size = share = my_share()  # `accelerate launch` starts several of us, each for its part
    pipe = load(args.model, _own_device(args.device, world_size), args.dtype, speed=args.speed)
    pipe.set_progress_bar_config(disable=True)
    requests = _requests(args, pipe, prompts, seeds)
    size = None if args.batch_size == "auto" else args.batch_size
    count = sum(map(len, divided(requests, size, share)))
    who = f"{folder}, process {rank + 1} of {world_size}" if world_size > 1 else f"{folder}"
    made = kept = 0
    try:
        for request, fresh in batch(pipe, requests, folder, size=size, share=share):
            made, kept = made + fresh, kept + (not fresh)
            if fresh:
                print(f"{made + kept}/{count} {request.file_name()}", flush=True)
    finally:
        print(f"{who}: {made} made now, {kept} were there, {count - made - kept} to do", flush=True)
    return DONE


def _own_device(device: str, processes: int) -> str:
    """Of several processes each takes the card that the launcher gave it."""
    if processes == 1 or device != "auto":
        return device
    import torch

    cards = torch.cuda.device_count()
    return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % cards}" if cards else device


def doctor(args) -> int:
    """Tell what this machine can run, and what to do about what it cannot."""
    from .loading.doctor import preflight

    report = preflight()
    print(json.dumps(report, indent=2) if args.json else report)
    return FAILED if report["problems"] else DONE


def scenes(args) -> int:
    """Draw a sheet of the scenes that Pocket learns from."""
    from .generation.validation import check_integer
    from .pocket.world.datasheet import contact_sheet

    count = check_integer("count", args.count, 1, 4096, "number of scenes")
    seed = check_integer("seed", args.seed, 0, 2**31 - 1, "seed")
    if args.output.suffix.lower() not in (".png", ".webp", ".jpg", ".jpeg"):
        raise UsageError(f"--output must end in .png, .webp or .jpg, not {args.output.name!r}.")
    _need_folder(args.output.parent)
    contact_sheet(count, seed=seed).save(args.output)
    print(args.output)
    return DONE


def train(args) -> int:
    """Train a part of Pocket; the same command again goes on where it stopped."""
    from .pocket.train import main

    return main(args)


def evaluate(args) -> int:
    """Measure how well Pocket draws what the prompt says; the same command again goes on where it stopped."""
    from .pocket.evaluate import main

    return main(args)


def card(args) -> int:
    """Write README.md and its figures beside a model's training.json and evaluation.json."""
    from .paths import data_folder
    from .pocket.cards.model_card import write_card

    print(write_card(args.folder or data_folder("pocket")))
    return DONE
