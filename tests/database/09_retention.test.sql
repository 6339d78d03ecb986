-- Chapter 9: the log's months.
begin;
select plan(96);

-- The months that have a partition, in order, and what each may hold.
create function tests.months()
  returns setof text
  language sql stable
as $$
  select c.relname::text collate "C" from pg_inherits as i join pg_class as c on c.oid = i.inhrelid
  where  i.inhparent = 'public.events'::regclass and c.relname <> 'events_default'
  order  by 1
$$;
create function tests.month(months_from_now integer)
  returns text
  language sql stable
as $$ select 'events_' || to_char((date_trunc('month', now() at time zone 'UTC') + make_interval(months => months_from_now)), 'YYYY_MM') $$;

select results_eq(
  'select * from tests.months()', 'select tests.month(n) collate "C" from generate_series(0, 3) as n order by 1',
  'this month and the three after it have a partition from the first');
select is(tests.outcome('service', 'select tracking.make_partitions()'), '0', 'making them again makes none');
select is(tests.outcome('service', 'select tracking.make_partitions(5)'), '2', 'the service role makes more');
select results_eq(
  'select * from tests.months()', 'select tests.month(n) collate "C" from generate_series(0, 5) as n order by 1', 'as many months ahead as it says');
select is(tests.outcome('ada@acme.test', 'select tracking.make_partitions(9)'), '42501 permission denied for function make_partitions', 'clients make none');
select is_empty('select from tracking.partition_report', 'nothing is reported');

-- A month is a month in UTC, wherever the session is.
set local timezone = 'Asia/Kolkata';
set local datestyle = 'SQL, DMY'; -- which writes it IST, and reads that as Israel's
select is(tests.outcome('service', 'select tracking.make_partitions(6)'), '1', 'a month made on the other side of the earth');
set local datestyle = 'ISO';
set local timezone = 'UTC';
select set_eq(
  $$ select c.relname::text, pg_get_expr(c.relpartbound, c.oid)
     from   pg_inherits as i join pg_class as c on c.oid = i.inhrelid
     where  i.inhparent = 'public.events'::regclass and c.relname <> 'events_default' $$,
  $$ select tests.month(n), format('FOR VALUES FROM (%L) TO (%L)',
            date_trunc('month', now()) + make_interval(months => n), date_trunc('month', now()) + make_interval(months => n + 1))
     from   generate_series(0, 6) as n $$,
  'begins and ends there as everywhere');


-- What falls outside is kept, reported, and moved

insert into events (scope_id, occurred_at, event_id, org_id, actor_id, app_id, event, channel, description, icon, parser, notify, tags, context, tracking_version, source, clock_skew, received_at, txid, epoch)
select 'a0000000-0000-4000-8000-000000000001', tracking.event_time(t.id::uuid), t.id::uuid, 'a0000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000001', 'com.acme.app',
       t.event, 'old', 'd', 'i', 'p', true, '{"n": 1}', '{"m": 2}', 1, 'client', interval '1 second', t.received_at::timestamptz, '7', 2
from   (values
  ('019565a3-fa3b-7000-8000-000000000001', 'March', '2025-03-06 00:00:00+00'),
  ('01954f00-afff-7000-8000-000000000001', 'The last of February', '2025-03-07 00:00:00+00'),
  ('01954f00-b000-7000-8000-000000000001', 'The first of March', '2025-03-08 00:00:00+00'),
  ('0195eea5-d3ff-7000-8000-000000000001', 'The last of March', '2025-04-09 00:00:00+00'),
  ('00000000-0000-7000-8000-000000000001', 'The first of all', '2025-03-10 00:00:00+00')
) as t (id, event, received_at);
select is(
  tests.outcome('ada@acme.test', $$ select track_event('{"event": "Now"}') ->> 'status' $$), 'ok', 'an event of this month');
create temporary table written as select to_jsonb(e) as event from events as e;
select bag_eq(
  'select event, tableoid::regclass::text as partition from events',
  $$ select t.event, t.partition from (values
    ('March', 'tracking.events_default'), ('The last of February', 'tracking.events_default'), ('The first of March', 'tracking.events_default'),
    ('The last of March', 'tracking.events_default'), ('The first of all', 'tracking.events_default'), ('Now', 'tracking.' || tests.month(0))) as t (event, partition) $$,
  'an event for which there is no month is kept in the default partition');
select results_eq(
  'select * from tracking.partition_report order by month',
  $$ values
    (timestamp '1970-01-01', 1::bigint, timestamptz '2025-03-10 00:00:00+00', timestamptz '2025-03-10 00:00:00+00'),
    ('2025-02-01', 1, '2025-03-07 00:00:00+00', '2025-03-07 00:00:00+00'),
    ('2025-03-01', 3, '2025-03-06 00:00:00+00', '2025-04-09 00:00:00+00') $$,
  'and reported: how many of which month, and when they came');
select is(tests.outcome('service', 'select sum(rows_in_default) from tracking.partition_report'), '5', 'to the service role');
select is(tests.outcome('ada@acme.test', 'select count(*) from tracking.partition_report'), '42501 permission denied for view partition_report', 'not to clients');

set local timezone = 'Pacific/Auckland';
select is(tests.outcome('service', 'select tracking.make_partitions()'), '3', 'making partitions makes one for each of those months');
set local timezone = 'UTC';
select bag_eq(
  'select event, tableoid::regclass::text as partition from events',
  $$ select t.event, t.partition from (values
    ('March', 'tracking.events_2025_03'), ('The last of February', 'tracking.events_2025_02'), ('The first of March', 'tracking.events_2025_03'),
    ('The last of March', 'tracking.events_2025_03'), ('The first of all', 'tracking.events_1970_01'), ('Now', 'tracking.' || tests.month(0))) as t (event, partition) $$,
  'and moves the events there');
select bag_eq('select to_jsonb(e) from events as e', 'select event from written', 'nothing is lost, and nothing of them changed');
select is_empty('select from tracking.partition_report', 'and nothing is reported any more');
select is_empty('select from tracking.events_default', 'the default partition is empty');
select is(
  tests.outcome('ada@acme.test', $$ select track_event('{"event": "March again", "tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001", "event_id": "019565a3-fa3b-7000-8000-000000000001"}') ->> 'duplicate' $$),
  'true', 'an event that was moved is known as before');
select is(tests.outcome('service', 'select tracking.make_partitions()'), '0', 'then there is nothing to do');


-- Every partition is as closed as the log is

select is_empty(
  $$ select c.relname from pg_inherits as i join pg_class as c on c.oid = i.inhrelid where i.inhparent = 'public.events'::regclass and not c.relrowsecurity $$,
  'every partition has row-level security');
select is_empty(
  $$ select c.relname from pg_inherits as i join pg_class as c on c.oid = i.inhrelid where i.inhparent = 'public.events'::regclass and obj_description(c.oid, 'pg_class') is null $$,
  'and a comment');
select is(obj_description('tracking.events_2025_03'::regclass, 'pg_class'), 'Events of March 2025 (UTC).', 'which says what it holds');
select is_empty(
  $$ select from pg_inherits as i where i.inhparent = 'public.events'::regclass
     and (select array_agg(pg_get_constraintdef(oid) order by conname) from pg_constraint where conrelid = i.inhrelid and contype = 'c')
         is distinct from (select array_agg(pg_get_constraintdef(oid) order by conname) from pg_constraint where conrelid = i.inhparent and contype = 'c') $$,
  'the same must be true of its rows');
select is_empty(
  $$ select from pg_inherits as i where i.inhparent = 'public.events'::regclass
     and (select count(*) from pg_index where indrelid = i.inhrelid and indisvalid) <> 3 $$,
  'it has the log''s three indexes');
select is(tests.outcome(t.caller, t.statement), t.verdict, format('%s: %s', t.caller, t.statement))
from   (values
  ('ada@acme.test', 'select count(*) from events where event like ''%March''', '3'),
  ('as_local_acme_admin', 'select count(*) from events where event like ''%March''', '3'),
  ('ada@acme.test', 'select count(*) from tracking.events_2025_03', '42501 permission denied for table events_2025_03'),
  ('as_local_acme_admin', 'select count(*) from tracking.events_2025_03', '42501 permission denied for table events_2025_03'),
  ('nobody', 'select count(*) from tracking.events_2025_03', '42501 permission denied for table events_2025_03'),
  ('service', 'select count(*) from tracking.events_2025_03', '42501 permission denied for table events_2025_03'),
  ('ada@acme.test', 'select count(*) from tracking.events_default', '42501 permission denied for table events_default'),
  ('ada@acme.test', 'insert into tracking.events_2025_03 default values', '42501 permission denied for table events_2025_03'),
  ('ada@acme.test', 'delete from tracking.events_default', '42501 permission denied for table events_default'),
  ('service', 'delete from tracking.events_default', '42501 permission denied for table events_default'),
  ('ada@acme.test', 'truncate tracking.events_2025_03', '42501 permission denied for table events_2025_03')
) as t (caller, statement, verdict);


-- Months behind. Who writes, reads and delivers meanwhile: tests/retention.test.ts.

select is(tests.outcome('service', format('select string_agg(d.partition || d.dropped || d.events, '' '') from tracking.drop_partitions(%L) as d', t.span)), t.verdict, format('%s: %s', coalesce(t.span, 'null'), t.promise))
from   (values
  (null, '22023 Partitions are dropped that are older than a span of time.', 'without a span nothing is dropped'),
  ('-1 second', '22023 Partitions are dropped that are older than a span of time.', 'nor is what is yet to come'),
  ('1000 years', null, 'nor what is younger')
) as t (span, verdict, promise);
select is(tests.outcome(c.caller, 'select count(*) from ' || t.object), '42501 permission denied for ' || t.denied, format('%s cannot ask %s', c.caller, t.object))
from   (values ('ada@acme.test'), ('as_local_acme_admin'), ('nobody')) as c (caller),
       (values
         ('tracking.drop_partitions(''0'')', 'function drop_partitions'), ('tracking.partitions()', 'function partitions'),
         ('tracking.dropped_partitions', 'table dropped_partitions'), ('tracking.expired', 'table expired')) as t (object, denied);

-- To the millisecond, wherever the session is and however it writes times.
create temporary table bounds as select * from tracking.partitions();
set local timezone = 'Asia/Kolkata';
set local datestyle = 'SQL, DMY';
select bag_eq('select * from tracking.partitions()', 'select * from bounds', 'a partition has the same bounds in any session');
set local timezone = 'Pacific/Auckland';
set local datestyle = 'German';
select is(
  tests.outcome('service', 'select string_agg(d.partition, '' '') from tracking.drop_partitions(now() - ''2025-04-01 00:00:00+00''::timestamptz + ''1 millisecond'') as d'),
  'tracking.events_1970_01 tracking.events_2025_02', 'a month is dropped that lies wholly before the span');
select is(
  tests.outcome('service', 'select d.partition || '' '' || d.events || '' '' || d.dropped from tracking.drop_partitions(now() - ''2025-04-01 00:00:00+00''::timestamptz) as d'),
  'tracking.events_2025_03 3 true', 'as soon as its last moment does');
set local datestyle = 'ISO';
set local timezone = 'UTC';
select set_eq('select event from events', array['Now'], 'and its events are gone');
select is(to_regclass('tracking.events_2025_03'), null, 'with the table');
select set_eq(
  'select partition, since, until, events, last_received_at from tracking.dropped_partitions',
  $$ values
    ('tracking.events_1970_01', timestamptz '1970-01-01 00:00:00+00', timestamptz '1970-02-01 00:00:00+00', 1::bigint, timestamptz '2025-03-10 00:00:00+00'),
    ('tracking.events_2025_02', '2025-02-01 00:00:00+00', '2025-03-01 00:00:00+00', 1, '2025-03-07 00:00:00+00'),
    ('tracking.events_2025_03', '2025-03-01 00:00:00+00', '2025-04-01 00:00:00+00', 3, '2025-04-09 00:00:00+00') $$,
  'what was dropped is noted');

-- This month, those to come and the default partition stay.
insert into events (scope_id, occurred_at, event_id, actor_id, event, source)
values ('10000000-0000-4000-8000-000000000001', '2025-03-05 09:30:00.123+00', '019565a3-fa3b-7000-8000-000000000001', '10000000-0000-4000-8000-000000000001', 'Of no month', 'service');
select is(tests.outcome('service', 'select count(*) from tracking.drop_partitions(''0'')'), '0', 'nothing else is over');
select is(tests.outcome('service', 'select rows_in_default from tracking.partition_report'), '1', 'what has no month yet is kept');
select results_eq(
  'select * from tests.months()', 'select tests.month(n) collate "C" from generate_series(0, 6) as n order by 1', 'this month and those to come are still there');

-- Once it has one, it is dropped when the sinks are done with it.
select tracking.make_partitions();
select tracking.create_sink('archive', 'ndjson');
select is(
  tests.outcome('service', 'select concat_ws('' '', d.partition, d.dropped, d.events, d.reason) from tracking.drop_partitions(''1 year'') as d'),
  'tracking.events_2025_03 f These sinks are not done with it: archive.', 'a month that a sink is not done with stays, and it says so');


-- How long: a row for each channel, and one for all others. Who writes, reads and delivers meanwhile: tests/retention-channels.test.ts.

select is(tests.outcome('service', t.statement), t.verdict, t.promise)
from   (values
  ($$ insert into tracking.retention values (' ', '1 day') $$, '23514 new row for relation "retention" violates check constraint "channel_is_not_blank"', 'a channel has a name'),
  ($$ insert into tracking.retention values ('a', '0') $$, '23514 new row for relation "retention" violates check constraint "events_are_kept_for_a_while"', 'nothing is kept for no time'),
  ($$ insert into tracking.retention values ('a', '-1 month') $$, '23514 new row for relation "retention" violates check constraint "events_are_kept_for_a_while"', 'or for less'),
  ($$ insert into tracking.retention values ('a', '1001 years') $$, '23514 new row for relation "retention" violates check constraint "events_are_kept_for_a_while"', 'or for longer than time can be counted back'),
  ($$ select count(*) from tracking.apply_retention(1) $$, '0', 'where nothing is said of it, everything is kept'),
  ($$ insert into tracking.retention values ('noise', '1 year', false), ('*', '100 years', true) returning 'said' $$, 'said', 'the service role says how long')
) as t (statement, verdict, promise);
insert into events (scope_id, occurred_at, event_id, actor_id, event, channel, source)
select '10000000-0000-4000-8000-000000000001', tracking.event_time(t.id), t.id, '10000000-0000-4000-8000-000000000001', t.event, t.channel, 'service'
from   (values
  ('019565a3-fa3b-7000-8000-000000000002'::uuid, 'Noise', 'noise'), ('019565a3-fa3b-7000-8000-000000000003', 'Kept', 'kept')) as t (id, event, channel);
select is(
  tests.outcome('service', 'select concat_ws('' '', r.partition, r.channels, r.dropped, r.reason) from tracking.apply_retention(1) as r'),
  'tracking.events_2025_03 {noise} f These sinks are not done with it: archive.', 'a channel stays that a sink is not done with');
delete from tracking.sinks;
update events set txid = '7' where event in ('Noise', 'Kept', 'Of no month'); -- as if an earlier transaction had written them
create temporary table kept as select to_jsonb(e) as event from events as e where e.event <> 'Noise';
set local timezone = 'Asia/Kolkata';
set local datestyle = 'SQL, DMY';
select is(
  tests.outcome('service', 'select concat_ws('' '', r.partition, r.channels, r.dropped, r.events) from tracking.apply_retention(1) as r'),
  'tracking.events_2025_03 {noise} t 1', 'and goes when they are');
set local datestyle = 'ISO';
set local timezone = 'UTC';
select set_has(
  'select * from tracking.partitions()',
  $$ values ('tracking.events_2025_03'::regclass, timestamptz '2025-03-01 00:00+00', timestamptz '2025-04-01 00:00+00') $$,
  'the month is as long as it was, wherever the session is');
select bag_eq('select to_jsonb(e) from events as e', 'select event from kept', 'the others are as they were');
select is(obj_description('tracking.events_2025_03'::regclass, 'pg_class'), 'Events of March 2025 (UTC).', 'in a month that is called what it was');
select is_empty(
  $$ select from pg_inherits as i where i.inhparent = 'public.events'::regclass
     and ((select array_agg(pg_get_constraintdef(oid) order by conname) from pg_constraint where conrelid = i.inhrelid and contype = 'c')
          is distinct from (select array_agg(pg_get_constraintdef(oid) order by conname) from pg_constraint where conrelid = i.inhparent and contype = 'c')
          or not (select c.relrowsecurity from pg_class as c where c.oid = i.inhrelid)
          or (select count(*) from pg_index where indrelid = i.inhrelid and indisvalid) <> 3) $$,
  'and is as closed, and as fast');
select is(tests.outcome('service', 'select count(*) from tracking.events_2025_03'), '42501 permission denied for table events_2025_03', 'for the service role, too');
update tracking.retention set keep = '1 year' where channel = '*';
select is(
  tests.outcome('service', 'select concat_ws('' '', r.partition, r.channels, r.dropped, r.reason) from tracking.apply_retention(1) as r'),
  'tracking.events_2025_03 f It was not exported as it is.', 'what is to be exported first stays');
select is(tests.outcome('service', $$ select tracking.note_export('2025-03-01', 'march.parquet', 2, tracking.current_snapshot()) $$), '', 'until that is noted');
select is(
  tests.outcome('service', 'select concat_ws('' '', r.partition, r.channels, r.dropped, r.events) from tracking.apply_retention(1) as r'),
  'tracking.events_2025_03 t 2', 'a month of which all is over goes as a whole');
select set_has(
  'select partition, channels, events from tracking.dropped_partitions',
  $$ values ('tracking.events_2025_03', '{noise}'::text[], 1::bigint), ('tracking.events_2025_03', null, 2) $$, 'and what went is noted');

select is(tests.outcome(c.caller, 'select count(*) from ' || t.object), '42501 permission denied for ' || t.denied, format('%s cannot ask %s', c.caller, t.object))
from   (values ('ada@acme.test'), ('as_local_acme_admin'), ('nobody')) as c (caller),
       (values
         ('tracking.apply_retention()', 'function apply_retention'), ('tracking.retention', 'table retention'), ('tracking.exports', 'table exports'),
         ('tracking.note_export(now()::timestamp, ''f'', 1, ''1:1:'')', 'function note_export'), ('tracking.month_channels', 'table month_channels')) as t (object, denied);
select is(
  tests.outcome('service', 'select count(*) from tracking.' || t.call), '42501 permission denied for function ' || split_part(t.call, '(', 1), format('nor does the service role ask %s by itself', t.call))
from   (values ('let_go(null, 1)'), ('take_out(null)'), ('forget_hours(now(), now(), null)')) as t (call);

select * from finish();
rollback;
