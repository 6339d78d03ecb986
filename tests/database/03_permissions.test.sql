-- Chapter 3: roles, permissions, bindings, and the questions the pipeline asks.
begin;
select plan(75);

-- What the demo world's people and keys may

create function tests.apps_where(permission text)
  returns text
  language plpgsql stable
as $$
declare
  v_apps text;
begin
  execute format('select string_agg(a, '' '' order by a) from unnest(array[''com.acme.app'', ''com.acme.beta'', ''com.evil.app'', ''com.demo.app'', ''com.none'']) as a where app.%s(a)', permission)
  into v_apps;
  return coalesce(v_apps, '-');
end $$;

create function tests.orgs_where(permission text)
  returns text
  language plpgsql stable
as $$
declare
  v_orgs text;
begin
  execute format(
    'select string_agg(o.name, '' '' order by o.name) from (values
       (''Acme'', ''a0000000-0000-4000-8000-000000000001''::uuid), (''Evil'', ''a0000000-0000-4000-8000-000000000002''),
       (''Demo'', ''6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11''), (''None'', ''a0000000-0000-4000-8000-0000000000ff''),
       (''Nil'', ''00000000-0000-0000-0000-000000000000'')) as o (name, id) where org.%s(o.id)', permission)
  into v_orgs;
  return coalesce(v_orgs, '-');
end $$;

create temporary table rights (
  caller text, reads_orgs text, manages_orgs text, reads_apps text, builds_apps text, manages_apps text);
grant select on rights to public;
insert into rights values
  ('ada@acme.test',       'Acme Demo', 'Acme Demo', 'com.acme.app com.acme.beta com.demo.app', 'com.acme.app com.acme.beta com.demo.app', 'com.acme.app com.acme.beta com.demo.app'),
  ('bob@acme.test',       'Acme',      '-',         'com.acme.app com.acme.beta',              '-',                                       '-'),
  ('cyd@acme.test',       '-',         '-',         'com.acme.app',                            '-',                                       '-'),
  ('eve@evil.test',       'Evil',      'Evil',      'com.evil.app',                            'com.evil.app',                            'com.evil.app'),
  ('nik@nowhere.test',    '-',         '-',         '-',                                       '-',                                       '-'),
  ('as_local_acme_admin', 'Acme',      'Acme',      'com.acme.app com.acme.beta',              'com.acme.app com.acme.beta',              'com.acme.app com.acme.beta'),
  ('as_local_demo_app',   '-',         '-',         'com.demo.app',                            'com.demo.app',                            '-'),
  ('as_local_revoked',    '-',         '-',         '-',                                       '-',                                       '-'),
  ('as_local_expired',    '-',         '-',         '-',                                       '-',                                       '-'),
  ('nobody',              '-',         '-',         '-',                                       '-',                                       '-');
select is(tests.outcome(caller, $$select tests.orgs_where('read')$$), reads_orgs, caller || ' reads these orgs and no other') from rights;
select is(tests.outcome(caller, $$select tests.orgs_where('manage')$$), manages_orgs, caller || ' manages these orgs and no other') from rights;
select is(tests.outcome(caller, $$select tests.apps_where('read')$$), reads_apps, caller || ' reads these apps and no other') from rights;
select is(tests.outcome(caller, $$select tests.apps_where('build')$$), builds_apps, caller || ' builds these apps and no other') from rights;
select is(tests.outcome(caller, $$select tests.apps_where('manage')$$), manages_apps, caller || ' manages these apps and no other') from rights;

-- The set forms say what the single ones say.
select is(
  tests.outcome(r.caller, $$
    select coalesce((select string_agg(a.app_id, ' ' order by a.app_id) from app.readable() as a), '-') || ' / '
        || coalesce((select string_agg(case o when 'a0000000-0000-4000-8000-000000000001' then 'Acme' when 'a0000000-0000-4000-8000-000000000002' then 'Evil' else 'Demo' end, ' ' order by o::text desc)
                     from org.readable() as o), '-') $$),
  r.reads_apps || ' / ' || r.reads_orgs, r.caller || ' is told the same at once as one by one')
from   rights as r;
select is(
  tests.outcome('ada@acme.test', $$ select owner_org from app.readable() where app_id = 'com.demo.app' $$), '6f1d1f0e-5d0a-4c53-9a52-9d5a1f0b7a11',
  'and whose each app is');

select is(tests.outcome('service', $$select tests.apps_where('read')$$), 'com.acme.app com.acme.beta com.demo.app com.evil.app', 'the service role reads every app that is there');
select is(tests.outcome('service', $$select tests.orgs_where('read')$$), 'Acme Demo Evil', 'and every org that is there');
select is(tests.outcome('ada@acme.test', 'select org.read(null)'), 'false', 'no org is no org of anybody''s');
select is(tests.outcome('ada@acme.test', 'select app.read(null)'), 'false', 'no app no app');
select is(
  tests.outcome('ada@acme.test', $$ select app.owner_org('com.evil.app') $$), '42501 permission denied for function owner_org',
  'whose an app is, clients are not told about apps they may not read');
select is(tests.outcome('service', $$ select app.owner_org('com.evil.app') $$), 'a0000000-0000-4000-8000-000000000002', 'the service role is');


-- Permissions are data

insert into tracking.role_bindings (principal_id, role, app_id)
values ('10000000-0000-4000-8000-000000000005', 'developer', 'com.evil.app');
select is(
  tests.outcome('nik@nowhere.test', $$ select tests.apps_where('read') || '/' || tests.apps_where('build') || '/' || tests.apps_where('manage') || '/' || tests.orgs_where('read') $$),
  'com.evil.app/com.evil.app/-/-', 'a role on one app gives nothing in its org');
delete from tracking.role_permissions where role = 'developer' and permission = 'app.build';
select is(
  tests.outcome('nik@nowhere.test', $$ select tests.apps_where('read') || '/' || tests.apps_where('build') $$), 'com.evil.app/-',
  'a permission taken from a role is taken from all who have it');
delete from tracking.role_bindings where principal_id = '10000000-0000-4000-8000-000000000005';
select is(tests.outcome('nik@nowhere.test', $$ select tests.apps_where('read') $$), '-', 'a binding that is gone gives nothing');

delete from tracking.role_bindings where principal_id = '10000000-0000-4000-8000-000000000001';
select is(
  tests.outcome('as_local_acme_admin', $$ select tests.orgs_where('read') $$), 'Acme', 'a key''s rights are its own, whatever its owner''s are');
update public.apps set owner_org = 'a0000000-0000-4000-8000-000000000002' where app_id = 'com.acme.beta';
select is(tests.outcome('bob@acme.test', $$ select tests.apps_where('read') $$), 'com.acme.app', 'an app that changes hands is read by its new owners');

select throws_ok(
  $$ insert into tracking.role_bindings (principal_id, role) values (gen_random_uuid(), 'admin') $$,
  '23514', 'new row for relation "role_bindings" violates check constraint "binding_is_for_an_org_or_an_app"', 'no role holds everywhere');
select throws_ok(
  $$ insert into tracking.role_bindings (principal_id, role, org_id) values ('10000000-0000-4000-8000-000000000002', 'viewer', 'a0000000-0000-4000-8000-000000000001') $$,
  '23505', null, 'a role is given once');
select throws_ok(
  $$ insert into tracking.role_permissions values ('viewer', 'everything') $$,
  '23514', 'new row for relation "role_permissions" violates check constraint "permission_is_subject_and_verb"', 'a permission says on what');

select * from finish();
rollback;
