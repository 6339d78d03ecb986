import { randomBytes } from 'node:crypto'
import type { Sql, TransactionSql } from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { connect } from '../src/database.ts'
import { orgs, people, uuidV7 } from './demo.ts'
import { as, become, failureOf, person, trackEvent, type Caller } from './sessions.ts'
import { asLogin, cloneDatabase, templates, type Clone } from './world.ts'

// Somebody with an SQL login of their own can set any setting, the Data API's request.jwt.claims and
// request.headers among them. Each of these logins pretends to be Ada in every way there is.

let clone: Clone
let sql: Sql
const suffix = randomBytes(4).toString('hex')
const connections: Sql[] = []
const logins: string[] = []

const pretences: Record<string, Pick<Caller, 'sub' | 'headers'>> = {
  'her claims': { sub: people.ada },
  'her API key': { headers: { 'x-api-key': 'as_local_acme_admin' } },
  'her API key in the old header': { headers: { capgkey: 'as_local_acme_admin' } },
  'both': { sub: people.ada, headers: { 'x-api-key': 'as_local_acme_admin' } },
}

beforeAll(async () => {
  clone = await cloneDatabase(templates.world)
  sql = connect(clone.databaseUrl, { max: 2 })
  const authenticator = connectAs('authenticator')
  await as(authenticator, person(people.ada), async (tx) => {
    await trackEvent(tx, { event: 'Hers', tracking_version: 2 })
    await trackEvent(tx, { event: 'Acme\'s', tracking_version: 2, org_id: orgs.acme })
    await tx`select request_build('com.acme.app', 'ios')`
  })
})

afterAll(async () => {
  await Promise.all(connections.map((connection) => connection.end({ timeout: 1 })))
  for (const login of logins) await sql.unsafe(`drop owned by ${login}; drop role ${login}`).simple()
  await sql.end({ timeout: 1 })
  await clone.drop()
})

describe.each(Object.entries(pretences))('with %s', (_pretence, claim) => {
  test.each([
    { member: 'authenticated', takes: 'authenticated' },
    { member: 'authenticated', takes: undefined },
    { member: 'anon', takes: 'anon' },
    { member: 'authenticator', takes: 'authenticated' },
    { member: 'authenticator', takes: 'anon' },
  ])('a login granted $member that takes the role $takes is nobody', async ({ member, takes }) => {
    const login = await createLogin(member)
    const before = await everything()
    const tryTo = (work: (tx: TransactionSql) => Promise<unknown>) => failureOf(pretend(login, takes, claim, work))

    expect(await tryTo((tx) => trackEvent(tx, { event: 'Forged' }))).toMatchObject({ code: 'PT401' })
    expect(await tryTo((tx) => tx`select track_events('[{"event": "Forged"}]')`)).toMatchObject({ code: 'PT401' })
    expect(await tryTo((tx) => tx`select request_build('com.acme.app', 'ios')`)).toMatchObject({ code: 'PT401' })
    expect(await tryTo((tx) => tx`select create_api_key('Forged', 'admin', ${orgs.acme})`)).toMatchObject({ code: 'PT401' })
    expect(await tryTo((tx) => tx`select revoke_api_key('20000000-0000-4000-8000-000000000001')`)).toMatchObject({ code: 'PT401' })
    expect(await tryTo((tx) => insertEvent(tx, people.ada, null))).toMatchObject({ code: '42501' })
    expect(await tryTo((tx) => insertEvent(tx, orgs.acme, orgs.acme))).toMatchObject({ code: '42501' })
    expect(await tryTo((tx) => tx`insert into build_requests (app_id, platform) values ('com.acme.app', 'ios')`))
      .toMatchObject({ code: '42501' })
    expect(await pretend(login, takes, claim, whatIsVisible)).toEqual(
      { events: 0, orgs: 0, apps: 0, api_keys: 0, builds: 0, actor: null, api_key: null, acme: false })
    expect(await everything()).toEqual(before)
  })

  test('a login granted nothing may not even ask', async () => {
    const login = await createLogin()
    for (const statement of [
      `select track_event('{"event": "Forged"}')`, 'select count(*) from events', 'select tracking.actor()',
      `insert into events (event) values ('Forged')`, 'select * from tracking.settings',
    ]) {
      expect(await failureOf(pretend(login, undefined, claim, (tx) => tx.unsafe(statement)))).toMatchObject({ code: '42501' })
    }
  })
})

test('a login granted authenticated cannot become the service role, nor the API\'s login', async () => {
  const login = await createLogin('authenticated')
  expect(await failureOf(login`set role service_role`)).toMatchObject({ code: '42501' })
  expect(await failureOf(login`set session authorization authenticator`)).toMatchObject({ code: '42501' })
  expect(await failureOf(login`update tracking.settings set api_logins = array[session_user]`)).toMatchObject({ code: '42501' })
})

test('a login that the settings name is believed, as a backend that verifies tokens itself', async () => {
  const login = await createLogin('authenticated')
  const [{ name } = { name: '' }] = await login<{ name: string }[]>`select session_user as name`
  await sql`update tracking.settings set api_logins = array_append(api_logins, ${name}::name)`
  expect(await pretend(login, 'authenticated', { sub: people.ada }, whatIsVisible)).toMatchObject(
    { actor: people.ada, acme: true, orgs: 2 })
})

test('a login cannot have its own code run by ours, with types or tables of the same names in pg_temp', async () => {
  const login = await createLogin('authenticated')
  await login.unsafe(shadows).simple()
  const tries = [
    `select public.track_event('{"event": "x", "org_id": "${orgs.acme}", "tags": {"app_id": "com.acme.app"}, "timestamp": "2026-01-01"}')`,
    `select public.track_events('[{"event": "x", "event_id": "y"}]')`,
    `select public.request_build('com.acme.app', 'ios')`,
    `select public.create_api_key('x', 'admin', '${orgs.acme}')`,
    `select public.revoke_api_key('20000000-0000-4000-8000-000000000001')`,
    `select public.set_build_limit('com.acme.app', 900)`,
    `select app.read('com.acme.app'), app.build('com.acme.app'), app.manage('com.acme.app')`,
    `select org.read('${orgs.acme}'), org.manage('${orgs.acme}')`,
    'select * from org.readable(), app.readable()',
    'select tracking.actor(), tracking.api_key(), tracking.source(), tracking.is_service()',
    'select count(*) from public.events',
    `insert into public.build_requests (app_id, platform) values ('com.acme.app', 'ios')`,
    `insert into public.events (scope_id, occurred_at, event_id, event)
     select '${people.ada}', tracking.event_time(id), id, 'x' from (values ('${uuidV7()}'::pg_catalog.uuid)) as v (id)`,
  ]
  for (const statement of tries) {
    const answer = pretend(login, undefined, { sub: people.ada }, (tx) => tx.unsafe(statement))
    await answer.catch((error: { code: string }) => { expect(error.code, statement).toMatch(/^(PT4..|42...)$/) })
    const [{ foreign } = { foreign: true }] = await login`select is_called as foreign from pg_temp.runs_as_another`
    expect(foreign, statement).toBe(false)
  }
})

// Types with the names of the built-in ones, and tables with the names of ours, whose code notes down when it runs
// as somebody else: by a sequence, since that stays drawn from when the transaction is rolled back.
const types = ['text', 'uuid', 'jsonb', 'name', 'timestamptz', 'bytea', 'xid8', 'float8', 'int8', 'int4', 'bool']
const tables = ['orgs', 'apps', 'api_keys', 'events', 'build_requests', 'settings', 'errors', 'role_bindings', 'sent']
const shadows = `
  create sequence pg_temp.runs_as_another;
  create function pg_temp.note_down() returns pg_catalog.bool language plpgsql as $$
  begin
    if current_user <> session_user then
      perform nextval('pg_temp.runs_as_another');
    end if;
    return true;
  end $$;
  ${tables.map((table) => `create temp view ${table} as select pg_temp.note_down();`).join('\n')}
  ${types.map((type) => `create domain pg_temp.${type} as pg_catalog.${type} check (pg_temp.note_down());`).join('\n')}
`

async function createLogin(member?: string): Promise<Sql> {
  const login = `login_${suffix}_${logins.length}`
  logins.push(login)
  await sql.unsafe(`create role ${login} login password 'postgres'`)
  if (member) await sql.unsafe(`grant ${member} to ${login}`)
  return connectAs(login)
}

function connectAs(login: string): Sql {
  const connection = connect(asLogin(clone.databaseUrl, login), { max: 1 })
  connections.push(connection)
  return connection
}

/** Does work in a transaction that pretends to be a request of somebody else's. */
async function pretend<T>(
  login: Sql, role: string | undefined, claim: Pick<Caller, 'sub' | 'headers'>, work: (tx: TransactionSql) => Promise<T>,
): Promise<T> {
  return await login.begin(async (tx) => {
    await tx`select set_config('request.jwt.claim.sub', ${claim.sub ?? ''}, true)`
    if (role) await become(tx, { ...claim, role: role as Caller['role'] })
    else await pretendOnly(tx, claim)
    return work(tx)
  }) as T
}

async function pretendOnly(tx: TransactionSql, { sub, headers = {} }: Pick<Caller, 'sub' | 'headers'>): Promise<void> {
  await tx`select
    set_config('request.jwt.claims', ${JSON.stringify({ role: 'authenticated', sub })}, true),
    set_config('request.headers', ${JSON.stringify(headers)}, true)`
}

async function insertEvent(tx: TransactionSql, scope: string, org: string | null): Promise<void> {
  const id = uuidV7()
  await tx`insert into public.events (scope_id, occurred_at, event_id, org_id, event)
    values (${scope}, tracking.event_time(${id}), ${id}, ${org}, 'Forged')`
}

async function whatIsVisible(tx: TransactionSql): Promise<object> {
  const [row] = await tx`select
    (select count(*)::int from public.events) as events,
    (select count(*)::int from public.orgs) as orgs,
    (select count(*)::int from public.apps) as apps,
    (select count(id)::int from public.api_keys) as api_keys,
    (select count(*)::int from public.build_requests) as builds,
    tracking.actor() as actor,
    tracking.api_key() as api_key,
    org.read(${orgs.acme}) as acme`
  return { ...row }
}

/** Everything that could have been written to. */
async function everything(): Promise<object> {
  const [row] = await sql`select
    (select jsonb_agg(e order by event_id) from public.events as e) as events,
    (select jsonb_agg(b order by id) from public.build_requests as b) as builds,
    (select jsonb_agg(k order by id) from public.api_keys as k) as keys,
    (select jsonb_agg(d) from tracking.dead_letters as d) as dead_letters`
  return { ...row }
}
