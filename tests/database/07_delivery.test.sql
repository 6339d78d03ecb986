-- Chapter 7: what one session can see of delivery. Cursors and leases: tests/delivery.test.ts; another cluster:
-- tests/restore.test.ts; a replica: tests/replica.test.ts.
begin;
select plan(72);

select tracking.create_sink('sink', 'webhook', '{"url": "https://example.test"}');


-- Who may

select is(tests.outcome(c.caller, t.query), '42501 permission denied for ' || t.denied, format('%s: %s', c.caller, t.query))
from   (values ('ada@acme.test'), ('as_local_acme_admin'), ('nobody')) as c (caller), (values
  ('select tracking.create_sink(''mine'', ''webhook'')', 'function create_sink'),
  ('select tracking.lease_batch(''sink'', ''me'')', 'function lease_batch'),
  ('select tracking.rewind_sink(''sink'', ''-infinity'')', 'function rewind_sink'),
  ('select count(*) from tracking.sinks', 'table sinks'),
  ('select count(*) from tracking.cursors', 'table cursors'),
  ('select count(*) from tracking.undelivered', 'table undelivered'),
  ('select count(*) from tracking.sink_lag', 'view sink_lag'),
  ('select count(*) from tracking.delivery_gaps', 'view delivery_gaps'),
  ('select tracking.take_job(''job'', ''me'')', 'function take_job')
) as t (query, denied);
select is(tests.outcome('service', t.query), t.verdict, format('service: %s', t.query))
from   (values
  ('insert into tracking.sinks (name, kind) values (''mine'', ''webhook'')', '42501 permission denied for table sinks'),
  ('update tracking.sinks set name = ''mine''', '42501 permission denied for table sinks'),
  ('update tracking.cursors set delivered = 0', '42501 permission denied for table cursors'),
  ('delete from tracking.undelivered', '42501 permission denied for table undelivered'),
  ('delete from tracking.expired', '42501 permission denied for table expired'),
  ('update tracking.jobs set due_at = now()', '42501 permission denied for table jobs'),
  ('select tracking.raise_epoch()', '42501 permission denied for function raise_epoch'),
  ('update tracking.sinks set events = ''{A *}'', enabled = true where name = ''sink'' returning name', 'sink'),
  ('select sink from tracking.sink_lag', 'sink')
) as t (query, verdict);


-- What is refused

select is(tests.outcome('service', t.query), t.verdict, t.query)
from   (values
  ('select tracking.create_sink(''sink'', ''webhook'')', '23505 duplicate key value violates unique constraint "sinks_pkey"'),
  ('select tracking.create_sink(''mine'', ''fax'')', '23514 new row for relation "sinks" violates check constraint "kind_is_known"'),
  ('select tracking.create_sink(''Mine'', ''webhook'')', '23514 new row for relation "sinks" violates check constraint "name_is_lower_case"'),
  ('select tracking.create_sink(''mine'', ''webhook'', ''{"a": {"Api-Key": 1}}'')', '23514 new row for relation "sinks" violates check constraint "settings_hold_no_secret"'),
  ('select tracking.create_sink(''mine'', ''webhook'', max_age => ''0'')', '23514 new row for relation "sinks" violates check constraint "max_age_is_positive"'),
  ('select tracking.create_sink(''mine'', ''webhook'', shards => 0)', '22023 A sink has 1 to 64 shards, not 0.'),
  ('select tracking.create_sink(''mine'', ''webhook'', shards => 65)', '22023 A sink has 1 to 64 shards, not 65.'),
  ('select tracking.create_sink(''mine'', ''webhook'', shards => null)', '22023 A sink has 1 to 64 shards, not null.'),
  ('select tracking.lease_batch(''mine'', ''me'')', '42704 There is no sink ''mine''.'),
  ('select tracking.rewind_sink(''mine'', ''-infinity'')', '42704 There is no sink ''mine''.'),
  ('select tracking.rewind_sink(''sink'', null)', '22004 A sink is rewound to a time, or to -infinity.'),
  ('select tracking.settle_undelivered(''sink'', ''eaten'', ''[]'')', '22023 What became of an event is delivered, dropped or refused.'),
  ('select tracking.extend_lease(''sink'', 0, gen_random_uuid(), 3601)', '22023 A lease has up to 3600 seconds.')
) as t (query, verdict);


-- Filters

select is(tracking.wants(jsonb_populate_record(null::tracking.sinks, t.sink), 'Report Exported', 'reports', t.org, '49 hours'), t.wants, format('a sink with %s, org %s, an event of two days ago', t.sink, t.org))
from   (values
  ('{}'::jsonb, null::uuid, true),
  ('{"events": ["Report *"]}', null, true),
  ('{"events": ["Report", "Exported", "*x"]}', null, false),
  ('{"events": ["report *"]}', null, false),
  ('{"events": ["*"], "channels": ["reports"]}', null, true),
  ('{"events": ["*"], "channels": ["Reports"]}', null, false),
  ('{"events": []}', null, false),
  ('{"orgs": ["a0000000-0000-4000-8000-000000000001"]}', 'a0000000-0000-4000-8000-000000000001', true),
  ('{"orgs": ["a0000000-0000-4000-8000-000000000001"]}', 'a0000000-0000-4000-8000-000000000002', false),
  ('{"orgs": ["a0000000-0000-4000-8000-000000000001"]}', null, false),
  ('{"max_age": "49 hours"}', null, true),
  ('{"max_age": "48 hours"}', null, false)
) as t (sink, org, wants);


-- Snapshots, and ids of transactions of which a row keeps the lower half

select is(tracking.seen_by_both(t.a::pg_snapshot, t.b::pg_snapshot)::text, t.verdict, format('what both %s and %s see', t.a, t.b))
from   (values
  ('5:9:5,7', '5:9:5,7', '5:9:5,7'),
  ('5:9:5,7', '6:12:6,10', '5:9:5,6,7'),
  ('6:12:6,10', '5:9:5,7', '5:9:5,6,7'),
  ('10:12:10', '8:8:', '8:8:'),
  ('1:1:', '8:9:8', '1:1:')
) as t (a, b, verdict);
select is(tracking.full_xid(t.id::xid, t.near), t.verdict, format('%s near %s is %s', t.id, t.near, t.verdict))
from   (values
  ('5', 10::bigint, 5::bigint), ('12', 10, 12), ('4294967290', 4294967300, 4294967290), ('5', 4294967290, 4294967301), ('700', 8589935000, 8589935292), ('4294967295', 12884901888, 12884901887)
) as t (id, near, verdict);

select * from finish();
rollback;
