"""Networks taken as a row of stages."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zoo.core.rng import Key, keyed_generators
from zoo.nn.stages import Residual, Stages


@pytest.fixture(autouse=True)
def _keyed():
    with keyed_generators(Key(0)):
        yield


def names(stages: Stages) -> list[str]:
    return [type(module).__name__ for module in stages.modules]


def test_sequentials_are_flattened_unless_they_do_more() -> None:
    class Louder(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    hooked = nn.Sequential(nn.Tanh())
    hooked.register_forward_hook(lambda module, inputs, y: -y)
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), Louder(nn.Linear(2, 2)), hooked)
    stages = Stages(model)
    assert names(stages) == ["Linear", "ReLU", "Louder", "Sequential"]
    assert len(stages) == 4
    stages.check(torch.ones(3, 2))
    with pytest.raises(TypeError, match="without hooks"):
        Stages(hooked)


def test_a_residual_block_adds_its_shortcut() -> None:
    x = torch.ones(1, 2)
    assert torch.equal(Residual([nn.Identity()])(x), 2 * x)
    assert torch.equal(Residual([nn.Threshold(2, 5)], nn.Flatten())(x), x + 5)


@pytest.mark.parametrize(
    "first", [nn.ReLU(inplace=True), nn.Sequential(nn.Identity(), nn.LeakyReLU(0.1, inplace=True))]
)
def test_a_way_that_works_in_place_leaves_the_other_what_it_is_given(first: nn.Module) -> None:
    x = -torch.ones(1, 2)
    expected = x + first(x.clone())
    assert torch.equal(Residual([first])(x), expected)
    assert torch.equal(Residual([nn.Identity()], first)(x), expected)
    assert torch.equal(x, -torch.ones(1, 2))
    with torch.inference_mode():
        assert torch.equal(Residual([first])(-torch.ones(1, 2)), expected)


def test_a_way_that_writes_and_does_not_say_so_is_refused() -> None:
    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2)

    with pytest.raises(ValueError, match="must not write"):
        Residual([Doubled()])(torch.ones(1, 2))
    assert torch.equal(Residual([nn.Tanh(), Doubled()])(torch.zeros(1, 2)), torch.zeros(1, 2))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_torchscript_is_a_stage_if_it_has_no_buffers() -> None:
    model = nn.Sequential(nn.Linear(3, 4), torch.jit.script(nn.Linear(4, 2)))
    assert len(Stages(model)) == 2
    with pytest.raises(TypeError, match="made from BatchNorm1d"):
        Stages(nn.Sequential(nn.Linear(3, 4), torch.jit.script(nn.BatchNorm1d(4))))


def test_modules_without_parameters_are_stages_like_others() -> None:
    model = nn.Sequential(nn.Flatten(), nn.ReLU())
    stages = Stages(model)
    stages.check(torch.ones(2, 3, 3))
    assert len(stages) == 2


def test_checking_leaves_everything_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    Stages(model, list(model)).check(torch.eye(4), Key(1))
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_stages_that_are_not_all_of_the_network_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    with pytest.raises(ValueError, match="stages in their order"):
        Stages(model, [model[0], model[2]]).check(torch.eye(4))
    with pytest.raises(ValueError, match=r"none holds '2\.weight'"):
        Stages(model, [model[0], model[1]])
    with pytest.raises(ValueError, match="'weight' in stages 0 and 1"):
        Stages(model, [model[0], model[0], model[2]])
    with pytest.raises(TypeError, match="got Linear"):
        Stages(nn.Linear(2, 2))
