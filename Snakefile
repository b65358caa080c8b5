# The way of the data, top to bottom: download, prepare, train, evaluate, collect, report.
#
#   snakemake --cores all --resources gpu=4                          # config/paper.yaml: six benchmarks, 5 seeds
#   snakemake --cores all --configfile config/smoke.yaml             # digits, minutes on a laptop
#
# Every rule calls the `scl` command, so each step can be tried by hand. A result counts if its record is that of the run
# as planned (scl/engine/identity.py); what is there and does not count is made again, whatever the times of the files say.
import sys

sys.path[:0] = [workflow.basedir, ""]  # "": a method of the user's own may stand in the working directory
from benchmarks import slurm
from benchmarks import workflow as study_files
from benchmarks.cli import in_one_line
from benchmarks.status import summarize_study
from scl.util.text import say

try:
    WORK = study_files.Workflow(config, workflow.configfiles, main_process=workflow.is_main_process)
except (ValueError, OSError) as error:  # not WorkflowError: it would blame a line of this file
    say(f"snakemake: error: {in_one_line(error)}")
    raise SystemExit(2) from None
STUDY = WORK.study
THREADS = study_files.share_machine(workflow, STUDY)
# Neither the interpreter nor $machine nor $plan is a param: they say how to run, not what (on a CPU the threads change
# the last digits, and stand in the record), so they must not run anything again.
shell.prefix(study_files.shell_prefix(STUDY))
RESULTS, DATA = str(STUDY.results), str(STUDY.data)
RUN = f"{RESULTS}/runs/{{benchmark}}/{{protocol}}/{{stage}}/seed{{seed}}"
LOG = f"{RESULTS}/logs/{{benchmark}}/{{protocol}}/{{stage}}/seed{{seed}}"
if workflow.is_main_process:
    say(summarize_study(STUDY, WORK.survey))
    if study_files.locked():
        say(study_files.locked())


wildcard_constraints:
    benchmark="|".join(STUDY.benchmarks),
    protocol="joint|heldout",
    stage="|".join(STUDY.methods),
    seed=r"\d+",


localrules:
    all,  # and downloads: compute nodes of a cluster are often offline
    download,
    prepare,
    evaluate,  # seconds: less than a job of a cluster waits
    collect,
    report,


onstart:
    try:
        slurm.check(workflow, STUDY)
    except ValueError as error:
        say(f"snakemake: error: {error}")
        raise SystemExit(2) from None
    WORK.start()


onerror:  # what there is, failed and missing runs printed as such; never under the name of a target
    shell('scl report "$plan" --partial')


rule all:
    default_target: True
    input:
        f"{RESULTS}/tables.md",
        f"{RESULTS}/claims.md",
        f"{RESULTS}/report/index.html",
        study_files.metrics(STUDY),  # named here, or Snakemake would not miss one as long as there are tables


rule download:
    output:
        f"{DATA}/archives/{{file}}",
    log:
        f"{RESULTS}/logs/download/{{file}}.log",
    priority: study_files.priority(STUDY)
    retries: 0  # it tries again by itself, from where it was cut
    conda:
        "environment.yaml"
    message:
        "download {wildcards.file}"
    shell:
        'scl download {wildcards.file} --study "$plan" 2>&1 | tee {log:q}'


rule prepare:
    input:
        lambda w: WORK.force(workflow) or ancient(study_files.archives(STUDY, w.benchmark)),
    output:
        f"{DATA}/{{benchmark}}/images.npy",
        f"{DATA}/{{benchmark}}/benchmark.json",
    log:
        f"{RESULTS}/logs/prepare/{{benchmark}}.log",
    priority: study_files.priority(STUDY)
    retries: 0  # what fails here fails again
    conda:
        "environment.yaml"
    threads: 8
    message:
        "prepare {wildcards.benchmark}"
    shell:
        'scl prepare {wildcards.benchmark} --study "$plan" 2>&1 | tee {log:q}'


rule train:
    input:
        unpack(lambda w: WORK.force(workflow) or WORK.train_inputs(w)),
    output:
        f"{RUN}/weights.pt",
        f"{RUN}/history.csv",
        f"{RUN}/assignments.npz",
        f"{RUN}/record.json",
    log:
        f"{LOG}.log",
    priority: lambda w: study_files.priority(STUDY, int(w.seed))
    conda:
        "environment.yaml"
    threads: THREADS
    resources:
        gpu=lambda w: int(study_files.trains(STUDY, w)),
        attempt=lambda w, attempt: attempt,
    params:
        run=lambda w: str(study_files.run_of(STUDY, w).directory),
    message:
        "train {wildcards.stage} on {wildcards.benchmark} ({wildcards.protocol}), seed {wildcards.seed}"
    shell:
        "scl train {params.run:q} --gpus {resources.gpu} --threads {threads} --attempt {resources.attempt} $machine &> {log:q}"


rule evaluate:
    input:
        unpack(lambda w: WORK.evaluate_inputs(w)),
    output:
        f"{RUN}/metrics.json",
    log:
        f"{LOG}.evaluate.log",
    priority: lambda w: study_files.priority(STUDY, int(w.seed))
    conda:
        "environment.yaml"
    params:
        run=lambda w: str(study_files.run_of(STUDY, w).directory),
    message:
        "evaluate {wildcards.stage} on {wildcards.benchmark} ({wildcards.protocol}), seed {wildcards.seed}"
    shell:
        "scl evaluate {params.run:q} &> {log:q}"


rule collect:
    input:
        lambda w: WORK.force(workflow) or study_files.metrics(STUDY),
    output:
        f"{RESULTS}/runs.csv",
    log:
        f"{RESULTS}/logs/collect.log",
    conda:
        "environment.yaml"
    message:
        "collect all runs into {output}"
    shell:
        'scl report "$plan" --part collect &> {log:q}'


rule report:
    input:
        f"{RESULTS}/runs.csv",
    output:
        report(f"{RESULTS}/tables.md"),
        f"{RESULTS}/tables.tex",
        f"{RESULTS}/claims.md",
        report(f"{RESULTS}/figures/scores.png"),
        report(f"{RESULTS}/figures/curves.png"),
        f"{RESULTS}/figures/scores.svg",
        f"{RESULTS}/figures/curves.svg",
        f"{RESULTS}/report/index.html",
    log:
        f"{RESULTS}/logs/report.log",
    conda:
        "environment.yaml"
    message:
        "write {output}"
    shell:
        'scl report "$plan" --part report &> {log:q}'
