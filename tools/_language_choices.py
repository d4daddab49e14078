"""Choices of the language table that no source makes for us."""

# FLORES-200 (NLLB Team 2022), plus nqo of SIB-200: the codes of most massively multilingual data sets.
FLORES = """
ace_Arab ace_Latn acm_Arab acq_Arab aeb_Arab afr_Latn ajp_Arab aka_Latn als_Latn amh_Ethi apc_Arab arb_Arab
arb_Latn ars_Arab ary_Arab arz_Arab asm_Beng ast_Latn awa_Deva ayr_Latn azb_Arab azj_Latn bak_Cyrl bam_Latn
ban_Latn bel_Cyrl bem_Latn ben_Beng bho_Deva bjn_Arab bjn_Latn bod_Tibt bos_Latn bug_Latn bul_Cyrl cat_Latn
ceb_Latn ces_Latn cjk_Latn ckb_Arab crh_Latn cym_Latn dan_Latn deu_Latn dik_Latn dyu_Latn dzo_Tibt ell_Grek
eng_Latn epo_Latn est_Latn eus_Latn ewe_Latn fao_Latn fij_Latn fin_Latn fon_Latn fra_Latn fur_Latn fuv_Latn
gaz_Latn gla_Latn gle_Latn glg_Latn grn_Latn guj_Gujr hat_Latn hau_Latn heb_Hebr hin_Deva hne_Deva hrv_Latn
hun_Latn hye_Armn ibo_Latn ilo_Latn ind_Latn isl_Latn ita_Latn jav_Latn jpn_Jpan kab_Latn kac_Latn kam_Latn
kan_Knda kas_Arab kas_Deva kat_Geor kaz_Cyrl kbp_Latn kea_Latn khk_Cyrl khm_Khmr kik_Latn kin_Latn kir_Cyrl
kmb_Latn kmr_Latn knc_Arab knc_Latn kon_Latn kor_Hang lao_Laoo lij_Latn lim_Latn lin_Latn lit_Latn lmo_Latn
ltg_Latn ltz_Latn lua_Latn lug_Latn luo_Latn lus_Latn lvs_Latn mag_Deva mai_Deva mal_Mlym mar_Deva min_Arab
min_Latn mkd_Cyrl mlt_Latn mni_Beng mos_Latn mri_Latn mya_Mymr nld_Latn nno_Latn nob_Latn npi_Deva nqo_Nkoo
nso_Latn nus_Latn nya_Latn oci_Latn ory_Orya pag_Latn pan_Guru pap_Latn pbt_Arab pes_Arab plt_Latn pol_Latn
por_Latn prs_Arab quy_Latn ron_Latn run_Latn rus_Cyrl sag_Latn san_Deva sat_Olck scn_Latn shn_Mymr sin_Sinh
slk_Latn slv_Latn smo_Latn sna_Latn snd_Arab som_Latn sot_Latn spa_Latn srd_Latn srp_Cyrl ssw_Latn sun_Latn
swe_Latn swh_Latn szl_Latn tam_Taml taq_Latn taq_Tfng tat_Cyrl tel_Telu tgk_Cyrl tgl_Latn tha_Thai tir_Ethi
tpi_Latn tsn_Latn tso_Latn tuk_Latn tum_Latn tur_Latn twi_Latn tzm_Tfng uig_Arab ukr_Cyrl umb_Latn urd_Arab
uzn_Latn vec_Latn vie_Latn war_Latn wol_Latn xho_Latn ydd_Hebr yor_Latn yue_Hant zho_Hans zho_Hant zsm_Latn
zul_Latn
""".split()  # noqa: SIM905

# Macrolanguage or collective code -> the language a data set that writes it means.
MACRO_DEFAULT = {
    "ara": "arb", "aym": "ayr", "aze": "azj", "ber": "tzm", "chm": "mhr", "din": "dik", "fas": "pes",
    "ful": "fuv", "iku": "ike", "kau": "knc", "kom": "kpv", "kur": "kmr", "lav": "lvs", "mlg": "plt",
    "mon": "khk", "msa": "zsm", "nah": "nhe", "nep": "npi", "nor": "nob", "oji": "ojb", "ori": "ory",
    "orm": "gaz", "pus": "pbt", "que": "quz", "sqi": "als", "swa": "swh", "uzb": "uzn", "yid": "ydd",
    "zho": "cmn", "ekk": "est",
}  # fmt: skip

# Language -> the prefix of its code where that is not its ISO 639-3 code (FLORES writes zho, not cmn).
PREFIX = {"cmn": "zho"}

# Codes the registry has retired, but that data sets still keep apart.
KEPT_OLD = ("ajp", "kzj")

# `gn` is Guarani as a whole (grn, as in FLORES) in ISO 639-1; the data sets that write it hold Paraguayan.
ALSO = {"gn": "gug", "scc": "srp", "scr": "hrv"}

# Usual script where the sources say nothing, or not what the FLORES data mean by the bare language.
SCRIPT_CHOICE = {
    "ace": "Latn", "arb": "Arab", "cmn": "Hans", "yue": "Hant", "kas": "Arab", "knc": "Latn", "bjn": "Latn",
    "min": "Latn", "taq": "Latn", "tzm": "Tfng", "mni": "Beng", "sat": "Olck", "kor": "Hang", "gaz": "Latn",
    "fuv": "Latn", "kzj": "Latn", "ajp": "Arab", "nhe": "Latn", "orv": "Cyrl", "khk": "Cyrl", "wuu": "Hans",
    "ike": "Cans", "ojb": "Latn", "quw": "Latn", "quy": "Latn", "quz": "Latn", "ayr": "Latn", "pbt": "Arab",
    "npi": "Deva", "ory": "Orya", "plt": "Latn", "uzn": "Latn", "azj": "Latn", "pes": "Arab", "ydd": "Hebr",
    "als": "Latn", "dik": "Latn", "kmr": "Latn", "lvs": "Latn", "zsm": "Latn", "swh": "Latn", "nob": "Latn",
    "mhr": "Cyrl", "kpv": "Cyrl", "est": "Latn", "gug": "Latn", "hbs": "Latn", "srp": "Cyrl", "crh": "Latn",
    "prs": "Arab", "azb": "Arab", "ars": "Arab", "acm": "Arab", "acq": "Arab", "apc": "Arab", "ary": "Arab",
    "arz": "Arab", "aeb": "Arab", "arq": "Arab", "cnr": "Latn",
    "ang": "Latn", "bzd": "Latn", "cak": "Latn", "cbk": "Latn", "cnh": "Latn", "cni": "Latn", "djk": "Latn",
    "hch": "Latn", "ile": "Latn", "lfn": "Latn", "max": "Latn", "nhg": "Latn", "nov": "Latn", "rmn": "Latn",
    "shp": "Latn", "tar": "Latn", "ttq": "Latn", "tzl": "Latn", "pli": "Latn", "grc": "Grek",
}  # fmt: skip

# Names that would otherwise be those of the macrolanguage.
NAME = {"zlm": "Malay (individual language)", "knn": "Konkani (individual language)",
        "dgo": "Dogri (individual language)"}  # fmt: skip

# Names in common use that the sources do not give.
EXTRA_NAMES = {
    "cmn": ["Mandarin"], "yue": ["Cantonese"], "pes": ["Farsi", "Persian"], "nob": ["Bokmål", "Norwegian"],
    "nno": ["Nynorsk", "Norwegian Nynorsk"], "swh": ["Kiswahili"], "zul": ["isiZulu"], "xho": ["isiXhosa"],
    "lug": ["Luganda"], "kin": ["Kinyarwanda"], "nya": ["Chichewa", "Nyanja"], "als": ["Albanian"],
    "tsn": ["Setswana"], "sna": ["chiShona"], "gug": ["Paraguayan Guarani"], "quy": ["Ayacucho Quechua"],
    "nso": ["Sepedi"], "tgl": ["Tagalog"], "mya": ["Myanmar"], "srp": ["Serbian"], "zsm": ["Malaysian"],
    "ckb": ["Sorani"], "kmr": ["Kurmanji"], "tzm": ["Tamazight"],
}  # fmt: skip
