"""`scl plan`: estimate the cost of a study: runs, downloads, disk, device-hours, and time.

machine.py: this machine, and how runs share it. rates.py: the work of a run, and the seconds and bytes that follow from
a measured rate. sources.py: finds such rates; measure.py and calibrate.py: measure them here; only these import torch.
space.py: downloads and disk. cost.py: all of it as one mapping; table.py: as text.
"""
