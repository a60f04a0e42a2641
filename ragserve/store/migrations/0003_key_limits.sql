-- Limits of a key's own: {"query_per_minute": 600}; what is not named is as for everybody.

ALTER TABLE keys ADD COLUMN limits jsonb NOT NULL DEFAULT '{}';
