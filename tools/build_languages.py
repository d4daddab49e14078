"""Build the language table and the URIEL distance data of `isogloss.languages`.

    pip install "langcodes==3.5.1" "language_data==1.4.0" "lang2vec==1.1.2" numpy
    python tools/build_languages.py            # writes src/isogloss/languages/data/

Needs no network. Sources, all read from the installed packages:
* IANA language subtag registry (in `langcodes`): codes, names, scope, usual script.
* Unicode CLDR (in `langcodes` and `language_data`): likely scripts, scripts in use, three-letter
  codes of two-letter ones, well-known English names.
* URIEL (in `lang2vec`): family paths, features, predicted features, distances to grid points.
The arrays of `lang2vec` hold plain numbers and strings and are read with pickle refused.
"""

import argparse
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from _language_choices import (
    ALSO,
    EXTRA_NAMES,
    FLORES,
    KEPT_OLD,
    MACRO_DEFAULT,
    NAME,
    PREFIX,
    SCRIPT_CHOICE,
)

SPECIAL = {"mis", "mul", "und", "zxx"}
OUT = Path(__file__).parent.parent / "src" / "isogloss" / "languages" / "data"


@dataclass
class Entry:
    """One row of the table while it is being put together."""

    iso639_3: str
    iso639_1: str = ""
    name: str = ""
    names: list[str] = field(default_factory=list)
    script: str = ""
    scripts: set[str] = field(default_factory=set)
    family: str = ""
    branch: str = ""
    borrowed: str = ""  # macrolanguage whose family stands in where URIEL lists none
    also: set[str] = field(default_factory=set)
    macro: str = ""
    regions: dict[str, str] = field(default_factory=dict)  # region -> script, where it is not the usual one


def package_folder(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"The package {name} is missing; see the head of this file.")
    return Path(spec.origin).parent


def read_registry(path: Path) -> list[dict[str, list[str]]]:
    """Records of the IANA registry (RFC 5646, section 3.1): folded lines, repeated fields."""
    records = []
    for block in path.read_text(encoding="utf-8").split("%%"):
        record: dict[str, list[str]] = {}
        for line in re.sub(r"\n[ \t]+", " ", block.strip()).splitlines():
            key, _, value = line.partition(": ")
            record.setdefault(key, []).append(value)
        records.append(record)
    return records


def cldr_scripts(supplemental: ElementTree.Element) -> dict[str, list[str]]:
    scripts: dict[str, list[str]] = {}
    for row in supplemental.iter("language"):
        if row.get("scripts"):
            scripts.setdefault(row.get("type", ""), []).extend(row.get("scripts", "").split())
    return scripts


def tidy(name: str) -> str:
    return re.sub(r" \((individual language|macrolanguage|\d[^)]*|[^)]*-\d*)\)$", "", name).strip()


def script_code(script: str) -> str:
    # Kore is Hangul with Han; FLORES and every data set here write plain Hangul.
    return {"Kore": "Hang"}.get(script, script)


def collect() -> tuple[dict[str, Entry], dict[str, str]]:
    """All entries by ISO 639-3 code, and old code -> current code."""
    import langcodes
    from langcodes.data_dicts import LANGUAGE_ALPHA3, LANGUAGE_ALPHA3_BIBLIOGRAPHIC, LIKELY_SUBTAGS

    data = package_folder("language_data") / "data"
    supplemental = ElementTree.parse(data / "supplementalData.xml").getroot()
    # The longer keys fold fil into tgl as CLDR does; ISO 639 and the data sets keep them apart.
    threes = {two: three for two, three in LANGUAGE_ALPHA3.items() if len(two) == 2}
    in_use = cldr_scripts(supplemental)
    well_known = {code.split("_")[0] for code in FLORES} | set(KEPT_OLD)
    entries: dict[str, Entry] = {}
    old: dict[str, str] = {}
    for record in read_registry(package_folder("langcodes") / "data" / "language-subtag-registry.txt"):
        subtag = record.get("Subtag", [""])[0]
        if record.get("Type") != ["language"] or ".." in subtag or subtag in SPECIAL:
            continue
        if record.get("Scope", [""])[0] in ("collection", "special", "private-use"):
            continue
        if len(subtag) == 2 and subtag not in threes:
            if "Deprecated" in record and "Preferred-Value" in record:
                old[subtag] = record["Preferred-Value"][0]
                continue
            raise SystemExit(f"No three-letter code known for {subtag} {record['Description']}.")
        code = threes.get(subtag, subtag)
        if "Deprecated" in record and code not in KEPT_OLD and subtag != "sh":
            if "Preferred-Value" in record:
                old[subtag] = old[code] = record["Preferred-Value"][0]
            continue
        entry = Entry(code, subtag if len(subtag) == 2 else "")
        entry.names = list(record["Description"])
        entry.name = tidy(entry.names[0])
        if len(subtag) == 2 or code in well_known:
            known = langcodes.Language.get(subtag, normalize=False).display_name("en")
            if not known.startswith("Unknown language"):
                entry.name = tidy(known)
        entry.macro = threes.get(record.get("Macrolanguage", [""])[0], record.get("Macrolanguage", [""])[0])
        likely = LIKELY_SUBTAGS.get(subtag, "--").split("-")[1]
        used = in_use.get(subtag, [""])[0]  # CLDR lists the main script first
        entry.script = script_code(record.get("Suppress-Script", [""])[0] or likely or used)
        entry.scripts = {script_code(s) for s in in_use.get(subtag, [])}
        entry.scripts |= {
            script_code(value.split("-")[1]) for key, value in LIKELY_SUBTAGS.items() if key.split("-")[0] == subtag
        }
        for key, value in LIKELY_SUBTAGS.items():
            language, _, region = key.partition("-")
            script = script_code(value.split("-")[1])
            if language == subtag and len(region) == 2 and script != entry.script:
                entry.regions[region] = script
        entries[code] = entry
    old |= {old_code: two for two, old_code in LANGUAGE_ALPHA3_BIBLIOGRAPHIC.items()}
    return entries, {key: threes.get(value, value) for key, value in old.items()}


def settle(entries: dict[str, Entry], old: dict[str, str], scripts: set[str]) -> None:
    """Fold macrolanguages into their default language; apply the hand-made choices."""
    for code, script in (pair.split("_") for pair in FLORES):
        code = {"zho": "cmn"}.get(code, code)
        entries[code].scripts.add(script)
        entries[code].script = entries[code].script or script
    for code, script in SCRIPT_CHOICE.items():
        entries[code].script = script
    for macro, member in MACRO_DEFAULT.items():
        target = entries[member]
        target.also.add(macro)
        if macro in entries:
            source = entries.pop(macro)
            target.names += [source.name, *source.names]
            if source.iso639_1:
                target.also.add(source.iso639_1)
                target.iso639_1 = target.iso639_1 or source.iso639_1
            target.script = target.script or source.script
            target.scripts |= source.scripts
            target.regions = source.regions | target.regions
    for before, after in old.items():
        after = MACRO_DEFAULT.get(after, after)
        if after in entries and before not in entries:
            entries[after].also.add(before)
    for before, after in ALSO.items():
        entries[after].also.add(before)
    for code, name in NAME.items():
        entries[code].name = name
    for code, names in EXTRA_NAMES.items():
        entries[code].names += names
    for entry in entries.values():
        entry.scripts.add(entry.script)
        entry.scripts = (entry.scripts & scripts) - {entry.script}
        entry.script = entry.script if entry.script in scripts else ""


@dataclass
class Uriel:
    """What `lang2vec` carries, as plain arrays."""

    row: dict[str, int]
    features: list[str]
    predicted: np.ndarray  # [L, F] bool
    attested: np.ndarray  # [L, F] bool
    nodes: list[str]
    paths: list[list[int]]
    position: np.ndarray  # [L, 3] unit vectors, 0 where unknown


def read_uriel() -> Uriel:
    folder = package_folder("lang2vec") / "data"

    def arrays(name: str) -> tuple[list[str], list[str], np.ndarray]:
        with np.load(folder / name, allow_pickle=False) as stored:
            return (
                [str(x) for x in stored["langs"]],
                [str(x) for x in stored["feats"]],
                stored["data"][:, :, 0],
            )

    langs, features, predicted = arrays("feature_predictions.npz")
    average_langs, average_features, average = arrays("feature_averages.npz")
    if average_features != features or average_langs != langs:
        raise SystemExit("The two feature files of lang2vec no longer have the same rows and columns.")
    if not np.isin(predicted, (0, 1)).all():
        raise SystemExit("Predicted features are no longer 0/1, so they cannot be bit-packed.")
    family_langs, nodes, member = arrays("family_features.npz")
    size = member.sum(0)
    order = {lang: i for i, lang in enumerate(family_langs)}
    # Nested groups: the larger is nearer the root; equal ones keep URIEL's own column order.
    paths = [
        sorted((int(n) for n in np.flatnonzero(member[order[lang]])), key=lambda n: (-size[n], n)) for lang in langs
    ]
    geo_langs, points, distance = arrays("geocoord_features.npz")
    geo_row = {lang: i for i, lang in enumerate(geo_langs)}
    position = locate(points, distance)[[geo_row[lang] for lang in langs]]
    return Uriel(
        {lang: i for i, lang in enumerate(langs)},
        features,
        predicted.astype(bool),
        average >= 0,
        [n.removeprefix("F_") for n in nodes],
        paths,
        position,
    )


def locate(points: list[str], distance: np.ndarray) -> np.ndarray:
    """Find each language's place from its distances to URIEL's 299 grid points.

    A distance is the arc divided by half the circumference, so cos(pi d) is the dot product of two
    unit vectors and the place is the solution of a linear system. Points are named in whole degrees,
    which costs at most 0.5 degree per point and far less after averaging over 299 of them.
    """
    degrees = np.radians([[float(x) for x in p.removeprefix("GC_").split("_")] for p in points])
    lat, lon = degrees.T
    grid = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    place = np.linalg.lstsq(grid, np.cos(np.pi * distance.astype(np.float64)).T, rcond=None)[0].T
    length = np.linalg.norm(place, axis=1, keepdims=True)
    # A language URIEL has no place for carries numbers that are distances from nowhere: length far from 1.
    return np.where(np.abs(length - 1) < 0.01, place / length, 0.0)


def add_families(entries: dict[str, Entry], uriel: Uriel) -> None:
    def path(code: str) -> list[int]:
        return uriel.paths[uriel.row[code]] if code in uriel.row else []

    # Prefixes such as "nor" live on only as `also` of their default language, and as `macro` of the others.
    for entry in entries.values():
        found = path(entry.iso639_3)
        if not found and entry.macro and path(entry.macro):
            found, entry.borrowed = path(entry.macro), entry.macro
        if found:
            entry.family = uriel.nodes[found[0]]
            entry.branch = uriel.nodes[found[1]] if len(found) > 1 else ""


TABLE_NOTE = """\
# Language table of isogloss. Made by tools/build_languages.py; do not edit by hand.
# Sources and licences: see README.md in this folder.
# script: meant when only a language is given (empty: has to be said). also: other codes for it.
"""


def write_table(entries: dict[str, Entry], path: Path) -> None:
    columns = (
        "iso639_3", "code", "iso639_1", "name", "script", "other_scripts",
        "region_scripts", "family", "branch", "family_from", "also", "other_names",
    )  # fmt: skip
    lines = ["\t".join(columns)]
    for code in sorted(entries):
        e = entries[code]
        names = [n for n in dict.fromkeys(e.names) if n != e.name]
        regions = " ".join(f"{region}:{e.regions[region]}" for region in sorted(e.regions))
        also = " ".join(sorted(e.also - {code}))
        values = (
            code, PREFIX.get(code, code), e.iso639_1, e.name, e.script, " ".join(sorted(e.scripts)),
            regions, e.family, e.branch, e.borrowed, also, "|".join(names),
        )  # fmt: skip
        lines.append("\t".join(values))
    path.write_text(TABLE_NOTE + "\n".join(lines) + "\n", encoding="utf-8")


def read_scripts() -> dict[str, str]:
    registry = package_folder("langcodes") / "data" / "language-subtag-registry.txt"
    return {
        record["Subtag"][0]: record["Description"][0]
        for record in read_registry(registry)
        if record.get("Type") == ["script"] and not record["Subtag"][0].startswith(("Z", "Qa"))
    }


def write_scripts(scripts: dict[str, str], path: Path) -> None:
    note = "# ISO 15924 scripts, from the IANA registry; made by tools/build_languages.py.\n"
    path.write_text(note + "".join(f"{code}\t{name}\n" for code, name in scripts.items()), encoding="utf-8")


def write_uriel(entries: dict[str, Entry], uriel: Uriel, path: Path) -> None:
    codes = [code for code in sorted(entries) if code in uriel.row]
    rows = [uriel.row[code] for code in codes]
    borrowed = [entries[c].borrowed for c in codes]
    paths = [uriel.paths[uriel.row[b] if b else r] for r, b in zip(rows, borrowed, strict=True)]
    used = {node: i for i, node in enumerate(sorted({n for p in paths for n in p}))}
    start = np.cumsum([0] + [len(p) for p in paths])
    np.savez_compressed(
        path,
        languages=np.array(codes, dtype="U3"),
        features=np.array(uriel.features),
        predicted=np.packbits(uriel.predicted[rows], axis=1),
        attested=np.packbits(uriel.attested[rows], axis=1),
        family_start=start.astype(np.int32),
        family_nodes=np.array([used[n] for p in paths for n in p], dtype=np.int16),
        position=uriel.position[rows].astype(np.float32),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the language table and the distance data.")
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    entries, old = collect()
    scripts = read_scripts()
    settle(entries, old, set(scripts))
    uriel = read_uriel()
    add_families(entries, uriel)
    out.mkdir(parents=True, exist_ok=True)
    write_table(entries, out / "languages.tsv")
    write_scripts(scripts, out / "scripts.tsv")
    write_uriel(entries, uriel, out / "uriel.npz")
    usual = sum(bool(entry.script) for entry in entries.values())
    used = ", ".join(f"{p} {version(p)}" for p in ("langcodes", "language_data", "lang2vec"))
    print(f"{len(entries)} languages, {usual} with a usual script; {used}")


if __name__ == "__main__":
    main()
