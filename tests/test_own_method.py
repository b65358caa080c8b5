"""The README's promise: one file of one's own, and the conformance tests run on it at once."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
MINE = """
import torch
from torch import nn

from scl.method import Method


class MyMethod(Method):
    augmentations = ("view",)

    def __init__(self, options, problem, network):
        super().__init__(options, problem, network)
        self.encoder = self.encoder_for(network)
        self.head = nn.Linear(self.encoder.dimensions, problem.clusters)

    def step(self, views, index):
        p, q = (self.head(self.encoder(view)).float().softmax(1) for view in views)
        return {"agreement": -(p * q).sum(1).log().mean()}

    def assign(self, images):
        return self.head(self.encoder(images)).float().softmax(1)
"""


@pytest.mark.parametrize("source, passes", [(MINE, True), (MINE.replace(".softmax(1)\n", "\n"), False)])
def test_conformance_of_a_file_in_the_working_directory(source, passes, tmp_path):
    (tmp_path / "tests").mkdir()
    for file in ("pyproject.toml", "tests/conftest.py", "tests/test_conformance.py"):
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / "my_file.py").write_text(source)
    ended = subprocess.run(
        [Path(sys.executable).with_name("pytest"), "tests/test_conformance.py", "--method", "my_file.MyMethod"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_XDIST_WORKER_COUNT": ""},
        capture_output=True,
        text=True,
    )
    assert (ended.returncode == 0) == passes, ended.stdout
    assert ("cannot import" not in ended.stdout and "8 passed" in ended.stdout) or not passes
