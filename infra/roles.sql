-- Least privileges on the workspace's database (docs/operations.md). Run it in that database as a superuser, or as its
-- owner where that may make roles; then give a role of these to whoever needs it: CREATE ROLE ann LOGIN IN ROLE s3t_requests.
-- Run it again after an upgrade, once the owner has run a command of the new release.
--
--   s3t_requests   takes requests, and nothing else: for the door of a host apart (docs/http.md)
--   s3t_decides    takes and answers requests; cannot erase, nor write in the ledger what only an erasure, a training or an
--                  ingest tells: row-level security refuses such an entry, with or without the workspace's keys
--   s3t_eraser     carries erasures out: all but changing or removing ledger entries
--   s3t_auditor    reads; holds up nobody
--
-- The owner migrates the schema, and is nobody's everyday role.
DO $$
DECLARE role text; made record;
BEGIN
    FOREACH role IN ARRAY ARRAY['s3t_requests', 's3t_decides', 's3t_eraser', 's3t_auditor'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
        EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', role);
        EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA public TO %I', role);
    END LOOP;
    -- nobody keeps anything here beside the tables: no large objects, no tables of their own, no temporary ones
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    FOR made IN SELECT oid::regprocedure AS name FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
            AND (proname LIKE 'lo\_%' OR proname IN ('lowrite', 'loread')) LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', made.name);
    END LOOP;
END $$;
GRANT INSERT ON ledger, requests TO s3t_requests, s3t_decides, s3t_eraser;
GRANT INSERT ON sealed_ids TO s3t_requests;
REVOKE SELECT ON sealed_ids FROM s3t_auditor;
GRANT DELETE ON sealed_ids TO s3t_decides, s3t_eraser;
GRANT UPDATE (certificate) ON requests TO s3t_decides, s3t_eraser;
REVOKE UPDATE (certificate) ON requests FROM s3t_requests;  -- had it once
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO s3t_requests, s3t_decides, s3t_eraser;
GRANT INSERT, DELETE ON suppression TO s3t_eraser;
GRANT INSERT, UPDATE, DELETE ON lease TO s3t_decides, s3t_eraser;
REVOKE INSERT, UPDATE, DELETE ON lease FROM s3t_requests;
GRANT INSERT, UPDATE, DELETE ON callbacks, outbox TO s3t_eraser;
GRANT UPDATE ON writer TO s3t_requests, s3t_decides, s3t_eraser;  -- to lock its row, which an account that only reads cannot

-- What locks the ledger's table is done where it is not done yet, and waits for nobody for long: whoever reads it meanwhile
-- would wait as well. Sessions of accounts that only look, and that keep a transaction open or a lock on the ledger, are
-- ended before, whatever they do.
SET lock_timeout = '10s';
DO $$
DECLARE form constant text := '3';  -- another one, when a policy below is another
BEGIN
    IF EXISTS (SELECT FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
               WHERE c.relname = 'ledger' AND c.relrowsecurity AND p.polname = 'ask'
               AND obj_description(p.oid, 'pg_policy') = form) THEN
        RETURN;
    END IF;
    PERFORM pg_terminate_backend(a.pid) FROM pg_stat_activity a WHERE a.datname = current_database()
        AND a.pid <> pg_backend_pid() AND pg_has_role(a.usename, 's3t_auditor', 'MEMBER')
        AND NOT pg_has_role(a.usename, 's3t_eraser', 'MEMBER')
        AND (a.state LIKE 'idle in transaction%' OR EXISTS (
            SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.relation = 'ledger'::regclass));
    ALTER TABLE ledger ENABLE ROW LEVEL SECURITY;
    DROP POLICY IF EXISTS read ON ledger;
    DROP POLICY IF EXISTS ask ON ledger;
    DROP POLICY IF EXISTS erase ON ledger;
    CREATE POLICY read ON ledger FOR SELECT USING (true);
    DROP POLICY IF EXISTS decide ON ledger;
    CREATE POLICY ask ON ledger FOR INSERT TO s3t_requests WITH CHECK (convert_from(leaf, 'UTF8')::json ->> 'type' IN (
        'request', 'repeated', 'spelt', 'clock'));
    CREATE POLICY decide ON ledger FOR INSERT TO s3t_decides WITH CHECK (convert_from(leaf, 'UTF8')::json ->> 'type' IN (
        'request', 'repeated', 'spelt', 'approved', 'extended', 'hold', 'closed', 'clock'));
    CREATE POLICY erase ON ledger FOR INSERT TO s3t_eraser WITH CHECK (true);
    EXECUTE format('COMMENT ON POLICY ask ON ledger IS %L', form);
END $$;
-- who holds a lease is a token, and stands under a lock file that is told by a digest: no room for a text of anybody's
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'lease_holds_no_text') THEN
        DELETE FROM lease WHERE name NOT IN ('change', 'train') OR holder !~ '^[0-9a-f]{32}$'
            OR place !~ '^[0-9a-f]{64}$';
        ALTER TABLE lease ADD CONSTRAINT lease_holds_no_text CHECK (
            name IN ('change', 'train') AND holder ~ '^[0-9a-f]{32}$' AND place ~ '^[0-9a-f]{64}$');
    END IF;
END $$;
RESET lock_timeout;
