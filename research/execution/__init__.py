"""Training many runs: an engine, what it reports, and how that is shown.

An engine is a function

    run_all(configs, runs_dir, *, trainer, watch, ...) -> Outcome

that trains every config once, in the order given as far as it can, and returns when nothing is left to do or it was
told to stop. It calls `watch` with the events of events.py as they come. Everything that lasts is in the run folders
(research/runs/folder.py), so an engine hands nothing else back, may be killed at any moment, and may be followed by
another kind of engine on the same folders. local.py is the engine for one machine; one for SLURM or Ray starts the same
worker.py elsewhere and passes on its events.
"""
