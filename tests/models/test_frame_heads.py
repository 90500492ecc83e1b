"""The heads of YouTube-8M against their formulas: NetVLAD and the experts by hand, batch statistics, drawn frames."""

import numpy as np
import pytest
import torch

from vidlet.compression.average import fresh_start
from vidlet.errors import RecipeError
from vidlet.models import build_head
from vidlet.models.frame_parts import Experts, MixtureOfExperts, logit_of
from vidlet.recipe import Head

CLASSES = 5


def made(name, options, size=12, seed=0):
    torch.manual_seed(seed)
    head = build_head(Head(name, options), (size,), CLASSES)
    for module in head.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    return head.eval()


def clip(batch, frames, size=12, seed=1):
    return torch.randn(batch, frames, size, generator=torch.Generator().manual_seed(seed))


def array(tensor):
    return tensor.detach().numpy().astype(np.float64)


def norm(layer, x):
    scale = array(layer.weight) / np.sqrt(array(layer.running_var) + 1e-3)
    return (x - array(layer.running_mean)) * scale + array(layer.bias)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def slow_vlad(pool, frames):
    """NetVLAD frame by frame and cluster by cluster, as it is written in section 3 of the specification."""
    width, clusters = pool.centers.shape
    descriptor = np.zeros((width, clusters))
    for x in frames:
        score = norm(pool.assign.score.norm, x @ array(pool.assign.score.linear.weight).T)
        share = np.exp(score) / np.exp(score).sum()
        for v in range(clusters):
            descriptor[:, v] += share[v] * (x - array(pool.centers)[:, v])
    for v in range(clusters):
        descriptor[:, v] /= np.linalg.norm(descriptor[:, v])
    flat = np.array([descriptor[d, v] for d in range(width) for v in range(clusters)])  # D-major
    return flat / np.linalg.norm(flat)


def slow_experts(moe, h):
    gates = (h @ array(moe.gates.weight).T).reshape(CLASSES, moe.experts + 1)
    scores = (h @ array(moe.scores.weight).T + array(moe.scores.bias)).reshape(CLASSES, moe.experts)
    p = np.zeros(CLASSES)
    for v in range(CLASSES):
        weights = np.exp(gates[v]) / np.exp(gates[v]).sum()
        p[v] = sum(weights[m] * sigmoid(scores[v, m]) for m in range(moe.experts))  # the last gate adds 0
    return p


def test_gated_netvlad_is_the_formula_of_the_paper():
    head = made("netvlad", {"clusters": 4, "hidden": 6, "experts": 3, "audio": 4})
    video = clip(1, 7)
    x = array(video[0])
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    pooled = np.concatenate([slow_vlad(head.pools[0], x[:, :8]), slow_vlad(head.pools[1], x[:, 8:])])
    assert head.pools[1].centers.shape == (4, 2)  # half the clusters
    part = head.classifier
    h = np.clip(norm(part.norm, pooled @ array(part.hidden.weight).T), 0, 6)
    h = h @ array(part.widen.weight).T + array(part.widen.bias)
    h = h * sigmoid(norm(part.gating.norm, h @ array(part.gating.gate.weight).T))
    p = slow_experts(part.experts.classify, h)
    p = p * sigmoid(norm(part.experts.gating.norm, p @ array(part.experts.gating.gate.weight).T))
    logits, _ = head(video, head.zero_state(1, video))
    np.testing.assert_allclose(array(logits.sigmoid()[0]), p, atol=1e-6)


def test_the_light_variant_has_no_centers():
    head = made("netvlad", {"clusters": 4, "hidden": 6, "light": True})
    assert head.pools[0].centers is None
    assert set(head.state_shapes) == {"video_sum"}


def test_probabilities_survive_as_logits():
    p = torch.tensor([0.0, 1e-9, 1e-6, 1e-3, 0.3, 0.999, 1 - 1e-6, 1.0])
    torch.testing.assert_close(logit_of(p).sigmoid(), p, atol=2e-7, rtol=0)
    assert logit_of(p).isfinite().all()


@pytest.mark.parametrize("name", ["netvlad", "nextvlad", "bag-of-frames", "bag-of-words", "netfv"])
def test_a_fresh_start_draws_all_weights_anew_as_a_new_head_does(name):
    options = {"nextvlad": {"clusters": 8, "groups": 4}}.get(name, {})
    head = made(name, {"hidden": 64, **options})
    fresh = fresh_start(head, 7)
    for key, value in fresh.named_parameters():
        old = head.get_parameter(key)
        if value.ndim > 1 and value.numel() > 200:
            assert not torch.equal(value, old)
            assert value.detach().std().item() == pytest.approx(old.detach().std().item(), rel=0.25), key


def test_with_all_weight_on_the_dummy_every_class_is_impossible():
    moe = MixtureOfExperts(3, CLASSES, 2)
    with torch.no_grad():
        moe.gates.weight.zero_().unflatten(0, (CLASSES, 3))[:, 2] = 50
        moe.scores.weight.fill_(9)
    assert moe(torch.ones(1, 3)).max() < 1e-6


def test_no_experts_are_a_logistic_classifier():
    last = Experts(3, CLASSES, 0, 0.1)
    h = torch.randn(2, 3)
    torch.testing.assert_close(last(h), last.classify(h))


def test_the_fisher_vector_is_its_sums_over_frames():
    head = made("netfv", {"clusters": 3, "hidden": 6})
    video = clip(1, 9)
    x = array(video[0])
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    pool = head.pools[0]
    score = norm(pool.assign.score.norm, x @ array(pool.assign.score.linear.weight).T)
    share = np.exp(score) / np.exp(score).sum(1, keepdims=True)
    c, s = array(pool.centers), array(pool.root_deviation) ** 2 + 1e-6
    first = sum(share[t] * (x[t][:, None] - c) / s for t in range(9))
    second = sum(share[t] * ((x[t][:, None] - c) ** 2 / s**2 - 1) for t in range(9))
    parts = []
    for part in (first, second):
        flat = (part / np.linalg.norm(part, axis=0)).ravel()
        parts.append(flat / np.linalg.norm(flat))
    state = {key: torch.zeros(1, *shape) for key, shape in pool.state_shapes.items()}
    found, _ = pool(torch.from_numpy(x).float()[None], state, None)
    np.testing.assert_allclose(array(found[0]), np.concatenate(parts), atol=1e-5)


def test_the_statistics_baseline_is_mean_deviation_and_highest_values():
    head = made("pooled", {"top": 2, "experts": 0, "standardize": False})
    video = clip(2, 6)
    seen = {}
    head.experts.register_forward_hook(lambda module, given, out: seen.update(x=given[0]))
    head(video, head.zero_state(2, video))
    expected = [video.mean(1), (video.var(1, correction=0) + 1e-2).sqrt()]
    expected.append(video.sort(1, descending=True).values[:, :2].flatten(1))
    torch.testing.assert_close(seen["x"], torch.cat(expected, 1), atol=1e-5, rtol=0)
    head(video[:, :1], head.zero_state(2, video))  # one frame is its own highest value, twice
    torch.testing.assert_close(seen["x"][:, 24:], video[:, 0].repeat(1, 2))


def test_at_one_length_only_the_direction_of_a_frame_counts():
    head = made("pooled", {"top": 0, "experts": 0, "unit": True})
    head.calibrate(torch.full((12,), 0.5), torch.full((12,), 2.0))
    video = clip(2, 6)
    logits = head(video, head.zero_state(2, video))[0]
    longer = video * torch.rand(2, 6, 1).add(0.1)
    torch.testing.assert_close(head(longer, head.zero_state(2, longer))[0], logits, atol=1e-4, rtol=0)
    assert head.input.length(video).square().sum(2).allclose(torch.tensor(12 * 4.25))  # that of the training clips
    assert head.input.length(0 * video).abs().max() == 0


@pytest.mark.parametrize("name", ["netvlad", "nextvlad", "bag-of-frames", "bag-of-words", "netfv"])
def test_padding_does_not_enter_the_batch_statistics(name):
    options = {"netvlad": {"clusters": 4}, "nextvlad": {"clusters": 4, "groups": 4, "dropout": 0.0}}.get(name, {})
    first, second = clip(2, 3), clip(2, 3)
    padded = torch.cat([second, 1000 * torch.ones(2, 5, 12)], 1)
    mask = torch.arange(8)[None].expand(2, -1) < 3
    a, b = (made(name, {"hidden": 6, **options}).train() for _ in range(2))
    plain, _ = a(first, a.zero_state(2, first))
    masked, _ = b(padded, b.zero_state(2, padded), mask)
    torch.testing.assert_close(plain, masked, atol=1e-4, rtol=1e-4)
    for x, y in zip(a.buffers(), b.buffers(), strict=True):
        torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)


def test_drawn_frames_are_real_ones_and_only_in_training():
    head = made("netvlad", {"clusters": 4, "hidden": 6, "sampled": 50})
    frames = torch.arange(6.0)[None, :, None].expand(2, -1, 12) + 1
    mask = torch.arange(6)[None] < torch.tensor([[4], [2]])
    head.input.normalize = False
    head.train()
    drawn, left = head.input(frames, mask)
    assert left is None
    assert drawn.shape == (2, 50, 12)
    assert set(drawn[0, :, 0].tolist()) == {1, 2, 3, 4}
    assert set(drawn[1, :, 0].tolist()) == {1, 2}
    head.eval()
    assert head.input(frames, mask)[0].shape == (2, 6, 12)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("netvlad", {"audio": 12}, "audio must be 0 to 11 of 12 features, got 12"),
        ("netvlad", {"clusters": 0}, "clusters must be at least 1, got 0"),
        ("nextvlad", {"groups": 7}, "groups must divide 24 .* got 7"),
        ("bag-of-frames", {"pool": "sum"}, "pool must be max or mean, got 'sum'"),
        ("pooled", {"top": -1}, "top and hidden must be 0 or more"),
        ("netvlad", {"sampled": -1}, "sampled must be 0"),
    ],
)
def test_impossible_options_are_named(name, options, said):
    with pytest.raises(RecipeError, match=said):
        made(name, options)
