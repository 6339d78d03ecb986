-- Chapter 5, old data: user_id was a person or an organization, and the host's own tables say which.
begin;
select plan(55);

-- The demo world's Acme has an id that is a person's as well.
insert into auth.users (id, email) values ('a0000000-0000-4000-8000-000000000002', 'evil@evil.test');
insert into auth.users (id, email, is_sso_user) values (gen_random_uuid(), 'two@acme.test', true), (gen_random_uuid(), 'two@acme.test', true);
insert into tracking.erasures (subject, subject_hash, asked_by, erased_at, done_at)
select 'actor', sha256(convert_to(i.id, 'UTF8')), 'ada', now(), now()
from   unnest('{10000000-0000-4000-8000-000000000003,a0000000-0000-4000-8000-00000000000e}'::text[]) as i (id);
update auth.users set deleted_at = now() where email = 'nik@nowhere.test';

-- Whom the log says that a row of old data belongs to, and the first warning; or why it does not. Empties the log.
create function tests.imported("row" jsonb, unknown_as text)
  returns text
  language plpgsql volatile
as $$
declare
  v_answer jsonb;
  v_told   text;
begin
  perform tests.use_service();
  v_answer := tracking.record_events(
    jsonb_build_array('{"event": "Old", "event_id": "1", "timestamp": "2019-03-05T09:30:00Z"}'::jsonb || imported."row"), unknown_as) #> '{results,0}';
  perform tests.speak_as('owner');
  select 'by ' || coalesce(split_part(u.email, '@', 1), e.actor_id::text, 'nobody') || coalesce(' for ' || coalesce(o.name, e.org_id::text), '')
         || coalesce(' about ' || e.app_id, '') || ', version ' || e.tracking_version
         || case when e.tags ->> 'org_id' is distinct from e.org_id::text then ' but tags say ' || coalesce(e.tags ->> 'org_id', 'nothing') else '' end
         || case when e.source = 'service' then '' else ' as ' || e.source end
         || case when e.scope_id = coalesce(e.org_id, e.actor_id) then '' else ' out of scope' end
  into   v_told
  from   events as e
  left   join auth.users as u on u.id = e.actor_id
  left   join orgs as o on o.id = e.org_id;
  delete from events;
  return coalesce(v_told, v_answer #>> '{error,message}') || coalesce('; ' || (v_answer #>> '{warnings,0}'), '');
end $$;

select is(tests.imported(t."row", 'skip'), t.verdict, format('%s: %s', t."row", t.verdict))
from   (values
  -- A person
  ('{"user_id": "10000000-0000-4000-8000-000000000002"}'::jsonb, 'by bob, version 2'),
  ('{"user_id": "10000000-0000-4000-8000-000000000005"}', 'by nik, version 2'), -- whose account is deleted
  ('{"user_id": "bob@acme.test"}', 'by bob, version 2'),
  ('{"user_id": "Bob@Acme.Test"}', 'by bob, version 2'),
  ('{"user_id": "10000000-0000-4000-8000-000000000002", "tags": {"app_id": "com.acme.app"}}', 'by bob for Acme about com.acme.app, version 2'),
  ('{"user_id": "10000000-0000-4000-8000-000000000004", "tags": {"app-id": "com.acme.app"}}', 'by eve for Acme about com.acme.app, version 2'), -- no role of today's is asked
  ('{"user_id": "10000000-0000-4000-8000-000000000002", "org_id": "6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11"}', 'by bob for Demo, version 2'),
  ('{"user_id": "10000000-0000-4000-8000-000000000002", "org_id": "6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11", "tags": {"app_id": "com.acme.app"}}',
   'by bob for Demo, version 2; The app is a tag alone: there is no such one, or it is another organization''s.'),
  ('{"user_id": "10000000-0000-4000-8000-000000000002", "tags": {"app_id": "com.gone"}}',
   'by bob, version 2; The app is a tag alone: there is no such one, or it is another organization''s.'),
  ('{"user_id": "10000000-0000-4000-8000-000000000002", "org_id": "a0000000-0000-4000-8000-0000000000ff"}',
   'by bob, version 2; The organization was left out: there is no such one.'),
  ('{"user_id": "10000000-0000-4000-8000-000000000002", "org_id": "Acme Inc", "tags": {"app_id": "com.acme.app", "org_id": "elsewhere"}}',
   'by bob for Acme about com.acme.app, version 2; The organization was left out: there is no such one.'),
  ('{"user_id": "10000000-0000-4000-8000-000000000002", "tags": {"org_id": "a0000000-0000-4000-8000-000000000001"}}', 'by bob, version 2'),
  -- An organization
  ('{"user_id": "a0000000-0000-4000-8000-000000000001"}', 'by nobody for Acme, version 1'),
  ('{"user_id": "A0000000-0000-4000-8000-000000000001", "tracking_version": 2}', 'by nobody for Acme, version 2'),
  ('{"user_id": "a0000000-0000-4000-8000-000000000001", "tags": {"app_id": "com.acme.app", "org_id": "6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11"}}', 'by nobody for Acme about com.acme.app, version 1'),
  ('{"user_id": "a0000000-0000-4000-8000-000000000001", "tags": {"app_id": "com.evil.app"}}',
   'by nobody for Acme, version 1; The app is a tag alone: there is no such one, or it is another organization''s.'),
  ('{"user_id": "a0000000-0000-4000-8000-000000000001", "org_id": "6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11"}', 'by nobody for Acme, version 1'),
  ('{"user_id": "a0000000-0000-4000-8000-000000000001", "actor_id": "10000000-0000-4000-8000-000000000002"}', 'by bob for Acme, version 2'),
  ('{"user_id": "a0000000-0000-4000-8000-000000000001", "actor_id": "10000000-0000-4000-8000-0000000000ff"}', 'by nobody for Acme, version 1'),
  -- Nobody named
  ('{"org_id": "a0000000-0000-4000-8000-000000000001"}', 'by nobody for Acme, version 1'),
  ('{"user_id": "", "tags": {"app_id": "com.acme.app"}}', 'by nobody for Acme about com.acme.app, version 1'),
  ('{"user_id": null, "actor_id": "10000000-0000-4000-8000-000000000002"}', 'by bob, version 2'),
  ('{}', 'user_missing'),
  ('{"tags": {"app_id": "com.gone"}}', 'user_missing'),
  -- Undecided
  ('{"user_id": "a0000000-0000-4000-8000-000000000002"}', 'user_ambiguous'),
  ('{"user_id": "a0000000-0000-4000-8000-0000000000ff"}', 'user_unknown'),
  ('{"user_id": "a0000000-0000-4000-8000-0000000000ff", "tags": {"app_id": "com.acme.app"}, "actor_id": "10000000-0000-4000-8000-000000000002"}', 'user_unknown'),
  ('{"user_id": "00000000-0000-0000-0000-000000000000"}', 'user_anonymous'),
  ('{"user_id": "somebody@else.test"}', 'email_unknown'),
  ('{"user_id": "nik@nowhere.test"}', 'email_unknown'), -- an address may be somebody else's by now
  ('{"user_id": "two@acme.test"}', 'email_unknown'),
  ('{"user_id": "anonymous"}', 'user_anonymous'),
  ('{"user_id": 42}', 'user_anonymous'),
  ('{"user_id": "-a000000-0000-4000-8000-000000000001"}', 'user_anonymous'),
  ('{"user_id": "a0000000-0000-4000-8000-00000000000g", "org_id": "a0000000-0000-4000-8000-000000000001"}', 'user_anonymous'),
  -- Erased: cyd, and an organization that is no more
  ('{"user_id": "10000000-0000-4000-8000-000000000003", "tags": {"app_id": "com.acme.app"}}', 'erased'),
  ('{"user_id": "CYD@acme.test"}', 'erased'),
  ('{"user_id": "a0000000-0000-4000-8000-000000000001", "actor_id": "10000000-0000-4000-8000-000000000003"}', 'erased'),
  ('{"user_id": "10000000-0000-4000-8000-000000000002", "org_id": "A0000000-0000-4000-8000-00000000000E"}', 'erased'),
  -- Faults that the log has for everybody
  ('{"user_id": "10000000-0000-4000-8000-000000000002", "timestamp": null}', 'timestamp_required'),
  ('{"user_id": "10000000-0000-4000-8000-000000000002", "event": " "}', 'missing_event'),
  ('{"user_id": "10000000-0000-4000-8000-000000000002", "tracking_version": 3}', 'unsupported_tracking_version')
) as t ("row", verdict);

select is(tests.imported(t."row", t.unknown_as), t.verdict, format('%s as %s: %s', t."row", t.unknown_as, t.verdict))
from   (values
  ('{"user_id": "a0000000-0000-4000-8000-0000000000ff"}'::jsonb, 'actor', 'by a0000000-0000-4000-8000-0000000000ff, version 2'),
  ('{"user_id": "a0000000-0000-4000-8000-0000000000ff", "tags": {"app_id": "com.acme.app"}}', 'actor', 'by a0000000-0000-4000-8000-0000000000ff for Acme about com.acme.app, version 2'),
  ('{"user_id": "a0000000-0000-4000-8000-0000000000ff"}', 'org', 'by nobody for a0000000-0000-4000-8000-0000000000ff, version 1'),
  ('{"user_id": "00000000-0000-0000-0000-000000000000"}', 'actor', 'user_anonymous'),
  ('{"user_id": "a0000000-0000-4000-8000-00000000000e"}', 'org', 'erased'),
  ('{"user_id": "a0000000-0000-4000-8000-000000000001"}', 'actor', 'by nobody for Acme, version 1')
) as t ("row", unknown_as, verdict);

-- Ids and times

select is(tracking.uuid_v7_at('019565a3-fa3b-7000-8000-000000000001', t.stated), t.verdict::uuid, t.promise)
from   (values
  ('2025-03-05 09:30:00.123+00'::timestamptz, '019565a3-fa3b-7000-8000-000000000001', 'a UUIDv7 is the id of a row of its time'),
  ('2025-03-05 09:30:00.124+00', '019565a3-fa3b-7000-8000-000000000001', 'to the millisecond'),
  (null, '019565a3-fa3b-7000-8000-000000000001', 'or of a row that has no other time'),
  ('2025-03-05 09:30:00.125+00', null, 'and an id like any other where the row happened at another time')
) as t (stated, verdict, promise);

-- Who may

select throws_ok(
  $$ select tracking.record_events('[]', 'both') $$, '22023', 'invalid_unknown_as', 'unknown ids are an actor''s, an org''s, or skipped');
select is(
  tests.outcome('eve@evil.test', $$ select tracking.record_events(
    '[{"event": "Old", "user_id": "10000000-0000-4000-8000-000000000002", "tags": {"app_id": "com.acme.app"}}]', 'actor') #>> '{results,0,error,message}' $$),
  'no_permission', 'a client does not become the service role by saying that its data is old');
select is(
  tests.outcome('eve@evil.test', $$ select tracking.person_known_as('bob@acme.test') $$),
  '42501 permission denied for function person_known_as', 'nor does it learn who has an address');

select * from finish();
rollback;
