-- Tables as they were before 'key-usage-external' took numbers, made into those of tables.sql; else nothing.
-- What they tell about old uses stays as it was judged then, until a rebuild.
DO $$
BEGIN
    IF to_regclass('usage_sources') IS NULL OR to_regclass('usage_quarantine') IS NOT NULL THEN
        RETURN;
    END IF;
    ALTER TABLE key_usage
        ADD COLUMN last_used_agent text COLLATE "C" NOT NULL DEFAULT '',
        ADD COLUMN last_used_source text COLLATE "C" NOT NULL DEFAULT '',
        SET (fillfactor = 60);
    ALTER TABLE key_usage_hours SET (fillfactor = 60);
    ALTER TABLE usage_sources
        ADD COLUMN topic text COLLATE "C" NOT NULL DEFAULT 'key-usage',
        DROP CONSTRAINT usage_sources_pkey, ADD PRIMARY KEY (topic, source, partition);
    ALTER TABLE usage_gaps
        ADD COLUMN topic text COLLATE "C" NOT NULL DEFAULT 'key-usage',
        DROP CONSTRAINT usage_gaps_pkey, ADD PRIMARY KEY (topic, source, partition, first);
END
$$
