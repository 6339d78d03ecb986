import fc from 'fast-check'
import type { Sql, TransactionSql } from 'postgres'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { connect } from '../src/database.ts'
import { people } from './demo.ts'
import { as, become, person, service } from './sessions.ts'
import { asLogin, cloneDatabase, templates, type Clone } from './world.ts'

let clone: Clone
/** As superuser. */
let sql: Sql
/** The Data API's login. */
let api: Sql

beforeAll(async () => {
  clone = await cloneDatabase(templates.world)
  sql = connect(clone.databaseUrl, { max: 2 })
  // Updates of several builds in any order deadlock now and then, as they would in any database: not for a second
  await sql.unsafe(`alter database ${new URL(clone.databaseUrl).pathname.slice(1)} set deadlock_timeout = '10ms'`)
  api = connect(asLogin(clone.databaseUrl, 'authenticator'), { max: 10 })
})

afterAll(async () => {
  await Promise.all([api.end({ timeout: 1 }), sql.end({ timeout: 1 })])
  await clone.drop()
})

beforeEach(() => empty())

const empty = () => sql.unsafe('delete from events; delete from build_requests; delete from tracking.dead_letters').simple()


// Any sequence of updates ---------------------------------------------------------------------------------

test('any sequence of updates from three connections emits what the committed ones say, in order, and nothing else', async () => {
  await fc.assert(fc.asyncProperty(fc.tuple(session, session, session), async (sessions) => {
    await empty()
    const history = new History()
    const shared = await Promise.all([0, 1, 2].map(() => as(api, person(people.ada), requestBuild)))
    shared.forEach((build) => history.note(new Scope().commit(), build, { status: 'pending' }))

    await Promise.all(sessions.map((transactions) => play(history, transactions, shared)))

    expect(await readEvents()).toEqual(history.expectedEvents())
    expect(await sql`select error from tracking.dead_letters`).toEqual([])
  }), { numRuns: 200 })
}, 120_000)

/** What a builder may write to a build. */
type Change = {
  status?: Status
  builder_job_id?: string | null
  last_error?: string | null
  started_at?: string
  completed_at?: string
}
type Status = 'pending' | 'running' | 'succeeded' | 'failed' | 'timed_out' | 'cancelled' | 'expired' | 'released'
/** `builds` counts the shared builds and those that the session has inserted. */
type Step =
  | { do: 'request' }
  | { do: 'insert', change: Change }
  | { do: 'update', builds: number[], change: Change }
  | { do: 'savepoint', steps: Step[], keep: boolean }
type Transaction = { steps: Step[], commit: boolean }

const status = fc.constantFrom<Status[]>(
  'pending', 'running', 'running', 'succeeded', 'failed', 'timed_out', 'cancelled', 'expired', 'released')
// In seconds since 1970
const extremes = new Map([['4000-01-01 BC', Date.UTC(-3999, 0) / 1000], ['294276-12-31 23:59:59', 9224318015999]])
const time = fc.oneof(
  fc.nat(86_400).map((seconds) => new Date(Date.UTC(2026, 0, 1, 0, 0, seconds)).toISOString()),
  fc.constantFrom(...extremes.keys()))
const change: fc.Arbitrary<Change> = fc.record({
  status,
  builder_job_id: fc.option(fc.string({ maxLength: 50 }).filter((text) => !text.includes('\0'))),
  last_error: fc.constantFrom(null, '', ' ', 'Timed out', 'job timeout', 'Validation of x', 'invalid build_mode', 'boom at /secret'),
  started_at: time,
  completed_at: time,
}, { requiredKeys: [] })
const someBuilds = fc.uniqueArray(fc.nat(5), { minLength: 1, maxLength: 3 })
const { steps } = fc.letrec<{ steps: Step[], step: Step }>((tie) => ({
  steps: fc.array(tie('step'), { minLength: 1, maxLength: 4 }),
  step: fc.oneof(
    { maxDepth: 2 },
    { weight: 6, arbitrary: fc.record({ do: fc.constant('update'), builds: someBuilds, change }) },
    { weight: 1, arbitrary: fc.constant({ do: 'request' }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('insert'), change }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('savepoint'), steps: tie('steps'), keep: fc.boolean() }) },
  ) as fc.Arbitrary<Step>,
}))
const session: fc.Arbitrary<Transaction[]> = fc.array(
  fc.record({ steps, commit: fc.oneof(fc.constant(true), fc.boolean()) }), { minLength: 1, maxLength: 4 })

async function play(history: History, transactions: Transaction[], shared: string[]): Promise<void> {
  const builds = [...shared]
  for (const { steps, commit } of transactions) {
    const scope = new Scope()
    const committed = await as(api, service, async (tx) => {
      for (const step of steps) await take(step, tx, scope, builds, history)
      if (!commit) throw new RollBack()
    }).then(() => true, (error: unknown) => {
      if (error instanceof RollBack || (error as { code?: string }).code === DEADLOCK) return false
      throw error
    })
    if (committed) scope.commit()
  }
}

class RollBack extends Error {}
const DEADLOCK = '40P01'

async function take(step: Step, tx: TransactionSql, scope: Scope, builds: string[], history: History): Promise<void> {
  if (step.do === 'savepoint') return takeAll(step, tx, scope, builds, history)
  if (step.do === 'update') {
    const ids = step.builds.flatMap((n) => builds[n] ?? [])
    for (const id of await updateBuilds(tx, ids, step.change)) history.note(scope, id, step.change)
    return
  }
  const change = step.do === 'request' ? { status: 'pending' as const } : step.change
  const id = step.do === 'request' ? await asAda(tx, requestBuild) : await insertBuild(tx, change)
  history.note(scope, id, { status: 'pending', ...change })
  builds.push(id)
}

async function takeAll(
  { steps, keep }: { steps: Step[], keep: boolean }, tx: TransactionSql, scope: Scope, builds: string[], history: History,
): Promise<void> {
  const inner = scope.nested()
  await tx.savepoint(async (inside) => {
    for (const step of steps) await take(step, inside, inner, builds, history)
    if (!keep) throw new RollBack()
  }).then(() => inner.commit(), (error: unknown) => { if (!(error instanceof RollBack)) throw error })
}

async function asAda<T>(tx: TransactionSql, work: (tx: TransactionSql) => Promise<T>): Promise<T> {
  await become(tx, person(people.ada))
  const result = await work(tx)
  await become(tx, service)
  return result
}


// What should have come of it -----------------------------------------------------------------------------

/** A transaction or a savepoint: what happened in it counts once it and all around it are committed. */
class Scope {
  private committed = false
  constructor(private readonly outer?: Scope) {}
  nested(): Scope { return new Scope(this) }
  commit(): this { this.committed = true; return this }
  counts(): boolean { return this.committed && (this.outer?.counts() ?? true) }
}

type EmittedEvent = { build: string, event: string, icon: string, tags: object }

/**
 * What was done to each build, in the order in which it took effect: a change is noted down while its transaction
 * still holds the build's lock, so the order of the notes is the order of the changes.
 */
class History {
  private readonly notes: { scope: Scope, build: string, change: Change }[] = []

  note(scope: Scope, build: string, change: Change): void { this.notes.push({ scope, build, change }) }

  expectedEvents(): EmittedEvent[] {
    const changes = new Map<string, Change[]>()
    for (const { build, change } of this.notes.filter(({ scope }) => scope.counts())) {
      changes.set(build, [...(changes.get(build) ?? []), change])
    }
    return [...changes].flatMap(([build, done]) => eventsOf(build, done)).sort(byBuild)
  }
}

/** The model: requested, then perhaps started, then perhaps one end, and no way back. */
function eventsOf(build: string, changes: Change[]): EmittedEvent[] {
  const events: EmittedEvent[] = []
  let stage: 'requested' | 'started' | 'finished' = 'requested'
  let now: Change = {}
  const emit = (status: Status, more = {}) => events.push({
    build, ...names[status], tags: { job_id: now.builder_job_id ?? null, ...more } })

  for (const change of changes) {
    now = { ...now, ...change }
    if (events.length === 0) emit('pending')
    if (stage === 'requested' && now.status === 'running') {
      now.started_at ??= UNTOLD
      stage = 'started'
      emit('running')
    } else if (stage !== 'finished' && now.status !== 'pending' && now.status !== 'running') {
      now.completed_at ??= UNTOLD
      stage = 'finished'
      emit(now.status!, ending(now))
    }
  }
  return events
}

/** A time that the database filled in: nobody can say which. */
const UNTOLD = 'untold'

function ending({ status, last_error, started_at, completed_at }: Change): object {
  return {
    ...(started_at && { queue: expect.any(Number), duration: secondsBetween(started_at, completed_at!) }),
    ...(status === 'failed' && { failure: categoryOf(last_error ?? '') }),
    ...(status === 'timed_out' && { failure: 'timeout' }),
  }
}

function secondsBetween(from: string, to: string): unknown {
  if (from === UNTOLD || to === UNTOLD) return expect.any(Number)
  const seconds = (time: string) => extremes.get(time) ?? Date.parse(time) / 1000
  return Math.max(seconds(to) - seconds(from), 0)
}

function categoryOf(error: string): string {
  if (/timed? ?out/i.test(error)) return 'timeout'
  if (/validation|missing credential|invalid build_mode/i.test(error)) return 'validation_error'
  return error.trim() === '' ? 'unknown' : 'builder_error'
}

const names: Record<Status, { event: string, icon: string }> = {
  pending: { event: 'Build Requested', icon: '🛠️' },
  running: { event: 'Build Started', icon: '⏳' },
  succeeded: { event: 'Build Succeeded', icon: '✅' },
  failed: { event: 'Build Failed', icon: '❌' },
  timed_out: { event: 'Build Timed Out', icon: '⏰' },
  cancelled: { event: 'Build Cancelled', icon: '🛑' },
  expired: { event: 'Build Expired', icon: '⌛' },
  released: { event: 'Build Released', icon: '♻️' },
}

const byBuild = (a: EmittedEvent, b: EmittedEvent) => (a.build < b.build ? -1 : a.build > b.build ? 1 : 0)


// Races --------------------------------------------------------------------------------------------------

describe('two connections that finish one build with different ends', () => {
  test('emit one end: that of the first to commit', async () => {
    const [build] = await insertBuilds(1)
    await race({ first: ['succeeded', build!], second: ['failed', build!], firstCommits: true })
    expect(await endsOf(build!)).toEqual(['Build Succeeded'])
  })

  test('emit the other\'s end where the first is rolled back', async () => {
    const [build] = await insertBuilds(1)
    await race({ first: ['succeeded', build!], second: ['failed', build!], firstCommits: false })
    expect(await endsOf(build!)).toEqual(['Build Failed'])
  })

  test('emit one end each, however many builds they fight over', async () => {
    const builds = await insertBuilds(300)
    await Promise.all((['succeeded', 'failed', 'cancelled', 'timed_out'] as const).map(async (status) => {
      for (const build of builds) await as(api, service, (tx) => updateBuilds(tx, [build], { status }))
    }))
    const [counts] = await sql`select count(*)::int as ends, count(distinct tags ->> 'build_id')::int as builds from events where event <> 'Build Requested'`
    expect(counts).toEqual({ ends: 300, builds: 300 })
  })
})

describe('one statement', () => {
  test('that takes thousands of builds a step further emits an event for each, of its own kind', async () => {
    const builds = await insertBuilds(3000)
    await as(api, service, (tx) => updateBuilds(tx, builds, { status: 'running' }))
    await as(api, service, (tx) => tx`
      update build_requests set status = (array['succeeded', 'failed', 'running'])[1 + mod(ascii(id::text), 3)]`)
    const kinds = await sql`
      select b.status, e.events, count(*)::int as builds
      from   build_requests as b
      join   (select tags ->> 'build_id' as id, array_agg(event order by event_id) as events from events group by 1) as e on e.id = b.id::text
      group  by 1, 2 order by 1`
    expect(kinds.map(({ status, events }) => ({ status, events }))).toEqual([
      { status: 'failed', events: ['Build Requested', 'Build Started', 'Build Failed'] },
      { status: 'running', events: ['Build Requested', 'Build Started'] },
      { status: 'succeeded', events: ['Build Requested', 'Build Started', 'Build Succeeded'] },
    ])
    expect(kinds.reduce((sum, { builds }) => sum + builds, 0)).toBe(3000)
  })

  test('that is rolled back leaves no event', async () => {
    const builds = await insertBuilds(3)
    await as(api, service, async (tx) => {
      await updateBuilds(tx, builds, { status: 'succeeded' })
      await insertBuild(tx, {})
      throw new RollBack()
    }).catch((error: unknown) => expect(error).toBeInstanceOf(RollBack))
    expect(await sql`select event, count(*)::int from events group by 1`).toEqual([{ event: 'Build Requested', count: 3 }])
  })
})

test('events are in order by their ids also where a transaction is older than the build that it starts', async () => {
  const [other] = await insertBuilds(1)
  await as(api, service, async (tx) => {
    await updateBuilds(tx, [other!], { last_error: 'took a transaction id' })
    const [build] = await insertBuilds(1)
    await updateBuilds(tx, [build!], { status: 'running' })
    await updateBuilds(tx, [build!], { status: 'succeeded' })
  })
  expect(await sql`select event from events order by event_id`).toEqual(
    ['Build Requested', 'Build Requested', 'Build Started', 'Build Succeeded'].map((event) => ({ event })))
})

test('reconciliation from four connections and a builder that finishes the same builds: one end each', async () => {
  const builds = await insertBuilds(200)
  await sql`update build_requests set status = 'running', started_at = now() - interval '1 day'`
  await Promise.all([
    ...Array.from({ length: 4 }, () => as(api, service, (tx) => tx`select tracking.reconcile_builds()`)),
    ...builds.map((build) => as(api, service, (tx) => updateBuilds(tx, [build], { status: 'succeeded' }))),
  ])
  const ends = await sql`
    select b.id, count(*)::int from build_requests as b join events as e on e.tags ->> 'build_id' = b.id::text
    where e.event not in ('Build Requested', 'Build Started') group by 1 having count(*) = 1`
  expect(ends).toHaveLength(200)
  expect(await sql`select id from build_requests where lifecycle <> 'finished'`).toEqual([])
})

test('a build with times that no clock shows keeps no other from being reconciled', async () => {
  const [late, ...absurd] = await insertBuilds(3)
  await as(api, service, async (tx) => {
    await updateBuilds(tx, [late!], { status: 'running', started_at: '2026-01-01' })
    await updateBuilds(tx, [absurd[0]!], { status: 'running', started_at: '294276-12-31 23:59:59' })
    await updateBuilds(tx, [absurd[1]!], { status: 'running', started_at: '4000-01-01 BC' })
    expect(await tx`select * from tracking.reconcile_builds()`).toEqual([{ timed_out: '2', expired: '0' }])
  })
  expect(await endsOf(late!)).toEqual(['Build Timed Out'])
})


// Dead letters --------------------------------------------------------------------------------------------

describe('events that the log refuses', () => {
  const refuse = () => sql`alter table events add constraint log_is_broken check (event <> 'Build Succeeded') not valid`
  const repair = () => sql`alter table events drop constraint if exists log_is_broken`
  afterEach(repair)

  test('wait as dead letters, each whole, while their builds go on', async () => {
    await refuse()
    const builds = await insertBuilds(100)
    await as(api, service, (tx) => updateBuilds(tx, builds, { status: 'succeeded' }))
    expect(await sql`select status, count(*)::int from build_requests group by 1`).toEqual([{ status: 'succeeded', count: 100 }])
    expect(await sql`select event from events where event <> 'Build Requested'`).toEqual([])
    expect(await sql`select count(*)::int, min(error) as error, min(tries) as tries from tracking.dead_letters`).toEqual([
      { count: 100, error: expect.stringMatching(/^23514 .*log_is_broken/), tries: 1 }])
    await repair()
  })

  test('are written once each, as they would have been, when eight connections retry at once', async () => {
    await refuse()
    const builds = await insertBuilds(200)
    await as(api, service, (tx) => updateBuilds(tx, builds, { status: 'succeeded' }))
    const letters = await sql`select event - '{received_at,txid}'::text[] as event from tracking.dead_letters order by event ->> 'event_id'`
    await repair()

    const retries = await Promise.all(Array.from({ length: 8 }, () => as(api, service, async (tx) => {
      const [row] = await tx<{ written: number, failed: number }[]>`select * from tracking.retry_dead_letters(50)`
      return row!
    })))

    expect(retries.reduce((sum, { written }) => sum + written, 0)).toBe(200)
    expect(retries.map(({ failed }) => failed)).toEqual(Array(8).fill(0))
    expect(await sql`select id from tracking.dead_letters`).toEqual([])
    expect(await sql`
      select to_jsonb(e) - '{received_at,txid}'::text[] as event from events as e
      where e.event = 'Build Succeeded' order by event_id`).toEqual(letters)
    expect(letters).toHaveLength(200)
  })

  test('are kept where the retry fails or is rolled back, and counted', async () => {
    await refuse()
    const [build] = await insertBuilds(1)
    await as(api, service, (tx) => updateBuilds(tx, [build!], { status: 'succeeded' }))
    expect(await sql`select * from tracking.retry_dead_letters()`).toEqual([{ written: 0, failed: 1 }])
    expect(await sql`select tries from tracking.dead_letters`).toEqual([{ tries: 2 }])
    await repair()

    await as(api, service, async (tx) => {
      expect(await tx`select * from tracking.retry_dead_letters()`).toEqual([{ written: 1, failed: 0 }])
      throw new RollBack()
    }).catch((error: unknown) => expect(error).toBeInstanceOf(RollBack))
    expect(await endsOf(build!)).toEqual([])
    expect(await sql`select * from tracking.retry_dead_letters()`).toEqual([{ written: 1, failed: 0 }])
    expect(await sql`select * from tracking.retry_dead_letters()`).toEqual([{ written: 0, failed: 0 }])
    expect(await endsOf(build!)).toEqual(['Build Succeeded'])
  })
})


// The database --------------------------------------------------------------------------------------------

async function requestBuild(tx: TransactionSql): Promise<string> {
  const [build] = await tx<{ id: string }[]>`select id from request_build('com.acme.app', 'ios')`
  return build!.id
}

// Changes go to the database as one JSON text each, so that times arrive as they are written here.

async function insertBuild(tx: TransactionSql, change: Change): Promise<string> {
  const [build] = await tx<{ id: string }[]>`
    insert into build_requests (app_id, platform, requested_by, status, builder_job_id, last_error, started_at, completed_at)
    select 'com.acme.beta', 'android', ${people.bob}, coalesce(c.status, 'pending'), c.builder_job_id, c.last_error, c.started_at, c.completed_at
    from   jsonb_populate_record(null::build_requests, ${JSON.stringify(change)}::text::jsonb) as c
    returning id`
  return build!.id
}

/** @returns the builds that there were to update. */
async function updateBuilds(tx: Sql | TransactionSql, ids: string[], change: Change): Promise<string[]> {
  const rows = await tx<{ id: string }[]>`
    with change as (select ${JSON.stringify(change)}::text::jsonb as c)
    update build_requests as b
    set    status         = case when c ? 'status' then c ->> 'status' else b.status end,
           builder_job_id = case when c ? 'builder_job_id' then c ->> 'builder_job_id' else b.builder_job_id end,
           last_error     = case when c ? 'last_error' then c ->> 'last_error' else b.last_error end,
           started_at     = case when c ? 'started_at' then (c ->> 'started_at')::timestamptz else b.started_at end,
           completed_at   = case when c ? 'completed_at' then (c ->> 'completed_at')::timestamptz else b.completed_at end
    from   change
    where  b.id = any (${ids}::uuid[])
    returning b.id`
  return rows.map((row) => row.id)
}

async function insertBuilds(count: number): Promise<string[]> {
  const rows = await as(api, service, (tx) => tx<{ id: string }[]>`
    insert into build_requests (app_id, platform, requested_by)
    select 'com.acme.beta', 'android', ${people.bob} from generate_series(1, ${count}) returning id`)
  return rows.map((row) => row.id)
}

/** Has a second connection wait for the first's lock on a build. */
async function race({ first, second, firstCommits }: Record<'first' | 'second', [Status, string]> & { firstCommits: boolean }): Promise<void> {
  const update = (tx: TransactionSql, [status, build]: [Status, string]) => updateBuilds(tx, [build], { status })
  let waiting: Promise<unknown> | undefined
  await as(api, service, async (tx) => {
    await update(tx, first)
    waiting = as(api, service, (other) => update(other, second))
    await expect.poll(async () => (await sql`
      select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`).length).toBe(1)
    if (!firstCommits) throw new RollBack()
  }).catch((error: unknown) => expect(error).toBeInstanceOf(RollBack))
  await waiting
}

async function endsOf(build: string): Promise<string[]> {
  const rows = await sql`
    select event from events where tags ->> 'build_id' = ${build} and event not in ('Build Requested', 'Build Started')`
  return rows.map((row) => row.event)
}

/** The lifecycle events, by build and in the order of their ids; and makes sure that they are attributed as their build is. */
async function readEvents(): Promise<EmittedEvent[]> {
  expect(await sql`
    select e.event, e.source, e.channel, e.actor_id, e.org_id, e.app_id, e.tags
    from   events as e
    left   join build_requests as b on b.id = (e.tags ->> 'build_id')::uuid
    where  (e.source, e.channel, e.actor_id, e.org_id, e.app_id, e.scope_id, e.api_key_id is null,
            e.tags ->> 'platform', e.tags ->> 'org_id', e.tags ->> 'app_id', e.tags ->> 'build_mode')
           is distinct from
           ('trigger', 'build-lifecycle', b.requested_by, b.owner_org, b.app_id, b.owner_org, true,
            b.platform, b.owner_org::text, b.app_id, b.build_mode)`).toEqual([])
  return [...await sql<EmittedEvent[]>`
    select tags ->> 'build_id' as build, event, icon,
           jsonb_strip_nulls(jsonb_build_object(
             'duration', tags -> 'duration_seconds', 'queue', tags -> 'queue_seconds', 'failure', tags -> 'failure_category'))
           || jsonb_build_object('job_id', tags -> 'job_id') as tags
    from   events
    order  by tags ->> 'build_id', event_id`]
}
