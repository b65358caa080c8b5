"""What the harness relies on, tested for every built-in method, and for yours:

    pytest tests/test_conformance.py --method my_file.MyMethod
    pytest tests/test_conformance.py --method my_study.yaml:STAGE     # with options, or a start from another stage

All tests use the training loop and the run's files, as in a study.
"""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import TINY_METHODS, TINY_VIEW, tiny_mapping

from benchmarks.compose import chain
from benchmarks.study import MethodBlock, load_study, write_plan
from scl import config
from scl.engine.train import Trainer
from scl.method import Method
from scl.util.classes import find_class
from scl.util.text import did_you_mean

pytestmark = pytest.mark.slow

OWN = "own"


def own_methods(given):
    """{name: block} of the method to test, OWN, and of the stages it starts from. given: the class, or FILE:STAGE of a
    configuration, whose options, optimizer and learning rate are kept. Raises ValueError."""
    file, _, name = given.rpartition(":")
    methods = load_study(file).methods if file else {name: MethodBlock(method=name)}
    if name not in methods:
        raise ValueError(f"{file} has no method '{name}'{did_you_mean(name, methods)}")
    blocks = {}
    for stage in chain({stage: block.after for stage, block in methods.items()}, name, "after"):
        block = methods[stage]
        method = find_class(block.method)
        needs = method.follows or any(field.is_required() for field in method.Options.model_fields.values())
        if needs and not file:
            raise ValueError(f"{name} needs more than its class: name it in a configuration, my_study.yaml:STAGE")
        training = block.training.model_dump(include={"optimizer", "learning_rate"}, exclude_unset=True)
        blocks[OWN if stage == name else stage] = {
            "method": block.method,
            "after": block.after,
            "options": block.options,
            "training": training | {"epochs": 2 if method.step is not Method.step else 0},
            "augment": dict.fromkeys(method.augmentations, TINY_VIEW),
        }
    return blocks


def pytest_generate_tests(metafunc):
    if "stage" in metafunc.fixturenames:
        stages, own = list(TINY_METHODS), metafunc.config.getoption("--method")
        if own:
            stages = [OWN]
            try:
                own_methods(own)
            except ValueError as error:
                raise pytest.UsageError(f"--method: {error}") from None
        one_process = [pytest.param(stage, marks=pytest.mark.xdist_group(stage)) for stage in stages]  # trains a stage
        metafunc.parametrize("stage", one_process, scope="module")


@pytest.fixture(scope="module")
def plan(stage, digits, tmp_path_factory, request):
    """A function that plans the stage and those it starts from in a new folder."""
    methods = own_methods(request.config.getoption("--method")) if stage == OWN else TINY_METHODS
    needed, name = {}, stage
    while name:
        needed = {name: methods[name], **needed}
        name = methods[name].get("after")

    def go(data=digits, **rest):
        mapping = tiny_mapping(data, tmp_path_factory.mktemp(stage), needed, **rest)
        study = load_study(mapping)
        write_plan(study, mapping)
        return study

    return go


@pytest.fixture(scope="module")
def trained(plan, train_all):
    """A study of two seeds, trained; no test changes it."""
    study = plan(seeds=[0, 1])
    train_all(study)
    return study


def files(study, stage, seed=0):
    directory = study.run("tiny-digits", "joint", stage, seed).directory
    weights = torch.load(directory / "weights.pt", weights_only=True)
    return np.load(directory / "assignments.npz"), weights, json.loads((directory / "record.json").read_text())


def assert_same(one, two):
    for name in one[0].files:
        np.testing.assert_array_equal(one[0][name], two[0][name])
    assert one[1].keys() == two[1].keys()
    for name in one[1]:
        assert torch.equal(one[1][name], two[1][name]), name


def test_leaves_what_the_contract_promises(stage, trained):
    assigned, _, record = files(trained, stage)
    assert assigned["assignments"].shape == (200,) and assigned["rows"].tolist() == list(range(200))
    assert assigned["assignments"].min() >= 0 and assigned["assignments"].max() < 10
    assert assigned["confidence"].shape in ((0,), (200,))
    assert ((assigned["confidence"] >= 0) & (assigned["confidence"] <= 1 + 1e-6)).all()
    epochs = record["epochs"]
    assert assigned["epochs"].tolist() == ([] if epochs == 0 else [-(-epochs // 2), epochs])
    if epochs:
        np.testing.assert_array_equal(assigned["per_epoch"][-1], assigned["assignments"])
    assert record["seconds"] > 0 and record["peak_memory_bytes"] > 0
    history = (trained.run("tiny-digits", "joint", stage, 0).directory / "history.csv").read_text().splitlines()
    assert len(history) == 1 + epochs


def test_twice_from_one_seed_is_bit_equal_and_two_seeds_differ(stage, trained, plan, train_all):
    again = plan()
    train_all(again)
    assert_same(files(trained, stage), files(again, stage))
    other = files(trained, stage, seed=1)[0]["assignments"]
    if stage != "kmeans":  # with two seeds, k-means on these pixels may find the same optimum
        assert (other != files(trained, stage)[0]["assignments"]).any()


def test_labels_play_no_part(stage, trained, plan, train_all, digits, tmp_path):
    """With permuted labels for the same images, weights and assignments are bit-equal."""
    shutil.copytree(digits, tmp_path / "permuted")
    path = tmp_path / "permuted" / "tiny-digits" / "labels.npy"
    labels = np.load(path)
    np.save(path, np.random.default_rng(0).permutation(labels))
    permuted = plan(data=tmp_path / "permuted")
    train_all(permuted)
    assert_same(files(trained, stage), files(permuted, stage))


@pytest.mark.parametrize("verb", ["step", "assign"])
def test_labels_cannot_be_opened(stage, verb, trained, plan, train_all, monkeypatch):
    """A method that opens them through its own training loop is refused."""
    s = plan()
    *upstream, run = s.runs()
    for one in upstream:
        done = trained.run("tiny-digits", "joint", one.stage, 0).directory
        shutil.copytree(done, one.directory, dirs_exist_ok=True)
    config, attempts = s.settings(run), []
    if verb == "step" and not config.training.epochs:
        pytest.skip(f"{stage} does not train: it has no steps")
    labels = f"{config.data}/labels.npy"
    assert len(np.load(labels)) == 200

    def peek(*_):
        attempts.append(labels)
        np.load(labels)

    monkeypatch.setattr(find_class(config.method), verb, peek)
    with pytest.raises(PermissionError, match="cannot be opened while a method trains"):
        train_all(s)
    assert len(attempts) == 1 and not (run.directory / "record.json").exists()


def settings_after_training(trained, stage):
    """Settings of a trained run in whose folder trainers can be made; skips the test if the stage does not train."""
    directory = trained.run("tiny-digits", "joint", stage, 0).directory
    run = config.complete(config.load_run(directory))
    if not run.training.epochs:
        pytest.skip(f"{stage} does not train: there is no step to look at")
    return run, directory


def new_trainer(run, directory):
    trainer = Trainer(run, directory, device="cpu", report=lambda *_: None)
    trainer.method.prepare(trainer.images, trainer.seeds.generator("prepare"))
    trainer.method.train()
    return trainer


def learn_a_step_an_epoch(trainer):
    index = torch.arange(64)
    for epoch in range(trainer.run.training.epochs):
        trainer.epoch = trainer.method.epoch = epoch
        trainer.learn(trainer.draw(index), index)


def test_every_loss_term_is_finite_and_reaches_the_weights(stage, trained):
    trainer = new_trainer(*settings_after_training(trained, stage))
    before = {k: v.clone() for k, v in trainer.method.named_parameters()}
    learn_a_step_an_epoch(trainer)
    assert torch.stack(trainer.epoch_losses[-1:]).isfinite().all()
    moved = [k for k, v in trainer.method.named_parameters() if not torch.equal(v, before[k])]
    assert any(k.startswith("encoder.") or stage == OWN for k in moved)  # yours may be called something else


def test_bf16_trains_the_parameters_that_fp32_trains(stage, trained):
    """Autocast caches casts of weights; a pass without gradient must not leave its cast for a pass with gradient."""
    run, directory = settings_after_training(trained, stage)
    with_gradient = []
    for dtype in ("fp32", "bf16"):
        training = run.training.model_copy(update={"precision": dtype})
        trainer = new_trainer(run.model_copy(update={"training": training}), directory)
        learn_a_step_an_epoch(trainer)
        with_gradient.append({name for name, p in trainer.method.named_parameters() if p.grad is not None})
    assert with_gradient[0] == with_gradient[1] != set()


def test_assign_does_not_depend_on_the_batch(stage, trained):
    """In evaluation mode, an image's output does not depend on the rest of the batch."""
    if stage == "random":
        pytest.skip("random gives an image another output each time")
    directory = trained.run("tiny-digits", "joint", stage, 0).directory
    trainer = Trainer(config.complete(config.load_run(directory)), directory, device="cpu", report=lambda *_: None)
    trainer.method.eval()
    with torch.no_grad():
        images = trainer.images.batch(torch.arange(16))
        whole, halves = trainer.method.assign(images), [trainer.method.assign(half) for half in images.chunk(2)]
    torch.testing.assert_close(whole, torch.cat(halves), rtol=1e-4, atol=1e-5)
    if not trainer.method.clusters_by_kmeans:
        torch.testing.assert_close(whole.float().sum(1), torch.ones(16))
