"""One file a mode; `run.py` finds it by its name. Each reads like a step of a methods section."""
