"""`scl plan`: estimate the cost of a study: runs, downloads, disk, device-hours, and time.

Only calibrate.py needs torch.

work.py: the work of a run, in numbers. rates.py: how fast a device does it; sources.py: finds such measurements.
calibrate.py: measures it here (by benchmarks/estimate.py, which `scl cluster` uses, too). machine.py: this machine.
space.py: downloads and disk. cost.py: all of it as one mapping; table.py: as text.
"""
