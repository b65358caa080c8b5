"""What every Snakemake and every report does first, done once where processes are forked from (forked.py)."""

import docutils.core  # noqa: F401
import smart_open  # noqa: F401
from snakemake.cli import get_argument_parser

from benchmarks.report.render import template

get_argument_parser()  # finds and imports the plugins
for name in ("tables.md", "tables.tex", "claims.md", "index.html", "run.html"):
    environment = template(name).environment
    for part in environment.list_templates(filter_func=lambda part: part.endswith((".jinja", ".js", ".css"))):
        environment.get_template(part)
