"""Writes the two templates from the schema: `python -m utils.settings.template`."""

from __future__ import annotations

import textwrap
from pathlib import Path

from utils.settings.schema import EVALUATION_SECTIONS, TRAINING_SECTIONS
from utils.settings.section import Section

HEADS = {
    "settings.ini": (
        "Training settings of an experiment. Copy this file to NAME.ini and settings_eval.ini to "
        "NAME_eval.ini, change what differs (a key left out keeps the value shown here; the first "
        "three have none), and run: python run.py -m study -n NAME. "
        "Values are Python literals; unquoted words are text; comments start with a semicolon. "
        "Relative paths start at the folder of the ini file."
    ),
    "settings_eval.ini": (
        "Evaluation settings: testing, deltas, associations, report. Copy this file to NAME_eval.ini. "
        "Every key may be left out; it then keeps the value shown here."
    ),
}


def render_template(head: str, sections: dict[str, type[Section]]) -> str:
    """The text of a template: sections with their sentence, keys with explanation and default."""
    lines = _comment(head)
    for name, section in sections.items():
        lines += ["", f"[{name}]", *_comment(section.__doc__ or "")]
        for key, field in section.model_fields.items():
            value = field.examples[0] if field.examples else field.default
            lines += [*_comment(field.description or ""), f"{key} = {value!r}".replace("'", '"')]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return [f"; {line}" for line in textwrap.wrap(text, 98, break_long_words=False)]


def main() -> None:
    """Write both templates into the program's folder."""
    root = Path(__file__).resolve().parents[2]
    for name, sections in (
        ("settings.ini", TRAINING_SECTIONS),
        ("settings_eval.ini", EVALUATION_SECTIONS),
    ):
        (root / name).write_text(render_template(HEADS[name], sections), encoding="utf-8")


if __name__ == "__main__":
    main()
