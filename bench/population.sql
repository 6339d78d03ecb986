-- A made-up year of a made-up world, for contests that read: 1,000 organizations, of which the largest has a tenth of
-- the events and most have a few, some 30,000 people, and what these did, in sessions, by the rhythm of days and weeks.
--
-- Every choice follows from numbers: what chance (thing, question) says of a thing is always the same. So the same
-- events come about on every machine; and a longer log has the same organizations and people, who do more.

create schema bench;

-- What is thrown for a thing when a question is asked of it: from 0 to 1, evenly, and always the same.
create function bench.chance(thing bigint, question bigint)
  returns double precision
  language sql immutable parallel safe
return (hashint8extended(thing, question) & 9007199254740991) / 9007199254740992.0::double precision;


-- Organizations, apps and people --------------------------------------------------------------------

-- Org 0 stands apart: it has the same events however long the log is.
create table bench.orgs as
  select r.rank, md5('org ' || r.rank)::uuid as org_id, s.share,
         case r.rank when 0 then 40 else greatest(2, round(16000 * power(s.share, 0.85))) end::integer as seats,
         case r.rank when 0 then 3 else 1 + round(24 * sqrt(s.share)) end::integer as apps
  from   generate_series(0, 1000) as r (rank)
  cross  join lateral (
    select case r.rank
      when 0 then 0
      else exp(r.rank / -300.0) / (r.rank + 1) / (select sum(exp(n / -300.0) / (n + 1)) from generate_series(1, 1000) as n)
    end::double precision as share
  ) as s;
insert into public.orgs (id, name) select o.org_id, 'Org ' || o.rank from bench.orgs as o;
insert into public.apps (app_id, name, owner_org)
  select format('com.org%s.app%s', o.rank, n), format('App %s of org %s', n, o.rank), o.org_id
  from   bench.orgs as o
  cross  join generate_series(1, o.apps) as n;

-- Whose session it is: one of 100,000 tickets is drawn, and each org has some.
create table bench.tickets as
  select (row_number() over (order by o.rank, n) - 1)::integer as ticket, o.rank, o.org_id, o.seats, o.apps
  from   bench.orgs as o
  cross  join generate_series(1, greatest(1, round(100000 * o.share)::integer)) as n
  where  o.rank > 0;
create unique index on bench.tickets (ticket);

-- The people of an org. One in eight seats is taken by one of 1,500 who work for several.
create table bench.seats as
  select o.rank, n as seat, p.actor_id, tastes.*
  from   bench.orgs as o
  cross  join generate_series(0, o.seats - 1) as n
  cross  join lateral (
    select case
      when o.rank > 0 and bench.chance(o.rank * 100000 + n, 1) < 0.125
      then md5('freelancer ' || floor(1500 * bench.chance(o.rank * 100000 + n, 2)))::uuid
      else md5(format('person %s of org %s', n, o.rank))::uuid
    end as actor_id
  ) as p
  -- What somebody's sessions are: the bounds between looking at the dashboard, the command line, the onboarding of the
  -- builder, and builds. Some know the dashboard only, some the command line, and some all of it.
  cross  join lateral (
    values (0.00, 0.30, 1.00, 1.00, 1.00), (0.30, 0.55, 0.00, 1.00, 1.00),
           (0.55, 0.75, 0.30, 0.85, 0.90), (0.75, 1.00, 0.15, 0.40, 0.50)
  ) as tastes (low, high, dashboard, cli, onboarding)
  where  ('x' || left(md5(p.actor_id::text), 7))::bit(28)::integer / 268435456.0 >= tastes.low
  and    ('x' || left(md5(p.actor_id::text), 7))::bit(28)::integer / 268435456.0 < tastes.high;
create unique index on bench.seats (rank, seat);


-- What happens in a session -------------------------------------------------------------------------

-- The events of each kind of session, in order. One comes about where the session's persistence is from `from_share` to
-- below `to_share`, and its own luck from `low` to below `high`. `gap`: about so many seconds after the one before.
create table bench.script (
  kind text, position integer, event text, channel text, icon text, gap double precision,
  from_share double precision, to_share double precision, low double precision, high double precision,
  grouped_by text, source text, tags jsonb
);

insert into bench.script
  select 'dashboard', position, event, channel, icon, gap, 0, to_share, low, high, 'org', 'client', tags::jsonb
  from (values
    (1, 'User visit',                             'usage',            '💳',   0, 1.00, 0.0, 1.0, '{}'),
    (2, 'trial_banner_shown',                     'usage',            '💳',   2, 1.00, 0.0, 0.2, '{"trial_days_left": 12}'),
    (3, 'onboarding-step-copy-command',           'onboarding-v2',    '👶',  40, 0.60, 0.0, 1.0, '{}'),
    (4, 'onboarding-step-wait-for-app',           'onboarding-v2',    '👶',  70, 0.48, 0.0, 1.0, '{}'),
    (5, 'onboarding-step-discover-your-dashboard','onboarding-v2',    '👶', 300, 0.38, 0.0, 1.0, '{}'),
    (6, 'demo-onboarding-step-1-opened',          'demo-onboarding',  '🧪',  50, 0.30, 0.0, 0.7, '{"step": 1, "action": "confetti"}'),
    (7, 'onboarding-step-done',                   'onboarding-v2',    '👶', 120, 0.26, 0.0, 1.0, '{}'),
    (8, 'onboarding-build-step-setup-ios',        'onboarding-build', '👶',  90, 0.15, 0.0, 1.0, '{}')
  ) as s (position, event, channel, icon, gap, to_share, low, high, tags);

-- Commands of the command line, up to ten of them.
insert into bench.script values
  ('cli', 0, 'User CLI login', 'user-login', '✅', 0, 0, 1, 0, 0.12, 'app', 'client', '{}'),
  ('cli', 1, 'Doctor Ran', 'cli-usage', '👨‍⚕️', 20, 0, 1, 0, 0.08, 'app', 'client',
    '{"is_outdated": true, "dependency_count": 12, "outdated_count": 2}');
insert into bench.script
  select 'cli', 3 * n + s.position, s.event, 'cli-usage', s.icon, s.gap, 0, power(0.8, n - 1), s.low, s.high, 'app', 'client',
         s.tags::jsonb || jsonb_build_object('command_path', (array['bundle upload', 'channel set', 'app list', 'bundle list'])[1 + n % 4])
  from   generate_series(1, 10) as n
  cross  join (values
    (0, 'CLI Command Invoked',   '⚡', 75, 0.00, 1.00, '{"flags": "apikey,channel", "flags_count": 2, "positional_arg_count": 1}'),
    (1, 'CLI Command Succeeded', '✅',  6, 0.00, 0.93, '{"duration_ms": 5210}'),
    (1, 'CLI Command Failed',    '❌',  9, 0.93, 1.00, '{"error_category": "network_error", "exit_code": 1, "duration_ms": 8040}')
  ) as s (position, event, icon, gap, low, high, tags);

-- The onboarding of the builder: of those who begin, fewer come to each step, and the others quit.
insert into bench.script
  select 'onboarding', s.n, 'Builder Onboarding Step', 'builder-onboarding', '🧭', 45, 0, power(0.93, s.n - 1), 0, 1, 'app', 'client',
         jsonb_build_object('step', s.step, 'journey_id', 'bj_', 'duration_ms', 4200)
  from   unnest(array['welcome', 'platform-select', 'setup-method-select', 'p8-source-select', 'p8-method-select', 'input-p8-path',
           'input-key-id', 'input-issuer-id', 'verifying-key', 'verify-app', 'creating-certificate', 'creating-profile',
           'saving-credentials', 'ask-build']) with ordinality as s (step, n);
insert into bench.script values
  ('onboarding', 15, 'Builder Onboarding Quit', 'builder-onboarding', '🚪', 60, power(0.93, 13), 1, 0, 1, 'app', 'client',
    '{"journey_id": "bj_", "last_step": "input-key-id", "duration_ms": 184000}'),
  ('onboarding', 15, 'Credentials saved', 'credentials', '🔐', 5, 0, power(0.93, 13), 0, 1, 'app', 'client', '{"storage": "local"}');

-- A build, as the program sees it that asks for it, and as the database tells of it.
insert into bench.script
  select 'build', position, event, channel, icon, gap, from_share, to_share, low, high, 'app', source, tags::jsonb
  from (values
    ( 1, 'Build requested',          'native-builder',  '🏗️',   0, 0.00, 1.00, 0.00, 1.00, 'client',  '{}'),
    ( 2, 'Build Requested',          'build-lifecycle', '🛠️',   1, 0.00, 1.00, 0.00, 1.00, 'trigger', '{}'),
    ( 3, 'Builder Upload Started',   'build-lifecycle', '⬆️',   2, 0.00, 1.00, 0.00, 1.00, 'client',  '{"upload_size_bytes": 7340032}'),
    ( 4, 'Builder Upload Succeeded', 'build-lifecycle', '📦',  12, 0.00, 0.97, 0.00, 1.00, 'client',  '{"upload_size_bytes": 7340032, "upload_duration_seconds": 12}'),
    ( 4, 'Builder Upload Failed',    'build-lifecycle', '🚫',  30, 0.97, 1.00, 0.00, 1.00, 'client',  '{"upload_size_bytes": 7340032, "failure_category": "network_error"}'),
    ( 5, 'Build Started',            'build-lifecycle', '⏳',  50, 0.00, 0.97, 0.00, 1.00, 'trigger', '{}'),
    ( 5, 'Build Expired',            'build-lifecycle', '⌛', 900, 0.97, 1.00, 0.00, 1.00, 'trigger', '{"queue_seconds": 3600}'),
    ( 6, 'Build Succeeded',          'build-lifecycle', '✅', 260, 0.00, 0.97, 0.00, 0.79, 'trigger', '{"duration_seconds": 260, "queue_seconds": 62}'),
    ( 6, 'Build Failed',             'build-lifecycle', '❌', 140, 0.00, 0.97, 0.79, 0.93, 'trigger', '{"duration_seconds": 140, "queue_seconds": 62, "failure_category": "builder_error"}'),
    ( 6, 'Build Timed Out',          'build-lifecycle', '⏰', 900, 0.00, 0.97, 0.93, 0.96, 'trigger', '{"duration_seconds": 900, "queue_seconds": 62, "failure_category": "timeout"}'),
    ( 6, 'Build Cancelled',          'build-lifecycle', '🛑',  90, 0.00, 0.97, 0.96, 1.00, 'trigger', '{"duration_seconds": 90, "queue_seconds": 62}')
  ) as s (position, event, channel, icon, gap, from_share, to_share, low, high, source, tags);
create index on bench.script (kind);

-- What clients say of the machine that they run on, as a real one does.
create table bench.contexts as
  select n, jsonb_build_object(
           'cli_version', '8.' || 60 + n % 9 || '.' || n % 4, 'node_version', (array['v20.20.2', 'v22.11.0', 'v18.20.4'])[1 + n % 3],
           'os_platform', (array['linux', 'darwin', 'win32'])[1 + n % 3], 'os_arch', (array['x64', 'arm64'])[1 + n % 2],
           'os_release', '6.1.' || n, 'timezone', (array['UTC', 'Europe/Paris', 'America/New_York', 'Asia/Tokyo'])[1 + n % 4],
           'is_ci', n % 5 = 0, 'is_tty', n % 5 <> 0, 'invocation_source', 'cli', 'agent_invoker', n % 7 = 0) as context
  from   generate_series(0, 63) as n;


-- The year ------------------------------------------------------------------------------------------

-- The share of the year's events that falls on each day: fewer on weekends, and more as time goes by.
create table bench.days as
  select d.day::date, (w.weight / sum(w.weight) over ())::double precision as share
  from   generate_series(timestamp '2025-01-01', timestamp '2025-12-31', interval '1 day') with ordinality as d (day, n)
  cross  join lateral (select case when date_part('isodow', d.day) < 6 then 1 else 0.3 end * (0.7 + 0.6 * d.n / 365)) as w (weight);

analyze bench.tickets, bench.seats, bench.orgs, bench.script, bench.contexts;

-- Uses up transaction ids, so that a log that is written here in one go can say it was written over a year.
create procedure bench.use_transactions(count integer)
  language plpgsql
as $$
begin
  perform set_config('synchronous_commit', 'off', false);
  for n in 1..count loop
    perform pg_current_xact_id();
    commit;
  end loop;
  perform set_config('synchronous_commit', 'on', false);
end $$;

-- The sessions of a day, as many as are asked for: whose each is, of which kind, and when it begins. The first eight are
-- those of org 0. The people of an org change over the year, but for a tenth of them, who have half of the sessions.
create function bench.sessions_of(day date, count integer)
  returns table (
    session bigint, rank integer, org_id uuid, actor_id uuid, app_id text, kind text, platform text, build_mode text,
    began_at timestamptz, persistence double precision, speed double precision, context jsonb)
  language sql stable
begin atomic
  select s.session, o.rank, o.org_id, p.actor_id,
         format('com.org%s.app%s', o.rank, 1 + floor(o.apps * power(bench.chance(s.session, 5), 2))),
         case
           when bench.chance(s.session, 6) < p.dashboard then 'dashboard'
           when bench.chance(s.session, 6) < p.cli then 'cli'
           when bench.chance(s.session, 6) < p.onboarding then 'onboarding'
           else 'build'
         end,
         case when bench.chance(s.session, 7) < 0.55 then 'ios' else 'android' end,
         case when bench.chance(s.session, 8) < 0.8 then 'release' else 'debug' end,
         (day + make_interval(hours => 4, secs => 36000 * (bench.chance(s.session, 9) + bench.chance(s.session, 10)))) at time zone 'UTC',
         bench.chance(s.session, 11), 0.25 + 1.5 * bench.chance(s.session, 12), c.context
  from (
    select n, (day - date '2025-01-01') * 1000000::bigint + n as session
    from   generate_series(1, count) as n
  ) as s
  cross  join lateral (
    select case when s.n <= 8 then 0 else t.rank end as rank,
           case when s.n <= 8 then z.org_id else t.org_id end as org_id,
           case when s.n <= 8 then z.seats else t.seats end as seats,
           case when s.n <= 8 then z.apps else t.apps end as apps
    from   bench.tickets as t
    cross  join bench.orgs as z
    where  t.ticket = floor(bench.chance(s.session, 1) * (select max(m.ticket) + 1 from bench.tickets as m))::integer
    and    z.rank = 0
  ) as o
  join   bench.seats as p
  on     p.rank = o.rank
  and    p.seat = floor(o.seats * case
           when bench.chance(s.session, 2) < 0.5 then 0.1 * bench.chance(s.session, 3)
           else 0.1 + 0.9 * (0.6 * (day - date '2025-01-01') / 365.0 + 0.4 * power(bench.chance(s.session, 3), 2))
         end)::integer
  join   bench.contexts as c on c.n = floor(64 * bench.chance(s.session, 4))::integer;
end;

-- Writes the events of a day, as many as are asked for, in the order of time, over so many transactions from one on.
create procedure bench.write_day(day date, count bigint, first_txid bigint, txids bigint)
  language sql
begin atomic
  insert into public.events (
    scope_id, occurred_at, event_id, org_id, actor_id, app_id, api_key_id, event, channel, icon, tags, context,
    source, received_at, txid)
  select coalesce(e.org_id, e.actor_id), e.occurred_at,
         (lpad(to_hex((extract(epoch from e.occurred_at) * 1000)::bigint), 12, '0') || '7' || substr(e.hash, 1, 3) || 'a' || substr(e.hash, 4, 15))::uuid,
         e.org_id, e.actor_id, e.app_id, null, e.event, e.channel, e.icon,
         jsonb_strip_nulls(e.tags || jsonb_build_object(
           'app_id', e.app_id, 'org_id', e.org_id,
           'platform', case when e.kind in ('build', 'onboarding') then e.platform end,
           'build_mode', case when e.kind = 'build' then e.build_mode end,
           'job_id', case when e.kind = 'build' then 'job-' || e.session end,
           'build_id', case when e.source = 'trigger' then md5('build ' || e.session)::uuid end,
           'journey_id', case when e.kind = 'onboarding' then 'bj_' || e.session end)),
         case when e.source = 'trigger' then '{}' else e.context end, e.source, e.occurred_at + interval '0.3 seconds',
         (first_txid + txids * (row_number() over (order by e.occurred_at, e.hash) - 1) / count)::text::xid8
  from (
    select s.session, s.kind, s.actor_id, s.platform, s.build_mode, s.context, c.event, c.channel, c.icon, c.source, c.tags,
           case when not (s.kind = 'cli' and bench.chance(s.session, 13) < 0.1) then s.org_id end as org_id,
           case when c.grouped_by = 'app' and not (s.kind = 'cli' and bench.chance(s.session, 13) < 0.1) then s.app_id end as app_id,
           date_trunc('milliseconds', s.began_at + make_interval(secs =>
             sum(c.gap * s.speed * (0.5 + bench.chance(s.session, 200 + c.position))) over (partition by s.session order by c.position))) as occurred_at,
           md5(s.session || '-' || c.position) as hash
    from   bench.sessions_of(day, (count / 5 + 20)::integer) as s
    join   bench.script as c
    on     c.kind = s.kind
    and    s.persistence >= c.from_share
    and    s.persistence < c.to_share
    and    bench.chance(s.session, 100 + c.position) >= c.low
    and    bench.chance(s.session, 100 + c.position) < c.high
    order  by s.session, c.position
    limit  count
  ) as e
  order  by e.occurred_at, e.hash;
end;

-- Makes the builds that the events tell of.
create procedure bench.make_builds()
  language sql
begin atomic
  insert into public.build_requests (
    id, owner_org, app_id, requested_by, platform, build_mode, status, builder_job_id, last_error, created_at, started_at,
    completed_at, updated_at, lifecycle)
  select (e.tags ->> 'build_id')::uuid, e.org_id, e.app_id, e.actor_id, e.tags ->> 'platform', e.tags ->> 'build_mode',
         (array_agg(s.status order by s.step desc))[1], e.tags ->> 'job_id', max(e.tags ->> 'failure_category'),
         min(e.occurred_at), min(e.occurred_at) filter (where s.step = 1), min(e.occurred_at) filter (where s.step = 2),
         max(e.occurred_at), (array['requested', 'started', 'finished'])[1 + max(s.step)]
  from   public.events as e
  join   tracking.build_steps as s using (event)
  where  e.source = 'trigger'
  group  by e.tags ->> 'build_id', e.org_id, e.app_id, e.actor_id, e.tags ->> 'platform', e.tags ->> 'build_mode', e.tags ->> 'job_id'
  order  by min(e.occurred_at);
end;
