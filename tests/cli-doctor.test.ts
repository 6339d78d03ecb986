import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Sql } from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { secretKey, startApi, type Api } from '../src/api.ts'
import { readChapters } from '../src/chapters.ts'
import { connect, localPassword, standIn } from '../src/database.ts'
import { examine } from '../src/doctor.ts'
import type { Finding } from '../src/finding.ts'
import { freePort, startPostgres, type PostgresServer } from '../src/postgres.ts'
import { run } from './cli.ts'
import { asLogin, furnish, inDatabase, temporaryFolder } from './world.ts'

// A server of its own: what is broken here, roles above all, belongs to the whole server.
let folder: { path: string, remove(): Promise<void> }
let server: PostgresServer
let admin: Sql
let api: Api
let serverUrl: string
const count = (await readChapters()).length

beforeAll(async () => {
  folder = await temporaryFolder()
  server = await startPostgres({ port: await freePort(), dataDir: folder.path, parameters: { fsync: 'off' } })
  serverUrl = `postgres://postgres:${localPassword}@127.0.0.1:${server.port}/postgres`
  admin = connect(serverUrl, { max: 1 })
  await admin`create database healthy`
  await inOne('healthy', (sql) => furnish(sql, databaseUrl('healthy')))
  api = await startApi({ port: await freePort(), databaseUrl: asLogin(databaseUrl('healthy'), 'lite') })
})
afterAll(async () => {
  await api?.stop()
  await admin?.end()
  await server?.stop()
  await folder?.remove()
})

describe('a healthy installation', () => {
  test('has a line for each check, and exits 0', async () => {
    const { code, stdout, stderr } = await doctor('healthy')
    expect(stderr).toBe('')
    expect(stdout.trim().split('\n').map((line) => line.slice(0, 16).trim())).toEqual([
      '✓ connection', '✓ version', '✓ migrations', '✓ roles', '✓ partitions', '✓ row security', '✓ grants', '✓ search paths',
      '✓ realtime', '! cron', '✓ API logins', '✓ dead letters', '✓ sinks', '✓ erasures', '✓ clock', '✓ Data API',
    ])
    expect(code).toBe(0)
  })

  test('is told as JSON where asked', async () => {
    const { stdout } = await doctor('healthy', {}, '--json')
    expect(stdout.trim().split('\n').map((line) => JSON.parse(line)).find(({ check }) => check === 'migrations')).toEqual({
      check: 'migrations', verdict: 'ok', finding: `all ${count} chapters are applied` })
  })

  test('with pg_cron and every credential in order has no warning', async () => {
    const { code, stdout } = await doctor(await broken(cronWithJobs), {
      ACTORSCOPE_SECRET_KEY: secretKey, ACTORSCOPE_API_KEY: 'as_local_demo_app', ACTORSCOPE_EMAIL: 'bob@acme.test', ACTORSCOPE_PASSWORD: 'password' })
    expect(stdout).not.toMatch(/^[^✓]/m)
    expect(stdout).toMatch(/^✓ cron .* 5 jobs are scheduled$/m)
    expect(stdout.match(/^✓ (secret key|API key|sign-in)/gm)).toEqual(['✓ secret key', '✓ API key', '✓ sign-in'])
    expect(code).toBe(0)
  })

  test('may have the functions of the seam replaced by its own', async () => {
    expect(await look(await broken(`
      create or replace function app.read(app_id text) returns boolean language plpgsql stable security definer
        set search_path = pg_catalog, pg_temp as 'begin return true; end'`), 'migrations')).toEqual({
      check: 'migrations', verdict: 'ok', finding: `all ${count} chapters are applied; replaced by your own: app.read` })
  })
})

// A little pg_cron: what it shows, and how jobs are made.
const cronExtension = `
  create schema cron;
  create table cron.job (jobname text, schedule text, command text, active boolean default true);
  create function cron.schedule(name text, schedule text, command text) returns void language sql as
    $$ delete from cron.job where jobname = $1; insert into cron.job values ($1, $2, $3) $$;`
const cronWithJobs = `${cronExtension}
  select cron.schedule('actorscope-reconcile-builds', '* * * * *', 'select tracking.reconcile_builds()');
  select cron.schedule('actorscope-roll-up', '* * * * *', 'select tracking.roll_up(200000)');
  select cron.schedule('actorscope-make-partitions', '17 * * * *', 'select tracking.make_partitions()');
  select cron.schedule('actorscope-apply-retention', '47 * * * *', 'select tracking.apply_retention()');
  select cron.schedule('actorscope-continue-erasures', '* * * * *', 'select tracking.continue_erasures()');`

describe('what is broken is told, with what to do; where that is SQL, it does', () => {
  test.each([
    ['roles', 'row-level security does not bind anon', 'error', 'alter role anon bypassrls'],
    ['roles', 'row-level security does not bind authenticated', 'error', 'alter role authenticated superuser'],
    ['roles', 'row-level security binds service_role', 'error', 'alter role service_role nobypassrls'],
    ['roles', 'authenticator, the Data API\'s login, may not become anon, service_role', 'error', 'revoke anon, service_role from authenticator'],
    ['partitions', /^this month has no partition \(\d{4}-\d\d\)$/, 'error',
      'do $$ begin execute format(\'drop table tracking.events_%s\', to_char(now() at time zone \'UTC\', \'YYYY_MM\')); end $$'],
    ['partitions', /^next month has no partition \(\d{4}-\d\d\)$/, 'warning',
      'do $$ begin execute format(\'drop table tracking.events_%s\', to_char(date_trunc(\'month\', now() at time zone \'UTC\') + interval \'1 month\', \'YYYY_MM\')); end $$'],
    ['partitions', '1 events lie in the default partition', 'warning',
      `select track_event('{"event":"Old","user_id":"10000000-0000-4000-8000-000000000001","tracking_version":2,"timestamp":"2001-01-01T00:00:00Z"}')`],
    ['row security', 'off for public.apps', 'error', 'alter table public.apps disable row level security'],
    ['row security', 'off for tracking.events_default, tracking.settings', 'error',
      'alter table tracking.settings disable row level security; alter table tracking.events_default disable row level security'],
    ['row security', 'on, but a policy that is not Actorscope\'s may open the log: "all of it"', 'warning',
      'create policy "all of it" on public.events for select using (true)'],
    ['grants', 'clients may reach into the machinery: select on tracking.dead_letters to anon', 'error',
      'grant select on tracking.dead_letters to anon'],
    ['grants', 'clients may reach into the machinery: execute on tracking.make_partitions to public', 'error',
      'grant execute on function tracking.make_partitions to public'],
    ['grants', /^clients were given more than the chapters do: .*the policies still hold$/, 'warning',
      'grant all on all tables in schema public to anon'],
    ['grants', 'clients were given more than the chapters do: select on public.api_keys to authenticated; the policies still hold', 'warning',
      'grant select (key_hash) on public.api_keys to authenticated'],
    ['grants', 'clients lack insert on public.events to authenticated', 'error', 'revoke insert on public.events from authenticated'],
    ['grants', 'clients lack execute on public.track_event to anon', 'error', 'revoke execute on function public.track_event from anon'],
    ['search paths', 'tracking.actor() would run what a caller puts in the way', 'error', 'alter function tracking.actor() reset search_path'],
    ['search paths', 'track_event(jsonb) would run what a caller puts in the way', 'error', 'alter function public.track_event(jsonb) reset all'],
    ['cron', 'not scheduled: actorscope-reconcile-builds, actorscope-roll-up, actorscope-make-partitions', 'error', cronExtension],
    ['cron', 'not scheduled: actorscope-make-partitions', 'error',
      `${cronWithJobs} update cron.job set active = false where command like '%partitions%'`],
    ['API logins', 'tracking.settings is empty', 'error', 'delete from tracking.settings'],
    ['API logins', 'the settings believe anon, nobody_here, which cannot log in', 'warning',
      `update tracking.settings set api_logins = '{authenticator,supabase_admin,nobody_here,anon}'`],
    ['dead letters', '1 wait, the last for: 53100 disk full', 'warning',
      `insert into tracking.dead_letters (event, error)
      select to_jsonb(e), '53100 disk full' from (select (jsonb_populate_record(null::public.events, jsonb_build_object(
        'scope_id', '10000000-0000-4000-8000-000000000001', 'actor_id', '10000000-0000-4000-8000-000000000001', 'event', 'Build Started', 'channel', 'build-lifecycle',
        'occurred_at', tracking.event_time('01a1f3a0-4c00-7000-8000-000000000001'), 'event_id', '01a1f3a0-4c00-7000-8000-000000000001', 'tags', '{}'::jsonb))).*) as e`],
  ] as const)('%s: %s', async (check, finding, verdict, damage) => {
    const database = await broken(damage)
    try {
      const found = await look(database, check)
      expect(found).toEqual({ check, verdict, finding: typeof finding === 'string' ? expect.stringContaining(finding) : expect.stringMatching(finding), fix: expect.any(String) })
      await inOne(database, (sql) => sql.unsafe(found.fix ?? ''))
      expect(await look(database, check)).toMatchObject({ check, verdict: 'ok' })
    } finally {
      await admin.unsafe(`
        alter role anon nosuperuser nobypassrls; alter role authenticated nosuperuser nobypassrls; alter role service_role bypassrls;
        grant anon, authenticated, service_role to authenticator`)
    }
  })

  test('migrations: chapters that were never applied', async () => {
    await admin`create database bare`
    await inOne('bare', (sql) => standIn(sql))
    const { code, stdout } = await doctor('bare')
    expect(code).toBe(1)
    expect(stdout).toMatch(new RegExp(`^✗ migrations {4}0 of ${count} chapters are applied; missing: migrations/20260101000100_tracking.sql, .* and ${count - 4} more {2}→ npx supabase db push$`, 'm'))
    expect(stdout).toMatch(/^✗ partitions {4}it cannot be seen: relation "public.events" does not exist {2}→ Apply the chapters that are missing/m)
  })

  test('migrations: one that is missing, by the record of dbmate and of the Supabase CLI', async () => {
    const missing = { check: 'migrations', verdict: 'error', finding: `${count - 1} of ${count} chapters are applied; missing: migrations/20260101000900_retention.sql` }
    const byDbmate = await broken('delete from dbmate.schema_migrations where version = \'20260101000900\'')
    expect(await look(byDbmate, 'migrations')).toEqual({ ...missing, fix: 'dbmate --strict --migrations-table dbmate.schema_migrations up' })
    const byCli = await broken(`
      create schema supabase_migrations;
      create table supabase_migrations.schema_migrations (version text primary key);
      insert into supabase_migrations.schema_migrations select version from dbmate.schema_migrations where version <> '20260101000900';
      drop schema dbmate cascade`)
    expect(await look(byCli, 'migrations')).toEqual({ ...missing, fix: 'npx supabase db push' })
  })

  test('migrations: one that was applied as it was before', async () => {
    const database = await broken(`
      create or replace function tracking.seconds_between(since timestamptz, until timestamptz) returns double precision
        language plpgsql immutable strict set search_path = pg_catalog, pg_temp as 'begin return 0; end'`)
    expect(await look(database, 'migrations')).toEqual({
      check: 'migrations', verdict: 'error',
      finding: 'all chapters are applied, but not as they are now: migrations/20260101000600_builds.sql (tracking.seconds_between)',
      fix: expect.stringContaining('new database') })
  })

  test('roles: one that is not there', async () => {
    await admin`alter role authenticator rename to somebody_else`
    try {
      const found = await look('healthy', 'roles')
      expect(found).toEqual({ check: 'roles', verdict: 'error', finding: 'missing: authenticator', fix: 'create role authenticator login noinherit;' })
    } finally {
      await admin`alter role somebody_else rename to authenticator`
    }
  })

  test('row security: a policy that was dropped', async () => {
    expect(await look(await broken('drop policy "people write events as themselves, for what they may read" on public.events'), 'row security')).toEqual({
      check: 'row security', verdict: 'error', finding: 'on, but without the policy "people write events as themselves, for what they may read" on public.events',
      fix: 'Run its "create policy" of migrations/20260101000400_events.sql.' })
  })

  test('realtime: no send, and nobody who may listen', async () => {
    expect(await look(await broken('drop function realtime.send'), 'realtime')).toMatchObject({ verdict: 'warning', finding: expect.stringContaining('there is no realtime.send') })
    expect(await look(await broken('drop policy "people hear the console of their own orgs" on realtime.messages'), 'realtime')).toMatchObject({
      verdict: 'warning', finding: 'nobody may listen to the consoles' })
  })

  test('version: a Postgres that is too old, or newer than any that is known', async () => {
    const stub = (name: string, number: number) => (async () => [{ name, number }]) as unknown as Sql
    const versionOf = async (sql: Sql) => (await examine(sql)).find(({ check }) => check === 'version')
    expect(await versionOf(stub('14.9', 140009))).toMatchObject({ verdict: 'error', finding: 'Postgres 14.9 is too old' })
    expect(await versionOf(stub('19.1', 190001))).toMatchObject({ verdict: 'warning' })
    expect(await versionOf(stub('18.0', 180000))).toEqual({ check: 'version', verdict: 'ok', finding: 'Postgres 18.0' })
  })

  test.each([[3600_000, '✗', 'ahead of'], [-60_000, '!', 'behind']])('clock: a machine that is %d ms off', async (offset, sign, direction) => {
    const shift = join(folder.path, 'shift.mjs')
    await writeFile(shift, `const now = Date.now; Date.now = () => now() + ${offset}`)
    const { stdout } = await doctor('healthy', { NODE_OPTIONS: `--import ${shift}` })
    expect(stdout).toMatch(new RegExp(`^\\${sign} clock .*this machine's clock is ${Math.abs(offset / 1000)}\\.\\d s ${direction} the database's`, 'm'))
  })

  // Events of an hour ago, and a sink that has them before it.
  const backlog = `
    insert into events (scope_id, actor_id, event, event_id, occurred_at, received_at)
    select a.id, a.id, 'Late', e.id, tracking.event_time(e.id), now() - interval '1 hour'
    from   (select '10000000-0000-4000-8000-000000000001'::uuid) as a (id), tracking.new_event_id(now() - interval '1 hour') as e (id);
    select tracking.create_sink('hook', 'webhook', '{"url": "http://127.0.0.1:1"}', from_beginning => true);`
  const failed = (failure: string) => `${backlog} commit;
    select ${failure} from tracking.lease_batch('hook', 'w') as b;`

  test.each([
    ['sinks that have nothing before them', 'ok', 'nothing is lost or late on the way to hook',
      `select tracking.create_sink('hook', 'webhook', '{}')`],
    ['a sink that nobody delivers to', 'warning', 'hook is 1 event behind, the oldest of 60 minutes ago', backlog],
    ['a disabled one that waits', 'ok', 'nothing is lost or late on the way to hook', `${backlog} update tracking.sinks set enabled = false`],
    ['a sink that fails', 'warning', 'hook fails, and its events wait: HTTP 503', failed(`tracking.fail_batch('hook', b.shard, b.lease, 'HTTP 503')`)],
    ['a sink that refused an event', 'warning', 'hook refused 1 event for good',
      failed(`tracking.complete_batch('hook', b.shard, b.lease, jsonb_build_array(jsonb_build_object('event', b.events -> 0, 'error', 'HTTP 400')))`)],
    ['books that do not balance', 'error', 'events of hook are missing in the books', `${backlog} update tracking.cursors set delivered = 1`],
    ['a restored log', 'error', 'the log was restored from another cluster, and waits', `update tracking.log set written_by = '3'`],
  ])('sinks: %s', async (_, verdict, finding, damage) => {
    expect(await look(await broken(damage), 'sinks')).toMatchObject({ verdict, finding })
  })

  const asked = `insert into tracking.erasures (subject, subject_id, subject_hash, asked_by, asked_at)
    values ('actor', '10000000-0000-4000-8000-000000000001', '\\x00', 'ada', now() - interval '2 hours');`
  test.each([
    ['one that nobody works on', '1 not done within an hour', asked],
    ['a sink that cannot be told', 'hook could not be told of 1: HTTP 503', `${asked} update tracking.erasures set erased_at = now();
      insert into tracking.erasure_notices (erasure, name, detail, tries, retry_at) select id, 'hook', 'HTTP 503', 2, now() from tracking.erasures`],
  ])('erasures: %s', async (_, finding, damage) => {
    expect(await look(await broken(damage), 'erasures')).toMatchObject({ verdict: 'warning', finding })
  })

  test('a login that may not look is a warning, with the one that may', async () => {
    await admin`create role peeper login password 'postgres'`
    const { stdout } = await doctor('healthy', { DATABASE_URL: asLogin(databaseUrl('healthy'), 'peeper') })
    expect(stdout).toMatch(/^! dead letters {2}this login may not look: permission denied .*→ Connect as the owner/m)
  })

  test('connection: a database that does not answer, a password that is wrong, and none; the API is looked at all the same', async () => {
    const nobody = await doctor('healthy', { DATABASE_URL: `postgres://postgres:hidden-word@127.0.0.1:${await freePort()}/x` })
    expect(nobody).toMatchObject({ code: 1, stdout: expect.stringMatching(/^✗ connection {4}connection_failed: The database 127\.0\.0\.1:\d+\/x cannot be reached: .*→ Check DATABASE_URL.*\n✓ Data API/) })
    const wrong = await doctor('healthy', { DATABASE_URL: asLogin(databaseUrl('healthy'), 'postgres', 'hidden-word') })
    expect(wrong.stdout).toMatch(/^✗ connection .*password authentication failed for user "postgres"/)
    expect(nobody.stdout + wrong.stdout).not.toContain('hidden-word')
    expect((await doctor('healthy', { DATABASE_URL: '' })).stdout).toMatch(/^✗ connection {4}setting_missing: DATABASE_URL is not set\./)
  })

  test('Data API: one that does not answer, a key it does not know, and a secret key where the publishable belongs', async () => {
    const apiLine = async (env: NodeJS.ProcessEnv) => /^. Data API.*$/m.exec((await doctor('healthy', env)).stdout)?.[0]
    expect(await apiLine({ ACTORSCOPE_URL: `http://127.0.0.1:${await freePort()}` })).toMatch(/^✗ Data API {6}network_error: .*→ Does the local stack run\?/)
    expect(await apiLine({ ACTORSCOPE_PUBLISHABLE_KEY: 'sb_publishable_wrong' })).toMatch(/^✗ Data API {6}unauthorized: .*→ Check ACTORSCOPE_PUBLISHABLE_KEY/)
    expect(await apiLine({ ACTORSCOPE_PUBLISHABLE_KEY: secretKey })).toMatch(/^✗ Data API {6}the publishable key is a secret one/)
  })

  test.each([
    ['secret key', { ACTORSCOPE_SECRET_KEY: 'sb_publishable_actorscope_local' }, 'it is accepted, but is no secret key'],
    ['secret key', { ACTORSCOPE_SECRET_KEY: 'sb_secret_wrong' }, 'unauthorized'],
    ['API key', { ACTORSCOPE_API_KEY: 'as_local_revoked' }, 'invalid_api_key'],
    ['access token', { ACTORSCOPE_ACCESS_TOKEN: 'a.b.c' }, ''],
    ['sign-in', { ACTORSCOPE_EMAIL: 'bob@acme.test', ACTORSCOPE_PASSWORD: 'wrong' }, 'invalid_credentials'],
  ])('%s: %j', async (check, env, finding) => {
    const { code, stdout } = await doctor('healthy', env)
    expect(stdout).toMatch(new RegExp(`^✗ ${check} +${finding}.*→`, 'm'))
    expect(code).toBe(1)
  })
})

function doctor(database: string, env: NodeJS.ProcessEnv = {}, ...flags: string[]) {
  return run(['doctor', ...flags], { env: { ACTORSCOPE_URL: api.url, DATABASE_URL: databaseUrl(database), ...env } })
}

const databaseUrl = (database: string): string => inDatabase(serverUrl, database)

async function inOne<T>(database: string, work: (sql: Sql) => Promise<T>): Promise<T> {
  const sql = connect(databaseUrl(database), { max: 1 })
  return work(sql).finally(() => sql.end())
}

/** What a check finds in a database. */
async function look(database: string, check: string): Promise<Finding> {
  const findings = await inOne(database, examine)
  return findings.find((finding) => finding.check === check)!
}

let clones = 0
/** A healthy database, damaged. */
async function broken(damage: string): Promise<string> {
  const name = `broken_${++clones}`
  // The API's connections would keep it from being copied.
  await admin.unsafe(`select pg_terminate_backend(pid) from pg_stat_activity where datname = 'healthy'`)
  await admin.unsafe(`create database ${name} template healthy`)
  await inOne(name, (sql) => sql.unsafe(damage).simple())
  return name
}
