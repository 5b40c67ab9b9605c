-- Least privileges on the workspace's database (docs/operations.md). Run it in that database as its owner; then give a
-- role of these to whoever needs it: CREATE ROLE ann LOGIN IN ROLE s3t_requests.
--
--   s3t_requests   takes and answers requests; cannot erase, cannot change what the ledger says
--   s3t_eraser     carries erasures out: all but changing or removing ledger entries
--   s3t_auditor    reads
--
-- The owner migrates the schema, and is nobody's everyday role.
DO $$
DECLARE role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['s3t_requests', 's3t_eraser', 's3t_auditor'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        END IF;
        EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', role);
        EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA public TO %I', role);
    END LOOP;
END $$;
GRANT INSERT ON ledger, requests, idempotency TO s3t_requests, s3t_eraser;
GRANT UPDATE (certificate) ON requests TO s3t_requests, s3t_eraser;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO s3t_requests, s3t_eraser;
GRANT INSERT, DELETE ON suppression TO s3t_eraser;
GRANT INSERT, UPDATE, DELETE ON lease TO s3t_requests, s3t_eraser;
