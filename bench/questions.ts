/**
 * A question that analysts ask, and three ways to have it answered: by a function of this package, by plain SQL on the
 * log, as a good analyst would write it for just this, and by DuckDB. All give the same columns, and rows in any order.
 */
export type Question = {
  readonly name: string
  /** Whether the rollup has what is asked for. */
  readonly isRolledUp: boolean
  /** A call of the function, with further arguments. */
  readonly call: (filters: string) => string
  /** SQL on the log, with a condition on the org. */
  readonly write: (org: Condition, dialect: Dialect) => string
}

/** A condition on the column that has the org. */
export type Condition = (column: string) => string

export type Dialect = 'postgres' | 'duckdb'

const [visit, command, request, success] = ['User visit', 'CLI Command Invoked', 'Build Requested', 'Build Succeeded']

const funnel: Question = {
  name: 'funnel',
  isRolledUp: true,
  call: (filters) => `
    select step, subjects, median_seconds
    from   analytics.funnel(array['${visit}', '${command}', '${request}', '${success}']${filters})`,
  write: (org) => writeFunnel([visit!, command!, request!, success!], org('e.scope_id')),
}

const taggedFunnel: Question = {
  name: 'funnel of a tag',
  isRolledUp: false,
  call: (filters) => `
    select step, subjects, median_seconds
    from   analytics.funnel(array['Build requested', '${request}', 'Build Started', '${success}'], tags => '{"platform": "ios"}'${filters})`,
  write: (org) => writeFunnel(['Build requested', request!, 'Build Started', success!], `(e.tags ->> 'platform') = 'ios' and ${org('e.scope_id')}`),
}

// From behind: what follows an event, and what follows that. One sort does for all the windows.
function writeFunnel([a, b, c, d]: string[], condition: string): string {
  const later = 'partition by actor_id order by occurred_at desc groups between unbounded preceding and 1 preceding'
  return `
    with chosen as (
      select e.actor_id, e.occurred_at, e.event
      from   public.events as e
      where  e.event in ('${a}', '${b}', '${c}', '${d}')
      and    e.actor_id is not null
      and    ${condition}
    ),
    before_last as (
      select actor_id, occurred_at, event, min(occurred_at) filter (where event = '${d}') over later as d
      from   chosen
      window later as (${later})
    ),
    before_third as (
      select actor_id, occurred_at, event, min(occurred_at) filter (where event = '${c}') over later as c,
             min(d) filter (where event = '${c}') over later as d
      from   before_last
      window later as (${later})
    ),
    before_second as (
      select actor_id, occurred_at, event, min(occurred_at) filter (where event = '${b}') over later as b,
             min(c) filter (where event = '${b}') over later as c, min(d) filter (where event = '${b}') over later as d
      from   before_third
      window later as (${later})
    ),
    attempts as (
      select actor_id, occurred_at as a,
             case when b <= occurred_at + interval '7 days' then b end as b,
             case when c <= occurred_at + interval '7 days' then c end as c,
             case when d <= occurred_at + interval '7 days' then d end as d
      from   before_second
      where  event = '${a}'
    ),
    ranked as (
      select a, b, c, d, row_number() over (
               partition by actor_id
               order by case when d is not null then 4 when c is not null then 3 when b is not null then 2 else 1 end desc, a) as place
      from   attempts
    ),
    best as (
      select a, b, c, d, extract(epoch from b - a)::double precision as ab, extract(epoch from c - b)::double precision as bc,
             extract(epoch from d - c)::double precision as cd
      from   ranked
      where  place = 1
    )
    select 1 as step, count(a) as subjects, null::double precision as median_seconds from best
    union  all
    select 2, count(b), percentile_cont(0.5) within group (order by ab) from best
    union  all
    select 3, count(c), percentile_cont(0.5) within group (order by bc) from best
    union  all
    select 4, count(d), percentile_cont(0.5) within group (order by cd) from best`
}

const retention: Question = {
  name: 'retention',
  isRolledUp: true,
  call: (filters) => `
    select cohort, size, period, subjects from analytics.retention('${visit}', '${command}', periods => 12${filters})`,
  write: (org) => `
    with begun as (
      select e.actor_id, min(e.occurred_at) as first_at
      from   public.events as e
      where  e.event = '${visit}'
      and    e.actor_id is not null
      and    ${org('e.scope_id')}
      group  by e.actor_id
    ),
    sizes as (
      select date_trunc('week', begun.first_at) as cohort, count(*) as size from begun group by 1
    ),
    returned as (
      select date_trunc('week', b.first_at) as cohort, date_trunc('week', e.occurred_at) as week, count(distinct e.actor_id) as subjects
      from   begun as b
      join   public.events as e on e.actor_id = b.actor_id
      where  e.event = '${command}'
      and    e.occurred_at >= b.first_at
      and    ${org('e.scope_id')}
      group  by 1, 2
    )
    select s.cohort::date as cohort, s.size, n.n as period, coalesce(r.subjects, 0) as subjects
    from   sizes as s
    cross  join (select unnest(array[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]) as n) as n
    left   join returned as r on r.cohort = s.cohort and r.week = s.cohort + n.n * interval '7 days'`,
}

const active: Question = {
  name: 'active',
  isRolledUp: true,
  call: (filters) => `
    select period, active, new, "returning", resurrected from analytics.active(period => 'day'${filters})`,
  write: (org, dialect) => `
    with seen as (
      select distinct e.actor_id, date_trunc('day', e.occurred_at)::date as day
      from   public.events as e
      where  e.actor_id is not null
      and    ${org('e.scope_id')}
    ),
    told as (
      select day, lag(day) over (partition by actor_id order by day) as last_day from seen
    ),
    counted as (
      select day, count(*) as active, count(*) filter (where last_day is null) as new,
             count(*) filter (where last_day = day - 1) as back
      from   told
      group  by day
    )
    select d.day as period, coalesce(c.active, 0) as active, coalesce(c.new, 0) as new, coalesce(c.back, 0) as "returning",
           coalesce(c.active - c.new - c.back, 0) as resurrected
    from   (${days('counted', dialect)}) as d
    left   join counted as c on c.day = d.day`,
}

/** The days from the first to the last. */
function days(counted: string, dialect: Dialect): string {
  const series = `generate_series(min(day)::timestamp, max(day)::timestamp, interval '1 day')`
  return `select ${dialect === 'postgres' ? series : `unnest(${series})`}::date as day from ${counted}`
}

const paths: Question = {
  name: 'paths',
  isRolledUp: true,
  call: (filters) => `
    select step, source, target, paths, actors, median_seconds from analytics.paths('${visit}', depth => 3${filters})`,
  write: (org) => `
    with recursive gaps as (
      select e.actor_id, e.occurred_at, e.event, row_number() over in_order as n,
             coalesce(e.occurred_at - lag(e.occurred_at) over in_order > interval '30 minutes', true) as is_first
      from   public.events as e
      where  e.actor_id is not null
      and    ${org('e.scope_id')}
      window in_order as (partition by e.actor_id order by e.occurred_at, e.event)
    ),
    runs as (
      select *, max(case when is_first then n end) over (partition by actor_id order by n) as run from gaps
    ),
    followed as (
      select actor_id, run, n, event, lead(event, 1) over in_run as event_1, lead(event, 2) over in_run as event_2, lead(event, 3) over in_run as event_3,
             occurred_at as at_0, lead(occurred_at, 1) over in_run as at_1, lead(occurred_at, 2) over in_run as at_2, lead(occurred_at, 3) over in_run as at_3
      from   runs
      window in_run as (partition by actor_id, run order by n)
    ),
    candidates as (
      select *, min(n) over (partition by actor_id, run) as first_n,
             min(n) over (partition by actor_id, run order by n range between 4 following and unbounded following) as next_n
      from   followed
      where  event = '${visit}'
    ),
    begun as (
      select * from candidates where n = first_n
      union  all
      select c.* from begun as b join candidates as c on c.actor_id = b.actor_id and c.n = b.next_n
    ),
    steps as (
      select 1 as step, actor_id, event as source, event_1 as target, at_1 - at_0 as time from begun
      union  all
      select 2, actor_id, event_1, event_2, at_2 - at_1 from begun where event_1 is not null
      union  all
      select 3, actor_id, event_2, event_3, at_3 - at_2 from begun where event_2 is not null
    )
    select step, source, target, count(*) as paths, count(distinct actor_id) as actors,
           percentile_cont(0.5) within group (order by extract(epoch from time)::double precision) as median_seconds
    from   steps
    group  by step, source, target`,
}

/** Where an event happens, as tracking.surfaces has it by default. */
const surface = `case
          when e.channel in ('demo-onboarding', 'onboarding-build', 'onboarding-bundle', 'onboarding-v2', 'usage') then 'dashboard'
          when e.channel in ('app', 'cli-usage', 'user-login') then 'cli'
          when e.channel in ('build-lifecycle', 'builder-onboarding', 'credentials', 'native-builder') then 'builder'
        end`

const sessions: Question = {
  name: 'sessions',
  isRolledUp: true,
  call: (filters) => `
    select actor_id, started_at, ended_at, seconds, events, first_event, last_event,
           array_to_string(surfaces, ' ') as surfaces, array_to_string(orgs, ' ') as orgs
    from   analytics.sessions(gap => '30 minutes'${filters})`,
  write: (org, dialect) => `
    with gaps as (
      select e.actor_id, e.occurred_at, e.event, e.org_id, ${surface} as surface, row_number() over in_order as n,
             coalesce(e.occurred_at - lag(e.occurred_at) over in_order > interval '30 minutes', true) as is_first
      from   public.events as e
      where  e.actor_id is not null
      and    ${org('e.scope_id')}
      window in_order as (partition by e.actor_id order by e.occurred_at, e.event)
    ),
    runs as (
      select *, max(case when is_first then n end) over (partition by actor_id order by n) as run from gaps
    )
    select actor_id, min(occurred_at) as started_at, max(occurred_at) as ended_at,
           extract(epoch from max(occurred_at) - min(occurred_at))::double precision as seconds, count(*) as events,
           ${dialect === 'postgres' ? `
           (array_agg(event order by n))[1] as first_event, (array_agg(event order by n desc))[1] as last_event,
           array_to_string(array_agg(distinct surface order by surface), ' ') as surfaces,
           array_to_string(array_agg(distinct org_id order by org_id), ' ') as orgs` : `
           arg_min(event, n) as first_event, arg_max(event, n) as last_event,
           array_to_string(list_sort(list_distinct(list(surface))), ' ') as surfaces,
           array_to_string(list_sort(list_distinct(list(org_id))), ' ') as orgs`}
    from   runs
    group  by actor_id, run`,
}

const surfaces: Question = {
  name: 'surfaces',
  isRolledUp: true,
  call: (filters) => `
    select array_to_string(surfaces, ' ') as surfaces, actors, actors_at_least, orgs, orgs_at_least
    from   analytics.surfaces(${filters.replace(', ', '')})`,
  write: (org) => `
    with seen as (
      select e.actor_id, e.org_id, ${surface} as surface
      from   public.events as e
      where  ${org('e.scope_id')}
      group  by 1, 2, 3
    ),
    subjects as (
      select 'actor' as kind, actor_id as subject, surface from seen where actor_id is not null
      union  all
      select 'org', org_id, surface from seen where org_id is not null
    ),
    kept as (
      select kind, bit_or(case surface when 'builder' then 1 when 'cli' then 2 when 'dashboard' then 4 else 0 end) as surfaces
      from   subjects
      group  by kind, subject
    ),
    combinations as (
      select 1 as n, 'builder' as surfaces union all select 2, 'cli' union all select 3, 'builder cli' union all select 4, 'dashboard'
      union all select 5, 'builder dashboard' union all select 6, 'cli dashboard' union all select 7, 'builder cli dashboard'
    )
    select c.surfaces, count(*) filter (where kind = 'actor' and k.surfaces = n) as actors, count(*) filter (where kind = 'actor') as actors_at_least,
           count(*) filter (where kind = 'org' and k.surfaces = n) as orgs, count(*) filter (where kind = 'org') as orgs_at_least
    from   combinations as c
    left   join kept as k on k.surfaces & c.n = c.n
    group  by c.n, c.surfaces`,
}

const activity: Question = {
  name: 'activity',
  isRolledUp: true,
  call: (filters) => `select period, events, actors, orgs from analytics.activity('day'${filters})`,
  write: (org, dialect) => writeActivity(org('e.scope_id'), dialect),
}

const taggedActivity: Question = {
  name: 'activity of a tag',
  isRolledUp: false,
  call: (filters) => `select period, events, actors, orgs from analytics.activity('day', tags => '{"platform": "ios"}'${filters})`,
  write: (org, dialect) => writeActivity(`(e.tags ->> 'platform') = 'ios' and ${org('e.scope_id')}`, dialect),
}

function writeActivity(condition: string, dialect: Dialect): string {
  return `
    with counted as (
      select date_trunc('day', e.occurred_at) as day, count(*) as events, count(distinct e.actor_id) as actors, count(distinct e.org_id) as orgs
      from   public.events as e
      where  ${condition}
      group  by 1
    )
    select d.day::timestamp as period, coalesce(c.events, 0) as events, coalesce(c.actors, 0) as actors, coalesce(c.orgs, 0) as orgs
    from   (${days('counted', dialect)}) as d
    left   join counted as c on c.day = d.day`
}

const buildHealth: Question = {
  name: 'build_health',
  isRolledUp: false,
  call: (filters) => `
    select period, builds, succeeded, failed, success_rate, p50_run_seconds, p95_run_seconds, p50_queue_seconds, p95_queue_seconds,
           coalesce((failure_categories ->> 'timeout')::bigint, 0) as timeouts,
           coalesce((failure_categories ->> 'builder_error')::bigint, 0) as builder_errors, median_seconds_to_green, flakiness
    from   analytics.build_health('week'${filters})`,
  write: (org) => `
    with builds as (
      select b.*, b.status = 'succeeded' as has_succeeded, b.status in ('failed', 'timed_out') as has_failed,
             lead(b.status) over by_request = 'succeeded' and lead(b.created_at) over by_request <= b.completed_at + interval '1 hour' as is_flaky
      from   public.build_requests as b
      where  ${org('b.owner_org')}
      window by_request as (partition by b.app_id, b.platform, b.build_mode order by b.created_at, b.id)
    ),
    ended as (
      select *, count(*) filter (where has_succeeded) over (
               partition by app_id, platform, build_mode order by completed_at, id rows between unbounded preceding and 1 preceding) as streak
      from   builds
      where  status not in ('pending', 'running')
    ),
    told as (
      select *, extract(epoch from completed_at - min(completed_at) filter (where has_failed) over (
               partition by app_id, platform, build_mode, streak))::double precision as red_seconds,
             extract(epoch from completed_at - started_at)::double precision as run_seconds,
             extract(epoch from started_at - created_at)::double precision as queue_seconds
      from   ended
    )
    select date_trunc('week', completed_at)::date as period, count(*) as builds, count(*) filter (where has_succeeded) as succeeded,
           count(*) filter (where has_failed) as failed,
           round(1.0 * count(*) filter (where has_succeeded) / nullif(count(*) filter (where has_succeeded or has_failed), 0), 4) as success_rate,
           percentile_cont(0.5) within group (order by run_seconds) as p50_run_seconds,
           percentile_cont(0.95) within group (order by run_seconds) as p95_run_seconds,
           percentile_cont(0.5) within group (order by queue_seconds) as p50_queue_seconds,
           percentile_cont(0.95) within group (order by queue_seconds) as p95_queue_seconds,
           count(*) filter (where status = 'timed_out' or status = 'failed' and last_error = 'timeout') as timeouts,
           count(*) filter (where status = 'failed' and last_error <> 'timeout') as builder_errors,
           percentile_cont(0.5) within group (order by red_seconds) filter (where has_succeeded) as median_seconds_to_green,
           round(1.0 * count(*) filter (where has_failed and is_flaky) / nullif(count(*) filter (where has_failed), 0), 4) as flakiness
    from   told
    group  by 1`,
}

/** The questions of the contest. */
export const questions: readonly Question[] = [
  activity, active, retention, surfaces, funnel, paths, sessions, taggedActivity, taggedFunnel, buildHealth,
]
