"""The engine that trains every Triptych package: strategy, loop, schedules, checkpoints, run folder."""
