"""The table of what a teacher brings says what the figures say."""

from benchmarks.learning.distill import render


def test_the_table_is_of_each_seeds_difference() -> None:
    def runs(*losses: float) -> list[dict[str, float]]:
        return [{"mlm_loss": loss, "mlm_accuracy": 0.25, "seconds": 9.0} for loss in losses]

    told = {"teacher": runs(3.5)[0], "untaught": runs(5.0, 4.5), "taught": runs(4.75, 4.0)}
    lines = render(told).splitlines()
    assert lines[3].startswith("| the student, untaught | 4.750 (4.500 to 5.000) |  | 25.0%")
    assert lines[4].startswith("| the student, taught | 4.375 (4.000 to 4.750) | -0.375 (-0.500 to -0.250) | 25.0%")
