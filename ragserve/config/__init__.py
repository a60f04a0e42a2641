"""Configuration: one TOML file, the environment over it, checked before anything starts."""

from ragserve.config.load import load_config
from ragserve.config.rates import (
    MOST_PER_MINUTE,
    AddressRateConfig,
    RateConfig,
    TenantRateConfig,
)
from ragserve.config.redact import redacted, secrets_of
from ragserve.config.render import render, render_defaults
from ragserve.config.settings import (
    AdmissionConfig,
    AnswerConfig,
    AuthConfig,
    CacheConfig,
    ChunkingConfig,
    Config,
    DatabaseConfig,
    EmbeddingConfig,
    IngestConfig,
    Language,
    LimitsConfig,
    LlmConfig,
    LogConfig,
    RedisConfig,
    SearchConfig,
    ServerConfig,
    StorageConfig,
    StreamConfig,
    UpstreamConfig,
)

__all__ = [
    "MOST_PER_MINUTE",
    "AddressRateConfig",
    "AdmissionConfig",
    "AnswerConfig",
    "AuthConfig",
    "CacheConfig",
    "ChunkingConfig",
    "Config",
    "DatabaseConfig",
    "EmbeddingConfig",
    "IngestConfig",
    "Language",
    "LimitsConfig",
    "LlmConfig",
    "LogConfig",
    "RateConfig",
    "RedisConfig",
    "SearchConfig",
    "ServerConfig",
    "StorageConfig",
    "StreamConfig",
    "TenantRateConfig",
    "UpstreamConfig",
    "load_config",
    "redacted",
    "render",
    "render_defaults",
    "secrets_of",
]
