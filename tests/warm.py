"""The first work of every Snakemake and every report, done once in the process that is forked (forked.py)."""

import gc
import io
import os

import docutils.core  # noqa: F401
import numpy as np
import smart_open  # noqa: F401
from matplotlib.figure import Figure
from snakemake.cli import get_argument_parser

from benchmarks.evaluation import clusters
from benchmarks.evaluation.metrics import clustering_scores
from benchmarks.plan import measure
from benchmarks.report.render import template
from scl.augment.build import OPERATIONS, parameters_of
from scl.engine.provenance import versions

for operation in OPERATIONS.values():
    parameters_of(operation)  # pydantic searches all modules for docstrings
figure = Figure(figsize=(1, 1))
figure.add_subplot().plot([0, 1], label="first")
figure.suptitle("The first figure of a process takes long.")
figure.legend()
for format in ("png", "svg"):
    figure.savefig(io.BytesIO(), format=format)
versions()
get_argument_parser()  # finds and imports the plugins
for name in ("tables.md", "tables.tex", "claims.md", "index.html", "run.html"):
    environment = template(name).environment
    for part in environment.list_templates(filter_func=lambda part: part.endswith((".jinja", ".js", ".css"))):
        environment.get_template(part)
four = np.arange(4)
clustering_scores(four, four, clusters=4)  # scikit-learn's first call looks for plugins
clusters.map_of(four, np.eye(4), {"rows": four, "assignments": four}, None)
os.fsync = lambda descriptor: None  # only matters in a power failure
measure.SECONDS, clusters.ITERATIONS = 0.0, 250  # of timed steps, of t-SNE; as in conftest.py
gc.collect()
gc.freeze()  # garbage collection in forked processes would copy all of this
