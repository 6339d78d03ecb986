import type { Sql } from 'postgres'
import { readChapters } from './chapters.ts'
import { grants, migrations, rowSecurity, searchPaths } from './doctor-chapters.ts'
import { sinks } from './doctor-sinks.ts'
import { error, forEach, ok, some, warning, type Check, type Finding, type Result } from './finding.ts'

/** Examines an installation from inside the database: a finding for each check. It changes nothing. */
export async function examine(sql: Sql): Promise<Finding[]> {
  const chapters = await readChapters()
  const findings: Finding[] = []
  for (const [check, look] of Object.entries(checks)) {
    findings.push({ check, ...await look(sql, chapters).catch(explain) })
  }
  return findings
}

function explain({ code, message }: Error & { code?: string }): Result {
  return code === '42501'
    ? warning(`this login may not look: ${message}`, 'Connect as the owner of the tables: postgres, in Supabase.')
    : error(`it cannot be seen: ${message}`, 'Apply the chapters that are missing, and look again.')
}

const version: Check = async (sql) => {
  const [{ name, number } = { name: '', number: 0 }] = await sql<{ name: string, number: number }[]>`
    select current_setting('server_version') as name, current_setting('server_version_num')::int as number`
  const major = Math.floor(number / 10_000)
  if (major < 15) return error(`Postgres ${name} is too old`, 'Upgrade to Postgres 15 or later.')
  if (major > 18) return warning(`Postgres ${name} is newer than any that was tested`, 'Update Actorscope.')
  return ok(`Postgres ${name}`)
}

type Role = { role: string, exists: boolean, isFree: boolean, isTaken: boolean }

const roles: Check = async (sql) => {
  const rows = await sql<Role[]>`
    select w.role, r.oid is not null as exists, coalesce(r.rolsuper or r.rolbypassrls, false) as "isFree",
           coalesce(pg_has_role(a.oid, r.oid, 'member'), false) as "isTaken"
    from   unnest(array['anon', 'authenticated', 'service_role', 'authenticator']) as w (role)
    left   join pg_roles as r on r.rolname = w.role
    left   join pg_roles as a on a.rolname = 'authenticator'`
  const those = (which: (role: Role) => boolean) => rows.filter(which).map(({ role }) => role)
  const absent = those(({ exists }) => !exists)
  if (absent.length > 0) return error(`missing: ${absent.join(', ')}`, forEach(absent, createRole))
  const free = those(({ role, isFree }) => isFree && (role === 'anon' || role === 'authenticated'))
  if (free.length > 0) {
    return error(`row-level security does not bind ${free.join(', ')}`,
      forEach(free, (role) => `alter role ${role} nosuperuser nobypassrls`))
  }
  if (those(({ role, isFree }) => role === 'service_role' && !isFree).length > 0) {
    return error('row-level security binds service_role: services see nothing', 'alter role service_role bypassrls;')
  }
  const untaken = those(({ isTaken }) => !isTaken).join(', ')
  if (untaken) {
    return error(`authenticator, the Data API's login, may not become ${untaken}`, `grant ${untaken} to authenticator;`)
  }
  return ok('anon, authenticated, service_role and authenticator are as the Data API needs them')
}

function createRole(role: string): string {
  const what = { authenticator: 'login noinherit', service_role: 'nologin noinherit bypassrls' }[role]
  return `create role ${role} ${what ?? 'nologin noinherit'}`
}

const partitions: Check = async (sql) => {
  const months = await sql<{ month: string, isCovered: boolean }[]>`
    with bounds as (
      select (regexp_match(b.text, 'FROM \\(''([^'']+)''\\)'))[1]::timestamptz as since,
             (regexp_match(b.text, 'TO \\(''([^'']+)''\\)'))[1]::timestamptz as until
      from   pg_inherits as i
      join   pg_class as c on c.oid = i.inhrelid
      cross  join lateral pg_get_expr(c.relpartbound, c.oid) as b (text)
      where  i.inhparent = 'public.events'::regclass
    ),
    months as (
      select generate_series(m.this, m.this + interval '3 months', interval '1 month') as month
      from   date_trunc('month', now() at time zone 'UTC') as m (this)
    )
    select to_char(m.month, 'YYYY-MM') as month, exists (
             select
             from   bounds as b
             where  b.since <= m.month at time zone 'UTC'
             and    b.until >= (m.month + interval '1 month') at time zone 'UTC'
           ) as "isCovered"
    from   months as m
    order  by m.month`
  const [{ strays } = { strays: '0' }] = await sql<{ strays: string }[]>`
    select coalesce(sum(rows_in_default), 0) as strays from tracking.partition_report`
  const fix = 'select tracking.make_partitions();'
  const bare = months.filter(({ isCovered }) => !isCovered).map(({ month }) => month).join(', ')
  if (months[0]?.isCovered === false) return error(`this month has no partition (${bare})`, fix)
  if (strays !== '0') return warning(`${strays} events lie in the default partition`, fix)
  if (months[1]?.isCovered === false) return warning(`next month has no partition (${bare})`, fix)
  const last = months.filter(({ isCovered }) => isCovered).at(-1)?.month
  return ok(`made up to ${last}, none of the events in the default one`)
}

const realtime: Check = async (sql) => {
  const [{ sends, listens } = { sends: false, listens: false }] = await sql<{ sends: boolean, listens: boolean }[]>`
    select to_regprocedure('realtime.send(jsonb, text, text, boolean)') is not null as sends,
           exists (
             select
             from   pg_policies
             where  schemaname = 'realtime'
             and    policyname = 'people hear the console of their own orgs'
           ) as listens`
  const policy = 'the policy on realtime.messages in migrations/20260101000500_track_event.sql.'
  if (!sends) {
    return warning('there is no realtime.send, so notifyConsole shows nothing to anybody',
      `Enable Realtime in Supabase's dashboard, then run ${policy}`)
  }
  if (!listens) return warning('nobody may listen to the consoles', `Run ${policy}`)
  return ok('realtime.send is there, and people may listen to their consoles')
}

const cron: Check = async (sql, chapters) => {
  const wanted = chapters.flatMap(({ jobs }) => jobs)
  const schedule = (jobs: typeof wanted) => forEach(jobs.map(({ statement }) => statement), (statement) => statement)
  const [{ known } = { known: false }] = await sql<{ known: boolean }[]>`
    select to_regclass('cron.job') is not null as known`
  if (!known) {
    const byHand = wanted.map(({ statement }) => /'(select tracking[^']*)'/.exec(statement)?.[1]).join('; ')
    return warning('there is no pg_cron, so nothing runs by itself',
      `create extension pg_cron; ${schedule(wanted)} Or run every few minutes: ${byHand};`)
  }
  const jobs = await sql<{ name: string }[]>`select jobname as name from cron.job where active`
  const idle = wanted.filter(({ name }) => !jobs.some((job) => job.name === name))
  if (idle.length > 0) return error(`not scheduled: ${some(idle.map(({ name }) => name))}`, schedule(idle))
  return ok(`${wanted.length} jobs are scheduled`)
}

const apiLogins: Check = async (sql) => {
  const [settings] = await sql<{ logins: string[] }[]>`select api_logins::text[] as logins from tracking.settings`
  if (!settings) return error('tracking.settings is empty', 'insert into tracking.settings default values;')
  // supabase_admin is named from the start, and a database that is no Supabase lacks it.
  const rows = await sql<{ login: string }[]>`
    select l.login
    from   unnest(${settings.logins}::text[]) as l (login)
    left   join pg_roles as r on r.rolname = l.login
    where  l.login <> 'supabase_admin'
    and    r.rolcanlogin is not true
    order  by 1`
  const strangers = rows.map(({ login }) => login)
  if (strangers.length > 0) {
    return warning(`the settings believe ${strangers.join(', ')}, which cannot log in`, forEach(strangers, (login) =>
      `update tracking.settings set api_logins = array_remove(api_logins, '${login.replaceAll('\'', '\'\'')}'::name)`))
  }
  return ok(`the claims of ${[...new Set(['authenticator', ...settings.logins])].join(', ')} are believed`)
}

const deadLetters: Check = async (sql) => {
  const [{ letters, reason } = { letters: 0, reason: '' }] = await sql<{ letters: number, reason: string }[]>`
    select count(*)::int as letters, (array_agg(error order by failed_at desc))[1] as reason
    from   tracking.dead_letters`
  if (letters === 0) return ok('none')
  return warning(`${letters} wait, the last for: ${reason}`, 'select * from tracking.retry_dead_letters();')
}

// A person's right has a time limit: what was asked for an hour ago should be done by now.
const erasures: Check = async (sql) => {
  const [{ late, untold, sink, detail } = { late: 0, untold: 0, sink: '', detail: '' }] = await sql<
    { late: number, untold: number, sink: string, detail: string }[]>`
    select (select count(*)::int from tracking.erasures where erased_at is null and asked_at < now() - interval '1 hour') as late,
           count(*)::int as untold, (array_agg(name order by retry_at desc))[1] as sink,
           (array_agg(detail order by retry_at desc))[1] as detail
    from   tracking.erasure_notices
    where  outcome = 'waiting'
    and    tries > 0`
  if (late > 0) {
    return warning(`${late} not done within an hour`,
      'npx actorscope worker, or select tracking.continue_erasures(); it says who is in the way.')
  }
  if (untold > 0) {
    return warning(`${sink} could not be told of ${untold}: ${detail}`, 'Put right what it says; the worker tries again by itself.')
  }
  return ok('none wait')
}

// The quickest of three answers tells most exactly what the time is there.
const clock: Check = async (sql) => {
  let [least, skew] = [Infinity, 0]
  for (let round = 0; round < 3; round++) {
    const before = Date.now()
    const [{ now } = { now: before }] = await sql<{ now: number }[]>`
      select extract(epoch from clock_timestamp())::float8 * 1000 as now`
    const after = Date.now()
    if (after - before < least) [least, skew] = [after - before, now - (before + after) / 2]
  }
  const seconds = Math.max(0, Math.abs(skew) - least / 2) / 1000
  const said = `this machine's clock is ${seconds.toFixed(1)} s ${skew > 0 ? 'behind' : 'ahead of'} the database's`
  const fix = 'Set this machine\'s clock: events that it sends carry its time.'
  if (seconds > 300) return error(said, fix)
  return seconds > 2 ? warning(said, fix) : ok('this machine\'s and the database\'s agree')
}

const checks: Record<string, Check> = {
  version, migrations, roles, partitions, 'row security': rowSecurity, grants, 'search paths': searchPaths,
  realtime, cron, 'API logins': apiLogins, 'dead letters': deadLetters, sinks, erasures, clock,
}
