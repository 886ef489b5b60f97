-- What workers have in hand is not lost, however long they have it: the audit is told how much it is.

-- How many requests the workers of this node have in hand, as of its last report.
ALTER TABLE publishers ADD COLUMN in_hand bigint NOT NULL DEFAULT 0 CHECK (in_hand >= 0);

-- How many requests the workers of a node have in hand.
CREATE FUNCTION report_in_hand(the_publisher uuid, requests bigint, now_us bigint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO publishers (id, in_hand, reported_at) VALUES (the_publisher, requests, now_us)
    ON CONFLICT (id) DO UPDATE SET in_hand = requests, reported_at = now_us;
$$;
