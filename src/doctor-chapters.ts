// Checks that hold a database against the chapters as they are written.
import type { Sql } from 'postgres'
import type { Chapter, Grant } from './chapters.ts'
import { error, forEach, ok, some, warning, type Check } from './finding.ts'

/** What a project may replace by its own, and what only serves the tables behind that. */
const seam = [
  'tracking.actor', 'tracking.api_key', 'app.read', 'app.readable', 'app.build', 'app.manage', 'app.owner_org',
  'org.read', 'org.readable', 'org.manage', 'tracking.create_api_key', 'tracking.revoke_api_key',
  'public.create_api_key', 'public.revoke_api_key', 'org.name', 'app.name', 'org.admins', 'tracking.email',
  'tracking.person_known_as', 'org.known_as',
  'tracking.forget_actor', 'tracking.forget_org',
]

/** The chapters are applied, and as they are now: each of their functions has the body that it has there. */
export const migrations: Check = async (sql, chapters) => {
  const bodies = await readBodies(sql)
  const recorded = await readVersions(sql)
  const missing = chapters.filter(({ version, functions }) =>
    (recorded ? !recorded.versions.has(version) : functions.every(({ name }) => !bodies.has(name))))
  if (missing.length > 0) {
    const applied = `${chapters.length - missing.length} of ${chapters.length} chapters are applied`
    return error(`${applied}; missing: ${some(missing.map(({ file }) => file))}`, recorded?.tool === 'dbmate'
      ? 'dbmate --strict --migrations-table dbmate.schema_migrations up' : 'npx supabase db push')
  }
  const others = chapters.flatMap(({ file, functions }) => functions
    .filter(({ name, body }) => bodies.get(name) !== body)
    .map(({ name }) => ({ file, name })))
  const outdated = others.filter(({ name }) => !seam.includes(name))
  if (outdated.length > 0) {
    const files = some([...new Set(outdated.map(({ file }) => file))])
    const names = some(outdated.map(({ name }) => name))
    return error(`all chapters are applied, but not as they are now: ${files} (${names})`,
      'Apply the present text of these functions, or start with a new database; on the local stack, empty its folder.')
  }
  const replaced = others.length > 0 ? `; replaced by your own: ${others.map(({ name }) => name).join(', ')}` : ''
  return ok(`all ${chapters.length} chapters are applied${replaced}`)
}

async function readBodies(sql: Sql): Promise<Map<string, string>> {
  const rows = await sql<{ name: string, body: string }[]>`
    select n.nspname || '.' || p.proname as name, p.prosrc as body
    from   pg_proc as p
    join   pg_namespace as n on n.oid = p.pronamespace`
  return new Map(rows.map(({ name, body }) => [name, body]))
}

type Applied = { tool: string, versions: Set<string> }

/** What the tools that apply chapters have noted down; nothing, where none has. */
async function readVersions(sql: Sql): Promise<Applied | undefined> {
  const tables = { dbmate: 'dbmate.schema_migrations', supabase: 'supabase_migrations.schema_migrations' }
  for (const [tool, table] of Object.entries(tables)) {
    const [found] = await sql<{ known: boolean }[]>`select to_regclass(${table}) is not null as known`
    if (!found?.known) continue
    const rows = await sql<{ version: string }[]>`select version from ${sql(table)}`
    if (rows.length > 0) return { tool, versions: new Set(rows.map(({ version }) => version)) }
  }
  return undefined
}

/** Every table has row-level security, with the chapters' policies, and the log has no other. */
export const rowSecurity: Check = async (sql, chapters) => {
  const open = await readOpenTables(sql, chapters)
  if (open.length > 0) {
    return error(`off for ${some(open)}`, forEach(open, (name) => `alter table ${name} enable row level security`))
  }
  const wanted = chapters.flatMap(({ file, policies }) => policies.map((policy) => ({ ...policy, file })))
  const there = await sql<{ table: string, name: string | null }[]>`
    select n.nspname || '.' || c.relname as table, p.polname as name
    from   pg_class as c
    join   pg_namespace as n on n.oid = c.relnamespace
    left   join pg_policy as p on p.polrelid = c.oid
    where  n.nspname = 'public'`
  const has = (table: string, name: string) => there.some((policy) => policy.table === table && policy.name === name)
  const lost = wanted.filter(({ table, name }) => there.some((policy) => policy.table === table) && !has(table, name))
  if (lost.length > 0) {
    return error(`on, but without the policy ${some(lost.map(({ table, name }) => `"${name}" on ${table}`))}`,
      `Run its "create policy" of ${some([...new Set(lost.map(({ file }) => file))])}.`)
  }
  const foreign = there.flatMap(({ table, name }) =>
    (table === 'public.events' && name !== null && !wanted.some((policy) => policy.name === name) ? [`"${name}"`] : []))
  if (foreign.length > 0) {
    return warning(`on, but a policy that is not Actorscope's may open the log: ${some(foreign)}`,
      forEach(foreign, (name) => `drop policy ${name} on public.events`))
  }
  return ok('on for every table, with Actorscope\'s policies')
}

async function readOpenTables(sql: Sql, chapters: Chapter[]): Promise<string[]> {
  const rows = await sql<{ name: string }[]>`
    select n.nspname || '.' || c.relname as name
    from   pg_class as c
    join   pg_namespace as n on n.oid = c.relnamespace
    where  c.relkind in ('r', 'p')
    and    not c.relrowsecurity
    and    (n.nspname = 'tracking' or n.nspname || '.' || c.relname = any (${chapters.flatMap(({ tables }) => tables)}))
    order  by 1`
  return rows.map(({ name }) => name)
}

/** Every function pins its search path. */
export const searchPaths: Check = async (sql, chapters) => {
  const names = chapters.flatMap(({ functions }) => functions.map(({ name }) => name))
  const rows = await sql<{ signature: string }[]>`
    select p.oid::regprocedure::text as signature
    from   pg_proc as p
    join   pg_namespace as n on n.oid = p.pronamespace
    where  (n.nspname in ('tracking', 'app', 'org') or n.nspname || '.' || p.proname = any (${names}))
    and    not exists (select from unnest(p.proconfig) as c (setting) where c.setting like 'search_path=%')
    order  by 1`
  const loose = rows.map(({ signature }) => signature)
  if (loose.length === 0) return ok('pinned on every function')
  return error(`${some(loose)} would run what a caller puts in the way`,
    forEach(loose, (signature) => `alter function ${signature} set search_path = pg_catalog, pg_temp`))
}

const clients = ['public', 'anon', 'authenticated']

/**
 * Clients have what the chapters grant them: no less, and no more. More on a table in public is a warning, since its
 * policies still hold; many projects run "grant all".
 */
export const grants: Check = async (sql, chapters) => {
  const wanted = chapters.flatMap((chapter) => chapter.grants).filter(({ role }) => clients.includes(role))
  const names = chapters.flatMap(({ tables, functions }) => [...tables, ...functions.map(({ name }) => name)])
  const { given, kinds } = await readGrants(sql, names)
  const excess = given.filter((grant) => !covers(wanted, grant))
  const lack = wanted.filter((grant) => kinds.has(grant.object) && !covers(given, grant))
  const fix = fixOf(excess, lack, wanted, kinds)
  const inside = excess.filter(({ object }) => !object.startsWith('public.'))
  if (inside.length > 0) return error(`clients may reach into the machinery: ${asList(inside)}`, fix)
  if (lack.length > 0) return error(`clients lack ${asList(lack)}`, fix)
  if (excess.length === 0) return ok('clients have what the chapters grant them, and no more')
  return warning(`clients were given more than the chapters do: ${asList(excess)}; the policies still hold`, fix)
}

function covers(grants: Grant[], { object, role, privilege, column }: Grant): boolean {
  return grants.some((grant) => grant.object === object && grant.role === role && grant.privilege === privilege
    && (grant.column === undefined || grant.column === column))
}

function asList(grants: Grant[]): string {
  const lines = grants.map(({ object, role, privilege }) => `${privilege.toLowerCase()} on ${object} to ${role}`)
  return some([...new Set(lines)])
}

type Kind = 'table' | 'function'
type Kinds = Map<string, Kind>
/** An object of ours, and what it was granted; nulls, where nothing. */
type GrantRow = { object: string, kind: Kind, role: string | null, privilege: string | null, column: string | null }

/** What clients were given of ours, column by column where not the whole table was; and what there is. */
async function readGrants(sql: Sql, names: string[]): Promise<{ given: Grant[], kinds: Kinds }> {
  const rows = await sql<GrantRow[]>`
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
      select o.object, a.grantee, a.privilege_type as privilege, null as column
      from   ours as o, aclexplode(o.acl) as a
      union all
      select o.object, a.grantee, a.privilege_type, t.attname
      from   ours as o
      join   pg_attribute as t on o.kind = 'table' and t.attrelid = o.oid, aclexplode(t.attacl) as a
    ),
    named as (
      select g.*, case g.grantee when 0 then 'public' else r.rolname end as role
      from   given as g
      left   join pg_roles as r on r.oid = g.grantee
    )
    select o.object, o.kind, g.role, g.privilege, g.column
    from   ours as o
    left   join named as g on g.object = o.object and g.role = any (${clients})
    where  o.object = any (${names})
    or     split_part(o.object, '.', 1) in ('tracking', 'app', 'org')`
  const given = rows.flatMap(({ object, role, privilege, column }) =>
    (role && privilege ? [{ object, role, privilege, ...(column && { column }) }] : []))
  return { given, kinds: new Map(rows.map(({ object, kind }) => [object, kind])) }
}

/** Takes away all of what holds too much, and grants anew what belongs there. */
function fixOf(excess: Grant[], lack: Grant[], wanted: Grant[], kinds: Kinds): string {
  const place = ({ object, role }: Grant) => (
    { on: `${kinds.get(object) === 'function' ? 'function ' : ''}${object}`, role })
  const key = (grant: Grant) => `${grant.object} ${grant.role}`
  const touched = new Map(excess.map((grant) => [key(grant), place(grant)]))
  const statements = new Map<string, { columns: Set<string>, privilege: string, on: string, role: string }>()
  for (const grant of [...lack, ...wanted.filter((one) => touched.has(key(one)))]) {
    const id = `${key(grant)} ${grant.privilege}`
    const privilege = grant.privilege.toLowerCase()
    const statement = statements.get(id) ?? { columns: new Set(), privilege, ...place(grant) }
    if (grant.column) statement.columns.add(grant.column)
    statements.set(id, statement)
  }
  return [
    ...[...touched.values()].map(({ on, role }) => `revoke all on ${on} from ${role};`),
    ...[...statements.values()].map(({ columns, privilege, on, role }) =>
      `grant ${privilege}${columns.size > 0 ? ` (${[...columns].join(', ')})` : ''} on ${on} to ${role};`),
  ].join(' ')
}
