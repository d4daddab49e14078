"""Languages: what people write, what it resolves to, and the errors."""

import csv
import os
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isogloss.errors import IsoglossError
from isogloss.languages import Language, all_languages, resolve, resolve_folders, scripts

SHARED = Path(os.environ.get("ISOGLOSS_SHARED", Path(__file__).parents[2] / "shared"))
TABLE = SHARED / "data" / "languages.tsv"
ALL = all_languages()
some_language = st.sampled_from(ALL)

ISO639_1 = """
aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee
el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io
is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn
mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se
sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo
wa wo xh yi yo za zh zu
""".split()  # noqa: SIM905


def _mixed_case(text: str, flags: list[bool]) -> str:
    return "".join(c.upper() if flags[i % len(flags)] else c.lower() for i, c in enumerate(text))


def test_slovak_is_the_same_language_however_it_is_written() -> None:
    slovak = resolve("slk_Latn")
    assert slovak == Language("slk_Latn", "slk", "Latn", "Slovak", "sk", "Indo-European", "Balto-Slavic")
    for text in (
        "sk",
        "slk",
        "Slovak",
        "SLOVAK",
        "sk-Latn",
        "SK_latn",
        "sk-SK",
        "slo",
        "sk_snk",
        "UD_Slovak-SNK",
        " sk ",
    ):
        assert resolve(text) == slovak, text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("zh", "zho_Hans"), ("zho", "zho_Hans"), ("cmn", "zho_Hans"), ("Chinese", "zho_Hans"),
        ("zh-TW", "zho_Hant"), ("zh-Hant", "zho_Hant"), ("zh_gsd", "zho_Hant"), ("zh-yue", "yue_Hant"),
        ("Chinese (Traditional)", "zho_Hant"), ("ar", "arb_Arab"), ("Arabic", "arb_Arab"),
        ("arb_Latn", "arb_Latn"), ("swa", "swh_Latn"), ("sw", "swh_Latn"), ("et", "est_Latn"),
        ("ekk", "est_Latn"),
        ("sq", "als_Latn"), ("sqi", "als_Latn"), ("als", "als_Latn"), ("Albanian", "als_Latn"),
        ("sr", "srp_Cyrl"), ("srp_Latn", "srp_Latn"), ("sr_set", "srp_Latn"), ("sr-ME", "srp_Latn"),
        ("Serbian (Latin)", "srp_Latn"), ("no", "nob_Latn"), ("nb", "nob_Latn"), ("nn", "nno_Latn"),
        ("nno", "nno_Latn"), ("Bokmål", "nob_Latn"), ("bokmal", "nob_Latn"), ("no_nynorsk", "nno_Latn"),
        ("no_bokmaal", "nob_Latn"), ("UD_Norwegian-Nynorsk", "nno_Latn"), ("hi", "hin_Deva"),
        ("or", "ory_Orya"),
        ("Odia", "ory_Orya"), ("pt-BR", "por_Latn"), ("es-419", "spa_Latn"), ("pa-PK", "pan_Arab"),
        ("de_gsd", "deu_Latn"), ("en_ewt", "eng_Latn"), ("it_isdt", "ita_Latn"), ("de-1996", "deu_Latn"),
        ("iw", "heb_Hebr"), ("Greek", "ell_Grek"), ("fa", "pes_Arab"), ("ms", "zsm_Latn"),
        ("aaa_Latn", "aaa_Latn"), ("tl", "tgl_Latn"), ("Filipino", "fil_Latn"),
        ("gn", "gug_Latn"), ("grn", "grn_Latn"), ("tw", "twi_Latn"), ("ko", "kor_Hang"), ("ja", "jpn_Jpan"),
    ],
)  # fmt: skip
def test_resolve(text: str, code: str) -> None:
    assert resolve(text).code == code


@given(some_language)
def test_every_code_resolves_to_its_language(language: Language) -> None:
    assert resolve(language.code) == language
    assert resolve(language.iso639_3) == language
    assert scripts(language)[0] == language.script


@given(some_language, st.lists(st.booleans(), min_size=1, max_size=5))
def test_case_does_not_matter(language: Language, flags: list[bool]) -> None:
    assert resolve(_mixed_case(language.code, flags)) == language
    assert _outcome(_mixed_case(language.name, flags)) == _outcome(language.name)


def _outcome(text: str) -> Language | type[IsoglossError]:
    try:
        return resolve(text)
    except IsoglossError:
        return IsoglossError


def test_codes_are_unique_and_sorted() -> None:
    codes = [language.code for language in ALL]
    assert codes == sorted(set(codes))
    assert len(codes) > 1000


def test_every_name_of_a_two_letter_language_finds_it() -> None:
    for two in ISO639_1:
        language = resolve(two)
        assert resolve(language.name) == language


@given(some_language, st.sampled_from(["_", "-"]))
def test_every_known_script_round_trips(language: Language, separator: str) -> None:
    for script in scripts(language):
        found = resolve(f"{language.iso639_3}{separator}{script}")
        assert (found.iso639_3, found.script) == (language.iso639_3, script)
        assert resolve(found.code) == found


@given(st.text(alphabet=string.printable + "éßÅ汉", max_size=20))
def test_any_text_gives_a_language_or_one_sentence(text: str) -> None:
    try:
        found = resolve(text)
    except IsoglossError as error:
        assert str(error).endswith(".")
    else:
        assert resolve(found.code) == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Slovk", ["'Slovk'", "slk_Latn (Slovak)"]),
        ("xx_gsd", ["'xx_gsd'"]),
        ("", ["empty"]),
        ("slk_Arab", ["slk_Arab", "Arabic", "slk_Latn"]),
        ("slk_Latin", ["'Latin'", "slk_Latn"]),
        ("slk_Xyzw", ["'Xyzw'", "ISO 15924"]),
        ("aaa", ["Ghotuo", "aaa_Latn"]),
        ("Tonga", ["several", "toi", "ton"]),
        ("Dogon", ["Unknown"]),
        ("de_gsd_two_three", ["'de_gsd_two_three'"]),
    ],
)
def test_errors_name_the_text_and_the_way_out(text: str, expected: list[str]) -> None:
    with pytest.raises(IsoglossError) as caught:
        resolve(text)
    for part in expected:
        assert part in str(caught.value)


def test_folders_keep_their_order_and_may_differ_in_script_only() -> None:
    found = resolve_folders(["sk_snk", "de_gsd", "zho_Hant", "zho_Hans"])
    assert list(found) == ["sk_snk", "de_gsd", "zho_Hant", "zho_Hans"]
    assert [language.code for language in found.values()] == ["slk_Latn", "deu_Latn", "zho_Hant", "zho_Hans"]


@pytest.mark.parametrize(("one", "two"), [("sq", "als_Latn"), ("zh", "cmn"), ("no", "nb"), ("de_gsd", "de_hdt")])
def test_two_folders_of_one_language_are_an_error_with_both_names(one: str, two: str) -> None:
    with pytest.raises(IsoglossError) as caught:
        resolve_folders(["en", one, two])
    assert repr(one) in str(caught.value)
    assert repr(two) in str(caught.value)


@pytest.mark.skipif(not TABLE.exists(), reason="needs data/languages.tsv of ISOGLOSS_SHARED")
def test_every_code_of_the_data_sets() -> None:
    with TABLE.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for row in rows:
        found = resolve(row["code"])
        assert found.iso639_3 == row["iso639_3"], row
        if row["script"]:
            assert found.script == row["script"], row
        if row["dataset"] in ("sib200", "unlabelled"):  # FLORES codes round-trip
            assert found.code == row["code"], row
    for dataset in {row["dataset"] for row in rows}:
        folders = [row["code"] for row in rows if row["dataset"] == dataset]
        assert list(resolve_folders(folders)) == folders
