import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { getAuthSchemaSql } from '@supabase/lite'
import { resolveBinary } from 'dbmate'
import postgres, { type Sql } from 'postgres'
import type { Demo } from './dashboard.ts'
import { StackError } from './errors.ts'
import { isLocal } from './local.ts'
import { projectDir } from './settings.ts'

/** The password of the embedded database's logins: it opens nothing but a stack on this machine. */
export const localPassword = 'postgres'

/** The login that the local API's requests come in by. */
const apiLogin = 'lite'

/** What a database turns out to be when it is asked. */
export type DatabaseKind = {
  /** `170010` for 17.10. */
  version: number
  /** A real Supabase: it has all that the stand-ins stand in for. */
  isSupabase: boolean
}

/**
 * Connects to a database and makes sure that the chapters can be applied to it.
 *
 * @throws {StackError} `database_unusable`, when it does not answer, or is no Postgres 15 to 18.
 */
export async function inspectDatabase(sql: Sql): Promise<DatabaseKind> {
  const [kind] = await sql<DatabaseKind[]>`
    select current_setting('server_version_num')::int as version,
           to_regrole('supabase_admin') is not null as "isSupabase"`.catch((cause: Error) => {
    const reason = cause.message || String(cause)
    throw new StackError('database_unusable', `The database does not answer: ${reason}`, { cause })
  })
  const major = Math.floor((kind?.version ?? 0) / 10_000)
  if (kind && major >= 15 && major <= 18) return kind
  throw new StackError('database_unusable', `The database is Postgres ${major}; Actorscope needs 15 to 18.`)
}

/**
 * Gives a plain Postgres what the chapters expect of a Supabase: `auth`'s tables, which are @supabase/lite's, and
 * the stand-ins. May be done any number of times.
 *
 * @param password lets the login `authenticator` in; without one it keeps its own, at first none
 */
export async function standIn(sql: Sql, password?: string): Promise<void> {
  await runScript(sql, getAuthSchemaSql())
  await runFile(sql, 'src/stand-ins.sql')
  if (password) await sql.unsafe(`alter role authenticator with password '${password}'`)
}

/** Runs a file of SQL, in one transaction. */
export async function runFile(sql: Sql, path: string): Promise<void> {
  await runScript(sql, await readFile(join(projectDir, path), 'utf8'))
}

async function runScript(sql: Sql, text: string): Promise<void> {
  await sql.unsafe(text).simple()
}

/**
 * Applies the chapters that have not been applied, with dbmate.
 *
 * @throws {StackError} `migration_failed`, with what Postgres said.
 */
export async function migrate(databaseUrl: string): Promise<void> {
  await promisify(execFile)(resolveBinary(), [
    '--url', withSslMode(databaseUrl), '--env-file', '',
    '--migrations-dir', join(projectDir, 'migrations'), '--migrations-table', 'dbmate.schema_migrations',
    '--no-dump-schema', 'migrate', '--strict',
  ]).catch((cause: Error & { stdout?: string, stderr?: string }) => {
    const said = `${cause.stdout?.trim().split('\n').at(-1) ?? ''}\n${cause.stderr || cause.message}`.trim()
    throw new StackError('migration_failed', `A chapter could not be applied. ${said}`, { cause })
  })
}

// dbmate asks for TLS unless it is told not to, and a Postgres on this machine seldom has it.
function withSslMode(databaseUrl: string): string {
  const url = new URL(databaseUrl)
  if (isLocal(databaseUrl) && !url.searchParams.has('sslmode')) url.searchParams.set('sslmode', 'disable')
  return url.href
}

/**
 * Makes sure that a database was made from the chapters as they are. Until 1.0 a chapter is edited in place, and
 * a database that is there already keeps what the chapter was before.
 *
 * @throws {StackError} `data_outdated`.
 */
export async function refuseOutdated(sql: Sql): Promise<void> {
  const [noted] = await sql<{ digest: string | null }[]>`
    select obj_description(to_regnamespace('dbmate'), 'pg_namespace') as digest`
  if (noted?.digest && noted.digest !== await chaptersDigest()) {
    throw new StackError('data_outdated', 'The chapters in migrations/ have changed since this database was made. ' +
      'Empty its folder (npm run reset), or make a new database where DATABASE_URL names one of your own.')
  }
}

/** Notes down which chapters a database was made from, for `refuseOutdated`. */
export async function noteChapters(sql: Sql): Promise<void> {
  await sql.unsafe(`comment on schema dbmate is '${await chaptersDigest()}'`)
}

async function chaptersDigest(): Promise<string> {
  const folder = join(projectDir, 'migrations')
  const hash = createHash('sha256')
  for (const file of (await readdir(folder)).sort()) hash.update(await readFile(join(folder, file)))
  return hash.digest('hex')
}

/**
 * Fills the demo world in, unless the database has organizations already.
 *
 * @param hasPast with half a year of events and builds
 */
export async function seedOnce(sql: Sql, hasPast = false): Promise<void> {
  const [{ seeded } = { seeded: true }] = await sql<{ seeded: boolean }[]>`
    select exists (select from public.orgs) as seeded`
  if (seeded) return
  await runFile(sql, 'seed.sql')
  if (hasPast) await runFile(sql, 'src/demo-past.sql')
}

/** What people of the demo world are offered to come in as, by the part of the address before the @. */
const roles: Record<string, string> = {
  ada: 'runs Acme and Demo', bob: 'looks at Acme', cyd: 'looks at one app of Acme', eve: 'runs Evil', nik: 'has no organization',
}

/** The people of the demo world; undefined, where the database has others. */
export async function demoOf(sql: Sql): Promise<Demo | undefined> {
  const people = await sql<{ id: string, email: string }[]>`
    select id::text, email from auth.users where id::text like '10000000-0000-4000-8000-00000000000_' order by id`
  if (people.length === 0) return undefined
  return { password: 'password', people: people.map(({ id, email }) => ({ id, email, about: roles[email.split('@')[0] ?? ''] ?? '' })) }
}

/**
 * Makes the API's login, and has the chapters believe what it says about who is calling.
 *
 * @param password anew at every call; none is kept from before
 * @returns the database's URL for that login
 */
export async function admitApi(sql: Sql, databaseUrl: string, password: string): Promise<string> {
  const [{ known } = { known: false }] = await sql<{ known: boolean }[]>`
    select to_regrole(${apiLogin}) is not null as known`
  await sql.unsafe(`${known ? 'alter' : 'create'} role ${apiLogin} with superuser login password '${password}'`)
  await sql`
    update tracking.settings
    set    api_logins = array_append(api_logins, ${apiLogin}::name)
    where  ${apiLogin}::name <> all (api_logins)`
  const url = new URL(databaseUrl)
  url.username = apiLogin
  url.password = password
  return url.href
}

/** Opens connections to a database; notices are not printed. */
export function connect(databaseUrl: string, options: postgres.Options<Record<string, never>> = {}): Sql {
  return postgres(databaseUrl, { onnotice: () => {}, ...options })
}
