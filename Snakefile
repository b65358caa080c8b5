# From downloads to tables. Every rule calls the `scl` command, so each step can also be run by hand.
#
#   download   archives of the data sets            -> data/archives/
#   prepare    one benchmark                        -> data/<benchmark>/
#   train      one run, on a GPU if there is one    -> results/runs/<benchmark>/<protocol>/<stage>/seed<k>/
#   kmeans     k-means of one run's features, on the CPU, for methods without a head
#   evaluate   scores of one run, with the labels   -> metrics.json of the run, and clusters.json for its page
#   collect    all runs in one table                -> results/runs.csv
#   report     tables, figures, claims, web page    -> results/
#
#   snakemake --cores all --resources gpu=4                          # config/paper.yaml: six benchmarks, 5 seeds
#   snakemake --cores all --configfile config/smoke.yaml             # digits, minutes on a laptop
#
# A result counts if its record matches the run as planned (scl/engine/identity.py); results that do not count are
# recreated, whatever the times of the files. Setup and input functions are in benchmarks/workflow.py.
import sys

sys.path[:0] = [workflow.basedir, ""]  # "": custom methods may be in the working directory
from benchmarks.workflow import Workflow

WORK = Workflow(workflow, config)  # checks the configuration before any job
STUDY = WORK.study
RESULTS, DATA = str(STUDY.results), str(STUDY.data)
RUN = f"{RESULTS}/runs/{{benchmark}}/{{protocol}}/{{stage}}/seed{{seed}}"
LOG = f"{RESULTS}/logs/{{benchmark}}/{{protocol}}/{{stage}}/seed{{seed}}"
CAPTIONS = "benchmarks/report/captions"
shell.prefix(WORK.shell_prefix())  # defines scl, $plan and $machine


wildcard_constraints:
    benchmark="|".join(STUDY.benchmarks),
    protocol="joint|heldout",
    stage="|".join(STUDY.methods),
    seed=r"\d+",


localrules:
    all,
    download,  # compute nodes of a cluster are often offline
    prepare,
    evaluate,  # takes seconds, less than a job waits in the queue
    collect,
    report,


onstart:
    WORK.start()  # writes the plan


onerror:  # report the finished runs, in results/partial, since a target file would count as finished
    shell('scl report "$plan" --partial')


# The default target. Scores are listed too: otherwise Snakemake would not notice a missing one if the tables exist.
rule all:
    default_target: True
    input:
        f"{RESULTS}/tables.md",
        f"{RESULTS}/claims.md",
        f"{RESULTS}/report/index.html",
        WORK.metrics(),
    message:
        f"all results: {RESULTS}/report/index.html"


# Fetch an archive and verify its checksum.
rule download:
    output:
        f"{DATA}/archives/{{file}}",
    log:
        f"{RESULTS}/logs/download/{{file}}.log",
    priority: WORK.priority
    retries: 0  # resumes and retries by itself
    conda:
        "environment.yaml"
    message:
        "download {wildcards.file}"
    shell:
        'scl download {wildcards.file} --study "$plan" 2>&1 | tee {log:q}'


# Turn a data set into images.npy, labels.npy and benchmark.json.
rule prepare:
    input:
        WORK.prepare_inputs,
    output:
        f"{DATA}/{{benchmark}}/images.npy",
        f"{DATA}/{{benchmark}}/benchmark.json",
    log:
        f"{RESULTS}/logs/prepare/{{benchmark}}.log",
    priority: WORK.priority
    retries: 0  # would fail again
    # Does not reserve the threads that it uses: it would have to wait until all of them are free at once.
    conda:
        "environment.yaml"
    message:
        "prepare {wildcards.benchmark}"
    shell:
        'scl prepare {wildcards.benchmark} --study "$plan" 2>&1 | tee {log:q}'


# Train one run. It never sees labels.
rule train:
    input:
        unpack(WORK.train_inputs),
    output:
        f"{RUN}/weights.pt",
        f"{RUN}/history.csv",
        f"{RUN}/record.json",
    log:
        f"{LOG}.log",
    priority: WORK.train_priority
    conda:
        "environment.yaml"
    threads: WORK.threads
    resources:
        gpu=lambda w: WORK.gpus(w),
        attempt=lambda w, attempt: attempt,
    params:
        run=RUN,
    message:
        "train {wildcards.stage} on {wildcards.benchmark} ({wildcards.protocol}), seed {wildcards.seed}"
    shell:
        "scl train {params.run:q} --gpus {resources.gpu} --threads {threads} --attempt {resources.attempt} $machine &> {log:q}"


# k-means on the features that a run has kept, while the GPU trains the next one; then deletes them. Its output is an
# empty file, because Snakemake deletes the outputs of interrupted jobs.
rule kmeans:
    input:
        unpack(WORK.kmeans_inputs),
    output:
        touch(f"{RUN}/clustered"),
    log:
        f"{LOG}.kmeans.log",
    priority: WORK.kmeans_priority
    conda:
        "environment.yaml"
    threads: WORK.threads
    resources:
        gpu=0,  # otherwise a profile with `gpu_model` would request one from SLURM
        attempt=lambda w, attempt: attempt,
    params:
        run=RUN,
    message:
        "k-means of {wildcards.stage} on {wildcards.benchmark} ({wildcards.protocol}), seed {wildcards.seed}"
    shell:
        "scl kmeans {params.run:q} --threads {threads} --attempt {resources.attempt} &> {log:q}"


# Score the clusters of one run with the labels.
rule evaluate:
    input:
        unpack(WORK.evaluate_inputs),
    output:
        f"{RUN}/metrics.json",
    log:
        f"{LOG}.evaluate.log",
    priority: WORK.priority
    conda:
        "environment.yaml"
    params:
        run=RUN,
    message:
        "evaluate {wildcards.stage} on {wildcards.benchmark} ({wildcards.protocol}), seed {wildcards.seed}"
    shell:
        "scl evaluate {params.run:q} 2> {log:q}"  # prints the scores


# One row per run.
rule collect:
    input:
        WORK.collect_inputs,
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


# Tables, figures, claims and page, from runs.csv and the files of the runs.
rule report:
    input:
        f"{RESULTS}/runs.csv",
    output:
        report(f"{RESULTS}/tables.md", caption=f"{CAPTIONS}/tables.rst"),
        f"{RESULTS}/tables.tex",
        f"{RESULTS}/claims.md",
        report(f"{RESULTS}/figures/scores.png", caption=f"{CAPTIONS}/scores.rst"),
        report(f"{RESULTS}/figures/curves.png", caption=f"{CAPTIONS}/curves.rst"),
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
