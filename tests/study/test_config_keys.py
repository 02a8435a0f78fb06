"""The table of keys in configs/README.md is that of the code."""

from pathlib import Path

from cnnjax.study.schema import Study
from cnnjax.study.validation import keys_table

README = Path(__file__).parents[2] / "configs" / "README.md"


def test_the_table_of_keys_is_that_of_the_code():
    """To regenerate the table, run `print(keys_table(Study()))`."""
    assert README.read_text(encoding="utf-8").endswith(f"\n\n{keys_table(Study())}\n")
