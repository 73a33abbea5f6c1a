import pytest

from planners import Budget, ChannelStats, get_planner
from planners.channels import choose_normalization, words
from planners.mirror import choose_mirror_axes, find_pairs

CT = ChannelStats("CT", 100.0, 99.0, 40.0, -1000.0, 1500.0, -100.0, 300.0, 0.4, 0.2)
GROUPS = [((1, 1, 1), (64, 64, 64), 9)]


def scheme_of(fingerprint_of, channel, parity=False, **rest):
    (scheme,), (decision,) = choose_normalization(fingerprint_of(GROUPS, (channel,), **rest), parity=parity)
    return scheme, decision


def named(name, minimum=0.0):
    return ChannelStats(name, 100.0, 99.0, 40.0, minimum, 1500.0, -100.0, 300.0, 0.4, 0.2)


@pytest.mark.parametrize(
    ("name", "default", "parity"),
    [
        ("CT", "ct", "ct_zscore"),
        ("ct portal venous", "ct", "zscore"),
        ("CTA", "ct", "zscore"),
        ("PET/CT", "robust", "zscore"),
        ("MRI", "robust", "zscore"),
        ("T1ce", "robust", "zscore"),
        ("rgb_to_0_1", "rgb", "rgb"),
        ("noNorm", "none", "none"),
        ("zscore", "zscore", "zscore"),
        ("rescale_to_0_1", "rescale", "rescale"),
    ],
)
def test_the_name_decides(fingerprint_of, name, default, parity):
    assert scheme_of(fingerprint_of, named(name))[0].scheme == default
    assert scheme_of(fingerprint_of, named(name), parity=True)[0].scheme == parity


def test_air_gives_ct_away_where_the_name_says_nothing(fingerprint_of):
    scheme, decision = scheme_of(fingerprint_of, named("image", -1000.0))
    assert scheme.scheme == "ct"
    assert decision.warning
    assert "-1000" in decision.rule
    assert scheme_of(fingerprint_of, named("image", -400.0))[0].scheme == "robust"
    assert scheme_of(fingerprint_of, named("T1", -1000.0))[0].scheme == "robust"


def test_the_network_centres_ct_on_its_foreground(fingerprint_of):
    plan = get_planner("fullres_3d").plan(fingerprint_of(GROUPS, (CT,)))
    assert plan.network.input_mean == ((100 + 100) / 400,)
    assert plan.network.input_std == (40 / 400,)


def test_the_network_centres_other_scans_on_their_measured_mean(fingerprint_of):
    plan = get_planner("fullres_3d").plan(fingerprint_of(GROUPS, (named("MRI"), CT)))
    assert plan.network.input_mean == (0.4, 0.5)
    assert plan.network.input_std == (0.2, 0.1)


def test_zscored_channels_are_left_as_they_are(fingerprint_of):
    plan = get_planner("fullres_3d").plan(fingerprint_of(GROUPS, (named("MRI"), CT)), Budget(parity=True))
    assert plan.network.input_mean == (0.0, 0.0)
    assert plan.network.input_std == (1.0, 1.0)


def test_only_zscore_of_well_cropped_scans_uses_the_mask(fingerprint_of):
    assert scheme_of(fingerprint_of, named("zscore"), relative_crop=0.74)[0].use_mask
    assert not scheme_of(fingerprint_of, named("zscore"), relative_crop=0.75)[0].use_mask
    assert not scheme_of(fingerprint_of, CT, parity=True, relative_crop=0.5)[0].use_mask


def test_a_constant_channel_divides_by_nothing(fingerprint_of):
    constant = ChannelStats("CT", 7.0, 7.0, 0.0, 7.0, 7.0, 7.0, 7.0, 0.0, 0.0)
    scheme, _ = scheme_of(fingerprint_of, constant)
    assert scheme.upper > scheme.lower
    assert scheme.std > 0
    assert scheme.input_std > 0


def test_logits_along_thick_slices_are_nearest_in_parity_mode_only(hippocampus):
    assert get_planner("fullres_3d").plan(hippocampus, Budget(parity=True)).resampling.coarse_logits_order == 0
    assert get_planner("fullres_3d").plan(hippocampus).resampling.coarse_logits_order == 1


def test_words_of_a_name():
    assert words("RightParotid") == words("right_parotid") == words("right-PAROTID") == ["right", "parotid"]
    assert words("L Kidney") == words("LKidney") == ["l", "kidney"]
    assert words("T1ce") == ["t1", "ce"]


@pytest.mark.parametrize(
    "pair",
    [
        ("RightParotid", "LeftParotid"),
        ("kidney_left", "kidney_right"),
        ("L_Femur", "R_Femur"),
        ("FemurL", "FemurR"),
        ("lung upper lobe left", "lung upper lobe right"),
        ("leftatrium", "rightatrium"),
        ("Hippocampus-LH", "Hippocampus-RH"),
        ("LUL", "RUL"),
        ("lul", "rul"),
        ("LV", "RV"),
        ("kidneyl", "kidneyr"),
        ("tooth 11", "tooth 21"),
        ("Zahn_48", "Zahn_38"),
        ("tooth 1", "tooth 16"),  # numbered from 1 to 32
        ("Niere links", "Niere rechts"),
        ("linke Niere", "rechte Niere"),
        ("Linksherz", "Rechtsherz"),
        ("rein gauche", "rein droit"),
        ("riñón izquierdo", "riñón derecho"),
        ("rene sx", "rene dx"),
        ("ren sinister", "ren dexter"),
        ("rim esquerdo", "rim direito"),
        ("левая почка", "правая почка"),
        ("左肾", "右肾"),
        ("왼쪽 신장", "오른쪽 신장"),
        ("좌측 신장", "우측 신장"),
        ("vänster njure", "höger njure"),
        ("venstre nyre", "højre nyre"),
        ("lewa nerka", "prawa nerka"),
        ("levá ledvina", "pravá ledvina"),
        ("rinichi stâng", "rinichi drept"),
        ("sol böbrek", "sağ böbrek"),
        ("vasen munuainen", "oikea munuainen"),
        ("αριστερός νεφρός", "δεξιός νεφρός"),
        ("الكلية اليسرى", "الكلية اليمنى"),
        ("riñón izdo", "riñón dcho"),
        ("kidney_lft", "kidney_rgt"),
        ("tooth_UL1", "tooth_UR1"),
        ("LL8", "LR8"),
        ("ribL1", "ribR1"),
    ],
)
def test_left_and_right_structures_are_found(pair):
    assert find_pairs(("Brainstem", *pair)) == (pair,)


@pytest.mark.parametrize(
    "names",
    [
        ("RV", "MLV", "LVC"),
        ("left kidney",),
        ("bright spot", "spot"),
        ("l4", "r4", "L5"),
        ("label 11", "label 21"),
        ("vertebra 1", "vertebra 16"),
        ("почка", "печень", "сердце"),  # letters of another script are words, not nothing
        ("liver", "river bank", "rib", "lip"),
        ("11", "21"),
    ],
)
def test_other_names_are_no_pairs(names):
    assert find_pairs(names) == ()


def test_pairs_forbid_mirroring_along_x_wherever_it_is(fingerprint_of):
    names = ("RightParotid", "LeftParotid")
    axial = fingerprint_of([((3, 1, 1), (60, 200, 200), 9)], ("CT",), names)
    sagittal = fingerprint_of([((1, 1, 4), (200, 200, 30), 9)], ("CT",), names)
    assert get_planner("fullres_3d").plan(axial).mirror_axes == (0, 1)
    assert get_planner("slices_2d").plan(axial).mirror_axes == (1,)
    assert get_planner("fullres_3d").plan(sagittal).mirror_axes == (1, 2)
    plan = get_planner("fullres_3d").plan(axial)
    (decision,) = [decision for decision in plan.decisions if decision.what == "mirroring"]
    assert decision.numbers == "RightParotid / LeftParotid"


@pytest.mark.parametrize(
    ("pair", "axis", "mirrored"),
    [
        (("Anterior", "Posterior"), "y", (0, 2)),
        (("lobe_upper", "lobe_lower"), "z", (1, 2)),
        (("Superior vena cava", "Inferior vena cava"), "z", (1, 2)),
        (("dorsal root", "ventral root"), "y", (0, 2)),
        (("tooth 11", "tooth 41"), "z", (1, 2)),
        (("lobe supérieur", "lobe inférieur"), "z", (1, 2)),
        (("vorderer Anteil", "hinterer Anteil"), "y", (0, 2)),
        (("anterolateral", "posterolateral"), "y", (0, 2)),
        (("前葉", "後葉"), "y", (0, 2)),
        (("LUL", "LLL"), "z", (1, 2)),
        (("UR1", "LR1"), "z", (1, 2)),
        (("proximal ulna", "distal ulna"), "z", (1, 2)),
    ],
)
def test_front_and_back_or_up_and_down_are_not_mirrored_into_each_other(fingerprint_of, pair, axis, mirrored):
    assert find_pairs(pair, axis) == (pair,)
    assert find_pairs(pair) == ()
    plan = get_planner("fullres_3d").plan(fingerprint_of([((1, 1, 1), (60, 60, 60), 9)], ("MR",), pair))
    assert plan.mirror_axes == mirrored


def test_parity_mode_mirrors_everything(fingerprint_of):
    pairs = fingerprint_of(GROUPS, structures=("l_eye", "r_eye"))
    assert get_planner("fullres_3d").plan(pairs, Budget(parity=True)).mirror_axes == (0, 1, 2)
    assert get_planner("slices_2d").plan(pairs, Budget(parity=True)).mirror_axes == (1, 2)


def test_an_axis_of_one_voxel_is_not_mirrored():
    assert choose_mirror_axes((), (0, 1, 2), (1, 64, 64))[0] == (1, 2)


def test_teeth_of_a_whole_jaw_are_pairs_by_their_numbers():
    numbers = [str(10 * quadrant + tooth) for quadrant in (1, 2) for tooth in range(1, 9)]
    assert find_pairs(numbers) == tuple((f"1{tooth}", f"2{tooth}") for tooth in range(1, 9))
    assert find_pairs([f"tooth {number}" for number in numbers]) == tuple((f"tooth 1{t}", f"tooth 2{t}") for t in range(1, 9))
    assert find_pairs([str(number) for number in range(1, 30)]) == ()  # of anything


def test_the_decision_names_the_pairs_that_it_saw():
    axes, decision = choose_mirror_axes(("LUL", "RUL", "Niere links", "Niere rechts"), (0, 1, 2), (64, 64, 64))
    assert axes == (0, 1)
    assert decision.numbers == "LUL / RUL; Niere links / Niere rechts"
