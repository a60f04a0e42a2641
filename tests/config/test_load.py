"""Loading: what wins over what, and refusals that say where to look."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ragserve.config import Config, load_config
from ragserve.errors import ConfigurationError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration file that sets the port and the language model's key."""
    path = tmp_path / "ragserve.toml"
    path.write_text('[server]\nport = 1001\n[llm]\napi_key = "of the file"\n')
    return path


def _refusal(
    *,
    file: Path | None = None,
    environ: dict[str, str] | None = None,
    overrides: dict[str, object] | None = None,
) -> str:
    with pytest.raises(ConfigurationError) as refused:
        load_config(file, environ, overrides)
    return refused.value.message


def test_each_source_wins_over_the_one_before(file: Path) -> None:
    """Defaults yield to the file, the file to the environment, that to the command line."""
    environ = {"RAGSERVE_SERVER__PORT": "1002"}
    assert load_config().server.port == 8080
    assert load_config(file).server.port == 1001
    assert load_config(file, environ).server.port == 1002
    assert load_config(file, environ, {"server.port": 1003}).server.port == 1003


def test_well_known_variables_lie_between_file_and_environment(file: Path) -> None:
    """OPENAI_API_KEY beats the file for both models; RAGSERVE_LLM__API_KEY beats it for one."""
    environ = {"OPENAI_API_KEY": "well known", "DATABASE_URL": "postgresql://db/x"}
    config = load_config(file, environ)
    assert config.llm.api_key == config.embedding.api_key == "well known"
    assert config.database.dsn == "postgresql://db/x"
    # The order of the variables does not decide, their kind does.
    config = load_config(file, {"RAGSERVE_LLM__API_KEY": "its own", **environ})
    assert (config.llm.api_key, config.embedding.api_key) == ("its own", "well known")


def test_an_empty_well_known_variable_says_nothing(file: Path) -> None:
    """OPENAI_API_KEY set to nothing leaves the key of the file in force."""
    assert load_config(file, {"OPENAI_API_KEY": ""}).llm.api_key == "of the file"


def test_credentials_stand_for_variables_that_are_not_set(file: Path, tmp_path: Path) -> None:
    """Files of systemd's credentials directory are read like variables, which win over them."""
    secrets = tmp_path / "credentials"
    secrets.mkdir()
    (secrets / "ragserve_DATABASE_URL").write_text("postgresql://db/secret\n")
    (secrets / "OPENAI_API_KEY").write_text("of systemd")
    environ = {"CREDENTIALS_DIRECTORY": str(secrets)}
    config = load_config(file, environ)
    assert (config.database.dsn, config.llm.api_key) == ("postgresql://db/secret", "of systemd")
    assert load_config(file, {**environ, "OPENAI_API_KEY": "set"}).llm.api_key == "set"
    (secrets / "ragserve_RAGSERVE_LLM__KEY").write_text("x")
    assert _refusal(environ=environ) == (
        "unknown setting llm.key (RAGSERVE_LLM__KEY); did you mean llm.api_key?"
    )


def test_other_peoples_variables_are_left_alone() -> None:
    """What is not named RAGSERVE_, and what is meant for the command line, sets nothing."""
    environ = {"PATH": "/bin", "RAGSERVE_CONFIG": "x.toml", "RAGSERVE_LISTEN_FD": "3"}
    assert load_config(environ=environ) == Config()


def test_the_environment_is_read_by_the_settings_type() -> None:
    """Words of the environment become numbers and booleans."""
    config = load_config(
        environ={"RAGSERVE_LOG__ACCESS": "false", "RAGSERVE_SEARCH__DENSE_WEIGHT": "0.5"}
    )
    assert config.log.access is False
    assert config.search.dense_weight == 0.5


def test_an_unknown_name_in_the_file_names_the_nearest(tmp_path: Path) -> None:
    """A misspelt setting is refused with the file and the name that was probably meant."""
    path = tmp_path / "typo.toml"
    path.write_text("[server]\nprot = 80\n")
    assert _refusal(file=path) == f"unknown setting server.prot ({path}); did you mean server.port?"


def test_a_setting_outside_its_table_names_where_it_belongs(tmp_path: Path) -> None:
    """A setting without a table is refused with the nearest full name."""
    path = tmp_path / "flat.toml"
    path.write_text("port = 80\n")
    assert _refusal(file=path) == f"unknown setting port ({path}); did you mean server.port?"


@pytest.mark.parametrize(
    ("variable", "name", "meant"),
    [
        ("RAGSERVE_SERVER__PROT", "server.prot", "server.port"),
        ("RAGSERVE_SERVER_PORT", "server_port", "server.port"),
        ("RAGSERVE_PORT", "port", "server.port"),
        ("RAGSERVE_LLM__TIMEOUT", "llm.timeout", "llm.timeout_s"),
    ],
)
def test_an_unknown_name_in_the_environment_names_the_nearest(
    variable: str, name: str, meant: str
) -> None:
    """A misspelt variable is refused by its own name, with the setting that was meant."""
    refusal = _refusal(environ={variable: "1"})
    assert refusal == f"unknown setting {name} ({variable}); did you mean {meant}?"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("server.port", 65536, "Expected `int` <= 65535"),
        ("server.port", -1, "Expected `int` >= 0"),
        ("search.dense_weight", 1.1, "Expected `float` <= 1.0"),
        ("llm.timeout_s", 0, "Expected `float` > 0.0"),
        ("search.mode", "bm25", "Invalid enum value 'bm25'"),
        ("log.access", 1, "Expected `bool`, got `int`"),
        ("server.port", "http", "Expected `int`, got `str`"),
    ],
)
def test_a_value_out_of_bounds_is_named_with_its_limit(
    name: str, value: object, allowed: str
) -> None:
    """A refusal holds the setting, the value, the source and what is allowed."""
    refusal = _refusal(overrides={name: value})
    assert refusal == f"{name} = {value!r} (command line): {allowed}"


def test_the_source_of_a_bad_value_is_the_one_that_set_it(file: Path) -> None:
    """A bad value in the environment over a good one in the file blames the environment."""
    assert _refusal(file=file, environ={"RAGSERVE_SERVER__PORT": "99999"}) == (
        "server.port = '99999' (RAGSERVE_SERVER__PORT): Expected `int` <= 65535"
    )


def test_not_a_number_is_not_a_time() -> None:
    """A timeout of nan, which TOML and the environment can write, is refused."""
    assert "llm.timeout_s = 'nan'" in _refusal(environ={"RAGSERVE_LLM__TIMEOUT_S": "nan"})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[server\nport = 1", "Expected ']' at the end of a table declaration"),
        (b"[server]\nport = 1\nport = 2\n", "Cannot overwrite a value"),
        (b"\xff", "can't decode byte 0xff"),
    ],
)
def test_a_broken_file_is_named_with_the_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    """A file that is no TOML is refused by name, with what is wrong in it."""
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    refusal = _refusal(file=path)
    assert refusal.startswith(f"configuration file {path}: ")
    assert reason in refusal


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that was asked for and is not there is an error, not the defaults."""
    path = tmp_path / "absent.toml"
    assert _refusal(file=path).startswith(f"configuration file {path}: [Errno 2]")


def test_the_overlap_is_shorter_than_the_passage() -> None:
    """A passage cannot repeat all of the one before it."""
    assert _refusal(overrides={"chunking.max_tokens": 16}) == (
        "chunking.overlap_tokens = 16 must be below chunking.max_tokens = 16"
    )
    assert load_config(overrides={"chunking.max_tokens": 17}).chunking.max_tokens == 17


def test_the_language_of_new_collections_is_a_known_one() -> None:
    """A language without an analysis is refused at the start, not at the first upload."""
    assert "search.language" in _refusal(overrides={"search.language": "klingon"})


def test_an_endless_statement_timeout_is_refused() -> None:
    """A time without an end, which PostgreSQL cannot be told, is refused at the start."""
    assert "database.statement_timeout_s" in _refusal(
        overrides={"database.statement_timeout_s": float("inf")}
    )


def test_a_refusal_shows_no_secret(tmp_path: Path) -> None:
    """A key beside what is wrong stays out of the message, and so out of the log."""
    path = tmp_path / "ragserve.toml"
    path.write_text('[[llm.upstreams]]\nbase_ur = "http://x/v1"\napi_key = "sk-secret"\n')
    message = _refusal(file=path)
    assert "llm.upstreams" in message
    assert "base_ur" in message
    assert "sk-secret" not in message


@pytest.mark.parametrize(
    ("dsn", "says"),
    [
        ("postgresql://u:canary/x@h/db", "a port is no number; in a password / "),
        ("postgresql://u:canary?x@h:5432/db", "a port is no number"),
        ("mysql://u:canary@h/db", "must begin with postgresql://"),
        ("canary", "must begin with postgresql://"),
    ],
)
def test_an_address_that_would_be_misread(dsn: str, says: str) -> None:
    """It is refused without being shown: what is taken for a port may be a password."""
    with pytest.raises(ConfigurationError, match=re.escape(says)) as refused:
        load_config(overrides={"database.dsn": dsn})
    assert "canary" not in refused.value.message


@pytest.mark.parametrize(
    "dsn",
    [
        "",
        "postgres://u:p%2Fw@h:5432/db",
        "postgresql://u@[::1]:5432,[::2],h:1/db",
        "postgresql:///db?host=/run/postgresql",
    ],
)
def test_addresses_that_are_understood(dsn: str) -> None:
    """One host, several, none."""
    assert load_config(overrides={"database.dsn": dsn}).database.dsn == dsn
