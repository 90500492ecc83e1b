"""Averages of weights and of answers: what they are by hand, and that one file of several heads keeps the contract."""

import copy

import numpy as np
import pytest
import torch

from steps_material import SHAPE, Quarters, accuracy, material, trained
from vidlet.artifact import ArtifactNetwork, artifact_graph, torch_reference
from vidlet.artifact.classifier import check_parity
from vidlet.compression.average import average, average_weights, ensemble, fresh_start
from vidlet.errors import RecipeError
from vidlet.models.ensemble import Ensemble, mean_logits


def test_the_mean_of_probabilities_by_hand():
    answers = [torch.randn(4, 3), torch.randn(4, 3)]
    expected = (answers[0].softmax(1) + answers[1].softmax(1)) / 2
    torch.testing.assert_close(mean_logits(answers).softmax(1), expected)
    expected = (answers[0].sigmoid() + answers[1].sigmoid()) / 2
    torch.testing.assert_close(mean_logits(answers, multi_label=True).sigmoid(), expected)
    torch.testing.assert_close(mean_logits([1000 * a for a in answers]).isfinite().all(), torch.tensor(True))


def test_averaged_weights_are_the_mean_of_parameters_and_statistics():
    one, two = (copy.deepcopy(trained("gru").head) for _ in range(2))
    for value in two.state_dict().values():
        if value.is_floating_point():
            value.add_(2.0)
    mean = average_weights([one, two])
    for name, value in one.state_dict().items():
        expected = value + 1 if value.is_floating_point() else value
        torch.testing.assert_close(mean.state_dict()[name], expected)
    assert "classifier.0.running_var" in mean.state_dict()


def test_networks_that_differ_in_shape_are_not_averaged():
    with pytest.raises(RecipeError, match=r"average: classifier\.\S+ has the shapes"):
        average_weights([trained("gru").head, trained("mean").head])


@torch.no_grad()
def test_several_heads_as_one_stream_and_give_the_mean_answer():
    heads = [trained("grid-gru").head, trained("mean").head, trained("lstm").head]
    whole = Ensemble(heads).eval()
    clip = torch.randn(2, 6, *SHAPE)
    found, _ = whole(clip, whole.zero_state(2, clip))
    expected = sum(head(clip, head.zero_state(2, clip))[0].softmax(1) for head in heads) / 3
    torch.testing.assert_close(found.softmax(1), expected, atol=1e-6, rtol=1e-5)
    state = whole.zero_state(2, clip)
    assert list(state) == ["m0_previous", "m0_count", "m0_h", "m1_sum", "m1_count", "m2_h", "m2_c"]
    for t in range(6):
        logits, state = whole(clip[:, t : t + 1], state)
    torch.testing.assert_close(logits, found, atol=1e-5, rtol=0)


def test_an_ensemble_is_one_file_that_obeys_the_contract():
    network = ArtifactNetwork(Quarters(), Ensemble([trained("grid-gru").head, trained("mean").head]))
    data = artifact_graph(network, (4, 4)).SerializeToString()
    frames = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    check_parity(data, frames, torch_reference(network))


def test_a_fresh_start_keeps_the_scales_of_the_data_and_nothing_that_was_learned():
    head = trained("grid-gru").head
    head.standardize.scale[0] = 7.0
    fresh, again, other = fresh_start(head, 1), fresh_start(head, 1), fresh_start(head, 2)
    head.standardize.scale[0] = 1.0
    assert fresh.standardize.scale[0, 0, 0] == 7.0
    for name, value in fresh.named_parameters():
        assert not torch.equal(value, head.get_parameter(name))
        assert torch.equal(value, again.get_parameter(name))
        assert not torch.equal(value, other.get_parameter(name))


def test_an_ensemble_keeps_the_trained_head_and_adds_others_that_know_the_task():
    before = trained("grid-gru")
    after = ensemble(before, 2, material())
    first, second = after.head.heads()
    for name, value in before.head.state_dict().items():
        np.testing.assert_array_equal(first.state_dict()[name], value)
    assert not torch.equal(second.reduce.weight, first.reduce.weight)
    assert accuracy(type(before)(before.extractor, second)) >= 0.95
    assert accuracy(after) >= 0.95
    assert after.extractor is before.extractor


def test_the_average_of_several_tunings_has_the_size_of_one_and_knows_the_task():
    before = trained("grid-gru")
    after = average(before, 2, material())
    assert {n: p.shape for n, p in after.head.named_parameters()} == {
        n: p.shape for n, p in before.head.named_parameters()
    }
    assert accuracy(after) >= 0.95


@pytest.mark.parametrize("step", [average, ensemble])
@pytest.mark.parametrize("amount", [1, 2.5])
def test_a_number_of_networks_that_is_none_is_refused(step, amount):
    with pytest.raises(RecipeError, match=f"{step.__name__}: the amount is a number of networks"):
        step(trained(), amount, material())


def test_an_extractor_trained_with_its_head_is_not_shared():
    with pytest.raises(RecipeError, match="members share the extractor"):
        ensemble(trained(), 2, material("finetune"))
