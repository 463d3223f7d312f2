"""The tables in LaTeX: one document with every one of them, which pdflatex takes without a complaint."""

import re
import shutil
import subprocess

import pandas as pd
import pytest
from conftest import ROOT
from test_tables import evaluated

from synthlib.results import baselines, claims, differences, effects, rows, tables

NOTE = "A miniature: 100 % digits & drawn_ones, 60 ± 2 [not the paper's] {#1} ~ ^ \\ <5 --all | $."
DOCUMENT = r"""\documentclass[10pt]{article}
\usepackage[paperwidth=8.5in,textwidth=6.875in,textheight=9in]{geometry}
\usepackage{array,booktabs,graphicx}
\begin{document}
%s
\end{document}
"""


def small_run(root):
    """Folders of digits (every treatment of T1 to T6, three replicates) and of cifar10, which has published values."""
    inits = {("scratch", 0), ("imagenet", 1)}
    dirs = [
        evaluated(
            root, trick, [4 + more, 5 + more, 5 + more + k], init=init, setting=f"init={init}", best=[6 + more] * 3
        )
        for init, more in sorted(inits)
        for k, trick in enumerate(("base_class", "merged"))
    ]
    for trick, hits in {"base_class": [5, 4, 6], "class_prompt": [5, 6, 6], "multi_domain": [6, 7, 9],
                        "random_guidance": [6, 6, 8], "merged": [8, 7, 9], "domain_guidance": [7, 8, 8]}.items():  # fmt: skip
        dirs.append(evaluated(root, trick, hits))
    dirs.append(evaluated(root, "merged_full", [8, 9, 9], n_train=300))
    dirs.append(evaluated(root, "base_class", [5, 5, 6], setting="judge=glyphs"))
    dirs.append(evaluated(root, "random_guidance", [6, 7, 6], setting="guidance=3"))
    dirs += [evaluated(root, t, h, dataset="cifar10", architecture="resnet50") for t, h in
             (("base_class", [6, 6, 7]), ("merged", [8, 9, 8]))]  # fmt: skip
    return dirs


def clip_runs():
    return pd.DataFrame(
        [["cifar10", "test", "RN50", "openai (OpenAI)", "True", "clip", 10_000, 71.5, 70.6, 72.4, "Wilson, 95 %", 10]],
        columns=[*baselines.CLIP_COLUMNS, "n_classes"],
    )


def t1_to_t6(root):
    """name -> the frame and its view, of a small run: every table of the kit."""
    dirs = small_run(root)
    read, correct = rows.read_evaluations(dirs), rows.read_correct(dirs)
    published = rows.read_published(ROOT / "experiments" / "published.csv")
    plain, given_init = read[read["setting"] == ""], read[read["setting"].str.startswith("init=")]
    wanted = [("digits", trick, "cnn") for trick in ("prompt_list", "merged", "merged_full")]
    why = {("digits", "prompt_list", "cnn"): "no list of prompts_for digits & co. [yet], 100 %"}
    t1 = tables.accuracy_by_trick(plain, published, wanted, why)
    t2 = differences.base_against_merged(plain, correct, published, wanted=[("digits", "merged", "vit")])
    t3 = baselines.against_baselines(plain, published, clip_runs(), wanted, why)
    t4 = claims.claims_table(plain, correct, claims.read_claims(ROOT / "experiments" / "claims.yaml"), wanted, why)
    t5 = effects.protocol_effects(given_init, correct, [("digits", "merged+init=scratch", "vit")])
    t6 = effects.beyond(read[~read["setting"].str.startswith("init=")], correct, published, wanted, why)
    return {
        "T1": (t1, tables.accuracy_view(t1)),
        "T2": (t2, differences.difference_view(t2)),
        "T3": (t3, baselines.baselines_view(t3)),
        "T4": (t4, claims.claims_view(t4)),
        "T5": (t5, effects.effects_view(t5)),
        "T6": (t6, effects.beyond_view(t6)),
    }


def odd_letters():
    cells = ["[+1.2, +3.4]", "a_b & c", "100 %", "60 ± 2", "{x} #1 $y$ ~ ^ \\ <5> | --all", "[only", ""]
    frame = pd.DataFrame({"[first] & %": cells, "a_b": cells[::-1]})
    return frame, frame


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_every_table_compiles_and_none_is_wider_than_the_page(tmp_path):
    made = t1_to_t6(tmp_path / "runs") | {"letters": odd_letters()}
    files = [
        tables.write_table(frame, tmp_path / name, f"Table {name}.", NOTE, view)[2]
        for name, (frame, view) in made.items()
    ]
    inputs = "\n".join(f"\\input{{{file.name}}}\\clearpage" for file in files)
    (tmp_path / "all.tex").write_text(DOCUMENT % inputs)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "all.pdf").read_bytes().startswith(b"%PDF")
    log = re.sub(r"\n(?=[^\n])", "", done.stdout)  # TeX breaks its lines at 79 characters
    too_wide = [float(width) for width in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", log)]
    assert not [width for width in too_wide if width > 1], re.findall(r"Overfull.{0,300}", log)


def test_a_cell_that_begins_with_a_bracket_is_no_option_of_the_line_before(tmp_path):
    frame = pd.DataFrame({"interval": ["[1, 2]", "[3, 4]"]})
    text = tables.write_table(frame, tmp_path / "t", "Caption.", "Note.")[2].read_text()
    assert "\\\\\n{[}3, 4{]}" in text


def test_a_long_remark_is_wrapped_and_a_short_one_is_not(tmp_path):
    long = "not run: weights absent; synthlib baseline clip --dataset digits"
    frame = pd.DataFrame({"trick": ["merged"], "remark": [long], "short": ["equal"]})
    text = tables.write_table(frame, tmp_path / "t", "Caption.", "Note.")[2].read_text()
    assert r"\begin{tabular}{l>{\raggedright\arraybackslash}p{42mm}l}" in text
    assert "-{}-dataset" in text
