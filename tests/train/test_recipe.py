"""Recipes: what is read is what was written, and every mistake is named."""

from pathlib import Path

import pytest

from midspan.errors import InputError
from midspan.train import load_recipe

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").rglob("*.toml"))
MINIMAL = 'name = "a"\nbase = "b"\n[data]\ncorpus = "c"\n[train]\nsteps = 1\nrows_per_step = 2\n'


def _recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_shipped_recipe_loads(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.num_rows == recipe.train.steps * recipe.train.rows_per_step


def test_the_defaults_are_the_papers(tmp_path: Path) -> None:
    recipe = load_recipe(_recipe(tmp_path, MINIMAL))
    assert (recipe.fim.rate, recipe.fim.spm_rate, dict(recipe.fim.spans)) == (0.9, 0.5, {"uniform": 1.0})
    assert recipe.optimizer.betas == (0.9, 0.95)
    assert recipe.optimizer.final_ratio == pytest.approx(1 / 30)
    assert recipe.optimizer.warmup_steps == 1000
    assert recipe.data.row_tokens == 4096


def test_overrides_win_and_have_types(tmp_path: Path) -> None:
    path = _recipe(tmp_path, MINIMAL)
    recipe = load_recipe(path, ["train.steps=7", "optimizer.lr=1", "base=./here", "fim.spans={line=1.0}"])
    assert recipe.train.steps == 7
    assert recipe.optimizer.lr == 1.0
    assert recipe.base == "./here"
    assert dict(recipe.fim.spans) == {"line": 1.0}


def test_the_hash_covers_what_decides_the_weights_and_nothing_else(tmp_path: Path) -> None:
    path = _recipe(tmp_path, MINIMAL)
    same = ["checkpoint.every_steps=5", "data.workers=2", "data.corpus=elsewhere", "base=elsewhere"]
    same += ["parallel.tensor=2", "checkpoint.background=false"]
    other = ["train.steps=3", "optimizer.lr=1e-5", "fim.rate=0.5", "data.seed=1", "lora.rank=2"]
    other += ["model.rope_theta=1e6", "model.chat=chatml"]
    expected = load_recipe(path).hash()
    assert all(load_recipe(path, [override]).hash() == expected for override in same)
    hashes = {load_recipe(path, [override]).hash() for override in other}
    assert len(hashes | {expected}) == len(other) + 1


MIXTURE = MINIMAL.replace(
    'corpus = "c"',
    """sources = [
        {corpus = "c", name = "code", share = 0.85, fim_rate = 0.9},
        {corpus = "d", name = "repositories", share = 0.1, documents = "repositories"},
        {corpus = "e", name = "words", share = 0.05, fim_rate = 0},
    ]""",
)


def test_a_mixture_is_a_list_of_sources(tmp_path: Path) -> None:
    recipe = load_recipe(_recipe(tmp_path, MIXTURE))
    found = [(s.corpus, s.name, s.share, s.fim_rate, s.documents) for s in recipe.data.mixture]
    assert found == [
        ("c", "code", 0.85, 0.9, "files"),
        ("d", "repositories", 0.1, None, "repositories"),
        ("e", "words", 0.05, 0.0, "files"),
    ]
    other = _recipe(tmp_path, MIXTURE.replace('"e"', '"elsewhere"'))
    assert load_recipe(other).hash() == recipe.hash()
    shares = MIXTURE.replace("0.85", "0.8").replace("0.05", "0.1")
    for text in (shares, MIXTURE.replace("fim_rate = 0.9", "fim_rate = 0.8"), MIXTURE.replace("words", "text")):
        assert load_recipe(_recipe(tmp_path, text)).hash() != recipe.hash()


def test_conversations_stand_beside_corpora(tmp_path: Path) -> None:
    text = MIXTURE.replace('corpus = "e"', 'conversations = "e.jsonl"').replace(", fim_rate = 0}", "}")
    recipe = load_recipe(_recipe(tmp_path, text))
    assert [source.conversations for source in recipe.data.mixture] == ["", "", "e.jsonl"]
    assert recipe.data.chats
    assert not load_recipe(_recipe(tmp_path, MIXTURE)).data.chats
    assert (
        load_recipe(_recipe(tmp_path, text), ["data.sources.words.conversations=f.jsonl"]).hash() == recipe.hash()
    )
    assert load_recipe(_recipe(tmp_path, text), ["data.sources.words.name=talk"]).hash() != recipe.hash()


def test_a_source_is_overridden_by_its_name(tmp_path: Path) -> None:
    path = _recipe(tmp_path, MIXTURE)
    recipe = load_recipe(path, ["data.sources.code.corpus=there", "data.sources.words.fim_rate=0.5"])
    assert [source.corpus for source in recipe.data.mixture] == ["there", "d", "e"]
    assert recipe.data.mixture[2].fim_rate == 0.5
    with pytest.raises(InputError, match=r"data\.sources\.cod\.corpus=x goes through cod, which is no table"):
        load_recipe(path, ["data.sources.cod.corpus=x"])
    with pytest.raises(InputError, match=r"write --set data\.sources\.NAME\.corpus"):
        load_recipe(path, ["data.sources.code=x"])


def test_one_corpus_is_a_mixture_of_one(tmp_path: Path) -> None:
    recipe = load_recipe(_recipe(tmp_path, MINIMAL), ["data.documents=repositories"])
    (source,) = recipe.data.mixture
    assert (source.corpus, source.share, source.fim_rate, source.documents) == ("c", 1.0, None, "repositories")
    assert recipe.hash() != load_recipe(_recipe(tmp_path, MINIMAL)).hash()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("share = 0.1", "share = 0.2"), "0.85 + 0.2 + 0.05 = 1.1; they must sum to 1"),
        (("share = 0.1", "shard = 0.1"), "unknown key data.sources.shard; did you mean data.sources.share?"),
        (("fim_rate = 0.9", "fim_rate = 9"), "fim_rate of source 'code' is 9.0; it must lie between 0 and 1"),
        (('documents = "repositories"', 'documents = "repos"'), "'repos'; the choices are files, repositories"),
        (('name = "words"', 'name = "code"'), "two of data.sources are called 'code'"),
        (('{corpus = "e", name', "{name"), "source 'words' of data.sources has neither corpus nor conversations"),
        (('{corpus = "e"', '{conversations = "f", corpus = "e"'), "has both corpus and conversations"),
        (('{corpus = "d"', '{conversations = "d"'), "'repositories' holds conversations, which are neither"),
        (("[train]", 'corpus = "c"\n[train]'), "has both data.corpus and data.sources"),
        (("[train]", 'documents = "repositories"\n[train]'), "beside data.sources; give each source its own"),
        (("sources = [", "sources = 3\nother = ["), "unknown key data.other"),
    ],
)
def test_a_mistake_in_a_mixture_is_named(tmp_path: Path, change: tuple[str, str], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(_recipe(tmp_path, MIXTURE.replace(*change)))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train.stesp=3", "train.stesp; did you mean train.steps"),
        ("trian.steps=3", "unknown key trian; did you mean train"),
        ("train.steps=many", "train.steps is 'many'; a value of the kind int"),
        ("train.steps=1.5", "train.steps is 1.5"),
        ("train.steps=true", "train.steps is True"),
        ("train.steps=0", "train.steps is 0; it must be at least 1"),
        ("train.method=qlora", "'qlora'; the choices are full, layers, lora"),
        ("fim.rate=1.5", "fim.rate is 1.5; it must lie between 0 and 1"),
        ("fim.spans={words=1.0}", "words"),
        ("fim.spans={uniform=0.0}", "no share above 0"),
        ("optimizer.lr=-1.0", "optimizer.lr is -1.0; it must be above 0"),
        ("optimizer.lr=nan", "optimizer.lr is nan"),
        ("optimizer.betas=[0.9]", "two numbers"),
        ("data=3", "data is 3; it is a table"),
        ('data.corpus=""', "lacks data.corpus; give data.corpus for one corpus, or data.sources"),
        ("data.documents=lines", "data.documents is 'lines'; the choices are files, repositories"),
        ("data.sources=3", "data.sources is 3"),
        ("data.row_tokens=2", "a row needs at least 16"),
        ("data.long_documents=keep", "'cut' or 'drop'"),
        ("lora.rank=0", "lora.rank is 0"),
        ('lora.targets=["w_proj"]', "'w_proj'"),
        ("checkpoint.keep=1", "at least 2"),
        ("parallel.tensor=0", "parallel.tensor is 0; it must be at least 1"),
        ("parallel.shard=0", "at least 1, or -1 for the ranks that are left"),
        ("parallel.sequence=true", "parallel.sequence is on with parallel.tensor = 1"),
        ("parallel.activation_checkpointing=all", "'all'; the choices are none, selective, full"),
        ("train.steps", "has no value"),
        ("name.x=1", "goes through name"),
        ("model.theta=1", "unknown key model.theta; did you mean model.rope_theta"),
        ("model.rope_scaling={kind='ntk', factor=2}", "rope scaling 'ntk' is not supported"),
        ("model.rope_scaling={factor=2}", "lacks model.rope_scaling.kind"),
        ("model.rope_scaling=2", "model.rope_scaling is 2; it is a table"),
        ("model.shape={hidden_size=8}", "lacks model.shape.intermediate_size"),
    ],
)
def test_a_mistake_is_one_sentence_with_the_value(tmp_path: Path, override: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(_recipe(tmp_path, MINIMAL), [override])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name = ", "not valid TOML"),
        ('name = "a"', "lacks base"),
        (MINIMAL.replace("steps = 1", ""), "lacks train.steps"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_recipe(_recipe(tmp_path, text))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.toml cannot be read"):
        load_recipe(tmp_path / "nowhere.toml")
