-- What the catalog itself says: every function, table and grant, those of chapters yet to come included; and
-- what still holds where a project has granted everything on its tables to its clients.
begin;
select plan(239);

-- Whatever is ours.
create temporary view functions as
select n.nspname || '.' || p.proname as name, p.*
from   pg_proc as p
join   pg_namespace as n on n.oid = p.pronamespace
where  n.nspname in ('public', 'app', 'org', 'tracking', 'analytics')
and    not exists (select from pg_depend as d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e');
create temporary view relations as
select n.nspname || '.' || c.relname as name, n.nspname as schema, c.*
from   pg_class as c
join   pg_namespace as n on n.oid = c.relnamespace
where  n.nspname in ('public', 'app', 'org', 'tracking', 'analytics')
and    c.relkind in ('r', 'p', 'v', 'm', 'f', 'S');
create temporary table clients as select unnest(array['anon', 'authenticated']) as client;


-- Functions

select is_empty(
  $$ select name from functions where 'search_path=pg_catalog, pg_temp' <> all (coalesce(proconfig, '{}')) $$,
  'every function pins its search path, with the temporary schema last');
select is_empty(
  $$ select name from functions where name ~ '^(public|analytics)[.]' and prosecdef $$,
  'no function that the Data API shows runs with its owner''s rights');
select is_empty(
  $$ select f.name from functions as f, aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) as a where a.grantee = 0 $$,
  'nothing is executable by PUBLIC');
select is_empty(
  $$ select name from functions where obj_description(oid, 'pg_proc') is null $$,
  'every function has a comment');
select is_empty(
  $$ select name from functions where name ~ '^(public|analytics)[.]' group by name having count(*) > 1 $$,
  'no RPC is overloaded: the Data API finds it by its arguments'' names');

-- A function left at the default, volatile, by accident keeps every query that asks it from being planned
-- well; one that is called stable by accident cannot write. So those are volatile that write, draw chance or
-- read the clock, or that call one of those, and triggers. To "return query execute" a text is to read, where the
-- function is not volatile: Postgres refuses whatever else the text may say.
select set_eq(
  $$ select name collate "default" from functions where provolatile = 'v' and prorettype <> 'trigger'::regtype $$,
  $$ with recursive writers as (
       select name from functions
       where  prosrc ~* '\m(insert into|update|delete from|lock table|(?<!return query )execute|gen_random_uuid|clock_timestamp|realtime\.send)\M' and prorettype <> 'trigger'::regtype
       union
       select f.name from functions as f, writers as w where f.prosrc like '%' || w.name || '(%' and f.prorettype <> 'trigger'::regtype
     )
     select name collate "default" from writers $$,
  'a function is volatile where it must be, and nowhere else');
select is_empty(
  $$ select name from functions where prorettype = 'trigger'::regtype and provolatile <> 'v' $$, 'and triggers are');
select is_empty(
  $$ select p.proname from pg_proc as p where array_to_string(p.proconfig, ' ') ~ 'enable_\w+=off' and not 'jit=off' = any (p.proconfig) $$,
  'a function that forbids the planner a way keeps jit off: what goes that way all the same is priced as if it took hours');
select set_eq(
  $$ select f.name from functions as f where has_function_privilege('anon', f.oid, 'execute') or has_function_privilege('authenticated', f.oid, 'execute') $$,
  array[
    'public.track_event', 'public.track_events', 'public.read_events', 'public.create_api_key', 'public.revoke_api_key', 'public.request_build', 'public.set_build_limit',
    'app.read', 'app.build', 'app.manage', 'app.readable', 'org.read', 'org.manage', 'org.readable',
    'tracking.actor', 'tracking.api_key', 'tracking.source', 'tracking.is_service', 'tracking.event_time', 'tracking.current_epoch', 'tracking.current_snapshot', 'tracking.shard_of', 'tracking.next_events', 'tracking.faults_in_tags', 'tracking.raise_error', 'tracking.refuse_nobody', 'tracking.failure_category',
    'tracking.surface_of', 'tracking.unrolled', 'tracking.filters', 'tracking.time_filter', 'tracking.asks_rollup', 'tracking.events_query', 'tracking.hours_query', 'tracking.cut_hour', 'tracking.surface_expression', 'tracking.known_surfaces',
    'analytics.funnel', 'analytics.retention', 'analytics.active', 'analytics.paths', 'analytics.sessions', 'analytics.build_health', 'analytics.surfaces', 'analytics.activity', 'analytics.kinds',
    'tracking.refuse_argument', 'tracking.check_filters', 'tracking.check_choice', 'tracking.check_event', 'tracking.check_span', 'tracking.check_number', 'tracking.check_steps',
    'tracking.funnel_query', 'tracking.period_expression', 'tracking.periods_query', 'tracking.path_starts',
    'tracking.kind_filter', 'tracking.everybody', 'tracking.all_orgs', 'tracking.readable_circles', 'tracking.circle_of', 'tracking.cut_days', 'tracking.loose_query', 'tracking.days_query',
    'tracking.retention_query', 'tracking.retention_sets_query', 'tracking.unsure_query', 'tracking.active_query', 'tracking.active_sets_query', 'tracking.surfaces_query', 'tracking.surfaces_sets_query', 'tracking.activity_query', 'tracking.activity_sets_query',
    'tracking.record_events', 'tracking.create_api_key', 'tracking.revoke_api_key', 'tracking.set_build_limit'],
  'clients may call these, and nothing else');


-- Tables, views and types

select is_empty(
  $$ select name from relations where relkind in ('r', 'p') and not relrowsecurity $$,
  'every table has row-level security, partitions too');
select is_empty(
  $$ select name from relations where relkind in ('v', 'm') and 'security_invoker=true' <> all (coalesce(reloptions, '{}')) $$,
  'every view asks as its reader');
select is_empty(
  $$ select name from relations where obj_description(oid, 'pg_class') is null $$,
  'every table and view has a comment');
select is_empty(
  $$ select t.typname from pg_type as t left join pg_class as c on c.oid = t.typrelid
     where  t.typnamespace in ('public'::regnamespace, 'app'::regnamespace, 'org'::regnamespace, 'tracking'::regnamespace, 'analytics'::regnamespace)
     and    t.typtype in ('c', 'e', 'd', 'r') and coalesce(c.relkind, 'c') = 'c' and obj_description(t.oid, 'pg_type') is null $$,
  'every type has a comment');
select is_empty(
  $$ select n.nspname from pg_namespace as n where n.nspname in ('app', 'org', 'tracking', 'analytics') and obj_description(n.oid, 'pg_namespace') is null $$,
  'every schema has a comment');
select is_empty(
  $$ select r.name || '.' || a.attname
     from   relations as r
     join   pg_attribute as a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
     where  r.schema = 'public'
     and    a.attname not in ('id', 'name', 'app_id', 'created_at', 'updated_at')
     and    col_description(r.oid, a.attnum) is null $$,
  'every column of the tables that clients see has a comment, but where its name says it all');
select is_empty(
  $$ select conname from pg_constraint where contype = 'f' and 'public.events'::regclass in (conrelid, confrelid) $$,
  'no foreign key ties the log to another table');
select is_empty(
  $$ select indexrelid::regclass from pg_index
     where  indisunique
     and    (indrelid = 'public.events'::regclass and indkey[0] <> (select attnum from pg_attribute where attrelid = indrelid and attname = 'scope_id')
             or indrelid = 'public.build_requests'::regclass and (select attnum from pg_attribute where attrelid = indrelid and attname = 'owner_org') <> all (indkey)) $$,
  'no key spans scopes: one tenant does not meet another''s ids, and the tables can be distributed');

select is_empty(
  $$ select r.name from relations as r
     where  r.schema = 'public' and r.relkind in ('r', 'p')
     and    not exists (select from pg_trigger as t where t.tgrelid = r.oid and t.tgfoid = 'tracking.refuse_truncate'::regproc and t.tgenabled = 'O') $$,
  'every table that clients see refuses to be emptied, which no policy does');


-- Grants

select is_empty(
  $$ select r.name, p.privilege from relations as r, clients as c, unnest(array['select', 'insert', 'update', 'references']) as p (privilege)
     where  r.schema = 'tracking' and r.relkind <> 'S'
     and    (p.privilege <> 'select' or r.relname not in ('kinds', 'activity', 'rollup', 'hours', 'members', 'days'))
     and    (has_table_privilege(c.client, r.oid, p.privilege) or has_any_column_privilege(c.client, r.oid, p.privilege)) $$,
  'clients have no right to the machinery''s tables, partitions included, but to read the rollup');
select is_empty(
  $$ select r.name from relations as r, aclexplode(r.relacl) as a where a.grantee = 0 $$,
  'nobody has any for being PUBLIC');
select set_eq(
  $$ select r.name collate "default", c.client, p.privilege
     from   relations as r, clients as c, unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) as p (privilege)
     where  r.schema = 'public' and has_table_privilege(c.client, r.oid, p.privilege) $$,
  $$ select 'public.' || t.name as name, c.client, 'select' as privilege from unnest(array['orgs', 'apps', 'events', 'build_requests']) as t (name), clients as c $$,
  'of the tables they read, clients may do nothing else with the whole');
select set_eq(
  $$ select r.name || '.' || a.attname as name, c.client, p.privilege
     from   relations as r
     join   pg_attribute as a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped, clients as c, unnest(array['insert', 'update', 'references']) as p (privilege)
     where  r.schema = 'public' and has_column_privilege(c.client, r.oid, a.attnum, p.privilege) $$,
  $$ select t.name, c.client, 'insert' as privilege
     from   clients as c, unnest(array[
              'public.events.scope_id', 'public.events.occurred_at', 'public.events.event_id', 'public.events.org_id', 'public.events.app_id',
              'public.events.event', 'public.events.channel', 'public.events.description', 'public.events.icon', 'public.events.parser', 'public.events.notify',
              'public.events.tags', 'public.events.context', 'public.events.tracking_version', 'public.events.clock_skew',
              'public.build_requests.app_id', 'public.build_requests.platform', 'public.build_requests.build_mode']) as t (name) $$,
  'they may fill in these columns of a new row, and none of an old one');
select is(
  has_column_privilege(c.client, 'public.events', k.name, p.privilege), false, format('%s may not %s events.%s', c.client, p.privilege, k.name))
from   clients as c, unnest(array['actor_id', 'api_key_id', 'source', 'received_at', 'txid', 'epoch']) as k (name), unnest(array['insert', 'update']) as p (privilege);
select is(has_column_privilege(c.client, 'public.api_keys', 'key_hash', 'select'), false, format('%s may not read api_keys.key_hash', c.client)) from clients as c;
select is_empty(
  $$ select n.nspname, c.client from pg_namespace as n, clients as c
     where  n.nspname in ('public', 'app', 'org', 'tracking', 'analytics') and has_schema_privilege(c.client, n.oid, 'create') $$,
  'clients make nothing in these schemas');


-- Somebody's own types are not taken for ours

-- What comes of a statement, which is taken back: 'done', or the error.
create function tests.tried(statement text)
  returns text
  language plpgsql volatile
  set search_path = pg_catalog, public, pg_temp
as $$
begin
  execute statement;
  raise exception 'done';
exception when others then
  return SQLERRM;
end $$;
create temporary table traps as select unnest('{text,uuid,jsonb,json,boolean,bool,timestamptz,timestamp,interval,integer,int4,bigint,int8,smallint,int2,name,bit,bytea}'::name[]) as type;
create temporary table tries (statement text, outcome text);
grant all on traps, tries to public;

select tests.sign_in('ada@acme.test');
create function pg_temp.spring(bait text)
  returns boolean
  language plpgsql volatile
as $$
begin
  raise exception 'sprung as %', current_user;
end $$;
do $$
declare
  v_type name;
begin
  for v_type in select type from traps loop
    execute format('create domain pg_temp.%I as pg_catalog.text check (pg_temp.spring(value))', v_type);
  end loop;
end $$;
insert into tries
select s, tests.tried(s)
from   (values
  ($$select track_event('{"event": "E", "tracking_version": 2, "tags": {"app_id": "com.acme.app"}, "event_id": "order-4711", "timestamp": "2025-03-05T09:30:00Z", "sent_at": "2025-03-05T09:30:00Z", "evil": 1}')$$::pg_catalog.text),
  ($$select track_events('[{"event": "E"}, {"event": ""}]')$$),
  ($$select create_api_key('k', 'viewer', org_id => 'a0000000-0000-4000-8000-000000000001')$$),
  ($$select revoke_api_key('20000000-0000-4000-8000-000000000003')$$),
  ($$select request_build('com.acme.app', 'ios')$$),
  ($$select set_build_limit('com.acme.app', 600)$$),
  ($$select 'bait'::pg_temp.text$$)) as t (s);
do $$
declare
  v_type pg_catalog.name;
begin
  for v_type in select type from traps loop
    execute format('drop domain pg_temp.%I', v_type);
  end loop;
end $$;
reset role;
select is(outcome, case when statement like '%bait%' then 'sprung as authenticated' else 'done' end, format('with traps for types: %s', statement)) from tries;


-- Where everything on the tables is granted to clients: policies alone hold

insert into events (scope_id, occurred_at, event_id, org_id, actor_id, app_id, event)
select coalesce(t.org_id, t.actor_id)::uuid, '2025-03-05 09:30:00.123+00', t.event_id::uuid, t.org_id::uuid, t.actor_id::uuid, null, t.event
from   (values
  ('019565a3-fa3b-7000-8000-000000000011', 'a0000000-0000-4000-8000-000000000001', '10000000-0000-4000-8000-000000000001', 'Acme'),
  ('019565a3-fa3b-7000-8000-000000000012', 'a0000000-0000-4000-8000-000000000002', '10000000-0000-4000-8000-000000000004', 'Evil'),
  ('019565a3-fa3b-7000-8000-000000000013', null, '10000000-0000-4000-8000-000000000001', 'ada')) as t (event_id, org_id, actor_id, event);
insert into build_requests (app_id, platform, requested_by) values ('com.acme.app', 'ios', '10000000-0000-4000-8000-000000000001');

-- All that is in the tables.
create function tests.contents()
  returns setof text
  language sql stable
as $$
  select format('events %s', to_jsonb(e)) from events as e union all select format('orgs %s', to_jsonb(o)) from orgs as o union all select format('apps %s', to_jsonb(a)) from apps as a
  union all select format('api_keys %s', to_jsonb(k)) from api_keys as k union all select format('build_requests %s', to_jsonb(b)) from build_requests as b
  union all select format('role_bindings %s', to_jsonb(b)) from tracking.role_bindings as b
$$;
create temporary table contents as select * from tests.contents() as line;

grant all on all tables in schema public to anon, authenticated;
select ok(bool_and(has_column_privilege(c.client, 'public.events', 'actor_id', 'insert') and has_table_privilege(c.client, 'public.events', 'truncate')), 'everything is granted') from clients as c;

-- Each column that is the database's, with another value than the database's.
create temporary table forged (name text, value jsonb);
insert into forged values
  ('actor_id', '"10000000-0000-4000-8000-000000000004"'), ('actor_id', '"a0000000-0000-4000-8000-000000000001"'), ('actor_id', null),
  ('api_key_id', '"20000000-0000-4000-8000-000000000003"'), ('api_key_id', '"20000000-0000-4000-8000-0000000000ff"'),
  ('source', '"service"'), ('source', '"trigger"'),
  ('received_at', to_jsonb(now() - interval '1 microsecond')), ('received_at', to_jsonb(now() + interval '1 microsecond')), ('received_at', '"2025-03-05 09:30:00+00"'), ('received_at', '"infinity"'),
  ('txid', to_jsonb('1'::text)), ('txid', to_jsonb((pg_current_xact_id()::text::bigint + 1)::text)),
  ('epoch', '0'), ('epoch', '2');
select is(
  tests.outcome(c.caller, format('select tests.insert_event(%L)', c.row || jsonb_build_object(f.name, f.value))),
  '42501 new row violates row-level security policy for table "events"', format('%s cannot write another %s into a row %s', c.caller, f.name, c.row))
from   forged as f,
       (values
         ('ada@acme.test', '{"scope_id": "10000000-0000-4000-8000-000000000001"}'::jsonb),
         ('ada@acme.test', '{"scope_id": "a0000000-0000-4000-8000-000000000001", "org_id": "a0000000-0000-4000-8000-000000000001"}'),
         ('as_local_acme_admin', '{"scope_id": "a0000000-0000-4000-8000-000000000001", "org_id": "a0000000-0000-4000-8000-000000000001", "app_id": "com.acme.app"}'),
         ('nobody', '{"scope_id": "10000000-0000-4000-8000-000000000001"}')) as c (caller, row);
select is(
  tests.outcome(c.caller, format('select tests.insert_event(%L)', c.row)),
  '42501 new row violates row-level security policy for table "events"', format('%s cannot write %s', c.caller, c.row))
from   (values
  ('ada@acme.test', '{"scope_id": "10000000-0000-4000-8000-000000000001", "api_key_id": "20000000-0000-4000-8000-000000000001"}'),
  ('as_local_acme_admin', '{"scope_id": "10000000-0000-4000-8000-000000000001", "api_key_id": null}'),
  ('as_local_demo_app', '{"scope_id": "10000000-0000-4000-8000-000000000001", "api_key_id": "20000000-0000-4000-8000-000000000001"}'),
  ('eve@evil.test', '{"scope_id": "a0000000-0000-4000-8000-000000000001", "org_id": "a0000000-0000-4000-8000-000000000001"}'),
  ('as_local_revoked', '{"scope_id": "10000000-0000-4000-8000-000000000001", "actor_id": "10000000-0000-4000-8000-000000000001"}'),
  ('nobody', '{"scope_id": "10000000-0000-4000-8000-000000000001", "actor_id": "10000000-0000-4000-8000-000000000001"}'),
  ('nobody', '{"scope_id": "a0000000-0000-4000-8000-000000000001", "org_id": "a0000000-0000-4000-8000-000000000001", "source": "service"}')
) as c (caller, row);
select bag_eq('select * from tests.contents()', 'select * from contents', 'and nothing was written');

savepoint before;
select is(
  tests.outcome('as_local_acme_admin', format('select tests.insert_event(%L)', jsonb_build_object(
    'scope_id', '10000000-0000-4000-8000-000000000001', 'actor_id', '10000000-0000-4000-8000-000000000001', 'api_key_id', '20000000-0000-4000-8000-000000000001',
    'source', 'client', 'received_at', now(), 'txid', pg_current_xact_id()::text, 'epoch', 1))),
  'inserted', 'only the truth is let in');
rollback to before;

-- Changing, deleting, emptying.
create temporary table attempts (about text, statement text, verdict text);
insert into attempts
select t.name, s.statement, s.verdict
from   unnest(array['events', 'orgs', 'apps', 'api_keys', 'build_requests']) as t (name),
       lateral (values
         (format('with w as (delete from %I returning 1) select count(*) from w', t.name), '0'),
         (format('truncate %I', t.name), '42501 permission denied to truncate ' || t.name),
         (format('truncate %I cascade', t.name), '42501 permission denied to truncate ' || t.name),
         (format('select count(*) from (select from %I for update) as l', t.name), '0')) as s (statement, verdict);
-- What refers to a table is emptied with it, and is asked first.
update attempts set verdict = '0A000 cannot truncate a table referenced in a foreign key constraint' where statement in ('truncate orgs', 'truncate apps');
update attempts set verdict = '42501 permission denied for table role_bindings' where statement in ('truncate orgs cascade', 'truncate apps cascade');
insert into attempts values
  ('events', 'with w as (update events set event = ''Forged'' returning 1) select count(*) from w', '0'),
  ('events', 'with w as (update events set actor_id = ''10000000-0000-4000-8000-000000000004'' returning 1) select count(*) from w', '0'),
  ('orgs', 'with w as (update orgs set name = ''Forged'' returning 1) select count(*) from w', '0'),
  ('apps', 'with w as (update apps set owner_org = ''a0000000-0000-4000-8000-000000000002'' returning 1) select count(*) from w', '0'),
  ('api_keys', 'with w as (update api_keys set revoked_at = null, expires_at = null returning 1) select count(*) from w', '0'),
  ('build_requests', 'with w as (update build_requests set status = ''succeeded'' returning 1) select count(*) from w', '0'),
  ('events', 'truncate events, build_requests', '42501 permission denied to truncate events'),
  ('orgs', 'insert into orgs (name) values (''Mine'')', '42501 new row violates row-level security policy for table "orgs"'),
  ('apps', 'insert into apps (app_id, name, owner_org) values (''com.mine'', ''Mine'', ''a0000000-0000-4000-8000-000000000001'')', '42501 new row violates row-level security policy for table "apps"'),
  ('api_keys', 'insert into api_keys (owner_id, name, prefix, key_hash) values (''10000000-0000-4000-8000-000000000001'', ''mine'', ''as_'', sha256(''mine''))', '42501 new row violates row-level security policy for table "api_keys"'),
  ('role_bindings', 'insert into tracking.role_bindings (principal_id, role, org_id) values (tracking.actor(), ''admin'', ''a0000000-0000-4000-8000-000000000002'')', '42501 permission denied for table role_bindings'),
  ('events_default', 'select count(*) from tracking.events_default', '42501 permission denied for table events_default'),
  ('events_default', 'delete from tracking.events_default', '42501 permission denied for table events_default');
select is(tests.outcome(c.caller, a.statement), a.verdict, format('%s, granted everything: %s', c.caller, a.statement))
from   attempts as a, (values ('ada@acme.test'), ('as_local_acme_admin'), ('nobody')) as c (caller);
select is(
  tests.outcome('ada@acme.test', $$ insert into events (scope_id, occurred_at, event_id, event) values ('10000000-0000-4000-8000-000000000001', '2025-03-05 09:30:00.123+00', '019565a3-fa3b-7000-8000-000000000013', 'Forged')
    on conflict (scope_id, occurred_at, event_id) do update set event = 'Forged' $$),
  '42501 new row violates row-level security policy (USING expression) for table "events"', 'nor does a conflict let a row be changed');
select bag_eq('select * from tests.contents()', 'select * from contents', 'and all is as it was');

-- Reading.
select is(tests.outcome('eve@evil.test', 'select string_agg(event, '', '' order by event) from events'), 'Evil', 'nobody reads more for it: events');
select is(tests.outcome('eve@evil.test', 'select (select string_agg(name, '' '') from orgs) || '' '' || (select string_agg(app_id, '' '') from apps) || '' '' || (select count(*) from api_keys) || '' '' || (select count(*) from build_requests)'), 'Evil com.evil.app 0 0', 'orgs, apps, keys or builds');
select is(tests.outcome('nobody', 'select (select count(*) from events) + (select count(*) from orgs) + (select count(*) from apps) + (select count(*) from api_keys) + (select count(*) from build_requests)'), '0', 'and nobody reads anything');

-- Builds: what a client names that is the database's is not heeded, or refused.
select is(tests.outcome(t.caller, t.statement), t.verdict, t.promise)
from   (values
  ('ada@acme.test', $$insert into build_requests (app_id, platform, status) values ('com.acme.app', 'ios', 'succeeded')$$, '42501 new row violates row-level security policy for table "build_requests"', 'a build does not begin at its end'),
  ('ada@acme.test', $$insert into build_requests (app_id, platform, status) values ('com.acme.app', 'ios', 'running')$$, '42501 new row violates row-level security policy for table "build_requests"', 'nor half way'),
  ('bob@acme.test', $$insert into build_requests (app_id, platform) values ('com.acme.app', 'ios')$$, '42501 new row violates row-level security policy for table "build_requests"', 'who may not build an app'),
  ('eve@evil.test', $$insert into build_requests (app_id, platform, owner_org, requested_by) values ('com.acme.app', 'ios', 'a0000000-0000-4000-8000-000000000002', '10000000-0000-4000-8000-000000000001')$$, '42501 new row violates row-level security policy for table "build_requests"', 'asks for no build of it'),
  ('nobody', $$insert into build_requests (app_id, platform, requested_by) values ('com.acme.app', 'ios', '10000000-0000-4000-8000-000000000001')$$, '42501 new row violates row-level security policy for table "build_requests"', 'in whoever''s name'),
  ('ada@acme.test', $$insert into build_requests (id, app_id, platform, owner_org, requested_by, timeout_seconds, created_at, updated_at, lifecycle, advanced, builder_job_id, last_error, queued_at, started_at, completed_at, runner_wait_seconds, job_stopped_at)
     values ('b0000000-0000-4000-8000-000000000001', 'com.acme.app', 'android', 'a0000000-0000-4000-8000-000000000002', '10000000-0000-4000-8000-000000000004', 21600, 'epoch', 'epoch', 'finished', true, 'j', 'e', 'epoch', 'epoch', 'epoch', 1, 'epoch')
     returning (to_jsonb(build_requests) - 'id') || jsonb_build_object('id', id = 'b0000000-0000-4000-8000-000000000001')$$,
   jsonb_build_object('id', false, 'app_id', 'com.acme.app', 'platform', 'android', 'build_mode', 'release', 'status', 'pending',
     'owner_org', 'a0000000-0000-4000-8000-000000000001', 'requested_by', '10000000-0000-4000-8000-000000000001', 'timeout_seconds', 900, 'created_at', now(), 'updated_at', now(),
     'lifecycle', 'requested', 'advanced', false, 'builder_job_id', null, 'last_error', null, 'queued_at', null, 'started_at', null, 'completed_at', null, 'runner_wait_seconds', null, 'job_stopped_at', null)::text,
   'who asks for a build, for whom and how long it may take are the database''s to say')
) as t (caller, statement, verdict, promise);
select bag_eq(
  $$ select event, actor_id, org_id from events where app_id = 'com.acme.app' and event <> 'Acme' and tags ->> 'platform' = 'android' $$,
  $$ values ('Build Requested', '10000000-0000-4000-8000-000000000001'::uuid, 'a0000000-0000-4000-8000-000000000001'::uuid) $$,
  'and so says its event');

-- A trigger of one's own, which "all" includes.
select tests.sign_in('ada@acme.test');
create function pg_temp.forge()
  returns trigger
  language plpgsql volatile
as $$
begin
  NEW.requested_by := '10000000-0000-4000-8000-000000000004';
  return NEW;
end $$;
create trigger zzz before insert on build_requests for each row execute function pg_temp.forge();
select throws_ok(
  $$ select request_build('com.acme.app', 'ios') $$,
  '42501', 'new row violates row-level security policy for table "build_requests"', 'a trigger of one''s own forges no build');
select throws_ok(
  $$ create trigger zzz before insert on events for each row execute function pg_temp.forge() $$,
  '42501', null, 'and none can be put on the log');

select * from finish();
rollback;
