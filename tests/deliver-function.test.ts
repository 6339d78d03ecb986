import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Sql } from 'postgres'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { projectDir } from '../src/settings.ts'
import { freePort } from '../src/postgres.ts'
import { people } from './demo.ts'
import { functionsDir, offline, startDeno } from './doors.ts'
import { jobsWithoutBuilder, startHook, startWorker, until, writeEvents, type Hook } from './workers.ts'
import { createWorld, type World } from './world.ts'

// The edge function `deliver` in real Deno, over a real database.

let world: World
let sql: Sql
let hook: Hook
let functions: Awaited<ReturnType<typeof startDeliver>>
/** The same, with four seconds for a run. */
let hurried: typeof functions

const entry = join(functionsDir, 'deliver/index.ts')
const [serviceKey, secretKey, ownSecret] = ['eyJ.service.role', 'sb_secret_abcdef123456', 'a-secret-of-its-own']
const sinkSecret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'

beforeAll(async () => {
  world = await createWorld()
  sql = world.sql
  hook = await startHook()
  ;[functions, hurried] = await Promise.all([startDeliver(), startDeliver({ DELIVER_SECONDS: '4' })])
})
beforeEach(async () => {
  await sql`delete from tracking.sinks`
  await sql`delete from tracking.jobs`
  await sql`truncate public.events`
  hook.clear()
  await sql`select tracking.create_sink('hook', 'webhook', ${sql.json({ url: hook.url })}, shards => 2)`
})
afterAll(async () => {
  await Promise.all([functions?.stop(), hurried?.stop()])
  await hook?.close()
  await world?.close()
})

const names = (count: number) => Array.from({ length: count }, (_, n) => `Event ${n + 1}`)
const taken = () => hook.taken.map(({ type }) => type)

test('it delivers what there is, does the jobs that are due, and says so', async () => {
  await writeEvents(sql, names(5))
  hook.answer = (response, { type }) => void response.writeHead(type === 'Event 3' ? 400 : 200).end('no')
  const { status, body } = await call()
  expect(status).toBe(200)
  expect(body).toMatchObject({
    status: 'ok', delivered: 4, undelivered: 1,
    sinks: { hook: { delivered: 4, undelivered: 1, result: 'delivered' } } })
  expect(body.jobs.map(({ job, error }: { job: string, error?: string }) => [job, error])).toEqual(
    jobsWithoutBuilder.filter((job) => job !== 'apply-retention').map((job) => [job, undefined])) // which may take long
  expect(taken()).toEqual(names(5).filter((name) => name !== 'Event 3'))
  expect(await sql`select * from tracking.delivery_gaps`).toEqual([])

  // And where nothing is to be done, it says that
  const idle = (await call()).body
  expect(idle).toMatchObject({ delivered: 0, sinks: { hook: { batches: 0, result: 'idle' } } })
  expect(idle.jobs.filter(({ job }: { job: string }) => job !== 'roll-up')).toEqual([]) // which is due again in seconds
})

test.each([
  ['nobody', {}],
  ['a wrong key', { authorization: 'Bearer eyJ.service.rolf' }],
  ['the beginning of a key', { authorization: 'Bearer eyJ.service' }],
  ['an empty key', { authorization: 'Bearer ' }],
  ['a key in another header', { 'x-api-key': serviceKey }],
])('%s may not call it', async (_, headers) => {
  await writeEvents(sql, ['First'])
  expect(await call(headers)).toMatchObject({ status: 401, body: { error: 'unauthenticated' } })
  expect(taken()).toEqual([])
})

test.each([
  ['the service role\'s key', { authorization: `Bearer ${serviceKey}` }],
  ['a secret key', { apikey: secretKey }],
  ['the secret of its own', { authorization: `Bearer ${ownSecret}` }],
])('%s opens it', async (_, headers) => {
  expect((await call(headers)).status).toBe(200)
})

test('it is called by POST', async () => {
  expect(await call(undefined, 'GET')).toMatchObject({ status: 405 })
})

test('a sink that is down is reported, is tried again later, and holds nobody up', async () => {
  await sql`select tracking.create_sink('down', 'webhook', '{"url": "http://127.0.0.1:1/x"}')`
  await sql`select tracking.create_sink('without', 'posthog')`
  await writeEvents(sql, names(2))
  const { body } = await call()
  expect(body.sinks).toMatchObject({
    hook: { delivered: 2 },
    down: { delivered: 0, result: 'failed', error: expect.any(String), retry_at: expect.any(String) },
    without: { result: 'failed', error: expect.stringContaining('has no api_key') },
  })
  expect(JSON.stringify(body)).not.toContain(sinkSecret)
})

test('it ends in time, however slow the sink, and hands on what is left', async () => {
  await writeEvents(sql, names(60), [people.ada])
  hook.answer = (response) => void setTimeout(() => response.end('{}'), 200)
  const { body } = await call(undefined, 'POST', hurried.url)
  expect(body.seconds).toBeLessThan(8)
  expect(body.delivered).toBeGreaterThan(0)
  expect(body.delivered).toBeLessThan(60)
  hook.answer = (response) => void response.end('{}')
  await call()
  expect(taken()).toEqual(names(60))
  expect(await sql`select delivered::int, pending::int from tracking.sink_lag`).toEqual([{ delivered: 60, pending: 0 }])
})

test('it ends in time where a sink never answers, and where the database does not', async () => {
  await writeEvents(sql, names(2), [people.ada])
  hook.answer = () => {}
  const { status, body } = await call(undefined, 'POST', hurried.url)
  expect([status, body.delivered, body.sinks.hook.result]).toEqual([200, 0, 'interrupted'])
  expect(body.seconds).toBeLessThan(8)
  expect(await sql`select from tracking.cursors where leased_until > clock_timestamp()`).toEqual([])

  await sql.begin(async (tx) => {
    await tx`lock table tracking.cursors in access exclusive mode`
    expect(await call(undefined, 'POST', hurried.url)).toEqual({ status: 503, body: {
      error: 'service_unavailable', message: 'The database had not answered when the 4 seconds were up.' } })
  })
})

test('beside a worker, and beside itself, it sends nothing twice', async () => {
  const scopes = Array.from({ length: 10 }, (_, n) => `10000000-0000-4000-8000-00000000010${n}`)
  await writeEvents(sql, names(150), scopes)
  hook.answer = (response) => void setTimeout(() => response.end('{}'), 5)
  const environment = { ACTORSCOPE_SINK_HOOK_SECRET: sinkSecret }
  const worker = await startWorker({ databaseUrl: world.databaseUrl, environment, batchSize: 10 })
  try {
    await Promise.all([call(), call(), call()])
    await until(() => taken().length >= 150)
    await until(async () => (await sql`select pending::int as n from tracking.sink_lag`)[0]?.n === 0)
  } finally {
    await worker.stop()
  }
  expect(taken().toSorted()).toEqual(names(150).toSorted())
})

test.each([
  ['is away', 'postgres://postgres:top-secret-password@127.0.0.1:1/postgres'],
  ['has no address that is one', 'postgres://postgres:top-secret-password@127.0.0.1:port/postgres'],
])('a database that %s is an answer, without its password', async (_, SUPABASE_DB_URL) => {
  const away = await startDeliver({ SUPABASE_DB_URL })
  try {
    const { status, body } = await call(undefined, 'POST', away.url)
    expect([status, body.error]).toEqual([503, 'service_unavailable'])
    expect(JSON.stringify(body) + away.output()).not.toContain('top-secret-password')
  } finally {
    await away.stop()
  }
})

describe('the function', () => {
  test('says what is missing in its environment', async () => {
    const run = await startDeno(['run', ...offline, '--no-prompt', '--allow-env', entry])
    expect(await run.exited).toBe(1)
    const variables = 'SUPABASE_DB_URL, and SUPABASE_SERVICE_ROLE_KEY, SUPABASE_SECRET_KEYS or DELIVER_SECRET'
    expect(run.output()).toContain(`${variables}, must be set.`)
  })

  test('has types that Deno finds no fault with', async () => {
    const check = await startDeno(['check', ...offline, entry])
    expect(await check.exited, check.output()).toBe(0)
  })

  test('is let in without a JWT, since secret keys are none', () => {
    expect(readFileSync(join(projectDir, 'supabase/config.toml'), 'utf8'))
      .toMatch(/^\[functions\.deliver\]\nverify_jwt = false$/m)
  })

  test('is deployed with the packages that it is tested with', () => {
    const read = (path: string) => JSON.parse(readFileSync(join(projectDir, path), 'utf8'))
    const { devDependencies } = read('package.json')
    const packages = ['postgres', 'standardwebhooks'].map((name) => [name, `npm:${name}@${devDependencies[name]}`])
    expect(read('supabase/functions/deliver/deno.json')).toEqual({ imports: Object.fromEntries(packages) })
  })
})

// As the README has it. Neither extension is here; these stand in for what it calls of them.
test('pg_cron has pg_net call it, with the secret from the Vault', async () => {
  await sql.unsafe(`
    create schema cron;
    create table cron.job (jobname text, schedule text, command text);
    create function cron.schedule(job_name text, schedule text, command text) returns bigint language sql as
      'insert into cron.job values ($1, $2, $3) returning 1::bigint';
    create schema net;
    create table net.requests (url text, body jsonb, headers jsonb, timeout_milliseconds integer);
    create function net.http_post(
      url text, body jsonb default '{}', params jsonb default '{}',
      headers jsonb default '{"Content-Type": "application/json"}', timeout_milliseconds integer default 5000)
      returns bigint language sql as
      'insert into net.requests values ($1, $2, $4, $5) returning 1::bigint';
    create schema vault;
    create table vault.secrets (name text, decrypted_secret text);
    create view vault.decrypted_secrets as select * from vault.secrets;
    create function vault.create_secret(new_secret text, new_name text) returns uuid language sql as
      'insert into vault.secrets values ($2, $1) returning gen_random_uuid()';
  `)
  try {
    await sql.unsafe(`
      select vault.create_secret('${ownSecret}', 'actorscope_deliver');
      select cron.schedule('actorscope-deliver', '* * * * *', $$
        select net.http_post(
          url := 'https://abc.supabase.co/functions/v1/deliver',
          headers := jsonb_build_object('Authorization', 'Bearer ' || (
            select decrypted_secret from vault.decrypted_secrets where name = 'actorscope_deliver')),
          timeout_milliseconds := 60000)
      $$);
    `)
    const [job] = await sql<{ command: string }[]>`select command from cron.job`
    await sql.unsafe(job!.command)
    const [request] = await sql`select * from net.requests`
    expect(request).toEqual({
      url: 'https://abc.supabase.co/functions/v1/deliver', body: {}, timeout_milliseconds: 60_000,
      headers: { Authorization: `Bearer ${ownSecret}` } })
    await writeEvents(sql, ['First'])
    expect((await call({ authorization: request!.headers.Authorization })).body).toMatchObject({ delivered: 1 })
  } finally {
    await sql.unsafe('drop schema cron, net, vault cascade')
  }
})

async function startDeliver(more: Record<string, string> = {}) {
  const port = await freePort()
  const deno = await startDeno([
    'run', ...offline, '--no-prompt', '--allow-net=127.0.0.1', '--allow-env', entry,
  ], {
    SUPABASE_DB_URL: world.databaseUrl, SUPABASE_SERVICE_ROLE_KEY: serviceKey, DELIVER_SECRET: ownSecret,
    SUPABASE_SECRET_KEYS: JSON.stringify({ default: secretKey }), ACTORSCOPE_SINK_HOOK_SECRET: sinkSecret,
    ACTORSCOPE_SINK_DOWN_SECRET: sinkSecret, DENO_SERVE_ADDRESS: `tcp:127.0.0.1:${port}`, ...more,
  })
  await deno.prints(`:${port}/`)
  return { url: `http://127.0.0.1:${port}`, ...deno }
}

const asService: Record<string, string> = { authorization: `Bearer ${serviceKey}` }

async function call(headers = asService, method = 'POST', url = functions.url) {
  const response = await fetch(`${url}/deliver`, { method, headers })
  return { status: response.status, body: await response.json() as any }
}
