-- Chapter 6: builds are asked for, end, and speak for themselves.
begin;
select plan(151);

-- The events of a build, in the order of their ids.
create function tests.story(build uuid)
  returns text
  language sql stable
as $$
  select string_agg(replace(e.event, 'Build ', ''), ', ' order by e.event_id) from events as e where e.tags ->> 'build_id' = build::text
$$;

-- A build that ada asked for, as the builder has it.
create function tests.new_build(columns jsonb default '{}')
  returns uuid
  language plpgsql volatile
as $$
declare
  v_row     jsonb := '{"app_id": "com.acme.app", "platform": "ios", "requested_by": "10000000-0000-4000-8000-000000000001"}' || columns;
  v_columns text := (select string_agg(quote_ident(k), ', ') from jsonb_object_keys(v_row) as k);
  v_id      uuid;
begin
  perform tests.speak_as('service');
  execute format('insert into build_requests (%1$s) select %1$s from jsonb_populate_record(null::build_requests, $1) returning id', v_columns)
  into v_id using v_row;
  perform tests.speak_as('owner');
  return v_id;
end $$;

-- What the builder reports about it.
create function tests.report(build uuid, changes text)
  returns void
  language plpgsql volatile
as $$
begin
  perform tests.speak_as('service');
  execute format('update build_requests set %s where id = %L', changes, build);
  perform tests.speak_as('owner');
end $$;


-- Asking for one

create temporary table asked as
select t.caller, t.arguments, t.verdict, t.promise, tests.outcome(t.caller, format('select (b).requested_by || '' '' || (b).owner_org from request_build(%s) as b', t.arguments)) as outcome
from   (values
  ('ada@acme.test',       $$'com.acme.app', 'ios'$$,            '10000000-0000-4000-8000-000000000001 a0000000-0000-4000-8000-000000000001', 'who may build an app asks for builds of it'),
  ('ada@acme.test',       $$'com.demo.app', 'android', 'debug'$$, '10000000-0000-4000-8000-000000000001 6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11', 'for either platform, in any mode'),
  ('as_local_acme_admin', $$'com.acme.beta', 'ios'$$,           '10000000-0000-4000-8000-000000000001 a0000000-0000-4000-8000-000000000001', 'a key asks in its owner''s name'),
  ('as_local_demo_app',   $$'com.demo.app', 'ios'$$,            '10000000-0000-4000-8000-000000000001 6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11', 'also a key to the one app'),
  ('eve@evil.test',       $$'com.evil.app', 'ios'$$,            '10000000-0000-4000-8000-000000000004 a0000000-0000-4000-8000-000000000002', 'everybody for their own'),
  ('ada@acme.test',       format($$'com.acme.app', 'ios', %L$$, repeat('é', 100)), '10000000-0000-4000-8000-000000000001 a0000000-0000-4000-8000-000000000001', 'a mode has up to 100 characters'),
  ('bob@acme.test',       $$'com.acme.app', 'ios'$$,            'PT403 no_permission', 'a viewer asks for none'),
  ('cyd@acme.test',       $$'com.acme.app', 'ios'$$,            'PT403 no_permission', 'nor one of the app alone'),
  ('eve@evil.test',       $$'com.acme.app', 'ios'$$,            'PT403 no_permission', 'nor an outsider'),
  ('as_local_demo_app',   $$'com.acme.app', 'ios'$$,            'PT403 no_permission', 'nor a key to another app'),
  ('ada@acme.test',       $$'com.none', 'ios'$$,                'PT403 no_permission', 'nor anybody for an app that is not there'),
  ('ada@acme.test',       $$null, 'ios'$$,                      'PT403 no_permission', 'or for none'),
  ('as_local_revoked',    $$'com.acme.app', 'ios'$$,            'PT401 invalid_api_key', 'a revoked key asks for none'),
  ('nobody',              $$'com.acme.app', 'ios'$$,            'PT401 unauthenticated', 'nor nobody'),
  ('service',             $$'com.acme.app', 'ios'$$,            '42501 permission denied for function request_build', 'the service role asks in somebody''s name, in the table'),
  ('ada@acme.test',       $$'com.acme.app', 'windows'$$,        'PT400 invalid_payload', 'there are two platforms'),
  ('ada@acme.test',       $$'com.acme.app', null$$,             'PT400 invalid_payload', 'null is neither'),
  ('ada@acme.test',       $$'com.acme.app', 'ios', ' '$$,       'PT400 invalid_payload', 'a mode is not blank'),
  ('ada@acme.test',       $$'com.acme.app', 'ios', null$$,      'PT400 invalid_payload', 'nor null'),
  ('ada@acme.test',       format($$'com.acme.app', 'ios', %L$$, repeat('é', 101)), 'PT400 invalid_payload', 'nor longer than 100 characters')
) as t (caller, arguments, verdict, promise);
select is(a.outcome, a.verdict, a.promise) from asked as a;
select is((select count(*) from build_requests), 6::bigint, 'what was refused was not written');
select is(
  (select to_jsonb(b) - 'id' from build_requests as b where app_id = 'com.acme.beta'),
  jsonb_build_object(
    'owner_org', 'a0000000-0000-4000-8000-000000000001', 'app_id', 'com.acme.beta', 'requested_by', '10000000-0000-4000-8000-000000000001',
    'platform', 'ios', 'build_mode', 'release', 'status', 'pending', 'builder_job_id', null, 'last_error', null, 'timeout_seconds', 900,
    'created_at', now(), 'queued_at', null, 'started_at', null, 'completed_at', null, 'updated_at', now(), 'runner_wait_seconds', null, 'job_stopped_at', null, 'lifecycle', 'requested', 'advanced', false),
  'a build begins so');
select bag_eq(
  'select event, actor_id, org_id, app_id from events',
  'select ''Build Requested'', requested_by, owner_org, app_id from build_requests', 'and each begins with an event');
select is((select count(api_key_id) from events), 0::bigint, 'which the database writes, and no key');

select is(tests.outcome(t.caller, t.statement), t.verdict, t.promise)
from   (values
  ('ada@acme.test', $$insert into build_requests (app_id, platform, build_mode) values ('com.acme.app', 'android', 'debug') returning requested_by$$,
   '10000000-0000-4000-8000-000000000001', 'a direct insert is as good'),
  ('bob@acme.test', $$insert into build_requests (app_id, platform) values ('com.acme.app', 'ios')$$, '42501 new row violates row-level security policy for table "build_requests"', 'and no better'),
  ('eve@evil.test', $$insert into build_requests (app_id, platform) values ('com.acme.app', 'ios')$$, '42501 new row violates row-level security policy for table "build_requests"', 'for outsiders'),
  ('nobody',        $$insert into build_requests (app_id, platform) values ('com.acme.app', 'ios')$$, '42501 new row violates row-level security policy for table "build_requests"', 'for nobody'),
  ('ada@acme.test', $$insert into build_requests (app_id, platform) values ('com.none', 'ios')$$, '42501 new row violates row-level security policy for table "build_requests"', 'for an app that is not there'),
  ('ada@acme.test', $$insert into build_requests (app_id, platform, requested_by) values ('com.acme.app', 'ios', '10000000-0000-4000-8000-000000000004')$$, '42501 permission denied for table build_requests', 'who asks is not for them to say'),
  ('ada@acme.test', $$insert into build_requests (app_id, platform, owner_org) values ('com.acme.app', 'ios', 'a0000000-0000-4000-8000-000000000002')$$, '42501 permission denied for table build_requests', 'nor for whom'),
  ('ada@acme.test', $$insert into build_requests (app_id, platform, status) values ('com.acme.app', 'ios', 'succeeded')$$, '42501 permission denied for table build_requests', 'nor how it went'),
  ('ada@acme.test', $$insert into build_requests (app_id, platform, timeout_seconds) values ('com.acme.app', 'ios', 21600)$$, '42501 permission denied for table build_requests', 'nor how long it may take'),
  ('ada@acme.test', $$update build_requests set status = 'cancelled'$$, '42501 permission denied for table build_requests', 'clients do not change builds'),
  ('ada@acme.test', $$delete from build_requests$$, '42501 permission denied for table build_requests', 'nor delete them'),
  ('ada@acme.test', $$truncate build_requests$$, '42501 permission denied for table build_requests', 'one or all'),
  ('service',       $$update build_requests set requested_by = '10000000-0000-4000-8000-000000000004'$$, '42501 permission denied for table build_requests', 'the builder does not change who asked'),
  ('service',       $$update build_requests set owner_org = 'a0000000-0000-4000-8000-000000000002'$$, '42501 permission denied for table build_requests', 'nor for whom'),
  ('service',       $$update build_requests set lifecycle = 'requested'$$, '42501 permission denied for table build_requests', 'nor what was already said'),
  ('service',       $$insert into build_requests (app_id, platform) values ('com.acme.app', 'ios')$$, '23502 null value in column "requested_by" of relation "build_requests" violates not-null constraint', 'and asks in somebody''s name')
) as t (caller, statement, verdict, promise);
select is((select count(*) from events), 7::bigint, 'what was refused is no event');
select is(tests.outcome(t.caller, 'select string_agg(distinct app_id, '' '' order by app_id) || '' '' || count(*) from build_requests'), t.builds, format('%s sees the builds of the apps they may read', t.caller))
from   (values
  ('ada@acme.test', 'com.acme.app com.acme.beta com.demo.app 6'), ('bob@acme.test', 'com.acme.app com.acme.beta 4'), ('cyd@acme.test', 'com.acme.app 3'),
  ('eve@evil.test', 'com.evil.app 1'), ('nik@nowhere.test', null), ('as_local_acme_admin', 'com.acme.app com.acme.beta 4'), ('as_local_demo_app', 'com.demo.app 2'),
  ('as_local_revoked', null), ('nobody', null), ('service', 'com.acme.app com.acme.beta com.demo.app com.evil.app 7')) as t (caller, builds);
select throws_ok(
  format($$ select tests.new_build(%L) $$, t.columns), '23514', format('new row for relation "build_requests" violates check constraint "%s"', t.rule), format('%s', replace(t.rule, '_', ' ')))
from   (values
  ('{"platform": "windows"}', 'platform_is_ios_or_android'), ('{"build_mode": " "}', 'build_mode_is_not_blank'), (jsonb_build_object('build_mode', repeat('x', 101))::text, 'build_mode_is_at_most_100_characters'),
  ('{"status": "done"}', 'status_is_known'), ('{"created_at": "-infinity"}', 'times_are_finite')) as t (columns, rule);
reset role;
delete from events;
delete from build_requests;


-- What a build says, whatever its builder reports

create function tests.told(created_as text, statuses text[])
  returns text
  language plpgsql volatile
as $$
declare
  v_build  uuid := tests.new_build(jsonb_build_object('status', created_as));
  v_status text;
begin
  foreach v_status in array statuses loop
    perform tests.report(v_build, format('status = %L', v_status));
  end loop;
  return tests.story(v_build);
end $$;
select is(tests.told(t.created_as, t.statuses::text[]), t.story, format('%s: %s', t.promise, t.statuses))
from   (values
  ('pending',   '{}',                                 'Requested',                     'a build that nothing happens to'),
  ('pending',   '{running}',                          'Requested, Started',            'one that runs'),
  ('pending',   '{running,succeeded}',                'Requested, Started, Succeeded', 'one that succeeds'),
  ('pending',   '{running,failed}',                   'Requested, Started, Failed',    'fails'),
  ('pending',   '{running,timed_out}',                'Requested, Started, Timed Out', 'runs out of time'),
  ('pending',   '{running,cancelled}',                'Requested, Started, Cancelled', 'is cancelled'),
  ('pending',   '{expired}',                          'Requested, Expired',            'is not taken'),
  ('pending',   '{running,released}',                 'Requested, Started, Released',  'is given back'),
  ('pending',   '{failed}',                           'Requested, Failed',             'fails without having run'),
  ('pending',   '{cancelled}',                        'Requested, Cancelled',          'is cancelled before'),
  ('pending',   '{pending,pending}',                  'Requested',                     'waits, and says so'),
  ('pending',   '{running,running,running}',          'Requested, Started',            'repeats itself'),
  ('pending',   '{running,pending,running}',          'Requested, Started',            'goes back and forth'),
  ('pending',   '{running,succeeded,succeeded}',      'Requested, Started, Succeeded', 'ends twice'),
  ('pending',   '{running,succeeded,failed}',         'Requested, Started, Succeeded', 'contradicts itself: the first end counts'),
  ('pending',   '{running,failed,running,succeeded}', 'Requested, Started, Failed',    'rises from the dead'),
  ('pending',   '{cancelled,running,pending,failed}', 'Requested, Cancelled',          'runs after its end'),
  ('running',   '{succeeded}',                        'Requested, Started, Succeeded', 'is running from the first'),
  ('succeeded', '{running}',                          'Requested, Succeeded',          'has ended from the first')
) as t (created_as, statuses, story, promise);
select set_eq(
  'select b.event, b.icon from tracking.build_steps as b',
  'select e.event, e.icon from events as e', 'each event there is was met, with its icon');
select set_eq(
  'select event, icon from events',
  $$ values ('Build Requested', '🛠️'), ('Build Started', '⏳'), ('Build Succeeded', '✅'), ('Build Failed', '❌'),
            ('Build Timed Out', '⏰'), ('Build Cancelled', '🛑'), ('Build Expired', '⌛'), ('Build Released', '♻️') $$,
  'these are the ones');
select set_eq(
  'select channel, source, actor_id, org_id, scope_id, app_id, api_key_id, notify, context, tracking_version, received_at, txid, epoch from events',
  $$ values ('build-lifecycle', 'trigger', '10000000-0000-4000-8000-000000000001'::uuid, 'a0000000-0000-4000-8000-000000000001'::uuid, 'a0000000-0000-4000-8000-000000000001'::uuid,
             'com.acme.app', null::uuid, false, '{}'::jsonb, 2::smallint, now(), pg_current_xact_id(), 1::smallint) $$,
  'all in the name of who asked, for the org that owns the app, by the database');
delete from events;


-- What it says of itself

create temporary table the as select tests.new_build('{"created_at": "2025-03-05 09:30:00+00", "build_mode": "debug", "platform": "android"}') as build;
grant select on the to public;
select tests.report(build, $$builder_job_id = 'job-1'$$) from the;
select is(tests.story(build), 'Requested', 'a change that is not of status says nothing') from the;
select tests.report(build, $$status = 'running', started_at = '2025-03-05 09:30:30.4+00'$$) from the;
select tests.report(build, $$last_error = 'at /Users/ada: token as_secret'$$) from the;
select tests.report(build, $$status = 'failed', completed_at = '2025-03-05 09:40:31.1+00'$$) from the;
select results_eq(
  'select event, tags - ''build_id'' from events order by event_id',
  $$ values
    ('Build Requested', '{"app_id": "com.acme.app", "org_id": "a0000000-0000-4000-8000-000000000001", "platform": "android", "build_mode": "debug"}'::jsonb),
    ('Build Started', '{"app_id": "com.acme.app", "org_id": "a0000000-0000-4000-8000-000000000001", "platform": "android", "build_mode": "debug", "job_id": "job-1"}'),
    ('Build Failed', '{"app_id": "com.acme.app", "org_id": "a0000000-0000-4000-8000-000000000001", "platform": "android", "build_mode": "debug", "job_id": "job-1",
      "queue_seconds": 30, "duration_seconds": 601, "failure_category": "builder_error"}') $$,
  'which app and build, and at its end how long it took and why it failed');
select is((select count(*) from events, the where tags ->> 'build_id' = build::text), 3::bigint, 'each names the build');
select is_empty($$ select from events as e where to_jsonb(e)::text ~ 'secret|Users' $$, 'and none the raw error, which may hold secrets');
select is((select count(*) from build_requests, the where id = build and last_error = 'at /Users/ada: token as_secret'), 1::bigint, 'which the build itself keeps');
delete from events;
select tests.report(build, $$started_at = null, completed_at = null$$) from the;
select results_eq(
  'select started_at, completed_at, lifecycle from build_requests join the on id = build',
  $$ values ('2025-03-05 09:30:30.4+00'::timestamptz, '2025-03-05 09:40:31.1+00'::timestamptz, 'finished') $$, 'when it started and ended is not forgotten');

create function tests.last_tags(changes text)
  returns jsonb
  language plpgsql volatile
as $$
declare
  v_build uuid := tests.new_build('{"created_at": "2025-03-05 09:30:00+00"}');
begin
  perform tests.report(v_build, changes);
  return (select tags - array['build_id', 'app_id', 'org_id', 'platform', 'build_mode'] from events where tags ->> 'build_id' = v_build::text order by event_id desc limit 1);
end $$;
select is(tests.last_tags(t.changes), t.tags::jsonb, t.promise)
from   (values
  ($$status = 'cancelled'$$, '{}', 'a build that never ran took no time that anybody measured'),
  ($$status = 'succeeded', started_at = '2025-03-05 09:31:00+00', completed_at = '2025-03-05 09:31:00+00'$$, '{"queue_seconds": 60, "duration_seconds": 0}', 'a build may be over at once'),
  ($$status = 'succeeded', started_at = '2025-03-05 09:29:00+00', completed_at = '2025-03-05 09:28:00+00'$$, '{"queue_seconds": 0, "duration_seconds": 0}', 'but took no time backwards, whatever a clock says'),
  ($$status = 'failed', last_error = 'exit code 1'$$, '{"failure_category": "builder_error"}', 'an error is the builder''s'),
  ($$status = 'failed', last_error = 'step timed out after 10m'$$, '{"failure_category": "timeout"}', 'or about time'),
  ($$status = 'failed', last_error = 'Timeout waiting for a runner'$$, '{"failure_category": "timeout"}', 'in other words too'),
  ($$status = 'failed', last_error = 'Validation failed: no bundle id'$$, '{"failure_category": "validation_error"}', 'or what was sent is wrong'),
  ($$status = 'failed', last_error = 'missing credential P12'$$, '{"failure_category": "validation_error"}', 'or is missing'),
  ($$status = 'failed', last_error = ' '$$, '{"failure_category": "unknown"}', 'no error says nothing'),
  ($$status = 'failed'$$, '{"failure_category": "unknown"}', 'nor does none'),
  ($$status = 'timed_out', last_error = 'exit code 1'$$, '{"failure_category": "timeout"}', 'a build out of time is out of time'),
  ($$status = 'cancelled', last_error = 'exit code 1'$$, '{}', 'and what did not fail has no reason to')
) as t (changes, tags, promise);
delete from events;
delete from build_requests;


-- An event commits with the change that caused it, or not at all

select tests.new_build('{"id": "b0000000-0000-4000-8000-000000000001"}');
savepoint before;
select tests.report('b0000000-0000-4000-8000-000000000001', $$status = 'running'$$);
select tests.new_build('{"id": "b0000000-0000-4000-8000-000000000002"}');
rollback to before;
select bag_eq('select event, status, lifecycle from events, build_requests', $$ values ('Build Requested', 'pending', 'requested') $$, 'what is rolled back was never said');
select tests.report('b0000000-0000-4000-8000-000000000001', $$status = 'running'$$);
select is(tests.story('b0000000-0000-4000-8000-000000000001'), 'Requested, Started', 'and is said when it happens');
select tests.become('service_role', '{"role": "service_role", "sub": "10000000-0000-4000-8000-000000000004"}');
update build_requests set status = 'cancelled';
reset role;
select is((select actor_id from events where event = 'Build Cancelled'), '10000000-0000-4000-8000-000000000001', 'whoever changes a build, its events are of who asked for it');

select tests.new_build(jsonb_build_object('app_id', case n % 2 when 0 then 'com.acme.app' else 'com.evil.app' end)) from generate_series(1, 10) as n;
set local role service_role;
update build_requests set status = 'running' where status = 'pending';
update build_requests set status = case app_id when 'com.acme.app' then 'succeeded' else 'failed' end;
reset role;
select bag_eq(
  'select event, org_id, count(*) from events group by 1, 2',
  $$ values
    ('Build Requested', 'a0000000-0000-4000-8000-000000000001'::uuid, 6::bigint), ('Build Started', 'a0000000-0000-4000-8000-000000000001', 6), ('Build Cancelled', 'a0000000-0000-4000-8000-000000000001', 1), ('Build Succeeded', 'a0000000-0000-4000-8000-000000000001', 5),
    ('Build Requested', 'a0000000-0000-4000-8000-000000000002', 5), ('Build Started', 'a0000000-0000-4000-8000-000000000002', 5), ('Build Failed', 'a0000000-0000-4000-8000-000000000002', 5) $$,
  'builds that change together speak each for itself');
delete from events;
delete from build_requests;


-- Time limits

select is(tests.outcome(t.caller, format('select set_build_limit(%s)', t.arguments)), t.verdict, t.promise)
from   (values
  ('ada@acme.test', $$'com.acme.app', 300$$, '{"app_id": "com.acme.app", "timeout_seconds": 300}', 'who manages an app sets its limit: 5 minutes at least'),
  ('ada@acme.test', $$'com.acme.app', 21600$$, '{"app_id": "com.acme.app", "timeout_seconds": 21600}', '6 hours at most'),
  ('as_local_acme_admin', $$'com.acme.beta', 600$$, '{"app_id": "com.acme.beta", "timeout_seconds": 600}', 'by key'),
  ('service', $$'com.evil.app', 1200$$, '{"app_id": "com.evil.app", "timeout_seconds": 1200}', 'or as the service role'),
  ('ada@acme.test', $$'com.acme.app', 299$$, 'PT400 invalid_payload', 'less is refused'),
  ('ada@acme.test', $$'com.acme.app', 21601$$, 'PT400 invalid_payload', 'more is refused'),
  ('ada@acme.test', $$'com.acme.app', null$$, 'PT400 invalid_payload', 'there is always one'),
  ('bob@acme.test', $$'com.acme.app', 600$$, 'PT403 no_permission', 'a viewer sets none'),
  ('eve@evil.test', $$'com.acme.app', 600$$, 'PT403 no_permission', 'nor does an outsider'),
  ('as_local_demo_app', $$'com.demo.app', 600$$, 'PT403 no_permission', 'nor a developer'),
  ('nobody', $$'com.acme.app', 600$$, 'PT403 no_permission', 'nor nobody'),
  ('ada@acme.test', $$'com.none', 600$$, 'PT403 no_permission', 'nor anybody for an app that is not there')
) as t (caller, arguments, verdict, promise);
select set_eq(
  'select * from tracking.build_limits',
  $$ values ('com.acme.app', 21600), ('com.acme.beta', 600), ('com.evil.app', 1200) $$, 'what was refused was not written');
select is(
  tests.outcome('ada@acme.test', format('select timeout_seconds from request_build(%L, ''ios'')', t.app_id)), t.timeout, format('builds of %s may run %s s', t.app_id, t.timeout))
from   (values ('com.acme.app', '21600'), ('com.acme.beta', '600'), ('com.demo.app', '900')) as t (app_id, timeout);
select set_build_limit('com.demo.app', 600);
select is((select timeout_seconds from build_requests where app_id = 'com.demo.app'), 900, 'a build keeps the limit it was asked for with');
select throws_ok(
  $$ insert into tracking.build_limits values ('com.none', 299) $$,
  '23514', 'new row for relation "build_limits" violates check constraint "timeout_is_between_5_minutes_and_6_hours"', 'the table knows the limits too');
select throws_ok(
  format('select tests.report(%L, %L)', (select id from build_requests limit 1), 'timeout_seconds = 21601'),
  '23514', 'new row for relation "build_requests" violates check constraint "timeout_is_between_5_minutes_and_6_hours"', 'so do builds');
reset role;
delete from tracking.build_limits;
delete from build_requests;
delete from events;


-- Reconciliation

select tests.new_build(jsonb_build_object('id', 'b0000000-0000-4000-8000-00000000000' || t.n, 'created_at', now() - t.age::interval, 'builder_job_id', t.job))
from   (values (1, '2 hours', 'j1'), (2, '2 hours', 'j2'), (3, '2 hours', 'j3'), (4, '2 hours', 'j4'), (5, '1 hour', null), (6, '59 minutes 59 seconds', null), (7, '2 days', 'j7'), (8, '2 hours', null)) as t (n, age, job);
select tests.report('b0000000-0000-4000-8000-000000000001', $$status = 'running', started_at = now() - interval '900 seconds'$$);
select tests.report('b0000000-0000-4000-8000-000000000002', $$status = 'running', started_at = now() - interval '899 seconds'$$);
select tests.report('b0000000-0000-4000-8000-000000000003', $$status = 'running', started_at = now() - interval '1 hour'$$);
select tests.report('b0000000-0000-4000-8000-000000000003', $$status = 'pending'$$);
select tests.report('b0000000-0000-4000-8000-000000000004', $$status = 'running', started_at = now() - interval '1 hour', timeout_seconds = 7200$$);
select tests.report('b0000000-0000-4000-8000-000000000008', $$status = 'cancelled'$$);
select is(tests.outcome('ada@acme.test', 'select tracking.reconcile_builds()::text'), '42501 permission denied for function reconcile_builds', 'clients do not reconcile');
select is(tests.outcome('service', 'select tracking.reconcile_builds()::text'), '(2,1)', 'the service role does, and is told how many builds it ended');
select results_eq(
  $$ select right(id::text, 1)::integer, status, now() - started_at, completed_at - started_at, last_error, tests.story(id) from build_requests order by id $$,
  $$ values
    (1, 'timed_out', interval '900 seconds', interval '900 seconds', 'The build ran longer than 900 seconds.', 'Requested, Started, Timed Out'),
    (2, 'running',   interval '899 seconds', null, null, 'Requested, Started'),
    (3, 'timed_out', interval '1 hour', interval '900 seconds', 'The build ran longer than 900 seconds.', 'Requested, Started, Timed Out'),
    (4, 'running',   interval '1 hour', null, null, 'Requested, Started'),
    (5, 'expired',   null, null, 'The build was not handed to a builder within an hour.', 'Requested, Expired'),
    (6, 'pending',   null, null, null, 'Requested'),
    (7, 'pending',   null, null, null, 'Requested'),
    (8, 'cancelled', null, null, null, 'Requested, Cancelled') $$,
  'builds past their limit time out, as if they had been stopped in time; those that no builder took in an hour expire; no other changes');
select results_eq(
  $$ select tags -> 'duration_seconds', tags -> 'failure_category' from events where event = 'Build Timed Out' $$,
  $$ values ('900'::jsonb, '"timeout"'::jsonb), ('900', '"timeout"') $$, 'and took as long as they were allowed');
select is(tests.outcome('service', 'select tracking.reconcile_builds()::text'), '(0,0)', 'once');
select tests.report('b0000000-0000-4000-8000-000000000001', $$status = 'succeeded'$$);
select is(tests.story('b0000000-0000-4000-8000-000000000001'), 'Requested, Started, Timed Out', 'what comes after is too late');
delete from events;
delete from build_requests;


-- Dead letters: where the event cannot be written, the build goes on

select tests.new_build('{"id": "b0000000-0000-4000-8000-000000000001", "created_at": "2025-03-05 09:30:00+00"}');
select tests.new_build('{"id": "b0000000-0000-4000-8000-000000000002", "app_id": "com.evil.app", "requested_by": "10000000-0000-4000-8000-000000000004"}');
alter table events add constraint acme_is_out_of_order check (app_id <> 'com.acme.app') not valid;
set local role service_role;
update build_requests set status = 'running', builder_job_id = 'j', started_at = '2025-03-05 09:30:30+00';
select set_eq('select status, lifecycle from build_requests', $$ values ('running', 'started') $$, 'the update is done all the same');
select set_eq('select event->>''event'', error, tries from tracking.dead_letters',
  $$ values ('Build Started', '23514 new row for relation "events_' || to_char(now() at time zone 'UTC', 'YYYY_MM') || '" violates check constraint "acme_is_out_of_order"', 1) $$,
  'the event waits in the dead letters, with the error');
reset role;
select is(tests.story('b0000000-0000-4000-8000-000000000002'), 'Requested, Started', 'other builds of the same statement say what they have to');
select is(tests.story('b0000000-0000-4000-8000-000000000001'), 'Requested', 'the one cannot');
select is(
  (select event - array['event_id', 'occurred_at', 'txid'] from tracking.dead_letters),
  jsonb_build_object(
    'scope_id', 'a0000000-0000-4000-8000-000000000001', 'org_id', 'a0000000-0000-4000-8000-000000000001', 'actor_id', '10000000-0000-4000-8000-000000000001',
    'app_id', 'com.acme.app', 'api_key_id', null, 'event', 'Build Started', 'channel', 'build-lifecycle', 'description', null, 'icon', '⏳', 'parser', null, 'notify', false,
    'tags', '{"app_id": "com.acme.app", "org_id": "a0000000-0000-4000-8000-000000000001", "build_id": "b0000000-0000-4000-8000-000000000001", "job_id": "j", "platform": "ios", "build_mode": "release"}'::jsonb,
    'context', '{}'::jsonb, 'tracking_version', 2, 'source', 'trigger', 'clock_skew', null, 'received_at', now(), 'epoch', 1),
  'it is whole');
select tests.report('b0000000-0000-4000-8000-000000000001', $$status = 'running'$$);
select is((select count(*) from tracking.dead_letters), 1::bigint, 'a build says nothing twice, dead letters included');
select tests.report('b0000000-0000-4000-8000-000000000001', $$status = 'failed', completed_at = '2025-03-05 09:31:30+00', last_error = 'at /Users/ada: token as_secret'$$);
select is((select string_agg(event ->> 'event', ', ' order by event ->> 'event_id') from tracking.dead_letters), 'Build Started, Build Failed', 'and ends, which is the next letter');
select is_empty($$ select from tracking.dead_letters as d where to_jsonb(d)::text ~ 'secret|Users' $$, 'in which no raw error stands either');

select is(tests.outcome(t.caller, t.statement), t.verdict, t.promise)
from   (values
  ('ada@acme.test', 'select tracking.retry_dead_letters()::text', '42501 permission denied for function retry_dead_letters', 'clients do not retry dead letters'),
  ('ada@acme.test', 'select count(*) from tracking.dead_letters', '42501 permission denied for table dead_letters', 'nor read them'),
  ('service', 'delete from tracking.dead_letters', '42501 permission denied for table dead_letters', 'the service role does not lose them'),
  ('service', 'select count(*) from tracking.dead_letters', '2', 'it reads them'),
  ('service', 'select tracking.retry_dead_letters()::text', '(0,2)', 'and retries them: in vain, as long as the reason is there')
) as t (caller, statement, verdict, promise);
select set_eq('select tries, failed_at > now() from tracking.dead_letters', $$ values (2, true) $$, 'each try is counted');
create temporary table letters as select * from tracking.dead_letters;
alter table events drop constraint acme_is_out_of_order;
select is(tests.outcome('service', 'select tracking.retry_dead_letters(1)::text'), '(1,0)', 'some at a time');
select is(tests.story('b0000000-0000-4000-8000-000000000001'), 'Requested, Started', 'the oldest first');
select is(tests.outcome('service', 'select tracking.retry_dead_letters()::text'), '(1,0)', 'or all');
select is(tests.story('b0000000-0000-4000-8000-000000000001'), 'Requested, Started, Failed', 'once the reason is gone they are in the log, in order');
select set_eq(
  'select to_jsonb(e) from events as e join letters as l on l.event ->> ''event_id'' = e.event_id::text', 'select event from letters', 'as they were written');
select is_empty('select from tracking.dead_letters', 'and are letters no more');
select is(tests.outcome('service', 'select tracking.retry_dead_letters()::text'), '(0,0)', 'nothing is left');
insert into tracking.dead_letters select * from letters;
select is(tests.outcome('service', 'select tracking.retry_dead_letters()::text'), '(2,0)', 'a letter that is in the log already');
select is((select count(*) from events), 5::bigint, 'is there once');

-- Where not even a letter can be written.
alter table events add constraint nothing_works check (false) not valid;
alter table tracking.dead_letters add constraint nothing_works check (false) not valid;
select tests.report('b0000000-0000-4000-8000-000000000002', $$status = 'succeeded'$$);
select is((select status from build_requests where id = 'b0000000-0000-4000-8000-000000000002'), 'succeeded', 'and where not even that can be written, the build goes on');
select lives_ok($$ select tests.new_build() $$, 'builds are asked for');
select is((select count(*) from events), 5::bigint, 'and the log is as it was');

select * from finish();
rollback;
