# Snakemake orders and schedules the steps of an experiment; receipts decide what is done (synthlib/receipts.py).
# `synthlib reproduce EXPERIMENT` calls it. By hand: snakemake --profile profiles/local --cores 2 --config experiment=pocket
#
# A step's inputs here are its step.json (parameters and code digest, rewritten only when its content changes) and the stamps
# of the steps before it; its output is a stamp. A job whose receipt is up to date returns at once.
import re
import sys

from synthlib import paths
from synthlib.runs.experiment import read_experiment
from synthlib.runs.reproduce import prepare, spec_file, stamp_file
from synthlib.runs.steps import plan_steps

experiment = read_experiment(config["experiment"])
only = [name for name in str(config.get("only") or "").split(",") if name]
wanted = plan_steps(experiment, only)
steps = {step.name: step for step in [*plan_steps(experiment), *wanted]}
prepare(list(steps.values()))


def below_root(path):
    return str(path.relative_to(paths.root()))


rule all:
    input:
        [below_root(stamp_file(step)) for step in wanted],


for step in steps.values():

    rule:
        name:
            re.sub(r"\W", "_", step.name.replace("/", "__"))
        input:
            spec=below_root(spec_file(step)),
            after=[below_root(stamp_file(steps[name])) for name in step.after],
        output:
            below_root(stamp_file(step)),
        log:
            f"{step.run_dir}/run.log",
        threads: step.parameters.get("threads", 1)
        resources:
            gpu=int(step.parameters.get("device", "cpu") != "cpu"),
        params:
            python=sys.executable,
            notebook=step.notebook,
        shell:
            "{params.python:q} -m synthlib.cli run {params.notebook} --params {input.spec:q} > {log:q} 2>&1"
