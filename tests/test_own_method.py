"""The method of docs/your-own.md, in a file in the working directory, passes the conformance test as printed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
MINE = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "your-own.md").read_text(), re.DOTALL)[1]


@pytest.mark.parametrize("source, passes", [(MINE, True), (MINE.replace(".softmax(1)\n", ".softmax(1) * 2\n"), False)])
def test_conformance_of_a_file_in_the_working_directory(source, passes, tmp_path):
    (tmp_path / "tests").mkdir()
    for file in ("pyproject.toml", "tests/conftest.py", "tests/test_conformance.py"):
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / "my_method.py").write_text(source)
    command = [Path(sys.executable).with_name("pytest"), "tests/test_conformance.py", "--method", "my_method.Agreement"]
    ended = subprocess.run(
        command if passes else [*command, "-k", "test_assign"],  # finds it; the other tests take a minute
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_XDIST_WORKER_COUNT": ""},
        capture_output=True,
        text=True,
    )
    assert (ended.returncode == 0) == passes, ended.stdout
    assert ("8 passed" if passes else "1 failed") in ended.stdout
