"""Training many runs: engines behind one protocol, the events they report, and what a sweep makes of those.

`engine` is the protocol and `local` the engine of one machine; one for SLURM or Ray is another file here, which starts
the same `worker` elsewhere. `drive` conducts any engine through a sweep: what is tried again, what stops it, and the
runs that another process trains. Everything that lasts is in the run folders (research/runs), so an engine may be
killed at any moment and followed by another, of whatever kind, on the same folders.
"""
