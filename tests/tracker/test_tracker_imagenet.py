import dataclasses
import hashlib
import http.server
import json
import threading

import pytest
import torch
import torchvision
from click.testing import CliRunner

from tracker import imagenet
from tracker.backbones import AlexNet, Pretrained
from tracker.cli import main
from tracker.models import ModelConfig, build, initialise
from tracker.weights import WeightsError, read_state

ROWS = {"alexnet": 10, "resnet18": 120, "resnet34": 216, "resnet50": 318, "mobilenet_v2": 306}
ENUMS = {
    "alexnet": "AlexNet_Weights", "resnet18": "ResNet18_Weights", "resnet34": "ResNet34_Weights",
    "resnet50": "ResNet50_Weights", "mobilenet_v2": "MobileNet_V2_Weights",
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_network(tmp_path, monkeypatch):
    """Leave torch's cache empty and the published addresses out of reach."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))
    for network in imagenet.BACKBONES.values():
        name = network.pretrained.url.rsplit("/", 1)[-1]
        monkeypatch.setattr(network, "pretrained", at(f"file:///nowhere/{name}", network))


def at(url: str, network=AlexNet) -> Pretrained:
    return dataclasses.replace(network.pretrained, url=url)


@pytest.fixture(scope="module")
def theirs():
    """Torchvision's networks by name, with statistics that are not the identity's."""
    made = {}

    def network(label):
        if label not in made:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(3)
                made[label] = getattr(torchvision.models, label)(weights=None)
            generator = torch.Generator().manual_seed(5)
            for module in made[label].modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    for tensor in (module.weight.data, module.bias.data, module.running_mean):
                        tensor.add_(torch.randn(tensor.shape, generator=generator) / 4)
                    module.running_var.uniform_(0.5, 2, generator=generator)
        return made[label]

    return network


def rearranged(label, network):
    """Change strides and paddings in torchvision's network; its layers by our names."""
    if label == "alexnet":
        layers = network.features
        layers[0].stride, layers[0].padding = (2, 2), (5, 5)
        layers[2].padding = layers[5].padding = 1
        return {"conv1": layers[2], "conv2": layers[5], "conv3": layers[7],
                "conv4": layers[9], "conv5": layers[11]}  # fmt: skip
    if label == "mobilenet_v2":
        layers = network.features
        layers[0][0].padding = layers[1].conv[0][0].padding = (0, 0)
        layers[7].conv[1][0].stride = layers[14].conv[1][0].stride = (1, 1)
        last = dict(zip(range(1, 9), (0, 1, 3, 6, 10, 13, 16, 17), strict=True))
        return {f"conv{ours}": layers[number] for ours, number in last.items()}
    network.conv1.padding = (0, 0)
    first = network.layer3[0]
    (first.conv2 if label == "resnet50" else first.conv1).stride = (1, 1)
    first.downsample[0].stride = (1, 1)
    return {"conv1": network.maxpool, "conv2": network.layer1,
            "conv3": network.layer2, "conv4": network.layer3}  # fmt: skip


@pytest.mark.parametrize("label", ROWS)
def test_converted_weights_compute_what_torchvision_computes(tmp_path, theirs, label):
    network = theirs(label).eval()
    torch.save(network.state_dict(), tmp_path / "theirs.pth")
    done = imagenet.convert(label, tmp_path / "theirs.pth", tmp_path / "out")
    assert done.tensors == ROWS[label]
    state = read_state(tmp_path / done.out)
    assert len(state) == ROWS[label]
    assert not any(name.startswith(("z_net.", "fc", "classifier")) for name in state)
    backbone = imagenet.BACKBONES[label]().eval()
    imagenet.load_backbone(backbone, state, "converted")
    seen = {}
    layers = rearranged(label, network)
    hooks = [
        layer.register_forward_hook(lambda m, i, out, name=name: seen.update({name: out.clone()}))
        for name, layer in layers.items()
    ]
    image = torch.randn(1, 3, 255, 255, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        got = backbone(image)
        network(image)
    for hook in hooks:
        hook.remove()
    assert list(got) == list(layers) == list(seen)
    for name, want in seen.items():
        assert got[name].shape == want.shape
        assert got[name].shape[1] == backbone.channels[name]
        torch.testing.assert_close(got[name], want, rtol=1e-4, atol=1e-4 * want.abs().max().item())
    assert want.shape[-2:] == (32, 32)


@pytest.mark.parametrize("label", ROWS)
def test_addresses_are_those_of_torchvision(monkeypatch, label):
    monkeypatch.undo()
    published = imagenet.BACKBONES[label].pretrained
    assert published.url == getattr(torchvision.models, ENUMS[label]).IMAGENET1K_V1.url


def invoke(*arguments, code=0):
    result = CliRunner().invoke(main, ["convert", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def test_a_converted_file_is_found_by_a_run(tmp_path, theirs):
    torch.save(theirs("resnet18").state_dict(), tmp_path / "mine.pth")
    out = tmp_path / "pretrained"
    arguments = ("--imagenet", "resnet18", "--from", tmp_path / "mine.pth", "--out", out)
    result = invoke(*arguments, "--json")
    (done,) = json.loads(result.stdout)["converted"]
    assert "is not torchvision's file: its SHA-256 begins" in result.stderr
    (path,) = out.iterdir()
    assert str(path) == done["out"]
    assert invoke(*arguments).stdout == f"{path}: 120 tensors; from mine.pth\n"  # again is safe
    assert list(out.iterdir()) == [path]
    config = ModelConfig(name="spm_r18c4", pretrained=str(out))
    model = build(config)
    report = initialise(model, config)
    assert report.source == f"ImageNet, {path} (without its conv5)"
    assert report.warning is None
    want = theirs("resnet18").state_dict()
    assert torch.equal(model.z_net.conv4[1].bn2.weight, want["layer3.1.bn2.weight"])
    assert torch.equal(model.z_net.conv3[0].downsample[1].running_var,
                       want["layer2.0.downsample.1.running_var"])  # fmt: skip
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="damaged, its SHA-256 begins"):
        initialise(model, config)


def test_files_without_batch_counters_are_complete(tmp_path, theirs):
    state = theirs("resnet18").state_dict()
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "new.pth")
    torch.save(old, tmp_path / "old.pth")
    for name in ("new", "old"):
        imagenet.convert("resnet18", tmp_path / f"{name}.pth", tmp_path / name)
    (a,), (b,) = (list((tmp_path / name).iterdir()) for name in ("new", "old"))
    assert read_state(a).keys() == read_state(b).keys()
    assert all(torch.equal(v, read_state(b)[k]) for k, v in read_state(a).items())


def test_all_takes_a_folder_and_tells_what_is_not_in_it(tmp_path, theirs):
    given, out = tmp_path / "given", tmp_path / "out"
    given.mkdir()
    for label in ("alexnet", "resnet18"):
        state = theirs(label).state_dict()
        torch.save(state, given / "x")
        digest = hashlib.sha256((given / "x").read_bytes()).hexdigest()[:8]
        name = f"{label}-{digest}.pth"
        (given / "x").rename(given / name)
        network = imagenet.BACKBONES[label]
        network.pretrained = at(f"file:///nowhere/{name}", network)
    result = invoke("--imagenet", "all", "--from", given, "--out", out, code=1)
    assert len(list(out.iterdir())) == 2
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    for line, label in zip(lines, ("resnet34", "resnet50", "mobilenet_v2"), strict=True):
        assert f"no such file; it is published as file:///nowhere/{label}-" in line
    assert (
        "is no folder, and 'all' needs one"
        in invoke("--imagenet", "all", "--from", given / name, code=2).stderr
    )


def test_without_network_it_says_what_to_fetch_and_what_to_do_then(tmp_path):
    result = invoke("--imagenet", "mobilenet_v2", "--out", tmp_path / "out", code=1)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    name = "mobilenet_v2-b0353104.pth"
    assert f"file:///nowhere/{name} could not be fetched" in result.stderr
    assert f"python -m tracker convert --imagenet mobilenet_v2 --from {name}" in result.stderr
    assert not (tmp_path / "out").exists()


def test_other_weights_are_not_put_beside_the_first(tmp_path, theirs):
    state = dict(theirs("alexnet").state_dict())
    for number in (1, 2):
        torch.save({**state, "features.0.bias": torch.full((64,), number / 2)},
                   tmp_path / f"{number}.pth")  # fmt: skip
    arguments = ("--imagenet", "alexnet", "--out", tmp_path / "out", "--from")
    invoke(*arguments, tmp_path / "1.pth")
    result = invoke(*arguments, tmp_path / "2.pth", code=1)
    assert "other weights of alexnet were converted before; delete that file" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--imagenet", "resnet"], "'resnet' is not one of alexnet, resnet18"),
        (["--imagenet", "all", "--force"], "no meaning with --imagenet"),
        (["--from", "x.pth"], "Give --from and --out, or --imagenet"),
        ([], "Give --from and --out, or --imagenet"),
    ],
)
def test_wrong_usage(arguments, message):
    assert message in invoke(*arguments, code=2).stderr


def test_files_of_another_network_or_damaged_ones_are_refused(tmp_path, theirs):
    state = dict(theirs("resnet18").state_dict())
    out = tmp_path / "out"
    torch.save(state, tmp_path / "r.pth")
    with pytest.raises(WeightsError, match=r"not torchvision's resnet34: missing: conv2\.2"):
        imagenet.convert("resnet34", tmp_path / "r.pth", out)
    torch.save({**state, "layer1.9.extra": torch.zeros(1)}, tmp_path / "more.pth")
    with pytest.raises(WeightsError, match="not torchvision's resnet18: 121 tensors instead of"):
        imagenet.convert("resnet18", tmp_path / "more.pth", out)
    state["layer1.0.conv1.weight"] = torch.full((64, 64, 3, 3), float("nan"))
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(WeightsError, match=r"NaN or infinite numbers in conv2\.0\.conv1\.weight"):
        imagenet.convert("resnet18", tmp_path / "nan.pth", out)
    (tmp_path / "nan.pth").rename(tmp_path / "resnet18-f37072fd.pth")
    with pytest.raises(WeightsError, match="damaged, its SHA-256 begins"):
        imagenet.convert("resnet18", tmp_path / "resnet18-f37072fd.pth", out)
    assert not out.exists()


@pytest.fixture
def server(tmp_path):
    """Serve a file, half of one, a stall, or 404, over real HTTP on this machine."""
    content = b"weights" * 1000
    digest = hashlib.sha256(content).hexdigest()[:8]
    release = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if "gone" in self.path:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            half = "half" in self.path or "stall" in self.path
            self.wfile.write(content[: len(content) // 2] if half else content)
            self.wfile.flush()
            if "stall" in self.path:
                release.wait(20)

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}", digest, content
    release.set()
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def test_a_download_is_checked_kept_and_not_repeated(server, tmp_path):
    address, digest, content = server
    path = imagenet.fetch(at(f"{address}/alexnet-{digest}.pth"))
    assert path == tmp_path / "torch_home" / "hub" / "checkpoints" / f"alexnet-{digest}.pth"
    assert path.read_bytes() == content
    assert imagenet.fetch(at(f"http://127.0.0.1:1/alexnet-{digest}.pth")) == path


@pytest.mark.parametrize("fault", ["half", "stall", "gone", "other", "refused"])
def test_a_download_that_fails_is_known_and_leaves_nothing(server, tmp_path, fault):
    address, digest, _ = server
    url = f"{address}/{fault}/alexnet-{digest}.pth"
    if fault == "other":
        url = f"{address}/alexnet-0000000a.pth"
    if fault == "refused":
        url = "http://127.0.0.1:1/alexnet-0000000a.pth"
    with pytest.raises(imagenet.UnavailableWeights, match="could not be fetched"):
        imagenet.fetch(at(url), stall_s=0.3)
    assert not [p for p in (tmp_path / "torch_home").rglob("*") if p.is_file()]


def test_a_download_that_drips_ends_at_its_limit(server):
    address, digest, _ = server
    with pytest.raises(imagenet.UnavailableWeights, match="not complete"):
        imagenet.fetch(at(f"{address}/alexnet-{digest}.pth"), limit_s=-1)
