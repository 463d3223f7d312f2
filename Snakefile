# Snakemake orders and schedules the steps of an experiment; receipts decide what is done (synthlib/receipts.py).
# `synthlib reproduce EXPERIMENT` calls it in a folder that holds graph.json: the steps that are not done, what each comes after,
# and the Python that runs them, which need not be Snakemake's (synthlib/runs/graph.py). A step's stamp there says that this call
# has got it done; nothing else reads it.
import json
from pathlib import Path

graph = json.loads(Path("graph.json").read_text())
steps = graph["steps"]


rule all:
    input:
        [f"{name}.done" for name in steps],


for notebook, kind in graph["rules"].items():

    rule:
        name:
            kind
        input:
            lambda wildcards: [f"{name}.done" for name in steps[wildcards.step]["after"]],
        output:
            "{step}.done",
        wildcard_constraints:
            step=f"{notebook}/.+",
        threads: lambda wildcards: steps[wildcards.step]["threads"]
        resources:
            gpu=lambda wildcards: steps[wildcards.step]["gpu"],
        params:
            python=graph["python"],
            pythonpath=graph["pythonpath"],
            notebook=notebook,
            spec=lambda wildcards: steps[wildcards.step]["spec"],
        shell:
            "PYTHONPATH={params.pythonpath:q} {params.python:q} -m synthlib.cli run {params.notebook}"
            " --params {params.spec:q} --log && touch {output:q}"
