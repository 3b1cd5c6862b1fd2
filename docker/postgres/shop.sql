-- A few tables to begin with; the demo (`neon-lake demo`) has a larger shop and a workload.
CREATE TABLE customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    email text,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers,
    total numeric(12, 2) NOT NULL,
    note jsonb,
    ordered_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO customers (name, email)
SELECT 'Customer ' || n, 'customer' || n || '@example.com' FROM generate_series(1, 1000) AS n;

INSERT INTO orders (customer_id, total, note)
SELECT 1 + n % 1000, n % 997 + 0.99, jsonb_build_object('line', n) FROM generate_series(1, 10000) AS n;
