"""The experiment on the cost of a search: what its table says of a winner, and that the grid is halved whole."""

import json

from cnnjax.study.search import draw
from experiments import search_cost


def test_the_table_compares_costs_and_winners_with_the_whole_grid(tmp_path):
    found = search_cost.conclude(
        {"a": {0: 0.9, 1: 0.91, 2: 0.905}, "b": {0: 0.89, 1: 0.9, 2: 0.91}, "c": {0: 0.2, 1: 0.21, 2: 0.205}}, 1000
    )
    assert found["winner"] == "a" and set(found["may_be_best"]) == {"a", "b"}
    (tmp_path / "grid-cold.json").write_text(json.dumps(found))
    rows = [
        {"way": "grid", "cache": "cold", "seconds": 100.0, "images": 400, "winner": "a"},
        {"way": "halving", "cache": "cold", "seconds": 25.0, "images": 80, "winner": "b"},
        {"way": "until", "cache": "cold", "seconds": 50.0, "images": 200, "winner": "c"},
    ]
    grid, halving, until = search_cost.compared(rows, tmp_path)
    assert (halving["seconds_share"], halving["images_share"]) == (0.25, 0.2)
    assert grid["behind"] == 0 and grid["same_choice"]
    assert halving["behind"] == 0.5 and halving["same_choice"]
    assert until["behind"] == 70 and not until["same_choice"]


def test_halving_starts_with_each_combination_of_the_grid_once():
    drawn = draw(search_cost.study_of("halving"))
    assert len({tuple(one.items()) for one in drawn}) == len(drawn) == 8
