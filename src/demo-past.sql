-- Half a year of the demo world: what some hundred people did on the dashboard, on the command line and with the
-- builder, and their builds. Chance is a hash, so it is the same past every time, up to the day it is made on.
-- For local use only. As superuser, since builds of the past must not speak for themselves as of today.

set local session_replication_role = replica;
set local search_path = pg_catalog, pg_temp;

create function pg_temp.chance(seed text)
  returns double precision
  language sql immutable
as $$ select ('x' || left(md5(seed), 8))::bit(32)::bigint / 4294967296.0 $$;


-- Who, for whom, since which day (0 to 181), on which surfaces, on what share of the days at first, and how much ------
-- of that is left of it in the end

create temp table members on commit drop as
  select m.name, m.person::uuid, o.id as org, o.apps[1:m.apps] as apps, m.since, m.surfaces::text[], m.vigor, 0.3 as floor
  from (values
    ('ada',  '10000000-0000-4000-8000-000000000001', 'Acme',   0, '{dashboard,cli,builder}', 0.9,  2),
    ('ada2', '10000000-0000-4000-8000-000000000001', 'Demo',  21, '{dashboard,cli}',         0.25, 2),
    ('bob',  '10000000-0000-4000-8000-000000000002', 'Acme',   3, '{dashboard,cli}',         0.6,  2),
    ('cyd',  '10000000-0000-4000-8000-000000000003', 'Acme',  33, '{dashboard,builder}',     0.6,  1),
    ('eve',  '10000000-0000-4000-8000-000000000004', 'Evil',   5, '{dashboard,cli,builder}', 0.5,  2),
    ('nik',  '10000000-0000-4000-8000-000000000005', null,    60, '{cli}',                   0.35, 0)
  ) as m (name, person, org, since, surfaces, vigor, apps)
  left join (
    select o.name, o.id, array_agg(a.app_id order by a.app_id) as apps
    from   public.orgs as o join public.apps as a on a.owner_org = o.id
    group  by o.id
  ) as o on o.name = m.org;

insert into members
  select 'guest ' || n,
         overlay(overlay(md5('demo guest ' || n) placing '4' from 13) placing '8' from 17)::uuid,
         o.org, o.apps, floor(pg_temp.chance('since ' || n) * 172)::integer,
         case
           when c.profile < 0.34 then '{dashboard,cli,builder}'
           when c.profile < 0.56 then '{dashboard,cli}'
           when c.profile < 0.68 then '{dashboard}'
           when c.profile < 0.80 then '{cli}'
           when c.profile < 0.90 then '{cli,builder}'
           when c.profile < 0.95 then '{dashboard,builder}'
           else '{builder}'
         end::text[],
         0.2 + 0.6 * pg_temp.chance('vigor ' || n), greatest(0, 0.25 * pg_temp.chance('floor ' || n) - 0.08)
  from   generate_series(1, 96) as n,
         lateral (select pg_temp.chance('profile ' || n) as profile) as c,
         lateral (
           select m.org, m.apps
           from   members as m
           where  m.name = case when n <= 54 then 'ada' when n <= 78 then 'ada2' else 'eve' end) as o;

-- The days on which they did something: most at first, fewer later, few on weekends. -----------------------

create temp table days on commit drop as
  select m.*, d as day, m.name || ' ' || d as seed,
         date_trunc('day', now(), 'UTC') + make_interval(days => d - 181, secs => 28800 + 30000 * pg_temp.chance('hour ' || m.name || d)) as at
  from   members as m
  cross  join generate_series(0, 181) as d
  where  d = m.since
  or     d > m.since
  and    pg_temp.chance('day ' || m.name || d) <
         m.vigor * (m.floor + (1 - m.floor) * exp((m.since - d) / (4 + 40 * pg_temp.chance('stay ' || m.name))))
                 * case when date_part('isodow', now() - make_interval(days => 181 - d)) > 5 then 0.25 else 1 end;


-- What they did there ---------------------------------------------------------------------------------------

create temp table past (
  person uuid, org uuid, app text, at timestamptz, event text, channel text, icon text, tags jsonb, source text default 'service'
) on commit drop;

-- On their first day, as far as each of them got, the steps of a first app and a first build.
insert into past
  select d.person, d.org, d.apps[1], d.at + (12 * s.step + 10 * pg_temp.chance('pause ' || d.seed || s.step)) * interval '1 minute',
         s.event, s.channel, s.icon, s.tags || case when s.channel = 'builder-onboarding' or s.event = 'Credentials saved'
           then jsonb_build_object('platform', case when pg_temp.chance('platform ' || d.name) < 0.55 then 'ios' else 'android' end)
           else '{}' end
  from   days as d
  cross  join (values
    (1, 'dashboard', 'onboarding-step-copy-command', 'onboarding-v2',      '👶', '{}'::jsonb),
    (2, 'cli',       'User CLI login',               'user-login',         '✅', '{}'),
    (3, 'cli',       'App Created',                  'app',                '🆕', '{"source": "onboarding"}'),
    (4, 'dashboard', 'onboarding-step-done',         'onboarding-v2',      '👶', '{}'),
    (5, 'builder',   'Builder Onboarding Step',      'builder-onboarding', '🧭', '{"step": "welcome"}'),
    (6, 'builder',   'Builder Onboarding Step',      'builder-onboarding', '🧭', '{"step": "verifying-key"}'),
    (7, 'builder',   'Credentials saved',            'credentials',        '🔐', '{"storage": "local"}')
  ) as s (step, surface, event, channel, icon, tags)
  where  d.day = d.since
  and    s.surface = any (d.surfaces)
  and    s.step <= 1.5 + 11 * pg_temp.chance('got ' || d.name);

-- On any day, visits to the dashboard and commands.
insert into past
  select d.person, d.org, d.app, d.at + n * interval '11 minutes' * pg_temp.chance('visit ' || d.seed || n),
         v.event, v.channel, v.icon, v.tags
  from   (select d.*, d.apps[1 + (length(d.seed) + d.day) % greatest(cardinality(d.apps), 1)] as app from days as d) as d
  cross  join generate_series(1, 3) as n
  cross  join lateral (
    select case when pg_temp.chance('what ' || d.seed || n) < 0.6 then 'User visit' else 'Report Exported' end as event
  ) as e
  cross  join lateral (
    select e.event, case e.event when 'User visit' then 'usage' else 'default' end, case e.event when 'User visit' then '💳' else '📄' end,
           case e.event when 'User visit' then '{}' else jsonb_build_object('format', case when length(d.seed) % 3 = 0 then 'pdf' else 'csv' end) end
  ) as v (event, channel, icon, tags)
  where  'dashboard' = any (d.surfaces)
  and    pg_temp.chance('times ' || d.seed || n) < 0.75 / n;

insert into past
  select d.person, d.org, d.apps[1], r.at + case when s.step = 2 then r.seconds else 0 end * interval '1 second',
         case s.step when 1 then 'CLI Command Invoked' else case when r.failed then 'CLI Command Failed' else 'CLI Command Succeeded' end end,
         'cli-usage', case s.step when 1 then '⚡' else case when r.failed then '❌' else '✅' end end,
         jsonb_build_object('command_path', r.command) || case
           when s.step = 1 then '{"flags": "", "flags_count": 0, "positional_arg_count": 0}'
           when r.failed then jsonb_build_object('error_category', 'network', 'exit_code', 1, 'duration_ms', round(1000 * r.seconds))
           else jsonb_build_object('duration_ms', round(1000 * r.seconds)) end
  from   days as d
  cross  join generate_series(1, 3) as n
  cross  join lateral (
    select d.at + interval '80 minutes' + n * interval '9 minutes' * pg_temp.chance('run ' || d.seed || n) as at,
           0.3 + 9 * pg_temp.chance('took ' || d.seed || n) as seconds,
           pg_temp.chance('broke ' || d.seed || n) < 0.13 as failed,
           (array['bundle upload', 'app list', 'doctor', 'build request', 'channel set'])[1 + floor(5 * pg_temp.chance('command ' || d.seed || n))] as command
  ) as r
  cross  join (values (1), (2)) as s (step)
  where  'cli' = any (d.surfaces)
  and    pg_temp.chance('runs ' || d.seed || n) < 0.9 / n;


-- Builds: one a day, again where it failed, and a bad fortnight three months ago -------------------------------

create temp table builds on commit drop as
  select overlay(overlay(md5('build ' || d.seed || n) placing '4' from 13) placing '8' from 17)::uuid as id,
         d.person, d.org, d.app, b.platform, b.mode, o.status, o.error,
         d.at + interval '4 hours' + (n - 1) * interval '35 minutes' as asked_at,
         round(4 - 40 * ln(1 - 0.99 * pg_temp.chance('queue ' || d.seed || n))) as queued,
         case when o.status = 'timed_out' then 900
              else round((150 + 420 * pg_temp.chance('ran ' || d.seed || n)) * case b.platform when 'ios' then 1.4 else 1 end) end as ran
  from   (select d.*, d.apps[1 + (length(d.seed) + d.day) % cardinality(d.apps)] as app from days as d where 'builder' = any (d.surfaces)) as d
  cross  join generate_series(1, 3) as n
  cross  join lateral (
    select case when pg_temp.chance('target ' || d.seed) < 0.55 then 'ios' else 'android' end as platform,
           case when pg_temp.chance('mode ' || d.seed) < 0.8 then 'release' else 'debug' end as mode,
           case when d.day between 84 and 98 then 0.42 else 0.16 end as risk
  ) as b
  cross  join lateral (
    select case
             when pg_temp.chance('end ' || d.seed || n) >= b.risk + 0.03 then 'succeeded'
             when pg_temp.chance('end ' || d.seed || n) >= b.risk then 'cancelled'
             when pg_temp.chance('end ' || d.seed || n) >= b.risk * 0.2 then 'failed'
             else 'timed_out'
           end as status,
           case
             when pg_temp.chance('end ' || d.seed || n) >= b.risk or pg_temp.chance('end ' || d.seed || n) < b.risk * 0.2 then null
             when pg_temp.chance('end ' || d.seed || n) >= b.risk * 0.6 then 'xcodebuild exited with 65'
             when pg_temp.chance('end ' || d.seed || n) >= b.risk * 0.35 then 'Missing credential: provisioning profile'
             else ' '
           end as error
  ) as o
  where  n = 1
  and    pg_temp.chance('builds ' || d.seed) < 0.62
  or     n > 1
  and    pg_temp.chance('builds ' || d.seed) < 0.5
  and    not exists (
    select from generate_series(1, n - 1) as f
    where  pg_temp.chance('end ' || d.seed || f) >= case when d.day between 84 and 98 then 0.42 else 0.16 end);

insert into public.build_requests (
  id, owner_org, app_id, requested_by, platform, build_mode, status, builder_job_id, last_error,
  created_at, started_at, completed_at, updated_at, runner_wait_seconds, lifecycle)
  select b.id, b.org, b.app, b.person, b.platform, b.mode, b.status, 'job-' || left(b.id::text, 8), b.error,
         b.asked_at, b.asked_at + b.queued * interval '1 second', b.asked_at + (b.queued + b.ran) * interval '1 second',
         b.asked_at + (b.queued + b.ran) * interval '1 second', b.queued, 'finished'
  from   builds as b
  where  b.asked_at + (b.queued + b.ran) * interval '1 second' < now();

insert into past
  select r.requested_by, r.owner_org, r.app_id, case s.step when 0 then r.created_at when 1 then r.started_at else r.completed_at end,
         s.event, 'build-lifecycle', s.icon,
         jsonb_strip_nulls(jsonb_build_object(
           'build_id', r.id, 'job_id', r.builder_job_id, 'platform', r.platform, 'build_mode', r.build_mode) || case when s.step < 2 then '{}' else
           jsonb_build_object(
             'duration_seconds', date_part('epoch', r.completed_at - r.started_at), 'queue_seconds', r.runner_wait_seconds,
             'failure_category', tracking.failure_category(r.status, r.last_error)) end),
         'trigger'
  from   public.build_requests as r
  join   tracking.build_steps as s on s.status in ('pending', 'running', r.status);


select tracking.make_partition(m)
from   generate_series(
         date_trunc('month', now() at time zone 'UTC') - interval '6 months', date_trunc('month', now() at time zone 'UTC'),
         interval '1 month') as m
where  to_regclass(tracking.partition_of(m)) is null;

insert into public.events (scope_id, occurred_at, event_id, org_id, actor_id, app_id, event, channel, icon, tags, source)
  select coalesce(p.org, p.person), t.ms, tracking.derived_event_id(concat_ws(' ', p.person, p.event, p.tags), t.ms), p.org, p.person, p.app,
         p.event, p.channel, p.icon, p.tags || jsonb_strip_nulls(jsonb_build_object('app_id', p.app, 'org_id', p.org)), p.source
  from   past as p,
         lateral (select date_trunc('milliseconds', p.at) as ms) as t
  where  p.at < now()
  order  by p.at
  on     conflict do nothing;

analyze public.events, public.build_requests;
