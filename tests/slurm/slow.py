"""Methods for the tests with SLURM; a study refers to them as `slow.Slow`, as users do for their own files."""

import time
from pathlib import Path

from baselines.simclr import SimCLR


class Slow(SimCLR):
    """SimCLR that trains slowly until there is a file `go` in the working directory."""

    def step(self, views, index):
        if not Path("go").exists():
            time.sleep(0.4)
        return super().step(views, index)


class Diverging(SimCLR):
    """A loss that is not finite, so that the run itself fails."""

    def step(self, views, index):
        return {name: value * float("nan") for name, value in super().step(views, index).items()}
