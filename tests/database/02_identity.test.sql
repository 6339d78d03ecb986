-- Chapter 2: who is calling, API keys, and who sees which orgs, apps and keys.
begin;
select plan(115);

-- Who is calling

create function tests.caller()
  returns text
  language sql stable
as $$
  select concat_ws(' ', tracking.source(), 'actor', coalesce(right(tracking.actor()::text, 3), '-'), 'key', coalesce(right(tracking.api_key()::text, 3), '-'))
$$;

select is(tests.outcome(t.caller, 'select tests.caller()'), t.known_as, t.promise)
from   (values
  ('ada@acme.test',      'client actor 001 key -',   'somebody who signed in is the actor'),
  ('eve@evil.test',      'client actor 004 key -',   'whoever it is'),
  ('as_local_acme_admin', 'client actor 001 key 001', 'behind an API key its owner is the actor'),
  ('as_local_demo_app',  'client actor 001 key 002', 'and the key is known'),
  ('as_local_revoked',   'client actor - key -',     'a revoked key is nobody''s'),
  ('as_local_expired',   'client actor - key -',     'an expired key is nobody''s'),
  ('as_local_unknown',   'client actor - key -',     'an unknown key is nobody''s'),
  ('as_local_acme_admin ', 'client actor - key -',   'a key is taken to the letter'),
  ('nobody',             'client actor - key -',     'with the publishable key alone one is nobody'),
  ('service',            'service actor - key -',    'the service role is no person')
) as t (caller, known_as, promise);

create function tests.caller_with(role text, claims jsonb, headers jsonb default '{}')
  returns text
  language plpgsql volatile
as $$
declare
  v_caller text;
begin
  perform tests.become(role, claims, headers);
  v_caller := tests.caller();
  perform tests.become('none', '{}');
  return v_caller;
end $$;

select is(tests.caller_with(t.role, t.claims::jsonb, t.headers::jsonb), t.known_as, t.promise)
from   (values
  ('anon', '{"role": "anon"}', '{"capgkey": "as_local_acme_admin"}',
   'client actor 001 key 001', 'the header capgkey carries a key too'),
  ('anon', '{"role": "anon"}', '{"x-api-key": "as_local_acme_admin", "capgkey": "as_local_demo_app"}',
   'client actor 001 key 001', 'x-api-key comes first'),
  ('anon', '{"role": "anon"}', '{"x-api-key": "", "capgkey": "as_local_demo_app"}',
   'client actor 001 key 002', 'an empty header is none'),
  ('authenticated', '{"role": "authenticated", "sub": "10000000-0000-4000-8000-000000000004"}', '{"x-api-key": "as_local_acme_admin"}',
   'client actor 004 key -', 'a JWT wins over a key'),
  ('authenticated', '{"role": "authenticated"}', '{}',
   'client actor - key -', 'a JWT without a subject is nobody''s'),
  ('authenticated', '{"role": "authenticated", "sub": "ada"}', '{}',
   'client actor - key -', 'a subject that is no UUID is nobody'),
  ('authenticated', '{"role": "authenticated", "sub": ["10000000-0000-4000-8000-000000000001"]}', '{}',
   'client actor - key -', 'nor is a list of them'),
  ('authenticated', '{"role": "authenticated", "sub": "10000000-0000-4000-8000-00000000000A"}', '{}',
   'client actor 00a key -', 'a subject in capitals is the same person'),
  ('authenticated', '{"role": "service_role", "sub": "10000000-0000-4000-8000-000000000004"}', '{}',
   'client actor 004 key -', 'the role in the claims counts for nothing: the database''s does'),
  ('service_role', '{"role": "service_role"}', '{"x-api-key": "as_local_acme_admin"}',
   'service actor - key -', 'the service role needs no key')
) as t (role, claims, headers, known_as, promise);

update public.api_keys set expires_at = now() + interval '1 microsecond' where name = 'acme_admin';
select is(tests.outcome('as_local_acme_admin', 'select tests.caller()'), 'client actor 001 key 001', 'a key is good until it expires');
update public.api_keys set expires_at = now() where name = 'acme_admin';
select is(tests.outcome('as_local_acme_admin', 'select tests.caller()'), 'client actor - key -', 'and not a moment longer');
update public.api_keys set expires_at = null where name = 'acme_admin';

-- Claims and headers are believed only where the login is the API's.
create role mallory login noinherit;
grant anon, authenticated to mallory;
grant usage on schema public, extensions, tracking to mallory, authenticator;
grant execute on function tracking.actor(), tracking.api_key(), tracking.source() to mallory;

set local session authorization mallory;
select is(
  tests.caller_with('authenticated', '{"role": "authenticated", "sub": "10000000-0000-4000-8000-000000000001"}'),
  'client actor - key -', 'a login of one''s own becomes nobody by setting the claims');
select is(
  tests.caller_with('anon', '{"role": "anon"}', '{"x-api-key": "as_local_acme_admin"}'),
  'client actor - key -', 'nor by setting the headers');
select is(
  tests.caller_with('none', '{"role": "authenticated", "sub": "10000000-0000-4000-8000-000000000001"}'),
  'client actor - key -', 'in no role');
select tests.become('authenticated', '{"role": "authenticated", "sub": "10000000-0000-4000-8000-000000000001"}');
select throws_ok(
  $$ select track_event('{"event": "Forged", "tracking_version": 2}') $$,
  'PT401', 'unauthenticated', 'and what it sends is refused');
select is_empty('select from orgs', 'it sees no org');
reset session authorization;
update tracking.settings set api_logins = array_append(api_logins, 'mallory');
set local session authorization mallory;
select is(
  tests.caller_with('authenticated', '{"role": "authenticated", "sub": "10000000-0000-4000-8000-000000000001"}'),
  'client actor 001 key -', 'a login that the settings name is believed');
reset session authorization;
update tracking.settings set api_logins = '{}';
set local session authorization authenticator;
select is(
  tests.caller_with('authenticated', '{"role": "authenticated", "sub": "10000000-0000-4000-8000-000000000001"}'),
  'client actor 001 key -', 'authenticator is believed, whatever the settings say');
select is(
  tests.caller_with('anon', '{"role": "anon"}', '{"x-api-key": "as_local_acme_admin"}'),
  'client actor 001 key 001', 'about keys, too');
reset session authorization;
select is(
  tests.caller_with('authenticated', '{"role": "authenticated", "sub": "10000000-0000-4000-8000-000000000001"}'),
  'client actor - key -', 'and an owner of the database only where they name it');
update tracking.settings set api_logins = array[session_user];


-- Making an API key

-- Every key with its role and where it holds.
create function tests.keys()
  returns setof text
  language sql stable
as $$
  select concat_ws(' ', k.name, b.role, coalesce(b.app_id, o.name), case when k.revoked_at is not null then 'revoked' end)
  from   public.api_keys as k
  left   join tracking.role_bindings as b on b.principal_id = k.id
  left   join public.orgs as o on o.id = b.org_id
$$;

create temporary table refusals as
select t.caller, t.arguments, t.refusal, t.promise, tests.outcome(t.caller, format('select create_api_key(%s)', t.arguments)) as outcome
from   (values
  ('bob@acme.test', $$'k', 'viewer', org_id => 'a0000000-0000-4000-8000-000000000001'$$,
   'PT403 no_permission', 'a viewer makes no keys'),
  ('cyd@acme.test', $$'k', 'viewer', app_id => 'com.acme.app'$$,
   'PT403 no_permission', 'nor does somebody with a role on the app alone'),
  ('eve@evil.test', $$'k', 'viewer', org_id => 'a0000000-0000-4000-8000-000000000001'$$,
   'PT403 no_permission', 'nor an outsider for the org'),
  ('eve@evil.test', $$'k', 'viewer', app_id => 'com.acme.app'$$,
   'PT403 no_permission', 'nor for one of its apps'),
  ('ada@acme.test', $$'k', 'viewer', org_id => 'a0000000-0000-4000-8000-0000000000ff'$$,
   'PT403 no_permission', 'nor anybody for an org that is not there'),
  ('ada@acme.test', $$'k', 'viewer', app_id => 'com.acme.none'$$,
   'PT403 no_permission', 'nor for an app that is not there'),
  ('as_local_acme_admin', $$'k', 'viewer', org_id => 'a0000000-0000-4000-8000-000000000001'$$,
   'PT403 no_permission', 'a key makes no other, though an admin''s'),
  ('as_local_revoked', $$'k', 'viewer', org_id => 'a0000000-0000-4000-8000-000000000001'$$,
   'PT401 invalid_api_key', 'a revoked one least of all'),
  ('nobody', $$'k', 'viewer', org_id => 'a0000000-0000-4000-8000-000000000001'$$,
   'PT401 unauthenticated', 'a key needs an owner'),
  ('service', $$'k', 'viewer', org_id => 'a0000000-0000-4000-8000-000000000001'$$,
   '42501 permission denied for function create_api_key', 'which the service role is not'),
  ('ada@acme.test', $$' ', 'viewer', org_id => 'a0000000-0000-4000-8000-000000000001'$$,
   'PT400 invalid_payload', 'a key has a name'),
  ('ada@acme.test', $$null, 'viewer', org_id => 'a0000000-0000-4000-8000-000000000001'$$,
   'PT400 invalid_payload', 'a name is not null'),
  ('ada@acme.test', $$'k', 'viewer'$$,
   'PT400 invalid_payload', 'a key is for something'),
  ('ada@acme.test', $$'k', 'viewer', 'a0000000-0000-4000-8000-000000000001', 'com.acme.app'$$,
   'PT400 invalid_payload', 'and not for an org and an app at once'),
  ('ada@acme.test', $$'k', 'king', org_id => 'a0000000-0000-4000-8000-000000000001'$$,
   'PT400 invalid_payload', 'a role is one of those there are'),
  ('ada@acme.test', $$'k', null, org_id => 'a0000000-0000-4000-8000-000000000001'$$,
   'PT400 invalid_payload', 'and not null'),
  ('ada@acme.test', $$'k', 'viewer', org_id => 'a0000000-0000-4000-8000-000000000001', expires_at => now()$$,
   'PT400 invalid_payload', 'a key does not expire before it is made')
) as t (caller, arguments, refusal, promise);
select is(r.outcome, r.refusal, r.promise) from refusals as r;
select set_eq(
  'select * from tests.keys()',
  array['acme_admin admin Acme', 'demo_app developer com.demo.app', 'revoked admin Acme revoked', 'expired admin Acme'],
  'and nothing was written');

create temporary table made (key_for text, answer jsonb);
grant all on made to public;
select tests.sign_in('ada@acme.test');
insert into made values
  ('org', create_api_key('ci', 'viewer', org_id => 'a0000000-0000-4000-8000-000000000001')),
  ('app', create_api_key('laptop', 'developer', app_id => 'com.acme.beta', expires_at => '2999-01-01 00:00:00+00'));
reset role;
select set_eq(
  'select * from tests.keys()',
  array[
    'acme_admin admin Acme', 'demo_app developer com.demo.app', 'revoked admin Acme revoked', 'expired admin Acme',
    'ci viewer Acme', 'laptop developer com.acme.beta'],
  'who manages an org makes keys for it and for its apps, each with a role of its own');
select is(
  answer - array['id', 'key', 'prefix'], '{"name": "laptop", "expires_at": "2999-01-01T00:00:00+00:00"}'::jsonb,
  'the answer says what was made') from made where key_for = 'app';
select is(answer ->> 'expires_at', null, 'a key need not expire') from made where key_for = 'org';
select matches(answer ->> 'key', '^as_[0-9a-f]{64}$', 'it shows the key') from made where key_for = 'org';
select is(answer ->> 'prefix', left(answer ->> 'key', 11), 'and how it begins, to tell it by') from made where key_for = 'org';
select isnt(a.answer ->> 'key', b.answer ->> 'key', 'no two are the same') from made as a, made as b where a.key_for = 'org' and b.key_for = 'app';
select results_eq(
  $$ select k.owner_id, k.key_hash, k.prefix, k.expires_at, k.revoked_at, k.last_used_at
     from   api_keys as k join made as m on m.answer ->> 'id' = k.id::text where m.key_for = 'org' $$,
  $$ select '10000000-0000-4000-8000-000000000001'::uuid, sha256(convert_to(m.answer ->> 'key', 'UTF8')), left(m.answer ->> 'key', 11),
            null::timestamptz, null::timestamptz, null::timestamptz
     from   made as m where m.key_for = 'org' $$,
  'what is kept is the hash');
select is_empty(
  $$ select from api_keys as k, made as m where to_jsonb(k)::text like '%' || (m.answer ->> 'key') || '%' $$,
  'and never the key');

create function tests.made_key(key_for text)
  returns text
  language sql stable
as $$ select m.answer ->> 'key' from made as m where m.key_for = made_key.key_for $$;
select is(
  tests.outcome(tests.made_key('org'), $$ select tracking.actor() || ' ' || org.read('a0000000-0000-4000-8000-000000000001') || ' ' || org.manage('a0000000-0000-4000-8000-000000000001') $$),
  '10000000-0000-4000-8000-000000000001 true false', 'the key works, with its own role and not its owner''s');
select is(
  tests.outcome(tests.made_key('app'), $$ select app.build('com.acme.beta') || ' ' || app.read('com.acme.app') || ' ' || org.read('a0000000-0000-4000-8000-000000000001') $$),
  'true false false', 'a key for an app is good for that app alone');


-- Revoking one

select is(tests.outcome(t.caller, format('select revoke_api_key(%L)', m.answer ->> 'id')), t.refusal, t.promise)
from   (values
  ('bob@acme.test',       'PT403 no_permission', 'a viewer revokes no keys'),
  ('eve@evil.test',       'PT403 no_permission', 'nor does an outsider'),
  ('as_local_demo_app',   'PT403 no_permission', 'nor another key of the same owner'),
  ('as_local_unknown',    'PT401 invalid_api_key', 'nor an unknown one'),
  ('nobody',              'PT401 unauthenticated', 'nor nobody'),
  ('service',             '42501 permission denied for function revoke_api_key', 'nor the service role')
) as t (caller, refusal, promise), made as m
where  m.key_for = 'org';
select is(
  tests.outcome('ada@acme.test', $$ select revoke_api_key('20000000-0000-4000-8000-0000000000ff') $$), 'PT403 no_permission',
  'a key that is not there is not anybody''s');
select is(tests.outcome('ada@acme.test', 'select revoke_api_key(null)'), 'PT403 no_permission', 'nor is none');
select is(
  tests.outcome(tests.made_key('org'), 'select tracking.actor()'), '10000000-0000-4000-8000-000000000001',
  'and the key works on');

insert into tracking.role_bindings (principal_id, role, org_id)
values ('10000000-0000-4000-8000-000000000005', 'admin', 'a0000000-0000-4000-8000-000000000001');
select is(
  tests.outcome('nik@nowhere.test', format('select revoke_api_key(%L)', m.answer ->> 'id'))::jsonb,
  jsonb_build_object('id', m.answer ->> 'id', 'revoked_at', now()), 'another admin of the org may revoke it')
from   made as m where m.key_for = 'org';
select is(tests.outcome(tests.made_key('org'), 'select tests.caller()'), 'client actor - key -', 'and it is good for nothing from then on');
select is(
  tests.outcome('nik@nowhere.test', $$ select revoke_api_key('20000000-0000-4000-8000-000000000002') $$), 'PT403 no_permission',
  'but not a key for elsewhere');
select is(
  tests.outcome(tests.made_key('app'), format('select revoke_api_key(%L)', m.answer ->> 'id'))::jsonb,
  jsonb_build_object('id', m.answer ->> 'id', 'revoked_at', now()), 'a key may revoke itself')
from   made as m where m.key_for = 'app';
select is(
  tests.outcome('ada@acme.test', $$ select revoke_api_key('20000000-0000-4000-8000-000000000002') ->> 'id' $$), '20000000-0000-4000-8000-000000000002',
  'and its owner may');
update public.api_keys set revoked_at = '2026-01-01 00:00:00+00' where name = 'demo_app';
select is(
  tests.outcome('ada@acme.test', $$ select revoke_api_key('20000000-0000-4000-8000-000000000002') ->> 'revoked_at' $$), '2026-01-01T00:00:00+00:00',
  'twice is as good as once');
update public.api_keys set revoked_at = null where name = 'demo_app';
delete from tracking.role_bindings where principal_id = '10000000-0000-4000-8000-000000000005';


-- Who sees what

select is(tests.outcome(t.caller, 'select string_agg(name, '', '' order by name) from orgs'), t.orgs, format('%s sees their own orgs only', t.caller)) from (values
  ('ada@acme.test',       'Acme, Demo'),
  ('bob@acme.test',       'Acme'),
  ('cyd@acme.test',       null),
  ('eve@evil.test',       'Evil'),
  ('nik@nowhere.test',    null),
  ('as_local_acme_admin', 'Acme'),
  ('as_local_demo_app',   null),
  ('as_local_revoked',    null),
  ('as_local_expired',    null),
  ('nobody',              null),
  ('service',             'Acme, Demo, Evil')) as t (caller, orgs);
select is(tests.outcome(t.caller, 'select string_agg(app_id, '', '' order by app_id) from apps'), t.apps, format('%s sees the apps they have a role on', t.caller)) from (values
  ('ada@acme.test',       'com.acme.app, com.acme.beta, com.demo.app'),
  ('bob@acme.test',       'com.acme.app, com.acme.beta'),
  ('cyd@acme.test',       'com.acme.app'),
  ('eve@evil.test',       'com.evil.app'),
  ('nik@nowhere.test',    null),
  ('as_local_acme_admin', 'com.acme.app, com.acme.beta'),
  ('as_local_demo_app',   'com.demo.app'),
  ('as_local_revoked',    null),
  ('as_local_expired',    null),
  ('nobody',              null),
  ('service',             'com.acme.app, com.acme.beta, com.demo.app, com.evil.app')) as t (caller, apps);
select is(tests.outcome(t.caller, 'select string_agg(name, '', '' order by name) from api_keys'), t.keys, format('%s sees their own keys only', t.caller)) from (values
  ('ada@acme.test',       'acme_admin, ci, demo_app, expired, laptop, revoked'),
  ('bob@acme.test',       null),
  ('eve@evil.test',       null),
  ('as_local_acme_admin', null),
  ('nobody',              null),
  ('service',             'acme_admin, ci, demo_app, expired, laptop, revoked')) as t (caller, keys);
select is(
  tests.outcome('ada@acme.test', 'select key_hash from api_keys'), '42501 permission denied for table api_keys',
  'the hash of a key is shown to nobody, its owner included');

select is(tests.outcome('ada@acme.test', t.statement), t.refusal, t.promise)
from   (values
  ($$insert into orgs (name) values ('Mine')$$,                                '42501 permission denied for table orgs', 'no client makes an org'),
  ($$update orgs set name = 'Mine'$$,                                          '42501 permission denied for table orgs', 'renames one'),
  ($$delete from orgs$$,                                                       '42501 permission denied for table orgs', 'or deletes one'),
  ($$truncate orgs cascade$$,                                                  '42501 permission denied for table orgs', 'or all of them'),
  ($$update apps set owner_org = '6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11'$$,     '42501 permission denied for table apps', 'an app stays whose it is'),
  ($$update api_keys set revoked_at = null$$,                                  '42501 permission denied for table api_keys', 'a key stays revoked'),
  ($$select 1 from tracking.role_bindings$$,                                   '42501 permission denied for table role_bindings', 'who has which role is not shown')
) as t (statement, refusal, promise);

select throws_ok(
  $$ insert into orgs (name) values (E' \t') $$,
  '23514', 'new row for relation "orgs" violates check constraint "org_name_is_not_blank"', 'an org has a name');
select throws_ok(
  $$ insert into apps (app_id, name, owner_org) values ('', 'Nameless', 'a0000000-0000-4000-8000-000000000001') $$,
  '23514', 'new row for relation "apps" violates check constraint "app_id_is_not_blank"', 'an app has an id');
select throws_ok(
  $$ insert into apps (app_id, name, owner_org) values (repeat('é', 201), 'Endless', 'a0000000-0000-4000-8000-000000000001') $$,
  '23514', 'new row for relation "apps" violates check constraint "app_id_is_at_most_200_characters"', 'and no endless one');
select throws_ok(
  $$ insert into api_keys (owner_id, name, prefix, key_hash) values (gen_random_uuid(), 'k', 'as_', 'as_plain') $$,
  '23514', 'new row for relation "api_keys" violates check constraint "key_hash_is_a_sha256"', 'a plain key cannot be stored by mistake');
select throws_ok(
  $$ insert into api_keys (owner_id, name, prefix, key_hash) select gen_random_uuid(), 'k', prefix, key_hash from api_keys limit 1 $$,
  '23505', null, 'a key has one owner');

select * from finish();
rollback;
