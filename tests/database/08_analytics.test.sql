-- Chapter 8: what analysts read. (tests/rollup.test.ts has the rollup, which takes what is committed.)
begin;
select plan(46);

insert into auth.users (instance_id, id, aud, role, email) values
  ('00000000-0000-0000-0000-000000000000', '10000000-0000-4000-8000-000000000009', 'authenticated', 'authenticated', 'vic@acme.test');
create role analyst_of_chapter_8 in role analyst;


-- Surfaces

select is(tracking.surface_of('CLI Command Invoked', 'cli-usage'), 'cli', 'commands are run on the command line');
select is(tracking.surface_of('Apps Listed', 'app'), 'cli', 'and apps are listed there');
select is(tracking.surface_of('onboarding-step-done', 'onboarding-v2'), 'dashboard', 'onboarding is in the dashboard');
select is(tracking.surface_of('Build Started', 'build-lifecycle'), 'builder', 'builds are the builder''s');
select is(tracking.surface_of('Builder Onboarding Step', 'builder-onboarding'), 'builder', 'and so is their onboarding');
select is(tracking.surface_of('Page Viewed', 'default'), null, 'what nobody said is nowhere');

insert into tracking.surfaces (surface, channel, event) values
  ('any', 'shop-*', '*'), ('checkout', 'shop-*', 'Cart*'), ('till', 'shop-web', 'Cart*'), ('paid', 'shop-web', 'Cart Paid');
select is(tracking.surface_of('Opened', 'shop-web'), 'any', 'a * at the end stands for anything');
select is(tracking.surface_of('Cart Filled', 'shop-app'), 'checkout', 'a longer name wins');
select is(tracking.surface_of('Cart Filled', 'shop-web'), 'till', 'then the longer channel');
select is(tracking.surface_of('Cart Paid', 'shop-web'), 'paid', 'and a whole name before any');
select is(tracking.surface_of('Cart Paid', 'my-shop-web'), null, 'a channel is compared from its beginning');
select throws_ok($$ insert into tracking.surfaces values (' ', 'x') $$, '23514', null, 'a surface has a name');
select is(tests.outcome('service', $$ with s as (insert into tracking.surfaces values ('x', 'x') returning surface) select surface from s $$), 'x', 'the service role says where the surfaces are');
select is(tests.outcome('ada@acme.test', 'select count(*) from tracking.surfaces'), '42501 permission denied for table surfaces', 'clients do not');


-- Events, flat

select tests.outcome('ada@acme.test', $$ select track_event(jsonb_build_object(
  'event', 'Report Exported', 'channel', 'usage', 'tracking_version', 2, 'tags', '{"app_id": "com.acme.app", "format": "csv"}'::jsonb,
  'nonPersonTags', '{"os": "linux"}'::jsonb, 'timestamp', '2026-03-05T09:30:00.123Z', 'sent_at', now() - interval '90 seconds')) $$);
select results_eq(
  $$ select occurred_at, happened_at, received_at, skew_seconds, org, app, surface, tags ->> 'format', context ->> 'os', source
     from   analytics.events where event = 'Report Exported' $$,
  $$ values (timestamptz '2026-03-05 09:30:00.123Z', timestamp '2026-03-05 09:31:30.123', now() at time zone 'UTC', 90::double precision,
             'Acme', 'Acme App', 'dashboard', 'csv', 'linux', 'client') $$,
  'an event has the names of its org and app, and its time corrected by how far the client''s clock was off');
set local timezone = 'Asia/Kolkata';
select is((select happened_at from analytics.events where event = 'Report Exported'), timestamp '2026-03-05 09:31:30.123', 'in UTC, wherever the session is');
select results_eq($$ select date_part('minute', hour at time zone 'UTC') from tracking.hours where event = 'Report Exported' $$, 'values (0::double precision)', 'and its hour is one in UTC');
set local timezone = 'UTC';
select tests.outcome('ada@acme.test', $$ select track_event('{"event": "No Clock", "timestamp": "2026-03-05T09:30:00Z"}') $$);
select results_eq(
  $$ select happened_at, skew_seconds, org_id, org from analytics.events where event = 'No Clock' $$,
  $$ values (timestamp '2026-03-05 09:30:00', null::double precision, null::uuid, null::text) $$,
  'without a skew it happened when it says, without an org it has none');
select is(tests.outcome('cyd@acme.test', $$ select org || app from analytics.events where event = 'Report Exported' $$), null, 'who may not read the org does not see its name');
select is(tests.outcome('cyd@acme.test', $$ select app from analytics.events where event = 'Report Exported' $$), 'Acme App', 'but the app''s');
select is(tests.outcome('eve@evil.test', 'select count(*) from analytics.events'), '0', 'others see nothing');


-- Builds

insert into public.build_requests (id, app_id, requested_by, platform, created_at) values
  ('b1000000-0000-4000-8000-000000000001', 'com.acme.app', '10000000-0000-4000-8000-000000000001', 'ios', '2026-03-05T10:00:00Z'),
  ('b1000000-0000-4000-8000-000000000002', 'com.acme.app', '10000000-0000-4000-8000-000000000001', 'ios', '2026-03-05T10:00:00Z'),
  ('b1000000-0000-4000-8000-000000000003', 'com.acme.app', '10000000-0000-4000-8000-000000000001', 'ios', '2026-03-05T10:00:00Z'),
  ('b1000000-0000-4000-8000-000000000004', 'com.acme.app', '10000000-0000-4000-8000-000000000001', 'ios', '2026-03-05T10:00:00Z'),
  ('b1000000-0000-4000-8000-000000000005', 'com.acme.app', '10000000-0000-4000-8000-000000000001', 'ios', '2026-03-05T10:00:00Z'),
  ('b1000000-0000-4000-8000-000000000006', 'com.acme.app', '10000000-0000-4000-8000-000000000001', 'ios', '2026-03-05T10:00:00Z'),
  ('b1000000-0000-4000-8000-000000000007', 'com.evil.app', '10000000-0000-4000-8000-000000000004', 'android', '2026-03-05T10:00:00Z');
select is((select count(queued_at) from analytics.builds), 0::bigint, 'a build that was asked for is with no builder yet');
update public.build_requests set builder_job_id = 'job-1' where id = 'b1000000-0000-4000-8000-000000000001';
select ok((select queued_at between now() and clock_timestamp() from analytics.builds where build_id = 'b1000000-0000-4000-8000-000000000001'), 'once it has a job, it is');
create temporary table handed_over as select queued_at from analytics.builds where queued_at is not null;
update public.build_requests set status = 'running', started_at = '2026-03-05T10:01:30Z', builder_job_id = 'job-2' where id = 'b1000000-0000-4000-8000-000000000001';
select results_eq('select queued_at from analytics.builds where queued_at is not null', 'table handed_over', 'since when it first was');
select is((select result from analytics.builds where build_id = 'b1000000-0000-4000-8000-000000000001'), null, 'while it runs it has no result');
update public.build_requests set status = s.status, last_error = s.last_error, completed_at = '2026-03-05T10:11:30Z'
from (values (1, 'succeeded', null), (2, 'failed', 'validation failed: x'), (3, 'timed_out', null), (4, 'cancelled', null), (5, 'expired', null), (6, 'released', null)) as s (n, status, last_error)
where id::text like '%' || s.n and app_id = 'com.acme.app';
select results_eq(
  $$ select status, result, failure_category from analytics.builds where app_id = 'com.acme.app' order by build_id $$,
  $$ values ('succeeded', 'success', null), ('failed', 'failure', 'validation_error'), ('timed_out', 'timeout', 'timeout'),
            ('cancelled', 'cancellation', null), ('expired', 'error', null), ('released', 'skip', null) $$,
  'results are OpenTelemetry''s');
select results_eq(
  $$ select org, app, actor_id, platform, build_mode, requested_at, started_at, finished_at, queue_seconds, run_seconds
     from   analytics.builds where build_id = 'b1000000-0000-4000-8000-000000000001' $$,
  $$ values ('Acme', 'Acme App', '10000000-0000-4000-8000-000000000001'::uuid, 'ios', 'release', timestamptz '2026-03-05T10:00:00Z',
             timestamptz '2026-03-05T10:01:30Z', timestamptz '2026-03-05T10:11:30Z', 90::double precision, 600::double precision) $$,
  'who, for whom, how long it waited and ran');
select results_eq(
  $$ select queue_seconds, run_seconds from analytics.builds where build_id = 'b1000000-0000-4000-8000-000000000004' $$,
  'values (null::double precision, null::double precision)', 'one that never ran waited and ran for no time that is known');
select is(tests.outcome('bob@acme.test', 'select count(*) from analytics.builds'), '6', 'people see the builds of their apps');
select is(tests.outcome('eve@evil.test', 'select count(*) from analytics.builds'), '1', 'and no others');
select is(tests.outcome('nobody', 'select count(*) from analytics.builds'), '0', 'nobody sees none');


-- Analysts

grant usage on schema extensions to analyst_of_chapter_8;
set local role analyst_of_chapter_8;
select is((select count(*) from analytics.builds), 7::bigint, 'an analyst sees all builds');
select cmp_ok((select count(*) from analytics.events), '>', 15::bigint, 'all events');
select is((select count(*) from public.orgs), 3::bigint, 'all orgs');
select is((select count(*) from public.apps), 4::bigint, 'and all apps');
select is((select count(*) from analytics.actors), 2::bigint, 'all persons');
select is((select sum(events) from analytics.actors), (select count(*)::numeric from public.events), 'with all that they did');
select is((select array_agg(org order by org) from analytics.orgs), '{Acme,Evil}', 'by org');
select results_eq(
  $$ select actor_id, org, surfaces from analytics.actor_orgs order by 1 $$,
  $$ values ('10000000-0000-4000-8000-000000000001'::uuid, 'Acme', '{builder,dashboard}'::text[]), ('10000000-0000-4000-8000-000000000004', 'Evil', '{builder}') $$,
  'and who acted for whom, where');
select is(tracking.filters('e', null, null, null), 'true', 'without filters there is no condition');
reset role;

select throws_ok($$ select tracking.roll_up(0) $$, '22023', null, 'the rollup is brought further by one event or more');
select throws_ok($$ select tracking.roll_up(null) $$, '22023', null, 'which is said');
select throws_ok($$ select tracking.recount_activity(null) $$, '22004', null, 'hours are counted anew since some time');
select is(tests.outcome('ada@acme.test', 'select tracking.roll_up()'), '42501 permission denied for function roll_up', 'clients do not bring the rollup further');
select is(tests.outcome('service', 'select tracking.roll_up()'), '0', 'the service role does: but for what is not committed');
select is(tests.outcome('ada@acme.test', 'with d as (delete from tracking.activity returning 1) select count(*) from d'), '42501 permission denied for table activity', 'nor change it');

select * from finish();
rollback;
