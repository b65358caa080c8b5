"""Weights that another run starts from: verified on loading, and restored from the checkpoint if damaged."""

import shutil

import pytest
from conftest import flip_a_bit

from scl.engine.artifacts import CHECKSUM_DIFFERS
from scl.engine.io import Damaged
from scl.engine.weights import read_weights

pytestmark = pytest.mark.slow


@pytest.fixture
def trained(trained_simclr, tmp_path):
    """The folder of SimCLR, trained."""
    return shutil.copytree(trained_simclr, tmp_path / "seed0")


def test_damaged_weights_are_restored_from_the_checkpoint(trained):
    before, said = read_weights(trained), []
    flip_a_bit(trained / "weights.pt")
    assert read_weights(trained, report=said.append) == before
    assert said == [f"warning: {trained}/weights.pt: {CHECKSUM_DIFFERS}; restoring it from the checkpoint"]
    assert (trained / "weights.pt").read_bytes() == before[0] and not list(trained.glob("*.damaged"))


def test_damaged_weights_without_their_checkpoint_are_set_aside(trained):
    flip_a_bit(trained / "weights.pt")
    flip_a_bit(trained / "checkpoint.pt")
    (trained / "checkpoint.prev.pt").unlink(missing_ok=True)
    with pytest.raises(Damaged, match="weights.pt: damaged .*; set aside as weights.pt.damaged"):
        read_weights(trained, report=lambda line: None)
    assert not (trained / "weights.pt").exists()
    with pytest.raises(Damaged, match="weights.pt: missing"):
        read_weights(trained)


def test_other_weights_in_the_checkpoint_do_not_replace_the_damaged_ones(trained, monkeypatch):
    """Weights of an earlier epoch, if only the previous checkpoint is valid."""
    monkeypatch.setattr("scl.engine.checkpoint.load", lambda path, **_: {"method": {}})
    flip_a_bit(trained / "weights.pt")
    damaged, said = (trained / "weights.pt").read_bytes(), []
    with pytest.raises(Damaged, match="set aside as weights.pt.damaged"):
        read_weights(trained, report=said.append)
    assert (trained / "weights.pt.damaged").read_bytes() == damaged and not said
