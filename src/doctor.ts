import type { Sql } from 'postgres'
import { readChapters, type Chapter, type Grant } from './chapters.ts'

/** What an examination found. */
export type Finding = {
  /** What was looked at, in a word or two. */
  readonly check: string
  /** `warning`: it works, and something is amiss; `error`: something does not work, or is not safe. */
  readonly verdict: 'ok' | 'warning' | 'error'
  readonly finding: string
  /** What to do about it; mostly SQL to paste. */
  readonly fix?: string
}
type Result = Omit<Finding, 'check'>

/** Looks at one thing in the database. */
type Check = (sql: Sql, chapters: Chapter[]) => Promise<Result>

const ok = (finding: string): Result => ({ verdict: 'ok', finding })
const warning = (finding: string, fix: string): Result => ({ verdict: 'warning', finding, fix })
const error = (finding: string, fix: string): Result => ({ verdict: 'error', finding, fix })

/** A few of some names, and how many more there are. */
function some(names: readonly string[], most = 4): string {
  const more = names.length - most
  return more > 0 ? `${names.slice(0, most).join(', ')} and ${more} more` : names.join(', ')
}

/** Examines an installation from inside the database: a finding for each check. It changes nothing. */
export async function examine(sql: Sql): Promise<Finding[]> {
  const chapters = await readChapters()
  const findings: Finding[] = []
  for (const [check, look] of Object.entries(checks)) findings.push({ check, ...await look(sql, chapters).catch(explain) })
  return findings
}

function explain(failure: Error & { code?: string }): Result {
  if (failure.code === '42501') return warning(`this login may not look: ${failure.message}`, 'Connect as the owner of the tables, postgres in a Supabase project.')
  return error(`it cannot be seen: ${failure.message}`, 'Apply the chapters that are missing, and look again.')
}

const version: Check = async (sql) => {
  const [{ name, number } = { name: '', number: 0 }] = await sql<{ name: string, number: number }[]>`
    select current_setting('server_version') as name, current_setting('server_version_num')::int as number`
  const major = Math.floor(number / 10_000)
  if (major < 15) return error(`Postgres ${name} is too old`, 'Upgrade to Postgres 15 or later.')
  if (major > 18) return warning(`Postgres ${name} is newer than any that Actorscope was tested with`, 'Update Actorscope.')
  return ok(`Postgres ${name}`)
}

// A chapter is as it should be where all of its functions are. Those that a project may replace by its own, and
// what only serves the tables behind them, may be different.
const seam = [
  'tracking.actor', 'tracking.api_key', 'app.read', 'app.readable', 'app.build', 'app.manage', 'app.owner_org', 'org.read',
  'org.readable', 'org.manage', 'tracking.create_api_key', 'tracking.revoke_api_key', 'public.create_api_key', 'public.revoke_api_key',
]

const migrations: Check = async (sql, chapters) => {
  const bodies = await readBodies(sql)
  const recorded = await readVersions(sql)
  const isMissing = ({ version, functions }: Chapter) => (recorded ? !recorded.versions.has(version) : functions.every(({ name }) => !bodies.has(name)))
  const missing = chapters.filter(isMissing)
  if (missing.length > 0) {
    return error(`${chapters.length - missing.length} of ${chapters.length} chapters are applied; missing: ${some(missing.map(({ file }) => file))}`,
      recorded?.tool === 'dbmate' ? 'dbmate --strict --migrations-table dbmate.schema_migrations up' : 'npx supabase db push')
  }
  const differ = chapters.flatMap(({ file, functions }) => functions.filter(({ name, body }) => bodies.get(name) !== body).map(({ name }) => ({ file, name })))
  const outdated = differ.filter(({ name }) => !seam.includes(name))
  if (outdated.length > 0) {
    const files = [...new Set(outdated.map(({ file }) => file))]
    return error(`all chapters are applied, but not as they are now: ${some(files)} (${some(outdated.map(({ name }) => name))})`,
      'Apply the present text of these functions, or start with a new database; on the local stack, empty its folder.')
  }
  const replaced = differ.map(({ name }) => name)
  return ok(`all ${chapters.length} chapters are applied${replaced.length > 0 ? `; replaced by your own: ${some(replaced, 20)}` : ''}`)
}

async function readBodies(sql: Sql): Promise<Map<string, string>> {
  const rows = await sql<{ name: string, body: string }[]>`
    select n.nspname || '.' || p.proname as name, p.prosrc as body
    from   pg_proc as p
    join   pg_namespace as n on n.oid = p.pronamespace
    where  n.nspname in ('public', 'tracking', 'app', 'org', 'analytics')`
  return new Map(rows.map(({ name, body }) => [name, body]))
}

async function readVersions(sql: Sql): Promise<{ tool: 'dbmate' | 'supabase', versions: Set<string> } | undefined> {
  const tables = { dbmate: 'dbmate.schema_migrations', supabase: 'supabase_migrations.schema_migrations' } as const
  for (const [tool, table] of Object.entries(tables)) {
    const [{ known } = { known: false }] = await sql<{ known: boolean }[]>`select to_regclass(${table}) is not null as known`
    if (!known) continue
    const rows = await sql<{ version: string }[]>`select version from ${sql(table)}`
    if (rows.length > 0) return { tool: tool as 'dbmate' | 'supabase', versions: new Set(rows.map((row) => row.version)) }
  }
  return undefined
}

const roles: Check = async (sql) => {
  const rows = await sql<{ role: string, exists: boolean, powerful: boolean, bypasses: boolean, takes: boolean }[]>`
    select w.role, r.oid is not null as exists, coalesce(r.rolsuper, false) as powerful, coalesce(r.rolbypassrls, false) as bypasses,
           coalesce(pg_has_role(a.oid, r.oid, 'member'), false) as takes
    from   unnest(array['anon', 'authenticated', 'service_role', 'authenticator']) as w (role)
    left   join pg_roles as r on r.rolname = w.role
    left   join pg_roles as a on a.rolname = 'authenticator'`
  const absent = rows.filter(({ exists }) => !exists).map(({ role }) => role)
  if (absent.length > 0) return error(`missing: ${absent.join(', ')}`, absent.map((role) => `create role ${role} ${role === 'authenticator' ? 'login ' : ''}noinherit${role === 'service_role' ? ' bypassrls' : ''};`).join(' '))
  const unbound = rows.filter(({ role, powerful, bypasses }) => ['anon', 'authenticated'].includes(role) && (powerful || bypasses)).map(({ role }) => role)
  if (unbound.length > 0) return error(`row-level security does not bind ${unbound.join(', ')}`, unbound.map((role) => `alter role ${role} nosuperuser nobypassrls;`).join(' '))
  if (rows.some(({ role, powerful, bypasses }) => role === 'service_role' && !powerful && !bypasses)) {
    return error('row-level security binds service_role, so builders and services see nothing', 'alter role service_role bypassrls;')
  }
  const untaken = rows.filter(({ takes }) => !takes).map(({ role }) => role)
  if (untaken.length > 0) return error(`authenticator, the Data API's login, may not become ${untaken.join(', ')}`, `grant ${untaken.join(', ')} to authenticator;`)
  return ok('anon, authenticated, service_role and authenticator are as the Data API needs them')
}

const partitions: Check = async (sql) => {
  const months = await sql<{ month: string, covered: boolean }[]>`
    with bounds as (
      select (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \\(''([^'']+)''\\)'))[1]::timestamptz as since,
             (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \\(''([^'']+)''\\)'))[1]::timestamptz as until
      from   pg_inherits as i
      join   pg_class as c on c.oid = i.inhrelid
      where  i.inhparent = 'public.events'::regclass
    )
    select to_char(m.month, 'YYYY-MM') as month,
           exists (select from bounds as b where b.since <= m.month at time zone 'UTC' and b.until >= (m.month + interval '1 month') at time zone 'UTC') as covered
    from   generate_series(date_trunc('month', now() at time zone 'UTC'), date_trunc('month', now() at time zone 'UTC') + interval '3 months', interval '1 month') as m (month)`
  const [{ strays } = { strays: '0' }] = await sql<{ strays: string }[]>`select coalesce(sum(rows_in_default), 0) as strays from tracking.partition_report`
  const fix = 'select tracking.make_partitions();'
  const bare = months.filter(({ covered }) => !covered).map(({ month }) => month)
  if (months[0]?.covered === false) return error(`this month has no partition (${bare.join(', ')})`, fix)
  if (strays !== '0') return warning(`${strays} events lie in the default partition`, fix)
  if (months[1]?.covered === false) return warning(`next month has no partition (${bare.join(', ')})`, fix)
  return ok(`made up to ${months.filter(({ covered }) => covered).at(-1)?.month}, none of the events in the default one`)
}

const rowSecurity: Check = async (sql, chapters) => {
  const tables = chapters.flatMap((chapter) => chapter.tables)
  const open = await sql<{ name: string }[]>`
    select c.oid::regclass::text as name
    from   pg_class as c
    join   pg_namespace as n on n.oid = c.relnamespace
    where  c.relkind in ('r', 'p')
    and    not c.relrowsecurity
    and    (n.nspname = 'tracking' or n.nspname || '.' || c.relname = any (${tables}))
    order  by 1`
  if (open.length > 0) {
    const names = open.map(({ name }) => (name.includes('.') ? name : `public.${name}`))
    return error(`off for ${some(names)}`, names.map((name) => `alter table ${name} enable row level security;`).join(' '))
  }
  const expected = chapters.flatMap(({ file, policies }) => policies.map((policy) => ({ ...policy, file })))
  const policies = await sql<{ name: string, table: string }[]>`
    select policyname as name, schemaname || '.' || tablename as table from pg_policies
    union all
    select null, n.nspname || '.' || c.relname from pg_class as c join pg_namespace as n on n.oid = c.relnamespace`
  const has = (table: string, name: string | null) => policies.some((policy) => policy.table === table && policy.name === name)
  const lost = expected.filter(({ table, name }) => table.startsWith('public.') && has(table, null) && !has(table, name))
  if (lost.length > 0) {
    return error(`on, but without the policy ${some(lost.map(({ table, name }) => `"${name}" on ${table}`))}`,
      `Run its "create policy" of ${some([...new Set(lost.map(({ file }) => file))])}.`)
  }
  const foreign = policies.filter(({ table, name }) => table === 'public.events' && name !== null && !expected.some((policy) => policy.name === name))
  if (foreign.length > 0) {
    return warning(`on, but a policy that is not Actorscope's may open the log: ${some(foreign.map(({ name }) => `"${name}"`))}`,
      foreign.map(({ name }) => `drop policy "${name}" on public.events;`).join(' '))
  }
  return ok('on for every table, with Actorscope\'s policies')
}

const clients = ['public', 'anon', 'authenticated']

const grants: Check = async (sql, chapters) => {
  const wanted = chapters.flatMap((chapter) => chapter.grants).filter(({ role }) => clients.includes(role))
  const names = chapters.flatMap(({ tables, functions }) => [...tables, ...functions.map(({ name }) => name)])
  const { given, functions, existing } = await readGrants(sql, names)
  const covers = (all: Grant[], { object, role, privilege, column }: Grant) => all.some((grant) =>
    grant.object === object && grant.role === role && grant.privilege === privilege && (grant.column === undefined || grant.column === column))
  const excess = given.filter((grant) => !covers(wanted, grant))
  const lack = wanted.filter((grant) => existing.has(grant.object) && !covers(given, grant))
  if (excess.length === 0 && lack.length === 0) return ok('clients have what the chapters grant them, and no more')

  const touched = [...new Set(excess.map(({ object, role }) => `${object} ${role}`))].map((pair) => pair.split(' ') as [string, string])
  const fix = [
    ...touched.map(([object, role]) => `revoke all on ${functions.has(object) ? 'function ' : ''}${object} from ${role};`),
    ...asStatements([...lack, ...wanted.filter(({ object, role }) => touched.some(([o, r]) => o === object && r === role))], functions),
  ].join(' ')
  const say = (list: Grant[]) => some([...new Set(list.map(({ object, role, privilege }) => `${privilege.toLowerCase()} on ${object} to ${role}`))])
  const inside = excess.filter(({ object }) => !object.startsWith('public.'))
  if (inside.length > 0) return error(`clients may reach into the machinery: ${say(inside)}`, fix)
  if (lack.length > 0) return error(`clients lack ${say(lack)}`, fix)
  return warning(`clients were given more than the chapters do: ${say(excess)}; the policies still hold`, fix)
}

/** What clients were given of ours; column by column, where not the whole table was. */
async function readGrants(sql: Sql, names: string[]) {
  const rows = await sql<{ object: string, kind: string, role: string | null, privilege: string | null, column: string | null }[]>`
    with ours as (
      select n.nspname || '.' || c.relname as object, 'table' as kind, c.oid, c.relacl as acl
      from   pg_class as c
      join   pg_namespace as n on n.oid = c.relnamespace
      where  c.relkind in ('r', 'p', 'v', 'm')
      union all
      select n.nspname || '.' || p.proname, 'function', p.oid, coalesce(p.proacl, acldefault('f', p.proowner))
      from   pg_proc as p
      join   pg_namespace as n on n.oid = p.pronamespace
    ),
    given as (
      select o.object, o.kind, a.grantee, a.privilege_type, null as column
      from   ours as o, aclexplode(o.acl) as a
      union all
      select o.object, o.kind, a.grantee, a.privilege_type, t.attname
      from   ours as o
      join   pg_attribute as t on o.kind = 'table' and t.attrelid = o.oid, aclexplode(t.attacl) as a
    )
    select o.object, o.kind, g.role, g.privilege_type as privilege, g.column
    from   ours as o
    left   join (
      select given.*, case given.grantee when 0 then 'public' else r.rolname end as role
      from   given
      left   join pg_roles as r on r.oid = given.grantee
    ) as g on g.object = o.object and g.role = any (${clients})
    where  o.object = any (${names}) or split_part(o.object, '.', 1) in ('tracking', 'app', 'org')`
  const given = rows.flatMap(({ object, role, privilege, column }): Grant[] =>
    (role && privilege ? [{ object, role, privilege, ...(column && { column }) }] : []))
  return {
    given,
    functions: new Set(rows.filter(({ kind }) => kind === 'function').map(({ object }) => object)),
    existing: new Set(rows.map(({ object }) => object)),
  }
}

function asStatements(list: Grant[], functions: Set<string>): string[] {
  const columns = new Map<string, string[]>()
  for (const { object, role, privilege, column } of list) {
    const key = [privilege.toLowerCase(), object, role].join(' ')
    columns.set(key, [...columns.get(key) ?? [], ...(column ? [column] : [])])
  }
  return [...columns].map(([key, names]) => {
    const [privilege = '', object = '', role = ''] = key.split(' ')
    return `grant ${privilege}${names.length > 0 ? ` (${[...new Set(names)].join(', ')})` : ''} on ${functions.has(object) ? 'function ' : ''}${object} to ${role};`
  })
}

const searchPaths: Check = async (sql, chapters) => {
  const names = chapters.flatMap(({ functions }) => functions.map(({ name }) => name))
  const loose = await sql<{ signature: string }[]>`
    select p.oid::regprocedure::text as signature
    from   pg_proc as p
    join   pg_namespace as n on n.oid = p.pronamespace
    where  (n.nspname in ('tracking', 'app', 'org') or n.nspname || '.' || p.proname = any (${names}))
    and    not exists (select from unnest(p.proconfig) as c (setting) where c.setting like 'search_path=%')
    order  by 1`
  if (loose.length === 0) return ok('pinned on every function')
  return error(`${some(loose.map(({ signature }) => signature))} would run what a caller puts in the way`,
    loose.map(({ signature }) => `alter function ${signature} set search_path = pg_catalog, pg_temp;`).join(' '))
}

const realtime: Check = async (sql) => {
  const [{ sends, listens } = { sends: false, listens: false }] = await sql<{ sends: boolean, listens: boolean }[]>`
    select to_regprocedure('realtime.send(jsonb, text, text, boolean)') is not null as sends,
           exists (select from pg_policies where schemaname = 'realtime' and policyname = 'people hear the console of their own orgs') as listens`
  if (!sends) return warning('there is no realtime.send, so notifyConsole shows nothing to anybody', 'Enable Realtime in Supabase\'s dashboard, then run the policy on realtime.messages of chapter 5.')
  if (!listens) return warning('nobody may listen to the consoles', 'Run the policy on realtime.messages of chapter 5, migrations/20260101000500_track_event.sql.')
  return ok('realtime.send is there, and people may listen to their consoles')
}

const cron: Check = async (sql, chapters) => {
  const wanted = chapters.flatMap(({ jobs }) => jobs)
  const [{ known } = { known: false }] = await sql<{ known: boolean }[]>`select to_regclass('cron.job') is not null as known`
  const byHand = wanted.map(({ statement }) => /'(select tracking[^']*)'/.exec(statement)?.[1]).join('; ')
  if (!known) return warning('there is no pg_cron, so nothing runs by itself', `create extension pg_cron; ${wanted.map(({ statement }) => `${statement};`).join(' ')} Or run every few minutes: ${byHand};`)
  const jobs = await sql<{ name: string, active: boolean }[]>`select jobname as name, active from cron.job`
  const idle = wanted.filter(({ name }) => !jobs.some((job) => job.name === name && job.active))
  if (idle.length > 0) return error(`not scheduled: ${some(idle.map(({ name }) => name))}`, idle.map(({ statement }) => `${statement};`).join(' '))
  return ok(`${wanted.length} jobs are scheduled`)
}

const apiLogins: Check = async (sql) => {
  const [settings] = await sql<{ logins: string[] }[]>`select api_logins::text[] as logins from tracking.settings`
  if (!settings) return error('tracking.settings is empty', 'insert into tracking.settings default values;')
  const rows = await sql<{ login: string, exists: boolean, can: boolean }[]>`
    select l.login, r.oid is not null as exists, coalesce(r.rolcanlogin, false) as can
    from   unnest(${settings.logins}::text[]) as l (login)
    left   join pg_roles as r on r.rolname = l.login
    order  by l.login`
  const take = (names: string[]) => names.map((name) => `update tracking.settings set api_logins = array_remove(api_logins, '${name}'::name);`).join(' ')
  // supabase_admin is named from the start, and a database that is no Supabase lacks it.
  const strangers = rows.filter(({ login, exists, can }) => login !== 'supabase_admin' && !(exists && can)).map(({ login }) => login)
  if (strangers.length > 0) return warning(`the settings believe ${strangers.join(', ')}, which cannot log in`, take(strangers))
  return ok(`the claims of ${['authenticator', ...settings.logins.filter((login) => login !== 'authenticator')].join(', ')} are believed`)
}

const deadLetters: Check = async (sql) => {
  const [{ letters, error: reason } = { letters: 0, error: null }] = await sql<{ letters: number, error: string | null }[]>`
    select count(*)::int as letters, (array_agg(error order by failed_at desc))[1] as error from tracking.dead_letters`
  if (letters === 0) return ok('none')
  return warning(`${letters} wait, the last for: ${reason}`, 'select * from tracking.retry_dead_letters();')
}

const clock: Check = async (sql) => {
  let [least, skew] = [Infinity, 0]
  for (let round = 0; round < 3; round++) {
    const before = Date.now()
    const [{ now } = { now: before }] = await sql<{ now: number }[]>`select extract(epoch from clock_timestamp())::float8 * 1000 as now`
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
  realtime, cron, 'API logins': apiLogins, 'dead letters': deadLetters, clock,
}
