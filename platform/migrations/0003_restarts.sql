-- At which start of the node, in its own clock, it had all orders up to `through`; NULL: not asked yet. One that was started
-- since may have been restored from a backup that is older than its orders.
ALTER TABLE deletion_progress ADD COLUMN started INTEGER;
