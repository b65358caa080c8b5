"""The method in docs/your-own.md, saved to a file, passes the conformance test; a wrong one fails. One with a required
option and a start from another stage is tested as configured."""

import os
import re
import shutil
from pathlib import Path

import pytest
from forked import FORK

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
MINE = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "your-own.md").read_text(), re.DOTALL)[1]
NEEDY = MINE.replace(
    "class Agreement(Method):",
    """from scl.config import MethodOptions


class Options(MethodOptions):
    weight: float


class Agreement(Method):
    Options = Options
    follows = ("encoder",)
""",
).replace('"balance": -2', '"balance": -self.options.weight')
STUDY = """
results: results
benchmarks: {digits: {}}
methods:
  simclr:
    method: baselines.simclr.SimCLR
    options: {kmeans_restarts: 1}
    training: {epochs: 1000}
    augment: {view: [{noise: {std: 0.1}}]}
  needy:
    method: needy_method.Agreement
    after: simclr
    options: {weight: 2.0}
    training: {epochs: 1000}
    augment: {view: []}
"""


def test_conformance_of_files_in_the_working_directory(tmp_path):
    (tmp_path / "tests").mkdir()
    for file in ("pyproject.toml", "tests/conftest.py", "tests/test_conformance.py"):
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / "my_method.py").write_text(MINE)
    (tmp_path / "wrong_method.py").write_text(MINE.replace(".softmax(1)\n", ".softmax(1) * 2\n"))
    (tmp_path / "renamed_method.py").write_text(
        MINE.replace("self.encoder", "self.net").replace("net_for", "encoder_for")
    )
    (tmp_path / "needy_method.py").write_text(NEEDY)
    (tmp_path / "my_study.yaml").write_text(STUDY)
    log = tmp_path / "log"
    child = FORK.Process(target=check_right_and_wrong, args=(tmp_path, log))
    child.start()
    child.join()
    right, _, wrong = log.read_text().partition("right: 0\n")
    assert "8 passed" in right and "1 failed" in wrong and "wrong: 1\n" in wrong, log.read_text()
    assert "renamed: 0\n" in wrong, log.read_text()
    needy, _, untestable = wrong.partition("renamed: 0\n")[2].partition("needy: 0\n")
    assert "1 passed" in needy and "untestable: 2\n" in untestable, log.read_text()
    assert "needy_method.Agreement needs more than its class: name it in a configuration" in untestable


def check_right_and_wrong(folder, log):
    """As the commands of docs/your-own.md, in a new process."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    os.chdir(folder)
    os.environ["PYTEST_XDIST_WORKER_COUNT"] = ""
    test = ["tests/test_conformance.py", "--method"]
    print("right:", int(pytest.main([*test, "my_method.Agreement"])), flush=True)
    print("wrong:", int(pytest.main([*test, "wrong_method.Agreement", "-k", "test_assign"])), flush=True)
    print("renamed:", int(pytest.main([*test, "renamed_method.Agreement", "-k", "reaches_the_weights"])), flush=True)
    print("needy:", int(pytest.main([*test, "my_study.yaml:needy", "-k", "contract"])), flush=True)
    print("untestable:", int(pytest.main([*test, "needy_method.Agreement"])), flush=True)
