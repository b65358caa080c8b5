"""The method in docs/your-own.md, saved to a file, passes the conformance test; a wrong one fails."""

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
BOTH = """
import pytest

test = ["tests/test_conformance.py", "--method"]
print("right:", int(pytest.main([*test, "my_method.Agreement"])))
print("wrong:", int(pytest.main([*test, "wrong_method.Agreement", "-k", "test_assign"])))
"""


def test_conformance_of_files_in_the_working_directory(tmp_path):
    (tmp_path / "tests").mkdir()
    for file in ("pyproject.toml", "tests/conftest.py", "tests/test_conformance.py"):
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / "my_method.py").write_text(MINE)
    (tmp_path / "wrong_method.py").write_text(MINE.replace(".softmax(1)\n", ".softmax(1) * 2\n"))
    ended = subprocess.run(
        [sys.executable, "-c", BOTH],  # in one process, which imports torch once
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_XDIST_WORKER_COUNT": ""},
        capture_output=True,
        text=True,
    )
    right, _, wrong = ended.stdout.partition("right: 0\n")
    assert "8 passed" in right and "1 failed" in wrong and "wrong: 1\n" in wrong, ended.stdout
