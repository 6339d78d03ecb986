import fc from 'fast-check'
import type { Sql, TransactionSql } from 'postgres'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { orgs, people, uuidV7 } from './demo.ts'
import { apps } from './matrix-model.ts'
import * as reference from './reference.ts'
import type { Build, By, Filters, LogEvent, Period } from './reference.ts'
import { become, holderOf, nobody, person, service, type Caller } from './sessions.ts'
import { createWorld, type World } from './world.ts'

// The functions of analytics, beside a reference that is slow and obvious. fast-check prints the seed and the path of
// what fails.

let world: World
let sql: Sql
beforeAll(async () => {
  world = await createWorld()
  // Wherever the session is and however it writes times, days are those of UTC. (IST is India's there, and read as Israel's.)
  const database = new URL(world.databaseUrl).pathname.slice(1)
  await world.sql.unsafe(`alter database ${database} set timezone = 'Asia/Kolkata'; alter database ${database} set datestyle = 'SQL, DMY'`).simple()
  sql = world.connectAs('lite') // a login whose claims are believed, and that may take on any role
})
afterAll(() => world.close())
beforeEach(() => empty())

const [MINUTE, HOUR, DAY] = [60_000, 3_600_000, 86_400_000]
/** Ten minutes before a month, a day and almost a week end. */
const base = Date.parse('2025-03-30T23:50:00Z')


// What may be in a log ------------------------------------------------------------------------------------

/** An event's place in the log, and the moment at which it is written: with those before it, or in a transaction of its own. */
type Written = { event: LogEvent, rank: number, alone: boolean, rolled: number }

// Few and simple, so that much happens to somebody: names that come often, and some that SQL might trip over.
const names = ['a', 'a', 'a', 'b', 'b', 'B', '%s\'']
const actors = [people.ada, people.ada, people.ada, people.bob, people.bob, people.cyd, null]
const channels = ['usage', 'cli-usage', 'build-lifecycle', 'default']
const placeOf = fc.constantFrom<Pick<LogEvent, 'org' | 'app'>>(
  { org: null, app: null }, { org: orgs.acme, app: null }, { org: orgs.acme, app: 'com.acme.app' }, { org: orgs.acme, app: 'com.acme.beta' },
  { org: orgs.evil, app: 'com.evil.app' }, { org: orgs.demo, app: null })
const spans = [1, MINUTE, 30 * MINUTE, HOUR, DAY, 7 * DAY, 31 * DAY]
const gaps = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(0, 0, 1, 1, MINUTE, 30 * MINUTE) },
  { weight: 1, arbitrary: fc.tuple(fc.constantFrom(...spans), fc.constantFrom(-1, 0, 0, 1)).map(([span, off]) => span + off) })
const tagsOf = fc.record({ plan: fc.constantFrom('free', 'pro', 'Pro') }, { requiredKeys: [] })

const anyLog: fc.Arbitrary<Written[]> = fc.array(fc.record({
  gap: gaps, place: placeOf, actor: fc.constantFrom(...actors),
  event: fc.constantFrom(...names), channel: fc.constantFrom(...channels), tags: tagsOf,
  rank: fc.nat(1000), alone: fc.boolean(), rolled: fc.constantFrom(0, 0, 1, 3, 100),
}), { maxLength: 40 }).map((written) => {
  let at = base
  return written.map(({ gap, place, actor, event, channel, tags, rank, alone, rolled }) => {
    at += gap
    return { event: { ...place, actor: place.org === null ? actor ?? people.ada : actor, event, channel, at, tags }, rank, alone, rolled }
  })
})

const timeNear = fc.tuple(fc.constantFrom(0, 5 * MINUTE, 10 * MINUTE, HOUR, DAY, 2 * DAY, 7 * DAY, 31 * DAY), fc.constantFrom(-1, 0, 0, 1))
  .map(([far, off]) => base + far + off)
const eachFilter = {
  org: fc.constantFrom(orgs.acme, orgs.evil), app: fc.constantFrom('com.acme.app', 'com.evil.app'), since: timeNear, until: timeNear,
  tags: fc.record({ plan: fc.constantFrom('free', 'pro') }, { requiredKeys: [] }) }
const oneFilter = (name: keyof typeof eachFilter): fc.Arbitrary<Filters> => eachFilter[name].map((value) => ({ [name]: value }))
// One at a time, as a rule: many together leave nothing.
const anyFilters: fc.Arbitrary<Filters> = fc.oneof(
  { weight: 3, arbitrary: fc.constant<Filters>({}) },
  { weight: 2, arbitrary: fc.oneof(oneFilter('org'), oneFilter('app'), oneFilter('tags')) },
  { weight: 3, arbitrary: fc.oneof(oneFilter('since'), oneFilter('until')) },
  { weight: 2, arbitrary: fc.record(eachFilter, { requiredKeys: [] }).filter(({ since, until }) => since === undefined || until === undefined || since < until) })
const anyName = fc.constantFrom(...names)
const anyBy = fc.constantFrom<By>('actor', 'org')
const anyPeriod = fc.constantFrom<Period>('day', 'week', 'month')
const anySpan = fc.constantFrom(...spans)


// The log in the database ---------------------------------------------------------------------------------

/** Empties the log, and has the rollup begin again. */
async function empty(): Promise<void> {
  await sql`delete from public.events`
  await sql`delete from public.build_requests`
  await sql`delete from tracking.activity`
  await sql`delete from tracking.kinds`
}

/** Writes events, in the order of their ranks, with the rollup brought further in between. */
async function write(log: Written[]): Promise<LogEvent[]> {
  const inTurn = log.toSorted((a, b) => a.rank - b.rank)
  let batch: LogEvent[] = []
  for (const [n, { event, alone, rolled }] of inTurn.entries()) {
    batch.push(event)
    if (!alone && n < inTurn.length - 1) continue
    await insert(batch)
    batch = []
    if (rolled > 0) await sql`select tracking.roll_up(${rolled})`
  }
  return inTurn.map(({ event }) => event)
}

const insert = (events: LogEvent[]) => sql`
  insert into public.events (scope_id, occurred_at, event_id, org_id, actor_id, app_id, event, channel, tags, source)
  select coalesce(e.org, e.actor), e.at, e.id, e.org, e.actor, e.app, e.event, e.channel, e.tags, 'service'
  from   jsonb_to_recordset(${sql.json(events.map((event) => ({ ...event, id: uuidV7(event.at), at: new Date(event.at) })))}) as e (
           org uuid, app text, actor uuid, event text, channel text, at timestamptz, id uuid, tags jsonb)`

/** What a function answers, in the reference's words: times in ISO 8601, numbers to the microsecond. */
async function ask(tx: Sql | TransactionSql, name: string, args: Record<string, unknown>): Promise<unknown[]> {
  const given = Object.entries(args).filter(([, value]) => value !== undefined)
  const text = given.map(([argument], n) => `${argument} => $${n + 1}`).join(', ')
  const rows = await tx.unsafe(`select to_jsonb(r) as row from analytics.${name}(${text}) as r`, given.map(([, value]) => value as never))
  return tidy(rows.map(({ row }) => row)) as unknown[]
}

function tidy(value: unknown): unknown {
  if (typeof value === 'number') return Number(value.toFixed(6))
  if (typeof value === 'string') return /^\d{4}-\d\d-\d\dT/.test(value) ? new Date(value).toISOString() : value
  if (Array.isArray(value)) return value.map(tidy)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, tidy(item)]))
}

const asArguments = ({ since, until, ...others }: Filters) => ({
  ...others, since: since === undefined ? undefined : new Date(since), until: until === undefined ? undefined : new Date(until) })
const asInterval = (span: number) => `${span} milliseconds`


// Each question, with any arguments -----------------------------------------------------------------------

/** A question with its arguments: how it is put to the database, and what the reference answers. */
type Question = { name: string, args: Record<string, unknown>, answer: (log: LogEvent[], builds: Build[]) => unknown[] }

const anyQuestion: Record<string, fc.Arbitrary<Question>> = {
  funnel: fc.tuple(fc.array(anyName, { minLength: 2, maxLength: 5 }), anySpan, anyBy, fc.constantFrom(null, 'plan'), anyFilters).map(
    ([steps, within, by, breakdown, filters]) => ({
      name: 'funnel', args: { steps, within: asInterval(within), by, breakdown, ...asArguments(filters) },
      answer: (log) => reference.funnel(log, steps, within, by, breakdown, filters),
    })),
  retention: fc.tuple(anyName, fc.option(anyName), anyPeriod, anyBy, fc.constantFrom(1, 3, 12), anyFilters).map(
    ([first, again, period, by, periods, filters]) => ({
      name: 'retention', args: { first_event: first, return_event: again, period, by, periods, ...asArguments(filters) },
      answer: (log) => reference.retention(log, first, again ?? first, period, by, periods, filters, Date.now()),
    })),
  active: fc.tuple(anyBy, anyPeriod, fc.option(anyName), anyFilters).map(([by, period, event, filters]) => ({
    name: 'active', args: { by, period, event, ...asArguments(filters) },
    answer: (log) => reference.active(log, by, period, event, filters, Date.now()),
  })),
  paths: fc.tuple(anyName, fc.constantFrom(1, 2, 3, 5), anySpan, anyFilters).map(([from, depth, gap, filters]) => ({
    name: 'paths', args: { from_event: from, depth, gap: asInterval(gap), ...asArguments(filters) },
    answer: (log) => reference.paths(log, from, depth, gap, filters),
  })),
  sessions: fc.tuple(anySpan, anyFilters).map(([gap, filters]) => ({
    name: 'sessions', args: { gap: asInterval(gap), ...asArguments(filters) },
    answer: (log) => reference.sessions(log, gap, filters),
  })),
  surfaces: anyFilters.map((filters) => ({
    name: 'surfaces', args: asArguments(filters),
    answer: (log) => reference.surfaceSets(log, filters),
  })),
  activity: fc.tuple(fc.oneof(anyPeriod, fc.constant<Period>('hour')), fc.option(anyName), anyFilters).map(([period, event, filters]) => ({
    name: 'activity', args: { period, event, ...asArguments(filters) },
    answer: (log) => reference.activity(log, period, event, filters, Date.now()),
  })),
  build_health: fc.tuple(anyPeriod, fc.constantFrom(null, 'app', 'org', 'platform', 'build_mode', 'actor'), anyFilters).map(
    ([period, by, { tags: _, ...filters }]) => ({
      name: 'build_health', args: { period, by, ...asArguments(filters) },
      answer: (_log, builds) => reference.buildHealth(builds, period, by, filters),
    })),
}
const questionsOfEvents = ['funnel', 'retention', 'active', 'paths', 'sessions', 'surfaces', 'activity'] as const

describe('for any log and any arguments, rolled up as far as may be, the answer is the reference\'s', () => {
  test.each(questionsOfEvents)('%s', async (name) => {
    await fc.assert(fc.asyncProperty(anyLog, fc.array(anyQuestion[name]!, { minLength: 4, maxLength: 4 }), async (written, questions) => {
      const log = await write(written)
      for (const { name, args, answer } of questions) {
        const expected = tidy(answer(log, []))
        expect(await ask(sql, name, args)).toEqual(expected)
        expect(await askTheLog(name, args)).toEqual(expected)
      }
    }).afterEach(empty), { numRuns: Number(process.env.RUNS ?? 60) })
  })
})

/** Asks without the rollup. */
const askTheLog = (name: string, args: Record<string, unknown>) => sql.begin(async (tx) => {
  await tx`set local actorscope.rollups = off`
  return ask(tx, name, args)
})

test('a question of whole hours is put to the rollup, and one about tags to the log', async () => {
  await insert([{ org: null, app: null, actor: people.ada, event: 'a', channel: 'usage', at: base, tags: { plan: 'pro' } }])
  await sql`select tracking.roll_up()`
  await sql`delete from public.events`
  expect(await ask(sql, 'activity', {})).toEqual([{ period: '2025-03-30T00:00:00.000Z', events: 1, actors: 1, orgs: 0 }])
  expect(await ask(sql, 'activity', { tags: { plan: 'pro' } })).toEqual([])
  expect(await askTheLog('activity', {})).toEqual([])
})

const anyBuilds: fc.Arbitrary<Build[]> = fc.array(fc.record({
  app: fc.constantFrom('com.acme.app', 'com.acme.app', 'com.acme.beta', 'com.evil.app'), actor: fc.constantFrom(people.ada, people.bob),
  platform: fc.constantFrom('ios', 'ios', 'ios', 'android'), mode: fc.constantFrom('release', 'release', 'debug'),
  status: fc.constantFrom('pending', 'running', 'succeeded', 'failed', 'failed', 'timed_out', 'cancelled', 'expired', 'released'),
  gap: gaps, wait: fc.constantFrom(0, MINUTE, HOUR), run: fc.constantFrom(0, 0, MINUTE, HOUR, 2 * HOUR), id: fc.uuid({ version: 4 }), began: fc.boolean(),
}), { maxLength: 30 }).map((asked) => {
  let requested = base
  return asked.map(({ gap, wait, run, began, ...build }) => {
    requested += gap
    const started = build.status === 'pending' || !began ? null : requested + wait
    const category = build.status === 'failed' ? 'builder_error' : build.status === 'timed_out' ? 'timeout' : null
    const ended = ['pending', 'running'].includes(build.status) ? null : (started ?? requested) + run
    return { ...build, org: apps[build.app]!, category, requested, started, ended }
  })
})

// The triggers keep times and owners of their own, and write events.
const insertBuilds = (builds: Build[]) => sql.begin(async (tx) => {
  await tx`set local session_replication_role = replica`
  await tx`
    insert into public.build_requests (
      id, owner_org, app_id, requested_by, platform, build_mode, status, last_error, created_at, started_at, completed_at)
    select b.id, b.org, b.app, b.actor, b.platform, b.mode, b.status, case when b.status = 'failed' then 'exit 1' end, b.requested, b.started, b.ended
    from   jsonb_to_recordset(${tx.json(builds.map(({ requested, started, ended, ...build }) => ({
      ...build, requested: new Date(requested), started: started && new Date(started), ended: ended && new Date(ended) })))}) as b (
             id uuid, org uuid, app text, actor uuid, platform text, mode text, status text, requested timestamptz, started timestamptz, ended timestamptz)`
})

test('for any builds, build_health is the reference\'s', async () => {
  await fc.assert(fc.asyncProperty(anyBuilds, fc.array(anyQuestion.build_health!, { minLength: 4, maxLength: 4 }), async (builds, questions) => {
    await insertBuilds(builds)
    for (const { name, args, answer } of questions) expect(await ask(sql, name, args)).toEqual(tidy(answer([], builds)))
  }).afterEach(empty), { numRuns: 60 })
})


// Whoever asks --------------------------------------------------------------------------------------------

describe('everybody is answered by the events and builds that they may read', () => {
  const [log = []] = fc.sample(fc.array(anyLog, { minLength: 12, maxLength: 12 }), { numRuns: 1, seed: 5 }).map((logs) => logs.flat())
  const [builds = []] = fc.sample(fc.array(anyBuilds, { minLength: 4, maxLength: 4 }), { numRuns: 1, seed: 5 }).map((some) => some.flat())
  const questions = Object.values(anyQuestion).flatMap((one) => fc.sample(one, { numRuns: 6, seed: 5 }))
  beforeEach(async () => {
    await write(log)
    await insertBuilds(builds)
  })

  const callers: [string, Caller, 'all' | 'some' | 'none'][] = [
    ['ada, of two orgs', person(people.ada), 'some'], ['bob, of one org', person(people.bob), 'some'], ['cyd, of one app', person(people.cyd), 'some'],
    ['eve, of another org', person(people.eve), 'some'], ['nik, of no org', person(people.nik), 'none'],
    ['the key acme_admin', holderOf('as_local_acme_admin'), 'some'], ['the key demo_app', holderOf('as_local_demo_app'), 'none'],
    ['nobody', nobody, 'none'], ['the service role', service, 'all'], ['an analyst', { role: 'analyst' as never }, 'all'],
  ]
  test.each(callers)('%s', async (_, caller, sees) => {
    await sql.begin(async (tx) => {
      await become(tx, caller)
      const [readable, readableBuilds] = [await readEvents(tx), await readBuilds(tx, builds)]
      expect(readable.length === log.length ? 'all' : readable.length > 0 ? 'some' : 'none').toBe(sees)
      for (const { name, args, answer } of questions) {
        const expected = tidy(answer(readable, readableBuilds))
        await tx`set local actorscope.rollups = on`
        expect(await ask(tx, name, args), name).toEqual(expected)
        await tx`set local actorscope.rollups = off`
        expect(await ask(tx, name, args), name).toEqual(expected)
      }
    })
  })
})

async function readEvents(tx: TransactionSql): Promise<LogEvent[]> {
  return tx<LogEvent[]>`
    select org_id as org, app_id as app, actor_id as actor, event, channel, (extract(epoch from occurred_at) * 1000)::float8 as at, tags
    from   public.events`
}

async function readBuilds(tx: TransactionSql, all: Build[]): Promise<Build[]> {
  const ids = new Set((await tx<{ build_id: string }[]>`select build_id from analytics.builds`).map(({ build_id }) => build_id))
  return all.filter(({ id }) => ids.has(id))
}
