"""Every published number beside ours: how close they are, and a reason for each that is not."""

from committed import FIGURES, SPEED

from helix_kit.experiments.machinery.files import load


def test_agreement_with_the_published_simulation():
    table = load("agreement", FIGURES)
    simulated = table[table["source"] == "published simulation"]
    speed = simulated[simulated["metric"] == SPEED]["difference_percent"].abs()
    # 39 runs. Two depend on the hash seed of the published process (1.3 and 2.5 %).
    assert len(speed) == 39 and speed.max() < 3 and (speed < 0.5).sum() >= 36
    latency = simulated[simulated["metric"] != SPEED]["difference_percent"].abs()
    assert len(latency) == 160 and (latency <= 5).mean() > 0.97


def test_every_miss_has_a_reason_and_nothing_else_has():
    table = load("agreement", FIGURES)
    missed = table["difference_percent"].abs() > 5
    assert table.loc[missed, "reason"].notna().all()
    assert table.loc[~missed, "reason"].isna().all()
    assert not table["reason"].eq("not known").any()
    # In the words of the reasons: rounding for simulated numbers, section 6.7's load for its schedulers.
    simulated = table[missed & (table["source"] == "published simulation")]
    half = simulated["metric"].str.endswith("tokens_per_s").map({True: 0.05, False: 0.005})
    assert ((simulated["published"] - simulated["ours"]).abs() < 2 * half).all()
    others = table[missed & (table["section"] == 6.7) & (table["method"] != "helix")]
    assert len(others) and others["reason"].str.contains("in flight").all()
    said = table[missed & table["reason"].fillna("").str.startswith("the published simulation is off")]
    keys = ["section", "setup", "model", "mode", "method", "metric"]
    both = said.merge(table[table["source"] == "published simulation"], on=keys, suffixes=("", "_simulated"))
    assert len(both) == len(said) > 0
    theirs = both["published_simulated"] / both["published"] - 1
    assert (theirs * both["difference_percent"] > 0).all() and (
        200 * theirs.abs() > both["difference_percent"].abs()
    ).all()
