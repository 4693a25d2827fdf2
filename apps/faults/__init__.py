"""Faults that a run and the readers must survive: what `python -m apps.reliability` tries."""
