import { setTimeout as sleep } from 'node:timers/promises'
import type { Sql, TransactionSql } from 'postgres'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { connect } from '../src/database.ts'
import { orgs, people } from './demo.ts'
import { as, become, failureOf, holderOf, nobody, person, service, trackEvents, type Caller } from './sessions.ts'
import { createWorld, type World } from './world.ts'

// The rollup and the tail, beside the log that they stand for.

let world: World
let sql: Sql

beforeAll(async () => {
  world = await createWorld()
  sql = world.sql
  await sql`create role analyst_of_rollup in role analyst`
  await sql`update tracking.settings set api_logins = api_logins || session_user::name`
})
afterAll(async () => {
  await sql`drop role analyst_of_rollup`
  await world.close()
})
beforeEach(async () => {
  await sql`delete from public.events`
  await sql`select tracking.recount_activity()`
  await rollUp()
})

/** Who did what in which hour: by the rollup and the tail, and by the log. */
const byRollup = (tx: Sql | TransactionSql) => tx`
  select scope_id, org_id, app_id, event, channel, surface, actor_id, hour, sum(events) as events,
         min(first_at) as first_at, max(last_at) as last_at
  from   tracking.hours
  group  by 1, 2, 3, 4, 5, 6, 7, 8
  order  by 1, 2, 3, 4, 5, 6, 7, 8`
const byLog = (tx: Sql | TransactionSql) => tx`
  select scope_id, org_id, app_id, event, channel, tracking.surface_of(event, channel) as surface, actor_id,
         date_trunc('hour', occurred_at, 'UTC') as hour, count(*) as events,
         min(occurred_at)::timestamptz as first_at, max(occurred_at)::timestamptz as last_at
  from   public.events
  group  by 1, 2, 3, 4, 5, 6, 7, 8
  order  by 1, 2, 3, 4, 5, 6, 7, 8`

async function rollUp(size = 50_000): Promise<number> {
  for (let all = 0; ;) {
    const [{ added } = { added: 0 }] = await sql<{ added: string }[]>`select tracking.roll_up(${size}) as added`
    if (Number(added) === 0) return all
    all += Number(added)
  }
}

const events = (names: string[], more: object = {}) => names.map((event) => ({ event, ...more }))
const acme = { tracking_version: 2, org_id: orgs.acme }

/** Sends events as somebody, in one transaction. */
const send = (who: Caller, payloads: object[], connection = sql) =>
  as(connection, who, async (tx) => { expect((await trackEvents(tx, payloads)).dropped).toBe(0) })

/** A transaction that has written, and stays open. */
async function openTransaction(who: Caller, payloads: object[]) {
  const connection = connect(world.databaseUrl, { max: 1 })
  await connection`begin`
  await become(connection as never, who)
  await trackEvents(connection as never, payloads)
  return async (how: 'commit' | 'rollback') => {
    await connection.unsafe(how)
    await connection.end()
  }
}

test('an answer is the same before, amid and after the rollup has the events', async () => {
  for (let n = 0; n < 10; n++) await send(person(people.ada), events(['CLI Command Invoked', 'User visit', 'Odd'], { ...acme, channel: 'usage' }))
  await send(person(people.bob), events(['Odd', 'Odd', 'Odd']))
  const expected = await byLog(sql)
  expect(expected.length).toBeGreaterThan(3)

  for (const size of [1, 5, 7, 1000]) {
    expect(await byRollup(sql)).toEqual(expected)
    await sql`select tracking.roll_up(${size})`
  }
  expect(await rollUp()).toBe(0)
  expect(await byRollup(sql)).toEqual(expected)
  expect(await sql`select count(*)::int from tracking.unrolled()`).toEqual([{ count: 0 }])
})

test('so many events are taken as it is told, by whole transactions', async () => {
  for (let n = 0; n < 3; n++) await send(person(people.ada), events(['A', 'B']))
  await send(person(people.ada), events(Array.from({ length: 50 }, (_, n) => `of many ${n}`)))
  const added = async (size: number) => Number((await sql`select tracking.roll_up(${size}) as added`)[0]!.added)
  expect([await added(1), await added(3), await added(2), await added(2), await added(1)]).toEqual([2, 4, 50, 0, 0])
})

test('an event that commits late is counted then, and what is rolled back never', async () => {
  const [late, undone] = [await openTransaction(person(people.ada), events(['Late'])), await openTransaction(person(people.ada), events(['Undone']))]
  await send(person(people.ada), events(['Early']))
  expect(await rollUp()).toBe(1)
  await send(person(people.ada), events(['Earlier than late']))
  expect(await rollUp(1)).toBe(1)
  await late('commit')
  await undone('rollback')
  expect(await byRollup(sql)).toEqual(await byLog(sql))
  expect(await rollUp()).toBe(1)
  expect(await byRollup(sql)).toEqual(await byLog(sql))
})

test('a backfill into an hour that was counted is counted there', async () => {
  const at = (minute: number) => ({ ...acme, timestamp: `2026-03-05T09:${minute}:00Z` })
  await send(person(people.ada), events(['A'], at(10)))
  await rollUp()
  await send(person(people.ada), events(['A'], at(40)))
  await send(person(people.bob), events(['A'], at(20)))
  await rollUp()
  expect(await byRollup(sql)).toEqual(await byLog(sql))
  expect(await sql`select cardinality(times) as events from tracking.activity order by 1`).toEqual([{ events: 1 }, { events: 2 }])
})

test('events of one name with and without an app, an org or an actor are told apart', async () => {
  await send(person(people.ada), [{ event: 'A' }, { event: 'A', ...acme }, { event: 'A', tracking_version: 2, tags: { app_id: 'com.acme.app' } }])
  await send(service, [{ event: 'A', ...acme }, { event: 'A', ...acme, user_id: people.bob }])
  const expected = await byLog(sql)
  expect(expected).toHaveLength(5)
  await rollUp()
  expect(await byRollup(sql)).toEqual(expected)
})

test('while many write, pause and give up, every look at it equals the log, and nothing is counted twice', async () => {
  const writers = Array.from({ length: 8 }, async (_, writer) => {
    const connection = connect(world.databaseUrl, { max: 1 })
    for (let n = 0; n < 12; n++) {
      await as(connection, person(people.ada), async (tx) => {
        await trackEvents(tx, events([`Writer ${writer}`, `Round ${n}`], acme))
        await sleep(n % 4 === 0 ? 150 : 5)
        if (n % 5 === 0) throw new Error('gives up')
      }).catch(() => {})
    }
    await connection.end()
  })
  let writing = true
  const written = Promise.all(writers).then(() => { writing = false })
  const rollers = [3, 1000].map(async (size) => {
    const connection = connect(world.databaseUrl, { max: 1 })
    while (writing) await connection`select tracking.roll_up(${size})`
    await connection.end()
  })
  let looks = 0
  for (; writing; looks++) {
    await sql.begin('isolation level repeatable read', async (tx) => {
      expect(await byRollup(tx)).toEqual(await byLog(tx))
    })
  }
  await Promise.all([written, ...rollers])
  await rollUp()
  expect(looks).toBeGreaterThan(3)
  expect(await byRollup(sql)).toEqual(await byLog(sql))
  expect(await sql`select sum(cardinality(times))::int as events from tracking.activity`).toEqual([{ events: 8 * 9 * 2 }])
})

test('one at a time brings it further; another has nothing to do meanwhile', async () => {
  await send(person(people.ada), events(['A']))
  await sql.begin(async (tx) => {
    expect(Number((await tx`select tracking.roll_up() as added`)[0]!.added)).toBe(1)
    expect(await rollUp()).toBe(0)
    throw new Error('undone')
  }).catch(() => {})
  expect(await rollUp()).toBe(1)
})

test('hours are counted anew from the log as far as the rollup has come, without counting the tail', async () => {
  const at = (hour: number) => ({ ...acme, timestamp: `2026-03-05T0${hour}:30:00Z` })
  for (const hour of [1, 2, 3]) await send(person(people.ada), events(['A', 'B'], at(hour)))
  await rollUp()
  const expected = await byLog(sql)
  await sql`update tracking.activity set times = times || times where hour >= '2026-03-05T02:00Z'`
  await sql`delete from tracking.activity where hour = '2026-03-05T03:00Z'`
  await send(person(people.ada), events(['A'], at(3)))
  expect(Number((await sql`select tracking.recount_activity('2026-03-05T02:10Z') as events`)[0]!.events)).toBe(4)
  expect(await byRollup(sql)).toEqual(await byLog(sql))
  await rollUp()
  expect(await byRollup(sql)).toEqual(await byLog(sql))
  expect(await byLog(sql)).not.toEqual(expected)
})

test('hours are those of UTC, whatever the time zone of who brings the rollup further', async () => {
  await send(person(people.ada), events(['A'], { ...acme, timestamp: '2026-03-05T09:10:00Z' }))
  await send(person(people.ada), events(['A'], { ...acme, timestamp: '2026-03-05T09:50:00Z' }))
  await sql.begin(async (tx) => {
    await tx`set local timezone = 'Asia/Kolkata'` // half an hour beside UTC's
    await tx`set local datestyle = 'SQL, DMY'` // which writes it IST, and reads that as Israel's
    await tx`select tracking.roll_up()`
    expect(await tx`select tracking.recount_activity('2026-03-05T09:00Z')::int as events`).toEqual([{ events: 2 }])
  })
  expect(await byRollup(sql)).toEqual(await byLog(sql))
})

test('hours are not counted anew while the rollup is brought further', async () => {
  const other = await sql.reserve()
  await other`begin`
  await other`select from tracking.rollup for update`
  expect(await failureOf(sql.begin(async (tx) => {
    await tx`set local lock_timeout = '50ms'`
    await tx`select tracking.recount_activity()`
  }))).toMatchObject({ code: '55P03' })
  await other`rollback`
  other.release()
})

test.each([
  ['nothing', null, null], ['at hours', '2026-03-05T09:00Z', '2026-03-05T12:00Z'], ['amid an hour', '2026-03-05T09:20Z', '2026-03-05T11:20Z'],
  ['within an hour', '2026-03-05T09:20Z', '2026-03-05T09:50Z'], ['from amid an hour to its end', '2026-03-05T09:20Z', '2026-03-05T10:00Z'],
  ['from an hour to amid it', '2026-03-05T09:00Z', '2026-03-05T09:20Z'], ['at an event', '2026-03-05T09:10Z', '2026-03-05T11:40Z'], ['from nothing', '2026-03-05T10:10:00.001Z', null],
  ['to nothing', null, '2026-03-05T10:10:00.001Z'],
])('hours are cut by times: %s', async (_, since, until) => {
  const at = (hour: number, minute: number) => ({ ...acme, timestamp: `2026-03-05T${String(hour).padStart(2, '0')}:${minute}:00Z` })
  const write = async (minutes: number[]) => {
    for (const hour of [8, 9, 10, 11, 12]) for (const minute of minutes) await send(person(people.ada), events(['A', 'B'], at(hour, minute)))
  }
  await write([10, 40])
  await rollUp()
  await write([20])
  const counted = (source: string) => sql.unsafe(`
    select event, hour, sum(events)::int as events, min(first_at) as first_at, max(last_at) as last_at from (${source}) as h group by 1, 2 order by 1, 2`)
  const [{ query } = { query: '' }] = await sql<{ query: string }[]>`select tracking.hours_query(${orgs.acme}, null, ${since}, ${until}, '{}', '{A}') as query`
  const expected = await sql`
    select event, date_trunc('hour', occurred_at, 'UTC') as hour, count(*)::int as events, min(occurred_at)::timestamptz as first_at, max(occurred_at)::timestamptz as last_at
    from   events where event = 'A' and (${since}::timestamptz is null or occurred_at >= ${since}) and (${until}::timestamptz is null or occurred_at < ${until})
    group  by 1, 2 order by 1, 2`
  expect(await counted(query)).toEqual(expected)
  await sql.begin(async (tx) => {
    await tx`set local actorscope.rollups = off`
    const [{ query } = { query: '' }] = await tx<{ query: string }[]>`select tracking.hours_query(${orgs.acme}, null, ${since}, ${until}, '{}', '{A}') as query`
    expect(query).toContain('public.events')
    expect(await counted(query)).toEqual(expected)
  })
})

test('kinds follow where the surfaces are changed', async () => {
  await send(person(people.ada), events(['Page Viewed', 'Page Left'], { channel: 'web' }))
  await rollUp()
  await sql`insert into tracking.surfaces values ('site', 'web', '*'), ('exit', 'web', 'Page L*')`
  await send(person(people.ada), events(['Page Liked'], { channel: 'web' }))
  const found = () => sql`select event, surface from tracking.hours order by event`
  expect(await found()).toEqual([{ event: 'Page Left', surface: 'exit' }, { event: 'Page Liked', surface: 'exit' }, { event: 'Page Viewed', surface: 'site' }])
  await sql`delete from tracking.surfaces where channel = 'web'`
  expect((await found()).map(({ surface }) => surface)).toEqual([null, null, null])
})

const readers: [string, Caller | { role: 'analyst_of_rollup' }][] = [
  ['ada', person(people.ada)], ['bob', person(people.bob)], ['cyd', person(people.cyd)], ['eve', person(people.eve)],
  ['nik', person(people.nik)], ['the key acme_admin', holderOf('as_local_acme_admin')], ['the key demo_app', holderOf('as_local_demo_app')],
  ['a revoked key', holderOf('as_local_revoked')], ['nobody', nobody], ['the service role', service], ['an analyst', { role: 'analyst_of_rollup' }],
]
test.each(readers)('%s sees in each view what the log shows them, rolled up or not', async (_, who) => {
  // Given events of everybody, half of them in the rollup
  const all = async (n: number) => {
    const here = { channel: n % 2 ? 'cli-usage' : 'usage', timestamp: `2026-03-0${n}T09:30:00Z` }
    await send(person(people.ada), [{ event: 'A', ...here }, { event: 'A', ...acme, ...here }, { event: 'B', tracking_version: 2, tags: { app_id: 'com.acme.beta' }, ...here }])
    await send(person(people.cyd), [{ event: 'A', tracking_version: 2, tags: { app_id: 'com.acme.app' }, ...here }, { event: 'C', ...here }])
    await send(person(people.eve), [{ event: 'A', tracking_version: 2, org_id: orgs.evil, ...here }])
    await send(person(people.nik), [{ event: 'A', ...here }])
    await send(holderOf('as_local_demo_app'), [{ event: 'A', tracking_version: 2, tags: { app_id: 'com.demo.app' }, ...here }])
    await send(service, [{ event: 'S', ...acme, ...here }])
  }
  await all(1)
  await rollUp()
  await all(2)

  await as(sql, who as Caller, async (tx) => {
    expect(await byRollup(tx)).toEqual(await byLog(tx))
    expect(await tx`select coalesce(sum(cardinality(times)), 0)::int as events from tracking.activity`).toEqual(
      await tx`select count(*)::int as events from public.events where occurred_at < '2026-03-02'`)
    expect(await tx`select event_id from analytics.events order by 1`).toEqual(await tx`select event_id from public.events order by 1`)
    const surfaces = tx`array_remove(array_agg(distinct tracking.surface_of(event, channel)), null) as surfaces`
    const seen = tx`min(occurred_at)::timestamptz as first_seen, max(occurred_at)::timestamptz as last_seen, count(*) as events,
      count(distinct (occurred_at at time zone 'UTC')::date) as active_days`
    expect(await tx`select * from analytics.actors order by 1`).toEqual(await tx`
      select actor_id, ${seen}, coalesce(${tx`array_remove(array_agg(distinct tracking.surface_of(event, channel)), null)`}, '{}') as surfaces,
             array_remove(array_agg(distinct org_id), null) as orgs
      from public.events where actor_id is not null group by 1 order by 1`)
    expect(await tx`select org_id, first_seen, last_seen, events, active_days, actors, surfaces from analytics.orgs order by 1`).toEqual(await tx`
      select org_id, ${seen}, count(distinct actor_id) as actors, ${surfaces} from public.events where org_id is not null group by 1 order by 1`)
    expect(await tx`select actor_id, org_id, first_seen, last_seen, events, active_days, surfaces from analytics.actor_orgs order by 1, 2`).toEqual(await tx`
      select actor_id, org_id, ${seen}, ${surfaces} from public.events where org_id is not null and actor_id is not null group by 1, 2 order by 1, 2`)
  })
})

test.each(['insert into public.events default values', 'update public.orgs set name = \'x\'', 'delete from tracking.activity',
  'delete from public.events', 'truncate public.events', 'select tracking.roll_up()', 'select tracking.recount_activity()',
  'insert into tracking.surfaces values (\'x\', \'y\')', 'select * from public.api_keys', 'select * from tracking.role_bindings',
  'create table analytics.mine ()', 'create table public.mine ()'])('an analyst may not: %s', async (statement) => {
  expect((await failureOf(as(sql, { role: 'analyst_of_rollup' } as never, (tx) => tx.unsafe(statement)))).code).toBe('42501')
})
