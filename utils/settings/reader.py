"""The ini pair and the command line -> Settings; every problem in one message.

The user's list of packages names `configparser2`. That is the back-port of the standard library's
`configparser` to Python 2.6-3.5 and cannot be imported on any Python that torch supports, so the
original is used: it is the same parser.
"""

from __future__ import annotations

import ast
import configparser
import difflib
import warnings
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from utils.common.errors import SettingsError
from utils.common.messages import warn
from utils.settings.legacy import RENAMED, TRANSLATED, WITHOUT_EFFECT
from utils.settings.schema import EVALUATION_SECTIONS, TRAINING_SECTIONS, Settings
from utils.settings.section import Section

Values = dict[str, dict[str, Any]]


def ini_pair(name: str) -> tuple[Path, Path]:
    """`NAME` -> (NAME.ini, NAME_eval.ini); NAME may be a path, with or without its ending."""
    stem = name[:-4] if name.endswith(".ini") else name
    return Path(f"{stem}.ini"), Path(f"{stem}_eval.ini")


def read_settings(name: str, overrides: tuple[str, ...] = ()) -> Settings:
    """Read NAME.ini and NAME_eval.ini, apply `SECTION.key=value` overrides, check everything.

    Raises
    ------
    SettingsError
        All problems at once: a missing file, unknown, missing, ill-typed or out-of-range keys, each
        with file, section, key and, for an unknown one, the nearest valid key.
    """
    training_file, evaluation_file = ini_pair(name)
    problems: list[str] = []
    values: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}
    for path, sections in (
        (training_file, TRAINING_SECTIONS),
        (evaluation_file, EVALUATION_SECTIONS),
    ):
        read = _read_ini(path, problems)
        _translate_published_keys(read, path, problems)
        _refuse_unknown_sections(read, sections, path, problems)
        for section in sections:
            values[section] = read.get(section, {})
            origins[section] = path.name
    _apply_overrides(values, origins, overrides, problems)
    _translate_values(values)
    built: dict[str, Any] = {}
    for section, model in {**TRAINING_SECTIONS, **EVALUATION_SECTIONS}.items():
        built[section.lower()] = _build(model, section, values[section], origins[section], problems)
    if problems:
        raise SettingsError(problems)
    folder = training_file.resolve().parent
    return Settings(name=training_file.stem, folder=folder, **built)


def _read_ini(path: Path, problems: list[str]) -> Values:
    parser = configparser.ConfigParser(
        interpolation=None,
        comment_prefixes=(";", "#"),
        inline_comment_prefixes=(";",),
        strict=True,
        default_section="",  # [DEFAULT] is an unknown section like any other
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"), source=path.name)
    except FileNotFoundError:
        template = "settings_eval.ini" if path.name.endswith("_eval.ini") else "settings.ini"
        problems.append(f"{path}: no such file; copy {template} to it and fill it in.")
        return {}
    except UnicodeDecodeError as error:
        problems.append(f"{path}: is not UTF-8 text (byte {error.start}).")
        return {}
    except (OSError, ValueError) as error:
        problems.append(f"{path}: cannot be read ({error}).")
        return {}
    except configparser.Error as error:
        problems.append(f"{path}: {' '.join(str(error).split())}")
        return {}
    values: Values = {section: {} for section in parser.sections()}
    for section, content in values.items():
        for key, text in parser.items(section):
            content[key] = parse_value(text)
            if _is_unclosed(content[key], text):
                problems.append(f"{path.name} [{section}]: {key} = {text}: {_UNCLOSED}")
    return values


def parse_value(text: str | None) -> Any:
    """A Python literal (`5e-3`, `(0.9, 0.999)`, `"female"`, `True`); anything else is a string."""
    text = (text or "").strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a backslash in a text is no error
            value = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text
    return tuple(value) if isinstance(value, list) else value


_UNCLOSED = "is no Python value; close its quotes or brackets (a ; after a space begins a comment)."


def _is_unclosed(value: Any, text: str) -> bool:
    """Whether what begins as a quoted text or a tuple was taken for an unquoted text."""
    return (
        isinstance(value, str) and value == text.strip() and value.startswith(('"', "'", "(", "["))
    )


def _translate_published_keys(values: Values, path: Path, problems: list[str]) -> None:
    """Rename or drop keys of the published program, saying so once each."""
    for section, content in values.items():
        for key in list(content):
            place = (section, key)
            if place in RENAMED:
                new = RENAMED[place]
                warn(f"{path.name} [{section}]: {key} is read as {new}.")
                value = content.pop(key)
                if new in content:
                    problems.append(f"{path.name} [{section}]: {key} and {new} are the same key.")
                content.setdefault(new, value)
            elif place in WITHOUT_EFFECT:
                content.pop(key)
                warn(f"{path.name} [{section}]: {key} has no effect: {WITHOUT_EFFECT[place]}.")


def _translate_values(values: Values) -> None:
    """Published and earlier values of a key, written as they are now."""
    for (section, key), translations in TRANSLATED.items():
        value = values[section].get(key)
        if isinstance(value, bool) and value in translations:
            values[section][key] = translations[value]


def _refuse_unknown_sections(
    values: Values, sections: dict[str, type[Section]], path: Path, problems: list[str]
) -> None:
    for section in values:
        if section not in sections:
            known = [*TRAINING_SECTIONS, *EVALUATION_SECTIONS]
            hint = _nearest(section.upper(), known)
            if section in known:
                hint = " here: it belongs into the other file of the pair"
            problems.append(f"{path.name}: unknown section [{section}]{hint}")


def _apply_overrides(
    values: Values, origins: dict[str, str], overrides: tuple[str, ...], problems: list[str]
) -> None:
    for override in overrides:
        place, equals, text = override.partition("=")
        section, dot, key = place.strip().partition(".")
        section, key = section.upper(), key.strip()
        if not equals or not dot or not key:
            problems.append(f"--set {override}: is not of the form SECTION.key=value.")
        elif section not in values:
            problems.append(
                f"--set {override}: unknown section {section}{_nearest(section, values)}"
            )
        else:
            values[section][key] = parse_value(text)
            if _is_unclosed(values[section][key], text):
                problems.append(f"--set {override}: {_UNCLOSED}")
            origins[section] = origins[section].removesuffix(" and --set") + " and --set"


def _build(
    model: type[Section], section: str, content: dict[str, Any], origin: str, problems: list[str]
) -> Section | None:
    try:
        return model(**content)
    except ValidationError as error:
        seen: set[Any] = set()
        for detail in error.errors():
            if detail["loc"] and detail["loc"][0] in seen:
                continue  # a union reports a problem once for each of its types
            seen.update(detail["loc"][:1])
            problems.append(f"{origin} [{section}]: {_sentence(detail, content, model)}")
    except TypeError as error:  # a key that is no identifier
        problems.append(f"{origin} [{section}]: {error}")
    return None


def _sentence(detail: Any, content: dict[str, Any], model: type[Section]) -> str:
    key = str(detail["loc"][0]) if detail["loc"] else ""
    if detail["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_nearest(key, model.model_fields)}"
    if detail["type"] == "missing":
        return f"missing key {key!r}: {model.model_fields[key].description}"
    if not key:
        return detail["msg"].removeprefix("Value error, ") + "."
    message = detail["msg"][:1].lower() + detail["msg"][1:]
    return (
        f"{key} = {_shown(content.get(key))[:80]}: {message}. {model.model_fields[key].description}"
    )


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # Python does not write whole numbers of thousands of digits
        return "a very large number"


def _nearest(word: str, choices: Any) -> str:
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f" (known: {', '.join(list(choices)[:60])})"


def resolved_ini(settings: Settings, sections: dict[str, type[Section]]) -> str:
    """The settings as they were used, every key written out, in ini form."""
    lines = []
    for section in sections:
        lines.append(f"[{section}]")
        content = getattr(settings, section.lower()).model_dump()
        lines += [f"{key} = {value!r}" for key, value in content.items()]
        lines.append("")
    return "\n".join(lines)
