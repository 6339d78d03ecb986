-- Chapter 9.1: who may erase whom, and what is left. While others deliver, write and crash: tests/erasure.test.ts.
begin;
select plan(55);

-- Who may
select is(tests.outcome(c.caller, 'select count(*) from ' || t.object), '42501 permission denied for ' || t.denied, format('%s cannot ask %s', c.caller, t.object))
from   (values ('ada@acme.test'), ('as_local_acme_admin'), ('nobody')) as c (caller),
       (values
         ('tracking.erase_actor(''10000000-0000-4000-8000-000000000002'')', 'function erase_actor'),
         ('tracking.erase_org(''a0000000-0000-4000-8000-000000000002'')', 'function erase_org'),
         ('tracking.export_actor(''10000000-0000-4000-8000-000000000002'')', 'function export_actor'),
         ('tracking.count_held(''actor'', ''10000000-0000-4000-8000-000000000002'')', 'function count_held'),
         ('tracking.continue_erasure(''10000000-0000-4000-8000-000000000002'')', 'function continue_erasure'),
         ('tracking.continue_erasures()', 'function continue_erasures'),
         ('tracking.settle_notice(''10000000-0000-4000-8000-000000000002'', ''s'', ''told'')', 'function settle_notice'),
         ('tracking.erasures', 'table erasures'),
         ('tracking.erasure_notices', 'table erasure_notices')) as t (object, denied);
select is(
  tests.outcome('service', 'select count(*) from tracking.' || t.call), '42501 permission denied for function ' || split_part(t.call, '(', 1), format('nor does the service role ask %s by itself', t.call))
from   (values
  ('take_events(''true'', now())'), ('erase_builds(''actor'', null, 1)'), ('erase_undelivered(''actor'', null, 1)'), ('forget_actor(null)'),
  ('forget_org(null)'), ('end_erasure(null)'), ('close_erasure(null)')) as t (call);
select is(
  tests.outcome('service', t.statement), t.verdict, format('the service role cannot: %s', t.statement))
from   (values
  ('delete from tracking.erasures', '42501 permission denied for table erasures'),
  ('update tracking.erasures set done_at = null', '42501 permission denied for table erasures'),
  ('delete from public.events', '42501 permission denied for table events')) as t (statement, verdict);

-- Whom
select is(tests.outcome('service', t.statement), t.verdict, t.promise)
from   (values
  ('select erasure from tracking.erase_actor(null)', '22004 Name the actor that is to be erased.', 'an actor has an id'),
  ('select erasure from tracking.erase_org(null)', '22004 Name the org that is to be erased.', 'an org has an id'),
  ('select erasure from tracking.erase_actor(''00000000-0000-0000-0000-000000000000'')', '22023 00000000-0000-0000-0000-000000000000 is the id of nobody.', 'who was erased is not erased again'),
  ('select erasure from tracking.erase_org(''ffffffff-ffff-ffff-ffff-ffffffffffff'')', '22023 ffffffff-ffff-ffff-ffff-ffffffffffff is the id of nobody.', 'nor are all orgs at once'),
  ('select erasure from tracking.erase_actor(''10000000-0000-4000-8000-000000000002'', 0)', '22023 A bite is one event or more.', 'a bite is something'),
  ('select count(*) from tracking.export_actor(null)', '22004 Name the actor whose data is to be exported.', 'who is exported has an id'),
  ('select count(*) from tracking.count_held(''app'', ''10000000-0000-4000-8000-000000000002'')', '22023 What is held is held of an actor or of an org.', 'an app is no subject')
) as t (statement, verdict, promise);
select is_empty('select from tracking.erasures', 'and nothing was asked for');

-- What is left
select is(tests.outcome('ada@acme.test', $$ select track_event('{"event": "Hers", "tracking_version": 2}') ->> 'status' $$), 'ok', 'somebody');
select is(tests.outcome('bob@acme.test', $$ select track_event('{"event": "His", "tracking_version": 2}') ->> 'status' $$), 'ok', 'somebody else');
select is(tests.outcome('bob@acme.test', $$ select track_event('{"event": "His for Acme", "tracking_version": 2, "org_id": "a0000000-0000-4000-8000-000000000001"}') ->> 'status' $$), 'ok', 'and for an org');
select is(tests.outcome('service', 'select events from tracking.count_held(''actor'', ''10000000-0000-4000-8000-000000000002'')'), '2', 'two events are his');
select is(tests.outcome('service', 'select string_agg(e.done::text, '''') from tracking.erase_actor(''10000000-0000-4000-8000-000000000002'') as e'), 'true', 'he is erased in one bite');
select set_eq('select event from events', array['Hers'], 'his events are gone, and hers are there');
select is(tests.outcome('bob@acme.test', 'select count(*) from orgs'), '0', 'he is a member of nothing');
select is(tests.outcome('ada@acme.test', 'select count(*) from orgs'), '2', 'she is of what she was');
select bag_eq(
  $$ select subject, subject_id, subject_hash, events, builds, letters, erased_at is not null as is_erased, done_at is not null as is_done from tracking.erasures $$,
  $$ values ('actor', null::uuid, sha256('10000000-0000-4000-8000-000000000002'), 2::bigint, 0::bigint, 0::bigint, true, true) $$,
  'it is noted, and not whom: where there is no sink to be told, at once');
select is(
  tests.outcome('service', $$ select count(*) from tracking.erasures as e where e.subject_hash = sha256(convert_to('10000000-0000-4000-8000-000000000002', 'UTF8')) $$),
  '1', 'who has the id finds out that it was erased');

select * from finish();
rollback;
