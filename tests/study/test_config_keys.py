"""The table of a config's keys in configs/README.md is what the code takes."""

from pathlib import Path

from cnnjax.study.schema import Study
from cnnjax.study.validation import keys_table

README = Path(__file__).parents[2] / "configs" / "README.md"


def test_the_table_of_keys_is_what_the_code_takes():
    """To write it again: `print(keys_table(Study()))`."""
    assert README.read_text(encoding="utf-8").endswith(f"\n\n{keys_table(Study())}\n")
