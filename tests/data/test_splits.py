"""Disjoint, repeatable, recorded; sizes of one part leave the others alone."""

import hashlib
import itertools
import json

import pytest
import torch
from resolvent.data import Dataset, split
from resolvent.pde import Channel, Grid, Signature


def numbered(count):
    values = torch.arange(float(count)).reshape(-1, 1, 1).expand(-1, 1, 4)
    signature = Signature((Channel("a"),), (Channel("u"),))
    return Dataset.from_tensors(values, values, grid=Grid.box(4), signature=signature)


def members(dataset):
    return dataset.read(range(len(dataset)))[0][:, 0, 0].int().tolist()


def test_parts_are_disjoint_and_as_large_as_asked():
    parts = split(numbered(50), train=30, validation=8, test=12, seed=3)
    drawn = [members(part) for part in (parts.train, parts.validation, parts.test)]
    assert [len(part) for part in drawn] == [30, 8, 12]
    assert sorted(itertools.chain(*drawn)) == list(range(50))
    assert list(itertools.chain(*drawn)) != list(range(50))
    assert list(parts.indices["test"]) == drawn[2]


def test_a_split_is_the_same_on_any_day():
    """Written out: the ranking is by SHA-256 of 'seed:number', which nothing can change."""
    parts = split(numbered(6), train=2, validation=1, test=2, seed=0)
    ranked = sorted(range(6), key=lambda i: hashlib.sha256(f"0:{i}".encode()).hexdigest())
    assert members(parts.test) == ranked[:2]
    assert members(parts.validation) == ranked[2:3]
    assert members(parts.train) == ranked[:-3:-1]
    assert ranked == [4, 3, 2, 0, 5, 1]


def test_sizes_do_not_disturb_each_other():
    small = split(numbered(40), train=10, validation=5, test=8, seed=1)
    large = split(numbered(40), train=25, validation=7, test=8, seed=1)
    assert members(small.test) == members(large.test)
    assert members(large.train)[:10] == members(small.train)
    assert members(large.validation)[:5] == members(small.validation)


def test_another_seed_is_another_split():
    assert members(split(numbered(40), train=20, seed=0).train) != members(split(numbered(40), train=20, seed=1).train)


def test_the_record_is_plain_and_hashed():
    first = split(numbered(20), train=10, validation=2, test=3, seed=5).to_dict()
    assert json.loads(json.dumps(first)) == first
    assert first == split(numbered(20), train=10, validation=2, test=3, seed=5).to_dict()
    assert len(first["train"]) == 10
    assert first["sha256"] != split(numbered(20), train=10, validation=3, test=3, seed=5).to_dict()["sha256"]


def test_too_much_is_refused():
    with pytest.raises(ValueError, match=r"has 10 samples; .* asks for 11"):
        split(numbered(10), train=8, validation=1, test=2)
    with pytest.raises(ValueError, match="train >= 1"):
        split(numbered(10), train=0, test=2)
    with pytest.raises(ValueError, match="no negative"):
        split(numbered(10), train=2, test=-1)
