"""What the HTML pages have in common: one file each, which opens from disk and may reach no network."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "template"


def page_text(
    template: str, styles: tuple[str, ...], scripts: tuple[str, ...], content: dict[str, Any]
) -> str:
    """A template filled with `content`, its styles and scripts inside it; all text is escaped."""
    css, script = _texts(styles), _texts(scripts)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    own = {"policy": _policy(css, script), "css": Markup(css), "script": Markup(script)}
    return environment.get_template(template).render({**content, **own})


def _texts(names: tuple[str, ...]) -> str:
    return "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names)


def _policy(css: str, script: str) -> str:
    """A content security policy: no network at all, and only this page's own style and script."""

    def fingerprint(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    return (
        f"default-src 'none'; img-src data:; style-src {fingerprint(css)}; script-src {fingerprint(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
