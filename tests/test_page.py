"""The page: every number is that of results.csv, every step is accounted for, nothing is said that was not run."""

import base64
import json
import os
import re
import shutil

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from pages import REFERENCE, finish, numbers_on, own_folder, parse, pretend_pocket, read_lines, wrong_numbers

from synthlib import cli, paths, receipts
from synthlib.files import RECEIPT
from synthlib.inputs import InputError
from synthlib.page.numbers import estimate_text, number_tables, number_text
from synthlib.page.write import run_page, write_report
from synthlib.runs.experiment import read_experiment
from synthlib.runs.steps import plan_steps

COMMITTED = ("pocket", "pocket_full")


@pytest.fixture(scope="module", params=COMMITTED)
def committed(request, tmp_path_factory):
    """The page of a committed run: its soup, its name, and its results.csv."""
    with pytest.MonkeyPatch.context() as patch:
        root = own_folder(tmp_path_factory.mktemp("committed"), patch)
        page = write_report(request.param, reference=True)
        yield parse(page), request.param, root / "figures" / "reference" / request.param / "results.csv"
    paths.root.cache_clear()


@pytest.fixture
def pocket(own_root):
    """The planned steps of a whole run of pocket, see `pages.pretend_pocket`."""
    return pretend_pocket(own_root)


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_every_number_on_the_page_is_that_of_results_csv(committed):
    soup, _, file = committed
    assert len(numbers_on(soup)) > 100
    assert wrong_numbers(soup, file) == []


def test_every_number_of_a_table_is_on_the_page(committed):
    soup, name, file = committed
    shown = {number.line for number in numbers_on(soup)}
    tables = {result.id for result in read_experiment(name).results if result.id.startswith("T")}
    lines = {number: line for number, line in read_lines(file).items() if line["result"] in tables}
    assert {line["result"] for line in lines.values()} == tables
    assert set(lines) <= shown


def test_the_check_would_find_a_number_that_was_changed_or_moved_to_another_row(committed):
    soup, _, file = committed
    page = str(soup)
    cells = BeautifulSoup(page, "html.parser").select("#T1 td[data-line]")
    first, second = cells[0], cells[4]
    for old, new in (
        (str(first), str(first).replace(first.get_text(), "99.9 [99.8, 100.0]")),
        (f'data-line="{first["data-line"]}"', f'data-line="{second["data-line"]}"'),
    ):
        assert old in page
        assert wrong_numbers(BeautifulSoup(page.replace(old, new), "html.parser"), file)


def test_claims_counted_at_the_top_are_those_of_t4(committed):
    soup, _, file = committed
    lines = [line for line in read_lines(file).values() if line["result"] == "T4" and line["quantity"] == "p_holm"]
    verdicts = [line["status"].partition(";")[0] for line in lines]
    tile = next(dt for dt in soup.select(".tiles dt") if dt.get_text() == "tests of claims").find_next("dd").get_text()
    assert f"{verdicts.count('held')} of {len(lines)} held" in tile
    assert f"{verdicts.count('undecided')} undecided" in tile
    assert len(soup.select("#claims + .scroll td.verdict")) == len(lines)


@pytest.mark.parametrize(
    ("quantity", "value", "text"),
    [
        ("accuracy_percent", "43.3062", "43.3"),
        ("difference_points", "-0.529101", "-0.5"),
        ("gain_points", "18.4", "+18.4"),
        ("correlation", "0.4949", "+0.49"),
        ("p_holm", "0.00321", "0.0032"),
        ("recall", "0.76153", "0.762"),
        ("percent", "12.25", "12.2"),
        ("p", "", ""),
    ],
)
def test_numbers_have_the_digits_that_they_deserve(quantity, value, text):
    assert number_text(quantity, value) == text


def line(**given):
    """A line of results.csv as text."""
    empty = pd.read_csv(REFERENCE / "pocket" / "results.csv", nrows=0).columns
    return dict.fromkeys(empty, "") | {"result": "T1", "file": "x", "quantity": "accuracy_percent", "line": 2} | given


def test_one_replicate_has_no_interval_and_what_was_not_run_has_no_number():
    assert estimate_text(line(value="50")) == "50.0"
    few = line(value="50", low="0", high="100", values="40.25 60", method="t over 2 replicates", covers_chance="yes")
    assert estimate_text(few) == "50.0 (mean of 40.2, 60.0) (chance?)"
    assert estimate_text(line(value="50", low="40", high="60", method="t over 3 replicates")) == "50.0 [40.0, 60.0]"
    assert estimate_text(line(status="not run: why")) == "not run"
    again = line(quantity="difference_points", value="5", low="1", high="9", method="crossed bootstrap, 2000 draws")
    assert estimate_text(again) == "[+1.0, +9.0]"


def test_what_is_the_same_in_all_rows_is_said_once_and_modes_stand_side_by_side():
    same, values = {"dataset": "digits", "n_replicates": "3"}, iter(["50", "60", "55", "65"])
    lines = [
        line(
            **same,
            trick=trick,
            evaluation_mode=mode,
            value=next(values),
            line=2 + 2 * (trick == "merged") + (mode != "eval"),
        )
        for trick in ("base_class", "merged")
        for mode in ("eval", "authors")
    ]
    (table,) = number_tables(pd.DataFrame(lines))
    assert table.same == [("data set", "digits"), ("replicates", "3")]
    assert table.headers == ["trick", "accuracy, %, eval mode", "accuracy, %, authors' mode"]
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["base class", "50.0", "60.0"],
        ["merged", "55.0", "65.0"],
    ]
    assert [cell.line for cell in table.rows[1]] == [None, 4, 5]


def test_chance_is_a_column_beside_the_accuracies_and_only_intervals_that_are_shown_have_a_method():
    lines = [
        line(trick="merged", value="50", low="40", high="60", method="t over 4 replicates", chance="10", line=2),
        line(trick="merged", value="80", quantity="top5_percent", chance="50", line=3),
        line(trick="real", value="55", low="0", high="99", values="50 60", method="t over 2", chance="10", line=4),
    ]
    (table,) = number_tables(pd.DataFrame(lines))
    assert table.headers == ["trick", "accuracy, %", "top-5 accuracy, %", "chance, %"]
    assert [row[3].text for row in table.rows] == ["10.0; 50.0 (top-5)", "10.0"]
    assert table.same == [("95 % intervals in brackets", "t over 4 replicates")]


def test_published_values_stand_beside_ours_with_their_source():
    ours = line(trick="merged", evaluation_mode="authors", value="65", published="66.9", published_source="Table 2")
    (table,) = number_tables(pd.DataFrame([ours]))
    assert table.headers == ["trick", "accuracy, %", "published, %"]
    assert [cell.text for cell in table.rows[0]] == ["merged", "65.0", "66.9 (Table 2)"]
    (table,) = number_tables(pd.DataFrame([ours | {"published": "not available", "published_source": "not available"}]))
    assert ("published values", "not available") in table.same and "published, %" not in table.headers


def test_a_table_too_long_for_a_page_says_how_long_it_is():
    lines = pd.DataFrame([line(where=f"epoch={n}", value=str(n), line=n) for n in range(200)])
    (table,) = number_tables(lines)
    assert table.rows == [] and table.n_numbers == 200


# --- a run ------------------------------------------------------------------------------------------------------------


def test_the_page_of_a_run_has_a_card_for_each_result_and_says_how_each_came_to_be(pocket, own_root):
    soup = parse(write_report("pocket"))
    wanted = [result.id for result in read_experiment("pocket").results]
    assert [card["id"] for card in soup.select("article.card")] == wanted
    assert wrong_numbers(soup, own_root / "figures" / "pocket" / "results.csv") == []
    for card in soup.select("article.card"):
        assert "Miniature" in card.select_one(".stand-in").get_text()
        steps = [a.get_text() for a in card.select("details table a") if a["href"].startswith("#step-")]
        planned = plan_steps(read_experiment("pocket"), [card["id"]])
        assert set(steps) == {step.name for step in planned if step.notebook != "04_figures"}, card["id"]
        drawer = card.select_one("details:has(dl)").get_text(" ")
        for fact in ("c0ffee", "two cores", "torch 2.14.1", "Python 3.11.7", "04_figures", "2026-01-02 03:04:05 UTC"):
            assert fact in drawer, (card["id"], fact)
    drawers = soup.select("#steps ~ details")
    assert [one.summary.get_text().partition(",")[0] for one in drawers] == sorted(step.name for step in pocket)
    ids = {element["id"] for element in soup.select("[id]")}
    assert {a["href"][1:] for a in soup.select('a[href^="#"]')} <= ids
    one = next(one for one in drawers if "03_eval/digits-merged-resnet" in one.summary.get_text())
    receipt = receipts.read_receipt("papermill_runs/pocket/03_eval/digits-merged-resnet")
    for digest in (
        *receipt["inputs"].values(),
        receipt["code"],
        *(made["sha256"] for made in receipt["outputs"].values()),
    ):
        assert ("not there" if digest is None else str(digest)) in one.get_text(), digest
    tiles = {dt.get_text(): dt.find_next("dd").get_text() for dt in soup.select(".tiles dt")}
    minutes = sum(60 + number for number in range(len(pocket))) / 60
    assert tiles["took"] == f"{minutes:.1f} minutes: the last execution of each of {len(pocket)} steps, added up"
    assert "out of date" not in tiles
    assert tiles["tables and figures made"] == f"{len(wanted)} of {len(wanted)}"


def test_equal_numbers_are_the_same_as_the_reference_and_others_are_told(pocket, own_root):
    page = run_page("pocket")
    cards = {card.id: card for card in page.cards}
    assert {card.verdict for name, card in cards.items() if name != "F1"} == {"same"} and cards["F1"].verdict == ""
    assert page.agreement.startswith("All headline numbers agree")
    file = own_root / "figures" / "pocket" / "accuracy_by_trick.csv"
    file.write_text(file.read_text().replace("base_class", "base_klass"))
    figures = pocket[-1]
    finish("04_figures", figures.parameters, sorted((own_root / "figures" / "pocket").iterdir()))
    soup = parse(write_report("pocket"))
    assert "≠ differs" in soup.select_one("#T1").get_text() and "base_klass" in soup.select_one("#T1").get_text()
    assert "Not all headline numbers agree" in soup.select_one(".tiles").get_text()
    assert "= same" in soup.select_one("#T2").get_text()


def test_a_page_that_was_cut_off_is_not_there(pocket, own_root, monkeypatch):
    def fails(*_):
        raise OSError("cut off")

    monkeypatch.setattr("synthlib.page.write.write_pages", fails)
    with pytest.raises(OSError, match="cut off"):
        write_report("pocket")
    assert not paths.report_file("pocket").exists()  # so that `reproduce` makes it


def test_the_files_behind_a_card_are_in_the_page(pocket, own_root):
    soup = parse(write_report("pocket"))
    for result in read_experiment("pocket").results:
        links = {a["download"]: a["href"] for a in soup.select(f"#{result.id} .downloads a")}
        if result.id != "F1":
            assert f"{result.file}.csv" in links
        for name, href in links.items():
            there = (own_root / "figures" / "pocket" / name).read_bytes()
            assert base64.b64decode(href.partition(";base64,")[2]) == there, name
    assert soup.select_one('.tiles a[download="results.csv"]')["href"].startswith("data:text/csv;base64,")


def test_a_file_that_was_changed_after_its_receipt_is_not_shown(pocket, own_root, capsys):
    (own_root / "figures" / "pocket" / "results.csv").write_text("result,value\nT1,99\n")
    assert cli.main(["report", "pocket"]) == 2
    said = capsys.readouterr().err
    assert "figures/pocket/results.csv is missing or was changed" in said
    assert "run `synthlib reproduce pocket`" in said and said.count("\n") == 1


def test_what_the_terminal_prints_is_checked_and_the_page_is_made_anew_where_it_says_anything_else(
    pocket, own_root, capsys
):
    page, table = (
        own_root / "figures" / "pocket" / "report.html",
        own_root / "figures" / "pocket" / "accuracy_by_trick.csv",
    )
    digits = table.read_text()
    assert cli.main(["reproduce", "pocket"]) == 0  # all is done: what is there is printed
    first = page.read_bytes()
    assert "36.9 [26.4, 47.4]" in capsys.readouterr().out and b"36.9 [26.4, 47.4]" in first
    page.write_bytes(first.replace(b"36.9 [26.4, 47.4]", b"96.9 [26.4, 47.4]"))
    assert cli.main(["reproduce", "pocket"]) == 0 and page.read_bytes() == first
    text = json.loads((receipt := paths.resolve(pocket[0].run_dir) / RECEIPT).read_text())
    receipt.write_text(json.dumps(text | {"recorded": text["recorded"] | {"commit": "0ther"}}))
    os.utime(page)  # times decide nothing
    assert cli.main(["reproduce", "pocket"]) == 0 and b"0ther" in page.read_bytes()
    table.write_text(digits.replace("36.9089", "96.9089", 1))
    capsys.readouterr()
    assert cli.main(["status", "pocket"]) == 0
    assert "output damaged: ../../../../figures/pocket/accuracy_by_trick.csv" in capsys.readouterr().out


def test_without_a_finished_run_the_command_says_what_to_run(own_root, capsys):
    assert cli.main(["report", "pocket"]) == 2
    assert "run `synthlib reproduce pocket` first" in capsys.readouterr().err
    assert cli.main(["report", "pockett"]) == 2
    assert "did you mean 'pocket'" in capsys.readouterr().err
    assert cli.main(["report", "colab", "--reference"]) == 2
    assert "no committed run of colab" in capsys.readouterr().err


def test_a_result_that_only_a_part_of_a_run_made_is_shown_and_the_others_are_not_made(pocket, own_root):
    """reproduce --only T1 leaves a run of its own."""
    whole = pocket[-1]
    shutil.rmtree(paths.resolve(whole.run_dir))
    part = plan_steps(read_experiment("pocket"), ["T1"])[-1]
    folder = own_root / "figures" / "pocket"
    lines = (folder / "results.csv").read_text().splitlines(keepends=True)
    (folder / "results.csv").unlink()
    (folder / "results_T1.csv").write_text("".join([lines[0], *(line for line in lines if line.startswith("T1,"))]))
    finish("04_figures", part.parameters, [folder / "accuracy_by_trick.csv", folder / "results_T1.csv"])
    soup = parse(write_report("pocket"))
    assert wrong_numbers(soup, folder / "results_T1.csv") == [] and soup.select("#T1 td.number")
    assert "synthlib reproduce pocket --only T2" in soup.select_one("#T2").get_text()
    assert "1 of 10" in soup.select_one(".tiles").get_text()


def test_a_part_that_a_later_whole_run_made_again_is_left_out_and_the_other_way_round(pocket, own_root):
    folder, part = own_root / "figures" / "pocket", plan_steps(read_experiment("pocket"), ["T1"])[-1]
    (folder / "results_T1.csv").write_text("old")
    finish("04_figures", part.parameters, [folder / "accuracy_by_trick.csv", folder / "results_T1.csv"])
    file = paths.resolve(part.run_dir) / RECEIPT
    file.write_text(file.read_text().replace("2026-01-02", "2026-01-01").replace("accuracy_by_trick.csv", "gone.csv"))
    soup = parse(write_report("pocket"))
    assert wrong_numbers(soup, folder / "results.csv") == [] and not soup.select('a[download="results_T1.csv"]')
    lines = (folder / "results.csv").read_text().splitlines(keepends=True)
    lines = [lines[0], *(line for line in lines if line.startswith("T1,"))]
    (folder / "results_T1.csv").write_text("".join(lines))
    finish("04_figures", part.parameters, [folder / "accuracy_by_trick.csv", folder / "results_T1.csv"])
    file.write_text(file.read_text().replace("2026-01-02", "2026-01-03"))
    soup = parse(write_report("pocket"))
    assert {a["download"] for a in soup.select(".tiles a")} == {"results.csv", "results_T1.csv"}
    assert (
        soup.select_one("#T1 dl.facts").get_text().count("2026-01-03") == 1 and len(soup.select("article.card")) == 10
    )


def test_a_part_of_older_code_or_cut_short_does_not_hide_the_rest(pocket, capsys):
    whole = paths.resolve(pocket[-1].run_dir)
    for name, text in (("T9", '{"notebook": "04_figures", "parameters": {"old": 1}}'), ("T8", '{"note')):
        (whole.parent / name).mkdir()
        (whole.parent / name / RECEIPT).write_text(text)
    assert len(parse(write_report("pocket")).select("#T1 td.number")) > 0
    (whole / RECEIPT).unlink()
    assert cli.main(["report", "pocket"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_making_the_page_leaves_every_receipt_whatever_is_damaged(pocket, own_root):
    """As after a clean-up of large files: reading an output as a step does would remove the receipt of what is damaged."""
    for step in pocket[:-1]:
        file = paths.resolve(step.run_dir) / RECEIPT
        receipt = json.loads(file.read_text())
        for name in ("shard-00000.parquet", "logits-r0.safetensors", "classes.json", "r0.safetensors"):
            receipt["outputs"][name] = {"bytes": 1, "sha256": "0"}
        file.write_text(json.dumps(receipt))
    before = {path: path.read_bytes() for path in own_root.glob("papermill_runs/**/receipt.json")}
    assert len(before) == len(pocket)
    soup = parse(write_report("pocket"))
    assert {path: path.read_bytes() for path in own_root.glob("papermill_runs/**/receipt.json")} == before
    assert "not shown" in soup.select_one("#gallery ~ .card").get_text()


def test_steps_that_were_made_again_or_are_gone_are_told(pocket):
    evaluated = "papermill_runs/pocket/03_eval/digits-merged-resnet"
    drawn = "papermill_runs/pocket/01_generate/digits-base_class"
    file = paths.resolve(evaluated) / RECEIPT
    file.write_text(file.read_text().replace('"sha256": "', '"sha256": "0', 1))
    (paths.resolve(drawn) / RECEIPT).unlink()
    soup = parse(write_report("pocket"))
    tiles = {dt.get_text(): dt.find_next("dd").get_text() for dt in soup.select(".tiles dt")}
    assert f"of {len(pocket) - 1} steps" in tiles["took"] and f"1 more are gone: {drawn}" in tiles["took"]
    assert tiles["out of date"].startswith("1 steps read something that was made again since: 04_figures/all.")
    assert "Out of date: 04_figures/all" in soup.select_one("#T1").get_text()
    assert f"No receipt is left of {drawn}" in soup.select_one("#T1").get_text()


def test_a_table_that_only_the_reference_has_differs(pocket, own_root):
    folder = own_root / "figures" / "pocket"
    (folder / "diversity_against_accuracy_rank_correlation.csv").unlink()
    finish("04_figures", pocket[-1].parameters, sorted(path for path in folder.iterdir() if path.is_file()))
    card = {card.id: card for card in run_page("pocket").cards}["F4"]
    assert card.verdict == "differs" and any("was not made" in one.detail for one in card.comparisons)


def test_claims_of_other_images_or_splits_are_claims_of_their_own(pocket, own_root):
    file = own_root / "figures" / "pocket" / "results.csv"
    lines = file.read_text().splitlines(keepends=True)
    again = [line.replace(",test,", ",rest,").replace("undecided", "held") for line in lines if line.startswith("T4,")]
    file.write_text("".join([*lines, *again]))
    finish("04_figures", pocket[-1].parameters, sorted(p for p in file.parent.iterdir() if p.is_file()))
    page = run_page("pocket")
    assert page.count_claims("held") == page.count_claims("undecided") == len(page.claims) // 2 > 0


def test_claims_that_were_not_run_are_not_counted_as_tested(pocket, own_root):
    file = own_root / "figures" / "pocket" / "results.csv"
    file.write_text(
        re.sub('"?undecided; (equal n_train|the least [^"]*)"?', "not run: why; not run: why", file.read_text())
    )
    finish("04_figures", pocket[-1].parameters, sorted(p for p in file.parent.iterdir() if p.is_file()))
    tiles = {dt.get_text(): dt.find_next("dd").get_text() for dt in parse(write_report("pocket")).select(".tiles dt")}
    assert (
        tiles["tests of claims"].startswith("none run")
        and "18 not run; 9 claims in 2 modes" in tiles["tests of claims"]
    )


def test_what_has_no_evaluation_mode_is_not_put_into_one():
    """CLIP and peers stand in rows of their own, with what they learned from."""
    lines = [
        line(trick="merged", evaluation_mode=mode, value="50", images="drawn", line=number)
        for number, mode in enumerate(("eval", "authors"), start=2)
    ]
    lines.append(
        line(where="method=CLIP zero-shot; classifier=CLIP RN50; learned_from=text and images", value="70", line=4)
    )
    (table,) = number_tables(pd.DataFrame(lines))
    rows = [dict(zip(table.headers, [cell.text for cell in row], strict=True)) for row in table.rows]
    assert [row["tested in"] for row in rows] == ["eval mode", "authors' mode", ""]
    assert rows[2]["trick"] == "CLIP zero-shot" and rows[2]["learned from"] == "text and images"
    assert rows[2]["accuracy, %"] == "70.0"


def test_a_long_table_of_several_data_sets_is_one_for_each():
    lines = [line(dataset=f"d{n // 80}", where=f"epoch={n}", value=str(n), line=n) for n in range(160)]
    tables = number_tables(pd.DataFrame(lines))
    assert [len(table.rows) for table in tables] == [80, 80] and tables[0].same == [("data set", "d0")]


def test_html_in_names_prompts_and_notes_is_text_on_the_page(pocket, own_root, monkeypatch):
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
    from synthlib.page import gallery, write

    picture = gallery.Picture("data:image/png;base64,AA", evil, evil, 7.5, 2**64 - 1, evil)
    rows = [gallery.ClassRow(evil, [[picture], [picture]])]
    mistake = gallery.Mistake(picture, evil, evil, 99.5, 0.1)
    monkeypatch.setattr(write, "galleries", lambda *_: [gallery.Gallery(evil, [evil, "merged"], rows, 1, evil)])
    monkeypatch.setattr(
        write, "mistakes", lambda *_: [gallery.Mistakes(evil, evil, 1, 2, [mistake], [mistake], "x", evil)]
    )
    file = own_root / "figures" / "pocket" / "results.csv"
    text = file.read_text().replace("class=three", f"class={evil.replace(chr(34), '')}")
    assert text != file.read_text()
    file.write_text(text)
    parameters = pocket[-1].parameters | {"note": evil}
    finish("04_figures", parameters, sorted((own_root / "figures" / "pocket").iterdir()))
    page = write_report("pocket")
    html, soup = page.read_text(), parse(page)
    assert "<script>alert" not in html and "<img src=x" not in html
    assert len(soup.select("script")) == 1 and not soup.select("[onerror]")
    for place in ("#gallery ~ .card h3", "#gallery ~ .card h4", ".cell > p", "#T1 .stand-in"):
        assert evil in soup.select_one(place).get_text(), place
    captions = [caption.get_text() for caption in soup.select(".picture figcaption")]
    assert all(evil in caption and str(2**64 - 1) in caption for caption in captions) and len(captions) == 4
    assert any("onerror" in cell.get_text() for cell in soup.select("#F8 td"))


def test_the_page_asks_for_nothing_and_allows_no_script_but_its_own(pocket):
    soup = parse(write_report("pocket"))
    assert not soup.select("link[rel=stylesheet], iframe, object, script[src]")
    for element in soup.select("[src]"):
        assert element["src"].startswith("data:")
    policy = soup.select_one("meta[http-equiv=Content-Security-Policy]")["content"]
    assert policy.startswith("default-src 'none'; img-src data:") and "script-src 'sha256-" in policy
    assert all(image["alt"] for image in soup.select("img"))


def test_the_index_leads_to_every_page(pocket, own_root):
    write_report("pocket")
    write_report("pocket_full", reference=True)
    index = own_root / "figures" / "index.html"
    links = [a["href"] for a in parse(index).select("h2 a")]
    assert links == ["pocket/report.html", "pocket_full/reference.html"]
    assert all((index.parent / link).is_file() for link in links)
    (own_root / "figures" / "pocket_full" / "reference.html").unlink()
    for name, text in (("old", '{"title": "of older code"}'), ("cut", '{"ti'), ("odd", "[]")):
        (own_root / "figures" / name).mkdir()
        (own_root / "figures" / name / "report.json").write_text(text)
        (own_root / "figures" / name / "report.html").write_text("x")
    write_report("pocket")
    assert [a["href"] for a in parse(index).select("h2 a")] == ["pocket/report.html"]
    said = json.loads((own_root / "figures" / "pocket" / "report.json").read_text())
    assert said["made"] == said["results"] == 10 and sum(said["verdicts"].values()) == 9


def test_a_page_without_receipts_names_the_command_that_makes_them(committed):
    soup, name, _ = committed
    assert f"synthlib reproduce {name}" in soup.select_one("main").get_text()
    assert not soup.select("details:has(dl)")
    with pytest.raises(InputError, match="no finished run"):
        run_page(name)
