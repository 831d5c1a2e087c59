"""Names of architectures: choices are listed, duplicates refused, a plan survives a checkpoint."""

from __future__ import annotations

import pytest

from BrainAgeNetworks import registry
from BrainAgeNetworks.registry import NetworkPlan, build_network, network_names, register
from utils.common.errors import UserError


def test_both_published_networks_are_registered():
    assert network_names() == ["agemapper", "sfcn"]


def test_a_name_is_registered_once(monkeypatch):
    monkeypatch.setattr(registry, "_builders", dict(registry._builders))
    register("mine")(lambda plan: plan)
    assert build_network(NetworkPlan("mine", (1, 1, 1))) == NetworkPlan("mine", (1, 1, 1))
    for name in ("mine", "agemapper"):
        with pytest.raises(ValueError, match=f"'{name}' is registered already"):
            register(name)(lambda plan: plan)


def test_an_unknown_network_lists_the_choices():
    with pytest.raises(UserError, match="'resnet' is not registered; choose from agemapper, sfcn"):
        build_network(NetworkPlan("resnet", (32, 32, 32)))


def test_a_plan_survives_its_dictionary():
    plan = NetworkPlan("agemapper", (16, 18, 16), 40, (4, 8), (0.1, 0.0, 0.3), True, 1)
    assert NetworkPlan.from_dict(plan.to_dict()) == plan
    assert all(not isinstance(value, tuple) for value in plan.to_dict().values())


def test_a_record_from_before_poolings_could_be_chosen_pools_in_every_block():
    plan = NetworkPlan("agemapper", (16, 18, 16), 1, (4, 8))
    record = {key: value for key, value in plan.to_dict().items() if key != "n_poolings"}
    assert NetworkPlan.from_dict(record) == plan
    assert plan.n_poolings is None


def test_the_first_block_gets_the_box_or_twice_that():
    assert NetworkPlan("sfcn", (8, 9, 8)).first_box == (8, 9, 8)
    assert NetworkPlan("sfcn", (8, 9, 8), upsample=True).first_box == (16, 18, 16)
