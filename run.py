#!/usr/bin/env python3
"""Brain-age ensembles from one ini pair: python run.py -m MODE -n NAME.

The mode word is a file in utils/modes; a longer mode is a row of them. Settings come from NAME.ini and
NAME_eval.ini (copies of settings.ini and settings_eval.ini). Exit codes: 0 done, 1 failed, 2 usage or
settings, 3 finished with some subjects, networks or cells failed, 4 stopped by SIGTERM or SIGUSR2 with
everything kept: the same command goes on (with -c last, where -c said otherwise).
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

from utils.common.allocator import tune_allocator
from utils.common.devices import is_device_name
from utils.common.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_PARTIAL,
    EXIT_SETTINGS,
    EXIT_STOPPED,
    SettingsError,
    UserError,
)
from utils.common.launcher import launch
from utils.common.provenance import PROGRAM_VERSION

# mode -> (its steps, what it does); a step is utils/modes/<step>.py, or file:function:argument
MODES: dict[str, tuple[tuple[str, ...], str]] = {
    "simulate": (("simulate",), "write a cohort with known truth"),
    "split": (("split",), "split the subject table into train, validation, test; frozen"),
    "check": (("check",), "before any epoch: everything that is wrong with the inputs"),
    "prepare": (("prepare",), "read every volume once and keep it cropped and packed (the cache)"),
    "train": (("train",), "train the networks of every cell"),
    "test": (("test",), "predict validation and test with the best checkpoints; metrics"),
    "evaluate": (("test",), "the same as test"),
    "evaluate-data": (("test",), "the same as test (published name)"),
    "train-and-evaluate-data": (("train", "test"), "train, then test (published name)"),
    "predict": (("predict",), "predict new subjects; ages are not needed"),
    "convert": (("convert",), "weights in pickled modules -> tensors alone; runs nothing of it"),
    "export": (
        ("export",),
        "trained networks as a folder for use elsewhere: weights and a model card",
    ),
    "ensemble": (("ensemble",), "combine contrasts, correct for the age bias: deltas"),
    "associate": (("associate",), "deltas against nIDPs"),
    "figures": (("figures",), "the figures as PNG and SVG"),
    "report": (("report",), "one self-contained HTML report"),
    "study": (
        ("train", "test", "ensemble", "associate", "figures", "report"),
        "everything from train to report",
    ),
    "verify": (("verify",), "check the checksums of prepared volumes, checkpoints and results"),
    "clear-cache": (("clear:cache",), "remove the prepared volumes of the contrasts"),
    "clear-checkpoints": (("clear:checkpoints",), "remove checkpoints of single epochs"),
    "clear-checkpoints-completely": (("clear:checkpoints:all",), "remove all checkpoints"),
    "clear-logs": (("clear:logs",), "remove logs and TensorBoard events"),
    "clear-experiment": (("clear:experiment",), "remove results; weights and splits stay"),
    "clear-experiment-completely": (("clear:experiment:all",), "remove the whole experiment"),
}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    width = max(map(len, MODES))
    modes = "\n".join(f"  {mode:<{width}}  {text}" for mode, (_, text) in MODES.items())
    parser = argparse.ArgumentParser(
        prog="run.py",
        description="Brain-age ensembles from one ini pair (NAME.ini, NAME_eval.ini).",
        epilog=f"modes:\n{modes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("-m", "--mode", required=True, choices=MODES, metavar="MODE", help="one of the modes below")
    add("-n", "--name", required=True, help="the ini pair, without its ending; may be a path")
    add(
        "-c",
        "--checkpoint",
        type=_checkpoint,
        help="train: 0 from scratch; last, best or an epoch K that keep_every kept: go on from there; "
        "left out: go on if there is something to go on from",
    )
    add(
        "-e",
        "--epochs",
        type=_count,
        help="train: epochs in total, instead of number_of_epochs; 0: only validate use_pre_trained",
    )
    add(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.key=value",
        help="a setting for this run; may be given again",
    )
    add(
        "--cell",
        default="",
        metavar="CONTRAST_SEX",
        help="only this cell, e.g. T1_nonlinear_female",
    )
    add("--network", type=_positive, metavar="K", help="train: only the K-th network of each cell")
    add("--device", type=_device, help="auto, cpu, cuda or cuda:N")
    add("--dry-run", action="store_true", help="prepare: say what would be done, at which cost")
    add("--yes", action="store_true", help="do not ask, do not refuse to replace")
    add("--version", action="version", version=f"brain-age ensembles {PROGRAM_VERSION}")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Read the settings, run the steps of the mode, say how it ended; return the exit code."""
    parser = build_parser()
    given = parser.parse_args(arguments)
    if given.dry_run and given.mode != "prepare":
        parser.error("--dry-run is for -m prepare")
    from utils.common.interruption import STOP, StopRequested
    from utils.common.messages import also_log_to, say, start_messages, warn

    start_messages()
    try:
        if launch().n > 1 and given.mode != "train":
            raise SettingsError(
                f"-m {given.mode} is the work of one process: start run.py without torchrun. Only -m train "
                f"is shared by several ({launch().n} were started)."
            )
        with STOP.listening():
            experiment = _experiment(given)
            if not given.mode.startswith("clear"):
                experiment.open()
                also_log_to(experiment.paths.run_log)
            try:
                for step in MODES[given.mode][0]:
                    _run_step(step, experiment)
            finally:
                if given.mode != "verify":
                    experiment.close()
    except SettingsError as error:
        # processes that were started together read the same files; one of a machine says so
        for problem in error.problems if launch().local_index == 0 else ():
            sys.stderr.write(f"{problem}\n")
        return EXIT_SETTINGS
    except UserError as error:
        warn_text = f"{given.mode} failed: {error}"
        sys.stderr.write(f"{warn_text}\n")
        return EXIT_FAILED
    except OSError as error:  # a path of the settings that the system does not take
        where = f"{str(error.filename)[:200]}: " if error.filename else ""
        sys.stderr.write(f"{given.mode} failed: {where}{error.strerror or error}.\n")
        return EXIT_FAILED
    except StopRequested as request:
        begun_anew = given.checkpoint not in (None, "last")
        how = "-c last" if begun_anew else "the same command"
        warn(f"stopped by {request}; everything done is kept, {how} goes on.")
        return EXIT_STOPPED
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; finished epochs are kept, the same command goes on.\n")
        return 130
    if experiment.problems:
        warn(f"{given.mode} finished; {len(experiment.problems)} problem(s) stand above.")
        return EXIT_PARTIAL
    say(f"{given.mode} finished.")
    return EXIT_DONE


def _experiment(given: argparse.Namespace):
    from utils.experiment.experiment import Experiment, Options
    from utils.settings.reader import read_settings

    options = Options(
        mode=given.mode,
        checkpoint=given.checkpoint or "",
        epochs=given.epochs,
        cell=given.cell,
        network=given.network,
        device=given.device or "",
        yes=given.yes,
        dry_run=given.dry_run,
    )
    return Experiment(read_settings(given.name, tuple(given.set)), options)


def _run_step(step: str, experiment) -> None:
    module, _, rest = step.partition(":")
    function, _, argument = rest.partition(":")
    mode = importlib.import_module(f"utils.modes.{module}")
    if function in ("", "logs", "cache"):
        getattr(mode, f"run_{function}" if function else "run")(experiment)
    else:
        getattr(mode, f"run_{function}")(experiment, completely=argument == "all")


def _checkpoint(text: str) -> str:
    if text not in ("last", "best") and not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not 0, last, best or an epoch")
    return text.lstrip("0") or "0" if text.isdigit() else text


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _count(text: str) -> int:
    return 0 if text == "0" else _positive(text)


def _device(text: str) -> str:
    if not is_device_name(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not auto, cpu, cuda or cuda:N")
    return text


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    tune_allocator()  # before torch is imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorBoard's only word otherwise
    sys.exit(main())
