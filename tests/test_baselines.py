"""Baselines: CLIP zero-shot as its paper says, with weights that are named, checked and safe to open; a referee of labels."""

import json
import pickle
import subprocess
import sys

import numpy as np
import open_clip
import pandas as pd
import pyarrow as pa
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image
from processes import Gate, exit_code, forked
from safetensors.torch import load_file, save_file
from test_hub import MODEL, refused, server  # noqa: F401  the hub on loopback

from synthlib import cli, cli_classifiers, hub, paths
from synthlib.data.datasets import read_spec
from synthlib.data.shards import encode_png, shard_bytes
from synthlib.evaluation.clip_zero_shot import (
    Clip,
    Preparation,
    class_embeddings,
    clip_zero_shot,
    load_clip,
    prepare,
    read_prompts,
)
from synthlib.evaluation.referee import glyph_logits
from synthlib.inputs import InputError
from synthlib.locks import claim_output
from synthlib.results.baselines import read_clip
from synthlib.results.label_noise import label_noise, noise_view

WORDS, TEMPLATES = ["apple", "lawn mower", "sea"], ["a photo of a {}.", "{}!"]
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module", autouse=True)
def tiny_models(tmp_path_factory):
    """A tiny network that open_clip knows by the names tiny-clip and tiny-clip-quickgelu."""
    folder = tmp_path_factory.mktemp("configs")
    for name, quick in (("tiny-clip", False), ("tiny-clip-quickgelu", True)):
        (folder / f"{name}.json").write_text(json.dumps(TINY | {"quick_gelu": quick}))
    open_clip.add_model_config(folder)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights of the tiny network, in a local file."""
    torch.manual_seed(0)
    network = open_clip.create_model("tiny-clip")
    for parameter in network.parameters():  # open_clip starts with weights so small that no prompt differs from another
        parameter.data += 0.3 * torch.randn_like(parameter)
    network.logit_scale.data.fill_(2.0)
    save_file(network.state_dict(), file := tmp_path_factory.mktemp("weights") / "tiny.safetensors")
    return file


def noise(*shape, seed=0):
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def one_line(call, *given, **more):
    """What a call says, in one line, when it refuses."""
    with pytest.raises(InputError) as caught:
        call(*given, **more)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def by_hand(weights, model, images):
    """Section 3.1.4 of the CLIP paper, one image, one class, one template after the other."""
    network = open_clip.create_model(model, pretrained=str(weights)).eval()
    see, read = image_transform(32, is_train=False), open_clip.get_tokenizer("tiny-clip")
    logits = torch.empty(len(images), len(WORDS))
    with torch.no_grad():
        for k, word in enumerate(WORDS):
            each = [network.encode_text(read([template.replace("{}", word)]))[0] for template in TEMPLATES]
            text = sum(vector / vector.norm() for vector in each) / len(each)
            text = text / text.norm()
            for n, image in enumerate(images):
                seen = network.encode_image(see(Image.fromarray(image.permute(1, 2, 0).numpy()))[None])[0]
                logits[n, k] = np.exp(2.0) * (seen / seen.norm()) @ text
    return logits


@pytest.mark.parametrize("model", ["tiny-clip-quickgelu", "tiny-clip-gelu"])
def test_zero_shot_logits_are_those_computed_by_hand_with_the_activation_named(weights, model):
    images = noise(5, 3, 32, 32)
    logits = clip_zero_shot(images, WORDS, TEMPLATES, model, str(weights), "cpu", batch_size=2)
    assert logits.shape == (5, 3) and logits.dtype == torch.float32
    torch.testing.assert_close(logits, by_hand(weights, model.removesuffix("-gelu"), images), rtol=1e-4, atol=1e-4)
    other = "tiny-clip" if model.endswith("quickgelu") else "tiny-clip-quickgelu"
    assert (logits - by_hand(weights, other, images)).abs().max() > 0.01  # the activation matters


@pytest.mark.parametrize(
    ("size", "shape", "squash", "interpolation"),
    [(224, (32, 32), False, "bicubic"), (224, (512, 512), False, "bicubic"), (224, (225, 300), False, "bicubic"),
     (32, (32, 32), False, "bicubic"), (224, (64, 90), True, "bilinear")],
)  # fmt: skip
def test_images_are_prepared_as_open_clips_own_transform_does_image_by_image(size, shape, squash, interpolation):
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    images = noise(6, 3, *shape)
    mode = "squash" if squash else "shortest"
    theirs = image_transform(size, False, mean, std, resize_mode=mode, interpolation=interpolation)
    theirs = torch.stack([theirs(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in images])
    ours = prepare(images, Preparation(size, mean, std, interpolation, squash))
    assert ours.shape == theirs.shape == (6, 3, size, size)
    levels = (ours - theirs).abs() * torch.tensor(std).view(3, 1, 1) * 255  # in 8-bit values, as prepare states
    assert levels.max() < 2.01
    assert (levels > 0.01).float().mean() < (0.007 if interpolation == "bicubic" else 0.05)


def test_a_local_file_needs_a_model_name_that_says_its_activation(weights):
    said = one_line(load_clip, "tiny-clip", str(weights), "cpu")
    assert "tiny-clip-quickgelu (OpenAI's weights) or tiny-clip-gelu" in said
    assert load_clip("tiny-clip-quickgelu", str(weights), "cpu").quick_gelu
    assert not load_clip("tiny-clip-gelu", str(weights), "cpu").quick_gelu


class Evil:
    def __reduce__(self):
        return open, ("evil-was-here", "w")


def written(folder, name):
    """A file that is no weights of the tiny network, in some way."""
    file = folder / name
    if name == "other.safetensors":
        save_file(torch.nn.Linear(2, 2).state_dict(), file)
    elif name == "code.pt":
        file.write_bytes(pickle.dumps({"state_dict": Evil()}))
    elif name == "script.pt":
        torch.jit.script(torch.nn.Linear(2, 2)).save(file)
    elif name == "list.pt":
        torch.save([1, 2], file)
    elif name == "empty.pt":
        file.touch()
    elif name != "missing.safetensors":
        file.write_text("not weights")
    return file


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["text.safetensors", "text.pt", "other.safetensors", "code.pt", "script.pt", "list.pt", "empty.pt",
             "missing.safetensors"])  # fmt: skip
def test_a_file_that_holds_no_weights_of_the_network_is_one_line_and_never_run(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    said = one_line(load_clip, "tiny-clip-quickgelu", str(written(tmp_path, name)), "cpu")
    assert "no weights" in said and "expected" in said
    assert not (tmp_path / "evil-was-here").exists()


def test_what_clip_cannot_be_is_one_line(weights):
    assert "did you mean tiny-clip" in one_line(load_clip, "tiny-clop", str(weights), "cpu")
    assert "one of the tags: openai, yfcc15m, cc12m" in one_line(load_clip, "RN50", "openia", "cpu")
    said = one_line(load_clip, "ViT-B-32-gelu", "openai", "cpu")  # no weights of OpenAI's are for GELU
    assert "no weights 'openai' of ViT-B-32-gelu" in said and "laion2b_e16" in said and "openai," not in said
    assert "tokenizer from elsewhere" in one_line(load_clip, "ViT-B-16-SigLIP", "webli", "cpu")
    clip = load_clip("tiny-clip-gelu", str(weights), "cpu")
    assert "expected one {} in each" in one_line(class_embeddings, clip, WORDS, ["a photo"])
    assert "expected words for each class" in one_line(class_embeddings, clip, ["cat", " "], TEMPLATES)


@pytest.fixture
def tagged(server, weights, monkeypatch):  # noqa: F811
    """The tiny network has a tag "openai" with QuickGELU, whose weights are on the hub on loopback."""
    from open_clip.pretrained import _PRETRAINED, _pcfg

    monkeypatch.setitem(_PRETRAINED, "tiny-clip", {"openai": _pcfg(hf_hub=f"{MODEL}/", quick_gelu=True)})
    server.files["open_clip_model.safetensors"] = weights.read_bytes()
    return server


def test_a_tags_weights_are_announced_fetched_alone_and_used_with_their_activation(tagged, capsys):
    clip = load_clip("tiny-clip", "openai", "cpu")
    line = capsys.readouterr().out
    assert line.startswith(f"Fetching {MODEL} at 1111111: open_clip_model.safetensors, ")
    assert "licence creativeml-openrail-m" in line and tagged.address in line and line.count("\n") == 1
    assert tagged.files_asked() == ["open_clip_model.safetensors"]
    assert clip.quick_gelu and "openai (open_clip_model.safetensors of maker/tiny-sd)" in clip.label()
    tagged.asked.clear()
    load_clip("tiny-clip", "openai", "cpu")
    assert tagged.asked == [] and capsys.readouterr().out == ""


def test_offline_says_which_file_of_which_repository_and_that_a_local_one_will_do(tagged, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = one_line(load_clip, "tiny-clip", "openai", "cpu")
    assert f"`hf download {MODEL} open_clip_model.safetensors --revision main --local-dir FOLDER`" in said
    assert "give FOLDER/open_clip_model.safetensors in its place" in said


def test_one_file_is_resumed_verified_and_found_again(server):  # noqa: F811
    name = "unet/diffusion_pytorch_model.bin"
    server.files[name] = b"n" * 400_000
    server.drops[name] = 1000
    assert "what came is kept" in one_line(hub.fetch_one, MODEL, name)
    server.drops.clear()
    server.ranges.clear()
    file = hub.fetch_one(MODEL, name)
    assert file.read_bytes() == server.files[name] and server.ranges[0][1] > 300_000
    server.asked.clear()
    assert hub.fetch_one(MODEL, name) == file and server.asked == []
    server.sent_instead["README.md"] = b"y" * 50_000
    assert "README.md of maker/tiny-sd came damaged" in one_line(hub.fetch_one, MODEL, "README.md")
    assert hub.fetch_one(MODEL, "none.safetensors", instead="v1-4.ckpt").name == "v1-4.ckpt"
    assert "has no none.txt or nothing.txt" in one_line(hub.fetch_one, MODEL, "none.txt", instead="nothing.txt")
    assert hub.find(MODEL) is None  # a repository of which one file is here is no whole model


def test_the_prompts_are_the_clip_papers_for_every_class_in_the_data_sets_order():
    for dataset, templates in (("cifar10", 18), ("cifar100", 18), ("eurosat", 3), ("digits", 1)):
        classes = list(read_spec(dataset).classes)
        words, found = read_prompts(dataset, classes)
        assert len(words) == len(classes) and len(found) == templates
        assert all(template.count("{}") == 1 for template in found)
    classes = list(read_spec("eurosat").classes)
    assert dict(zip(classes, read_prompts("eurosat", classes)[0], strict=True))["SeaLake"] == "lake or sea"
    assert read_prompts("eurosat", classes[::-1])[0] == read_prompts("eurosat", classes)[0][::-1]
    assert read_prompts("cifar100", ["aquarium_fish"], "ours") == (["aquarium fish"], ["an image of a {}"])
    assert "no words for class unicorn" in one_line(read_prompts, "cifar10", ["cat", "unicorn"])
    assert "prompts ours" in one_line(read_prompts, "own", ["cat"])
    assert "unknown prompts 'mine'" in one_line(read_prompts, "cifar10", ["cat"], "mine")


def packed(path, images, labels, classes):
    """A packed .npz of images uint8 [N, 3, H, W]."""
    encoded = [encode_png(image.permute(1, 2, 0).numpy()) for image in images]
    offsets = np.cumsum([0, *map(len, encoded)])
    data = np.frombuffer(b"".join(encoded), np.uint8)
    np.savez(path, labels=np.array(labels), offsets=offsets, encoded=data, class_names=np.array(classes),
             provenance=np.array(json.dumps({"data set": "made by a test"})))  # fmt: skip
    return path


def test_the_clip_command_writes_what_its_numbers_can_be_computed_from(weights, tmp_path, capsys):
    classes = list(read_spec("cifar10").classes)
    images, labels = noise(20, 3, 32, 32), [n % 10 for n in range(20)]
    place = packed(tmp_path / "real.npz", images, labels, classes)
    given = ["--model", "tiny-clip-quickgelu", "--weights", str(weights), "--device", "cpu", "--batch_size", "7"]
    out = tmp_path / "out"
    told = ["--dataset", "cifar10", "--real_data_location", str(place), "--out", str(out)]
    assert cli.main(["baseline", "clip", *told, *given]) == 0
    said = capsys.readouterr().out
    row = pd.read_csv(out / "results.csv").iloc[0]
    kept, record = load_file(out / "logits.safetensors"), json.loads((out / "record.json").read_text())
    words, templates = read_prompts("cifar10", classes)
    again = clip_zero_shot(images, words, templates, "tiny-clip-quickgelu", str(weights), "cpu")
    torch.testing.assert_close(kept["logits"], again, rtol=1e-4, atol=1e-4)
    assert kept["labels"].tolist() == labels
    right = int((again.argmax(1) == torch.tensor(labels)).sum())
    assert row.top1_percent == 5 * right and row.top1_low < row.top1_percent < row.top1_high
    fifth = int((again.topk(5).indices == torch.tensor(labels)[:, None]).sum())
    assert row.top5_percent == 5 * fifth and row.n_test == 20 and row.interval_method == "Wilson, 95 %, over 20 images"
    assert said.count("   chance 10.0 %\n") == 1 and said.count("   chance 50.0 %\n") == 1
    assert f"{5 * right:.1f} % [" in said and "published  not available" in said
    assert "weights of the local file tiny.safetensors" in said and record["weights_sha256"][:12] in said
    assert record["templates"] == templates and record["class_words"] == words and record["quick_gelu"] is True
    assert str(tmp_path) not in (out / "record.json").read_text() + (out / "results.csv").read_text()


def test_the_clip_command_tells_runs_apart_and_says_what_is_wrong_in_one_line(weights, own_root, capsys):
    given = ["baseline", "clip", "--dataset", "digits", "--model", "tiny-clip-gelu", "--device", "cpu"]
    assert cli.main([*given, "--weights", str(weights)]) == 0
    assert cli.main([*given, "--weights", str(weights), "--prompts", "ours"]) == 0
    names = {path.name for path in (own_root / "papermill_runs" / "baselines" / "clip").iterdir()}
    assert len(names) == 2 and all(name.startswith("digits-tiny-clip-gelu-") for name in names)
    assert read_clip(paths.baselines_dir())["n_classes"].tolist() == [10, 10]
    for name, old, new in (
        ("results.csv", b"digits,", b"digit5,"),
        ("logits.safetensors", b"F32", b"I32"),
        ("record.json", b"outputs_sha256", b"outputs"),
        ("record.json", b'"outputs_sha256": {', b'"outputs_sha256": [], "outputs": {'),
    ):
        file = paths.baselines_dir() / "clip" / min(names) / name
        file.write_bytes((whole := file.read_bytes()).replace(old, new, 1))
        assert "run that command again" in one_line(read_clip, paths.baselines_dir())
        file.write_bytes(whole)
    capsys.readouterr()
    assert cli.main([*given, "--weights", "nothing.safetensors"]) == 2
    assert cli.main([*given, "--weights", str(weights), "--batch_size", "0"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "no weights 'nothing.safetensors'" in said[0] and "batch_size is 0" in said[1]


def a_clip(model, weights, quick_gelu=True):
    return Clip(torch.nn.Identity(), None, None, model, weights, "0" * 64, quick_gelu)


def test_published_values_stand_beside_openais_weights_of_the_same_network_and_data_set_only():
    said = cli_classifiers._published_said("cifar10", a_clip("RN50", "openai (a of b)"))
    assert "75.6 % (CLIP paper Table 11" in said and "71.57 % (open_clip docs" in said and "OpenAI's weights" in said
    assert "91.3 %" in cli_classifiers._published_said("cifar10", a_clip("ViT-B-32", "of the local file a"))
    for dataset, model, weights, quick in (
        ("digits", "RN50", "openai (a of b)", True),
        ("cifar10", "RN50", "yfcc15m (a of b)", False),
        ("cifar10", "RN50", "of the local file a", False),
        ("cifar10", "RN101", "openai (a of b)", True),
    ):
        assert cli_classifiers._published_said(dataset, a_clip(model, weights, quick)) == "not available"


def test_label_noise_of_six_images_is_what_one_counts_by_hand():
    said = torch.tensor([0, 1, 1, 1, 0, 2])
    labels = torch.tensor([0, 0, 1, 1, 1, 0])
    tricks = ["plain", "plain", "plain", "many", "many", "many"]
    logits = torch.nn.functional.one_hot(said, 3).float()
    table = label_noise(logits, labels, tricks, ["cat", "dog", "cow"], 2.5)
    counted = {(row.group, row._2): (row.disagree, row.n) for row in table.itertuples()}
    assert counted == {
        ("all", "all"): (3, 6), ("all", "cat"): (2, 3), ("all", "dog"): (1, 3),
        ("plain", "all"): (1, 3), ("plain", "cat"): (1, 2), ("plain", "dog"): (0, 1),
        ("many", "all"): (2, 3), ("many", "cat"): (1, 1), ("many", "dog"): (1, 2),
    }  # fmt: skip
    first = table.iloc[0]
    assert first.disagree_percent == 50 and first.low_percent == pytest.approx(18.7616, abs=1e-3)
    assert first.high_percent == pytest.approx(81.2384, abs=1e-3) and (table.referee_error_percent == 2.5).all()
    view = noise_view(table)
    assert view.columns.tolist() == ["all", "plain", "many"] and view.index.tolist() == ["all", "cat", "dog"]
    assert view.loc["all", "all"] == "3 of 6: 50.0 [18.8, 81.2]" and view.loc["dog", "plain"].startswith("0 of 1: 0.0 ")
    alone = label_noise(logits, labels, ["plain"] * 6)
    assert alone["group"].unique().tolist() == ["plain"] and alone["class"].tolist() == ["all", "0", "1"]
    assert alone.referee_error_percent.isna().all()
    assert "expected one each" in one_line(label_noise, logits, labels, tricks[:5])
    assert "judge them with a referee of this data set" in one_line(label_noise, logits[:, :1], labels, tricks)


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory):
    """A set of 40 drawn digits in two shards, half of each trick; the labels of `multi_domain` are all one too high."""
    from synthlib.pocket.glyphs import CLASSES, HELD_OUT_FONTS, draw_glyphs

    drawn = draw_glyphs(40, 5, HELD_OUT_FONTS)
    labels = [(int(label) + (n >= 20)) % 10 for n, label in enumerate(drawn.labels)]
    tricks = ["base_class"] * 20 + ["multi_domain"] * 20
    folder = tmp_path_factory.mktemp("sets") / "my_glyphs"
    folder.mkdir()
    for part in range(2):
        rows = range(20 * part, 20 * part + 20)
        table = pa.table({"image_id": [f"g{n}" for n in rows], "label": [labels[n] for n in rows],
                          "trick": [tricks[n] for n in rows]})  # fmt: skip
        images = [encode_png(drawn.images[n].permute(1, 2, 0).numpy()) for n in rows]
        (folder / f"shard-{part}.parquet").write_bytes(shard_bytes(table, images, list(CLASSES)))
    return folder, drawn.images, torch.tensor(labels), tricks


def test_the_glyph_referee_finds_the_trick_whose_labels_are_wrong(glyphs, own_root, capsys):
    folder, images, labels, tricks = glyphs
    assert cli.main(["baseline", "referee", str(folder), "--dataset", "digits", "--referee", "glyph"]) == 0
    said = capsys.readouterr().out
    out = own_root / "papermill_runs" / "baselines" / "referee" / "digits-my_glyphs-glyph"
    table = pd.read_csv(out / "label_noise.csv")
    expected = label_noise(glyph_logits(images), labels, tricks, list(read_spec("digits").classes))
    shares = table[table["class"] == "all"].set_index("group")["disagree_percent"]
    assert shares.to_dict() == expected[expected["class"] == "all"].set_index("group")["disagree_percent"].to_dict()
    assert shares["base_class"] < 20 and shares["multi_domain"] > 80
    each = pd.read_csv(out / "images.csv")
    assert (each["class"] != each["referee_class"]).sum() == table.iloc[0]["disagree"] and len(each) == 40
    assert 0 < table["referee_error_percent"][0] < 100  # on the real digits, which it never saw
    assert "Its own error on 1,197 real images of digits test" in said and "base_class" in said
    assert json.loads((out / "record.json").read_text())["referee_error"]["mean"] == table["referee_error_percent"][0]


def test_clip_is_a_referee_too_and_says_when_its_own_error_is_not_known(glyphs, weights, tmp_path, capsys):
    given = ["--model", "tiny-clip-gelu", "--weights", str(weights), "--device", "cpu", "--out", str(tmp_path / "out")]
    nowhere = ["--real_data_location", str(tmp_path / "nowhere")]
    told = ["baseline", "referee", str(glyphs[0]), "--dataset", "digits", "--referee", "clip"]
    assert cli.main([*told, *given, *nowhere]) == 0
    said = capsys.readouterr().out
    assert "Its own error on real images: not available" in said and "CLIP tiny-clip, weights of the local file" in said
    table = pd.read_csv(tmp_path / "out" / "label_noise.csv")
    assert (table["referee_error_percent"] == "not available").all()
    words, templates = read_prompts("digits", list(read_spec("digits").classes))
    logits = clip_zero_shot(glyphs[1], words, templates, "tiny-clip-gelu", str(weights), "cpu")
    assert table.iloc[0]["disagree"] == int((logits.argmax(1) != glyphs[2]).sum())


@pytest.mark.parametrize(
    ("dataset", "referee", "expected"),
    [
        ("cifar10", "glyph", "knows digits only"),
        ("digits", "nobody", "unknown --referee 'nobody'"),
        ("digits", "none.safetensors", "no checkpoint none.safetensors"),
        ("eurosat", "checkpoint", "unknown --referee"),
    ],
)
def test_a_referee_that_cannot_judge_is_one_line(glyphs, capsys, dataset, referee, expected):
    assert cli.main(["baseline", "referee", str(glyphs[0]), "--dataset", dataset, "--referee", referee]) == 2
    said = capsys.readouterr().err
    assert expected in said and said.count("\n") == 1


def test_the_glyph_referee_refuses_images_of_another_size():
    assert "expects 32 x 32" in one_line(glyph_logits, noise(2, 3, 64, 64))


def test_the_command_line_stays_light():
    heavy = "{'torch', 'open_clip', 'pandas', 'torchvision'}"
    said = f"import sys, synthlib.cli; synthlib.cli._parser(); print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", said], capture_output=True, text=True).stdout.strip() == "set()"


def test_of_two_baselines_into_one_folder_one_is_refused(tmp_path, capsys):
    gate = Gate()

    def holds():
        with claim_output(tmp_path / "out"):
            gate.wait()

    other = forked(holds)
    gate.reached()
    command = ["baseline", "referee", str(tmp_path), "--dataset", "digits", "--referee", "glyph"]
    assert cli.main([*command, "--out", str(tmp_path / "out")]) == 2
    assert f"process {other}" in capsys.readouterr().err
    gate.let_go()
    assert exit_code(other) == 0
