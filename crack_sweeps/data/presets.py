"""How public crack sets write their masks and name their crops: rules that were read off the files themselves.

Sources: DeepCrack (Liu 2019), CRACK500 (Yang 2019), CrackForest (Shi 2016), CrackMap (Katsamenis 2023), NHA12D (Huang
2022), UAV75 (Benz 2019), SUT130 (Sabouri 2023), Masonry (Dais 2021), AsphaltCrack300, CrackSeg9k (Kulkarni 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

from crack_sweeps.errors import UserError
from crack_sweeps.specs.words import listed, nearest


@dataclass(frozen=True, slots=True)
class Preset:
    """A set's own way.

    Args:
        about: What it is, and what to know before using it.
        mask: The rule, as KEY=VALUE; none where masks hold 0 and one other value, which needs no rule.
        group_pattern: Finds the photo in a crop's name; None where each file is a photo or a table tells.
        warn: What it is must be said wherever it is used.
    """

    about: str
    mask: tuple[str, ...]
    group_pattern: str | None = None
    warn: bool = False


PRESETS = {
    "plain": Preset("any folder of photos and masks; masks hold 0 and one other value", ()),
    "deepcrack": Preset(
        "544x384 crops of 158 photos, masks 0 and 255; three photos and a copy stand in both official splits",
        ("data.mask.crack_values=[255]",),
        r"^(.+?)(?:-\d+)?$",  # 11142 and its crops 11142-1, 11142-2
    ),
    "crack500": Preset(
        "640x360 crops of 500 photos, 1-bit masks; split by photo, never by crop",
        ("data.mask.crack_values=[255]",),
        r"^(.+?)(?:[-_]\d+[-_]\d+)?$",  # 20160222_081011_1_361: photo, top, left
    ),
    "crackforest": Preset(
        "480x320 photos, 118 of 155 with ground truth in .mat: 1 background, 2 crack, 3 enclosed background, 4 other",
        ("data.mask.crack_values=[2]",),
    ),
    "crackmap": Preset("256x256 photos, RGBA like their masks", ("data.mask.threshold=128",)),
    "nha12d": Preset(
        "1920x1080 photos of 0.4 % crack, masks in colour whose brightest channel is 84 to 191 on crack",
        ("data.mask.channel=max", "data.mask.threshold=42"),  # half of 84: clear of black and of the dimmest crack
    ),
    "uav75": Preset(
        "512x512 photos from a drone, RGBA masks: 255 is crack, 204 the marks of planks, which look like cracks",
        ("data.mask.crack_values=[255]",),
    ),
    "sut130": Preset("512x512 photos, antialiased RGB masks", ("data.mask.threshold=128",)),
    "masonry": Preset("224x224 photos of brick walls", ("data.mask.threshold=128",)),
    "asphaltcrack300": Preset("masks are inverted: 0 is crack", ("data.mask.threshold=128", "data.mask.invert=true")),
    "crackseg9k": Preset(
        "400x400 crops of ten other sets, CRACK500, DeepCrack and CrackForest among them: never test on those what was "
        "trained on this",
        ("data.mask.threshold=128",),
        warn=True,
    ),
}


def preset(name: str) -> Preset:
    """A preset by its name, in whatever case.

    Raises:
        UserError: There is none of that name.
    """
    if name.lower() in PRESETS:
        return PRESETS[name.lower()]
    close = nearest(name.lower(), PRESETS)
    raise UserError(
        f"--preset {name}: no such preset",
        hint=f"did you mean {close}?" if close else f"there are {listed(PRESETS, 'and')}",
    )
