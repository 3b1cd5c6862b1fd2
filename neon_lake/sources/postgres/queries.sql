-- Every name is qualified: the sessions have an empty search_path.

-- name: identity
SELECT (SELECT system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system()),
       pg_catalog.current_database(),
       pg_catalog.current_setting('server_version_num')::pg_catalog.int4;

-- name: position
SELECT pg_catalog.pg_current_wal_flush_lsn();

-- name: slot
SELECT s.slot_name,
       s.confirmed_flush_lsn,
       pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.restart_lsn)::pg_catalog.int8,
       s.active_pid,
       s.wal_status,
       pg_catalog.to_jsonb(s) ->> 'invalidation_reason',
       s.plugin,
       s.database = pg_catalog.current_database()
  FROM pg_catalog.pg_replication_slots AS s
 WHERE s.slot_name = %(slot)s;

-- name: publication
-- `all`: it has to publish every kind of change, else inserts and truncates alone.
SELECT p.oid, p.pubinsert AND p.pubupdate = %(all)s AND p.pubdelete = %(all)s AND p.pubtruncate AND p.pubviaroot
       AND NOT p.puballtables
       AND coalesce(pg_catalog.to_jsonb(p) ->> 'pubgencols', 's') = 's'
  FROM pg_catalog.pg_publication AS p
 WHERE p.pubname = %(publication)s;

-- name: published
SELECT n.nspname, c.relname
  FROM pg_catalog.pg_publication_rel AS r
  JOIN pg_catalog.pg_class AS c ON c.oid = r.prrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE r.prpubid = %(oid)s;

-- name: tables
SELECT c.oid,
       n.nspname,
       c.relname,
       c.relkind::pg_catalog.text,
       c.relpersistence::pg_catalog.text,
       c.relreplident::pg_catalog.text,
       c.relispartition,
       pg_catalog.obj_description(c.oid, 'pg_class'),
       EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e'),
       -- one partition of each replica identity: that of a partition decides what the log holds of its rows
       CASE c.relkind WHEN 'p' THEN
           (SELECT pg_catalog.jsonb_object_agg(leaf.relreplident, leaf.oid::pg_catalog.regclass::pg_catalog.text)
              FROM pg_catalog.pg_partition_tree(c.oid) AS part
              JOIN pg_catalog.pg_class AS leaf ON leaf.oid = part.relid
             WHERE part.isleaf)
       END
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
   AND n.nspname <> 'information_schema'
   AND n.nspname !~ '^pg_'
 ORDER BY n.nspname, c.relname;

-- name: columns
-- A key that may be deferred is none: the server does not log it as replica identity.
SELECT a.attrelid,
       a.attname,
       a.atttypid,
       a.atttypmod,
       pg_catalog.format_type(a.atttypid, a.atttypmod),
       a.attnotnull,
       a.atthasdef OR a.atthasmissing OR a.attidentity <> '',
       EXISTS (SELECT FROM pg_catalog.pg_index AS i
                WHERE i.indrelid = a.attrelid AND i.indisvalid AND i.indimmediate
                  AND a.attnum = ANY ((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts - 1])
                  AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END),
       pg_catalog.col_description(a.attrelid, a.attnum)
  FROM pg_catalog.pg_attribute AS a
  JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
 WHERE a.attrelid = ANY (%(tables)s::pg_catalog.oid[])
   AND a.attnum > 0
   AND NOT a.attisdropped
   AND (a.attgenerated = '' OR (a.attgenerated = 's' AND %(generated)s))
 ORDER BY a.attrelid, a.attnum;

-- name: imprints
-- The row of the table's own type is written anew when the table gets another name, and hardly else.
-- ATTACH writes every column's row anew; CREATE TABLE … PARTITION OF leaves those without a default as they were made,
-- like that of the system column tableoid (-6).
WITH RECURSIVE made (tab, oid) AS (
    SELECT a.attrelid, a.atttypid
      FROM pg_catalog.pg_attribute AS a
     WHERE a.attrelid = ANY (%(tables)s::pg_catalog.oid[])
       AND a.attnum > 0
       AND NOT a.attisdropped
       AND a.atttypid >= 16384
    UNION
    SELECT m.tab, n.oid
      FROM made AS m
      JOIN pg_catalog.pg_type AS t ON t.oid = m.oid
     CROSS JOIN LATERAL (
               SELECT CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END
               UNION ALL
               SELECT r.rngsubtype FROM pg_catalog.pg_range AS r WHERE r.rngtypid = t.oid
               UNION ALL
               SELECT a.atttypid
                 FROM pg_catalog.pg_attribute AS a
                WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) AS n (oid)
     WHERE n.oid >= 16384
)
SELECT c.oid,
       pg_catalog.jsonb_build_object(
           'identity', c.oid || '/' || (SELECT t.xmin FROM pg_catalog.pg_type AS t WHERE t.oid = c.reltype),
           'columns', (SELECT coalesce(pg_catalog.jsonb_object_agg(
                                  a.attname, pg_catalog.jsonb_build_array(a.attnum, a.xmin::pg_catalog.text)), '{}')
                         FROM pg_catalog.pg_attribute AS a
                        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
           'files', (SELECT pg_catalog.jsonb_object_agg(
                                p.oid || CASE WHEN p.oid = c.oid THEN '' ELSE '/' || coalesce((
                                    SELECT i.xmin::pg_catalog.text
                                      FROM pg_catalog.pg_inherits AS i
                                     WHERE i.inhrelid = p.oid), '') END,
                                pg_catalog.jsonb_build_array(pg_catalog.pg_relation_filenode(p.oid)::pg_catalog.int8, CASE
                                    WHEN p.oid = c.oid THEN true
                                    WHEN EXISTS (SELECT
                                                   FROM pg_catalog.pg_attribute AS s
                                                   JOIN pg_catalog.pg_inherits AS i
                                                     ON i.inhrelid = s.attrelid AND i.xmin = s.xmin
                                                   JOIN pg_catalog.pg_attribute AS a
                                                     ON a.attrelid = s.attrelid AND a.attnum > 0
                                                    AND a.xmin = s.xmin AND a.cmin = s.cmin
                                                  WHERE s.attrelid = p.oid AND s.attnum = -6) THEN true
                                    ELSE p.relkind = 'r' AND pg_catalog.pg_relation_size(p.oid) = 0 END))
                       FROM pg_catalog.pg_class AS p
                      WHERE p.oid = c.oid
                         OR p.oid IN (SELECT f.relid FROM pg_catalog.pg_partition_tree(c.oid) AS f)),
           'labels', (SELECT coalesce(pg_catalog.jsonb_object_agg(e.oid, e.enumlabel), '{}')
                        FROM made AS m
                        JOIN pg_catalog.pg_enum AS e ON e.enumtypid = m.oid
                       WHERE m.tab = c.oid),
           'shapes', (SELECT coalesce(pg_catalog.jsonb_object_agg(m.oid, (
                                 SELECT pg_catalog.string_agg(a.attnum || ':' || a.atttypid, ' ' ORDER BY a.attnum)
                                   FROM pg_catalog.pg_attribute AS a
                                  WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)), '{}')
                        FROM made AS m
                        JOIN pg_catalog.pg_type AS t ON t.oid = m.oid AND t.typtype = 'c'
                       WHERE m.tab = c.oid))
  FROM pg_catalog.pg_class AS c
 WHERE c.oid = ANY (%(tables)s::pg_catalog.oid[]);

-- name: types
WITH RECURSIVE needed (oid) AS (
    SELECT pg_catalog.unnest(%(types)s::pg_catalog.oid[])
    UNION
    SELECT CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END
      FROM pg_catalog.pg_type AS t
      JOIN needed AS x ON x.oid = t.oid
     WHERE t.typtype = 'd' OR (t.typcategory = 'A' AND t.typelem <> 0)
)
SELECT t.oid,
       coalesce((SELECT y.extname || '.' || t.typname
                   FROM pg_catalog.pg_depend AS d
                   JOIN pg_catalog.pg_extension AS y ON y.oid = d.refobjid
                  WHERE d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.objid = t.oid
                    AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e'),
                CASE WHEN n.nspname = 'pg_catalog' THEN t.typname ELSE '' END),
       CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE 0 END,
       t.typtypmod,
       coalesce(e.oid, 0),
       coalesce(e.typdelim, ',')::pg_catalog.text,
       f.nspname,
       o.proname,
       -- Functions for any enum, array and so on take no domains of them; that of refcursor is declared for text.
       t.typtype <> 'd' AND (o.proargtypes[0] = t.oid OR a.typtype = 'p')
  FROM pg_catalog.pg_type AS t
  JOIN needed AS x ON x.oid = t.oid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
  -- Not every type with elements is written as an array: int2vector is not, and its elements name another array.
  LEFT JOIN pg_catalog.pg_type AS e ON e.oid = t.typelem AND e.typarray = t.oid
  JOIN pg_catalog.pg_proc AS o ON o.oid = t.typoutput
  JOIN pg_catalog.pg_type AS a ON a.oid = o.proargtypes[0]
  JOIN pg_catalog.pg_namespace AS f ON f.oid = o.pronamespace;

-- name: type_names
SELECT pg_catalog.format_type(w.oid, w.modifier)
  FROM ROWS FROM (pg_catalog.unnest(%(types)s::pg_catalog.oid[]), pg_catalog.unnest(%(modifiers)s::pg_catalog.int4[]))
       WITH ORDINALITY AS w (oid, modifier, place)
 ORDER BY w.place;

-- name: leaves
-- The tables that hold a table's rows, and their sizes in blocks.
SELECT n.nspname,
       c.relname,
       pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::pg_catalog.int8
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind <> 'p'
   AND (c.oid = %(table)s::pg_catalog.regclass
        OR c.oid IN (SELECT t.relid FROM pg_catalog.pg_partition_tree(%(table)s::pg_catalog.regclass) AS t))
 ORDER BY c.oid;

-- name: snapshot_facts
SELECT pg_catalog.now(), pg_catalog.pg_current_snapshot()::pg_catalog.text;

-- name: walsender_waits
-- The last letters of the event's name changed their case in version 17.
SELECT pg_catalog.lower(a.wait_event) = 'walsenderwaitforwal'
  FROM pg_catalog.pg_replication_slots AS s
  JOIN pg_catalog.pg_stat_activity AS a ON a.pid = s.active_pid
 WHERE s.slot_name = %(slot)s;

-- name: session
-- Whether the session waits for us, and how far its COPY is.
SELECT coalesce(a.wait_event_type, '') IN ('Client', 'Activity'), p.bytes_processed
  FROM pg_catalog.pg_stat_activity AS a
  LEFT JOIN pg_catalog.pg_stat_progress_copy AS p ON p.pid = a.pid
 WHERE a.pid = %(pid)s;

-- name: drop_slot
SELECT pg_catalog.pg_drop_replication_slot(s.slot_name)
  FROM pg_catalog.pg_replication_slots AS s
 WHERE s.slot_name = %(slot)s;

-- name: flush_progress
SELECT pg_catalog.pg_current_wal_insert_lsn(), pg_catalog.pg_current_wal_flush_lsn();

-- name: export_snapshot
SELECT pg_catalog.pg_export_snapshot();

-- name: table_oid
SELECT %(table)s::pg_catalog.regclass::pg_catalog.oid;

-- name: health
SELECT pg_catalog.current_setting('wal_level'),
       pg_catalog.current_setting('max_replication_slots')::pg_catalog.int4
         - (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots),
       pg_catalog.current_setting('max_wal_senders')::pg_catalog.int4
         - (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_get_wal_senders()),
       pg_catalog.current_setting('max_slot_wal_keep_size'),
       pg_catalog.current_setting('wal_sender_timeout'),
       pg_catalog.current_setting('server_encoding'),
       pg_catalog.pg_is_in_recovery(),
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
       (SELECT r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.rolname = CURRENT_USER),
       (SELECT r.rolreplication FROM pg_catalog.pg_roles AS r WHERE r.rolname = CURRENT_USER)
       OR EXISTS (SELECT FROM pg_catalog.pg_roles AS g
                   WHERE g.rolname IN ('rds_replication', 'rds_superuser', 'neon_superuser', 'cloudsqlsuperuser')
                     AND pg_catalog.pg_has_role(CURRENT_USER, g.oid, 'MEMBER')),
       CURRENT_USER;

-- name: rights
SELECT c.oid,
       pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE')
       AND NOT EXISTS (SELECT FROM pg_catalog.unnest(%(columns)s::pg_catalog.text[]) AS w (name)
                        WHERE NOT pg_catalog.has_column_privilege(c.oid, w.name, 'SELECT')),
       pg_catalog.pg_has_role(CURRENT_USER, c.relowner, 'USAGE'),
       pg_catalog.row_security_active(c.oid),
       ARRAY(SELECT a.attname::pg_catalog.text
               FROM pg_catalog.pg_attribute AS a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                AND a.attgenerated <> '' AND NOT (a.attgenerated = 's' AND %(generated)s)
              ORDER BY a.attnum)
  FROM pg_catalog.pg_class AS c
 WHERE c.oid = %(table)s::pg_catalog.regclass;
