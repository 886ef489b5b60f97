-- Each batch finds its orders by their keys. PostgreSQL has no figures of a table that was empty a moment ago, takes it
-- for small, and keeps a plan that reads all of it for as long as the session lives or until the first ANALYZE, which may
-- be a minute away: in the rush of a sale every batch would then cost more than the one before.
--
-- A step that is the only possible one counts as very dear when it is switched off; what that would compile is not worth
-- the time. Whoever replaces one of these functions must say so again.
ALTER FUNCTION deliver SET enable_seqscan = off SET jit = off;
ALTER FUNCTION decide SET enable_seqscan = off SET jit = off;
