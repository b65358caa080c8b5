"""`scl plan`: what a study will cost: runs, downloads, disk, device-hours, and time. No torch, except to calibrate.

work.py: what a run has to do, in numbers. rates.py: how fast a device does it; sources.py: where such measurements are.
calibrate.py: measure it here (by benchmarks/estimate.py, which `scl cluster` uses too). machine.py: this machine.
schedule.py: runs side by side. space.py: downloads and disk. cost.py: all of it as one mapping; table.py: as text.
"""
