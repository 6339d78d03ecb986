import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import type { Sql, TransactionSql } from 'postgres'
import { orgs, people } from './demo.ts'
import { createWorld, type World } from './world.ts'

type Batch = { sink: string, kind: string, settings: object, shard: number, lease: string, more: boolean, events: { event: string, event_id: string, scope_id: string, txid: string }[] }

let world: World
let sql: Sql

beforeAll(async () => {
  world = await createWorld()
  sql = world.sql
})
beforeEach(async () => {
  await sql`delete from tracking.sinks`
  await sql`truncate public.events`
})
afterAll(() => world.close())

test('a sink gets what is committed after it was made, in batches, each once', async () => {
  await write('Before')
  await createSink()
  await write('First', 'Second', 'Third')
  const first = await lease(2)
  expect(names(first)).toEqual(['First', 'Second'])
  expect(await complete(first)).toBe(true)
  const second = await lease(2)
  expect(names(second)).toEqual(['Third'])
  await complete(second)
  expect(await lease()).toBeNull()
  expect(await lag()).toEqual({ pending: 0, delivered: 3, filtered: 0, undelivered: 0 })
})

test('the lag tells how old the oldest event is that waits, and nothing where none does', async () => {
  await createSink()
  const age = async () => (await sql<{ age: number | null }[]>`select oldest_seconds as age from tracking.sink_lag`)[0]?.age
  expect(await age()).toBeNull()
  await write('First')
  await sql`select pg_sleep(0.2)`
  await write('Second')
  expect(await age()).toBeGreaterThan(0.2)
  await drain()
  expect(await age()).toBeNull()
})

test('a sink made from the beginning gets all there is', async () => {
  await write('Before')
  await createSink({ fromBeginning: true })
  expect(await drain()).toEqual(['Before'])
})

test('a batch that is leased is nobody else\'s, until the lease ends', async () => {
  await createSink()
  await write('First')
  const batch = await lease()
  expect(await lease()).toBeNull()
  await sql`update tracking.cursors set leased_until = now()`
  const again = await lease()
  expect(names(again)).toEqual(['First'])
  expect(await complete(batch)).toBe(false)
  expect(await complete(again)).toBe(true)
  expect(await lag()).toMatchObject({ delivered: 1, pending: 0 })
})

test('a batch that failed is the next again, after a pause', async () => {
  await createSink()
  await write('First')
  const batch = await lease()
  const [failed] = await sql`select tracking.fail_batch('sink', ${batch!.shard}, ${batch!.lease}, '503', '1 hour') > now() + interval '59 minutes' as late`
  expect(failed?.late).toBe(true)
  await write('Second')
  expect(await lease()).toBeNull()
  expect(await sql`select last_error, failures, pending from tracking.sink_lag`).toMatchObject([{ last_error: '503', failures: 1, pending: '2' }])
  await sql`update tracking.cursors set retry_at = now()`
  expect(await drain()).toEqual(['First', 'Second'])
})

test('a sink gets what its filters let through, and the rest is counted', async () => {
  await createSink({ events: ['Report *', 'Exact'] })
  await write('Report Exported', 'Other', 'Exact', 'Exactly', 'Report ')
  expect(await drain()).toEqual(['Report Exported', 'Exact', 'Report '])
  expect(await lag()).toEqual({ pending: 0, delivered: 3, filtered: 2, undelivered: 0 })
})

test('what a sink refuses for good is kept, whole', async () => {
  await createSink()
  await write('Good', 'Bad')
  const batch = await lease()
  const bad = batch!.events[1]
  await complete(batch, [{ event: bad, error: '400 invalid' }])
  expect(await lag()).toEqual({ pending: 0, delivered: 1, filtered: 0, undelivered: 1 })
  expect(await sql`select sink, event_id, event ->> 'event' as name, error from tracking.undelivered`).toEqual([
    { sink: 'sink', event_id: bad!.event_id, name: 'Bad', error: '400 invalid' }])
})

test('an event that commits late is delivered then, and delays no other', async () => {
  await createSink()
  const late = await openTransaction('Late')
  await write('Early')
  expect(await drain()).toEqual(['Early'])
  expect(await lease()).toBeNull()
  await late.commit()
  expect(await drain()).toEqual(['Late'])
})

test('a sink that is made while a transaction writes gets all of it', async () => {
  const writer = await openTransaction('Before')
  await createSink()
  await writer.write('After')
  await writer.commit()
  expect(await drain()).toEqual(['Before', 'After'])
})

test.each([
  ['makes a sink', `create_sink('sink', 'ndjson')`, ['First', 'Second']],
  ['rewinds it', `rewind_sink('sink', now())`, ['First', 'Second', 'Of another']],
  ['leases a batch', `lease_batch('sink', 'test')`, ['Of another', 'First', 'Second']],
])('a transaction that %s in its midst, while others commit, has all of its own events delivered', async (_, call, delivered) => {
  if (!call.startsWith('create')) await createSink()
  const session = await openTransaction('First')
  await write('Of another')
  await session.sql.unsafe(`select tracking.${call}`)
  await session.write('Second')
  await session.commit()
  await sql`update tracking.cursors set leased_until = now()`
  expect(await drain()).toEqual(delivered)
})

test('the order is that of transactions, and a batch is cut anywhere', async () => {
  await createSink()
  for (let n = 0; n < 30; n++) await write(`Event ${n}a`, `Event ${n}b`)
  for (const size of [1, 2, 3, 7, 60, 61]) {
    await sql`select tracking.rewind_sink('sink', '-infinity')`
    expect(await drain(size)).toEqual(Array.from({ length: 60 }, (_, n) => `Event ${Math.floor(n / 2)}${'ab'[n % 2]}`))
  }
})

test('shards share the work, and each scope is one\'s alone', async () => {
  await createSink({ shards: 4 })
  const scopes = Array.from({ length: 40 }, (_, n) => `10000000-0000-4000-8000-0000000001${String(n).padStart(2, '0')}`)
  for (const scope of scopes) for (const name of ['1', '2', '3']) await writeFor(scope, name)
  const batches = [await lease(), await lease(), await lease(), await lease()]
  expect(new Set(batches.map((batch) => batch!.shard)).size).toBe(4)
  expect(await lease()).toBeNull()
  const shardOf = new Map(batches.flatMap((batch) => batch!.events.map(({ scope_id }) => [scope_id, batch!.shard])))
  expect(shardOf.size).toBe(40)
  for (const batch of batches) {
    for (const scope of new Set(batch!.events.map(({ scope_id }) => scope_id))) {
      expect(batch!.events.filter(({ scope_id }) => scope_id === scope).map(({ event }) => event)).toEqual(['1', '2', '3'])
    }
    await complete(batch)
  }
  expect(await lag()).toEqual({ pending: 0, delivered: 120, filtered: 0, undelivered: 0 })
})

test('a sink is rewound to a time, and gets the same events again', async () => {
  await createSink({ fromBeginning: true })
  await write('Old')
  const [{ at } = { at: '' }] = await sql<{ at: string }[]>`select clock_timestamp()::text as at`
  await write('New', 'Newer')
  const first = await lease()
  expect(names(first)).toEqual(['Old', 'New', 'Newer'])
  await complete(first)
  await sql`select tracking.rewind_sink('sink', ${at}::timestamptz)`
  const again = await lease()
  expect(again!.events).toEqual(first!.events.slice(1))
  await complete(again)
  expect(await lag()).toEqual({ pending: 0, delivered: 2, filtered: 0, undelivered: 0 })
  expect(await sql`select * from tracking.delivery_gaps`).toEqual([])
})

test('a disabled sink waits, and loses nothing', async () => {
  await createSink()
  await sql`update tracking.sinks set enabled = false`
  await write('First')
  expect(await lease()).toBeNull()
  await sql`update tracking.sinks set enabled = true`
  expect(await drain()).toEqual(['First'])
})

test('nothing to do writes nothing', async () => {
  await createSink()
  await write('First')
  await drain()
  const before = await sql`select xmin::text from tracking.cursors`
  for (let n = 0; n < 3; n++) expect(await lease()).toBeNull()
  expect(await sql`select xmin::text from tracking.cursors`).toEqual(before)
})

test('a look that finds nothing takes no transaction id, and reads nothing of the log, however long it is', async () => {
  await createSink({ fromBeginning: true, shards: 3 })
  await writeMany(3000)
  await drain()
  expect(await lease()).toBeNull()
  const { rows, xid } = await readsOf((tx) => tx`select tracking.lease_batch('sink', 'test')`)
  expect({ rows, xid }).toEqual({ rows: 0, xid: null })
})

test.each([['never looked at it', ''], ['believes that it is empty', 'analyze public.events'], ['knows it well', 'vacuum analyze public.events']])(
  'a batch of a long log costs what is in it, and no more, where the planner %s', async (_, statement) => {
    await sql`alter table ${sql(await thisMonth())} set (autovacuum_enabled = off)`
    if (!statement.startsWith('vacuum')) await sql.unsafe(statement || 'select')
    await createSink({ fromBeginning: true })
    await writeMany(20_000)
    if (statement.startsWith('vacuum')) await sql.unsafe(statement)
    await complete(await lease(500))
    const { rows } = await readsOf((tx) => tx`select tracking.lease_batch('sink', 'test', 500)`)
    expect(rows).toBeLessThanOrEqual(510)
    await sql`update tracking.cursors set leased_until = now()`
    await drain(10_000)
    await sql`vacuum public.events`
    await write('Last')
    expect((await readsOf((tx) => tx`select * from tracking.sink_lag`)).rows).toBeLessThanOrEqual(10)
    expect(await drain()).toEqual(['Last'])
  })

test('so does a batch of a long transaction that commits late', async () => {
  await createSink()
  const late = await openTransaction('Late')
  await writeMany(5000, [people.bob], late.sql)
  await write('Early')
  expect(await drain()).toEqual(['Early'])
  await late.commit()
  await complete(await lease(500))
  expect((await readsOf((tx) => tx`select tracking.lease_batch('sink', 'test', 500)`)).rows).toBeLessThanOrEqual(510)
})

test('a shard that has nothing does not look through what the others have had, again and again', async () => {
  await createSink({ fromBeginning: true, shards: 3 })
  await writeMany(3000, [orgs.acme])
  await drain(1000)
  expect(await lease()).toBeNull()
  await writeMany(400, [orgs.acme])
  await drain()
  const { rows, xid } = await readsOf((tx) => tx`select tracking.lease_batch('sink', 'test')`)
  expect(rows).toBeLessThanOrEqual(2 * 2 * 400) // two shards, each of which counts them and looks at them
  expect(xid).toBeNull()
  const late = await openTransaction('Late')
  await writeMany(600, [orgs.acme])
  await drain()
  await late.commit()
  expect(await drain()).toEqual(['Late'])
})

test('the books do not balance where an event was lost', async () => {
  await createSink()
  await write('First', 'Second')
  await drain()
  await sql`update tracking.cursors set delivered = 1`
  expect(await sql`select events, delivered, pending from tracking.delivery_gaps`).toEqual([{ events: '2', delivered: '1', pending: '0' }])
})

test('settings with a secret in them are refused', async () => {
  await expect(sql`select tracking.create_sink('sink', 'posthog', '{"host": "x", "api_key": "phc_1"}')`).rejects.toMatchObject({
    constraint_name: 'settings_hold_no_secret' })
})

test('a rewind skips nothing: neither what is still to be delivered, nor who is still writing', async () => {
  // Given a sink that is behind, and a transaction that began before the time and is still open
  await createSink()
  await write('Behind')
  const open = await openTransaction('Still open')
  const [{ at } = { at: '' }] = await sql<{ at: string }[]>`select clock_timestamp()::text as at`
  await write('New')

  // When it is rewound to that time, and the transaction commits
  await sql`select tracking.rewind_sink('sink', ${at}::timestamptz)`
  expect(await drain()).toEqual(['Behind', 'New'])
  await open.commit()

  // Then its event is delivered as well; and the same where it is rewound to a time to come
  expect(await drain()).toEqual(['Still open'])
  await write('Newer')
  await sql`select tracking.rewind_sink('sink', now() + interval '1 hour')`
  expect(await drain()).toEqual(['Newer'])
})

test('a rewind while a long backlog is delivered sends again what is asked for, and little more', async () => {
  await createSink({ fromBeginning: true })
  for (let n = 0; n < 20; n++) await write(`Event ${n}`)
  const [{ at } = { at: '' }] = await sql<{ at: string }[]>`select received_at::text as at from events where event = 'Event 10'`
  for (let n = 0; n < 15; n++) await complete(await lease(1))
  await sql`select tracking.rewind_sink('sink', ${at}::timestamptz)`
  expect(await drain()).toEqual(Array.from({ length: 10 }, (_, n) => `Event ${n + 10}`))
})

test('two events of one id in one transaction are never cut apart', async () => {
  await createSink()
  await sql`
    insert into events (scope_id, actor_id, occurred_at, event_id, event, source)
    select s.scope, s.scope, tracking.event_time(i.id), i.id, 'Same ' || s.n, 'service'
    from   tracking.new_event_id(now()) as i (id), (values (1, ${people.ada}::uuid), (2, ${people.bob}::uuid), (3, ${people.cyd}::uuid)) as s (n, scope)`
  await write('Next')
  expect((await drain(1)).toSorted()).toEqual(['Next', 'Same 1', 'Same 2', 'Same 3'])
})

test.each([[0, 30], [null, 30], [10_001, 30], [500, 0], [500, null], [500, 3601]])('a batch of %s events, or a lease of %s seconds, is refused, and moves nothing', async (size, seconds) => {
  await createSink()
  await write('First', 'Second')
  await complete(await lease(1))
  await expect(sql`select tracking.lease_batch('sink', 'test', ${size}, ${seconds})`).rejects.toMatchObject({ code: '22023' })
  expect(await drain()).toEqual(['Second'])
})

test('the batch behind a leased one can be leased ahead, and is the batch when that one is complete', async () => {
  await createSink()
  await write('First', 'Second', 'Third', 'Fourth')
  const first = await lease(2)
  const ahead = await leaseAhead(first, 1)
  expect([names(first), first!.more, names(ahead), ahead!.more]).toEqual([['First', 'Second'], true, ['Third'], true])
  expect(await complete(ahead)).toBe(false)
  expect(await complete(first)).toBe(true)
  expect(await complete(first)).toBe(false)
  expect(await lease()).toBeNull()
  const behind = await leaseAhead(ahead, 2)
  expect([names(behind), behind!.more]).toEqual([['Fourth'], false])
  expect([await complete(ahead), await leaseAhead(behind), await complete(behind)]).toEqual([true, null, true])
  expect(await lag()).toEqual({ pending: 0, delivered: 4, filtered: 0, undelivered: 0 })
  expect(await drain()).toEqual([])
})

test('a part of a batch counts, and what was leased ahead of it is had again, when the rest fails', async () => {
  await createSink()
  await write('First', 'Second', 'Third')
  const batch = await lease(2)
  const ahead = await leaseAhead(batch)
  expect(await advance(batch, 1)).toBe(true)
  expect(names(await leaseAhead(batch))).toEqual(['Third'])
  await sql`select tracking.fail_batch('sink', 0, ${batch!.lease}, 'no')`
  expect([await advance(ahead, 1), await complete(ahead)]).toEqual([false, false])
  await sql`update tracking.cursors set retry_at = null`
  expect(await drain(1)).toEqual(['Second', 'Third'])
  expect(await lag()).toEqual({ pending: 0, delivered: 3, filtered: 0, undelivered: 0 })
})

test('what is said to be done twice, since the answer was lost, counts once', async () => {
  await createSink()
  await write('First', 'Second', 'Third')
  const batch = await lease()
  for (let n = 0; n < 2; n++) expect(await advance(batch, 2, [{ event: batch!.events[1], error: '400 no' }])).toBe(true)
  expect(await lag()).toEqual({ pending: 1, delivered: 1, filtered: 0, undelivered: 1 })
  expect(await sql`select tries from tracking.undelivered`).toEqual([{ tries: 1 }])
  await complete(batch)
  expect(await drain()).toEqual([])
  expect(await lag()).toEqual({ pending: 0, delivered: 2, filtered: 0, undelivered: 1 })
})

test('a place that is not in the rest of a batch is refused, and moves nothing', async () => {
  await createSink()
  await write('First', 'Second', 'Third', 'Fourth')
  const batch = await lease(3)
  const [first, , third] = batch!.events
  const [fourth] = await sql<Batch['events']>`select txid::text, event_id from events where event = 'Fourth'`
  await advance(batch, 1)
  const places = [[2, fourth!], [2, { ...third!, txid: '9000000000' }], [0, { ...first!, txid: '1' }], [3, third!], [null, third!]] as const
  for (const [events, { txid, event_id }] of places) {
    await expect(sql`select tracking.advance_batch('sink', 0, ${batch!.lease}, ${events}, ${txid}, ${event_id})`).rejects.toMatchObject({ code: '22023' })
  }
  await complete(batch)
  expect(await drain()).toEqual(['Fourth'])
  expect(await lag()).toEqual({ pending: 0, delivered: 4, filtered: 0, undelivered: 0 })
})

test('a batch is lost to whoever had it when the sink is rewound, renamed or made anew, and nothing else is', async () => {
  await createSink({ fromBeginning: true })
  await write('First', 'Second')
  const rewound = await lease(1)
  const ahead = await leaseAhead(rewound)
  await sql`select tracking.rewind_sink('sink', '-infinity')`
  expect([await advance(rewound, 1), await complete(rewound), await complete(ahead), await leaseAhead(rewound)]).toEqual([false, false, false, null])
  const renamed = await lease(1)
  await sql`update tracking.sinks set name = 'another'`
  expect([await complete(renamed), await sql`select sink, pending::int from tracking.sink_lag`]).toEqual([false, [{ sink: 'another', pending: 2 }]])
  await sql`update tracking.sinks set name = 'sink'`
  expect(await complete(renamed)).toBe(true)
  const removed = await lease(1)
  await sql`delete from tracking.sinks`
  expect(await complete(removed)).toBe(false)
  await createSink({ fromBeginning: true })
  expect([await complete(removed), await drain()]).toEqual([false, ['First', 'Second']])
})

test('a filter that is changed amid the log holds from there on, and the books balance', async () => {
  await createSink({ events: ['A *'] })
  await write('A 1', 'B 1', 'A 2', 'B 2', 'A 3', 'B 3')
  const batch = await lease(3)
  const ahead = await leaseAhead(batch, 1)
  await sql`update tracking.sinks set events = '{B *}'`
  expect(await sql`select * from tracking.delivery_gaps`).toEqual([])
  await advance(batch, 1)
  await complete(batch)
  await complete(ahead)
  expect([names(batch), names(ahead), await drain()]).toEqual([['A 1', 'A 2'], [], ['B 3']])
  expect(await lag()).toEqual({ pending: 0, delivered: 3, filtered: 3, undelivered: 0 })
})

test('what is undone is never delivered, and what is kept of a transaction is delivered in its place', async () => {
  await createSink()
  const session = await openTransaction('Kept')
  await session.sql`savepoint one`
  await session.write('Undone')
  await session.sql`rollback to one`
  await write('Of another, begun later')
  await session.sql`savepoint two`
  await session.write('Kept, too')
  await session.sql`release two`
  const undone = await openTransaction('Undone, too')
  await session.commit()
  await undone.sql`rollback`
  undone.sql.release()
  expect(await drain()).toEqual(['Kept', 'Kept, too', 'Of another, begun later'])
})

test('a batch that was leased ahead is nobody\'s when the one before it fails, or its lease passes to another', async () => {
  await createSink()
  await write('First', 'Second')
  const failed = await lease(1)
  const ahead = await leaseAhead(failed, 1)
  await sql`select tracking.fail_batch('sink', 0, ${failed!.lease}, 'no')`
  expect(await complete(ahead)).toBe(false)
  await sql`update tracking.cursors set retry_at = null`
  const lost = await lease(1)
  const aheadOfLost = await leaseAhead(lost, 1)
  await sql`update tracking.cursors set leased_until = now()`
  const again = await lease(1)
  expect(names(again)).toEqual(['First'])
  expect([await complete(aheadOfLost), await complete(lost), await leaseAhead(lost), await complete(again)]).toEqual([false, false, null, true])
  expect(await drain()).toEqual(['Second'])
})

test('what is done of a batch counts when the rest fails, with what was refused and what was not wanted', async () => {
  await createSink({ events: ['Wanted *'] })
  await write('Wanted 1', 'Other 1', 'Wanted 2', 'Other 2', 'Wanted 3', 'Other 3')
  const batch = await lease()
  const [, second] = batch!.events
  expect(await advance(batch, 2, [{ event: second, error: '400 no' }])).toBe(true)
  expect(await lag()).toEqual({ pending: 3, delivered: 1, filtered: 1, undelivered: 1 })
  expect(await sql`select * from tracking.delivery_gaps`).toEqual([])
  await sql`select tracking.fail_batch('sink', 0, ${batch!.lease}, 'no')`
  expect(await advance(batch, 1)).toBe(false)
  await sql`update tracking.cursors set retry_at = null`
  const rest = await lease()
  expect(names(rest)).toEqual(['Wanted 3'])
  await expect(sql`select tracking.advance_batch('sink', 0, ${rest!.lease}, 2, ${rest!.events[0]!.txid}, ${rest!.events[0]!.event_id})`).rejects.toMatchObject({ code: '22023' })
  await complete(rest)
  expect(await lag()).toEqual({ pending: 0, delivered: 2, filtered: 3, undelivered: 1 })
})

test('a lease is made longer, or ended at once', async () => {
  await createSink()
  await write('First')
  const batch = await lease()
  const extend = async (seconds: number) => (await sql`select tracking.extend_lease('sink', 0, ${batch!.lease}, ${seconds}) as kept`)[0]?.kept
  expect(await extend(1000)).toBe(true)
  expect((await sql`select leased_until > now() + interval '900 seconds' as late from tracking.cursors`)[0]?.late).toBe(true)
  expect(await extend(0)).toBe(true)
  expect(names(await lease())).toEqual(['First'])
  expect(await extend(10)).toBe(false)
})

test('of many events that it does not want, a sink is spared the sight', async () => {
  await createSink({ events: ['Wanted'] })
  await write(...Array.from({ length: 100 }, () => 'Other'))
  await write('Wanted')
  const batch = await lease(10)
  expect(names(batch)).toEqual(['Wanted'])
  expect(await lag()).toEqual({ pending: 1, delivered: 0, filtered: 100, undelivered: 0 })
  await complete(batch)
  await write(...Array.from({ length: 60 }, () => 'Other'))
  expect(names(await lease(2))).toEqual([])
  expect(await sql`select * from tracking.delivery_gaps`).toEqual([])
})

test('undelivered events are kept as they are in the log, digit for digit', async () => {
  await createSink()
  await sql`
    insert into events (scope_id, actor_id, occurred_at, event_id, event, source, tags)
    select ${people.ada}, ${people.ada}, tracking.event_time(i.id), i.id, 'Precise', 'service', '{"n": 12345678901234567890.123}'
    from   tracking.new_event_id(now()) as i (id)`
  const batch = await lease()
  await complete(batch, [{ event: { scope_id: people.ada, event_id: batch!.events[0]!.event_id }, error: 'no' }])
  expect(await sql`select event #>> '{tags,n}' as n, event ->> 'received_at' like '%+00:00' as utc from tracking.undelivered`).toEqual([
    { n: '12345678901234567890.123', utc: true }])
})

test('an undelivered event is delivered after all, refused again or dropped, and the books balance', async () => {
  await createSink()
  await write('Delivered', 'Refused', 'Dropped')
  const batch = await lease()
  await complete(batch, batch!.events.map((event) => ({ event, error: '400' })))
  const [delivered, refused, dropped] = batch!.events
  const settle = async (outcome: string, ...events: object[]) =>
    (await sql`select tracking.settle_undelivered('sink', ${outcome}, ${sql.json(events as never)}) as n`)[0]?.n
  expect(await settle('delivered', delivered!)).toBe(1)
  expect(await settle('refused', { ...refused!, error: '422 still not' })).toBe(1)
  expect(await settle('dropped', dropped!, dropped!)).toBe(1)
  expect(await settle('dropped', dropped!)).toBe(0)
  expect(await sql`select delivered::int, undelivered::int, dropped::int from tracking.sink_lag`).toEqual([{ delivered: 1, undelivered: 1, dropped: 1 }])
  expect(await sql`select event ->> 'event' as name, error, tries from tracking.undelivered`).toEqual([{ name: 'Refused', error: '422 still not', tries: 2 }])
  expect(await sql`select * from tracking.delivery_gaps`).toEqual([])
  await expect(settle('lost', refused!)).rejects.toMatchObject({ code: '22023' })
})

test('undelivered events from before a sink\'s start are in no books; those since are delivered again', async () => {
  await createSink({ fromBeginning: true })
  await write('Old')
  const [{ at } = { at: '' }] = await sql<{ at: string }[]>`select clock_timestamp()::text as at`
  await write('New')
  const batch = await lease()
  await complete(batch, batch!.events.map((event) => ({ event, error: '400' })))
  await sql`select tracking.rewind_sink('sink', ${at}::timestamptz)`
  expect(await sql`select event ->> 'event' as name from tracking.undelivered`).toEqual([{ name: 'Old' }])
  await sql`select tracking.settle_undelivered('sink', 'delivered', ${sql.json([batch!.events[0]] as never)})`
  expect(await lag()).toEqual({ pending: 1, delivered: 0, filtered: 0, undelivered: 0 })
  expect(await drain()).toEqual(['New'])
})

test('the books do not balance where a dead letter has gone', async () => {
  await createSink()
  await write('First')
  const batch = await lease()
  await complete(batch, [{ event: batch!.events[0], error: '400' }])
  await sql`delete from tracking.undelivered`
  expect(await sql`select undelivered, kept from tracking.delivery_gaps`).toEqual([{ undelivered: '1', kept: '0' }])
})

test('the service role needs no more than it is given', async () => {
  await write('First')
  await sql.begin(async (tx) => {
    await tx`set local role service_role`
    await tx`select tracking.create_sink('role', 'ndjson', from_beginning => true)`
    await tx`select tracking.rewind_sink('role', '-infinity')`
    await tx`select tracking.lease_batch('role', 'test')`
    for (const view of ['sink_lag', 'delivery_gaps', 'sinks', 'cursors', 'undelivered', 'jobs']) await tx`select * from ${tx(`tracking.${view}`)}`
    await tx`select tracking.is_restored(), tracking.take_job('job', 'me'), tracking.end_job('job', 'me', '1 minute')`
    await tx`update tracking.sinks set enabled = false`
    await tx`delete from tracking.sinks`
  })
})

test('a job is one worker\'s at a time, when it is due, and another\'s when that one is gone', async () => {
  await sql`delete from tracking.jobs`
  const take = async (worker: string) => (await sql`select tracking.take_job('job', ${worker}, 60) as taken`)[0]?.taken
  const end = async (worker: string) => (await sql`select tracking.end_job('job', ${worker}, '1 hour', 'it rained') as ended`)[0]?.ended
  expect(await Promise.all(['a', 'b', 'c', 'd', 'e'].map(take)).then((taken) => taken.filter(Boolean).length)).toBe(1)
  await sql`update tracking.jobs set held_until = now(), worker = 'gone'`
  expect(await take('b')).toBe(true)
  expect([await end('gone'), await end('b'), await take('b')]).toEqual([false, true, false])
  await sql`update tracking.jobs set due_at = now()`
  expect(await take('c')).toBe(true)
  expect(await sql`select worker, last_error from tracking.jobs`).toEqual([{ worker: 'c', last_error: 'it rained' }])
})

test('pending is counted exactly while transactions are open, whatever was delivered meanwhile', async () => {
  await createSink()
  const early = await openTransaction('Early')
  await write('First', 'Second')
  await complete(await lease(1))
  const late = await openTransaction('Late')
  await write('Third')
  expect((await lag()).pending).toBe(2)
  await early.commit()
  expect((await lag()).pending).toBe(3)
  expect(await sql`select * from tracking.delivery_gaps`).toEqual([])
  await complete(await lease(1))
  await complete(await lease(1))
  expect((await lag()).pending).toBe(1)
  await late.commit()
  expect((await lag()).pending).toBe(2)
  expect(await sql`select * from tracking.delivery_gaps`).toEqual([])
  expect((await drain()).toSorted()).toEqual(['Late', 'Third'])
})

/** What a sink was made with. */
type SinkOptions = { fromBeginning?: boolean, shards?: number, events?: string[] }

async function createSink({ fromBeginning = false, shards = 1, events }: SinkOptions = {}): Promise<void> {
  await sql`select tracking.create_sink('sink', 'ndjson', from_beginning => ${fromBeginning}, shards => ${shards}, events => ${events ?? null})`
}

/** Writes events of Acme's in one transaction, in this order. */
async function write(...events: string[]): Promise<void> {
  const client = await (ada ??= world.signIn('ada@acme.test'))
  const { data } = await client.rpc('track_events', { v2: events.map((event) => ({ event, tracking_version: 2, org_id: orgs.acme })) })
  expect(data.accepted).toBe(events.length)
}
let ada: ReturnType<World['signIn']> | undefined

async function writeFor(scope: string, event: string, on: Sql = sql): Promise<void> {
  await on`
    insert into events (scope_id, actor_id, occurred_at, event_id, event, source)
    select ${scope}, ${scope}, tracking.event_time(i.id), i.id, ${event}, 'service' from tracking.new_event_id(clock_timestamp()) as i (id)`
}

/** Writes events in one transaction, of many scopes in turn. */
async function writeMany(count: number, scopes = Object.values(people) as string[], on: Sql = sql): Promise<void> {
  await on`
    insert into events (scope_id, actor_id, occurred_at, event_id, event, source)
    select s.scope, s.scope, tracking.event_time(i.id), i.id, 'One of many', 'service'
    from   generate_series(1, ${count}) as g (n),
           lateral (select (${scopes}::uuid[])[1 + g.n % ${scopes.length}] as scope) as s,
           lateral tracking.new_event_id(now() - g.n * interval '1 millisecond') as i (id)`
}

/** How many rows of the log a statement reads, and the id of the transaction that it takes. */
async function readsOf(work: (tx: TransactionSql) => Promise<unknown>): Promise<{ rows: number, xid: string | null }> {
  return await sql.begin(async (tx) => {
    const look = async () => (await tx<{ rows: number, xid: string | null }[]>`
      select sum(s.seq_tup_read + coalesce(s.idx_tup_fetch, 0))::int as rows, pg_current_xact_id_if_assigned()::text as xid
      from   pg_stat_xact_all_tables as s
      where  s.relid in (select i.inhrelid from pg_inherits as i where i.inhparent = 'public.events'::regclass)`)[0]!
    const before = await look()
    await work(tx)
    const { rows, xid } = await look()
    return { rows: rows - before.rows, xid }
  }) as { rows: number, xid: string | null }
}

const thisMonth = async () => (await sql<{ name: string }[]>`select tracking.partition_of(now() at time zone 'UTC') as name`)[0]!.name

async function openTransaction(event: string) {
  const connection = await sql.reserve()
  await connection`begin`
  await writeFor(people.ada, event, connection)
  return {
    sql: connection,
    write: (more: string) => writeFor(people.ada, more, connection),
    commit: async () => { await connection`commit`; connection.release() },
  }
}

async function lease(size = 500): Promise<Batch | null> {
  const [batch] = await sql<Batch[]>`select * from tracking.lease_batch('sink', 'test', ${size})`
  return batch ?? null
}

async function complete(batch: Batch | null, undelivered: object[] = []): Promise<boolean> {
  const [row] = await sql`select tracking.complete_batch('sink', ${batch!.shard}, ${batch!.lease}, ${sql.json(undelivered as never)}) as done`
  return row?.done
}

async function leaseAhead(batch: Batch | null, size = 500): Promise<Batch | null> {
  const [ahead] = await sql<Batch[]>`
    select * from tracking.lease_ahead('sink', ${batch!.shard}, ${batch!.lease}, ${size})`
  return ahead ?? null
}

/** Says that the first events of a batch are done with. */
async function advance(batch: Batch | null, events: number, undelivered: object[] = []): Promise<boolean> {
  const { txid, event_id } = batch!.events[events - 1]!
  const [row] = await sql`
    select tracking.advance_batch('sink', ${batch!.shard}, ${batch!.lease}, ${events}, ${txid}, ${event_id}, ${sql.json(undelivered as never)}) as kept`
  return row?.kept
}

async function drain(size?: number): Promise<string[]> {
  const all: string[] = []
  for (let batch = await lease(size); batch; batch = await lease(size)) {
    all.push(...names(batch))
    await complete(batch)
  }
  expect(await sql`select * from tracking.delivery_gaps`).toEqual([])
  return all
}

const names = (batch: Batch | null) => batch?.events.map(({ event }) => event) ?? []

async function lag() {
  const [row] = await sql`
    select pending::int, delivered::int, filtered::int, undelivered::int from tracking.sink_lag`
  return { ...row }
}
