"""Every setting: its name, type, bounds, default and one line of explanation.

This is the only place that says what can be configured. ``conf/ragserve.toml`` is rendered from
it, and a component is given its own section only.
"""

from __future__ import annotations

from typing import Annotated, Literal

from ragserve.config.rates import AddressRateConfig, RateConfig, TenantRateConfig
from ragserve.config.section import Section
from ragserve.config.section import doc as _doc

Language = Literal[
    "ar", "da", "de", "el", "en", "es", "fi", "fr", "hu", "it", "nl", "no", "pt", "ro", "ru",
    "sv", "ta", "tr", "none",
]  # fmt: skip


class ServerConfig(Section, frozen=True, forbid_unknown_fields=True):
    """Where the server listens and how long it waits."""

    host: Annotated[str, _doc("Address to listen on; keep loopback unless a proxy guards it.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, _doc("TCP port; 0 lets the kernel choose.", ge=0, le=65535)] = 8080
    sockets_dir: Annotated[
        str,
        _doc(
            "Directory for worker-N.sock, a socket of each worker's own for a proxy; empty: none."
        ),
    ] = ""
    trusted_proxies: Annotated[
        str, _doc("Networks whose X-Forwarded-For is believed: 10.0.0.0/8, fd00::/8.")
    ] = ""
    backlog: Annotated[int, _doc("Connections the kernel queues before accept.", ge=1)] = 4096
    keepalive_timeout_s: Annotated[float, _doc("Idle keep-alive connections close.", gt=0)] = 75.0
    request_timeout_s: Annotated[
        float, _doc("A question's time, over all its stages.", gt=0, le=3600)
    ] = 60.0
    express_lane: Annotated[
        bool, _doc("Answer what is in memory before the framework sees it.")
    ] = True
    hosts: Annotated[
        int,
        _doc("Hosts that serve together; without Redis each has its part of the limits.", ge=1),
    ] = 1
    drain_timeout_s: Annotated[
        float, _doc("Requests under way may finish this long after a stop.", ge=0)
    ] = 30.0


class LimitsConfig(Section, frozen=True, forbid_unknown_fields=True):
    """What one request may ask for."""

    body_bytes: Annotated[int, _doc("Largest request body.", ge=1024)] = 64 * 1024**2
    body_timeout_s: Annotated[float, _doc("A body must have arrived by then.", gt=0)] = 60.0
    body_bytes_per_s: Annotated[
        int, _doc("A body that comes slower is given up, after 5 s of grace.", ge=1)
    ] = 500
    head_timeout_s: Annotated[
        float, _doc("A request's head, and a new connection's first, must be here by then.", gt=0)
    ] = 10.0
    write_timeout_s: Annotated[
        float, _doc("A client that takes nothing of its answer for so long is cut off.", gt=0)
    ] = 30.0
    connections_per_address: Annotated[
        int, _doc("Per worker; not from this host and trusted proxies. 0: any number.", ge=0)
    ] = 4096
    query_characters: Annotated[int, _doc("Longest question.", ge=1)] = 8000
    top_k: Annotated[int, _doc("Most passages of one request.", ge=1, le=1000)] = 100
    documents_per_request: Annotated[int, _doc("Most documents of one upload.", ge=1)] = 1000
    document_bytes: Annotated[int, _doc("Largest document.", ge=1024, le=2**30)] = 64 * 1024**2
    wait_s: Annotated[float, _doc("Longest ?wait= of an upload.", ge=0, le=3600)] = 300.0


class AuthConfig(Section, frozen=True, forbid_unknown_fields=True):
    """Who may ask. Keys are made by `ragserve keys create`."""

    allow_anonymous: Annotated[
        bool,
        _doc(
            "Without a key: ask from anywhere (and, while there are no keys, do everything);"
            " if false: only from this machine, while there are no keys."
        ),
    ] = False
    failures_per_minute: Annotated[
        int, _doc("Wrong keys that an address may try before it has to wait.", ge=1)
    ] = 20


class AdmissionConfig(Section, frozen=True, forbid_unknown_fields=True):
    """What happens to questions that come faster than they can be answered."""

    min_permits: Annotated[
        int, _doc("A stage is never limited to fewer questions at once.", ge=1, le=1000)
    ] = 4
    burst_s: Annotated[
        float, _doc("In a burst a question may have to wait so long; else it gets a 503.", gt=0)
    ] = 2.0
    wait_s: Annotated[
        float, _doc("The same while the queue is never empty: waiting would not help.", gt=0)
    ] = 0.5
    llm_wait_s: Annotated[float, _doc("The same for the language model.", gt=0)] = 10.0


class StorageConfig(Section, frozen=True, forbid_unknown_fields=True):
    """Files on this host."""

    data_dir: Annotated[
        str,
        _doc("Embedded database, search index and run files; empty: ~/.local/share/ragserve."),
    ] = ""
    run_dir: Annotated[
        str,
        _doc(
            "Where this host's processes meet; empty: systemd's RUNTIME_DIRECTORY or data_dir/run."
        ),
    ] = ""


class DatabaseConfig(Section, frozen=True, forbid_unknown_fields=True):
    """PostgreSQL. Without a DSN one is started in the data directory."""

    dsn: Annotated[
        str, _doc("postgresql://… of a server with pgvector (DATABASE_URL); empty: embedded.")
    ] = ""
    replica_dsn: Annotated[
        str, _doc("A hot standby: searches go there while it has caught up; empty: none.")
    ] = ""
    connections: Annotated[
        int, _doc("Connections of this host's workers together.", ge=2, le=1000)
    ] = 16
    connect_timeout_s: Annotated[float, _doc("Opening a connection may take.", gt=0)] = 10.0
    acquire_timeout_s: Annotated[float, _doc("Waiting for a free connection.", gt=0)] = 5.0
    statement_timeout_s: Annotated[float, _doc("One statement may run.", gt=0)] = 30.0


class EmbeddingConfig(Section, frozen=True, forbid_unknown_fields=True):
    """The model that turns text into vectors."""

    provider: Annotated[
        Literal["local", "openai", "hashing"],
        _doc("local: MiniLM on this CPU; openai: any such API; hashing: words only, for tests."),
    ] = "local"
    base_url: Annotated[str, _doc("openai: address up to and including /v1.")] = (
        "https://api.openai.com/v1"
    )
    api_key: Annotated[str, _doc("openai: key (OPENAI_API_KEY).")] = ""
    model: Annotated[str, _doc("openai: model name.")] = "text-embedding-3-small"
    dimensions: Annotated[
        int, _doc("openai: vector length to ask for; 0 takes the model's own.", ge=0, le=4000)
    ] = 0
    timeout_s: Annotated[float, _doc("openai: one call may take.", gt=0)] = 30.0
    attempts: Annotated[int, _doc("openai: tries before giving up.", ge=1, le=10)] = 3
    ca_file: Annotated[
        str, _doc("https: certificates (PEM) that vouch for the server; empty: the system's.")
    ] = ""
    batch_size: Annotated[int, _doc("Texts embedded at once.", ge=1, le=2048)] = 32
    threads: Annotated[int, _doc("local: threads of a model.", ge=1, le=64)] = 1
    window_ms: Annotated[
        float, _doc("Questions arriving within it are embedded together.", ge=0, le=100)
    ] = 2.0
    queue: Annotated[int, _doc("Questions waiting for the model; more are refused.", ge=1)] = 1024
    cache_bytes: Annotated[
        int, _doc("Memory for vectors of questions and of sentences compared with them.", ge=0)
    ] = 32 * 1024**2


class ChunkingConfig(Section, frozen=True, forbid_unknown_fields=True):
    """How documents are cut into passages."""

    max_tokens: Annotated[int, _doc("Longest passage, in tokens.", ge=16, le=8192)] = 128
    overlap_tokens: Annotated[int, _doc("Tokens repeated from the passage before.", ge=0)] = 16


class SearchConfig(Section, frozen=True, forbid_unknown_fields=True):
    """How passages are found and ranked."""

    top_k: Annotated[int, _doc("Passages returned unless the request says.", ge=1)] = 10
    mode: Annotated[
        Literal["hybrid", "dense", "lexical"], _doc("Ranking unless the request says.")
    ] = "hybrid"
    dense_weight: Annotated[
        float, _doc("Share of the vector score in a hybrid score.", ge=0, le=1)
    ] = 0.87
    language: Annotated[
        Language, _doc("Stemming and stop words of new collections (en, de, fr, …, none).")
    ] = "en"


class RerankConfig(Section, frozen=True, forbid_unknown_fields=True):
    """A reranker orders what the search has found. Without a base_url there is none."""

    base_url: Annotated[
        str, _doc("Address up to /rerank: https://api.cohere.com/v2, http://127.0.0.1:8081.")
    ] = ""
    api: Annotated[
        Literal["cohere", "tei"],
        _doc("cohere: also Jina, vLLM, llama.cpp; tei: text-embeddings-inference."),
    ] = "cohere"
    api_key: Annotated[str, _doc("Key.")] = ""
    model: Annotated[str, _doc("cohere: model name.")] = ""
    candidates: Annotated[
        int, _doc("Passages it is shown; the best of them are used.", ge=2, le=100)
    ] = 30
    timeout_s: Annotated[
        float, _doc("It may take; then the search's own order is used (degraded).", gt=0)
    ] = 2.0
    ca_file: Annotated[
        str, _doc("https: certificates (PEM) that vouch for the server; empty: the system's.")
    ] = ""
    connections: Annotated[int, _doc("Calls under way at once, per worker.", ge=1)] = 16


class AnswerConfig(Section, frozen=True, forbid_unknown_fields=True):
    """How an answer is made from passages."""

    top_k: Annotated[int, _doc("Passages an answer may use.", ge=1, le=100)] = 6
    min_similarity: Annotated[
        float, _doc("Below this cosine a passage does not count as relevant.", ge=-1, le=1)
    ] = 0.4
    sentences: Annotated[int, _doc("Longest extractive answer.", ge=1, le=20)] = 3
    rewrite: Annotated[
        Literal["rule", "model", "off"],
        _doc("How a conversation's last question is completed before the search."),
    ] = "rule"
    rewrite_timeout_s: Annotated[
        float, _doc("model: it may take; then the rule is used (degraded).", gt=0)
    ] = 3.0


class CacheConfig(Section, frozen=True, forbid_unknown_fields=True):
    """Answers kept for those who ask the same."""

    memory_bytes: Annotated[
        int, _doc("Memory for answers, per worker; 0: none are kept there.", ge=0)
    ] = 64 * 1024**2
    ttl_s: Annotated[
        float, _doc("An answer is fresh this long; changed documents end it at once.", gt=0)
    ] = 3600.0
    stale_s: Annotated[
        float, _doc("Then it is still given for so long, while it is computed anew.", ge=0)
    ] = 300.0
    negative_ttl_s: Annotated[float, _doc("The same for answers that found nothing.", gt=0)] = 30.0
    similarity: Annotated[
        float,
        _doc("A question this similar (cosine) to a kept one gets its answer; 0: off.", ge=0, le=1),
    ] = 0.0
    fold_case: Annotated[bool, _doc("Questions that differ in case only are the same.")] = False


class RedisConfig(Section, frozen=True, forbid_unknown_fields=True):
    """Redis, shared by all workers and hosts. Without a URL each worker is on its own."""

    url: Annotated[
        str,
        _doc("redis://, rediss://, unix://, redis+cluster://, redis+sentinel:// (REDIS_URL)."),
    ] = ""
    prefix: Annotated[str, _doc("Of all keys.")] = "ragserve:"
    timeout_ms: Annotated[
        float, _doc("An operation may take; then the server does without.", ge=1, le=10_000)
    ] = 30.0
    connections: Annotated[int, _doc("Connections per worker.", ge=2, le=1000)] = 16


class StreamConfig(Section, frozen=True, forbid_unknown_fields=True):
    """Answers sent as they are written."""

    keepalive_s: Annotated[
        float, _doc("A silent stream gets a comment; a reader that takes nothing is cut off.", gt=0)
    ] = 15.0
    replay_ms: Annotated[
        float, _doc("Pause between the words of a kept answer; 0: all at once.", ge=0, le=1000)
    ] = 0.0
    buffer_bytes: Annotated[int, _doc("A reader this far behind is cut off.", ge=16 * 1024)] = (
        256 * 1024
    )


class UpstreamConfig(Section, frozen=True, forbid_unknown_fields=True):
    """One server of the language model."""

    base_url: Annotated[str, _doc("OpenAI-compatible address up to and including /v1.")]
    api_key: Annotated[str, _doc("Key.")] = ""
    model: Annotated[str, _doc("The model's name there; empty: llm.model.")] = ""
    weight: Annotated[float, _doc("Share among those of its priority.", gt=0)] = 1.0
    priority: Annotated[int, _doc("Asked while none of a lower number works.", ge=0)] = 0


class LlmConfig(Section, frozen=True, forbid_unknown_fields=True):
    """The language model. Without a base_url answers are extracted sentences."""

    base_url: Annotated[str, _doc("OpenAI-compatible address up to and including /v1.")] = ""
    api_key: Annotated[str, _doc("Key (OPENAI_API_KEY).")] = ""
    model: Annotated[str, _doc("Model name.")] = "gpt-4o-mini"
    upstreams: Annotated[
        tuple[UpstreamConfig, ...],
        _doc(
            "More servers, [[llm.upstreams]]: base_url, api_key, model, weight, priority (0 first)."
        ),
    ] = ()
    context_tokens: Annotated[int, _doc("Prompt and passages together, estimated.", ge=256)] = 3000
    max_tokens: Annotated[int, _doc("Longest answer.", ge=1)] = 512
    temperature: Annotated[float, _doc("Randomness.", ge=0, le=2)] = 0.1
    connect_timeout_s: Annotated[float, _doc("Opening a connection may take.", gt=0)] = 5.0
    first_token_timeout_s: Annotated[
        float, _doc("A stream's first event must have come by then.", gt=0)
    ] = 30.0
    token_timeout_s: Annotated[float, _doc("A stream may be silent so long.", gt=0)] = 15.0
    timeout_s: Annotated[float, _doc("One answer may take.", gt=0)] = 60.0
    attempts: Annotated[int, _doc("Tries before giving up.", ge=1, le=10)] = 3
    hedge: Annotated[
        bool,
        _doc("A first token later than 95 of 100 has another server asked, too; the first counts."),
    ] = False
    ca_file: Annotated[
        str, _doc("https: certificates (PEM) that vouch for the servers; empty: the system's.")
    ] = ""
    connections: Annotated[int, _doc("Answers under way at once, per worker and server.", ge=1)] = (
        64
    )

    @property
    def servers(self) -> tuple[UpstreamConfig, ...]:
        """Return all servers, that of ``base_url`` first; none: there is no language model."""
        first = UpstreamConfig(self.base_url, self.api_key) if self.base_url else None
        return (first, *self.upstreams) if first is not None else self.upstreams


class IngestConfig(Section, frozen=True, forbid_unknown_fields=True):
    """The ingest process."""

    readers: Annotated[int, _doc("Processes that read documents.", ge=1, le=64)] = 1
    documents: Annotated[int, _doc("Documents under way at once.", ge=1, le=1000)] = 64
    read_timeout_s: Annotated[float, _doc("Reading one document may take.", gt=0)] = 60.0
    memory_bytes: Annotated[int, _doc("Memory of a reading process.", ge=256 * 1024**2)] = (
        2 * 1024**3
    )
    attempts: Annotated[int, _doc("Tries of a job before it counts as failed.", ge=1)] = 5
    keep_jobs_days: Annotated[float, _doc("Finished jobs are kept.", gt=0)] = 7.0


class LogConfig(Section, frozen=True, forbid_unknown_fields=True):
    """What is written to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], _doc("Least severe event to write.")
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "console"], _doc("auto: console on a terminal, JSON elsewhere.")
    ] = "auto"
    access: Annotated[bool, _doc("One line for every request.")] = True
    access_sample: Annotated[
        int, _doc("Of the answers of the express lane, one in so many gets a line.", ge=1)
    ] = 100


class TracingConfig(Section, frozen=True, forbid_unknown_fields=True):
    """OpenTelemetry traces (pip install 'ragserve[otel]')."""

    enabled: Annotated[
        bool, _doc("Send spans by OTLP/HTTP to where the OTEL_* environment variables say.")
    ] = False


class Config(Section, frozen=True, forbid_unknown_fields=True):
    """The whole configuration."""

    server: ServerConfig = ServerConfig()
    limits: LimitsConfig = LimitsConfig()
    auth: AuthConfig = AuthConfig()
    rate: RateConfig = RateConfig()
    tenant_rate: TenantRateConfig = TenantRateConfig()
    address_rate: AddressRateConfig = AddressRateConfig()
    admission: AdmissionConfig = AdmissionConfig()
    storage: StorageConfig = StorageConfig()
    database: DatabaseConfig = DatabaseConfig()
    embedding: EmbeddingConfig = EmbeddingConfig()
    chunking: ChunkingConfig = ChunkingConfig()
    search: SearchConfig = SearchConfig()
    rerank: RerankConfig = RerankConfig()
    answer: AnswerConfig = AnswerConfig()
    cache: CacheConfig = CacheConfig()
    redis: RedisConfig = RedisConfig()
    stream: StreamConfig = StreamConfig()
    llm: LlmConfig = LlmConfig()
    ingest: IngestConfig = IngestConfig()
    log: LogConfig = LogConfig()
    tracing: TracingConfig = TracingConfig()
