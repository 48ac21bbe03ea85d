"""The page's tables of lenses: every source of vectors beside the thought itself."""

from latent_lab.report.thoughts_tables import lens_sources


def scores(*hits: float) -> dict[str, object]:
    return {"n": 9, "hit1": {"value": list(hits), "gain": [hit - 0.1 for hit in hits]}}


def test_every_source_is_shown_in_the_layer_that_suits_the_real_thought() -> None:
    sources = {"real": {"fields": {"write": scores(0.2, 0.5)}}, "zero": {"fields": {"write": scores(0.9, 0.1)}}}
    table = lens_sources("logit", {"layers": [0, 3], "sources": sources, "sources_left_out": {"none": "it has no vector"}})
    assert table.head == ("source", "write, layer 3")
    assert [(row.label, row.cells) for row in table.rows] == [
        ("the thought itself", ("50.0 (gain 40.0)",)),
        ("zero", ("10.0 (gain 0.0)",)),
    ]
    assert "none: it has no vector" in table.note
