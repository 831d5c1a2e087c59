"""The errors that end a run with a sentence instead of a traceback."""

from __future__ import annotations

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_SETTINGS = 2
EXIT_PARTIAL = 3
EXIT_STOPPED = 4  # by SIGTERM or SIGUSR2: what was done is kept, the same command goes on


class UserError(Exception):
    """Something in the user's input stops the run: the message says what, where and what to do (exit 1)."""


class SettingsError(UserError):
    """One or more settings cannot be used; every problem is listed, not only the first (exit 2)."""

    def __init__(self, problems: str | list[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))
