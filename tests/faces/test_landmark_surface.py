import pytest
import torch
from toy_head import toy_arrays

from portraitzoo.faces.flame import FLAME
from portraitzoo.faces.flame_head import FlameHead
from portraitzoo.faces.landmark_surface import Skin, SurfaceForm
from portraitzoo.faces.rotations import rotation_matrix

torch.set_num_threads(1)


def normal(name: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(name))


def turned(axis_angle: torch.Tensor) -> torch.Tensor:
    return rotation_matrix(axis_angle).mT - torch.eye(3)


def posed(flame: FLAME, coefficients: torch.Tensor, jaw: torch.Tensor, eye: torch.Tensor) -> torch.Tensor:
    shape, expression = coefficients.split([300, 100], dim=1)
    return flame(shape, expression, torch.cat([torch.zeros_like(jaw), jaw], dim=1), torch.cat([eye, eye], dim=1))


def test_some_vertices_are_those_of_the_whole_head():
    flame, some = FlameHead.from_arrays(toy_arrays()).flame, torch.tensor([3, 140, 7, 128])
    skin, coefficients, jaw, eye = Skin(flame, some), normal(0, 2, 400), normal(1, 2, 3) * 0.2, normal(2, 2, 3) * 0.2
    jaws, eyes = turned(jaw), turned(eye)
    correctives = jaws.mT.flatten(1) @ skin.jaw_correctives + eyes.mT.flatten(1) @ skin.basis[-9:]
    rest = skin.rest(coefficients) + correctives.unflatten(1, (-1, 3))
    found = skin.posed(rest, torch.cat([jaws, eyes], dim=1))
    torch.testing.assert_close(found, posed(flame, coefficients, jaw, eye)[:, some], atol=1e-5, rtol=0)


@pytest.mark.parametrize("angle", [0.0, 0.4])
def test_forms_and_their_gradients_are_those_of_the_whole_head(angle):
    head = FlameHead.from_arrays(toy_arrays())
    flame, vertices = head.flame, torch.ones(len(head.canonical), dtype=torch.bool)
    vertices[head.eyelids] = False
    begin, change, jaw = normal(0, 2, 400), (normal(1, 2, 400) * 0.3), normal(2, 2, 3) * 0.2
    change.requires_grad_()
    eye = (normal(3, 2, 3) * angle).requires_grad_()
    before = posed(flame, begin, jaw, eye).detach()
    wanted = (posed(flame, begin + change, jaw, eye) - before)[:, vertices].square().sum()
    gradients = torch.autograd.grad(wanted, [change, eye])

    form = SurfaceForm(flame, vertices)
    assert form.covered.equal(vertices)
    jaws, eyes = turned(jaw), turned(eye)
    features = [torch.ones(2, 1), jaws.mT.flatten(1), eyes.detach().mT.flatten(1)]
    still = (change[:, None] @ form.of_jaws(jaws) @ change[..., None]).sum()
    found = still + form.of_eyes(change, eyes, torch.cat([begin + change, *features], dim=1))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=0)
    for one, other in zip(torch.autograd.grad(found, [change, eye]), gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


def test_vertices_that_follow_eye_and_skin_are_left_out():
    flame = FlameHead.from_arrays(toy_arrays()).flame
    flame.lbs_weights[-1] = torch.tensor([0.0, 0.5, 0.0, 0.0, 0.5])
    covered = SurfaceForm(flame, torch.ones(len(flame.v_template), dtype=torch.bool)).covered
    assert (~covered).nonzero().flatten().tolist() == [len(flame.v_template) - 1]
