import pytest
import torch

from portraitzoo.layers.mapping import MappingNetwork


@pytest.fixture
def mapping() -> MappingNetwork:
    torch.manual_seed(0)
    network = MappingNetwork(8, 25, 16, num_ws=6, num_layers=2)
    network.w_avg.normal_()
    return network


def test_length_of_the_code_does_not_matter(mapping: MappingNetwork) -> None:
    z, label = torch.randn(3, 8), torch.randn(3, 25)
    torch.testing.assert_close(mapping(z, label), mapping(5 * z, label), rtol=1e-4, atol=1e-4)


def test_truncation_moves_the_leading_rows_towards_the_average(mapping: MappingNetwork) -> None:
    z, label = torch.randn(3, 8), torch.randn(3, 25)
    ws = mapping(z, label)
    assert (ws == ws[:, :1]).all()
    torch.testing.assert_close(mapping(z, label, truncation_psi=0.0), mapping.w_avg.expand(3, 6, 16))
    half = mapping(z, label, truncation_psi=0.5, truncation_cutoff=2)
    torch.testing.assert_close(half[:, :2], (ws[:, :2] + mapping.w_avg) / 2)
    assert torch.equal(half[:, 2:], ws[:, 2:])


def test_average_moves_only_when_told(mapping: MappingNetwork) -> None:
    z, label, before = torch.randn(3, 8), torch.randn(3, 25), mapping.w_avg.clone()
    ws = mapping(z, label)
    assert torch.equal(mapping.w_avg, before)
    mapping(z, label, update_average=True)
    torch.testing.assert_close(mapping.w_avg, 0.998 * before + 0.002 * ws[:, 0].mean(dim=0))
    assert not mapping.w_avg.requires_grad
