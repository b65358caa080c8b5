"""`scl plan`: the subcommand, and its arguments in the form of SUBCOMMANDS in benchmarks/cli.py."""

import json

from benchmarks.cli_arguments import argument, flag, show
from benchmarks.study import load_study
from scl.util.imports import gc_paused


def plan(study, show_run, calibrate, as_json):
    """Check a configuration and print what the study will cost: runs, downloads, disk, device-hours, and time.

    Times come from finished runs on this device, else from a calibration of it, else from committed measurements.
    """
    with gc_paused():
        from benchmarks.check import check_study
    from benchmarks.overview import Overview
    from benchmarks.plan.cost import plan_study
    from benchmarks.plan.table import describe_cost
    from benchmarks.state import Survey
    from benchmarks.status import summarize_study

    if show_run and (as_json or calibrate):
        raise ValueError("--show: cannot be combined with --json or --calibrate; give only one of them")
    loaded = load_study(study)
    survey = Survey(loaded)
    check_study(loaded, survey)
    if show_run:
        from benchmarks.show import describe_settings

        return show(describe_settings(study, loaded, show_run))
    overview = Overview(loaded, survey)
    cost = plan_study(loaded, survey, calibrate=calibrate)
    if as_json:
        print(json.dumps(cost, indent=2, allow_nan=False))
    else:
        show(summarize_study(overview), describe_cost(cost, study))


SHOW = "only print the settings of this run, and where each is set (default: no)"
PLAN: list = [
    "output",
    flag("--json", "print the same as JSON", dest="as_json"),
    argument("--show", SHOW, dest="show_run", metavar="BENCHMARK/PROTOCOL/STAGE"),
    "measurement",
    flag("--calibrate", "first measure each kind of run, for some seconds"),
]
