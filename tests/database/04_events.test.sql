-- Chapter 4: the log defends itself: direct inserts, what a row must be, who reads which rows.
begin;
select plan(139);

-- Its shape

select results_eq(
  $$ select a.attname::text collate "default", format_type(a.atttypid, a.atttypmod), a.attnotnull, coalesce(pg_get_expr(d.adbin, d.adrelid) collate "default", '')
     from   pg_attribute as a
     left   join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
     where  a.attrelid = 'public.events'::regclass and a.attnum > 0
     order  by a.attnum $$,
  $$ values
    ('scope_id',         'uuid',                        true,  ''),
    ('occurred_at',      'timestamp(3) with time zone', true,  ''),
    ('event_id',         'uuid',                        true,  ''),
    ('org_id',           'uuid',                        false, ''),
    ('actor_id',         'uuid',                        false, 'tracking.actor()'),
    ('app_id',           'text',                        false, ''),
    ('api_key_id',       'uuid',                        false, 'tracking.api_key()'),
    ('event',            'text',                        true,  ''),
    ('channel',          'text',                        true,  '''default''::text'),
    ('description',      'text',                        false, ''),
    ('icon',             'text',                        false, ''),
    ('parser',           'text',                        false, ''),
    ('notify',           'boolean',                     true,  'false'),
    ('tags',             'jsonb',                       true,  '''{}''::jsonb'),
    ('context',          'jsonb',                       true,  '''{}''::jsonb'),
    ('tracking_version', 'smallint',                    true,  '2'),
    ('source',           'text',                        true,  'tracking.source()'),
    ('clock_skew',       'interval',                    false, ''),
    ('received_at',      'timestamp with time zone',    true,  'now()'),
    ('txid',             'xid8',                        true,  'pg_current_xact_id()'),
    ('epoch',            'smallint',                    true,  '1') $$,
  'the log has these columns');
select is(pg_get_partkeydef('public.events'::regclass), 'RANGE (occurred_at)', 'it is partitioned by when things happened');
select set_eq(
  $$ select substring(pg_get_indexdef(indexrelid) from 'INDEX.*\((.*)\)') || case when indisunique then ' unique' else '' end
     from   pg_index where indrelid = 'public.events'::regclass $$,
  array['scope_id, occurred_at, event_id unique', 'actor_id, occurred_at', 'epoch, txid, event_id'],
  'these indexes and no other, since each costs ingest');


-- A direct insert says what happened; the database says who, and when it was received

select is(
  tests.outcome('ada@acme.test', $$ select tests.insert_event('{"scope_id": "10000000-0000-4000-8000-000000000001"}') $$), 'inserted',
  'a person writes an event of their own');
select is(
  (select to_jsonb(e) from events as e),
  jsonb_build_object(
    'scope_id', '10000000-0000-4000-8000-000000000001', 'occurred_at', '2025-03-05T09:30:00.123+00:00', 'event_id', '019565a3-fa3b-7000-8000-000000000001',
    'org_id', null, 'actor_id', '10000000-0000-4000-8000-000000000001', 'app_id', null, 'api_key_id', null, 'event', 'Inserted', 'channel', 'default',
    'description', null, 'icon', null, 'parser', null, 'notify', false, 'tags', '{}'::jsonb, 'context', '{}'::jsonb, 'tracking_version', 2,
    'source', 'client', 'clock_skew', null, 'received_at', now(), 'txid', pg_current_xact_id()::text, 'epoch', 1),
  'and the database signs it');
select is(
  tests.outcome('ada@acme.test', $$ select tests.insert_event('{"scope_id": "10000000-0000-4000-8000-000000000001"}') $$),
  '23505 duplicate key value violates unique constraint "events_default_pkey"', 'an id is taken once in a scope');
select is(
  tests.outcome('eve@evil.test', $$ select tests.insert_event('{"scope_id": "10000000-0000-4000-8000-000000000004"}') $$), 'inserted',
  'and tells nobody in another scope');
delete from events;

select is(tests.outcome(t.caller, format('select tests.insert_event(%L)', t.row)), t.outcome, t.promise)
from   (values
  ('ada@acme.test', '{"scope_id": "a0000000-0000-4000-8000-000000000001", "org_id": "a0000000-0000-4000-8000-000000000001"}',
   'inserted', 'for an org they may read'),
  ('bob@acme.test', '{"scope_id": "a0000000-0000-4000-8000-000000000001", "org_id": "a0000000-0000-4000-8000-000000000001", "app_id": "com.acme.app", "event_id": "019565a3-fa3b-7000-8000-000000000002"}',
   'inserted', 'for an app of it'),
  ('cyd@acme.test', '{"scope_id": "a0000000-0000-4000-8000-000000000001", "org_id": "a0000000-0000-4000-8000-000000000001", "app_id": "com.acme.app", "event_id": "019565a3-fa3b-7000-8000-000000000003"}',
   'inserted', 'also with a right to that app alone'),
  ('as_local_acme_admin', '{"scope_id": "a0000000-0000-4000-8000-000000000001", "org_id": "a0000000-0000-4000-8000-000000000001", "event_id": "019565a3-fa3b-7000-8000-000000000004"}',
   'inserted', 'with a key'),
  ('as_local_demo_app', '{"scope_id": "6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11", "org_id": "6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11", "app_id": "com.demo.app"}',
   'inserted', 'with a key to one app'),
  ('as_local_demo_app', '{"scope_id": "10000000-0000-4000-8000-000000000001"}',
   'inserted', 'or for its owner')
) as t (caller, row, outcome, promise);
select set_eq(
  'select actor_id, api_key_id, org_id, source from events',
  $$ values
    ('10000000-0000-4000-8000-000000000001'::uuid, null::uuid, 'a0000000-0000-4000-8000-000000000001'::uuid, 'client'),
    ('10000000-0000-4000-8000-000000000002', null, 'a0000000-0000-4000-8000-000000000001', 'client'),
    ('10000000-0000-4000-8000-000000000003', null, 'a0000000-0000-4000-8000-000000000001', 'client'),
    ('10000000-0000-4000-8000-000000000001', '20000000-0000-4000-8000-000000000001', 'a0000000-0000-4000-8000-000000000001', 'client'),
    ('10000000-0000-4000-8000-000000000001', '20000000-0000-4000-8000-000000000002', '6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11', 'client'),
    ('10000000-0000-4000-8000-000000000001', '20000000-0000-4000-8000-000000000002', null, 'client') $$,
  'each with its actor and key');
delete from events;

-- Naming what is the database's is refused, though it be the truth.
select is(
  tests.outcome(t.caller, format('select tests.insert_event(%L)', jsonb_build_object('scope_id', '10000000-0000-4000-8000-000000000001', v.name, v.value))),
  '42501 permission denied for table events', format('%s cannot name %s, were it %s', t.caller, v.name, v.said))
from   (values ('ada@acme.test'), ('as_local_acme_admin'), ('nobody')) as t (caller),
       lateral (values
         ('actor_id', to_jsonb('10000000-0000-4000-8000-000000000001'::text), 'their own'), ('actor_id', to_jsonb('10000000-0000-4000-8000-000000000004'::text), 'another''s'),
         ('actor_id', null, 'null'), ('api_key_id', null, 'null'), ('api_key_id', to_jsonb('20000000-0000-4000-8000-000000000001'::text), 'the key in use'),
         ('source', to_jsonb('client'::text), 'client'), ('source', to_jsonb('trigger'::text), 'trigger'),
         ('received_at', to_jsonb(now()), 'now'), ('txid', to_jsonb(pg_current_xact_id()::text), 'this transaction'), ('epoch', to_jsonb(1), 'the present one')
       ) as v (name, value, said);

select is(tests.outcome(t.caller, format('select tests.insert_event(%L)', t.row)), '42501 new row violates row-level security policy for table "events"', t.promise)
from   (values
  ('nobody', '{"scope_id": "10000000-0000-4000-8000-000000000001"}', 'nobody writes'),
  ('as_local_revoked', '{"scope_id": "10000000-0000-4000-8000-000000000001"}', 'nor does a revoked key'),
  ('as_local_expired', '{"scope_id": "10000000-0000-4000-8000-000000000001"}', 'nor an expired one'),
  ('as_local_unknown', '{"scope_id": "10000000-0000-4000-8000-000000000001"}', 'nor an unknown one'),
  ('eve@evil.test', '{"scope_id": "a0000000-0000-4000-8000-000000000001", "org_id": "a0000000-0000-4000-8000-000000000001"}', 'an outsider does not write for the org'),
  ('eve@evil.test', '{"scope_id": "a0000000-0000-4000-8000-000000000001", "org_id": "a0000000-0000-4000-8000-000000000001", "app_id": "com.acme.app"}', 'nor for its app'),
  ('eve@evil.test', '{"scope_id": "a0000000-0000-4000-8000-000000000001", "org_id": "a0000000-0000-4000-8000-000000000001", "app_id": "com.evil.app"}', 'nor by way of an app of their own'),
  ('eve@evil.test', '{"scope_id": "a0000000-0000-4000-8000-000000000002", "org_id": "a0000000-0000-4000-8000-000000000002", "app_id": "com.acme.app"}', 'nor about the app by way of their own org'),
  ('eve@evil.test', '{"scope_id": "a0000000-0000-4000-8000-000000000002", "org_id": "a0000000-0000-4000-8000-000000000002", "app_id": "com.none"}', 'nor about an app that is not there'),
  ('eve@evil.test', '{"scope_id": "00000000-0000-0000-0000-000000000000", "org_id": "00000000-0000-0000-0000-000000000000"}', 'the nil UUID is no org'),
  ('nik@nowhere.test', '{"scope_id": "a0000000-0000-4000-8000-0000000000ff", "org_id": "a0000000-0000-4000-8000-0000000000ff"}', 'nor is one that is not there'),
  ('cyd@acme.test', '{"scope_id": "a0000000-0000-4000-8000-000000000001", "org_id": "a0000000-0000-4000-8000-000000000001"}', 'a role on an app does not speak for the org'),
  ('cyd@acme.test', '{"scope_id": "a0000000-0000-4000-8000-000000000001", "org_id": "a0000000-0000-4000-8000-000000000001", "app_id": "com.acme.beta"}', 'nor for its other apps'),
  ('as_local_demo_app', '{"scope_id": "6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11", "org_id": "6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11"}', 'nor does a key to one app'),
  ('as_local_demo_app', '{"scope_id": "a0000000-0000-4000-8000-000000000001", "org_id": "a0000000-0000-4000-8000-000000000001"}', 'nor for its owner''s other orgs'),
  ('ada@acme.test', '{"scope_id": "a0000000-0000-4000-8000-000000000001", "org_id": "a0000000-0000-4000-8000-000000000001", "app_id": "com.demo.app"}', 'an app goes with the org that owns it')
) as t (caller, row, promise);
select is_empty('select from events', 'and nothing was written');


-- What must be true of a row

create temporary table broken as
select t.caller, t.row, t.rule, tests.outcome(t.caller, format('select tests.insert_event(%L::jsonb || %L)', '{"scope_id": "10000000-0000-4000-8000-000000000001"}', t.row)) as outcome
from   (values
  ('ada@acme.test', '{"scope_id": "10000000-0000-4000-8000-000000000004"}', 'scope_is_the_org_or_else_the_actor'),
  ('ada@acme.test', '{"org_id": "a0000000-0000-4000-8000-000000000001"}', 'scope_is_the_org_or_else_the_actor'),
  ('ada@acme.test', '{"event_id": "019565a3-fa3c-7000-8000-000000000001"}', 'event_id_is_a_uuid_v7_of_that_time'),
  ('ada@acme.test', '{"event_id": "019565a3-fa3b-4000-8000-000000000001"}', 'event_id_is_a_uuid_v7_of_that_time'),
  ('ada@acme.test', '{"event_id": "019565a3-fa3b-7000-0000-000000000001"}', 'event_id_is_a_uuid_v7_of_that_time'),
  ('ada@acme.test', jsonb_build_object(
     'occurred_at', date_trunc('milliseconds', now() + interval '24 hours 1 ms'),
     'event_id', tracking.new_event_id(now() + interval '24 hours 1 ms'))::text, 'occurred_at_is_at_most_a_day_ahead'),
  ('ada@acme.test', '{"event": ""}', 'event_name_is_not_blank'),
  ('ada@acme.test', '{"event": " \t\n\r\f\u000b"}', 'event_name_is_not_blank'),
  ('ada@acme.test', jsonb_build_object('event', repeat('é', 201))::text, 'event_name_is_at_most_200_characters'),
  ('ada@acme.test', '{"channel": " \t\n\r\f\u000b"}', 'channel_is_not_blank'),
  ('ada@acme.test', jsonb_build_object('channel', repeat('é', 101))::text, 'channel_is_at_most_100_characters'),
  ('ada@acme.test', jsonb_build_object('description', repeat('é', 3998), 'icon', 'é', 'parser', 'éé')::text, 'description_icon_and_parser_are_at_most_4000_characters'),
  ('ada@acme.test', '{"tags": []}', 'tags_are_an_object'),
  ('ada@acme.test', '{"tags": "org_id"}', 'tags_are_an_object'),
  ('ada@acme.test', '{"context": 5}', 'context_is_an_object'),
  ('ada@acme.test', jsonb_build_object('tags', jsonb_build_object('a', repeat('x', 32758)))::text, 'tags_with_context_are_at_most_32_kb'),
  ('ada@acme.test', jsonb_build_object('context', jsonb_build_object('a', repeat('é', 16379)))::text, 'tags_with_context_are_at_most_32_kb'),
  ('ada@acme.test', '{"tags": {"org_id": "a0000000-0000-4000-8000-000000000001"}}', 'tags_name_no_other_org'),
  ('ada@acme.test', '{"tags": {"org_id": ""}}', 'tags_name_no_other_org'),
  ('ada@acme.test', '{"scope_id": "a0000000-0000-4000-8000-000000000001", "org_id": "a0000000-0000-4000-8000-000000000001", "tags": {"org_id": "a0000000-0000-4000-8000-000000000002"}}', 'tags_name_no_other_org'),
  ('ada@acme.test', '{"scope_id": "a0000000-0000-4000-8000-000000000001", "org_id": "a0000000-0000-4000-8000-000000000001", "app_id": "com.acme.app", "tags": {"app_id": "com.acme.beta"}}', 'tags_name_no_other_app'),
  ('ada@acme.test', '{"clock_skew": "36501 days"}', 'clock_skew_is_at_most_36500_days'),
  ('ada@acme.test', '{"clock_skew": "-170000000 years"}', 'clock_skew_is_at_most_36500_days'),
  ('ada@acme.test', '{"tracking_version": 0}', 'tracking_version_is_1_or_2'),
  ('ada@acme.test', '{"tracking_version": 3}', 'tracking_version_is_1_or_2'),
  ('ada@acme.test', '{"app_id": "com.none"}', null),
  ('service', '{"actor_id": "10000000-0000-4000-8000-000000000001", "app_id": "com.acme.app"}', 'app_comes_with_its_org'),
  ('owner', '{"org_id": "a0000000-0000-4000-8000-000000000001", "scope_id": "a0000000-0000-4000-8000-000000000001", "source": "client"}', 'actor_is_known_unless_a_service_speaks'),
  ('service', '{"org_id": "00000000-0000-0000-0000-000000000000", "scope_id": "00000000-0000-0000-0000-000000000000"}', 'org_id_is_not_reserved'),
  ('service', '{"org_id": "ffffffff-ffff-ffff-ffff-ffffffffffff", "scope_id": "ffffffff-ffff-ffff-ffff-ffffffffffff"}', 'org_id_is_not_reserved'),
  ('service', jsonb_build_object('org_id', 'a0000000-0000-4000-8000-000000000001', 'scope_id', 'a0000000-0000-4000-8000-000000000001', 'app_id', repeat('é', 201))::text, 'app_id_is_at_most_200_characters'),
  ('owner', '{"actor_id": "10000000-0000-4000-8000-000000000001", "source": "clients"}', 'source_is_client_service_or_trigger')
) as t (caller, row, rule);
select matches(b.outcome, format('^23514 new row for relation "\w+" violates check constraint "%s"$', b.rule), replace(b.rule, '_', ' '))
from   broken as b where b.rule is not null;
select is(b.outcome, '42501 new row violates row-level security policy for table "events"', 'an app comes with its org for clients too') from broken as b where b.rule is null;
select set_eq(
  $$ select conname::text from pg_constraint where conrelid = 'public.events'::regclass and contype = 'c' $$,
  $$ select rule from broken where rule is not null $$,
  'each of the log''s constraints was broken here');
select is_empty('select from events', 'and nothing was written');

select is(
  tests.outcome('ada@acme.test', format('select tests.insert_event(%L::jsonb || %L)', '{"scope_id": "10000000-0000-4000-8000-000000000001"}', t.row)), 'inserted', t.promise)
from   (values
  (jsonb_build_object('event_id', '019565a3-fa3b-7000-8000-000000000001', 'event', repeat('é', 200), 'channel', repeat('é', 100)), '200 characters are an event''s name, and 100 its channel''s'),
  (jsonb_build_object('event_id', '019565a3-fa3b-7000-8000-000000000002', 'description', repeat('é', 3998), 'icon', 'é', 'parser', 'é'), '4,000 characters are description, icon and parser'),
  (jsonb_build_object('event_id', '019565a3-fa3b-7000-8000-000000000003', 'tags', jsonb_build_object('a', repeat('x', 32757))), '32 KB of tags are in'),
  (jsonb_build_object('event_id', '019565a3-fa3b-7000-8000-000000000004', 'context', jsonb_build_object('a', repeat('é', 16378))), '32 KB of context are in'),
  (jsonb_build_object('occurred_at', date_trunc('milliseconds', now() + interval '24 hours'), 'event_id', tracking.new_event_id(now() + interval '24 hours')), '24 hours ahead are not too many'),
  (jsonb_build_object('occurred_at', '1970-01-01 00:00:00+00', 'event_id', '00000000-0000-7000-8000-000000000001'), 'nor are 50 years back'),
  ('{"event_id": "019565a3-fa3b-7000-8000-000000000005", "scope_id": "a0000000-0000-4000-8000-000000000001", "org_id": "a0000000-0000-4000-8000-000000000001", "app_id": "com.acme.app", "tags": {"org_id": "a0000000-0000-4000-8000-000000000001", "app_id": "com.acme.app"}}', 'tags may say the same as the columns')
) as t (row, promise);
select is((select count(*) from events), 7::bigint, 'and all of these were written');
delete from events;


-- What the service role may

select is(
  tests.outcome('service', $$ select tests.insert_event('{"scope_id": "10000000-0000-4000-8000-000000000004", "actor_id": "10000000-0000-4000-8000-000000000004"}') $$),
  'inserted', 'the service role speaks for anybody');
select is(
  tests.outcome('service', $$ select tests.insert_event('{"scope_id": "a0000000-0000-4000-8000-000000000001", "org_id": "a0000000-0000-4000-8000-000000000001"}') $$),
  'inserted', 'or for an org alone');
select bag_eq(
  'select actor_id, source from events',
  $$ values ('10000000-0000-4000-8000-000000000004'::uuid, 'service'), (null, 'service') $$,
  'and the database says that it was the service');
select is(
  tests.outcome('service', $$ select tests.insert_event('{"scope_id": "10000000-0000-4000-8000-000000000004"}') $$),
  '23514 new row for relation "events_default" violates check constraint "scope_is_the_org_or_else_the_actor"', 'but not for nobody');
select is(
  tests.outcome('service', format('select tests.insert_event(%L::jsonb || %L)', '{"scope_id": "a0000000-0000-4000-8000-000000000001", "org_id": "a0000000-0000-4000-8000-000000000001"}', t.row)),
  '42501 permission denied for table events', format('it cannot name %s', t.row))
from   (values
  ('{"api_key_id": "20000000-0000-4000-8000-000000000001"}'), ('{"source": "client"}'), ('{"received_at": "2025-03-05 09:30:00+00"}'), ('{"txid": "1"}'), ('{"epoch": 2}')) as t (row);
select is(tests.outcome(t.caller, t.statement), '42501 permission denied for table events', format('%s: no %s', t.caller, t.statement))
from   (select c.caller, s.statement
        from   (values ('ada@acme.test'), ('nobody'), ('service')) as c (caller),
               (values ('update events set event = ''Forged'''), ('update events set actor_id = null'), ('delete from events'), ('truncate events'), ('select from events for update')) as s (statement)) as t;
select bag_eq(
  'select event, actor_id from events',
  $$ values ('Inserted', '10000000-0000-4000-8000-000000000004'::uuid), ('Inserted', null) $$,
  'what is written stays as it is');
delete from events;


-- Who reads which rows

insert into events (scope_id, occurred_at, event_id, org_id, actor_id, app_id, event)
select coalesce(t.org_id, t.actor_id)::uuid, '2025-03-05 09:30:00.123+00', tracking.new_event_id('2025-03-05 09:30:00.123+00'), t.org_id::uuid, t.actor_id::uuid, t.app_id, t.event
from   (values
  ('Acme by ada',       'a0000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000001', null),
  ('Acme by nik',       'a0000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000005', null),
  ('Acme by a service', 'a0000000-0000-4000-8000-000000000001', null,                                   null),
  ('Acme app',          'a0000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000001', 'com.acme.app'),
  ('Acme beta',         'a0000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000003', 'com.acme.beta'),
  ('Evil',              'a0000000-0000-4000-8000-000000000002', '10000000-0000-4000-8000-000000000001', null),
  ('Demo',              '6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11', '10000000-0000-4000-8000-000000000001', null),
  ('Demo app',          '6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11', '10000000-0000-4000-8000-000000000001', 'com.demo.app'),
  ('ada alone',         null,                                   '10000000-0000-4000-8000-000000000001', null),
  ('cyd alone',         null,                                   '10000000-0000-4000-8000-000000000003', null),
  ('eve alone',         null,                                   '10000000-0000-4000-8000-000000000004', null)
) as t (event, org_id, actor_id, app_id);
select is(tests.outcome(t.caller, 'select string_agg(event, '', '' order by event collate "C") from events'), t.events, t.promise)
from   (values
  ('ada@acme.test',       'Acme app, Acme beta, Acme by a service, Acme by ada, Acme by nik, Demo, Demo app, ada alone', 'ada reads the events of both of their orgs, and their own'),
  ('bob@acme.test',       'Acme app, Acme beta, Acme by a service, Acme by ada, Acme by nik', 'bob reads Acme''s'),
  ('cyd@acme.test',       'Acme app, cyd alone', 'cyd reads the app''s, and their own: not those of other apps, though they wrote one'),
  ('eve@evil.test',       'Evil, eve alone', 'eve reads Evil''s, and their own'),
  ('nik@nowhere.test',    null, 'nik reads none, not even what they did for Acme'),
  ('as_local_acme_admin', 'Acme app, Acme beta, Acme by a service, Acme by ada, Acme by nik', 'a key reads its org''s, and not its owner''s other ones'),
  ('as_local_demo_app',   'Demo app', 'a key to an app reads the app''s'),
  ('as_local_revoked',    null, 'a revoked key reads none'),
  ('as_local_expired',    null, 'nor does an expired one'),
  ('nobody',              null, 'nor nobody'),
  ('service',             'Acme app, Acme beta, Acme by a service, Acme by ada, Acme by nik, Demo, Demo app, Evil, ada alone, cyd alone, eve alone', 'the service role reads all')
) as t (caller, events, promise);

select * from finish();
rollback;
