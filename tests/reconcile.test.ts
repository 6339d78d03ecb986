import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Sql } from 'postgres'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { reconcile, type Reconciled } from '../src/reconcile.ts'
import { orgs, people } from './demo.ts'
import { startWorker, until } from './workers.ts'
import { createWorld, type World } from './world.ts'

let world: World
let sql: Sql
let builder: Builder
const told: Record<string, unknown>[] = []

beforeAll(async () => {
  world = await createWorld()
  sql = world.sql
  builder = await startBuilder()
})
beforeEach(async () => {
  await sql`truncate public.build_requests`
  await sql`truncate public.events`
  builder.clear()
  told.length = 0
})
afterAll(async () => {
  await builder?.close()
  await world?.close()
})

const minute = 60_000
const nothing: Reconciled = { asked: 0, changed: 0, timedOut: 0, lost: 0, stopped: 0, failed: 0 }

test('only builds with a job, not over, and with no news in five minutes are asked about', async () => {
  const quiet = await build({ job: 'quiet', minutesAgo: 6 })
  await build({ job: 'fresh', minutesAgo: 4 })
  await build({ minutesAgo: 600 })
  await build({ job: 'over', minutesAgo: 60, status: 'succeeded' })
  builder.jobs.set('quiet', { status: 'queued' })
  expect(await run()).toEqual({ ...nothing, asked: 1 })
  expect(builder.requests).toEqual(['GET /jobs/quiet'])

  // And it is not asked again at once
  expect(await run()).toEqual(nothing)
  expect(await read(quiet)).toMatchObject({ status: 'pending', lifecycle: 'requested' })
})

test('a build that runs is started when the builder started it, and its wait for a runner is recorded', async () => {
  const id = await build({ job: 'j', minutesAgo: 6 })
  const startedAt = Date.now() - 2 * minute
  builder.jobs.set('j', { status: 'running', started_at: startedAt, runner_wait_ms: 61_999 })
  expect(await run()).toEqual({ ...nothing, asked: 1, changed: 1 })
  expect(await read(id)).toMatchObject({
    status: 'running', started_at: new Date(startedAt), runner_wait_seconds: 61, completed_at: null })
  expect(await eventNames()).toEqual(['Build Requested', 'Build Started'])
})

const endings = ['succeeded', 'failed', 'cancelled', 'expired', 'released']
test.each(endings)('a build whose job has %s has as well, when the job did', async (status) => {
  const id = await build({ job: 'j', minutesAgo: 20, status: 'running', startedMinutesAgo: 12 })
  const [startedAt, completedAt] = [Date.now() - 12 * minute, Date.now() - 5 * minute]
  const error = status === 'failed' ? 'exit code 65' : null
  builder.jobs.set('j', { status, started_at: startedAt, completed_at: completedAt, error })
  expect(await run()).toEqual({ ...nothing, asked: 1, changed: 1 })
  expect(await read(id)).toMatchObject({ status, completed_at: new Date(completedAt), last_error: error })
  const [ending] = await sql`select tags from events where event not in ('Build Requested', 'Build Started')`
  expect(ending?.tags).toMatchObject({
    build_id: id, duration_seconds: 420, ...error && { failure_category: 'builder_error' } })
})

test('a job that runs past the limit is stopped at the builder, and its time is capped', async () => {
  const id = await build({ job: 'j', minutesAgo: 20, status: 'running', startedMinutesAgo: 17 })
  const startedAt = Date.now() - 17 * minute
  builder.jobs.set('j', { status: 'running', started_at: startedAt })
  expect(await run()).toEqual({ ...nothing, asked: 1, changed: 1, timedOut: 1 })
  expect(builder.requests).toEqual(['GET /jobs/j', 'POST /jobs/j/cancel'])
  expect(await read(id)).toMatchObject({
    status: 'timed_out', completed_at: new Date(startedAt + 15 * minute), job_stopped_at: expect.any(Date),
    last_error: 'The build ran longer than 900 seconds.' })
  expect(await sql`
    select tags -> 'duration_seconds' as duration, tags ->> 'failure_category' as why
    from   events
    where  event = 'Build Timed Out'`).toEqual([{ duration: 900, why: 'timeout' }])
})

test('a job that ended past the limit timed out, whatever it says, and is not stopped', async () => {
  const id = await build({ job: 'j', minutesAgo: 30 })
  const startedAt = Date.now() - 25 * minute
  builder.jobs.set('j', { status: 'succeeded', started_at: startedAt, completed_at: startedAt + 16 * minute })
  expect(await run()).toEqual({ ...nothing, asked: 1, changed: 1, timedOut: 1 })
  expect(builder.requests).toEqual(['GET /jobs/j'])
  expect(await read(id)).toMatchObject({ status: 'timed_out', completed_at: new Date(startedAt + 15 * minute) })
  expect(await run()).toEqual(nothing)
})

test('a build past its limit is asked about at once, though there was news of it', async () => {
  const id = await build({ job: 'j', minutesAgo: 1, status: 'running', startedMinutesAgo: 17 })
  builder.jobs.set('j', { status: 'running', started_at: Date.now() - 17 * minute })
  expect(await run()).toEqual({ ...nothing, asked: 1, changed: 1, timedOut: 1 })
  expect(await read(id)).toMatchObject({ status: 'timed_out' })
})

test('where the builder cannot stop a job, its build ends by itself, and the job is stopped later', async () => {
  const id = await build({ job: 'j', minutesAgo: 20, status: 'running', startedMinutesAgo: 17 })
  builder.jobs.set('j', { status: 'running', started_at: Date.now() - 17 * minute })
  builder.faults.set('POST /jobs/j/cancel', { status: 503 })
  expect(await run()).toEqual({ ...nothing, asked: 1, failed: 1 })
  expect(await read(id)).toMatchObject({ status: 'running' })
  await sql`select tracking.reconcile_builds()`
  expect(await read(id)).toMatchObject({ status: 'timed_out', job_stopped_at: null })
  expect(await run()).toEqual({ ...nothing, failed: 1 })
  builder.faults.clear()
  expect(await run()).toEqual({ ...nothing, stopped: 1 })
  expect(builder.jobs.get('j')?.status).toBe('cancelled')
  expect(await run()).toEqual(nothing)
  expect(await eventNames()).toEqual(['Build Requested', 'Build Started', 'Build Timed Out'])
})

test('a job that is unknown to the builder is waited for, and after an hour its build expires', async () => {
  const [young, old] = [await build({ job: 'young', minutesAgo: 30 }), await build({ job: 'old', minutesAgo: 61 })]
  expect(await run()).toEqual({ ...nothing, asked: 2, changed: 1, failed: 1 })
  expect([(await read(young)).status, (await read(old)).status]).toEqual(['pending', 'expired'])
})

test('one build that fails stops no other, however it fails', async () => {
  const faults: Record<string, Fault> = {
    a: { status: 500 }, b: { status: 200, text: 'not json' }, c: { status: 200, text: '{"job":null}' },
    d: { cut: true }, e: { status: 302 }, f: { status: 400, text: 'no' } }
  for (const [job, fault] of Object.entries(faults)) {
    await build({ job, minutesAgo: 6 })
    builder.faults.set(`GET /jobs/${job}`, fault)
  }
  await build({ job: 'good', minutesAgo: 6 })
  builder.jobs.set('good', { status: 'succeeded', started_at: Date.now() - 2 * minute, completed_at: Date.now() })
  expect(await run()).toEqual({ ...nothing, asked: 7, changed: 1, failed: 6 })
  expect(told.map(({ job }) => job).toSorted()).toEqual(Object.keys(faults))
  expect(JSON.stringify(told)).not.toContain(builder.apiKey)
})

test('more builds than a batch holds are all asked about, and few at once', async () => {
  await sql`
    insert into build_requests (owner_org, app_id, requested_by, platform, builder_job_id, created_at)
    select ${orgs.acme}, 'com.acme.app', ${people.ada}, 'ios', 'job-' || n, now() - interval '10 minutes'
    from   generate_series(1, 1100) as n`
  await sql`alter table build_requests disable trigger user`
  await sql`update build_requests set updated_at = now() - interval '10 minutes'`
  await sql`alter table build_requests enable trigger user`
  builder.otherwise = { status: 'running', started_at: Date.now() - minute }
  builder.before = () => new Promise((done) => setTimeout(done, 5))
  expect(await run()).toEqual({ ...nothing, asked: 1100, changed: 1100 })
  expect(builder.mostAtOnce).toBeLessThanOrEqual(10)
  expect(builder.mostAtOnce).toBeGreaterThan(1)
})

test('when it is time to end, no other build is asked about, and none has failed', async () => {
  for (let n = 0; n < 30; n++) await build({ job: `job-${n}`, minutesAgo: 6 })
  builder.otherwise = { status: 'queued' }
  const ending = new AbortController()
  builder.before = async () => {
    if (builder.requests.length >= 10) ending.abort()
    await new Promise((done) => setTimeout(done, 200))
  }
  const tally = await run(ending.signal)
  expect([tally.asked, tally.failed, told]).toEqual([builder.requests.length, 0, []])
  expect(tally.asked).toBeLessThan(30)
})

test('a job whose story is long is read whole', async () => {
  const id = await build({ job: 'j', minutesAgo: 6 })
  builder.jobs.set('j', { status: 'failed', completed_at: Date.now(), error: 'x'.repeat(100_000) })
  expect(await run()).toEqual({ ...nothing, asked: 1, changed: 1 })
  expect(await read(id)).toMatchObject({ status: 'failed', last_error: 'x'.repeat(4000) })
})

test('a builder that answers nobody is left alone', async () => {
  for (let n = 0; n < 60; n++) await build({ job: `job-${n}`, minutesAgo: 6 })
  builder.otherwise = undefined
  builder.everything = { status: 503 }
  const tally = await run()
  expect(tally.failed).toBe(tally.asked)
  expect(tally.asked).toBeLessThan(40)
})

test('what somebody else changes meanwhile stays, and nothing is said twice', async () => {
  const id = await build({ job: 'j', minutesAgo: 6 })
  builder.jobs.set('j', {
    status: 'failed', started_at: Date.now() - 2 * minute, completed_at: Date.now(), error: 'late news' })
  builder.before = async () => { await sql`update build_requests set status = 'succeeded' where id = ${id}` }
  expect(await run()).toEqual({ ...nothing, asked: 1, lost: 1 })
  expect(await read(id)).toMatchObject({ status: 'succeeded', last_error: null })
  expect(await eventNames()).toEqual(['Build Requested', 'Build Succeeded'])
})

test('also where the status is the same again: news of a microsecond ago wins', async () => {
  const id = await build({ job: 'j', minutesAgo: 6 })
  builder.jobs.set('j', { status: 'running', started_at: Date.now() - 2 * minute })
  builder.before = async () => { await sql`update build_requests set last_error = 'just now' where id = ${id}` }
  expect(await run()).toEqual({ ...nothing, asked: 1, lost: 1 })
  expect(await read(id)).toMatchObject({ status: 'pending', last_error: 'just now' })
})

test('two reconcilers at once emit each event once', async () => {
  for (let n = 0; n < 40; n++) await build({ job: `job-${n}`, minutesAgo: 6 })
  builder.otherwise = { status: 'succeeded', started_at: Date.now() - 3 * minute, completed_at: Date.now() - minute }
  const [one, other] = await Promise.all([run(), run()])
  expect(one.changed + other.changed).toBe(40)
  expect(await sql`
    select event, count(*)::int as n, count(distinct tags ->> 'build_id')::int as builds
    from   events
    group  by 1
    order  by 1`).toEqual([
    { event: 'Build Requested', n: 40, builds: 40 }, { event: 'Build Succeeded', n: 40, builds: 40 }])
})

test('a worker with a builder asks it; the key is in no line', async () => {
  await sql`delete from tracking.jobs`
  const id = await build({ job: 'j/../../k', minutesAgo: 6 })
  builder.jobs.set('j/../../k', { status: 'running', started_at: Date.now() - minute })
  const environment = { BUILDER_URL: `${builder.url}/`, BUILDER_API_KEY: builder.apiKey }
  const worker = await startWorker({ databaseUrl: world.databaseUrl, jobs: true, environment })
  try {
    await until(async () => (await read(id)).status === 'running')
    await until(() => worker.lines.some(({ message, job }) => message === 'a job is done' && job === 'ask-builder'))
    expect(builder.requests).toEqual(['GET /jobs/j%2F..%2F..%2Fk'])
    expect(JSON.stringify(worker.lines)).not.toContain(builder.apiKey)
  } finally {
    await worker.stop()
  }
})

type BuildOptions = { job?: string, minutesAgo: number, status?: string, startedMinutesAgo?: number }

/** A build of which there was no news for so many minutes. */
async function build({ job, minutesAgo, status, startedMinutesAgo }: BuildOptions): Promise<string> {
  const [row] = await sql<{ id: string }[]>`
    insert into build_requests (owner_org, app_id, requested_by, platform, builder_job_id, created_at)
    values (
      ${orgs.acme}, 'com.acme.app', ${people.ada}, 'ios', ${job ?? null}, now() - make_interval(mins => ${minutesAgo}))
    returning id`
  const { id } = row!
  if (startedMinutesAgo) await sql`
    update build_requests
    set    status = 'running', started_at = now() - make_interval(mins => ${startedMinutesAgo})
    where  id = ${id}`
  if (status && status !== 'running') await sql`update build_requests set status = ${status} where id = ${id}`
  await sql`alter table build_requests disable trigger user`
  await sql`update build_requests set updated_at = now() - make_interval(mins => ${minutesAgo}) where id = ${id}`
  await sql`alter table build_requests enable trigger user`
  return id
}

async function read(id: string) {
  const [row] = await sql`select * from build_requests where id = ${id}`
  return row!
}

async function eventNames(): Promise<string[]> {
  return (await sql<{ event: string }[]>`select event from events order by txid, event_id`).map(({ event }) => event)
}

const run = (signal = new AbortController().signal) => reconcile({
  sql, url: builder.url, apiKey: builder.apiKey, fetch, signal,
  log: (message, fields) => { if (fields?.build) told.push({ message, ...fields }) },
})

type Job = {
  status: string
  started_at?: number | null
  completed_at?: number | null
  runner_wait_ms?: number | null
  error?: string | null
}
type Fault = { status: number, text?: string } | { cut: true }

/** The builder, as far as its API is known: every request is checked. */
type Builder = {
  readonly url: string
  readonly apiKey: string
  readonly jobs: Map<string, Job>
  readonly faults: Map<string, Fault>
  readonly requests: string[]
  otherwise: Job | undefined
  everything: Fault | undefined
  before: (() => Promise<void>) | undefined
  mostAtOnce: number
  clear(): void
  close(): Promise<void>
}

async function startBuilder(): Promise<Builder> {
  const apiKey = 'builder-key-7d0f0a'
  let atOnce = 0
  const state = {
    jobs: new Map<string, Job>(), faults: new Map<string, Fault>(), requests: [] as string[], mostAtOnce: 0,
    otherwise: undefined as Job | undefined, everything: undefined as Fault | undefined,
    before: undefined as (() => Promise<void>) | undefined,
  }
  const handle = async (request: IncomingMessage, response: ServerResponse) => {
    const name = `${request.method} ${request.url}`
    state.requests.push(name)
    const fault = state.everything ?? state.faults.get(name)
    const answer = (status: number, body: unknown) => void response.writeHead(status)
      .end(typeof body === 'string' ? body : JSON.stringify(body))
    if (fault && 'cut' in fault) return void request.socket.destroy()
    if (fault) return answer(fault.status, fault.text ?? `a fault, by ${request.headers['x-api-key']}`)
    if (request.headers['x-api-key'] !== apiKey) return answer(401, 'no')
    const [, id = '', cancel] = /^\/jobs\/([^/]+)(\/cancel)?$/.exec(request.url ?? '') ?? []
    const job = state.jobs.get(decodeURIComponent(id)) ?? state.otherwise
    if (!job) return answer(404, { error: 'not found' })
    if (request.method === (cancel ? 'GET' : 'POST')) return answer(405, 'no')
    await state.before?.()
    const unknown = { started_at: null, completed_at: null, error: null }
    if (!cancel) return answer(200, { job: { ...unknown, ...job }, machine: null })
    if (!['queued', 'running'].includes(job.status)) return answer(409, 'it has ended')
    job.status = 'cancelled'
    answer(200, { jobId: id, status: 'cancelled' })
  }
  const server = createServer((request, response) => {
    state.mostAtOnce = Math.max(state.mostAtOnce, ++atOnce)
    void handle(request, response).finally(() => atOnce--)
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  return Object.assign(state, {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    apiKey,
    clear() {
      state.jobs.clear()
      state.faults.clear()
      state.requests.length = 0
      Object.assign(state, { mostAtOnce: 0, otherwise: undefined, everything: undefined, before: undefined })
    },
    close: () => new Promise<void>((done) => { server.close(() => done()); server.closeAllConnections() }),
  })
}
