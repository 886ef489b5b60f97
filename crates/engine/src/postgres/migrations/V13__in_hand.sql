-- What workers have in hand is not lost, however long they have it: the audit is told how much it is.

ALTER TABLE publishers
    -- How many requests the workers of this node have in hand, as of its last report.
    ADD COLUMN in_hand bigint NOT NULL DEFAULT 0 CHECK (in_hand >= 0),
    -- When that was, by this server's clock: who reports and who audits may be on machines whose clocks differ.
    ADD COLUMN in_hand_at timestamptz NOT NULL DEFAULT clock_timestamp();

-- How many requests the workers of a node have in hand.
CREATE FUNCTION report_in_hand(the_publisher uuid, requests bigint, now_us bigint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO publishers (id, in_hand, reported_at) VALUES (the_publisher, requests, now_us)
    ON CONFLICT (id) DO UPDATE SET in_hand = requests, in_hand_at = clock_timestamp(), reported_at = now_us;
$$;
