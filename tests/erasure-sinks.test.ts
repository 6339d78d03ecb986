import type { Sql } from 'postgres'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { orgs, people } from './demo.ts'
import { logOf, type Log } from './log.ts'
import { startBento, startPostHog, startWebhook, type Fault, type Receiver } from './receivers.ts'
import { deliver, trackIn, writeEvent, type Track } from './sending.ts'
import { failureOf } from './sessions.ts'
import { startWorker, until, type RunningWorker } from './workers.ts'
import { createWorld, type World } from './world.ts'

// A worker brings erasures to their end, and tells the sinks of them, as their vendors document it.

const secret = `whsec_${Buffer.from('a secret of twenty-four!').toString('base64')}`
const environment = {
  POSTHOG_API_KEY: 'phc_1', POSTHOG_PERSONAL_API_KEY: 'phx_personal', BENTO_PUBLISHABLE_KEY: 'pub_77ab',
  BENTO_SECRET_KEY: 'sec_91cd', ACTORSCOPE_SINK_HOOK_SECRET: secret,
}
const site = { siteUuid: 'site-1', publishableKey: 'pub_77ab', secretKey: 'sec_91cd', requestsPerMinute: 100_000 }

let world: World
let sql: Sql
let log: Log
let track: Track
let worker: RunningWorker | undefined
let receivers: { posthog: Receiver<any>, bento: Receiver<any>, hook: Receiver<any> }

beforeAll(async () => {
  world = await createWorld()
  sql = world.sql
  log = logOf(sql)
  track = trackIn(world)
  receivers = { posthog: await startPostHog('phc_1'), bento: await startBento(site), hook: await startWebhook(secret) }
})
beforeEach(async () => {
  await sql`delete from tracking.sinks`
  await sql`delete from tracking.erasures`
  await sql`truncate public.events, tracking.jobs`
  for (const receiver of Object.values(receivers)) {
    receiver.clear()
    receiver.options = {}
  }
})
afterEach(async () => {
  await worker?.stop()
  worker = undefined
  expect(Object.values(receivers).flatMap(({ breaches }) => breaches)).toEqual([])
  expect(await log.gaps()).toEqual([])
})
afterAll(async () => {
  await Promise.all(Object.values(receivers).map((receiver) => receiver.close()))
  await world.close()
})

const settings: Record<string, () => object> = {
  posthog: () => ({ host: receivers.posthog.url, project_id: '12345' }),
  bento: () => ({ host: receivers.bento.url, site_uuid: 'site-1' }),
  webhook: () => ({ url: `${receivers.hook.url}/hooks` }),
  logsnag: () => ({ project: 'demo' }),
  ndjson: () => ({ path: '/dev/null' }),
}
const kinds = { posthog: 'posthog', bento: 'bento', hook: 'webhook', logsnag: 'logsnag', file: 'ndjson' }

describe('a person who was erased', () => {
  test('is forgotten by PostHog and Bento, a webhook tells of them, and the others are listed', async () => {
    // Given sinks of every kind that had their events
    for (const sink of ['posthog', 'bento', 'hook', 'file']) await createSink(sink)
    await track('ada@acme.test', { event: 'First' }, { event: 'For Acme', org_id: orgs.acme })
    await track('bob@acme.test', { event: 'Bob\'s' })
    for (const sink of ['posthog', 'bento', 'hook', 'file']) expect(await deliver(sql, sink, { environment })).toBeNull()
    await createSink('logsnag')

    // When they are erased, by whoever asked for it, and a worker
    const [asked] = await sql`select erasure, done from tracking.erase_actor(${people.ada}, 1)`
    await start()
    await until(async () => (await sql`select from tracking.erasures where erased_at is not null`).length)
    expect(await log.names()).toEqual(['Bob\'s'])

    // Then nobody is told at once: a batch may be on its way
    await until(() => worker!.lines.filter(({ job }) => job === 'work-on-erasures').length > 0)
    expect(await outcomes()).toEqual(Object.keys(kinds).toSorted().map((name) => ({ name, outcome: 'waiting', tries: 0 })))
    expect([receivers.posthog.forgotten, receivers.bento.forgotten, hooks().length]).toEqual([[], [], 2 + 1])
    await due()

    // And then all are, each in its own words
    await until(async () => (await sql`select from tracking.erasures where done_at is not null`).length)
    expect(receivers.posthog.forgotten).toEqual([people.ada])
    expect(receivers.posthog.requests.at(-1)).toMatchObject({
      method: 'POST', path: '/api/projects/12345/persons/bulk_delete/',
      body: { distinct_ids: [people.ada], delete_events: true, delete_recordings: true } })
    expect(receivers.bento.forgotten).toEqual(['ada@acme.test'])
    const [{ at } = { at: '' }] = await sql<{ at: string }[]>`
      select to_char(erased_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as at from tracking.erasures`
    expect(hooks().at(-1)).toMatchObject({
      id: asked!.erasure, payload: { type: 'actor.erased', timestamp: at, data: { actor_id: people.ada, erased_at: at } } })
    expect(await sql`select name, outcome, detail from tracking.erasure_notices order by name`).toEqual([
      { name: 'bento', outcome: 'told', detail: 'Bento anonymizes the person.' },
      { name: 'file', outcome: 'impossible', detail: 'A file that was written stays as it is: whoever has it must see to it.' },
      { name: 'hook', outcome: 'told', detail: 'It was sent actor.erased.' },
      { name: 'logsnag', outcome: 'impossible', detail: 'LogSnag documents no way to delete what it was sent: its dashboard does.' },
      { name: 'posthog', outcome: 'told', detail: 'PostHog deletes the person; their events when it is quiet.' },
    ])

    // And nobody knows any more who it was: not the books, nor the worker's log
    expect(await sql`select subject_id, email from tracking.erasures`).toEqual([{ subject_id: null, email: null }])
    expect(JSON.stringify(worker!.lines)).not.toMatch(/ada@acme\.test|10000000-0000-4000-8000-000000000001/)
  })

  test('whom the vendors do not know is told of all the same', async () => {
    for (const sink of ['posthog', 'bento']) await createSink(sink)
    await eraseAndTell(people.nik)
    expect(await sql`select name, outcome, detail from tracking.erasure_notices order by name`).toEqual([
      { name: 'bento', outcome: 'told', detail: 'Bento knew no such person.' },
      { name: 'posthog', outcome: 'told', detail: 'PostHog knew no such person.' }])
  })

  test('who has no address cannot be told to Bento', async () => {
    await createSink('bento')
    await eraseAndTell('30000000-0000-4000-8000-000000000001')
    expect(await sql`select outcome, detail from tracking.erasure_notices`).toEqual([
      { outcome: 'impossible', detail: 'Bento knows people by their address, and none was known.' }])
    expect(receivers.bento.requests).toEqual([])
  })
})

test('an organization that was erased is told of as each vendor knows it', async () => {
  for (const sink of ['posthog', 'bento', 'hook']) await createSink(sink)
  await writeEvent(sql, { event: 'Renewed', org_id: orgs.demo })
  await deliver(sql, 'posthog', { environment })
  await sql`select * from tracking.erase_org(${orgs.demo})`
  await sql`select * from tracking.continue_erasures()`
  await due()
  await start()
  await until(async () => (await sql`select from tracking.erasures where done_at is not null`).length)
  expect(receivers.posthog.forgotten).toEqual([orgs.demo, `$organization_${orgs.demo}`])
  expect(hooks().at(-1)!.payload).toMatchObject({ type: 'org.erased', data: { org_id: orgs.demo } })
  expect(await sql`select name, outcome, detail from tracking.erasure_notices where name <> 'hook' order by name`).toEqual([
    { name: 'bento', outcome: 'impossible', detail: 'Bento knows people, and no organizations.' },
    { name: 'posthog', outcome: 'told', detail: 'PostHog deletes the person; their events when it is quiet. Events of the organization\'s people stay.' }])
})

describe('a sink that does not take it', () => {
  test.each<[string, Fault, string, number]>([
    ['is out of order', { status: 503 }, '503 a fault', 1],
    ['has had enough for now', { status: 429, headers: { 'retry-after': '7200' } }, '429 a fault', 7200],
    ['may not be asked', { status: 403, text: '{"code":"permission_denied"}' }, '403 {"code":"permission_denied"}', 1],
    ['says nothing', { cut: 'before' }, 'fetch failed', 1],
    ['answers something else', { status: 200, text: '<html>' }, 'The sink "posthog" is answered by something that does not delete persons.', 300],
    ['deletes no events', { status: 202, text: '{"persons_found":1,"events_queued_for_deletion":false}' },
      'PostHog did not say that it deletes the person\'s events.', 1],
    ['fails to delete', { status: 202, text: '{"persons_found":2,"events_queued_for_deletion":true,"deletion_errors":[{"person_uuid":"x"}]}' },
      'PostHog could not delete 1 of 2 persons.', 1],
  ])('is told again later, and holds up no other: one that %s', async (_, fault, detail, seconds) => {
    await createSink('posthog')
    await createSink('hook')
    receivers.posthog.options = { fault: () => fault }
    await sql`select * from tracking.erase_actor(${people.ada})`
    await due()
    await start()
    await until(async () => (await sql`select from tracking.erasure_notices where name = 'hook' and outcome = 'told'`).length)
    await until(async () => (await sql`select from tracking.erasure_notices where name = 'posthog' and tries = 1`).length)
    expect(await sql`
      select outcome, starts_with(detail, ${detail}) as is_it, retry_at > now() + make_interval(secs => ${seconds - 1}) as waits
      from   tracking.erasure_notices where name = 'posthog'`).toEqual([{ outcome: 'waiting', is_it: true, waits: true }])
    expect(await sql`select subject_id, done_at from tracking.erasures`).toEqual([{ subject_id: people.ada, done_at: null }])
    receivers.posthog.options = {}
    receivers.posthog.breaches.length = 0
    await due()
    await sql`update tracking.jobs set due_at = now()`
    await until(async () => (await sql`select from tracking.erasures where done_at is not null`).length)
    expect(receivers.posthog.forgotten).toEqual([people.ada])
  })

  test('is not asked again for others before its time', async () => {
    await createSink('posthog')
    receivers.posthog.options = { fault: () => ({ status: 429, headers: { 'retry-after': '60' } }) }
    for (const actor of [people.ada, people.bob, people.cyd]) await sql`select * from tracking.erase_actor(${actor})`
    await due()
    await start()
    await until(async () => (await sql`select from tracking.erasure_notices where tries = 1`).length)
    await until(() => worker!.lines.some(({ job, message }) => job === 'work-on-erasures' && message === 'a job is done'))
    expect(receivers.posthog.requests).toHaveLength(1)
    receivers.posthog.options = {}
    await due()
    await sql`update tracking.jobs set due_at = now()`
    await until(async () => (await sql`select from tracking.erasures where done_at is not null`).length === 3)
    expect(receivers.posthog.forgotten.toSorted()).toEqual([people.ada, people.bob, people.cyd])
  })

  test('is told again where its answer was lost', async () => {
    await createSink('posthog')
    receivers.posthog.options = { fault: (_, n) => n === 0 ? { cut: 'after' } : undefined }
    await eraseAndTell(people.ada, 2)
    expect(receivers.posthog.forgotten).toEqual([people.ada, people.ada])
  })

  test.each([
    ['has no project_id', { host: 'x' }, environment, 'The sink "posthog" cannot delete persons: it has no project_id.'],
    ['has no personal key', undefined, { ...environment, POSTHOG_PERSONAL_API_KEY: '' },
      'The sink "posthog" has no personal_api_key: put it into the worker\'s environment, or into Supabase\'s Vault, as '
      + 'ACTORSCOPE_SINK_POSTHOG_PERSONAL_API_KEY or POSTHOG_PERSONAL_API_KEY.'],
  ])('waits until it is set up: one that %s; or somebody sees to it by hand', async (_, without, env, detail) => {
    await createSink('posthog')
    if (without) await sql`update tracking.sinks set settings = settings - 'project_id'`
    await sql`select * from tracking.erase_actor(${people.ada})`
    await due()
    await start(env)
    await until(async () => (await sql`select from tracking.erasure_notices where tries = 1`).length)
    expect(await sql`select outcome, detail from tracking.erasure_notices`).toEqual([{ outcome: 'waiting', detail }])
    expect(await sql`select tracking.settle_notice(erasure, name, 'told', 'By hand.') as done from tracking.erasure_notices`).toEqual([{ done: true }])
    expect(await sql`select subject_id, done_at is not null as done from tracking.erasures`).toEqual([{ subject_id: null, done: true }])
  })

  test('waits while it is disabled, keeps its place under another name, and is not waited for when it is no more', async () => {
    await createSink('hook')
    await createSink('file')
    await sql`select * from tracking.erase_actor(${people.ada})`
    await sql`update tracking.sinks set enabled = false, name = 'renamed' where name = 'hook'`
    await sql`delete from tracking.sinks where name = 'file'`
    await due()
    await start({ ...environment, ACTORSCOPE_SINK_RENAMED_SECRET: secret })
    await until(async () => (await sql`select from tracking.erasure_notices where outcome = 'impossible'`).length)
    expect(await sql`select name, sink, outcome, detail from tracking.erasure_notices order by name`).toEqual([
      { name: 'file', sink: null, outcome: 'impossible', detail: 'The sink is no more.' },
      { name: 'hook', sink: 'renamed', outcome: 'waiting', detail: 'The sink is disabled.' }])
    await sql`update tracking.sinks set enabled = true`
    await due()
    await sql`update tracking.jobs set due_at = now()`
    await until(() => hooks().length === 1)
  })
})

test('what became of telling a sink is one of three things', async () => {
  await createSink('file')
  const [{ erasure } = { erasure: '' }] = await sql<{ erasure: string }[]>`select erasure from tracking.erase_actor(${people.ada})`
  expect(await failureOf(sql`select tracking.settle_notice(${erasure}, 'file', 'maybe')`)).toMatchObject({ code: '23514' })
  expect(await sql`select tracking.settle_notice(${erasure}, 'nobody', 'told') as done`).toEqual([{ done: false }])
})

async function createSink(name: string): Promise<void> {
  const kind = kinds[name as keyof typeof kinds]
  await sql`select tracking.create_sink(${name}, ${kind}, ${sql.json(settings[kind]!() as never)})`
}

async function start(env: Record<string, string> = environment): Promise<void> {
  worker = await startWorker({ databaseUrl: world.databaseUrl, environment: env, jobs: true })
}

/** Lets the sinks be told now. */
async function due(): Promise<void> {
  await sql`update tracking.erasure_notices set retry_at = now() where outcome = 'waiting'`
  await sql`update tracking.jobs set due_at = now()`
}

/** Erases somebody, and has a worker tell the sinks, as many rounds as it takes. */
async function eraseAndTell(actor: string, rounds = 1): Promise<void> {
  await sql`select * from tracking.erase_actor(${actor})`
  await due()
  await start()
  for (let round = 1; round < rounds; round++) {
    await until(async () => (await sql`select from tracking.erasure_notices where tries = ${round}`).length)
    await due()
  }
  await until(async () => (await sql`select from tracking.erasures where done_at is not null`).length)
}

const outcomes = () => sql`select name, outcome, tries from tracking.erasure_notices order by name`.then((rows) => [...rows])
const hooks = () => receivers.hook.taken as { id: string, payload: { type: string, data: object } }[]
