"""The table of a Flax module, against its parameters, its shapes and the operations counted by hand."""

import jax
import pytest

from cnnjax.models.module_table import module_table
from cnnjax.models.own import build_module
from tests.support.own import nets

SHAPE = (8, 8, 1)


@pytest.mark.parametrize("name", ["ResNet", "Small", "Depthwise", "ViT"])
def test_its_rows_have_all_parameters(name):
    network = build_module(getattr(nets, name), 10, SHAPE)
    params = jax.eval_shape(network.init_variables, jax.random.key(0))["params"]
    rows = module_table(network, SHAPE)
    assert sum(row.parameters for row in rows) == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert rows[-1].output == (10,) and all(row.output for row in rows)


def test_strides_groups_and_norms():
    rows = {row.layer: row for row in module_table(build_module(nets.ResNet, 10, SHAPE), SHAPE)}
    assert rows["Conv_3"].output == (4, 4, 8) and rows["Conv_3"].flops == 2 * 4 * 4 * 8 * 3 * 3 * 4
    assert rows["BatchNorm_3"].output == (4, 4, 8) and rows["BatchNorm_3"].flops == 0
    rows = {row.layer: row for row in module_table(build_module(nets.Depthwise, 10, SHAPE), SHAPE)}
    assert rows["Conv_1"].flops == 2 * 8 * 8 * 8 * 3 * 3 and rows["Conv_2"].flops == 2 * 8 * 8 * 8 * 12


def test_attention():
    rows = {row.layer: row for row in module_table(build_module(nets.ViT, 10, SHAPE), SHAPE)}
    tokens, width = 4, 8
    assert rows["MultiHeadDotProductAttention_0/query"].flops == 2 * tokens * width * width
    assert rows["other products"].flops == 2 * 2 * tokens * tokens * width  # scores, and sums of values
    assert rows["place"].output == (tokens, width) and rows["place"].parameters == tokens * width
