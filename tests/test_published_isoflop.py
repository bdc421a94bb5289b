"""Porian et al. 2024 (arXiv:2406.19146): ten settings of isoFLOP valleys on RefinedWeb, under three counts of FLOPs."""

from published_tables import published_table

from analysis.compute import fit_interpolated


def test_all_ten_exponents_lie_inside_their_published_intervals():
    """From 0.497 to 0.835, with attention and the output layer counted or not.

    Their table has the frontier of bootstrap medians weighted by their spread, with 95 % intervals; the noise of a seed
    is theirs. Ours come within 0.0013 of theirs, and so do the ends of the intervals within 0.003: the draws differ.
    """
    table = published_table("porian_refinedweb")
    found = {name: (rows, fit_interpolated(rows)) for name, rows in table.groupby("configuration")}
    assert len(found) == 10
    for rows, frontier in found.values():
        published = rows[["published_exponent", "published_low", "published_high"]].iloc[0]
        assert published["published_low"] <= frontier.exponent.value <= published["published_high"]
        assert abs(frontier.exponent.value - published["published_exponent"]) < 0.002
        assert abs(frontier.exponent.low - published["published_low"]) < 0.003
        assert abs(frontier.exponent.high - published["published_high"]) < 0.003
