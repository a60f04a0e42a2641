-- Keys of clients. The secret is not here, only its hash; a key's id is public.

CREATE TABLE keys (
    id          text PRIMARY KEY,
    tenant      text NOT NULL,
    name        text NOT NULL,
    hash        bytea NOT NULL,
    scopes      text[] NOT NULL,
    -- NULL: all collections of the tenant.
    collections text[],
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz,
    revoked_at  timestamptz
);
CREATE INDEX keys_by_tenant ON keys (tenant, created_at);

-- Workers keep keys in memory; every change of one reaches them with its commit.
CREATE FUNCTION notify_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('ragserve_keys', coalesce(NEW.id, OLD.id));
    RETURN NULL;
END
$$;
CREATE TRIGGER keys_changed AFTER INSERT OR UPDATE OR DELETE ON keys
    FOR EACH ROW EXECUTE FUNCTION notify_key();
