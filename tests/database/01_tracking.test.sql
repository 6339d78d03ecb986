-- Chapter 1: settings, errors, ids and time.
begin;
select plan(70);

-- Settings

select is(count(*), 1::bigint, 'there is one row of settings') from tracking.settings;
select throws_ok(
  $$ insert into tracking.settings default values $$,
  '23505', null, 'and there cannot be two');
select throws_ok(
  $$ insert into tracking.settings (only_row) values (false) $$,
  '23514', 'new row for relation "settings" violates check constraint "settings_have_one_row"', 'whatever the second calls itself');
select throws_ok(
  $$ update tracking.settings set events_per_minute = 0 $$,
  '23514', 'new row for relation "settings" violates check constraint "events_per_minute_is_positive"', 'a limit that lets nothing through is none');


-- Errors

select set_eq(
  'select message, code from tracking.errors',
  $$ values
    ('invalid_payload',              'PT400'),
    ('missing_event',                'PT400'),
    ('missing_org_id',               'PT400'),
    ('unsupported_tracking_version', 'PT400'),
    ('invalid_tags',                 'PT400'),
    ('timestamp_invalid',            'PT400'),
    ('timestamp_required',           'PT400'),
    ('timestamp_mismatch',           'PT400'),
    ('timestamp_in_future',          'PT400'),
    ('timestamp_out_of_range',       'PT400'),
    ('unauthenticated',              'PT401'),
    ('invalid_api_key',              'PT401'),
    ('no_permission',                'PT403'),
    ('Forbidden',                    'PT403'),
    ('payload_too_large',            'PT413'),
    ('rate_limited',                 'PT429') $$,
  'clients can branch on these messages, and each has its HTTP status');
select is_empty(
  $$ select message from tracking.errors where hint !~ '^[A-Z].*\.$' $$,
  'every error has a sentence that says the way out');
select throws_ok(
  $$ insert into tracking.errors values ('teapot', 'PT500', 'Brew tea.') $$,
  '23514', 'new row for relation "errors" violates check constraint "code_is_an_http_status"', 'no error is the server''s fault');

create function tests.raised(statement text)
  returns text[]
  language plpgsql volatile
as $$
declare
  v_message text;
  v_detail  text;
  v_hint    text;
begin
  execute statement;
  return null;
exception when others then
  get stacked diagnostics v_message = message_text, v_detail = pg_exception_detail, v_hint = pg_exception_hint;
  return array[SQLSTATE, v_message, v_detail, v_hint];
end $$;
select is(
  tests.raised($$ select tracking.raise_error('timestamp_mismatch', 'They differ.') $$),
  array['PT400', 'timestamp_mismatch', 'They differ.', 'Leave "timestamp" out: a UUIDv7 carries its own time.'],
  'an error is raised with its SQLSTATE, a sentence, and its hint');
select is(
  tests.raised($$ select tracking.raise_error('no_permission', 'No.', 'Knock first.') $$),
  array['PT403', 'no_permission', 'No.', 'Knock first.'],
  'or with a hint that fits the case better');
select throws_ok(
  $$ select tracking.raise_error('no_such_error', 'Nothing.') $$,
  'P0002', null, 'an error that clients do not know of cannot be raised');


-- Ids and time

select is(
  tracking.event_time('019565a3-fa3b-7000-8000-000000000001'), '2025-03-05 09:30:00.123+00',
  'the time of a UUIDv7 is its first 48 bits');
select is(tracking.event_time('00000000-0000-7000-8000-000000000000'), '1970-01-01 00:00:00+00', 'from 1970 on');
select is(tracking.event_time('a0000000-0000-4000-8000-000000000001'), null, 'a UUIDv4 carries no time');
select is(tracking.event_time('019565a3-fa3b-7000-0000-000000000001'), null, 'nor does a UUID of another variant');

select matches(
  tracking.new_event_id('2025-03-05 09:30:00.123456+00')::text, '^019565a3-fa3b-7000-[89ab][0-9a-f]{3}-[0-9a-f]{12}$',
  'a new id is a UUIDv7 of its time, cut to the millisecond');
select is(
  substr(tracking.new_event_id('2025-03-05 09:30:00+00', 4095)::text, 15, 4), '7fff',
  'whose next 12 bits are the step within the millisecond');
select isnt(tracking.new_event_id(now()), tracking.new_event_id(now()), 'and no two are the same');

-- 13,377 ms is prime to the second: the times below meet every millisecond of the second in every year.
create temporary table times as
  select timestamptz 'epoch' + n * interval '12 hours 13.377 seconds' as at
  from   generate_series(0, 40000) as n;
select is_empty(
  'select at from times where tracking.event_time(tracking.new_event_id(at)) <> at',
  'no millisecond since 1970 is changed on its way into a new id');
select is_empty(
  $$ select at from times where tracking.event_time(tracking.derived_event_id('an id', at)) <> at $$,
  'nor into a derived one');

select is(
  tracking.derived_event_id('order-4711', '2025-03-05 09:30:00.123+00'), '019565a3-fa3b-7173-bd0d-dbff034193fa',
  'a derived id is the time, and the first bits of the SHA-256 of the id: always the same one');
select is(
  tracking.derived_event_id('B5E0F4A1-4C3D-4E2B-9A1F-0123456789AB', '2026-11-05 09:30:00+00'),
  tracking.derived_event_id('b5e0f4a1-4c3d-4e2b-9a1f-0123456789ab', '2026-11-05 09:30:00+00'),
  'a UUID is the same in capitals');
select isnt(
  tracking.derived_event_id('Order-4711', '2026-11-05 09:30:00+00'),
  tracking.derived_event_id('order-4711', '2026-11-05 09:30:00+00'),
  'another text is not');
select isnt(
  tracking.derived_event_id('order-4711', '2026-11-05 09:30:00.001+00'),
  tracking.derived_event_id('order-4711', '2026-11-05 09:30:00+00'),
  'nor is the same text at another time');

select is(
  tracking.uuid_v7_in('019565A3-FA3B-7000-8000-000000000001'), '019565a3-fa3b-7000-8000-000000000001',
  'a UUIDv7 is read from its text');
select is(tracking.uuid_v7_in(t.input), null, format('%L is no UUIDv7', t.input))
from   (values
  ('a0000000-0000-4000-8000-000000000001'),
  ('019565a3-fa3b-7000-c000-000000000001'),
  ('{019565a3-fa3b-7000-8000-000000000001}'),
  ('019565a3fa3b7000800000000000001'),
  (e'019565a3-fa3b-7000-8000-000000000001\n'),
  ('')) as t (input);

select is(tracking.is_uuid(t.input), t.verdict, format('%L is %s', t.input, case when t.verdict then 'a UUID' else 'none' end))
from   (values
  ('a0000000-0000-4000-8000-000000000001', true),
  ('A0000000-ABCD-4000-8000-00000000000F', true),
  ('a0000000-0000-4000-8000-00000000000', false),
  ('a0000000-0000-4000-8000-0000000000011', false),
  ('a0000000-0000-4000-8000-00000000000g', false),
  ('-0000000-0000-4000-8000-000000000001', false),
  ('a000000-00000-4000-8000-000000000001', false),
  ('{0000000-0000-4000-8000-000000000001}', false),
  ('', false)) as t (input, verdict);

-- Whatever the session's settings are.
set local timezone = 'Asia/Kolkata';
set local datestyle = 'SQL, DMY';
select is(tracking.parse_time(t.input), t.time::timestamptz, format('%L is a time', t.input))
from   (values
  ('2026-11-05T09:30:00.123Z',            '2026-11-05 09:30:00.123+00'),
  ('2026-11-05T09:30:00.123456789Z',      '2026-11-05 09:30:00.123456+00'),
  ('2026-11-05T09:30:00,5z',              '2026-11-05 09:30:00.5+00'),
  ('2026-11-05 09:30:00+05:30',           '2026-11-05 04:00:00+00'),
  ('2026-11-05T09:30:00-0800',            '2026-11-05 17:30:00+00'),
  ('2026-11-05T09:30:00+14:59',           '2026-11-04 18:31:00+00'),
  ('2026-11-05T09:30',                    '2026-11-05 09:30:00+00'),
  ('2026-11-05',                          '2026-11-05 00:00:00+00'),
  ('2024-02-29T23:59:59.999Z',            '2024-02-29 23:59:59.999+00'),
  ('9999-12-31T23:59:59.999Z',            '9999-12-31 23:59:59.999+00'),
  ('0001-01-01T00:00:00Z',                '0001-01-01 00:00:00+00')) as t (input, time);
select is(tracking.parse_time(t.input), null, format('%L is none', t.input))
from   (values
  ('yesterday'), ('infinity'), ('epoch'), ('now'), (''), ('1762335000'), ('05/11/2026'), ('2026-11-05T09:30:00.123Z '),
  ('2026-02-29T00:00:00Z'), ('2026-13-01T00:00:00Z'), ('2026-11-31'), ('0000-01-01T00:00:00Z'),
  ('2026-11-05T24:00:00Z'), ('2026-11-05T09:30:60Z'), ('2026-11-05T09:30:00+15:00'), ('2026-11-05T09:30:00 Europe/Rome'),
  ('12026-11-05T09:30:00Z'), ('2026-11-05T09:30:00.1234567890Z')) as t (input);

-- Every day there is, and every one there is not, as programs write it and otherwise, which is read in another way.
set local datestyle = 'ISO, YMD';
create temporary table days as
  select format('%s-%s-%s', to_char(y, 'FM0000'), to_char(m, 'FM00'), to_char(d, 'FM00')) as day,
         case when d between 1 and date_part('day', make_date(y, m, 1) + interval '1 month - 1 day')
           then make_timestamptz(y, m, d, 9, 30, 0.5, 'UTC') end as half_past_nine
  from   unnest('{1,1899,1900,1970,2000,2023,2024,2100,9999}'::integer[]) as y, generate_series(1, 12) as m, generate_series(0, 32) as d;
select is_empty(
  $$ select day from days where tracking.parse_time(day || 'T09:30:00.500Z') is distinct from half_past_nine $$,
  'every day is read as programs write it, and no other');
select is_empty(
  $$ select day from days where tracking.parse_time(day || ' 09:30:00,5') is distinct from half_past_nine $$,
  'and otherwise');

select * from finish();
rollback;
