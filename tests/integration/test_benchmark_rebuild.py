"""The measurement of a rebuild, small: both ways are run, readers ask meanwhile, and nobody notices."""

from benchmarks import rebuild


def test_a_small_measurement_of_both_ways_has_answers_without_an_error_or_a_hole() -> None:
    rows = {row.name: row for row in rebuild.run(0.02)}
    for what in ("rebuild from Kafka", "rebuild from the archive"):
        [whole] = [row for name, row in rows.items() if name.startswith(f"{what}, ")]
        assert "switched to the rebuilt tables; 0 rows were not the same before" in whole.note
        assert (rows[f"{what}: errors"].value, rows[f"{what}: errors"].note) == (0, "")
        assert (rows[f"{what}: holes"].value, rows[f"{what}: holes"].note) == (0, "")
        assert all((rows[f"{what}: {figure}"].value or 0) > 0 for figure in ("of it, projecting", "polls"))
